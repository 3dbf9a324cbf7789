//! What `stat` says of everything below a folder.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use keller::base::Digest;
use rayon::prelude::*;

use super::{Contents, Entry};

/// Most bytes of a list or a value of extended attributes: XATTR_LIST_MAX, XATTR_SIZE_MAX.
const XATTR_MAX: usize = 65_536;

/// Everything below `folder`, itself included.
pub fn read(folder: &Path) -> Contents {
    let mut names = vec![String::new()];
    let mut at = 0;
    while let Some(name) = names.get(at).cloned() {
        at += 1;
        if fs::symlink_metadata(folder.join(&name)).unwrap().is_dir() {
            for child in fs::read_dir(folder.join(&name)).unwrap() {
                let child = child.unwrap().file_name().into_string().expect("names in packages are UTF-8");
                names.push(if name.is_empty() { child } else { format!("{name}/{child}") });
            }
        }
    }
    names.into_par_iter().map(|name| (name.clone(), entry(&folder.join(&name)))).collect()
}

fn entry(path: &Path) -> Entry {
    let stat = fs::symlink_metadata(path).unwrap();
    let (kind, content) = match stat.file_type() {
        kind if kind.is_dir() => ('d', String::new()),
        kind if kind.is_file() => ('-', digest_of(&mut File::open(path).unwrap())),
        kind if kind.is_symlink() => ('l', fs::read_link(path).unwrap().to_str().unwrap().to_owned()),
        kind if kind.is_fifo() => ('p', String::new()),
        kind if kind.is_socket() => ('s', String::new()),
        kind => (if kind.is_char_device() { 'c' } else { 'b' }, stat.rdev().to_string()),
    };
    Entry {
        kind,
        mode: stat.mode() & 0o7777,
        owner: (stat.uid().into(), stat.gid().into()),
        mtime: stat.mtime(),
        xattrs: xattrs(path),
        content,
        from: String::new(),
    }
}

fn xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut buffer = vec![0; XATTR_MAX];
    let count = rustix::fs::llistxattr(path, &mut buffer).unwrap_or(0);
    let names = String::from_utf8(buffer[..count].to_vec()).unwrap();
    let names = names.split_terminator('\0');
    names
        .map(|name| {
            let mut value = vec![0; XATTR_MAX];
            let count = rustix::fs::lgetxattr(path, name, &mut value).unwrap();
            value.truncate(count);
            (name.to_owned(), value)
        })
        .collect()
}

/// Length and SHA-256.
pub fn digest(mut bytes: &[u8]) -> String {
    digest_of(&mut bytes)
}

/// The same of all that a reader gives.
pub fn digest_of(reader: &mut impl std::io::Read) -> String {
    let (digest, length) = Digest::of_reader(reader).unwrap();
    format!("{length} bytes {digest}")
}

/// A folder that nobody in particular made.
pub fn directory() -> Entry {
    Entry {
        kind: 'd',
        mode: 0o755,
        owner: (0, 0),
        mtime: 0,
        xattrs: BTreeMap::new(),
        content: String::new(),
        from: "a folder above".to_owned(),
    }
}
