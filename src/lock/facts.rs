//! From what archives say to a whole lock: what only the content of packages and of files beside the manifest tells.

use std::collections::BTreeMap;

use super::{Ids, LOCK_FORMAT, Lock, LockedFile, LockedPackage, Provenance};
use crate::base::Digest;

/// What archives say of a manifest: each package by digest and size, and nothing yet that stands in them.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    /// Name of the image.
    pub id: String,
    /// Digest of what was asked for by name.
    pub request: Digest,
    /// Time of everything that the builder makes, in seconds since 1970.
    pub epoch: i64,
    /// Where the pins came from.
    pub provenance: Provenance,
    /// Packages of the root, by name.
    pub packages: BTreeMap<String, LockedPackage>,
    /// Packages of each built container, by container and package.
    pub containers: BTreeMap<String, BTreeMap<String, LockedPackage>>,
    /// What an earlier lock knew of their content.
    pub known: Known,
}

/// What an earlier lock knew that a new one goes by. The digests of scripts that it knew stand with its packages.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Known {
    /// Sizes of files that are fetched by URL.
    pub files: BTreeMap<String, LockedFile>,
    /// Numbers of accounts, which stay.
    pub ids: Ids,
}

impl Known {
    /// What `lock` knows.
    pub fn of(lock: &Lock) -> Self {
        Self { files: lock.files.clone(), ids: lock.ids.clone() }
    }
}

/// Digests of maintainer scripts, by package and name.
pub type Scripts = BTreeMap<String, BTreeMap<String, Digest>>;

/// What was found in the content of what is locked, and beside the manifest.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// Of the root's packages.
    pub scripts: Scripts,
    /// Of the packages of each built container, by container.
    pub container_scripts: BTreeMap<String, Scripts>,
    /// Files fetched by URL, by their path on the node.
    pub files: BTreeMap<String, LockedFile>,
    /// Digests of overlay trees, container archives and other local inputs, by name as in the manifest.
    pub local: BTreeMap<String, Digest>,
    /// Numbers of system users and groups that packages leave open.
    pub ids: Ids,
}

impl Resolved {
    /// The lock of which `facts` are what was found.
    pub fn lock(self, mut facts: Facts) -> Lock {
        let with = |mut packages: BTreeMap<String, LockedPackage>, scripts: &mut Scripts| {
            for (name, package) in &mut packages {
                package.scripts = scripts.remove(name).unwrap_or_default();
            }
            packages
        };
        let containers = self.containers.into_iter().map(|(name, packages)| {
            let mut scripts = facts.container_scripts.remove(&name).unwrap_or_default();
            (name, with(packages, &mut scripts))
        });
        Lock {
            keller_lock: LOCK_FORMAT,
            id: self.id,
            request: self.request,
            epoch: self.epoch,
            provenance: self.provenance,
            containers: containers.collect(),
            packages: with(self.packages, &mut facts.scripts),
            files: facts.files,
            local: facts.local,
            ids: facts.ids,
        }
    }

    /// Whether this is about the same packages as `lock`, for the same request: their content is the same, too.
    pub fn pins_the_same(&self, lock: &Lock) -> bool {
        (self.request, &self.packages, &self.containers) == (lock.request, &lock.packages, &lock.containers)
    }
}

/// A lock as it was before what it pins was looked at again.
impl From<Lock> for Resolved {
    fn from(lock: Lock) -> Self {
        Self {
            id: lock.id,
            request: lock.request,
            epoch: lock.epoch,
            provenance: lock.provenance,
            packages: lock.packages,
            containers: lock.containers,
            known: Known { files: lock.files, ids: lock.ids },
        }
    }
}
