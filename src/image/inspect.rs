//! What is in an image: partitions, slots, boot entries, the root's own words about itself, and whether every
//! block is what the root hash says. Reads the image as a stranger would, nothing but its bytes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::node_disk;
use super::record::RECORD;
use crate::base::chain::{is_full, is_too_large};
use crate::base::input::TooLarge;
use crate::base::progress::Counted;
use crate::base::width::to_u64;
use crate::base::{Chain, Digest, Progress, Size, Task, Unit, json, limits};
use crate::boot::cmdline::Cmdline;
use crate::boot::microcode::Vendor;
use crate::boot::uki::Description;
use crate::disk::gpt::{self, Entry, Found, Other, Which, attributes, types};
use crate::disk::slot::{self, Parts};
use crate::disk::{FileDevice, Layout, ReadAt, Release, SectorSize, Slot, Window, state_disk};
use crate::fs::{erofs, fat};
use crate::output::Format;
use crate::output::qcow2::{self, Qcow2Error};
use crate::tree::{Content, Kind, Tree};
use crate::verity;

/// dpkg's list of packages, where a root has it.
const DPKG_STATUS: [&str; 2] = ["usr/lib/sysimage/dpkg/status", "var/lib/dpkg/status"];

/// After a node's disk was enlarged.
const GROWN: &str = "the disk is larger than its partition table says: the node takes the room, and moves the backup \
                     partition table to the end, at its next boot";

/// An image, as far as it could be read.
#[derive(Debug, Serialize)]
pub struct Inspection {
    /// `raw` or `qcow2`.
    pub format: &'static str,
    /// Of the disk, in bytes.
    pub size: u64,
    /// Bytes that the image file takes on its own disk.
    pub allocated: u64,
    /// In bytes.
    pub sector_size: u64,
    /// GUID of the disk.
    pub disk_guid: String,
    /// Whether it is as a build leaves it, or the disk of a node.
    pub form: Form,
    /// Of an image: what a node makes of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeDisk>,
    /// The copy of the partition table that was read.
    pub table: Which,
    /// Every partition, by number.
    pub partitions: Vec<Partition>,
    /// Both slots.
    pub slots: Vec<SlotReport>,
    /// Boot entries, by path.
    pub entries: Vec<BootEntry>,
    /// What is as it should be, though it may look otherwise.
    pub remarks: Vec<String>,
    /// What a person should look at. Empty for an image that is as it should be.
    pub problems: Vec<String>,
}

/// What a disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// An image: the ESP and slot A, and nothing behind it.
    Image,
    /// The disk of a node, or an image as it was before images unfolded on the node.
    Node,
    /// A disk for the state of a node that runs from memory.
    State,
}

/// What an image becomes at its first boot.
#[derive(Debug, Serialize)]
pub struct NodeDisk {
    /// Bytes of the least disk.
    pub min: u64,
    /// Bytes by partition, in the order of their numbers.
    pub partitions: Vec<(String, u64)>,
}

/// One partition.
#[derive(Debug, Serialize)]
pub struct Partition {
    /// From 1.
    pub number: u32,
    /// PARTLABEL.
    pub label: String,
    /// As systemd names it, else the GUID.
    #[serde(rename = "type")]
    pub kind: String,
    /// PARTUUID.
    pub guid: String,
    /// In bytes from the start of the disk.
    pub start: u64,
    /// In bytes.
    pub size: u64,
    /// `read-only`, `no-auto`.
    pub flags: Vec<&'static str>,
}

/// One half of the A/B pair.
#[derive(Debug, Serialize)]
pub struct SlotReport {
    /// Which.
    pub slot: Slot,
    /// What its labels and GUIDs say is in it; nothing when it is empty.
    pub release: Option<Release>,
    /// What is really there, when there is something.
    pub root: Option<Root>,
}

/// The root of a slot.
#[derive(Debug, Default, Serialize)]
pub struct Root {
    /// `erofs`, `ext4` or `unknown`.
    pub filesystem: &'static str,
    /// Of the file system, in bytes, where it is known.
    pub size: Option<u64>,
    /// The hash tree's superblock.
    pub verity: Option<Verity>,
    /// What `--verify` found.
    pub verified: Option<bool>,
    /// /usr/lib/os-release.
    pub os_release: BTreeMap<String, String>,
    /// How the root was made; see [`RECORD`].
    pub build: Option<serde_json::Value>,
    /// Versions by package.
    pub packages: BTreeMap<String, String>,
    /// Versions by container and package.
    pub containers: BTreeMap<String, BTreeMap<String, String>>,
    /// Containers whose setuid programs, and those with capabilities, have an effect.
    pub new_privileges: Vec<String>,
}

/// A hash tree's superblock.
#[derive(Debug, Serialize)]
pub struct Verity {
    /// Name of the tree for itself.
    pub uuid: String,
    /// Hexadecimal digits.
    pub salt: String,
    /// Bytes of data under the root hash.
    pub data: u64,
}

/// A unified kernel image.
#[derive(Debug, Default, Serialize)]
pub struct BootEntry {
    /// On the ESP.
    pub path: String,
    /// In bytes.
    pub size: u64,
    /// Tries that are left, for an entry with a counter.
    pub tries_left: Option<u32>,
    /// Tries that were made, for an entry with a counter.
    pub tries_done: Option<u32>,
    /// The root that it boots.
    pub root_hash: Option<Digest>,
    /// The slot that has this root.
    pub slot: Option<Slot>,
    /// os-release of the root that it was made for.
    pub os_release: BTreeMap<String, String>,
    /// As the kernel gets it.
    pub cmdline: String,
    /// As `uname -r` says it.
    pub kernel_version: String,
    /// In bytes.
    pub kernel_size: u64,
    /// In bytes.
    pub initrd_size: u64,
    /// Microcode before the initramfs: bytes by file.
    pub microcode: BTreeMap<&'static str, u64>,
}

/// Inspects the raw or qcow2 image `file`; with `verify`, reads every block of each root.
///
/// # Errors
/// An image without a table that can be read, or one that ends early. What is wrong deeper inside is in
/// [`Inspection::problems`].
pub fn inspect(file: File, verify: bool, progress: &dyn Progress) -> Result<Inspection> {
    use std::os::unix::fs::MetadataExt;
    let allocated = file.metadata().context("reading the image's size")?.blocks() * 512;
    let (format, file) = unpacked(file)?;
    let format = format.name();
    let file = Arc::new(file);
    // The table says which sectors the disk is made for; until it is read, any do.
    let disk = FileDevice::image(file.try_clone()?, SectorSize::B512).context("reading the image")?;
    let found = gpt::read_any(&disk).context("reading the partition table")?;
    let mut problems = table_problems(&found);
    let table = &found.table;
    let partitions = table.entries.iter().map(partition).collect();
    let shipped = slot::shipped(table);
    let form = match shipped {
        Some(_) => Form::Image,
        None if state_disk::is_one(table) => Form::State,
        None => Form::Node,
    };
    if form == Form::State && state_disk::is_unfinished(&disk).context("reading the image")? {
        problems.push(
            "an installation that keeps this state was cut short: `keller install --keep-state` completes it"
                .to_owned(),
        );
    }
    let slots = match (shipped, slot::slots(table)) {
        (Some(parts), _) => vec![(Slot::A, parts)],
        _ if form == Form::State => Vec::new(),
        (None, Ok(slots)) => slots.to_vec(),
        (None, Err(error)) => {
            problems.push(error.to_string());
            Vec::new()
        }
    };
    let node = shipped.and_then(|parts| {
        let layout = node_disk::of_root(&file, parts.root).and_then(|layout| match layout {
            None => bail!("the root does not say how large the disk of a node is"),
            Some(layout) => node_disk::check(&layout, table).map(|()| layout),
        });
        layout.map_err(|error| problems.push(Chain(error.as_ref()).to_string())).ok()
    });
    let remarks = remarks(&found, node.as_ref(), disk.size());
    let source = Source { file: &file, disk: &disk, verify, progress };
    let slots: Vec<SlotReport> =
        slots.into_iter().map(|(slot, parts)| source.slot(slot, parts, &mut problems)).collect();
    let mut entries = Vec::new();
    match table.by_type(types::ESP).next() {
        None if form == Form::State => {}
        None => problems.push("the disk has no EFI system partition".to_owned()),
        Some(esp) => {
            let context = || format!("reading the ESP (partition {}, at {})", esp.number, Size(esp.start));
            // Who mends a disk that does not start wants to know what it has all the more.
            match source.boot_entries(esp, &mut problems).with_context(context) {
                Ok(found) => entries = found,
                Err(error) => problems.push(Chain(error.as_ref()).to_string()),
            }
        }
    }
    match_entries(&mut entries, &slots, &mut problems);
    Ok(Inspection {
        format,
        size: disk.size(),
        allocated,
        sector_size: table.sector_size.bytes(),
        disk_guid: table.disk_guid.to_string(),
        form,
        node: node.as_ref().map(NodeDisk::of),
        table: found.source,
        partitions,
        slots,
        entries,
        remarks,
        problems,
    })
}

/// The disk of the raw or qcow2 image `file`, and what it was.
///
/// # Errors
/// Another format, with the way out.
pub(super) fn unpacked(file: File) -> Result<(Format, File)> {
    let format = Format::of(&file).context("reading the image")?;
    let file = match (format, format.unpacked_by()) {
        (Format::Raw, _) => file,
        (Format::Qcow2, _) => {
            let raw = tempfile::tempfile().context("making a temporary file")?;
            qcow2::expand(&file, &raw).map_err(|error| unpacking(&file, error))?;
            raw
        }
        (_, Some(command)) => {
            bail!("it is a {} image, which keller does not read: unpack it first: {command}", format.name())
        }
        (_, None) => bail!(
            "it is not a disk, but what a machine is started from ({}): inspect the raw image that was built with it",
            format.name()
        ),
    };
    Ok((format, file))
}

impl NodeDisk {
    fn of(layout: &Layout) -> Self {
        let partitions = layout.partitions.iter().map(|part| (part.role.to_string(), part.size)).collect();
        Self { min: layout.disk_size, partitions }
    }
}

/// What is as it should be: `node` is what an image becomes, on a disk of `size` bytes.
fn remarks(found: &Found, node: Option<&Layout>, size: u64) -> Vec<String> {
    match (&found.other, node) {
        (Other::NotAtEnd, Some(node)) if size >= node.disk_size => {
            vec!["the image is on a disk that is large enough: it unfolds there at its first boot".to_owned()]
        }
        (Other::NotAtEnd, Some(node)) => {
            let (has, needs) = (Size(size).human(), Size(node.disk_size).human());
            vec![format!(
                "the image is on a disk with {has}, and a node needs {needs}: it will not start there"
            )]
        }
        (Other::NotAtEnd, None) => vec![GROWN.to_owned()],
        _ => Vec::new(),
    }
}

/// Names the way out where a qcow2 image has no room as the raw one that it is unpacked to.
fn unpacking(image: &File, error: Qcow2Error) -> anyhow::Error {
    let no_room = matches!(&error, Qcow2Error::Io(error) if is_full(error) || is_too_large(error));
    if !no_room {
        return anyhow::Error::new(error).context("reading the qcow2 image");
    }
    let size =
        qcow2::size(image).map_or_else(|_| "all of it".to_owned(), |size| Size(size).human().to_string());
    let place = std::env::temp_dir();
    anyhow::Error::new(error).context(format!(
        "unpacking the qcow2 image, whose disk has {size}, into a temporary file (it has no room in {}: name a \
         directory on another file system by TMPDIR)",
        place.display()
    ))
}

fn table_problems(found: &Found) -> Vec<String> {
    let backup = match found.source {
        Which::Primary => "backup",
        Which::Backup => "primary",
    };
    match &found.other {
        Other::Same | Other::NotAtEnd => Vec::new(),
        Other::Differs => vec![format!("the {backup} partition table says something else")],
        Other::Broken(error) => vec![format!("the {backup} partition table is broken: {error}")],
    }
}

fn partition(entry: &Entry) -> Partition {
    let flags = [(attributes::READ_ONLY, "read-only"), (attributes::NO_AUTO, "no-auto")];
    Partition {
        number: entry.number,
        label: entry.label.clone(),
        kind: types::name(entry.type_guid).map_or_else(|| entry.type_guid.to_string(), str::to_owned),
        guid: entry.guid.to_string(),
        start: entry.start,
        size: entry.size,
        flags: flags
            .into_iter()
            .filter(|(bit, _)| entry.attributes & bit != 0)
            .map(|(_, name)| name)
            .collect(),
    }
}

/// The disk, in both the forms in which readers want it.
struct Source<'a> {
    file: &'a Arc<File>,
    disk: &'a FileDevice,
    verify: bool,
    progress: &'a dyn Progress,
}

impl Source<'_> {
    fn window(&self, entry: &Entry) -> Window<&FileDevice> {
        Window::new(self.disk, entry.start, entry.size)
    }

    fn slot(&self, slot: Slot, parts: Parts<'_>, problems: &mut Vec<String>) -> SlotReport {
        let release = parts.release();
        let empty = release.is_none();
        if empty && (parts.root.label != slot::EMPTY_LABEL || parts.verity.label != slot::EMPTY_LABEL) {
            let (root, verity) = (&parts.root.label, &parts.verity.label);
            problems.push(format!("slot {slot}: labels {root:?} and {verity:?} do not belong together"));
        }
        let root = release.as_ref().map(|release| {
            let mut root = Root { filesystem: "unknown", ..Root::default() };
            for (what, result) in [
                ("reading the root file system", self.root(parts.root, &mut root)),
                ("reading the verity superblock", self.superblock(parts.verity, &mut root)),
            ] {
                if let Err(error) = result {
                    problems.push(format!("slot {slot}: {what}: {}", Chain(error.as_ref())));
                }
            }
            let said = root.os_release.get("IMAGE_VERSION");
            if said.is_some_and(|said| *said != release.version) {
                let said = said.map_or("", String::as_str);
                problems.push(format!(
                    "slot {slot}: the label says version {}, os-release in the root {said}",
                    release.version
                ));
            }
            if self.verify {
                let result = self.check(slot, parts, &release.root_hash);
                root.verified = Some(result.is_ok());
                if let Err(error) = result {
                    problems.push(format!("slot {slot}: {error}"));
                }
            }
            root
        });
        SlotReport { slot, release, root }
    }

    fn root(&self, entry: &Entry, report: &mut Root) -> Result<()> {
        let content = Content::Slice { file: self.file.clone(), offset: entry.start, len: entry.size };
        let image = match erofs::Image::open(content) {
            Ok(image) => image,
            Err(error) => {
                // ext4: s_magic of the superblock at 1024.
                let mut magic = [0; 2];
                self.window(entry).read_at(&mut magic, 1024 + 56)?;
                if magic == [0x53, 0xef] {
                    report.filesystem = "ext4";
                    return Ok(());
                }
                return Err(error.into());
            }
        };
        report.filesystem = "erofs";
        report.size = Some(image.size());
        let tree = image.tree()?;
        let os_release = read(&tree, "usr/lib/os-release", limits::WORDS)?;
        report.os_release = variables(&String::from_utf8_lossy(&os_release));
        if tree.exists(RECORD) {
            let record = json::parse(&read(&tree, RECORD, limits::RECORD)?, limits::JSON_VALUES)
                .with_context(|| format!("reading {RECORD}"))?;
            report.build = Some(record);
        }
        report.packages = packages(&tree, report.build.as_ref())?;
        let containers = report.build.iter().filter_map(|record| record.get("containers")?.as_object());
        report.containers = containers.flatten().map(|(name, list)| (name.clone(), versions(list))).collect();
        let opened = report.build.iter().filter_map(|record| record.get("new_privileges")?.as_array());
        let names = opened.flatten().filter_map(|name| name.as_str());
        report.new_privileges = names.map(str::to_owned).collect();
        Ok(())
    }

    fn superblock(&self, entry: &Entry, report: &mut Root) -> Result<()> {
        let mut block = [0; verity::BLOCK];
        self.window(entry).read_at(&mut block, 0)?;
        let (options, blocks) = verity::parse_superblock(&block)?;
        report.verity = Some(Verity {
            uuid: options.uuid.to_string(),
            salt: hex::encode(options.salt),
            data: blocks.saturating_mul(to_u64(verity::BLOCK)),
        });
        Ok(())
    }

    fn check(&self, slot: Slot, parts: Parts<'_>, root_hash: &Digest) -> Result<(), verity::Error> {
        let task = Task::new(self.progress, &format!("verifying slot {slot}"), parts.root.size, Unit::Bytes);
        let mut data = Counted::new(self.window(parts.root), &task);
        verity::verify(&mut data, &mut self.window(parts.verity), root_hash)
    }

    fn boot_entries(&self, esp: &Entry, problems: &mut Vec<String>) -> Result<Vec<BootEntry>> {
        let mut volume = fat::Reader::open(self.window(esp))?;
        let mut entries: Vec<BootEntry> = Vec::new();
        for listed in volume.list()? {
            if entries.len() == limits::ENTRIES {
                problems.push(format!("the ESP has more than {} entries in EFI/Linux", limits::ENTRIES));
                break;
            }
            let Some(name) = listed.path.strip_prefix("EFI/Linux/") else { continue };
            let (Some(stem), Some(size), false) =
                (name.strip_suffix(".efi"), listed.size, name.contains('/'))
            else {
                continue;
            };
            let (_, tries_left, tries_done) = tries(stem);
            let mut entry =
                BootEntry { path: listed.path, size, tries_left, tries_done, ..BootEntry::default() };
            let result = volume
                .file(&entry.path)
                .map_err(Into::into)
                .and_then(|mut file| describe(&mut file, &mut entry));
            if let Err(error) = result {
                problems.push(format!("{}: {}", entry.path, Chain(error.as_ref())));
            }
            entries.push(entry);
        }
        Ok(entries)
    }
}

/// Takes over what an entry says of itself.
fn describe(file: &mut (impl Read + io::Seek), entry: &mut BootEntry) -> Result<()> {
    let description = Description::read(file)?;
    entry.os_release = variables(&description.os_release);
    entry.kernel_version = description.kernel_version;
    (entry.kernel_size, entry.initrd_size) = (description.kernel_size, description.initrd_size);
    entry.microcode = description.microcode.into_iter().map(|(vendor, size)| (vendor.file(), size)).collect();
    entry.cmdline = description.cmdline;
    entry.root_hash = Some(Cmdline::parse(&entry.cmdline)?.root_hash);
    Ok(())
}

/// The name without the counter, and the counter: `+LEFT` or `+LEFT-DONE` (systemd, Automatic Boot
/// Assessment).
fn tries(stem: &str) -> (&str, Option<u32>, Option<u32>) {
    let Some((name, counter)) = stem.rsplit_once('+') else { return (stem, None, None) };
    let (left, done) = counter.split_once('-').unwrap_or((counter, "0"));
    match (left.parse(), done.parse()) {
        (Ok(left), Ok(done)) => (name, Some(left), Some(done)),
        _ => (stem, None, None),
    }
}

/// Finds each entry's slot, and what is left over on either side.
fn match_entries(entries: &mut [BootEntry], slots: &[SlotReport], problems: &mut Vec<String>) {
    for entry in entries.iter_mut() {
        let Some(root_hash) = entry.root_hash else { continue };
        let found =
            slots.iter().find(|slot| slot.release.as_ref().is_some_and(|it| it.root_hash == root_hash));
        entry.slot = found.map(|slot| slot.slot);
        if found.is_none() {
            problems.push(format!("{} boots root hash {root_hash}, which no slot has", entry.path));
        }
        let root =
            slots.iter().find(|slot| Some(slot.slot) == entry.slot).and_then(|slot| slot.root.as_ref());
        for vendor in root.map_or(Vec::new(), |root| {
            let has = |vendor: &Vendor| root.packages.contains_key(vendor.package());
            Vendor::ALL.into_iter().filter(has).collect()
        }) {
            if !entry.microcode.contains_key(vendor.file()) {
                problems.push(format!(
                    "{} has no {}, though the root has {}",
                    entry.path,
                    vendor.file(),
                    vendor.package()
                ));
            }
        }
    }
    for slot in slots {
        if let Some(release) = &slot.release
            && !entries.iter().any(|entry| entry.slot == Some(slot.slot))
        {
            let (id, version) = (&release.id, &release.version);
            problems.push(format!("slot {} has {id} {version}, and no entry boots it", slot.slot));
        }
    }
}

/// Names and values of os-release(5).
fn variables(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let unquoted = |value: &str| {
        let quoted = ['"', '\''].iter().find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote));
        quoted.unwrap_or(value).to_owned()
    };
    lines
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), unquoted(value)))
        .collect()
}

/// A file of a root that nobody has to have signed.
fn read(tree: &Tree, path: &str, limit: u64) -> Result<Vec<u8>> {
    let context = || format!("reading {path}");
    let content = match tree.resolve(path).map(|id| &tree.node(id).kind).with_context(context)? {
        Kind::File(content) => content,
        _ => anyhow::bail!("{path} is not a file"),
    };
    match content.len() > limit {
        true => Err(TooLarge { limit }).with_context(context),
        false => content.to_vec().with_context(context),
    }
}

/// Versions by package, of an object in a record.
fn versions(list: &serde_json::Value) -> BTreeMap<String, String> {
    let version = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let list = list.as_object().into_iter().flatten();
    list.map(|(name, value)| (name.clone(), version(value))).collect()
}

/// Versions by package: from the record, else from dpkg's list.
fn packages(tree: &Tree, record: Option<&serde_json::Value>) -> Result<BTreeMap<String, String>> {
    if let Some(list) = record.and_then(|record| record.get("packages")) {
        return Ok(versions(list));
    }
    let Some(path) = DPKG_STATUS.iter().find(|path| tree.exists(path)) else { return Ok(BTreeMap::new()) };
    let status = read(tree, path, limits::TEXT)?;
    let status = String::from_utf8_lossy(&status);
    let field = |paragraph: &str, name: &str| {
        paragraph.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim().to_owned()))
    };
    Ok(status
        .split("\n\n")
        .filter_map(|paragraph| Some((field(paragraph, "Package")?, field(paragraph, "Version")?)))
        .collect())
}

#[cfg(test)]
pub(super) mod tests;
