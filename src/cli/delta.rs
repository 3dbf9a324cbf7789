//! `keller delta`: the ways of an update without a node, for measuring and looking at them.

mod fetch;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Global;
use super::progress::Display;
use super::streams;
use crate::base::device::{FileDevice, ReadAt, SectorSize};
use crate::base::width::to_u64;
use crate::base::{Digest, input, limits};
use crate::repository::Folder;
use crate::update::delta::{self, Fetched, Old, PublishError, Published, Way};
use crate::update::document::{Blob, Patch, RootImage, Uki, Ways};

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
    /// Fetch from a repository what a node would fetch.
    Fetch(fetch::Fetch),
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
    /// Make the files of this way only, and leave the others of an earlier run as they are; repeatable.
    #[arg(long, value_name = "WAY")]
    way: Vec<By>,
}

/// A way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum By {
    /// All of it, from nothing.
    Full,
    /// From any version.
    Blocks,
    /// From one certain version.
    Patch,
}

impl From<By> for Way {
    fn from(by: By) -> Self {
        match by {
            By::Full => Self::Full,
            By::Blocks => Self::Blocks,
            By::Patch => Self::Patch,
        }
    }
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
    /// Go this way only; the shortest of several.
    #[arg(long, value_name = "WAY")]
    way: Vec<By>,
    /// Where the unified kernel image goes.
    #[arg(long, value_name = "FILE")]
    uki: Option<PathBuf>,
    /// The unified kernel image that is there already.
    #[arg(long, value_name = "FILE", requires = "uki")]
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
                streams::json(
                    serde_json::json!({ "what": what, "way": way, "bytes": bytes, "requests": requests,
                        "reused": reused, "kept": kept, "written": written }),
                )?;
            }
        }
        DeltaVerb::Fetch(args) => streams::json(fetch::fetch(args, &display)?)?,
        DeltaVerb::Stat { file } => {
            let context = || format!("reading {}", file.display());
            let text =
                delta::describe(&mut input::open(file).with_context(context)?).with_context(context)?;
            streams::print(text)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn device(path: &Path) -> Result<FileDevice> {
    let open = || FileDevice::image(input::open_disk(path)?, SectorSize::B512);
    open().with_context(|| format!("opening {}", path.display()))
}

fn digest(path: &Path) -> Result<Digest> {
    let context = || format!("reading {}", path.display());
    let mut file = input::open_disk(path).with_context(context)?;
    Ok(Digest::of_reader(&mut file).with_context(context)?.0)
}

fn make(args: &Make, display: &Display) -> Result<()> {
    let list = args.to.join("delta.json");
    let before: Option<Files> = match input::read(&list, limits::TEXT) {
        Ok(text) => serde_json::from_slice(&text).with_context(|| format!("reading {}", list.display()))?,
        Err(_) => None,
    };
    let (new, root_hash) = (device(&args.root)?, digest(&args.root)?);
    let before_root = before.as_ref().filter(|before| before.root.root_hash == root_hash);
    let maker = Maker { args, folder: Folder::new(&args.to), display };
    let size = new.size();
    let ways = maker.ways(&args.root, &args.from, before_root.map(|it| &it.root.ways), |frames, index| {
        delta::publish_root(&new, size, delta::How::at(delta::LEVEL), frames, index, display)
    })?;
    let root = RootImage { root_hash, size, salt: String::new(), verity_uuid: Uuid::nil(), ways };
    let mut uki = None;
    if let Some(path) = &args.uki {
        let bytes =
            input::read(path, limits::PROGRAM).with_context(|| format!("reading {}", path.display()))?;
        let sha256 = Digest::of(&bytes);
        let before = before.as_ref().and_then(|before| before.uki.as_ref());
        let before = before.filter(|before| before.sha256 == sha256).map(|before| &before.ways);
        let ways = maker.ways(path, &args.from_uki, before, |frames, index| {
            delta::publish_uki(&bytes, delta::How::at(delta::LEVEL), frames, index, display)
        })?;
        uki = Some(Uki { sha256, size: to_u64(bytes.len()), ways });
    }
    let text = serde_json::to_vec_pretty(&Files { root, uki })?;
    fs::write(&list, text).with_context(|| format!("writing {}", list.display()))
}

/// Makes the files of one image after the other.
struct Maker<'a> {
    args: &'a Make,
    folder: Folder,
    display: &'a Display,
}

impl Maker<'_> {
    /// The files of `image`. What was neither made now nor `before` is empty: no way leads over it.
    fn ways(
        &self,
        image: &Path,
        from: &[PathBuf],
        before: Option<&Ways>,
        publish: impl Fn(&mut dyn Write, &mut dyn Write) -> Result<Published, PublishError>,
    ) -> Result<Ways> {
        let wanted = |by: By| self.args.way.is_empty() || self.args.way.contains(&by);
        let new = device(image)?;
        let context = || format!("compressing {}", image.display());
        let none = Blob::of(b"");
        let blank = Ways {
            full: none,
            frames: none,
            index: none,
            patches: Vec::new(),
            level: None,
            full_pieces: Vec::new(),
            frames_pieces: Vec::new(),
        };
        let mut ways = before.cloned().unwrap_or(blank);
        if wanted(By::Full) {
            let full = |out: &mut dyn Write| {
                anyhow::Ok(delta::make_full(&new, new.size(), (delta::LEVEL, None), out, self.display)?)
            };
            ways.full = self.folder.add_blob(full).with_context(context)?.0;
        }
        if wanted(By::Blocks) {
            let mut index = Vec::new();
            let frames = self.folder.add_blob(|out| anyhow::Ok(publish(out, &mut index)?));
            ways.frames = frames.with_context(context)?.0;
            ways.index = self.folder.add_blob(|out| out.write_all(&index))?.0;
        }
        if wanted(By::Patch) {
            ways.patches = from.iter().map(|old| self.patch(old, &new)).collect::<Result<_>>()?;
        }
        Ok(ways)
    }

    fn patch(&self, old: &Path, new: &FileDevice) -> Result<Patch> {
        let device = device(old)?;
        let make = |out: &mut dyn Write| {
            anyhow::Ok(delta::make_patch(&device, device.size(), new, new.size(), out, self.display)?)
        };
        let blob = self.folder.add_blob(make);
        let (blob, _) = blob.with_context(|| format!("making a patch from {}", old.display()))?;
        Ok(Patch { from: digest(old)?, version: old.display().to_string(), blob })
    }
}

fn apply(args: &Apply, display: &Display) -> Result<Vec<(&'static str, Fetched)>> {
    let list = args.from.join("delta.json");
    let text = input::read(&list, limits::TEXT).with_context(|| format!("reading {}", list.display()))?;
    let files: Files =
        serde_json::from_slice(&text).with_context(|| format!("reading {}", list.display()))?;
    let folder = Folder::new(&args.from);
    let mut all = Vec::new();
    let ways: Vec<Way> = match args.way.is_empty() {
        true => Way::ALL.to_vec(),
        false => args.way.iter().map(|by| Way::from(*by)).collect(),
    };
    if let (Some(path), Some(uki)) = (&args.uki, &files.uki) {
        let old = args.old_uki.as_ref().map(fs::read).transpose().context("reading the old kernel image")?;
        let mut bytes = Vec::new();
        let fetched = delta::uki_by(&ways, uki, &folder, old.as_deref(), &mut bytes, display)?;
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
    let fetched = delta::root_by(&ways, &files.root, &folder, old.as_ref(), &mut target, display);
    let fetched = fetched.with_context(context)?;
    if digest(&args.target)? != files.root.root_hash {
        bail!("{} is not what it should have become", args.target.display());
    }
    all.push(("root", fetched));
    Ok(all)
}
