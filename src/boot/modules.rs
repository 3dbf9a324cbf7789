//! The list of modules in an initramfs: one line each, in an order in which they can be loaded.
//!
//! ```text
//! dm_verity /modules/dm-verity.ko needs=dm_bufio,dm_mod always
//! virtio_blk /modules/virtio_blk.ko alias=virtio:d00000002v*
//! ```
//!
//! `needs=` names modules on earlier lines. `always` is loaded at once, the rest when a device asks for it
//! by a `modalias` that one of the `alias=` patterns matches. Aliases may hold any letter but blanks and
//! line ends, hence one word each.

use std::fmt;

/// Where the list lies in the initramfs.
pub const LIST: &str = "modules/list";

/// A module in the initramfs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Its name, normalised by [`normal`].
    pub name: String,
    /// Absolute path in the initramfs.
    pub path: String,
    /// Names of the modules that it needs, each on an earlier line.
    pub needs: Vec<String>,
    /// Loaded whether or not a device asks for it.
    pub always: bool,
    /// Patterns of the device identifiers that it drives.
    pub aliases: Vec<String>,
}

/// All modules in an initramfs, those that others need first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModuleList(pub Vec<Entry>);

/// A line that is not understood.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("line {line} of the module list: {what}: {text:?}")]
pub struct ParseListError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: &'static str,
    /// The line, or the part that is wrong.
    pub text: String,
}

/// A module's name as the kernel shows it: file names write `-` and `_` at will.
pub fn normal(name: &str) -> String {
    name.replace('-', "_")
}

impl ModuleList {
    /// Reads the text form.
    pub fn parse(text: &str) -> Result<Self, ParseListError> {
        let mut entries: Vec<Entry> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let error = |what, text: &str| ParseListError { line: index + 1, what, text: text.to_owned() };
            let mut words = line.split(' ');
            let (Some(name), Some(path)) = (words.next(), words.next()) else {
                return Err(error("expected a name and a path", line));
            };
            let mut entry = Entry { name: name.to_owned(), path: path.to_owned(), ..Entry::default() };
            for word in words {
                if word == "always" {
                    entry.always = true;
                } else if let Some(alias) = word.strip_prefix("alias=") {
                    entry.aliases.push(alias.to_owned());
                } else if let Some(needs) = word.strip_prefix("needs=") {
                    for need in needs.split(',') {
                        if !entries.iter().any(|earlier| earlier.name == need) {
                            return Err(error("it needs a module that no earlier line has", need));
                        }
                        entry.needs.push(need.to_owned());
                    }
                } else {
                    return Err(error("unknown word", word));
                }
            }
            entries.push(entry);
        }
        Ok(Self(entries))
    }

    /// The module of this name, in any spelling.
    pub fn get(&self, name: &str) -> Option<&Entry> {
        let name = normal(name);
        self.0.iter().find(|entry| entry.name == name)
    }
}

impl fmt::Display for ModuleList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for entry in &self.0 {
            write!(f, "{} {}", entry.name, entry.path)?;
            if !entry.needs.is_empty() {
                write!(f, " needs={}", entry.needs.join(","))?;
            }
            if entry.always {
                write!(f, " always")?;
            }
            for alias in &entry.aliases {
                write!(f, " alias={alias}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// Whether `text` matches `pattern` with `*`, `?` and `[...]`, as the kernel's module aliases use them.
pub fn matches(pattern: &str, text: &str) -> bool {
    glob(pattern.as_bytes(), text.as_bytes())
}

/// Goes back to the last `*` only: an earlier one could not do better.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        let step = match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, t));
                p += 1;
                continue;
            }
            Some(b'?') => Some(1),
            Some(b'[') => class(&pattern[p..], text[t]),
            Some(&letter) if letter == text[t] => Some(1),
            _ => None,
        };
        match (step, star) {
            (Some(width), _) => {
                p += width;
                t += 1;
            }
            (None, Some((after, from))) => {
                star = Some((after, from + 1));
                (p, t) = (after, from + 1);
            }
            (None, None) => return false,
        }
    }
    pattern[p..].iter().all(|b| *b == b'*')
}

/// The width of the class that `pattern` begins with if it has `letter` in it.
fn class(pattern: &[u8], letter: u8) -> Option<usize> {
    let end = pattern.iter().skip(2).position(|b| *b == b']')? + 2;
    let inside = &pattern[1..end];
    let mut at = 0;
    while at < inside.len() {
        let (low, high, width) = match inside[at..] {
            [low, b'-', high, ..] => (low, high, 3),
            _ => (inside[at], inside[at], 1),
        };
        if (low..=high).contains(&letter) {
            return Some(end + 1);
        }
        at += width;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form() {
        let list = ModuleList(vec![
            Entry {
                name: "dm_mod".into(),
                path: "/modules/dm-mod.ko".into(),
                always: true,
                ..Entry::default()
            },
            Entry {
                name: "dm_verity".into(),
                path: "/modules/dm-verity.ko".into(),
                needs: vec!["dm_mod".into()],
                always: false,
                aliases: vec!["pci:v0000*".into(), "of:N*T*Cx,y=1".into()],
            },
        ]);
        assert_eq!(ModuleList::parse(&list.to_string()).unwrap(), list);
        assert!(list.get("dm-verity").is_some() && list.get("dm").is_none());
        assert_eq!(ModuleList::parse("a /a needs=b").unwrap_err().text, "b");
        assert!(ModuleList::parse("a").is_err());
        assert!(ModuleList::parse("a /a sometimes").is_err());
    }

    #[test]
    fn aliases() {
        assert!(matches("virtio:d00000002v*", "virtio:d00000002v00001AF4"));
        assert!(!matches("virtio:d00000002v*", "virtio:d00000008v00001AF4"));
        assert!(matches(
            "pci:v*d*sv*sd*bc01sc06i01*",
            "pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01"
        ));
        assert!(matches("acpi*:VMBUS:*", "acpi:VMBUS:VMBUS:"));
        assert!(matches("usb:v*p*d0[0-9A]*", "usb:v1p2d0A7"));
        assert!(!matches("usb:v*p*d0[0-9]*", "usb:v1p2d0A7"));
        assert!(matches("scsi:t-0x00*", "scsi:t-0x00"));
        assert!(matches("*", "") && matches("", "") && !matches("?", "") && !matches("[a", "a"));
    }
}
