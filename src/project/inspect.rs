//! What is in an image, or on a disk.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::base::progress::Progress;
use crate::base::{input, limits};
use crate::image::hardware::{self, list};
use crate::image::inspect;

pub use crate::image::hardware::{Seen, State, System};
pub use crate::image::inspect::{Form, Inspection, SlotReport};

/// How long a pipe that nothing comes from is asked before it is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// Reads the raw or qcow2 image, or the disk, at `path`. `verify`: every block of every root too.
///
/// # Errors
/// An image that cannot be read.
pub fn inspect(path: &Path, verify: bool, progress: &dyn Progress) -> Result<Inspection> {
    let context = || format!("inspecting {}", path.display());
    let file = input::open_disk(path).with_context(context)?;
    inspect::inspect(file, verify, progress).with_context(context)
}

/// What the image at `path` has for the devices that the file `devices` lists; `-` is standard input.
///
/// # Errors
/// A list or an image that cannot be read.
pub fn hardware(path: &Path, devices: &Path) -> Result<Vec<System>> {
    let from_input = devices == Path::new("-");
    let name = if from_input { "standard input".to_owned() } else { devices.display().to_string() };
    let list = match () {
        () if from_input => input::read_open(std::io::stdin().lock(), limits::CONFIGURATION),
        () if input::is_given_pipe(devices) => {
            input::read_pipe(devices, limits::CONFIGURATION, PATIENCE, &mut || {})
        }
        () => input::read(devices, limits::CONFIGURATION),
    };
    let list = list.with_context(|| format!("reading {name}"))?;
    let devices = list::parse(&list).with_context(|| format!("reading {name}"))?;
    let context = || format!("inspecting {}", path.display());
    hardware::check(input::open_disk(path).with_context(context)?, &devices).with_context(context)
}
