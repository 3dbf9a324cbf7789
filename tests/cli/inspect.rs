//! What `keller inspect` tells of an image that `keller build` made.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::project::Project;
use crate::judges::tool::{run, tool};

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
        "Disk       an image, raw, ",
        "Node       at least 324MiB: esp 64MiB, root-a ",
        "Slot a     tiny 1.2.3\n",
        &format!("  roothash {root_hash}\n"),
        "every block verified",
        "  system   tiny 1.2.3 (keller, Debian 13.1)\n",
        "  packages 7\n",
        "    greeter 2.0-1\n",
        "  container hello: packages 3\n",
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
    for (more, note) in [
        (512, "note: the image is on a disk with"),
        (1 << 20, "a node needs 324.0 MiB: it will not start there"),
        (1 << 30, "note: the image is on a disk that is large enough: it unfolds there at its first boot"),
    ] {
        image.set_len(size + more).unwrap();
        let ran = project.run(&["inspect", "--verify", IMAGE]).good();
        assert!(ran.err.contains(note), "{}", ran.err);
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

/// As tools do that copy by a map of the file: what it has no bytes for stays as it was on the disk.
#[test]
fn a_copy_of_what_the_file_has_is_whole_on_a_used_disk() {
    use rustix::fs::{SeekFrom, seek};
    let project = Project::new();
    project.build(&[]).good();
    let image = File::open(project.path(IMAGE)).unwrap();
    let size = image.metadata().unwrap().len();
    let disk = File::create(project.path("used.raw")).unwrap();
    let (noise, mut piece) = (vec![0xa5; 1 << 20], vec![0; 1 << 20]);
    (0..size).step_by(noise.len()).for_each(|at| disk.write_all_at(&noise, at).unwrap());
    let mut at = 0;
    while let Ok(start) = seek(&image, SeekFrom::Data(at)) {
        at = seek(&image, SeekFrom::Hole(start)).unwrap();
        for place in (start..at).step_by(piece.len()) {
            let piece = &mut piece[..(at - place).min(1 << 20) as usize];
            image.read_exact_at(piece, place).unwrap();
            disk.write_all_at(piece, place).unwrap();
        }
    }
    let [first, copied] = [IMAGE, "used.raw"].map(|path| {
        let said = project.run(&["inspect", "--verify", path]).good().out;
        said.split_once('\n').unwrap().1.to_owned()
    });
    assert_eq!(first, copied);
    if let (Some(mut fsck), Some(mut dd)) = (tool("fsck.fat"), tool("dd")) {
        let (from, to) = (project.path("used.raw"), project.path("used.esp"));
        let [from, to] = [format!("if={}", from.display()), format!("of={}", to.display())];
        run(dd.args([&from, &to, "bs=1M", "skip=1", "count=64", "status=none"]));
        let said = run(fsck.arg("-n").arg(project.path("used.esp")));
        assert_eq!(said.lines().count(), 2, "{said}");
    }
}

#[test]
fn damage_is_found() {
    let project = Project::new();
    project.build(&[]).good();
    let image = File::options().read(true).write(true).open(project.path(IMAGE)).unwrap();
    let size = image.metadata().unwrap().len();

    // One bit of the root's data, which only a look at every block can find.
    let place = (66 << 20) + (200 << 10);
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

    // Cut short, at every kind of place: within the backup table, the root, the ESP, the table, the first sector.
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
