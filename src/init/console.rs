//! What `/init` says: steps into the kernel's log, failures onto every console.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::system::RebootCommand;

use super::chroot::{self, ROOT};
use crate::base::failure::Failure;
use crate::base::kernel::uptime;
use crate::base::terminal::one_line;

/// How long a failure stays on the screen before the reboot. Long enough to read it or take a photo, short
/// enough that the boot loader's next try comes soon.
const READING_TIME: Duration = Duration::from_secs(10);

/// Priorities of `/dev/kmsg`: facility "user" times 8 plus syslog's level. Notices reach the consoles unless
/// the command line says `quiet`.
const NOTICE: u8 = 8 + 5;
const WARNING: u8 = 8 + 4;
const CRITICAL: u8 = 8 + 2;

/// The kernel's log and the consoles.
#[derive(Debug)]
pub(super) struct Console {
    log: Option<File>,
}

impl Console {
    /// Opens the log. `/dev` must be there; without a log, failures still reach the consoles.
    pub(super) fn open() -> Self {
        // The kernel takes ten lines in five seconds from a program that does not ask for more.
        let _ = fs::write("/proc/sys/kernel/printk_devkmsg", "on\n");
        Self { log: OpenOptions::new().write(true).open("/dev/kmsg").ok() }
    }

    /// One that says nothing.
    #[cfg(test)]
    pub(super) const fn silent() -> Self {
        Self { log: None }
    }

    /// A step that was done.
    pub(super) fn say(&self, text: &str) {
        self.write(NOTICE, text);
    }

    /// Something that a person should look at; the boot goes on.
    pub(super) fn warn(&self, text: &str) {
        self.write(WARNING, text);
    }

    /// Something that must not be missed, on every console; the boot goes on.
    pub(super) fn alarm(&self, lines: &[String]) {
        for line in lines {
            self.write(CRITICAL, &format!("*** {line}"));
        }
    }

    fn write(&self, priority: u8, text: &str) {
        if let Some(log) = &self.log {
            let mut log = log;
            // One write is one record, which the kernel writes to the consoles as it is.
            let _ = log.write_all(record(priority, text).as_bytes());
        }
    }

    /// Says why the boot failed and starts over; with `debug`, after a shell has ended.
    pub(super) fn fail(&self, failure: &Failure, debug: bool) -> ! {
        // The log keeps the lines, the screens get them from here: else each would show them twice.
        let _ = fs::write("/proc/sys/kernel/printk", "1\n");
        let lines = failure.lines();
        for line in &lines {
            self.write(CRITICAL, line);
        }
        let mut screen =
            vec![String::new(), format!("*** keller: this boot failed after {:.1} s, while", uptime())];
        screen.extend(lines);
        show(&screen);
        if debug {
            match shell() {
                Ok(()) => show(&["The shell has ended; rebooting.".to_owned()]),
                Err(problem) => show(&[format!("keller.debug: {problem}")]),
            }
        } else {
            show(&[format!(
                "Rebooting in {} s. keller.debug on the kernel command line gives a shell here.",
                READING_TIME.as_secs()
            )]);
        }
        // A disk that hangs must not keep the machine from starting over, so nobody waits for this.
        let _ = std::thread::Builder::new().spawn(rustix::fs::sync);
        std::thread::sleep(READING_TIME);
        let _ = rustix::system::reboot(RebootCommand::Restart);
        let _ = fs::write("/proc/sysrq-trigger", "b");
        // Ending would make the kernel panic, and that reboots too, if panic= says so.
        std::process::exit(1)
    }

    /// Gives the log back as the kernel had it.
    pub(super) fn close(self) {
        let _ = fs::write("/proc/sys/kernel/printk_devkmsg", "ratelimit\n");
    }
}

/// A record of the log.
fn record(priority: u8, text: &str) -> String {
    format!("<{priority}>keller: [{:.2}] {}\n", uptime(), one_line(text))
}

/// `lines` as a console has them. A disk, a document or a server may have named what they speak of.
fn screen(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{}\r\n", one_line(line))).collect()
}

/// Writes to each console that the kernel uses.
fn show(lines: &[String]) {
    let active = fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
    let mut names: Vec<&str> = active.split_whitespace().collect();
    if names.is_empty() {
        names.push("console");
    }
    let text = screen(lines);
    for name in names {
        if let Ok(mut console) = OpenOptions::new().write(true).open(Path::new("/dev").join(name)) {
            let _ = console.write_all(text.as_bytes());
        }
    }
}

/// Runs a shell of the root on the console, or one of the initramfs, until it ends.
fn shell() -> Result<(), String> {
    let in_root = Path::new(ROOT).join("bin/sh").exists();
    if !in_root && !Path::new("/bin/sh").exists() {
        return Err("neither the root nor the initramfs has /bin/sh".to_owned());
    }
    let open = || OpenOptions::new().read(true).write(true).open("/dev/console").map_err(|e| e.to_string());
    let mut command = match in_root {
        true => chroot::in_root("/bin/sh"),
        false => Command::new("/bin/sh"),
    };
    command.stdin(Stdio::from(open()?)).stdout(Stdio::from(open()?)).stderr(Stdio::from(open()?));
    let become_leader = || {
        rustix::process::setsid()?;
        // Job control needs a terminal of its own; a console that cannot be one still runs a shell.
        let _ = rustix::process::ioctl_tiocsctty(rustix::stdio::stdin());
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes system calls only.
    unsafe { command.pre_exec(become_leader) };
    show(&["keller.debug: a shell, in the root if it is mounted; its end reboots.".to_owned()]);
    command.status().map(drop).map_err(|error| format!("starting a shell: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_do_nothing_to_a_console() {
        let evil = "label \u{1b}[2J\u{9b}1m\u{202e}\nkeller: all is well";
        let shown = r"label \u{1b}[2J\u{9b}1m\u{202e}\u{a}keller: all is well";
        assert_eq!(screen(&["one".to_owned(), evil.to_owned()]), format!("one\r\n{shown}\r\n"));
        assert!(record(NOTICE, evil).ends_with(&format!("] {shown}\n")));
    }
}
