//! A tree as an OCI layer: the tar stream whose digest names it.
//!
//! Source: OCI Image Format Specification 1.1, "Image Layer Filesystem Changeset".

use std::collections::HashMap;
use std::io::{self, Write};

use tar::{Builder, EntryType, Header};

use crate::base::width::to_u64;
use crate::base::{Digest, Hasher};
use crate::tree::{Kind, NodeId, Tree};

/// Counts and hashes; the stream itself is never kept.
struct Sink {
    hasher: Hasher,
    size: u64,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hasher.update(bytes);
        self.size += to_u64(bytes.len());
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Digest (the OCI "diff id") and size in bytes of the uncompressed layer that holds all of `tree`.
pub fn digest(tree: &Tree) -> io::Result<(Digest, u64)> {
    let mut sink = Sink { hasher: Hasher::new(), size: 0 };
    write(tree, &mut sink)?;
    Ok((sink.hasher.finish(), sink.size))
}

/// Writes `tree` as an uncompressed tar stream, entries in the tree's order.
pub fn write(tree: &Tree, out: &mut impl Write) -> io::Result<()> {
    let mut entries = Entries { builder: Builder::new(out), links: tree.link_counts(), seen: HashMap::new() };
    let mut done = Ok(());
    tree.visit(&mut |path, id| {
        if !path.is_empty() && done.is_ok() {
            done = entries.add(tree, path, id);
        }
    });
    done?;
    entries.builder.finish()
}

/// The stream so far.
struct Entries<W: Write> {
    builder: Builder<W>,
    /// How many names each node has.
    links: Vec<u32>,
    /// First names of files that have several.
    seen: HashMap<NodeId, Vec<u8>>,
}

impl<W: Write> Entries<W> {
    fn add(&mut self, tree: &Tree, path: &[u8], id: NodeId) -> io::Result<()> {
        let Self { builder, links, seen } = self;
        let node = tree.node(id);
        let name = bytes_as_path(path);
        let mut header = Header::new_gnu();
        header.set_mode(u32::from(node.meta.mode));
        header.set_uid(u64::from(node.meta.uid));
        header.set_gid(u64::from(node.meta.gid));
        header.set_mtime(u64::try_from(node.meta.mtime).unwrap_or(0));
        header.set_size(0);
        if let Some(first) = seen.get(&id) {
            header.set_entry_type(EntryType::Link);
            return builder.append_link(&mut header, name, bytes_as_path(first));
        }
        let xattrs =
            node.meta.xattrs.iter().map(|(name, value)| {
                (format!("SCHILY.xattr.{}", String::from_utf8_lossy(name)), value.clone())
            });
        let xattrs: Vec<_> = xattrs.collect();
        builder
            .append_pax_extensions(xattrs.iter().map(|(name, value)| (name.as_str(), value.as_slice())))?;
        match &node.kind {
            Kind::Directory(_) => {
                header.set_entry_type(EntryType::Directory);
                builder.append_data(&mut header, name, io::empty())?;
            }
            Kind::File(content) => {
                if links[id.index()] > 1 {
                    seen.insert(id, path.to_vec());
                }
                header.set_entry_type(EntryType::Regular);
                header.set_size(content.len());
                builder.append_data(&mut header, name, content.reader())?;
            }
            Kind::Symlink(target) => {
                header.set_entry_type(EntryType::Symlink);
                builder.append_link(&mut header, name, bytes_as_path(target))?;
            }
            Kind::CharDevice(major, minor) | Kind::BlockDevice(major, minor) => {
                let character = matches!(node.kind, Kind::CharDevice(..));
                header.set_entry_type(if character { EntryType::Char } else { EntryType::Block });
                header.set_device_major(*major)?;
                header.set_device_minor(*minor)?;
                builder.append_data(&mut header, name, io::empty())?;
            }
            Kind::Fifo => {
                header.set_entry_type(EntryType::Fifo);
                builder.append_data(&mut header, name, io::empty())?;
            }
            // tar has no sockets; they exist only while a program listens.
            Kind::Socket => {}
        }
        Ok(())
    }
}

fn bytes_as_path(bytes: &[u8]) -> &std::path::Path {
    use std::os::unix::ffi::OsStrExt;
    std::ffi::OsStr::from_bytes(bytes).as_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_as_it_was() {
        let mut tree = Tree::new(1_700_000_000);
        let id = tree.file("usr/bin/x", 0o4755, "body").unwrap();
        tree.node_mut(id).meta.xattrs.insert(b"user.a".to_vec(), b"1".to_vec());
        tree.link("usr/bin/y", id).unwrap();
        tree.symlink("bin", "usr/bin").unwrap();
        let mut bytes = Vec::new();
        write(&tree, &mut bytes).unwrap();
        assert_eq!(digest(&tree).unwrap(), (Digest::of(&bytes), to_u64(bytes.len())));
        let mut archive = tar::Archive::new(bytes.as_slice());
        let mut lines = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let xattrs = entry.pax_extensions().unwrap().map_or(0, |all| all.count());
            lines.push(format!(
                "{:?} {} {:o} {xattrs}",
                entry.header().entry_type(),
                entry.path().unwrap().display(),
                entry.header().mode().unwrap()
            ));
        }
        assert_eq!(
            lines,
            [
                "Symlink bin 777 0",
                "Directory usr 755 0",
                "Directory usr/bin 755 0",
                "Regular usr/bin/x 4755 1",
                "Link usr/bin/y 4755 0"
            ]
        );
    }
}
