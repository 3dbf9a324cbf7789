//! Why nothing is written, with what is there and the way out. docs/bare-metal.md has all of them.

use std::fmt::Write as _;

use super::disks::{Disk, Kind};
use super::marks::Found;
use crate::base::{Digest, Size};
use crate::disk::SectorSize;
use crate::disk::unfold::UnfoldError;

/// A reason to write nothing.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Neither DISK nor `--disk` was given.
    #[error("no disk was named: add one, such as /dev/sda, or --disk serial=NUMBER. {table}")]
    NoDisk {
        /// The table of all disks.
        table: String,
    },
    /// No disk fits the selector.
    #[error("no disk matches {selector} (the running system's disk is left out). {table}")]
    NoneMatches {
        /// The selector's text.
        selector: String,
        /// The table of all disks.
        table: String,
    },
    /// More than one disk fits the selector.
    #[error("{count} disks match {selector}: add a word that tells them apart, such as serial=. {table}")]
    Several {
        /// The selector's text.
        selector: String,
        /// Number of disks that fit.
        count: usize,
        /// The table of all disks.
        table: String,
    },
    /// Neither a disk nor a file.
    #[error("{path} is {what}: name a whole disk, such as /dev/sda, or a file to write into")]
    NotADisk {
        /// The path that was given.
        path: String,
        /// e.g. `a directory`.
        what: String,
    },
    /// A partition of a disk.
    #[error("{path} is a partition; an image needs a whole disk: name {disk}")]
    Partition {
        /// The path that was given.
        path: String,
        /// The whole disk that it is a part of.
        disk: String,
    },
    /// An optical drive.
    #[error("{path} is an optical drive: name a disk")]
    Optical {
        /// The path that was given.
        path: String,
    },
    /// Device mapper or RAID.
    #[error(
        "{path} is made of other disks (device mapper, RAID, bcache), from which firmware cannot start: name one of those"
    )]
    Composite {
        /// The path that was given.
        path: String,
    },
    /// Write-protected.
    #[error(
        "{path} is read-only: take the write protection off (a switch, or `blockdev --setrw {path}`), or name another disk"
    )]
    ReadOnly {
        /// Path of the disk.
        path: String,
    },
    /// The root of this system.
    #[error("{path} holds the running system: start from another medium, or name another disk")]
    System {
        /// Path of the disk.
        path: String,
    },
    /// Mounted.
    #[error(
        "{path} is in use: {device} is mounted at {at}. Run `umount {at}` if that is not needed, or name another disk"
    )]
    Mounted {
        /// Path of the disk.
        path: String,
        /// It or a part of it, or what is made of that.
        device: String,
        /// The mount point.
        at: String,
    },
    /// Swap.
    #[error(
        "{path} is in use: {device} is swap. Run `swapoff {device}` if that is not needed, or name another disk"
    )]
    Swap {
        /// Path of the disk.
        path: String,
        /// It or a part of it, or what is made of that.
        device: String,
    },
    /// A part of a RAID, a volume or the like.
    #[error(
        "{path} is in use: {by} is made of {device}. Take that apart (`vgchange -an`, `mdadm --stop`, `cryptsetup close`, \
         `multipath -f`), or name another disk"
    )]
    Held {
        /// Path of the disk.
        path: String,
        /// It or a part of it.
        device: String,
        /// What is made of it.
        by: String,
    },
    /// Opened exclusively by another program.
    #[error(
        "{path} is in use by another program, which has opened it exclusively: stop that program, or name another disk"
    )]
    Busy {
        /// Path of the disk.
        path: String,
    },
    /// The image takes no document from where an installation puts it.
    #[error(
        "a node of this image reads no document from its ESP (`node.sources` in its manifest): leave --document out, and give it \
         the document as the manifest says"
    )]
    NotFromEsp,
    /// The image takes signed documents only.
    #[error("the node document {name}: {why}; {}", crate::node::policy::SIGN)]
    Unsigned {
        /// Its `name`.
        name: String,
        /// Why it does not count.
        why: &'static str,
    },
    /// The document of an unattended machine is a merged one, and the image takes signed documents only.
    #[error(
        "the node document of this machine is put together from several places, and nobody has signed the whole: give it in one \
         document, signed by a key of this image"
    )]
    UnsignedWhole,
    /// A document from an address, and nothing says what it has to be.
    #[error(
        "nothing vouches for the node document that is fetched: name its SHA-256 (--document-sha256, keller.document.sha256=, \
         `sha256` beside `url`) or, beside `url`, `keys` that have signed it, or build the image with `node: keys`"
    )]
    NothingVouches,
    /// The address has a placeholder for what the machine does not show.
    #[error(
        "this machine shows no {what}, which `{word}` in the address of its node document stands for: use another placeholder"
    )]
    Lacks {
        /// e.g. `${serial}`.
        word: &'static str,
        /// What it stands for.
        what: &'static str,
    },
    /// Another document than was named.
    #[error(
        "{url} has SHA-256 {actual}, but its address was given with {expected}: put that file there, or name the digest of this one"
    )]
    OtherDocument {
        /// The address, without its secrets.
        url: String,
        /// The digest that was named.
        expected: Digest,
        /// The digest of what came.
        actual: Digest,
    },
    /// Signed by none of the keys that count for this address.
    #[error(
        "the node document at {url}: {why}; sign it with one of the keys that are named for it: `keller node sign --key FILE DOCUMENT`"
    )]
    DocumentUnsigned {
        /// The address, without its secrets.
        url: String,
        /// Why it does not count.
        why: &'static str,
    },
    /// More bytes than a document may have.
    #[error(
        "{url} has more than the {} bytes that a node document can have: large files belong into an image",
        crate::node::LARGEST
    )]
    DocumentTooLarge {
        /// The address, without its secrets.
        url: String,
    },
    /// All documents are for others.
    #[error("{url} has no document for this machine, which has {machine}: mend `match` there")]
    OtherMachine {
        /// The address, without its secrets.
        url: String,
        /// What the machine is known by.
        machine: String,
    },
    /// More than one document fits.
    #[error(
        "{count} documents at {url} are for this machine, which has {machine}: let `match` tell them apart"
    )]
    ManyDocuments {
        /// The address, without its secrets.
        url: String,
        /// Number of documents that fit.
        count: usize,
        /// What the machine is known by.
        machine: String,
    },
    /// What was fetched is to be fetched from elsewhere.
    #[error("the node document at {url} has an `install: document` itself: leave it out there")]
    LeadsOn {
        /// The address, without its secrets.
        url: String,
    },
    /// No `disk` in any document.
    #[error("nothing says onto which disk: add `install: {{disk: …}}` to the node document at {url}")]
    NoDiskNamed {
        /// The address, without its secrets.
        url: String,
    },
    /// The image takes no document from where an installation puts the one that was fetched.
    #[error(
        "a node of this image reads no document from its ESP, where the one that is fetched would lie: add `esp` to `node.sources` \
         in its manifest"
    )]
    FetchedNotFromEsp,
    /// Too small.
    #[error(
        "{path} has {}, and a node of this image needs {}: it lacks {}. Name a larger disk, or make the partitions \
         smaller by `disk:` in the manifest", .has.human(), .needs.human(), Size(.needs.bytes() - .has.bytes()).human()
    )]
    TooSmall {
        /// Path of the disk.
        path: String,
        /// Size of the disk.
        has: Size,
        /// Size of the smallest disk for a node of the image.
        needs: Size,
    },
    /// Sectors of another size.
    #[error(
        "{path} has sectors of {} bytes, and the image is made for {}: build it with `disk: {{sector_size: \
         {}}}` in the manifest", .disk.bytes(), .image.bytes(), .disk.bytes()
    )]
    Sectors {
        /// Path of the disk.
        path: String,
        /// Sector size of the disk.
        disk: SectorSize,
        /// Sector size that the image is made for.
        image: SectorSize,
    },
    /// Nobody is there to say which one is to start.
    #[error("{disks} have {id}, and only one of them can be this machine's: wipe or detach the others")]
    SeveralNodes {
        /// The image.
        id: String,
        /// The disks.
        disks: String,
    },
    /// Not empty, and `--wipe` was not given.
    #[error(
        "{path} is not empty, it has {things}: what is there would be lost. If that is meant, add --wipe {wipe}"
    )]
    Occupied {
        /// Path of the disk.
        path: String,
        /// What is there.
        things: String,
        /// What `--wipe` must name.
        wipe: String,
    },
    /// `--wipe` names another disk.
    #[error("--wipe {given} names another disk: {path} is {is}")]
    OtherWipe {
        /// The value of `--wipe`.
        given: String,
        /// Path of the disk.
        path: String,
        /// What `--wipe` must name for this disk.
        is: String,
    },
    /// `--keep-state`, and nothing to keep.
    #[error(
        "{path} has no state that could be kept: {problem}. Install without --keep-state, with --wipe if what is there may be lost"
    )]
    NoState {
        /// Path of the disk.
        path: String,
        /// What is missing.
        problem: String,
    },
    /// `--keep-state`, and the state of another image.
    #[error(
        "the state on {path} belongs to image {other}, but this image is {id}: install a version of {other}, or name another disk"
    )]
    StateOfOther {
        /// Path of the disk.
        path: String,
        /// The image's.
        id: String,
        /// Whose state it is.
        other: String,
    },
    /// `--keep-state`, and a disk that is laid out in another way.
    #[error(
        "the state on {path} cannot stay where it is: {problem}. Build the image with the `disk:` of the node that is there, or \
         save what you need of it and install with --wipe"
    )]
    StateDoesNotFit {
        /// Path of the disk.
        path: String,
        /// What does not fit.
        problem: String,
    },
    /// Other bytes than were asked for.
    #[error(
        "{name} has other bytes than {by} says: expected SHA-256 {expected}, but have {actual}. Fetch it again"
    )]
    OtherBytes {
        /// Name of the image.
        name: String,
        /// `--sha256`, or the file with the digest.
        by: String,
        /// The digest that was asked for.
        expected: Digest,
        /// The digest of the image's bytes.
        actual: Digest,
    },
    /// An address without a digest.
    #[error(
        "{url} needs --sha256 DIGEST, which says what is to come from there: SHA256SUMS beside the image has it"
    )]
    NoDigest {
        /// The address, without its secrets.
        url: String,
    },
    /// A repository, and nothing that says whom to trust.
    #[error(
        "nothing says whose signatures count: add --root-key FILE, the root.json in the publisher's directory of keys (not one \
         from the repository); only a node has one of its own"
    )]
    NoRootKey,
    /// An empty repository.
    #[error("{repository} has no version of any image: `keller publish` adds one")]
    NothingPublished {
        /// The repository, without its secrets.
        repository: String,
    },
    /// A repository of other images.
    #[error("{repository} has no image {id}, it has: {ids}. Name one of them by --id")]
    NoId {
        /// The repository, without its secrets.
        repository: String,
        /// The image that was asked for.
        id: String,
        /// Those that are there.
        ids: String,
    },
    /// A repository of several images.
    #[error("{repository} has several images: {ids}. Name one of them by --id")]
    SeveralIds {
        /// The repository, without its secrets.
        repository: String,
        /// Those that could be meant.
        ids: String,
    },
    /// A channel without a version.
    #[error(
        "no version of {id} is in channel {channel}; there are versions in: {channels}. Name one of them by --channel"
    )]
    NoChannel {
        /// The image.
        id: String,
        /// The channel that was asked for.
        channel: String,
        /// Those that are there.
        channels: String,
    },
    /// A version that nobody has.
    #[error(
        "{version} of {id} is {} published; there is: {versions}. Name one of them by --version",
        if *.was_there { "no longer" } else { "not" }
    )]
    NoVersion {
        /// The image.
        id: String,
        /// The version that was asked for.
        version: String,
        /// Whether its publisher has taken it out.
        was_there: bool,
        /// Those that are there, the newest first.
        versions: String,
    },
    /// Too little room for files without a name.
    #[error(
        "{name} takes {} in {directory} until it is on the disk, and {} are free there: free some, or name another directory by \
         TMPDIR", .needs.human(), .has.human()
    )]
    NoRoom {
        /// The version.
        name: String,
        /// The directory for temporary files.
        directory: String,
        /// What is free.
        has: Size,
        /// What it takes.
        needs: Size,
    },
    /// Another format.
    #[error("{name} is a {format} image: convert it with `{command}`")]
    Format {
        /// Name of the image.
        name: String,
        /// e.g. `qcow2`.
        format: &'static str,
        /// The command that converts it to a raw image.
        command: &'static str,
    },
    /// An image that runs from memory.
    #[error(
        "{name} is not a disk, but what a machine is started from ({format}): start the machine from it, or name the raw image \
         that was built with it"
    )]
    FromMemory {
        /// Name of the image.
        name: String,
        /// e.g. `iso`.
        format: &'static str,
    },
    /// Not one of keller's.
    #[error(
        "{name} is not an image of keller: {problem}. `keller build` makes one, `keller inspect` shows what it is"
    )]
    NotAnImage {
        /// Name of the image.
        name: String,
        /// What is missing.
        problem: String,
    },
    /// Damaged.
    #[error("{name} is damaged: {problem}. Fetch or build it again")]
    Damaged {
        /// Name of the image.
        name: String,
        /// What is wrong.
        problem: String,
    },
}

/// The fewest characters of `--wipe` where a disk has no serial number.
pub(super) const LEAST: usize = 6;

/// What names `disk` for `--wipe`: its serial number, else the beginning of what tells its content.
pub(super) fn wipe_name(disk: &Disk, found: &Found) -> String {
    let id = || found.id.as_deref().map(|id| id.chars().take(8).collect());
    disk.serial.clone().filter(|serial| !serial.is_empty()).or_else(id).unwrap_or_else(|| disk.name.clone())
}

/// Refuses a disk with something on it, unless `wipe` names it.
pub(super) fn judge_content(
    disk: &Disk,
    path: &str,
    found: &Found,
    wipe: Option<&str>,
) -> Result<(), Refusal> {
    let name = wipe_name(disk, found);
    let Some(given) = wipe else {
        return match found.things.is_empty() {
            true => Ok(()),
            false => {
                Err(Refusal::Occupied { path: path.to_owned(), things: found.line(), wipe: quoted(&name) })
            }
        };
    };
    let is_serial =
        disk.serial.as_deref().is_some_and(|serial| serial.trim().eq_ignore_ascii_case(given.trim()));
    let is_id = disk.serial.is_none()
        && given.len() >= LEAST
        && found.id.as_deref().is_some_and(|id| id.to_lowercase().starts_with(&given.to_lowercase()));
    // Without a number of its own, an empty disk has nothing that could be named, and nothing to lose.
    match is_serial || is_id || (disk.serial.is_none() && found.things.is_empty()) {
        true => Ok(()),
        false => Err(Refusal::OtherWipe { given: given.to_owned(), path: path.to_owned(), is: name }),
    }
}

/// As a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.:".contains(letter);
    match word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

/// Why an image cannot become the disk of a node at `path`.
pub(super) fn too_small(error: UnfoldError, path: &str) -> anyhow::Error {
    match error {
        UnfoldError::DiskTooSmall { has, needs } => {
            Refusal::TooSmall { path: path.to_owned(), has, needs }.into()
        }
        other => other.into(),
    }
}

/// Refuses a disk that cannot be written, or is in use.
pub(super) fn judge_use(disk: &Disk) -> Result<(), Refusal> {
    use super::disks::Use;
    let path = disk.path();
    match disk.kind {
        Kind::Disk | Kind::Loop => {}
        Kind::Optical => return Err(Refusal::Optical { path }),
        Kind::Composite => return Err(Refusal::Composite { path }),
    }
    if disk.read_only {
        return Err(Refusal::ReadOnly { path });
    }
    let device = |name: &String| format!("/dev/{name}");
    match disk.uses.first() {
        None => Ok(()),
        Some(Use::System) => Err(Refusal::System { path }),
        Some(Use::Mounted(name, at)) => Err(Refusal::Mounted { path, device: device(name), at: at.clone() }),
        Some(Use::Swap(name)) => Err(Refusal::Swap { path, device: device(name) }),
        Some(Use::Held(name, by)) => Err(Refusal::Held { path, device: device(name), by: device(by) }),
    }
}

/// All `disks` with what is on them, for a person who has to name one, with a number before each where that will do.
pub(super) fn table(disks: &[(&Disk, String)], is_numbered: bool) -> String {
    if disks.is_empty() {
        return "This machine shows no disk: the driver of its controller may be missing".to_owned();
    }
    let mut rows = vec![["#", "Disk", "Size", "Model", "Serial", "Bus", "What is on it"].map(str::to_owned)];
    let dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    for ((disk, content), number) in disks.iter().zip(1..) {
        rows.push([
            number.to_string(),
            disk.path(),
            Size(disk.size).human(),
            dash(&disk.model),
            dash(&disk.serial),
            disk.bus.to_owned(),
            content.clone(),
        ]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..6).map(width).collect();
    let first = usize::from(!is_numbered);
    let mut text = "This machine has:".to_owned();
    for row in &rows {
        text.push_str("\n  ");
        for (cell, width) in row.iter().zip(&widths).skip(first) {
            let _ = write!(text, "{cell:<width$}  ");
        }
        text.push_str(&row[6]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::disks::Use;
    use super::*;

    fn disk() -> Disk {
        Disk {
            name: "sda".into(),
            size: 100 << 30,
            kind: Kind::Disk,
            model: Some("ACME".into()),
            serial: Some("S1".into()),
            wwn: None,
            bus: "ata",
            read_only: false,
            uses: Vec::new(),
            numbers: Vec::new(),
        }
    }

    fn told(change: impl Fn(&mut Disk)) -> String {
        let mut disk = disk();
        change(&mut disk);
        judge_use(&disk).map_or_else(|refusal| refusal.to_string(), |()| String::new())
    }

    #[test]
    fn a_free_disk_is_taken() {
        assert_eq!(told(|_| {}), "");
    }

    #[test]
    fn an_optical_drive_is_refused() {
        assert_eq!(told(|disk| disk.kind = Kind::Optical), "/dev/sda is an optical drive: name a disk");
    }

    #[test]
    fn what_is_made_of_disks_is_refused() {
        let said = told(|disk| disk.kind = Kind::Composite);
        assert!(said.starts_with("/dev/sda is made of other disks (device mapper, RAID, bcache)"), "{said}");
    }

    #[test]
    fn a_read_only_disk_is_refused() {
        let said = told(|disk| disk.read_only = true);
        assert!(said.starts_with("/dev/sda is read-only: take the write protection off"), "{said}");
    }

    #[test]
    fn the_disk_of_the_running_system_is_refused() {
        let uses = vec![Use::System, Use::Mounted("sda2".into(), "/".into())];
        let said = told(|disk| disk.uses = uses.clone());
        assert_eq!(
            said,
            "/dev/sda holds the running system: start from another medium, or name another disk"
        );
    }

    #[test]
    fn a_mounted_disk_is_refused() {
        let said = told(|disk| disk.uses = vec![Use::Mounted("sda1".into(), "/srv".into())]);
        assert!(
            said.starts_with("/dev/sda is in use: /dev/sda1 is mounted at /srv. Run `umount /srv`"),
            "{said}"
        );
    }

    #[test]
    fn swap_is_refused() {
        let said = told(|disk| disk.uses = vec![Use::Swap("sda2".into())]);
        assert!(said.starts_with("/dev/sda is in use: /dev/sda2 is swap. Run `swapoff /dev/sda2`"), "{said}");
    }

    #[test]
    fn a_disk_with_holders_is_refused() {
        let said = told(|disk| disk.uses = vec![Use::Held("sda2".into(), "dm-0".into())]);
        assert!(
            said.starts_with("/dev/sda is in use: /dev/dm-0 is made of /dev/sda2. Take that apart"),
            "{said}"
        );
    }

    #[test]
    fn what_is_on_a_disk_goes_only_when_it_is_named() {
        let found = Found { things: vec!["xfs".into()], id: Some("abcdef0123".into()), unfinished: false };
        let judge = |disk: &Disk, found: &Found, wipe| {
            let judged = judge_content(disk, "/dev/sda", found, wipe);
            judged.map_or_else(|refusal| refusal.to_string(), |()| String::new())
        };
        let (named, nameless) = (disk(), Disk { serial: None, ..disk() });
        assert_eq!(
            judge(&named, &found, None),
            "/dev/sda is not empty, it has xfs: what is there would be lost. If that is meant, add --wipe S1"
        );
        assert!(judge(&nameless, &found, None).ends_with("add --wipe abcdef01"));
        let blank = Disk { serial: Some("S 1".into()), ..disk() };
        assert!(judge(&blank, &found, None).ends_with("add --wipe 'S 1'"));
        for (disk, found, wipe) in [
            (&named, &found, "S1"),
            (&named, &found, "s1"),
            (&nameless, &found, "abcdef"),
            (&nameless, &found, "ABCDEF01"),
            (&named, &Found::default(), "S1"),
            (&nameless, &Found::default(), "abcdef"),
        ] {
            assert_eq!(judge(disk, found, Some(wipe)), "", "{wipe}");
        }
        assert_eq!(judge(&named, &found, Some("S2")), "--wipe S2 names another disk: /dev/sda is S1");
        // Where there is a number, nothing else counts: two disks may have one table.
        assert_eq!(judge(&named, &found, Some("abcdef")), "--wipe abcdef names another disk: /dev/sda is S1");
        assert_eq!(
            judge(&named, &Found::default(), Some("S2")),
            "--wipe S2 names another disk: /dev/sda is S1"
        );
        assert_eq!(
            judge(&nameless, &found, Some("abc")),
            "--wipe abc names another disk: /dev/sda is abcdef01"
        );
    }

    #[test]
    fn refusals_name_the_way_out() {
        let path = || "/dev/sda".to_owned();
        for (refusal, said) in [
            (
                Refusal::Partition { path: "/dev/sda1".into(), disk: path() },
                "/dev/sda1 is a partition; an image needs a whole disk: name /dev/sda",
            ),
            (
                Refusal::Sectors { path: path(), disk: SectorSize::B4096, image: SectorSize::B512 },
                "/dev/sda has sectors of 4096 bytes, and the image is made for 512: build it with `disk: {sector_size: 4096}` \
                 in the manifest",
            ),
            (
                Refusal::SeveralNodes { id: "node".into(), disks: "/dev/sda, /dev/sdb".into() },
                "/dev/sda, /dev/sdb have node, and only one of them can be this machine's: wipe or detach the others",
            ),
            (
                Refusal::TooSmall { path: path(), has: Size(2 << 30), needs: Size(3 << 30) },
                "/dev/sda has 2.0 GiB, and a node of this image needs 3.0 GiB: it lacks 1.0 GiB. Name a larger disk, or \
                 make the partitions smaller by `disk:` in the manifest",
            ),
        ] {
            assert_eq!(refusal.to_string(), said);
        }
    }

    #[test]
    fn the_table_has_all_that_a_person_needs() {
        let other = Disk { name: "nvme0n1".into(), model: None, serial: None, bus: "nvme", ..disk() };
        assert_eq!(
            table(&[(&disk(), "nothing".into()), (&other, "xfs".into())], false),
            "This machine has:\n  \
             Disk          Size       Model  Serial  Bus   What is on it\n  \
             /dev/sda      100.0 GiB  ACME   S1      ata   nothing\n  \
             /dev/nvme0n1  100.0 GiB  -      -       nvme  xfs"
        );
        assert!(table(&[], true).starts_with("This machine shows no disk"));
    }
}
