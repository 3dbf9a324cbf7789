//! How long each file of a repository is needed.
//!
//! A node reads timestamp.json, which leads to a snapshot, that to a list, that to release documents, and those name all
//! other files. Until a snapshot ends, a node may believe it: it may have begun before the list changed, or a cache or a
//! copy of the repository may give it the timestamp of that day. A timestamp ends before its snapshot, by as much as it
//! lives itself and by at least 15 days; so who is led to a file on a timestamp's last day has that time to fetch it.
//!
//! Whatever a document names is needed, in whatever member of it: each text of 64 hexadecimal digits counts as the name
//! of a file. What nothing names stays as long as after an interruption someone may try again.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tough::schema::{Snapshot, Targets};

use super::*;
use crate::base::atomic;
use crate::repository::metadata::{FOLDER, follows, number_of};
use crate::repository::release::Listing;
use crate::update::document::{BLOBS, FORMAT};

/// For files that are needed for as long as the list is what it is.
const ALWAYS: Timestamp = Timestamp::MAX;
/// Directory of the release documents.
const DOCUMENTS: &str = "targets";

/// A file that can go.
pub(super) struct Found {
    /// In the repository.
    pub path: String,
    /// In bytes.
    pub size: u64,
}

/// What there is.
#[derive(Default)]
pub(super) struct Sweep {
    pub goes: Vec<Found>,
    pub waiting: Count,
    /// Until when the last of those waits.
    pub until: Option<Timestamp>,
    pub left: Count,
}

/// Until when files are needed, by their paths in the repository.
#[derive(Default)]
struct Marks(HashMap<String, Timestamp>);

impl Marks {
    fn mark(&mut self, path: String, until: Timestamp) {
        let known = self.0.entry(path).or_insert(until);
        *known = until.max(*known);
    }
}

/// What is read of a snapshot.
struct Past {
    targets: u64,
    expires: Timestamp,
    /// The snapshot that it took the place of, and when.
    follows: Option<(u64, Timestamp)>,
}

impl Repository<'_> {
    /// Every file, by whether it can go `now`. With `next`, that is the list, and the present one has just been replaced.
    pub(super) fn find_files(
        &self,
        next: Option<&Targets>,
        now: Timestamp,
        grace: Option<Duration>,
    ) -> Result<Sweep, PublishError> {
        let marks = self.marks(next, now, grace)?;
        let mut sweep = Sweep::default();
        for folder in [FOLDER, DOCUMENTS, BLOBS] {
            let io = |source| PublishError::Folder { path: self.folder.path().join(folder), source };
            let entries = match fs::read_dir(self.folder.path().join(folder)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                entries => entries.map_err(io)?,
            };
            for entry in entries {
                let entry = entry.map_err(io)?;
                let about = entry.metadata().map_err(io)?;
                if about.is_dir() {
                    continue;
                }
                let name = entry.file_name().to_string_lossy().into_owned();
                let path = format!("{folder}/{name}");
                let since = about.modified().ok().and_then(|time| Timestamp::try_from(time).ok());
                let until = match (marks.0.get(&path), since) {
                    (Some(until), _) => *until,
                    // Whoever wrote it held the lock.
                    _ if atomic::is_hidden(&name) => Timestamp::MIN,
                    (None, Some(since)) if is_own(folder, &name) => {
                        after(since, grace.unwrap_or(SNAPSHOT_LIFE))
                    }
                    _ => ALWAYS,
                };
                if until <= now {
                    sweep.goes.push(Found { path, size: about.len() });
                    continue;
                }
                sweep.left.add(about.len());
                if until != ALWAYS {
                    sweep.waiting.add(about.len());
                    sweep.until = sweep.until.max(Some(until));
                }
            }
        }
        sweep.goes.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(sweep)
    }

    fn marks(
        &self,
        next: Option<&Targets>,
        now: Timestamp,
        grace: Option<Duration>,
    ) -> Result<Marks, PublishError> {
        let state = self.state.as_ref().expect("it is looked at before");
        let current = state.targets.signed.version.get();
        let mut reader = Reader { repository: self, marks: Marks::default(), documents: HashMap::new() };
        reader.list(next.unwrap_or(&state.targets.signed), ALWAYS)?;
        let mut lists: BTreeMap<u64, Timestamp> = BTreeMap::new();
        for (number, until) in self.believed(next.is_some(), now, grace)? {
            // No number is used twice.
            let file = if number.snapshot >= state.snapshot { ALWAYS } else { until };
            reader.marks.mark(metadata_path(number.snapshot, RoleType::Snapshot), file);
            let list = lists.entry(number.targets).or_insert(until);
            *list = until.max(*list);
        }
        for number in self.numbers(RoleType::Targets)? {
            if number >= current {
                reader.marks.mark(metadata_path(number, RoleType::Targets), ALWAYS);
            }
        }
        for (number, until) in lists.into_iter().filter(|(_, until)| *until > now) {
            reader.marks.mark(metadata_path(number, RoleType::Targets), until);
            if number == current {
                reader.list(&state.targets.signed, until)?;
                continue;
            }
            let name = numbered(number, RoleType::Targets);
            let list: Signed<Targets> = self.read(&name)?.ok_or_else(|| gone(&format!("{FOLDER}/{name}")))?;
            reader.list(&list.signed, until)?;
        }
        Ok(reader.marks)
    }

    /// Until when nodes may believe each snapshot.
    fn believed(
        &self,
        is_replaced: bool,
        now: Timestamp,
        grace: Option<Duration>,
    ) -> Result<Vec<(Numbers, Timestamp)>, PublishError> {
        let current = self.state.as_ref().map_or(0, |state| state.snapshot);
        let mut past: BTreeMap<u64, Past> = BTreeMap::new();
        for number in self.numbers(RoleType::Snapshot)? {
            let name = numbered(number, RoleType::Snapshot);
            let Some(snapshot) = self.read::<Signed<Snapshot>>(&name)? else { continue };
            let Snapshot { expires, meta, .. } = &snapshot.signed;
            let targets = meta.get("targets.json").map_or(0, |it| it.version.get());
            past.insert(number, Past { targets, expires: *expires, follows: follows(&snapshot.signed) });
        }
        // When a snapshot was replaced: those that an interruption has left were never what nodes saw.
        let mut replaced: BTreeMap<u64, Timestamp> = BTreeMap::new();
        if is_replaced {
            replaced.insert(current, now);
        }
        let mut at = current;
        while let Some((before, when)) = past.get(&at).and_then(|it| it.follows).filter(|it| it.0 < at) {
            replaced.insert(before, when);
            at = before;
        }
        let until = |number: u64, snapshot: &Past| {
            if number == current && !is_replaced {
                return ALWAYS;
            }
            match (grace, replaced.range(number..).next()) {
                (Some(grace), Some((_, &replaced))) => after(replaced, grace),
                _ => snapshot.expires,
            }
        };
        let numbers = |number, snapshot: &Past| Numbers { snapshot: number, targets: snapshot.targets };
        Ok(past.iter().map(|(&number, it)| (numbers(number, it), until(number, it))).collect())
    }
}

/// A snapshot and the list that it names.
struct Numbers {
    snapshot: u64,
    targets: u64,
}

/// Marks what lists name.
struct Reader<'r, 'k> {
    repository: &'r Repository<'k>,
    marks: Marks,
    /// What documents name, by their paths.
    documents: HashMap<String, Vec<String>>,
}

impl Reader<'_, '_> {
    fn list(&mut self, list: &Targets, until: Timestamp) -> Result<(), PublishError> {
        for (name, target) in &list.targets {
            let path = format!("{DOCUMENTS}/{}.{}", hex::encode(&target.hashes.sha256), name.raw());
            if !self.documents.contains_key(&path) {
                let named = match Listing::from_target(target) {
                    Some(listing) => self.repository.named(&path, &listing)?,
                    None => Vec::new(),
                };
                self.documents.insert(path.clone(), named);
            }
            for named in &self.documents[&path] {
                self.marks.mark(format!("{BLOBS}/{named}"), until);
            }
            self.marks.mark(path, until);
        }
        Ok(())
    }
}

impl Repository<'_> {
    /// What the document at `path` names. One that cannot be read names what nobody knows.
    fn named(&self, path: &str, listing: &Listing) -> Result<Vec<String>, PublishError> {
        let damaged = |problem: String| PublishError::Damaged { path: path.to_owned(), problem };
        let bytes = match input::read(self.folder.path().join(path), limits::TEXT) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(gone(path)),
            bytes => bytes.map_err(|error| damaged(error.to_string()))?,
        };
        if Digest::of(&bytes) != listing.document.sha256 {
            return Err(damaged("it is not what the list of releases says".to_owned()));
        }
        let document: Value =
            json::parse(&bytes, limits::JSON_VALUES).map_err(|error| damaged(error.to_string()))?;
        let format = document.get("format").and_then(Value::as_u64);
        let format = format.ok_or_else(|| damaged("it names no format".to_owned()))?;
        if format > u64::from(FORMAT) {
            let version = listing.version.clone();
            return Err(PublishError::NewerFormat { version, format, known: FORMAT });
        }
        let mut named = Vec::new();
        collect(&document, &mut named);
        named.sort_unstable();
        named.dedup();
        Ok(named)
    }
}

/// Every text in `value` that can be the name of a file.
fn collect(value: &Value, named: &mut Vec<String>) {
    match value {
        Value::String(text) if is_digest(text) => named.push(text.clone()),
        Value::Array(values) => values.iter().for_each(|value| collect(value, named)),
        Value::Object(members) => members.iter().for_each(|(name, value)| {
            if is_digest(name) {
                named.push(name.clone());
            }
            collect(value, named);
        }),
        _ => {}
    }
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether a publisher gives files such names, but for those that stay for ever. What others have put there is theirs.
fn is_own(folder: &str, name: &str) -> bool {
    match folder {
        BLOBS => is_digest(name),
        DOCUMENTS => name.split_once('.').is_some_and(|(digest, _)| is_digest(digest)),
        _ => [RoleType::Snapshot, RoleType::Targets]
            .into_iter()
            .any(|role| number_of(name, role).is_some_and(|number| numbered(number, role) == name)),
    }
}

fn metadata_path(number: u64, role: RoleType) -> String {
    format!("{FOLDER}/{}", numbered(number, role))
}

fn gone(path: &str) -> PublishError {
    PublishError::Damaged {
        path: path.to_owned(),
        problem: "it is missing, and a list that nodes may believe names it. Without it keller cannot tell which files \
                  are needed, so nothing was deleted: restore it from the copy on the web server"
            .to_owned(),
    }
}

fn after(time: Timestamp, life: Duration) -> Timestamp {
    time.checked_add(life).unwrap_or(ALWAYS)
}
