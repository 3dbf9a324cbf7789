//! Lock files on disk: JSON beside the manifest.

use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{LOCK_FORMAT, Lock};
use crate::base::{Digest, Size, atomic, input, json, limits};
use crate::source::debian::path::below;

/// Why a lock file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LockFileError {
    /// Not JSON, or not that of a lock.
    #[error("{}:{line}:{column}: {reason}\n  {source_line}\nremove the file, and `keller lock` makes it anew", .path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// What is wrong.
        reason: String,
        /// The line itself.
        source_line: String,
    },
    /// Written by a keller that knows more.
    #[error("{} is a lock of form {format}, but this keller knows only {LOCK_FORMAT}: use a newer keller", .path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its form.
        format: u32,
    },
    /// Right by its form, and nothing that was ever locked.
    #[error("{}: {what}: {problem}: remove the file, and `keller lock` makes it anew", .path.display())]
    Impossible {
        /// The file.
        path: PathBuf,
        /// The package, file or list.
        what: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Made for something else.
    #[error("{} is the lock of {found}, but the manifest is {expected}: the manifest of another image was renamed, or its `id` was changed; remove the file to make a new lock", .path.display())]
    OtherManifest {
        /// The file.
        path: PathBuf,
        /// The id in it.
        found: String,
        /// The manifest's id.
        expected: String,
    },
    /// The file cannot be read or written.
    #[error("{verb} {}", .path.display())]
    Io {
        /// `reading` or `writing`.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Where the lock of a manifest lies: `node.yaml` has `node.lock` beside it.
pub fn path_for(manifest: &Path) -> PathBuf {
    manifest.with_extension("lock")
}

/// The text of a lock file. The same lock gives the same text.
pub fn to_text(lock: &Lock) -> String {
    let mut text = serde_json::to_string_pretty(lock).expect("names, numbers and digests");
    text.push('\n');
    text
}

/// Names a lock by the digest of its text.
pub fn digest(lock: &Lock) -> Digest {
    Digest::of(to_text(lock))
}

/// Writes `lock` to `path`, whole or not at all.
pub fn write(path: &Path, lock: &Lock) -> Result<(), LockFileError> {
    atomic::write(path, to_text(lock)).map_err(|source| LockFileError::Io {
        verb: "writing",
        path: path.to_owned(),
        source,
    })
}

/// Reads the lock of the manifest `id` from `path`; `None` when there is no such file.
pub fn read(path: &Path, id: &str) -> Result<Option<Lock>, LockFileError> {
    match input::read_text(path, limits::TEXT) {
        Ok(text) => parse(&text, path, id).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(LockFileError::Io { verb: "reading", path: path.to_owned(), source }),
    }
}

/// The line of `text`, or what of a long one lies around `column`; both count from 1, columns in bytes.
fn around(text: &str, line: usize, column: usize) -> String {
    const BEFORE: usize = 60;
    const SHOWN: usize = 120;
    let line = text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
    let mut start = column.saturating_sub(BEFORE).min(line.len());
    while !line.is_char_boundary(start) {
        start -= 1;
    }
    let start = if line.len() <= SHOWN { 0 } else { start };
    let part: String = line[start..].chars().take(SHOWN).collect();
    let (before, after) = (start > 0, start + part.len() < line.len());
    let mark = |cut: bool| if cut { "…" } else { "" };
    format!("{}{}{}", mark(before), part.trim(), mark(after))
}

/// Reads the text of a lock of the manifest `id`; `path` is for messages.
pub fn parse(text: &str, path: &Path, id: &str) -> Result<Lock, LockFileError> {
    /// What every form of lock begins with, whatever else is in it.
    #[derive(Deserialize)]
    struct Head {
        keller_lock: u32,
    }
    let syntax = |error: serde_json::Error| {
        let full = error.to_string();
        let place = format!(" at line {} column {}", error.line(), error.column());
        LockFileError::Syntax {
            path: path.to_owned(),
            line: error.line(),
            column: error.column(),
            reason: full.strip_suffix(&place).unwrap_or(&full).to_owned(),
            source_line: around(text, error.line(), error.column()),
        }
    };
    json::judge(text.as_bytes(), limits::LOCK_VALUES).map_err(syntax)?;
    let head: Head = serde_json::from_str(text).map_err(syntax)?;
    if head.keller_lock > LOCK_FORMAT {
        return Err(LockFileError::Newer { path: path.to_owned(), format: head.keller_lock });
    }
    let lock: Lock = serde_json::from_str(text).map_err(syntax)?;
    if lock.id != id {
        return Err(LockFileError::OtherManifest {
            path: path.to_owned(),
            found: lock.id,
            expected: id.to_owned(),
        });
    }
    judge(&lock).map_err(|(what, problem)| LockFileError::Impossible {
        path: path.to_owned(),
        what,
        problem,
    })?;
    Ok(lock)
}

/// Refuses what no keller has written: what cannot be, and what is wrong with it.
fn judge(lock: &Lock) -> Result<(), (String, String)> {
    let root = std::iter::once(("packages".to_owned(), &lock.packages));
    let containers = lock.containers.iter().map(|(name, packages)| (format!("container {name}"), packages));
    for (list, packages) in root.chain(containers) {
        if packages.len() > limits::PACKAGES {
            return Err((list, format!("more than {} packages", limits::PACKAGES)));
        }
        for (name, package) in packages {
            let problem = match package {
                package if package.size > limits::DOWNLOAD => too_large(package.size),
                package if !is_plain(&package.path) => "its path leads out of the archive".to_owned(),
                package if package.version.len() > limits::NAME => {
                    "its version is too long for one".to_owned()
                }
                _ => continue,
            };
            return Err((format!("{list}: {name}"), problem));
        }
    }
    match lock.files.iter().find(|(_, file)| file.size > limits::DOWNLOAD) {
        Some((name, file)) => Err((format!("files: {name}"), too_large(file.size))),
        None => Ok(()),
    }
}

fn too_large(size: u64) -> String {
    format!("its size of {size} bytes is more than the {} that are fetched", Size(limits::DOWNLOAD).human())
}

/// Whether `path` is one of a file of an archive.
fn is_plain(path: &str) -> bool {
    below(path).as_deref() == Some(path) && !path.contains(char::is_control)
}
