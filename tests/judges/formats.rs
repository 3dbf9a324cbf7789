//! The formats of images: QEMU's and Zstandard's own tools as judges.

use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use keller::output::{Disk, Format, qcow2, raw};

use super::fixture::pattern;
use super::tool::{run, tool};

fn create(path: &Path) -> File {
    File::options().read(true).write(true).create_new(true).open(path).unwrap()
}

/// A raw disk in `folder` whose bytes lie at borders of what formats are made of.
fn sample(folder: &Path, name: &str, size: u64) -> File {
    let disk = create(&folder.join(name));
    disk.set_len(size).unwrap();
    disk.write_all_at(&pattern(1000, 1), 0).unwrap();
    disk.write_all_at(&pattern(1000, 2), size - 1000).unwrap();
    if size > 1 << 30 {
        disk.write_all_at(&pattern(70 << 20, 3), (512 << 20) - 777).unwrap();
        disk.write_all_at(&vec![0; 1 << 20], 2 << 30).unwrap();
    }
    disk
}

/// QEMU's name of each format that it reads.
const READ: [(Format, &str); 4] =
    [(Format::Qcow2, "qcow2"), (Format::Vmdk, "vmdk"), (Format::Vhd, "vpc"), (Format::VhdFixed, "vpc")];

/// 3 GiB have more than one block of reference counts' worth of addresses, and an L1 table of six; 70 MiB and 512 bytes
/// end within a cluster, a grain and a block.
const SIZES: [(&str, u64); 3] = [("small", 1 << 20), ("odd", (70 << 20) + 512), ("large", 3 << 30)];

#[test]
fn qemu_finds_no_errors_and_the_same_disk() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for (name, size) in SIZES {
        let file = sample(folder.path(), name, size);
        let disk = Disk::survey(&file, 0).unwrap();
        for (format, qemus) in READ {
            let image = format!("{name}{}", format.suffix());
            format.write(&disk, &create(&path(&image)), false).unwrap();
            let Some(mut info) = tool("qemu-img") else { return };
            let said = run(info.args(["info", "--output=json", "-f", qemus]).arg(path(&image)));
            assert!(said.contains(&format!("\"virtual-size\": {size},")), "{image}: {said}");
            // QEMU cannot check a VHD.
            if qemus != "vpc" {
                let said = run(tool("qemu-img").unwrap().args(["check", "-f", qemus]).arg(path(&image)));
                assert!(said.contains("No errors were found"), "{image}: {said}");
            }
            let mut compare = tool("qemu-img").unwrap();
            let said =
                run(compare.args(["compare", "-f", "raw", "-F", qemus]).arg(path(name)).arg(path(&image)));
            assert!(said.contains("identical"), "{image}: {said}");
            let written = std::fs::metadata(path(&image)).unwrap();
            assert!(written.blocks() * 512 <= file.metadata().unwrap().blocks() * 512 + (8 << 20), "{image}");
        }
    }
}

#[test]
fn zstd_unpacks_the_same_disk() {
    let folder = tempfile::tempdir().unwrap();
    for (name, size) in &SIZES[..2] {
        let file = sample(folder.path(), name, *size);
        let image = folder.path().join(format!("{name}.raw.zst"));
        let disk = Disk::survey(&file, 0).unwrap();
        Format::RawZst.write(&disk, &create(&image), false).unwrap();
        let Some(mut test) = tool("zstd") else { return };
        run(test.arg("-t").arg(&image));
        let listed = run(tool("zstd").unwrap().args(["-lv"]).arg(&image));
        assert!(listed.contains(&format!("({size} B)")) && listed.contains("XXH64"), "{listed}");
        let back = folder.path().join("back");
        run(tool("zstd").unwrap().args(["-dfq"]).arg(&image).arg("-o").arg(&back));
        assert_eq!(raw::digest(&File::open(back).unwrap()).unwrap(), raw::digest(&file).unwrap());
    }
}

/// The disk of a machine may be larger than the file that it was made of.
#[test]
fn a_larger_disk_has_zeros_behind_the_image() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let file = sample(folder.path(), "disk", (10 << 20) + 512);
    let larger = sample(folder.path(), "larger", (10 << 20) + 512);
    larger.set_len(70 << 20).unwrap();
    let disk = Disk::survey(&file, 70 << 20).unwrap();
    for (format, qemus) in READ {
        let image = format!("disk{}", format.suffix());
        format.write(&disk, &create(&path(&image)), false).unwrap();
        let Some(mut compare) = tool("qemu-img") else { return };
        let compare = compare.args(["compare", "-f", "raw", "-F", qemus]);
        let said = run(compare.arg(path("larger")).arg(path(&image)));
        assert!(said.contains("identical") && !said.contains("mismatch"), "{image}: {said}");
    }
}

/// What `keller boot --disk` lays over an image.
#[test]
fn a_layer_over_an_image_is_larger_and_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let file = sample(folder.path(), "disk", (10 << 20) + 512);
    let larger = sample(folder.path(), "larger", (10 << 20) + 512);
    larger.set_len(3 << 40).unwrap();
    Format::Vmdk.write(&Disk::survey(&file, 0).unwrap(), &create(&path("disk.vmdk")), false).unwrap();
    for (name, backing) in [("disk", "raw"), ("disk.vmdk", "vmdk")] {
        let layer = path(&format!("{name}.layer"));
        qcow2::layer(&create(&layer), 3 << 40, path(name).as_os_str().as_bytes(), backing).unwrap();
        let Some(mut check) = tool("qemu-img") else { return };
        let said = run(check.args(["check", "-f", "qcow2"]).arg(&layer));
        assert!(said.contains("No errors were found"), "{said}");
        let said = run(tool("qemu-img").unwrap().args(["info", "--output=json"]).arg(&layer));
        assert!(said.contains(&format!("\"backing-filename-format\": \"{backing}\"")), "{said}");
        let mut compare = tool("qemu-img").unwrap();
        let compare = compare.args(["compare", "-f", "raw", "-F", "qcow2"]);
        let said = run(compare.arg(path("larger")).arg(&layer));
        assert!(said.contains("identical") && !said.contains("mismatch"), "{said}");
    }
}

/// One disk gives the same bytes by however many processors it is made, and however its file is stored.
#[test]
fn neither_threads_nor_holes_change_a_byte() {
    let folder = tempfile::tempdir().unwrap();
    let file = sample(folder.path(), "disk", 150 << 20);
    file.write_all_at(&pattern(20 << 20, 4), 77_777_777).unwrap();
    // The same bytes without holes.
    let full = create(&folder.path().join("full"));
    let mut piece = vec![0; 1 << 20];
    for at in (0..file.metadata().unwrap().len()).step_by(piece.len()) {
        file.read_exact_at(&mut piece, at).unwrap();
        full.write_all_at(&piece, at).unwrap();
    }
    let written = |from: &File, format: Format, threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let to = tempfile::tempfile().unwrap();
        pool.install(|| format.write(&Disk::survey(from, 0).unwrap(), &to, true)).unwrap().unwrap()
    };
    for format in [Format::Qcow2, Format::Vmdk, Format::Vhd, Format::VhdFixed, Format::RawZst] {
        let digest = written(&file, format, 1);
        assert_eq!(written(&file, format, 5), digest, "{format:?}");
        assert_eq!(written(&full, format, 2), digest, "{format:?}");
    }
}

#[test]
fn what_qemu_wrote_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let disk = File::options().read(true).write(true).create_new(true).open(path("disk")).unwrap();
    disk.set_len(700 << 20).unwrap();
    disk.write_all_at(&pattern(3 << 20, 1), (512 << 20) - 999).unwrap();
    for (name, options, readable) in [
        ("v3", vec!["-o", "cluster_size=64k"], true),
        ("v2", vec!["-o", "compat=0.10"], true),
        ("small", vec!["-o", "cluster_size=512,lazy_refcounts=on"], true),
        ("compressed", vec!["-c"], false),
        ("extended", vec!["-o", "extended_l2=on,cluster_size=64k"], false),
    ] {
        let Some(mut convert) = tool("qemu-img") else { return };
        run(convert
            .args(["convert", "-f", "raw", "-O", "qcow2"])
            .args(options)
            .args([path("disk"), path(name)]));
        let back = tempfile::tempfile().unwrap();
        let result = qcow2::expand(&File::open(path(name)).unwrap(), &back);
        assert_eq!(result.is_ok(), readable, "{name}");
        match result {
            Ok(()) => assert_eq!(raw::digest(&back).unwrap(), raw::digest(&disk).unwrap(), "{name}"),
            Err(error) => assert!(error.to_string().contains("qemu-img convert"), "{name}: {error}"),
        }
    }
}
