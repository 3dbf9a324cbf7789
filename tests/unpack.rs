//! Packages that mean harm, and packages that were damaged on the way: each ends with an error that names
//! the package, and leaves nothing in the store.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

use keller::base::Digest;
use keller::base::progress::Silent;
use keller::rootfs::packages::{PackageInput, Unpacked, unpack};
use keller::store::Store;

use super::deb::{Entry, ar, deb_with, file, tar, xz};

const CONTROL: &str = "Package: sample\nVersion: 1.0\nArchitecture: all\nInstalled-Size: 1\n";

fn deb(entries: &[Entry<'_>]) -> Vec<u8> {
    deb_with(CONTROL, "data.tar", &tar(entries))
}

fn input(bytes: &[u8]) -> PackageInput {
    let mut deb = tempfile::tempfile().unwrap();
    deb.write_all(bytes).unwrap();
    PackageInput {
        name: "sample".to_owned(),
        version: "1.0".to_owned(),
        deb,
        sha256: Digest::of(bytes),
        size: bytes.len() as u64,
    }
}

fn unpack_in(folder: &Path, input: PackageInput) -> Result<Unpacked, String> {
    let store = Store::open(folder).unwrap();
    match unpack(&[input], &store, 0, 1, &Silent) {
        Ok(mut unpacked) => Ok(unpacked.remove(0)),
        Err(error) => {
            let left = std::fs::read_dir(folder.join("derived/unpacked-2")).into_iter().flatten().count();
            assert_eq!(left, 0, "a refused package left a file");
            Err(error.to_string())
        }
    }
}

/// What unpacking `bytes` says, which must begin with the package's name.
fn refusal(bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let text = unpack_in(folder.path(), input(bytes)).expect_err("refused");
    text.strip_prefix("unpacking sample 1.0: ").unwrap_or_else(|| panic!("{text}")).to_owned()
}

#[test]
fn nothing_leads_out_of_the_tree() {
    for (entries, part) in [
        (vec![file("../etc/passwd", b"x")], "member \"../etc/passwd\" has an unsafe path: it climbs"),
        (vec![file("/etc/passwd", b"x")], "member \"/etc/passwd\" has an unsafe path: it is absolute"),
        (vec![file("./a/../../x", b"x")], "it climbs"),
        (vec![("./out", b'2', "/", 0, b""), file("./out/etc/passwd", b"x")], "lies below \"out\""),
        (vec![("./x", b'1', "/etc/shadow", 0, b"")], "leads to \"/etc/shadow\""),
    ] {
        let text = refusal(&deb(&entries));
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn bombs() {
    let huge: [Entry<'_>; 1] = [("./huge", b'0', "", 1 << 40, b"")];
    let text = refusal(&deb(&huge));
    assert!(
        text.starts_with(
            "data.tar: member \"./huge\" brings the archive to 1099511628288 bytes, more than the 268439552"
        ),
        "{text}"
    );

    // 300 MB of zeros in 45 KB, of a package that says it is 1 KiB large.
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 0);
    let head = tar(&[("./zeros", b'0', "", 300 << 20, b"")]);
    encoder.write_all(&head[..512]).unwrap();
    std::io::copy(&mut std::io::Read::take(std::io::repeat(0), 300 << 20), &mut encoder).unwrap();
    let text = refusal(&deb_with(CONTROL, "data.tar.xz", &encoder.finish().unwrap()));
    assert!(text.contains("more than the 268439552 that are allowed"), "{text}");

    let mut names = Vec::new();
    for index in 0..1001 {
        names.push(format!("./f{index}"));
    }
    let control = tar(&names.iter().map(|name| file(name, b"")).collect::<Vec<_>>());
    let bytes = ar(&[("debian-binary", b"2.0\n"), ("control.tar", &control), ("data.tar", &tar(&[]))]);
    assert_eq!(refusal(&bytes), "control.tar: more than 1000 members");
}

#[test]
fn forms_that_are_not_read() {
    for (bytes, expected) in [
        (
            deb_with(CONTROL, "data.tar.bz2", b""),
            "data.tar.bz2 is compressed in another way than gzip, xz or zstd, which is not supported",
        ),
        (
            deb_with(CONTROL, "data.tar.lzma", b""),
            "data.tar.lzma is compressed in another way than gzip, xz or zstd, which is not supported",
        ),
        (b"not a package".to_vec(), "no Debian package: not an ar archive at byte 0"),
        (ar(&[("debian-binary", b"3.0\n")]), "debian-binary is not of format 2, which is not supported"),
        (ar(&[("control.tar", b"")]), "no Debian package: debian-binary is not the first member at byte 68"),
        (deb_with("Package: x\n", "data.tar", &tar(&[])), "control file: field Version is missing"),
        (
            deb_with(CONTROL, "other.tar", b""),
            "no Debian package: no data.tar after control.tar at byte 2240",
        ),
    ] {
        assert_eq!(refusal(&bytes), expected);
    }
}

#[test]
fn another_package_than_locked() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = deb_with(&CONTROL.replace("sample", "other"), "data.tar", &tar(&[]));
    let store = Store::open(folder.path()).unwrap();
    let text = unpack(&[input(&bytes)], &store, 0, 1, &Silent).unwrap_err().to_string();
    assert_eq!(text, "the package locked as sample 1.0 says that it is other 1.0");
}

#[test]
fn a_rotten_package_fails_as_such_wherever_the_bit_is() {
    let good = deb_with(CONTROL, "data.tar.xz", &xz(&tar(&[file("./a", &[7; 9000])])));
    let folder = tempfile::tempdir().unwrap();
    for at in (0..good.len()).step_by(97) {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        let mut input = input(&bytes);
        input.sha256 = Digest::of(&good);
        let text = unpack_in(folder.path(), input).unwrap_err();
        assert!(text.contains("expected SHA-256"), "byte {at}: {text}");
    }
    let mut short = input(&good[..good.len() - 1]);
    (short.sha256, short.size) = (Digest::of(&good), good.len() as u64);
    let text = unpack_in(folder.path(), short).unwrap_err();
    assert_eq!(
        text,
        format!("unpacking sample 1.0: expected {} bytes, but have {}", good.len(), good.len() - 1)
    );
    // Cut short, but with the digest to match: the archive itself must notice.
    assert!(refusal(&good[..good.len() - 40]).contains("data.tar.xz: "));
}

#[test]
fn a_damaged_unpacked_file_is_made_anew() {
    let bytes = deb(&[file("./a", b"text")]);
    let folder = tempfile::tempdir().unwrap();
    unpack_in(folder.path(), input(&bytes)).unwrap();
    let path = folder.path().join("derived/unpacked-2").join(Digest::of(&bytes).to_hex());
    let len = path.metadata().unwrap().len();
    for at in [len - 1, len - 32, len - 40] {
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1], at).unwrap();
        let unpacked = unpack_in(folder.path(), input(&bytes)).unwrap();
        assert_eq!(unpacked.tree.read("a").unwrap(), b"text");
    }
}
