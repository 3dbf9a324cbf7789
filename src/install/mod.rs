//! Puts an image onto a disk of the machine that this runs on, or refuses with a reason.
//!
//! `disks` and `marks` say what there is, `selector` and `refusal` which disk is meant and whether it may be written,
//! `image` what is written, `write` does it so that a loss of power leaves nothing half, `document` places the node document
//! and `firmware` the boot entry. The disk gets the table of a node at once, with GUIDs of its own: a boot entry names the ESP
//! by its GUID, and the first boot would give another to an image's.

mod disks;
mod document;
mod firmware;
mod image;
mod marks;
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

use anyhow::{Context, Result};
use serde::Serialize;
use uuid::Uuid;

pub use disks::{Disk, Kind, System};
pub use firmware::{BootEntry, EFIVARS};
pub use image::Origin;
pub use refusal::Refusal;
pub use write::WriteError;

use crate::base::device::{Device, Shared};
use crate::base::{Digest, Progress, input, kernel, version};
use crate::disk::gpt::{self, Table, Which, types};
use crate::disk::unfold::{Own, UnfoldError};
use crate::disk::{FileDevice, ReadAt, Release, SectorSize, slot, sys};
use crate::node::Selector;
use document::{Given, Had};
use image::Image;
use write::{Job, ORDER};

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
    /// What the image must be.
    pub sha256: Option<Digest>,
    /// Where it goes.
    pub target: Target,
    /// Names what may be lost.
    pub wipe: Option<String>,
    /// A file of node documents.
    pub document: Option<PathBuf>,
    /// Whether the firmware is told.
    pub boot_entry: bool,
    /// Whether nobody is there to look: then a disk that has this image, in whatever version and with whatever document, stays
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
    /// Whether a node document was placed.
    pub document: bool,
    /// What became of the firmware's entry; nothing where nothing was to be done.
    pub boot_entry: Option<BootEntry>,
    /// Why the kernel does not show the new partitions yet.
    pub unread: Option<String>,
}

/// The disk that is meant, not yet open to be written.
struct Place {
    /// For people.
    path: PathBuf,
    disk: Disk,
    is_file: bool,
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
    let given = request.document.as_deref().map(Given::read).transpose()?;
    let place = find(&request.target, &places.system)?;
    let name = place.path.display().to_string();
    let image = Image::open(&request.image, request.sha256, progress)?;
    let sector = image.table.sector_size;
    let had = match request.unattended {
        true => any_version(&place, &image, request, &places.efivars)?,
        false => already(&place, &image, given.as_ref())?,
    };
    if let Some(report) = had {
        return Ok(report);
    }
    if !place.is_file {
        refusal::judge_use(&place.disk)?;
    }
    let mut device = place.open_alone(sector)?;
    if device.sector_size() != sector {
        return Err(Refusal::Sectors { path: name, disk: device.sector_size(), image: sector }.into());
    }
    let looking = || format!("looking at {name}");
    let found = marks::look(&device).with_context(looking)?;
    refusal::judge_content(&place.disk, &name, &found, request.wipe.as_deref())?;
    let own = Own { disk: own_guid()?, esp: own_guid()? };
    // The state partition grows at the first boot, if the image's command line lets it.
    let table =
        image.layout.unfold(&image.table, device.size(), false, own).map_err(|error| match error {
            UnfoldError::DiskTooSmall { has, needs } => {
                anyhow::Error::new(Refusal::TooSmall { path: name.clone(), has, needs })
            }
            other => other.into(),
        })?;
    let lost = gpt::read_any(&device).map(|found| esps(&found.table)).unwrap_or_default();

    let document = given.as_ref().map(|given| given.text.as_slice());
    let job = Job::new(&image, &table, document);
    let stopped = watch().context("listening for signals")?;
    let is_stopped = || stopped.load(Ordering::Relaxed);
    write::write(&mut device, &job, &ORDER, &is_stopped, progress)
        .with_context(|| format!("installing onto {name}"))?;

    let unread = match place.is_file {
        true => None,
        false => sys::read_again(device.file()).err().map(|error| error.to_string()),
    };
    let boot_entry = match request.boot_entry && place.is_for_firmware() {
        false => BootEntry::NotWanted,
        true => start_first(&places.efivars, &table, &image, &lost, request.unattended),
    };
    Ok(place.report(State::Installed, &image.release, &table, given.is_some(), Some(boot_entry), unread))
}

fn esps(table: &Table) -> Vec<Uuid> {
    table.by_type(types::ESP).map(|entry| entry.guid).collect()
}

/// Has the firmware start the disk before all others; `next`: the next start is this one whatever the order is.
fn start_first(efivars: &Path, table: &Table, image: &Image, lost: &[Uuid], next: bool) -> BootEntry {
    let Some(esp) = table.esp(None) else { return BootEntry::NotWanted };
    let firmware = firmware::Firmware { directory: efivars, write: &firmware::write };
    let entry = firmware.start_first(esp, table.sector_size, &format!("keller {}", image.release.id), lost);
    match entry {
        BootEntry::Set(_) if next => firmware.start_next(esp).unwrap_or(entry),
        entry => entry,
    }
}

/// A GUID that nothing else has.
fn own_guid() -> Result<Uuid> {
    let bytes = kernel::random().context("waiting for randomness")?;
    Ok(uuid::Builder::from_random_bytes(bytes).into_uuid())
}

/// Finds the disk that is meant, and refuses what is none.
fn find(target: &Target, system: &System) -> Result<Place> {
    let disks = || system.disks().context("looking for disks");
    match target {
        Target::Unnamed => Err(Refusal::NoDisk { table: table(&disks()?) }.into()),
        Target::Selected(selector) => {
            let disks = disks()?;
            let shown = selector.to_string();
            match selector::choose(selector, &disks)[..] {
                [disk] => Ok(Place { path: disk.path().into(), disk: disk.clone(), is_file: false }),
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
        return Ok(Place { path: path.to_owned(), disk: file_disk(name, metadata.len()), is_file: true });
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
    Ok(Place { path: disk.path().into(), disk: disk.clone(), is_file: false })
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
    let content = |disk: &Disk| {
        let look = || marks::look(&FileDevice::block(input::open_disk(disk.path())?)?);
        let content = look().map_or_else(|error| format!("unknown: {error}"), |found| found.line());
        if disk.has_system() { format!("the running system, {content}") } else { content }
    };
    let listed = disks.iter().filter(|disk| disk.kind == Kind::Disk);
    refusal::table(&listed.map(|disk| (disk, content(disk))).collect::<Vec<_>>())
}

/// Where the disk has this version, and the same document: what was done before. A table that was made here says that
/// all is there, as it came last; one of an image that was only copied says nothing.
fn already(place: &Place, image: &Image, given: Option<&Given>) -> Result<Option<Report>> {
    let device = place.open(false, 0, image.table.sector_size)?;
    let disk: Arc<dyn Shared> = Arc::new(device);
    let Ok(found) = gpt::read(&disk, image.table.sector_size) else { return Ok(None) };
    let Ok(slots) = slot::slots(&found.table) else { return Ok(None) };
    let has = slots.iter().any(|(_, parts)| parts.release().as_ref() == Some(&image.release));
    if found.source != Which::Primary || !has {
        return Ok(None);
    }
    let had = match given {
        None => None,
        Some(given) => match document::had(&disk, &found.table) {
            Some(had) if given.is(&had) => Some(had),
            _ => return Ok(None),
        },
    };
    let has_document = had.is_some_and(|had| had != Had::Nothing);
    Ok(Some(place.report(State::Already, &image.release, &found.table, has_document, None, None)))
}

/// Where the disk has this image, in any version: a node that has updated itself since is not to be lost to an installation
/// that a firmware starts over and over. The firmware is told to start the disk next, which may come behind in its order.
fn any_version(place: &Place, image: &Image, request: &Request, efivars: &Path) -> Result<Option<Report>> {
    let device = place.open(false, 0, image.table.sector_size)?;
    let Ok(found) = gpt::read(&device, image.table.sector_size) else { return Ok(None) };
    let Ok(slots) = slot::slots(&found.table) else { return Ok(None) };
    let ours = slots.iter().filter_map(|(_, parts)| parts.release()).filter(|one| one.id == image.release.id);
    let newest = ours.max_by(|a, b| version::compare(&a.version, &b.version));
    let Some(newest) = newest.filter(|_| found.source == Which::Primary) else { return Ok(None) };
    let entry = match request.boot_entry && place.is_for_firmware() {
        false => BootEntry::NotWanted,
        true => start_next(efivars, &found.table, image),
    };
    Ok(Some(place.report(State::Already, &newest, &found.table, false, Some(entry), None)))
}

/// Has the firmware start the disk next; with an entry made anew, where it has forgotten the one that there was.
fn start_next(efivars: &Path, table: &Table, image: &Image) -> BootEntry {
    let Some(esp) = table.esp(None) else { return BootEntry::NotWanted };
    let firmware = firmware::Firmware { directory: efivars, write: &firmware::write };
    firmware.start_next(esp).unwrap_or_else(|| start_first(efivars, table, image, &[], true))
}

impl Place {
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
            document,
            boot_entry,
            unread,
        }
    }
}

/// What a disk says of itself, without what a terminal would act upon.
fn printable(text: &str) -> String {
    text.trim().chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::disks::tests::Fake;
    use super::*;

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
        let several = "2 disks are bus=ata,largest: add what tells them apart, such as serial=.";
        assert_eq!(said("bus=ata,largest"), format!("{several} {table}"));
        let none = "no disk is bus=nvme (the disk of the running system never is).";
        assert_eq!(said("bus=nvme"), format!("{none} {table}"));
        let unnamed = super::find(&Target::Unnamed, &fake.system()).err().unwrap().to_string();
        assert!(unnamed.starts_with("no disk was named: add one") && unnamed.ends_with(table), "{unnamed}");
    }
}
