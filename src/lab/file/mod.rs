//! The lab file: which machines there are. `raw` is what people write; `validate` makes a [`Plan`] of it.

mod document;
mod flags;
mod form;
mod raw;
pub mod schema;
mod validate;

use std::path::{Path, PathBuf};

use super::plan::Plan;
use crate::base::limits;
use crate::written::decode::decode;
use crate::written::diagnostic::Report;
use crate::written::header::{self, Header};
use crate::written::place::{Mark, Source, Sources, Sum};
use crate::written::{Diagnostics, shape, yaml};

pub use flags::{Asked, WrongFlag};

const HEADER: Header = Header { field: "lab", form: 1, one: "file", many: "lab files" };

/// Reads the lab file that people know by `name`; paths in it are relative to its directory. `image` is that of machines
/// that name none, before the file's own.
///
/// # Errors
/// All that is wrong with it.
pub fn read(name: &Path, bytes: &[u8], image: Option<&Path>) -> Result<Plan, Diagnostics> {
    let mut sources = Sources::default();
    let mut report = Report::default();
    let text = String::from_utf8_lossy(bytes).into_owned();
    let source = sources.add(Source { name: name.to_owned(), text });
    let base = name.parent().map(Path::to_owned).unwrap_or_default();
    let plan = plan(source, bytes, &base, image, &mut report);
    match plan {
        Some(plan) if report.is_empty() => Ok(plan),
        _ => Err(report.finish(&sources)),
    }
}

fn plan(source: u32, bytes: &[u8], base: &Path, image: Option<&Path>, report: &mut Report) -> Option<Plan> {
    let top = Mark::top(source);
    if bytes.len() as u64 > limits::TEXT {
        report.error(top, "this is larger than a lab file can be");
        return None;
    }
    let text = yaml::decode(source, bytes, report)?;
    let mut node = yaml::read(source, text, &mut Sum::default(), report)?;
    if !header::is_readable(&node, &HEADER, report) || !shape::check(&mut node, &schema::file(), report) {
        return None;
    }
    match decode(&node) {
        Ok(raw) => Some(validate::plan(raw, node.mark, &Outside { base, image }, report)),
        Err(fault) => {
            report.error(fault.mark.unwrap_or(top), fault.message);
            None
        }
    }
}

/// What a file does not say itself.
struct Outside<'a> {
    /// Paths are relative to this directory.
    base: &'a Path,
    /// The image that a flag names; relative to the working directory.
    image: Option<&'a Path>,
}

impl Outside<'_> {
    fn path(&self, text: &str) -> PathBuf {
        self.base.join(text)
    }
}
