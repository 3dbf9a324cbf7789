//! The update repository: TUF metadata over static files. `keys` makes and rotates what signs it, `publish`
//! adds versions, `client` is what a node trusts of it.
//!
//! ```text
//! metadata/N.root.json N.targets.json N.snapshot.json timestamp.json     TUF, consistent snapshots
//! targets/SHA256.ID_VERSION.json                                         release documents
//! blobs/SHA256                                                           what they name
//! ```
