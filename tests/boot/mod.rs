//! Real images, really booted: the fourth tier. Each test says in ten lines what a user would see.

mod bare_metal;
mod behind;
mod build;
mod cluster;
mod contents;
mod corruption;
mod deadline;
mod dies;
mod disk;
mod document;
mod early;
mod field;
mod gdb;
mod hang;
mod install;
mod lab;
mod monitor;
mod netboot;
mod node;
mod pair;
mod partitions;
pub mod parts;
mod power;
mod scratch;
mod trial;
mod trouble;
mod turn;
mod update;
mod watchdog;
mod web;
mod worn;

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use scratch::{Disk, Scratch};
use tempfile::TempDir;
use turn::Turn;

/// How long a boot may take: under emulation on a busy machine it takes one to two minutes.
const BOOT: Duration = Duration::from_secs(360);

/// A second processor under emulation is slower than none where another machine runs beside: they wait for each
/// other while the host has given their thread's time away. Only a test that says so has one.
fn processors(arguments: &[&str]) -> &'static [&'static str] {
    if arguments.contains(&"--cpus") { &[] } else { &["--cpus", "1"] }
}

/// The keller that is tested, statically linked and optimised.
fn keller() -> Command {
    Command::new(std::env::var_os("KELLER").unwrap_or_else(|| env!("CARGO_BIN_EXE_keller").into()))
}

/// The default image, built once for all tests.
fn image() -> &'static Path {
    static IMAGE: OnceLock<Disk> = OnceLock::new();
    IMAGE.get_or_init(|| {
        // What an earlier run locked may be gone from the mirror.
        let scratch = Scratch::new("node");
        build_raw(scratch, &[])
    })
}

/// The default image as it is booted here, built once for all tests: its `health:` gives it the time that an emulated
/// machine takes beside another and beside what else is tested.
fn patient_image() -> &'static Path {
    static IMAGE: OnceLock<Disk> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let scratch = Scratch::new("patient");
        let manifest = scratch.join("node.yaml");
        let text = patient(&std::fs::read_to_string("manifests/node.yaml").unwrap());
        let text = text.replace("- components/", "- keller:manifests/components/");
        std::fs::write(&manifest, text.replace("{build: ", "{build: keller:manifests/")).unwrap();
        build_raw(scratch, &[manifest.as_os_str()])
    })
}

/// A manifest with a deadline for machines that are emulated beside others.
fn patient(manifest: &str) -> String {
    let patient = manifest.replace("deadline: 180s", "deadline: 10min");
    assert_ne!(patient, manifest, "the manifest has another deadline");
    patient
}

/// The raw image that `keller build` makes of `manifest` in `scratch`.
fn build_raw(scratch: Scratch, manifest: &[&OsStr]) -> Disk {
    let output = scratch.join("out");
    let status =
        keller().arg("build").args(manifest).arg("--output").arg(&output).status().expect("keller starts");
    assert!(status.success(), "the default image does not build");
    let path = std::fs::read_dir(&output)
        .expect("the output directory exists")
        .map(|entry| entry.expect("readable").path())
        .find(|path| path.extension().is_some_and(|extension| extension == "raw"))
        .expect("a raw image");
    scratch.into_disk(path)
}

/// A running node.
struct Node {
    child: Child,
    console: Receiver<String>,
    seen: String,
    ssh: Vec<String>,
    url: String,
    /// For temporary files of keller, which is killed in the end, and the socket of the connection that commands share.
    scratch: TempDir,
    turn: Turn,
}

impl Node {
    /// Boots `image` with `arguments` of `keller boot` and waits until ssh answers. Pages come from port 8080.
    fn boot(image: &Path, arguments: &[&str]) -> Self {
        Self::serving(image, arguments, 8080)
    }

    /// The same with pages from `port`.
    fn serving(image: &Path, arguments: &[&str], port: u16) -> Self {
        let mut node = Self::start(image, arguments, port);
        node.answers(port, BOOT);
        node
    }

    /// Starts `image` and does not wait.
    fn start(image: &Path, arguments: &[&str], port: u16) -> Self {
        let turn = Turn::take();
        // Of this image alone: tests may run side by side.
        let identity = image.with_extension("identity");
        let scratch = TempDir::new().unwrap();
        let mut command = keller();
        command
            .env("TMPDIR", scratch.path())
            .arg("boot")
            .args(processors(arguments))
            .args(arguments)
            // Keller takes a port that is free and says which: see `answers`.
            .args(["--forward", &format!("0:{port}"), "--identity"])
            .arg(&identity)
            .arg(image);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("keller starts");
        let (sender, console) = mpsc::channel();
        let outputs: [Box<dyn std::io::Read + Send>; 2] =
            [Box::new(child.stdout.take().expect("piped")), Box::new(child.stderr.take().expect("piped"))];
        for output in outputs {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                    let _ = sender.send(String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned());
                }
            });
        }
        let (seen, ssh, url) = Default::default();
        Self { child, console, seen, ssh, url, scratch, turn }
    }

    /// Waits until ssh answers or has answered, after several boots if need be, and learns how to get in. Keller says
    /// so once: a version that is about to fail may have come that far.
    fn answers(&mut self, port: u16, limit: Duration) {
        self.has_said("is ready after", limit);
        let forward = self.has_said(&format!("leads to port {port}"), BOOT);
        let address = forward.split_whitespace().next().expect("an address").to_owned();
        self.url = format!("http://{address}/");
        self.ssh = self.has_said("ssh -i", BOOT).split_whitespace().map(str::to_owned).collect();
    }

    /// The line with `text` among those seen so far, or the next one that is waited for.
    fn has_said(&mut self, text: &str, timeout: Duration) -> String {
        let said = self.seen.lines().find(|line| line.contains(text)).map(str::to_owned);
        said.unwrap_or_else(|| self.expect(text, timeout))
    }

    /// Waits for a line with `text`; gives the line.
    fn expect(&mut self, text: &str, timeout: Duration) -> String {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.console.recv_timeout(left) {
                Ok(line) => {
                    self.seen.push_str(&line);
                    self.seen.push('\n');
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(_) => panic!("{text:?} did not appear; the last lines were:\n{}", self.tail()),
            }
        }
    }

    fn tail(&self) -> String {
        let lines: Vec<&str> = self.seen.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// Runs a shell command on the node as core. A login takes an emulated processor a second, so all commands share the
    /// first one's, until the node ends the connection.
    fn try_run(&self, command: &str) -> Output {
        let mut ssh = Command::new(&self.ssh[0]);
        ssh.args(&self.ssh[1..]).args(["-o", "ConnectTimeout=30", "-o", "LogLevel=ERROR"]);
        ssh.args(["-o", "ControlMaster=auto", "-o", "ControlPersist=yes", "-S"])
            .arg(self.scratch.path().join("ssh"));
        // A node that panics leaves the connection open: QEMU's network does not know.
        ssh.args(["-o", "ServerAliveInterval=10", "-o", "ServerAliveCountMax=4", "--", command]);
        ssh.stdin(Stdio::null()).output().expect("ssh is installed")
    }

    /// The same; gives what it printed, and fails the test when it fails.
    fn run(&self, command: &str) -> String {
        let output = self.try_run(command);
        let text = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "`{command}` failed on the node: {text}\n{errors}");
        text
    }

    /// Waits until the system is up as systemd sees it; gives its word for the state, and shows what failed.
    fn settled(&self) -> String {
        let state = self.try_run("timeout 720 systemctl is-system-running --wait").stdout;
        let state = String::from_utf8_lossy(&state).trim().to_owned();
        if state == "degraded" {
            let failed = "systemctl --failed --no-legend; sudo journalctl -b -p notice --no-pager | tail -60";
            println!("{}", String::from_utf8_lossy(&self.try_run(failed).stdout));
        }
        state
    }

    /// The page that the container inside serves.
    fn page(&self) -> String {
        self.page_at("")
    }

    /// The page at `path` below it.
    fn page_at(&self, path: &str) -> String {
        let url = format!("{}{path}", self.url);
        let arguments = ["-sSf", "--max-time", "60", "--retry", "5", "--retry-all-errors", &url];
        let output = Command::new("curl").args(arguments).output().expect("curl is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Restarts the node from within and waits until ssh answers again.
    fn reboot(&mut self) {
        self.starts_over_by("sudo systemctl reboot");
    }

    /// Runs a command that ends in a restart, and waits until ssh answers again; gives what it printed.
    fn starts_over_by(&mut self, command: &str) -> String {
        let boot_id = self.run("cat /proc/sys/kernel/random/boot_id");
        let output = self.try_run(command);
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        // It may do much before it restarts.
        let deadline = Instant::now() + 4 * BOOT;
        loop {
            let output = self.try_run("cat /proc/sys/kernel/random/boot_id");
            let now = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            if output.status.success() && now != boot_id {
                return said;
            }
            assert!(
                Instant::now() < deadline,
                "the node did not come back; `{command}` said:\n{said}\nthe last lines were:\n{}",
                self.drain()
            );
            std::thread::sleep(Duration::from_secs(2));
        }
    }

    /// Waits for the machine to shut down; whether it did.
    fn has_shut_down(&mut self) -> bool {
        self.turn.wait(&self.child);
        self.child.wait().unwrap().success()
    }

    fn drain(&mut self) -> String {
        while let Ok(line) = self.console.try_recv() {
            self.seen.push_str(&line);
            self.seen.push('\n');
        }
        self.tail()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.turn.end(&mut self.child);
    }
}
