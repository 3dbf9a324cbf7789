//! The texts and binary indexes that depmod would write, each as bytes.

use super::trie::{TooLarge, Trie};
use super::{Module, ModuleIndex};
use crate::base::{Size, limits};
use crate::rootfs::Error;

/// Room for all index files of one kernel.
struct Room(usize);

impl Room {
    fn take(&mut self, bytes: usize) -> Result<(), TooLarge> {
        self.0 = self.0.checked_sub(bytes).ok_or(TooLarge)?;
        Ok(())
    }

    /// `begin` and the lines.
    fn text(&mut self, begin: &str, lines: impl Iterator<Item = String>) -> Result<Vec<u8>, TooLarge> {
        let mut text = begin.to_owned();
        for line in lines {
            self.take(line.len())?;
            text += &line;
        }
        Ok(text.into_bytes())
    }

    fn index(&mut self, trie: Trie<'_>) -> Result<Vec<u8>, TooLarge> {
        let bytes = trie.into_bytes(self.0)?;
        self.take(bytes.len())?;
        Ok(bytes)
    }
}

impl ModuleIndex {
    /// Every index file by name. The texts hold what depmod's hold, in its order; only `modules.symbols`
    /// is by name here, while depmod leaves it in the order of its hash table.
    ///
    /// # Errors
    /// `LargeIndexes`.
    pub fn files(&self) -> Result<Vec<(&'static str, Vec<u8>)>, Error> {
        self.files_within(&mut Room(limits::MODULE_INDEXES)).map_err(|TooLarge| Error::LargeIndexes {
            kernel: self.kernel.clone(),
            limit: Size(limits::MODULE_INDEXES as u64),
        })
    }

    fn files_within(&self, room: &mut Room) -> Result<Vec<(&'static str, Vec<u8>)>, TooLarge> {
        let [dependencies, dependency_index] = self.dependencies(room)?;
        Ok(vec![
            ("modules.dep", dependencies),
            ("modules.dep.bin", dependency_index),
            ("modules.alias", self.aliases(room)?),
            ("modules.alias.bin", self.alias_index(room)?),
            ("modules.softdep", self.listed(room, "Soft", "softdep", |module| &module.facts.softdeps)?),
            ("modules.weakdep", self.listed(room, "Weak", "weakdep", |module| &module.facts.weakdeps)?),
            ("modules.symbols", self.symbols(room)?),
            ("modules.symbols.bin", self.symbol_index(room)?),
            ("modules.builtin.bin", self.builtin_index(room)?),
            ("modules.builtin.alias.bin", self.builtin_alias_index(room)?),
            ("modules.devname", self.device_names()),
        ])
    }

    fn dependency_line(&self, module: &Module) -> String {
        let mut line = format!("{}:", module.path);
        for needed in &module.depends {
            line.push(' ');
            line.push_str(&self.modules[*needed].path);
        }
        line
    }

    /// `modules.dep` and `modules.dep.bin`.
    fn dependencies(&self, room: &mut Room) -> Result<[Vec<u8>; 2], TooLarge> {
        let lines: Vec<String> = self.modules.iter().map(|module| self.dependency_line(module)).collect();
        let text = room.text("", lines.iter().map(|line| format!("{line}\n")))?;
        let mut trie = Trie::new();
        for ((module, line), priority) in self.modules.iter().zip(&lines).zip(0..) {
            trie.insert(module.name.as_bytes(), line.as_bytes(), priority);
        }
        let index = room.index(trie)?;
        Ok([text, index])
    }

    fn aliases(&self, room: &mut Room) -> Result<Vec<u8>, TooLarge> {
        let lines = self.modules.iter().flat_map(|module| {
            module.facts.aliases.iter().map(|alias| format!("alias {alias} {}\n", module.name))
        });
        room.text("# Aliases extracted from modules themselves.\n", lines)
    }

    fn alias_index(&self, room: &mut Room) -> Result<Vec<u8>, TooLarge> {
        let mut trie = Trie::new();
        for (module, priority) in self.modules.iter().zip(0..) {
            for alias in module.facts.aliases.iter().filter_map(|alias| normalized(alias)) {
                trie.insert(&alias, module.name.as_bytes(), priority);
            }
        }
        room.index(trie)
    }

    fn listed(
        &self,
        room: &mut Room,
        kind: &str,
        word: &str,
        values: impl Fn(&Module) -> &Vec<String>,
    ) -> Result<Vec<u8>, TooLarge> {
        let lines = self.modules.iter().flat_map(|module| {
            values(module).iter().map(move |value| format!("{word} {} {value}\n", module.name))
        });
        room.text(&format!("# {kind} dependencies extracted from modules themselves.\n"), lines)
    }

    fn symbols(&self, room: &mut Room) -> Result<Vec<u8>, TooLarge> {
        let lines = self.exporters().into_iter();
        let lines =
            lines.map(|(symbol, owner)| format!("alias symbol:{symbol} {}\n", self.modules[owner].name));
        room.text("# Aliases for symbols, used by symbol_request().\n", lines)
    }

    fn symbol_index(&self, room: &mut Room) -> Result<Vec<u8>, TooLarge> {
        let mut trie = Trie::new();
        for (symbol, owner) in self.exporters() {
            let key = format!("symbol:{symbol}");
            trie.insert(
                key.as_bytes(),
                self.modules[owner].name.as_bytes(),
                u32::try_from(owner).expect("limits::MODULES is less"),
            );
        }
        room.index(trie)
    }

    fn builtin_index(&self, room: &mut Room) -> Result<Vec<u8>, TooLarge> {
        let mut trie = Trie::new();
        for name in &self.builtin_order {
            trie.insert(name.as_bytes(), b"", 0);
        }
        room.index(trie)
    }

    fn builtin_alias_index(&self, room: &mut Room) -> Result<Vec<u8>, TooLarge> {
        let mut trie = Trie::new();
        for (module, alias) in &self.builtin_aliases {
            if let Some(alias) = normalized(alias) {
                trie.insert(&alias, module.as_bytes(), 0);
            }
        }
        room.index(trie)
    }

    /// Device nodes that exist before their module is loaded: systemd's kmod-static-nodes makes them.
    fn device_names(&self) -> Vec<u8> {
        let mut text = String::new();
        for module in &self.modules {
            let Some((name, letter, major, minor)) = device_of(&module.facts.aliases) else { continue };
            if text.is_empty() {
                text += "# Device nodes to trigger on-demand module loading.\n";
            }
            text += &format!("{} {name} {letter}{major}:{minor}\n", module.name);
        }
        text.into_bytes()
    }
}

/// `-` as `_`, except within brackets; nothing when brackets do not match.
fn normalized(alias: &str) -> Option<Vec<u8>> {
    let mut inside = false;
    let mut out = Vec::with_capacity(alias.len());
    for byte in alias.bytes() {
        match byte {
            b'[' => inside = true,
            b']' if inside => inside = false,
            b']' => return None,
            _ => {}
        }
        out.push(if byte == b'-' && !inside { b'_' } else { byte });
    }
    (!inside).then_some(out)
}

fn device_of(aliases: &[String]) -> Option<(&str, char, u32, u32)> {
    let mut name = None;
    let mut number = None;
    for alias in aliases {
        if let Some(device) = alias.strip_prefix("devname:") {
            name = Some(device);
        } else if let Some(numbers) = alias.strip_prefix("char-major-") {
            number = major_minor(numbers).map(|(major, minor)| ('c', major, minor)).or(number);
        } else if let Some(numbers) = alias.strip_prefix("block-major-") {
            number = major_minor(numbers).map(|(major, minor)| ('b', major, minor)).or(number);
        }
        if let (Some(name), Some((letter, major, minor))) = (name, number) {
            return Some((name, letter, major, minor));
        }
    }
    None
}

fn major_minor(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('-')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::rootfs::modules::object::Facts;

    #[test]
    fn alias_forms() {
        assert_eq!(normalized("char-major-10-[2-3]*").unwrap(), b"char_major_10_[2-3]*");
        assert!(normalized("a[b").is_none() && normalized("a]b").is_none());
        let aliases = ["char-major-10-*", "devname:net/tun", "char-major-10-200"].map(str::to_owned);
        assert_eq!(device_of(&aliases), Some(("net/tun", 'c', 10, 200)));
    }

    #[test]
    fn all_files_share_their_room() {
        let module = |name: &str| Module {
            name: name.to_owned(),
            path: format!("kernel/{name}.ko"),
            facts: Facts { aliases: vec!["pci:*".to_owned(); 10], ..Facts::default() },
            depends: vec![0; 10],
        };
        let index = ModuleIndex {
            kernel: "6.12".to_owned(),
            modules: ["a", "b"].map(module).into(),
            builtin: BTreeSet::new(),
            by_name: BTreeMap::new(),
            builtin_order: Vec::new(),
            builtin_aliases: Vec::new(),
        };
        // Beginnings that are the same in all are not counted.
        let size: usize =
            index.files_within(&mut Room(1 << 20)).unwrap().iter().map(|(_, bytes)| bytes.len()).sum();
        let mut room = Room(size);
        index.files_within(&mut room).unwrap();
        assert!(index.files_within(&mut Room(size - room.0)).is_ok());
        assert_eq!(index.files_within(&mut Room(size - room.0 - 1)).unwrap_err(), TooLarge);
    }
}
