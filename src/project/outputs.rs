//! The files that a build leaves: their names, and how they get them.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::base::progress::{Task, Unit};
use crate::base::{AtomicFile, Digest, atomic};
use crate::image::{self, Job, Report, Root};
use crate::manifest::{Manifest, Output};
use crate::output::{self, Format};

/// Where the files of an image go.
pub(super) struct Outputs<'a> {
    manifest: &'a Manifest,
    folder: &'a Path,
}

impl<'a> Outputs<'a> {
    pub(super) fn new(manifest: &'a Manifest, folder: &'a Path) -> Self {
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
    pub(super) fn check(&self) -> Result<()> {
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
        let is_large = error.chain().any(|cause| {
            let kind = cause.downcast_ref::<io::Error>().map(io::Error::kind);
            kind == Some(io::ErrorKind::FileTooLarge) || cause.to_string().ends_with("(os error 27)")
        });
        let folder = self.folder.display();
        let help = match (is_full, is_large) {
            (true, _) => {
                format!(" (no space is left in {folder}: free some, or name another directory with --output)")
            }
            (false, true) => format!(
                " (the file system of {folder} takes no file of the size of this disk, holes included: make `disk` \
                 smaller, or name a directory on another file system, such as XFS, with --output)"
            ),
            (false, false) => String::new(),
        };
        error.context(format!("writing {}{help}", path.display()))
    }
    /// Writes the image in every format that the manifest asks for, the sums and the report. `check`: builds it a second
    /// time and compares; without `sums` there is no SHA256SUMS.
    pub(super) fn write(
        &self,
        job: &Job<'_>,
        root: Root,
        check: bool,
        sums: bool,
    ) -> Result<(Vec<(Format, PathBuf)>, Report)> {
        let raw_path = self.image(Format::Raw);
        let raw = self.create(Format::Raw)?;
        let report = image::write(job, root, raw.file()).map_err(|error| self.failed(&raw_path, error))?;
        job.means.store.sound()?;
        if check {
            image::check::again(job, raw.file()).context("building a second time")?;
            job.means.progress.note("built a second time in another way: the same bytes");
        }
        self.remove_sums()?;
        let mut wanted: Vec<Format> = self.manifest.outputs.iter().map(|output| format(*output)).collect();
        wanted.sort();
        let (mut files, mut digests) = (Vec::new(), Vec::new());
        for format in wanted.into_iter().rev() {
            let task = Task::new(job.means.progress, "output", 0, Unit::Items);
            task.at(format.suffix());
            let written = self.converted(&raw, format)?;
            let path = self.image(format);
            if sums {
                let digest = output::raw::digest(&written);
                digests.push((path.clone(), digest.with_context(|| format!("reading {}", path.display()))?));
            }
            files.push((format, path));
        }
        if files.iter().any(|(format, _)| *format == Format::Raw) {
            raw.commit_unsynced().map_err(|error| self.failed(&raw_path, error))?;
        }
        digests.push(self.write_report(&report)?);
        if sums {
            self.write_sums(digests)?;
        }
        Ok((files, report))
    }

    /// The image as `format`, out of the raw one, which gets its own name last.
    fn converted(&self, raw: &AtomicFile, format: Format) -> Result<File> {
        if format == Format::Raw {
            return Ok(raw.file().try_clone()?);
        }
        let (target, path) = (self.create(format)?, self.image(format));
        format.write(raw.file(), target.file()).map_err(|error| self.failed(&path, error))?;
        target.commit_unsynced().map_err(|error| self.failed(&path, error))
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

fn format(output: Output) -> Format {
    match output {
        Output::Raw => Format::Raw,
        Output::Qcow2 => Format::Qcow2,
    }
}
