//! Packages become trees, in parallel, and the trees become one root.

mod assemble;
mod order;

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use rayon::prelude::*;

use crate::base::seal::Sealed;
use crate::base::{Digest, Progress, Size, Task, Unit, limits};
use crate::source::debian::deb::{self, Control, DebError, IndexError, Package};
use crate::store::{Store, StoreError};
use crate::tree::from_tar::TarError;
use crate::tree::merge::Conflict;
use crate::tree::{Kind, Tree, TreeError, show};

pub use assemble::assemble;
pub use order::Order;

/// What moves files of other packages out of the way.
const DIVERT: &str = "dpkg-divert";

/// A package to unpack.
#[derive(Debug)]
pub struct PackageInput {
    /// As locked.
    pub name: String,
    /// As locked.
    pub version: String,
    /// The .deb, from its start.
    pub deb: File,
    /// Of the .deb, as locked.
    pub sha256: Digest,
    /// Of the .deb in bytes, as locked.
    pub size: u64,
}

/// A package with its data as a tree.
#[derive(Clone, Debug)]
pub struct Unpacked {
    /// As locked.
    pub name: String,
    /// As locked.
    pub version: String,
    /// Its control file.
    pub control: Control,
    /// Digests of its maintainer scripts and triggers, by name.
    pub scripts: BTreeMap<String, Digest>,
    /// Words of its scripts that do something to the system, by script; nobody runs them here.
    pub actions: BTreeMap<String, Vec<String>>,
    /// Its files, of the origin [`Unpacked::name`]; bodies lie in the store.
    pub tree: Tree,
}

/// Numbers of people's accounts; in a package they are those of whoever built it: Debian Policy 9.2.2.
const PEOPLE: std::ops::RangeInclusive<u32> = 1000..=59_999;
/// setuid and setgid, which chown(2) takes away too.
const RIGHTS: u16 = 0o6000;

impl Unpacked {
    /// Gives root what belongs to a person's number: on a node that is somebody else. Says so, if there is any.
    pub fn to_root(&mut self) -> Option<String> {
        let mut given = Vec::new();
        for (path, id) in self.tree.walk() {
            let is_file = matches!(self.tree.node(id).kind, Kind::File(_));
            let meta = &mut self.tree.node_mut(id).meta;
            let number = [meta.uid, meta.gid].into_iter().find(|number| PEOPLE.contains(number));
            let Some(number) = number else { continue };
            for owner in [&mut meta.uid, &mut meta.gid] {
                *owner = if PEOPLE.contains(owner) { 0 } else { *owner };
            }
            if is_file {
                meta.mode &= !RIGHTS;
            }
            given.push((path, number));
        }
        let (path, number) = given.first()?;
        let more = if given.len() == 1 { String::new() } else { format!(" (and {} more)", given.len() - 1) };
        Some(format!(
            "{}: /{}{more} belongs to id {number} in the package, which is somebody else's on a node, and is given \
             to root; an overlay gives it to another, a directory by the line `PATH/ 0750 USER GROUP` in its `.meta`, \
             a file with `replace: true`",
            self.name,
            show(path)
        ))
    }
}

/// Why packages could not be unpacked or put together.
#[derive(Debug, thiserror::Error)]
pub enum PackagesError {
    /// The .deb is not what was locked, or is refused.
    #[error("unpacking {name} {version}: {source}")]
    Deb {
        /// The package.
        name: String,
        /// Its version.
        version: String,
        /// Why.
        source: Box<DebError>,
    },
    /// The .deb is another package than its lock says.
    #[error("the package locked as {name} {version} says that it is {actual}")]
    Another {
        /// As locked.
        name: String,
        /// As locked.
        version: String,
        /// Name and version in its control file.
        actual: String,
    },
    /// Packages that claim the same paths.
    #[error("packages have the same path, so that one of them must be left out:\n  {}{}",
        Conflict::list(.conflicts).trim_start(), hint(.diverts))]
    Conflicts {
        /// All of them.
        conflicts: Vec<Conflict>,
        /// Packages among them whose scripts call dpkg-divert, as `package: script`.
        diverts: Vec<String>,
    },
    /// A package whose directories cannot be placed.
    #[error("placing the files of {name}: {source}")]
    Place {
        /// The package.
        name: String,
        /// Why.
        source: TreeError,
    },
    /// One name twice.
    #[error("package {name} is there twice")]
    Twice {
        /// The package.
        name: String,
    },
    /// More files than fit into memory.
    #[error(
        "the packages have more than {limit} files, directories and links together, {name} being the one with which \
         they do"
    )]
    TooMany {
        /// The package.
        name: String,
        /// [`limits::NODES`].
        limit: usize,
    },
    /// Names and control data that would fill the memory.
    #[error(
        "paths, attributes and control files of the packages have more than {} together, {name} being the one with \
         which they do", Size(limits::NAMES).human()
    )]
    TooLong {
        /// The package.
        name: String,
    },
    /// Packages of zeros, each within what one may have.
    #[error(
        "the packages unpack to more than {} besides {} times the size of each, {name} being the one with which they do",
        Size(limits::PACKAGES_SLACK).human(), limits::RATIO
    )]
    Unpacked {
        /// The package.
        name: String,
    },
    /// Relations without end.
    #[error(
        "the packages depend on each other in more than {} ways, with those of {name}: leave it out",
        limits::RELATIONS
    )]
    Entangled {
        /// The package.
        name: String,
    },
    /// More paths that are a link in one package and a directory in another than packages have.
    #[error(
        "more than {limit} paths are a link in one package and a directory in another, /{path} among them: leave one \
         of the packages out"
    )]
    Mixed {
        /// One of them, without leading slash.
        path: String,
        /// [`limits::MIXED`].
        limit: usize,
    },
    /// Files whose paths become long where links of other packages lead.
    #[error(
        "where links of packages lead, all paths, with {path}, have more than {} together: leave one of the packages out",
        Size(*.limit).human()
    )]
    Led {
        /// The name with which they do.
        path: String,
        /// [`limits::NAMES`], in bytes.
        limit: u64,
    },
    /// The disk under the store is full.
    #[error("unpacking {name}: {source}")]
    Full {
        /// The package.
        name: String,
        /// With the directory and the way out.
        source: StoreError,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn hint(diverts: &[String]) -> String {
    if diverts.is_empty() {
        return String::new();
    }
    format!("\nDiversions are not supported: dpkg-divert is called by {}", diverts.join(", "))
}

/// Unpacks `packages` with the threads of the pool that it is called in. What the store has unpacked before is only
/// looked up. The result is in the order of `packages`; nodes that the builder makes are at `epoch`.
///
/// # Errors
/// Those of the first package that failed; see [`PackagesError`].
pub fn unpack(
    packages: &[PackageInput],
    store: &Store,
    epoch: i64,
    progress: &dyn Progress,
) -> Result<Vec<Unpacked>, PackagesError> {
    let task = Task::new(progress, "unpacking", packages.iter().map(|input| input.size).sum(), Unit::Bytes);
    // The largest first: one that began last would keep a single thread busy alone.
    let mut order: Vec<usize> = (0..packages.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(packages[*index].size));
    let sums = Sums::default();
    let one = |index: &usize| {
        let unpacked = unpack_one(&packages[*index], store, epoch, &sums, &task);
        unpacked.map(|unpacked| (*index, unpacked))
    };
    let done: Result<Vec<_>, _> = order.par_iter().with_max_len(1).map(one).collect();
    if let Err(PackagesError::Deb { source, .. }) = &done
        && matches!(**source, DebError::Size { .. } | DebError::Digest { .. } | DebError::Read(_))
    {
        // Where one has rotted, others may have: all are told, and fetched again, at once.
        store.examine(packages.iter().map(|input| &input.sha256))?;
    }
    let mut done = done?;
    done.sort_by_key(|(index, _)| *index);
    Ok(done.into_iter().map(|(_, unpacked)| unpacked).collect())
}

/// What all packages have together so far. Whether a sum is passed does not depend on their order.
#[derive(Default)]
struct Sums {
    nodes: AtomicUsize,
    /// Bytes that are kept in memory of each: names, attributes, control data.
    kept: AtomicU64,
    /// Bytes on the disk besides so many times the size of each.
    slack: AtomicU64,
}

impl Sums {
    fn add(&self, input: &PackageInput, package: &Package, unpacked: u64) -> Result<(), PackagesError> {
        let name = || input.name.clone();
        let nodes = package.members.len();
        if self.nodes.fetch_add(nodes, Ordering::Relaxed) + nodes > limits::NODES {
            return Err(PackagesError::TooMany { name: name(), limit: limits::NODES });
        }
        let kept = package.size_in_memory();
        if self.kept.fetch_add(kept, Ordering::Relaxed) + kept > limits::NAMES {
            return Err(PackagesError::TooLong { name: name() });
        }
        let besides = unpacked.saturating_sub(input.size.saturating_mul(limits::RATIO));
        if self.slack.fetch_add(besides, Ordering::Relaxed) + besides > limits::PACKAGES_SLACK {
            return Err(PackagesError::Unpacked { name: name() });
        }
        Ok(())
    }
}

fn unpack_one(
    input: &PackageInput,
    store: &Store,
    epoch: i64,
    sums: &Sums,
    task: &Task<'_>,
) -> Result<Unpacked, PackagesError> {
    let PackageInput { name, version, .. } = input;
    task.at(name);
    let (package, file) = package(input, store, task)?;
    if (package.control.name(), package.control.version()) != (name, version) {
        return Err(PackagesError::Another {
            name: name.clone(),
            version: version.clone(),
            actual: format!("{} {}", package.control.name(), package.control.version()),
        });
    }
    sums.add(input, &package, file.len())?;
    let tree = package.tree(&Arc::new(file), name, epoch).map_err(|source| PackagesError::Deb {
        name: name.clone(),
        version: version.clone(),
        source: Box::new(source),
    })?;
    Ok(Unpacked {
        name: name.clone(),
        version: version.clone(),
        control: package.control,
        scripts: package.scripts,
        actions: package.actions,
        tree,
    })
}

/// The unpacked package, out of the store or into it.
fn package(input: &PackageInput, store: &Store, task: &Task<'_>) -> Result<(Package, Sealed), PackagesError> {
    let (kind, key) = (deb::index::FORMAT, input.sha256.to_hex());
    if let Some(file) = store.derived(kind, &key) {
        let package = deb::load(&file).map_err(unreadable)?;
        task.advance(input.size);
        return Ok((package, file));
    }
    let mut package = None;
    let file = store.derive(kind, &key, |unpacked| {
        let report = |count| task.advance(count);
        let read = deb::unpack(&input.deb, &input.sha256, input.size, unpacked, &report);
        let written = unpacked.position();
        package = Some(read.map_err(|source| {
            let full = match &source {
                DebError::Write(error) | DebError::Tar { source: TarError::Write { source: error }, .. } => {
                    store.full(error, written)
                }
                _ => None,
            };
            full.map_or_else(
                || PackagesError::Deb {
                    name: input.name.clone(),
                    version: input.version.clone(),
                    source: Box::new(source),
                },
                |source| PackagesError::Full { name: input.name.clone(), source },
            )
        })?);
        Ok::<_, PackagesError>(())
    })?;
    match package {
        Some(package) => Ok((package, file)),
        // Another process made it in between.
        None => Ok((deb::load(&file).map_err(unreadable)?, file)),
    }
}

fn unreadable(error: IndexError) -> PackagesError {
    StoreError::Read(std::io::Error::other(error)).into()
}

#[cfg(test)]
mod names;
#[cfg(test)]
mod tests;
