//! What a root says of itself, inside of it.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::lock::{Lock, LockedPackage};
use crate::manifest::Manifest;

/// Where a root says what it is made of: a [`Record`] as JSON.
pub const RECORD: &str = "usr/lib/keller/image.json";

/// What a root says of itself. It holds no digest of the lock: two locks that pin the same make the same
/// image, whenever they were made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Record {
    /// Of the manifest.
    pub id: String,
    /// Of the manifest.
    pub version: String,
    /// Version by package.
    pub packages: BTreeMap<String, String>,
    /// Version by container and package, for those that are built.
    pub containers: BTreeMap<String, BTreeMap<String, String>>,
    /// Containers whose programs may gain privileges.
    pub new_privileges: Vec<String>,
}

impl Record {
    /// Of an image of `manifest` out of `lock`.
    pub fn of(manifest: &Manifest, lock: &Lock) -> Self {
        let versions = |packages: &BTreeMap<String, LockedPackage>| {
            packages.iter().map(|(name, package)| (name.clone(), package.version.clone())).collect()
        };
        Self {
            id: manifest.id.clone(),
            version: manifest.version.clone(),
            packages: versions(&lock.packages),
            containers: lock
                .containers
                .iter()
                .map(|(name, packages)| (name.clone(), versions(packages)))
                .collect(),
            new_privileges: manifest
                .containers
                .iter()
                .filter(|container| container.new_privileges)
                .map(|container| container.name.clone())
                .collect(),
        }
    }

    /// The text of the file.
    pub fn to_text(&self) -> String {
        serde_json::to_string_pretty(self).expect("names and versions") + "\n"
    }
}
