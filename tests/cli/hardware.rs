//! What `keller inspect --hardware` tells of an image and a machine.

use std::io::Write;
use std::process::Stdio;

use super::archive::{KERNEL, Package};
use super::elf;
use super::project::{Project, Ran};

const IMAGE: &str = "node/out/tiny_1.2.3.raw";

/// A host bridge, a disk and a card of virtio, a card with firmware, a controller of disks.
const LIST: &str = r#"00:00.0 "0600" "8086" "29c0" "1af4" "1100"
00:01.0 "0100" "1af4" "1001" "1af4" "0002"
00:02.0 "0200" "1af4" "1000" "1af4" "0001"
00:03.0 "0200" "14e4" "165f" "1028" "08fd"
00:04.0 "0106" "8086" "2922" -r02 -p01 "1af4" "1100"
"#;

/// The project with drivers for all of them, and firmware.
fn project() -> Project {
    let mut project = Project::new();
    let folder = format!("usr/lib/modules/{KERNEL}/kernel/drivers");
    let firmware = ["firmware=tigon/tg3.bin", "firmware=tigon/tg3_tso.bin", "firmware=none.bin"];
    let tg3 = [&["depends=ptp", "alias=pci:v000014E4d0000165Fsv*sd*bc*sc*i*"], &firmware[..]].concat();
    project.archive.add(
        &Package::new("linux-extra-tiny", "6.12-1")
            .file(
                &format!("{folder}/virtio_pci.ko"),
                elf::module(&["depends=", "alias=pci:v00001AF4d*sv*sd*bc*sc*i*"], &[], &[]),
            )
            .file(&format!("{folder}/ptp.ko"), elf::module(&["depends="], &[], &[]))
            .file(&format!("{folder}/tg3.ko"), elf::module(&tg3, &[], &[]))
            .file(
                &format!("{folder}/ahci.ko"),
                elf::module(&["depends=", "alias=pci:v*d*sv*sd*bc01sc06i01*"], &[], &[]),
            )
            .file(&format!("{folder}/sd_mod.ko"), elf::module(&["depends=", "alias=scsi:t-0x00*"], &[], &[]))
            .file("usr/lib/firmware/tigon/tg3.bin.zst", zstd::encode_all(&b"one"[..], 1).unwrap())
            .file("usr/lib/firmware/tigon/tg3_tso.bin", "two"),
    );
    project.edit("greeter]", "greeter, linux-extra-tiny]");
    project.publish();
    project.write("machine", LIST);
    project
}

fn inspected(project: &Project) -> Ran {
    project.run(&["inspect", IMAGE, "--hardware", "machine"])
}

#[test]
fn an_image_with_all_that_a_machine_needs() {
    let project = project();
    project.build(&[]).good();
    let ran = inspected(&project).good();
    let expected = format!(
        "Slot a     tiny 1.2.3, kernel {KERNEL}

Device   What                 Id         Driver      In         Firmware
00:01.0  SCSI controller      1af4:1001  virtio_pci  initramfs
                                         virtio_blk  initramfs
00:02.0  Ethernet controller  1af4:1000  virtio_pci  initramfs
                                         virtio_net  root
00:03.0  Ethernet controller  14e4:165f  tg3         root       2 of 3, 1 not in Debian
00:04.0  SATA controller      8086:2922  ahci        initramfs
                                         sd_mod      initramfs

No driver needed: host bridge 1
"
    );
    assert_eq!((ran.out, ran.err), (expected, String::new()));

    // The same from standard input, of modaliases, as an object.
    let modaliases = "pci:v000014E4d0000165Fsv00001028sd000008FDbc02sc00i00\nvirtio:d00000002v00001AF4\n\
                      virtio:d00000002v00001AF4\nacpi:PNP0C02:\n";
    let mut child = project
        .keller(&["inspect", "--json", "--hardware", "-", IMAGE])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(modaliases.as_bytes()).unwrap();
    let ran = Ran::of(&child.wait_with_output().unwrap()).good();
    let said: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    let system = &said["systems"][0];
    assert_eq!((&system["id"], &system["kernel"]), (&"tiny".into(), &KERNEL.into()));
    let devices = system["devices"].as_array().unwrap();
    let states: Vec<_> = devices.iter().map(|device| (&device["state"], &device["count"])).collect();
    let expected =
        [("driven", 1), ("driven", 2), ("no-driver", 1)].map(|(state, count)| (state.into(), count.into()));
    assert_eq!(
        states,
        expected.iter().map(|(a, b): &(serde_json::Value, serde_json::Value)| (a, b)).collect::<Vec<_>>()
    );
    let driver = &devices[0]["drivers"][0];
    assert_eq!((&driver["module"], &driver["place"]), (&"tg3".into(), &"root".into()));
    assert_eq!(
        driver["firmware"][0],
        serde_json::json!({"name": "tigon/tg3.bin", "there": true, "package": "firmware-misc-nonfree"})
    );
    assert_eq!(system["problems"], serde_json::json!([]));
}

/// Each thing that is taken away is named, with the package that has it.
#[test]
fn what_is_lacking_is_named() {
    let project = project();
    let drivers = format!("/usr/lib/modules/{KERNEL}/kernel/drivers");
    let metal = "linux-image-amd64 has it: include components/kernel-metal.yaml in place of another kernel";
    let mut pruned = "/usr/share/doc]".to_owned();
    for (gone, device, lacking) in [
        (format!("{drivers}/ptp.ko"), "00:03.0", format!("tg3 cannot be loaded without ptp: {metal}")),
        (format!("{drivers}/tg3.ko"), "00:03.0", format!("no driver tg3: {metal}")),
        (format!("{drivers}/ahci.ko"), "00:04.0", format!("no driver ahci: {metal}")),
        (format!("{drivers}/sd_mod.ko"), "00:04.0", format!("no driver sd_mod: {metal}")),
        (format!("{drivers}/net/virtio_net.ko.xz"), "00:02.0", format!("no driver virtio_net: {metal}")),
        (
            "/usr/lib/firmware/tigon/tg3.bin.zst".to_owned(),
            "00:03.0",
            "no firmware for tg3: tigon/tg3.bin: firmware-misc-nonfree has it".to_owned(),
        ),
    ] {
        let next = format!("/usr/share/doc, \"{gone}\"]");
        project.edit(&pruned, &next);
        pruned = next;
        project.build(&[]).good();
        let ran = inspected(&project);
        assert_eq!(ran.code, Some(1), "{gone}: {}", ran.out);
        let line = ran.err.lines().find(|line| line.ends_with(&lacking));
        let line = line.unwrap_or_else(|| panic!("{gone}: {}", ran.err));
        assert!(line.starts_with(&format!("warning: {device} (")), "{line}");
        assert_eq!(ran.err.lines().count(), 1, "{gone}: {}", ran.err);
    }
    project.edit(&pruned, "/usr/share/doc]");

    // In the root alone, and kept out.
    project.edit("kernel: {cmdline", "kernel: {initramfs_modules: [virtio_blk], cmdline");
    std::fs::create_dir_all(project.path("node/overlay/etc/modprobe.d")).unwrap();
    project.write("node/overlay/etc/modprobe.d/no.conf", "blacklist tg3\n");
    project.build(&[]).good();
    let ran = inspected(&project).good();
    assert!(ran.out.contains("14e4:165f  tg3         KEPT OUT\n"), "{}", ran.out);
    for note in [
        "00:04.0 (SATA controller, 8086:2922): ahci is not in the initramfs, so that no root is found there",
        "00:03.0 (Ethernet controller, 14e4:165f): modprobe.d keeps tg3 out",
    ] {
        assert!(ran.err.contains(&format!("note: {note}")), "{}", ran.err);
    }
}

#[test]
fn a_list_that_is_not_right_is_refused_with_its_line() {
    let project = project();
    project.build(&[]).good();
    for (list, error) in [
        (
            &b"00:00.0 Host bridge: Intel Corporation (rev 02)\n"[..],
            "line 1: it has names, but no numbers: run `lspci -nmm`",
        ),
        (b"acpi:PNP0A08:\n\x7fELF\x01", "line 2: it is not text"),
        (b"", "line 1: there are no devices: give what `lspci -nmm` or"),
        (&[b'\n'; (4 << 20) + 1], "it has more than the 4.0 MiB that are read of such a file"),
    ] {
        project.write("machine", list);
        let ran = inspected(&project);
        assert!(ran.error().starts_with(&format!("error: reading machine: {error}")), "{}", ran.err);
    }
    project.write("machine", LIST);
    let ran = project.run(&["inspect", "machine", "--hardware", "machine"]);
    assert!(ran.error().contains("inspecting machine: reading the partition table"), "{}", ran.err);
    let ran = project.run(&["inspect", IMAGE, "--hardware", "node"]);
    assert!(ran.error().contains("reading node: it is a directory"), "{}", ran.err);
    let ran = project.run(&["inspect", IMAGE, "--verify", "--hardware", "machine"]);
    assert_eq!(ran.code, Some(2), "{}", ran.err);
}
