//! What a manifest asks for by name. A lock remembers it, so that a change can be told in words.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::Lock;
use crate::base::Digest;
use crate::manifest::{Container, Manifest, Recipe};

/// The names that decide about packages. Two manifests that agree in them have the same pins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// Debian's suite.
    pub suite: String,
    /// Debian's components.
    pub components: BTreeSet<String>,
    /// Whether `-updates` is used.
    pub updates: bool,
    /// Whether `-security` is used.
    pub security: bool,
    /// Further archives by name.
    pub repositories: BTreeMap<String, AskedRepository>,
    /// The root's packages.
    pub root: AskedPackages,
    /// Packages of each built container.
    pub containers: BTreeMap<String, AskedPackages>,
}

/// What is used of a repository. Its address is not part of it: mirrors may change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AskedRepository {
    /// Its suite.
    pub suite: String,
    /// Its components.
    pub components: BTreeSet<String>,
}

/// Packages of one tree.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskedPackages {
    /// Wanted, as `name` or `name=version`.
    pub packages: BTreeSet<String>,
    /// Taken as present.
    pub assume: BTreeSet<String>,
}

impl Asked {
    /// What `manifest` asks for.
    pub fn of(manifest: &Manifest) -> Self {
        let debian = &manifest.debian;
        let set = |list: &[String]| list.iter().cloned().collect();
        Self {
            suite: debian.suite.clone(),
            components: set(&debian.components),
            updates: debian.updates,
            security: debian.security,
            repositories: debian
                .repositories
                .iter()
                .map(|repository| {
                    let asked = AskedRepository {
                        suite: repository.suite.clone(),
                        components: set(&repository.components),
                    };
                    (repository.name.clone(), asked)
                })
                .collect(),
            root: AskedPackages::of(&manifest.recipe),
            containers: manifest.containers.iter().filter_map(AskedPackages::of_container).collect(),
        }
    }

    /// Names it in one digest: [`Lock::request`].
    pub fn digest(&self) -> Digest {
        Digest::of(serde_json::to_vec(self).expect("names and flags"))
    }

    /// What `newer` asks for in another way, one difference a line, in words.
    pub fn differences(&self, newer: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut setting = |name: &str, old: String, new: String| {
            if old != new {
                lines.push(format!("{name}: {old} → {new}"));
            }
        };
        let list = |set: &BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>().join(", ");
        setting("debian.suite", self.suite.clone(), newer.suite.clone());
        setting("debian.components", list(&self.components), list(&newer.components));
        setting("debian.updates", self.updates.to_string(), newer.updates.to_string());
        setting("debian.security", self.security.to_string(), newer.security.to_string());
        for name in keys(&self.repositories, &newer.repositories) {
            let shown = |asked: &Self| match asked.repositories.get(name) {
                Some(repository) => format!("{} {}", repository.suite, list(&repository.components)),
                None => "none".to_owned(),
            };
            setting(&format!("repository {name}"), shown(self), shown(newer));
        }
        self.root.differences(&newer.root, "", &mut lines);
        let empty = AskedPackages::default();
        for name in keys(&self.containers, &newer.containers) {
            let side = |asked: &Self| asked.containers.contains_key(name);
            match (side(self), side(newer)) {
                (false, true) => lines.push(format!("container {name}: new")),
                (true, false) => lines.push(format!("container {name}: gone")),
                _ => {}
            }
            let (old, new) = (self.containers.get(name), newer.containers.get(name));
            old.unwrap_or(&empty).differences(
                new.unwrap_or(&empty),
                &format!("container {name}: "),
                &mut lines,
            );
        }
        lines
    }
}

impl AskedPackages {
    fn of(recipe: &Recipe) -> Self {
        Self {
            packages: recipe.packages.keys().cloned().collect(),
            assume: recipe.assume.keys().cloned().collect(),
        }
    }

    fn of_container(container: &Container) -> Option<(String, Self)> {
        Some((container.name.clone(), Self::of(&container.build()?.recipe)))
    }

    fn differences(&self, newer: &Self, scope: &str, lines: &mut Vec<String>) {
        for (field, old, new) in
            [("packages", &self.packages, &newer.packages), ("assume", &self.assume, &newer.assume)]
        {
            lines.extend(new.difference(old).map(|name| format!("{scope}{field}: {name} was added")));
            lines.extend(old.difference(new).map(|name| format!("{scope}{field}: {name} was removed")));
        }
    }
}

fn keys<'a, T>(a: &'a BTreeMap<String, T>, b: &'a BTreeMap<String, T>) -> BTreeSet<&'a str> {
    a.keys().chain(b.keys()).map(String::as_str).collect()
}

/// A lock that does not answer what the manifest asks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the manifest has changed since the lock was made:{}", indented(.differences))]
pub struct Stale {
    /// One difference a line, in words.
    pub differences: Vec<String>,
}

fn indented(lines: &[String]) -> String {
    lines.iter().map(|line| format!("\n  {line}")).collect()
}

/// What keeps `lock` from answering `manifest`; `None` when it does. Files, overlays and other local inputs
/// are not looked at.
pub fn staleness(lock: &Lock, manifest: &Manifest) -> Option<Stale> {
    let asked = Asked::of(manifest);
    if lock.request == asked.digest() {
        return None;
    }
    let mut differences = lock.provenance.asked.differences(&asked);
    if differences.is_empty() {
        differences.push("the lock's record of what was asked for was changed by hand".to_owned());
    }
    Some(Stale { differences })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_differences_in_words() {
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let old = Asked {
            suite: "trixie".into(),
            components: names(&["main"]),
            root: AskedPackages { packages: names(&["curl", "etcd"]), assume: names(&[]) },
            ..Asked::default()
        };
        let mut new = old.clone();
        assert!(old.differences(&new).is_empty());
        new.security = true;
        new.components = names(&["main", "contrib"]);
        new.root = AskedPackages { packages: names(&["etcd", "nginx"]), assume: names(&["perl-base"]) };
        new.repositories
            .insert("own".into(), AskedRepository { suite: "stable".into(), components: names(&["x"]) });
        new.containers
            .insert("hello".into(), AskedPackages { packages: names(&["busybox"]), assume: names(&[]) });
        assert_eq!(
            old.differences(&new),
            [
                "debian.components: main → contrib, main",
                "debian.security: false → true",
                "repository own: none → stable x",
                "packages: nginx was added",
                "packages: curl was removed",
                "assume: perl-base was added",
                "container hello: new",
                "container hello: packages: busybox was added",
            ]
        );
        assert_ne!(old.digest(), new.digest());
    }
}
