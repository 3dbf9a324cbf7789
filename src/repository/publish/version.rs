//! The files of one version: frames, index, kernel image, and patches from the versions before.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;

use rayon::prelude::*;

use super::pieces::{self, Joined, Laid, MOST_OF_FRAMES, MOST_OF_WHOLE, Pieced};
use super::*;
use crate::base::Chain;
use crate::base::device::{FileDevice, SectorSize, Window};
use crate::base::progress::Task;
use crate::base::progress::Unit;
use crate::base::width::to_u64;
use crate::update::delta::{
    self, Elsewhere, Framed, KnownFrames, KnownSegments, Reused, Sources, Taken, Unfinished, Way,
};
use crate::update::document::{Blob, FORMAT, FORMAT_WHOLE, Patch, Piece, RootImage, Uki, Ways};
use crate::verity::{self, BLOCK};

/// Bytes of an old root that are hashed at once.
const BATCH: usize = 4 << 20;
/// Bytes that are written to a scratch file at once.
const SCRATCH: usize = 1 << 20;

/// Where lies what was compressed for a version that is not published yet.
const UNFINISHED: &str = "unfinished";

/// Versions whose patches are made side by side: each takes up to 450 MB of memory.
const SIDE_BY_SIDE: usize = 2;

/// How an image is compressed.
#[derive(Clone, Copy)]
struct How<'a> {
    /// zstd's level.
    level: i32,
    /// What the version before travels by.
    earlier: Option<&'a Ways>,
    /// Whether parts of it may stay in the files of that version.
    joins: bool,
    /// What a try before has left, and this one leaves.
    unfinished: Option<&'a Unfinished>,
}

/// A version that patches start from.
struct Before {
    root: File,
    uki: Vec<u8>,
}

impl Repository<'_> {
    /// Writes what `image` travels by; gives what is to be signed about it. `published` are the documents of the
    /// versions before.
    pub(super) fn write_version(
        &self,
        image: &Image<'_>,
        options: &Options,
        published: &[Document],
        progress: &dyn Progress,
    ) -> Result<(Document, Vec<Patched>), PublishError> {
        let (new_root, new_uki) = ((image.root, image.root_size), image.uki);
        let mut older: Vec<&Document> =
            published.iter().filter(|it| compare(&it.version, image.version).is_lt()).collect();
        older.sort_by(|a, b| compare(&b.version, &a.version));
        let earlier = older.first();
        let level = options.level;
        let hindrance = self.hindrance(image, options, published)?;
        if let (Some(_), Some(version)) = (earlier, &hindrance) {
            progress.note(&format!(
                "{} shares no files with earlier versions: nodes of {version} can update to it in one step and cannot \
                 read shared files; next time, a --minimum newer than {version} avoids this",
                image.version
            ));
        }
        let unfinished = self.unfinished(level, progress);
        let how = |ways: fn(&Document) -> &Ways| How {
            level,
            earlier: earlier.map(|document| ways(document)),
            joins: hindrance.is_none(),
            unfinished: unfinished.as_ref(),
        };
        let of_root = how(|document| &document.root.ways);
        let ways = self.ways("the root", new_root, of_root, progress, |how, frames, index| {
            delta::publish_root(new_root.0, new_root.1, how, frames, index, progress)
        })?;
        let mut root = RootImage {
            root_hash: image.root_hash,
            size: image.root_size,
            salt: hex::encode(image.salt),
            verity_uuid: image.verity_uuid,
            ways,
        };
        let size = to_u64(new_uki.len());
        let of_uki = how(|document| &document.uki.ways);
        let ways =
            self.ways("the kernel image", (&new_uki, size), of_uki, progress, |how, frames, index| {
                delta::publish_uki(new_uki, how, frames, index, progress)
            })?;
        let mut uki = Uki { sha256: Digest::of(new_uki), size, ways };
        older.truncate(options.patches);
        let folder = &self.folder;
        let mut made = Vec::new();
        for some in older.chunks(SIDE_BY_SIDE) {
            let some: Result<Vec<Made>, _> =
                some.par_iter().map(|old| Made::from(folder, old, image, progress)).collect();
            made.extend(some?);
        }
        let mut patches = Vec::new();
        for (old, made) in older.into_iter().zip(made) {
            let mut patched = Patched { from: old.version.clone(), root: None, uki: None };
            let what = format!("the patch from {}", old.version);
            let put = |bytes: &[u8]| self.blob(&what, |out| Ok(out.write_all(bytes)?)).map(|(blob, ())| blob);
            // One that is no shorter stays unnamed.
            let version = || old.version.clone();
            if to_u64(made.root.len()) < root.ways.full.size && old.root.root_hash != image.root_hash {
                let blob = put(&made.root)?;
                root.ways.patches.push(Patch { from: old.root.root_hash, version: version(), blob });
                patched.root = Some(blob.size);
            }
            if to_u64(made.uki.len()) < uki.ways.full.size && old.uki.sha256 != uki.sha256 {
                let blob = put(&made.uki)?;
                uki.ways.patches.push(Patch { from: old.uki.sha256, version: version(), blob });
                patched.uki = Some(blob.size);
            }
            patches.push(patched);
        }
        let document = Document {
            format: if root.ways.has_pieces() || uki.ways.has_pieces() { FORMAT } else { FORMAT_WHOLE },
            id: image.id.to_owned(),
            version: image.version.to_owned(),
            minimum: options.minimum.clone(),
            notes: options.notes.clone().unwrap_or_default(),
            epoch: image.epoch,
            reads: image.reads,
            sector_size: image.sector_size,
            root,
            uki,
        };
        Ok((document, patches))
    }

    /// The newest version whose nodes can update to this one in one step, and cannot read of versions that lie in several
    /// files.
    pub(super) fn hindrance(
        &self,
        image: &Image<'_>,
        options: &Options,
        published: &[Document],
    ) -> Result<Option<String>, PublishError> {
        let former = self.former()?;
        let former = former.image(image.id).and_then(|it| it.reads_whole());
        let listed = published.iter().filter(|it| it.reads < FORMAT).map(|it| it.version.as_str());
        let comes = |version: &str| {
            compare(version, image.version).is_lt()
                && options.minimum.as_deref().is_none_or(|minimum| compare(version, minimum).is_ge())
        };
        let coming = listed.chain(former).filter(|version| comes(version));
        Ok(coming.max_by(|a, b| compare(a, b)).map(str::to_owned))
    }

    /// Writes a release document; gives what the list of releases names it by.
    pub(super) fn write_document(&self, document: &Document) -> Result<Blob, PublishError> {
        let mut bytes = serde_json::to_vec_pretty(document).expect("names and numbers");
        bytes.push(b'\n');
        let blob = Blob::of(&bytes);
        let path = Listing::of(document, blob, Layout { esp: 0, root: 0, verity: 0 }).path();
        let writing = |source| PublishError::Write { path: path.clone(), source };
        self.folder.add(&path, &bytes).map_err(writing)?;
        for folder in ["targets", "blobs"] {
            self.folder.sync(folder).map_err(writing)?;
        }
        Ok(blob)
    }

    /// Writes the files by which an image travels, but for patches. What the version before has of it, compressed to the
    /// same level, is taken over.
    fn ways(
        &self,
        what: &str,
        (image, size): (&(dyn ReadAt + Sync), u64),
        How { level, earlier, joins, unfinished }: How<'_>,
        progress: &dyn Progress,
        publish: impl Fn(
            delta::How,
            &mut dyn Write,
            &mut dyn Write,
        ) -> Result<delta::Published, delta::PublishError>,
    ) -> Result<Ways, PublishError> {
        let earlier = earlier.filter(|ways| ways.level == Some(level));
        let earlier = earlier.and_then(|ways| Earlier::open(&self.folder, ways, what, progress));
        let known = earlier.as_ref().and_then(|earlier| earlier.frames(what, progress));
        let failed = |source| PublishError::Write { path: format!("the frames of {what}"), source };
        let scratch = self.scratch().map_err(failed)?;
        let mut index = Vec::new();
        let mut out = BufWriter::with_capacity(SCRATCH, &scratch);
        let published =
            publish(delta::How { level, known: known.as_ref(), unfinished }, &mut out, &mut index)?;
        out.flush().map_err(failed)?;
        drop(out);
        let frames_file = FileDevice::image(scratch, SectorSize::B512).map_err(failed)?;
        let places = |it: &Reused| {
            let from = it.from..it.from + (it.range.end - it.range.start);
            earlier.as_ref().map(|earlier| (it.range.clone(), earlier.laid_frames.locate(&from)))
        };
        let reused = published.reused.iter().filter(|_| joins);
        let taken: Vec<_> = reused.filter_map(places).collect();
        let before = earlier.as_ref().map(|earlier| &earlier.laid_frames);
        let frames =
            self.lay(&format!("the frames of {what}"), &frames_file, (&taken, MOST_OF_FRAMES), before)?;
        let (index_blob, ()) =
            self.blob(&format!("the index of {what}"), |out| Ok(out.write_all(&index)?))?;

        let name = format!("all of {what}");
        let failed = |source| PublishError::Write { path: name.clone(), source };
        let segments = earlier.as_ref().and_then(|earlier| earlier.segments(what, progress));
        let framed = Framed::read(&index, &frames_file, &published.reused).ok();
        let framed = framed.as_ref().filter(|_| joins && earlier.is_some());
        let sources = Sources { segments: segments.as_ref(), frames: framed, unfinished };
        let scratch = self.scratch().map_err(failed)?;
        let mut out = BufWriter::with_capacity(SCRATCH, &scratch);
        let whole = delta::make_whole(image, size, level, &sources, &mut out, progress)?;
        out.flush().map_err(failed)?;
        drop(out);
        let body = FileDevice::image(scratch, SectorSize::B512).map_err(failed)?;
        let places = |it: &Taken| {
            let length = it.range.end - it.range.start;
            let (laid, at) = match it.from {
                Elsewhere::Segments(at) => (&earlier.as_ref()?.laid_full, at),
                Elsewhere::Frames(at) => (&frames, at),
            };
            Some((it.range.clone(), laid.locate(&(at..at + length))))
        };
        let taken: Vec<_> = whole.taken.iter().filter(|_| joins).filter_map(places).collect();
        let before = earlier.as_ref().map(|earlier| &earlier.laid_full);
        let full = self.lay(&name, &Joined { head: whole.head, body }, (&taken, MOST_OF_WHOLE), before)?;
        Ok(Ways {
            full: full.blob,
            frames: frames.blob,
            index: index_blob,
            patches: Vec::new(),
            level: Some(level),
            full_pieces: full.pieces,
            frames_pieces: frames.pieces,
        })
    }

    /// What was compressed for a version that was never published. A publication without it is as good, and takes as long as
    /// the first.
    fn unfinished(&self, level: i32, progress: &dyn Progress) -> Option<Unfinished> {
        let path = self.folder.path().join(UNFINISHED);
        let mut options = File::options();
        // Nobody else writes here, and a link would lead elsewhere.
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        let opened = options.open(&path).and_then(|file| match file.metadata()?.is_file() {
            true => Unfinished::open(file, level),
            false => Err(io::Error::other("it is not a regular file")),
        });
        match opened {
            Ok(unfinished) => {
                if unfinished.count() > 0 {
                    progress.note("an earlier publication was cut short: what it had compressed is reused");
                }
                Some(unfinished)
            }
            Err(error) => {
                progress.warn(&format!(
                    "{}: {error}; should this publication be cut short, the next one begins anew",
                    path.display()
                ));
                None
            }
        }
    }

    /// Removes it, once the version is published.
    pub(super) fn finish(&self, progress: &dyn Progress) {
        if let Err(error) = self.folder.remove(UNFINISHED) {
            let path = self.folder.path().join(UNFINISHED);
            progress.warn(&format!("removing {}, which nothing needs any more: {error}", path.display()));
        }
    }

    /// A file without a name, which is gone with its publisher.
    fn scratch(&self) -> io::Result<File> {
        tempfile::tempfile_in(self.folder.path())
    }

    fn lay(
        &self,
        what: &str,
        file: &dyn ReadAt,
        taken: (&[(Range<u64>, Vec<Piece>)], usize),
        before: Option<&Laid>,
    ) -> Result<Laid, PublishError> {
        let laid: io::Result<Laid> = pieces::lay(&self.folder, file, taken, before);
        laid.map_err(|source| PublishError::Write { path: what.to_owned(), source })
    }

    fn blob<T>(
        &self,
        what: &str,
        write: impl FnOnce(&mut dyn Write) -> Result<T, PublishError>,
    ) -> Result<(Blob, T), PublishError> {
        self.folder.add_blob(write).map_err(|error| match error {
            PublishError::Io(source) => PublishError::Write { path: what.to_owned(), source },
            error => error,
        })
    }
}

/// Files of the version before. What of them does not serve is made anew, and none of it is a reason to fail.
struct Earlier {
    index: Vec<u8>,
    laid_frames: Laid,
    laid_full: Laid,
    frames: Pieced,
    full: Pieced,
}

impl Earlier {
    fn open(folder: &Folder, ways: &Ways, what: &str, progress: &dyn Progress) -> Option<Self> {
        let laid_frames = Laid::new(ways.frames, &ways.frames_pieces);
        let laid_full = Laid::new(ways.full, &ways.full_pieces);
        let open = || {
            let index = input::read(folder.path().join(ways.index.path()), ways.index.size)?;
            let (frames, full) = (Pieced::open(folder, &laid_frames)?, Pieced::open(folder, &laid_full)?);
            Ok::<_, io::Error>(Self { index, laid_frames, laid_full, frames, full })
        };
        open().inspect_err(|error| of_no_use(what, error, progress)).ok()
    }

    fn frames(&self, what: &str, progress: &dyn Progress) -> Option<KnownFrames<'_>> {
        let known = KnownFrames::read(&self.index, &self.frames);
        known.inspect_err(|error| of_no_use(what, error, progress)).ok()
    }

    fn segments(&self, what: &str, progress: &dyn Progress) -> Option<KnownSegments<'_>> {
        let known = KnownSegments::read(&self.full);
        known.inspect_err(|error| of_no_use(what, error, progress)).ok()
    }
}

fn of_no_use(what: &str, error: &(dyn std::error::Error + 'static), progress: &dyn Progress) {
    progress.warn(&format!(
        "{what} is compressed again, because the files of the version before cannot be read: {}; restore them from the \
         copy on the web server",
        Chain(error)
    ));
}

/// The patches from one version.
struct Made {
    root: Vec<u8>,
    uki: Vec<u8>,
}

impl Made {
    /// Makes them, of a version that is put together again out of the repository's own files.
    fn from(
        folder: &Folder,
        old: &Document,
        image: &Image<'_>,
        progress: &dyn Progress,
    ) -> Result<Self, PublishError> {
        let before = Before::read(folder, old, progress)?;
        let (mut root, mut uki) = (Vec::new(), Vec::new());
        let device = FileDevice::image(before.root, SectorSize::B512)?;
        delta::make_patch(&device, old.root.size, image.root, image.root_size, &mut root, progress)?;
        let (old, new) = (before.uki.as_slice(), image.uki);
        delta::make_patch(&old, to_u64(old.len()), &new, to_u64(new.len()), &mut uki, progress)?;
        Ok(Self { root, uki })
    }
}

impl Before {
    /// Puts an older version together again out of the repository's own files, in a file without a name.
    fn read(folder: &Folder, old: &Document, progress: &dyn Progress) -> Result<Self, PublishError> {
        let version = || old.version.clone();
        let damaged = |source| PublishError::Old { version: version(), source };
        // Frames are the quickest to read.
        let ways = [Way::Blocks];
        let mut uki = Vec::new();
        delta::uki_by(&ways, &old.uki, folder, None, &mut uki, progress).map_err(damaged)?;
        let root = tempfile::tempfile_in(folder.path())?;
        root.set_len(old.root.size)?;
        let mut device = FileDevice::image(root.try_clone()?, SectorSize::B512)?;
        delta::root_by(&ways, &old.root, folder, None, &mut device, progress).map_err(damaged)?;
        let salt = hex::decode(&old.root.salt).unwrap_or_default();
        let hash = root_hash(&device, old.root.size, salt, old.root.verity_uuid, progress)?;
        if hash != old.root.root_hash {
            let (expected, actual) = (old.root.root_hash, hash);
            return Err(PublishError::OldHash { version: version(), expected, actual });
        }
        Ok(Self { root, uki })
    }
}

fn root_hash(
    root: &FileDevice,
    size: u64,
    salt: Vec<u8>,
    uuid: Uuid,
    progress: &dyn Progress,
) -> Result<Digest, PublishError> {
    let task = Task::new(progress, "verifying the version before", size, Unit::Bytes);
    let mut tree = verity::Writer::new(io::sink(), verity::Options { salt, uuid })?;
    let mut window = Window::new(root, 0, size);
    let mut batch = vec![0; BATCH.max(BLOCK)];
    loop {
        let count = window.read(&mut batch)?;
        if count == 0 {
            return Ok(tree.finish()?.root_hash.digest());
        }
        tree.write_all(&batch[..count])?;
        task.advance(to_u64(count));
    }
}
