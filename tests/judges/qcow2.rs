//! qcow2: QEMU's own tool as judge.

use std::fs::File;
use std::os::unix::fs::FileExt;

use keller::output::{Format, qcow2, raw};

use super::fixture::pattern;
use super::tool::{run, tool};

#[test]
fn qemu_finds_no_errors_and_the_same_disk() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let create =
        |name: &str| File::options().read(true).write(true).create_new(true).open(path(name)).unwrap();
    // 3 GiB have more than one block of reference counts' worth of addresses, and an L1 table of six.
    for (name, size) in [("small", 1 << 20), ("large", 3 << 30)] {
        let disk = create(name);
        disk.set_len(size).unwrap();
        disk.write_all_at(&pattern(1000, 1), 0).unwrap();
        disk.write_all_at(&pattern(1000, 2), size - 1000).unwrap();
        if size > 1 << 30 {
            disk.write_all_at(&pattern(70 << 20, 3), (512 << 20) - 777).unwrap();
            disk.write_all_at(&vec![0; 1 << 20], 2 << 30).unwrap();
        }
        let image = format!("{name}.qcow2");
        Format::Qcow2.write(&disk, &create(&image)).unwrap();
        let (Some(mut check), Some(mut compare)) = (tool("qemu-img"), tool("qemu-img")) else { return };
        let said = run(check.args(["check", "-f", "qcow2"]).arg(path(&image)));
        assert!(said.contains("No errors were found"), "{said}");
        let said =
            run(compare.args(["compare", "-f", "raw", "-F", "qcow2"]).arg(path(name)).arg(path(&image)));
        assert!(said.contains("identical"), "{said}");
        let again = create(&format!("{name}.again"));
        Format::Qcow2.write(&disk, &again).unwrap();
        let first = File::open(path(&image)).unwrap();
        assert_eq!(raw::digest(&first).unwrap(), raw::digest(&again).unwrap());
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
