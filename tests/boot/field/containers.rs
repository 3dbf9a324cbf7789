//! Containers of an OCI image under podman: its directories, the words of a command, volumes over a reboot.

use std::fs;
use std::path::Path;

use serde_json::json;

use super::Node;
use crate::judges::trixie::trixie;
use crate::judges::umoci::{self, Entry, layer};

/// The second layer of the image gives `/data` to the user that the image names.
pub const MANIFEST: &str = r#"
runtime: podman
containers:
  - name: words
    image: {archive: image, reference: x}
    command: ["a b", "", ";", "50%", "%i", "$HOME", "${HOME}", '\', '"', "it's", "ü", "line\nbreak", " ", "-x"]
    environment: {ODD: "  50% $HOME \\ \" 'x' \n"}
    volumes: ["/var/lib/with space 50%:/out"]
  - name: kept
    image: {archive: image}
    volumes: ["/srv/app/data:/data"]
"#;

/// What the image runs: it leaves its words, its variable and its user where the host can see them.
const SCRIPT: &str = "id -u >/data/user && test $(cat /data/user) = 1000 && touch /data/written; \
    { printf '%s|' \"$@\"; printf '%s' \"$ODD\"; } >/out/words; exec sleep 1000000";

/// The image; nothing, said aloud, without its shell.
pub fn layout(folder: &Path) -> Option<()> {
    let shell = trixie(&["busybox-static"], "usr/bin/busybox")?;
    let shell = fs::read(shell.get_args().last().unwrap()).unwrap();
    let mut lower = vec![
        ("bin/".to_owned(), 0o755, 0, 1, Entry::Directory),
        ("bin/busybox".to_owned(), 0o755, 0, 1, Entry::File(&shell)),
        ("data/".to_owned(), 0o755, 0, 1, Entry::Directory),
    ];
    for name in ["sh", "id", "cat", "touch", "printf", "sleep"] {
        lower.push((format!("bin/{name}"), 0o777, 0, 1, Entry::Symlink("busybox")));
    }
    let upper = [("data/".to_owned(), 0o750, 1000, 2, Entry::Directory)];
    let process =
        json!({ "Entrypoint": ["sh", "-c", SCRIPT, "sh"], "User": "1000:1001", "StopSignal": "SIGKILL" });
    umoci::layout(folder, &[layer(&lower), layer(&upper)], &process);
    Some(())
}

pub fn write_where_their_image_lets_them(node: &Node) {
    let inside =
        "sudo podman exec words cat /data/user && sudo podman exec words sh -c 'echo more >/data/more'";
    assert_eq!(node.run(inside), "1000");
    let images = node.run("sudo podman images --format '{{.Repository}}:{{.Tag}}'");
    assert!(images.lines().any(|line| line == "localhost/words:latest"), "{images}");
}

pub fn are_started_with_the_very_words(node: &Node) {
    let words =
        ["a b", "", ";", "50%", "%i", "$HOME", "${HOME}", "\\", "\"", "it's", "ü", "line\nbreak", " ", "-x"];
    let expected: String = words.iter().map(|word| format!("{word}|")).collect();
    let expected = format!("{expected}  50% $HOME \\ \" 'x' \n.");
    assert_eq!(node.run("sudo cat '/var/lib/with space 50%/words' && echo ."), expected);
    let wait = node.run("systemctl show -p After --value words.service");
    assert!(!wait.contains("network-online.target"), "{wait}");
}

/// A fresh volume is as the image has its directory; what is made of it then stays.
pub fn keep_their_volumes(node: &mut Node) {
    let access = "sudo stat -c '%a %u:%g' /srv/app/data";
    assert_eq!(node.run(access), "750 1000:1001");
    node.run("sudo chmod 0700 /srv/app/data && sudo chown 999:998 /srv/app/data && sync");
    node.reboot();
    assert_eq!(node.run(access), "700 999:998");
    // ssh may answer before.
    let started = "until ! systemctl is-active kept.service | grep -q activating; do sleep 1; done";
    assert_eq!(node.run(&format!("{started}; systemctl is-active kept.service")), "active");
}

/// Their own files in the node's /run have an end of their own.
pub fn cannot_fill_run(node: &Node) {
    let fill = "cat /dev/zero >/etc/hosts; busybox stat -c %s /etc/hosts; : >/etc/hosts";
    let size = node.run(&format!("sudo podman exec --user 0 words sh -c '{fill}'")).parse::<u64>().unwrap();
    assert!((16 << 20..=32 << 20).contains(&size), "{size}");
}

/// Their first process is catatonit, without which podman makes none.
pub fn live_in_pods(node: &Node) {
    node.run("sudo podman pod create --name pods && sudo podman pod start pods");
    assert_eq!(node.run("sudo podman pod ps --format '{{.Name}} {{.Status}}'"), "pods Running");
}
