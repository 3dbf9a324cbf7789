//! Why nothing is written, with what is there and the way out. docs/bare-metal.md has all of them.

use crate::base::{Digest, Size};
use crate::disk::SectorSize;

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
         `sha256` beside `url`), or name `keys` beside `url` and sign it with one of them, or build the image with `node: keys` and sign \
         it"
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
        "{url} is longer than {} bytes, the most that a node document may have: put large files into the image",
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
