//! `keller install`: an image onto a disk of this machine.

mod dialogue;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;

use super::failure::{self, INTERRUPTED};
use super::progress::Display;
use super::{Global, signals, streams};
use crate::base::terminal::one_line;
use crate::base::{Digest, Size};
use crate::project::install::{
    self, Asked, BootEntry, DocumentOrigin, Ground, Install, Origin, Report, Selector, State, Target, Then,
    Wanted, WriteError,
};

/// The channel of a repository that is followed by default.
const CHANNEL: &str = "stable";

/// Put an image onto a disk of this machine, as a node.
#[derive(Debug, Args)]
#[command(
    override_usage = "keller install [OPTIONS] [IMAGE] [DISK]\n       keller install [OPTIONS] --repository <URL> [DISK]"
)]
#[command(after_help = "Examples:\n  \
    keller install node_1.0.0.raw                        asks which disk, on a terminal; else a table of all disks\n  \
    keller install node_1.0.0.raw /dev/sda\n  \
    keller install --document rack1.yaml node_1.0.0.raw.zst /dev/disk/by-id/nvme-ACME_N1\n  \
    keller install --document 'https://deploy.example/nodes/${serial}.yaml' node_1.0.0.raw /dev/sda   signed by a key of the image\n  \
    keller install --disk serial=S3Z9NB0K node_1.0.0.raw\n  \
    keller install --disk bus=nvme,size=400GiB..,smallest node_1.0.0.raw\n  \
    keller install --wipe S3Z9NB0K node_1.0.0.raw /dev/sda   what is on this disk is lost\n  \
    keller install --keep-state node_1.0.1.raw /dev/sda      a new system under the state that is there\n  \
    keller install --only-state node_1.0.0.raw /dev/sdb      a disk for the state of a node that runs from memory\n  \
    keller install --sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 https://images.example/node_1.0.0.raw.zst /dev/sda\n  \
    keller install --root-key root.json --repository https://updates.example/node /dev/sda   the newest version, signed\n  \
    keller install --root-key root.json --repository https://updates.example/node --version 1.0.1 /dev/sda\n\n\
    Without a disk, on a terminal, it shows all disks and asks for a disk's number in the table, for its serial number if \
    something would be lost, and whether to go on. It asks nothing and refuses without a terminal, with the image on standard \
    input, with --json and with --quiet.\n\n\
    The image and the document are checked before anything is written; the partition table is written last. A disk with this \
    version and this document stays as it is. Exit code: 0 when the disk has it, 1 when something is refused or fails, 130 \
    when it is interrupted.")]
pub struct InstallArgs {
    /// A raw image, compressed (.raw.zst) or not: a file, an address at http or https, or `-` for standard input. On a node that
    /// runs from memory, its own image where none is named. With --repository, the disk stands here.
    image: Option<String>,
    /// The disk, such as /dev/sda or a name in /dev/disk/by-id, or a file to write as a disk.
    disk: Option<PathBuf>,
    /// What the disk is: serial=, wwn=, model= (with *), bus=, size=FROM..TO, smallest, largest; several with commas.
    #[arg(long = "disk", value_name = "WORDS", conflicts_with = "disk")]
    selector: Option<Selector>,
    /// Take a disk that is not empty: its serial number, or the beginning of its table's id where it has none. All on it is
    /// lost.
    #[arg(long, value_name = "SERIAL")]
    wipe: Option<String>,
    /// Replace the system of a node of this image, and keep its state (/var and changes of /etc) as it is.
    #[arg(long, conflicts_with = "wipe")]
    keep_state: bool,
    /// Make the disk a place for the state of a node that runs from memory, and nothing else: the next start from memory takes
    /// it. The image gives the minimum sizes of its partitions.
    #[arg(long, conflicts_with_all = ["keep_state", "document"])]
    only_state: bool,
    /// Give the machine this node document (see `keller node`): a file, or an address at http or https, in which ${serial}, ${uuid}
    /// and ${mac} stand for this machine's own. What comes from an address needs --document-sha256, or a signature by one of the
    /// image's own keys (`node: keys` of its manifest).
    #[arg(long, value_name = "FILE|URL")]
    document: Option<String>,
    /// Expected SHA-256 of the node document.
    #[arg(long, value_name = "DIGEST", requires = "document")]
    document_sha256: Option<Digest>,
    /// Expected SHA-256 of the image; required for an address.
    #[arg(long, value_name = "DIGEST", conflicts_with = "repository")]
    sha256: Option<Digest>,
    /// Take the image out of the signed repository that updates come from: an address at http or https, or a directory.
    #[arg(long, value_name = "URL")]
    repository: Option<String>,
    /// Of the repository, the newest version in this channel.
    #[arg(long, value_name = "NAME", default_value = CHANNEL, requires = "repository", conflicts_with = "version")]
    channel: String,
    /// Of the repository, this version, in whatever channel.
    #[arg(long, value_name = "VERSION", requires = "repository")]
    version: Option<String>,
    /// Of several images in the repository, this one.
    #[arg(long, value_name = "ID", requires = "repository")]
    id: Option<String>,
    /// The root of trust: root.json in the publisher's directory of keys. Default on a node: the one it takes updates by.
    #[arg(long, value_name = "FILE", requires = "repository")]
    root_key: Option<PathBuf>,
    /// Leave the firmware's boot entries as they are.
    #[arg(long)]
    no_boot_entry: bool,
}

/// Installs and tells.
///
/// # Errors
/// A refusal, or what failed.
pub fn run(args: &InstallArgs, global: &Global) -> Result<ExitCode> {
    let mut request = args.request()?;
    if request.target == Target::Unnamed && asks(&request.image, global) {
        match dialogue::hold(&mut dialogue::Terminal, &request, &install::disks)? {
            Some(answered) => request = answered,
            None => {
                streams::print("\nnothing was written\n")?;
                return Ok(ExitCode::from(INTERRUPTED));
            }
        }
    }
    let display = Display::new(global.verbosity());
    let result = request.run(&signals::interruption, &display);
    drop(display);
    let report = match result {
        Ok(report) => report,
        Err(error) if error.downcast_ref().is_some_and(WriteError::is_interruption) => {
            failure::report(&error, global.json);
            return Ok(ExitCode::from(INTERRUPTED));
        }
        Err(error) => return Err(error),
    };
    let next = next(&report);
    if global.json {
        let mut value = serde_json::to_value(&report)?;
        value["next"] = next.into();
        streams::json(value)?;
    } else if !global.quiet {
        streams::print(told(&report))?;
        streams::line(format_args!("next: {next}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

impl InstallArgs {
    /// Why what is given does not go together, where clap does not see it: with a repository, what stands first is the disk.
    pub(super) fn conflict(&self) -> Option<&'static str> {
        match (&self.repository, &self.image, &self.disk, &self.selector) {
            (Some(_), Some(_), Some(_), _) => {
                Some("the argument '[IMAGE]' cannot be used with '--repository <URL>'")
            }
            (Some(_), Some(_), None, Some(_)) => {
                Some("the argument '--disk <WORDS>' cannot be used with '[DISK]'")
            }
            _ => None,
        }
    }

    /// What is meant in a repository, if an image is to come out of one.
    fn asked(&self) -> Option<Asked> {
        let wanted = match &self.version {
            Some(version) => Wanted::Version(version.clone()),
            None => Wanted::Newest(self.channel.clone()),
        };
        let (repository, root_key, id) = (self.repository.clone()?, self.root_key.clone(), self.id.clone());
        Some(Asked { repository, root_key, wanted, id })
    }

    fn request(&self) -> Result<Install> {
        let asked = self.asked();
        let (image, disk) = match &asked {
            Some(_) => (&None, self.image.as_ref().map(PathBuf::from)),
            None => (&self.image, self.disk.clone()),
        };
        let image = match (asked, image) {
            (Some(asked), _) => asked.origin()?,
            (None, Some(image)) => Origin::of(image),
            (None, None) => Origin::File(install::own_image().context(
                "no image was named: add one, such as node_1.0.0.raw; only a node that runs from memory has one of its own",
            )?),
        };
        let target = match (disk, &self.selector) {
            (Some(path), _) => Target::Path(path),
            (None, Some(selector)) => Target::Selected(selector.clone()),
            (None, None) => Target::Unnamed,
        };
        Ok(Install {
            image,
            sha256: self.sha256,
            target,
            wipe: self.wipe.clone(),
            keep_state: self.keep_state,
            only_state: self.only_state,
            document: self.document.as_deref().map(DocumentOrigin::of).transpose()?,
            document_sha256: self.document_sha256,
            boot_entry: !self.no_boot_entry,
            unattended: false,
        })
    }
}

/// Whether somebody is there who can be asked. Standard input may be the image.
fn asks(image: &Origin, global: &Global) -> bool {
    !global.json && !global.quiet && *image != Origin::Input && dialogue::is_there()
}

/// Does what the document of a machine that runs from memory asks for; says what it was, and gives what comes then.
///
/// # Errors
/// A refusal, or what failed.
pub(super) fn unattended(display: &Display) -> Result<Option<Then>> {
    let Some(ground) = Ground::here()? else { return Ok(None) };
    let Some((report, wanted)) = ground.install(&signals::interruption, display)? else { return Ok(None) };
    streams::print(told(&report))?;
    let after = install::after(&report, wanted);
    if after != wanted {
        let disk = &report.disk;
        streams::line(format_args!(
            "the firmware cannot be told to start {disk} next: remove the medium, or choose {disk} in the firmware's menu"
        ))?;
    }
    Ok(Some(after))
}

/// What was done.
fn told(report: &Report) -> String {
    let Report { disk, id, version, size, .. } = report;
    let (id, version) = (one_line(id), one_line(version));
    let what = format!("{id} {version}");
    if report.only_state {
        return match report.state {
            State::Already => format!(
                "{disk} is for the state of a node that runs from memory already: nothing was written\n"
            ),
            State::Installed => format!(
                "{disk} ({}) is for the state of a node that runs from memory\n  disk     {}\n",
                Size(*size).human(),
                report.disk_guid
            ),
        };
    }
    if report.state == State::Already {
        let next = match &report.boot_entry {
            Some(BootEntry::Set(name)) => format!("; the firmware starts it next, by {name}"),
            _ => String::new(),
        };
        return format!("{disk} has {what} already: nothing was written{next}\n");
    }
    let serial = report.serial.as_ref().map_or(String::new(), |serial| format!(", serial {serial}"));
    let mut text = format!(
        "{what} is on {disk} ({}{serial}), every block read back and verified\n  roothash {}\n  disk     {}\n",
        Size(*size).human(),
        report.root_hash,
        report.disk_guid
    );
    if report.kept_state {
        text.push_str("  state    as it was; the journal begins anew\n");
    }
    if report.document {
        text.push_str("  document in the ESP; the first boot takes it, and erases it there\n");
    }
    let entry = match &report.boot_entry {
        Some(BootEntry::Set(name)) => format!("{name}, first in the order"),
        Some(BootEntry::Failed(reason)) => {
            format!(
                "none: {}. The firmware finds /EFI/BOOT/BOOTX64.EFI by itself, or choose this disk in its menu",
                one_line(reason)
            )
        }
        Some(BootEntry::NoFirmware) => {
            "none: this system was not started by UEFI. The firmware finds /EFI/BOOT/BOOTX64.EFI by itself"
                .to_owned()
        }
        Some(BootEntry::NotWanted) | None => {
            "none: the firmware finds /EFI/BOOT/BOOTX64.EFI by itself".to_owned()
        }
    };
    text.push_str(&format!("  entry    {entry}\n"));
    if let Some(reason) = &report.unread {
        text.push_str(&format!(
            "  kernel   does not show the new partitions yet ({}): run `partprobe {disk}`, or restart\n",
            one_line(reason)
        ));
    }
    text
}

/// What happens next.
fn next(report: &Report) -> String {
    let disk = &report.disk;
    match report.state {
        _ if report.only_state => format!(
            "start the machine from memory again: the node takes {disk}, and makes its file systems where there are none"
        ),
        State::Already => format!(
            "start the machine from {disk}; to make it anew, remove its table (`wipefs -a {disk}`) and install again"
        ),
        State::Installed if report.kept_state => format!("start the machine from {disk}"),
        State::Installed => format!(
            "start the machine from {disk}; its first boot makes the file systems for state and journal, as large as the disk allows"
        ),
    }
}
