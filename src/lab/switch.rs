//! An Ethernet between machines: a socket each, and a switch in this process that learns who is where. Two threads a
//! machine: one takes its frames in, one hands out what is for it. Neither waits for another machine.

use std::io::BufReader;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::{io, thread};

use super::core::{Condition, Core, Count, Mac};
use super::frames::{self, End};
use super::queue::Queue;

/// The switch and the cables that are plugged in.
pub(super) struct Switch {
    core: Mutex<Core>,
    ports: Vec<Mutex<Port>>,
}

/// One place to plug a cable in.
#[derive(Default)]
struct Port {
    plugged: Option<Plugged>,
    sent: Count,
    received: Count,
    /// Frames that the machine did not take, of cables that are no longer plugged in.
    dropped: u64,
    /// Why the last cable was pulled out, where its machine is at fault.
    fault: Option<String>,
}

struct Plugged {
    stream: UnixStream,
    queue: Arc<Queue>,
}

/// What went through a port.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    /// By the machine.
    pub(super) sent: Count,
    /// By the machine.
    pub(super) received: Count,
    /// For the machine, which did not take them in time.
    pub(super) dropped: u64,
    /// What is wrong with what came from it.
    pub(super) fault: Option<String>,
}

impl Switch {
    /// One of so many ports.
    pub(super) fn new(ports: usize, seed: u64) -> Arc<Self> {
        let core = Mutex::new(Core::new(ports, seed));
        Arc::new(Self { core, ports: (0..ports).map(|_| Mutex::default()).collect() })
    }

    /// Plugs a new cable into `port`, in place of the one that is there; gives the machine's end of it.
    ///
    /// # Errors
    /// Those of the system.
    pub(super) fn plug(self: &Arc<Self>, port: usize) -> io::Result<OwnedFd> {
        let (ours, theirs) = UnixStream::pair()?;
        let (from, to) = (ours.try_clone()?, ours.try_clone()?);
        let queue = Arc::new(Queue::default());
        self.unplug(port);
        let plugged = Plugged { stream: ours, queue: Arc::clone(&queue) };
        {
            let mut place = self.port(port);
            place.plugged = Some(plugged);
            place.fault = None;
        }
        let switch = Arc::clone(self);
        let taken = Arc::clone(&queue);
        thread::spawn(move || switch.take_in(port, from, &taken));
        let switch = Arc::clone(self);
        thread::spawn(move || switch.hand_out(port, to, &queue));
        Ok(theirs.into())
    }

    /// Pulls the cable out of `port`.
    pub(super) fn unplug(&self, port: usize) {
        let plugged = self.port(port).plugged.take();
        if let Some(plugged) = plugged {
            self.let_go(port, &plugged);
        }
    }

    fn let_go(&self, port: usize, plugged: &Plugged) {
        let _ = plugged.stream.shutdown(Shutdown::Both);
        plugged.queue.close();
        self.port(port).dropped += plugged.queue.dropped();
        self.core().forget(port);
    }

    /// Frames of a machine, until its cable is pulled out. `own` is the queue of that cable.
    fn take_in(&self, port: usize, from: UnixStream, own: &Arc<Queue>) {
        let mut from = BufReader::with_capacity(64 << 10, from);
        let mut frame = Vec::new();
        let end = loop {
            if let Err(end) = frames::read(&mut from, &mut frame) {
                break end;
            }
            // Held until the frame is on its way: a cut comes before it or after it.
            let mut core = self.core();
            self.port(port).sent.add(frame.len());
            let deliveries = core.forward(port, &frame);
            if deliveries.is_empty() {
                continue;
            }
            let shared: Arc<[u8]> = frame.as_slice().into();
            for delivery in deliveries {
                if let Some(plugged) = &self.port(delivery.port).plugged {
                    plugged.queue.push(port, delivery.delay, &shared);
                }
            }
        };
        // Another cable may be there by now.
        let mut place = self.port(port);
        let Some(plugged) = place.plugged.take_if(|plugged| Arc::ptr_eq(&plugged.queue, own)) else { return };
        if let End::Oversized(bytes) = end {
            place.fault = Some(format!(
                "it sent {bytes} bytes as one frame, and {} are the most: its cable was pulled out",
                frames::LARGEST
            ));
        }
        drop(place);
        self.let_go(port, &plugged);
    }

    /// Frames for a machine, until its cable is pulled out.
    fn hand_out(&self, port: usize, mut to: UnixStream, queue: &Queue) {
        while let Some(frame) = queue.pop() {
            if frames::write(&mut to, &frame).is_err() {
                return;
            }
            self.port(port).received.add(frame.len());
        }
    }

    /// Has the cable between two ports do this from now on.
    pub(super) fn set(&self, a: usize, b: usize, condition: Condition) {
        let mut core = self.core();
        core.set(a, b, condition);
        if condition.cut {
            for (to, from) in [(a, b), (b, a)] {
                if let Some(plugged) = &self.port(to).plugged {
                    core.lose(plugged.queue.cut(from));
                }
            }
        }
    }

    /// What the cable between two ports does.
    pub(super) fn condition(&self, a: usize, b: usize) -> Condition {
        self.core().condition(a, b)
    }

    /// The cables that are not whole.
    pub(super) fn conditions(&self) -> Vec<((usize, usize), Condition)> {
        self.core().conditions().collect()
    }

    /// Frames by source and destination, those between addresses that are not told apart, and those that cables swallowed.
    pub(super) fn traffic(&self) -> (Vec<((Mac, Mac), Count)>, Count, u64) {
        let core = self.core();
        (core.traffic().collect(), core.others(), core.lost())
    }

    /// What went through a port.
    pub(super) fn counts(&self, port: usize) -> Counts {
        let place = self.port(port);
        let waiting = place.plugged.as_ref().map_or(0, |plugged| plugged.queue.dropped());
        Counts {
            sent: place.sent,
            received: place.received,
            dropped: place.dropped + waiting,
            fault: place.fault.clone(),
        }
    }

    fn core(&self) -> std::sync::MutexGuard<'_, Core> {
        self.core.lock().expect("no panic while held")
    }

    fn port(&self, port: usize) -> std::sync::MutexGuard<'_, Port> {
        self.ports[port].lock().expect("no panic while held")
    }
}

impl Count {
    fn add(&mut self, bytes: usize) {
        self.frames += 1;
        self.bytes += crate::base::width::to_u64(bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::time::{Duration, Instant};

    use super::*;

    /// Far more than any of it takes, on a busy machine.
    const LIMIT: Duration = Duration::from_secs(60);

    fn plug(switch: &Arc<Switch>, port: usize) -> UnixStream {
        let stream = UnixStream::from(switch.plug(port).unwrap());
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream
    }

    fn frame(to: &str, from: &str, text: &str) -> Vec<u8> {
        let to = if to == "all" { Mac([0xff; 6]) } else { Mac::of(to) };
        [&to.0[..], &Mac::of(from).0, &[0x88, 0xb5], text.as_bytes()].concat()
    }

    fn send(stream: &mut UnixStream, frame: &[u8]) {
        frames::write(stream, frame).unwrap();
    }

    fn receive(stream: &mut UnixStream) -> String {
        let mut frame = Vec::new();
        frames::read(stream, &mut frame).unwrap();
        String::from_utf8(frame[14..].to_vec()).unwrap()
    }

    fn wait_until(mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + LIMIT;
        while !holds() {
            assert!(Instant::now() < deadline, "it did not come so");
            thread::sleep(Duration::from_millis(2));
        }
    }

    #[test]
    fn machines_hear_each_other_and_what_is_theirs() {
        let switch = Switch::new(3, 1);
        let [mut a, mut b, mut c] = [0, 1, 2].map(|port| plug(&switch, port));
        send(&mut a, &frame("all", "a", "who is b"));
        assert_eq!([receive(&mut b), receive(&mut c)], ["who is b", "who is b"]);
        send(&mut b, &frame("a", "b", "I am"));
        assert_eq!(receive(&mut a), "I am");
        send(&mut a, &frame("b", "a", "only b"));
        send(&mut a, &frame("all", "a", "all again"));
        assert_eq!([receive(&mut b), receive(&mut b), receive(&mut c)], ["only b", "all again", "all again"]);
        wait_until(|| switch.counts(2).received.frames == 2);
        assert_eq!(switch.counts(0).sent.frames, 3);
        // A machine that starts over has a cable of its own.
        let mut b = plug(&switch, 1);
        send(&mut b, &frame("a", "b", "back"));
        assert_eq!(receive(&mut a), "back");
    }

    #[test]
    fn a_cut_cable_is_mended() {
        let switch = Switch::new(2, 1);
        let [mut a, mut b] = [0, 1].map(|port| plug(&switch, port));
        let condition = |cut, delay| Condition { cut, delay, loss: 0 };
        // What is on its way when the cable is cut never comes.
        switch.set(0, 1, condition(false, Duration::from_secs(3600)));
        send(&mut a, &frame("all", "a", "on its way"));
        wait_until(|| switch.counts(0).sent.frames == 1);
        switch.set(0, 1, condition(true, Duration::ZERO));
        send(&mut a, &frame("all", "a", "cut off"));
        // Both of them are counted.
        wait_until(|| switch.traffic().2 == 2);
        switch.set(0, 1, condition(false, Duration::ZERO));
        send(&mut a, &frame("all", "a", "mended"));
        assert_eq!(receive(&mut b), "mended");
    }

    #[test]
    fn a_stream_that_holds_no_frames_is_pulled_out() {
        let switch = Switch::new(2, 1);
        let [mut a, mut b] = [0, 1].map(|port| plug(&switch, port));
        a.write_all(&u32::MAX.to_be_bytes()).unwrap();
        assert_eq!(a.read(&mut [0; 1]).unwrap(), 0);
        let fault = switch.counts(0).fault.unwrap();
        assert!(
            fault.starts_with("it sent 4294967295 bytes as one frame, and 69632 are the most"),
            "{fault}"
        );
        // One that is cut off in the middle of a frame is as one that has ended.
        let mut a = plug(&switch, 0);
        a.write_all(&[0, 0, 0, 60, 1, 2, 3]).unwrap();
        drop(a);
        wait_until(|| switch.port(0).plugged.is_none());
        assert_eq!(switch.counts(0).fault, None);
        // The others go on.
        let mut a = plug(&switch, 0);
        send(&mut b, &frame("all", "b", "still here"));
        assert_eq!(receive(&mut a), "still here");
    }

    #[test]
    fn a_machine_that_does_not_read_holds_up_nobody() {
        let switch = Switch::new(3, 1);
        let [mut a, _deaf, mut c] = [0, 1, 2].map(|port| plug(&switch, port));
        let large = frame("all", "a", &"x".repeat(1400));
        let reader = thread::spawn(move || (0..20_000).all(|_| receive(&mut c).len() == 1400));
        for _ in 0..20_000 {
            send(&mut a, &large);
            // The one that reads is to get them all: it is a thread among others.
            wait_until(|| switch.counts(0).sent.frames < switch.counts(2).received.frames + 500);
        }
        assert!(reader.join().unwrap());
        let counts = switch.counts(1);
        assert!(counts.dropped > 15_000 && counts.received.frames < 5000, "{counts:?}");
        // A pulled cable ends the threads that wait at it.
        switch.unplug(1);
        assert_eq!(switch.counts(1).dropped, counts.dropped);
    }
}
