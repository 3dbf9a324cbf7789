//! Long names, and the short ones that each needs beside it. Source: FATGEN, "FAT Long Directory Entries".

use std::collections::{BTreeMap, BTreeSet};

use super::FatError;

/// An 8.3 name as a record keeps it: padded with spaces, without the dot.
pub(super) type Short = [u8; 11];

/// UTF-16 code units in a long name.
const LONG_LIMIT: usize = 255;

/// A name as it will stand in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name {
    /// Unique in the folder.
    pub short: Short,
    /// UTF-16 code units; empty when the short name says it all.
    pub long: Vec<u16>,
}

/// Names for the children of one folder, in their order. `folder` is its path, for errors.
///
/// # Errors
/// `Name`, `Clash`.
pub(super) fn names<'a>(
    folder: &str,
    children: impl Iterator<Item = &'a [u8]>,
) -> Result<Vec<(String, Name)>, FatError> {
    let mut taken: BTreeSet<Short> = BTreeSet::new();
    let mut folded: BTreeMap<String, String> = BTreeMap::new();
    let mut checked = Vec::new();
    for bytes in children {
        let path = format!("{folder}/{}", String::from_utf8_lossy(bytes));
        let text = check(bytes).map_err(|problem| FatError::Name { path: path.clone(), problem })?;
        if let Some(first) = folded.insert(text.to_lowercase(), path.clone()) {
            return Err(FatError::Clash { first, second: path });
        }
        // Names that are 8.3 but for their case keep that as their short name; since long names differ in
        // more than case, no two want the same, and the made-up ones below go around them.
        let plain = plain(&text.to_ascii_uppercase());
        taken.extend(plain);
        checked.push((path, text, plain));
    }
    let mut next_tail: BTreeMap<Short, u32> = BTreeMap::new();
    let mut name = |(path, text, plain): (String, &str, Option<Short>)| {
        let long = long(text, plain.is_some());
        let short = plain.unwrap_or_else(|| {
            let tail = next_tail.entry(with_tail(text, 0)).or_insert(1);
            loop {
                let short = with_tail(text, *tail);
                *tail += 1;
                if taken.insert(short) {
                    return short;
                }
            }
        });
        (path, Name { short, long })
    };
    Ok(checked.into_iter().map(&mut name).collect())
}

/// A name for one more entry of a folder in which the short names `taken` are there already.
///
/// # Errors
/// What is wrong with it.
pub(super) fn one_more(text: &str, taken: &BTreeSet<Short>) -> Result<Name, &'static str> {
    check(text.as_bytes())?;
    let plain = plain(&text.to_ascii_uppercase()).filter(|short| !taken.contains(short));
    let made_up = || (1..).map(|tail| with_tail(text, tail)).find(|short| !taken.contains(short));
    let short = plain.or_else(made_up).expect("a folder has fewer entries than there are tails");
    Ok(Name { short, long: long(text, plain.is_some()) })
}

/// The long name, unless the short one says it all.
fn long(text: &str, is_plain: bool) -> Vec<u16> {
    match is_plain && !text.bytes().any(|byte| byte.is_ascii_lowercase()) {
        true => Vec::new(),
        false => text.encode_utf16().collect(),
    }
}

fn check(bytes: &[u8]) -> Result<&str, &'static str> {
    let text = str::from_utf8(bytes).map_err(|_| "is not UTF-8")?;
    if text.encode_utf16().count() > LONG_LIMIT {
        return Err("has more than 255 characters");
    }
    if text.chars().any(|c| c.is_control() || "\"*/:<>?\\|".contains(c)) {
        return Err("has one of \" * / : < > ? \\ | or a control character");
    }
    match text.as_bytes().last() {
        Some(b'.') => Err("ends with a dot"),
        Some(b' ') => Err("ends with a space"),
        Some(_) => Ok(text),
        None => Err("is empty"),
    }
}

fn is_short_character(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte.is_ascii_digit() || b"!#$%&'()-@^_`{}~".contains(&byte)
}

/// The 8.3 form of a name that has one.
fn plain(upper: &str) -> Option<Short> {
    let (base, extension) = upper.split_once('.').unwrap_or((upper, ""));
    if base.is_empty() || base.len() > 8 || extension.len() > 3 || upper.ends_with('.') {
        return None;
    }
    let valid = base.bytes().chain(extension.bytes()).all(is_short_character);
    valid.then(|| padded(base.as_bytes(), extension.as_bytes()))
}

fn padded(base: &[u8], extension: &[u8]) -> Short {
    let mut short = [b' '; 11];
    short[..base.len()].copy_from_slice(base);
    short[8..8 + extension.len()].copy_from_slice(extension);
    short
}

/// `NODE_1~2.EFI` out of `node_1.0.0+3.efi` and 2. The tail 0 stands for the name before tails.
fn with_tail(text: &str, tail: u32) -> Short {
    let trimmed = text.trim_start_matches('.');
    let (base, extension) = trimmed.rsplit_once('.').unwrap_or((trimmed, ""));
    let fold = |part: &str, limit: usize| -> Vec<u8> {
        part.chars()
            .filter(|c| !matches!(c, '.' | ' '))
            .map(|c| c.to_ascii_uppercase())
            .map(|c| u8::try_from(c).ok().filter(|byte| is_short_character(*byte)).unwrap_or(b'_'))
            .take(limit)
            .collect()
    };
    let tail = format!("~{tail}");
    let mut base = fold(base, 8 - tail.len());
    base.extend_from_slice(tail.as_bytes());
    padded(&base, &fold(extension, 3))
}

/// The sum by which a long name's records are tied to their short one.
pub(super) fn checksum(short: &Short) -> u8 {
    short.iter().fold(0, |sum: u8, byte| sum.rotate_right(1).wrapping_add(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shorts(children: &[&str]) -> Vec<String> {
        names("", children.iter().map(|name| name.as_bytes()))
            .unwrap()
            .into_iter()
            .map(|(_, name)| {
                let text = String::from_utf8_lossy(&name.short).into_owned();
                format!("{text}{}", if name.long.is_empty() { "" } else { " +" })
            })
            .collect()
    }

    #[test]
    fn short_names_are_unique_and_fixed() {
        assert_eq!(
            shorts(&[
                "BOOTX64.EFI",
                "bootx64.cfg",
                "node_1.0.0+3.efi",
                "node_1.1.0.efi",
                "node_1~1.efi",
                ".x.é",
                "A B"
            ]),
            [
                "BOOTX64 EFI",
                "BOOTX64 CFG +",
                "NODE_1~2EFI +",
                "NODE_1~3EFI +",
                "NODE_1~1EFI +",
                "X~1     _   +",
                "AB~1        +"
            ]
        );
        let many: Vec<String> = (0..1200).map(|index| format!("some long name {index}.txt")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let mut all = shorts(&many);
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 1200);
    }

    #[test]
    fn names_that_fat_does_not_have() {
        for bad in ["a:b", "x.", "x ", "a\nb", &"é".repeat(256)] {
            assert!(matches!(names("", [bad.as_bytes()].into_iter()), Err(FatError::Name { .. })), "{bad}");
        }
        assert!(names("", [b"\xff".as_slice()].into_iter()).is_err());
        let error = names("EFI", [b"Boot".as_slice(), b"boot"].into_iter()).unwrap_err().to_string();
        assert_eq!(error, "EFI/Boot and EFI/boot have the same name on FAT, which ignores case");
    }
}
