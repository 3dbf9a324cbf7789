//! Standard output and standard error, of which either may lose its reader: `keller boot IMAGE | head`.
//!
//! Nothing else in the program writes to them. Text may come from strangers, such as the label of a partition: what a
//! terminal would act upon is written as escapes ([`terminal`]). What a guest writes to its console goes through as it
//! is. What goes to standard output is the result, so failing to write it is an error; what goes to standard error is for
//! whoever looks, and nobody has to: text without end is cut there.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::borrow::Cow;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::consoles;
use crate::base::terminal::{self, escaped, hanging, one_line};

/// Why standard output cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// Whoever read it has gone: `head` has seen enough.
    #[error("nobody reads standard output any more")]
    Gone,
    /// For example, the disk that it leads to is full.
    #[error("writing to standard output")]
    Io(#[source] io::Error),
}

impl From<io::Error> for OutputError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Gone,
            _ => Self::Io(error),
        }
    }
}

/// Writes `bytes`, which come from the user's own guest or are made here, to standard output at once.
///
/// # Errors
/// Those of standard output.
pub fn write(bytes: &[u8]) -> Result<(), OutputError> {
    consoles::write(bytes);
    let mut output = io::stdout().lock();
    Ok(output.write_all(bytes).and_then(|()| output.flush())?)
}

/// Writes `value` to standard output as a line of JSON. What a terminal would act upon is written in JSON's own escapes,
/// so that the value stays what it is.
///
/// # Errors
/// Those of standard output.
pub fn json(value: impl Display) -> Result<(), OutputError> {
    write(format!("{}\n", terminal::json(&value.to_string())).as_bytes())
}

/// Writes `text` to standard output, in lines.
///
/// # Errors
/// Those of standard output.
pub fn print(text: impl Display) -> Result<(), OutputError> {
    write(escaped(&text.to_string()).as_bytes())
}

/// Writes `text` to standard output as one line, whatever is in it.
///
/// # Errors
/// Those of standard output.
pub fn line(text: impl Display) -> Result<(), OutputError> {
    write(format!("{}\n", one_line(&text.to_string())).as_bytes())
}

/// Writes `text` to standard error as one message. A name in it that has a line break makes no message of its own: lines
/// after the first are indented.
pub fn message(text: impl Display) {
    tell(hanging(&text.to_string()));
}

/// Writes `text` to standard error as a line, or as several that stand where they are.
pub fn tell(text: impl Display) {
    // Nowhere is left to say that this failed, and the work goes on without a reader.
    let text = text.to_string();
    let line = format!("{}\n", escaped(&cut(&text)));
    consoles::write(line.as_bytes());
    let _ = io::stderr().lock().write_all(line.as_bytes());
}

/// Most bytes of one message: nobody reads more, and it may list what a stranger made without end.
const MESSAGE: usize = 64 << 10;

/// `text`, or its beginning with the number of bytes that were left out.
fn cut(text: &str) -> Cow<'_, str> {
    if text.len() <= MESSAGE {
        return text.into();
    }
    let end = text.floor_char_boundary(MESSAGE);
    format!("{} … ({} more bytes)", &text[..end], text.len() - end).into()
}

/// What libraries panic with where no thread can be started.
const THREADS: [&str; 2] = ["failed to spawn thread", "thread pool has not been initialized"];

/// Has panics told as all else is: they may speak of what a stranger made.
pub fn tell_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let text = panic.to_string();
        if THREADS.iter().any(|words| text.contains(words)) {
            return message(
                "error: starting threads: the system gives no more of them: raise `ulimit -u`, or `pids.max` of the control \
                 group",
            );
        }
        let thread = std::thread::current();
        message(format_args!("thread {:?} {panic}", thread.name().unwrap_or("unnamed")));
        let trace = Backtrace::capture();
        if trace.status() == BacktraceStatus::Captured {
            tell(trace);
        }
    }));
}

/// Whether a person looks at standard output.
pub fn output_is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Whether a person looks at standard error.
pub fn errors_are_on_terminal() -> bool {
    io::stderr().is_terminal()
}

/// Whether a reader of standard output or standard error has gone, found out without writing anything. A stream
/// that leads to a file, or that was closed from the start, has no reader to lose.
pub fn reader_has_gone() -> bool {
    let (output, errors) = (io::stdout(), io::stderr());
    // No flags: a lost reader is always told.
    let mut streams = [&output as &dyn std::os::fd::AsFd, &errors]
        .map(|stream| PollFd::from_borrowed_fd(stream.as_fd(), PollFlags::empty()));
    let none = Timespec { tv_sec: 0, tv_nsec: 0 };
    let lost = PollFlags::ERR | PollFlags::HUP;
    poll(&mut streams, Some(&none)).is_ok() && streams.iter().any(|stream| stream.revents().intersects(lost))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_without_end_is_cut() {
        assert_eq!(cut(&"x".repeat(MESSAGE)), "x".repeat(MESSAGE));
        let long = "\u{e4}".repeat(MESSAGE);
        assert_eq!(cut(&long), format!("{} … (65536 more bytes)", "\u{e4}".repeat(MESSAGE / 2)));
    }
}
