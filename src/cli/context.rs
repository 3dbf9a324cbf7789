//! What most verbs need first: the manifest, the store, the mirrors, the lock.

mod tool;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::OnceLock;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::base::progress::{Progress, Task, Unit};
use crate::base::{Chain, Digest, limits};
use crate::fetch::{self, Fetched, Upstream};
use crate::http;
use crate::http::url::Url;
use crate::http::{Client, Settings as HttpSettings};
use crate::image::Means;
use crate::lock::archives::Archives;
use crate::lock::online::Online;
use crate::lock::resolve::{self, Update};
use crate::lock::{Lock, Resolved, asked, file};
use crate::manifest::{self, ContainerImage, FileContent, Manifest};
use crate::source::apt;
use crate::source::mirror::Mirrors;
use crate::store::key::{self, Found};
use crate::store::{Access, Store};

pub use tool::{Qemu, Wanted, qemu};

/// Where inputs come from.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Inputs")]
pub struct InputArgs {
    /// Debian's archive; else KELLER_MIRROR, the manifest or the host's apt sources name it.
    #[arg(long, value_name = "URL")]
    pub mirror: Option<String>,
    /// The store for downloads; else KELLER_STORE or the user's cache directory.
    #[arg(long, value_name = "DIR")]
    pub store: Option<PathBuf>,
    /// Use the store even if others can write it; whoever does owns the images that are built out of it.
    #[arg(long)]
    pub allow_shared_store: bool,
    /// Use nothing but what is in the store.
    #[arg(long)]
    pub offline: bool,
    /// Threads for unpacking and hashing; 0 is one for each processor.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = threads)]
    pub threads: usize,
}

/// The number of threads that `text` asks for.
fn threads(text: &str) -> Result<usize, String> {
    let number = text.parse().map_err(|_| "expected a number".to_owned())?;
    match number > limits::THREADS {
        true => Err(format!("at most {} are started", limits::THREADS)),
        false => Ok(number),
    }
}

/// The manifest that is meant, and where its lock lies.
pub struct Project {
    /// Validated.
    pub manifest: Manifest,
    /// For messages.
    pub name: String,
    /// Beside the manifest; for the embedded one, beside the image.
    pub lock: PathBuf,
}

impl Project {
    /// Reads `path`, or the embedded default node. `output` is the directory that gets the image.
    pub fn load(path: Option<&Path>, output: &Path) -> Result<Self> {
        match path {
            Some(path) => Ok(Self {
                manifest: manifest::load(path)?,
                name: path.display().to_string(),
                lock: file::path_for(path),
            }),
            None => Ok(Self {
                manifest: manifest::load_embedded(manifest::DEFAULT)?,
                name: "the default node".to_owned(),
                lock: output.join("node.lock"),
            }),
        }
    }
}

/// The store that the flag names, or the user's.
pub fn store(inputs: &InputArgs, progress: &dyn Progress) -> Result<Store> {
    let root = match &inputs.store {
        Some(root) => root.clone(),
        None => Store::locate()?,
    };
    open_store(&root, inputs.allow_shared_store, progress)
}

/// Opens the store in `root` with the user's key; `shared`: even if others can write it.
pub fn open_store(root: &Path, shared: bool, progress: &dyn Progress) -> Result<Store> {
    let key = match key::of_user(root) {
        Ok(Found { key, replaced }) => {
            replaced.iter().for_each(|words| progress.warn(words));
            Some(key)
        }
        Err(error) => {
            progress.warn(&format!(
                "there is no place for the key of the store, so that nothing derived is kept and all of it is made \
                 anew each time: {}; XDG_STATE_HOME may name another directory",
                Chain(&error)
            ));
            None
        }
    };
    Ok(Store::open_with(root, Access { key, shared })?)
}

/// How often a build begins again after it has found something wrong with the store. Each time finds all blobs of
/// one kind; it is not once only since containers are read apart from the root.
const TRIES: usize = 8;

/// Does `work` with `store`, and once more where it fails for something that was wrong with the store and is out of
/// the way: bad blobs are fetched again, derived files made anew. Tells what was wrong.
pub fn with_store<T>(store: &Store, progress: &dyn Progress, work: impl Fn() -> Result<T>) -> Result<T> {
    let mut tries = 1..TRIES;
    loop {
        let result = work();
        store.words().iter().for_each(|words| progress.warn(words));
        let is_mended = store.is_mended();
        if result.is_ok() || !is_mended || tries.next().is_none() {
            return result;
        }
    }
}

/// How much of a lock may change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Nothing: what is missing or stale is an error.
    Locked,
    /// What the manifest asks for anew; what is locked stays.
    Follow,
    /// Also what `keller lock --update` names.
    Update(Update),
}

/// The network side of a verb: mirrors and a client, made when first needed.
pub struct Outside<'a> {
    inputs: &'a InputArgs,
    client: OnceLock<Client>,
    /// Those of the host, with their lists of mirrors.
    sources: OnceLock<Vec<apt::Source>>,
}

impl<'a> Outside<'a> {
    /// Reads nothing yet: a build out of the store needs neither certificates nor passwords.
    pub fn new(inputs: &'a InputArgs) -> Self {
        Self { inputs, client: OnceLock::new(), sources: OnceLock::new() }
    }

    /// With the settings of the host for proxies, certificates and credentials.
    fn client(&self) -> Result<&Client> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let client = Client::new(HttpSettings::of_host()).context("setting up HTTP")?;
        Ok(self.client.get_or_init(|| client))
    }

    fn mirrors(&self, manifest: &Manifest, progress: &dyn Progress) -> Result<Mirrors> {
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

    /// What is resolved for `manifest`: what the lock `found` at `path` has where that fits, else anew as far as `policy`
    /// lets.
    pub fn resolved(
        &self,
        manifest: &Manifest,
        path: &Path,
        found: Option<&Lock>,
        policy: &Policy,
        means: &Means<'_>,
    ) -> Result<Resolved> {
        let stale = found.and_then(|lock| asked::staleness(lock, manifest));
        let update = match (policy, found, &stale) {
            (Policy::Locked, None, _) => {
                bail!("there is no lock {}: make it with `keller lock`", path.display())
            }
            (Policy::Locked, Some(_), Some(stale)) => bail!(
                "{} does not fit the manifest any more; `keller lock` mends it\n{stale}",
                path.display()
            ),
            (Policy::Locked | Policy::Follow, Some(lock), None) => return Ok(lock.clone().into()),
            (Policy::Update(update), ..) => update.clone(),
            _ => Update::Nothing,
        };
        if let Some(stale) = stale {
            means.progress.note(&format!("{} is stale:\n{stale}", path.display()));
        }
        let resolved = self.resolve(manifest, found, &update, means)?;
        // A lock that pins the same as before stays as it is, its time included: the image stays the same.
        let same = found.filter(|found| resolved.pins_the_same(found));
        Ok(same.map_or(resolved, |found| found.clone().into()))
    }

    /// Resolves anew, and keeps what `update` leaves of `found`.
    fn resolve(
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
        let upstream = Upstream { client: self.client()?, archives: &archives, parallel: 8 };
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
    let mut all: Vec<_> = manifest.files.iter().map(|entry| (entry.path.clone(), entry)).collect();
    for container in &manifest.containers {
        if let ContainerImage::Build(recipe) = &container.image {
            let name = |path: &str| format!("container {}: {path}", container.name);
            all.extend(recipe.files.iter().map(|entry| (name(&entry.path), entry)));
        }
    }
    let mut addresses = Vec::new();
    for (name, entry) in all {
        if let FileContent::Url { url, sha256 } = &entry.content {
            addresses.push(Address { name, url: Url::from_str(url)?, sha256: *sha256 });
        }
    }
    Ok(addresses)
}

/// Seconds since 1970: for judging dates and keys, never for an image.
pub fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}
