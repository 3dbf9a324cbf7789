//! A node document, as it is handed to a machine.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use base64::prelude::{BASE64_STANDARD, Engine};

use crate::base::{AtomicFile, Size, input};
use crate::node::{self, CREDENTIAL};

/// All of an SMBIOS table has 64 KiB where its older entry point is used; base64 takes a third more.
const LARGEST: u64 = 40 << 10;

/// Checks the document in `file` and writes the SMBIOS string that carries it into `scratch`.
///
/// # Errors
/// All that is wrong with the document.
pub(in crate::project) fn hand_over(file: &Path, scratch: &Path) -> Result<PathBuf> {
    let bytes =
        input::read(file, node::LARGEST + 1).with_context(|| format!("reading {}", file.display()))?;
    node::read(&file.to_string_lossy(), &bytes)?;
    if bytes.len() as u64 > LARGEST {
        let most = Size(LARGEST).human();
        bail!("{} is larger than the {most} that a machine's SMBIOS table carries", file.display());
    }
    let target = scratch.join("node");
    let write = || {
        let mut written = AtomicFile::create(&target)?;
        written.set_mode(0o600)?;
        let text = format!("io.systemd.credential.binary:{CREDENTIAL}={}", BASE64_STANDARD.encode(&bytes));
        written.file_mut().write_all(text.as_bytes())?;
        written.commit_unsynced()
    };
    write().with_context(|| format!("writing {}", target.display()))?;
    Ok(target)
}
