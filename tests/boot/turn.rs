//! Whose turn it is to run a machine: more tests run than machines can.

use std::sync::{Condvar, Mutex, OnceLock};
use std::time::Instant;

/// Memory of the host for one machine, in KiB: 2 GiB of its own, and QEMU's.
const MEMORY: usize = 3 << 20;

/// How many machines run at a time: one for each processor, which a machine under emulation keeps busy. With a third one on
/// two processors, services have needed more than 90 s for their start. Never fewer than two, so that a test that waits for long
/// does not stop all others.
fn machines() -> usize {
    static MACHINES: OnceLock<usize> = OnceLock::new();
    *MACHINES.get_or_init(|| {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        processors.min(free_memory() / MEMORY).clamp(2, 8)
    })
}

/// Memory that programs could have now, in KiB.
fn free_memory() -> usize {
    let text = std::fs::read_to_string("/proc/meminfo").expect("Linux has it");
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")).expect("Linux has it");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// The right to run one machine, for who asks first. Other tests build and publish meanwhile.
pub struct Turn {
    begun: Instant,
    machines: usize,
}

struct Turns {
    running: usize,
    /// Number of the next who asks, and of the next who may.
    asked: usize,
    served: usize,
    /// Who are let in before all others.
    ahead: usize,
}

static TURNS: (Mutex<Turns>, Condvar) =
    (Mutex::new(Turns { running: 0, asked: 0, served: 0, ahead: 0 }), Condvar::new());

impl Turn {
    pub fn take() -> Self {
        Self::several(1)
    }

    /// The same for so many machines that run together: who holds some and waits for more could wait for ever. More than there
    /// can be run alone.
    pub fn several(count: usize) -> Self {
        let (turns, changed) = &TURNS;
        let mut turns = turns.lock().unwrap();
        let own = turns.asked;
        turns.asked += 1;
        let must_wait = |turns: &mut Turns| !turns.have_room(count) || turns.served != own || turns.ahead > 0;
        turns = changed.wait_while(turns, must_wait).unwrap();
        turns.running += count;
        turns.served += 1;
        changed.notify_all();
        Self { begun: Instant::now(), machines: count }
    }

    /// The next one, for the test that takes longest: in the end it would run alone.
    pub fn take_next() -> Self {
        let (turns, changed) = &TURNS;
        let mut turns = turns.lock().unwrap();
        turns.ahead += 1;
        turns = changed.wait_while(turns, |turns| !turns.have_room(1)).unwrap();
        turns.ahead -= 1;
        turns.running += 1;
        changed.notify_all();
        Self { begun: Instant::now(), machines: 1 }
    }
}

impl Turns {
    fn have_room(&self, count: usize) -> bool {
        self.running == 0 || self.running + count <= machines()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        TURNS.0.lock().unwrap().running -= self.machines;
        TURNS.1.notify_all();
        let thread = std::thread::current();
        println!(
            "{}: a machine ran for {} s",
            thread.name().unwrap_or("a test"),
            self.begun.elapsed().as_secs()
        );
    }
}
