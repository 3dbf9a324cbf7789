//! Whether the files that a build is to leave stand there already: made of the same inputs, and untouched since.
//!
//! A build without sums keeps a record of them in the store, sealed as everything derived is. It names all that an image
//! is made of, by the digests of lock and programs, and each file by what the file system tells of it. A file that was
//! written to since has another time of change, which no program can set; one that was put in its place has another
//! inode or time of change. The file's bytes are not read: a disk that decays without a write is found by the sums, by
//! `--check` and by the node's dm-verity.
//!
//! No file is flushed to the disk, so that a record is worth nothing once the machine has started anew: a power cut may
//! leave a file with its length and times, and without its bytes. Nor is there a record where the file system does not
//! tell one write from the next, as FAT and small inodes of ext4, which keep whole seconds, or has no time of change of
//! its own.
//!
//! Where the inputs are others, but the raw image stands there untouched, the next one takes of it what has not changed
//! (see [`Earlier`]). What is known of its bodies is a sealed file of its own, whose fingerprint is in the record.

use std::fs::{self, File, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::base::{Chain, Digest, Fingerprint, Hasher, input, json, kernel};
use crate::fs::erofs::Known;
use crate::image::earlier::Places;
use crate::image::report::Sizes;
use crate::image::{Earlier, Job, Kept};
use crate::lock::file;

/// The kind of derived file that a record is; its number changes with what a record says.
pub(super) const KIND: &str = "standing-3";

/// The kind of derived file with what is known of the bodies in an image.
pub(super) const BODIES: &str = "bodies-1";

/// How often the clock of files is asked whether it has moved on, and how long between: at 100 Hz it ticks every 10 ms.
const TICKS: usize = 15;
const TICK: Duration = Duration::from_millis(2);

/// Nanoseconds of the grain of times in exFAT.
const GRAIN: i64 = 10_000_000;

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

    /// Of a file that has just got its name and was settled before. `None` where it was written to in between, or
    /// where the name has not changed its time.
    pub(super) fn of_settled(file: &File, settled: Option<Time>) -> Option<Self> {
        let stamp = Self::of(&file.metadata().ok()?);
        (Some(stamp.modified) == settled && stamp.changed > stamp.modified).then_some(stamp)
    }
}

fn modified(metadata: &Metadata) -> Time {
    (metadata.mtime(), metadata.mtime_nsec())
}

/// Waits until a further write to `file` would have a later time than the last one, and gives the time of the last one.
/// `None` where the clock of its file system is ahead or its times are too coarse, so that this cannot be known.
pub(super) fn settle(file: &File) -> Option<Time> {
    let last = modified(&file.metadata().ok()?);
    let past = last_like(last)?;
    for _ in 0..TICKS {
        let now = clock_gettime(ClockId::RealtimeCoarse);
        if (now.tv_sec, now.tv_nsec) > past {
            return Some(last);
        }
        thread::sleep(TICK);
    }
    None
}

/// The last moment at which a write may have the same time as one that has `time`; `None` where that lasts too long to
/// wait for.
fn last_like((seconds, nanoseconds): Time) -> Option<Time> {
    match nanoseconds {
        0 => None,
        // It may be by chance, and then costs a tick.
        _ if nanoseconds % GRAIN == 0 => Some((seconds, nanoseconds + GRAIN - 1)),
        _ => Some((seconds, nanoseconds)),
    }
}

/// What a build without sums has left.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    /// See [`kernel::boot_id`].
    boot: String,
    inputs: Digest,
    sizes: Sizes,
    files: Vec<Stamp>,
    /// What the next image may take of the raw one, if there is one: where, and the fingerprint of [`BODIES`].
    raw: Option<(Places, [u8; 32])>,
}

/// What stands where a build is to write.
pub(super) enum Left {
    /// Nothing that is known.
    Nothing,
    /// The raw image of other inputs.
    Raw(Box<Raw>),
    /// All that the build would write, with these sizes.
    All(Sizes),
}

/// The files that one build is to leave, and all that they depend on.
pub(super) struct Standing<'a> {
    job: &'a Job<'a>,
    paths: &'a [PathBuf],
    /// The raw image is among `paths`, the last of them.
    has_raw: bool,
    name: String,
    boot: String,
    inputs: Digest,
}

/// The raw image that stands there, and what it was when it was written.
pub(super) struct Raw {
    earlier: Earlier,
    guard: Guard,
}

impl Raw {
    /// For the next image, and for a look at this one when that is written.
    pub(super) fn split(self) -> (Earlier, Guard) {
        (self.earlier, self.guard)
    }
}

/// A file that nobody may write to meanwhile.
pub(super) struct Guard {
    file: File,
    stamp: Stamp,
}

impl Guard {
    /// Whether nobody has written to it until now.
    pub(super) fn is_untouched(&self) -> bool {
        self.file.metadata().is_ok_and(|metadata| Stamp::of(&metadata) == self.stamp)
    }
}

impl<'a> Standing<'a> {
    /// Of `paths`, in the order in which they are written. `None` where this program or [`kernel::boot_id`] cannot be read.
    /// `has_raw`: the last of them is the raw image.
    pub(super) fn new(job: &'a Job<'a>, paths: &'a [PathBuf], has_raw: bool) -> Option<Self> {
        let boot = kernel::boot_id()?;
        let builder = Digest::of_reader(&mut input::open(Path::new("/proc/self/exe")).ok()?).ok()?.0;
        let inputs =
            Digest::of(format!("{builder} {} {}\n{:?}", job.keller.1, file::digest(job.lock), job.manifest));
        let mut hasher = Hasher::new();
        for path in paths {
            let path = std::path::absolute(path).ok()?;
            hasher.update(path.as_os_str().as_bytes());
            hasher.update([0]);
        }
        Some(Self { job, paths, has_raw, name: hasher.finish().to_hex(), boot, inputs })
    }

    /// What the last build has left here.
    pub(super) fn left(&self) -> Left {
        let Some(record) = self.record() else { return Left::Nothing };
        let there: Option<Vec<Stamp>> = self.paths.iter().map(|path| stamp(path)).collect();
        if record.inputs == self.inputs && Some(&record.files) == there.as_ref() {
            return Left::All(record.sizes);
        }
        self.raw(&record).map_or(Left::Nothing, |raw| Left::Raw(Box::new(raw)))
    }

    fn record(&self) -> Option<Record> {
        let sealed = self.job.means.store.derived(KIND, &self.name)?;
        let record: Record = json::parse(&sealed.to_vec().ok()?, VALUES).ok()?;
        (record.boot == self.boot).then_some(record)
    }

    /// The raw image of `record`, if nobody has touched it.
    fn raw(&self, record: &Record) -> Option<Raw> {
        let (places, print) = record.raw?;
        let (path, stamp) = self.paths.last().zip(record.files.last()).filter(|_| self.has_raw)?;
        let file = input::open(path).ok()?;
        if Stamp::of(&file.metadata().ok()?) != *stamp {
            return None;
        }
        let sealed = self.job.means.store.derived(BODIES, &self.name)?;
        let bytes = sealed.to_vec().ok().filter(|bytes| *Fingerprint::of(bytes).as_bytes() == print)?;
        let kept = Kept { known: Known::from_bytes(&bytes)?, places: Some(places) };
        let earlier = Earlier::open(file.try_clone().ok()?, kept).ok()??;
        Some(Raw { earlier, guard: Guard { file, stamp: stamp.clone() } })
    }

    /// Keeps a record of the files that were just written; of none where one of them has no stamp.
    pub(super) fn keep(&self, sizes: &Sizes, files: Option<Vec<Stamp>>, kept: &Kept) {
        let Some(files) = files else { return };
        let store = self.job.means.store;
        let bodies = kept.known.as_bytes();
        let raw = kept.places.filter(|_| self.has_raw);
        let raw = raw.map(|places| (places, *Fingerprint::of(bodies).as_bytes()));
        let (boot, inputs) = (self.boot.clone(), self.inputs);
        let record = Record { boot, inputs, sizes: sizes.clone(), files, raw };
        let text = serde_json::to_string(&record).expect("numbers and digests");
        let keep = || {
            if record.raw.is_some() {
                store.replace_derived(BODIES, &self.name, bodies)?;
            }
            store.replace_derived(KIND, &self.name, text.as_bytes())
        };
        if let Err(error) = keep() {
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

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn coarse_times_tell_nothing() {
        assert_eq!(last_like((7, 0)), None);
        assert_eq!(last_like((7, 120_000_000)), Some((7, 129_999_999)));
        assert_eq!(last_like((7, 120_000_001)), Some((7, 120_000_001)));
        let file = tempfile::tempfile().unwrap();
        for (nanoseconds, is_told) in [(0, false), (120_000_000, true), (3, true)] {
            let time = Duration::new(7, nanoseconds);
            file.set_modified(UNIX_EPOCH + time).unwrap();
            assert_eq!(settle(&file), is_told.then_some((7, i64::from(nanoseconds))));
        }
        // A clock that is ahead.
        file.set_modified(std::time::SystemTime::now() + Duration::from_secs(86400)).unwrap();
        assert_eq!(settle(&file), None);
    }

    #[test]
    fn a_file_system_without_a_time_of_change_tells_nothing() {
        let file = tempfile::tempfile().unwrap();
        let settled = settle(&file);
        // Whatever changes the file's own time of change does as a name would.
        std::thread::sleep(Duration::from_millis(20));
        file.set_modified(UNIX_EPOCH + Duration::new(7, 3)).unwrap();
        assert!(Stamp::of_settled(&file, settled).is_none());
        assert!(Stamp::of_settled(&file, Some((7, 3))).is_some());
        // As sshfs tells it: the time of the last write for both.
        file.set_modified(std::time::SystemTime::now() + Duration::from_secs(3600)).unwrap();
        let last = modified(&file.metadata().unwrap());
        assert!(Stamp::of_settled(&file, Some(last)).is_none());
    }
}
