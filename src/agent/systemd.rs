//! What the agent asks of systemd. By its own tool: that speaks to PID 1 on a private socket where there is no
//! bus, as in the first seconds of a boot.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use crate::base::failure::{Doing, Failure};

/// What `systemctl show` says of units: properties by unit.
pub type Shown = BTreeMap<String, BTreeMap<String, String>>;

/// `properties` of `units`.
pub fn show(units: &[String], properties: &[&str]) -> Result<Shown, Failure> {
    if units.is_empty() {
        return Ok(Shown::new());
    }
    let property = format!("--property=Names,{}", properties.join(","));
    let mut command = Command::new("systemctl");
    let text = output(command.args(["show", &property, "--"]).args(units))?;
    Ok(parse(&text, units))
}

/// Blocks of `KEY=VALUE`, one a unit, with empty lines in between.
fn parse(text: &str, units: &[String]) -> Shown {
    let block = |block: &str| -> BTreeMap<String, String> {
        block.lines().filter_map(|line| line.split_once('=')).map(|(k, v)| (k.into(), v.into())).collect()
    };
    let blocks: Vec<_> = text.split("\n\n").map(block).collect();
    let find = |unit: &String| {
        let is_it = |block: &&BTreeMap<String, String>| {
            block.get("Names").is_some_and(|names| names.split(' ').any(|name| name == unit))
        };
        Some((unit.clone(), blocks.iter().find(is_it)?.clone()))
    };
    units.iter().filter_map(find).collect()
}

/// `systemctl` with `arguments`, which must succeed.
pub fn systemctl(arguments: &[&str]) -> Result<(), Failure> {
    output(Command::new("systemctl").args(arguments)).map(drop)
}

/// Runs a program; gives what it printed.
pub fn output(command: &mut Command) -> Result<String, Failure> {
    let shown = format!("running {}", shown(command));
    let output = command.stdin(Stdio::null()).output().doing(shown.clone())?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let cause = if errors.is_empty() { output.status.to_string() } else { errors };
        return Err(Failure::new(shown, cause));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Has the journal's daemon write what it has; without one there is nothing to write.
pub fn sync_journal() {
    let _ = output(Command::new("journalctl").arg("--sync"));
}

/// Starts the machine over, once the journal is on the disk.
pub fn reboot() -> Result<(), Failure> {
    sync_journal();
    systemctl(&["reboot", "--no-block"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_by_any_name() {
        let text = "Names=a.service b.service\nActiveState=active\n\nNames=c.service\nActiveState=failed\n";
        let units: Vec<String> = ["b.service", "c.service", "d.service"].map(str::to_owned).to_vec();
        let shown = parse(text, &units);
        assert_eq!(shown["b.service"]["ActiveState"], "active");
        assert_eq!(shown["c.service"]["ActiveState"], "failed");
        assert!(!shown.contains_key("d.service"));
    }
}
