//! The update repository: TUF metadata over static files. `keys` makes and rotates what signs it, `publish`
//! adds versions, `client` is what a node trusts of it.
//!
//! ```text
//! metadata/N.root.json N.targets.json N.snapshot.json timestamp.json     TUF, consistent snapshots
//! targets/SHA256.ID_VERSION.json                                         release documents
//! blobs/SHA256                                                           what they name
//! .lock                                                                  held by the one publisher at work
//! ```
//!
//! Files are added, never rewritten, but for `timestamp.json`, which comes last: until it has its name, nodes
//! see the state before. They are deleted once no list that a node may believe names them (`publish::prune`).

pub mod client;
mod fit;
mod folder;
mod former;
pub mod keys;
mod metadata;
pub mod publish;
mod release;
#[cfg(test)]
mod testing;
mod web;

pub use client::{Client, RepositoryError, Trusted, forget_time};
pub use fit::Misfit;
pub use folder::Folder;
pub use keys::Keys;
pub use publish::Repository;
pub use release::{Layout, Listing};
pub use web::Web;

pub use tough::schema::RoleType;

/// Bytes of a release document that are read at the most. One with a hundred patches has some 40 KB.
const DOCUMENT_LIMIT: u64 = 1 << 20;
