//! Debian packages, byte by byte, so that a test can have wrong ones.

use std::io::Write;

/// One tar entry: path, type, link target, size as the header says, bytes.
pub type Entry<'a> = (&'a str, u8, &'a str, u64, &'a [u8]);

/// Folders and programs are executable, as dpkg-deb is given them.
fn mode(path: &str, kind: u8) -> u32 {
    if kind == b'5' || kind == b'2' || path.contains("bin/") || path.contains("init.d/") {
        0o755
    } else {
        0o644
    }
}

/// A tar archive, names and sizes as they are given.
pub fn tar(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (path, kind, link, size, body) in entries {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_mode(mode(path, *kind));
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        header.set_size(*size);
        header.set_entry_type(tar::EntryType::new(*kind));
        if matches!(*kind, b'3' | b'4') {
            header.set_device_major(0).unwrap();
            header.set_device_minor(0).unwrap();
        }
        header.set_cksum();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(body);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

/// A regular file.
pub fn file<'a>(path: &'a str, body: &'a [u8]) -> Entry<'a> {
    (path, b'0', "", body.len() as u64, body)
}

/// An ar archive.
pub fn ar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = b"!<arch>\n".to_vec();
    for (name, body) in members {
        writeln!(bytes, "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`", 0, 0, 0, "100644", body.len()).unwrap();
        bytes.extend_from_slice(body);
        bytes.resize(bytes.len().next_multiple_of(2), b'\n');
    }
    bytes
}

/// A package whose data is `data`, a member of the name `data_name`.
pub fn deb_with(control: &str, data_name: &str, data: &[u8]) -> Vec<u8> {
    let control = tar(&[file("./control", control.as_bytes())]);
    ar(&[("debian-binary", b"2.0\n"), ("control.tar", &control), (data_name, data)])
}

/// Compressed by xz.
pub fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 0);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Compressed in the format that xz had before.
pub fn lzma(bytes: &[u8]) -> Vec<u8> {
    let options = liblzma::stream::LzmaOptions::new_preset(1).unwrap();
    let stream = liblzma::stream::Stream::new_lzma_encoder(&options).unwrap();
    let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Compressed by bzip2.
pub fn bzip2(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
