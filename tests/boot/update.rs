//! A node takes a new version from a web server, by itself but for the word.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::scratch::Scratch;
use super::{Node, keller};
use crate::http_server::{Act, Server};
use crate::updates::World;

/// The update that `boot::power` records, too.
#[test]
fn a_node_takes_a_new_version_by_a_patch_and_keeps_it() {
    super::power::update();
}

/// A second network card, on a wire that leads nowhere.
pub(super) const MUTE_CARD: [&str; 4] =
    ["-netdev", "hubport,id=mute,hubid=7", "-device", "virtio-net-pci,netdev=mute"];

/// The node, which has a [`MUTE_CARD`], is online by its other one, and units that waited for that did not wait for both.
fn is_online_by_one_card(node: &Node) {
    let cards = node.run("networkctl list --no-legend --no-pager 'en*' 'eth*'");
    let states: Vec<&str> = cards.lines().filter_map(|line| line.split_whitespace().last()).collect();
    assert!(
        states.len() == 2 && states.contains(&"configured") && states.contains(&"configuring"),
        "{cards}"
    );
    let waited =
        node.run("systemctl show --property=ActiveState,Result systemd-networkd-wait-online.service");
    assert_eq!(waited, "Result=success\nActiveState=active", "{cards}");
}

/// Has `node` take 1.0.1, and looks at what has become of it. `mark` is called when the update begins, when the new
/// version is ready, and when it runs.
pub(super) fn take(node: &mut Node, server: &Server, mut mark: impl FnMut()) {
    assert_eq!(node.settled(), "running");
    is_online_by_one_card(node);
    // Its own looks at the server would be counted too.
    node.run("sudo systemctl stop keller-agent");
    let found = node.run("sudo keller update check");
    assert!(found.contains("1.0.1 is there; 1.0.0 runs"), "{found}");
    let before = server.seen().len();
    mark();
    let output = node.try_run("sudo keller update apply --no-reboot");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{said}");
    println!("{said}");
    mark();
    let sent = server.sent(before);
    node.reboot();
    mark();
    assert_eq!(node.settled(), "running");
    is_online_by_one_card(node);
    let status = super::trial::wait_for(node, "good");
    // It is no news any more.
    assert_eq!(status["update"]["newest"], serde_json::Value::Null);
    assert_eq!((&status["version"], &status["slot"]), (&"1.0.1".into(), &"b".into()));
    assert_eq!(status["entry"], format!("{ID}_1.0.1.efi"));
    assert_eq!(node.run("cat /etc/version-of-this; which fuser"), "1.0.1\n/usr/bin/fuser");
    let verity = node.run("lsblk --noheadings --list --output NAME,PARTLABEL --inverse /dev/mapper/root");
    let labels = [format!("{ID}_1.0.1"), format!("{ID}_1.0.1_verity")];
    assert!(labels.iter().all(|label| verity.contains(label)), "{verity}");
    let bytes = cost(&status, &sent);
    assert!(said.contains(&format!("{bytes} bytes fetched")) && said.contains("by patch"), "{said}");
    assert!((1000..5_000_000).contains(&bytes), "{bytes} bytes for one small package");
}

/// What the last update in `status` took, in bytes: by the node's own account, and by that of the server, which has
/// `sent` this much of each file. Every byte counts: the signed metadata and the release document are what neither
/// the root nor the kernel image took.
pub(super) fn cost(status: &serde_json::Value, sent: &BTreeMap<String, u64>) -> u64 {
    let transfer = &status["update"]["transfer"];
    let number = |name: &str| transfer[name].as_u64().unwrap_or_else(|| panic!("{name} of {transfer}"));
    let (bytes, memory) = (number("bytes"), number("memory"));
    let total = |is_blob| {
        let of_kind = sent.iter().filter(|(path, _)| path.starts_with("/blobs/") == is_blob);
        of_kind.map(|(_, bytes)| bytes).sum::<u64>()
    };
    let (blobs, signed) = (total(true), total(false));
    println!(
        "{}: {bytes} bytes fetched, by the server's log {}, of these {signed} signed metadata; {} MiB of memory",
        transfer["version"],
        blobs + signed,
        memory >> 20
    );
    assert_eq!(number("root_bytes") + number("uki_bytes"), blobs, "{transfer} {sent:?}");
    assert_eq!(bytes, blobs + signed, "{transfer} {sent:?}");
    assert!((1 << 20..100_000_000).contains(&memory), "{memory} bytes of memory");
    bytes
}

/// Versions 1.0.0 and 1.0.1 of a small node: the newer one has a package more.
pub(super) struct Published {
    pub images: [PathBuf; 2],
    /// What any web server may serve.
    pub repository: PathBuf,
    /// The one that is named in both images.
    pub server: Server,
    /// Has the others.
    _folder: Scratch,
}

/// The id of that node.
pub(super) const ID: &str = "served";

/// Takes the other version, and then this one again, and so on, where it is told to by the firmware.
const AGAIN: [(&str, &str); 2] = [
    (
        "usr/lib/systemd/system/again.service",
        "[Unit]\nDescription=The other version, and then this one again\nConditionKernelCommandLine=again\n\
         Wants=network-online.target\nAfter=network-online.target\n\
         [Service]\nType=exec\nStandardOutput=journal+console\nStandardError=journal+console\n\
         ExecStart=/usr/lib/again\n[Install]\nWantedBy=multi-user.target\n",
    ),
    (
        "usr/lib/again",
        "#!/bin/sh\n. /usr/lib/os-release\n\
         # No time server can be reached, so nothing shall wait for one.\n\
         mkdir -p /run/systemd/timesync && touch /run/systemd/timesync/synchronized\n\
         case $IMAGE_VERSION in 1.0.0) other=1.0.1 ;; *) other=1.0.0 ;; esac\n\
         echo \"again: $IMAGE_VERSION runs\"\n\
         until keller update apply --version \"$other\" --again; do sleep 1; done\n",
    ),
];

/// Made, published and served once for all tests.
pub(super) fn published() -> &'static Published {
    static PUBLISHED: OnceLock<Published> = OnceLock::new();
    PUBLISHED.get_or_init(publish)
}

fn publish() -> Published {
    let folder = Scratch::new(ID);
    std::fs::create_dir_all(folder.join("overlay/etc")).unwrap();
    for (path, text) in AGAIN {
        let file = folder.join("overlay").join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, Permissions::from_mode(0o755)).unwrap();
    }
    let server = Server::start();
    run(keller().current_dir(&*folder).args(["keys", "init", "keys"]));
    let versions = [("1.0.0", "dmsetup"), ("1.0.1", "dmsetup, psmisc")];
    let images = versions.map(|(version, packages)| build(&folder, version, packages, server.port()));
    for image in &images {
        let arguments = ["publish", "--level", "1", "--to", "repository", "--keys", "keys"];
        run(keller().current_dir(&*folder).args(arguments).arg(image));
    }
    let repository = folder.join("repository");
    serve(&server, &repository, "");
    Published { images, repository, server, _folder: folder }
}

fn build(folder: &Path, version: &str, packages: &str, port: u16) -> PathBuf {
    std::fs::write(folder.join("overlay/etc/version-of-this"), format!("{version}\n")).unwrap();
    let text = format!(
        "keller: 1\nid: {ID}\nversion: {version}\n\
         include: [keller:manifests/components/base.yaml, keller:manifests/components/kernel-cloud.yaml, \
         keller:manifests/components/ssh.yaml]\n\
         users: [{{name: core, uid: 1000, groups: [sudo, systemd-journal], ssh_keys: []}}]\n\
         packages: [{packages}]\noverlays: [overlay]\nservices: {{enable: [again.service]}}\n\
         kernel: {{cmdline: [\"console=ttyS0,115200\"]}}\nhealth: {{stable: 1s, deadline: 10min}}\n\
         update: {{url: \"http://10.0.2.2:{port}\", keys: keys}}\n\
         disk: {{esp: 128MiB, root: 512MiB, reserve: 64MiB, state: {{min: 256MiB}}}}\noutputs: [raw]\n"
    );
    std::fs::write(folder.join("node.yaml"), text).unwrap();
    run(keller().current_dir(folder).args(["build", "--quiet", "--output", ".", "node.yaml"]));
    folder.join(format!("{ID}_{version}.raw"))
}

/// Runs what must succeed.
pub(super) fn run(command: &mut Command) {
    let output = command.output().expect("it starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A repository of its own for `node`, in place of the one that the image does not name, with `more` settings; and a clock
/// that is right, as if a time server had answered.
pub(super) fn own_updates(node: &Node, world: &World, more: &str) {
    let root = String::from_utf8(world.root_json.clone()).unwrap();
    assert!(!root.contains('\''), "{root}");
    let port = world.server.port();
    node.run(&format!(
        "sudo mkdir -p /etc/keller /run/systemd/timesync && sudo touch /run/systemd/timesync/synchronized && \
         echo '{root}' | sudo tee /etc/keller/root.json && \
         printf 'url: http://10.0.2.2:{port}\\n{more}' | sudo tee /etc/keller/update.yaml"
    ));
}

/// Every file below `folder`, on the web.
pub(super) fn serve(server: &Server, folder: &Path, path: &str) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = format!("{path}/{}", entry.file_name().to_string_lossy());
        match entry.file_type().unwrap().is_dir() {
            true => serve(server, &entry.path(), &path),
            false => server.put(&path, std::fs::read(entry.path()).unwrap(), &[Act::Serve]),
        }
    }
}
