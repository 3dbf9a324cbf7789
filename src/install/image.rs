//! The image that is to be installed: brought here, and known to be whole before anything is written.

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};

use super::published::Published;
use super::refusal::Refusal;
use super::zst::Frames;
use crate::base::device::{ReadAt, Shared, Window};
use crate::base::progress::Counted;
use crate::base::width::{to_u64, to_usize};
use crate::base::{Chain, Compression, Digest, Hasher, Progress, Size, Task, Unit, input, limits};
use crate::boot::cmdline::Cmdline;
use crate::boot::entries::FOLDER;
use crate::boot::uki::Description;
use crate::disk::gpt::{self, Entry, Other, Table, Which, types};
use crate::disk::slot::{self, Parts};
use crate::disk::{FileDevice, Layout, Release, SectorSize};
use crate::fs::fat;
use crate::http::url::{Url, is_address};
use crate::http::{Client, Settings};
use crate::image::node_disk;
use crate::node::Policy;
use crate::output::{Format, is_zero, raw};
use crate::verity;

/// Where an image comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A file.
    File(PathBuf),
    /// A web server.
    Url(String),
    /// Standard input.
    Input,
    /// A signed repository.
    Published(Box<Published>),
}

impl Origin {
    /// As people write it: an address, `-`, or else a path.
    pub fn of(text: &str) -> Self {
        match text {
            "-" => Self::Input,
            _ if is_address(text) => Self::Url(text.to_owned()),
            _ => Self::File(text.into()),
        }
    }
}

impl fmt::Display for Origin {
    /// Without what is secret of an address.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Url(text) => match text.parse::<Url>() {
                Ok(url) => write!(f, "{url}"),
                Err(_) => f.write_str("an address"),
            },
            Self::Input => f.write_str("standard input"),
            Self::Published(published) => write!(f, "{published}"),
        }
    }
}

/// Where firmware looks when nothing is set up.
const LOADER: &str = "EFI/BOOT/BOOTX64.EFI";
/// The list of digests beside an image.
const SUMS: &str = "SHA256SUMS";
/// Bytes that are copied at once.
pub(super) const PIECE: u64 = 1 << 20;

/// An image of which every byte that counts was checked.
#[derive(Debug)]
pub(super) struct Image {
    /// The raw disk.
    pub bytes: Arc<dyn Shared>,
    /// Its table.
    pub table: Table,
    /// What slot A holds.
    pub release: Release,
    /// What it becomes on a node.
    pub layout: Layout,
    /// Who may give the node its document.
    pub policy: Policy,
    /// Of the content of all partitions, one after the other.
    pub content: Digest,
}

impl Image {
    /// Opens and checks the image at `origin`, which must have the digest `sha256` where there is one. `fetch` has one put
    /// together out of a repository.
    ///
    /// # Errors
    /// [`Refusal`]; what disks and servers say; those of `fetch`.
    pub(super) fn open(
        origin: &Origin,
        sha256: Option<Digest>,
        fetch: &dyn Fn(&Published) -> Result<Self>,
        progress: &dyn Progress,
    ) -> Result<Self> {
        let (file, name) = match origin {
            Origin::Published(published) => return fetch(published),
            Origin::File(path) => return Self::of_file(path, sha256, progress),
            Origin::Input => (received(progress)?, "the image of standard input".to_owned()),
            Origin::Url(text) => downloaded(text, sha256, progress)?,
        };
        Self::of(file, &name, sha256, None, progress)
    }

    /// The same of a file.
    fn of_file(path: &Path, sha256: Option<Digest>, progress: &dyn Progress) -> Result<Self> {
        let name = path.display().to_string();
        let file = input::open(path).with_context(|| format!("reading {name}"))?;
        Self::of(file, &name, sha256, listed(path)?, progress)
    }

    /// The same of what is here; `listed` is a digest that is beside it, with where that stands.
    fn of(
        file: File,
        name: &str,
        sha256: Option<Digest>,
        listed: Option<(String, Digest)>,
        progress: &dyn Progress,
    ) -> Result<Self> {
        check_digest(&file, name, sha256, listed, progress)?;
        let bytes = unpacked(file, name, progress)?;
        Self::check(bytes, name, progress)
    }

    /// What slot A of the raw disk in the file at `path` holds by its table, of which nothing else is read.
    ///
    /// # Errors
    /// [`Refusal`]: it is not the disk of an image; the file cannot be read.
    pub(super) fn release_of(path: &Path) -> Result<Release> {
        let name = path.display().to_string();
        let file = input::open(path).with_context(|| format!("reading {name}"))?;
        let bytes: Arc<dyn Shared> = Arc::new(FileDevice::image(file, SectorSize::B512)?);
        let table = table(&bytes, &name)?;
        Ok(shipped(&table, &name)?.1)
    }

    /// Checks a raw disk.
    pub(super) fn check(bytes: Arc<dyn Shared>, name: &str, progress: &dyn Progress) -> Result<Self> {
        let not_an_image = |problem: &str| not_an_image(name, problem);
        let damaged = |problem: String| damaged(name, problem);
        let table = table(&bytes, name)?;
        let (parts, release) = shipped(&table, name)?;
        let (layout, policy) = node_disk::of_disk_and_policy(bytes.clone(), parts.root)
            .and_then(|(layout, policy)| {
                let layout = layout.context("its root does not say how large the disk of a node is")?;
                node_disk::check(&layout, &table)?;
                Ok((layout, policy))
            })
            .map_err(|error| damaged(Chain(error.as_ref()).to_string()))?;
        check_root(&bytes, parts, &release, "checking the image", progress)
            .map_err(|error| damaged(format!("its root does not match its root hash: {error}")))?;
        let esp = table.by_type(types::ESP).next().ok_or_else(|| not_an_image("it has no ESP"))?;
        check_esp(&bytes, esp, &release).map_err(|error| damaged(Chain(error.as_ref()).to_string()))?;
        let content = content(&bytes, &table).map_err(|error| damaged(error.to_string()))?;
        Ok(Self { bytes, release, layout, policy, content, table })
    }
}

fn not_an_image(name: &str, problem: &str) -> Refusal {
    Refusal::NotAnImage { name: name.to_owned(), problem: problem.to_owned() }
}

fn damaged(name: &str, problem: String) -> Refusal {
    Refusal::Damaged { name: name.to_owned(), problem }
}

/// The table of a raw disk, of which both copies say the same.
fn table(bytes: &Arc<dyn Shared>, name: &str) -> Result<Table, Refusal> {
    let found = gpt::read_any(bytes).map_err(|error| not_an_image(name, &error.to_string()))?;
    match (&found.source, &found.other) {
        (Which::Primary, Other::Same | Other::NotAtEnd) => Ok(found.table),
        (_, Other::Broken(error)) => {
            Err(damaged(name, format!("a copy of its partition table is broken: {error}")))
        }
        _ => Err(damaged(name, "the copies of its partition table differ".to_owned())),
    }
}

/// What slot A of an image holds, and where.
fn shipped<'t>(table: &'t Table, name: &str) -> Result<(Parts<'t>, Release), Refusal> {
    let shipped = slot::shipped(table);
    shipped.and_then(|parts| Some((parts, parts.release()?))).ok_or_else(|| {
        let problem = match slot::slots(table).is_ok() {
            true => "it is the disk of a node; a copy would be a second machine with the same identity",
            false => "expected one ESP, one root and its hash tree, with the labels of a version",
        };
        not_an_image(name, problem)
    })
}

/// Whether the root of a slot is what its root hash says: the check of `keller inspect --verify`.
pub(super) fn check_root(
    disk: &(impl ReadAt + ?Sized),
    parts: Parts<'_>,
    release: &Release,
    what: &str,
    progress: &dyn Progress,
) -> Result<(), verity::Error> {
    let task = Task::new(progress, what, parts.root.size, Unit::Bytes);
    let window =
        |entry: &Entry| BufReader::with_capacity(to_usize(PIECE), Window::new(disk, entry.start, entry.size));
    let mut data = Counted::new(window(parts.root), &task);
    verity::verify(&mut data, &mut window(parts.verity), &release.root_hash)
}

/// Whether the ESP starts the root of `release`, and can be started itself.
fn check_esp(disk: &Arc<dyn Shared>, esp: &Entry, release: &Release) -> Result<()> {
    let mut volume = fat::Reader::open(Window::new(disk, esp.start, esp.size)).context("reading its ESP")?;
    let listed = volume.list().context("reading its ESP")?;
    anyhow::ensure!(listed.iter().any(|file| file.path == LOADER), "its ESP has no {LOADER}");
    let kernels = listed.into_iter().filter(|file| file.size.is_some() && file.path.starts_with(FOLDER));
    for kernel in kernels {
        let mut file = volume.file(&kernel.path).context("reading its ESP")?;
        let description = Description::read(&mut file).with_context(|| format!("reading {}", kernel.path))?;
        let cmdline = Cmdline::parse(&description.cmdline);
        if cmdline.is_ok_and(|cmdline| cmdline.root_hash == release.root_hash) {
            return Ok(());
        }
    }
    anyhow::bail!("no kernel image in its ESP starts its root")
}

/// The digest of all that is in the partitions of `table`.
pub(super) fn content(disk: &(impl ReadAt + ?Sized), table: &Table) -> io::Result<Digest> {
    let mut hasher = Hasher::new();
    each_piece(table, |offset, count| {
        let mut piece = vec![0; count];
        disk.read_at(&mut piece, offset)?;
        hasher.update(&piece);
        Ok::<(), io::Error>(())
    })?;
    Ok(hasher.finish())
}

/// Calls `act` with offset and length of each piece of the partitions of `table`.
pub(super) fn each_piece<E>(
    table: &Table,
    mut act: impl FnMut(u64, usize) -> Result<(), E>,
) -> Result<(), E> {
    for entry in &table.entries {
        let mut at = entry.start;
        while at < entry.end() {
            let count = (entry.end() - at).min(PIECE);
            act(at, to_usize(count))?;
            at += count;
        }
    }
    Ok(())
}

/// What comes from standard input, in a file.
fn received(progress: &dyn Progress) -> Result<File> {
    let task = Task::new(progress, "receiving", 0, Unit::Bytes);
    spool(&mut io::stdin().lock(), limits::DOWNLOAD, &task).context("reading standard input")
}

/// What the address `text` has, in a file, and its name for messages.
fn downloaded(text: &str, sha256: Option<Digest>, progress: &dyn Progress) -> Result<(File, String)> {
    let url: Url = text.parse()?;
    if sha256.is_none() {
        return Err(Refusal::NoDigest { url: url.to_string() }.into());
    }
    let client = Client::new(Settings::of_host())?;
    let task = Task::new(progress, "downloading", 0, Unit::Bytes);
    let mut stream = client.stream(&url, None)?;
    let file = spool(&mut stream, limits::DOWNLOAD, &task).with_context(|| format!("downloading {url}"))?;
    Ok((file, url.to_string()))
}

/// Puts what comes into a file without a name, at most `limit` bytes of it. Where there are zeros it has holes.
fn spool(from: &mut dyn Read, limit: u64, task: &Task<'_>) -> Result<File> {
    let mut file = temporary()?;
    let mut buffer = vec![0; to_usize(PIECE)];
    let mut total = 0;
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => {
                file.set_len(total).with_context(no_room)?;
                return Ok(file);
            }
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
        total += to_u64(count);
        if total > limit {
            return Err(input::TooLarge { limit }.into());
        }
        match is_zero(&buffer[..count]) {
            true => io::Seek::seek(&mut file, io::SeekFrom::Start(total)).map(drop),
            false => file.write_all(&buffer[..count]),
        }
        .with_context(no_room)?;
        task.advance(to_u64(count));
    }
}

/// What was unpacked when `error` came, with the bound where that is what it is about.
fn not_unpacked(name: &str, error: anyhow::Error) -> anyhow::Error {
    let bound = || {
        let slack = Size(limits::DISK_SLACK).human();
        let ratio = limits::RATIO;
        format!(", of which {slack} and {ratio} times its size are taken (`zstd -d` unpacks it elsewhere)")
    };
    let bound = error.is::<input::TooLarge>().then(bound).unwrap_or_default();
    error.context(format!("unpacking {name}{bound}"))
}

pub(super) fn temporary() -> Result<File> {
    tempfile::tempfile().with_context(no_room)
}

pub(super) fn no_room() -> String {
    let place = std::env::temp_dir();
    format!("keeping the image in {} (TMPDIR names another directory)", place.display())
}

/// Compares the image with `--sha256`, and a file with the list beside it.
fn check_digest(
    file: &File,
    name: &str,
    sha256: Option<Digest>,
    listed: Option<(String, Digest)>,
    progress: &dyn Progress,
) -> Result<()> {
    let expected = sha256.map(|digest| ("--sha256".to_owned(), digest)).into_iter().chain(listed);
    let expected: Vec<(String, Digest)> = expected.collect();
    if expected.is_empty() {
        return Ok(());
    }
    let _task = Task::new(progress, "comparing the digest", 0, Unit::Bytes);
    let actual = raw::digest(file).with_context(|| format!("reading {name}"))?;
    match expected.into_iter().find(|(_, expected)| *expected != actual) {
        Some((by, expected)) => {
            Err(Refusal::OtherBytes { name: name.to_owned(), by, expected, actual }.into())
        }
        None => Ok(()),
    }
}

/// What SHA256SUMS beside `image` says of it.
fn listed(image: &Path) -> Result<Option<(String, Digest)>> {
    let sums = image.with_file_name(SUMS);
    let text = match input::read_text(&sums, limits::TEXT) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("reading {}", sums.display())),
    };
    let name = image.file_name().unwrap_or_default().to_string_lossy();
    let line = text.lines().find_map(|line| {
        let (digest, of) = line.split_once(' ')?;
        (of.trim_start_matches([' ', '*']) == name).then_some(digest)
    });
    let digest = line.map(str::parse).transpose();
    let digest = digest.with_context(|| format!("reading {}", sums.display()))?;
    Ok(digest.map(|digest| (sums.display().to_string(), digest)))
}

/// Most bytes that a frame of `packed` bytes may unpack to.
fn most_of(packed: u64) -> u64 {
    limits::DOWNLOAD.min(limits::DISK_SLACK.saturating_add(limits::RATIO.saturating_mul(packed)))
}

/// The raw disk in `file`.
fn unpacked(file: File, name: &str, progress: &dyn Progress) -> Result<Arc<dyn Shared>> {
    let reading = || format!("reading {name}");
    let raw = |file| FileDevice::image(file, SectorSize::B512).with_context(reading);
    match Format::of(&file).with_context(reading)? {
        Format::Raw => Ok(Arc::new(raw(file)?)),
        Format::RawZst => {
            let damaged =
                |error: io::Error| Refusal::Damaged { name: name.to_owned(), problem: error.to_string() };
            if let Some(frames) = Frames::open(file.try_clone()?).map_err(damaged)? {
                return Ok(Arc::new(frames));
            }
            // One frame for all of it, as zstd makes it: it has no places to begin at.
            let task = Task::new(progress, "unpacking", 0, Unit::Bytes);
            let mut source = file;
            let packed = source.metadata().with_context(reading)?.len();
            io::Seek::rewind(&mut source)?;
            let mut reader = Compression::Zstd.reader(BufReader::new(source)).map_err(damaged)?;
            let limit = most_of(packed);
            let unpacked = spool(&mut reader, limit, &task).map_err(|error| not_unpacked(name, error))?;
            Ok(Arc::new(raw(unpacked)?))
        }
        other => {
            let (name, format) = (name.to_owned(), other.name());
            Err(match other.unpacked_by() {
                Some(command) => Refusal::Format { name, format, command },
                None => Refusal::FromMemory { name, format },
            }
            .into())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt, MetadataExt};

    use super::*;
    use crate::base::progress::Silent;

    /// A frame of kilobytes may have gigabytes in it.
    #[test]
    fn what_unpacks_has_a_bound_and_holes() {
        assert_eq!(most_of(700_000), (1 << 30) + 70_000_000);
        assert_eq!((most_of(60_000_000), most_of(u64::MAX)), ((1 << 30) + 6_000_000_000, 16 << 30));
        let task = Task::new(&Silent, "unpacking", 0, Unit::Bytes);
        let zeros = |count| io::repeat(0).take(count);
        let error = spool(&mut zeros(5 << 20), 4 << 20, &task).unwrap_err();
        assert_eq!(error.to_string(), "it has more than the 4.0 MiB that are read of such a file");
        assert!(
            not_unpacked("a.zst", error)
                .to_string()
                .starts_with("unpacking a.zst, of which 1.0 GiB and 100 ")
        );
        let lost = || Err::<(), _>(io::Error::other("damaged")).with_context(no_room);
        assert_eq!(not_unpacked("a.zst", lost().unwrap_err()).to_string(), "unpacking a.zst");
        let mut source = zeros(3 << 20).chain(&b"a disk"[..]).chain(zeros(2 << 20));
        let file = spool(&mut source, 6 << 20, &task).unwrap();
        let metadata = file.metadata().unwrap();
        assert_eq!(metadata.len(), (5 << 20) + 6);
        assert!(metadata.blocks() * 512 <= 2 << 20, "{metadata:?}");
        let mut read = vec![1; to_usize(metadata.len())];
        file.read_exact_at(&mut read, 0).unwrap();
        assert_eq!(read.iter().position(|byte| *byte != 0), Some(3 << 20));
        assert_eq!(&read[3 << 20..(3 << 20) + 8], b"a disk\0\0");
    }
}
