//! Puts an image onto a disk of the machine that this runs on, or refuses with a reason.
//!
//! `disks` and `marks` say what there is, `selector`, `judge` and `refusal` which disk is meant and whether it may be written,
//! `image` what is written, `write` does it so that a loss of power leaves nothing half, `document` places the node document,
//! which `fetch` may have brought, and `firmware` the boot entry. The disk gets the table of a node at once, with GUIDs of its
//! own: a boot entry names the ESP by its GUID, and the first boot would give another to an image's.

mod aside;
mod choice;
mod disks;
mod document;
mod fetch;
mod firmware;
mod image;
mod judge;
mod keep;
mod marks;
mod published;
mod refusal;
mod selector;
mod write;
mod zst;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;
use uuid::Uuid;

pub use choice::{Choice, choices, numbered};
pub use disks::{Disk, Kind, System};
pub use document::DocumentOrigin;
pub use fetch::{Fetched, PAUSES, Patience, fetch};
pub use firmware::{BootEntry, EFIVARS};
pub use image::Origin;
pub use published::{Place as Repository, Published, Wanted};
pub use refusal::Refusal;
pub use write::WriteError;

use crate::base::device::{Device, Shared};
use crate::base::{Digest, Progress, kernel, terminal, version};
use crate::disk::gpt::{self, Table, Which, types};
use crate::disk::unfold::Own;
use crate::disk::{FileDevice, ReadAt, Release, SectorSize, slot, state_disk, sys};
use crate::node::{Machine, Policy, Selector, policy};
use aside::aside;
use document::Given;
use image::Image;
use keep::Plan;
use published::Sectors;
use write::Job;

/// Which disk is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// None was named.
    Unnamed,
    /// A device, or a file that is to be a disk.
    Path(PathBuf),
    /// What it is.
    Selected(Selector),
}

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Request {
    /// Where the image comes from.
    pub image: Origin,
    /// Expected SHA-256 of the image.
    pub sha256: Option<Digest>,
    /// Where it goes.
    pub target: Target,
    /// Names what may be lost.
    pub wipe: Option<String>,
    /// Whether the state partition of the same image stays as it is; then nothing is to be wiped. Where nobody is there to
    /// look, only an older version is replaced.
    pub keep_state: bool,
    /// Whether the disk gets a place for a state and nothing else, for a node that runs from memory.
    pub only_state: bool,
    /// A file of node documents.
    pub document: Option<DocumentOrigin>,
    /// Expected SHA-256 of that file.
    pub document_sha256: Option<Digest>,
    /// Whether the firmware is told.
    pub boot_entry: bool,
    /// Whether nobody is there to look: then a disk that has this image, in any version, with any document, stays
    /// as it is, and the firmware starts it next.
    pub unattended: bool,
}

/// Where this system shows its disks and its firmware.
#[derive(Clone, Debug)]
pub struct Places {
    /// Disks.
    pub system: System,
    /// Variables of the firmware.
    pub efivars: PathBuf,
}

impl Places {
    /// This system's.
    pub fn here() -> Self {
        Self { system: System::here(), efivars: EFIVARS.into() }
    }
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is on the disk.
    Installed,
    /// It was there already: nothing was written.
    Already,
}

/// What was done.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Whether anything was written.
    pub state: State,
    /// The disk's device, or the file.
    pub disk: String,
    /// The disk's own number.
    pub serial: Option<String>,
    /// Of the disk, in bytes.
    pub size: u64,
    /// GUID of the disk.
    pub disk_guid: Uuid,
    /// The image's.
    pub id: String,
    /// The image's.
    pub version: String,
    /// The image's.
    pub root_hash: Digest,
    /// Whether the state that was there is still there.
    pub kept_state: bool,
    /// Whether the disk has a place for a state and nothing else.
    pub only_state: bool,
    /// Whether a node document was placed.
    pub document: bool,
    /// What became of the firmware's entry; nothing where nothing was to be done.
    pub boot_entry: Option<BootEntry>,
    /// Why the kernel does not show the new partitions yet.
    pub unread: Option<String>,
}

#[cfg(test)]
pub(crate) use choice::tests::choice;

/// The disk that is meant, not yet open to be written.
struct Place {
    /// For people.
    path: PathBuf,
    disk: Disk,
    is_file: bool,
    /// What the machine is known by.
    sys: PathBuf,
}

/// Does what `request` asks for. `watch` is called before anything is written; what it gives ends that early once it is
/// true.
///
/// # Errors
/// [`Refusal`], before anything is written; [`WriteError`], after which the disk has no partition table; all that is wrong
/// with the node document.
pub fn install(
    request: &Request,
    places: &Places,
    watch: &dyn Fn() -> io::Result<Arc<AtomicBool>>,
    progress: &dyn Progress,
) -> Result<Report> {
    let here = Given::here(request)?;
    let listen = || watch().context("listening for signals");
    let is_published = matches!(request.image, Origin::Published(_));
    let mut stopped = is_published.then(listen).transpose()?;
    let early = stopped.clone().unwrap_or_default();
    let is_early = || early.load(Ordering::Relaxed);
    let open = |disk: Option<&Place>| -> Result<(Image, Option<Given>)> {
        let fetch = |published: &Published| {
            let sectors = disk.map(Place::sectors).transpose()?.flatten();
            published.bring(sectors, request.unattended, &is_early, progress)
        };
        let image = Image::open(&request.image, request.sha256, &fetch, progress)?;
        let given = match here {
            Some(given) => Some(given),
            None => fetched(request, &image.policy, places, &is_early, progress)?,
        };
        given.as_ref().map_or(Ok(()), |given| judge_document(given, request, &image))?;
        Ok((image, given))
    };
    let (place, image, given, had) = match request.unattended {
        true => {
            if let Some(report) = beforehand(request, places, &is_early, progress)? {
                return Ok(report);
            }
            let (image, given) = open(None)?;
            await_disks(&request.target, &places.system, &LASTING, &is_early);
            let Release { id, version, .. } = &image.release;
            if let Some(report) = any_version((id, Some(version)), request, places, progress)? {
                return Ok(report);
            }
            (find(&request.target, &places.system)?, image, given, None)
        }
        false => {
            let place = find(&request.target, &places.system)?;
            let (image, given) = open(Some(&place))?;
            let had = match request.keep_state {
                // What is there may be broken in ways that only show when it starts.
                true => None,
                false if request.only_state => already_for_state(&place, &image)?,
                false => already(&place, &image, given.as_ref())?,
            };
            (place, image, given, had)
        }
    };
    if let Some(report) = had {
        return Ok(report);
    }
    let name = place.path.display().to_string();
    let sector = image.table.sector_size;
    if !place.is_file {
        judge::in_use(&place.disk)?;
    }
    let mut device = place.open_alone(sector)?;
    if device.sector_size() != sector {
        return Err(Refusal::Sectors { path: name, disk: device.sector_size(), image: sector }.into());
    }
    let plan = place.plan(&device, &image, request)?;
    let given = given.filter(|_| !comes_otherwise(request, &image));
    let document = given.as_ref().map(|given| given.text.as_slice());
    let job = Job::new(&image, &plan, document);
    let stopped = stopped.take().map_or_else(listen, Ok)?;
    let is_stopped = || stopped.load(Ordering::Relaxed);
    write::write(&mut device, &job, &is_stopped, progress)
        .with_context(|| format!("installing onto {name}"))?;

    let unread = match place.is_file {
        true => None,
        false => sys::read_again(device.file()).err().map(|error| error.to_string()),
    };
    let boot_entry = match request.boot_entry && place.is_for_firmware() && !request.only_state {
        false => BootEntry::NotWanted,
        true => {
            let (id, lost) = (&image.release.id, &plan.lost);
            start_first(&places.efivars, &plan.table, id, lost, request.unattended, progress)
        }
    };
    let document = given.is_some();
    let report =
        place.report(State::Installed, &image.release, &plan.table, document, Some(boot_entry), unread);
    Ok(Report { kept_state: plan.kept.is_some(), only_state: request.only_state, ..report })
}

/// [`Given::fetched`], which an interruption ends.
fn fetched(
    request: &Request,
    policy: &Policy,
    places: &Places,
    is_stopped: &dyn Fn() -> bool,
    progress: &dyn Progress,
) -> Result<Option<Given>> {
    let (request, policy, sys) = (request.clone(), policy.clone(), places.system.sys.clone());
    let work = move |progress: &dyn Progress| Given::fetched(&request, &policy, &sys, progress);
    aside(work, is_stopped, progress).unwrap_or_else(|| Err(WriteError::BeforeAnything.into()))
}

/// Where a disk has what would come out of a repository, in any version: a node that is there needs none, unless it is to give
/// way to a newer version, which the repository names.
fn beforehand(
    request: &Request,
    places: &Places,
    is_stopped: &dyn Fn() -> bool,
    progress: &dyn Progress,
) -> Result<Option<Report>> {
    let Origin::Published(published) = &request.image else { return Ok(None) };
    let (id, version) = match (&published.id, request.keep_state) {
        (Some(id), false) => (id.clone(), None),
        (None, false) => return Ok(None),
        (_, true) => {
            let (id, version) = published.find(request.unattended, is_stopped, progress)?;
            (id, Some(version))
        }
    };
    await_disks(&request.target, &places.system, &LASTING, is_stopped);
    any_version((&id, version.as_deref()), request, places, progress)
}

/// Where a disk has the image in `file`, in this version or a newer one, so that an unattended installation writes nothing
/// whatever its document says.
///
/// # Errors
/// What is wrong with the table of the image, and [`Refusal::SeveralNodes`].
pub fn standing(
    request: &Request,
    file: &Path,
    places: &Places,
    progress: &dyn Progress,
) -> Result<Option<Report>> {
    let Release { id, version, .. } = Image::release_of(file)?;
    await_disks(&request.target, &places.system, &LASTING, &|| false);
    let request = Request { keep_state: true, ..request.clone() };
    any_version((&id, Some(&version)), &request, places, progress)
}

/// Refuses a document that the node of `image` would not take.
fn judge_document(given: &Given, request: &Request, image: &Image) -> Result<(), Refusal> {
    if comes_otherwise(request, image) {
        return Ok(());
    }
    given.judge(&image.policy).map_err(|refusal| match refusal {
        // Each part of it is signed.
        Refusal::Unsigned { .. } if request.unattended => Refusal::UnsignedWhole,
        Refusal::NotFromEsp if request.unattended => Refusal::FetchedNotFromEsp,
        other => other,
    })
}

/// Whether no document is placed in the ESP: the image does not read it there, and the node gets its document from where this
/// machine got it. One that was fetched is nowhere else.
fn comes_otherwise(request: &Request, image: &Image) -> bool {
    let is_fetched = matches!(request.document, Some(DocumentOrigin::Text(..)));
    request.unattended && !is_fetched && !image.policy.takes_from(policy::Place::Esp)
}

fn esps(table: &Table) -> Vec<Uuid> {
    table.by_type(types::ESP).map(|entry| entry.guid).collect()
}

/// Has the firmware start the disk before all others; `next`: the next start is this one whatever the order is.
fn start_first(
    efivars: &Path,
    table: &Table,
    id: &str,
    lost: &[Uuid],
    next: bool,
    progress: &dyn Progress,
) -> BootEntry {
    let Some(esp) = table.esp(None) else { return BootEntry::NotWanted };
    let firmware = firmware::Firmware { directory: efivars, write: &firmware::write };
    let entry = firmware.start_first(esp, table.sector_size, &format!("keller {id}"), lost);
    if next
        && matches!(entry, BootEntry::Set(_))
        && let Some(BootEntry::Failed(reason)) = firmware.start_next(esp)
    {
        progress.warn(&format!("the entry comes first, but the next start cannot be set: {reason}"));
    }
    entry
}

/// A GUID that nothing else has.
fn own_guid() -> Result<Uuid> {
    let bytes = kernel::random().context("waiting for randomness")?;
    Ok(uuid::Builder::from_random_bytes(bytes).into_uuid())
}

/// How long disks are waited for where nobody is there to look.
struct Lasting {
    /// All are there once none has come or gone for so long.
    quiet: Duration,
    /// A selector that fits none yet is given so long in all.
    cap: Duration,
}

/// A controller of many disks, or one behind a slow bus, shows its disks long after its driver is there.
const LASTING: Lasting = Lasting { quiet: Duration::from_secs(10), cap: Duration::from_secs(120) };

/// Waits until the disks of the machine are there: of two that could be meant, the one that comes first is not the one that is
/// meant by `smallest`.
fn await_disks(target: &Target, system: &System, lasting: &Lasting, is_stopped: &dyn Fn() -> bool) {
    let fits = |disks: &[Disk]| match target {
        Target::Selected(selector) => !selector::choose(selector, disks).is_empty(),
        Target::Unnamed | Target::Path(_) => !disks.is_empty(),
    };
    if let Target::Path(_) = target {
        return;
    }
    let begun = Instant::now();
    let (mut seen, mut since) = (Vec::new(), begun);
    while begun.elapsed() < lasting.cap && !is_stopped() {
        let disks = system.disks().unwrap_or_default();
        let names: Vec<String> = disks.iter().map(|disk| disk.name.clone()).collect();
        if names != seen {
            (seen, since) = (names, Instant::now());
        }
        if since.elapsed() >= lasting.quiet && fits(&disks) {
            return;
        }
        thread::sleep(lasting.quiet / 10);
    }
}

/// Finds the disk that is meant, and refuses what is not a disk.
fn find(target: &Target, system: &System) -> Result<Place> {
    let disks = || system.disks().context("looking for disks");
    match target {
        Target::Unnamed => Err(Refusal::NoDisk { table: table(&disks()?) }.into()),
        Target::Selected(selector) => {
            let disks = disks()?;
            let shown = selector.to_string();
            match selector::choose(selector, &disks)[..] {
                [disk] => Ok(Place::of(disk.clone(), system)),
                [] => Err(Refusal::NoneMatches { selector: shown, table: table(&disks) }.into()),
                ref several => {
                    let count = several.len();
                    Err(Refusal::Several { selector: shown, count, table: table(&disks) }.into())
                }
            }
        }
        Target::Path(path) => at(path, system),
    }
}

/// The disk at `path`.
fn at(path: &Path, system: &System) -> Result<Place> {
    let looking = || format!("looking at {}", path.display());
    let metadata = std::fs::metadata(path).with_context(looking)?;
    let kind = metadata.file_type();
    let not_a_disk =
        |what: &str| Refusal::NotADisk { path: path.display().to_string(), what: what.to_owned() };
    if kind.is_file() {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let disk = file_disk(name, metadata.len());
        return Ok(Place { path: path.to_owned(), disk, is_file: true, sys: system.sys.clone() });
    }
    if !kind.is_block_device() {
        return Err(match kind.is_dir() {
            true => not_a_disk("a directory"),
            false => not_a_disk("neither a disk nor a file"),
        }
        .into());
    }
    let disks = system.disks().context("looking for disks")?;
    let disk = system.at(path, &disks).with_context(looking)?;
    let disk = disk.ok_or_else(|| not_a_disk("a device that is no disk, or a drive without a medium"))?;
    if system.is_partition(path, disk).with_context(looking)? {
        return Err(Refusal::Partition { path: path.display().to_string(), disk: disk.path() }.into());
    }
    Ok(Place::of(disk.clone(), system))
}

/// What is known of a file that is to be a disk.
fn file_disk(name: String, size: u64) -> Disk {
    Disk {
        name,
        size,
        kind: Kind::Loop,
        model: None,
        serial: None,
        wwn: None,
        bus: "loop",
        read_only: false,
        uses: Vec::new(),
        numbers: Vec::new(),
    }
}

/// The table of all disks that could be meant, with what is on them.
fn table(disks: &[Disk]) -> String {
    let listed = disks.iter().filter(|disk| disk.kind == Kind::Disk);
    let content = |disk: &Disk| Choice::of(disk.clone()).content();
    judge::table(&listed.map(|disk| (disk, content(disk))).collect::<Vec<_>>(), false)
}

/// Where the newest version on the disk is this one, and its document the same: what was done before. A table that was made
/// here says that all is there, as it came last; one of an image that was only copied says nothing.
fn already(place: &Place, image: &Image, given: Option<&Given>) -> Result<Option<Report>> {
    let disk: Arc<dyn Shared> = Arc::new(place.open(false, 0, image.table.sector_size)?);
    let Ok(found) = gpt::read(&disk, image.table.sector_size) else { return Ok(None) };
    if found.source != Which::Primary
        || newest(&found.table, &image.release.id).as_ref() != Some(&image.release)
    {
        return Ok(None);
    }
    if let Some(given) = given {
        // A file is the disk of whatever machine.
        let machine = (!place.is_file).then(|| Machine::of(&place.sys));
        match document::had(&disk, &found.table) {
            Some(had) if given.is(&had, machine.as_ref()) => {}
            _ => return Ok(None),
        }
    }
    Ok(Some(place.report(State::Already, &image.release, &found.table, given.is_some(), None, None)))
}

/// Where the disk has a place for a state and nothing else already, whatever state that is.
fn already_for_state(place: &Place, image: &Image) -> Result<Option<Report>> {
    let disk = place.open(false, 0, image.table.sector_size)?;
    let Ok(found) = gpt::read(&disk, image.table.sector_size) else { return Ok(None) };
    if !state_disk::is_one(&found.table) || marks::kept(&disk)?.is_some() {
        return Ok(None);
    }
    let report = place.report(State::Already, &image.release, &found.table, false, None, None);
    Ok(Some(Report { only_state: true, ..report }))
}

/// The newest version of the image `id` in the slots of `table`.
fn newest(table: &Table, id: &str) -> Option<Release> {
    let slots = slot::slots(table).ok()?;
    let ours = slots.iter().filter_map(|(_, parts)| parts.release()).filter(|release| release.id == id);
    ours.max_by(|a, b| version::compare(&a.version, &b.version))
}

/// Where a disk of the machine has this image, in any version: a node that has updated itself since is not to be lost to an
/// installation that a firmware starts over and over, nor to another disk that fits better. A table of which one copy is torn
/// is good enough: the node mends it. The firmware is told to start that disk next, which may come behind in its order. Of the
/// image, the version is what would replace an older one.
fn any_version(
    (id, version): (&str, Option<&str>),
    request: &Request,
    places: &Places,
    progress: &dyn Progress,
) -> Result<Option<Report>> {
    let candidates = match &request.target {
        Target::Path(path) => vec![at(path, &places.system)?],
        _ => {
            let disks = places.system.disks().context("looking for disks")?;
            let could_be = disks.into_iter().filter(|disk| disk.kind == Kind::Disk && !disk.has_system());
            could_be.map(|disk| Place::of(disk, &places.system)).collect()
        }
    };
    let node = |place: Place| {
        let device = place.open(false, 0, SectorSize::B512).ok()?;
        let table = gpt::read_any(&device).ok()?.table;
        let release = newest(&table, id)?;
        Some((place, table, release))
    };
    let mut nodes: Vec<_> = candidates.into_iter().filter_map(node).collect();
    if nodes.len() > 1 {
        let disks: Vec<_> = nodes.iter().map(|(place, ..)| place.path.display().to_string()).collect();
        return Err(Refusal::SeveralNodes { id: id.to_owned(), disks: disks.join(", ") }.into());
    }
    let Some((place, table, release)) = nodes.pop() else { return Ok(None) };
    if request.keep_state && version.is_some_and(|newer| version::compare(&release.version, newer).is_lt()) {
        return Ok(None);
    }
    let entry = match request.boot_entry && place.is_for_firmware() {
        false => BootEntry::NotWanted,
        true => start_next(&places.efivars, &table, id, progress),
    };
    Ok(Some(place.report(State::Already, &release, &table, false, Some(entry), None)))
}

/// Has the firmware start the disk next; with an entry made anew, where it has forgotten the one that there was.
fn start_next(efivars: &Path, table: &Table, id: &str, progress: &dyn Progress) -> BootEntry {
    let Some(esp) = table.esp(None) else { return BootEntry::NotWanted };
    let firmware = firmware::Firmware { directory: efivars, write: &firmware::write };
    firmware.start_next(esp).unwrap_or_else(|| start_first(efivars, table, id, &[], true, progress))
}

impl Place {
    fn of(disk: Disk, system: &System) -> Self {
        Self { path: disk.path().into(), disk, is_file: false, sys: system.sys.clone() }
    }

    /// The sectors of a disk. A file takes those of any image.
    fn sectors(&self) -> Result<Option<Sectors>> {
        if self.is_file {
            return Ok(None);
        }
        let size = self.open(false, 0, SectorSize::B512)?.sector_size();
        Ok(Some(Sectors { path: self.path.display().to_string(), size }))
    }

    /// Whether this machine's firmware could start it: a file and a loop device are none of its disks.
    fn is_for_firmware(&self) -> bool {
        self.disk.kind == Kind::Disk
    }

    fn open(&self, to_write: bool, flags: i32, sector: SectorSize) -> Result<FileDevice> {
        let name = self.path.display();
        let mut options = OpenOptions::new();
        let opened: io::Result<File> =
            options.read(true).write(to_write).custom_flags(libc::O_NONBLOCK | flags).open(&self.path);
        let file = match opened {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                return Err(Refusal::Busy { path: name.to_string() }.into());
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(error).with_context(|| format!("opening {name}, which needs root (sudo)"));
            }
            other => other.with_context(|| format!("opening {name}"))?,
        };
        let device = if self.is_file { FileDevice::image(file, sector) } else { FileDevice::block(file) };
        device.with_context(|| format!("asking {name} for its size"))
    }

    /// Opens the disk so that nobody mounts it or makes anything of it meanwhile.
    fn open_alone(&self, sector: SectorSize) -> Result<FileDevice> {
        self.open(true, if self.is_file { 0 } else { libc::O_EXCL }, sector)
    }

    /// What becomes of the disk, which is open as `device`, or why nothing does.
    fn plan(&self, device: &FileDevice, image: &Image, request: &Request) -> Result<Plan> {
        let name = self.path.display().to_string();
        let own = Own { disk: own_guid()?, esp: own_guid()? };
        if request.keep_state {
            return keep::plan(device, &name, &image.release.id, (&image.layout, &image.table), own);
        }
        let found = marks::look(device).with_context(|| format!("looking at {name}"))?;
        judge::content(&self.disk, &name, &found, request.wipe.as_deref())?;
        if request.only_state {
            let table = image.layout.state_disk(device.size(), own.disk);
            let table = table.map_err(|error| judge::too_small(error, &name))?;
            return Ok(Plan { table, kept: None, only_state: true, lost: Vec::new() });
        }
        // The state partition grows at the first boot, if the image's command line lets it.
        let table = image
            .layout
            .unfold(&image.table, device.size(), false, own)
            .map_err(|error| judge::too_small(error, &name))?;
        let lost = gpt::read_any(device).map(|found| esps(&found.table)).unwrap_or_default();
        Ok(Plan { table, kept: None, only_state: false, lost })
    }

    fn report(
        &self,
        state: State,
        release: &Release,
        table: &Table,
        document: bool,
        boot_entry: Option<BootEntry>,
        unread: Option<String>,
    ) -> Report {
        Report {
            state,
            disk: self.path.display().to_string(),
            serial: self.disk.serial.clone(),
            size: self.disk.size,
            disk_guid: table.disk_guid,
            id: release.id.clone(),
            version: release.version.clone(),
            root_hash: release.root_hash,
            kept_state: false,
            only_state: false,
            document,
            boot_entry,
            unread,
        }
    }
}

/// What a disk says of itself, without what a terminal would act upon.
fn printable(text: &str) -> String {
    text.trim().chars().map(|letter| if terminal::acts(letter) { '?' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::disks::tests::Fake;
    use super::*;

    #[test]
    fn disks_that_come_late_are_waited_for() {
        let fake = Fake::new();
        let lasting = |cap| Lasting { quiet: Duration::from_millis(200), cap: Duration::from_millis(cap) };
        let target = Target::Selected("serial=S1".parse().unwrap());
        let begun = Instant::now();
        await_disks(&target, &fake.system(), &lasting(500), &|| false);
        assert!(begun.elapsed() >= Duration::from_millis(500), "none fits, and more could come");
        await_disks(&target, &fake.system(), &lasting(60_000), &|| true);
        assert!(begun.elapsed() < Duration::from_secs(30), "it was stopped");
        fake.disk("sda", "pci0/ata1/host0", "8:0", 100);
        fake.put("udev/b8:0", "E:ID_SERIAL_SHORT=S0\n");
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(300));
                fake.put("udev/b8:16", "E:ID_SERIAL_SHORT=S1\n");
                fake.disk("sdb", "pci0/ata2/host1", "8:16", 100);
            });
            await_disks(&target, &fake.system(), &lasting(60_000), &|| false);
        });
        assert_eq!(find(&target, &fake.system()).unwrap().path, Path::new("/dev/sdb"));
    }

    #[test]
    fn one_disk_must_be_meant() {
        let fake = Fake::new();
        fake.disk("nothere0", "pci0/ata1/host0", "8:0", 100);
        fake.disk("nothere1", "pci0/ata2/host1", "8:16", 100);
        fake.put("udev/b8:0", "E:ID_SERIAL_SHORT=S0\n");
        let find = |words: &str| find(&Target::Selected(words.parse().unwrap()), &fake.system());
        let said = |words: &str| find(words).err().map(|error| error.to_string()).unwrap_or_default();
        assert_eq!(find("serial=S0").unwrap().path, Path::new("/dev/nothere0"));
        let table = "This machine has:\n  \
            Disk           Size       Model  Serial  Bus  What is on it\n  \
            /dev/nothere0  100.0 GiB  -      S0      ata  unknown: No such file or directory (os error 2)\n  \
            /dev/nothere1  100.0 GiB  -      -       ata  unknown: No such file or directory (os error 2)";
        let several = "2 disks match bus=ata,largest: add a word that tells them apart, such as serial=.";
        assert_eq!(said("bus=ata,largest"), format!("{several} {table}"));
        let none = "no disk matches bus=nvme (the running system's disk is left out).";
        assert_eq!(said("bus=nvme"), format!("{none} {table}"));
        let unnamed = super::find(&Target::Unnamed, &fake.system()).err().unwrap().to_string();
        assert!(unnamed.starts_with("no disk was named: add one") && unnamed.ends_with(table), "{unnamed}");
    }
}
