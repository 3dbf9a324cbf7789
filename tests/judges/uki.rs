//! Unified kernel images, as binutils and the Secure Boot tools read them.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use keller::boot::cmdline::Options;
use keller::boot::microcode::Microcode;
use keller::boot::uki::{Parts, Uki};
use keller::tree::Tree;
use keller::verity;
use uuid::Uuid;

use super::tool::{run, tool};

/// A PE image for x86-64 UEFI with one section of code, and symbols behind it as linkers leave them.
pub fn program() -> Vec<u8> {
    const TABLE: usize = 64 + 24 + 240;
    let mut bytes = vec![0; 0x400];
    let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
    let numbers: [(usize, u32); 14] = [
        (0x3c, 64),
        (64 + 12, 0x600),          // PointerToSymbolTable
        (64 + 16, 7),              // NumberOfSymbols
        (88 + 4, 0x200),           // SizeOfCode
        (88 + 16, 0x1000),         // AddressOfEntryPoint
        (88 + 20, 0x1000),         // BaseOfCode
        (88 + 32, 0x1000),         // SectionAlignment
        (88 + 36, 0x200),          // FileAlignment
        (88 + 56, 0x2000),         // SizeOfImage
        (88 + 60, 0x400),          // SizeOfHeaders
        (88 + 108, 16),            // NumberOfRvaAndSizes
        (TABLE + 8, 16),           // VirtualSize
        (TABLE + 12, 0x1000),      // VirtualAddress
        (TABLE + 36, 0x6000_0020), // Characteristics
    ];
    for (at, number) in numbers {
        put(at, &number.to_le_bytes());
    }
    put(0, b"MZ");
    put(64, b"PE\0\0");
    put(68, &0x8664_u16.to_le_bytes());
    put(70, &1_u16.to_le_bytes());
    put(84, &240_u16.to_le_bytes());
    put(86, &0x22e_u16.to_le_bytes());
    put(88, &0x20b_u16.to_le_bytes());
    put(88 + 68, &10_u16.to_le_bytes());
    put(TABLE, b".text");
    put(TABLE + 16, &0x200_u32.to_le_bytes());
    put(TABLE + 20, &0x400_u32.to_le_bytes());
    bytes.resize(0x600, 0xc3);
    bytes.extend_from_slice(b"symbols");
    bytes
}

fn image() -> Vec<u8> {
    with_initrd(&[0x5a; 5000])
}

fn with_initrd(initrd: &[u8]) -> Vec<u8> {
    let options = verity::Options { salt: vec![1; 32], uuid: Uuid::nil() };
    let mut root = verity::Writer::new(std::io::sink(), options).unwrap();
    root.write_all(&[0; verity::BLOCK]).unwrap();
    let parts = Parts {
        stub: &program(),
        kernel: &program(),
        kernel_version: "6.12.0-cloud-amd64",
        os_release: b"ID=node\nIMAGE_ID=node\nIMAGE_VERSION=1\n",
        initrd,
        options: &Options::default(),
    };
    Uki::new(root.finish().unwrap().root_hash, &parts).unwrap().into_bytes()
}

#[test]
fn binutils_sees_every_section() {
    let Some(mut objdump) = tool("objdump") else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.efi");
    fs::write(&path, image()).unwrap();
    let text = run(objdump.arg("-h").arg(&path));
    let sections: Vec<(&str, u64)> = text
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            words.next()?.parse::<u32>().ok()?;
            Some((words.next()?, u64::from_str_radix(words.next()?, 16).ok()?))
        })
        .collect();
    let names: Vec<&str> = sections.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, [".text", ".osrel", ".cmdline", ".uname", ".initrd", ".linux"], "{text}");
    assert_eq!(sections[4].1, 5000);
    assert!(run(tool("objdump").unwrap().arg("-t").arg(&path)).contains("no symbols"));
}

/// Signing digests the whole image: a section, a gap or a tail that the headers do not account for would be
/// warned of or change the digest.
#[test]
fn secure_boot_tools_sign_and_verify_it() {
    let (Some(mut sbsign), Some(mut sbverify), Some(mut openssl)) =
        (tool("sbsign"), tool("sbverify"), tool("openssl"))
    else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("node.efi"), image()).unwrap();
    run(openssl
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test"])
        .args(["-keyout", &path("key"), "-out", &path("cert")]));
    let said = run(sbsign
        .args(["--key", &path("key"), "--cert", &path("cert"), "--output", &path("signed.efi")])
        .arg(path("node.efi")));
    assert!(!said.contains("warning"), "{said}");
    let said = run(sbverify.args(["--cert", &path("cert")]).arg(path("signed.efi")));
    assert!(said.contains("verification OK") && !said.contains("warning"), "{said}");
}

/// As the kernel reads it: the first archive of `.initrd`, not compressed.
#[test]
fn cpio_finds_microcode_first_in_the_image() {
    let (Some(mut objcopy), Some(mut cpio)) = (tool("objcopy"), tool("cpio")) else { return };
    let mut root = Tree::new(0);
    let update = |size: usize, rest: u8| {
        let mut bytes = vec![rest; size];
        bytes[..24].fill(0);
        (bytes[0], bytes[20]) = (1, 1);
        bytes
    };
    let intel = [update(2048, 7), update(4096, 9)];
    root.file("usr/lib/firmware/intel-ucode/06-55-04", 0o644, intel[0].clone()).unwrap();
    root.file("usr/lib/firmware/intel-ucode/06-8e-09.initramfs", 0o644, intel[1].clone()).unwrap();
    root.file("usr/lib/firmware/amd-ucode/microcode_amd.bin", 0o644, b"DMA\0amd".to_vec()).unwrap();
    root.file("usr/lib/firmware/amd-ucode/README", 0o644, "text").unwrap();
    let mut initrd = Microcode::of(&root).archive().unwrap();
    initrd.extend(zstd::encode_all(&b"initramfs"[..], 1).unwrap());

    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("node.efi"), with_initrd(&initrd)).unwrap();
    run(objcopy.args(["-O", "binary", "--only-section=.initrd"]).args([path("node.efi"), path("initrd")]));
    assert!(fs::read(path("initrd")).unwrap().starts_with(&initrd));
    fs::create_dir(path("unpacked")).unwrap();
    let input = Stdio::from(fs::File::open(path("initrd")).unwrap());
    run(cpio
        .args(["--extract", "--verbose", "--no-preserve-owner"])
        .current_dir(path("unpacked"))
        .stdin(input));
    let unpacked = |name: &str| fs::read(path("unpacked/kernel/x86/microcode").join(name)).unwrap();
    assert_eq!(unpacked("GenuineIntel.bin"), intel.concat());
    assert_eq!(unpacked("AuthenticAMD.bin"), b"DMA\0amd");
}
