//! `keller delta fetch`: what a node would fetch, without a node.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use serde_json::json;

use super::super::progress::Display;
use super::{device, digest};
use crate::agent::record::Record;
use crate::agent::settings::Source;
use crate::agent::{Counted, Wanted, choice, connect, look};
use crate::base::device::{FileDevice, ReadAt, SectorSize};
use crate::base::{Digest, input, limits};
use crate::repository::Client;
use crate::update::delta::{self, Fetched, Old};

/// Looks at a repository as a node does that has seen nothing of it, and fetches the version that it goes to.
#[derive(Debug, Args)]
pub(super) struct Fetch {
    /// Address of the repository.
    url: String,
    /// The root of trust in the node's image.
    #[arg(long, value_name = "FILE")]
    trust: PathBuf,
    /// `IMAGE_ID` of the node.
    #[arg(long)]
    id: String,
    /// The version that it runs.
    #[arg(long, value_name = "VERSION")]
    runs: String,
    /// The channel that it follows.
    #[arg(long, value_name = "NAME", default_value = "stable")]
    channel: String,
    /// The root that it runs, with --root-hash; without it, the node has nothing.
    #[arg(long, value_name = "FILE", requires = "root_hash")]
    old: Option<PathBuf>,
    /// The root hash of --old.
    #[arg(long, value_name = "HASH", requires = "old")]
    root_hash: Option<Digest>,
    /// The kernel image that it runs.
    #[arg(long, value_name = "FILE")]
    old_uki: Option<PathBuf>,
    /// Directory for root.img, uki.efi and what the node remembers of the repository.
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
}

/// Fetches it; gives what came of it.
pub(super) fn fetch(args: &Fetch, display: &Display) -> Result<serde_json::Value> {
    let root_json = read(&args.trust, limits::TEXT)?;
    let source = Source {
        url: args.url.clone(),
        channel: args.channel.clone(),
        automatic: false,
        window: None,
        interval_seconds: 0,
        proxy: None,
        authorities: Vec::new(),
        before: Vec::new(),
        root_json,
    };
    let remote = connect(&source)?;
    let remote = Counted::new(remote.as_ref());
    fs::create_dir_all(&args.to).with_context(|| format!("making {}", args.to.display()))?;
    let now = jiff::Timestamp::now().as_second();
    let trusted = Client::update(&source.root_json, &remote, &args.to.join("datastore"), now)
        .with_context(|| format!("reading the repository at {}", args.url))?;
    let node = choice::Node { id: &args.id, version: &args.runs, channel: &args.channel };
    let found = look::find(&trusted, node, &Record::default(), &Wanted::default())?;
    let Some(document) = found.document else {
        return Ok(json!({ "version": null, "bytes": remote.bytes() }));
    };
    let metadata = remote.bytes();
    let old_uki = args.old_uki.as_deref().map(|path| read(path, limits::PROGRAM)).transpose()?;
    let old_root = args.old.as_deref().map(device).transpose()?;
    let old = old_root.as_ref().zip(args.root_hash).map(|(root, root_hash)| Old {
        root,
        root_size: root.size(),
        root_hash,
        uki: old_uki.as_deref(),
    });
    let mut uki = Vec::new();
    let uki_fetched = delta::uki(&document.uki, &remote, old_uki.as_deref(), &mut uki, display)
        .context("fetching the kernel image")?;
    let path = args.to.join("uki.efi");
    fs::write(&path, uki).with_context(|| format!("writing {}", path.display()))?;
    let path = args.to.join("root.img");
    let context = || format!("writing {}", path.display());
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path);
    let file = file.with_context(context)?;
    file.set_len(document.root.size).with_context(context)?;
    let mut target = FileDevice::image(file, SectorSize::B512).with_context(context)?;
    let root_fetched = delta::root(&document.root, &remote, old.as_ref(), &mut target, display);
    let root_fetched = root_fetched.context("fetching the root")?;
    Ok(json!({
        "version": document.version,
        "bytes": remote.bytes(),
        "metadata": metadata,
        "root": told(&root_fetched),
        "uki": told(&uki_fetched),
        "sha256": digest(&path)?,
    }))
}

fn told(fetched: &Fetched) -> serde_json::Value {
    json!({ "way": fetched.way.name(), "bytes": fetched.bytes, "requests": fetched.requests })
}

fn read(path: &Path, limit: u64) -> Result<Vec<u8>> {
    input::read(path, limit).with_context(|| format!("reading {}", path.display()))
}
