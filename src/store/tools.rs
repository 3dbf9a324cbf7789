//! Programs for this host, unpacked: what is in their directories is sealed, and looked at before each use.

use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use super::derived::CheckedDerived;
use super::{Result, Store, failed, if_exists, is_read_only, make_folder, note_use, open_file};
use crate::base::scratch::Scratch;
use crate::base::seal;
use crate::base::{Digest, atomic, flock, input, limits};
use crate::store::StoreError;

/// The kind of the sealed lists.
const KIND: &str = "tools";

/// What a list begins with. The number counts changes of its lines.
const FORM: &str = "list 2 of ";

/// An unpacked tool, which can be run while the value lives.
#[derive(Debug)]
pub struct Tool {
    folder: PathBuf,
    /// Goes away with the value, where the store cannot keep it.
    _scratch: Option<Scratch>,
}

impl Tool {
    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Store {
    /// The tool `name` that was unpacked for `request`; `None` when it has to be made: it is not there, was unpacked for
    /// something else, or is not what was sealed. It counts as used.
    pub fn tool(&self, name: &str, request: &Digest) -> Option<Tool> {
        let folder = self.tool_path(name);
        let sealed = self.sealed(&self.list_path(name), KIND, name)?;
        let opened = File::open(&folder).ok()?;
        // A list that cannot be read is told by its seal.
        let expected = sealed.to_vec().ok()?;
        let expected = expected.strip_prefix(&heading(request)[..])?;
        if let Some(path) = difference(expected, &folder) {
            self.doubts
                .tell(format!("{} is not as keller unpacked it: the tool is unpacked anew", path.display()));
            return None;
        }
        note_use(&opened);
        Some(Tool { folder, _scratch: None })
    }

    /// Has `unpack` fill the directory of the tool `name` with what `request` asks for. It replaces the one that is
    /// there, unless another process has unpacked the same meanwhile. Without a key, and in a store that cannot be
    /// written, it fills a temporary directory.
    ///
    /// # Errors
    /// What `unpack` returns, and `Full` or `Io` of the store.
    pub fn keep_tool<E: From<StoreError>>(
        &self,
        name: &str,
        request: &Digest,
        unpack: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<Tool, E> {
        let folder = self.tool_path(name);
        let parent = folder.parent().expect("joined of a folder and a name");
        let lock = parent.join(format!(".{name}.lock"));
        let new = match self.make_way(&lock).map_err(io::Error::from) {
            Ok(()) => make_folder(parent).and_then(|()| scratch(name, "new", parent)),
            Err(error) => Err(error),
        };
        let new = match new {
            Ok(new) => new,
            Err(error) if is_read_only(&error) => return temporary(name, unpack),
            Err(error) => return Err(self.write_error(error, "creating", &folder, 0).into()),
        };
        if !self.keeps {
            // On the disk of the store all the same, which has more room than most others.
            return unpacked(new, unpack);
        }
        let _alone = alone(&lock);
        if let Some(tool) = self.tool(name, request) {
            return Ok(tool);
        }
        let tree = new.path().join("tree");
        make_folder(&tree).map_err(failed("creating", &tree))?;
        unpack(&tree)?;
        let listed = [heading(request), list(&tree)?].concat();
        // Whoever still runs the one that is there keeps its open files.
        let old =
            scratch(name, "old", parent).map_err(|error| self.write_error(error, "creating", &folder, 0))?;
        if_exists(fs::rename(&folder, old.path().join("tree"))).map_err(failed("moving away", &folder))?;
        fs::rename(&tree, &folder).map_err(failed("naming", &folder))?;
        self.seal_at(&self.list_path(name), KIND, name, |list| {
            list.write_all(&listed).map_err(failed("writing", &folder))
        })?;
        Ok(Tool { folder, _scratch: None })
    }

    /// What was noted beside the tool `name`, by whoever it was: nothing is sealed here.
    pub fn tool_notes(&self, name: &str) -> Option<String> {
        input::read_text(self.notes_path(name), limits::TEXT).ok()
    }

    /// Notes `text` beside the tool `name`. Failure to do so costs whoever looks for it.
    pub fn note_tool(&self, name: &str, text: &str) {
        let path = self.notes_path(name);
        let _ = make_folder(&self.root.join("tools")).and_then(|()| atomic::write(&path, text));
    }

    /// Names of all tools, in order.
    ///
    /// # Errors
    /// `Io` of the disk.
    pub fn tools(&self) -> Result<Vec<String>> {
        let folder = self.root.join("tools");
        let listing = if_exists(fs::read_dir(&folder)).map_err(failed("listing", &folder))?;
        let mut names = Vec::new();
        for item in listing.into_iter().flatten() {
            let item = item.map_err(failed("listing", &folder))?;
            // A link is none that keller made, which is told.
            let may_be = item.file_type().is_ok_and(|kind| kind.is_dir() || kind.is_symlink());
            let name = item.file_name().to_string_lossy().into_owned();
            if may_be && !name.starts_with('.') {
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
        let aside = |why: String| self.break_off(&folder, &format!("tools-{name}"), why);
        if open_file(&path).map_err(failed("opening", &path))?.is_none() {
            // An older keller trusted a lock beside the tool.
            let is_older = folder.is_dir() && self.root.join("tools").join(format!("{name}.lock")).is_file();
            return match is_older {
                true => Ok(CheckedDerived::Another),
                false => aside(format!("{} has no seal", folder.display())),
            };
        }
        match self.verify_at(&path, KIND, name)? {
            CheckedDerived::Good => {}
            CheckedDerived::Broken { why, .. } | CheckedDerived::Stuck { why, .. } => return aside(why),
            unread => return Ok(unread),
        }
        let Some(sealed) = self.sealed(&path, KIND, name) else { return Ok(CheckedDerived::Foreign) };
        let expected = sealed.to_vec().map_err(|error| failed("reading", &path)(seal::of_disk(error)))?;
        if !expected.starts_with(FORM.as_bytes()) {
            return Ok(CheckedDerived::Another);
        }
        // What it was unpacked for does not matter here.
        let end = expected.iter().position(|byte| *byte == b'\n').map_or(expected.len(), |at| at + 1);
        match difference(&expected[end..], &folder) {
            None => Ok(CheckedDerived::Good),
            Some(path) => aside(format!("{} is not as keller unpacked it", path.display())),
        }
    }

    fn tool_path(&self, name: &str) -> PathBuf {
        self.root.join("tools").join(name)
    }

    fn notes_path(&self, name: &str) -> PathBuf {
        self.root.join("tools").join(format!("{name}.releases"))
    }

    pub(super) fn list_path(&self, name: &str) -> PathBuf {
        self.root.join("tools").join(format!("{name}.seal"))
    }
}

/// A directory that goes away with its value, hidden in `parent`.
fn scratch(name: &str, what: &str, parent: &Path) -> io::Result<Scratch> {
    Scratch::new_in(parent, &format!(".{name}-{what}-"))
}

/// Unpacks where temporary files are.
fn temporary<E: From<StoreError>>(
    name: &str,
    unpack: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<Tool, E> {
    let parent = std::env::temp_dir();
    let folder = Scratch::new_in(&parent, &format!("keller-{name}-"));
    unpacked(folder.map_err(failed("making a temporary directory in", &parent))?, unpack)
}

fn unpacked<E: From<StoreError>>(
    scratch: Scratch,
    unpack: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<Tool, E> {
    let folder = scratch.path().join("tree");
    make_folder(&folder).map_err(failed("creating", &folder))?;
    unpack(&folder)?;
    Ok(Tool { folder, _scratch: Some(scratch) })
}

/// Keeps out other processes that unpack the same, until it is dropped. Without it, as where the file is another
/// user's, each of them unpacks its own.
fn alone(path: &Path) -> Option<File> {
    let file = flock::open(path).ok()?;
    rustix::fs::flock(&file, FlockOperation::LockExclusive).ok()?;
    Some(file)
}

/// The first line of a sealed list.
fn heading(request: &Digest) -> Vec<u8> {
    format!("{FORM}{request}\n").into_bytes()
}

/// A name of an unpacked tool.
struct Item {
    path: PathBuf,
    metadata: Metadata,
    /// From the directory of the tool, in digits: no line is that of two trees, whatever stands in a path.
    name: String,
}

impl Item {
    /// What is known without reading it: mode with its type, owner, size, path. A file that belongs to somebody else
    /// could be changed after it was looked at.
    fn about(&self) -> String {
        let Self { metadata, name, .. } = self;
        let size = if metadata.is_file() { metadata.len() } else { 0 };
        format!("{:o} {}:{} {size} {name} ", metadata.mode(), metadata.uid(), metadata.gid())
    }

    /// The digest of what it holds.
    fn holds(&self) -> Result<String> {
        let path = &self.path;
        if self.metadata.is_dir() {
            return Ok("-".to_owned());
        }
        if self.metadata.is_symlink() {
            let target = fs::read_link(path).map_err(failed("reading", path))?;
            return Ok(Digest::of(target.as_os_str().as_bytes()).to_hex());
        }
        match open_file(path).map_err(failed("opening", path))? {
            Some(mut file) => Ok(Digest::of_reader(&mut file).map_err(failed("reading", path))?.0.to_hex()),
            None => Ok("special".to_owned()),
        }
    }
}

/// All names below `folder`, itself first, in order.
fn items(folder: &Path) -> impl Iterator<Item = Result<Item>> {
    let mut pending = vec![folder.to_owned()];
    let mut next = move |folder: &Path| -> Result<Option<Item>> {
        let Some(path) = pending.pop() else { return Ok(None) };
        let metadata = fs::symlink_metadata(&path).map_err(failed("reading", &path))?;
        if metadata.is_dir() {
            let entries: io::Result<Vec<_>> =
                fs::read_dir(&path).and_then(|all| all.map(|entry| Ok(entry?.path())).collect());
            let mut entries = entries.map_err(failed("listing", &path))?;
            entries.sort_by(|a, b| b.cmp(a));
            pending.append(&mut entries);
        }
        let name = hex::encode(path.strip_prefix(folder).unwrap_or(&path).as_os_str().as_bytes());
        Ok(Some(Item { path, metadata, name }))
    };
    std::iter::from_fn(move || next(folder).transpose())
}

/// A line for each name below `folder`.
fn list(folder: &Path) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    for item in items(folder) {
        let item = item?;
        text.extend_from_slice(format!("{}{}\n", item.about(), item.holds()?).as_bytes());
    }
    Ok(text)
}

/// The first path in which `folder` is not what the lines of `expected` say. What cannot be read is not.
fn difference(expected: &[u8], folder: &Path) -> Option<PathBuf> {
    let expected = String::from_utf8_lossy(expected);
    let mut lines = expected.lines();
    for item in items(folder) {
        let Ok(item) = item else { return Some(folder.to_owned()) };
        // Its content is read only if all else is right: it may be a hole of any size.
        let holds = lines.next().and_then(|line| line.strip_prefix(item.about().as_str()));
        if !holds.is_some_and(|holds| item.holds().is_ok_and(|actual| actual == holds)) {
            return Some(item.path);
        }
    }
    let missing = lines.next()?.split(' ').nth(3).and_then(|name| hex::decode(name).ok());
    Some(folder.join(std::ffi::OsStr::from_bytes(&missing.unwrap_or_default())))
}
