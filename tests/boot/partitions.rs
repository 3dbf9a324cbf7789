//! The default image as partitioners, file system checkers and systemd's own tools see it.

use serde_json::Value;

use super::image;
use super::parts::{is_root, parts};
use crate::judges::tool::{run, tool};

#[test]
fn table_and_file_systems_are_clean() {
    let Some(parts) = parts() else { return };
    if let Some(mut sgdisk) = tool("sgdisk") {
        let text = run(sgdisk.arg("-v").arg(image()));
        assert!(text.contains("No problems found"), "{text}");
    }
    if let Some(mut fsck) = tool("fsck.fat") {
        let text = run(fsck.arg("-n").arg(&parts.esp));
        assert_eq!(text.lines().count(), 2, "more than its version and the count of files: {text}");
    }
    if let Some(mut fsck) = tool("fsck.erofs") {
        let text = run(fsck.arg(&parts.root));
        assert!(!text.contains("<E>") && !text.contains("<W>"), "{text}");
    }
    if let Some(mut veritysetup) = tool("veritysetup") {
        run(veritysetup.arg("verify").args([&parts.root, &parts.verity]).arg(&parts.root_hash));
    }
}

#[test]
fn systemd_knows_the_image() {
    let Some(parts) = parts() else { return };
    if !is_root() {
        println!("SKIPPED: systemd-dissect wants loop devices, and only root has them");
        return;
    }
    let Some(mut dissect) = tool("systemd-dissect") else { return };
    let text = run(dissect.arg(format!("--root-hash={}", parts.root_hash)).arg("--json=short").arg(image()));
    let start = text.find('{').unwrap_or_else(|| panic!("no JSON: {text}"));
    let found: Value = serde_json::from_str(text[start..].trim()).unwrap();
    assert_eq!(found["useBootableUefi"], true, "{found}");
    let mount = |designator: &str| {
        let mounts = found["mounts"].as_array().unwrap();
        let mount = mounts.iter().find(|mount| mount["designator"] == designator);
        mount.unwrap_or_else(|| panic!("no {designator} in {found}"))
    };
    let (root, verity, esp) = (mount("root"), mount("root-verity"), mount("esp"));
    assert_eq!((&root["fstype"], &root["verity"]), (&"erofs".into(), &"yes".into()), "{found}");
    assert_eq!((&root["rw"], &root["architecture"]), (&"ro".into(), &"x86-64".into()), "{found}");
    assert_eq!((&verity["fstype"], &esp["fstype"]), (&"DM_verity_hash".into(), &"vfat".into()), "{found}");
    let release = found["osRelease"].as_array().unwrap();
    assert!(release.contains(&"IMAGE_VERSION=1.0.0".into()), "{found}");
}

/// The bootctl of the image itself, started by the image's own loader: installing Debian's package of it on
/// a machine that boots by UEFI would make systemd-boot that machine's boot loader.
#[test]
fn bootctl_lists_the_entry() {
    let Some(parts) = parts() else { return };
    // bootctl wants the root of a file system. Where the kernel has no FAT for us, what mtools copied is one.
    let script = "mount -t vfat -o ro,loop \"$1\" \"$2\" 2>/dev/null || mount --bind \"$2\" \"$2\" || exit 77
        grep -m 1 \" $2 \" /proc/self/mounts
        exec \"$3/usr/lib64/ld-linux-x86-64.so.2\" \
            --library-path \"$3/usr/lib/x86_64-linux-gnu:$3/usr/lib/x86_64-linux-gnu/systemd\" \
            \"$3/usr/bin/bootctl\" --esp-path=\"$2\" --no-pager list";
    let Some(mut unshare) = tool("unshare") else { return };
    unshare.arg("--mount").args((!is_root()).then_some("--map-root-user"));
    unshare.args(["sh", "-c", script, "sh"]).args([&parts.esp, &parts.esp_folder, &parts.root_folder]);
    // What it asks of a disk's own ESP (type of the partition, udev's word) a loop device cannot say.
    unshare.env("SYSTEMD_RELAX_ESP_CHECKS", "1").env("SYSTEMD_COLORS", "0");
    let output = unshare.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    if text.is_empty() && !output.status.success() {
        println!("SKIPPED: nothing can be mounted here: {errors}");
        return;
    }
    assert!(output.status.success() && errors.trim().is_empty(), "{text}{errors}");
    let has = |name: &str, value: &str| {
        let mut lines = text.lines().filter_map(|line| line.trim().split_once(": "));
        assert!(lines.any(|line| line == (name, value)), "no {name}: {value} in\n{text}");
    };
    has("type", "Boot Loader Specification Type #2 (.efi)");
    has("id", "node_1.0.0.efi");
    has("version", "1.0.0");
    let options = format!("options: roothash={} ", parts.root_hash);
    assert!(text.contains(&options), "{text}");
    assert_eq!(text.matches("type: ").count(), 1, "more than one entry:\n{text}");
}
