//! Scripts whose interpreter is not in the image. Often on purpose: packages bring helpers in Perl or Python
//! that a node never calls. So these are warnings, but for programs of a package that somebody asked for
//! where a component took the interpreter's package away.

use std::collections::BTreeMap;

use super::programs::{Form, PATH, Program, lacking};
use super::{Finding, Inputs, Severity, View, and_others};
use crate::tree::show;

/// Reports, once for each interpreter, scripts that cannot be started.
pub(super) fn check(view: &View<'_>, programs: &[Program<'_>], inputs: &Inputs) -> Vec<Finding> {
    // By interpreter and the package that was taken away with it.
    let mut missing: BTreeMap<(String, Option<&str>), Vec<&Program<'_>>> = BTreeMap::new();
    for program in programs {
        let Form::Script { interpreter, argument } = &program.form else { continue };
        let Some(wanted) = lacking(view.tree, interpreter, argument, &PATH) else { continue };
        if inputs.mounts.cover_program(view.tree, &wanted, &PATH) {
            continue;
        }
        let origin = view.tree.origin_name(view.tree.node(program.id).origin);
        let folder = show(program.path.rsplitn(2, |byte| *byte == b'/').nth(1).unwrap_or_default());
        let asked_for = inputs.foreign.contains(origin) && PATH.contains(&format!("/{folder}").as_str());
        let assumed = match asked_for {
            true => inputs.assumed.iter().find(|package| brings(package, &wanted)).map(String::as_str),
            false => None,
        };
        missing.entry((wanted, assumed)).or_default().push(program);
    }
    missing
        .into_iter()
        .map(|((interpreter, assumed), programs)| {
            let others: Vec<_> = programs[1..].iter().map(|program| program.path).collect();
            let problem =
                format!("is a script for {interpreter}, which is not in the image{}", and_others(&others));
            let (severity, advice) = match assumed {
                None => {
                    let advice = match inputs.pruned.named(view.tree, &interpreter, &PATH) {
                        Some(way) => format!("{way}, or leave the scripts out too"),
                        None => {
                            "add the interpreter's package, or leave the scripts out with `prune`".to_owned()
                        }
                    };
                    (Severity::Warning, advice)
                }
                Some(package) => {
                    let by = inputs.said.at("assume", package, &format!("`assume` takes {package} as present"));
                    let advice = format!(
                        "{by}; add {package} to `packages`, which takes that away, or leave the scripts out with `prune`"
                    );
                    (Severity::Error, advice)
                }
            };
            view.finding(severity, programs[0].path, programs[0].id, problem, advice)
        })
        .collect()
}

/// Whether `package` is by its name the one with `interpreter`: perl-base has perl, python3-minimal python3.
fn brings(package: &str, interpreter: &str) -> bool {
    let name = interpreter.rsplit('/').next().unwrap_or_default();
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    let begin = package.split('-').next().unwrap_or_default();
    begin == name || begin == stem || begin.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.') == stem
}
