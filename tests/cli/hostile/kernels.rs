//! What goes into an initramfs and a boot image: firmware and microcode that unpack to far more than they have.

use super::{refusal, times, zeros};
use crate::cli::archive::{KERNEL, Package};
use crate::cli::elf;
use crate::cli::project::Project;
use crate::deb::xz;

fn with(package: &Package) -> Project {
    let mut project = Project::new();
    project.archive.add(package);
    project.publish();
    project.edit("greeter]", &format!("greeter, {}]", package.name));
    project
}

#[test]
fn microcode_of_gigabytes() {
    let path = "usr/lib/firmware/intel-ucode/06-55-04";
    for (end, bytes) in [(".zst", zeros("x", 2 << 30)), (".xz", times(&vec![0; 64 << 20], 32))] {
        let project = with(&Package::new("intel-microcode", "3.1").file(&format!("{path}{end}"), bytes));
        let told = refusal(&project, &[]);
        assert!(
            told.contains(&format!("/{path}{end}")) && told.ends_with("it unpacks to more than 64.0 MiB"),
            "{told}"
        );
    }
    // Many that are each within the limit.
    let mut update = vec![0; 48 << 20];
    (update[0], update[20]) = (1, 1);
    let one = xz(&update);
    let package = (0..8).fold(Package::new("intel-microcode", "3.1"), |package, number| {
        package.file(&format!("usr/lib/firmware/intel-ucode/06-55-{number:02}.xz"), one.clone())
    });
    let told = refusal(&with(&package), &[]);
    assert!(told.contains("06-55-01.xz has more than 64.0 MiB together"), "{told}");
}

#[test]
fn firmware_of_gigabytes() {
    let module = elf::module(&["alias=pci:v00008086d00001D60sv*", "firmware=isci/large.bin"], &[], &[]);
    let module = (format!("usr/lib/modules/{KERNEL}/kernel/drivers/scsi/isci.ko"), module);
    for (end, bytes) in [(".zst", zeros("x", 2 << 30)), (".xz", times(&vec![0; 64 << 20], 32))] {
        let path = format!("usr/lib/firmware/isci/large.bin{end}");
        let package =
            Package::new("linux-extra-tiny", "6.12-1").file(&module.0, module.1.clone()).file(&path, bytes);
        let told = refusal(&with(&package), &[]);
        assert!(
            told.contains("isci/large.bin") && told.ends_with("it unpacks to more than 64.0 MiB"),
            "{told}"
        );
    }
}

/// A kernel that says that it has everything.
#[test]
fn a_kernel_of_sections_without_end() {
    let mut program = b"MZ".to_vec();
    program.resize(60, 0);
    program.extend(64_u32.to_le_bytes());
    program.extend(b"PE\0\0\x64\x86\xff\xff");
    program.resize(1 << 20, 0xff);
    let project = with(&Package::new("linux-image-other", "6.13-1").file("boot/vmlinuz-6.13", program));
    project.edit("linux-image-tiny, ", "");
    let told = refusal(&project, &[]);
    assert!(told.contains("kernel"), "{told}");
}
