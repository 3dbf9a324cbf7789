//! `keller node keygen` and `keller node sign`: keys, and documents that they vouch for.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::json;

use super::{Global, file, streams};
use crate::base::{AtomicFile, atomic, input, json, limits};
use crate::node::signature::{self, PublicKey};
use crate::node::{self, Document, Policy};
use crate::repository::keys::PrivateKey;

/// Makes `NAME.pem` and `NAME.pub`.
pub(super) fn keygen(name: &Path, global: &Global) -> Result<()> {
    let [private, public] = [".pem", ".pub"].map(|end| with_end(name, end));
    for path in [&private, &public] {
        if path.symlink_metadata().is_ok() {
            bail!("{} is there already: name another pair", path.display());
        }
    }
    let key = PrivateKey::generate(|_| private.clone())?;
    key.save().with_context(|| format!("writing {}", private.display()))?;
    let text = PublicKey::new(key.public_bytes()).map(PublicKey::to_pem).expect("a key has its length");
    atomic::write(&public, text).with_context(|| format!("writing {}", public.display()))?;
    match global.json {
        true => {
            streams::json(json!({ "private": json::text_of(&private), "public": json::text_of(&public) }))?
        }
        false if global.quiet => {}
        false => streams::print(format_args!(
            "wrote {private} (keep it to yourself) and {public}\n\nnext, in the manifest:\n  node: {{keys: [{public}]}}\n\
             and for each document:\n  keller node sign --key {private} rack1.yaml\n",
            private = private.display(),
            public = public.display(),
        ))?,
    }
    Ok(())
}

fn with_end(name: &Path, end: &str) -> PathBuf {
    let mut path = OsString::from(name);
    path.push(end);
    path.into()
}

/// Signs each document of `file` by the key at `key`, and writes them to `out`, or in their place.
pub(super) fn sign(file: &Path, key: &Path, out: Option<&Path>, global: &Global) -> Result<()> {
    let key = PrivateKey::read(key)?;
    let public = PublicKey::new(key.public_bytes()).expect("a key has its length");
    let name = file.to_string_lossy();
    let text = signed(&node::read(&name, &file::read(file)?)?, &key, public)
        .with_context(|| format!("signing {name}"))?;
    let documents = node::read(&name, text.as_bytes()).with_context(|| format!("signing {name}"))?;
    let policy = Policy { sources: None, keys: vec![public] };
    judge(file, &documents, &policy)?;
    let out = out.unwrap_or(file);
    save(out, &text, file).with_context(|| format!("writing {}", out.display()))?;
    match global.json {
        true => streams::json(json!({ "file": json::text_of(out), "documents": documents.len() }))?,
        false if global.quiet => {}
        false => streams::line(format_args!("signed {}: {} documents", out.display(), documents.len()))?,
    }
    Ok(())
}

/// All documents, each with a signature by `key`, and once.
fn signed(documents: &[Document], key: &PrivateKey, public: PublicKey) -> Result<String> {
    let mut text = String::new();
    for Document { text: one, .. } in documents {
        if one.lines().rev().find(|line| !line.trim().is_empty()).is_some_and(|line| line.trim_end() == "...")
        {
            bail!("a document ends with `...`: remove that line, a signature must be the last");
        }
        text += one;
        if signature::check(one, &[public]).is_err() {
            text += &signature::line(&key.sign(signature::unsigned(one).as_bytes()));
        }
    }
    Ok(text)
}

/// A document has secrets: it stays for whoever could read it.
fn save(path: &Path, text: &str, like: &Path) -> std::io::Result<()> {
    let mode = fs::metadata(like)?.permissions().mode() & 0o777;
    let mut file = AtomicFile::create(&atomic::place(path)?)?;
    file.set_mode(mode)?;
    file.file_mut().write_all(text.as_bytes())?;
    file.commit().map(drop)
}

/// Refuses documents of `file` that none of the public keys in the files `keys` has signed.
pub(super) fn verify(file: &Path, documents: &[Document], keys: &[PathBuf]) -> Result<()> {
    let read = |path: &PathBuf| {
        let bytes = input::read(path, limits::TEXT).with_context(|| format!("reading {}", path.display()))?;
        PublicKey::from_pem(&bytes)
            .map_err(|problem| anyhow!("{} is no public key: {problem}", path.display()))
    };
    let keys = keys.iter().map(read).collect::<Result<Vec<_>>>()?;
    judge(file, documents, &Policy { sources: None, keys })
}

fn judge(file: &Path, documents: &[Document], policy: &Policy) -> Result<()> {
    let shown = |(document, why)| anyhow!("{}: document {}: {why}", file.display(), super::summary(document));
    policy.check_all(documents).map_err(shown)
}
