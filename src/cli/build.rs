//! `keller build`: from a manifest to the files that were asked for.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;

use super::Global;
use super::inputs::InputArgs;
use super::progress::{Display, summary};
use super::streams;
use crate::base::progress::{Progress, Task, Unit};
use crate::base::{AtomicFile, Digest, Size, atomic, input, limits};
use crate::image::{self, Job, Means, Report};
use crate::lock::{Lock, diff, file};
use crate::manifest::{Manifest, Output};
use crate::output::{self, Format};
use crate::project::{Inputs, Outside, Policy, Project, store};
use crate::tree::Content;

/// Arguments of `keller build`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  \
    keller build                         the default node, into ./out\n  \
    keller build my-node/node.yaml       into my-node/out\n  \
    keller build --locked --offline node.yaml\n  \
    keller build --version 1.0.7 node.yaml\n  \
    keller build --check node.yaml       twice, and compare every byte")]
pub struct BuildVerb {
    /// What is built.
    #[command(flatten)]
    pub build: BuildArgs,
    /// Write no SHA256SUMS: hashing a raw image, holes and all, takes longer than the rest of a rebuild.
    #[arg(long)]
    pub no_sums: bool,
}

/// What `keller build` and `keller run` let one say of an image.
#[derive(Clone, Debug, Args)]
pub struct BuildArgs {
    /// The manifest; without one, the default node inside this binary.
    pub manifest: Option<PathBuf>,
    /// Make it this version, whatever the manifest says: for a CI job that numbers images.
    #[arg(long, value_name = "VERSION", value_parser = crate::manifest::parse_version)]
    pub version: Option<String>,
    /// Where the files go; `out` beside the manifest by default.
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Refuse anything that the lock does not name.
    #[arg(long)]
    pub locked: bool,
    /// Build a second time in another way and compare the images.
    #[arg(long)]
    pub check: bool,
    /// The keller for the node; by default the one that runs.
    #[arg(long, value_name = "FILE")]
    pub keller: Option<PathBuf>,
    /// Put an unoptimised keller into the image all the same.
    #[arg(long)]
    pub allow_debug: bool,
    /// Inputs.
    #[command(flatten)]
    pub inputs: InputArgs,
}

/// What a build left behind.
pub struct Built {
    /// The files, by format.
    pub files: Vec<(Format, PathBuf)>,
    /// What they are.
    pub report: Report,
    /// What was asked for.
    pub project: Project,
}

impl Built {
    /// The file to boot: raw before others.
    pub fn bootable(&self) -> &Path {
        let raw = self.files.iter().find(|(format, _)| *format == Format::Raw);
        &raw.or(self.files.first()).expect("every manifest asks for an output").1
    }
}

/// Builds and tells.
pub fn run(args: BuildVerb, global: &Global) -> Result<ExitCode> {
    let begun = Instant::now();
    let display = Display::new(global.verbosity());
    let built = build(&args.build, !args.no_sums, &display)?;
    if global.json {
        let files: Vec<_> = built.files.iter().map(|(_, path)| path).collect();
        streams::json(serde_json::json!({ "files": files, "build": built.report }))?;
    } else if !global.quiet {
        streams::tell(summary(&display.stages()).trim_end());
        let sizes = &built.report.sizes;
        streams::tell(format_args!(
            "{} {}: root {}, UKI {} (initramfs {}), {} packages, {:.1} s",
            built.report.record.id,
            built.report.record.version,
            Size(sizes.root).human(),
            Size(sizes.uki).human(),
            Size(sizes.initramfs).human(),
            built.report.record.packages.len(),
            begun.elapsed().as_secs_f64()
        ));
        streams::tell(format_args!("root hash {}", sizes.root_hash));
        for (_, path) in &built.files {
            streams::line(path.display())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds what `args` say. Without `sums` there is no SHA256SUMS: an image that is only booted here need not
/// be read once more, holes and all.
pub fn build(args: &BuildArgs, sums: bool, progress: &dyn Progress) -> Result<Built> {
    let (bytes, digest) = keller(args)?;
    let output = output_folder(args);
    let mut project = Project::load(args.manifest.as_deref(), &output)?;
    if let Some(version) = &args.version {
        let manifest = project.manifest.with_version(version);
        project.manifest = manifest.map_err(|problem| anyhow::anyhow!("--version: {problem}"))?;
    }
    let name = project.name.clone();
    let inputs = Inputs::from(args.inputs.clone());
    let store = inputs.open_store(progress)?;
    let policy = if args.locked { Policy::Locked } else { Policy::Follow };
    let targets = Targets::of(&project.manifest, &output);
    targets.check()?;
    let means = Means { store: &store, settings: inputs.settings(), progress };
    let work = || {
        let begun = begin(&project, &policy, &inputs, &means)?;
        let root = begun.laid.finish(&project.manifest, &begun.lock, &bytes, &means)?;
        store.sound()?;
        let lock = save(&project, &policy, begun.before.as_ref(), begun.lock, progress)?;
        fs::create_dir_all(&output).with_context(|| format!("making {}", output.display()))?;
        let job = Job { manifest: &project.manifest, lock: &lock, keller: (&bytes, digest), means };
        write(&job, root, &targets, args.check, sums)
    };
    let (files, report) =
        store::mending(&store, progress, work).with_context(|| format!("building {name}"))?;
    Ok(Built { files, report, project })
}

/// What a build and `keller lock` begin with.
pub struct Begun {
    /// The lock file as it was.
    pub before: Option<Lock>,
    /// The lock that fits.
    pub lock: Lock,
    /// What the root is made of, out of the store.
    pub laid: image::root::Laid,
}

/// Makes a lock that fits, with everything that it names in the store; writes nothing.
pub fn begin(project: &Project, policy: &Policy, inputs: &Inputs, means: &Means<'_>) -> Result<Begun> {
    let outside = Outside::new(inputs);
    let manifest = &project.manifest;
    let before = file::read(&project.lock, &manifest.id)?;
    let resolved = policy.resolved(manifest, &project.lock, before.as_ref(), &outside, means)?;
    let fetched = outside.fetch(manifest, resolved, means)?;
    let (laid, facts) = image::root::lay(manifest, &fetched.resolved, means)?;
    Ok(Begun { before, lock: fetched.lock(facts), laid })
}

/// Writes the lock where it is new or not as it was `before`, unless `policy` forbids that.
pub fn save(
    project: &Project,
    policy: &Policy,
    before: Option<&Lock>,
    lock: Lock,
    progress: &dyn Progress,
) -> Result<Lock> {
    if before == Some(&lock) {
        return Ok(lock);
    }
    let changes = before.map(|before| diff::diff(before, &lock).to_string());
    if *policy == Policy::Locked {
        bail!(
            "{} does not fit any more; `keller lock` mends it\n{}",
            project.lock.display(),
            changes.unwrap_or_default()
        );
    }
    if let Some(folder) = project.lock.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    file::write(&project.lock, &lock)?;
    match changes {
        Some(changes) => progress.note(&format!("{} changed:\n{changes}", project.lock.display())),
        None => progress.note(&format!("wrote {}", project.lock.display())),
    }
    Ok(lock)
}

fn output_folder(args: &BuildArgs) -> PathBuf {
    match (&args.output, &args.manifest) {
        (Some(output), _) => output.clone(),
        (None, Some(manifest)) => manifest.parent().unwrap_or(Path::new("")).join("out"),
        (None, None) => PathBuf::from("out"),
    }
}

/// The keller for the node: it must run where no library is, as nothing else is in the initramfs.
fn keller(args: &BuildArgs) -> Result<(Content, Digest)> {
    let path = match &args.keller {
        Some(path) => path.clone(),
        None => {
            if cfg!(debug_assertions) && !args.allow_debug {
                bail!(
                    "this keller is a debug build, which is large and slow on a node: build with --release, \
                     name another with --keller, or pass --allow-debug"
                );
            }
            std::env::current_exe().context("looking for this program")?
        }
    };
    let bytes = input::read(&path, limits::PROGRAM).with_context(|| format!("reading {}", path.display()))?;
    if !is_static(&bytes) {
        bail!(
            "{} is not a static x86_64 program, so it cannot be /init: build it with the project's own \
             .cargo/config.toml, or name another with --keller",
            path.display()
        );
    }
    let digest = Digest::of(&bytes);
    Ok((bytes.into(), digest))
}

fn is_static(bytes: &[u8]) -> bool {
    use object::elf::{FileHeader64, PT_INTERP};
    use object::read::elf::{FileHeader, ProgramHeader};
    let Ok(header) = FileHeader64::<object::LittleEndian>::parse(bytes) else { return false };
    let Ok(endian) = header.endian() else { return false };
    let Ok(segments) = header.program_headers(endian, bytes) else { return false };
    header.e_machine(endian) == object::elf::EM_X86_64
        && !segments.iter().any(|segment| segment.p_type(endian) == PT_INTERP)
}

/// Where the files of an image go.
struct Targets<'a> {
    manifest: &'a Manifest,
    folder: &'a Path,
}

impl<'a> Targets<'a> {
    fn of(manifest: &'a Manifest, folder: &'a Path) -> Self {
        Self { manifest, folder }
    }

    fn image(&self, format: Format) -> PathBuf {
        let Manifest { id, version, .. } = self.manifest;
        self.folder.join(format!("{id}_{version}{}", format.suffix()))
    }

    fn sums(&self) -> PathBuf {
        self.folder.join("SHA256SUMS")
    }

    fn report(&self) -> PathBuf {
        self.folder.join("build.json")
    }

    /// Refuses a directory in a file's place before anything is built.
    fn check(&self) -> Result<()> {
        let images = self.manifest.outputs.iter().map(|output| self.image(format(*output)));
        for path in images.chain([self.image(Format::Raw), self.sums(), self.report()]) {
            if path.is_dir() {
                bail!(
                    "{} is a directory, and a file of this name is to be written: move it away, or name another \
                     directory with --output",
                    path.display()
                );
            }
        }
        Ok(())
    }

    fn create(&self, format: Format) -> Result<AtomicFile> {
        AtomicFile::create(&self.image(format))
            .with_context(|| format!("writing into {}", self.folder.display()))
    }

    /// Names the file of which `error` speaks, and the way out where the disk is full.
    fn failed(&self, path: &Path, error: impl Into<anyhow::Error>) -> anyhow::Error {
        let error = error.into();
        // Some errors have the cause in their text alone: ENOSPC and EDQUOT.
        let is_full = error.chain().any(|cause| {
            let kind = cause.downcast_ref::<io::Error>().map(io::Error::kind);
            let text = cause.to_string();
            matches!(kind, Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
                || ["(os error 28)", "(os error 122)"].iter().any(|number| text.ends_with(number))
        });
        let help = match is_full {
            true => format!(
                " (no space is left in {}: free some, or name another directory with --output)",
                self.folder.display()
            ),
            false => String::new(),
        };
        error.context(format!("writing {}{help}", path.display()))
    }
}

/// Writes the image in every format that the manifest asks for, the sums and the report.
fn write(
    job: &Job<'_>,
    root: image::Root,
    targets: &Targets<'_>,
    check: bool,
    sums: bool,
) -> Result<(Vec<(Format, PathBuf)>, Report)> {
    let manifest = job.manifest;
    let raw_path = targets.image(Format::Raw);
    let raw = targets.create(Format::Raw)?;
    let report = image::write(job, root, raw.file()).map_err(|error| targets.failed(&raw_path, error))?;
    job.means.store.sound()?;
    if check {
        image::check::again(job, raw.file()).context("building a second time")?;
        job.means.progress.note("built a second time in another way: the same bytes");
    }
    let mut wanted: Vec<Format> = manifest.outputs.iter().map(|output| format(*output)).collect();
    wanted.sort();
    let list = targets.sums();
    if let Err(error) = fs::remove_file(&list)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(error).with_context(|| format!("removing {}", list.display()));
    }
    let mut digests = Vec::new();
    let mut files = Vec::new();
    for format in wanted.into_iter().rev() {
        let task = Task::new(job.means.progress, "output", 0, Unit::Items);
        task.at(format.suffix());
        let written = if format == Format::Raw {
            raw.file().try_clone()?
        } else {
            let (target, path) = (targets.create(format)?, targets.image(format));
            let failed = |error| targets.failed(&path, error);
            format.write(raw.file(), target.file()).map_err(|error| targets.failed(&path, error))?;
            target.commit_unsynced().map_err(failed)?
        };
        let path = targets.image(format);
        if sums {
            let digest = output::raw::digest(&written);
            digests.push((path.clone(), digest.with_context(|| format!("reading {}", path.display()))?));
        }
        files.push((format, path));
    }
    if files.iter().any(|(format, _)| *format == Format::Raw) {
        raw.commit_unsynced().map_err(|error| targets.failed(&raw_path, error))?;
    }
    let json = serde_json::to_string_pretty(&report)? + "\n";
    let path = targets.report();
    digests.push((path.clone(), Digest::of(&json)));
    atomic::write(&path, json).map_err(|error| targets.failed(&path, error))?;
    digests.sort();
    let line = |(path, digest): &(PathBuf, Digest)| {
        format!("{digest}  {}\n", path.file_name().unwrap_or_default().to_string_lossy())
    };
    if sums {
        let text: String = digests.iter().map(line).collect();
        atomic::write(&list, text).map_err(|error| targets.failed(&list, error))?;
    }
    Ok((files, report))
}

fn format(output: Output) -> Format {
    match output {
        Output::Raw => Format::Raw,
        Output::Qcow2 => Format::Qcow2,
    }
}
