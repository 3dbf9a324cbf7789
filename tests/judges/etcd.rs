//! etcd and etcdctl of trixie with the certificates, the environment, the units and the wrapper that keller makes.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::Duration;

use keller::agent::etcd::health;
use keller::base::progress::Silent;
use keller::image::etcd as image;
use keller::manifest;
use keller::pki::etcd::{self, Member};
use keller::pki::{LIFETIME_SECONDS, Owner};
use keller::tree::Tree;

use super::tool::{run, script, tool};
use super::trixie::trixie;

const PACKAGES: [&str; 2] = ["etcd-client", "etcd-server"];
const WRAPPER: &str = "usr/sbin/etcdctl";
const UNITS: &str = "usr/lib/systemd/system";
/// etcd starts within a second or two; a machine that does much else may need a minute.
const TRIES: u32 = 1200;
const PAUSE: Duration = Duration::from_millis(100);

/// What an image with `kv` and etcdctl gets.
fn laid() -> Tree {
    laid_beside("")
}

/// The same for an image that has `own` as /etc/default/etcd.
fn laid_beside(own: &str) -> Tree {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.yaml");
    let text = "keller: 1\nid: node\nversion: 1.0.0\ndebian: {suite: trixie}\nruntime: none\n\
                packages: [etcd-server]\nkv: {etcd: {}}\n";
    fs::write(&path, text).unwrap();
    let manifest = manifest::load(&path).unwrap_or_else(|errors| panic!("{errors}"));
    let mut tree = Tree::new(0);
    tree.file("usr/bin/etcdctl", 0o755, "").unwrap();
    tree.file("etc/default/etcd", 0o644, own).unwrap();
    image::install(&mut tree, &manifest).unwrap();
    tree
}

/// Seconds since 1970.
fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

fn keep(directory: &Path, host: IpAddr, now: i64) -> etcd::Kept {
    let me = Owner { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() };
    let mut member = Member::single();
    member.hosts.push(host.to_string());
    etcd::keep(directory, &member, me, now, &Silent).unwrap()
}

/// An address of loopback that is this process' alone: its number, in 127.64.0.0/10.
fn own_host() -> IpAddr {
    let [_, b, c, d] = std::process::id().to_be_bytes();
    IpAddr::from([127, 64 | (b & 63), c, d])
}

/// A directory with certificates and data, and two ports that are nobody else's.
struct Etcd {
    folder: tempfile::TempDir,
    client: SocketAddr,
    peer: SocketAddr,
}

/// etcd as it runs; it ends with this.
pub(super) struct Running(pub(super) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Etcd {
    fn new() -> Self {
        static SERIAL: AtomicU16 = AtomicU16::new(0);
        let port = 2379 + 2 * SERIAL.fetch_add(1, Ordering::Relaxed);
        let [client, peer] = [port, port + 1].map(|port| SocketAddr::new(own_host(), port));
        let member = Self { folder: tempfile::tempdir().unwrap(), client, peer };
        keep(&member.pki(), own_host(), now());
        member
    }

    fn pki(&self) -> PathBuf {
        self.folder.path().join("pki")
    }

    fn file(&self, name: &str) -> String {
        self.pki().join(name).display().to_string()
    }

    /// The text with this member's places instead of a node's.
    fn placed(&self, text: &str) -> String {
        text.replace(etcd::DIRECTORY, &self.pki().display().to_string())
            .replace(etcd::CLIENT_ADDRESS, &self.client.to_string())
            .replace(etcd::PEER_ADDRESS, &self.peer.to_string())
    }

    /// What the drop-in of an image says.
    fn environment(&self) -> Vec<(String, String)> {
        self.environment_beside("")
    }

    /// The same in an image that has `own` as /etc/default/etcd, which is read after it.
    fn environment_beside(&self, own: &str) -> Vec<(String, String)> {
        let text = laid_beside(own).read(format!("{UNITS}/etcd.service.d/20-keller-tls.conf")).unwrap();
        let text = self.placed(&String::from_utf8(text).unwrap());
        let lines = text.lines().filter_map(|line| line.strip_prefix("Environment="));
        let lines = lines.chain(own.lines()).filter_map(|line| line.split_once('='));
        lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    /// What an image of before said: nothing but name and data, so that both ports spoke plainly.
    fn environment_of_before(&self) -> Vec<(String, String)> {
        let (client, peer) = (format!("http://{}", self.client), format!("http://{}", self.peer));
        [
            ("ETCD_NAME", "default".to_owned()),
            ("ETCD_LISTEN_CLIENT_URLS", client.clone()),
            ("ETCD_ADVERTISE_CLIENT_URLS", client),
            ("ETCD_LISTEN_PEER_URLS", peer.clone()),
            ("ETCD_INITIAL_ADVERTISE_PEER_URLS", peer.clone()),
            ("ETCD_INITIAL_CLUSTER", format!("default={peer}")),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }

    /// Starts etcd; gives it once `is_up`.
    fn start(&self, environment: Vec<(String, String)>, is_up: impl Fn() -> bool) -> Option<Running> {
        let log = self.folder.path().join("log");
        let mut command = trixie(&PACKAGES, "usr/bin/etcd")?;
        command.env_clear().envs(environment).env("ETCD_DATA_DIR", self.folder.path().join("data"));
        command.env("ETCD_UNSAFE_NO_FSYNC", "true");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(&log).unwrap());
        let mut running = Running(command.spawn().unwrap());
        for _ in 0..TRIES {
            if is_up() {
                return Some(running);
            }
            let ended = running.0.try_wait().unwrap();
            assert!(ended.is_none(), "{ended:?}:\n{}", fs::read_to_string(&log).unwrap());
            thread::sleep(PAUSE);
        }
        panic!("etcd does not come up:\n{}", fs::read_to_string(&log).unwrap());
    }

    fn start_with_tls(&self) -> Option<Running> {
        self.start(self.environment(), || health(&self.pki(), self.client).is_ok())
    }

    /// etcdctl itself, without a word of where and with what.
    fn etcdctl(&self, arguments: &[&str]) -> Output {
        let mut command = trixie(&PACKAGES, "usr/bin/etcdctl").expect("etcd of the same packages runs");
        command.env_clear().args(["--command-timeout=3s", "--dial-timeout=3s"]).args(arguments);
        command.output().unwrap()
    }

    /// The wrapper of an image, which calls an etcdctl that runs here.
    fn wrapper(&self) -> Command {
        let real = trixie(&PACKAGES, "usr/bin/etcdctl").expect("etcd of the same packages runs");
        let words = std::iter::once(real.get_program()).chain(real.get_args());
        let words: Vec<String> = words.map(|word| format!("'{}'", word.to_string_lossy())).collect();
        let program = self.script("etcdctl-real", &format!("#!/bin/sh\nexec {} \"$@\"\n", words.join(" ")));
        let text = String::from_utf8(laid().read(WRAPPER).unwrap()).unwrap();
        let text = self.placed(&text).replace("/usr/bin/etcdctl", &program.display().to_string());
        let mut command = Command::new(self.script("etcdctl", &text));
        command.env_clear();
        command
    }

    fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        script(&path, text);
        path
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

#[test]
fn etcd_answers_whoever_has_the_nodes_certificate_and_nobody_else() {
    let member = Etcd::new();
    let Some(_running) = member.start_with_tls() else { return };
    // Root, without a flag.
    run(member.wrapper().args(["put", "key", "value"]));
    assert_eq!(run(member.wrapper().args(["get", "key"])), "key\nvalue\n");
    assert!(run(member.wrapper().args(["endpoint", "health"])).contains("is healthy"));

    let stranger = tempfile::tempdir().unwrap();
    let strange = stranger.path().join("pki");
    keep(&strange, own_host(), now());
    let strange_client = strange.join(etcd::CLIENT).display().to_string();
    let (secure, plain) = (format!("https://{}", member.client), format!("http://{}", member.client));
    let (peer, plain_peer) = (format!("https://{}", member.peer), format!("http://{}", member.peer));
    let (ca, peer_ca) = (member.file(etcd::CA), member.file(etcd::PEER_CA));
    let (client, own_peer) = (member.file(etcd::CLIENT), member.file(etcd::PEER));
    let delete = ["del", "--prefix", ""];
    for (who, endpoint, flags) in [
        ("nobody, plainly", &plain, vec![]),
        ("nobody, over TLS", &secure, vec!["--cacert", &ca]),
        (
            "nobody who believes everybody",
            &secure,
            vec!["--insecure-skip-tls-verify", "--insecure-transport=false"],
        ),
        (
            "another cluster",
            &secure,
            vec!["--cacert", &ca, "--cert", &strange_client, "--key", &strange_client],
        ),
        ("a peer as a client", &secure, vec!["--cacert", &ca, "--cert", &own_peer, "--key", &own_peer]),
        ("nobody, at the peers' port", &plain_peer, vec![]),
        (
            "a client, at the peers' port",
            &peer,
            vec!["--cacert", &peer_ca, "--cert", &client, "--key", &client],
        ),
    ] {
        let arguments = [&["--endpoints", endpoint.as_str()], flags.as_slice(), &delete].concat();
        let output = member.etcdctl(&arguments);
        assert!(!output.status.success(), "{who}: {}", said(&output));
    }
    assert_eq!(run(member.wrapper().args(["get", "key"])), "key\nvalue\n");
    // The same call is taken from root, so that it was the certificate that was refused.
    let flags = ["--endpoints", &secure, "--cacert", &ca, "--cert", &client, "--key", &client];
    assert_eq!(said(&member.etcdctl(&[&flags[..], &delete].concat())), "1\n");

    // keller's own question, with the certificate, with another's, and plainly.
    assert_eq!(health(&member.pki(), member.client), Ok(()));
    assert!(health(&strange, member.client).is_err());
    fs::copy(member.pki().join(etcd::CA), strange.join(etcd::CA)).unwrap();
    let error = health(&strange, member.client).unwrap_err();
    assert!(!error.is_empty(), "{error}");
}

/// What strangers may ask of the peers' port is asked over HTTP.
#[test]
fn a_member_may_have_a_name_of_its_own() {
    let member = Etcd::new();
    let environment = member.environment_beside("ETCD_NAME=node1\n");
    let is_up = || health(&member.pki(), member.client).is_ok();
    let Some(_running) = member.start(environment, is_up) else { return };
    assert!(run(member.wrapper().args(["member", "list"])).contains(", node1, "));
}

#[test]
fn the_peers_port_wants_a_peer() {
    let member = Etcd::new();
    let Some(_running) = member.start_with_tls() else { return };
    if tool("openssl").is_none() {
        return;
    }
    let ask = |pair: &str| {
        let (peer, ca, pair) = (member.peer.to_string(), member.file(etcd::PEER_CA), member.file(pair));
        let mut openssl = tool("openssl").expect("it was there");
        openssl.args(["s_client", "-connect", &peer, "-CAfile", &ca, "-cert", &pair, "-key", &pair]);
        openssl.args(["-quiet", "-verify_return_error"]).stdin(Stdio::piped());
        openssl.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = openssl.spawn().unwrap();
        let request = b"GET /members HTTP/1.0\r\n\r\n";
        let _ = std::io::Write::write_all(child.stdin.as_mut().unwrap(), request);
        said(&child.wait_with_output().unwrap())
    };
    let members = "\"name\":\"default\"";
    let told = ask(etcd::PEER);
    assert!(told.contains(members), "{told}");
    let refused = ask(etcd::CLIENT);
    assert!(!refused.contains(members) && refused.contains("alert"), "{refused}");
}

#[test]
fn renewal_needs_no_restart() {
    let member = Etcd::new();
    let Some(_running) = member.start_with_tls() else { return };
    run(member.wrapper().args(["put", "key", "value"]));
    let served = || {
        let mut openssl = tool("openssl")?;
        let (address, ca, client) =
            (member.client.to_string(), member.file(etcd::CA), member.file(etcd::CLIENT));
        openssl.args(["s_client", "-connect", &address, "-CAfile", &ca, "-cert", &client, "-key", &client]);
        Some(run(openssl.stdin(Stdio::null())))
    };
    let certificate = || {
        let text = fs::read_to_string(member.pki().join(etcd::SERVER)).unwrap();
        text[text.find("-----BEGIN CERTIFICATE").unwrap()..].to_owned()
    };
    let first = certificate();
    let kept = keep(&member.pki(), own_host(), now() + LIFETIME_SECONDS * 3 / 4);
    assert_eq!((kept.made.len(), kept.wants_restart), (3, false));
    assert_eq!(health(&member.pki(), member.client), Ok(()));
    assert_eq!(run(member.wrapper().args(["get", "key"])), "key\nvalue\n");
    let Some(served) = served() else { return };
    assert!(served.contains(&certificate()) && !served.contains(&first), "{served}");
}

/// A node takes the update that brings TLS, and falls back from it.
#[test]
fn data_of_before_tls_are_there_with_it_and_after_a_fall_back() {
    let member = Etcd::new();
    let plain = format!("http://{}", member.client);
    let put = |key: &str| member.etcdctl(&["--endpoints", &plain, "put", key, "value"]).status.success();
    let before = || member.start(member.environment_of_before(), || put("up"));
    let Some(running) = before() else { return };
    assert!(put("old"));
    drop(running);

    let running = member.start_with_tls().unwrap();
    assert_eq!(run(member.wrapper().args(["get", "old"])), "old\nvalue\n");
    run(member.wrapper().args(["put", "new", "value"]));
    assert!(!put("plain"));
    let endpoints = run(member.wrapper().args(["member", "list"]));
    assert!(endpoints.contains(&format!("https://{}", member.client)), "{endpoints}");
    drop(running);

    let _running = before().unwrap();
    let got = member.etcdctl(&["--endpoints", &plain, "get", "--prefix", "--keys-only", ""]);
    let got = said(&got);
    assert!(got.contains("old") && got.contains("new") && !got.contains("plain"), "{got}");
}

/// etcdctl refuses a flag whose variable is set, so that the wrapper must not set it.
#[test]
fn the_wrapper_leaves_what_is_said_alone() {
    let member = Etcd::new();
    let Some(_running) = member.start_with_tls() else { return };
    let (endpoint, ca, client) =
        (format!("https://{}", member.client), member.file(etcd::CA), member.file(etcd::CLIENT));
    let all = ["--cacert", &ca, "--cert", &client, "--key", &client];
    run(member.wrapper().args(["--endpoints", &endpoint, "endpoint", "health"]));
    run(member.wrapper().arg(format!("--endpoints={endpoint}")).args(["endpoint", "health"]));
    run(member.wrapper().args(["endpoint", "health"]).args(all));
    run(member.wrapper().args(["endpoint", "health"]).env("ETCDCTL_ENDPOINTS", &endpoint));
    let variables = [("ETCDCTL_CACERT", &ca), ("ETCDCTL_CERT", &client), ("ETCDCTL_KEY", &client)];
    run(member.wrapper().args(["endpoint", "health"]).envs(variables));
    // A value that looks like a flag is a value.
    run(member.wrapper().args(["put", "--", "a b", "--key='x'"]));
    assert_eq!(run(member.wrapper().args(["get", "a b"])), "a b\n--key='x'\n");
    let elsewhere =
        ["--dial-timeout=1s", "--command-timeout=1s", "--endpoints=https://127.0.0.1:1", "get", "a"];
    assert!(!member.wrapper().args(elsewhere).output().unwrap().status.success());
    // A user who may not read the certificate gets etcd's refusal, and not an error of the wrapper.
    fs::remove_file(member.pki().join(etcd::CLIENT)).unwrap();
    let output =
        member.wrapper().args(["--dial-timeout=1s", "--command-timeout=1s", "get", "a"]).output().unwrap();
    assert!(!output.status.success(), "{}", said(&output));
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    let Some(_) = trixie(&PACKAGES, "usr/bin/etcd") else { return };
    let Some(mut analyze) = trixie(&["systemd"], "usr/bin/systemd-analyze") else { return };
    let trees = Path::new(env!("CARGO_TARGET_TMPDIR")).join("trixie");
    let folder = tempfile::tempdir().unwrap();
    let mut tree = laid();
    let etcd = fs::read(trees.join(PACKAGES.join("+")).join(UNITS).join("etcd.service")).unwrap();
    tree.file(format!("{UNITS}/etcd.service"), 0o644, etcd).unwrap();
    let overlay = Path::new(env!("CARGO_MANIFEST_DIR")).join("overlays/etcd").join(UNITS);
    let own = fs::read(overlay.join("etcd.service.d/10-keller.conf")).unwrap();
    tree.file(format!("{UNITS}/etcd.service.d/10-keller.conf"), 0o644, own).unwrap();
    tree.write_to_folder(folder.path()).unwrap();
    let units = folder.path().join(UNITS);
    // The programs are those of a node.
    for name in ["etcd.service", "keller-etcd-certificates.service"] {
        let text = fs::read_to_string(units.join(name)).unwrap();
        assert!(text.contains("ExecStart=/usr/bin/"), "{text}");
        let text = text.replace("ExecStart=/usr/bin/", "ExecStart=/bin/true /usr/bin/");
        fs::write(units.join(name), text).unwrap();
    }
    let shipped = trees.join("systemd").join(UNITS);
    analyze.env("SYSTEMD_UNIT_PATH", format!("{}:{}", units.display(), shipped.display()));
    let names = ["etcd.service", "keller-etcd-certificates.service", "keller-etcd-certificates.timer"];
    let paths = names.map(|name| units.join(name));
    let output = analyze.args(["verify", "--man=no", "--generators=no"]).args(paths).output().unwrap();
    let text = said(&output);
    // Of our files, not a line; Debian's own are not ours to judge.
    let ours: Vec<&str> = text.lines().filter(|line| line.contains("keller")).collect();
    assert!(output.status.success() && ours.is_empty(), "{text}");
}
