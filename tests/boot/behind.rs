//! A node that is three versions behind, across a rotation of the root key, another kernel and a new user.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::scratch::Scratch;
use super::update::{cost, run, serve};
use super::{BOOT, Node, keller, trial};
use crate::http_server::{Act, Request, Server};

/// Debian's kernel for virtual machines, and the one for real ones without what a virtual machine has no use for.
const CLOUD: &str = "include: [keller:manifests/components/base.yaml, keller:manifests/components/ssh.yaml, \
    keller:manifests/components/kernel-cloud.yaml]\n";
pub(super) const METAL: &str = "include: [keller:manifests/components/base.yaml, keller:manifests/components/ssh.yaml]\n\
    packages: [linux-image-amd64]\n\
    assume: {initramfs-tools: &made \"keller makes its own\", initramfs-tools-bin: *made, \
    initramfs-tools-core: *made, dracut-install: *made, klibc-utils: *made, libklibc: *made, \
    linux-base: \"serves maintainer scripts\"}\n\
    prune: [/usr/lib/modules/*/kernel/sound, /usr/lib/modules/*/kernel/drivers/media, \
    /usr/lib/modules/*/kernel/drivers/gpu, /usr/lib/modules/*/kernel/drivers/staging, \
    /usr/lib/modules/*/kernel/drivers/net/wireless, /usr/lib/modules/*/kernel/drivers/net/ethernet, \
    /usr/lib/modules/*/kernel/drivers/infiniband, /usr/lib/modules/*/kernel/drivers/iio]\n";
const USER: &str =
    "system_users: [{name: meter, home: /var/lib/meter}]\nservices: {enable: [meter.service]}\n";
/// Runs as the new user, and leaves a file that is the user's.
const METER: &str = "[Unit]\nDescription=Counts\n\n[Service]\nType=oneshot\nRemainAfterExit=yes\nUser=meter\n\
    StateDirectory=meter\nExecStart=/usr/bin/touch /var/lib/meter/count\n\n[Install]\nWantedBy=multi-user.target\n";

#[test]
#[ignore = "long: ci/test --long"]
fn three_versions_back_across_a_key_rotation_a_new_kernel_and_a_new_user() {
    let folder = Scratch::new("behind");
    std::fs::create_dir_all(folder.join("overlay/usr/lib/systemd/system")).unwrap();
    let server = Server::start();
    run(keller().current_dir(&*folder).args(["keys", "init", "keys"]));
    let first = build(&folder, "1.0.0", CLOUD, server.port());
    publish(&folder, &first, "1");
    // Of the others, only what is published is wanted.
    let publish_one = |version: &str, parts: &str, level: &str| {
        let image = build(&folder, version, parts, server.port());
        publish(&folder, &image, level);
        std::fs::remove_file(image).unwrap();
    };
    publish_one("1.0.1", CLOUD, "1");
    publish_one("1.0.2", CLOUD, "1");
    for _ in 0..2 {
        run(keller().current_dir(&*folder).args(["keys", "rotate", "root"]));
    }
    std::fs::write(folder.join("overlay/usr/lib/systemd/system/meter.service"), METER).unwrap();
    // Compressed otherwise, so that all of it lies in files of its own.
    let blobs = folder.join("repository/blobs");
    let known = files(&blobs);
    publish_one("1.0.3", &format!("{METAL}{USER}"), "2");
    serve(&server, &folder.join("repository"), "");

    let mut node = Node::boot(&first, &["--persist"]);
    assert_eq!(node.settled(), "running");
    node.run("sudo systemctl stop keller-agent");
    // As if a time server had answered, for which an update waits.
    node.run("sudo mkdir -p /run/systemd/timesync && sudo touch /run/systemd/timesync/synchronized");
    let kernel = node.run("uname -r");
    assert!(kernel.ends_with("-cloud-amd64"), "{kernel}");
    assert!(!node.try_run("getent passwd meter").status.success());
    node.run("sudo useradd --create-home --uid 1234 clerk && sudo -u clerk sh -c 'echo mine > ~clerk/notes'");

    // Killed in the middle of the frames, of which some are on the disk by then.
    let published = files(&blobs);
    let frames = largest(published.difference(&known));
    let path = format!("/blobs/{}", frames.file_name().unwrap().to_str().unwrap());
    let bytes = std::fs::read(frames).unwrap();
    // What tells the blocks of each run lies at the end of the file, and comes first.
    let stretch = bytes.len() / 2..bytes.len() / 10 * 9;
    server.put(&path, bytes.clone(), &[Act::HangIn(stretch.clone())]);
    let hangs = |request: &Request| {
        request.path() == path && start(request).is_some_and(|at| stretch.contains(&(at as usize)))
    };
    node.run("sudo systemd-run --quiet --unit=taken keller update stage");
    let deadline = Instant::now() + 4 * BOOT;
    while !server.seen().iter().any(hangs) {
        assert!(Instant::now() < deadline, "it does not come to the frames");
        sleep(Duration::from_millis(200));
    }
    // On a slow machine what has come is not yet where it belongs.
    let written =
        || node.run("sudo grep ^write_bytes /proc/$(systemctl show --property=MainPID --value taken)/io");
    let mut before = written();
    loop {
        sleep(Duration::from_secs(3));
        let now = written();
        if now == before {
            break;
        }
        assert!(Instant::now() < deadline, "it goes on writing: {now}");
        before = now;
    }
    node.run("sudo systemctl kill --signal=KILL taken");
    let interrupted = server.sent(0)[&path];
    server.put(&path, bytes, &[Act::Serve]);

    let before = server.seen().len();
    let said = node.starts_over_by("sudo keller update apply");
    let sent = server.sent(before);
    assert_eq!(node.settled(), "running");
    let status = trial::wait_for(&node, "good");
    println!("{said}");
    cost(&status, &sent);
    assert_eq!((&status["version"], &status["entry"]), (&"1.0.3".into(), &"behind_1.0.3.efi".into()));
    assert_eq!(status["update"]["transfer"]["root_way"], "blocks");
    assert_eq!(status["update"]["transfer"]["uki_way"], "kept", "{status}");
    for root in ["/metadata/2.root.json", "/metadata/3.root.json"] {
        assert!(
            server.seen().iter().any(|request| request.line.ends_with(root)),
            "{root} was not walked over"
        );
    }
    let seen = server.seen();
    let (first, second) = (stretches(&seen[..before], &path), stretches(&seen[before..], &path));
    let common = |a: &Range<u64>, b: &Range<u64>| a.end.min(b.end).saturating_sub(a.start.max(b.start));
    let twice: u64 = first.iter().flat_map(|a| second.iter().map(move |b| common(a, b))).sum();
    println!("killed after {interrupted} bytes of frames; then {}, of which {twice} once more", sent[&path]);
    // The table of those runs that are still to come, and the run that was on its way.
    assert!(interrupted > 8 << 20 && twice < 2 << 20, "{interrupted} bytes, {twice} of them twice");

    let kernel = node.run("uname -r");
    assert!(kernel.ends_with("-amd64") && !kernel.contains("cloud"), "{kernel}");
    let users = node.run("getent passwd core clerk meter | cut -d: -f1,6");
    assert_eq!(users, "core:/home/core\nclerk:/home/clerk\nmeter:/var/lib/meter");
    assert_eq!(node.run("sudo cat ~clerk/notes; sudo stat -c %U ~clerk/notes"), "mine\nclerk");
    assert_eq!(node.run("sudo stat -c %U /var/lib/meter/count; cat /etc/version-of-this"), "meter\n1.0.3");
}

fn build(folder: &Path, version: &str, parts: &str, port: u16) -> PathBuf {
    let text = format!(
        "keller: 1\nid: behind\nversion: {version}\n{parts}\
         users: [{{name: core, uid: 1000, groups: [sudo, systemd-journal], ssh_keys: []}}]\n\
         overlays: [overlay]\n\
         files: [{{path: /etc/version-of-this, content: \"{version}\\n\"}}]\n\
         kernel: {{cmdline: [\"console=ttyS0,115200\"], initramfs_modules: auto}}\nhealth: {{stable: 1s, deadline: 10min}}\n\
         update: {{url: \"http://10.0.2.2:{port}\", keys: keys}}\n\
         disk: {{esp: 128MiB, root: 512MiB, reserve: 64MiB, state: {{min: 256MiB}}}}\noutputs: [raw]\n"
    );
    std::fs::write(folder.join("node.yaml"), text).unwrap();
    run(keller().current_dir(folder).args(["build", "--quiet", "--output", ".", "node.yaml"]));
    folder.join(format!("behind_{version}.raw"))
}

/// The first byte that a request asks for, of a part.
fn start(request: &Request) -> Option<u64> {
    let (start, _) = request.headers.get("range")?.strip_prefix("bytes=")?.split_once('-')?;
    start.parse().ok()
}

/// What was sent of the file at `path`.
fn stretches(requests: &[Request], path: &str) -> Vec<Range<u64>> {
    let of_it = requests.iter().filter(|request| request.path() == path);
    of_it
        .filter_map(|request| {
            let start = start(request)?;
            Some(start..start + request.sent?)
        })
        .collect()
}

/// Without patches: to 1.0.3, none would lead from 1.0.0.
fn publish(folder: &Path, image: &Path, level: &str) {
    let arguments = ["publish", "--level", level, "--patches", "0", "--to", "repository", "--keys", "keys"];
    run(keller().current_dir(folder).args(arguments).arg(image));
}

fn files(folder: &Path) -> BTreeSet<PathBuf> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn largest<'a>(files: impl Iterator<Item = &'a PathBuf>) -> &'a PathBuf {
    files.max_by_key(|path| path.metadata().unwrap().len()).expect("a file")
}
