//! Boot entries as systemd-boot sees them: the unified kernel images in the ESP's `EFI/Linux`, by their names.
//!
//! Source: UAPI.1 Boot Loader Specification, "Boot counting" and "Sorting", and systemd-boot 257, whose order
//! this is for images of keller: they carry IMAGE_ID and IMAGE_VERSION in their os-release, and the file's
//! name is made of the same two. What a person chose in the boot menu, or set as the default, outranks it.

use std::cmp::Ordering;
use std::fmt;

use crate::base::version;

/// The ESP's folder of entries.
pub const FOLDER: &str = "EFI/Linux";
/// How every entry's name ends; case is ignored.
const SUFFIX: &str = ".efi";
/// Counts beyond this are no counts (systemd-boot keeps them in an `int`).
const COUNT_LIMIT: u32 = i32::MAX.unsigned_abs();

/// How often an entry may still be tried, and was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter {
    /// Tries left; an entry with none is started only when there is no other.
    pub left: u32,
    /// Tries that did not end with a blessing.
    pub done: u32,
}

/// A file in `EFI/Linux`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootEntry {
    /// The file's name, such as `node_1.0.1+2-1.efi`.
    pub file: String,
    /// The image's id, such as `node`.
    pub id: String,
    /// The image's version, such as `1.0.1`.
    pub version: String,
    /// Nothing for an entry that is blessed, or never had to be tried.
    pub counter: Option<Counter>,
}

impl BootEntry {
    /// The name without the counter, such as `node_1.0.1.efi`: systemd-boot's id of the entry, as it stands in
    /// the variable LoaderEntrySelected but for the case of letters.
    pub fn name(&self) -> String {
        file_name(&self.id, &self.version, None)
    }

    /// Whether the boot loader starts it only for want of another.
    pub fn is_used_up(&self) -> bool {
        self.counter.is_some_and(|counter| counter.left == 0)
    }

    /// The file's name after a demotion: no tries left. What was tried stays on record.
    pub fn demoted(&self) -> String {
        let done = self.counter.map_or(0, |counter| counter.done);
        file_name(&self.id, &self.version, Some(Counter { left: 0, done }))
    }
}

impl fmt::Display for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.done {
            0 => write!(f, "+{}", self.left),
            done => write!(f, "+{}-{done}", self.left),
        }
    }
}

/// The name of an entry's file.
pub fn file_name(id: &str, version: &str, counter: Option<Counter>) -> String {
    let counter = counter.map(|counter| counter.to_string()).unwrap_or_default();
    format!("{id}_{version}{counter}{SUFFIX}")
}

/// Reads a name of the form `ID_VERSION[+LEFT[-DONE]].efi`. Nothing for files that systemd-boot passes over
/// (`.hidden`, `auto-…`, any other ending) and for names that no image of keller has: without an id or a
/// version, or with a `+` before something else than a counter.
pub fn parse(file_name: &str) -> Option<BootEntry> {
    let (stem, suffix) = file_name.split_at_checked(file_name.len().checked_sub(SUFFIX.len())?)?;
    let passed_over = file_name.starts_with('.')
        || file_name.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("auto-"));
    if !suffix.eq_ignore_ascii_case(SUFFIX) || passed_over {
        return None;
    }
    let (name, counter) = match stem.rsplit_once('+') {
        Some((name, text)) => (name, Some(counter(text)?)),
        None => (stem, None),
    };
    // A version has no `_`; an id may.
    let (id, version) = name.rsplit_once('_')?;
    if id.is_empty() || version.is_empty() {
        return None;
    }
    Some(BootEntry { file: file_name.to_owned(), id: id.to_owned(), version: version.to_owned(), counter })
}

fn counter(text: &str) -> Option<Counter> {
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|value: &u32| digits && *value <= COUNT_LIMIT)
    };
    let (left, done) = match text.split_once('-') {
        Some((left, done)) => (number(left)?, number(done)?),
        None => (number(text)?, 0),
    };
    Some(Counter { left, done })
}

/// Sorts as systemd-boot 257 does; the first is the one that it starts.
///
/// Entries that it does not tell apart (the same id and version with a counter and without) stay in the
/// order in which they are given: systemd-boot has that of the folder.
pub fn order(entries: &mut [BootEntry]) {
    entries.sort_by(compare);
}

fn compare(a: &BootEntry, b: &BootEntry) -> Ordering {
    // As much as systemd-boot knows: IMAGE_ID is the sort key, and there is no machine id in an image.
    a.is_used_up()
        .cmp(&b.is_used_up())
        .then_with(|| a.id.cmp(&b.id))
        .then_with(|| version::compare(&b.version, &a.version))
        .then_with(|| version::compare(&entry_id(b), &entry_id(a)))
        .then_with(|| match (a.counter, b.counter) {
            (Some(a), Some(b)) => b.left.cmp(&a.left).then(a.done.cmp(&b.done)),
            _ => Ordering::Equal,
        })
}

/// systemd-boot folds the case of a name without a counter only.
fn entry_id(entry: &BootEntry) -> String {
    match entry.counter {
        Some(_) => entry.name(),
        None => entry.file.to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ordered(files: &[&str]) -> Vec<String> {
        let mut entries: Vec<BootEntry> = files.iter().filter_map(|file| parse(file)).collect();
        order(&mut entries);
        let forward: Vec<String> = entries.iter().map(|entry| entry.file.clone()).collect();
        entries.reverse();
        order(&mut entries);
        let backward: Vec<String> = entries.into_iter().map(|entry| entry.file).collect();
        assert_eq!(forward, backward, "the order depends on the folder's");
        forward
    }

    #[test]
    fn names_are_taken_apart() {
        let entry = |file: &str| {
            let BootEntry { id, version, counter, .. } = parse(file)?;
            Some((id, version, counter.map(|Counter { left, done }| (left, done))))
        };
        let some = |id: &str, version: &str, counter| Some((id.to_owned(), version.to_owned(), counter));
        assert_eq!(entry("node_1.0.1+2-1.efi"), some("node", "1.0.1", Some((2, 1))));
        assert_eq!(entry("node_1.0.1+3.efi"), some("node", "1.0.1", Some((3, 0))));
        assert_eq!(entry("node_1.0.1+00-07.EFI"), some("node", "1.0.1", Some((0, 7))));
        assert_eq!(entry("edge_node_1.0.0~rc1.efi"), some("edge_node", "1.0.0~rc1", None));
        assert_eq!(entry("node_1.0-5-gabc+4-0.efi"), some("node", "1.0-5-gabc", Some((4, 0))));
        assert_eq!(entry("node_1+2147483647.efi"), some("node", "1", Some((COUNT_LIMIT, 0))));
        for none in [
            "node_1.0.1+.efi",
            "node_1.0.1+2-.efi",
            "node_1.0.1+2-1-1.efi",
            "node_1.0.1++2.efi.tmp",
            "node_1.0.1+x.efi",
            "node_1.0.1+-1.efi",
            "node_1+2147483648.efi",
            "node_1.0.1.tmp",
            "node.efi",
            "_1.efi",
            "node_.efi",
            ".node_1.efi",
            "AUTO-node_1.efi",
            ".efi",
            "€fi",
            "",
        ] {
            assert_eq!(parse(none), None, "{none}");
        }
    }

    #[test]
    fn names_are_put_together() {
        let entry = parse("node_1.0.1+2-1.efi").unwrap();
        assert_eq!(
            (entry.name().as_str(), entry.demoted().as_str()),
            ("node_1.0.1.efi", "node_1.0.1+0-1.efi")
        );
        assert_eq!(parse("node_1.0.1.efi").unwrap().demoted(), "node_1.0.1+0.efi");
        let tries = Counter { left: 3, done: 0 };
        assert_eq!(file_name("node", "1.1", Some(tries)), "node_1.1+3.efi");
    }

    #[test]
    fn the_newest_that_has_tries_boots() {
        assert_eq!(
            ordered(&["node_1.0.0.efi", "node_1.0.1+3.efi", "node_1.0.2+0-3.efi", "node_1.0.1~rc1.efi"]),
            ["node_1.0.1+3.efi", "node_1.0.1~rc1.efi", "node_1.0.0.efi", "node_1.0.2+0-3.efi"]
        );
        assert_eq!(ordered(&["node_1.9.efi", "node_1.10+1-2.efi"])[0], "node_1.10+1-2.efi");
    }

    #[test]
    fn when_all_are_used_up_the_newest_is_still_started() {
        assert_eq!(
            ordered(&["node_1.0.0+0.efi", "node_1.0.1+0-3.efi"]),
            ["node_1.0.1+0-3.efi", "node_1.0.0+0.efi"]
        );
    }

    #[test]
    fn ids_come_before_versions() {
        assert_eq!(
            ordered(&["web_9.efi", "node_1.efi", "node_2+0.efi"]),
            ["node_1.efi", "web_9.efi", "node_2+0.efi"]
        );
    }

    #[test]
    fn of_two_counters_more_left_then_fewer_done_comes_first() {
        assert_eq!(
            ordered(&["node_1+1-2.efi", "node_1+2-1.efi", "node_1+2.efi"]),
            ["node_1+2.efi", "node_1+2-1.efi", "node_1+1-2.efi"]
        );
    }
}
