//! The terminal handed to a guest's serial console: keys go through one by one, Ctrl-C stays ours.

use std::io::Read;
use std::process::ChildStdin;
use std::sync::{Arc, Mutex};

use rustix::termios::{self, LocalModes, OptionalActions, Termios};

/// Standard input without line editing and echo; put back as it was when dropped.
pub struct Terminal {
    before: Termios,
}

impl Terminal {
    /// Takes the terminal; nothing where standard input is none.
    pub fn take() -> Option<Self> {
        let input = std::io::stdin();
        let before = termios::tcgetattr(&input).ok()?;
        let mut raw = before.clone();
        raw.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
        termios::tcsetattr(&input, OptionalActions::Now, &raw).ok()?;
        Some(Self { before })
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// Copies what is typed to `target` until either side ends, in the background.
pub fn forward_keys(target: Arc<Mutex<ChildStdin>>) {
    std::thread::spawn(move || {
        use std::io::Write;
        let mut buffer = [0; 256];
        while let Ok(count @ 1..) = std::io::stdin().read(&mut buffer) {
            let mut target = target.lock().expect("no panic while held");
            if target.write_all(&buffer[..count]).and_then(|()| target.flush()).is_err() {
                return;
            }
        }
    });
}
