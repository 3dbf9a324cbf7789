//! Whose turn it is to run a machine: more tests run than machines can.

use std::io::Read;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Condvar, Mutex, OnceLock};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

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
    /// What keller and the machine took of a processor.
    taken: Duration,
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
        Self { begun: Instant::now(), machines: count, taken: Duration::ZERO }
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
        Self { begun: Instant::now(), machines: 1, taken: Duration::ZERO }
    }

    /// Runs a `keller boot` to its end.
    pub fn output(&mut self, command: &mut Command) -> Output {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut keller = command.spawn().expect("keller starts");
        let mut errors = keller.stderr.take().expect("piped");
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        std::thread::scope(|scope| {
            scope.spawn(|| errors.read_to_end(&mut stderr).expect("a pipe"));
            keller.stdout.take().expect("piped").read_to_end(&mut stdout).expect("a pipe");
        });
        self.wait(&keller);
        Output { status: keller.wait().expect("it is ours"), stdout, stderr }
    }

    /// Waits for the end of a `keller boot`, which is then still to be waited for, and notes what it took.
    pub fn wait(&mut self, keller: &Child) {
        let ended =
            waitid(WaitId::Pid(Pid::from_child(keller)), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
        if ended.is_ok() {
            self.taken += taken(keller.id());
        }
    }

    /// Notes what a machine of a lab took, which runs still; what it took before its power was cut nobody knows.
    pub fn note(&mut self, machine: Option<u32>) {
        self.taken += machine.map(taken).unwrap_or_default();
    }

    /// Cuts the power of the machine of a `keller boot`, which then ends by itself, and notes what both took.
    pub fn end(&mut self, keller: &mut Child) {
        let pid = Pid::from_child(keller);
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        let runs = || matches!(waitid(WaitId::Pid(pid), options), Ok(None));
        if runs() {
            let children = format!("/proc/{0}/task/{0}/children", keller.id());
            let children = std::fs::read_to_string(children).unwrap_or_default();
            // QEMU, if it has been started, and nothing else.
            match children.trim().parse().ok().and_then(Pid::from_raw) {
                Some(machine) => drop(kill_process(machine, Signal::KILL)),
                None => drop(keller.kill()),
            }
        }
        let begun = Instant::now();
        while runs() && begun.elapsed() < Duration::from_secs(30) {
            std::thread::sleep(Duration::from_millis(20));
        }
        match runs() {
            true => drop(keller.kill()),
            false => self.wait(keller),
        }
        let _ = keller.wait();
    }
}

/// What process `id`, which runs or was not waited for, took of a processor, with all that it has waited for itself.
fn taken(id: u32) -> Duration {
    /// Of proc_pid_stat(5), behind the name: utime, stime, cutime, cstime.
    const TIMES: std::ops::Range<usize> = 11..15;
    /// `USER_HZ`.
    const TICKS_PER_SECOND: u64 = 100;
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    let fields: Vec<u64> = match stat.rsplit_once(')') {
        Some((_, rest)) => rest.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect(),
        None => return Duration::ZERO,
    };
    let ticks: u64 = fields.get(TIMES).unwrap_or_default().iter().sum();
    Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
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
            "{}: a machine ran for {} s and took {} s of a processor",
            thread.name().unwrap_or("a test"),
            self.begun.elapsed().as_secs(),
            self.taken.as_secs()
        );
    }
}

#[test]
fn what_a_program_and_its_machine_took_is_noted_and_both_end() {
    let shell = |script: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    };
    let mut turn = Turn { begun: Instant::now(), machines: 0, taken: Duration::ZERO };
    let output = turn.output(&mut shell("timeout 1 sh -c 'while :; do :; done'; echo ended"));
    assert!(output.status.success() && output.stdout == b"ended\n", "{output:?}");
    let first = turn.taken;
    assert!(first > Duration::ZERO);

    // The machine of this one is killed, and it ends.
    let mut child = shell("sh -c 'while :; do :; done'; echo ended").stdout(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let begun = Instant::now();
    turn.end(&mut child);
    assert!(begun.elapsed() < Duration::from_secs(25), "{:?}", begun.elapsed());
    assert!(child.wait().unwrap().success() && turn.taken > first);
    // One that has been waited for is left alone, and one without a machine is killed.
    turn.end(&mut child);
    let mut none = shell("exec sleep 100").spawn().unwrap();
    turn.end(&mut none);
    assert!(!none.wait().unwrap().success());
    // It was no turn, and is not told as one.
    std::mem::forget(turn);
}
