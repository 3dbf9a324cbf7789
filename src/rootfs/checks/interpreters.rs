//! Scripts whose interpreter is not in the image. Often on purpose: packages bring helpers in Perl or Python
//! that a node never calls. So these are warnings.

use std::collections::BTreeMap;

use super::programs::{Form, Program};
use super::{Finding, Severity, View, and_others};

/// Where `env` looks, as PATH is in a service of systemd.
const PATH: [&str; 4] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"];

/// Reports, once for each interpreter, scripts that cannot be started.
pub fn check(view: &View<'_>, programs: &[Program<'_>]) -> Vec<Finding> {
    let exists = |path: &str| view.tree.resolve(path).is_ok();
    let mut missing: BTreeMap<String, Vec<&Program<'_>>> = BTreeMap::new();
    for program in programs {
        let Form::Script { interpreter, argument } = &program.form else { continue };
        let mut words =
            argument.split_whitespace().skip_while(|word| word.starts_with('-') || word.contains('='));
        let wanted = match (interpreter.rsplit('/').next(), words.next()) {
            _ if !exists(interpreter) => interpreter.clone(),
            (Some("env"), Some(name)) if !PATH.iter().any(|folder| exists(&format!("{folder}/{name}"))) => {
                name.to_owned()
            }
            _ => continue,
        };
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
