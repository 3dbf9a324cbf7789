//! Finds the tools that judge our bytes.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::boot::parts::is_root;

/// Folders of tools, for users whose PATH has no sbin.
const FOLDERS: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// A command for the tool `name`. Where it is not installed, says so and gives nothing, so that the test
/// can end; in continuous integration (`CI` is set) a missing tool is a failure.
pub fn tool(name: &str) -> Option<Command> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(FOLDERS.map(|folder| Path::new(folder).to_owned()));
    let found = folders.map(|folder| folder.join(name)).find(|candidate| candidate.is_file());
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none(), "{name} is not installed, and CI is set");
        println!("SKIPPED: {name} is not installed");
    }
    found.map(Command::new)
}

/// Whether the tests run as root. Where they do not, says what only root can do, so that the test can end; in continuous
/// integration (`CI` is set) that is a failure.
pub fn as_root(what: &str) -> bool {
    let is_root = is_root();
    if !is_root {
        assert!(std::env::var_os("CI").is_none(), "only root can {what}, and CI is set");
        println!("SKIPPED: only root can {what}");
    }
    is_root
}

/// Makes a program of the script `text` at `path`.
pub fn script(path: &Path, text: &str) {
    program(path, text.as_bytes());
}

/// Makes a program of `bytes` at `path`. Another process writes it: what this one has open to write, a child that
/// another test starts has open for a moment too, and then nobody can execute it ("Text file busy").
pub fn program(path: &Path, bytes: &[u8]) {
    let mut shell = Command::new("sh");
    shell.args(["-c", "cat > \"$0\" && chmod 755 \"$0\""]).arg(path).stdin(Stdio::piped());
    let mut child = shell.spawn().expect("sh starts");
    child.stdin.take().expect("piped").write_all(bytes).expect("sh reads");
    assert!(child.wait().expect("sh ends").success(), "{} is not written", path.display());
}

/// Runs `command` to its end; its output if it succeeded, else a panic with all it said.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("starting {command:?}: {error}"));
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success(), "{command:?} ended with {}:\n{text}", output.status);
    text
}
