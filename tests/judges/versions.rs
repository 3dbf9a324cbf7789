//! Our order of versions against `dpkg --compare-versions`.

use keller::source::debian::version::compare;

use super::tool::tool;

/// Versions as they come in archives, and the oddest that dpkg takes.
const VERSIONS: [&str; 24] = [
    "0",
    "0~",
    "0~~",
    "00",
    "0-0",
    "1.",
    "1.0",
    "1.0-1",
    "1.0-1+b1",
    "1.0-1.1",
    "1.0-1~deb13u1",
    "1.0-1+deb13u1",
    "1.0~rc1-1",
    "1.0a",
    "1.0+dfsg",
    "1.0+dfsg-1",
    "1.0.0",
    "1.10",
    "1.2",
    "1:0.1",
    "0:1.0",
    "2024.01.01+git20240101.abc-3",
    "1.3.dfsg+really1.3.1-1",
    "99999999999999999999999999",
];

#[test]
fn versions_are_ordered_as_dpkg_orders_them() {
    if tool("dpkg").is_none() {
        return;
    }
    for (at, a) in VERSIONS.iter().enumerate() {
        for b in &VERSIONS[at..] {
            let relation = match compare(a, b) {
                std::cmp::Ordering::Less => "lt",
                std::cmp::Ordering::Equal => "eq",
                std::cmp::Ordering::Greater => "gt",
            };
            let agreed = tool("dpkg").unwrap().args(["--compare-versions", a, relation, b]).status().unwrap();
            assert!(agreed.success(), "dpkg does not agree that {a} {relation} {b}");
        }
    }
}
