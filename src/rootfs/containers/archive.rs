//! Container images that come as an archive: an OCI layout, as `podman save --format oci-archive` and
//! `skopeo copy … oci:` write it, or what `docker save` writes. A directory, or a tar archive that may be
//! compressed.

mod choice;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use super::image::{Config, Image};
use crate::base::signal::NoSignal;
use crate::base::{Compression, Digest, Hasher, Size, input, json, limits, user};
use crate::tree::from_folder::{Overlay, OverlayError};
use crate::tree::from_tar::{self, Limits, Member, TarError};
use crate::tree::{Content, Kind, Tree, TreeError};

/// The largest JSON document that is read, in bytes; registries allow 4 MiB.
const DOCUMENT: u64 = 4 << 20;

/// Why an archive could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It is not there, or the disk failed.
    #[error("reading {}: {source}", .path.display())]
    Io {
        /// The archive.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
    /// The folder.
    #[error(transparent)]
    Folder(#[from] OverlayError),
    /// The archive or one of its layers.
    #[error("{what}: {source}{}", way_out(source))]
    Tar {
        /// Which of them.
        what: String,
        /// What is wrong.
        source: TarError,
    },
    /// The directory for temporary files has no room for the image.
    #[error(
        "no space left in {} for {what}, unpacked ({} of it were): free some, or name a directory elsewhere by TMPDIR",
        .folder.display(), Size(*.written).human()
    )]
    Full {
        /// Where temporary files lie.
        folder: PathBuf,
        /// The archive, or one of its layers.
        what: String,
        /// Bytes that found room.
        written: u64,
    },
    /// More layers than anything makes or mounts.
    #[error("the image has {layers} layers, and at most {limit} are read: build it with fewer")]
    Layers {
        /// How many.
        layers: usize,
        /// [`limits::LAYERS`].
        limit: usize,
    },
    /// A file that an OCI layout must have.
    #[error("{path} is missing: expected an OCI layout, as `skopeo copy IMAGE oci:DIRECTORY` writes it")]
    Missing {
        /// Inside the layout.
        path: String,
    },
    /// A document that says something else than the specification.
    #[error("{path}: {what}")]
    Document {
        /// Inside the layout.
        path: String,
        /// What is wrong.
        what: String,
    },
    /// Other bytes than their name says.
    #[error("blob {expected} has the digest {actual}: the archive is damaged")]
    Digest {
        /// Its name.
        expected: Digest,
        /// As computed.
        actual: Digest,
    },
    /// The name of an image that is not there.
    #[error("no image is called {wanted:?}; there are: {there}")]
    Reference {
        /// As the manifest has it.
        wanted: String,
        /// Names of those that are there.
        there: String,
    },
    /// More than one image.
    #[error("there are several images: {there}; choose one by `reference`")]
    Several {
        /// Their names.
        there: String,
    },
    /// Images, but none for the nodes that keller makes.
    #[error(
        "the image is for {there}, and keller's nodes are linux/amd64: fetch that one, such as by \
         `podman pull --platform linux/amd64` or `skopeo --override-arch amd64 copy`"
    )]
    Platform {
        /// What is there instead.
        there: String,
    },
    /// The tree of the layout.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// What to do about what is wrong with an archive, where its form is not.
fn way_out(error: &TarError) -> &'static str {
    match error {
        TarError::TooMany { .. } | TarError::TooManyNodes { .. } | TarError::Names { .. } => {
            ": build the image with fewer files"
        }
        _ => "",
    }
}

#[derive(Deserialize)]
struct Document {
    config: Option<Process>,
    #[serde(default)]
    rootfs: RootFs,
}

#[derive(Default, Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Process {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: Option<Vec<String>>,
    user: Option<String>,
    working_dir: Option<String>,
    stop_signal: Option<String>,
}

/// Reads the image at `path` that `wanted` names, its layers flattened into one tree, and names it by the digest
/// of its manifest. Its own reference is left empty.
///
/// # Errors
/// See [`ArchiveError`].
pub fn read(path: &Path, wanted: Option<&str>, epoch: i64) -> Result<(Image, Digest), ArchiveError> {
    let (layout, mut room, opened) = open(path, epoch)?;
    let choice::Found { digest, config, layers, .. } = choice::choose(&layout, wanted)?;
    let Document { config: process, rootfs } = document(&layout, &config)?;
    if layers.len() > limits::LAYERS {
        return Err(ArchiveError::Layers { layers: layers.len(), limit: limits::LAYERS });
    }
    let ids = rootfs.diff_ids.iter().map(|id| parse(id, &config).map(Some)).collect::<Result<Vec<_>, _>>()?;
    // Tools of old leave them out where every layer is a blob with a digest of its own.
    let ids = if ids.is_empty() { vec![None; layers.len()] } else { ids };
    if ids.len() != layers.len() {
        let what = format!("has the digests of {} layers, and the image has {}", ids.len(), layers.len());
        return Err(ArchiveError::Document { path: config, what });
    }
    let mut tree = Tree::new(epoch);
    for (layer, id) in layers.iter().zip(ids) {
        lay(&mut tree, &layout.tree, layer, id, &mut room)?;
    }
    // Layers are checked before they are unpacked: both times they were the same.
    if let Some(opened) = opened {
        opened.read_at(&mut [], 0).map_err(|source| ArchiveError::Io { path: path.to_owned(), source })?;
    }
    tree.check_size(limits::NODES, limits::NAMES)?;
    let path_of_config = config;
    let config = process.unwrap_or_default().config(&path_of_config)?;
    if let Some(folder) = &config.workdir {
        // As engines do where the image has none.
        tree.directory(folder, 0o755).map_err(|error| ArchiveError::Document {
            path: path_of_config.clone(),
            what: format!("its WorkingDir cannot be made: {error}"),
        })?;
    }
    Ok((Image { reference: String::new(), tree, config }, digest))
}

impl Process {
    /// Refuses a directory to start in that no engine takes, or no file system.
    fn absolute_directory(&self, path: &str) -> Result<(), ArchiveError> {
        let Some(folder) = self.working_dir.as_deref().filter(|folder| !folder.is_empty()) else {
            return Ok(());
        };
        let too_long = folder.len() > limits::PATH || folder.split('/').any(|part| part.len() > limits::NAME);
        let why = match () {
            () if too_long => "is longer than a path can be".to_owned(),
            () if !folder.starts_with('/') => format!("{folder:?} does not begin with `/`"),
            () if folder.split('/').any(|part| part == "..") => format!("{folder:?} climbs with `..`"),
            () => return Ok(()),
        };
        Err(ArchiveError::Document { path: path.to_owned(), what: format!("its WorkingDir {why}") })
    }

    /// Refuses texts that no program can be given.
    fn only_texts_of_programs(&self, path: &str) -> Result<(), ArchiveError> {
        let lists = [("Entrypoint", &self.entrypoint), ("Cmd", &self.cmd), ("Env", &self.env)];
        let texts =
            lists.into_iter().flat_map(|(key, list)| list.iter().flatten().map(move |text| (key, text)));
        let mut texts = texts.chain(self.working_dir.iter().map(|text| ("WorkingDir", text)));
        let refused = texts.find_map(|(key, text)| match () {
            () if text.contains('\0') => {
                Some(format!("its {key} has {text:?}, and a NUL ends a text that a program is given"))
            }
            () if text.len() > limits::ARGUMENT => {
                let begin: String = text.chars().take(40).collect();
                let most = limits::ARGUMENT;
                Some(format!(
                    "its {key} has {begin:?}… of {} bytes, and a program is given {most}",
                    text.len()
                ))
            }
            () => None,
        });
        match refused {
            Some(what) => Err(ArchiveError::Document { path: path.to_owned(), what }),
            None => Ok(()),
        }
    }

    fn config(self, path: &str) -> Result<Config, ArchiveError> {
        self.only_texts_of_programs(path)?;
        self.absolute_directory(path)?;
        let set = |text: Option<String>| text.filter(|text| !text.is_empty());
        let stop_signal = set(self.stop_signal).map(|text| text.parse()).transpose();
        let stop_signal = stop_signal.map_err(|error: NoSignal| ArchiveError::Document {
            path: path.to_owned(),
            what: format!("its StopSignal {error}"),
        })?;
        let user = set(self.user);
        if let Some((user, Err(wrong))) = user.as_ref().map(|text| (text, user::check(text))) {
            let what = format!("its User {user:?} {wrong}");
            return Err(ArchiveError::Document { path: path.to_owned(), what });
        }
        let environment: BTreeMap<_, _> = self
            .env
            .iter()
            .flatten()
            .map(|line| line.split_once('=').unwrap_or((line, "")))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Ok(Config {
            entrypoint: self.entrypoint.unwrap_or_default(),
            command: self.cmd.unwrap_or_default(),
            environment,
            user,
            workdir: set(self.working_dir),
            stop_signal,
        })
    }
}

/// An archive's files: those of a directory, or stretches of the archive.
struct Layout {
    tree: Tree,
    /// Bytes of documents that may still be read: an index can name another many times, and so on.
    documents: Cell<u64>,
}

impl Layout {
    fn new(tree: Tree) -> Self {
        Self { tree, documents: Cell::new(limits::DOCUMENTS) }
    }
}

/// The layout, what it may unpack to, and the archive to see whether it stays as it is.
fn open(path: &Path, epoch: i64) -> Result<(Layout, Room, Option<Content>), ArchiveError> {
    let failed = |source| ArchiveError::Io { path: path.to_owned(), source };
    if path.is_dir() {
        let tree = Overlay::from_folder(path, "image", epoch)?.tree;
        let sizes = tree.walk().into_iter().map(|(_, id)| match &tree.node(id).kind {
            Kind::File(content) => content.len(),
            _ => 0,
        });
        let room = Room::of(sizes.sum());
        return Ok((Layout::new(tree), room, None));
    }
    let opened = Content::foreign(path).map_err(failed)?;
    let mut room = Room::of(opened.len());
    let mut file = input::open(path).map_err(failed)?;
    let mut reader = BufReader::with_capacity(1 << 20, file.try_clone().map_err(failed)?);
    let compression = compression(&mut reader).map_err(failed)?;
    let tar = |source| ArchiveError::Tar { what: path.display().to_string(), source };
    let members = if compression == Compression::None {
        let limits = Limits { members: limits::NODES, bytes: limits::IMAGE };
        from_tar::read_layer(&mut reader, &mut io::sink(), limits).map_err(tar)?
    } else {
        let mut reader = compression.reader(reader).map_err(failed)?;
        let (members, unpacked) = room.unpack(&path.display().to_string(), &mut *reader)?;
        file = unpacked;
        members
    };
    let tree = from_tar::tree(&members, &Arc::new(file), 0, "image", epoch).map_err(tar)?;
    Ok((Layout::new(tree), room, Some(opened)))
}

/// Bytes that may still be written to unnamed files in the directory for temporary files: by the archive, if it is
/// compressed, and by all layers, which may be compressed within it.
struct Room(u64);

impl Room {
    /// For an archive of `size` bytes.
    fn of(size: u64) -> Self {
        let most = size.saturating_mul(limits::RATIO).saturating_add(limits::IMAGE_SLACK);
        Self(most.min(limits::IMAGE))
    }

    /// Reads the archive `what` and keeps its bytes.
    fn unpack(&mut self, what: &str, reader: &mut dyn Read) -> Result<(Vec<Member>, File), ArchiveError> {
        let folder = std::env::temp_dir();
        let failed = |source| ArchiveError::Io { path: folder.clone(), source };
        let mut file = tempfile::tempfile_in(&folder).map_err(failed)?;
        let limits = Limits { members: limits::NODES, bytes: self.0 };
        let read = from_tar::read_layer(reader, &mut file, limits);
        let written = file.metadata().map_err(failed)?.len();
        self.0 -= written.min(self.0);
        match read {
            Ok(members) => Ok((members, file)),
            Err(TarError::Write { source }) if source.kind() == io::ErrorKind::StorageFull => {
                Err(ArchiveError::Full { folder, what: what.to_owned(), written })
            }
            Err(source) => Err(ArchiveError::Tar { what: what.to_owned(), source }),
        }
    }
}

/// How a stream with an archive is compressed, by its first bytes: file names and media types are often wrong. The
/// first name in an archive may look like any of them, so that the header's checksum counts first.
fn compression(reader: &mut impl BufRead) -> io::Result<Compression> {
    let head = reader.fill_buf()?;
    if from_tar::begins(head) {
        return Ok(Compression::None);
    }
    Ok(Compression::of_magic(head))
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{digest}")
}

/// The digest that is the name of the blob at `path`.
fn blob_name(path: &str) -> Option<Digest> {
    path.strip_prefix("blobs/sha256/").and_then(|digits| digits.parse().ok())
}

fn parse(text: &str, path: &str) -> Result<Digest, ArchiveError> {
    let what =
        || ArchiveError::Document { path: path.to_owned(), what: format!("{text} is no SHA-256 digest") };
    text.strip_prefix("sha256:").and_then(|digits| digits.parse().ok()).ok_or_else(what)
}

/// The file at `path`; `docker save` has links in place of layers that are there twice.
fn body<'a>(layout: &'a Tree, path: &str) -> Result<&'a Content, ArchiveError> {
    match layout.resolve(path).map(|id| &layout.node(id).kind) {
        Ok(Kind::File(content)) => Ok(content),
        _ => Err(ArchiveError::Missing { path: path.to_owned() }),
    }
}

/// A JSON document, checked against its name where that is a digest.
fn document<T: for<'a> Deserialize<'a>>(layout: &Layout, path: &str) -> Result<T, ArchiveError> {
    parsed(&document_bytes(layout, path)?, path)
}

fn parsed<T: for<'a> Deserialize<'a>>(bytes: &[u8], path: &str) -> Result<T, ArchiveError> {
    let wrong = |what: String| ArchiveError::Document { path: path.to_owned(), what };
    json::parse(bytes, limits::JSON_VALUES).map_err(|error| wrong(error.to_string()))
}

fn document_bytes(layout: &Layout, path: &str) -> Result<Vec<u8>, ArchiveError> {
    let content = body(&layout.tree, path)?;
    let wrong = |what: String| ArchiveError::Document { path: path.to_owned(), what };
    if content.len() > DOCUMENT {
        return Err(wrong(format!("{} bytes are too many for a document", content.len())));
    }
    let Some(left) = layout.documents.get().checked_sub(content.len()) else {
        let most = Size(limits::DOCUMENTS).human();
        return Err(wrong(format!(
            "is one with which all documents that are read have more than {most} together"
        )));
    };
    layout.documents.set(left);
    let bytes = content.to_vec().map_err(|source| ArchiveError::Io { path: PathBuf::from(path), source })?;
    if let Some(expected) = blob_name(path) {
        let actual = Digest::of(&bytes);
        if actual != expected {
            return Err(ArchiveError::Digest { expected, actual });
        }
    }
    Ok(bytes)
}

/// Lays one layer over `tree`, decompressed into an unnamed file that its bodies point into. `id` is the digest of
/// the layer before it was compressed.
fn lay(
    tree: &mut Tree,
    layout: &Tree,
    path: &str,
    id: Option<Digest>,
    room: &mut Room,
) -> Result<(), ArchiveError> {
    let content = body(layout, path)?;
    let io = |source| ArchiveError::Io { path: PathBuf::from(path), source };
    if let Some(expected) = blob_name(path) {
        let (actual, _) = Digest::of_reader(&mut content.reader()).map_err(io)?;
        if actual != expected {
            return Err(ArchiveError::Digest { expected, actual });
        }
    }
    let mut reader = BufReader::with_capacity(1 << 20, content.reader());
    let compression = compression(&mut reader).map_err(io)?;
    let mut reader = Hashing { inner: compression.reader(reader).map_err(io)?, hasher: Hasher::new() };
    let what = format!("layer {path}");
    let (members, file) = room.unpack(&what, &mut reader)?;
    let tar = |source| ArchiveError::Tar { what, source };
    let actual = reader.hasher.finish();
    if let Some(expected) = id.filter(|id| *id != actual) {
        return Err(ArchiveError::Digest { expected, actual });
    }
    tree.apply_layer(&members, &Arc::new(file), 0, "image").map_err(tar)
}

/// Hashes what is read.
struct Hashing<R> {
    inner: R,
    hasher: Hasher,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

#[cfg(test)]
mod tests;
