//! The other consoles of a machine: a unit's output goes to /dev/console, which is one of them, and whoever installs a machine
//! sits at its screen, or at the other end of its serial line.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Mutex, OnceLock};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::base::{input, limits};

static OTHERS: OnceLock<Mutex<Vec<File>>> = OnceLock::new();

/// Where the kernel lists its consoles; the last one is /dev/console.
const ACTIVE: &str = "/sys/class/tty/console/active";

/// How long a console that takes nothing is waited for: a serial line at 9600 baud takes a screen of text in less.
const PATIENCE: Timespec = Timespec { tv_sec: 3, tv_nsec: 0 };

/// Has all that is written from here on go to the other consoles as well.
pub(super) fn join() {
    let active = input::read_text(ACTIVE, limits::WORDS).unwrap_or_default();
    let open = |name: &str| {
        // Opening a line without a carrier would wait for one.
        let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
        OpenOptions::new().write(true).custom_flags(flags).open(Path::new("/dev").join(name)).ok()
    };
    let _ = OTHERS.set(Mutex::new(others(&active).filter_map(open).collect()));
}

/// The names in `active` but for the last.
fn others(active: &str) -> impl Iterator<Item = &str> {
    let count = active.split_whitespace().count().saturating_sub(1);
    active.split_whitespace().take(count)
}

/// Whether there are any that take part.
pub(super) fn are_joined() -> bool {
    OTHERS.get().is_some()
}

/// Writes to those that take part. One that takes nothing any more is left out from then on.
pub(super) fn write(bytes: &[u8]) {
    let Some(others) = OTHERS.get() else { return };
    if let Ok(mut others) = others.lock() {
        others.retain_mut(|console| patiently(console, bytes).is_ok());
    }
}

fn patiently(console: &mut File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match console.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if poll(&mut [PollFd::new(console, PollFlags::OUT)], Some(&PATIENCE))? == 0 {
                    return Err(error);
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn all_but_the_one_that_the_unit_has() {
        assert_eq!(others("tty0 ttyS1 ttyS0\n").collect::<Vec<_>>(), ["tty0", "ttyS1"]);
        assert_eq!(others("ttyS0\n").count() + others("").count(), 0);
    }

    #[test]
    fn a_console_that_takes_nothing_holds_nobody_up_for_long() {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::NONBLOCK).unwrap();
        let (mut reader, mut writer) = (File::from(reader), File::from(writer));
        patiently(&mut writer, b"as it is\n").unwrap();
        let mut text = [0; 9];
        reader.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"as it is\n");
        let error = patiently(&mut writer, &vec![b'x'; 1 << 20]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
