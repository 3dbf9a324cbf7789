//! Files that belong to nobody: their number could go to another account with the next version.

use std::collections::{BTreeMap, BTreeSet};

use super::{Finding, Inputs, Severity, View, and_others};
use crate::tree::NodeId;

/// A path and its node.
type Named<'a> = (&'a [u8], NodeId);

/// Reports, once for each number, owners that the image's accounts do not have.
pub(super) fn check(view: &View<'_>, inputs: &Inputs) -> Vec<Finding> {
    let users: BTreeSet<u32> = inputs.users.values().copied().chain([0]).collect();
    let groups: BTreeSet<u32> = inputs.groups.values().copied().chain([0]).collect();
    let mut unknown: BTreeMap<(&str, u32), Vec<Named<'_>>> = BTreeMap::new();
    for (path, id) in &view.paths {
        let meta = &view.tree.node(*id).meta;
        if !users.contains(&meta.uid) {
            unknown.entry(("user", meta.uid)).or_default().push((path, *id));
        }
        if !groups.contains(&meta.gid) {
            unknown.entry(("group", meta.gid)).or_default().push((path, *id));
        }
    }
    unknown
        .into_iter()
        .map(|((what, number), paths)| {
            let others: Vec<_> = paths[1..].iter().map(|(path, _)| *path).collect();
            let problem =
                format!("belongs to {what} {number}, which is no {what} of the image{}", and_others(&others));
            let advice = match inputs.is_archive {
                true => format!("on the node it is the number of {what} {number} there, if there is one"),
                false => "name the account with this number in `system_users`".to_owned(),
            };
            view.finding(Severity::Error, paths[0].0, paths[0].1, problem, advice)
        })
        .collect()
}
