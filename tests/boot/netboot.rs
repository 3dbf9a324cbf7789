//! From the network to a node: the small kernel image by PXE from QEMU's TFTP server, or by iPXE over HTTP; the disk image
//! over HTTP each time.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::install::runs_from_disk;
use super::scratch::Scratch;
use super::update::run;
use super::{BOOT, Node, keller};
use crate::http_server::{Act, Server};
use crate::unfold;

const DOCUMENT: &str = "node: 1
name: installed-node
install: {disk: bus=virtio}
";

const PROGRAM: &str = "small_1.0.0.netboot-http.efi";
const IMAGE: &str = "small_1.0.0.raw.zst";
const SCRIPT: &str = "small_1.0.0.ipxe";

/// What fits into the memory of a boot loader that counts TFTP's blocks in 16 bits.
const SMALL: u64 = 45_000_000;

fn manifest() -> String {
    super::install::manifest("small", "kernel-cloud", "raw, netboot-http")
}

fn build(directory: &Path, output: &str, more: &[&str]) {
    let arguments = [&["build", "--quiet", "--output", output][..], more, &["node.yaml"]].concat();
    run(keller().current_dir(directory).args(arguments));
}

/// A machine with an empty disk, which its firmware tries first, and a second card, from which it starts.
fn start(directory: &Path, files: &Path, program: &str) -> (Node, PathBuf) {
    let disk = directory.join("disk.raw");
    let size = unfold::node(&directory.join("out/small_1.0.0.raw")).disk_size;
    File::create(&disk).unwrap().set_len(size).unwrap();
    let network =
        format!("--qemu-arg=user,id=pxe,net=10.0.3.0/24,tftp={},bootfile={program}", files.display());
    let card = "--qemu-arg=virtio-net-pci,netdev=pxe,bootindex=1,romfile=";
    let arguments =
        ["--persist", "--memory", "1GiB", "--qemu-arg=-netdev", &network, "--qemu-arg=-device", card];
    (Node::start(&disk, &arguments, 8080), disk)
}

#[test]
#[ignore = "long: ci/test --long"]
fn a_small_kernel_image_fetches_the_rest_and_installs_it() {
    let directory = Scratch::new("small");
    let server = Server::start();
    let url = format!("netboot: {{url: \"http://10.0.3.2:{}/\"}}\n", server.port());
    fs::write(directory.join("node.yaml"), manifest() + &url).unwrap();
    fs::write(directory.join("rack.yaml"), DOCUMENT).unwrap();
    build(&directory, "out", &["--install", "rack.yaml"]);
    build(&directory, "again", &["--install", "rack.yaml"]);
    for name in [PROGRAM, IMAGE, SCRIPT] {
        let bytes = |output: &str| fs::read(directory.join(output).join(name)).unwrap();
        assert!(bytes("out") == bytes("again"), "{name}");
    }
    fs::remove_dir_all(directory.join("again")).unwrap();
    let size = directory.join("out").join(PROGRAM).metadata().unwrap().len();
    assert!(size < SMALL, "{size}");

    // The server is not there at first, and breaks off once.
    let image = fs::read(directory.join("out").join(IMAGE)).unwrap();
    server.put(&format!("/{IMAGE}"), image, &[Act::Status(503), Act::ResetAt(20_000_000), Act::Serve]);
    let (mut node, disk) = start(&directory, &directory.join("out"), PROGRAM);
    node.expect("the server says 503", 4 * BOOT);
    node.expect("the connection broke after 20000000 bytes", BOOT);
    node.expect("SHA-256 is right", BOOT);
    node.expect("small 1.0.0 is on /dev/vd", 4 * BOOT);
    node.answers(8080, BOOT);
    runs_from_disk(&node);
    assert_eq!(node.settled(), "running");
    assert_eq!(node.run("hostname"), "installed-node");
    let root_hash = node.run("sed -n 's/.*\"root_hash\": \"\\(.*\\)\",/\\1/p' /run/keller/boot.json");
    let _ = node.try_run("sudo systemctl poweroff");
    node.expect("Power down", BOOT);
    drop(node);
    let inspected = keller().args(["inspect", "--verify"]).arg(&disk).output().expect("keller starts");
    let said = String::from_utf8_lossy(&inspected.stdout).into_owned();
    assert!(inspected.status.success() && said.contains(&root_hash), "{said}");
}

/// Debian's package `ipxe`, or what `KELLER_IPXE` names. It reads `autoexec.ipxe` from where it came itself.
fn ipxe() -> Option<Vec<u8>> {
    let path = std::env::var_os("KELLER_IPXE").unwrap_or_else(|| "/usr/lib/ipxe/ipxe.efi".into());
    fs::read(path).ok()
}

#[test]
#[ignore = "long: ci/test --long"]
fn ipxe_starts_a_node_from_a_web_server() {
    let Some(program) = ipxe() else {
        println!("skipped: there is no iPXE: install ipxe, or name its ipxe.efi by KELLER_IPXE");
        return;
    };
    let directory = Scratch::new("ipxe");
    let server = Server::start();
    // The manifest names no address: the script does.
    fs::write(directory.join("node.yaml"), manifest()).unwrap();
    build(&directory, "out", &[]);
    for name in [PROGRAM, IMAGE, SCRIPT] {
        server.put(&format!("/k/{name}"), fs::read(directory.join("out").join(name)).unwrap(), &[Act::Serve]);
    }
    let files = directory.join("tftp");
    fs::create_dir(&files).unwrap();
    fs::write(files.join("ipxe.efi"), program).unwrap();
    // The other card has another network, from which the server is not reached.
    let script = format!("#!ipxe\ndhcp net1\nchain http://10.0.3.2:{}/k/{SCRIPT}\n", server.port());
    fs::write(files.join("autoexec.ipxe"), script).unwrap();
    let (mut node, _) = start(&directory, &files, "ipxe.efi");
    node.expect("SHA-256 is right", 4 * BOOT);
    node.answers(8080, 2 * BOOT);
    let cmdline = node.run("cat /proc/cmdline");
    let image = format!("keller.image=http://10.0.3.2:{}/k/{IMAGE}", server.port());
    assert!(cmdline.contains(&image) && cmdline.contains("console=ttyS0,115200"), "{cmdline}");
    assert!(node.run("cat /run/keller/boot.json").contains("\"live\": true"));
    assert_eq!(node.settled(), "running");
    // The cards have udev's names and the network's own addresses.
    let links = node.run("ip -br -4 addr");
    assert!(!links.contains("eth0") && links.contains("10.0.3.15/24"), "{links}");
}
