//! What `keller update status` tells.

use serde::Serialize;

use super::disk::NodeDisk;
use super::health::{self, Verdict};
use super::machine::{Seen, State};
use super::record::Record;
use super::settings::Settings;
use super::{Failure, clock, esp, node};
use crate::base::{Chain, version};
use crate::boot::entries::BootEntry;
use crate::disk::slot::Slot;

/// Facts of a node and of its updates.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// IMAGE_ID.
    pub id: String,
    /// The version that runs.
    pub version: String,
    /// The slot that runs.
    pub slot: Option<Slot>,
    /// What it verifies against.
    pub root_hash: Option<String>,
    /// The running version's file in the ESP.
    pub entry: Option<String>,
    /// Its try counter: none for a version that is blessed.
    pub counter: Option<String>,
    /// The entry as the boot loader chose it in this boot.
    pub selected: Option<String>,
    /// The entry that the boot loader would start next.
    pub next: Option<String>,
    /// All entries, in the boot loader's order.
    pub entries: Vec<String>,
    /// What the other slot holds.
    pub other: Option<String>,
    /// How this boot was judged; none while it is not.
    pub health: Option<Verdict>,
    /// Where updates come from.
    pub source: Option<SourceStatus>,
    /// Whether somebody has set the clock in this boot.
    pub clock_synchronized: bool,
    /// How far the update is: the name of its state.
    pub state: String,
    /// The same with the version that it is about, and what is remembered.
    #[serde(rename = "update")]
    pub record: Record,
    /// What could not be found out.
    pub problems: Vec<String>,
}

/// Where updates come from, and when.
#[derive(Clone, Debug, Serialize)]
pub struct SourceStatus {
    /// Root of the repository.
    pub url: String,
    /// The channel.
    pub channel: String,
    /// Whether a new version is taken without anybody's word.
    pub automatic: bool,
    /// When.
    pub window: Option<String>,
}

impl Status {
    /// Looks, and changes nothing. A node in trouble still tells what it can.
    pub fn gather() -> Result<Self, Failure> {
        let mut problems = Vec::new();
        let built = Settings::image()?;
        if let Some(why) = node::forgetful() {
            problems.push(format!("what was remembered of updates is out of reach in this boot: {why}"));
        }
        let settings = keep(Settings::read(), &mut problems);
        problems.extend(settings.iter().flat_map(|settings| settings.warnings.iter().cloned()));
        let mut record = keep(Record::peek(), &mut problems).unwrap_or_default();
        let disk = keep(NodeDisk::find(), &mut problems);
        let entries =
            disk.as_ref().and_then(|disk| keep(esp::entries(disk), &mut problems)).unwrap_or_default();
        let own = |entry: &&BootEntry| entry.id == built.id && entry.version == built.version;
        let entry = entries.iter().find(own);
        let boot = node::boot_id();
        let own_entries: Vec<BootEntry> =
            entries.iter().filter(|entry| entry.id == built.id).cloned().collect();
        let seen = Seen { running: &built.version, boot: &boot, entries: &own_entries };
        // Somebody may be staging right now, and the agent writes down what has become of the rest.
        if !matches!(record.state, State::Staging { .. }) && !own_entries.is_empty() {
            record.state = record.state.settle(&seen, &|_| "the agent has not looked into it yet".to_owned());
        }
        record.newest = record.newest.take().filter(|newest| is_news(newest, &built.version, &record));
        Ok(Self {
            slot: disk.as_ref().map(|disk| disk.running),
            root_hash: disk.as_ref().map(|disk| disk.root_hash.to_hex()),
            entry: entry.map(|entry| entry.file.clone()),
            counter: entry.and_then(|entry| entry.counter).map(|counter| counter.to_string()),
            selected: node::selected_entry(),
            next: entries.first().map(|entry| entry.file.clone()),
            entries: entries.iter().map(|entry| entry.file.clone()).collect(),
            other: disk
                .as_ref()
                .and_then(|disk| disk.release(disk.running.other()))
                .map(|release| release.version),
            health: health::last().filter(|verdict| verdict.boot == boot),
            source: settings.and_then(|settings| settings.source).map(|source| SourceStatus {
                url: source.url,
                channel: source.channel,
                automatic: source.automatic,
                window: source.window.map(|window| window.to_string()),
            }),
            clock_synchronized: clock::is_synchronized(),
            id: built.id,
            version: built.version,
            state: record.state.to_string(),
            record,
            problems,
        })
    }
}

/// Whether the newest version at the last look is one that the node may still go to: it may run by now, or have fallen
/// back.
fn is_news(newest: &str, running: &str, record: &Record) -> bool {
    version::compare(newest, running).is_gt() && !record.rejected.contains_key(newest)
}

fn keep<T>(result: Result<T, Failure>, problems: &mut Vec<String>) -> Option<T> {
    result.map_err(|failure| problems.push(Chain(&failure).to_string())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_or_fell_back_is_no_news() {
        let mut record = Record::default();
        assert!(is_news("1.0.2", "1.0.1", &record));
        assert!(!is_news("1.0.1", "1.0.1", &record) && !is_news("1.0.0", "1.0.1", &record));
        record.rejected.insert("1.0.2".to_owned(), "it hung".to_owned());
        assert!(!is_news("1.0.2", "1.0.1", &record));
    }
}
