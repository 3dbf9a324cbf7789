//! Frames that wait for their time at a port, and for a guest to take them. What does not fit is dropped, as a switch does.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// Most bytes that wait at a port: a fifth of a second at 100 Mbit/s is 2.5 MB.
const MOST: usize = 4 << 20;

/// What a frame takes besides its bytes.
const OVERHEAD: usize = 128;

/// Frames on their way to one port.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// By the time at which they are due, and in the order in which they came.
    waiting: BTreeMap<(Instant, u64), Waiting>,
    /// When the latest frame of each port is due: a delay that ends lets nothing overtake.
    latest: BTreeMap<usize, Instant>,
    bytes: usize,
    serial: u64,
    dropped: u64,
    is_closed: bool,
}

struct Waiting {
    from: usize,
    frame: Arc<[u8]>,
}

impl Queue {
    /// Has `frame`, which came from a port, wait for `delay`.
    pub(super) fn push(&self, from: usize, delay: Duration, frame: &Arc<[u8]>) {
        let mut state = self.state.lock().expect("no panic while held");
        let size = frame.len() + OVERHEAD;
        if state.is_closed || state.bytes + size > MOST {
            state.dropped += 1;
            return;
        }
        let earliest = Instant::now() + delay;
        let due = state.latest.get(&from).copied().filter(|latest| *latest > earliest).unwrap_or(earliest);
        state.latest.insert(from, due);
        state.serial += 1;
        state.bytes += size;
        let key = (due, state.serial);
        state.waiting.insert(key, Waiting { from, frame: Arc::clone(frame) });
        self.changed.notify_all();
    }

    /// The next frame, once it is due; nothing when the queue is closed.
    pub(super) fn pop(&self) -> Option<Arc<[u8]>> {
        let mut state = self.state.lock().expect("no panic while held");
        loop {
            if state.is_closed {
                return None;
            }
            let now = Instant::now();
            let left = state.waiting.keys().next().map(|(due, _)| due.saturating_duration_since(now));
            state = match left {
                Some(Duration::ZERO) => {
                    let (_, first) = state.waiting.pop_first()?;
                    state.bytes -= first.frame.len() + OVERHEAD;
                    return Some(first.frame);
                }
                Some(left) => self.changed.wait_timeout(state, left).expect("no panic while held").0,
                None => self.changed.wait(state).expect("no panic while held"),
            };
        }
    }

    /// Drops what is on its way from `port`: the cable has been cut. Gives the number of frames.
    pub(super) fn cut(&self, port: usize) -> u64 {
        let mut state = self.state.lock().expect("no panic while held");
        let before = state.waiting.len();
        state.waiting.retain(|_, waiting| waiting.from != port);
        let lost = crate::base::width::to_u64(before - state.waiting.len());
        state.bytes = state.waiting.values().map(|waiting| waiting.frame.len() + OVERHEAD).sum();
        state.latest.remove(&port);
        lost
    }

    /// Frames that did not fit.
    pub(super) fn dropped(&self) -> u64 {
        self.state.lock().expect("no panic while held").dropped
    }

    /// Nobody is there any more.
    pub(super) fn close(&self) {
        let mut state = self.state.lock().expect("no panic while held");
        state.is_closed = true;
        state.waiting.clear();
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(text: &str) -> Arc<[u8]> {
        text.as_bytes().into()
    }

    fn next(queue: &Queue) -> String {
        String::from_utf8(queue.pop().unwrap().to_vec()).unwrap()
    }

    #[test]
    fn a_delay_keeps_the_order_of_each_sender() {
        let queue = Queue::default();
        let begun = Instant::now();
        let late = Duration::from_millis(120);
        queue.push(1, late, &frame("late 1"));
        queue.push(1, late, &frame("late 2"));
        queue.push(2, Duration::ZERO, &frame("at once"));
        // The delay has ended, and what was sent before it still comes first.
        queue.push(1, Duration::ZERO, &frame("late 3"));
        assert_eq!(next(&queue), "at once");
        assert!(begun.elapsed() < late, "{:?}", begun.elapsed());
        assert_eq!([next(&queue), next(&queue), next(&queue)], ["late 1", "late 2", "late 3"]);
        assert!(begun.elapsed() >= late);
    }

    #[test]
    fn a_cut_takes_what_is_on_its_way() {
        let queue = Queue::default();
        queue.push(1, Duration::from_secs(3600), &frame("of one"));
        queue.push(2, Duration::ZERO, &frame("of two"));
        assert_eq!(queue.cut(1), 1);
        assert_eq!((next(&queue).as_str(), queue.dropped()), ("of two", 0));
        assert!(queue.state.lock().unwrap().waiting.is_empty());
        assert_eq!(queue.state.lock().unwrap().bytes, 0);
        // What comes after the mending does not wait for what was cut off.
        queue.push(1, Duration::ZERO, &frame("after"));
        assert_eq!(next(&queue), "after");
    }

    #[test]
    fn what_nobody_takes_is_dropped() {
        let queue = Queue::default();
        let large: Arc<[u8]> = vec![0; 1500].into();
        for _ in 0..100_000 {
            queue.push(0, Duration::ZERO, &large);
        }
        let state = queue.state.lock().unwrap();
        assert!(state.bytes <= MOST && state.waiting.len() < 3000, "{}", state.waiting.len());
        assert_eq!(state.dropped, 100_000 - crate::base::width::to_u64(state.waiting.len()));
    }

    #[test]
    fn a_closed_queue_lets_go() {
        let queue = Arc::new(Queue::default());
        let waiting = std::thread::spawn({
            let queue = Arc::clone(&queue);
            move || queue.pop()
        });
        queue.close();
        assert!(waiting.join().unwrap().is_none());
        queue.push(0, Duration::ZERO, &frame("too late"));
        assert_eq!(queue.dropped(), 1);
    }
}
