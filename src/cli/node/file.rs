//! A file of node documents.

use std::path::Path;

use anyhow::{Context, Result};

use crate::base::input;
use crate::node;

/// One byte more than a document may have: the room itself says what is too large.
pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    input::read(path, node::LARGEST + 1).with_context(|| format!("reading {}", path.display()))
}
