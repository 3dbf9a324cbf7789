//! From the network to a node: the small kernel image by PXE from QEMU's TFTP server, or by iPXE over HTTP; the disk image
//! over HTTP each time.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::install::runs_from_disk;
use super::scratch::Scratch;
use super::update::run;
use super::{BOOT, Node, keller};
use crate::http_server::{Act, Server};
use crate::judges::trixie;
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

/// A machine with an empty disk, which its firmware tries first, and a second card, whose network `net` describes.
fn start(directory: &Path, net: &str, card: &str, more: &[&str]) -> (Node, PathBuf) {
    let disk = directory.join("disk.raw");
    let size = unfold::node(&directory.join("out/small_1.0.0.raw")).disk_size;
    File::create(&disk).unwrap().set_len(size).unwrap();
    let network = format!("--qemu-arg=user,id=pxe,net=10.0.3.0/24,{net}");
    let card = format!("--qemu-arg=virtio-net-pci,netdev=pxe,romfile={card}");
    let arguments =
        ["--persist", "--memory", "1GiB", "--qemu-arg=-netdev", &network, "--qemu-arg=-device", &card];
    (Node::start(&disk, &[&arguments, more].concat(), 8080), disk)
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
    let net = format!("tftp={},bootfile={PROGRAM}", directory.join("out").display());
    let (mut node, disk) = start(&directory, &net, ",bootindex=1", &[]);
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

#[test]
#[ignore = "long: ci/test --long"]
fn ipxe_starts_a_node_from_a_web_server() {
    let Some(program) = trixie::file(&["ipxe"], "usr/lib/ipxe/ipxe.efi") else { return };
    let directory = Scratch::new("ipxe");
    let server = Server::start();
    // The manifest names no address: the script does.
    fs::write(directory.join("node.yaml"), manifest()).unwrap();
    build(&directory, "out", &[]);
    for name in [PROGRAM, IMAGE, SCRIPT] {
        server.put(&format!("/k/{name}"), fs::read(directory.join("out").join(name)).unwrap(), &[Act::Serve]);
    }
    // iPXE comes from a stick. The first card has another network, whose DHCP server names nothing to start.
    let stick = directory.join("stick");
    fs::create_dir_all(stick.join("EFI/BOOT")).unwrap();
    fs::copy(program, stick.join("EFI/BOOT/BOOTX64.EFI")).unwrap();
    let stick = format!("if=none,id=stick,format=raw,readonly=on,file=fat:{}", stick.display());
    let stick = ["-drive", &stick, "-device", "virtio-blk-pci,drive=stick,bootindex=1"];
    let stick = stick.map(|word| format!("--qemu-arg={word}"));
    let net = format!("bootfile=http://10.0.3.2:{}/k/{SCRIPT}", server.port());
    let (mut node, _) = start(&directory, &net, "", &stick.each_ref().map(String::as_str));
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
