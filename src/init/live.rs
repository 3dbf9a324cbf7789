//! A node that runs from memory: the disk image that its initramfs has or fetches, as a disk that nobody can write to.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::mem::size_of;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::mount::{MountFlags, mount_bind};
use zstd::stream::read::Decoder;

use super::console::Console;
use super::download;
use super::modules::Loader;
use super::root::attach;
use super::unpacked::{self, Unpacked};
use crate::base::failure::{Doing, Failure};
use crate::base::width::to_u64;
use crate::base::{Size, kernel};
use crate::boot::cmdline::{Cmdline, Options};
use crate::boot::initramfs::FROM_MEMORY;
use crate::boot::live::{CMDLINE, DISK, FACTS, Facts, IMAGE, MOUNT};
use crate::disk::gpt;
use crate::disk::{FileDevice, SectorSize};

/// What the node takes besides, in bytes: with less than this left it does not come to a login.
const NODE: u64 = 192 << 20;
const PAGE: usize = 4096;

/// Unpacks the disk image that the initramfs has or names, if it does, and makes a disk of it; gives the kernel's name of
/// the disk.
pub(super) fn disk(
    console: &Console,
    loader: &mut Loader,
    options: &Options,
) -> Result<Option<String>, Failure> {
    let Some(facts) = facts()? else {
        if options.image.is_some() {
            console.warn("keller.image= has no effect: this system does not run from memory");
        }
        if options.document.is_some() {
            console.warn("keller.document= has no effect: this system does not run from memory");
        }
        return Ok(None);
    };
    has_room(&facts)?;
    fs::create_dir_all(MOUNT).doing(format!("making {MOUNT}"))?;
    // Its size is checked above, and a limit would only give the same error a second name.
    attach(
        "tmpfs",
        MOUNT,
        "tmpfs",
        MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC,
        "mode=0700,size=100%",
    )?;
    match &facts.source {
        Some(source) => download::fetch(console, loader, options, &facts, source)?,
        None => carried(console, options, &facts)?,
    }
    loader.load_named(FROM_MEMORY)?;
    let name = attach_loop()
        .doing("making a disk of the image in memory")
        .map_err(|failure| failure.help("the kernel needs its module `loop`"))?;
    Ok(Some(name))
}

/// Unpacks the disk image of the initramfs.
fn carried(console: &Console, options: &Options, facts: &Facts) -> Result<(), Failure> {
    if options.image.is_some() {
        console.warn("keller.image= has no effect: the disk image is in the initramfs");
    }
    console.say(&format!("running from memory: unpacking {}", Size(facts.content).human()));
    let image = Path::new("/").join(IMAGE);
    unpack(&image, facts).doing(format!("unpacking /{IMAGE}"))?;
    fs::remove_file(&image).doing(format!("removing /{IMAGE}"))
}

/// Where the whole command line lies that [`command_line`] puts together.
const WHOLE: &str = "/run/keller/cmdline";

/// The command line of the image that the initramfs has, where `given` is in place of it: iPXE and other boot programs
/// hand their own over, at least the name of what they start, and the stub takes that. What is given counts behind the
/// image's, and all that runs reads both in /proc/cmdline; only the kernel has taken note of nothing but `given`.
pub(super) fn command_line(given: &str) -> Result<Option<Cmdline>, Failure> {
    let doing = || "putting the image's command line before the one that was given".to_owned();
    let own = match fs::read_to_string(Path::new("/").join(CMDLINE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        own => own.doing(doing())?,
    };
    let whole = joined(&own, given);
    fs::create_dir_all("/run/keller").doing(doing())?;
    fs::write(WHOLE, &whole).doing(doing())?;
    mount_bind(WHOLE, "/proc/cmdline").doing(doing())?;
    Cmdline::parse(&whole).map(Some).doing(doing())
}

/// Both in one line, as the kernel shows one.
fn joined(own: &str, given: &str) -> String {
    format!("{} {}\n", own.trim_matches(['\0', '\n', ' ']), given.trim())
}

/// What the initramfs says of a disk image, if it says anything.
fn facts() -> Result<Option<Facts>, Failure> {
    let doing = || format!("reading /{FACTS}");
    match fs::read(Path::new("/").join(FACTS)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        text => serde_json::from_slice(&text.doing(doing())?).map(Some).doing(doing()),
    }
}

/// Refuses a machine that would end in the middle.
fn has_room(facts: &Facts) -> Result<(), Failure> {
    let text = fs::read_to_string("/proc/meminfo").doing("reading /proc/meminfo")?;
    match short_of(facts, &text) {
        Some(lacks) => Err(Failure::new(
            "running from memory",
            format!("the machine has too little memory for the image of {}", Size(facts.content).human()),
        )
        .help(format!("give it {} more, or install the image from another system", Size(lacks).human()))),
        None => Ok(()),
    }
}

/// Bytes that the machine lacks, by the text of `/proc/meminfo`.
fn short_of(facts: &Facts, meminfo: &str) -> Option<u64> {
    let there = kernel::available_of(meminfo)?;
    (facts.content + NODE).checked_sub(there).filter(|lacks| *lacks > 0)
}

/// Unpacks `image` into [`DISK`]. What is unpacked is given back at once, or the machine would need both.
fn unpack(image: &Path, facts: &Facts) -> io::Result<()> {
    let from = OpenOptions::new().read(true).write(true).open(image)?;
    let mut to = Unpacked::create(Path::new(DISK), facts)?;
    unpacked::copy(Decoder::new(Freeing { file: &from, position: 0 })?, &mut to)
}

/// Reads a file of a file system in memory and gives back what it has read.
struct Freeing<'a> {
    file: &'a File,
    position: u64,
}

impl Read for Freeing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.position)?;
        let pages = self.position / to_u64(PAGE)..(self.position + to_u64(count)) / to_u64(PAGE);
        // A file system that cannot keeps the memory a little longer.
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let length = (pages.end - pages.start) * to_u64(PAGE);
        if length > 0 {
            let _ = fallocate(self.file, hole, pages.start * to_u64(PAGE), length);
        }
        self.position += to_u64(count);
        Ok(count)
    }
}

/// `struct loop_info64` of linux/loop.h.
#[repr(C)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    sizelimit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

const _: () = assert!(size_of::<LoopInfo>() == 232 && size_of::<LoopConfig>() == 304);

/// `LOOP_CTL_GET_FREE`.
const GET_FREE: u64 = 0x4c82;
/// `LOOP_CONFIGURE`.
const CONFIGURE: u64 = 0x4c0a;
/// `LO_FLAGS_READ_ONLY | LO_FLAGS_PARTSCAN`.
const FLAGS: u32 = 1 | 8;

/// Makes a disk of [`DISK`], with the sectors that its partition table is made for.
fn attach_loop() -> io::Result<String> {
    let file = File::open(DISK)?;
    let device = FileDevice::image(file.try_clone()?, SectorSize::B512)?;
    let sector_size = gpt::read_any(&device).map_err(io::Error::other)?.table.sector_size.bytes();
    let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control")?;
    // SAFETY: this request has no argument.
    let number = unsafe { libc::ioctl(control.as_raw_fd(), GET_FREE) };
    if number < 0 {
        return Err(io::Error::last_os_error());
    }
    let name = format!("loop{number}");
    let disk = OpenOptions::new().read(true).write(true).open(format!("/dev/{name}"))?;
    configure(&disk, &file, u32::try_from(sector_size).map_err(io::Error::other)?)?;
    Ok(name)
}

fn configure(disk: &File, file: &File, block_size: u32) -> io::Result<()> {
    let fd = u32::try_from(file.as_raw_fd()).map_err(io::Error::other)?;
    let info = LoopInfo {
        device: 0,
        inode: 0,
        rdevice: 0,
        offset: 0,
        sizelimit: 0,
        number: 0,
        encrypt_type: 0,
        encrypt_key_size: 0,
        flags: FLAGS,
        file_name: [0; 64],
        crypt_name: [0; 64],
        encrypt_key: [0; 32],
        init: [0; 2],
    };
    let config = LoopConfig { fd, block_size, info, reserved: [0; 8] };
    // SAFETY: the kernel reads a LoopConfig, which outlives the call.
    match unsafe { libc::ioctl(disk.as_raw_fd(), CONFIGURE, &config) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_comes_behind_what_the_image_says() {
        let hash = crate::base::Digest::of("root");
        let own = format!("roothash={hash} keller.etc=persistent console=ttyS0\0");
        let whole = joined(&own, "node_1.0.0.netboot.efi keller.etc=ephemeral keller.debug\n");
        assert!(whole.ends_with("console=ttyS0 node_1.0.0.netboot.efi keller.etc=ephemeral keller.debug\n"));
        let Cmdline { root_hash, options } = Cmdline::parse(&whole).unwrap();
        assert_eq!((root_hash, options.debug), (hash, true));
        assert_eq!(options.etc, crate::boot::cmdline::Etc::Ephemeral);
        assert_eq!(options.extra, ["console=ttyS0", "node_1.0.0.netboot.efi"]);
    }

    #[test]
    fn too_little_memory_is_said_with_what_lacks() {
        let facts = Facts { size: 1 << 30, content: 300 << 20, source: None };
        let meminfo = |mib: u64| format!("MemTotal: 1 kB\nMemAvailable:   {} kB\n", mib << 10);
        assert_eq!(short_of(&facts, &meminfo(492)), None);
        assert_eq!(short_of(&facts, &meminfo(400)), Some(92 << 20));
        assert_eq!(short_of(&facts, ""), None);
    }

    #[test]
    fn what_was_read_is_given_back() {
        let directory = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = directory.path().join("image");
        fs::write(&path, vec![7; 3 << 20]).unwrap();
        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let mut freeing = Freeing { file: &file, position: 0 };
        let mut buffer = vec![0; (1 << 20) + 5];
        freeing.read_exact(&mut buffer).unwrap();
        assert!(buffer.iter().all(|byte| *byte == 7));
        let left = std::os::unix::fs::MetadataExt::blocks(&file.metadata().unwrap()) * 512;
        assert_eq!(left, 2 << 20);
    }
}
