//! `keller install` on a terminal. What is asked about a disk, and what becomes of each answer, is in
//! `cli::install::dialogue::tests`; here nothing is ever answered that would write.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::ptr::{null, null_mut};

use super::project::Project;

/// A terminal: the end of a person, and that of a program.
fn terminal() -> (File, OwnedFd) {
    let (mut person, mut program) = (-1, -1);
    // SAFETY: both numbers outlive the call, and the rest may be null.
    let opened = unsafe { libc::openpty(&raw mut person, &raw mut program, null_mut(), null(), null()) };
    assert_eq!(opened, 0, "{}", std::io::Error::last_os_error());
    // SAFETY: they are new, and nobody else has them.
    unsafe { (File::from_raw_fd(person), OwnedFd::from_raw_fd(program)) }
}

/// Runs keller on a terminal, types each of `keys` at the next question, and gives what it showed and how it ended.
fn typed(project: &Project, arguments: &[&str], keys: &[&str]) -> (String, Option<i32>, Option<i32>) {
    use std::os::unix::process::ExitStatusExt;
    let (mut person, program) = terminal();
    let mut command = project.keller(arguments);
    let end = || Stdio::from(program.try_clone().unwrap());
    command.stdin(end()).stdout(end()).stderr(end());
    // SAFETY: both calls may be made between fork and exec.
    unsafe {
        command.pre_exec(|| {
            libc::setsid();
            libc::ioctl(0, libc::TIOCSCTTY, 0);
            Ok(())
        });
    }
    let mut child = command.spawn().unwrap();
    drop((command, program));
    let (mut shown, mut answered) = (String::new(), 0);
    let mut buffer = [0; 4096];
    // A terminal that no program has any more gives an error.
    while let Ok(count @ 1..) = person.read(&mut buffer) {
        shown += &String::from_utf8_lossy(&buffer[..count]);
        if let Some(key) = keys.get(answered).filter(|_| shown.matches("Which disk?").count() > answered) {
            person.write_all(key.as_bytes()).unwrap();
            answered += 1;
        }
    }
    let status = child.wait().unwrap();
    (shown, status.code(), status.signal())
}

#[test]
fn whoever_leaves_a_question_open_writes_nothing() {
    let project = Project::new();
    let (shown, code, _) = typed(&project, &["install", "gone.raw"], &["0\n", "x\u{1b}[2J\n", "\u{4}"]);
    if shown.contains("This machine shows no disk") {
        println!("SKIPPED: {shown}");
        return;
    }
    for part in
        ["  #  Disk ", "\"0\" is no number of a disk above", "is no number of a disk", "nothing was written"]
    {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert_eq!(code, Some(130), "{shown}");
    let (shown, code, signal) = typed(&project, &["install", "gone.raw"], &["\u{3}"]);
    assert_eq!((code, signal), (None, Some(libc::SIGINT)), "{shown}");
}

#[test]
fn nothing_is_asked_of_programs() {
    let project = Project::new();
    for arguments in [&["install", "--quiet", "gone.raw"][..], &["install", "--json", "gone.raw"]] {
        let (shown, code, _) = typed(&project, arguments, &[]);
        assert!(shown.contains("no disk was named: add one") && !shown.contains("Which disk?"), "{shown}");
        assert_eq!(code, Some(1), "{shown}");
    }
    let ran = project.run(&["install", "gone.raw"]);
    assert!(ran.error().starts_with("error: no disk was named: add one"), "{}", ran.err);
    let ran = project.run(&["install"]);
    assert!(
        ran.error().starts_with("error: no image was named: add one, such as node_1.0.0.raw"),
        "{}",
        ran.err
    );
}
