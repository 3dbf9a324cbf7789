//! Programs of the verified root, run before it is the root.

use std::io;
use std::process::{Output, Stdio};

use super::chroot::in_root;
use super::console::Console;
use crate::base::failure::{Doing, Failure};
use crate::base::terminal;

/// Runs a program of the root to its end without input; what it says goes to the log.
pub(super) fn run(console: &Console, program: &str, arguments: &[&str]) -> Result<Output, Failure> {
    let output = in_root(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .doing(format!("starting {program} of the root"))?;
    let name = program.rsplit('/').next().unwrap_or(program);
    for line in said(&output) {
        console.say(&format!("{name}: {line}"));
    }
    Ok(output)
}

/// The lines of a program's output that say something. File names in it may hold anything, so that control
/// sequences are kept from the consoles.
pub(super) fn said(output: &Output) -> Vec<String> {
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].join(&b'\n');
    let text = String::from_utf8_lossy(&text).replace('\r', "\n");
    let text = text.replace('\t', " ").replace(|letter: char| terminal::acts(letter) && letter != '\n', "?");
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// How many lines of a program's output an error message shows: e2fsck needs three to say that it gave up,
/// and over what.
const SHOWN: usize = 3;

/// How a program ended, for an error message.
pub(super) fn ending(output: &Output) -> io::Error {
    let said = said(output);
    let last = match said.as_slice() {
        [] => "it said nothing".to_owned(),
        lines => lines[lines.len().saturating_sub(SHOWN)..].join("; "),
    };
    io::Error::other(format!("{}: {last}", output.status))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_end_of_the_output_tells() {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", r"printf 'one\ntwo\033[2J\nthree\r\n\tfour\n'; exit 4"]);
        let output = command.output().unwrap();
        assert_eq!(ending(&output).to_string(), "exit status: 4: two?[2J; three; four");
    }
}
