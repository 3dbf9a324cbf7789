//! The files that a build leaves: their names, and how they get them.

use std::cmp::Reverse;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};

use super::standing::{Left, Raw, Stamp, Standing, settle};
use crate::base::chain::{is_full, is_too_large};
use crate::base::progress::{Task, Unit};
use crate::base::{AtomicFile, Digest, Size, atomic, input};
use crate::boot::live::Source;
use crate::image::report::Sizes;
use crate::image::{self, Job, Kept, Report, Root};
use crate::manifest::{Manifest, Output};
use crate::output::{self, Disk, Format, iso, live};
use crate::tree::Content;

/// Where the files of an image go.
pub(super) struct Outputs<'a> {
    manifest: &'a Manifest,
    folder: &'a Path,
    /// For machines that run the image from memory.
    document: Option<&'a [u8]>,
}

impl<'a> Outputs<'a> {
    pub(super) fn new(manifest: &'a Manifest, folder: &'a Path, document: Option<&'a [u8]>) -> Self {
        Self { manifest, folder, document }
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

    /// Refuses a file in the place of the directory, anything else in a file's, and a disk that a format cannot hold, before anything is built.
    pub(super) fn check(&self) -> Result<()> {
        let disk = &self.manifest.disk;
        // Without what is derived of it, which the format itself counts.
        let parts = [disk.esp, disk.root, disk.root, disk.reserve.unwrap_or_default(), disk.state_min];
        let size = parts.iter().fold(0, |sum: u64, part| sum.saturating_add(part.bytes()));
        for output in &self.manifest.outputs {
            let limit = format(*output).limit().filter(|limit| size > limit.bytes());
            if let Some(limit) = limit {
                bail!(
                    "outputs: a {} holds a disk of {limit} at most, and `disk` asks for {}: make it smaller, or leave \
                     this output out",
                    format(*output).name(),
                    Size(size).human()
                );
            }
        }
        match self.folder.metadata() {
            Ok(found) if !found.is_dir() => {
                bail!("{} is not a directory: name another with --output", self.folder.display());
            }
            Err(_) if self.folder.is_symlink() => {
                bail!(
                    "{} is a link that leads nowhere: name another directory with --output",
                    self.folder.display()
                );
            }
            _ => {}
        }
        let images = self.wanted().into_iter().map(|format| self.image(format));
        for path in images.chain([self.image(Format::Raw), self.sums(), self.report()]) {
            if let Some(other) = input::in_the_way(&path) {
                bail!(
                    "{} is {other}, and a file of this name is to be written: move it away, or name another \
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
        let is_full = is_full(error.as_ref());
        let is_large = is_too_large(error.as_ref());
        let folder = self.folder.display();
        let help = match (is_full, is_large) {
            (true, false) => {
                format!(" (no space is left in {folder}: free some, or name another directory with --output)")
            }
            (_, true) => format!(
                " (the file system of {folder} takes no file of the size of this disk, holes included: make `disk` \
                 smaller, name a directory on another file system, such as XFS, with --output, or raise `ulimit -f`)"
            ),
            (false, false) => String::new(),
        };
        error.context(format!("writing {}{help}", path.display()))
    }

    /// Writes the image in every format that the manifest asks for, the sums and the report. `check`: builds it a second
    /// time and compares; without `sums` there is no SHA256SUMS, and files that stand there already stay as they are.
    pub(super) fn write(
        &self,
        job: &Job<'_>,
        root: Root,
        check: bool,
        sums: bool,
    ) -> Result<(Vec<(Format, PathBuf)>, Report)> {
        let wanted = self.wanted();
        let files: Vec<_> = wanted.into_iter().map(|format| (format, self.image(format))).collect();
        let paths: Vec<_> = files.iter().map(|(_, path)| path.clone()).collect();
        // A record names nothing of the document.
        let has_raw = files.last().is_some_and(|(format, _)| *format == Format::Raw);
        let standing = match check || sums || self.document.is_some() {
            true => None,
            false => Standing::new(job, &paths, has_raw),
        };
        let (report, digests) = match standing.as_ref().map_or(Left::Nothing, Standing::left) {
            Left::All(sizes) => (self.left(job, &root, sizes)?, Vec::new()),
            left => {
                let raw = if let Left::Raw(raw) = left { Some(*raw) } else { None };
                let Made { report, digests, stamps, kept } =
                    self.made(job, root, &files, check, sums, raw)?;
                if let Some(standing) = &standing {
                    standing.keep(&report.sizes, stamps, &kept);
                }
                (report, digests)
            }
        };
        let own = self.write_report(&report)?;
        if sums {
            self.write_sums(digests.into_iter().chain([own]).collect())?;
        }
        Ok((files, report))
    }

    /// The formats to write, in this order.
    fn wanted(&self) -> Vec<Format> {
        let mut wanted: Vec<Format> = self.manifest.outputs.iter().map(|output| format(*output)).collect();
        if wanted.contains(&Format::NetbootHttp) {
            wanted.extend([Format::RawZst, Format::Ipxe]);
        }
        // What pins the compressed image comes after it.
        let pins = |format: Format| matches!(format, Format::NetbootHttp | Format::Ipxe);
        wanted.sort_by_key(|format| (pins(*format), Reverse(*format)));
        wanted.dedup();
        wanted
    }

    /// Leaves the files where they are; says what writing them would.
    fn left(&self, job: &Job<'_>, root: &Root, sizes: Sizes) -> Result<Report> {
        image::kernel::tell(job, &root.modules).context("planning the initramfs")?;
        if self.wanted().contains(&Format::NetbootHttp) {
            image::kernel::tell_cards(job, &root.modules).context("planning the initramfs")?;
            self.tell_url(job);
        }
        job.means.store.sound()?;
        job.means.progress.detail("nothing has changed since the image was written: it stays as it is");
        self.remove_sums()?;
        Ok(Report::of(job, &root.kernel.version, root.names(), sizes))
    }

    /// Makes the files, after the raw image `earlier` that stands there.
    fn made(
        &self,
        job: &Job<'_>,
        root: Root,
        files: &[(Format, PathBuf)],
        check: bool,
        sums: bool,
        earlier: Option<Raw>,
    ) -> Result<Made> {
        let raw_path = self.image(Format::Raw);
        let raw = self.create(Format::Raw)?;
        let fetches = files.iter().any(|(format, _)| *format == Format::NetbootHttp);
        let cards = if fetches { self.cards(job, &root)? } else { Vec::new() };
        let (earlier, guard) = earlier.map(Raw::split).unzip();
        let written = image::write(job, root, raw.file(), earlier);
        let (report, kept) = written.map_err(|error| self.failed(&raw_path, error))?;
        if guard.is_some_and(|guard| !guard.is_untouched()) {
            bail!(
                "{} changed while parts of it were taken into the new image: build again once nothing writes to it",
                raw_path.display()
            );
        }
        job.means.store.sound()?;
        if check {
            image::check::again(job, raw.file()).context("building a second time")?;
            job.means.progress.note("built a second time in another way: the same bytes");
        }
        self.remove_sums()?;
        let (mut digests, mut stamps) = (Vec::new(), Vec::new());
        let converted = files.iter().any(|(format, _)| *format != Format::Raw);
        // Whoever starts one of them has a disk of the node's size without a step in between.
        let size = report.sizes.disk;
        let survey = || Disk::survey(raw.file(), size).map_err(|error| self.failed(&raw_path, error));
        let disk = converted.then(survey).transpose()?;
        let pool = job.means.settings.pool()?;
        // What an iso starts is a file of its own where that is wanted as well, which comes after it.
        let mut program = None;
        let mut compressed = None;
        for (format, path) in files {
            let task = Task::new(job.means.progress, "output", 0, Unit::Items);
            task.at(format.suffix());
            let mut write = |disk: &Disk<'_>| -> Result<(AtomicFile, Option<Digest>)> {
                match format {
                    Format::Iso => {
                        let started = pool.install(|| self.program(disk, path))?;
                        let target = self.iso(job, &report, started.file())?;
                        program = Some(started);
                        let digest = whole(target.file(), path, sums)?;
                        Ok((target, digest))
                    }
                    Format::Netboot => {
                        let made =
                            program.take().map_or_else(|| pool.install(|| self.program(disk, path)), Ok);
                        let target = made?;
                        let digest = whole(target.file(), path, sums)?;
                        Ok((target, digest))
                    }
                    Format::NetbootHttp | Format::Ipxe => {
                        let target = self.small(*format, disk, &cards, compressed)?;
                        let digest = whole(target.file(), path, sums)?;
                        Ok((target, digest))
                    }
                    _ => {
                        let target = self.create(*format)?;
                        let written = pool.install(|| format.write(disk, target.file(), sums || fetches));
                        let digest = written.map_err(|error| self.failed(path, error))?;
                        if *format == Format::RawZst {
                            compressed = digest.zip(target.file().metadata().ok().map(|data| data.len()));
                        }
                        Ok((target, digest.filter(|_| sums)))
                    }
                }
            };
            let digest = match &disk {
                Some(disk) if *format != Format::Raw => {
                    let (target, digest) = write(disk)?;
                    self.named(target, path, &mut stamps)?;
                    digest
                }
                _ => whole(raw.file(), path, sums)?,
            };
            digests.extend(digest.map(|digest| (path.clone(), digest)));
        }
        if files.iter().any(|(format, _)| *format == Format::Raw) {
            self.named(raw, &raw_path, &mut stamps)?;
        }
        Ok(Made { report, digests, stamps: stamps.into_iter().collect(), kept })
    }

    /// What a machine runs from memory, for the output at `path`.
    fn program(&self, disk: &Disk<'_>, path: &Path) -> Result<AtomicFile> {
        let target = self.create(Format::Netboot)?;
        live::write(disk, self.document, target.file()).map_err(|error| self.failed(path, error))?;
        Ok(target)
    }

    /// What fetches the compressed image, of that digest and size; or the script that starts it.
    fn small(
        &self,
        format: Format,
        disk: &Disk<'_>,
        cards: &[u8],
        compressed: Option<(Digest, u64)>,
    ) -> Result<AtomicFile> {
        let target = self.create(format)?;
        let name = |format| self.image(format).file_name().unwrap_or_default().to_string_lossy().into_owned();
        let write = || match format {
            Format::Ipxe => {
                let program = name(Format::NetbootHttp);
                // iPXE may have the script from where /init cannot fetch anything, such as by TFTP.
                let image = self.manifest.netboot_url.is_none().then(|| name(Format::RawZst));
                let script = live::ipxe_script(disk, &program, image.as_deref())?;
                target.file().write_all_at(script.as_bytes(), 0)
            }
            _ => {
                let (digest, size) =
                    compressed.ok_or_else(|| io::Error::other("the image was not compressed"))?;
                let url = self.manifest.netboot_url.clone();
                let source = Source { name: name(Format::RawZst), size, digest, url };
                live::Small { cards, source, document: self.document }.write(disk, target.file())
            }
        };
        write().map_err(|error| self.failed(&self.image(format), error))?;
        Ok(target)
    }

    /// The drivers of network cards for what fetches the image.
    fn cards(&self, job: &Job<'_>, root: &Root) -> Result<Vec<u8>> {
        self.tell_url(job);
        image::kernel::cards(job, &root.modules).context("making the initramfs")
    }

    /// Tells who has to say where the image is, if the manifest does not.
    fn tell_url(&self, job: &Job<'_>) {
        if self.manifest.netboot_url.is_none() {
            job.means.progress.note(
                "outputs: netboot-http: `netboot.url` is not set: whatever starts the machine must give keller.image=URL \
                 on the kernel command line, as the script for iPXE does",
            );
        }
    }

    /// The ISO that starts `program`.
    fn iso(&self, job: &Job<'_>, report: &Report, program: &File) -> Result<AtomicFile> {
        let target = self.create(Format::Iso)?;
        let len = program.metadata()?.len();
        let parts = iso::Parts {
            program: Content::Slice { file: Arc::new(program.try_clone()?), offset: 0, len },
            name: format!("{}_{}", self.manifest.id, self.manifest.version),
            identity: report.sizes.root_hash,
            epoch: job.lock.epoch,
        };
        iso::write(&parts, target.file()).map_err(|error| self.failed(&self.image(Format::Iso), error))?;
        Ok(target)
    }

    /// Gives a file its name, and adds its stamp; none if somebody wrote to it meanwhile.
    fn named(&self, file: AtomicFile, path: &Path, stamps: &mut Vec<Option<Stamp>>) -> Result<()> {
        let settled = settle(file.file());
        let file = file.commit_unsynced().map_err(|error| self.failed(path, error))?;
        stamps.push(Stamp::of_settled(&file, settled));
        Ok(())
    }

    /// Writes `build.json`; gives its path and digest.
    fn write_report(&self, report: &Report) -> Result<(PathBuf, Digest)> {
        let json = serde_json::to_string_pretty(report)? + "\n";
        let path = self.report();
        let digest = Digest::of(&json);
        atomic::write(&path, json).map_err(|error| self.failed(&path, error))?;
        Ok((path, digest))
    }

    /// Sums of an earlier build are gone before its files are.
    fn remove_sums(&self) -> Result<()> {
        let list = self.sums();
        match fs::remove_file(&list) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing {}", list.display()))
            }
            _ => Ok(()),
        }
    }

    /// Writes `SHA256SUMS` as sha256sum does.
    fn write_sums(&self, mut digests: Vec<(PathBuf, Digest)>) -> Result<()> {
        digests.sort();
        let line = |(path, digest): &(PathBuf, Digest)| {
            format!("{digest}  {}\n", path.file_name().unwrap_or_default().to_string_lossy())
        };
        let text: String = digests.iter().map(line).collect();
        let list = self.sums();
        atomic::write(&list, text).map_err(|error| self.failed(&list, error))
    }
}

/// Files that were made.
struct Made {
    report: Report,
    /// Of each, with sums.
    digests: Vec<(PathBuf, Digest)>,
    /// Of each, unless somebody wrote to one.
    stamps: Option<Vec<Stamp>>,
    /// For the next build.
    kept: Kept,
}

/// The digest of `file`, which gets the name `path`, where `sums` are wanted.
fn whole(file: &File, path: &Path, sums: bool) -> Result<Option<Digest>> {
    let digest = sums.then(|| output::raw::digest(file)).transpose();
    digest.with_context(|| format!("reading {}", path.display()))
}

fn format(output: Output) -> Format {
    match output {
        Output::Raw => Format::Raw,
        Output::Qcow2 => Format::Qcow2,
        Output::RawZst => Format::RawZst,
        Output::Vmdk => Format::Vmdk,
        Output::Vhd => Format::Vhd,
        Output::VhdFixed => Format::VhdFixed,
        Output::Netboot => Format::Netboot,
        Output::Iso => Format::Iso,
        Output::NetbootHttp => Format::NetbootHttp,
    }
}
