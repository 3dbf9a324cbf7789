//! Kernel modules of a tree: what each needs and answers to, and the index files that `depmod` would make.
//!
//! The result is a function of the kernel's folder in the tree alone.

pub mod files;
mod memory;
pub mod object;
pub mod trie;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use rayon::prelude::*;

use self::object::Facts;
use super::error::Error;
use crate::base::near::near_or_part;
use crate::base::{Size, limits};
use crate::boot::modprobe::normal_alias;
use crate::boot::modules::matches;
use crate::store::Store;
use crate::tree::{Content, Kind, NodeId, Tree, show};

pub use memory::KIND;

/// Where kernels keep their modules.
pub const FOLDER: &str = "usr/lib/modules";

/// The modules of one kernel.
#[derive(Debug)]
pub struct ModuleIndex {
    /// The kernel's release, e.g. `6.12.107+deb13-cloud-amd64`.
    pub kernel: String,
    /// In the order of `modules.order`, then by path.
    pub modules: Vec<Module>,
    /// Names of what would be a module, but is built into the kernel.
    pub builtin: BTreeSet<String>,
    by_name: BTreeMap<String, usize>,
    /// Lines of `modules.builtin`, in order.
    builtin_order: Vec<String>,
    /// Module name and alias from `modules.builtin.modinfo`, in order.
    builtin_aliases: Vec<(String, String)>,
}

/// One module.
#[derive(Debug)]
pub struct Module {
    /// With `_`, never `-`.
    pub name: String,
    /// Relative to the kernel's folder: `kernel/fs/erofs/erofs.ko.xz`.
    pub path: String,
    /// From its file.
    pub facts: Facts,
    /// Indexes of all modules that must be loaded before, directly or not; the one to load first is last,
    /// as in modules.dep.
    pub depends: Vec<usize>,
}

impl Module {
    /// Names of modules to load before this one if they are there, without being needed.
    pub fn soft_before(&self) -> impl Iterator<Item = &str> {
        self.soft("pre:")
    }

    /// Names of modules to load after this one if they are there.
    pub fn soft_after(&self) -> impl Iterator<Item = &str> {
        self.soft("post:")
    }

    fn soft(&self, place: &'static str) -> impl Iterator<Item = &str> {
        self.facts.softdeps.iter().flat_map(move |line| {
            let mut here = false;
            line.split_whitespace().filter(move |word| {
                match *word {
                    "pre:" | "post:" => here = *word == place,
                    _ => return here,
                }
                false
            })
        })
    }
}

/// Releases of the kernels in the tree.
pub fn kernels(tree: &Tree) -> Vec<String> {
    let Ok(folder) = tree.resolve(FOLDER) else { return Vec::new() };
    let is_folder = |id: NodeId| matches!(tree.node(id).kind, Kind::Directory(_));
    tree.children(folder).filter(|(_, id)| is_folder(*id)).map(|(name, _)| show(name)).collect()
}

/// The paths of all modules in the tree by name, without reading them.
pub fn paths(tree: &Tree) -> BTreeMap<String, String> {
    let mut paths = BTreeMap::new();
    for kernel in kernels(tree) {
        let mut found = Vec::new();
        if let Ok(folder) = tree.resolve(format!("{FOLDER}/{kernel}")) {
            collect(tree, folder, "", &mut found);
        }
        paths.extend(
            found.into_iter().map(|(path, _)| (name_of(&path), format!("/{FOLDER}/{kernel}/{path}"))),
        );
    }
    paths
}

impl ModuleIndex {
    /// Reads every module of `kernel` in the tree, in parallel. What a `store` remembers of these very files
    /// is not read again.
    ///
    /// # Errors
    /// A module that is no ELF file or cannot be unpacked; modules that need each other.
    pub fn read(tree: &Tree, kernel: &str, store: Option<&Store>) -> Result<Self, Error> {
        let folder = format!("{FOLDER}/{kernel}");
        let mut found = Vec::new();
        collect(tree, tree.resolve(&folder)?, "", &mut found);
        let order = lines(tree, &format!("{folder}/modules.order"))?;
        let mut rank: BTreeMap<&str, usize> = BTreeMap::new();
        for (place, line) in order.iter().enumerate() {
            rank.entry(line).or_insert(place);
        }
        found.sort_by_cached_key(|(path, _)| {
            let plain = path.rfind(".ko").map_or(path.as_str(), |dot| &path[..dot + 3]);
            (rank.get(plain).copied().unwrap_or(usize::MAX), path.clone())
        });

        if found.len() > limits::MODULES {
            return Err(Error::ManyModules { kernel: kernel.to_owned(), limit: limits::MODULES });
        }
        let modules: Vec<(&str, &Content)> = found
            .iter()
            .map(|(path, id)| match &tree.node(*id).kind {
                Kind::File(content) => (path.as_str(), content),
                _ => unreachable!("only files are collected"),
            })
            .collect();
        let sum = AtomicU64::new(0);
        modules
            .iter()
            .try_for_each(|(path, content)| count(&sum, content.len(), || format!("/{folder}/{path}")))?;
        let facts = match store {
            Some(store) => memory::facts(store, &folder, &modules)?,
            None => read_facts(&folder, &modules)?,
        };

        let modules: Vec<Module> = found
            .into_iter()
            .zip(facts)
            .map(|((path, _), facts)| Module { name: name_of(&path), path, facts, depends: Vec::new() })
            .collect();
        let builtin_order: Vec<String> =
            lines(tree, &format!("{folder}/modules.builtin"))?.iter().map(|line| name_of(line)).collect();
        let mut index = Self {
            kernel: kernel.to_owned(),
            by_name: modules.iter().map(|module| module.name.clone()).zip(0..).collect(),
            modules,
            builtin: builtin_order.iter().cloned().collect(),
            builtin_order,
            builtin_aliases: builtin_aliases(tree, &format!("{folder}/modules.builtin.modinfo"))?,
        };
        index.resolve_symbols()?;
        Ok(index)
    }

    /// The module of this name; `-` counts as `_`.
    pub fn get(&self, name: &str) -> Option<&Module> {
        self.by_name.get(&name.replace('-', "_")).map(|index| &self.modules[*index])
    }

    /// Whether the kernel loads something, or has it built in, under this name or alias.
    pub fn answers(&self, name: &str) -> bool {
        let normal = name.replace('-', "_");
        let is_alias =
            |pattern: &str| normal_alias(pattern).is_some_and(|pattern| matches(&pattern, &normal));
        self.get(name).is_some()
            || self.builtin.contains(&normal)
            || self.modules.iter().flat_map(|module| &module.facts.aliases).any(|alias| is_alias(alias))
            || self.builtin_aliases.iter().any(|(_, alias)| is_alias(alias))
    }

    /// Every module with the name of one that it cannot be loaded without and that is not there.
    pub fn unmet(&self) -> impl Iterator<Item = (&Module, &str)> {
        let is_there = |name: &str| self.by_name.contains_key(name) || self.builtin.contains(name);
        self.modules.iter().flat_map(move |module| {
            let unmet = module.facts.depends.iter().filter(move |name| !is_there(name));
            unmet.map(move |name| (module, name.as_str()))
        })
    }

    /// The error for a module that is not there.
    pub fn unknown(&self, name: &str) -> Error {
        let names = self.by_name.keys().map(String::as_str);
        let near = near_or_part(&name.replace('-', "_"), names);
        Error::UnknownModule { name: name.to_owned(), kernel: self.kernel.clone(), near }
    }

    /// Who exports what; of two exporters the later one, as with depmod.
    fn exporters(&self) -> BTreeMap<&str, usize> {
        self.modules
            .iter()
            .enumerate()
            .flat_map(|(index, module)| module.facts.exports.iter().map(move |name| (name.as_str(), index)))
            .collect()
    }

    /// Finds each module's dependencies by its symbols and orders them as depmod does: modules that nobody
    /// uses come first, the last of those found first.
    fn resolve_symbols(&mut self) -> Result<(), Error> {
        let exporters = self.exporters();
        let mut users = vec![0_usize; self.modules.len()];
        let direct: Vec<Vec<usize>> = self
            .modules
            .iter()
            .map(|module| {
                let mut direct = Vec::new();
                for symbol in &module.facts.needs {
                    if let Some(owner) = exporters.get(symbol.as_str())
                        && !direct.contains(owner)
                    {
                        direct.push(*owner);
                        users[*owner] += 1;
                    }
                }
                direct
            })
            .collect();

        let mut roots: Vec<usize> = (0..users.len()).filter(|index| users[*index] == 0).collect();
        let mut place = vec![usize::MAX; users.len()];
        let mut placed = 0;
        while let Some(index) = roots.pop() {
            place[index] = placed;
            placed += 1;
            for needed in &direct[index] {
                users[*needed] -= 1;
                if users[*needed] == 0 {
                    roots.push(*needed);
                }
            }
        }
        if placed < place.len() {
            let left = (0..place.len()).filter(|index| place[*index] == usize::MAX);
            let modules = left.map(|index| self.modules[index].name.clone()).collect();
            return Err(Error::ModuleCycle { modules });
        }

        for index in 0..self.modules.len() {
            let mut all: BTreeSet<usize> = BTreeSet::new();
            let mut pending = direct[index].clone();
            while let Some(needed) = pending.pop() {
                if all.insert(needed) {
                    pending.extend(&direct[needed]);
                }
            }
            if all.len() > limits::NEEDED {
                let module = self.modules[index].name.clone();
                return Err(Error::ManyNeeded { module, limit: limits::NEEDED });
            }
            let mut depends: Vec<usize> = all.into_iter().collect();
            depends.sort_by_key(|needed| place[*needed]);
            self.modules[index].depends = depends;
        }
        Ok(())
    }
}

/// Puts the index files of `index` into the tree.
pub fn write(tree: &mut Tree, index: &ModuleIndex) -> Result<(), Error> {
    for (name, content) in index.files()? {
        tree.file(format!("{FOLDER}/{}/{name}", index.kernel), 0o644, content)?;
    }
    Ok(())
}

/// Takes the bytes of the module at `path` into the sum of all: a file may have thousands of names.
fn count(sum: &AtomicU64, bytes: u64, path: impl FnOnce() -> String) -> Result<(), Error> {
    if sum.fetch_add(bytes, Ordering::Relaxed) + bytes > limits::MODULE_BYTES {
        let most = Size(limits::MODULE_BYTES).human();
        let what = format!(
            "with it all modules have more than {most} together, unpacked: leave the package out, or `prune` some"
        );
        return Err(Error::Malformed { path: path(), line: 0, what });
    }
    Ok(())
}

/// Unpacks and reads every module, in parallel.
fn read_facts(folder: &str, modules: &[(&str, &Content)]) -> Result<Vec<Facts>, Error> {
    let (bytes_so_far, unpacked) = (AtomicUsize::new(0), AtomicU64::new(0));
    modules
        .par_iter()
        .map(|(path, content)| {
            let malformed = |what| Error::Malformed { path: format!("/{folder}/{path}"), line: 0, what };
            let (facts, size) = object::read(path, content).map_err(malformed)?;
            count(&unpacked, size, || format!("/{folder}/{path}"))?;
            if bytes_so_far.fetch_add(facts.bytes(), Ordering::Relaxed) > limits::FACT_BYTES {
                let most = Size(limits::FACT_BYTES as u64).human();
                return Err(malformed(format!(
                    "aliases and symbols of all modules have more than {most} together"
                )));
            }
            Ok(facts)
        })
        .collect()
}

/// A module's name from its path: without folder and endings, with `_` for `-`.
fn name_of(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or_default();
    file.split('.').next().unwrap_or_default().replace('-', "_")
}

fn collect(tree: &Tree, folder: NodeId, prefix: &str, found: &mut Vec<(String, NodeId)>) {
    for (name, id) in tree.children(folder) {
        let name = show(name);
        match &tree.node(id).kind {
            // Links to the kernel's headers, as depmod skips them.
            _ if name == "build" || name == "source" => {}
            Kind::Directory(_) => collect(tree, id, &format!("{prefix}{name}/"), found),
            Kind::File(_) if object::SUFFIXES.iter().any(|suffix| name.ends_with(suffix)) => {
                found.push((format!("{prefix}{name}"), id));
            }
            _ => {}
        }
    }
}

fn lines(tree: &Tree, path: &str) -> Result<Vec<String>, Error> {
    if !tree.exists(path) {
        return Ok(Vec::new());
    }
    Ok(String::from_utf8_lossy(&tree.read(path)?).lines().map(str::to_owned).collect())
}

/// NUL-terminated lines `module.key=value`.
fn builtin_aliases(tree: &Tree, path: &str) -> Result<Vec<(String, String)>, Error> {
    if !tree.exists(path) {
        return Ok(Vec::new());
    }
    let text = tree.read(path)?;
    let aliases = text.split(|byte| *byte == 0).filter_map(|line| {
        let line = String::from_utf8_lossy(line);
        let (module, rest) = line.split_once('.')?;
        let (key, value) = rest.split_once('=')?;
        (key == "alias" && !value.is_empty()).then(|| (module.to_owned(), value.to_owned()))
    });
    Ok(aliases.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(name_of("kernel/drivers/md/dm-verity.ko.xz"), "dm_verity");
        assert_eq!(name_of("kernel/fs/ext4/ext4.ko"), "ext4");
    }

    fn module(name: &str, exports: &[&str], needs: &[&str]) -> Module {
        let owned = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect();
        let facts = Facts { exports: owned(exports), needs: owned(needs), ..Facts::default() };
        Module { name: name.into(), path: format!("kernel/{name}.ko"), facts, depends: Vec::new() }
    }

    fn index(modules: Vec<Module>) -> Result<ModuleIndex, Error> {
        let mut index = ModuleIndex {
            kernel: "6.12".into(),
            by_name: modules.iter().map(|module| module.name.clone()).zip(0..).collect(),
            modules,
            builtin: BTreeSet::from(["ext4".to_owned()]),
            builtin_order: vec!["ext4".into()],
            builtin_aliases: Vec::new(),
        };
        index.resolve_symbols()?;
        Ok(index)
    }

    #[test]
    fn modules_need_whoever_exports_what_they_use() {
        let mut user = module("dm_verity", &[], &["dm_get", "bufio_new", "printk"]);
        user.facts.softdeps.push("pre: sha256-fast post: zlib".into());
        let modules = vec![
            module("dm_mod", &["dm_get"], &[]),
            user,
            module("dm_bufio", &["bufio_new"], &["dm_get"]),
            module("sha256_fast", &[], &[]),
        ];
        let index = index(modules).unwrap();
        let names = |module: &Module| -> BTreeSet<String> {
            module.depends.iter().map(|needs| index.modules[*needs].name.clone()).collect()
        };
        let verity = index.get("dm-verity").unwrap();
        assert_eq!(names(verity), ["dm_bufio", "dm_mod"].map(str::to_owned).into());
        assert_eq!(names(index.get("dm_bufio").unwrap()), ["dm_mod".to_owned()].into());
        assert_eq!(verity.soft_before().collect::<Vec<_>>(), ["sha256-fast"]);
        assert_eq!(verity.soft_after().collect::<Vec<_>>(), ["zlib"]);
        let error = index.unknown("dm-veritas").to_string();
        assert_eq!(error, "kernel 6.12 has no module dm-veritas; did you mean dm_verity?");
    }

    #[test]
    fn circles_are_refused() {
        let modules = vec![module("a", &["a1"], &["b1"]), module("b", &["b1"], &["a1"])];
        assert!(matches!(index(modules), Err(Error::ModuleCycle { modules }) if modules == ["a", "b"]));
    }

    #[test]
    fn a_file_of_many_names_counts_as_often() {
        let mut tree = Tree::new(0);
        let file = tempfile::tempfile().unwrap();
        file.set_len(60 << 20).unwrap();
        let content = Content::Slice { file: std::sync::Arc::new(file), offset: 0, len: 60 << 20 };
        let id = tree.file(format!("{FOLDER}/6.12/m0.ko"), 0o644, content).unwrap();
        (1..40).for_each(|number| tree.link(format!("{FOLDER}/6.12/m{number}.ko"), id).unwrap());
        let error = ModuleIndex::read(&tree, "6.12", None).unwrap_err().to_string();
        let told = ".ko: with it all modules have more than 2.0 GiB together, unpacked";
        assert!(error.starts_with("/usr/lib/modules/6.12/m") && error.contains(told), "{error}");
    }
}
