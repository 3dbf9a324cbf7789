//! A build by itself: it starts no program, needs no right, and gives the same bytes wherever it runs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::parts::is_root;
use super::{image, keller};
use crate::judges::tool::{run, tool};

/// The files that a build leaves, but for the lock, which is the same by being copied.
const SUMS: &str = "SHA256SUMS";

/// The lock of the default image, as its name is beside the image.
const LOCK: &str = "node.lock";

/// A folder that nobody, too, can reach, with a copy of keller and with a store, an output folder and a folder
/// for temporary files below `work`.
struct Place {
    root: TempDir,
}

impl Place {
    fn keller(&self) -> PathBuf {
        self.root.path().join("keller")
    }

    fn work(&self) -> PathBuf {
        self.root.path().join("work")
    }

    /// The folder for one build, with the lock in it.
    fn output(&self, name: &str) -> PathBuf {
        let output = self.work().join(name);
        fs::create_dir_all(&output).unwrap();
        fs::copy(image().with_file_name(LOCK), output.join(LOCK)).unwrap();
        output
    }
}

impl Place {
    fn new() -> Self {
        let root = TempDir::with_prefix("keller-test-").unwrap();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let place = Self { root };
        fs::copy(keller().get_program(), place.keller()).unwrap();
        fs::create_dir_all(place.work().join("tmp")).unwrap();
        place
    }
}

#[test]
fn same_bytes_wherever_and_whoever() {
    let place = Place::new();
    elsewhere(&place);
    as_nobody_who_may_do_nothing(&place);
}

/// Other folder, time, number of threads (and with `--check` another one), umask, locale, time zone and host name; a store from scratch.
///
/// No program can be given another time of day without a right to set the host's, since keller is static and
/// reads the clock through the kernel's vDSO. The two builds differ in time by the seconds between them. That
/// the clock does not matter follows from `contents`, too: no file of the image has a time beyond the lock's.
fn elsewhere(place: &Place) {
    let output = place.output("elsewhere");
    // Only root can give the host another name.
    let script = "umask 077; hostname elsewhere 2>/dev/null; cd / && exec \"$@\"";
    let mut command = Command::new(if is_root() { "unshare" } else { "env" });
    command.args(is_root().then_some("--uts")).args(["sh", "-c", script, "sh"]);
    command.arg(place.keller()).args(["build", "--locked", "--check", "--threads", "1", "--quiet"]);
    command.arg("--store").arg(place.work().join("store")).arg("--output").arg(&output);
    for (name, value) in [("LC_ALL", "tr_TR.UTF-8"), ("LANG", "tr_TR.UTF-8"), ("TZ", "Pacific/Kiritimati")] {
        command.env(name, value);
    }
    run(command.env("TMPDIR", place.work().join("tmp")));
    assert_same(&output);
    fs::remove_dir_all(output).unwrap();
}

/// Fails unless the image in `folder` is the default image to the byte.
fn assert_same(folder: &Path) {
    let sums = |folder: &Path| fs::read_to_string(folder.join(SUMS)).unwrap();
    let name = image().file_name().unwrap();
    assert_eq!(sums(image().parent().unwrap()), sums(folder), "as keller says it");
    run(Command::new("cmp").arg(image()).arg(folder.join(name)));
}

/// As nobody, without a capability, where namespaces are refused and nothing can be executed from any folder
/// that keller writes to; and it executes nothing, from anywhere.
fn as_nobody_who_may_do_nothing(place: &Place) {
    let (Some(mut unshare), Some(_), Some(_)) = (tool("unshare"), tool("strace"), tool("setpriv")) else {
        return;
    };
    let output = place.output("nobody");
    let trace = place.work().join("trace");
    if is_root() {
        run(Command::new("chown").args(["-R", "65534:65534"]).arg(place.work()));
    }

    // What is told is tried, so that a passing test means what it says.
    let confined = "
        grep -q '^CapEff:.0*$' /proc/self/status && grep -q '^CapBnd:.0*$' /proc/self/status || exit 91
        grep -q '^NoNewPrivs:.1$' /proc/self/status && [ \"$(id -u)\" = 65534 ] || exit 92
        ! unshare --user true 2>/dev/null && ! unshare --mount true 2>/dev/null || exit 93
        trace=$1; shift
        exec strace -f --seccomp-bpf -qq -o \"$trace\" -e signal=none \
            -e trace=execve,execveat,clone,clone3,fork,vfork,unshare,setns,mount,chroot,pivot_root \"$@\"";
    let outer = "
        work=$1 confined=$2; shift 2
        mount --bind \"$work\" \"$work\" && mount -o remount,bind,noexec \"$work\" || exit 94
        cp /bin/true \"$work/tmp/true\" && ! \"$work/tmp/true\" 2>/dev/null || exit 95
        for limit in /proc/sys/user/max_*_namespaces; do echo 0 >\"$limit\" || exit 96; done
        exec setpriv --no-new-privs --inh-caps=-all --bounding-set=-all sh -c \"$confined\" sh \"$@\"";

    let ids = ["--map-user=65534", "--map-group=65534", "--keep-caps"];
    unshare.args(["--user", "--mount"]).args(ids);
    let mut probe = nobody(&unshare);
    if !probe.arg("true").output().unwrap().status.success() {
        assert!(std::env::var_os("CI").is_none(), "{probe:?} is refused, and CI is set");
        println!("SKIPPED: no user namespace can be made here to confine keller in");
        return;
    }
    let mut command = nobody(&unshare);
    command.args(["sh", "-c", outer, "sh"]).arg(place.work()).arg(confined).arg(&trace);
    command.arg(place.keller()).args(["build", "--locked", "--offline", "--threads", "2", "--quiet"]);
    command.arg("--store").arg(place.work().join("store")).arg("--output").arg(&output);
    command.env("TMPDIR", place.work().join("tmp")).env("HOME", "/nonexistent").current_dir("/");
    run(&mut command);

    assert_same(&output);
    let trace = fs::read_to_string(trace).unwrap();
    let threads = |line: &str| line.contains("CLONE_THREAD") || line.contains("resumed>");
    let calls: Vec<&str> = trace.lines().filter(|line| !threads(line)).collect();
    let [start] = calls[..] else { panic!("more than keller's own start:\n{}", calls.join("\n")) };
    let program = format!("execve(\"{}\"", place.keller().display());
    assert!(start.contains(&program) && start.ends_with(" = 0"), "{start}");
    assert!(trace.contains("CLONE_THREAD"), "no thread was started, so strace saw nothing:\n{trace}");
}

/// The same command, as nobody when root runs the tests.
fn nobody(command: &Command) -> Command {
    let ids = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let mut outer = Command::new(if is_root() { "setpriv" } else { "env" });
    outer.args(is_root().then_some(ids).into_iter().flatten());
    outer.arg(command.get_program()).args(command.get_args());
    outer
}
