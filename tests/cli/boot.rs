//! `keller boot` without a machine: a program that plays QEMU stands where keller unpacks it, sealed as keller seals it,
//! since it would not be started otherwise. It takes ports, answers
//! on its monitor and writes a console, so that all that keller does around a machine can be tried in a moment.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use keller::base::Digest;
use keller::manifest::embedded;
use keller::store::StoreError;
use serde_json::{Value, json};

use super::project::{Project, Ran};
use crate::judges::tool::script;

/// Far more than any of it takes, for a machine that is busy.
const LIMIT: Duration = Duration::from_secs(120);

/// A project with an image of nothing and with the player.
pub fn project() -> Project {
    let project = Project::new();
    let request = Digest::of(embedded::file("qemu/program.yaml").unwrap().bytes);
    project.sealing_store().keep_tool("qemu", &request, unpack_player).unwrap();
    std::fs::create_dir(project.path("machines")).unwrap();
    project.write("disk.raw", [0; 4096]);
    project
}

/// The files of a QEMU that is the player.
fn unpack_player(tree: &Path) -> Result<(), StoreError> {
    for folder in ["usr/bin", "usr/lib64", "usr/share/OVMF"] {
        std::fs::create_dir_all(tree.join(folder)).unwrap();
    }
    for file in
        ["usr/bin/qemu-system-x86_64", "usr/share/OVMF/OVMF_CODE_4M.fd", "usr/share/OVMF/OVMF_VARS_4M.fd"]
    {
        std::fs::write(tree.join(file), "").unwrap();
    }
    // keller starts an unpacked QEMU by its own loader.
    let loader = tree.join("usr/lib64/ld-linux-x86-64.so.2");
    let player = std::env::current_exe().unwrap();
    let text = format!(
        "#!/bin/sh\nPLAYS_QEMU=\"$*\" exec '{}' --exact cli::boot::plays_qemu --nocapture\n",
        player.display()
    );
    script(&loader, &text);
    Ok(())
}

/// `keller boot` with `arguments`.
fn command(project: &Project, arguments: &[&str]) -> Command {
    let mut command = project.keller(&[&["boot", "--no-kvm", "disk.raw"], arguments].concat());
    // Not the host's QEMU.
    command.env("PATH", "/nowhere").env("MACHINES", project.path("machines"));
    command
}

/// Starts it and waits until the machine runs; gives the machine's process id.
fn start(project: &Project, arguments: &[&str]) -> (Child, String) {
    let mut child = command(project, arguments).spawn().unwrap();
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(machine) = project.names("machines").keys().find(|name| !name.contains('.')) {
            return (child, machine.clone());
        }
        if Instant::now() > deadline || child.try_wait().unwrap().is_some() {
            panic!("no machine: {:?}", Ran::of(&child.wait_with_output().unwrap()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until keller has ended; gives its exit code.
pub fn end(child: &mut Child) -> Option<i32> {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("keller goes on");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether the machine has ended; a process that nobody has waited for yet has.
pub fn is_gone(machine: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{machine}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with('Z'))
}

/// Plays QEMU when it is started as such; as a test it does nothing.
#[test]
fn plays_qemu() {
    let Some(arguments) = std::env::var_os("PLAYS_QEMU") else { return };
    let arguments = arguments.to_string_lossy().into_owned();
    let machines = std::path::PathBuf::from(std::env::var_os("MACHINES").unwrap());
    if arguments.contains("fails-at-once") {
        eprintln!("qemu-system-x86_64: invalid option");
        std::process::exit(1);
    }
    let socket = arguments.split_whitespace().find_map(|word| word.strip_prefix("unix:")).unwrap();
    let listener = UnixListener::bind(socket.split(',').next().unwrap()).unwrap();
    std::thread::spawn(|| {
        for count in 0.. {
            let mut output = std::io::stdout().lock();
            let _ = output.write_all(format!("line {count} of the guest\r\n").as_bytes());
            let _ = output.flush();
            drop(output);
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let id = std::process::id().to_string();
    std::fs::write(machines.join(&id), "").unwrap();
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        let _ = writeln!(stream, "{}", json!({ "QMP": {} }));
        for line in BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok) {
            let request: Value = serde_json::from_str(&line).unwrap();
            let answer = match request["execute"].as_str().unwrap() {
                "human-monitor-command" if arguments.contains("fails-when-asked") => {
                    eprintln!("qemu-system-x86_64: The bootindex 0 has already been used");
                    std::process::exit(1);
                }
                "human-monitor-command" => {
                    json!(forward(request["arguments"]["command-line"].as_str().unwrap()))
                }
                "system_powerdown" => {
                    std::fs::write(machines.join(format!("{id}.powered-down")), "").unwrap();
                    let _ = writeln!(stream, "{}", json!({ "return": {} }));
                    std::process::exit(0);
                }
                _ => json!({}),
            };
            let _ = writeln!(stream, "{}", json!({ "return": answer }));
        }
    }
}

/// `hostfwd_add`, and something that answers behind it.
fn forward(command: &str) -> String {
    let rule = command.strip_prefix("hostfwd_add net ").unwrap();
    let (host, guest) = rule.strip_prefix("tcp:127.0.0.1:").unwrap().split_once("-:").unwrap();
    let Ok(listener) = TcpListener::bind(("127.0.0.1", host.parse().unwrap())) else {
        return format!("Could not set up host forwarding rule '{rule}'\r\n");
    };
    let greeting = if guest == "22" { "SSH-2.0-player\r\n" } else { "HTTP/1.0 200 OK\r\n\r\n" };
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.write_all(greeting.as_bytes());
            let _ = stream.read(&mut [0; 512]);
        }
    });
    String::new()
}

#[test]
fn the_machine_ends_with_whoever_reads_its_console() {
    // With -q and with --json nothing is written that could fail.
    for arguments in [&[][..], &["-q"], &["--json"], &["--persist"], &["--expect", "never"]] {
        for lost in ["standard output", "standard error"] {
            let project = project();
            let (mut child, machine) = start(&project, arguments);
            match lost {
                "standard output" => drop(child.stdout.take()),
                _ => drop(child.stderr.take()),
            }
            // Whatever is left must not fill up.
            let readers: [Option<Box<dyn Read + Send>>; 2] = [
                child.stdout.take().map(|stream| Box::new(stream) as _),
                child.stderr.take().map(|stream| Box::new(stream) as _),
            ];
            let readers = readers.map(|reader| {
                std::thread::spawn(move || {
                    let mut text = String::new();
                    reader.map(|mut reader| reader.read_to_string(&mut text));
                    text
                })
            });
            assert_eq!(end(&mut child), Some(141), "{arguments:?} without {lost}");
            assert!(is_gone(&machine), "the machine runs on: {arguments:?} without {lost}");
            for reader in readers {
                let text = reader.join().unwrap();
                assert!(!text.contains("panicked") && !text.contains("error: "), "{text}");
            }
            let powered_down = project.path(&format!("machines/{machine}.powered-down")).exists();
            assert_eq!(powered_down, arguments == ["--persist"]);
        }
    }
}

#[test]
fn a_console_that_cannot_be_written_ends_the_machine() {
    let project = project();
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let ran = Ran::of(&command(&project, &[]).stdout(full).output().unwrap());
    let said =
        "error: showing the console: writing to standard output: No space left on device (os error 28)";
    assert_eq!(ran.error(), said);
    let machines = project.names("machines");
    assert!(machines.len() == 1 && machines.keys().all(|machine| is_gone(machine)), "{machines:?}");
}

#[test]
fn streams_that_were_closed_from_the_start_have_no_reader_to_lose() {
    let project = project();
    for closed in [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"] {
        let boot = command(&project, &["--expect", "line 20 of the guest"]);
        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-c", &format!("exec \"$0\" \"$@\" {closed}")])
            .arg(boot.get_program())
            .args(boot.get_args());
        shell.current_dir(project.path(".")).env_clear();
        shell.envs(boot.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let ran = Ran::of(&shell.stdin(Stdio::null()).output().unwrap());
        assert_eq!(ran.code, Some(0), "{closed}: {ran:?}");
    }
}

#[test]
fn machines_that_start_at_once_have_ports_of_their_own() {
    let projects: Vec<Project> = (0..4).map(|_| project()).collect();
    // A number that all of them prefer and that the system hands out to nobody who asks for any: those begin at 32768.
    let port = 16384 + std::process::id() % 16384;
    let asked = format!("0:{port}");
    let mut children: Vec<Child> = projects
        .iter()
        .map(|project| command(project, &["--json", "--forward", &asked]).spawn().unwrap())
        .collect();
    let mut ports = std::collections::BTreeSet::new();
    for child in &mut children {
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"));
        assert_eq!(ready["ready"], true);
        let [host, guest] = &ready["forwards"][0].as_array().unwrap()[..] else { panic!("{ready}") };
        assert_eq!(guest.as_u64(), Some(port.into()));
        assert!(ports.insert(host.as_u64().unwrap()), "{host} leads into two machines");
        let ssh = ready["ssh"].as_str().unwrap().split(" -p ").nth(1).unwrap();
        assert!(ports.insert(ssh.split(' ').next().unwrap().parse().unwrap()), "{ssh}");
    }
    // Not SIGHUP, which whoever starts the tests by `nohup` has ignored for all of them.
    for mut child in children {
        rustix::process::kill_process(
            rustix::process::Pid::from_child(&child),
            rustix::process::Signal::TERM,
        )
        .unwrap();
        assert_eq!(end(&mut child), Some(130));
    }
}

#[test]
fn a_port_that_is_taken_is_named() {
    let project = project();
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let ran = Ran::of(&command(&project, &["--forward", &format!("{port}:80")]).output().unwrap());
    let said = format!("error: port {port} of 127.0.0.1 cannot lead to port 80 of the guest: QEMU says ");
    assert!(ran.error().starts_with(&said) && ran.err.contains("0 instead of it takes any"), "{}", ran.err);
    assert!(project.names("machines").keys().all(|machine| is_gone(machine)));
}

#[test]
fn qemu_that_fails_at_once_is_quoted() {
    let project = project();
    let ran = Ran::of(&command(&project, &["--qemu-arg", "fails-at-once"]).output().unwrap());
    let said = "error: QEMU ended with exit code 1 before the machine had begun\n  qemu-system-x86_64: invalid option";
    assert_eq!(ran.error(), said);
    // Its monitor listens before it has looked at everything.
    let ran = Ran::of(&command(&project, &["--qemu-arg", "fails-when-asked"]).output().unwrap());
    let said = "error: QEMU ended with exit code 1 before the machine had begun\n  qemu-system-x86_64: The bootindex 0 has already \
                been used";
    assert_eq!(ran.error(), said);
}
