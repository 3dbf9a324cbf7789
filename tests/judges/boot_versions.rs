//! Our order of image versions against `systemd-analyze compare-versions`.

use std::cmp::Ordering;

use keller::base::version::compare;

use super::tool::tool;

/// Every mark before, behind and between letters and digits, and versions as people give them.
fn versions() -> Vec<String> {
    let mut all: Vec<String> =
        ["1.0.0", "1.0.0~rc1", "1.0.0-rc1", "1.0.1", "1.0.10", "00123", "123_a", "2026.11.23"]
            .map(str::to_owned)
            .into();
    for mark in ["~", "-", "^", ".", "_", ""] {
        for tail in ["", "1", "01", "a", "B", "~"] {
            all.push(format!("1{mark}{tail}"));
        }
    }
    all.sort();
    all.dedup();
    all
}

#[test]
fn versions_are_ordered_as_systemd_orders_them() {
    let versions = versions();
    for (at, a) in versions.iter().enumerate() {
        for b in &versions[at..] {
            let relation = match compare(a, b) {
                Ordering::Less => "lt",
                Ordering::Equal => "eq",
                Ordering::Greater => "gt",
            };
            let Some(mut analyze) = tool("systemd-analyze") else { return };
            let agreed = analyze.args(["compare-versions", a, relation, b]).status().unwrap();
            assert!(agreed.success(), "systemd does not agree that {a:?} {relation} {b:?}");
        }
    }
}
