//! A tree as text, one line a name: for snapshots and comparisons.
//!
//! A line is `TYPE MODE UID:GID SIZE MTIME PATH REST`, where REST is the SHA-256 of a file, `-> TARGET`
//! of a link, `MAJOR:MINOR` of a device, `= PATH` for a further name of what stands above, and then
//! extended attributes as `NAME=HEX`. Bytes that are not printable ASCII, blanks and backslashes are
//! written `\xNN`, so that fields are split at blanks.

use std::fmt::Write;

use rayon::prelude::*;

use keller::base::Digest;
use keller::base::width::to_u64;
use keller::tree::{Kind, Meta, NodeId, Tree, TreeError, show};

/// The text of `tree`, ordered as [`Tree::walk`].
///
/// # Errors
/// `Io` when a file's content cannot be read.
pub fn dump(tree: &Tree) -> Result<String, TreeError> {
    let mut first: Vec<Option<usize>> = vec![None; tree.capacity()];
    let walk = tree.walk();
    for (at, (_, id)) in walk.iter().enumerate() {
        first[id.index()].get_or_insert(at);
    }
    let lines: Vec<String> = walk
        .par_iter()
        .enumerate()
        .map(|(at, (path, id))| match first[id.index()] {
            Some(earlier) if earlier != at => line(tree, path, *id, Some(&walk[earlier].0)),
            _ => line(tree, path, *id, None),
        })
        .collect::<Result<_, _>>()?;
    Ok(lines.concat())
}

fn line(tree: &Tree, path: &[u8], id: NodeId, earlier: Option<&[u8]>) -> Result<String, TreeError> {
    let node = tree.node(id);
    let meta = &node.meta;
    let size = match &node.kind {
        Kind::File(content) => content.len(),
        Kind::Symlink(target) => to_u64(target.len()),
        _ => 0,
    };
    let mut text = format!(
        "{} {:04o} {}:{} {size} {} /{}",
        node.kind.letter(),
        meta.mode,
        meta.uid,
        meta.gid,
        meta.mtime,
        escape(path)
    );
    let rest = match (&node.kind, earlier) {
        (_, Some(earlier)) => format!("= /{}", escape(earlier)),
        (Kind::File(content), None) => {
            let digest = Digest::of_reader(&mut content.reader());
            digest.map_err(|source| TreeError::Io { path: show(path), source })?.0.to_hex()
        }
        (Kind::Symlink(target), None) => format!("-> {}", escape(target)),
        (Kind::CharDevice(major, minor) | Kind::BlockDevice(major, minor), None) => {
            format!("{major}:{minor}")
        }
        (Kind::Directory(_) | Kind::Fifo | Kind::Socket, None) => String::new(),
    };
    if !rest.is_empty() {
        write!(text, " {rest}").expect("strings take all");
    }
    if earlier.is_none() {
        for (name, value) in &meta.xattrs {
            write!(text, " {}={}", escape(name), hex::encode(value)).expect("strings take all");
        }
    }
    text.push('\n');
    Ok(text)
}

fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        if byte.is_ascii_graphic() && *byte != b'\\' {
            text.push(char::from(*byte));
        } else {
            write!(text, "\\x{byte:02x}").expect("strings take all");
        }
    }
    text
}

#[test]
fn every_kind_has_its_line() {
    let mut tree = Tree::new(7);
    let origin = tree.origin("test");
    let file = tree.file("a file", 0o644, "x").unwrap();
    tree.node_mut(file).meta.xattrs.insert(b"user.k".to_vec(), vec![0xab]);
    tree.link("b", file).unwrap();
    tree.symlink("c", "a file").unwrap();
    tree.put("d", Meta::new(0o600).owned(1, 70_000), Kind::CharDevice(1, 3), origin).unwrap();
    tree.directory("e", 0o1777).unwrap();
    let digest = Digest::of("x");
    let expected = format!(
        "d 0755 0:0 0 7 /\n\
         - 0644 0:0 1 7 /a\\x20file {digest} user.k=ab\n\
         - 0644 0:0 1 7 /b = /a\\x20file\n\
         l 0777 0:0 6 7 /c -> a\\x20file\n\
         c 0600 1:70000 0 0 /d 1:3\n\
         d 1777 0:0 0 7 /e\n"
    );
    assert_eq!(dump(&tree).unwrap(), expected);
}
