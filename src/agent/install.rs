//! From a release document to a slot that starts next.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use super::disk::{Idle, NodeDisk};
use super::esp::{self, Claim};
use super::machine::State;
use super::record::{Step, Transfer};
use super::updater::Updater;
use super::{node, systemd};
use crate::base::failure::{Doing, Failure};
use crate::base::width::to_u64;
use crate::base::{Chain, Digest, Size, atomic};
use crate::boot::entries::FOLDER as ENTRIES;
use crate::update::apply::{ApplyError, Sealed, Target};
use crate::update::delta::{self, Fetched, Old};
use crate::update::settings::TRIES;
use crate::update::{Counted, Document};

/// The kernel image of a version that is staged, or what there is of one, so that nothing is fetched twice.
const UKI: &str = "/var/lib/keller/update/uki";

/// What a kernel image that is kept leaves free, in bytes: the records and the repository's metadata come first.
const KEPT_FREE: u64 = 8 << 20;

/// How far to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// The slot is written; nothing leads to it.
    Staged,
    /// The boot loader starts it next.
    Ready,
}

/// What an update writes to, held until it ends.
struct Places {
    disk: NodeDisk,
    idle: Idle,
    esp: Claim,
}

impl Places {
    fn find() -> Result<Self, Failure> {
        let disk = NodeDisk::find()?;
        let idle = disk.idle()?;
        let esp = Claim::take(&disk.esp()?)?;
        Ok(Self { disk, idle, esp })
    }

    fn target(&mut self) -> Target<'_> {
        Target {
            disk: &mut self.idle.disk,
            esp: self.esp.device(),
            root: &mut self.idle.root,
            verity: &mut self.idle.verity,
            slot: self.disk.running.other(),
        }
    }
}

/// What somebody must know who takes `version` by hand, where what was remembered of updates is out of reach.
fn unknowing(version: &str, why: &str) -> String {
    format!(
        "what was remembered of updates is out of reach in this boot, so that {version} may be one that fell back before, \
         or another may be pinned: {why}"
    )
}

impl Updater<'_> {
    /// Brings `document`'s version into the slot that does not run.
    pub fn install(
        &mut self,
        remote: &Counted<'_>,
        document: &Document,
        until: Until,
    ) -> Result<Transfer, Failure> {
        if let Some(why) = node::forgetful() {
            self.progress.warn(&unknowing(&document.version, &why));
        }
        let result = self.try_install(remote, document, until);
        if result.is_err()
            && let Ok(state) = self.record.state.clone().give_up()
        {
            self.record.state = state;
        }
        self.noted(Step::Installing, result)
    }

    fn try_install(
        &mut self,
        remote: &Counted<'_>,
        document: &Document,
        until: Until,
    ) -> Result<Transfer, Failure> {
        let begun = Instant::now();
        let version = &document.version;
        if self.is_on_trial() {
            let cause = format!("{} is on trial itself", self.settings.version);
            return Err(Failure::new(format!("going to {version}"), cause)
                .help("it is blessed when it is healthy, see `keller update status`"));
        }
        let running_uki = self.running_uki();
        let mut places = Places::find()?;
        let (running_root, root_size) = places.disk.running_root()?;
        let (slot, root_hash) = (places.disk.running.other(), places.disk.root_hash);
        let doing = || format!("putting {version} into slot {slot}");
        places.target().check(document, &root_hash).doing(doing())?;
        let state = self.record.state.clone();
        let state = if matches!(state, State::WaitingToReboot { .. }) { state.withdraw() } else { Ok(state) };
        self.record.state = state.and_then(|state| state.begin(version)).doing(doing())?;
        self.record.held = None;
        self.record.save()?;
        self.progress.note(&format!("{version} goes into slot {slot}"));

        let old = Old { root: &running_root, root_size, root_hash, uki: running_uki.as_deref() };
        let before = remote.bytes();
        let (uki, uki_way) = self.kernel_image(remote, document, &old)?;
        let uki_bytes = remote.bytes() - before;
        let before = remote.bytes();
        let mut afresh = false;
        let (sealed, fetched) = loop {
            match self.root(remote, document, &old, &mut places, afresh)? {
                Some(done) => break done,
                None => afresh = true,
            }
        };
        let transfer = Transfer {
            version: version.clone(),
            bytes: remote.bytes(),
            root_bytes: remote.bytes() - before,
            root_way: fetched.way.name().to_owned(),
            reused: fetched.reused + fetched.kept,
            uki_bytes,
            uki_way,
            seconds: begun.elapsed().as_secs(),
            memory: node::peak_memory(),
        };
        self.progress.note(&format!(
            "{version} is staged: {} fetched ({}), {} were here",
            Size(transfer.bytes),
            transfer.root_way,
            Size(transfer.reused)
        ));
        self.record.transfer = Some(transfer.clone());
        self.record.trouble = None;
        self.record.state = self.record.state.clone().seal().doing(doing())?;
        self.record.save()?;
        if until == Until::Ready {
            self.run_hook()?;
            sealed.activate(&uki, TRIES, self.progress).doing(doing())?;
            self.record.state = self.record.state.clone().activate(&self.boot).doing(doing())?;
            self.record.made_ready = Some(self.boot.clone());
            self.record.save()?;
            let _ = fs::remove_file(UKI);
        }
        Ok(transfer)
    }

    /// Brings the root of `document` to `places`; nothing where what was here has misled, and all of it is to come
    /// `afresh`.
    fn root<'p>(
        &self,
        remote: &Counted<'_>,
        document: &'p Document,
        old: &Old<'_>,
        places: &'p mut Places,
        afresh: bool,
    ) -> Result<Option<(Sealed<'p>, Fetched)>, Failure> {
        let version = &document.version;
        let doing = format!("putting {version} into slot {}", places.disk.running.other());
        let mut cleared =
            places.target().clear(document, &old.root_hash, self.progress).doing(doing.as_str())?;
        let fetched = match afresh {
            false => delta::root(&document.root, remote, Some(old), cleared.root(), self.progress),
            true => delta::root_afresh(&document.root, remote, cleared.root(), self.progress),
        };
        let fetched = fetched.doing(format!("fetching {version}"))?;
        match cleared.written().and_then(|written| written.seal(self.progress)) {
            Ok(sealed) => Ok(Some((sealed, fetched))),
            // Something that was here was not what it seemed.
            Err(error @ ApplyError::Root { .. }) if !afresh => {
                self.progress.warn(&format!("{}; all of it is fetched again", Chain(&error)));
                Ok(None)
            }
            Err(error) => Err(error).doing(doing),
        }
    }

    /// The running unified kernel image; without it, a new one comes in full.
    fn running_uki(&self) -> Option<Vec<u8>> {
        let file = &self.own_entry()?.file;
        fs::read(Path::new(esp::MOUNT).join(ENTRIES).join(file)).ok()
    }

    /// The new unified kernel image, and how it came.
    fn kernel_image(
        &self,
        remote: &Counted<'_>,
        document: &Document,
        old: &Old<'_>,
    ) -> Result<(Vec<u8>, String), Failure> {
        let mut uki = fs::read(UKI).unwrap_or_default();
        if Digest::of(&uki) == document.uki.sha256 {
            return Ok((uki, "kept".to_owned()));
        }
        let doing = format!("fetching the kernel image of {}", document.version);
        let fetched = delta::uki(&document.uki, remote, old.uki, &mut uki, self.progress);
        keep(Path::new(UKI), &uki);
        Ok((uki, fetched.doing(doing)?.way.name().to_owned()))
    }

    /// What an operator wants done before a new version sees /var, such as a snapshot.
    fn run_hook(&self) -> Result<(), Failure> {
        let Some(source) = &self.settings.source else { return Ok(()) };
        let Some((program, arguments)) = source.before.split_first() else { return Ok(()) };
        self.progress.note(&format!("running {}", source.before.join(" ")));
        systemd::output(Command::new(program).args(arguments)).map(drop)
    }
}

/// Keeps what there is of a kernel image, whole or in part, only to spare the next try: nothing is kept where that would
/// leave too little room for what must be written.
fn keep(path: &Path, uki: &[u8]) {
    // What it had is in `uki` too.
    let _ = fs::remove_file(path);
    let directory = path.parent().unwrap_or(Path::new("/"));
    let Ok(room) = rustix::fs::statvfs(directory) else { return };
    if room.f_bavail * room.f_frsize >= to_u64(uki.len()) + KEPT_FREE {
        let _ = atomic::write(path, uki);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_takes_a_version_by_hand_is_told_what_is_forgotten() {
        assert_eq!(
            unknowing("1.0.2", "no reserve"),
            "what was remembered of updates is out of reach in this boot, so that 1.0.2 may be one that fell back before, \
             or another may be pinned: no reserve"
        );
    }

    #[test]
    fn a_kernel_image_is_kept_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("uki");
        for bytes in [&b"part"[..], b"part and the rest"] {
            keep(&path, bytes);
            assert_eq!(fs::read(&path).unwrap(), bytes);
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        keep(&directory.path().join("none/uki"), b"x");
    }
}
