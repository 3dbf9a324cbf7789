//! Waits of one boot against the deadline above them: a unit of `health:` that may take longer to start than
//! `health.deadline` gives turns a good update away where the node is slow.

use super::units::Units;
use super::{Finding, Severity};
use crate::manifest::Manifest;
use crate::rootfs::containers::{START_SECONDS, waits_for_network};
use crate::rootfs::text::command::commands;
use crate::rootfs::text::settings::Settings;

/// The unit that waits for the network, and for how long without `--timeout=`, in seconds.
const WAIT_ONLINE: (&str, u64) = ("systemd-networkd-wait-online.service", 120);
/// What comes after it.
const ONLINE: &str = "network-online.target";

/// Tells which units of `health:` may take longer than the deadline. All that is said is a warning: a wait is only the
/// most that a unit may take.
pub(super) fn check(units: &Units<'_>, manifest: &Manifest) -> Vec<Finding> {
    let deadline = manifest.health.deadline_seconds;
    let network = network_seconds(units);
    let mut findings = Vec::new();
    let mut judge = |names: String, own: Option<u64>, is_online: bool| {
        let network = if is_online { network } else { Some(0) };
        if network.is_some_and(|network| own.unwrap_or(0).saturating_add(network) <= deadline) {
            return;
        }
        let waits = match (own, network) {
            (_, None) => "which waits for the network without an end (--timeout=0)".to_owned(),
            (None, Some(network)) => format!("which waits up to {network} s for the network"),
            (Some(own), Some(0)) => format!("which has {own} s for its start (TimeoutStartSec=)"),
            (Some(own), Some(network)) => format!(
                "which waits up to {network} s for the network, and then has {own} s for its start (TimeoutStartSec=)"
            ),
        };
        findings.push(Finding {
            severity: Severity::Warning,
            path: String::new(),
            origin: "manifest".to_owned(),
            problem: format!("{names}, {waits}: more than the {deadline} s of `health.deadline`"),
            advice: "a node that is slow turns a good update away: set a longer `deadline`, or a shorter time-out by \
                     a drop-in"
                .to_owned(),
        });
    };
    for unit in &manifest.health.units {
        if let Some(settings) = units.settings(unit) {
            let names = manifest.said.names("health.units", unit);
            judge(names, start_seconds(&settings), units.comes_after(unit, ONLINE));
        }
    }
    if manifest.health.containers {
        for container in manifest.containers.iter().filter(|container| container.start) {
            let text = format!("health.containers waits for container {}", container.name);
            let names = container.said.at("containers", &container.name, &text);
            let drop_ins = units.drop_ins(&format!("{}.service", container.name));
            let own = start_seconds(&drop_ins).unwrap_or(START_SECONDS);
            judge(names, Some(own), waits_for_network(container));
        }
    }
    findings
}

/// How long what comes after [`ONLINE`] waits, in seconds; nothing where that has no end.
fn network_seconds(units: &Units<'_>) -> Option<u64> {
    let (unit, default) = WAIT_ONLINE;
    if !units.starts(unit) {
        return Some(0);
    }
    let settings = units.settings(unit).unwrap_or_default();
    let arguments = settings.all("Service", "ExecStart").flat_map(|line| commands(line).unwrap_or_default());
    let words: Vec<String> = arguments.flat_map(|command| command.arguments).collect();
    let value = words.iter().enumerate().find_map(|(at, word)| match word.strip_prefix("--timeout") {
        Some("") => words.get(at + 1).map(String::as_str),
        Some(rest) => rest.strip_prefix('='),
        None => None,
    });
    match value.map(span) {
        None => Some(default),
        // Without an end: the unit's own limit holds, if it has one.
        Some(Some(0) | None) => start_seconds(&settings),
        Some(Some(seconds)) => Some(seconds),
    }
}

/// What the unit says itself of the longest time for its start, in seconds; nothing if it says none, or no limit.
fn start_seconds(settings: &Settings) -> Option<u64> {
    let keys = ["TimeoutStartSec", "TimeoutSec"];
    keys.iter().find_map(|key| settings.last("Service", key)).and_then(span).filter(|seconds| *seconds != 0)
}

/// Units of time in seconds, the longer ones first: systemd.time(7).
const UNITS: [(&[&str], f64); 8] = [
    (&["weeks", "week", "w"], 604_800.0),
    (&["days", "day", "d"], 86_400.0),
    (&["hours", "hour", "hr", "h"], 3600.0),
    (&["minutes", "minute", "min", "m"], 60.0),
    (&["seconds", "second", "sec", "s", ""], 1.0),
    (&["msec", "ms"], 1e-3),
    (&["usec", "us", "µs", "μs"], 1e-6),
    (&["months", "month", "M"], 2_629_800.0),
];

/// A time span such as `5min 20s`, in whole seconds, rounded up; nothing if it has no end, or is none.
fn span(text: &str) -> Option<u64> {
    let mut seconds = 0.0;
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().ok()?;
        let after = rest[digits..].trim_start();
        let letters = after.find(|c: char| c.is_ascii_digit() || c.is_whitespace()).unwrap_or(after.len());
        seconds += number * UNITS.iter().find(|(names, _)| names.contains(&&after[..letters]))?.1;
        rest = after[letters..].trim_start();
    }
    // `as` ends at the ends of the integer.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "no unit is negative")]
    Some(seconds.ceil() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_systemd() {
        let spans = ["300", "5min 20s", "5min20", "1.5 h", "100ms", "2m", "0"].map(span);
        assert_eq!(spans, [300, 320, 320, 5400, 1, 120, 0].map(Some));
        assert_eq!(["infinity", "", "s", "5 moons"].map(span), [None; 4]);
    }

    #[test]
    fn what_a_unit_says_of_its_start() {
        let settings = |text: &str| {
            let mut settings = Settings::default();
            settings.read(format!("[Service]\n{text}").as_bytes());
            start_seconds(&settings)
        };
        assert_eq!(settings("TimeoutSec=1min\n"), Some(60));
        assert_eq!(settings("TimeoutSec=1min\nTimeoutStartSec=5\n"), Some(5));
        assert_eq!(settings("TimeoutStartSec=infinity\n"), None);
        assert_eq!(settings("Type=oneshot\n"), None);
    }
}
