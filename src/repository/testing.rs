//! A publisher and its images, small.

use std::cell::Cell;
use std::fs;
use std::io::{self, Cursor, Read, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use jiff::Timestamp;
use tempfile::TempDir;
use uuid::Uuid;

use super::keys::Wanted;
use super::publish::{Added, Image, Options, PublishError, Times};
use super::*;
use crate::base::progress::Silent;
use crate::base::width::to_u64;
use crate::base::{Chain, Digest};
use crate::update::document::FORMAT;
use crate::update::remote::{Part, Remote, RemoteError};
use crate::verity;

thread_local! {
    /// Files that a repository may still write; any number with none.
    static WRITES: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Lets this thread's repositories write so many files and no more.
pub(super) fn allow(writes: Option<usize>) {
    WRITES.set(writes);
}

/// Counts a file that is to be written.
pub(super) fn may_write() -> io::Result<()> {
    match WRITES.get() {
        None => Ok(()),
        Some(0) => Err(io::ErrorKind::StorageFull.into()),
        Some(left) => {
            WRITES.set(Some(left - 1));
            Ok(())
        }
    }
}

/// Every file of a folder, put into another.
pub(super) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// Mon, 01 Jun 2026 00:00:00 UTC.
pub(super) const NOW: i64 = 1_780_272_000;
/// In seconds.
pub(super) const DAY: i64 = 86_400;

/// A point in time, in days after [`NOW`].
pub(super) fn day(days: i64) -> Timestamp {
    Timestamp::from_second(NOW + days * DAY).unwrap()
}

/// A version: a root of some blocks, of which some are its own, and a kernel image.
pub(super) struct Made {
    pub id: String,
    pub version: String,
    pub root: Vec<u8>,
    pub uki: Vec<u8>,
    pub layout: Layout,
    pub root_json: Option<Vec<u8>>,
    pub reads: u32,
}

pub(super) fn made(version: &str) -> Made {
    let seed = version.bytes().fold(7usize, |sum, byte| sum * 31 + usize::from(byte));
    let block = |number: usize| {
        let seed = if number % 16 == seed % 16 { seed + number } else { number };
        Digest::of(seed.to_le_bytes()).as_bytes().repeat(4096 / 32)
    };
    let kernel = |number: u64| *Digest::of(number.to_le_bytes()).as_bytes();
    Made {
        id: "node".to_owned(),
        version: version.to_owned(),
        root: (0..200).flat_map(block).collect(),
        uki: (0..2000u64).flat_map(kernel).chain(version.bytes()).collect(),
        layout: Layout { esp: 4 << 20, root: 1 << 20, verity: 1 << 20 },
        root_json: None,
        reads: FORMAT,
    }
}

impl Made {
    pub(super) fn root_hash(&self) -> Digest {
        let options = verity::Options { salt: vec![1, 2], uuid: Uuid::nil() };
        let mut tree = verity::Writer::new(io::sink(), options).unwrap();
        tree.write_all(&self.root).unwrap();
        tree.finish().unwrap().root_hash.digest()
    }

    pub(super) fn image<'a>(&'a self, root: &'a &'a [u8]) -> Image<'a> {
        Image {
            id: &self.id,
            version: &self.version,
            epoch: NOW - DAY,
            reads: self.reads,
            sector_size: 512,
            root,
            root_size: to_u64(self.root.len()),
            root_hash: self.root_hash(),
            salt: &[1, 2],
            verity_uuid: Uuid::nil(),
            uki: &self.uki,
            layout: self.layout,
            root_json: self.root_json.clone(),
        }
    }
}

/// Keys, a repository and a node's memory, in one folder.
pub(super) struct Publisher {
    pub folder: TempDir,
}

impl Publisher {
    pub(super) fn new() -> Self {
        let publisher = Self { folder: tempfile::tempdir().unwrap() };
        let wanted = Wanted { root_keys: 1, root_threshold: 1, expires: day(700) };
        Keys::init(&publisher.keys_folder(), wanted).unwrap();
        publisher
    }

    pub(super) fn keys_folder(&self) -> PathBuf {
        self.folder.path().join("keys")
    }

    pub(super) fn repository(&self) -> PathBuf {
        self.folder.path().join("repository")
    }

    pub(super) fn datastore(&self) -> PathBuf {
        self.folder.path().join("datastore")
    }

    pub(super) fn keys(&self) -> Keys {
        Keys::open(&self.keys_folder(), &[]).unwrap()
    }

    pub(super) fn root_json(&self) -> Vec<u8> {
        fs::read(self.keys_folder().join("root.json")).unwrap()
    }

    pub(super) fn add(&self, made: &Made, channels: &[&str], now: i64) -> Result<Added, PublishError> {
        self.add_with(made, &options(channels), now)
    }

    pub(super) fn add_with(&self, made: &Made, options: &Options, now: i64) -> Result<Added, PublishError> {
        let keys = self.keys();
        let mut repository = Repository::open(self.repository(), &keys)?;
        repository.add(&made.image(&made.root.as_slice()), options, times(now), &Silent)
    }

    pub(super) fn publish(&self, version: &str) -> Added {
        self.add(&made(version), &["stable"], 0).unwrap()
    }

    pub(super) fn refresh(&self, now: i64) -> Result<Timestamp, PublishError> {
        let keys = self.keys();
        Repository::open(self.repository(), &keys)?.refresh(times(now), &Silent)
    }

    pub(super) fn rotate(&self, role: RoleType) {
        self.keys().rotate(role, None, day(700)).unwrap();
    }

    /// Looks from a node that trusts `root_json`; gives the versions.
    pub(super) fn look(
        &self,
        root_json: &[u8],
        remote: &dyn Remote,
        now: i64,
    ) -> Result<Vec<String>, String> {
        let trusted = Client::update(root_json, remote, &self.datastore(), NOW + now * DAY);
        match trusted {
            Ok(trusted) => Ok(trusted.releases().iter().map(|listing| listing.version.clone()).collect()),
            Err(error) => Err(Chain(&error).to_string()),
        }
    }
}

pub(super) fn times(now: i64) -> Times {
    Times { now: day(now), life: Duration::from_secs(14 * 86_400) }
}

pub(super) fn options(channels: &[&str]) -> Options {
    Options {
        channels: channels.iter().map(|&channel| channel.to_owned()).collect(),
        notes: None,
        minimum: None,
        patches: 3,
        level: 3,
    }
}

/// What goes wrong with a file.
pub(super) enum Fault {
    Missing,
    Broken,
    Endless,
    Bytes(Vec<u8>),
}

/// A folder on a server that has faults, by the end of a path.
pub(super) struct Faulty {
    folder: Folder,
    faults: Vec<(String, Fault)>,
    /// What was asked for.
    pub asked: Mutex<Vec<String>>,
}

impl Faulty {
    pub(super) fn new(folder: &Path, faults: Vec<(&str, Fault)>) -> Self {
        let faults = faults.into_iter().map(|(path, fault)| (path.to_owned(), fault)).collect();
        Self { folder: Folder::new(folder), faults, asked: Mutex::default() }
    }
}

impl Remote for Faulty {
    fn open(&self, path: &str, range: Option<Range<u64>>) -> Result<Part<'_>, RemoteError> {
        self.asked.lock().unwrap().push(path.to_owned());
        let Some((_, fault)) = self.faults.iter().find(|(end, _)| path.ends_with(end)) else {
            return self.folder.open(path, range);
        };
        let body: Box<dyn Read + Send> = match fault {
            Fault::Missing => return Err(RemoteError::Missing { path: path.to_owned() }),
            Fault::Broken => {
                let source = "status 500".into();
                return Err(RemoteError::Failed { path: path.to_owned(), source });
            }
            Fault::Endless => Box::new(io::repeat(b'{')),
            Fault::Bytes(bytes) => Box::new(Cursor::new(bytes.clone())),
        };
        Ok(Part { start: 0, body })
    }
}
