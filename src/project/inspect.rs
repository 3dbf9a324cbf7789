//! What is in an image, or on a disk.

use std::path::Path;

use anyhow::{Context, Result};

use crate::base::input;
use crate::base::progress::Progress;
use crate::image::inspect;

pub use crate::image::inspect::{Form, Inspection, SlotReport};

/// Reads the raw or qcow2 image, or the disk, at `path`. `verify`: every block of every root too.
///
/// # Errors
/// An image that cannot be read.
pub fn inspect(path: &Path, verify: bool, progress: &dyn Progress) -> Result<Inspection> {
    let context = || format!("inspecting {}", path.display());
    let file = input::open_disk(path).with_context(context)?;
    inspect::inspect(file, verify, progress).with_context(context)
}
