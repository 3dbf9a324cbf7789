//! Programs of Debian's that run on this host where it has none: unpacked into the store, or out of it.

use anyhow::{Context, Result, bail};

use super::Inputs;
use super::outside::{Outside, now};
use crate::base::Digest;
use crate::base::progress::Progress;
use crate::image::{Means, laid};
use crate::lock::Resolved;
use crate::lock::archives::Archives;
use crate::lock::kept::{Kept, Noting};
use crate::lock::online::Online;
use crate::lock::resolve::{Update, resolve};
use crate::manifest::Manifest;
use crate::store::{Store, Tool};

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
    pub fn unpacked(&self, inputs: &Inputs, store: &Store, progress: &dyn Progress) -> Result<Tool> {
        if let Some(tool) = store.tool(self.name, &self.request) {
            return Ok(tool);
        }
        let Self { title, instead, manifest, .. } = self;
        let outside = Outside::new(inputs);
        let fetched = (|| {
            let resolved = self.resolved(inputs, &outside, store, progress)?;
            let means = Means { store, settings: inputs.settings(), progress };
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
        inputs: &Inputs,
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
