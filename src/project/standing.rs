//! Whether the files that a build is to leave stand there already: made of the same inputs, and untouched since.
//!
//! A build without sums keeps a record of them in the store, sealed as everything derived is. It names all that an image
//! is made of, by the digests of lock and programs, and each file by what the file system tells of it. A file that was
//! written to since has another time of change, which no program can set; one that was put in its place has another
//! inode or time of change. The file's bytes are not read: a disk that decays without a write is found by the sums, by
//! `--check` and by the node's dm-verity.

use std::fs::{self, File, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::base::{Chain, Digest, Hasher, input, json};
use crate::image::Job;
use crate::image::report::Sizes;
use crate::lock::file;

/// The kind of derived file that a record is; its number changes with what a record says.
pub(super) const KIND: &str = "standing-1";

/// How often the clock of files is asked whether it has moved on, and how long between: at 100 Hz it ticks every 10 ms.
const TICKS: usize = 15;
const TICK: Duration = Duration::from_millis(2);

/// Values of a record: far more than it has.
const VALUES: usize = 1000;

/// Seconds and nanoseconds since 1970.
type Time = (i64, i64);

/// What the file system tells of a file that nobody has touched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: Time,
    changed: Time,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: modified(metadata),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Of a file that has just got its name and was settled before. `None` where it was written to in between.
    pub(super) fn of_settled(file: &File, settled: Option<Time>) -> Option<Self> {
        let stamp = Self::of(&file.metadata().ok()?);
        (Some(stamp.modified) == settled).then_some(stamp)
    }
}

fn modified(metadata: &Metadata) -> Time {
    (metadata.mtime(), metadata.mtime_nsec())
}

/// Waits until a further write to `file` would have a later time than the last one, and gives the time of the last one.
/// `None` where the clock of its file system is ahead, so that this cannot be known.
pub(super) fn settle(file: &File) -> Option<Time> {
    let last = modified(&file.metadata().ok()?);
    for _ in 0..TICKS {
        let now = clock_gettime(ClockId::RealtimeCoarse);
        if (now.tv_sec, now.tv_nsec) > last {
            return Some(last);
        }
        thread::sleep(TICK);
    }
    None
}

/// What a build without sums has left.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    inputs: Digest,
    sizes: Sizes,
    files: Vec<Stamp>,
}

/// The files that one build is to leave, and all that they depend on.
pub(super) struct Standing<'a> {
    job: &'a Job<'a>,
    paths: &'a [PathBuf],
    name: String,
    inputs: Digest,
}

impl<'a> Standing<'a> {
    /// Of `paths`, in the order in which they are written. `None` where this program cannot be read.
    pub(super) fn new(job: &'a Job<'a>, paths: &'a [PathBuf]) -> Option<Self> {
        let builder = Digest::of_reader(&mut input::open(Path::new("/proc/self/exe")).ok()?).ok()?.0;
        let inputs =
            Digest::of(format!("{builder} {} {}\n{:?}", job.keller.1, file::digest(job.lock), job.manifest));
        let mut hasher = Hasher::new();
        for path in paths {
            let path = std::path::absolute(path).ok()?;
            hasher.update(path.as_os_str().as_bytes());
            hasher.update([0]);
        }
        Some(Self { job, paths, name: hasher.finish().to_hex(), inputs })
    }

    /// The sizes of the image that stands there; `None` where one is to be made.
    pub(super) fn found(&self) -> Option<Sizes> {
        let sealed = self.job.means.store.derived(KIND, &self.name).ok().flatten()?;
        let record: Record = json::parse(&sealed.to_vec().ok()?, VALUES).ok()?;
        let there: Option<Vec<Stamp>> = self.paths.iter().map(|path| stamp(path)).collect();
        (record.inputs == self.inputs && Some(&record.files) == there.as_ref()).then_some(record.sizes)
    }

    /// Keeps a record of the files that were just written; of none where one of them has no stamp.
    pub(super) fn keep(&self, sizes: &Sizes, files: Option<Vec<Stamp>>) {
        let Some(files) = files else { return };
        let record = Record { inputs: self.inputs, sizes: sizes.clone(), files };
        let text = serde_json::to_string(&record).expect("numbers and digests");
        if let Err(error) = self.job.means.store.replace_derived(KIND, &self.name, text.as_bytes()) {
            let why = Chain(&error).to_string();
            self.job.means.progress.warn(&format!(
                "cannot keep a record of the image files: {why}; the next build writes them again"
            ));
        }
    }
}

/// Of the file itself at `path`, and no link to it.
fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = fs::symlink_metadata(path).ok()?;
    metadata.is_file().then(|| Stamp::of(&metadata))
}
