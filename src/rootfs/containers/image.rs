//! An OCI image of one layer: its configuration and manifest as JSON, and the digests that name them.
//!
//! Source: OCI Image Format Specification 1.1, "Image Configuration" and "Image Manifest".

use std::collections::BTreeMap;

use serde_json::json;

use super::{ContainerError, layer};
use crate::base::{Digest, Signal};
use crate::tree::Tree;

/// What the image says about the process it is made for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// Comes before the command.
    pub entrypoint: Vec<String>,
    /// Default arguments.
    pub command: Vec<String>,
    /// `NAME` to value.
    pub environment: BTreeMap<String, String>,
    /// Name or number; root when none.
    pub user: Option<String>,
    /// Folder in which the process starts.
    pub workdir: Option<String>,
    /// What asks the process to end; SIGTERM when none.
    pub stop_signal: Option<Signal>,
}

/// A root and what to do with it.
#[derive(Clone, Debug)]
pub struct Image {
    /// Full reference, e.g. `localhost/hello:latest`.
    pub reference: String,
    /// The flattened root.
    pub tree: Tree,
    /// The process.
    pub config: Config,
}

/// The JSON documents of an image, as a registry would serve them.
#[derive(Clone, Debug)]
pub struct Documents {
    /// Digest of the layer's uncompressed tar stream.
    pub layer: Digest,
    /// Its size in bytes.
    pub layer_size: u64,
    /// The configuration; its digest is the image's id.
    pub config: Vec<u8>,
    /// The manifest.
    pub manifest: Vec<u8>,
}

/// Where programs are looked up when an image names no PATH of its own.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl Image {
    /// Digests the layer and writes the documents.
    pub fn documents(&self) -> Result<Documents, ContainerError> {
        let (layer, layer_size) = layer::digest(&self.tree)
            .map_err(|source| ContainerError::Read { container: self.reference.clone(), source })?;
        let mut environment = self.config.environment.clone();
        environment.entry("PATH".to_owned()).or_insert_with(|| DEFAULT_PATH.to_owned());
        let environment: Vec<_> = environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut process = json!({ "Env": environment });
        for (key, list) in [("Entrypoint", &self.config.entrypoint), ("Cmd", &self.config.command)] {
            if !list.is_empty() {
                process[key] = json!(list);
            }
        }
        let signal = self.config.stop_signal.map(|signal| signal.to_string());
        let texts =
            [("User", &self.config.user), ("WorkingDir", &self.config.workdir), ("StopSignal", &signal)];
        for (key, text) in texts {
            if let Some(text) = text {
                process[key] = json!(text);
            }
        }
        let config = json!({
            "architecture": "amd64",
            "os": "linux",
            "created": time(self.tree.epoch),
            "config": process,
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer}")] },
            "history": [{ "created": time(self.tree.epoch), "created_by": "keller" }],
        })
        .to_string()
        .into_bytes();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": format!("sha256:{}", Digest::of(&config)),
                "size": config.len(),
            },
            "layers": [{
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": format!("sha256:{layer}"),
                "size": layer_size,
            }],
        })
        .to_string()
        .into_bytes();
        Ok(Documents { layer, layer_size, config, manifest })
    }
}

/// RFC 3339 in UTC.
pub fn time(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}
