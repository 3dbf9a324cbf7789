//! What `keller inspect` tells of an image that `keller build` made.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::project::Project;

const IMAGE: &str = "node/out/tiny_1.2.3.raw";

#[test]
fn an_image_explains_itself() {
    let project = Project::new();
    project.edit("runtime: podman", "outputs: [qcow2, raw]\nruntime: podman");
    project.build(&[]).good();
    let report = project.json("node/out/build.json");
    let root_hash = report["root_hash"].as_str().unwrap();

    let table = project.run(&["inspect", "--verify", "--packages", IMAGE]).good().out;
    for part in [
        "Disk       raw, 324.0 MiB",
        "Slot a     tiny 1.2.3\n",
        &format!("  roothash {root_hash}\n"),
        "every block verified",
        "  system   tiny 1.2.3 (keller, Debian 13.1)\n",
        "  packages 7\n",
        "    greeter 2.0-1\n",
        "  container hello: packages 3\n",
        "Slot b     empty\n",
        "Entry      EFI/Linux/tiny_1.2.3.efi",
        "  boots    slot a\n",
        "  kernel   6.12.0-tiny",
    ] {
        assert!(table.contains(part), "{part:?} is not in\n{table}");
    }
    let plain = project.run(&["inspect", IMAGE]).good();
    assert!(plain.out.contains("  packages 7\n") && !plain.out.contains("greeter 2.0-1"), "{}", plain.out);
    assert_eq!(plain.err, "");

    for image in [IMAGE, "node/out/tiny_1.2.3.qcow2"] {
        let ran = project.run(&["inspect", "--json", "-q", image]).good();
        let said: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
        let root = &said["slots"][0]["root"];
        assert_eq!(root["packages"], report["packages"]);
        assert_eq!(root["containers"], report["containers"]);
        assert_eq!(root["build"]["id"], "tiny");
        assert_eq!(said["entries"][0]["root_hash"], root_hash);
        assert_eq!(said["problems"], serde_json::json!([]));
    }
}

#[test]
fn an_image_on_a_larger_disk_is_as_it_should_be() {
    let project = Project::new();
    project.build(&[]).good();
    let image = File::options().write(true).open(project.path(IMAGE)).unwrap();
    let size = image.metadata().unwrap().len();
    for more in [512, 1 << 20, 1 << 30] {
        image.set_len(size + more).unwrap();
        let ran = project.run(&["inspect", "--verify", IMAGE]).good();
        assert!(
            ran.err.contains("note: the disk is larger than the image: the node takes the room"),
            "{}",
            ran.err
        );
        assert!(!ran.err.contains("warning"), "{}", ran.err);
        let ran = project.run(&["inspect", "--json", IMAGE]).good();
        let said: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
        assert_eq!(
            (&said["problems"], said["remarks"].as_array().unwrap().len()),
            (&serde_json::json!([]), 1)
        );
    }
    // Its own backup table is damaged: that is something else.
    image.write_all_at(b"damage", size - 512).unwrap();
    let ran = project.run(&["inspect", IMAGE]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("warning: the backup partition table is broken"), "{}", ran.err);
}

#[test]
fn damage_is_found() {
    let project = Project::new();
    project.build(&[]).good();
    let image = File::options().read(true).write(true).open(project.path(IMAGE)).unwrap();
    let size = image.metadata().unwrap().len();

    // One bit of the root's data, which only a look at every block can find.
    let place = (65 << 20) + (200 << 10);
    let mut byte = [0];
    image.read_exact_at(&mut byte, place).unwrap();
    image.write_all_at(&[byte[0] ^ 4], place).unwrap();
    project.run(&["inspect", IMAGE]).good();
    let ran = project.run(&["inspect", "--verify", IMAGE]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.out.contains("NOT as the root hash says"), "{}", ran.out);
    assert!(ran.err.contains("warning: slot a: data block 50: "), "{}", ran.err);
    image.write_all_at(&byte, place).unwrap();
    project.run(&["inspect", "--verify", IMAGE]).good();

    // Cut short, at every kind of place: within the state, the root, the ESP, the table, the first sector.
    for length in [size - 1, size / 2, 66 << 20, 2 << 20, 16 << 10, 1100, 700, 512, 100, 0] {
        image.set_len(length).unwrap();
        for verify in [&["inspect", IMAGE][..], &["inspect", "--verify", IMAGE]] {
            let ran = project.run(verify);
            let said = match length {
                ..1024 => "no partition table: this is not a disk image".to_owned(),
                _ => format!(
                    "the image is cut short: its partition table is for {size} bytes, but there are {length}"
                ),
            };
            let place = "error: inspecting node/out/tiny_1.2.3.raw: reading the partition table: ";
            assert_eq!(ran.error(), format!("{place}{said}"));
        }
    }
    for (name, bytes) in [("empty", &b""[..]), ("text", b"keller: 1\n"), ("zeros", &[0; 100_000])] {
        project.write(name, bytes);
        let ran = project.run(&["inspect", name]);
        let told = "reading the partition table: no partition table: this is not a disk image";
        assert_eq!(ran.error(), format!("error: inspecting {name}: {told}"));
    }
    let ran = project.run(&["inspect", "gone"]);
    assert!(ran.error().contains("No such file or directory"), "{}", ran.err);
    let ran = project.run(&["inspect", "node"]);
    assert!(ran.error().starts_with("error: inspecting node: "), "{}", ran.err);
}

/// What is not read is called by its name, with the command that makes a raw image of it.
#[test]
fn formats_that_are_not_read_are_refused_with_a_way_out() {
    let project = Project::new();
    project.edit("runtime: podman", "outputs: [raw.zst, vmdk, vhd, vhd-fixed]\nruntime: podman");
    project.build(&[]).good();
    for (suffix, name, command) in [
        ("raw.zst", "raw.zst", "zstd -d IMAGE"),
        ("vmdk", "vmdk", "qemu-img convert -O raw IMAGE OUTPUT"),
        ("vhd", "vhd", "qemu-img convert -f vpc -O raw IMAGE OUTPUT"),
        ("fixed.vhd", "vhd", "qemu-img convert -f vpc -O raw IMAGE OUTPUT"),
    ] {
        let ran = project.run(&["inspect", &format!("node/out/tiny_1.2.3.{suffix}")]);
        let said = format!("it is a {name} image, which keller does not read: unpack it first: {command}");
        assert!(ran.error().contains(&said), "{}", ran.err);
    }
    let ran = project.run(&["boot", "node/out/tiny_1.2.3.raw.zst"]);
    assert!(ran.error().contains("is compressed: unpack it first: zstd -d IMAGE"), "{}", ran.err);
    let ran = project.run(&["boot", "--persist", "node/out/tiny_1.2.3.vmdk"]);
    assert!(
        ran.error().contains("--persist: what a compressed vmdk holds cannot be written to"),
        "{}",
        ran.err
    );
}

#[test]
fn a_compact_image_cut_short() {
    let project = Project::new();
    project.edit("runtime: podman", "outputs: [qcow2]\nruntime: podman");
    project.build(&[]).good();
    let image = "node/out/tiny_1.2.3.qcow2";
    let whole = project.read(image);
    // The last cluster may end early: QEMU leaves it so.
    for length in [whole.len() - (64 << 10), whole.len() / 2, 70_000, 100, 8] {
        project.write("cut", &whole[..length]);
        let ran = project.run(&["inspect", "cut"]);
        let error = ran.error();
        assert!(error.starts_with("error: inspecting cut: reading the qcow2 image: "), "{error}");
        println!("{length}: {error}");
    }
}
