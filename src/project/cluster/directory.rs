//! A cluster's directory: who works on it, its list, and its files, each written whole.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};

use super::{MOST_BYTES, OPERATOR};
use crate::base::{AtomicFile, atomic, input};
use crate::cluster::access::{LIST, List};
use crate::node;
use crate::node::cluster::PREFIX;
use crate::pki::etcd::Given;

/// Held by whoever changes the directory.
pub(super) const LOCK: &str = ".lock";

/// One at a time works on the directory.
pub(super) fn lock(directory: &Path) -> Result<File> {
    let path = directory.join(LOCK);
    let doing = || {
        format!("locking {}: is {} one that `keller cluster init` made?", path.display(), directory.display())
    };
    // Nothing is made in another directory.
    let list = directory.join(OPERATOR).join(LIST);
    list.symlink_metadata().with_context(|| {
        format!(
            "looking for {}: is {} one that `keller cluster init` made?",
            list.display(),
            directory.display()
        )
    })?;
    let lock = crate::base::flock::open(&path).with_context(doing)?;
    flock(&lock, FlockOperation::LockExclusive).with_context(doing)?;
    Ok(lock)
}

/// The list in the cluster's directory.
pub(super) fn list(directory: &Path) -> Result<List> {
    let path = directory.join(OPERATOR).join(LIST);
    let text = input::read(&path, MOST_BYTES).with_context(|| {
        format!("reading {}: is {} one that `keller cluster init` made?", path.display(), directory.display())
    })?;
    serde_json::from_slice(&text).with_context(|| format!("reading {}", path.display()))
}

/// The document with other certificates in place of those that it has; all else stays, comments too.
pub(super) fn renewed(path: &Path, given: &Given, wanted: &[&'static str]) -> Result<String> {
    let bytes = input::read(path, node::LARGEST + 1)?;
    let old = String::from_utf8(bytes)?;
    let mut text = String::new();
    let mut replaced = Vec::new();
    let mut lines = old.lines().peekable();
    while let Some(line) = lines.next() {
        writeln!(text, "{line}")?;
        let indent = line.len() - line.trim_start().len();
        let file = wanted.iter().find(|file| line.trim() == format!("{PREFIX}{file}: |"));
        let Some(file) = file else { continue };
        let is_inside = |line: &&str| line.trim().is_empty() || line.len() - line.trim_start().len() > indent;
        while lines.next_if(is_inside).is_some() {}
        let pem = given.get(*file).map(|pem| String::from_utf8_lossy(pem)).unwrap_or_default();
        for line in pem.lines() {
            writeln!(text, "{:width$}{line}", "", width = indent + 2)?;
        }
        replaced.push(file);
    }
    if let Some(missing) = wanted.iter().find(|file| !replaced.contains(file)) {
        bail!("it has no line `{PREFIX}{missing}: |`, as `keller cluster init` writes it");
    }
    Ok(text)
}

/// Once this returns, the file is on the disk with its name.
pub(super) fn write(path: &Path, text: &str) -> Result<()> {
    let doing = || format!("writing {}", path.display());
    let mut file = AtomicFile::create(path).with_context(doing)?;
    file.set_mode(0o600).with_context(doing)?;
    file.file_mut().write_all(text.as_bytes()).with_context(doing)?;
    file.commit().and_then(|_| atomic::sync_name(path)).with_context(doing)
}
