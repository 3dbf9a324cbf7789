//! The list of modules in an initramfs: one line each, in an order in which they can be loaded.
//!
//! ```text
//! dm_verity /modules/dm-verity.ko needs=dm_bufio,dm_mod before=sha256_ssse3 always
//! nvme /modules/nvme.ko needs=nvme_core listed alias=pci:v*d*sv*sd*bc01sc08i02*
//! virtio_blk /modules/virtio_blk.ko alias=virtio:d00000002v*
//! ```
//!
//! `needs=` names modules on earlier lines that it cannot do without; `before=` those that are loaded before
//! it and `after=` those that are loaded after it, whether or not they can be. `always` is loaded at once,
//! and so is `listed` unless a blacklist names it; the rest when a device asks for it by a `modalias` that
//! one of the `alias=` patterns matches. Aliases may hold any letter but blanks and line ends, hence one word
//! each. The parameters stand beside it, in [`modprobe`](super::modprobe).

use std::collections::BTreeSet;
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
    /// Names of modules to load before it, each on an earlier line.
    pub before: Vec<String>,
    /// Names of modules to load after it.
    pub after: Vec<String>,
    /// Whether a device must ask for it.
    pub when: When,
    /// Patterns of the device identifiers that it drives.
    pub aliases: Vec<String>,
}

/// What a module waits for before it is loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum When {
    /// A device, or another module that needs it.
    #[default]
    Asked,
    /// Nothing, but a blacklist keeps it out: the manifest lists it.
    Listed,
    /// Nothing: there is no boot without it.
    Always,
}

/// One module on the way to another.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// The module.
    pub entry: &'a Entry,
    /// Whether the way ends here if it cannot be loaded.
    pub required: bool,
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
                let names = |names: &str| names.split(',').map(str::to_owned).collect::<Vec<_>>();
                match word.split_once('=') {
                    None if word == "always" => entry.when = When::Always,
                    None if word == "listed" => entry.when = When::Listed,
                    Some(("alias", alias)) => entry.aliases.push(alias.to_owned()),
                    Some(("needs", needs)) => entry.needs = names(needs),
                    Some(("before", others)) => entry.before = names(others),
                    Some(("after", others)) => entry.after = names(others),
                    _ => return Err(error("unknown word", word)),
                }
            }
            for need in entry.needs.iter().chain(&entry.before) {
                if !entries.iter().any(|earlier| earlier.name == *need) {
                    return Err(error("it needs a module that no earlier line has", need));
                }
            }
            entries.push(entry);
        }
        Ok(Self(entries))
    }

    /// The modules to load for `name`, in order: what it needs, what it wants before, itself, what it wants
    /// after; empty if there is none of this name. The order is that of modprobe.
    pub fn steps(&self, name: &str) -> Vec<Step<'_>> {
        let mut steps = Vec::new();
        self.walk(name, true, &mut BTreeSet::new(), &mut steps);
        steps
    }

    fn walk<'a>(
        &'a self,
        name: &str,
        required: bool,
        seen: &mut BTreeSet<&'a str>,
        steps: &mut Vec<Step<'a>>,
    ) {
        let Some(entry) = self.get(name) else { return };
        if !seen.insert(&entry.name) {
            return;
        }
        for need in &entry.needs {
            self.walk(need, required, seen, steps);
        }
        for other in &entry.before {
            self.walk(other, false, seen, steps);
        }
        steps.push(Step { entry, required });
        for other in &entry.after {
            self.walk(other, false, seen, steps);
        }
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
            let lists = [("needs", &entry.needs), ("before", &entry.before), ("after", &entry.after)];
            for (word, names) in lists.into_iter().filter(|(_, names)| !names.is_empty()) {
                write!(f, " {word}={}", names.join(","))?;
            }
            match entry.when {
                When::Always => write!(f, " always")?,
                When::Listed => write!(f, " listed")?,
                When::Asked => {}
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
                when: When::Always,
                ..Entry::default()
            },
            Entry {
                name: "dm_verity".into(),
                path: "/modules/dm-verity.ko".into(),
                needs: vec!["dm_mod".into()],
                before: vec!["dm_mod".into()],
                after: vec!["late".into()],
                when: When::Listed,
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
    fn steps_go_each_way_once() {
        let text = "mod /m\nbufio /b needs=mod\nfast /f after=verity\n\
                    verity /v needs=mod,bufio before=fast after=late,mod\nlate /l needs=bufio before=verity\n";
        let list = ModuleList::parse(text).unwrap();
        let steps = |name: &str| -> Vec<(String, bool)> {
            list.steps(name).iter().map(|step| (step.entry.name.clone(), step.required)).collect()
        };
        let pairs = |pairs: &[(&str, bool)]| -> Vec<(String, bool)> {
            pairs.iter().map(|(name, required)| ((*name).to_owned(), *required)).collect()
        };
        assert_eq!(
            steps("verity"),
            pairs(&[("mod", true), ("bufio", true), ("fast", false), ("verity", true), ("late", false)])
        );
        assert_eq!(steps("none"), []);
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
