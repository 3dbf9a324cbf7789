//! What is in the packages of a lock, as dpkg-deb unpacks them.

use std::collections::BTreeMap;
use std::process::Stdio;

use keller::lock::LockedPackage;
use keller::store::Store;
use rayon::prelude::*;
use tar::{Archive, EntryType};

use super::{Contents, Entry, folder};
use crate::judges::tool::tool;

/// Names attributes in headers of tar archives: pax(1) as GNU tar and libarchive extend it.
const XATTR: &str = "SCHILY.xattr.";

/// The packages unpacked one over another, base-files first, since its links `/bin`, `/lib` and so on decide
/// where the others' files go.
pub fn read(locked: &BTreeMap<String, LockedPackage>) -> Contents {
    let store = Store::open(Store::locate().unwrap()).unwrap();
    let mut unpacked: Vec<_> =
        locked.par_iter().map(|(name, package)| (name, unpack(&store, name, package))).collect();
    unpacked.sort_by_key(|(name, _)| (*name != "base-files", *name));
    let mut contents = Contents::new();
    for (name, entries) in unpacked {
        for (path, entry) in entries {
            let path = resolve(&contents, &path);
            let known = contents.get(&path);
            if let Some(known) = known.filter(|known| known.kind != 'd' || entry.kind != 'd') {
                panic!("/{path} is in {} and in {name}: whose it is has to be said here", known.from);
            }
            // A directory is that of the first package that has it, as with dpkg, and as new as the newest one:
            // the order in which packages are unpacked must not show.
            let mtime = entry.mtime;
            let known = contents.entry(path).or_insert(entry);
            known.mtime = known.mtime.max(mtime);
        }
    }
    contents
}

fn unpack(store: &Store, name: &str, package: &LockedPackage) -> Vec<(String, Entry)> {
    let deb = store.open_blob(&package.sha256).unwrap().unwrap_or_else(|| panic!("no {name} in the store"));
    let mut dpkg = tool("dpkg-deb").expect("was there before");
    dpkg.args(["--fsys-tarfile", "/dev/stdin"]).stdin(deb).stdout(Stdio::piped());
    let mut child = dpkg.spawn().unwrap();
    let mut archive = Archive::new(child.stdout.take().unwrap());
    let mut entries: Vec<(String, Entry)> = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = clean(&entry.path_bytes());
        let link = entry.link_name_bytes().map(|link| String::from_utf8(link.into_owned()).unwrap());
        let (kind, content) = match entry.header().entry_type() {
            EntryType::Directory => ('d', String::new()),
            EntryType::Regular => ('-', folder::digest_of(&mut entry)),
            EntryType::Symlink => ('l', link.unwrap()),
            EntryType::Link => {
                let first = clean(link.unwrap().as_bytes());
                let (_, first) = entries.iter().find(|(path, _)| *path == first).unwrap().clone();
                entries.push((path, first));
                continue;
            }
            other => panic!("/{path} of {name} is {other:?}"),
        };
        let mut xattrs = BTreeMap::new();
        for extension in entry.pax_extensions().unwrap().into_iter().flatten() {
            let extension = extension.unwrap();
            if let Some(name) = extension.key().unwrap().strip_prefix(XATTR) {
                xattrs.insert(name.to_owned(), extension.value_bytes().to_vec());
            }
        }
        let header = entry.header();
        let found = Entry {
            kind,
            mode: header.mode().unwrap() & 0o7777,
            owner: (header.uid().unwrap(), header.gid().unwrap()),
            mtime: header.mtime().unwrap() as i64,
            xattrs,
            content,
            from: format!("{name} {}", package.version),
        };
        entries.push((path, found));
    }
    assert!(child.wait().unwrap().success(), "dpkg-deb does not like {name}");
    entries
}

/// `./usr/bin/` without what stands around it.
fn clean(path: &[u8]) -> String {
    let path = std::str::from_utf8(path).expect("names in packages are UTF-8");
    path.trim_start_matches('.').trim_matches('/').to_owned()
}

/// Where `path` lies once links of folders above it are followed: `bin/sh` in `usr/bin/sh`.
fn resolve(contents: &Contents, path: &str) -> String {
    let link = path.match_indices('/').find_map(|(at, _)| {
        let entry = contents.get(&path[..at]).filter(|entry| entry.kind == 'l')?;
        Some((&path[..at], &path[at..], &entry.content))
    });
    let Some((link, rest, target)) = link else { return path.to_owned() };
    let place = match (target.strip_prefix('/'), link.rsplit_once('/')) {
        (Some(absolute), _) => format!("{absolute}{rest}"),
        (None, Some((folder, _))) => format!("{folder}/{target}{rest}"),
        (None, None) => format!("{target}{rest}"),
    };
    resolve(contents, &place)
}
