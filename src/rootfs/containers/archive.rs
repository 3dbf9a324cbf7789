//! Container images that come as an OCI layout: a folder, or an uncompressed tar archive of one, as
//! `podman save --format oci-archive` and `skopeo copy … oci:` write them.
//!
//! Source: OCI Image Format Specification 1.1, "Image Layout", "Image Index" and "Whiteouts".

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use super::image::{Config, Image};
use crate::base::Digest;
use crate::base::signal::NoSignal;
use crate::tree::from_folder::{Overlay, OverlayError};
use crate::tree::from_tar::{self, Limits, TarError};
use crate::tree::{Kind, Tree, TreeError};

/// More than any sane image has: a bomb is stopped here.
const LIMITS: Limits = Limits { members: 1 << 20, bytes: 16 << 30 };

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
    #[error("{what}: {source}")]
    Tar {
        /// Which of them.
        what: String,
        /// What is wrong.
        source: TarError,
    },
    /// A file that an OCI layout must have.
    #[error("{path} is missing: expected an OCI layout, as `skopeo copy IMAGE oci:FOLDER` writes it")]
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
    /// The tree of the layout.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
    #[serde(default, rename = "mediaType")]
    media_type: String,
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Document {
    config: Option<Process>,
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

/// Reads the image at `path`, its layers flattened into one tree, and names it by the digest of its manifest.
/// The reference is left empty.
pub fn read(path: &Path, epoch: i64) -> Result<(Image, Digest), ArchiveError> {
    let layout = open(path, epoch)?;
    let mut index: Index = document(&layout, "index.json")?;
    // An index may lead to further ones: one for each platform.
    let manifest_digest = loop {
        let wanted = |descriptor: &&Descriptor| {
            descriptor.platform.as_ref().is_none_or(|p| p.architecture == "amd64" && p.os == "linux")
        };
        let found = index.manifests.iter().find(wanted).ok_or_else(|| ArchiveError::Document {
            path: "index.json".to_owned(),
            what: "has no image for linux on amd64".to_owned(),
        })?;
        let digest = parse(&found.digest, "index.json")?;
        if !found.media_type.ends_with(".index.v1+json") && !found.media_type.ends_with(".list.v2+json") {
            break digest;
        }
        index = document(&layout, &blob_path(&digest))?;
    };
    let manifest: Manifest = document(&layout, &blob_path(&manifest_digest))?;
    let config = blob_path(&parse(&manifest.config.digest, "the manifest")?);
    let process = document::<Document>(&layout, &config)?.config.unwrap_or_default();
    let stop_signal =
        process.stop_signal.as_deref().filter(|text| !text.is_empty()).map(str::parse).transpose();
    let stop_signal = stop_signal.map_err(|error: NoSignal| ArchiveError::Document {
        path: config.clone(),
        what: format!("its StopSignal {error}"),
    })?;
    let mut tree = Tree::new(epoch);
    for layer in &manifest.layers {
        let digest = parse(&layer.digest, "the manifest")?;
        lay(&mut tree, &layout, &digest, &layer.media_type)?;
    }
    let environment = process.env.unwrap_or_default();
    let environment: BTreeMap<_, _> = environment
        .iter()
        .map(|line| line.split_once('=').unwrap_or((line, "")))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let set = |text: Option<String>| text.filter(|text| !text.is_empty());
    let config = Config {
        entrypoint: process.entrypoint.unwrap_or_default(),
        command: process.cmd.unwrap_or_default(),
        environment,
        user: set(process.user),
        workdir: set(process.working_dir),
        stop_signal,
    };
    Ok((Image { reference: String::new(), tree, config }, manifest_digest))
}

/// The layout as a tree: files of a folder, or stretches of the archive.
fn open(path: &Path, epoch: i64) -> Result<Tree, ArchiveError> {
    let failed = |source| ArchiveError::Io { path: path.to_owned(), source };
    if path.is_dir() {
        return Ok(Overlay::from_folder(path, "image", epoch)?.tree);
    }
    let file = File::open(path).map_err(failed)?;
    let tar = |source| ArchiveError::Tar { what: path.display().to_string(), source };
    let members = from_tar::read_layer(&mut BufReader::new(&file), &mut io::sink(), LIMITS).map_err(tar)?;
    from_tar::tree(&members, &Arc::new(file), 0, "image", epoch).map_err(tar)
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{digest}")
}

fn parse(text: &str, path: &str) -> Result<Digest, ArchiveError> {
    let what =
        || ArchiveError::Document { path: path.to_owned(), what: format!("{text} is no SHA-256 digest") };
    text.strip_prefix("sha256:").and_then(|digits| digits.parse().ok()).ok_or_else(what)
}

/// A JSON document, checked against its name where that is a digest.
fn document<T: for<'a> Deserialize<'a>>(layout: &Tree, path: &str) -> Result<T, ArchiveError> {
    let missing = || ArchiveError::Missing { path: path.to_owned() };
    let id = layout.lookup(path).ok_or_else(missing)?;
    let Kind::File(content) = &layout.node(id).kind else { return Err(missing()) };
    let wrong = |what: String| ArchiveError::Document { path: path.to_owned(), what };
    if content.len() > DOCUMENT {
        return Err(wrong(format!("{} bytes are too many for a document", content.len())));
    }
    let bytes = layout.read(path)?;
    if let Some(expected) = path.strip_prefix("blobs/sha256/").and_then(|digits| digits.parse().ok()) {
        let actual = Digest::of(&bytes);
        if actual != expected {
            return Err(ArchiveError::Digest { expected, actual });
        }
    }
    serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))
}

/// Lays one layer over `tree`, decompressed into an unnamed file that its bodies point into.
fn lay(tree: &mut Tree, layout: &Tree, digest: &Digest, media_type: &str) -> Result<(), ArchiveError> {
    let path = blob_path(digest);
    let missing = || ArchiveError::Missing { path: path.clone() };
    let id = layout.lookup(&path).ok_or_else(missing)?;
    let Kind::File(content) = &layout.node(id).kind else { return Err(missing()) };
    let io = |source| ArchiveError::Io { path: PathBuf::from(&path), source };
    let (actual, _) = Digest::of_reader(&mut content.reader()).map_err(io)?;
    if actual != *digest {
        return Err(ArchiveError::Digest { expected: *digest, actual });
    }
    let mut body = BufReader::with_capacity(1 << 20, content.reader());
    let mut reader: Box<dyn Read + '_> = match media_type.rsplit(['+', '.']).next() {
        Some("gzip") => Box::new(flate2::read::MultiGzDecoder::new(&mut body)),
        Some("zstd") => Box::new(zstd::stream::read::Decoder::new(&mut body).map_err(io)?),
        _ => Box::new(&mut body),
    };
    let mut file = tempfile::tempfile().map_err(io)?;
    let what = || format!("layer {digest}");
    let tar = |source| ArchiveError::Tar { what: what(), source };
    let members = from_tar::read_layer(&mut *reader, &mut file, LIMITS).map_err(tar)?;
    tree.apply_layer(&members, &Arc::new(file), 0, "image").map_err(tar)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rootfs::containers::layer;

    #[test]
    fn layers_are_flattened_and_checked() {
        let mut lower = Tree::new(0);
        lower.file("a", 0o644, "old").unwrap();
        lower.file("d/x", 0o644, "x").unwrap();
        let mut upper = Tree::new(0);
        upper.file(".wh.a", 0o644, "").unwrap();
        upper.file("d/.wh..wh..opq", 0o644, "").unwrap();
        upper.file("d/y", 0o600, "y").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let blobs = folder.path().join("blobs/sha256");
        std::fs::create_dir_all(&blobs).unwrap();
        let put = |bytes: &[u8]| {
            let digest = Digest::of(bytes);
            std::fs::write(blobs.join(digest.to_hex()), bytes).unwrap();
            format!("sha256:{digest}")
        };
        let layers: Vec<_> = [lower, upper]
            .iter()
            .map(|tree| {
                let mut bytes = Vec::new();
                layer::write(tree, &mut bytes).unwrap();
                serde_json::json!({ "digest": put(&bytes), "mediaType": "application/vnd.oci.image.layer.v1.tar" })
            })
            .collect();
        let config = put(br#"{"config":{"Cmd":["/x"],"Env":["A=b=c"],"User":""}}"#);
        let manifest = serde_json::json!({ "config": { "digest": config }, "layers": layers }).to_string();
        let index = serde_json::json!({ "manifests": [{ "digest": put(manifest.as_bytes()) }] }).to_string();
        std::fs::write(folder.path().join("index.json"), index).unwrap();
        let (image, _) = read(folder.path(), 0).unwrap();
        let paths: Vec<_> =
            image.tree.walk().into_iter().map(|(path, _)| String::from_utf8(path).unwrap()).collect();
        assert_eq!(paths, ["", "d", "d/y"]);
        assert_eq!(image.config.environment["A"], "b=c");
        assert_eq!((image.config.command, image.config.user), (vec!["/x".to_owned()], None));

        let victim = std::fs::read_dir(&blobs).unwrap().next().unwrap().unwrap().path();
        std::fs::write(victim, "rotten").unwrap();
        assert!(matches!(read(folder.path(), 0), Err(ArchiveError::Digest { .. })));
    }
}
