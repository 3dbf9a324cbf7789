//! What changed between two locks, for people.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::{Lock, LockedPackage};
use crate::base::{Digest, Size};
use crate::source::debian::version::compare;
use crate::source::mirror::SECURITY;

/// All differences between two locks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LockDiff {
    /// By container (none: the root) and name.
    pub packages: Vec<PackageChange>,
    /// Files, overlays and other inputs that are not packages.
    pub inputs: Vec<InputChange>,
}

/// A package that is not as it was.
#[derive(Clone, Debug, PartialEq)]
pub struct PackageChange {
    /// The container that it is for; none for the root.
    pub container: Option<String>,
    /// Its name.
    pub name: String,
    /// What was locked.
    pub old: Option<LockedPackage>,
    /// What is locked now.
    pub new: Option<LockedPackage>,
}

/// An input that is not as it was.
#[derive(Clone, Debug, PartialEq)]
pub struct InputChange {
    /// Its name in the lock.
    pub name: String,
    /// What was locked.
    pub old: Option<Digest>,
    /// What is locked now.
    pub new: Option<Digest>,
}

/// What became of a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// A higher version.
    Upgraded,
    /// A lower version.
    Downgraded,
    /// The same version with other bytes, or from another archive.
    Replaced,
    /// The same file, but its maintainer scripts were read in another way.
    Scripts,
}

impl PackageChange {
    /// What became of it.
    pub fn kind(&self) -> Kind {
        match (&self.old, &self.new) {
            (None, _) => Kind::Added,
            (_, None) => Kind::Removed,
            (Some(old), Some(new)) => match compare(&old.version, &new.version) {
                std::cmp::Ordering::Less => Kind::Upgraded,
                std::cmp::Ordering::Greater => Kind::Downgraded,
                std::cmp::Ordering::Equal if old.sha256 == new.sha256 => Kind::Scripts,
                std::cmp::Ordering::Equal => Kind::Replaced,
            },
        }
    }

    /// Whether what is locked now is a security update.
    pub fn is_security(&self) -> bool {
        self.new.as_ref().is_some_and(|package| package.archive == SECURITY)
    }

    /// By how many bytes the download grows.
    pub fn growth(&self) -> i64 {
        let size = |package: &Option<LockedPackage>| {
            package.as_ref().map_or(0, |package| i64::try_from(package.size).unwrap_or(i64::MAX))
        };
        size(&self.new) - size(&self.old)
    }
}

impl LockDiff {
    /// Whether the locks pin the same inputs. Provenance and reasons may differ.
    pub fn is_empty(&self) -> bool {
        self.packages.is_empty() && self.inputs.is_empty()
    }
}

/// Compares what two locks pin.
pub fn diff(old: &Lock, new: &Lock) -> LockDiff {
    let mut packages = Vec::new();
    compare_packages(None, &old.packages, &new.packages, &mut packages);
    let empty = BTreeMap::new();
    for name in union(&old.containers, &new.containers) {
        let side = |lock: &'_ Lock| lock.containers.get(name).cloned().unwrap_or_else(|| empty.clone());
        compare_packages(Some(name), &side(old), &side(new), &mut packages);
    }
    let inputs = |lock: &Lock| -> BTreeMap<String, Digest> {
        let files = lock.files.iter().map(|(name, file)| (name.clone(), file.sha256));
        files.chain(lock.local.iter().map(|(name, digest)| (name.clone(), *digest))).collect()
    };
    let (old, new) = (inputs(old), inputs(new));
    let inputs = union(&old, &new)
        .into_iter()
        .filter(|name| old.get(*name) != new.get(*name))
        .map(|name| InputChange {
            name: name.to_owned(),
            old: old.get(name).copied(),
            new: new.get(name).copied(),
        })
        .collect();
    LockDiff { packages, inputs }
}

fn union<'a, T>(a: &'a BTreeMap<String, T>, b: &'a BTreeMap<String, T>) -> BTreeSet<&'a str> {
    a.keys().chain(b.keys()).map(String::as_str).collect()
}

fn compare_packages(
    container: Option<&str>,
    old: &BTreeMap<String, LockedPackage>,
    new: &BTreeMap<String, LockedPackage>,
    changes: &mut Vec<PackageChange>,
) {
    /// What makes a difference; who wanted the package does not.
    fn pin(package: &LockedPackage) -> impl PartialEq + '_ {
        (&package.version, &package.sha256, &package.scripts)
    }
    for name in union(old, new) {
        let (old, new) = (old.get(name), new.get(name));
        if old.map(pin) != new.map(pin) {
            changes.push(PackageChange {
                container: container.map(str::to_owned),
                name: name.to_owned(),
                old: old.cloned(),
                new: new.cloned(),
            });
        }
    }
}

/// `+1.2 MiB`, `-300 B`.
fn signed(bytes: i64) -> String {
    let sign = if bytes < 0 { '-' } else { '+' };
    format!("{sign}{}", Size(bytes.unsigned_abs()).human())
}

impl fmt::Display for LockDiff {
    /// A line for each change, sorted by container, then what happened, then name; at the end a summary of
    /// the packages, if some changed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("nothing changed");
        }
        let mut changes: Vec<_> = self.packages.iter().collect();
        changes.sort_by_key(|change| (&change.container, change.kind(), &change.name));
        let mut heading = None;
        for change in &changes {
            if heading != Some(&change.container) {
                heading = Some(&change.container);
                if let Some(name) = &change.container {
                    writeln!(f, "container {name}:")?;
                }
            }
            writeln!(f, "{change}")?;
        }
        let mut lines: Vec<String> = Vec::new();
        for change in &self.inputs {
            let what = match (&change.old, &change.new) {
                (None, _) => "added",
                (_, None) => "removed",
                _ => "changed",
            };
            lines.push(format!("{what:>10} {}", change.name));
        }
        if !changes.is_empty() {
            let count = |kind| changes.iter().filter(|change| change.kind() == kind).count();
            let is_security =
                |change: &&&PackageChange| change.kind() == Kind::Upgraded && change.is_security();
            lines.push(format!(
                "{} added, {} removed, {} upgraded ({} by security updates); download {}",
                count(Kind::Added),
                count(Kind::Removed),
                count(Kind::Upgraded),
                changes.iter().filter(is_security).count(),
                signed(changes.iter().map(|change| change.growth()).sum())
            ));
        }
        f.write_str(&lines.join("\n"))
    }
}

impl fmt::Display for PackageChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self.kind() {
            Kind::Added => "added",
            Kind::Removed => "removed",
            Kind::Upgraded => "upgraded",
            Kind::Downgraded => "downgraded",
            Kind::Replaced => "replaced",
            Kind::Scripts => "scripts of",
        };
        write!(f, "{verb:>10} {}", self.name)?;
        match (&self.old, &self.new) {
            (Some(old), Some(new)) if old.version != new.version => {
                write!(f, " {} → {}", old.version, new.version)?
            }
            (_, Some(package)) | (Some(package), None) => write!(f, " {}", package.version)?,
            (None, None) => {}
        }
        if self.growth() != 0 {
            write!(f, " ({})", signed(self.growth()))?;
        }
        if self.is_security() && self.kind() != Kind::Scripts {
            f.write_str(" [security]")?;
        }
        Ok(())
    }
}
