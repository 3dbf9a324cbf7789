//! What is outside: mirrors and servers, asked when something is missing, and what comes from them into the store.

use std::collections::BTreeSet;
use std::path::Path;
use std::str::FromStr;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};

use super::Inputs;
use crate::base::Digest;
use crate::base::progress::{Progress, Task, Unit};
use crate::fetch::{self, Fetched, Upstream};
use crate::http::url::Url;
use crate::http::{self, Client, Settings as HttpSettings};
use crate::image::Means;
use crate::lock::archives::Archives;
use crate::lock::online::Online;
use crate::lock::resolve::{self, Update};
use crate::lock::{Lock, Resolved};
use crate::manifest::{FileContent, Manifest};
use crate::source::apt;
use crate::source::mirror::Mirrors;
use crate::store::Store;

/// Mirrors and a client, made when first needed.
pub struct Outside<'a> {
    inputs: &'a Inputs,
    client: OnceLock<Client>,
    /// Those of the host, with their lists of mirrors.
    sources: OnceLock<Vec<apt::Source>>,
}

impl<'a> Outside<'a> {
    /// Reads nothing yet: a build out of the store needs neither certificates nor passwords.
    pub fn new(inputs: &'a Inputs) -> Self {
        Self { inputs, client: OnceLock::new(), sources: OnceLock::new() }
    }

    /// With the settings of the host for proxies, certificates and credentials.
    pub(super) fn client(&self) -> Result<&Client> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let client = Client::new(HttpSettings::of_host()).context("setting up HTTP")?;
        Ok(self.client.get_or_init(|| client))
    }

    pub(super) fn mirrors(&self, manifest: &Manifest, progress: &dyn Progress) -> Result<Mirrors> {
        let client = self.client()?;
        let sources = || self.sources.get_or_init(|| Self::read_sources(client, progress)).clone();
        Ok(Mirrors::find(self.inputs.mirror.as_deref(), &manifest.debian, sources)?)
    }

    /// The host's apt sources. A list of mirrors that cannot be had is told: others stand in for it, or none.
    fn read_sources(client: &Client, progress: &dyn Progress) -> Vec<apt::Source> {
        let sources = apt::sources(Path::new(http::apt::FOLDER), client);
        let refused = sources.iter().flat_map(|source| &source.refused).filter(|refused| refused.failed);
        let told: BTreeSet<String> = refused.map(|one| format!("{}: {}", one.uri, one.reason)).collect();
        for list in told {
            progress.warn(&format!("apt's list of mirrors is passed over: {list}"));
        }
        sources
    }

    /// Resolves anew, and keeps what `update` leaves of `found`.
    pub(super) fn resolve(
        &self,
        manifest: &Manifest,
        found: Option<&Lock>,
        update: &Update,
        means: &Means<'_>,
    ) -> Result<Resolved> {
        let Means { store, progress, .. } = *means;
        if self.inputs.offline {
            bail!("packages must be resolved, which --offline rules out: run `keller lock` without it");
        }
        let mirrors = self.mirrors(manifest, progress)?;
        let archives = Archives::of(manifest, &mirrors)?;
        let online = Online { client: self.client()?, store };
        Ok(resolve::resolve(manifest, &archives, &online, found, update, now(), progress)?)
    }

    /// Brings everything that `resolved` names into the store.
    ///
    /// # Errors
    /// What is missing and cannot be had.
    pub fn fetch(&self, manifest: &Manifest, resolved: Resolved, means: &Means<'_>) -> Result<Fetched> {
        let Means { store, progress, .. } = *means;
        let (known, new): (Vec<_>, Vec<_>) = addresses(manifest)?.into_iter().partition(|address| {
            resolved.known.files.get(&address.name).is_some_and(|locked| locked.sha256 == address.sha256)
        });
        self.fetch_new(new, store, progress)?;
        let urls = known.into_iter().map(|address| (address.name, address.url)).collect();
        // The mirrors are asked for only when something is missing: a full store needs none.
        if self.inputs.offline || fetch::is_there(&resolved, &urls, store) {
            return Ok(fetch::fetch(resolved, &urls, store, None, progress)?);
        }
        let archives = self.mirrors(manifest, progress)?.archives(&manifest.debian)?;
        let upstream = Upstream { client: self.client()?, archives: &archives, parallel: fetch::PARALLEL };
        Ok(fetch::fetch(resolved, &urls, store, Some(upstream), progress)?)
    }

    /// Fetches what no lock names yet: the manifest has the digest, and the size shows when it is there.
    fn fetch_new(&self, new: Vec<Address>, store: &Store, progress: &dyn Progress) -> Result<()> {
        for Address { name, url, sha256 } in new.into_iter().filter(|new| !store.claim(&new.sha256)) {
            if self.inputs.offline {
                bail!(
                    "offline, and {name} ({url}) is not in the store: the same once without --offline fetches it"
                );
            }
            let task = Task::new(progress, "downloading", 0, Unit::Bytes);
            task.at(&name);
            let fetched = self.client()?.download(&url, &sha256, None, store, &task);
            fetched.with_context(|| name)?;
        }
        Ok(())
    }
}

/// An entry of `files:` that comes from somewhere else.
struct Address {
    /// As in the lock.
    name: String,
    url: Url,
    sha256: Digest,
}

/// The addresses in the manifest and in its containers.
fn addresses(manifest: &Manifest) -> Result<Vec<Address>> {
    let mut addresses = Vec::new();
    for (scope, recipe) in manifest.recipes() {
        for entry in &recipe.files {
            if let FileContent::Url { url, sha256 } = &entry.content {
                let name = format!("{scope}{}", entry.path);
                addresses.push(Address { name, url: Url::from_str(url)?, sha256: *sha256 });
            }
        }
    }
    Ok(addresses)
}

/// Seconds since 1970: for judging dates and keys, never for an image.
pub(super) fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}
