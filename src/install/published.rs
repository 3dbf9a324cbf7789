//! A version out of the signed repository that updates come from, put together as the image that it was published as. What an
//! image has around its root follows from what is signed ([`around`]).

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::{self, BufReader};
use std::iter;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use super::aside::aside;
use super::fetch::{PAUSES, Patience};
use super::image::{Image, PIECE, no_room, temporary};
use super::refusal::Refusal;
use super::write::WriteError;
use crate::base::device::{ReadAt, Shared, Window};
use crate::base::progress::Counted as Hashed;
use crate::base::scratch::Scratch;
use crate::base::version::compare;
use crate::base::width::{to_u64, to_usize};
use crate::base::{Chain, Progress, Size, Task, Unit, clock, kernel};
use crate::disk::{FileDevice, Role, SectorSize, Slot};
use crate::http::url::{Url, UrlError, is_address};
use crate::image::{around, node_disk};
use crate::repository::{Client, Folder, Listing, RepositoryError, Web};
use crate::update::delta::{self, DeltaError};
use crate::update::{Counted, Document, Remote, RemoteError};
use crate::verity;

/// Retries in a row where somebody waits, after the first of [`PAUSES`].
const TRIES: usize = 5;
/// How often somebody who waits is given as many tries again, since something has come.
const HOPES: usize = 100;
/// Bytes in files that an image takes besides its root, its hash tree and its ESP's files: both ends, and the FATs.
const SLACK: u64 = 4 << 20;
/// systemd-boot has some 130 KB, and lies in the ESP twice.
const LOADERS: u64 = 1 << 20;

/// Where a repository is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A web server.
    Web(Url),
    /// A directory.
    Directory(PathBuf),
}

impl Place {
    /// As people write it: an address, or else a path.
    ///
    /// # Errors
    /// An address that is none.
    pub fn of(text: &str) -> Result<Self, UrlError> {
        match is_address(text) {
            true => Url::root(text).map(Self::Web),
            false => Ok(Self::Directory(text.into())),
        }
    }
}

impl fmt::Display for Place {
    /// Without what is secret of an address.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Web(url) => write!(f, "{url}"),
            Self::Directory(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Which version is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The newest in this channel.
    Newest(String),
    /// This one, in whatever channel.
    Version(String),
}

/// A version in a signed repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Where the repository is.
    pub place: Place,
    /// The root of trust.
    pub root_json: Vec<u8>,
    /// Which version.
    pub wanted: Wanted,
    /// Of which image; where none is named, of the only one that there is, or of `own`.
    pub id: Option<String>,
    /// Image and version that this system runs.
    pub own: Option<(String, String)>,
    /// Earliest time that is believed of the clock, in seconds since 1970.
    pub epoch: i64,
    /// Proxy for http and https, else the host's.
    pub proxy: Option<String>,
    /// PEM files with further CA certificates.
    pub authorities: Vec<PathBuf>,
}

impl fmt::Display for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.id.as_ref().map(|id| format!("{id} ")).unwrap_or_default();
        match &self.wanted {
            Wanted::Newest(channel) => write!(f, "the newest {id}in channel {channel} of {}", self.place),
            Wanted::Version(version) => write!(f, "{id}{version} of {}", self.place),
        }
    }
}

/// What a disk must have for a version to be of use there.
pub(super) struct Sectors {
    /// Of the disk, for messages.
    pub path: String,
    /// As the disk has them.
    pub size: SectorSize,
}

impl Published {
    /// Fetches the image into files without a name; only the metadata lies in a directory with one meanwhile. `sectors` are
    /// those of the target disk. With `unattended`, it tries again for as long as the cause may pass.
    ///
    /// # Errors
    /// [`Refusal`]; what the repository and servers say; [`WriteError::BeforeAnything`] once `is_stopped`.
    pub(super) fn bring(
        &self,
        sectors: Option<Sectors>,
        unattended: bool,
        is_stopped: &dyn Fn() -> bool,
        progress: &dyn Progress,
    ) -> Result<Image> {
        // The one directory with a name: it is this thread's, which outlives an interruption.
        let metadata = Scratch::new("keller-")?;
        let (own, path, patience) = (self.clone(), metadata.path().to_owned(), patience(unattended));
        let work = move |progress: &dyn Progress| {
            let (bytes, name) = own.assemble(&path, sectors, patience, progress)?;
            Image::check(bytes, &name, progress)
        };
        aside(work, is_stopped, progress).unwrap_or_else(|| Err(WriteError::BeforeAnything.into()))
    }

    /// The raw image, as its build wrote it. What is seen of the repository is kept in the directory `metadata`.
    ///
    /// # Errors
    /// [`Refusal`]; what the repository and servers say.
    pub fn image(&self, metadata: &Path, progress: &dyn Progress) -> Result<Arc<dyn Shared>> {
        self.assemble(metadata, None, Patience::Short, progress).map(|(bytes, _)| bytes)
    }

    /// The same, and its name for messages.
    fn assemble(
        &self,
        metadata: &Path,
        sectors: Option<Sectors>,
        patience: Patience,
        progress: &dyn Progress,
    ) -> Result<(Arc<dyn Shared>, String)> {
        let remote = self.connect()?;
        let remote = Counted::new(&*remote);
        let document = self.look(&remote, metadata, patience, progress)?;
        let name = format!("{} {} of {}", document.id, document.version, self.place);
        if let Some(why) = self.older(&document) {
            progress.warn(&why);
        }
        let image = SectorSize::try_from(document.sector_size)?;
        if let Some(Sectors { path, size }) = sectors.filter(|disk| disk.size != image) {
            return Err(Refusal::Sectors { path, disk: size, image }.into());
        }
        check_room(&document, &name)?;
        progress.note(&format!("fetching {name}"));
        let fetching = Fetching { document: &document, remote: &remote, patience, name: &name, progress };
        let uki = fetching.uki()?;
        let (root, tree) = fetching.root()?;
        let bytes = fetching.whole(root, &tree, uki).with_context(|| format!("putting {name} together"))?;
        Ok((Arc::new(bytes), name))
    }

    /// What somebody must know where the newest version is older than the one that this system runs: nothing here remembers
    /// what the repository had before.
    fn older(&self, found: &Document) -> Option<String> {
        let (_, runs) = self.own.as_ref().filter(|(id, _)| *id == found.id)?;
        let is_older = matches!(self.wanted, Wanted::Newest(_)) && compare(&found.version, runs).is_lt();
        is_older.then(|| {
            format!(
                "the newest version at {} is {}, and this machine runs {runs}: that one was withdrawn, or the repository is an \
                 old copy",
                self.place, found.version
            )
        })
    }

    /// Image and version that [`Published::bring`] would bring.
    ///
    /// # Errors
    /// The same.
    pub(super) fn find(
        &self,
        unattended: bool,
        is_stopped: &dyn Fn() -> bool,
        progress: &dyn Progress,
    ) -> Result<(String, String)> {
        let metadata = Scratch::new("keller-")?;
        let (own, path, patience) = (self.clone(), metadata.path().to_owned(), patience(unattended));
        let work = move |progress: &dyn Progress| {
            let remote = own.connect()?;
            let document = own.look(&Counted::new(&*remote), &path, patience, progress)?;
            Ok((document.id, document.version))
        };
        aside(work, is_stopped, progress).unwrap_or_else(|| Err(WriteError::BeforeAnything.into()))
    }

    fn connect(&self) -> Result<Box<dyn Remote>> {
        Ok(match &self.place {
            Place::Web(url) => Box::new(Web::connect(url.clone(), self.proxy.as_deref(), &self.authorities)?),
            Place::Directory(path) => {
                anyhow::ensure!(path.is_dir(), "{}, the repository, is not a directory", path.display());
                Box::new(Folder::new(path))
            }
        })
    }

    /// The signed document of the version that is meant.
    fn look(
        &self,
        remote: &Counted<'_>,
        metadata: &Path,
        patience: Patience,
        progress: &dyn Progress,
    ) -> Result<Document> {
        let _task = Task::new(progress, "looking at the repository", 0, Unit::Items);
        let passes = |error: &anyhow::Error| is_endless(patience) && may_pass(error);
        insist(patience, remote, progress, passes, || {
            let now = clock::believed(clock::shown(), self.epoch)?;
            let doing = || format!("looking for an image at {}", self.place);
            let trusted = Client::update(&self.root_json, remote, metadata, now).with_context(doing)?;
            let was_there = |id: &str, version: &str| trusted.was_published(id, version);
            let listing = self.choose(trusted.releases(), &was_there)?;
            let document = trusted.document(listing).with_context(doing)?;
            // Metadata that has expired looks good to a clock that is behind.
            clock::believed(now, document.epoch)?;
            Ok(document)
        })
    }

    /// Of what is published, the newest first, the version that is meant.
    fn choose<'l>(
        &self,
        listings: &'l [Listing],
        was_there: &dyn Fn(&str, &str) -> bool,
    ) -> Result<&'l Listing, Refusal> {
        let id = self.choose_id(listings)?;
        let mut own = listings.iter().filter(|listing| listing.id == id);
        let found = own.clone().find(|listing| self.fits(listing));
        found.ok_or_else(|| match &self.wanted {
            Wanted::Newest(channel) => {
                let channels = own.flat_map(|listing| listing.channels.iter().cloned()).collect();
                Refusal::NoChannel { id: id.to_owned(), channel: channel.clone(), channels: named(channels) }
            }
            Wanted::Version(version) => Refusal::NoVersion {
                id: id.to_owned(),
                version: version.clone(),
                was_there: was_there(id, version),
                versions: own.by_ref().map(|listing| &*listing.version).collect::<Vec<_>>().join(", "),
            },
        })
    }

    fn fits(&self, listing: &Listing) -> bool {
        match &self.wanted {
            Wanted::Newest(channel) => listing.is_in(channel),
            Wanted::Version(version) => listing.version == *version,
        }
    }

    fn choose_id<'l>(&'l self, listings: &'l [Listing]) -> Result<&'l str, Refusal> {
        let repository = || self.place.to_string();
        let ids = |listings: &mut dyn Iterator<Item = &'l Listing>| -> BTreeSet<&'l str> {
            listings.map(|listing| &*listing.id).collect()
        };
        let all = ids(&mut listings.iter());
        let fitting = ids(&mut listings.iter().filter(|listing| self.fits(listing)));
        let ids = if fitting.is_empty() { &all } else { &fitting };
        let listed = |ids: &BTreeSet<&str>| named(ids.iter().map(|id| (*id).to_owned()).collect());
        match (&self.id, ids.first()) {
            (_, None) => Err(Refusal::NothingPublished { repository: repository() }),
            (Some(id), _) if all.contains(&**id) => Ok(id),
            (Some(id), _) => {
                Err(Refusal::NoId { repository: repository(), id: id.clone(), ids: listed(&all) })
            }
            (None, Some(id)) if ids.len() == 1 => Ok(id),
            (None, _) => {
                let own = self.own.as_ref().map(|(id, _)| id.as_str()).filter(|own| ids.contains(own));
                own.ok_or_else(|| Refusal::SeveralIds { repository: repository(), ids: listed(ids) })
            }
        }
    }
}

fn named(words: BTreeSet<String>) -> String {
    if words.is_empty() { "none".to_owned() } else { words.into_iter().collect::<Vec<_>>().join(", ") }
}

/// Whether what is wrong with a repository may be mended while a machine waits: by its network, its clock or its publisher.
fn may_pass(error: &anyhow::Error) -> bool {
    if error.is::<crate::base::failure::Failure>() {
        return true;
    }
    matches!(
        error.downcast_ref(),
        Some(
            RepositoryError::Remote(_)
                | RepositoryError::NotFound { .. }
                | RepositoryError::Inconsistent { .. }
                | RepositoryError::Expired { .. }
        )
    )
}

fn patience(unattended: bool) -> Patience {
    if unattended { Patience::Endless(&PAUSES) } else { Patience::Short }
}

fn is_endless(patience: Patience) -> bool {
    matches!(patience, Patience::Endless(_))
}

/// The pauses between tries.
fn pauses(patience: Patience) -> Box<dyn Iterator<Item = Duration>> {
    match patience {
        Patience::Short => Box::new(PAUSES.into_iter().take(TRIES)),
        Patience::Endless(pauses) => {
            let last = pauses.last().copied().unwrap_or_default();
            Box::new(pauses.iter().copied().chain(iter::repeat(last)))
        }
    }
}

/// Does `act` until it succeeds, or fails with what does not pass, or so often that nothing more is to be hoped for. Whatever
/// came from `remote` in between gives new hope, but not for ever where somebody waits: it may be the same bytes each time.
fn insist<T>(
    patience: Patience,
    remote: &Counted<'_>,
    progress: &dyn Progress,
    passes: impl Fn(&anyhow::Error) -> bool,
    mut act: impl FnMut() -> Result<T>,
) -> Result<T> {
    let (mut left, mut hopes) = (pauses(patience), HOPES);
    loop {
        let before = remote.bytes();
        let error = match act() {
            Ok(done) => return Ok(done),
            Err(error) if passes(&error) => error,
            Err(error) => return Err(error),
        };
        if remote.bytes() - before >= PIECE && hopes > 0 {
            left = pauses(patience);
            hopes -= 1;
        }
        let Some(pause) = left.next() else { return Err(error) };
        progress.warn(&format!("{}; the next try is in {} s", Chain(error.as_ref()), pause.as_secs()));
        thread::sleep(pause);
    }
}

/// A version on its way.
struct Fetching<'a> {
    document: &'a Document,
    remote: &'a Counted<'a>,
    patience: Patience,
    /// For messages.
    name: &'a str,
    progress: &'a dyn Progress,
}

impl Fetching<'_> {
    fn insist<T>(&self, mut act: impl FnMut() -> Result<T, DeltaError>) -> Result<T> {
        let passes = |error: &anyhow::Error| {
            let is_endless = is_endless(self.patience);
            match error.downcast_ref() {
                Some(
                    DeltaError::Broken { .. }
                    | DeltaError::Short { .. }
                    | DeltaError::Remote(RemoteError::Failed { .. }),
                ) => true,
                Some(DeltaError::Remote(RemoteError::Missing { .. })) => is_endless,
                _ => false,
            }
        };
        insist(self.patience, self.remote, self.progress, passes, || {
            act().with_context(|| format!("fetching {}", self.name))
        })
    }

    /// The kernel image, which has the digest of the document.
    fn uki(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.insist(|| delta::uki(&self.document.uki, self.remote, None, &mut bytes, self.progress))?;
        Ok(bytes)
    }

    /// The root, which has the root hash of the document, and its hash tree.
    fn root(&self) -> Result<(File, verity::HashTree)> {
        let root = &self.document.root;
        let file = temporary()?;
        file.set_len(root.size).with_context(no_room)?;
        let mut target = FileDevice::image(file.try_clone()?, SectorSize::B512).with_context(no_room)?;
        let mut tries = 0;
        self.insist(|| {
            tries += 1;
            delta::root(root, self.remote, None, &mut target, self.progress)
        })?;
        let mut tree = self.hashed(&target)?;
        // What an earlier try has left was told by digests that are short.
        if tree.root_hash.digest() != root.root_hash && tries > 1 {
            self.progress.warn("the root became something else; all of it is fetched again");
            self.insist(|| delta::root_afresh(root, self.remote, &mut target, self.progress))?;
            tree = self.hashed(&target)?;
        }
        let actual = tree.root_hash.digest();
        match actual == root.root_hash {
            true => Ok((file, tree)),
            false => {
                let expected = root.root_hash;
                let problem = format!("expected a root with root hash {expected}, but have {actual}");
                Err(Refusal::Damaged { name: self.name.to_owned(), problem }.into())
            }
        }
    }

    fn hashed(&self, root: &FileDevice) -> Result<verity::HashTree> {
        let size = self.document.root.size;
        let task = Task::new(self.progress, "checking the root", size, Unit::Bytes);
        let salt = hex::decode(&self.document.root.salt).context("reading the salt of the hash tree")?;
        let options = verity::Options { salt, uuid: self.document.root.verity_uuid };
        let mut writer = verity::Writer::new(io::sink(), options)?;
        let data = BufReader::with_capacity(to_usize(PIECE), Window::new(root, 0, size));
        io::copy(&mut Hashed::new(data, &task), &mut writer).context("reading the root")?;
        Ok(writer.finish()?)
    }

    /// The image: the root where it is, and all else in a file beside it.
    fn whole(&self, root: File, tree: &verity::HashTree, uki: Vec<u8>) -> Result<Joined> {
        let document = self.document;
        let root = Arc::new(FileDevice::image(root, SectorSize::B512)?);
        let (layout, loader) = node_disk::of_root_alone(root.clone())?;
        layout.check(Role::Root(Slot::A), document.root.size)?;
        let file = temporary()?;
        let parts = around::Parts {
            layout: &layout,
            release: &document.release(),
            root_size: document.root.size,
            tree: &tree.bytes,
            loader: &loader,
            uki,
            epoch: document.epoch,
        };
        around::write(parts, &file)?;
        let around = FileDevice::image(file, layout.sector_size)?;
        Ok(Joined { around, root, at: layout.partition(Role::Root(Slot::A)).start })
    }
}

/// An image whose root lies in a file of its own: it came before it was known where it goes.
#[derive(Debug)]
struct Joined {
    around: FileDevice,
    root: Arc<FileDevice>,
    /// Where the root begins.
    at: u64,
}

impl ReadAt for Joined {
    fn size(&self) -> u64 {
        self.around.size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let (begin, end) = (self.at, self.at + self.root.size());
        let (mut rest, mut at) = (buffer, offset);
        while !rest.is_empty() {
            let is_root = (begin..end).contains(&at);
            let border = if is_root {
                end
            } else if at < begin {
                begin
            } else {
                u64::MAX
            };
            let (now, after) = rest.split_at_mut(to_usize(to_u64(rest.len()).min(border - at)));
            match is_root {
                true => self.root.read_at(now, at - begin)?,
                false => self.around.read_at(now, at)?,
            }
            at += to_u64(now.len());
            rest = after;
        }
        Ok(())
    }
}

/// Refuses what the directory for temporary files cannot hold.
fn check_room(document: &Document, name: &str) -> Result<()> {
    let directory = std::env::temp_dir();
    let (root, uki) = (document.root.size, document.uki.size);
    let tree = verity::tree_size(root.div_ceil(to_u64(verity::BLOCK)));
    let needs = [root, tree, uki, LOADERS, SLACK].into_iter().fold(0, u64::saturating_add);
    let has = room(&directory).with_context(no_room)?;
    if has < needs {
        let (name, directory) = (name.to_owned(), directory.display().to_string());
        return Err(Refusal::NoRoom { name, directory, has: Size(has), needs: Size(needs) }.into());
    }
    Ok(())
}

/// Bytes that files in `directory` can have.
fn room(directory: &Path) -> io::Result<u64> {
    let found = rustix::fs::statvfs(directory)?;
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    // Its files are in memory, of which there may be less than it promises.
    let is_memory = rustix::fs::statfs(directory)?.f_type == libc::TMPFS_MAGIC;
    Ok(match kernel::available_memory().filter(|_| is_memory) {
        Some(memory) => free.min(memory),
        None => free,
    })
}
