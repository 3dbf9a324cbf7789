//! Programs for this host, unpacked: what is in their directories is sealed, and looked at before each use.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use super::derived::CheckedDerived;
use super::{Result, Store, StoreError, failed, if_exists, make_folder, note_use, open_file};
use crate::base::Digest;

/// The kind of the sealed lists.
const KIND: &str = "tools";

impl Store {
    /// The directory of the tool `name` that was unpacked for `request`; `None` when it has to be made: it is not
    /// there, was unpacked for something else, or is not what was sealed. It counts as used.
    ///
    /// # Errors
    /// `Io` of the disk.
    pub fn tool(&self, name: &str, request: &Digest) -> Result<Option<PathBuf>> {
        let folder = self.tool_path(name);
        let Some(sealed) = self.sealed(&self.list_path(name), KIND, name)? else { return Ok(None) };
        let Ok(opened) = File::open(&folder) else { return Ok(None) };
        let expected = sealed.to_vec().map_err(failed("reading", sealed.path()))?;
        let Some(expected) = expected.strip_prefix(&heading(request)[..]) else { return Ok(None) };
        if let Some(path) = difference(expected, &list(&folder)?) {
            self.doubts.tell(format!(
                "{} is not as keller unpacked it: the tool is unpacked anew",
                folder.join(path).display()
            ));
            return Ok(None);
        }
        note_use(&opened);
        Ok(Some(folder))
    }

    /// Has `unpack` fill the directory of the tool `name` with what `request` asks for. It replaces the one that is
    /// there, unless another process has unpacked the same meanwhile.
    ///
    /// # Errors
    /// What `unpack` returns, and `Full` or `Io` of the store.
    pub fn keep_tool<E: From<StoreError>>(
        &self,
        name: &str,
        request: &Digest,
        unpack: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<PathBuf, E> {
        let folder = self.tool_path(name);
        let parent = folder.parent().expect("joined of a folder and a name");
        make_folder(parent).map_err(failed("creating", parent))?;
        let _alone = alone(&parent.join(format!(".{name}.lock")));
        if let Some(folder) = self.tool(name, request)? {
            return Ok(folder);
        }
        let scratch = |what| {
            let made = tempfile::Builder::new().prefix(&format!(".{name}-{what}-")).tempdir_in(parent);
            made.map_err(|error| self.write_error(error, "creating", &folder, 0))
        };
        let new = scratch("new")?;
        let tree = new.path().join("tree");
        make_folder(&tree).map_err(failed("creating", &tree))?;
        unpack(&tree)?;
        let listed = [heading(request), list(&tree)?].concat();
        // Whoever still runs the one that is there keeps its open files.
        let old = scratch("old")?;
        if_exists(fs::rename(&folder, old.path().join("tree"))).map_err(failed("moving away", &folder))?;
        fs::rename(&tree, &folder).map_err(failed("naming", &folder))?;
        self.seal_at(&self.list_path(name), KIND, name, |list| {
            list.write_all(&listed).map_err(failed("writing", &folder))
        })?;
        Ok(folder)
    }

    /// Names of all tools, in order.
    pub fn tools(&self) -> Result<Vec<String>> {
        let folder = self.root.join("tools");
        let listing = if_exists(fs::read_dir(&folder)).map_err(failed("listing", &folder))?;
        let mut names = Vec::new();
        for item in listing.into_iter().flatten() {
            let item = item.map_err(failed("listing", &folder))?;
            let is_folder = item.file_type().is_ok_and(|kind| kind.is_dir());
            let name = item.file_name().to_string_lossy().into_owned();
            if is_folder && !name.starts_with('.') {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// Reads all of the tool `name`. One that is not as it was unpacked is moved away.
    ///
    /// # Errors
    /// `Io` of the disk.
    pub fn verify_tool(&self, name: &str) -> Result<CheckedDerived> {
        let folder = self.tool_path(name);
        let path = self.list_path(name);
        let aside = |why: String| -> Result<CheckedDerived> {
            let moved_to = self.root.join("rotten").join(format!("tools-{name}"));
            let _ = fs::remove_dir_all(&moved_to);
            Ok(CheckedDerived::Broken { why, moved_to: self.put_aside(&folder, &format!("tools-{name}"))? })
        };
        if open_file(&path).map_err(failed("opening", &path))?.is_none() {
            return aside(format!("{} has no seal", folder.display()));
        }
        match self.verify_at(&path, KIND, name)? {
            CheckedDerived::Good => {}
            CheckedDerived::Foreign => return Ok(CheckedDerived::Foreign),
            CheckedDerived::Broken { why, .. } => return aside(why),
        }
        let Some(sealed) = self.sealed(&path, KIND, name)? else { return Ok(CheckedDerived::Foreign) };
        let expected = sealed.to_vec().map_err(failed("reading", &path))?;
        // What it was unpacked for does not matter here.
        let end = expected.iter().position(|byte| *byte == b'\n').map_or(expected.len(), |at| at + 1);
        match difference(&expected[end..], &list(&folder)?) {
            None => Ok(CheckedDerived::Good),
            Some(path) => aside(format!("{} is not as keller unpacked it", folder.join(path).display())),
        }
    }

    fn tool_path(&self, name: &str) -> PathBuf {
        self.root.join("tools").join(name)
    }

    fn list_path(&self, name: &str) -> PathBuf {
        self.root.join("tools").join(format!("{name}.seal"))
    }
}

/// Keeps out other processes that unpack the same, until it is dropped. Without it, as where the file is another
/// user's, each of them unpacks its own.
fn alone(path: &Path) -> Option<File> {
    let mut options = File::options();
    options.write(true).create(true).truncate(false).mode(0o600);
    let file = options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path).ok()?;
    rustix::fs::flock(&file, FlockOperation::LockExclusive).ok()?;
    Some(file)
}

/// The first line of a sealed list.
fn heading(request: &Digest) -> Vec<u8> {
    format!("request {request}\n").into_bytes()
}

/// A line for each name below `folder`, in order: its mode with its type, what it holds, its path. No line is that
/// of two trees, as what may stand in a path is written as its digits.
fn list(folder: &Path) -> Result<Vec<u8>> {
    let mut text = String::new();
    let mut pending = vec![folder.to_owned()];
    while let Some(path) = pending.pop() {
        let metadata = fs::symlink_metadata(&path).map_err(failed("reading", &path))?;
        let holds = if metadata.is_dir() {
            let entries: std::io::Result<Vec<_>> =
                fs::read_dir(&path).and_then(|all| all.map(|entry| Ok(entry?.path())).collect());
            let mut entries = entries.map_err(failed("listing", &path))?;
            entries.sort_by(|a, b| b.cmp(a));
            pending.append(&mut entries);
            "-".to_owned()
        } else if metadata.is_symlink() {
            let target = fs::read_link(&path).map_err(failed("reading", &path))?;
            Digest::of(target.as_os_str().as_bytes()).to_hex()
        } else {
            match open_file(&path).map_err(failed("opening", &path))? {
                Some(mut file) => Digest::of_reader(&mut file).map_err(failed("reading", &path))?.0.to_hex(),
                None => "special".to_owned(),
            }
        };
        let relative = path.strip_prefix(folder).unwrap_or(&path);
        let name = hex::encode(relative.as_os_str().as_bytes());
        let _ = writeln!(text, "{:o} {holds} {name}", metadata.mode());
    }
    Ok(text.into_bytes())
}

/// The first path in which two lists differ.
fn difference(expected: &[u8], actual: &[u8]) -> Option<PathBuf> {
    if expected == actual {
        return None;
    }
    let lines = |list: &[u8]| String::from_utf8_lossy(list).lines().map(str::to_owned).collect::<Vec<_>>();
    let (expected, actual) = (lines(expected), lines(actual));
    let at = expected.iter().zip(&actual).position(|(a, b)| a != b);
    let at = at.unwrap_or(expected.len().min(actual.len()));
    let line = actual.get(at).or(expected.get(at))?;
    let name = hex::decode(line.rsplit(' ').next()?).ok()?;
    Some(PathBuf::from(std::ffi::OsStr::from_bytes(&name)))
}
