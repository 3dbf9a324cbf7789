//! The EFI system partition: the entries of both slots, and the boot loader.

use std::io::Cursor;

use super::checked::Checked;
use super::{ApplyError, table};
use crate::base::device::{Device, Uncached, Window};
use crate::base::width::to_u64;
use crate::base::{Digest, Progress, Size};
use crate::boot::cmdline::Cmdline;
use crate::boot::entries::{self, BootEntry, FOLDER};
use crate::boot::pe;
use crate::boot::starts;
use crate::boot::uki::Description;
use crate::disk::gpt::Table;
use crate::disk::slot::{self, Slot};
use crate::fs::fat;
use crate::fs::fat::editor::Editor;
use crate::fs::fat::reader::ReadError;

/// Where systemd-boot lies: where `bootctl` looks, and where firmware looks when nothing is set up. The one
/// that every machine can start comes last, when the other has shown that the disk takes it.
const LOADERS: [&str; 2] = ["EFI/systemd/systemd-bootx64.efi", "EFI/BOOT/BOOTX64.EFI"];
/// The section by which systemd-boot is known, and its begin. Source: systemd, `src/boot/boot.c`.
const LOADER_MARK: (&str, &[u8]) = (".sdmagic", b"#### LoaderInfo: systemd-boot ");
/// Largest boot loader that is read, in bytes; systemd-boot 257 has some 130 KB.
const LOADER_LIMIT: u64 = 16 << 20;
/// What a file may cost in the ESP besides its bytes: a started cluster, and one for the folder.
const SLACK: u64 = 128 << 10;

/// An entry and what it would start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// By its name.
    pub entry: BootEntry,
    /// Of the kernel image, in bytes.
    pub size: u64,
    /// The root that its command line names; nothing when the file cannot be read as a kernel image.
    pub root_hash: Option<Digest>,
    /// The slot that holds this root.
    pub slot: Option<Slot>,
}

impl Installed {
    /// Where the file is.
    pub fn path(&self) -> String {
        format!("{FOLDER}/{}", self.entry.file)
    }
}

/// The entries in the ESP as the disk has them, in the order in which systemd-boot takes them: the first is
/// what starts next.
///
/// # Errors
/// A disk that has no slots, an ESP that cannot be read. A single damaged entry is none.
pub fn installed(disk: &dyn Device, esp: &dyn Device) -> Result<Vec<Installed>, ApplyError> {
    let images = images(&table::read(disk)?.table, esp)?;
    let mut order: Vec<BootEntry> = images.iter().filter_map(|image| image.entry.clone()).collect();
    entries::order(&mut order);
    let find = |entry: BootEntry| {
        let image = images.iter().find(|image| image.entry.as_ref() == Some(&entry))?;
        Some(Installed { entry, size: image.size, root_hash: image.root_hash, slot: image.slot })
    };
    Ok(order.into_iter().filter_map(find).collect())
}

type Volume<'d> = fat::Reader<Window<Uncached<&'d dyn Device>>>;

fn open(esp: &dyn Device) -> Result<Volume<'_>, ReadError> {
    fat::Reader::open(Window::new(Uncached(esp), 0, esp.size()))
}

/// A file among the entries, whatever its name is.
#[derive(Debug)]
pub(super) struct Image {
    pub path: String,
    pub size: u64,
    pub root_hash: Option<Digest>,
    pub slot: Option<Slot>,
    /// Nothing for a name that no image of keller has; the boot loader may start it all the same.
    pub entry: Option<BootEntry>,
}

pub(super) fn images(table: &Table, esp: &dyn Device) -> Result<Vec<Image>, ApplyError> {
    let slots = slot::slots(table)?;
    let mut volume = open(esp)?;
    let mut images = Vec::new();
    for listed in volume.list()? {
        let Some((folder, file)) = listed.path.rsplit_once('/') else { continue };
        let Some(size) = listed.size.filter(|_| folder.eq_ignore_ascii_case(FOLDER)) else { continue };
        let root_hash = root_hash(&mut volume, &listed.path);
        let holds = |hash| {
            let held = |(_, parts): &&(Slot, slot::Parts<'_>)| {
                slot::root_hash(parts.root.guid, parts.verity.guid) == hash
            };
            slots.iter().find(held).map(|(slot, _)| *slot)
        };
        let (slot, entry) = (root_hash.and_then(holds), entries::parse(file));
        images.push(Image { size, root_hash, slot, entry, path: listed.path });
    }
    Ok(images)
}

fn root_hash(volume: &mut Volume<'_>, path: &str) -> Option<Digest> {
    let description = Description::read(&mut volume.file(path).ok()?).ok()?;
    Some(Cmdline::parse(&description.cmdline).ok()?.root_hash)
}

/// Bytes that files can still take.
pub(super) fn free(esp: &mut dyn Device) -> Result<u64, ApplyError> {
    Ok(Editor::open(&mut Checked::new(esp))?.free())
}

/// Refuses a file of `size` bytes where only `free` are to be had.
pub(super) fn check_room(what: &str, size: u64, free: u64) -> Result<(), ApplyError> {
    let needs = size.saturating_add(SLACK);
    if needs > free {
        return Err(ApplyError::EspFull { what: what.to_owned(), needs: Size(needs), free: Size(free) });
    }
    Ok(())
}

/// Removes an entry.
pub(super) fn remove(esp: &mut dyn Device, path: &str) -> Result<(), ApplyError> {
    Editor::open(&mut Checked::new(esp))?.remove(path)?;
    Ok(())
}

/// Puts `bytes` at `path` and reads the file back as a boot loader would, by name. No temporary name is
/// needed, since the editor writes the one sector that makes a file appear after all that it leads to, and
/// [`Checked`] has compared that with what was meant before.
pub(super) fn put(esp: &mut dyn Device, path: &str, bytes: &[u8]) -> Result<(), ApplyError> {
    Editor::open(&mut Checked::new(esp))?.put(path, &mut &*bytes, to_u64(bytes.len()))?;
    let back = open(esp)?.read(path, to_u64(bytes.len()));
    if back.is_ok_and(|back| back == bytes) {
        return Ok(());
    }
    Err(ApplyError::File { path: path.to_owned() })
}

/// Gives a version up: takes all tries from its entry, so that systemd-boot starts another. How a node goes back to the
/// version before, whether the agent or /init has it so. Returns the file's new name; that of an entry which has no tries
/// left stays.
///
/// # Errors
/// `OnlyEntry` when no other entry has both tries and a slot that holds its root.
pub fn demote(disk: &dyn Device, esp: &mut dyn Device, file: &str) -> Result<String, ApplyError> {
    let all = installed(disk, esp)?;
    let entry = all.iter().find(|installed| installed.entry.file == file);
    let entry = entry.ok_or_else(|| ApplyError::NoSuchEntry { file: file.to_owned() })?;
    // Should somebody give it tries again, it has them. First, so that no loss of power leaves it without.
    starts::reset(&mut Editor::open(&mut Checked::new(esp))?, &entry.entry.name())?;
    if entry.entry.is_used_up() {
        return Ok(file.to_owned());
    }
    let boots =
        |other: &&Installed| other.entry.file != file && !other.entry.is_used_up() && other.slot.is_some();
    if all.iter().find(boots).is_none() {
        return Err(ApplyError::OnlyEntry { file: file.to_owned() });
    }
    let name = entry.entry.demoted();
    Editor::open(&mut Checked::new(esp))?.rename(&entry.path(), &name)?;
    Ok(name)
}

/// Takes the try counter off an entry, which is good from then on, by one write of one sector. Returns the file's new
/// name; that of an entry which has no counter any more is no error.
///
/// # Errors
/// `NoSuchEntry`; what the disk says.
pub fn bless(esp: &mut dyn Device, file: &str) -> Result<String, ApplyError> {
    let no_such_entry = || ApplyError::NoSuchEntry { file: file.to_owned() };
    let name = entries::parse(file).ok_or_else(no_such_entry)?.name();
    let mut checked = Checked::new(esp);
    let mut editor = Editor::open(&mut checked)?;
    let listed = editor.list()?;
    let has = |file: &str| {
        let path = format!("{FOLDER}/{file}");
        listed.iter().any(|listed| listed.path.eq_ignore_ascii_case(&path))
    };
    match (has(file), has(&name)) {
        (true, _) => editor.rename(&format!("{FOLDER}/{file}"), &name)?,
        (false, true) => {}
        (false, false) => return Err(no_such_entry()),
    }
    Ok(name)
}

/// Brings systemd-boot in the ESP up to date, one copy after the other; each is the old or the new at every
/// moment. Says how many were changed.
///
/// # Errors
/// `NotALoader` for bytes that are not systemd-boot; `EspFull`.
pub fn loader(esp: &mut dyn Device, new: &[u8], progress: &dyn Progress) -> Result<usize, ApplyError> {
    check_loader(new)?;
    let mut changed = 0;
    for path in LOADERS {
        if open(esp)?.read(path, LOADER_LIMIT).is_ok_and(|old| old == new) {
            continue;
        }
        check_room(path, to_u64(new.len()), free(esp)?)?;
        progress.note(&format!("updating {path}"));
        put(esp, path, new)?;
        changed += 1;
    }
    Ok(changed)
}

fn check_loader(bytes: &[u8]) -> Result<(), ApplyError> {
    let not = |problem: String| ApplyError::NotALoader { problem };
    let mut reader = Cursor::new(bytes);
    let sections = pe::sections(&mut reader).map_err(|error| not(error.to_string()))?;
    let (name, begin) = LOADER_MARK;
    let section = sections.iter().find(|section| section.name == name);
    let section = section.ok_or_else(|| not(format!("there is no section {name}")))?;
    match section.read(&mut reader) {
        Ok(mark) if mark.starts_with(begin) => Ok(()),
        Ok(mark) => Err(not(format!("it is {}", String::from_utf8_lossy(&mark)))),
        Err(error) => Err(not(error.to_string())),
    }
}
