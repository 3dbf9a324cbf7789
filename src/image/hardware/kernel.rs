//! The drivers that an image has: its kernel's modules, where each lies, and what each asks for.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use anyhow::{Context, Result};

use super::list::Id;
use super::table::Pattern;
use crate::base::progress::Silent;
use crate::boot::initramfs::Carried;
use crate::boot::modprobe::Config;
use crate::boot::modules::normal;
use crate::image::firmware::{self, Left};
use crate::image::modprobe;
use crate::rootfs::modules::object::{self, Facts};
use crate::rootfs::modules::{self, FOLDER};
use crate::tree::{Kind, Tree};

/// A name of firmware that a module asks for, whether the root has it, and whether the initramfs has it.
type Asked = (String, bool, bool);

/// The kernel of a root.
pub(super) struct Kernel<'a> {
    tree: &'a Tree,
    /// In the order in which kmod finds them.
    aliases: Vec<(Pattern, String)>,
    /// Absolute, by name.
    paths: BTreeMap<String, String>,
    builtin: BTreeSet<String>,
    /// Module, `alias` or `firmware`, and value.
    builtin_facts: Vec<(String, String, String)>,
    config: Config,
    carried: Carried,
    read: RefCell<BTreeMap<String, Rc<Facts>>>,
    /// What was asked for of the firmware of modules: see [`Kernel::firmware`].
    firmware: RefCell<BTreeMap<String, Rc<[Asked]>>>,
    left: RefCell<Left>,
}

impl<'a> Kernel<'a> {
    /// The kernel `release` of `tree`, whose initramfs has what is `carried`.
    ///
    /// # Errors
    /// Indexes that cannot be read.
    pub(super) fn read(tree: &'a Tree, release: &str, carried: Carried) -> Result<Self> {
        let read = |name: &str| -> Result<String> {
            let path = format!("{FOLDER}/{release}/{name}");
            let bytes = tree.read_if_there(&path).with_context(|| format!("reading /{path}"))?;
            Ok(String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned())
        };
        let paths = modules::paths(tree);
        let builtin_facts: Vec<_> = read("modules.builtin.modinfo")?
            .split('\0')
            .filter_map(|line| {
                let (module, rest) = line.split_once('.')?;
                let (key, value) = rest.split_once('=')?;
                let wanted = matches!(key, "alias" | "firmware");
                wanted.then(|| (normal(module), key.to_owned(), value.to_owned()))
            })
            .collect();
        let config = modprobe::read(tree, &Silent)?;
        let mut aliases: Vec<(Pattern, String)> = Vec::new();
        let mut add = |alias: &str, module: &str| {
            aliases.extend(Pattern::of(alias).map(|pattern| (pattern, normal(module))));
        };
        config.aliases.iter().for_each(|(alias, module)| add(alias, module));
        for line in read("modules.alias")?.lines() {
            let mut words = line.split(' ');
            if let (Some("alias"), Some(alias), Some(module)) = (words.next(), words.next(), words.next()) {
                add(alias, module);
            }
        }
        let builtin = builtin_facts.iter().filter(|(_, key, _)| key == "alias");
        builtin.for_each(|(module, _, alias)| add(alias, module));
        let file = |line: &str| normal(line.rsplit('/').next()?.split('.').next()?).into();
        let builtin = read("modules.builtin")?.lines().filter_map(file).collect();
        let (read, firmware, left) = Default::default();
        Ok(Self { tree, aliases, paths, builtin, builtin_facts, config, carried, read, firmware, left })
    }

    /// Whether the root or the kernel itself has the module.
    pub(super) fn has(&self, module: &str) -> bool {
        self.paths.contains_key(module) || self.builtin.contains(module)
    }

    pub(super) fn is_builtin(&self, module: &str) -> bool {
        self.builtin.contains(module)
    }

    /// Whether the initramfs has the module.
    pub(super) fn is_early(&self, module: &str) -> bool {
        self.carried.modules.get(module).is_some()
    }

    /// The modules that a device's identifier loads, each once, and those of them that modprobe.d keeps out.
    pub(super) fn drivers(&self, id: &Id) -> (Vec<&str>, Vec<&str>) {
        let mut found: Vec<&str> = Vec::new();
        for (_, module) in self.aliases.iter().filter(|(pattern, _)| pattern.fits(id)) {
            if self.has(module) && !found.contains(&module.as_str()) {
                found.push(module);
            }
        }
        let is_out = |module: &str| {
            let install = self.config.install(module);
            !self.is_builtin(module)
                && (self.config.keeps_out(module).is_some() || install.is_some_and(|one| one.does_nothing()))
        };
        found.into_iter().partition(|module| !is_out(module))
    }

    /// All that `module` cannot be loaded without, itself included, whether or not it is there.
    pub(super) fn needs(&self, module: &str) -> Result<Vec<String>> {
        let mut found = vec![module.to_owned()];
        let mut at = 0;
        while let Some(name) = found.get(at).cloned() {
            at += 1;
            for need in &self.facts(&name)?.depends {
                if !found.contains(need) {
                    found.push(need.clone());
                }
            }
        }
        Ok(found)
    }

    /// The firmware that `module` names.
    pub(super) fn firmware(&self, module: &str) -> Result<Rc<[Asked]>> {
        // Many devices have the same driver.
        if let Some(seen) = self.firmware.borrow().get(module) {
            return Ok(seen.clone());
        }
        let declared: Vec<String> = if self.is_builtin(module) {
            let of = self.builtin_facts.iter().filter(|(name, key, _)| name == module && key == "firmware");
            of.map(|(_, _, value)| value.clone()).collect()
        } else {
            self.facts(module)?.firmware.clone()
        };
        let found = firmware::of(self.tree, &declared, &mut self.left.borrow_mut())?.into_iter();
        let seen: Rc<[_]> = found
            .map(|one| {
                let early = self.carried.firmware.contains(&one.name);
                (one.name, one.body.is_some(), early)
            })
            .collect();
        self.firmware.borrow_mut().insert(module.to_owned(), seen.clone());
        Ok(seen)
    }

    /// What the file of `module` says; nothing of what is built in or not there.
    fn facts(&self, module: &str) -> Result<Rc<Facts>> {
        if let Some(facts) = self.read.borrow().get(module) {
            return Ok(facts.clone());
        }
        let facts = match self.paths.get(module) {
            Some(path) if !self.is_builtin(module) => {
                let id = self.tree.resolve(path.trim_start_matches('/'));
                let Ok(Kind::File(content)) = id.map(|id| &self.tree.node(id).kind) else {
                    anyhow::bail!("{path} is not a file");
                };
                object::read(path, content)
                    .map_err(anyhow::Error::msg)
                    .with_context(|| format!("reading {path}"))?
                    .0
            }
            _ => Facts::default(),
        };
        let facts = Rc::new(facts);
        self.read.borrow_mut().insert(module.to_owned(), facts.clone());
        Ok(facts)
    }
}
