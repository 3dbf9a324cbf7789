//! Accounts that a package's script would make, and that nobody makes: a program that drops its rights to one
//! ends at once, whatever its unit says.

use std::collections::BTreeSet;

use super::units::Units;
use super::{Finding, Inputs, Severity};
use crate::source::debian::deb::scripts::Account;

/// What a script of a package makes.
#[derive(Clone, Debug)]
pub struct ScriptAccount {
    /// The package.
    pub package: String,
    /// `preinst` or `postinst`.
    pub script: &'static str,
    /// The account.
    pub account: Account,
}

/// Reports those that the image does not have: an error where a unit of the package starts.
pub(super) fn check(units: &Units<'_>, inputs: &Inputs) -> Vec<Finding> {
    let mut said = BTreeSet::new();
    let mut findings = Vec::new();
    // What runs in a container is its own process, and no unit.
    let started = |package: &str| if inputs.leaves_devices { None } else { units.started_of(package) };
    // Of several that make one account, one whose unit starts speaks for all; a user brings its group.
    let mut wanted: Vec<_> =
        inputs.script_accounts.iter().map(|wanted| (started(&wanted.package), wanted)).collect();
    wanted.sort_by_key(|(unit, wanted)| (unit.is_none(), wanted.account.group));
    for (unit, ScriptAccount { package, script, account }) in wanted {
        let Account { name, group, home } = account;
        // A name that only the script knows is another one in each.
        let told_by = if account.is_known() { "" } else { package.as_str() };
        let known = inputs.groups.contains_key(name) && (*group || inputs.users.contains_key(name));
        if known || inputs.users.contains_key(name) || !said.insert((told_by, name)) {
            continue;
        }
        let (severity, advice) = if !account.is_known() {
            let advice = "look its name up in the script, and name it in `system_users` where it is needed";
            (Severity::Warning, advice.to_owned())
        } else {
            let home = home.as_ref().map(|home| format!(", home: {home}")).unwrap_or_default();
            let severity = if unit.is_some() { Severity::Error } else { Severity::Warning };
            let field = if *group { "groups" } else { "system_users" };
            (severity, format!("write `{field}: [{{name: {name}{home}}}]`"))
        };
        let what = if *group { "group" } else { "account" };
        let starts = unit.map(|unit| format!(", and {unit} starts")).unwrap_or_default();
        findings.push(Finding {
            severity,
            path: String::new(),
            origin: package.clone(),
            problem: format!(
                "{package}: its {script} would make the {what} {name}, which nothing here makes{starts}"
            ),
            advice,
        });
    }
    findings
}
