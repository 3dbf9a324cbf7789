//! What can be said about a virtual machine on the command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use crate::base::Size;
use crate::cli::time;
use crate::project::{Boot, Inputs};
use crate::qemu::{Bus, Nic};

/// The least memory that a node starts with: kernel, initramfs and the page cache of its root.
const LEAST_MEMORY: Size = Size::mib(512);

/// What `keller boot` and `keller run` let one set of the machine.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Machine")]
pub struct MachineArgs {
    /// Keep what the guest writes in the image, and its firmware's variables beside it.
    #[arg(long)]
    pub persist: bool,
    /// Memory, in whole MiB, at least 512MiB.
    #[arg(long, value_name = "SIZE", default_value = "2GiB", value_parser = memory)]
    pub memory: Size,
    /// Virtual processors.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=255))]
    pub cpus: u32,
    /// Emulate even where KVM works.
    #[arg(long)]
    pub no_kvm: bool,
    /// Lead a port of 127.0.0.1 (0: the same number where it is free, else any) to one of the guest; repeatable.
    #[arg(long, value_name = "HOST:GUEST", value_parser = forward)]
    pub forward: Vec<AskedForward>,
    /// Give the machine this node document; see `keller node --help`.
    #[arg(long, value_name = "FILE")]
    pub node: Option<PathBuf>,
    /// Public ssh keys (file) for user core, besides the one that is made for this run.
    #[arg(long, value_name = "FILE")]
    pub ssh_key: Option<PathBuf>,
    /// Write the private key made for this run to FILE, for scripts.
    #[arg(long, value_name = "FILE")]
    pub identity: Option<PathBuf>,
    /// End with success as soon as TEXT stands on the console; fail when it does not in time.
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    pub expect: Option<String>,
    /// How long --expect waits, such as 5min; a number alone is seconds.
    #[arg(long, value_name = "TIME", default_value = "300", value_parser = time::seconds, requires = "expect")]
    pub timeout: Duration,
    /// Make the disk this large, in whole MiB, with zeros behind the image, as in --disk 20GiB; with --persist, the file.
    /// By default a raw image gets as much as a node of it needs.
    #[arg(long, value_name = "SIZE", value_parser = disk)]
    pub disk: Option<Size>,
    /// What the disk hangs on: virtio, nvme, ahci, usb or scsi (virtio-scsi).
    #[arg(long, value_name = "BUS", default_value = "virtio", value_parser = str::parse::<Bus>)]
    pub(crate) bus: Bus,
    /// A network card: virtio (the default), e1000e, igb or vmxnet3; repeatable. One has the network, and those with
    /// `,mute` behind them have a link and nobody that answers, as in --nic e1000e --nic igb,mute.
    #[arg(long, value_name = "MODEL[,mute]", value_parser = str::parse::<Nic>)]
    pub(crate) nic: Vec<Nic>,
    /// Sectors of the disk, 512 or 4096 bytes; by default those that the image is made for.
    #[arg(long, value_name = "BYTES", value_parser = sector_size)]
    pub sector_size: Option<u32>,
    /// A further argument for QEMU; repeatable.
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub qemu_arg: Vec<String>,
}

impl MachineArgs {
    /// The machine that is asked for, with `image` as its disk.
    pub fn request(&self, image: PathBuf, inputs: Inputs) -> Boot {
        Boot {
            image,
            persist: self.persist,
            memory: self.memory,
            cpus: self.cpus,
            no_kvm: self.no_kvm,
            disk: self.disk,
            bus: self.bus,
            nics: self.nic.clone(),
            sector_size: self.sector_size,
            node: self.node.clone(),
            ssh_key: self.ssh_key.clone(),
            identity: self.identity.clone(),
            qemu_args: self.qemu_arg.clone(),
            inputs,
        }
    }
}

/// A forward as asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AskedForward {
    /// On 127.0.0.1; none is left to keller.
    pub host: Option<u16>,
    /// In the guest.
    pub guest: u16,
}

pub(in crate::cli) fn memory(text: &str) -> Result<Size, String> {
    let size: Size = text.parse().map_err(|error: crate::base::size::ParseSizeError| error.to_string())?;
    if size < LEAST_MEMORY {
        return Err(format!("a node needs at least {LEAST_MEMORY}"));
    }
    if !size.bytes().is_multiple_of(Size::mib(1).bytes()) {
        return Err("expected whole MiB, such as 1536MiB".to_owned());
    }
    if u32::try_from(size.bytes() >> 20).is_err() {
        return Err("no machine has that much memory".to_owned());
    }
    Ok(size)
}

pub(in crate::cli) fn disk(text: &str) -> Result<Size, String> {
    let size: Size = text.parse().map_err(|error: crate::base::size::ParseSizeError| error.to_string())?;
    if size.bytes() == 0 || !size.bytes().is_multiple_of(Size::mib(1).bytes()) {
        return Err("expected whole MiB, such as 20GiB".to_owned());
    }
    Ok(size)
}

fn forward(text: &str) -> Result<AskedForward, String> {
    let parse = || {
        let (host, guest) = text.split_once(':')?;
        let (host, guest): (u16, u16) = (host.parse().ok()?, guest.parse().ok()?);
        (guest != 0).then_some(AskedForward { host: Some(host).filter(|host| *host != 0), guest })
    };
    parse().ok_or_else(|| "expected two port numbers, such as 8080:80".to_owned())
}

fn sector_size(text: &str) -> Result<u32, String> {
    text.parse()
        .ok()
        .filter(|size| [512, 4096].contains(size))
        .ok_or_else(|| "expected 512 or 4096".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_what_was_asked_for_or_refused() {
        assert_eq!(memory("512MiB"), Ok(Size::mib(512)));
        assert_eq!(memory("1GiB"), Ok(Size::mib(1024)));
        assert_eq!(memory("256MiB"), Err("a node needs at least 512MiB".to_owned()));
        assert_eq!(memory("0"), Err("a node needs at least 512MiB".to_owned()));
        // 572.2 MiB.
        assert!(memory("600000000").unwrap_err().contains("whole MiB"));
        assert!(memory("5000TiB").unwrap_err().contains("that much"));
        assert!(memory("much").unwrap_err().contains("such as 512MiB"));
    }

    #[test]
    fn disks_have_whole_mib() {
        assert_eq!(disk("20GiB"), Ok(Size::mib(20 << 10)));
        for wrong in ["0", "20", "1048577"] {
            assert_eq!(disk(wrong), Err("expected whole MiB, such as 20GiB".to_owned()), "{wrong}");
        }
        assert!(disk("much").is_err());
    }

    #[test]
    fn forwards_name_two_ports() {
        assert_eq!(forward("8080:80"), Ok(AskedForward { host: Some(8080), guest: 80 }));
        assert_eq!(forward("0:80"), Ok(AskedForward { host: None, guest: 80 }));
        for wrong in ["80", "8080:0", "8080:", ":80", "70000:80", "8080:80:1", "a:b"] {
            assert!(forward(wrong).unwrap_err().contains("such as 8080:80"), "{wrong}");
        }
    }

    #[test]
    fn sectors_have_one_of_two_sizes() {
        assert_eq!((sector_size("512"), sector_size("4096")), (Ok(512), Ok(4096)));
        for wrong in ["0", "1024", "8192", "4k"] {
            assert_eq!(sector_size(wrong), Err("expected 512 or 4096".to_owned()));
        }
    }
}
