//! Scripts whose interpreter is not in the image. Often on purpose: packages bring helpers in Perl or Python
//! that a node never calls. So these are warnings.

use std::collections::BTreeMap;

use super::programs::{Form, Program, lacking};
use super::{Finding, Severity, View, and_others};

/// Reports, once for each interpreter, scripts that cannot be started.
pub fn check(view: &View<'_>, programs: &[Program<'_>]) -> Vec<Finding> {
    let mut missing: BTreeMap<String, Vec<&Program<'_>>> = BTreeMap::new();
    for program in programs {
        let Form::Script { interpreter, argument } = &program.form else { continue };
        let Some(wanted) = lacking(view.tree, interpreter, argument) else { continue };
        missing.entry(wanted).or_default().push(program);
    }
    missing
        .into_iter()
        .map(|(interpreter, programs)| {
            let others: Vec<_> = programs[1..].iter().map(|program| program.path).collect();
            let problem =
                format!("is a script for {interpreter}, which is not in the image{}", and_others(&others));
            let advice = "add the interpreter's package, or leave the scripts out with `prune`".to_owned();
            view.finding(Severity::Warning, programs[0].path, programs[0].id, problem, advice)
        })
        .collect()
}
