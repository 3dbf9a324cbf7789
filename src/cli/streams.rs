//! Standard output and standard error, of which either may lose its reader: `keller boot IMAGE | head`.
//!
//! Nothing else in the program writes to them. What goes to standard output is the result, so failing to write it
//! is an error; what goes to standard error is for whoever looks, and nobody has to.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

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

/// Writes `bytes` to standard output at once.
///
/// # Errors
/// Those of standard output.
pub fn write(bytes: &[u8]) -> Result<(), OutputError> {
    let mut output = io::stdout().lock();
    Ok(output.write_all(bytes).and_then(|()| output.flush())?)
}

/// Writes `text` to standard output as it is.
///
/// # Errors
/// Those of standard output.
pub fn print(text: impl Display) -> Result<(), OutputError> {
    write(text.to_string().as_bytes())
}

/// Writes `text` to standard output as a line, or as several.
///
/// # Errors
/// Those of standard output.
pub fn line(text: impl Display) -> Result<(), OutputError> {
    write(format!("{text}\n").as_bytes())
}

/// Writes `text` to standard error as a line, or as several.
pub fn tell(text: impl Display) {
    // Nowhere is left to say that this failed, and the work goes on without a reader.
    let _ = io::stderr().lock().write_all(format!("{text}\n").as_bytes());
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
