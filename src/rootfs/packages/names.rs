//! Names of packages do not matter: the same packages under other names make the same tree.

use std::sync::Mutex;

use super::tests::package;
use super::*;
use crate::base::progress::TaskId;
use crate::base::width::to_usize;
use crate::tree::{Kind, Meta};

#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Progress for Notes {
    fn begin(&self, _: &str, _: u64, _: Unit) -> TaskId {
        TaskId(0)
    }
    fn advance(&self, _: TaskId, _: u64) {}
    fn end(&self, _: TaskId) {}
    fn note(&self, text: &str) {
        self.0.lock().unwrap().push(text.to_owned());
    }
    fn warn(&self, _: &str) {}
}

/// Numbers that look random and are the same in every run: xorshift64*.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        to_usize(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit
    }
}

const COUNT: usize = 5;
const PATHS: [&str; 10] = ["a", "b", "a/x", "a/y", "b/x", "c", "c/x", "c/x/z", "d", "d/y"];
const TARGETS: [&str; 6] = ["b", "../b", "/a", "c/x", "nowhere", "a"];
const MODES: [u16; 4] = [0o755, 0o750, 0o775, 0o700];

/// Packages that `seed` chooses, named by `names`.
fn packages(seed: u64, names: &[&str; COUNT]) -> Vec<Unpacked> {
    let mut numbers = Numbers(seed);
    let mut packages = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let mut fields = String::new();
        for (field, odds) in [("Depends", 3), ("Replaces", 2)] {
            let others: Vec<&str> = names
                .iter()
                .enumerate()
                .filter(|(other, _)| *other != index && numbers.below(odds * 2) == 0)
                .map(|(_, name)| *name)
                .collect();
            if !others.is_empty() {
                fields += &format!("{field}: {}\n", others.join(", "));
            }
        }
        if numbers.below(8) == 0 {
            fields += "Essential: yes\n";
        }
        let mut package = package(name, &fields, &[]);
        let origin = package.tree.origin(name);
        for _ in 0..numbers.below(4) {
            let path = PATHS[numbers.below(PATHS.len())];
            let meta = Meta::new(MODES[numbers.below(MODES.len())]).owned(numbers.below(3) as u32, 0);
            let kind = match numbers.below(5) {
                0 => Kind::Symlink(TARGETS[numbers.below(TARGETS.len())].into()),
                1 | 2 => Kind::File(format!("{index}").into()),
                _ => Kind::Directory(BTreeMap::new()),
            };
            // A path that leads through a file or a link of its own is left out.
            let meta = meta.at(numbers.below(100) as i64);
            if package.tree.lookup(path).is_none() && !path.contains('/')
                || package.tree.resolve(path).is_err()
            {
                let _ = package.tree.put(path, meta, kind, origin);
            }
        }
        packages.push(package);
    }
    packages
}

/// What comes out, in words that no name is part of: `names` are put back to numbers.
fn outcome(seed: u64, names: &[&str; COUNT]) -> (bool, Vec<String>) {
    let notes = Notes::default();
    let anonymous = |text: &str| {
        let mut text = format!(" {text} ").replace([',', ':', '\n'], " ");
        for (number, name) in names.iter().enumerate() {
            text = text.replace(&format!(" {name} "), &format!(" #{number} "));
        }
        text
    };
    let (good, mut lines) = match assemble(0, packages(seed, names), &notes) {
        Ok(tree) => {
            let line = |(path, id): (Vec<u8>, _)| {
                let node = tree.node(id);
                // A directory that several describe alike is the first one's by name, which only messages show.
                let origin = match node.kind {
                    Kind::Directory(_) => String::new(),
                    _ => anonymous(tree.origin_name(node.origin)),
                };
                format!("{:?} {:?} {origin} {:?}", String::from_utf8(path), node.kind.letter(), node.meta)
                    + &match &node.kind {
                        Kind::File(content) => format!("{:?}", content.to_vec().unwrap()),
                        Kind::Symlink(target) => format!("{target:?}"),
                        _ => String::new(),
                    }
            };
            (true, tree.walk().into_iter().map(line).collect::<Vec<_>>())
        }
        Err(PackagesError::Conflicts { conflicts, .. }) => {
            let whose = |text: &str| {
                let text = anonymous(text);
                let mut who: Vec<_> = text.split(' ').filter(|word| word.starts_with('#')).collect();
                who.sort();
                who.join(" ")
            };
            // Which of two is said first may hang on names; who is in conflict over what may not.
            let mut by_path: BTreeMap<String, String> = BTreeMap::new();
            for conflict in conflicts {
                // Of several that have a directory, one is named.
                let first = if conflict.directory { "directory" } else { &conflict.first };
                *by_path.entry(conflict.path.clone()).or_default() +=
                    &format!(" {first} {}", conflict.second);
            }
            let mut lines = Vec::new();
            for (path, text) in by_path {
                let whose = whose(&text);
                let mut who: Vec<&str> = whose.split(' ').collect();
                who.dedup();
                lines.push(format!("{path}: {}", who.join(" ")));
            }
            (false, lines)
        }
        Err(error) => panic!("{error}"),
    };
    let said = notes.0.into_inner().unwrap();
    lines.extend(said.iter().map(|note| note.split(": ").next().unwrap_or_default().to_owned()));
    lines.sort();
    (good, lines)
}

#[test]
fn names_of_packages_do_not_matter() {
    let mut good = 0;
    for seed in 1..=4000 {
        let (whole, lines) = outcome(seed, &["a", "b", "c", "d", "e"]);
        good += usize::from(whole);
        for names in [["e", "d", "c", "b", "a"], ["m", "base-files", "z", "a", "k"]] {
            assert_eq!(outcome(seed, &names), (whole, lines.clone()), "seed {seed}");
        }
    }
    assert!((500..3900).contains(&good), "{good} of 4000 sets can be put together");
}
