//! No circle between files: whoever reads one comes to those that it stands on, and never back.
//!
//! What a module's own file and the files below it know of each other is no circle: the one is the face of the others.

use std::collections::{BTreeMap, BTreeSet};

use super::{Source, sources};

/// A module or an item: `["fs", "fat", "reader", "Reader"]`.
type Name = Vec<String>;

/// What files know of each other.
struct Files {
    /// The modules that are files.
    modules: BTreeSet<Name>,
    /// Names that a module passes on, and what they stand for.
    passed_on: BTreeMap<Name, Name>,
}

/// A path in the code as it stands there, and the name that it gets by `as`.
#[derive(Debug, PartialEq, Eq)]
struct Path {
    parts: Name,
    called: Option<String>,
}

/// The module of a file: none for `main.rs`, the crate itself for `lib.rs`.
fn module(source: &Source) -> Option<Name> {
    let path = source.path.with_extension("");
    let mut parts: Name = path.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    match parts.last().map(String::as_str) {
        Some("main") if parts.len() == 1 => return None,
        Some("mod" | "lib") => parts.truncate(parts.len() - 1),
        _ => {}
    }
    Some(parts)
}

fn is_of_a_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

/// Takes a word off `rest`.
fn word<'a>(rest: &mut &'a str) -> &'a str {
    let end = rest.find(|letter| !is_of_a_word(letter)).unwrap_or(rest.len());
    let (word, behind) = rest.split_at(end);
    *rest = behind;
    word
}

/// Takes a path off `rest`, or all those of a `{…}`, each behind `before`.
fn path(rest: &mut &str, before: &[String], found: &mut Vec<Path>) {
    *rest = rest.trim_start();
    if let Some(inside) = rest.strip_prefix('{') {
        *rest = inside;
        loop {
            *rest = rest.trim_start_matches(|letter: char| letter.is_whitespace() || letter == ',');
            if rest.is_empty() {
                return;
            }
            if let Some(behind) = rest.strip_prefix('}') {
                *rest = behind;
                return;
            }
            let left = rest.len();
            path(rest, before, found);
            if rest.len() == left {
                *rest = &rest[rest.chars().next().map_or(0, char::len_utf8)..];
            }
        }
    }
    let part = word(rest);
    let mut parts = before.to_vec();
    if part != "self" || before.is_empty() {
        parts.extend((!part.is_empty()).then(|| part.to_owned()));
    }
    if let Some(behind) = rest.strip_prefix("::")
        && behind.starts_with(|letter| is_of_a_word(letter) || letter == '{' || letter == '*')
    {
        *rest = behind;
        return path(rest, &parts, found);
    }
    let mut called = None;
    if let Some(mut name) = rest.strip_prefix(" as ") {
        called = Some(word(&mut name).to_owned());
        *rest = name;
    }
    found.push(Path { parts, called });
}

/// All paths of several parts in `code`.
fn paths(code: &str) -> Vec<Path> {
    let mut found = Vec::new();
    let (mut rest, mut last) = (code, ' ');
    while let Some(letter) = rest.chars().next() {
        if is_of_a_word(letter) && last != ':' && last != '.' {
            let mut one = rest;
            path(&mut one, &[], &mut found);
            rest = one;
            last = ' ';
        } else {
            rest = &rest[letter.len_utf8()..];
            last = letter;
        }
    }
    found.retain(|path| path.parts.len() > 1);
    found
}

/// The paths of `pub use` in `code`.
fn passed_on(code: &str) -> Vec<Path> {
    let mut found = Vec::new();
    for rest in code.split("pub").skip(1) {
        let rest = rest.strip_prefix("(super)").or_else(|| rest.strip_prefix("(crate)")).unwrap_or(rest);
        if let Some(mut rest) = rest.strip_prefix(" use ") {
            path(&mut rest, &[], &mut found);
        }
    }
    found
}

impl Files {
    fn of(sources: &[(Name, String)]) -> Self {
        let modules = sources.iter().map(|(module, _)| module.clone()).collect();
        let mut files = Self { modules, passed_on: BTreeMap::new() };
        for (module, code) in sources {
            for path in passed_on(code) {
                let Some(name) = files.from(module, &path.parts) else { continue };
                let Some(called) = path.called.or_else(|| name.last().cloned()) else { continue };
                let own = module.iter().cloned().chain([called]).collect();
                files.passed_on.insert(own, name);
            }
        }
        files
    }

    /// What `path`, as it stands in `module`, is in the crate; nothing where it is of another crate.
    fn from(&self, module: &[String], path: &[String]) -> Option<Name> {
        let (first, rest) = path.split_first()?;
        let up = path.iter().take_while(|part| *part == "super").count();
        let name: Name = match first.as_str() {
            "crate" => rest.to_vec(),
            "self" => module.iter().chain(rest).cloned().collect(),
            "super" => module[..module.len().checked_sub(up)?].iter().chain(&path[up..]).cloned().collect(),
            _ => module.iter().chain(path).cloned().collect(),
        };
        let is_ours = matches!(first.as_str(), "crate" | "self" | "super")
            || self.modules.contains(&name[..=module.len()]);
        is_ours.then_some(name)
    }

    /// The file that has the item `name`.
    fn home(&self, name: &[String]) -> Name {
        let mut name = name.to_vec();
        // What is passed on may be passed on again.
        for _ in 0..8 {
            let depth = (0..=name.len()).rev().find(|depth| self.modules.contains(&name[..*depth]));
            let depth = depth.unwrap_or(0);
            let Some(next) = name.get(..=depth).and_then(|item| self.passed_on.get(item)) else {
                return name[..depth].to_vec();
            };
            name = next.iter().chain(&name[depth + 1..]).cloned().collect();
        }
        panic!("{name:?} is passed on without an end");
    }
}

/// The files that each file knows, but for the modules that it is in.
fn known(sources: &[(Name, String)]) -> BTreeMap<Name, BTreeSet<Name>> {
    let files = Files::of(sources);
    let known = sources.iter().map(|(module, code)| {
        let named = paths(code).into_iter().filter_map(|path| files.from(module, &path.parts));
        let homes = named.map(|name| files.home(&name)).filter(|home| !module.starts_with(home));
        (module.clone(), homes.collect())
    });
    known.collect()
}

/// Each file that is known by what it knows, with what of that leads back to it.
fn circles(known: &BTreeMap<Name, BTreeSet<Name>>) -> Vec<String> {
    let reached = |from: &Name| {
        let (mut seen, mut pending) = (BTreeSet::new(), vec![from]);
        while let Some(file) = pending.pop() {
            let next = known.get(file).into_iter().flatten();
            pending.extend(next.filter(|file| seen.insert((*file).clone())));
        }
        seen
    };
    let reached: BTreeMap<&Name, BTreeSet<Name>> = known.keys().map(|file| (file, reached(file))).collect();
    let mut circles = Vec::new();
    for (file, next) in known {
        let back = next.iter().filter(|other| reached.get(other).is_some_and(|seen| seen.contains(file)));
        let back: Vec<String> = back.map(|other| other.join("/")).collect();
        if !back.is_empty() {
            circles.push(format!("{} knows {}", file.join("/"), back.join(", ")));
        }
    }
    circles
}

#[test]
fn no_file_knows_what_knows_it() {
    let code = |source: &Source| source.lines.iter().map(|(_, line)| format!("{line}\n")).collect();
    let sources: Vec<(Name, String)> =
        sources().iter().filter_map(|source| Some((module(source)?, code(source)))).collect();
    let known = known(&sources);
    assert!(known.values().map(BTreeSet::len).sum::<usize>() > 500, "hardly a file knows another");
    let circles = circles(&known);
    assert!(circles.is_empty(), "{circles:#?}");
}

#[test]
fn the_reader_of_circles_reads() {
    let found = |code: &str| {
        let names = |path: &Path| [path.parts.join("::"), path.called.clone().unwrap_or_default()].join(" ");
        paths(code).iter().map(names).collect::<Vec<_>>().join(",")
    };
    assert_eq!(
        found("use super::{a, b::{self, C as D}, e::*};"),
        "super::a ,super::b ,super::b::C D,super::e "
    );
    assert_eq!(
        found("let x: Vec<u8> = self.a::<B>(c::d(1), crate::e::F::new());"),
        "c::d ,crate::e::F::new "
    );
    let name = |path: &str| path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
    let file = |path: &str, code: &str| (name(path), code.to_owned());
    let told = |sources: &[(Name, String)]| circles(&known(sources));
    let parent = file("x", "mod a;\nmod b;\npub use b::Thing;\nfn f() { a::f() }");
    let child = file("x/a", "use super::Thing;\nuse crate::x::b;\n");
    // A module and what is below it are no circle, and neither are two of which one knows the other.
    assert!(told(&[parent.clone(), child.clone(), file("x/b", "use super::f;")]).is_empty());
    // Neither in one step nor by what is passed on.
    for code in ["use super::a;", "fn g() { crate::x::a::f() }", "use crate::y::f;"] {
        let other = file("y", "pub use crate::x::a::f;");
        let circles = told(&[parent.clone(), child.clone(), file("x/b", code), other]);
        assert_eq!(circles, ["x/a knows x/b", "x/b knows x/a"], "{code}");
    }
}
