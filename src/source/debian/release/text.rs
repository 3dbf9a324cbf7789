//! The text of a release: fields, and lists of files by digest.

use std::collections::BTreeMap;

use super::{Release, ReleaseError};
use crate::base::{Digest, limits};
use crate::source::debian::checksum::Checksum;
use crate::source::debian::path::below;

/// Lists of files by digests that vouch for them, the better known first.
const STRONG: [&str; 2] = ["SHA256", "SHA512"];

/// Lists by digests that can be forged.
const WEAK: [&str; 2] = ["SHA1", "MD5Sum"];

/// Reads `Sat, 12 Sep 2026 07:55:41 UTC`, the zone maybe as `GMT`, `Z` or `+0000`, the day of the week maybe a
/// wrong one, the hour maybe of one digit.
pub(super) fn parse_date(text: &str) -> Option<i64> {
    let mut words: Vec<&str> = text.split_whitespace().collect();
    if words.first()?.ends_with(',') {
        words.remove(0);
    }
    let [day, month, year, time, zone] = words[..] else { return None };
    let zone = if matches!(zone, "UTC" | "GMT" | "UT" | "Z") { "+0000" } else { zone };
    let padded = if time.find(':') == Some(1) { format!("0{time}") } else { time.to_owned() };
    let time = jiff::fmt::rfc2822::parse(&format!("{day} {month} {year} {padded} {zone}")).ok()?;
    Some(time.timestamp().as_second())
}

/// Reads the signed text and compares the suite. Digest and signers are left for the caller.
///
/// A line of a list that cannot be read stands for a file that is not there: nothing else is spoiled by it.
pub(super) fn parse(text: &str, asked: Option<&str>) -> Result<Release, ReleaseError> {
    let mut fields: BTreeMap<String, (usize, &str)> = BTreeMap::new();
    let mut lists: BTreeMap<&str, BTreeMap<String, (Checksum, u64)>> = BTreeMap::new();
    let mut current = String::new();
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        let corrupt = |reason: &str| ReleaseError::Corrupt { line: number, reason: reason.to_owned() };
        if number > limits::RELEASE_LINES {
            return Err(corrupt(&format!("more than the {} that are read", limits::RELEASE_LINES)));
        }
        if line.starts_with([' ', '\t']) {
            if let Some(kind) = STRONG.iter().find(|kind| kind.eq_ignore_ascii_case(&current))
                && let Some((path, entry)) = parse_entry(line)
            {
                lists.entry(kind).or_default().insert(path, entry);
            }
        } else if !line.trim().is_empty() {
            let (name, value) = line.split_once(':').ok_or_else(|| corrupt("not `field: value`"))?;
            // Names are compared without regard to case (deb822(5)).
            current = name.trim().to_ascii_lowercase();
            if fields.insert(current.clone(), (number, value.trim())).is_some() {
                return Err(corrupt("the field stands there twice"));
            }
        }
    }
    let field = |name: &str| fields.get(&name.to_ascii_lowercase()).map(|(_, value)| *value);
    let date = |name: &'static str| {
        fields
            .get(&name.to_ascii_lowercase())
            .map(|(line, value)| {
                parse_date(value).ok_or_else(|| ReleaseError::Corrupt {
                    line: *line,
                    reason: format!("{value:?} is not a date"),
                })
            })
            .transpose()
    };
    check_suite(asked, field("Suite"), field("Codename"))?;
    if !STRONG.iter().any(|kind| field(kind).is_some()) {
        let kinds: Vec<_> = WEAK.into_iter().filter(|kind| field(kind).is_some()).collect();
        return Err(match kinds.is_empty() {
            true => ReleaseError::Missing { field: STRONG[0] },
            false => ReleaseError::WeakList { kinds },
        });
    }
    let mut files = BTreeMap::new();
    for kind in STRONG {
        for (path, entry) in lists.remove(kind).unwrap_or_default() {
            files.entry(path).or_insert(entry);
        }
    }
    let words = |name: &str| field(name).unwrap_or_default().split_whitespace();
    Ok(Release {
        sha256: Digest::from_bytes([0; 32]),
        date: date("Date")?.ok_or(ReleaseError::Missing { field: "Date" })?,
        valid_until: date("Valid-Until")?,
        by_hash: field("Acquire-By-Hash").is_some_and(is_yes),
        separate_all: words("Architectures").any(|name| name == "all")
            && !words("No-Support-for-Architecture-all").any(|name| name == "Packages"),
        components: words("Components")
            .map(|name| name.strip_prefix("updates/").unwrap_or(name).to_owned())
            .collect(),
        signed_by: Vec::new(),
        files,
    })
}

/// The words that apt takes for yes.
fn is_yes(value: &str) -> bool {
    ["yes", "true", "with", "on", "enable", "1"].iter().any(|word| value.eq_ignore_ascii_case(word))
}

/// A release that names neither suite nor codename, as plain `apt-ftparchive release` makes it, contradicts
/// nothing. Of a suite with a slash, as `stable/updates`, releases name the part before it.
fn check_suite(asked: Option<&str>, suite: Option<&str>, codename: Option<&str>) -> Result<(), ReleaseError> {
    let Some(asked) = asked.filter(|_| suite.is_some() || codename.is_some()) else { return Ok(()) };
    let head = asked.rsplit_once('/').map_or(asked, |(head, _)| head);
    if [suite, codename].into_iter().flatten().any(|name| name == asked || name == head) {
        return Ok(());
    }
    Err(ReleaseError::OtherSuite {
        asked: asked.to_owned(),
        suite: suite.unwrap_or("-").to_owned(),
        codename: codename.unwrap_or("-").to_owned(),
    })
}

/// ` <digest> <size> <path>`, the path staying below the release.
fn parse_entry(line: &str) -> Option<(String, (Checksum, u64))> {
    let mut words = line.split_whitespace();
    let digest = words.next()?.parse().ok()?;
    let size = words.next()?.parse().ok()?;
    let path = below(words.next()?)?;
    words.next().is_none().then_some((path, (digest, size)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::debian::checksum::Sha512;

    #[test]
    fn reads_dates() {
        for text in [
            "Sat, 12 Sep 2026 07:55:41 UTC",
            "Sat, 12 Sep 2026 07:55:41 +0000",
            "Sat, 12 Sep 2026 07:55:41 GMT",
            "Sat, 12 Sep 2026 07:55:41 Z",
            "Sat, 12 Sep 2026  7:55:41 UTC",
            "Mon, 12 Sep 2026 07:55:41 UTC",
            "12 Sep 2026 09:55:41 +0200",
        ] {
            assert_eq!(parse_date(text), Some(1_789_199_741), "{text}");
        }
        for bad in ["", "yesterday", "Sat,", "Sat, 12 Sep 2026", "Sat, 32 Sep 2026 07:55:41 UTC"] {
            assert_eq!(parse_date(bad), None, "{bad}");
        }
    }

    fn text() -> String {
        let digest = "a".repeat(64);
        format!(
            "Suite: stable-security\nCodename: trixie-security\nDate: Sat, 12 Sep 2026 07:55:41 UTC\n\
             Components: updates/main updates/contrib\nArchitectures: all amd64\nMD5Sum:\n 00 1 x\n\
             SHA256:\n {digest} 12 main/binary-amd64/Packages.xz\n"
        )
    }

    #[test]
    fn reads_the_fields() {
        let text = text();
        let release = parse(&text, Some("trixie-security")).unwrap();
        assert_eq!(release.components, ["main", "contrib"]);
        assert!(release.separate_all && !release.by_hash && release.valid_until.is_none());
        assert_eq!(release.files["main/binary-amd64/Packages.xz"].1, 12);
        assert!(matches!(parse(&text, Some("trixie")), Err(ReleaseError::OtherSuite { .. })));
        let windows = text.replace('\n', "\r\n").replace("SHA256:", "Acquire-By-Hash: Yes\r\nsha256:");
        assert!(parse(&windows, Some("trixie-security")).unwrap().by_hash);
        assert_eq!(parse(&windows, None).unwrap().files, release.files);
    }

    #[test]
    fn a_line_that_cannot_be_read_spoils_no_other() {
        let digest = "b".repeat(64);
        for line in [
            format!(" {digest} 3 ../x"),
            format!(" {digest} many x"),
            " 00 1 x".into(),
            format!(" {digest} 1 a b"),
        ] {
            let release = parse(&format!("{}{line}\n", text()), None).unwrap();
            assert_eq!(release.files.keys().collect::<Vec<_>>(), ["main/binary-amd64/Packages.xz"], "{line}");
        }
        // As `find . -type f` lists files of a flat archive.
        let release = parse(&format!("{} {digest} 3 ./Packages\n", text()), None).unwrap();
        assert_eq!(release.files["Packages"].1, 3);
    }

    #[test]
    fn digests_of_another_kind() {
        let sha512 = Sha512::of("x");
        let only = text().replace("SHA256:\n", "SHA512:\n").replace(&"a".repeat(64), &sha512.to_string());
        let files = parse(&only, None).unwrap().files;
        assert_eq!(files["main/binary-amd64/Packages.xz"], (Checksum::Sha512(sha512), 12));
        // Both, and one file that only the second list has.
        let both =
            format!("{}SHA512:\n {sha512} 12 main/binary-amd64/Packages.xz\n {sha512} 9 other\n", text());
        let files = parse(&both, None).unwrap().files;
        assert!(matches!(files["main/binary-amd64/Packages.xz"].0, Checksum::Sha256(_)));
        assert_eq!(files["other"], (Checksum::Sha512(sha512), 9));
        let weak = text().replace("SHA256:\n", "SHA1:\n");
        let error = parse(&weak, None).unwrap_err().to_string();
        assert!(error.contains("SHA1 and MD5Sum only, which can be forged"), "{error}");
        let none = "Suite: x\nDate: Sat, 12 Sep 2026 07:55:41 UTC\n";
        assert!(matches!(parse(none, None), Err(ReleaseError::Missing { field: "SHA256" })));
    }

    #[test]
    fn suites_as_real_archives_name_them() {
        for (asked, suite, codename, good) in [
            ("trixie", None, None, true),
            ("stable/updates", Some("stable"), Some("trixie"), true),
            ("trixie", None, Some("trixie"), true),
            ("trixie", Some("bookworm"), None, false),
            ("trixie/updates", Some("stable"), None, false),
        ] {
            assert_eq!(
                check_suite(Some(asked), suite, codename).is_ok(),
                good,
                "{asked} {suite:?} {codename:?}"
            );
        }
    }

    #[test]
    fn lines_have_a_number() {
        let fields: String = (0..100_000).map(|number| format!("f{number}:\n")).collect();
        let error = parse(&format!("{}{fields}", text()), None).unwrap_err().to_string();
        assert_eq!(error, "line 100001 of the signed text: more than the 100000 that are read");
    }
}
