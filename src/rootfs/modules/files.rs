//! The texts and binary indexes that depmod would write, each as bytes.

use super::trie::Trie;
use super::{Module, ModuleIndex};

impl ModuleIndex {
    /// Every index file by name. The texts hold what depmod's hold, in its order; only `modules.symbols`
    /// is by name here, while depmod leaves it in the order of its hash table.
    pub fn files(&self) -> Vec<(&'static str, Vec<u8>)> {
        vec![
            ("modules.dep", self.dependencies()),
            ("modules.dep.bin", self.dependency_index()),
            ("modules.alias", self.aliases()),
            ("modules.alias.bin", self.alias_index()),
            ("modules.softdep", self.listed("Soft", "softdep", |module| &module.facts.softdeps)),
            ("modules.weakdep", self.listed("Weak", "weakdep", |module| &module.facts.weakdeps)),
            ("modules.symbols", self.symbols()),
            ("modules.symbols.bin", self.symbol_index()),
            ("modules.builtin.bin", self.builtin_index()),
            ("modules.builtin.alias.bin", self.builtin_alias_index()),
            ("modules.devname", self.device_names()),
        ]
    }

    fn dependency_line(&self, module: &Module) -> String {
        let mut line = format!("{}:", module.path);
        for needed in &module.depends {
            line.push(' ');
            line.push_str(&self.modules[*needed].path);
        }
        line
    }

    fn dependencies(&self) -> Vec<u8> {
        let lines = self.modules.iter().map(|module| self.dependency_line(module) + "\n");
        lines.collect::<String>().into_bytes()
    }

    fn dependency_index(&self) -> Vec<u8> {
        let mut trie = Trie::new();
        for (module, priority) in self.modules.iter().zip(0..) {
            trie.insert(module.name.as_bytes(), self.dependency_line(module).as_bytes(), priority);
        }
        trie.to_bytes()
    }

    fn aliases(&self) -> Vec<u8> {
        let mut text = "# Aliases extracted from modules themselves.\n".to_owned();
        for module in &self.modules {
            for alias in &module.facts.aliases {
                text += &format!("alias {alias} {}\n", module.name);
            }
        }
        text.into_bytes()
    }

    fn alias_index(&self) -> Vec<u8> {
        let mut trie = Trie::new();
        for (module, priority) in self.modules.iter().zip(0..) {
            for alias in module.facts.aliases.iter().filter_map(|alias| normalized(alias)) {
                trie.insert(&alias, module.name.as_bytes(), priority);
            }
        }
        trie.to_bytes()
    }

    fn listed(&self, kind: &str, word: &str, values: impl Fn(&Module) -> &Vec<String>) -> Vec<u8> {
        let mut text = format!("# {kind} dependencies extracted from modules themselves.\n");
        for module in &self.modules {
            for value in values(module) {
                text += &format!("{word} {} {value}\n", module.name);
            }
        }
        text.into_bytes()
    }

    fn symbols(&self) -> Vec<u8> {
        let mut text = "# Aliases for symbols, used by symbol_request().\n".to_owned();
        for (symbol, owner) in self.exporters() {
            text += &format!("alias symbol:{symbol} {}\n", self.modules[owner].name);
        }
        text.into_bytes()
    }

    fn symbol_index(&self) -> Vec<u8> {
        let mut trie = Trie::new();
        for (symbol, owner) in self.exporters() {
            let key = format!("symbol:{symbol}");
            trie.insert(
                key.as_bytes(),
                self.modules[owner].name.as_bytes(),
                u32::try_from(owner).expect("limits::MODULES is less"),
            );
        }
        trie.to_bytes()
    }

    fn builtin_index(&self) -> Vec<u8> {
        let mut trie = Trie::new();
        for name in &self.builtin_order {
            trie.insert(name.as_bytes(), b"", 0);
        }
        trie.to_bytes()
    }

    fn builtin_alias_index(&self) -> Vec<u8> {
        let mut trie = Trie::new();
        for (module, alias) in &self.builtin_aliases {
            if let Some(alias) = normalized(alias) {
                trie.insert(&alias, module.as_bytes(), 0);
            }
        }
        trie.to_bytes()
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
    use super::*;

    #[test]
    fn alias_forms() {
        assert_eq!(normalized("char-major-10-[2-3]*").unwrap(), b"char_major_10_[2-3]*");
        assert!(normalized("a[b").is_none() && normalized("a]b").is_none());
        let aliases = ["char-major-10-*", "devname:net/tun", "char-major-10-200"].map(str::to_owned);
        assert_eq!(device_of(&aliases), Some(("net/tun", 'c', 10, 200)));
    }
}
