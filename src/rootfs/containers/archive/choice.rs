//! Which of an archive's images is meant.
//!
//! Sources: OCI Image Format Specification 1.1, "Image Layout" and "Image Index"; for `docker save`, Docker Image
//! Specification 1.2, "Combined Image JSON + Filesystem Changeset Format".

use serde::Deserialize;

use super::{ArchiveError, Layout, blob_path, document, document_bytes, parse, parsed};
use crate::base::Digest;

/// Annotations that name an image of a layout.
const NAMES: [&str; 2] = ["org.opencontainers.image.ref.name", "io.containerd.image.name"];
/// Marks what BuildKit says of an image, which is no image.
const ATTESTATION: &str = "vnd.docker.reference.type";
/// How deep indexes may lie in each other.
const DEEPEST: usize = 4;
/// Images that a message lists; the rest is counted.
const SHOWN: usize = 20;

#[derive(Clone, Deserialize)]
pub(super) struct Descriptor {
    pub digest: String,
    #[serde(default, rename = "mediaType")]
    pub media_type: String,
    platform: Option<Platform>,
    #[serde(default)]
    annotations: Option<std::collections::BTreeMap<String, String>>,
}

impl Descriptor {
    fn is_index(&self) -> bool {
        self.media_type.ends_with(".index.v1+json") || self.media_type.ends_with(".list.v2+json")
    }
}

/// What a program must run on.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Platform {
    #[serde(default = "amd64")]
    architecture: String,
    #[serde(default = "linux")]
    os: String,
    #[serde(default)]
    variant: Option<String>,
}

fn amd64() -> String {
    "amd64".to_owned()
}

fn linux() -> String {
    "linux".to_owned()
}

impl Platform {
    fn is_ours(&self) -> bool {
        self.architecture == "amd64" && self.os == "linux"
    }

    /// As `podman pull --platform` takes it.
    fn name(&self) -> String {
        format!("{}/{}", self.os, self.architecture)
    }
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
pub(super) struct Manifest {
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
}

/// One entry of `manifest.json`, as `docker save` writes it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// An image of the archive.
#[derive(Clone, Debug)]
pub(super) struct Found {
    names: Vec<String>,
    /// Of its manifest, or of its configuration where there is no manifest.
    pub digest: Digest,
    /// Digest of the index that leads to it, if one does.
    through: Option<Digest>,
    platform: Platform,
    /// Path of the configuration in the archive.
    pub config: String,
    /// Path of each layer.
    pub layers: Vec<String>,
}

/// The image for x86_64 that `wanted` names; without a name, the only one.
///
/// # Errors
/// `Reference`, `Several` or `Platform`; else what is wrong with a document.
pub(super) fn choose(layout: &Layout, wanted: Option<&str>) -> Result<Found, ArchiveError> {
    let all = all(layout)?;
    let meant: Vec<&Found> = match wanted {
        None => all.iter().collect(),
        Some(name) => {
            let meant: Vec<&Found> = all.iter().filter(|found| found.is_called(name)).collect();
            if meant.is_empty() {
                return Err(ArchiveError::Reference { wanted: name.to_owned(), there: list(all.iter()) });
            }
            meant
        }
    };
    let mut ours: Vec<&Found> = meant.iter().copied().filter(|found| found.platform.is_ours()).collect();
    if ours.is_empty() {
        let mut platforms: Vec<String> = meant.iter().map(|found| found.platform.name()).collect();
        platforms.sort();
        platforms.dedup();
        return Err(ArchiveError::Platform { there: platforms.join(", ") });
    }
    // One image under several names is one image, and one for every x86_64 goes before one for newer ones.
    ours.sort_by_key(|found| found.platform.variant.as_deref().is_some_and(|variant| variant != "v1"));
    let first = ours[0];
    let plain = |found: &Found| found.platform.variant.as_deref().is_none_or(|variant| variant == "v1");
    let others = |found: &&&Found| found.digest != first.digest && (!plain(first) || plain(found));
    if ours.iter().any(|found| others(&found)) {
        return Err(ArchiveError::Several { there: list(ours.into_iter()) });
    }
    Ok(first.clone())
}

impl Found {
    /// Whether `name` is one of its names, the end of one (`app:1` of `localhost/app:1`), or its digest.
    fn is_called(&self, name: &str) -> bool {
        let is_end = |full: &String| {
            full.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('/'))
        };
        let digest = name.strip_prefix("sha256:").and_then(|digits| digits.parse::<Digest>().ok());
        let is_digest = |digest: Digest| digest == self.digest || Some(digest) == self.through;
        !name.is_empty() && self.names.iter().any(is_end) || digest.is_some_and(is_digest)
    }
}

/// Names as a manifest may write them; of an image without one, its digest.
fn list<'a>(found: impl Iterator<Item = &'a Found>) -> String {
    let mut names: Vec<String> = found
        .flat_map(|found| match found.names.is_empty() {
            true => vec![format!("sha256:{}", found.digest)],
            false => found.names.clone(),
        })
        .collect();
    names.sort();
    names.dedup();
    let hidden = names.len().saturating_sub(SHOWN);
    names.truncate(SHOWN);
    let more = if hidden > 0 { format!(" and {hidden} more") } else { String::new() };
    names.join(", ") + &more
}

fn all(layout: &Layout) -> Result<Vec<Found>, ArchiveError> {
    if !layout.tree.exists("index.json") && layout.tree.exists("manifest.json") {
        return saved(layout);
    }
    let index: Index = document(layout, "index.json")?;
    let mut found = Vec::new();
    for descriptor in &index.manifests {
        let annotations = descriptor.annotations.iter().flatten();
        let names: Vec<String> = annotations
            .filter(|(key, _)| NAMES.contains(&key.as_str()))
            .map(|(_, name)| name.clone())
            .collect();
        follow(layout, descriptor, &names, None, 0, &mut found)?;
    }
    if found.is_empty() {
        let what = "names no image".to_owned();
        return Err(ArchiveError::Document { path: "index.json".to_owned(), what });
    }
    Ok(found)
}

/// Adds the image of `descriptor`, or those of the index that it leads to.
fn follow(
    layout: &Layout,
    descriptor: &Descriptor,
    names: &[String],
    through: Option<Digest>,
    depth: usize,
    found: &mut Vec<Found>,
) -> Result<(), ArchiveError> {
    let is_attestation = descriptor.annotations.iter().flatten().any(|(key, _)| key == ATTESTATION);
    if is_attestation || descriptor.platform.as_ref().is_some_and(|platform| platform.os == "unknown") {
        return Ok(());
    }
    let digest = parse(&descriptor.digest, "index.json")?;
    let path = blob_path(&digest);
    if descriptor.is_index() {
        if depth == DEEPEST {
            return Err(ArchiveError::Document { path, what: "too many indexes in each other".to_owned() });
        }
        let index: Index = document(layout, &path)?;
        for inner in &index.manifests {
            // A layout that was made for one platform still has the whole index.
            if layout.tree.exists(blob_path(&parse(&inner.digest, &path)?)) {
                follow(layout, inner, names, through.or(Some(digest)), depth + 1, found)?;
            }
        }
        return Ok(());
    }
    let manifest: Manifest = document(layout, &path)?;
    let config = blob_path(&parse(&manifest.config.digest, &path)?);
    let kind = manifest.config.media_type.as_str();
    if !kind.is_empty()
        && !kind.ends_with(".image.config.v1+json")
        && !kind.ends_with(".container.image.v1+json")
    {
        return Err(ArchiveError::Document { path, what: format!("is not a container image but {kind}") });
    }
    let mut layers = Vec::new();
    for layer in &manifest.layers {
        if layer.media_type.ends_with("+encrypted") {
            let what = "has encrypted layers; `skopeo copy --decryption-key` decrypts them".to_owned();
            return Err(ArchiveError::Document { path, what });
        }
        layers.push(blob_path(&parse(&layer.digest, &path)?));
    }
    let platform = match &descriptor.platform {
        Some(platform) => platform.clone(),
        None => document(layout, &config)?,
    };
    found.push(Found { names: names.to_vec(), digest, through, platform, config, layers });
    Ok(())
}

/// The images of an archive by `docker save`.
fn saved(layout: &Layout) -> Result<Vec<Found>, ArchiveError> {
    let entries: Vec<Saved> = document(layout, "manifest.json")?;
    let mut found = Vec::new();
    for Saved { config, repo_tags, layers } in entries {
        let bytes = document_bytes(layout, &config)?;
        let digest = Digest::of(&bytes);
        let platform = parsed(&bytes, &config)?;
        let names = repo_tags.unwrap_or_default();
        found.push(Found { names, digest, through: None, platform, config, layers });
    }
    if found.is_empty() {
        let what = "names no image".to_owned();
        return Err(ArchiveError::Document { path: "manifest.json".to_owned(), what });
    }
    Ok(found)
}
