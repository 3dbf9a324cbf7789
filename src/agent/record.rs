//! What the agent remembers over reboots, on the state partition; and that only one at a time works on it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::machine::State;
use crate::base::failure::{Doing, Failure};
use crate::base::progress::Progress;
use crate::base::{atomic, flock};

/// Where all of it lies.
pub const FOLDER: &str = "/var/lib/keller/update";
const FILE: &str = "/var/lib/keller/update/state.json";
/// Held by whoever changes the state, the slots or the ESP.
const LOCK: &str = "/run/keller/update.lock";
/// How long it is waited for: the agent has it for a few seconds whenever it looks.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(200);

/// The memory of a node's updates. Times are in seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// How far the node is.
    #[serde(flatten)]
    pub state: State,
    /// The boot in which the last version was made ready: those after it are of that version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub made_ready: Option<String>,
    /// The version whose restart was refused last, since a cluster could not do without this node: the agent goes on with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<String>,
    /// Versions that are not taken again, each with the reason.
    pub rejected: BTreeMap<String, String>,
    /// The only version that is taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pinned: Option<String>,
    /// The newest version at the last look that came through.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub newest: Option<String>,
    /// When that was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub looked: Option<i64>,
    /// What the last update cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transfer: Option<Transfer>,
    /// What went wrong last, until something goes right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<Trouble>,
}

/// What an update cost. Sizes are in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    /// The new version.
    pub version: String,
    /// Over the wire, all counted: metadata, index, root, kernel image.
    pub bytes: u64,
    /// Of these, for the root.
    pub root_bytes: u64,
    /// How the root came: full, blocks or patch.
    pub root_way: String,
    /// Of the root, what was here already.
    pub reused: u64,
    /// Of `bytes`, for the kernel image.
    pub uki_bytes: u64,
    /// How the kernel image came.
    pub uki_way: String,
    /// From the first request until all was on the disk and read back.
    pub seconds: u64,
    /// The most that the process had in memory by then.
    #[serde(default)]
    pub memory: u64,
}

/// Something that went wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// When, last.
    pub at: i64,
    /// How often in a row.
    pub times: u32,
    /// What, with its causes.
    pub text: String,
    /// When doing what.
    #[serde(default)]
    pub step: Step,
}

/// What an agent is at. What went wrong is over when this goes right: a server that answers is no sign that what it
/// serves can be installed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Looking for a version, or going back from one.
    #[default]
    Looking,
    /// Bringing one in.
    Installing,
}

impl Record {
    /// As it was left. A memory that makes no sense is put aside: the ESP and the slots tell the rest.
    pub fn load() -> Result<(Self, Option<String>), Failure> {
        Self::load_from(Path::new(FILE))
    }

    /// As it was left, for those who only look.
    pub fn peek() -> Result<Self, Failure> {
        match fs::read(FILE) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            bytes => {
                let doing = || format!("reading {FILE}");
                serde_json::from_slice(&bytes.doing(doing())?).doing(doing())
            }
        }
    }

    fn load_from(path: &Path) -> Result<(Self, Option<String>), Failure> {
        let bytes = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Default::default()),
            bytes => bytes.doing(format!("reading {}", path.display()))?,
        };
        match serde_json::from_slice(&bytes) {
            Ok(record) => Ok((record, None)),
            Err(error) => {
                let aside = path.with_extension("json.bad");
                fs::rename(path, &aside).doing(format!("putting {} aside", path.display()))?;
                let text =
                    format!("{} makes no sense ({error}); it is {} now", path.display(), aside.display());
                Ok((Self::default(), Some(text)))
            }
        }
    }

    /// Writes it down, whole or not at all.
    pub fn save(&self) -> Result<(), Failure> {
        self.save_to(Path::new(FILE))
    }

    fn save_to(&self, path: &Path) -> Result<(), Failure> {
        let doing = || format!("writing {}", path.display());
        let text = serde_json::to_string_pretty(self).doing(doing())? + "\n";
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).doing(doing())?;
        atomic::write(path, text).doing(doing())?;
        atomic::sync_name(path).doing(doing())
    }

    /// Whether `version` is installed, and only its restart was refused.
    pub fn is_held(&self, version: &str) -> bool {
        let waits =
            matches!(&self.state, State::WaitingToReboot { version: waiting, .. } if waiting == version);
        waits && self.held.as_deref() == Some(version)
    }

    /// Something has gone wrong, perhaps once more.
    pub fn note_trouble(&mut self, step: Step, text: String, at: i64) {
        let times = self.trouble.as_ref().map_or(0, |trouble| trouble.times).saturating_add(1);
        self.trouble = Some(Trouble { at, times, text, step });
    }

    /// A look went right, and `found` a version to install or not.
    pub fn note_look(&mut self, at: i64, found: bool) {
        self.looked = Some(at);
        let stays = |trouble: &Trouble| found && trouble.step == Step::Installing;
        self.trouble = self.trouble.take().filter(stays);
    }
}

/// While it lives, nobody else changes anything.
#[derive(Debug)]
pub struct Turn {
    _file: File,
}

impl Turn {
    /// Takes the turn, or says who has it for longer than one look at the disk and the repository takes.
    pub fn take(progress: &dyn Progress) -> Result<Self, Failure> {
        Self::take_within(PATIENCE, progress)
    }

    /// The same for those who cannot wait for so long.
    pub fn take_within(patience: Duration, progress: &dyn Progress) -> Result<Self, Failure> {
        fs::create_dir_all("/run/keller").doing("making /run/keller")?;
        Self::take_at(Path::new(LOCK), patience, progress)
    }

    fn take_at(path: &Path, patience: Duration, progress: &dyn Progress) -> Result<Self, Failure> {
        let doing = || format!("opening {}", path.display());
        let mut file = flock::open(path).map_err(|error| {
            let denied = error.kind() == io::ErrorKind::PermissionDenied;
            let failure = Failure::new(doing(), error);
            if denied {
                failure.help("root alone changes the node: run it as root, such as by sudo")
            } else {
                failure
            }
        })?;
        let begun = Instant::now();
        let mut waits = false;
        loop {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(rustix::io::Errno::WOULDBLOCK) => {}
                Err(error) => return Err(Failure::new(doing(), error)),
            }
            let holder = match flock::holder(&file) {
                Some(holder) => format!("{holder} is at it"),
                None => "another process is at it".to_owned(),
            };
            if begun.elapsed() >= patience {
                let cause = format!("{holder}; one at a time");
                return Err(Failure::new("working on the update of this node", cause));
            }
            if !waits {
                progress.note(&format!("{holder}: waiting"));
                waits = true;
            }
            thread::sleep(PAUSE);
        }
        // For people only: the lock is what counts, and the kernel says who has it.
        let _ = file.set_len(0).and_then(|()| file.write_all(std::process::id().to_string().as_bytes()));
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::base::Chain;
    use crate::base::progress::Silent;

    #[test]
    fn a_version_is_held_while_it_waits() {
        let waits = State::WaitingToReboot { version: "2".to_owned(), boot: "a".to_owned() };
        let held = Record { state: waits.clone(), held: Some("2".to_owned()), ..Record::default() };
        assert!(held.is_held("2") && !held.is_held("3"));
        // One that an operator has made ready is left to them.
        assert!(!Record { state: waits, ..Record::default() }.is_held("2"));
        let good = State::Good { version: "2".to_owned() };
        assert!(!Record { state: good, ..held.clone() }.is_held("2"));
        // What is tried again is tried more and more rarely, although each look goes right.
        let mut record = held;
        record.note_trouble(Step::Installing, "x".to_owned(), 7);
        record.note_look(8, true);
        record.note_trouble(Step::Installing, "x".to_owned(), 9);
        assert_eq!(record.trouble.as_ref().map(|trouble| trouble.times), Some(2));
    }

    #[test]
    fn is_kept_and_mended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("update/state.json");
        assert_eq!(Record::load_from(&path).unwrap(), (Record::default(), None));
        let mut record = Record { state: State::Good { version: "2".to_owned() }, ..Record::default() };
        record.note_trouble(Step::Looking, "x".to_owned(), 7);
        record.note_trouble(Step::Installing, "y".to_owned(), 8);
        record.save_to(&path).unwrap();
        assert_eq!(Record::load_from(&path).unwrap(), (record.clone(), None));
        assert_eq!(record.trouble.unwrap().times, 2);
        fs::write(&path, "{\"state\": \"good\"").unwrap();
        let (mended, told) = Record::load_from(&path).unwrap();
        assert_eq!(mended, Record::default());
        assert!(told.unwrap().contains("makes no sense") && !path.exists());
    }

    #[test]
    fn what_cannot_be_installed_is_tried_more_and_more_rarely_though_it_is_found_each_time() {
        let mut record = Record::default();
        for times in 1..4 {
            record.note_look(times, true);
            record.note_trouble(Step::Installing, "no room".to_owned(), times);
            assert_eq!(record.trouble.as_ref().unwrap().times, times as u32);
        }
        record.note_look(5, false);
        assert_eq!((&record.trouble, record.looked), (&None, Some(5)));
        record.note_trouble(Step::Looking, "silence".to_owned(), 6);
        record.note_look(7, true);
        assert_eq!(record.trouble, None);
    }

    #[test]
    fn one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let take = |patience| Turn::take_at(&path, patience, &Silent);
        let turn = take(Duration::ZERO).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        // What the file says is nobody's word: who wrote it last need not be who has the lock.
        fs::write(&path, "1").unwrap();
        let refused = take(Duration::ZERO).unwrap_err();
        let text = Chain(&refused).to_string();
        assert!(text.contains(&format!("process {} (", std::process::id())), "{text}");
        // Who waits gets it as soon as it is there.
        thread::scope(|scope| {
            let waiting = scope.spawn(|| take(Duration::from_secs(600)).map(drop));
            thread::sleep(2 * PAUSE);
            assert!(!waiting.is_finished());
            drop(turn);
            waiting.join().unwrap().unwrap();
        });
    }
}
