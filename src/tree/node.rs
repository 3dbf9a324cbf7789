//! A node of a tree: its number, and what it is.

use std::collections::BTreeMap;

use super::content::Content;

/// Names a node of one [`Tree`](super::Tree).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub(super) u32);

impl NodeId {
    /// A number from 0 to [`Tree::capacity`](super::Tree::capacity), for tables beside the tree.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Names who put a node into a tree: a package, an overlay, the builder. See [`Tree::origin_name`](super::Tree::origin_name).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin(pub(super) u16);

/// What `stat` says of a node besides its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Permission bits with setuid, setgid and sticky: `0o7777` at most.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds since 1970.
    pub mtime: i64,
    /// Extended attributes by their full names, e.g. `security.capability`.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Meta {
    /// Owned by root, without extended attributes, at time 0.
    pub fn new(mode: u16) -> Self {
        Self { mode, uid: 0, gid: 0, mtime: 0, xattrs: BTreeMap::new() }
    }

    /// The same with another owner and group.
    pub fn owned(self, uid: u32, gid: u32) -> Self {
        Self { uid, gid, ..self }
    }

    /// The same with another time.
    pub fn at(self, mtime: i64) -> Self {
        Self { mtime, ..self }
    }
}

/// What a node is.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Children by name; a name is not empty, not `.` or `..`, and has no `/` and no NUL.
    Directory(BTreeMap<Vec<u8>, NodeId>),
    /// A regular file.
    File(Content),
    /// A symbolic link and its target as written.
    Symlink(Vec<u8>),
    /// Major and minor number.
    CharDevice(u32, u32),
    /// Major and minor number.
    BlockDevice(u32, u32),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

impl Kind {
    /// The type as `ls -l` writes it.
    pub fn letter(&self) -> char {
        match self {
            Self::Directory(_) => 'd',
            Self::File(_) => '-',
            Self::Symlink(_) => 'l',
            Self::CharDevice(..) => 'c',
            Self::BlockDevice(..) => 'b',
            Self::Fifo => 'p',
            Self::Socket => 's',
        }
    }
}

/// One inode.
#[derive(Clone, Debug)]
pub struct Node {
    /// Owner, mode, time, attributes.
    pub meta: Meta,
    /// Type and what goes with it.
    pub kind: Kind,
    /// Who put it there.
    pub origin: Origin,
}
