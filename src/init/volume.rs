//! The file systems that a node makes itself, of its state and of its reserve: all that it can lose, so that nothing
//! here destroys anything unasked.
//!
//! Each partition gets its file system on the node, at its full size. mke2fs takes a while and may
//! be cut off; a mark in the last block of the partition, which no file system reaches, says that it was
//! under way. The mark comes off, flushed, before the file system is mounted for the first time: where it
//! stands nothing of value can be. Before anything else uses the file system the partition gets a GUID of
//! its own (see [`super::table`]), so that blank sectors alone never pass for a new partition: a disk that
//! forgot what it had also reads as zeros.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;

use rustix::mount::MountFlags;

use super::console::Console;
use super::root::attach;
use super::tools;
use crate::base::failure::{Doing, Failure};
use crate::base::on_disk::{FromZeros, IntoBytes, le, on_disk};
use crate::base::width::{to_u64, to_usize};
use crate::boot::cmdline::Reset;
use crate::disk::{Device, FileDevice, ReadAt};

/// One of them.
#[derive(Debug)]
pub(super) struct Volume {
    /// Of the partition and of the file system.
    pub label: &'static str,
    /// As messages call it.
    pub name: &'static str,
    /// Where it is mounted.
    pub mount: &'static str,
    /// Flags of the mount.
    pub flags: MountFlags,
    /// Arguments of mke2fs beside those of every volume.
    pub making: &'static [&'static str],
}

/// The file system's block, in bytes.
const BLOCK: u64 = 4096;

/// How much at the start must be zero for a partition to count as blank, in bytes. Every file system, LUKS,
/// LVM, RAID member, swap and database that we know has something there; what lies behind it may be left
/// over from another life of a disk that is larger than the image.
const BLANK: u64 = 16 << 20;

/// What stands in the last block of either partition while mke2fs is at work; of the reserve as well, for disks have it.
const MARK: &[u8; 48] = b"keller: this state partition is being made anew\n";

/// Where ext4 keeps its superblock, in bytes.
const SUPERBLOCK: u64 = 1024;
/// `s_magic` of ext4.
const EXT4_MAGIC: u16 = 0xef53;
/// `s_log_block_size` of blocks of 4096 bytes.
const LOG_BLOCK_SIZE: u32 = 2;

on_disk! {
    /// The fields of `struct ext4_super_block` that tell a file system of ours (Linux, `fs/ext4/ext4.h`).
    SuperBlock: 1024 bytes {
        s_inodes_count: le::U32,
        s_blocks_count_lo: le::U32,
        counts: [le::U32; 4],
        /// Counted from 1 KiB.
        s_log_block_size: le::U32,
        groups_and_times: [u8; 28],
        s_magic: le::U16,
        state_and_features: [u8; 62],
        s_volume_name: [u8; 16],
        journal_and_others: [u8; 200],
        s_blocks_count_hi: le::U32,
        rest: [u8; 684],
    }
}

/// Grows a mounted ext4: `EXT4_IOC_RESIZE_FS`, `_IOW('f', 16, __u64)`.
const RESIZE: u64 = 0x4008_6610;

/// What is on the partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// Nothing: as shipped.
    Blank,
    /// The beginning of a file system that was never used.
    HalfMade,
    /// The file system that we made.
    Ours {
        /// Blocks of 4 KiB that it has.
        blocks: u64,
    },
    /// Something that we did not make.
    Foreign,
}

/// What the table says of the partition, by its GUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It was made when an image became this node, and has no file system yet: what is there is left over from another
    /// life of the disk.
    Unmade,
    /// As a whole disk was shipped.
    Shipped,
    /// It had a file system.
    Own,
}

/// What to do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Make a file system, over whatever is there.
    Make,
    /// Check the one that is there.
    Check,
    /// Touch nothing.
    Refuse(Doubt),
}

/// Why a partition is left as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    /// Blank, though it had a file system.
    Emptied,
    /// Something that we did not make.
    Foreign,
}

impl Content {
    /// What to do on a partition with this `standing`. Only the operator's explicit word makes us overwrite anything, and
    /// writing an image to the disk is such a word.
    pub(super) fn action(self, standing: Standing, reset: Option<Reset>) -> Action {
        match (self, reset) {
            (_, Some(Reset::State)) | (Self::HalfMade, None) => Action::Make,
            (_, None) if standing == Standing::Unmade => Action::Make,
            (Self::Blank, None) if standing == Standing::Shipped => Action::Make,
            (Self::Blank, None) => Action::Refuse(Doubt::Emptied),
            (Self::Ours { .. }, None) => Action::Check,
            (Self::Foreign, None) => Action::Refuse(Doubt::Foreign),
        }
    }

    /// Looks at a partition whose file system would be called `label`.
    pub(super) fn of(partition: &impl ReadAt, label: &str) -> io::Result<Self> {
        let mut mark = [0; MARK.len()];
        partition.read_at(&mut mark, last_block(partition.size())?)?;
        if &mark == MARK {
            return Ok(Self::HalfMade);
        }
        let mut found = SuperBlock::new_zeroed();
        partition.read_at(found.as_mut_bytes(), SUPERBLOCK)?;
        let called = found.s_volume_name.split(|b| *b == 0).next().unwrap_or_default();
        let is_ours = found.s_magic == EXT4_MAGIC && called == label.as_bytes();
        if is_ours && found.s_log_block_size == LOG_BLOCK_SIZE {
            let high = u64::from(found.s_blocks_count_hi) << 32;
            return Ok(Self::Ours { blocks: high | u64::from(found.s_blocks_count_lo) });
        }
        match is_zero(partition)? {
            true => Ok(Self::Blank),
            false => Ok(Self::Foreign),
        }
    }
}

/// Whether the partition is blank; of its last block, a mark that the power cut off while it was written may be left.
fn is_zero(partition: &impl ReadAt) -> io::Result<bool> {
    let end = BLANK.min(last_block(partition.size())?);
    let zeros = vec![0; 1 << 20];
    let mut chunk = zeros.clone();
    let mut at = 0;
    while at < end {
        let count = to_usize((end - at).min(to_u64(chunk.len())));
        partition.read_at(&mut chunk[..count], at)?;
        if chunk[..count] != zeros[..count] {
            return Ok(false);
        }
        at += to_u64(count);
    }
    Ok(true)
}

/// Where the last whole block begins.
fn last_block(size: u64) -> io::Result<u64> {
    (size / BLOCK)
        .checked_sub(1)
        .map(|block| block * BLOCK)
        .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

impl Volume {
    /// Mounts it from `device`, made or checked before; says whether it was made.
    pub(super) fn mount(
        &self,
        console: &Console,
        device: &str,
        standing: Standing,
        reset: Option<Reset>,
    ) -> Result<bool, Failure> {
        let name = self.name;
        let looking = || format!("looking at the {name} partition {device}");
        let partition = open(device).doing(looking())?;
        let content = Content::of(&partition, self.label).doing(looking())?;
        let room = last_block(partition.size()).doing(looking())? / BLOCK;
        let action = content.action(standing, reset);
        match action {
            Action::Make => {
                if standing == Standing::Unmade && content != Content::Blank {
                    console.say(&format!("erasing what an earlier node left on {device}"));
                } else if reset.is_some() {
                    console.warn(&format!(
                        "keller.reset=state: {device} is made anew, all that was on it is gone"
                    ));
                }
                self.make(console, partition, device, room)?;
            }
            Action::Check => {
                drop(partition);
                self.check(console, device)?;
            }
            Action::Refuse(doubt) => {
                let reason = match doubt {
                    Doubt::Emptied => "it had a file system and now is blank".to_owned(),
                    Doubt::Foreign => format!("it is neither blank nor a {name} file system"),
                };
                return Err(Failure::new(looking(), format!("{reason}, and nothing shall be lost"))
                    .help("keller.state=memory boots without it; keller.reset=state makes it anew and loses what is there"));
            }
        }
        attach(device, self.mount, "ext4", self.flags, "errors=remount-ro")
            .map_err(|failure| failure.help("keller.state=memory boots without it"))?;
        if let Content::Ours { blocks } = content
            && action == Action::Check
            && blocks < room
        {
            match self.grow(room) {
                Ok(()) => console.say(&format!("{name} file system grown to its partition")),
                // It works as it is; the next boot tries again.
                Err(error) => console
                    .warn(&format!("growing the {name} file system from {blocks} to {room} blocks: {error}")),
            }
        }
        let what = if action == Action::Make { "made and mounted" } else { "checked and mounted" };
        console.say(&format!("{name} {what} from {device}"));
        Ok(action == Action::Make)
    }

    fn make(
        &self,
        console: &Console,
        mut partition: FileDevice,
        device: &str,
        blocks: u64,
    ) -> Result<(), Failure> {
        let doing = || format!("making the {} file system on {device}", self.name);
        let blocks = blocks.to_string();
        // Inode tables and journal are zeroed by the kernel later on: seconds instead of minutes.
        let lazy = "lazy_itable_init=1,lazy_journal_init=1";
        let mut arguments = vec!["-q", "-t", "ext4", "-b", "4096", "-L", self.label, "-E", lazy];
        arguments.extend(self.making);
        arguments.extend([device, &blocks]);
        under_mark(&mut partition, doing, |_| {
            let output = tools::run(console, "/usr/sbin/mke2fs", &arguments)?;
            if output.status.success() {
                return Ok(());
            }
            Err(Failure::new(doing(), tools::ending(&output)))
        })
    }

    fn check(&self, console: &Console, device: &str) -> Result<(), Failure> {
        let doing = format!("checking the {} file system on {device}", self.name);
        let output = tools::run(console, "/usr/sbin/e2fsck", &["-p", device])?;
        match Verdict::of(output.status.code()) {
            Verdict::Sound => Ok(()),
            Verdict::Reboot => Err(Failure::new(doing, "it was mended, and asks for a reboot")),
            Verdict::Broken => Err(Failure::new(doing, tools::ending(&output)).help(
                "keller.state=memory boots without it, to run e2fsck by hand; keller.reset=state makes it anew and loses all that is there",
            )),
        }
    }

    /// Grows the mounted file system to `blocks`.
    fn grow(&self, blocks: u64) -> io::Result<()> {
        let directory = File::open(self.mount)?;
        // SAFETY: the kernel reads one u64 behind the pointer.
        match unsafe { libc::ioctl(directory.as_raw_fd(), RESIZE, &blocks) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Has `make` write the file system of `partition`. The mark is on the disk before that begins, and stays until all of it is.
pub(super) fn under_mark<D: Device>(
    partition: &mut D,
    doing: impl Fn() -> String,
    make: impl FnOnce(&mut D) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let at = last_block(partition.size()).doing(doing())?;
    let mut block = [0; to_usize(BLOCK)];
    block[..MARK.len()].copy_from_slice(MARK);
    partition.write_at(&block, at).and_then(|()| partition.flush()).doing(doing())?;
    make(partition)?;
    partition.flush().doing(doing())?;
    block.fill(0);
    partition.write_at(&block, at).and_then(|()| partition.flush()).doing(doing())
}

fn open(device: &str) -> io::Result<FileDevice> {
    OpenOptions::new().read(true).write(true).open(device).and_then(FileDevice::block)
}

/// What e2fsck's exit code asks for; its bits are those of e2fsck(8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Sound, or mended.
    Sound,
    /// Mended, but the kernel must start over.
    Reboot,
    /// Not mended.
    Broken,
}

impl Verdict {
    fn of(code: Option<i32>) -> Self {
        match code {
            Some(0 | 1) => Self::Sound,
            Some(2 | 3) => Self::Reboot,
            _ => Self::Broken,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::layout::{RESERVE_LABEL, STATE_LABEL};

    fn partition() -> Vec<u8> {
        vec![0; to_usize(BLANK + (1 << 20))]
    }

    fn with(bytes: &[u8], at: u64) -> Vec<u8> {
        let mut partition = partition();
        partition[to_usize(at)..][..bytes.len()].copy_from_slice(bytes);
        partition
    }

    fn content(bytes: &[u8]) -> Content {
        Content::of(&bytes, STATE_LABEL).unwrap()
    }

    fn ext4(label: &str) -> Vec<u8> {
        let mut bytes = partition();
        let block = &mut bytes[1024..2048];
        block[4..8].copy_from_slice(&4351_u32.to_le_bytes());
        block[0x18] = 2;
        block[0x38..0x3a].copy_from_slice(&[0x53, 0xef]);
        block[0x78..0x78 + label.len()].copy_from_slice(label.as_bytes());
        bytes
    }

    #[test]
    fn only_zeros_are_blank() {
        assert_eq!(content(&partition()), Content::Blank);
        assert_eq!(content(&with(b"x", 0)), Content::Foreign);
        assert_eq!(content(&with(b"x", BLANK - 1)), Content::Foreign);
        // Left over from another life of a larger disk.
        assert_eq!(content(&with(b"x", BLANK)), Content::Blank);
        assert!(Content::of(&[0; 100].as_slice(), STATE_LABEL).is_err());
    }

    #[test]
    fn ours_is_known_by_its_label() {
        assert_eq!(content(&ext4(STATE_LABEL)), Content::Ours { blocks: 4351 });
        assert_eq!(content(&ext4("data")), Content::Foreign);
        // Neither is taken for the other.
        assert_eq!(content(&ext4(RESERVE_LABEL)), Content::Foreign);
    }

    #[test]
    fn the_mark_beats_all_else() {
        let mut bytes = ext4(STATE_LABEL);
        let at = bytes.len() - to_usize(BLOCK);
        bytes[at..at + MARK.len()].copy_from_slice(MARK);
        assert_eq!(content(&bytes), Content::HalfMade);
    }

    #[test]
    fn nothing_is_overwritten_unasked() {
        let state = Content::Ours { blocks: 1 };
        let all = [Content::Blank, Content::HalfMade, state, Content::Foreign];
        let unasked = |standing| {
            all.map(|content| match content.action(standing, None) {
                Action::Make => "make",
                Action::Check => "check",
                Action::Refuse(_) => "refuse",
            })
        };
        assert_eq!(unasked(Standing::Unmade), ["make"; 4]);
        assert_eq!(unasked(Standing::Shipped), ["make", "make", "check", "refuse"]);
        assert_eq!(unasked(Standing::Own), ["refuse", "make", "check", "refuse"]);
        for content in all {
            for standing in [Standing::Unmade, Standing::Shipped, Standing::Own] {
                assert_eq!(content.action(standing, Some(Reset::State)), Action::Make);
            }
        }
    }

    #[test]
    fn exit_codes_of_e2fsck() {
        let verdicts: Vec<_> =
            [Some(0), Some(1), Some(2), Some(3), Some(4), Some(8), Some(12), None].map(Verdict::of).into();
        use Verdict::{Broken, Reboot, Sound};
        assert_eq!(verdicts, [Sound, Sound, Reboot, Reboot, Broken, Broken, Broken, Broken]);
    }
}
