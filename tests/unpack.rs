//! Packages that mean harm, and packages that were damaged on the way: each ends with an error that names
//! the package, and leaves nothing in the store.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

use keller::base::Digest;
use keller::base::progress::Silent;
use keller::base::seal::Key;
use keller::rootfs::packages::{PackageInput, Unpacked, unpack};
use keller::store::{Access, Store};

use super::deb::{Entry, ar, bzip2, deb_with, file, lzma, tar, xz};

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
    let access = Access { key: Some(Key::from_bytes([7; 32])), shared: false };
    let store = Store::open_with(folder, access).unwrap();
    match unpack(&[input], &store, 0, &Silent) {
        Ok(mut unpacked) => Ok(unpacked.remove(0)),
        Err(error) => {
            let left = std::fs::read_dir(folder.join("derived/unpacked-6")).into_iter().flatten().count();
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
    let bytes = deb(&huge);
    let limit = (1 << 30) + 100 * bytes.len();
    let text = refusal(&bytes);
    assert!(
        text.starts_with(&format!(
            "data.tar: member \"./huge\" brings the archive to 1099511628288 bytes, more than the {limit} that are allowed \
             of a package of {} bytes: 1.0 GiB, and 100 times its size",
            bytes.len()
        )),
        "{text}"
    );

    // Some zeros, and a header that says that there are 1100 MiB of them.
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 0);
    let head = tar(&[("./zeros", b'0', "", 1100 << 20, b"")]);
    encoder.write_all(&head[..512]).unwrap();
    std::io::copy(&mut std::io::Read::take(std::io::repeat(0), 1 << 20), &mut encoder).unwrap();
    let bytes = deb_with(CONTROL, "data.tar.xz", &encoder.finish().unwrap());
    let limit = (1 << 30) + 100 * bytes.len();
    let text = refusal(&bytes);
    assert!(text.contains(&format!("more than the {limit} that are allowed")), "{text}");
    // Whatever it says of itself.
    let boasting = deb_with(&CONTROL.replace(": 1\n", ": 99999999999\n"), "data.tar", &tar(&huge));
    let text = refusal(&boasting);
    let limit = (1 << 30) + 100 * boasting.len();
    assert!(text.contains(&format!("more than the {limit} that are allowed")), "{text}");

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
            deb_with(CONTROL, "data.tar.lz4", b""),
            "data.tar.lz4 is compressed in another way than gzip, xz, zstd, bzip2 or lzma, which is not supported",
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
fn every_compression_of_dpkg() {
    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Default::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }
    fn zstd(bytes: &[u8]) -> Vec<u8> {
        ::zstd::encode_all(bytes, 1).unwrap()
    }
    let forms: [(&str, fn(&[u8]) -> Vec<u8>); 6] =
        [("", <[u8]>::to_vec), (".gz", gzip), (".xz", xz), (".zst", zstd), (".bz2", bzip2), (".lzma", lzma)];
    let control = tar(&[file("./control", CONTROL.as_bytes())]);
    let data = tar(&[file("./usr/share/x", b"hello")]);
    for (of_control, compress_control) in forms {
        for (of_data, compress_data) in forms {
            let (control_name, data_name) =
                (format!("control.tar{of_control}"), format!("data.tar{of_data}"));
            let deb = ar(&[
                ("debian-binary", b"2.0\n"),
                (&control_name, &compress_control(&control)),
                (&data_name, &compress_data(&data)),
            ]);
            let folder = tempfile::tempdir().unwrap();
            let unpacked = unpack_in(folder.path(), input(&deb)).unwrap();
            assert_eq!(unpacked.tree.read("usr/share/x").unwrap(), b"hello", "{control_name} {data_name}");
        }
    }
    for damaged in ["data.tar.bz2", "data.tar.lzma"] {
        let text = refusal(&deb_with(CONTROL, damaged, b"not compressed at all"));
        assert!(text.starts_with(&format!("{damaged}: ")), "{text}");
    }
}

#[test]
fn an_installed_size_that_is_wrong_is_no_matter() {
    // 300 MB in a package of some megabytes that says it has 1 KiB, or nothing at all, or nonsense.
    let noise: Vec<u8> = (0..4 << 20u32)
        .scan(1u32, |state, _| {
            *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            Some((*state >> 24) as u8)
        })
        .collect();
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 0);
    let size = (4 << 20) + (300u64 << 20);
    encoder.write_all(&tar(&[("./large", b'0', "", size, b"")])[..512]).unwrap();
    encoder.write_all(&noise).unwrap();
    std::io::copy(&mut std::io::Read::take(std::io::repeat(0), 300 << 20), &mut encoder).unwrap();
    encoder.write_all(&[0; 1024]).unwrap();
    let data = encoder.finish().unwrap();
    for control in
        [CONTROL.to_owned(), CONTROL.replace("Installed-Size: 1\n", ""), CONTROL.replace(": 1\n", ": big\n")]
    {
        let folder = tempfile::tempdir().unwrap();
        unpack_in(folder.path(), input(&deb_with(&control, "data.tar.xz", &data))).unwrap();
    }
}

#[test]
fn another_package_than_locked() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = deb_with(&CONTROL.replace("sample", "other"), "data.tar", &tar(&[]));
    let store = Store::open(folder.path()).unwrap();
    let text = unpack(&[input(&bytes)], &store, 0, &Silent).unwrap_err().to_string();
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
    let path = folder.path().join("derived/unpacked-6").join(Digest::of(&bytes).to_hex());
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

#[test]
fn scripts_that_name_files_without_end() {
    let with = |count: usize| {
        let script: String = (0..count).map(|number| format!(". /usr/share/{number}\n")).collect();
        let members = tar(&[file("./control", CONTROL.as_bytes()), file("./postinst", script.as_bytes())]);
        ar(&[("debian-binary", b"2.0\n"), ("control.tar", &members), ("data.tar", &tar(&[]))])
    };
    let folder = tempfile::tempdir().unwrap();
    let words = unpack_in(folder.path(), input(&with(10_000))).unwrap().actions["postinst"].len();
    assert_eq!(words, 10_000);
    let error = refusal(&with(10_001));
    assert!(error.contains("its scripts name more than 10000 programs and files"), "{error}");
}
