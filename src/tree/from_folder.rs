//! Overlays: file trees that people keep beside a manifest, or that are embedded in keller.
//!
//! Of a folder on disk only names, bytes, symbolic links and the owner's execute bit count, so that a
//! checkout's umask, owner and times cannot reach an image: files are 0644 or 0755, folders 0755, all of
//! root, at the tree's epoch. What a checkout cannot say stands in the file `.meta` at the overlay's root:
//!
//! ```text
//! # path                 mode  owner  group
//! etc/sudoers.d/core     0440  root   root
//! var/lib/etcd/          0700  etcd   etcd      a slash at the end: the folder is made when missing
//! usr/bin/ping           0755  root   root   cap_net_raw+ep
//! etc/mtab               ->    ../proc/self/mounts
//! ```
//!
//! Owners are names or numbers. Names are kept until the image's users are known: [`Overlay::own`].
//! `.gitkeep` files are left out; they only keep a folder alive in git. So is what other programs leave in a
//! directory of sources ([`litter`]), unless `.meta` names it: then it comes along with all that is in it. A line
//! about a directory of another name is about that alone.

mod litter;
mod meta;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::capabilities::ATTRIBUTE;
use crate::base::{Digest, Hasher};

use super::{Content, Kind, Meta, NodeId, Tree, TreeError, show};

pub use meta::{Line, MetaError, Stated};

/// Name of the file with modes, owners and links, at an overlay's root.
pub const META: &str = ".meta";

const GITKEEP: &[u8] = b".gitkeep";

/// setuid, setgid and sticky.
pub const SPECIAL: u16 = 0o7000;
/// Others may read.
pub const READ_BY_ALL: u16 = 0o004;
/// The owner may execute.
pub const EXECUTE: u16 = 0o100;

/// Files up to this size are held in memory, in bytes: larger ones stay on disk behind an open file, of
/// which a process may not have many.
const IN_MEMORY: u64 = 256 << 10;

/// A file that is embedded in keller: path, bytes, whether it is executable.
pub type Embedded<'a> = (&'a str, &'a [u8], bool);

/// A file tree to be laid over a root.
#[derive(Clone, Debug)]
pub struct Overlay {
    /// The files, with their final modes.
    pub tree: Tree,
    /// What `.meta` says of files and folders, by path without leading slash.
    pub stated: BTreeMap<Vec<u8>, Stated>,
    /// What other programs left there and is not part of the tree, with the mode it would have; see [`litter`].
    pub left_out: Vec<(Vec<u8>, u16)>,
    /// What only some may read on disk, or is setuid there, of which `.meta` says nothing, with its mode there.
    pub opened: Vec<(Vec<u8>, u16)>,
}

/// Why an overlay could not be read.
#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    /// A line of `.meta`.
    #[error("{}:{line}: {source}", .file.display())]
    Meta {
        /// The file.
        file: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong with it.
        source: MetaError,
    },
    /// Sockets, devices and pipes do not belong into a folder of sources.
    #[error("{} is neither a file, a directory nor a symbolic link", .path.display())]
    Special {
        /// The path.
        path: PathBuf,
    },
    /// An owner that the image does not have.
    #[error("{META} gives /{path} to {what} {name:?}, which the image does not have")]
    Owner {
        /// The path in the image.
        path: String,
        /// `user` or `group`.
        what: &'static str,
        /// As written.
        name: String,
    },
    /// Paths that make no tree.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The disk.
    #[error("reading {}: {source}", .path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> OverlayError + use<> {
    let path = path.to_owned();
    move |source| OverlayError::Io { path, source }
}

impl Overlay {
    /// Reads the folder `folder`; nodes get the origin `name` and the time `epoch`.
    ///
    /// # Errors
    /// See [`OverlayError`].
    pub fn from_folder(folder: &Path, name: &str, epoch: i64) -> Result<Self, OverlayError> {
        let mut overlay = Self::empty(name, epoch);
        let meta = folder.join(META);
        let text = match fs::read_to_string(&meta) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(failed(&meta)(error)),
        };
        let named = text.lines().filter_map(|line| match Line::parse(line) {
            Ok(Some(Line::Stated { path, .. })) => Some(path.trim_matches('/').as_bytes().to_vec()),
            _ => None,
        });
        overlay.folder(folder, &mut Vec::new(), &named.collect(), false)?;
        overlay.state(&text, &meta)?;
        let stated = &overlay.stated;
        overlay.opened.retain(|(path, _)| !stated.contains_key(path));
        Ok(overlay)
    }

    /// Takes files that are embedded in keller. Gives the same as the folder that they came from.
    ///
    /// # Errors
    /// Those of `.meta`.
    pub fn from_embedded(files: &[Embedded<'_>], name: &str, epoch: i64) -> Result<Self, OverlayError> {
        let mut overlay = Self::empty(name, epoch);
        let mut meta = None;
        for (path, bytes, executable) in files {
            if *path == META {
                meta = Some(*bytes);
                continue;
            }
            let (folder, last) = path.rsplit_once('/').unwrap_or(("", path));
            if last.as_bytes() == GITKEEP {
                overlay.put(folder.as_bytes(), 0o755, Kind::Directory(BTreeMap::new()))?;
                continue;
            }
            let mode = if *executable { 0o755 } else { 0o644 };
            overlay.put(path.as_bytes(), mode, Kind::File(bytes.to_vec().into()))?;
        }
        if let Some(bytes) = meta {
            let file = Path::new(name).join(META);
            let text = str::from_utf8(bytes)
                .map_err(|error| failed(&file)(io::Error::new(io::ErrorKind::InvalidData, error)))?;
            overlay.state(text, &file)?;
        }
        Ok(overlay)
    }

    /// The nodes of `root`, into which the overlay was merged just now, that [`Overlay::stated`] is about:
    /// the overlay's own, and directories that it shares.
    ///
    /// # Errors
    /// `Tree` when one is not there.
    pub fn laid(&self, root: &Tree) -> Result<BTreeMap<Vec<u8>, NodeId>, OverlayError> {
        let laid = self.stated.keys().map(|path| Ok((path.clone(), self.find(root, path)?)));
        laid.collect::<Result<_, TreeError>>().map_err(OverlayError::from)
    }

    /// What of `root` is at `path`. A directory that met a link to a directory was merged into that one.
    fn find(&self, root: &Tree, path: &[u8]) -> Result<NodeId, TreeError> {
        let absent = || TreeError::NotFound { path: show(path) };
        let id = self.tree.lookup(path).ok_or_else(absent)?;
        match self.tree.node(id).kind {
            Kind::Directory(_) => root.resolve(path),
            _ => root.lookup(path).ok_or_else(absent),
        }
    }

    /// Gives what this overlay has laid over `root` the owners that `.meta` names by number, before names have theirs.
    pub fn own_numbers(&self, root: &mut Tree, laid: &BTreeMap<Vec<u8>, NodeId>) {
        for (path, stated) in &self.stated {
            let there = self.find(root, path).ok();
            let Some(id) = there.filter(|id| laid.get(path) == Some(id)) else { continue };
            let meta = &mut root.node_mut(id).meta;
            meta.uid = stated.owner.parse().unwrap_or(meta.uid);
            meta.gid = stated.group.parse().unwrap_or(meta.gid);
        }
    }

    /// Gives the nodes `laid` in `root` the modes, owners and capabilities of [`Overlay::stated`]; what was
    /// put in a node's place since keeps its own. `user` and `group` know the image's numbers. Says which
    /// nodes have them.
    ///
    /// # Errors
    /// `Owner` when a name is unknown.
    pub fn own(
        &self,
        root: &mut Tree,
        laid: &BTreeMap<Vec<u8>, NodeId>,
        user: &dyn Fn(&str) -> Option<u32>,
        group: &dyn Fn(&str) -> Option<u32>,
    ) -> Result<Vec<(Vec<u8>, NodeId)>, OverlayError> {
        let mut owned = Vec::new();
        for (path, stated) in &self.stated {
            let there = self.find(root, path).ok();
            let Some(id) = there.filter(|id| laid.get(path) == Some(id)) else { continue };
            let number = |what, name: &str, known: &dyn Fn(&str) -> Option<u32>| {
                name.parse().ok().or_else(|| known(name)).ok_or_else(|| OverlayError::Owner {
                    path: show(path),
                    what,
                    name: name.to_owned(),
                })
            };
            let uid = number("user", &stated.owner, user)?;
            let gid = number("group", &stated.group, group)?;
            let meta = &mut root.node_mut(id).meta;
            (meta.mode, meta.uid, meta.gid) = (stated.mode, uid, gid);
            match stated.capabilities {
                Some(capabilities) => meta.xattrs.insert(ATTRIBUTE.to_vec(), capabilities.to_bytes()),
                None => meta.xattrs.remove(ATTRIBUTE),
            };
            owned.push((path.clone(), id));
        }
        Ok(owned)
    }

    /// Names the overlay's content in a lock. Times do not count, as none of them is the overlay's own.
    ///
    /// # Errors
    /// Of the disk, when a large file cannot be read.
    pub fn digest(&self) -> io::Result<Digest> {
        let mut hasher = Hasher::new();
        hasher.update(digest(&self.tree)?.as_bytes());
        for (path, stated) in &self.stated {
            text(&mut hasher, path);
            text(&mut hasher, stated.owner.as_bytes());
            text(&mut hasher, stated.group.as_bytes());
            if let Some(capabilities) = stated.capabilities {
                text(&mut hasher, &capabilities.to_bytes());
            }
        }
        Ok(hasher.finish())
    }

    fn empty(name: &str, epoch: i64) -> Self {
        let mut tree = Tree::new(epoch);
        let origin = tree.origin(name);
        let root = tree.root();
        tree.node_mut(root).origin = origin;
        Self { tree, stated: BTreeMap::new(), left_out: Vec::new(), opened: Vec::new() }
    }

    fn put(&mut self, path: &[u8], mode: u16, kind: Kind) -> Result<(), TreeError> {
        let origin = self.tree.node(self.tree.root()).origin;
        let meta = Meta::new(mode).at(self.tree.epoch);
        self.tree.put(path, meta, kind, origin).map(drop)
    }

    fn folder(
        &mut self,
        folder: &Path,
        below: &mut Vec<u8>,
        named: &BTreeSet<Vec<u8>>,
        whole: bool,
    ) -> Result<(), OverlayError> {
        let mut entries = fs::read_dir(folder)
            .and_then(|entries| {
                entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()
            })
            .map_err(failed(folder))?;
        entries.sort();
        for path in entries {
            let name = path.file_name().unwrap_or_default().as_bytes();
            if below.is_empty() && name == META.as_bytes() {
                continue;
            }
            let above = below.len();
            if above > 0 {
                below.push(b'/');
            }
            below.extend_from_slice(name);
            let kept = whole || named.contains(&below[..]);
            if name == GITKEEP && !kept {
                below.truncate(above);
                continue;
            }
            let metadata = fs::symlink_metadata(&path).map_err(failed(&path))?;
            let kind = metadata.file_type();
            if litter::is_litter(name) && !kept {
                self.left_out.push((below.clone(), usual_mode(&metadata)));
                below.truncate(above);
                continue;
            }
            let on_disk = (metadata.permissions().mode() & 0o7777) as u16;
            let special = kind.is_file() && on_disk & SPECIAL != 0;
            if special || (!kind.is_symlink() && on_disk & READ_BY_ALL == 0) {
                self.opened.push((below.clone(), on_disk));
            }
            if kind.is_dir() {
                self.put(below, usual_mode(&metadata), Kind::Directory(BTreeMap::new()))?;
                self.folder(&path, below, named, whole || (kept && litter::is_litter(name)))?;
            } else if kind.is_symlink() {
                let target = fs::read_link(&path).map_err(failed(&path))?;
                let kind = Kind::Symlink(target.as_os_str().as_bytes().to_vec());
                self.put(below, usual_mode(&metadata), kind)?;
            } else if kind.is_file() {
                let mode = usual_mode(&metadata);
                let content = content(&path, metadata.len()).map_err(failed(&path))?;
                self.put(below, mode, Kind::File(content))?;
            } else {
                return Err(OverlayError::Special { path });
            }
            below.truncate(above);
        }
        Ok(())
    }

    fn state(&mut self, text: &str, file: &Path) -> Result<(), OverlayError> {
        for (index, line) in text.lines().enumerate() {
            let at = |source| OverlayError::Meta { file: file.to_owned(), line: index + 1, source };
            match Line::parse(line).map_err(at)? {
                None => {}
                Some(Line::Link { path, target }) => {
                    if self.tree.exists(&path) {
                        return Err(at(MetaError::Exists { path }));
                    }
                    self.put(path.as_bytes(), 0o777, Kind::Symlink(target.into_bytes()))?;
                }
                Some(Line::Stated { path, directory, stated }) => {
                    let path = path.trim_matches('/').as_bytes().to_vec();
                    if directory && !self.tree.exists(&path) {
                        self.put(&path, stated.mode, Kind::Directory(BTreeMap::new()))?;
                    }
                    let id =
                        self.tree.lookup(&path).ok_or_else(|| at(MetaError::Absent { path: show(&path) }))?;
                    let node = self.tree.node_mut(id);
                    stated.judge(&show(&path), &node.kind, directory).map_err(at)?;
                    node.meta.mode = stated.mode;
                    if self.stated.insert(path.clone(), stated).is_some() {
                        return Err(at(MetaError::Exists { path: show(&path) }));
                    }
                }
            }
        }
        Ok(())
    }
}

/// What a file, directory or link of a disk gets: of its mode only the owner's execute bit counts.
fn usual_mode(metadata: &fs::Metadata) -> u16 {
    match metadata.file_type() {
        kind if kind.is_symlink() => 0o777,
        kind if kind.is_file() && metadata.permissions().mode() & u32::from(EXECUTE) == 0 => 0o644,
        _ => 0o755,
    }
}

fn content(path: &Path, len: u64) -> io::Result<Content> {
    if len <= IN_MEMORY {
        return Ok(fs::read(path)?.into());
    }
    Ok(Content::Slice { file: Arc::new(File::open(path)?), offset: 0, len })
}

/// Names a tree's content: paths, types, modes, owners by number, attributes, links and bytes. Times and
/// origins do not count.
///
/// # Errors
/// Of the disk under the bodies.
pub fn digest(tree: &Tree) -> io::Result<Digest> {
    let mut hasher = Hasher::new();
    let mut first: BTreeMap<_, Vec<u8>> = BTreeMap::new();
    for (path, id) in tree.walk() {
        let node = tree.node(id);
        text(&mut hasher, &path);
        if let Some(known) = first.get(&id) {
            hasher.update(b"h");
            text(&mut hasher, known);
            continue;
        }
        hasher.update([node.kind.letter() as u8]);
        for number in [u32::from(node.meta.mode), node.meta.uid, node.meta.gid] {
            hasher.update(number.to_le_bytes());
        }
        hasher.update((node.meta.xattrs.len() as u64).to_le_bytes());
        for (name, value) in &node.meta.xattrs {
            text(&mut hasher, name);
            text(&mut hasher, value);
        }
        match &node.kind {
            Kind::File(content) => hasher.update(Digest::of_reader(&mut content.reader())?.0.as_bytes()),
            Kind::Symlink(target) => text(&mut hasher, target),
            Kind::CharDevice(major, minor) | Kind::BlockDevice(major, minor) => {
                hasher.update(major.to_le_bytes());
                hasher.update(minor.to_le_bytes());
            }
            Kind::Directory(_) | Kind::Fifo | Kind::Socket => {}
        }
        first.insert(id, path);
    }
    Ok(hasher.finish())
}

/// Takes in bytes after their length, so that no two sequences look alike.
fn text(hasher: &mut Hasher, bytes: &[u8]) {
    hasher.update((bytes.len() as u64).to_le_bytes());
    hasher.update(bytes);
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const META_TEXT: &str =
        "# comment\nbin/run 4750 root shadow\nvar/lib/etcd/ 0700 etcd 900\netc/mtab -> ../proc/self/mounts\n";

    fn write(folder: &Path, path: &str, bytes: &str, mode: u32) {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn folder_and_embedded_are_one() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "bin/run", "#!", 0o700);
        write(folder.path(), "etc/x", "x", 0o666);
        write(folder.path(), "srv/.gitkeep", "", 0o644);
        write(folder.path(), META, META_TEXT, 0o644);
        let overlay = Overlay::from_folder(folder.path(), "overlay", 7).unwrap();
        let embedded = Overlay::from_embedded(
            &[
                ("bin/run", b"#!", true),
                ("etc/x", b"x", false),
                ("srv/.gitkeep", b"", false),
                (META, META_TEXT.as_bytes(), false),
            ],
            "overlay",
            9,
        )
        .unwrap();
        assert_eq!(overlay.digest().unwrap(), embedded.digest().unwrap());
        let tree = &overlay.tree;
        let mode = |path: &str| tree.node(tree.lookup(path).unwrap()).meta.mode;
        assert_eq!(
            [mode("etc/x"), mode("bin/run"), mode("srv"), mode("var/lib/etcd")],
            [0o644, 0o4750, 0o755, 0o700]
        );
        assert!(!tree.exists(META) && !tree.exists("srv/.gitkeep"));

        let mut root = tree.clone();
        let known = |name: &str| match name {
            "root" => Some(0),
            "shadow" => Some(42),
            _ => None,
        };
        let laid = overlay.laid(&root).unwrap();
        let error = overlay.own(&mut root, &laid, &known, &known).unwrap_err();
        assert!(error.to_string().contains("/var/lib/etcd to user \"etcd\""), "{error}");
        overlay.own(&mut root, &laid, &|name| known(name).or(Some(901)), &known).unwrap();
        let owner = |path: &str| {
            let meta = &root.node(root.lookup(path).unwrap()).meta;
            (meta.uid, meta.gid)
        };
        assert_eq!([owner("bin/run"), owner("var/lib/etcd")], [(0, 42), (901, 900)]);
    }

    #[test]
    fn what_other_programs_leave_does_not_come_along() {
        let folder = tempfile::tempdir().unwrap();
        for path in [
            ".git/HEAD",
            "etc/.DS_Store",
            "etc/x~",
            "etc/.x.swp",
            "etc/#x#",
            "srv/.svn/entries",
            "srv/Thumbs.db",
        ] {
            write(folder.path(), path, "", 0o644);
        }
        write(folder.path(), "etc/x", "", 0o644);
        write(folder.path(), "srv/repo/.git/HEAD", "", 0o644);
        symlink("nobody@host.1", folder.path().join("etc/.#x")).unwrap();
        write(folder.path(), META, "srv/repo/.git 0755 root root\n", 0o644);
        let overlay = Overlay::from_folder(folder.path(), "o", 0).unwrap();
        let left: Vec<_> = overlay.left_out.iter().map(|(path, _)| show(path)).collect();
        let expected = [
            ".git",
            "etc/#x#",
            "etc/.#x",
            "etc/.DS_Store",
            "etc/.x.swp",
            "etc/x~",
            "srv/.svn",
            "srv/Thumbs.db",
        ];
        assert_eq!(left, expected);
        let modes: Vec<_> = overlay.left_out.iter().map(|(_, mode)| *mode).collect();
        assert_eq!(modes, [0o755, 0o644, 0o777, 0o644, 0o644, 0o644, 0o755, 0o644]);
        assert!(overlay.tree.exists("srv/repo/.git/HEAD") && overlay.tree.exists("etc/x"));
        assert!(expected.iter().all(|path| !overlay.tree.exists(path)));
    }

    #[test]
    fn litter_that_is_named_comes_whole() {
        let folder = tempfile::tempdir().unwrap();
        for path in
            ["a/.git/hooks/x~", "a/.git/.gitkeep", "a/x~", "b/.DS_Store", "b/.gitkeep", "c/.gitkeep", "d/y~"]
        {
            write(folder.path(), path, "", 0o644);
        }
        let meta = "a/ 0700 0 0\na/.git/ 0755 0 0\nb 0755 0 0\nc/.gitkeep 0644 0 0\nd/y~ 0600 0 0\n";
        write(folder.path(), META, meta, 0o644);
        let overlay = Overlay::from_folder(folder.path(), "o", 0).unwrap();
        let paths: Vec<_> = overlay.tree.walk().into_iter().map(|(path, _)| show(&path)).collect();
        let expected = [
            "a",
            "a/.git",
            "a/.git/.gitkeep",
            "a/.git/hooks",
            "a/.git/hooks/x~",
            "b",
            "c",
            "c/.gitkeep",
            "d",
            "d/y~",
        ];
        assert_eq!(
            paths.iter().filter(|path| !path.is_empty()).collect::<Vec<_>>(),
            expected.iter().collect::<Vec<_>>()
        );
        assert_eq!(overlay.left_out, [(b"a/x~".to_vec(), 0o644), (b"b/.DS_Store".to_vec(), 0o644)]);
    }

    #[test]
    fn words_of_meta_that_would_do_nothing() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "bin/run", "", 0o755);
        fs::create_dir(folder.path().join("data")).unwrap();
        symlink("run", folder.path().join("bin/link")).unwrap();
        for (line, part) in [
            (
                "data 0755 0 0 cap_net_raw+ep",
                ".meta:1: data is a directory, and only a program has capabilities",
            ),
            ("new/ 0755 0 0 cap_net_raw+ep", "new is a directory"),
            ("bin/link 0777 0 0 cap_net_raw+ep", "bin/link is a link, and only a program"),
            ("bin/run 0644 0 0 cap_net_raw+ep", "nobody may execute bin/run with mode 0644"),
            (
                "bin/link 0644 0 0",
                "mode 0644 does nothing on bin/link, which is a link: write 0777, or name what it leads to",
            ),
            (
                "data 4755 0 0",
                "mode 4755 does nothing on data, which is a directory: Linux knows setuid of programs only",
            ),
            ("bin/run 1755 0 0", "Linux knows the sticky bit of directories only"),
            ("bin/run 4644 0 0", "nobody may execute bin/run with mode 4644"),
            ("bin/run/ 0755 0 0", "bin/run is a file, and a slash at its end makes a directory"),
            ("bin/gone 0755 0 0", "`files` gives mode and owner to what a package has"),
        ] {
            write(folder.path(), META, line, 0o644);
            let error = Overlay::from_folder(folder.path(), "o", 0).unwrap_err().to_string();
            assert!(error.contains(part), "{line}: {error}");
        }
        write(folder.path(), META, "bin/link 0777 0 7\ndata 3775 0 0\nbin/run 2755 0 0\n", 0o644);
        Overlay::from_folder(folder.path(), "o", 0).unwrap();
    }

    #[test]
    fn capabilities_of_meta() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "bin/ping", "", 0o755);
        write(folder.path(), META, "bin/ping 0755 0 0 cap_net_raw+ep\n", 0o644);
        let overlay = Overlay::from_folder(folder.path(), "o", 0).unwrap();
        let mut root = overlay.tree.clone();
        let laid = overlay.laid(&root).unwrap();
        overlay.own(&mut root, &laid, &|_| None, &|_| None).unwrap();
        let meta = &root.node(root.lookup("bin/ping").unwrap()).meta;
        assert_eq!(meta.xattrs[ATTRIBUTE].len(), 20);
        let digest = overlay.digest().unwrap();
        write(folder.path(), META, "bin/ping 0755 0 0 cap_net_raw+p\n", 0o644);
        assert_ne!(Overlay::from_folder(folder.path(), "o", 0).unwrap().digest().unwrap(), digest);
        write(folder.path(), META, "bin/ping 0755 0 0 cap_net_row+p\n", 0o644);
        let error = Overlay::from_folder(folder.path(), "o", 0).unwrap_err().to_string();
        assert!(error.ends_with(".meta:1: there is no capability \"cap_net_row\""), "{error}");
    }

    #[test]
    fn modes_that_do_not_count_are_told() {
        let folder = tempfile::tempdir().unwrap();
        for (path, mode) in [
            ("a", 0o600),
            ("b", 0o440),
            ("c", 0o640),
            ("d", 0o644),
            ("e", 0o755),
            ("f", 0o4755),
            ("g", 0o700),
        ] {
            write(folder.path(), path, "", mode);
        }
        write(folder.path(), META, "b 0440 root root\n", 0o644);
        let overlay = Overlay::from_folder(folder.path(), "o", 0).unwrap();
        let opened: Vec<_> = overlay.opened.iter().map(|(path, mode)| (show(path), *mode)).collect();
        let expected = [("a", 0o600), ("c", 0o640), ("f", 0o4755), ("g", 0o700)];
        assert_eq!(opened, expected.map(|(path, mode)| (path.to_owned(), mode)));
    }

    #[test]
    fn the_digest_sees_bytes_bits_and_links_but_no_time() {
        let folder = tempfile::tempdir().unwrap();
        let digest = || Overlay::from_folder(folder.path(), "o", 0).unwrap().digest().unwrap();
        write(folder.path(), "a", "1", 0o644);
        let first = digest();
        write(folder.path(), "a", "1", 0o600);
        assert_eq!(digest(), first);
        write(folder.path(), "a", "1", 0o755);
        let executable = digest();
        symlink("a", folder.path().join("b")).unwrap();
        let linked = digest();
        write(folder.path(), META, "a 0755 core root\n", 0o644);
        let all = [first, executable, linked, digest()];
        assert_eq!(all.iter().collect::<std::collections::BTreeSet<_>>().len(), 4);
    }

    #[test]
    fn mistakes_in_meta_have_a_place() {
        let folder = tempfile::tempdir().unwrap();
        for (text, part) in [
            ("\nx 0644 root root\n", ".meta:2: there is no x"),
            ("x 99 root root", "mode"),
            ("x 0644 root", "expected"),
            ("../x -> y", "unsafe path"),
        ] {
            write(folder.path(), META, text, 0o644);
            let error = Overlay::from_folder(folder.path(), "o", 0).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
