//! Programs of Debian's that run on this host where it has none: unpacked into the store, or out of it.

use anyhow::{Context as _, Result, bail};

use super::{InputArgs, Outside, now, store, with_store};
use crate::base::Digest;
use crate::base::progress::Progress;
use crate::cli::Global;
use crate::cli::progress::Display;
use crate::image::{Means, Settings, laid};
use crate::lock::Resolved;
use crate::lock::archives::Archives;
use crate::lock::kept::{Kept, Noting};
use crate::lock::online::Online;
use crate::lock::resolve::{Update, resolve};
use crate::manifest::{self, Manifest};
use crate::qemu::{Program, program};
use crate::store::{Store, Tool};

/// A program that can be run, with what must last until it has ended.
pub struct Qemu {
    /// With its firmware.
    pub program: Program,
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
pub fn qemu(inputs: &InputArgs, global: &Global) -> Result<Qemu> {
    if let Some(program) = Program::find(&std::env::var_os("PATH").unwrap_or_default()) {
        return Ok(Qemu { program, _tool: None, _store: None });
    }
    let display = Display::new(global.verbosity());
    let store = store(inputs, &display)?;
    let wanted = Wanted {
        name: QEMU,
        title: "QEMU with UEFI firmware",
        size: "about 200 MB",
        instead: "installing qemu-system-x86 and ovmf",
        // One that another keller asked for otherwise is not used.
        request: Digest::of(manifest::embedded::file(REQUEST).expect("the binary carries it").bytes),
        manifest: manifest::load_embedded(REQUEST)?,
    };
    debug_assert!(program::PACKAGES.iter().all(|name| wanted.manifest.packages.contains_key(*name)));
    let (program, tool) = with_store(&store, &display, || {
        let tool = wanted.unpacked(inputs, &store, &display)?;
        Ok((Program::in_tree(tool.folder())?, tool))
    })?;
    Ok(Qemu { program, _tool: Some(tool), _store: Some(store) })
}

/// A tool, and what it is made of.
pub struct Wanted<'a> {
    /// Among the store's tools.
    pub name: &'a str,
    /// For messages.
    pub title: &'a str,
    /// How much is fetched, for messages.
    pub size: &'a str,
    /// What would do as well, in the gerund.
    pub instead: &'a str,
    /// Names all that it depends on.
    pub request: Digest,
    /// Its packages.
    pub manifest: Manifest,
}

impl Wanted<'_> {
    /// The tool as it was unpacked before, or unpacked anew.
    ///
    /// # Errors
    /// What is missing, with the way out.
    pub fn unpacked(&self, inputs: &InputArgs, store: &Store, progress: &dyn Progress) -> Result<Tool> {
        if let Some(tool) = store.tool(self.name, &self.request)? {
            return Ok(tool);
        }
        let Self { title, instead, manifest, .. } = self;
        let outside = Outside::new(inputs);
        let fetched = (|| {
            let resolved = self.resolved(inputs, &outside, store, progress)?;
            let means = Means { store, settings: Settings { threads: inputs.threads }, progress };
            let fetched = outside.fetch(manifest, resolved, &means)?;
            laid::packages(&fetched.resolved.packages, fetched.resolved.epoch, &means)
        })();
        let packages = fetched.with_context(|| match inputs.offline {
            true => format!(
                "unpacking {title} out of the store {} alone, as --offline asks; running this once without --offline, \
                 or {instead}, would do",
                store.root().display()
            ),
            false => format!("unpacking {title}; {instead} would do as well"),
        })?;
        store.keep_tool(self.name, &self.request, |folder| {
            let written = packages.tree.write_to_folder(folder);
            written.with_context(|| format!("writing {title} to {}", folder.display()))?;
            Ok(store.sound()?)
        })
    }

    /// What it is made of, as the archives say; without them, as they said when it was unpacked last.
    fn resolved(
        &self,
        inputs: &InputArgs,
        outside: &Outside<'_>,
        store: &Store,
        progress: &dyn Progress,
    ) -> Result<Resolved> {
        let Self { title, size, manifest, .. } = self;
        if inputs.offline {
            progress.note(&format!("no {title} here: unpacking Debian's out of the store"));
            return self.resolved_kept(store, progress);
        }
        // What the mirrors have now could not be put into the store.
        if !store.is_writable()
            && let Ok(resolved) = self.resolved_kept(store, progress)
        {
            return Ok(resolved);
        }
        progress.note(&format!("no {title} here: unpacking Debian's into the store ({size}, once)"));
        let archives = Archives::of(manifest, &outside.mirrors(manifest, progress)?)?;
        let noting = Noting::new(Online { client: outside.client()?, store });
        let resolved = resolve(manifest, &archives, &noting, None, &Update::Nothing, now(), progress)?;
        store.note_tool(self.name, &noting.notes());
        Ok(resolved)
    }

    fn resolved_kept(&self, store: &Store, progress: &dyn Progress) -> Result<Resolved> {
        let mut manifest = self.manifest.clone();
        // Nothing newer can be had. Its date was judged when it came.
        manifest.debian.allow_expired = true;
        let kept = Kept::new(store, &store.tool_notes(self.name).unwrap_or_default());
        let archives = Kept::archives(&manifest)?;
        let resolved = resolve(&manifest, &archives, &kept, None, &Update::Nothing, now(), progress);
        resolved.or_else(|error| {
            let missing = kept.missing();
            match missing.is_empty() {
                true => Err(error.into()),
                false => bail!("the store has no {}", missing.join(", no ")),
            }
        })
    }
}
