//! A node's turn at its own update: what it finds, what it may do, and what it writes down. The long steps have files of
//! their own: `look`, `install`, `rollback`.

use std::fs;
use std::path::PathBuf;

use super::disk::NodeDisk;
use super::machine::{Seen, State};
use super::record::{Record, Step, Turn};
use super::settings::{Settings, Source};
use super::{clock, esp, etcd, evidence, node, systemd};
use crate::base::Chain;
use crate::base::failure::{Doing, Failure};
use crate::base::kernel;
use crate::base::progress::Progress;
use crate::base::version;
use crate::boot::entries::BootEntry;
use crate::boot::starts;
use crate::fs::fat::Editor;
use crate::repository::forget_time;
use crate::update::apply;

/// What the repository's metadata is kept in, with the latest time that was seen.
const METADATA: &str = "/var/lib/keller/update/metadata";
/// systemd-boot as the running version has it.
const LOADER: &str = "/usr/lib/systemd/boot/efi/systemd-bootx64.efi";

/// Holds the turn; one at a time on a node.
pub struct Updater<'a> {
    pub(super) settings: &'a Settings,
    pub(super) progress: &'a dyn Progress,
    pub(super) record: Record,
    pub(super) entries: Vec<BootEntry>,
    pub(super) boot: String,
    _turn: Turn,
}

/// The folder of the repository's metadata on the node.
pub(super) fn metadata() -> PathBuf {
    PathBuf::from(METADATA)
}

impl<'a> Updater<'a> {
    /// Takes the turn, and finds out what has become of the last update.
    pub fn open(settings: &'a Settings, progress: &'a dyn Progress) -> Result<Self, Failure> {
        let turn = Turn::take(progress)?;
        // Whoever had the ESP before may have been killed.
        esp::restore();
        let (record, told) = Record::load()?;
        if let Some(told) = told {
            progress.warn(&told);
        }
        let mut updater =
            Self { settings, progress, record, entries: Vec::new(), boot: node::boot_id(), _turn: turn };
        updater.settle()?;
        Ok(updater)
    }

    /// What is remembered.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Compares what is remembered with what is there.
    pub fn settle(&mut self) -> Result<(), Failure> {
        let found = esp::entries(&NodeDisk::find()?)?;
        self.entries = found.into_iter().filter(|entry| entry.id == self.settings.id).collect();
        let seen = Seen { running: &self.settings.version, boot: &self.boot, entries: &self.entries };
        let since = self.record.made_ready.clone();
        let why = |version: &str| evidence::why(version, since.as_deref(), &self.boot);
        let state = self.record.state.clone().settle(&seen, &why);
        if state == self.record.state {
            return Ok(());
        }
        match &state {
            State::FallenBack { version, why, .. } => {
                self.progress.warn(&format!("{version} fell back to {}: {why}", self.settings.version));
                self.record.rejected.insert(version.clone(), why.clone());
            }
            State::Good { version } => {
                self.progress.note(&format!("{version} is good"));
                self.record.rejected.remove(version);
            }
            state => self.progress.note(&format!("the update is {state} now")),
        }
        self.record.state = state;
        self.record.save()
    }

    /// Whether the version that runs has not proven itself.
    pub fn is_on_trial(&self) -> bool {
        Seen { running: &self.settings.version, boot: &self.boot, entries: &self.entries }.is_on_trial()
    }

    /// The entry of the version that runs.
    pub(super) fn own_entry(&self) -> Option<&BootEntry> {
        self.entries.iter().find(|entry| entry.version == self.settings.version)
    }

    /// What is to be done once a version is blessed: its starts count from zero, the boot loader in the ESP is
    /// that of this version, and hangs are forgiven.
    pub fn complete_blessing(&mut self) -> Result<(), Failure> {
        kernel::panic_on_hangs(false);
        let Some(name) = self.own_entry().map(BootEntry::name) else { return Ok(()) };
        let disk = NodeDisk::find()?;
        let mut claim = esp::Claim::take(&disk.esp()?)?;
        let doing = "resetting the count of starts in the EFI system partition";
        starts::reset(&mut Editor::open(claim.device()).doing(doing)?, &name).doing(doing)?;
        let Ok(loader) = fs::read(LOADER) else { return Ok(()) };
        // Of two versions with different boot loaders, the older one of a node that has gone back is no reason
        // to go back with the boot loader.
        if self.entries.iter().any(|other| version::compare(&other.version, &self.settings.version).is_gt()) {
            return Ok(());
        }
        let changed = apply::loader(claim.device(), &loader, self.progress);
        let changed = changed.doing("updating the boot loader in the EFI system partition")?;
        if changed > 0 {
            self.progress.note("the boot loader in the EFI system partition is that of this version now");
        }
        Ok(())
    }

    /// Where updates come from.
    pub fn source(&self) -> Result<&'a Source, Failure> {
        self.settings.source.as_ref().ok_or_else(|| {
            Failure::new(
                "looking for updates",
                "neither the image nor /etc/keller/update.yaml names a repository",
            )
        })
    }

    /// Writes down what went wrong, if something did. That it cannot be written down is no second error.
    pub(super) fn noted<T>(&mut self, step: Step, result: Result<T, Failure>) -> Result<T, Failure> {
        if let Err(failure) = &result {
            self.record.note_trouble(step, Chain(failure).to_string(), clock::shown());
            if let Err(second) = self.record.save() {
                self.progress.detail(&Chain(&second).to_string());
            }
        }
        result
    }

    /// Takes only `version` from now on; any with none.
    pub fn pin(&mut self, version: Option<String>) -> Result<(), Failure> {
        if let Some(why) = node::forgetful() {
            return Err(Failure::new("pinning", format!("the next boot would not know of it: {why}")));
        }
        self.record.pinned = version;
        self.record.save()
    }

    /// Makes what runs here ready for a restart into `version`, which was installed.
    ///
    /// # Errors
    /// The restart would cost others something now: it has to wait.
    pub fn let_go(&mut self, version: &str) -> Result<(), Failure> {
        let result = etcd::restart::before(self.progress);
        if result.is_err() {
            self.record.held = Some(version.to_owned());
        }
        self.noted(Step::Installing, result)
    }

    /// Whether `version` is installed, and only its restart was refused.
    pub fn is_held(&self, version: &str) -> bool {
        self.record.is_held(version)
    }

    /// Starts over, into what was made ready.
    pub fn reboot(&self) -> Result<(), Failure> {
        self.progress.note("starting over");
        systemd::reboot()
    }
}

/// Forgets what the node believes of the time: the latest that it saw in the repository's metadata. For clocks
/// that were far in the future once.
pub fn reset_clock(progress: &dyn Progress) -> Result<bool, Failure> {
    let _turn = Turn::take(progress)?;
    forget_time(&metadata()).doing("forgetting the latest time that was seen")
}
