//! QEMU for this host: its own, or Debian's out of the store.

use anyhow::Result;

use super::store::mending;
use super::{Inputs, Wanted};
use crate::base::Digest;
use crate::base::progress::Progress;
use crate::manifest;
use crate::qemu::{Program, program};
use crate::store::{Store, Tool};

/// A program that can be run, with what must last until it has ended.
pub(super) struct Qemu {
    /// With its firmware.
    pub(super) program: Program,
    _tool: Option<Tool>,
    /// Keeps others from sweeping it away.
    _store: Option<Store>,
}

/// The name of QEMU among the store's tools.
const QEMU: &str = "qemu";

/// The manifest of what is unpacked.
const REQUEST: &str = "qemu/program.yaml";

/// QEMU and firmware: those on PATH, or Debian's packages unpacked in the store.
///
/// # Errors
/// What keeps it from being unpacked.
pub(super) fn qemu(inputs: &Inputs, progress: &dyn Progress) -> Result<Qemu> {
    if let Some(program) = Program::find(&std::env::var_os("PATH").unwrap_or_default()) {
        return Ok(Qemu { program, _tool: None, _store: None });
    }
    let store = inputs.open_store(progress)?;
    let wanted = Wanted {
        name: QEMU,
        title: "QEMU with UEFI firmware",
        size: "about 200 MB",
        instead: "installing qemu-system-x86 and ovmf",
        // One that another keller asked for otherwise is not used.
        request: Digest::of(manifest::embedded::file(REQUEST).expect("the binary carries it").bytes),
        manifest: manifest::load_embedded(REQUEST)?,
    };
    debug_assert!(program::PACKAGES.iter().all(|name| wanted.manifest.recipe.packages.contains_key(*name)));
    let (program, tool) = mending(&store, progress, || {
        let tool = wanted.unpacked(inputs, &store, progress)?;
        Ok((Program::in_tree(tool.folder())?, tool))
    })?;
    Ok(Qemu { program, _tool: Some(tool), _store: Some(store) })
}
