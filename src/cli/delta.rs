//! `keller delta`: the ways of an update without a repository or a node, for measuring and looking at them.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Global;
use super::progress::Display;
use crate::base::Digest;
use crate::base::device::{FileDevice, ReadAt, SectorSize};
use crate::repository::Folder;
use crate::update::delta::{self, Fetched, Old};
use crate::update::document::{Patch, RootImage, Uki};

/// Arguments of `keller delta`.
#[derive(Debug, Args)]
pub struct DeltaArgs {
    #[command(subcommand)]
    verb: DeltaVerb,
}

#[derive(Debug, Subcommand)]
enum DeltaVerb {
    /// Make the files by which a root travels.
    Make(Make),
    /// Make a root out of such files and an older root.
    Apply(Apply),
    /// Tell what an index, a frames file or a patch says of itself.
    Stat {
        /// The file.
        file: PathBuf,
    },
}

/// Root file systems are files that hold nothing else; what a document names by root hash is named by SHA-256
/// here.
#[derive(Debug, Args)]
struct Make {
    /// The new root file system.
    root: PathBuf,
    /// Where the files go, with a delta.json that names them.
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// An older root file system to make a patch from; repeatable.
    #[arg(long, value_name = "FILE")]
    from: Vec<PathBuf>,
    /// The new unified kernel image.
    #[arg(long, value_name = "FILE")]
    uki: Option<PathBuf>,
    /// An older one to make a patch from; repeatable.
    #[arg(long, value_name = "FILE", requires = "uki")]
    from_uki: Vec<PathBuf>,
    /// Make patches only, and leave the frames as they are.
    #[arg(long)]
    patches_only: bool,
}

#[derive(Debug, Args)]
struct Apply {
    /// What `keller delta make` wrote.
    from: PathBuf,
    /// Where the root goes: a file, or what an earlier try left of it.
    target: PathBuf,
    /// The root that is there already.
    #[arg(long, value_name = "FILE")]
    old: Option<PathBuf>,
    /// Take no patch.
    #[arg(long)]
    no_patch: bool,
    /// Where the unified kernel image goes.
    #[arg(long, value_name = "FILE")]
    uki: Option<PathBuf>,
    /// The unified kernel image that is there already.
    #[arg(long, value_name = "FILE")]
    old_uki: Option<PathBuf>,
}

/// What `delta.json` says.
#[derive(Debug, Serialize, Deserialize)]
struct Files {
    root: RootImage,
    #[serde(skip_serializing_if = "Option::is_none")]
    uki: Option<Uki>,
}

/// Makes, applies or tells.
///
/// # Errors
/// Files that cannot be read or written, and all that goes wrong with an update.
pub fn run(args: &DeltaArgs, global: &Global) -> Result<ExitCode> {
    let display = Display::new(global.verbosity());
    match &args.verb {
        DeltaVerb::Make(args) => make(args, &display)?,
        DeltaVerb::Apply(args) => {
            for (what, fetched) in apply(args, &display)? {
                let Fetched { way, bytes, requests, reused, kept, written } = fetched;
                let way = way.name();
                println!(
                    "{}",
                    serde_json::json!({ "what": what, "way": way, "bytes": bytes, "requests": requests,
                        "reused": reused, "kept": kept, "written": written })
                );
            }
        }
        DeltaVerb::Stat { file } => {
            let context = || format!("reading {}", file.display());
            let text = delta::describe(&mut File::open(file).with_context(context)?).with_context(context)?;
            print!("{text}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn device(path: &Path) -> Result<FileDevice> {
    let open = || FileDevice::image(File::open(path)?, SectorSize::B512);
    open().with_context(|| format!("opening {}", path.display()))
}

fn digest(path: &Path) -> Result<Digest> {
    let context = || format!("reading {}", path.display());
    let mut file = File::open(path).with_context(context)?;
    Ok(Digest::of_reader(&mut file).with_context(context)?.0)
}

fn make(args: &Make, display: &Display) -> Result<()> {
    let folder = Folder::new(&args.to);
    let list = args.to.join("delta.json");
    let new = device(&args.root)?;
    let size = new.size();
    let patch = |old: &Path, new: &FileDevice| -> Result<Patch> {
        let device = device(old)?;
        let (blob, _) = folder
            .add_blob(|out| {
                anyhow::Ok(delta::make_patch(&device, device.size(), new, new.size(), out, display)?)
            })
            .with_context(|| format!("making a patch from {}", old.display()))?;
        Ok(Patch { from: digest(old)?, version: old.display().to_string(), blob })
    };
    let before: Option<Files> = match args.patches_only {
        true => Some(serde_json::from_slice(
            &fs::read(&list).with_context(|| format!("reading {}", list.display()))?,
        )?),
        false => None,
    };
    let (frames, index) = match before {
        Some(before) => (before.root.frames, before.root.index),
        None => {
            let mut index = Vec::new();
            let (frames, _) = folder
                .add_blob(|out| {
                    anyhow::Ok(delta::publish_root(&new, size, delta::LEVEL, out, &mut index, display)?)
                })
                .with_context(|| format!("compressing {}", args.root.display()))?;
            (frames, folder.add_blob(|out| out.write_all(&index))?.0)
        }
    };
    let root = RootImage {
        root_hash: digest(&args.root)?,
        size,
        salt: String::new(),
        verity_uuid: Uuid::nil(),
        frames,
        index,
        patches: args.from.iter().map(|old| patch(old, &new)).collect::<Result<_>>()?,
    };
    let uki = match &args.uki {
        None => None,
        Some(path) => {
            let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
            let new = device(path)?;
            Some(Uki {
                sha256: Digest::of(&bytes),
                size: bytes.len() as u64,
                full: folder.add_blob(|out| anyhow::Ok(delta::publish_uki(&bytes, delta::LEVEL, out)?))?.0,
                patches: args.from_uki.iter().map(|old| patch(old, &new)).collect::<Result<_>>()?,
            })
        }
    };
    let text = serde_json::to_vec_pretty(&Files { root, uki })?;
    fs::write(&list, text).with_context(|| format!("writing {}", list.display()))
}

fn apply(args: &Apply, display: &Display) -> Result<Vec<(&'static str, Fetched)>> {
    let list = args.from.join("delta.json");
    let text = fs::read(&list).with_context(|| format!("reading {}", list.display()))?;
    let mut files: Files =
        serde_json::from_slice(&text).with_context(|| format!("reading {}", list.display()))?;
    let folder = Folder::new(&args.from);
    let mut all = Vec::new();
    if args.no_patch {
        files.root.patches.clear();
    }
    if let (Some(path), Some(uki)) = (&args.uki, &files.uki) {
        let old = args.old_uki.as_ref().map(fs::read).transpose().context("reading the old kernel image")?;
        let (bytes, fetched) = delta::uki(uki, &folder, old.as_deref(), display)?;
        fs::write(path, bytes).with_context(|| format!("writing {}", path.display()))?;
        all.push(("uki", fetched));
    }
    let old_root = args.old.as_ref().map(|path| Ok::<_, anyhow::Error>((device(path)?, digest(path)?)));
    let old_root = old_root.transpose()?;
    let old = old_root.as_ref().map(|(root, root_hash)| Old {
        root,
        root_size: root.size(),
        root_hash: *root_hash,
        uki: None,
    });
    let context = || format!("writing {}", args.target.display());
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&args.target);
    let file = file.with_context(context)?;
    file.set_len(files.root.size).with_context(context)?;
    let mut target = FileDevice::image(file, SectorSize::B512).with_context(context)?;
    let fetched =
        delta::root(&files.root, &folder, old.as_ref(), &mut target, display).with_context(context)?;
    if digest(&args.target)? != files.root.root_hash {
        bail!("{} is not what it should have become", args.target.display());
    }
    all.push(("root", fetched));
    Ok(all)
}
