//! Containers as units: podman's own generator and systemd's own parser read what keller writes.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use keller::manifest::{Container, ContainerImage, Port, Runtime, Volume};
use keller::rootfs::Accounts;
use keller::rootfs::containers::{self, Config, Image};
use keller::tree::Tree;

use super::tool::run;
use super::trixie::trixie;

/// Texts that some format along the way takes for something else.
const TEXTS: [&str; 26] = [
    "",
    " ",
    "a b",
    "  two  ",
    "50%",
    "%i%%",
    "$HOME",
    "${HOME}",
    "$$",
    "\"quoted\"",
    "it's",
    "\\",
    "\\n",
    "back\\slash",
    ";",
    ";;",
    "\\;",
    "#",
    "-",
    "@+!:|",
    "umläut \u{1F40C}",
    "line\nbreak\n",
    "tab\there",
    "\u{7}\u{1b}[0m\u{7f}",
    "[Service]",
    "=",
];

pub fn container(name: &str) -> Container {
    Container {
        name: name.into(),
        image: ContainerImage::Archive { path: "x.tar".into(), reference: None, allowed: Default::default() },
        command: Vec::new(),
        environment: BTreeMap::new(),
        ports: Vec::new(),
        volumes: Vec::new(),
        host_network: false,
        start: true,
        new_privileges: false,
        scratch: Container::SCRATCH,
        said: Default::default(),
    }
}

pub fn image(name: &str) -> Image {
    let mut tree = Tree::new(0);
    tree.file("app", 0o755, "#!/app\n").unwrap();
    let config = Config { entrypoint: vec!["/app".into()], ..Config::default() };
    Image { reference: format!("localhost/{name}:latest"), tree, config }
}

fn volume(host: &str, container: &str, read_only: bool) -> Volume {
    Volume { host: host.into(), container: container.into(), read_only }
}

/// A root with the programs that containers are started with.
pub fn root() -> Tree {
    let mut tree = Tree::new(0);
    for program in ["podman", "crun", "ctr", "mount", "mkdir"] {
        tree.file(format!("usr/bin/{program}"), 0o755, "").unwrap();
    }
    tree
}

/// What podman's generator makes of the quadlet file of `container`, by unit, judged by systemd too.
fn generated(container: &Container, image: &Image) -> Option<String> {
    let mut generator = trixie(&["podman"], "usr/libexec/podman/quadlet")?;
    let mut tree = root();
    containers::install(&mut tree, Runtime::Podman, container, image.clone(), &Accounts::default()).unwrap();
    let text = tree.read(format!("usr/share/containers/systemd/{}.container", container.name)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (quadlets, units) = (folder.path().join("quadlets"), folder.path().join("units"));
    fs::create_dir(&quadlets).unwrap();
    fs::create_dir(&units).unwrap();
    fs::write(quadlets.join(format!("{}.container", container.name)), text).unwrap();
    let said = run(generator.env("QUADLET_UNIT_DIRS", &quadlets).arg(&units));
    assert!(!said.to_lowercase().contains("warning") && !said.contains("error"), "{said}");
    let unit = units.join(format!("{}.service", container.name));
    verify(&unit)?;
    Some(fs::read_to_string(unit).unwrap())
}

/// systemd has nothing to say of the unit, but that its programs are not on this host.
fn verify(unit: &Path) -> Option<()> {
    let mut analyze = trixie(&["systemd"], "usr/bin/systemd-analyze")?;
    let tree = Path::new(env!("CARGO_TARGET_TMPDIR")).join("trixie/systemd/usr/lib/systemd/system");
    let folder = unit.parent().unwrap().display();
    analyze.env("SYSTEMD_UNIT_PATH", format!("{folder}:{}", tree.display()));
    let output = analyze.args(["verify", "--man=no", "--generators=no"]).arg(unit).output().unwrap();
    let name = unit.file_name().unwrap().to_str().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let ours = text.lines().filter(|line| line.contains(name) && !line.contains("is not executable"));
    let ours: Vec<&str> = ours.collect();
    assert!(ours.is_empty(), "{ours:#?}\n{}", fs::read_to_string(unit).unwrap());
    Some(())
}

/// Values of `key` in a unit.
fn settings<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
}

/// The arguments that systemd starts a program with, as systemd.syntax(7) and systemd.service(5) have it.
fn arguments(unit: &str) -> Vec<String> {
    let [line] = settings(unit, "ExecStart")[..] else { panic!("not one ExecStart=:\n{unit}") };
    let variables: BTreeMap<String, String> = settings(unit, "Environment")
        .into_iter()
        .flat_map(words)
        .map(|(word, _)| word.split_once('=').map(|(name, value)| (name.into(), value.into())).unwrap())
        .collect();
    words(line)
        .into_iter()
        .map(|(word, quoted)| {
            assert!(quoted || word != ";", "systemd takes this for the end of a command: {line}");
            expanded(&word.replace("%%", "%"), &variables)
        })
        .collect()
}

/// Words of a line, and whether each had quotes.
fn words(line: &str) -> Vec<(String, bool)> {
    let (mut words, mut word, mut open, mut quoted) = (Vec::new(), None::<Vec<u8>>, None, false);
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match letter {
            ' ' | '\t' if open.is_none() => {
                words.extend(word.take().map(|word| (String::from_utf8(word).unwrap(), quoted)));
                quoted = false;
            }
            '"' | '\'' if open == Some(letter) => open = None,
            '"' | '\'' if open.is_none() => {
                (open, quoted) = (Some(letter), true);
                word.get_or_insert_default();
            }
            '\\' => {
                let word = word.get_or_insert_default();
                match letters.next().unwrap() {
                    'a' => word.push(7),
                    'b' => word.push(8),
                    'f' => word.push(12),
                    'n' => word.push(b'\n'),
                    'r' => word.push(b'\r'),
                    't' => word.push(b'\t'),
                    'v' => word.push(11),
                    's' => word.push(b' '),
                    'x' => {
                        let digits: String = letters.by_ref().take(2).collect();
                        word.push(u8::from_str_radix(&digits, 16).unwrap());
                    }
                    itself @ ('\\' | '"' | '\'') => word.push(itself as u8),
                    other => panic!("systemd knows no \\{other}: {line}"),
                }
            }
            letter => {
                word.get_or_insert_default().extend(letter.encode_utf8(&mut [0; 4]).bytes());
            }
        }
    }
    assert!(open.is_none(), "a quote is left open: {line}");
    words.extend(word.map(|word| (String::from_utf8(word).unwrap(), quoted)));
    words
}

fn expanded(word: &str, variables: &BTreeMap<String, String>) -> String {
    let (mut text, mut rest) = (String::new(), word);
    while let Some(at) = rest.find('$') {
        text.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            text.push('$');
            rest = after;
        } else {
            let (name, after) = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).expect(word);
            text.push_str(&variables[name]);
            rest = after;
        }
    }
    text + rest
}

/// What follows on each `flag`.
fn given(arguments: &[String], flag: &str) -> Vec<String> {
    let pairs = arguments.windows(2).filter(|pair| pair[0] == flag);
    pairs.map(|pair| pair[1].clone()).collect()
}

#[test]
fn every_word_of_a_command_reaches_podman() {
    let long = "x".repeat(131_071);
    let sample = ["redis-server", "--save", "", "--appendonly", "no"].map(str::to_owned).to_vec();
    let texts: Vec<String> = TEXTS.iter().map(|text| (*text).to_owned()).chain([long]).collect();
    for command in [sample, texts.clone(), vec![String::new()], texts.iter().rev().cloned().collect()] {
        let container = Container { command: command.clone(), ..container("words") };
        let Some(unit) = generated(&container, &image("words")) else { return };
        let arguments = arguments(&unit);
        let at = arguments.iter().position(|word| word == "localhost/words:latest").unwrap();
        assert_eq!(arguments[at + 1..], command);
    }
}

#[test]
fn every_variable_reaches_podman() {
    let long = "x".repeat(131_000);
    let environment: BTreeMap<_, _> = TEXTS
        .iter()
        .map(|text| (*text).to_owned())
        .chain([long])
        .enumerate()
        .map(|(index, text)| (format!("V{index:02}"), text))
        .collect();
    let container = Container { environment: environment.clone(), ..container("variables") };
    let Some(unit) = generated(&container, &image("variables")) else { return };
    let expected: Vec<_> = environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(given(&arguments(&unit), "--env"), expected);
}

#[test]
fn every_volume_reaches_podman() {
    let paths = TEXTS.iter().filter(|text| !text.is_empty() && !text.contains('\n') && !text.contains(':'));
    let mut volumes: Vec<Volume> =
        paths.map(|text| volume(&format!("/var/lib/{text}"), &format!("/{text}"), false)).collect();
    volumes.push(volume("/var/lib/with space", "/data", true));
    volumes.push(volume("/var/lib/fifty%percent", "/percent", true));
    volumes.push(volume("/var/lib/plain", "/plain ", true));
    let container = Container { volumes: volumes.clone(), ..container("volumes") };
    let Some(unit) = generated(&container, &image("volumes")) else { return };
    let expected = |volume: &Volume| {
        format!("{}:{}:{}", volume.host, volume.container, if volume.read_only { "ro" } else { "rw" })
    };
    let mut expected: Vec<_> = volumes.iter().map(expected).collect();
    let mut found = given(&arguments(&unit), "-v");
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
    // Each is mounted before the container starts, and systemd can tell them apart.
    let mounts: Vec<String> =
        settings(&unit, "RequiresMountsFor").into_iter().flat_map(words).map(|(word, _)| word).collect();
    for volume in &volumes {
        assert!(mounts.contains(&volume.host.replace('%', "%%")), "{} in {mounts:#?}", volume.host);
    }
    // The generator's own: without run-containers.mount, a container would fill the node's /run.
    assert!(mounts.iter().any(|path| path == "%t/containers"), "{mounts:#?}");
}

#[test]
fn only_who_serves_waits_for_the_network() {
    let ports =
        vec![Port { host: 80, container: 8080, udp: false }, Port { host: 53, container: 53, udp: true }];
    let serving = Container { ports, ..container("web") };
    let host = Container { host_network: true, ..container("web") };
    for (container, waits) in [(container("web"), false), (serving, true), (host, true)] {
        let Some(unit) = generated(&container, &image("web")) else { return };
        assert_eq!(unit.contains("network-online.target"), waits, "{unit}");
        let published: &[&str] = if container.ports.is_empty() { &[] } else { &["80:8080", "53:53/udp"] };
        assert_eq!(given(&arguments(&unit), "--publish"), published);
    }
}

#[test]
fn new_privileges_are_opened_by_name_only() {
    for new_privileges in [false, true] {
        let container = Container { new_privileges, ..container("web") };
        let Some(unit) = generated(&container, &image("web")) else { return };
        let closed = arguments(&unit).iter().any(|word| word.contains("no-new-privileges"));
        assert_eq!(closed, !new_privileges, "{unit}");
        for runtime in [Runtime::Crun, Runtime::Containerd] {
            let unit = unit_of(runtime, &container, &image("web"));
            let mount = settings(&unit, "ExecStartPre").into_iter().find(|line| line.contains("lowerdir="));
            let mount = mount.expect("an overlay");
            assert_eq!(mount.contains("nosuid,nodev,"), !new_privileges, "{mount}");
            assert!(mount.contains("suid,nodev,"), "{mount}");
        }
    }
}

#[test]
fn what_a_container_writes_is_in_memory_of_its_own() {
    let container = Container { scratch: keller::base::Size(64 << 20), ..container("web") };
    for runtime in [Runtime::Crun, Runtime::Containerd] {
        let unit = unit_of(runtime, &container, &image("web"));
        let steps = settings(&unit, "ExecStartPre");
        let place = "/run/keller/containers/web";
        let scratch = "mount -t tmpfs web -o size=67108864,nr_inodes=16384,mode=0700,nosuid,nodev";
        let at = |text: &str| steps.iter().position(|line| line.contains(text)).expect(text);
        assert!(at(&format!("{scratch} {place}/scratch")) < at(&format!("mkdir {place}/scratch/upper")));
        assert!(at("mkdir --parents ") < at(&format!("{scratch} ")));
        assert!(
            at("scratch/upper ")
                < at(&format!("upperdir={place}/scratch/upper,workdir={place}/scratch/work"))
        );
        let stop = settings(&unit, "ExecStopPost");
        let at = |text: &str| stop.iter().position(|line| line.ends_with(text)).expect(text);
        assert!(at("umount --lazy /run/keller/containers/web/root") < at("web/scratch"));
        assert_eq!(settings(&unit, "RuntimeDirectoryMode"), ["0700"]);
        // Nothing below it, whose mode systemd would set where the image is mounted.
        assert_eq!(settings(&unit, "RuntimeDirectory"), ["keller/containers/web"]);
    }
}

#[test]
fn the_stop_signal_of_the_image_is_kept() {
    for (text, shown) in
        [("SIGQUIT", "SIGQUIT"), ("2", "SIGINT"), ("rtmin+3", "SIGRTMIN+3"), ("64", "SIGRTMIN+30")]
    {
        let mut image = image("web");
        image.config.stop_signal = Some(text.parse().unwrap());
        let Some(unit) = generated(&container("web"), &image) else { return };
        assert_eq!(given(&arguments(&unit), "--stop-signal"), [shown]);
        for runtime in [Runtime::Crun, Runtime::Containerd] {
            let unit = unit_of(runtime, &container("web"), &image);
            assert_eq!(settings(&unit, "KillSignal"), [shown]);
        }
    }
}

/// The unit for a runtime without a generator, judged by systemd.
fn unit_of(runtime: Runtime, container: &Container, image: &Image) -> String {
    let mut tree = root();
    containers::install(&mut tree, runtime, container, image.clone(), &Accounts::default()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let name = format!("{}.service", container.name);
    let unit = tree.read(format!("usr/lib/systemd/system/{name}")).unwrap();
    fs::write(folder.path().join("containerd.service"), "[Service]\nExecStart=/bin/true\n").unwrap();
    fs::write(folder.path().join(&name), &unit).unwrap();
    verify(&folder.path().join(&name));
    String::from_utf8(unit).unwrap()
}

#[test]
fn units_of_other_runtimes() {
    let volumes = vec![volume("/var/lib/with space", "/a b", false), volume("/var/lib/50%\"'\\", "/c", true)];
    let command: Vec<String> = TEXTS.iter().map(|text| (*text).to_owned()).collect();
    let environment = BTreeMap::from([("A".to_owned(), "line\nbreak $x %i \"".to_owned())]);
    let container = Container { volumes, command: command.clone(), environment, ..container("odd") };
    for runtime in [Runtime::Crun, Runtime::Containerd] {
        let unit = unit_of(runtime, &container, &image("odd"));
        let mounts: Vec<_> = settings(&unit, "RequiresMountsFor").into_iter().flat_map(words).collect();
        assert_eq!(mounts[0].0, "/var/lib/with space");
        assert_eq!(mounts[1].0, "/var/lib/50%%\"'\\");
        let mut tree = root();
        containers::install(&mut tree, runtime, &container, image("odd"), &Accounts::default()).unwrap();
        let config = tree.read("usr/share/keller/containers/odd/config.json").unwrap();
        let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
        let words: Vec<String> = serde_json::from_value(config["process"]["args"].clone()).unwrap();
        assert_eq!(words[1..], command);
        let sources: Vec<&str> = config["mounts"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|mount| mount["source"].as_str())
            .collect();
        assert!(sources.contains(&"/var/lib/50%\"'\\"), "{sources:?}");
    }
}
