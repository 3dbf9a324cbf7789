//! A machine's console: what it writes goes into a file and to whoever watches, what they type goes to the machine. It
//! stays the same when the machine is started over.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ChildStdin;
use std::sync::{Arc, Mutex, MutexGuard};

use rustix::net::{SendFlags, send};

use crate::base::Size;
use crate::base::width::to_u64;
use crate::qemu::process::Sink;

/// The largest file of a console: a machine that writes without end fills no disk.
const LARGEST: Size = Size::mib(256);

/// How much whoever begins to watch is shown of what came before, in bytes.
const RECENT: usize = 8 << 10;

/// Most that watch one console.
const WATCHERS: usize = 16;

/// A console.
pub(super) struct Outlet {
    state: Mutex<State>,
}

struct State {
    file: File,
    written: u64,
    recent: VecDeque<u8>,
    watchers: Vec<UnixStream>,
    input: Option<Arc<Mutex<ChildStdin>>>,
    /// Why the file no longer gets what the machine writes.
    fault: Option<String>,
    was_told: bool,
}

impl Outlet {
    /// Begins the file at `path` anew.
    ///
    /// # Errors
    /// Those of the system.
    pub(super) fn create(path: &Path) -> std::io::Result<Arc<Self>> {
        let state = State {
            file: File::create(path)?,
            written: 0,
            recent: VecDeque::new(),
            watchers: Vec::new(),
            input: None,
            fault: None,
            was_told: false,
        };
        Ok(Arc::new(Self { state: Mutex::new(state) }))
    }

    /// Takes what a machine writes.
    pub(super) fn sink(self: &Arc<Self>) -> Sink {
        let outlet = Arc::clone(self);
        Box::new(move |bytes| outlet.state().take(bytes))
    }

    /// Has what is typed go there from now on.
    pub(super) fn lead_to(&self, input: Option<Arc<Mutex<ChildStdin>>>) {
        self.state().input = input;
    }

    /// Whether one more may watch.
    pub(super) fn has_room(&self) -> bool {
        self.state().watchers.len() < WATCHERS
    }

    /// Shows `stream` the latest output and all that comes; whoever does not read loses the connection.
    pub(super) fn watch(&self, stream: UnixStream) {
        let mut state = self.state();
        let recent: Vec<u8> = state.recent.iter().copied().collect();
        if hand(&stream, &recent) {
            state.watchers.push(stream);
        }
    }

    /// Shows nothing more to whoever is at the other end of `stream`.
    pub(super) fn leave(&self, stream: &UnixStream) {
        let _ = stream.shutdown(Shutdown::Both);
        // Those that nobody reads are found when something comes, or here.
        self.state().watchers.retain(|watcher| hand(watcher, b""));
    }

    /// Types `bytes`; a machine that is off takes none.
    pub(super) fn type_in(&self, bytes: &[u8]) {
        let input = self.state().input.clone();
        if let Some(input) = input {
            let mut input = input.lock().expect("no panic while held");
            let _ = input.write_all(bytes).and_then(|()| input.flush());
        }
    }

    /// What is wrong with the file; said once.
    pub(super) fn fault(&self) -> Option<String> {
        let mut state = self.state();
        let fault = state.fault.clone().filter(|_| !state.was_told);
        state.was_told |= fault.is_some();
        fault
    }

    /// Lets go of all who watch.
    pub(super) fn close(&self) {
        for watcher in self.state().watchers.drain(..) {
            let _ = watcher.shutdown(Shutdown::Both);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while held")
    }
}

impl State {
    fn take(&mut self, bytes: &[u8]) {
        if self.fault.is_none() {
            self.written += to_u64(bytes.len());
            if self.written > LARGEST.bytes() {
                self.fault = Some(format!("its console has {}: no more is written down", LARGEST.human()));
            } else if let Err(error) = self.file.write_all(bytes) {
                self.fault = Some(format!("its console can no longer be written down: {error}"));
            }
        }
        self.recent.extend(bytes);
        let surplus = self.recent.len().saturating_sub(RECENT);
        self.recent.drain(..surplus);
        self.watchers.retain(|watcher| hand(watcher, bytes));
    }
}

/// Hands over what the reader's buffer takes at once; false where it does not take all.
fn hand(stream: &UnixStream, bytes: &[u8]) -> bool {
    let took = send(stream, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    let is_whole = took.is_ok_and(|count| count == bytes.len());
    if !is_whole {
        let _ = stream.shutdown(Shutdown::Both);
    }
    is_whole
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn what_comes_is_kept_and_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("console.log");
        let outlet = Outlet::create(&path).unwrap();
        let mut sink = outlet.sink();
        sink(b"before\n");
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        outlet.watch(ours);
        sink(b"after\n");
        outlet.close();
        let mut seen = String::new();
        theirs.read_to_string(&mut seen).unwrap();
        assert_eq!(seen, "before\nafter\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), seen);
        // Nobody is there to take it.
        outlet.type_in(b"x");
        assert_eq!(outlet.fault(), None);
    }

    #[test]
    fn whoever_does_not_read_loses_the_connection() {
        let folder = tempfile::tempdir().unwrap();
        let outlet = Outlet::create(&folder.path().join("console.log")).unwrap();
        let (ours, _theirs) = UnixStream::pair().unwrap();
        outlet.watch(ours);
        let mut sink = outlet.sink();
        for _ in 0..1000 {
            sink(&[b'x'; 4096]);
        }
        let state = outlet.state();
        assert_eq!((state.watchers.len(), state.recent.len(), state.written), (0, RECENT, 4_096_000));
    }
}
