//! The machine is killed at random times of updates: QEMU with SIGKILL, as a host that goes down.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::disk::{View, scramble};
use super::{AGAIN_BY_FIRMWARE, update};
use crate::boot::scratch::Disk;
use crate::boot::turn::Turn;
use crate::boot::{BOOT, keller};

/// How long after the begin of an update the machine may be killed: that takes some of it, and the start of the new
/// version the rest.
const WINDOW: Duration = Duration::from_secs(25);

/// How often it is killed where KELLER_KILLS says nothing. Each costs a boot; every state that a kill can leave on the disk
/// is tried without one in [`super::every_cut_of_a_recorded_update_boots`].
const KILLS: u64 = 4;

struct Machine {
    child: Child,
    console: Receiver<String>,
    seen: String,
}

impl Machine {
    fn start(image: &Path) -> Self {
        let mut command = keller();
        command.args(["boot", "--persist", "--cpus", "1"]).args(AGAIN_BY_FIRMWARE).arg(image);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("keller starts");
        let (sender, console) = mpsc::channel();
        let output = child.stdout.take().expect("piped");
        std::thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                let _ = sender.send(String::from_utf8_lossy(&line).into_owned());
            }
        });
        Self { child, console, seen: String::new() }
    }

    /// What stands behind `text` in the first line that has it, up to a space.
    fn word_behind(&mut self, text: &str) -> String {
        let deadline = Instant::now() + BOOT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.console.recv_timeout(left) else {
                panic!("no {text:?} on the console, which showed:\n{}", self.seen)
            };
            self.seen.push_str(&line);
            self.seen.push('\n');
            if let Some((_, rest)) = line.split_once(text) {
                return rest.split(' ').next().unwrap().to_owned();
            }
        }
    }

    /// Kills QEMU; keller then ends by itself.
    fn kill(mut self) {
        let children = format!("/proc/{0}/task/{0}/children", self.child.id());
        for process in std::fs::read_to_string(children).unwrap().split_whitespace() {
            assert!(Command::new("kill").args(["-KILL", process]).status().unwrap().success());
        }
        self.child.wait().unwrap();
    }
}

#[test]
#[ignore = "long: ci/test --long"]
fn killed_at_any_moment_a_node_boots_and_is_whole() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let kills = number("KELLER_KILLS").unwrap_or(KILLS);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let seed = number("KELLER_SEED").unwrap_or(now);
    println!("KELLER_SEED={seed}");
    let recording = &update().recording;
    let _turn = Turn::take_next();
    let image = Disk::copy(&recording.image, "killed");
    let mut contents = recording.contents.clone();
    let mut ran = [0, 0];
    let mut foretold = 0;
    for kill in 0..=kills {
        let mut machine = Machine::start(&image);
        let version = machine.word_behind("again: ");
        // Three kills in a row before the agent has counted a start as good are reason for /init to take the other.
        let given_up = machine.seen.contains("+0.efi from now on");
        let expected = &recording.judge.versions[foretold].name;
        assert!(version == *expected || given_up, "after kill {kill} not {expected} runs, but {version}");
        ran[usize::from(version == "1.0.1")] += 1;
        if kill == kills {
            machine.kill();
            break;
        }
        machine.word_behind("goes into slot ");
        let after = WINDOW.mul_f64((scramble(seed ^ kill) >> 11) as f64 / (1_u64 << 53) as f64);
        std::thread::sleep(after);
        machine.kill();
        let disk = recording.judge.disk(contents.image(&image));
        let boots = recording.judge.decide(&View::new(&disk, &contents));
        println!("killed {:.1} s after {version} began an update: {boots:?}", after.as_secs_f32());
        foretold = boots.expect("what the disk has is a whole version").version;
    }
    println!("{kills} kills survived; after them 1.0.0 ran {} times, and 1.0.1 {} times", ran[0], ran[1]);
}
