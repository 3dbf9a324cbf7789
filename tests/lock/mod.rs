//! From a manifest and a small archive to a lock, and everything that must be refused on the way.

mod file;
mod mirrors;
mod network;
mod release;
mod repositories;
mod solve;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use keller::base::Size;
use keller::base::progress::Silent;
use keller::lock::resolve::{ResolveError, Update, resolve};
use keller::lock::{Facts, Lock, Resolved};
use keller::manifest::{
    Debian, Disk, Etc, Health, InitramfsModules, Kernel, Manifest, Place, Recipe, RootFilesystem, Runtime,
    Services,
};
use openpgp::Cert;
use sequoia_openpgp as openpgp;

use crate::repository::{DATE, DAY, Release, Server, archive, archives, key};

const ROOT: &str = "https://mirror.example/debian";
const SECURITY_ROOT: &str = "https://mirror.example/debian-security";

/// Names with places: the first stands in line 1 of node.yaml, and so on.
fn places(names: &[&str]) -> BTreeMap<String, Place> {
    (1..)
        .zip(names)
        .map(|(line, name)| ((*name).to_owned(), Place { file: PathBuf::from("node.yaml"), line, column: 5 }))
        .collect()
}

fn reasons(names: &[&str]) -> BTreeMap<String, String> {
    names.iter().map(|name| ((*name).to_owned(), "for the test".to_owned())).collect()
}

fn recipe(packages: &[&str], assume: &[&str]) -> Recipe {
    Recipe { packages: places(packages), assume: reasons(assume), ..Recipe::default() }
}

fn manifest(packages: &[&str], assume: &[&str]) -> Manifest {
    Manifest {
        said: Default::default(),
        folder: PathBuf::new(),
        id: "node".into(),
        version: "1.0.0".into(),
        debian: Debian {
            suite: "trixie".into(),
            components: vec!["main".into()],
            updates: false,
            security: true,
            mirror: None,
            security_mirror: None,
            allow_expired: false,
            keys: None,
            repositories: Vec::new(),
        },
        recipe: recipe(packages, assume),
        users: Vec::new(),
        services: Services::default(),
        kernel: Kernel { initramfs_modules: InitramfsModules::Auto, ..Kernel::default() },
        etc: Etc::Persistent,
        runtime: Runtime::None,
        interfaces: Vec::new(),
        containers: Vec::new(),
        kv: None,
        health: Health {
            units: Vec::new(),
            etcd: false,
            containers: true,
            command: Vec::new(),
            network: false,
            stable_seconds: 5,
            deadline_seconds: 60,
            give_up_after: 2,
        },
        disk: Disk {
            esp: Size::mib(64),
            root: Size::mib(64),
            filesystem: RootFilesystem::Erofs,
            reserve: Some(Size::mib(64)),
            state_min: Size::mib(64),
            state_grow: true,
            sector_size: 512,
        },
        node: keller::node::Policy::default(),
        update: None,
        netboot_url: None,
        outputs: Vec::new(),
    }
}

/// A mirror with trixie and its security suite.
struct World {
    key: Cert,
    server: Server,
    archives: keller::lock::archives::Archives,
}

impl World {
    fn new(trixie: &str, security: &str) -> Self {
        let key = key(3650);
        let mut world = Self {
            server: Server::default(),
            archives: archives(vec![
                archive("debian", ROOT, &key, &["trixie"]),
                archive("security", SECURITY_ROOT, &key, &["trixie-security"]),
            ]),
            key,
        };
        world.publish(trixie, security);
        world
    }

    fn publish(&mut self, trixie: &str, security: &str) {
        self.server.publish(ROOT, &Release::new("trixie", &self.key, trixie));
        let security = Release { date: DATE + DAY, ..Release::new("trixie-security", &self.key, security) };
        self.server.publish(SECURITY_ROOT, &security);
    }

    fn resolve(&self, manifest: &Manifest) -> Result<Lock, ResolveError> {
        self.update(manifest, None, &Update::Nothing)
    }

    fn update(
        &self,
        manifest: &Manifest,
        previous: Option<&Lock>,
        update: &Update,
    ) -> Result<Lock, ResolveError> {
        let now = DATE + 2 * DAY;
        let resolved = resolve(manifest, &self.archives, &self.server, previous, update, now, &Silent)?;
        Ok(whole(resolved))
    }
}

/// A lock of what was resolved, with what is known of its content from before.
fn whole(resolved: Resolved) -> Lock {
    let facts =
        Facts { ids: resolved.known.ids.clone(), files: resolved.known.files.clone(), ..Facts::default() };
    resolved.lock(facts)
}

/// `name version` of each locked package.
fn versions(lock: &Lock) -> Vec<String> {
    lock.packages.iter().map(|(name, package)| format!("{name} {}", package.version)).collect()
}

fn names(list: &[&str]) -> BTreeSet<String> {
    list.iter().map(|name| (*name).to_owned()).collect()
}

/// The whole chain of an error, as a user reads it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
