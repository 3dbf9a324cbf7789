//! Standard output and standard error, of which either may lose its reader: `keller boot IMAGE | head`.
//!
//! Nothing else in the program writes to them. Text may come from strangers, such as the label of a partition: control
//! characters, which move the cursor, change colours or answer in the user's name, and marks that reverse the order in
//! which text is shown are written as escapes. What a guest writes to its console goes through as it is. What goes to
//! standard output is the result, so failing to write it is an error; what goes to standard error is for whoever looks,
//! and nobody has to: text without end is cut there.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::borrow::Cow;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::consoles;

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

/// Whether a terminal may do something at `letter` but show it: the control characters of C0 and C1, of which 0x9b
/// begins a sequence as ESC does; marks of direction (Unicode TR 9, "Explicit Directional Formatting Characters") with
/// those that Unicode has given up (U+206A to U+206F); and what separates lines without being a line break.
fn acts(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{206f}')
}

/// `text` with an escape, such as `\u{1b}`, in place of each letter that `is_refused`.
fn replaced(text: &str, is_refused: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_refused) {
        return text.into();
    }
    let escape =
        |letter| if is_refused(letter) { letter.escape_unicode().to_string() } else { letter.into() };
    text.chars().map(escape).collect::<String>().into()
}

/// `text` as a terminal may have it, in lines.
pub fn escaped(text: &str) -> Cow<'_, str> {
    replaced(text, |letter| acts(letter) && !matches!(letter, '\n' | '\t'))
}

/// `text` as a terminal may have it, in one line: a name that could otherwise pass for a line of the program's own.
pub fn one_line(text: &str) -> Cow<'_, str> {
    replaced(text, acts)
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
    let mut line = String::new();
    for letter in value.to_string().chars() {
        match acts(letter) && !matches!(letter, '\n' | '\t') {
            true => line.push_str(&format!("\\u{:04x}", u32::from(letter))),
            false => line.push(letter),
        }
    }
    write(format!("{line}\n").as_bytes())
}

/// Writes `text` to standard output.
///
/// # Errors
/// Those of standard output.
pub fn print(text: impl Display) -> Result<(), OutputError> {
    write(escaped(&text.to_string()).as_bytes())
}

/// Writes `text` to standard output as a line, or as several.
///
/// # Errors
/// Those of standard output.
pub fn line(text: impl Display) -> Result<(), OutputError> {
    write(escaped(&format!("{text}\n")).as_bytes())
}

/// Writes `text` to standard error as a line, or as several.
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

/// Has panics told as all else is: they may speak of what a stranger made.
pub fn tell_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        tell(format_args!("thread {:?} {panic}", thread.name().unwrap_or("unnamed")));
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
    fn what_a_terminal_would_act_upon() {
        for (text, shown) in [
            ("plain \u{e4} \u{65e5}", "plain \u{e4} \u{65e5}"),
            ("\u{1b}]0;title\u{7}", r"\u{1b}]0;title\u{7}"),
            ("\u{9b}2J", r"\u{9b}2J"),
            ("good\rbad\u{8}\u{7f}", r"good\u{d}bad\u{8}\u{7f}"),
            ("a\u{202e}b\u{2066}c\u{200f}\u{61c}\u{2028}", r"a\u{202e}b\u{2066}c\u{200f}\u{61c}\u{2028}"),
        ] {
            assert_eq!((escaped(text), one_line(text)), (shown.into(), shown.into()));
        }
        assert_eq!(escaped("a\tb\nc"), "a\tb\nc");
        assert_eq!(cut(&"x".repeat(MESSAGE)), "x".repeat(MESSAGE));
        let long = "\u{e4}".repeat(MESSAGE);
        assert_eq!(cut(&long), format!("{} … (65536 more bytes)", "\u{e4}".repeat(MESSAGE / 2)));
        assert_eq!(one_line("a\nerror: b"), r"a\u{a}error: b");
    }
}
