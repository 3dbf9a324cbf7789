//! The files of one version: frames, index, kernel image, and patches from the versions before.

use std::fs::File;
use std::io::{self, Read, Write};

use super::*;
use crate::base::device::{FileDevice, SectorSize, Window};
use crate::base::progress::Task;
use crate::base::progress::Unit;
use crate::base::width::to_u64;
use crate::update::delta::{self, Way};
use crate::update::document::{Blob, FORMAT, Patch, RootImage, Uki, Ways};
use crate::verity::{self, BLOCK};

/// Bytes of an old root that are hashed at once.
const BATCH: usize = 4 << 20;

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
        let ways = self.ways("the root", new_root, options.level, progress, |frames, index| {
            delta::publish_root(new_root.0, new_root.1, options.level, frames, index, progress)
        })?;
        let mut root = RootImage {
            root_hash: image.root_hash,
            size: image.root_size,
            salt: hex::encode(image.salt),
            verity_uuid: image.verity_uuid,
            ways,
        };
        let size = to_u64(new_uki.len());
        let ways =
            self.ways("the kernel image", (&new_uki, size), options.level, progress, |frames, index| {
                delta::publish_uki(new_uki, options.level, frames, index, progress)
            })?;
        let mut uki = Uki { sha256: Digest::of(new_uki), size, ways };
        let mut older: Vec<&Document> =
            published.iter().filter(|it| compare(&it.version, image.version).is_lt()).collect();
        older.sort_by(|a, b| compare(&b.version, &a.version));
        let mut patches = Vec::new();
        for old in older.into_iter().take(options.patches) {
            let before = self.before(old, progress)?;
            let mut patched = Patched { from: old.version.clone(), root: None, uki: None };
            let context = || format!("the patch from {}", old.version);
            let (blob, _) = self.blob(&context(), |out| {
                let device = FileDevice::image(before.root.try_clone()?, SectorSize::B512)?;
                Ok(delta::make_patch(&device, old.root.size, new_root.0, new_root.1, out, progress)?)
            })?;
            // One that is no shorter stays unnamed.
            if blob.size < root.ways.full.size && old.root.root_hash != image.root_hash {
                let version = old.version.clone();
                root.ways.patches.push(Patch { from: old.root.root_hash, version, blob });
                patched.root = Some(blob.size);
            }
            let (blob, _) = self.blob(&context(), |out| {
                let old = before.uki.as_slice();
                Ok(delta::make_patch(&old, to_u64(old.len()), &new_uki, uki.size, out, progress)?)
            })?;
            if blob.size < uki.ways.full.size && old.uki.sha256 != uki.sha256 {
                let version = old.version.clone();
                uki.ways.patches.push(Patch { from: old.uki.sha256, version, blob });
                patched.uki = Some(blob.size);
            }
            patches.push(patched);
        }
        let document = Document {
            format: FORMAT,
            id: image.id.to_owned(),
            version: image.version.to_owned(),
            minimum: options.minimum.clone(),
            notes: options.notes.clone().unwrap_or_default(),
            epoch: image.epoch,
            sector_size: image.sector_size,
            root,
            uki,
        };
        Ok((document, patches))
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

    /// Writes the files by which an image travels, but for patches.
    fn ways(
        &self,
        what: &str,
        (image, size): (&dyn ReadAt, u64),
        level: i32,
        progress: &dyn Progress,
        publish: impl Fn(&mut dyn Write, &mut dyn Write) -> Result<delta::Published, delta::PublishError>,
    ) -> Result<Ways, PublishError> {
        let mut index = Vec::new();
        let (frames, _) = self.blob(&format!("the frames of {what}"), |out| Ok(publish(out, &mut index)?))?;
        let (index, ()) = self.blob(&format!("the index of {what}"), |out| Ok(out.write_all(&index)?))?;
        let full = |out: &mut dyn Write| Ok(delta::make_full(image, size, level, out, progress)?);
        let (full, _) = self.blob(&format!("all of {what}"), full)?;
        Ok(Ways { full, frames, index, patches: Vec::new() })
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

    /// Puts an older version together again out of the repository's own files, in a file without a name.
    fn before(&self, old: &Document, progress: &dyn Progress) -> Result<Before, PublishError> {
        let version = || old.version.clone();
        let damaged = |source| PublishError::Old { version: version(), source };
        // Frames are the quickest to read.
        let ways = [Way::Blocks];
        let mut uki = Vec::new();
        delta::uki_by(&ways, &old.uki, &self.folder, None, &mut uki, progress).map_err(damaged)?;
        let root = tempfile::tempfile_in(self.folder.path())?;
        root.set_len(old.root.size)?;
        let mut device = FileDevice::image(root.try_clone()?, SectorSize::B512)?;
        delta::root_by(&ways, &old.root, &self.folder, None, &mut device, progress).map_err(damaged)?;
        let salt = hex::decode(&old.root.salt).unwrap_or_default();
        let hash = root_hash(&device, old.root.size, salt, old.root.verity_uuid, progress)?;
        if hash != old.root.root_hash {
            let (expected, actual) = (old.root.root_hash, hash);
            return Err(PublishError::OldHash { version: version(), expected, actual });
        }
        Ok(Before { root, uki })
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
