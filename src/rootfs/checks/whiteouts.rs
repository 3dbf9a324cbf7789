//! Names that mean something else in a layer of an image.

use super::many::{Found, report};
use super::{Finding, Inputs, View, named};

/// OCI Image Format Specification 1.1, "Whiteouts": a name that begins so marks the rest of it as removed.
const WHITEOUT: &[u8] = b".wh.";

/// Reports such names, which tools for images would take for the absence of others.
pub(super) fn check(view: &View<'_>, inputs: &Inputs) -> Vec<Finding> {
    let is_mark =
        |path: &[u8]| path.rsplit(|byte| *byte == b'/').next().is_some_and(|name| name.starts_with(WHITEOUT));
    let marks = view.paths.iter().filter(|(path, _)| is_mark(path));
    let problem = "has a name that marks something as removed in the layers of an image";
    let found = marks.map(|(path, id)| {
        let (name, problem) = (named(path), problem.to_owned());
        Found { path, id: *id, name, problem }
    });
    report(view, found.collect(), &|_| inputs.leave_out())
}
