//! The socket in a lab's directory, by which other programs of the same user ask it for something: a request a connection,
//! a line of JSON each way.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use serde_json::json;

use super::outlet::Outlet;
use super::request::{Answer, Request};
use super::supervisor::{Message, Reply};
use crate::base::json;

/// The socket's name in the lab's directory: no machine has a dot in its name.
pub(super) const SOCKET: &str = "lab.control";

/// Longest request, in bytes.
const LONGEST: u64 = 4096;

/// Most values of a request.
const VALUES: usize = 16;

/// How long a request may take to come.
const PATIENCE: Duration = Duration::from_secs(10);

/// Most connections at once.
const CONNECTIONS: usize = 64;

/// How often it is looked whether the lab has ended.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// What a connection needs.
struct Desk {
    messages: Sender<Message>,
    outlets: BTreeMap<String, Arc<Outlet>>,
    connections: AtomicUsize,
}

/// The socket, open for requests until it is dropped.
pub(super) struct Control {
    path: PathBuf,
    is_over: Arc<AtomicBool>,
}

impl Control {
    /// Opens the socket in `directory`, in place of one that an ended lab left.
    ///
    /// # Errors
    /// Those of the system.
    pub(super) fn open(
        directory: &Path,
        messages: Sender<Message>,
        outlets: BTreeMap<String, Arc<Outlet>>,
    ) -> io::Result<Self> {
        let path = directory.join(SOCKET);
        let listener = listen(directory, &path)?;
        let desk = Arc::new(Desk { messages, outlets, connections: AtomicUsize::new(0) });
        let is_over = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&is_over);
        thread::spawn(move || serve(&listener, &desk, &ends));
        Ok(Self { path, is_over })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        let _ = fs::remove_file(&self.path);
    }
}

/// Makes the socket where nobody else can enter, and gives it its name when it is for its owner alone.
fn listen(directory: &Path, path: &Path) -> io::Result<UnixListener> {
    let private = tempfile::Builder::new().prefix(".control-").tempdir_in(directory)?;
    let new = private.path().join(SOCKET);
    let listener = UnixListener::bind(short(&open(private.path())?, SOCKET))?;
    fs::set_permissions(&new, Permissions::from_mode(0o600))?;
    fs::rename(&new, path)?;
    Ok(listener)
}

/// Opens a directory for [`short`], and nothing else: a pipe would be waited for.
pub(super) fn open(folder: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(folder, flags, Mode::empty())?)
}

/// The path of `name` in an open `folder`, short enough for the address of a socket (108 bytes) wherever it lies.
pub(super) fn short(folder: &OwnedFd, name: &str) -> PathBuf {
    format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()).into()
}

fn serve(listener: &UnixListener, desk: &Arc<Desk>, is_over: &AtomicBool) {
    while !is_over.load(Ordering::SeqCst) {
        let mut waits = [PollFd::new(listener, PollFlags::IN)];
        match poll(&mut waits, Some(&LOOK)) {
            Ok(1..) => {}
            _ => continue,
        }
        let Ok((stream, _)) = listener.accept() else { continue };
        let desk = Arc::clone(desk);
        thread::spawn(move || {
            let before = desk.connections.fetch_add(1, Ordering::SeqCst);
            match before < CONNECTIONS {
                true => desk.attend(&stream),
                false => say(&stream, Err(format!("{CONNECTIONS} connections are open already"))),
            }
            desk.connections.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

impl Desk {
    fn attend(&self, stream: &UnixStream) {
        let request = match hear(stream) {
            Ok(request) => request,
            Err(why) => return say(stream, Err(why)),
        };
        if let Request::Console { name } = &request {
            return self.console(stream, name);
        }
        say(stream, self.ask(request));
    }

    fn ask(&self, request: Request) -> Reply {
        let over = || "the lab has ended".to_owned();
        let (sender, reply) = channel();
        self.messages.send(Message::Ask(request, sender)).map_err(|_| over())?;
        reply.recv().map_err(|_| over())?
    }

    /// Leads a console to the connection until either side has enough.
    fn console(&self, stream: &UnixStream, name: &str) {
        let Some(outlet) = self.outlets.get(name) else {
            let names: Vec<_> = self.outlets.keys().map(String::as_str).collect();
            let why = format!("no machine of this lab is named {name:?}: there are {}", names.join(", "));
            return say(stream, Err(why));
        };
        if !outlet.has_room() {
            return say(stream, Err(format!("too many watch the console of {name} already")));
        }
        let Ok(watcher) = stream.try_clone() else { return };
        say(stream, Ok(json!({ "console": name })));
        outlet.watch(watcher);
        if stream.set_read_timeout(None).is_err() {
            return outlet.leave(stream);
        }
        let (mut stream, mut buffer) = (stream, [0; 256]);
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            outlet.type_in(&buffer[..count]);
        }
        outlet.leave(stream);
    }
}

/// The request that comes over `stream`; else what is wrong with it.
fn hear(stream: &UnixStream) -> Result<Request, String> {
    let timeouts = stream.set_read_timeout(Some(PATIENCE)).and(stream.set_write_timeout(Some(PATIENCE)));
    timeouts.map_err(|error| error.to_string())?;
    let mut line = Vec::new();
    // No further than the line: what follows it is typed at a console.
    let mut one = BufReader::with_capacity(1, stream).take(LONGEST);
    one.read_until(b'\n', &mut line).map_err(|error| format!("reading the request: {error}"))?;
    if line.last() != Some(&b'\n') {
        return Err(format!("a request is a line of at most {LONGEST} bytes"));
    }
    json::parse(&line, VALUES).map_err(|error| format!("the request cannot be understood: {error}"))
}

fn say(mut stream: &UnixStream, reply: Reply) {
    let answer = match reply {
        Ok(value) => Answer::Done(value),
        Err(why) => Answer::Error(why),
    };
    if let Ok(mut line) = serde_json::to_vec(&answer) {
        line.push(b'\n');
        // Whoever asked may have gone.
        let _ = stream.write_all(&line);
    }
}
