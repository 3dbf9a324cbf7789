//! A small HTTP server on loopback that misbehaves as told.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// What is done with one request.
#[derive(Clone, Debug)]
pub enum Act {
    /// Answered as it should be, ranges and If-Range included.
    Serve,
    /// Answered in full, whatever range was asked for.
    ServeWhole,
    /// A status and nothing else.
    Status(u16),
    /// A status and this header line.
    StatusWith(u16, String),
    /// The file up to that byte of it, then the connection is reset.
    ResetAt(usize),
    /// The file up to that byte of it, then silence.
    HangAt(usize),
    /// Silence from the start.
    Hang,
    /// The same for a part that begins in this stretch of the file; others are served.
    HangIn(Range<usize>),
    /// The connection is closed without an answer.
    Close,
    /// Something that is not HTTP.
    Garbage,
    /// These bytes instead of the file's.
    Other(Vec<u8>),
    /// A byte at a time, with pauses.
    Trickle,
    /// Without a length: as chunks that never end.
    Endless,
    /// The same, after a while.
    Late(Duration, Box<Act>),
    /// A head that comes a byte at a time, with pauses.
    DripHead,
    /// Lines of a head that never ends.
    EndlessHead,
    /// These bytes, head and all.
    Raw(Vec<u8>),
}

/// What was asked.
#[derive(Clone, Debug)]
pub struct Request {
    /// First line, without the version.
    pub line: String,
    /// By lower-case name.
    pub headers: BTreeMap<String, String>,
    /// What came with it.
    pub body: Vec<u8>,
    /// Bytes of content that were sent; nothing while the answer is under way.
    pub sent: Option<u64>,
}

impl Request {
    /// What was asked for.
    pub fn path(&self) -> &str {
        self.line.strip_prefix("GET ").unwrap_or(&self.line)
    }
}

#[derive(Default)]
struct State {
    files: BTreeMap<String, (Vec<u8>, Vec<Act>)>,
    seen: Vec<Request>,
}

/// Runs until the test program ends.
pub struct Server {
    port: u16,
    state: Arc<Mutex<State>>,
}

impl Server {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::<Mutex<State>>::default();
        let shared = state.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = shared.clone();
                thread::spawn(move || handle(stream, &state));
            }
        });
        Self { port, state }
    }

    /// Has `path` answered with `bytes`: the first request as the first of `acts` says, and so on; further
    /// ones as the last says.
    pub fn put(&self, path: &str, bytes: impl Into<Vec<u8>>, acts: &[Act]) {
        let mut acts = acts.to_vec();
        acts.reverse();
        self.state.lock().unwrap().files.insert(path.to_owned(), (bytes.into(), acts));
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Request> {
        self.state.lock().unwrap().seen.clone()
    }

    /// What was answered from the request `since` on, counted from 0, once no answer is under way: bytes of content
    /// by path.
    pub fn sent(&self, since: usize) -> BTreeMap<String, u64> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let seen = self.seen();
            let requests = seen.get(since..).unwrap_or_default();
            if requests.iter().all(|request| request.sent.is_some()) {
                let mut sent = BTreeMap::new();
                for request in requests {
                    *sent.entry(request.path().to_owned()).or_default() += request.sent.unwrap_or_default();
                }
                return sent;
            }
            assert!(Instant::now() < deadline, "an answer does not end: {requests:?}");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// The end of an answer's head where nothing follows, not even another answer.
const EMPTY: &str = "Content-Length: 0\r\nConnection: close\r\n\r\n";

/// Counts the bytes of an answer's content.
struct Body<'a> {
    stream: &'a mut TcpStream,
    sent: u64,
}

impl Write for Body<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.stream.write(bytes)?;
        self.sent += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.stream.flush()
    }
}

fn handle(mut stream: TcpStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut lines = reader.by_ref().lines().map_while(Result::ok);
    let Some(line) = lines.next() else { return };
    let headers: BTreeMap<String, String> = lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_once(':').map(|(n, v)| (n.to_lowercase(), v.trim().to_owned())))
        .collect();
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or_default();
    let mut content = vec![0; length];
    if reader.read_exact(&mut content).is_err() {
        return;
    }
    let line = line.trim_end_matches(" HTTP/1.1").to_owned();
    // A proxy is asked for a whole address.
    let target = line.strip_prefix("GET ").or_else(|| line.strip_prefix("POST ")).unwrap_or_default();
    let path = match target.strip_prefix("http://") {
        Some(rest) => rest.find('/').map_or("/", |index| &rest[index..]).to_owned(),
        None => target.to_owned(),
    };
    let range = headers.get("range").cloned();
    let condition = headers.get("if-range").cloned();
    let (number, bytes, act) = {
        let mut state = state.lock().unwrap();
        state.seen.push(Request { line, headers, body: content, sent: None });
        let number = state.seen.len() - 1;
        match state.files.get_mut(&path) {
            Some((bytes, acts)) => {
                let act = if acts.len() > 1 { acts.pop() } else { acts.last().cloned() };
                (number, bytes.clone(), act.unwrap_or(Act::Serve))
            }
            None => (number, Vec::new(), Act::Status(404)),
        }
    };
    // The client may have gone away: that is its good right.
    let mut body = Body { stream: &mut stream, sent: 0 };
    let _ = answer(&mut body, &act, &bytes, range, condition);
    let sent = body.sent;
    let _ = stream.shutdown(Shutdown::Write);
    state.lock().unwrap().seen[number].sent = Some(sent);
}

fn answer(
    body: &mut Body<'_>,
    act: &Act,
    bytes: &[u8],
    range: Option<String>,
    condition: Option<String>,
) -> std::io::Result<()> {
    let etag = format!("\"{}\"", keller::base::Digest::of(bytes).to_hex());
    // As RFC 9110 has it: the last byte is within.
    let range = range.and_then(|range| {
        let (start, last) = range.strip_prefix("bytes=")?.split_once('-')?;
        let end = last.parse().map_or(bytes.len(), |last: usize| (last + 1).min(bytes.len()));
        Some((start.parse::<usize>().ok()?, end))
    });
    let same = condition.is_none_or(|condition| condition == etag);
    let range = range.filter(|_| same && !matches!(act, Act::ServeWhole));
    if range.is_some_and(|(start, end)| start >= end) && matches!(act, Act::Serve) {
        return write!(body.stream, "HTTP/1.1 416 X\r\n{EMPTY}");
    }
    let head = match range {
        Some((start, end)) => format!(
            "HTTP/1.1 206 Partial\r\nContent-Range: bytes {start}-{}/{}\r\nContent-Length: {}",
            end - 1,
            bytes.len(),
            end - start
        ),
        None => format!("HTTP/1.1 200 OK\r\nContent-Length: {}", bytes.len()),
    };
    let head = format!("{head}\r\nETag: {etag}\r\nConnection: close\r\n\r\n");
    let (start, end) = range.unwrap_or((0, bytes.len()));
    let bytes = &bytes[..end];
    match act {
        Act::HangIn(stretch) if stretch.contains(&start) => hang(body.stream),
        Act::Serve | Act::ServeWhole | Act::HangIn(_) => {
            body.stream.write_all(head.as_bytes())?;
            body.write_all(&bytes[start..])
        }
        Act::Status(status) => {
            write!(body.stream, "HTTP/1.1 {status} X\r\n{EMPTY}")
        }
        Act::StatusWith(status, line) => {
            write!(body.stream, "HTTP/1.1 {status} X\r\n{line}\r\n{EMPTY}")
        }
        Act::ResetAt(at) => {
            body.stream.write_all(head.as_bytes())?;
            body.write_all(&bytes[start..(*at).clamp(start, end)])?;
            body.flush()?;
            // Time for the bytes to be read: a reset throws away what is still under way.
            thread::sleep(Duration::from_millis(700));
            rustix::net::sockopt::set_socket_linger(body.stream.as_fd(), Some(Duration::ZERO))?;
            Ok(())
        }
        Act::HangAt(at) => {
            body.stream.write_all(head.as_bytes())?;
            body.write_all(&bytes[start..(*at).clamp(start, end)])?;
            hang(body.stream)
        }
        Act::Hang => hang(body.stream),
        Act::Close => Ok(()),
        Act::Garbage => body.write_all(b"\x00\x01garbage\xff\r\n\r\nand more\r\n"),
        Act::Other(other) => {
            write!(body.stream, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
            body.write_all(other)
        }
        Act::Trickle => {
            body.stream.write_all(head.as_bytes())?;
            for byte in &bytes[start..] {
                body.write_all(&[*byte])?;
                thread::sleep(Duration::from_millis(50));
            }
            Ok(())
        }
        Act::Raw(bytes) => body.stream.write_all(bytes),
        Act::Late(pause, act) => {
            thread::sleep(*pause);
            answer(body, act, bytes, None, None)
        }
        Act::DripHead => {
            for byte in head.bytes().cycle() {
                body.stream.write_all(&[byte])?;
                thread::sleep(Duration::from_millis(200));
            }
            Ok(())
        }
        Act::EndlessHead => {
            write!(body.stream, "HTTP/1.1 200 OK\r\n")?;
            loop {
                write!(body.stream, "X-More: {}\r\n", "x".repeat(1000))?;
            }
        }
        Act::Endless => {
            write!(body.stream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            loop {
                body.stream.write_all(b"1000\r\n")?;
                body.write_all(&[b'x'; 0x1000])?;
                body.stream.write_all(b"\r\n")?;
            }
        }
    }
}

/// Until the client goes away.
fn hang(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut rest = [0; 64];
    while stream.read(&mut rest)? > 0 {}
    Ok(())
}
