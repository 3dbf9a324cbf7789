//! What was read of a kernel's modules, kept in the store: unpacking a thousand of them takes longer than all
//! the rest of a rebuild.

use std::io::Write;

use rayon::prelude::*;

use super::object::Facts;
use super::read_facts;
use crate::base::{Fingerprint, Hasher, input, limits};
use crate::rootfs::Error;
use crate::store::{Store, StoreError};
use crate::tree::Content;

/// The kind under which the facts lie in the store. The number counts changes of [`Facts`].
pub const KIND: &str = "modules-4";

/// The facts of `modules` (path and content) in their order, remembered by their paths and bytes.
pub(super) fn facts(store: &Store, folder: &str, modules: &[(&str, &Content)]) -> Result<Vec<Facts>, Error> {
    let unreadable = |what: String| Error::Malformed { path: format!("/{folder}"), line: 0, what };
    let prints: Vec<Fingerprint> = modules
        .par_iter()
        .map(|(_, content)| Ok(Fingerprint::of_reader(&mut content.reader())?.0))
        .collect::<std::io::Result<_>>()
        .map_err(|error| unreadable(error.to_string()))?;
    let mut key = Hasher::new();
    for ((path, _), print) in modules.iter().zip(&prints) {
        key.update(path);
        key.update([0]);
        key.update(print.as_bytes());
    }
    let key = key.finish().to_hex();
    if let Some(file) = store.derived(KIND, &key)
        && let Ok(bytes) = input::read_open(file.reader(), limits::WHOLE_FILE)
        && let Ok(facts) = serde_json::from_slice(&bytes)
    {
        return Ok(facts);
    }
    let facts = read_facts(folder, modules)?;
    // What cannot be kept is read again the next time.
    let _ = store.derive::<StoreError>(KIND, &key, |file| {
        let text = serde_json::to_vec(&facts).map_err(|error| StoreError::Read(error.into()))?;
        file.write_all(&text).map_err(StoreError::Read)
    });
    Ok(facts)
}
