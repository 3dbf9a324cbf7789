//! The laws of docs/design.md, held by reading the sources: which room may know of which.

// The path stands here since ci/test compiles this file by itself as well.
#[path = "laws/circles.rs"]
mod circles;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Law 1: what a format room never names, and why.
const FORMATS: [&str; 8] =
    ["fs", "verity", "disk/gpt", "boot/cpio", "boot/pe", "boot/uki", "update", "output"];
const OUTSIDE: [&str; 14] = [
    "crate::manifest",
    "std::env",
    "env::",
    "std::process",
    "SystemTime",
    "Instant",
    "::now()",
    "rand::",
    "getrandom",
    "Uuid::new_v4",
    "std::path",
    "std::fs::{self",
    "std::fs;",
    "File::open",
];

/// Law 2: rooms of the builder, of which nothing that runs on a node knows.
const ON_THE_NODE: [&str; 2] = ["agent", "init"];
const OF_THE_BUILDER: [&str; 4] = ["manifest", "source", "lock", "rootfs"];

/// Law 4.
const PRINTING: [&str; 7] =
    ["println!", "print!", "eprintln!", "eprint!", "dbg!", "io::stdout()", "io::stderr()"];

/// Law 5.
const OF_THE_COMMAND_LINE: [&str; 2] = ["clap::", "use clap"];
const BEHIND_THE_DOOR: [&str; 10] =
    ["boot", "fetch", "fs", "http", "image", "output", "rootfs", "source", "tree", "verity"];

/// Rooms that read what people name and what lies on disks that others can write to.
const READING: [&str; 12] = [
    "cli",
    "project",
    "lab",
    "image",
    "lock",
    "rootfs",
    "source",
    "http",
    "store",
    "repository",
    "manifest",
    "tree",
];
/// Ways to open a file that wait for the writer of a pipe, or never end with a device.
const WAITING: [&str; 3] = ["fs::read(", "fs::read_to_string(", "File::open("];

/// How a lock is taken.
const LOCKING: &str = "FlockOperation::";

/// How a listener comes about; in two parts, so that this file does not find itself.
const BIND: &str = concat!("TcpListener", "::bind(");

/// A source file without its tests and comments.
struct Source {
    /// Relative to `src`.
    path: PathBuf,
    /// Lines with their numbers.
    lines: Vec<(usize, String)>,
}

impl Source {
    fn room(&self) -> String {
        let first = self.path.iter().next().expect("no empty path").to_string_lossy();
        first.trim_end_matches(".rs").to_owned()
    }

    /// Whether the file is `part` or below it, as in `disk/gpt`.
    fn is_in(&self, part: &str) -> bool {
        self.path.with_extension("") == Path::new(part) || self.path.starts_with(part)
    }

    /// The lines that have one of `words`, for messages.
    fn with(&self, words: &[&str]) -> Vec<String> {
        let hits = self.lines.iter().filter(|(_, line)| words.iter().any(|word| line.contains(word)));
        hits.map(|(number, line)| format!("src/{}:{number}: {}", self.path.display(), line.trim())).collect()
    }

    /// The rooms that it names after `crate::`, alone or in braces.
    fn rooms_named(&self) -> BTreeSet<String> {
        let text: String = self.lines.iter().map(|(_, line)| format!("{line}\n")).collect();
        let mut rooms = BTreeSet::new();
        for rest in text.split("crate::").skip(1) {
            // `crate::{base::Size, tree::{Tree, Meta}}` names each first part at depth one.
            let (mut depth, mut word, mut first) = (0, String::new(), true);
            for letter in rest.chars() {
                match letter {
                    'a'..='z' | '0'..='9' | '_' if first => word.push(letter),
                    '{' if word.is_empty() => depth += 1,
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    ',' if depth == 1 => first = true,
                    ':' => first = false,
                    _ if letter.is_whitespace() => continue,
                    _ => first = false,
                }
                if !first || matches!(letter, ',' | '}') {
                    rooms.extend((!word.is_empty()).then(|| std::mem::take(&mut word)));
                }
                if depth <= 0 && !first {
                    break;
                }
            }
        }
        rooms
    }
}

/// Every file of `src`.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut pending = vec![root.clone()];
    let mut sources = Vec::new();
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let is_test = path.file_name().is_some_and(|name| name == "tests.rs" || name == "tests");
            if is_test {
                continue;
            } else if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
                let lines = code.lines().zip(1..).filter(|(line, _)| !line.trim_start().starts_with("//"));
                sources.push(Source {
                    path: path.strip_prefix(&root).unwrap().to_owned(),
                    lines: lines.map(|(line, number)| (number, line.to_owned())).collect(),
                });
            }
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(sources.len() > 50, "where are the sources?");
    sources
}

/// The table of docs/design.md.
#[derive(Default)]
struct Table {
    /// Layer by room.
    layers: BTreeMap<String, u32>,
    /// By layer, how many of the layers from 0 on may be imported.
    below: BTreeMap<u32, u32>,
    /// Rooms of one layer of which the first may import the second.
    beside: BTreeSet<(String, String)>,
}

impl Table {
    /// Reads the rows `| 3 | lock, fetch | 0–2; fetch → lock |` of `text`.
    fn read(text: &str) -> Self {
        let mut table = Self::default();
        for line in text.lines() {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let [layer, rooms, imported] = cells[..] else { continue };
            let Ok(layer) = layer.parse() else { continue };
            table.layers.extend(rooms.split(',').map(|room| (room.trim().to_owned(), layer)));
            let (below, beside) = imported.split_once(';').unwrap_or((imported, ""));
            table.below.insert(layer, Self::count(below));
            let arrows = beside.split(',').filter(|arrow| !arrow.trim().is_empty());
            table.beside.extend(arrows.map(|arrow| {
                let (from, to) = arrow.split_once('→').unwrap_or_else(|| panic!("{arrow:?} is no arrow"));
                (from.trim().to_owned(), to.trim().to_owned())
            }));
        }
        for (from, to) in &table.beside {
            assert_eq!(table.layers[from], table.layers[to], "{from} → {to} leads to another layer");
        }
        table
    }

    /// How many layers `none`, `0` and `0–3` are.
    fn count(range: &str) -> u32 {
        if range == "none" {
            return 0;
        }
        let last = range.strip_prefix("0–").unwrap_or(range);
        1 + last.parse::<u32>().unwrap_or_else(|_| panic!("{range:?} is no range of layers"))
    }

    /// Whether `room` may import `named`; what has no layer is no room.
    fn allows(&self, room: &str, named: &str) -> bool {
        let Some(layer) = self.layers.get(named) else { return true };
        room == named
            || *layer < self.below[&self.layers[room]]
            || self.beside.contains(&(room.to_owned(), named.to_owned()))
    }
}

fn table() -> Table {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/design.md")).unwrap();
    let table = Table::read(&text);
    assert!(table.layers.contains_key("base"), "docs/design.md has no table of layers");
    table
}

#[test]
fn rooms_know_only_of_lower_layers() {
    let table = table();
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| source.path != Path::new("lib.rs")) {
        let room = source.room();
        if !table.layers.contains_key(&room) {
            wrong.push(format!("{room} has no layer in docs/design.md"));
            continue;
        }
        let named = source.rooms_named().into_iter().filter(|named| !table.allows(&room, named));
        wrong.extend(named.map(|named| format!("src/{} uses {named}", source.path.display())));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn one_page_has_the_table() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pages = fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let has_table = |page: &PathBuf| fs::read_to_string(page).unwrap().contains("| Layer |");
    let pages: Vec<_> = pages.filter(|page| page.is_file() && has_table(page)).collect();
    assert_eq!(pages, [root.join("docs/design.md")]);
}

#[test]
fn the_table_says_what_it_means() {
    let rows = "| 2 | cli | 0–1 |\n| 1 | fs, tree | 0; fs → tree |\n| 0 | base | none |\n| x | y | z |";
    let table = Table::read(rows);
    for (room, named) in [("cli", "base"), ("cli", "tree"), ("fs", "tree"), ("base", "std"), ("fs", "fs")] {
        assert!(table.allows(room, named), "{room} → {named}");
    }
    for (room, named) in [("tree", "fs"), ("base", "tree"), ("fs", "cli"), ("tree", "cli")] {
        assert!(!table.allows(room, named), "{room} → {named}");
    }
    // A narrower range is held as it stands.
    let narrow = Table::read("| 2 | cli | 0 |\n| 1 | tree | 0 |\n| 0 | base | none |");
    assert!(narrow.allows("cli", "base") && !narrow.allows("cli", "tree"));
}

#[test]
fn the_command_line_ends_in_cli() {
    let sources = sources();
    let (cli, others): (Vec<_>, Vec<_>) = sources.iter().partition(|source| source.room() == "cli");
    let mut wrong: Vec<_> = others.iter().flat_map(|source| source.with(&OF_THE_COMMAND_LINE)).collect();
    for source in cli {
        let named = source.rooms_named();
        let named = BEHIND_THE_DOOR.iter().filter(|room| named.contains(**room));
        wrong.extend(named.map(|room| format!("src/{} uses {room}", source.path.display())));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn formats_take_values_and_give_bytes() {
    let sources = sources();
    let formats = sources.iter().filter(|source| FORMATS.iter().any(|format| source.is_in(format)));
    let wrong: Vec<_> = formats.flat_map(|source| source.with(&OUTSIDE)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_node_knows_nothing_of_the_builder() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| ON_THE_NODE.contains(&source.room().as_str())) {
        let named = source.rooms_named();
        let named = OF_THE_BUILDER.iter().filter(|room| named.contains(**room));
        wrong.extend(named.map(|room| format!("src/{} uses {room}", source.path.display())));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn fetching_sees_a_lock_and_no_manifest() {
    let sources = sources();
    let fetch = sources.iter().find(|source| source.path == Path::new("fetch.rs")).unwrap();
    let rooms = fetch.rooms_named();
    assert!(rooms.contains("lock") && !rooms.contains("manifest"), "{rooms:?}");
}

#[test]
fn only_cli_prints() {
    let sources = sources();
    let others = sources.iter().filter(|source| source.room() != "cli");
    let wrong: Vec<_> = others.flat_map(|source| source.with(&PRINTING)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn one_file_of_cli_prints() {
    // Writing to a stream that nobody reads must neither panic nor pass unseen.
    let sources = sources();
    let others = sources.iter().filter(|source| source.path != Path::new("cli/streams.rs"));
    let wrong: Vec<_> = others.flat_map(|source| source.with(&PRINTING)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn input_is_read_only_if_it_is_a_file() {
    let sources = sources();
    let reading = sources.iter().filter(|source| READING.contains(&source.room().as_str()));
    let lines = reading.flat_map(|source| source.with(&WAITING));
    // Directories are opened to be locked or flushed, and a program can open itself.
    let wrong: Vec<_> =
        lines.filter(|line| !line.contains("folder") && !line.contains("THIS_PROGRAM")).collect();
    assert!(wrong.is_empty(), "base::input opens files without waiting, and names what is none: {wrong:#?}");
}

#[test]
fn locks_are_closed_to_others() {
    // Whoever may read a file may hold a lock on it.
    let sources = sources();
    let locking = sources.iter().filter(|source| !source.with(&[LOCKING]).is_empty());
    let opens = |source: &Source| !source.with(&["flock::open(", "locks::open("]).is_empty();
    // It is given a lock that the store has opened.
    let wrong: Vec<_> = locking
        .filter(|source| !opens(source) && source.path != Path::new("store/gc.rs"))
        .map(|source| source.path.display().to_string())
        .collect();
    assert!(wrong.is_empty(), "base::flock opens locks: {wrong:#?}");
}

#[test]
fn errors_are_statements() {
    // Whoever reads a question at night has to answer it.
    let asks = |line: &String| line.contains("[error(\"") && (line.contains("?\"") || line.contains("? "));
    let wrong: Vec<_> =
        sources().iter().flat_map(|source| source.with(&["[error(\""])).filter(asks).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The texts between quotes in `code`, without what is filled in between braces.
fn texts(code: &str) -> Vec<String> {
    let code = code.replace("'\"'", "").replace("\\\"", "");
    let without_names = |text: &str| {
        let parts = text.split('{').enumerate();
        parts
            .map(|(index, part)| if index == 0 { part } else { part.split_once('}').map_or("", |it| it.1) })
            .collect()
    };
    code.split('"').skip(1).step_by(2).map(without_names).collect()
}

#[test]
fn messages_say_directory() {
    let mut wrong = Vec::new();
    for source in sources() {
        // What only a fault of keller's own shows is not for users.
        let lines = source.lines.iter().filter(|(_, line)| !line.contains(".expect(\""));
        let code: String = lines.map(|(_, line)| format!("{line}\n")).collect();
        let words = |text: &String| {
            text.split(|letter: char| !letter.is_alphanumeric())
                .any(|word| matches!(word, "folder" | "folders"))
        };
        wrong.extend(texts(&code).into_iter().filter(words).map(|text| (source.path.clone(), text)));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A port that is chosen and given back before it is used may be taken by somebody else in between. Whoever wants one
/// keeps the listener, or has the program under test choose (`--forward 0:80`) and say which.
#[test]
fn tests_keep_the_ports_that_they_choose() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pending = vec![root.join("tests"), root.join("src")];
    let mut wrong = Vec::new();
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text: String = fs::read_to_string(&path).unwrap().split_whitespace().collect();
            if drops_a_port(&text) {
                wrong.push(path);
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Whether an expression of `code`, without its blanks, asks a listener for its address and lets go of it.
fn drops_a_port(code: &str) -> bool {
    let after = code.split(BIND).skip(1);
    after.filter_map(|rest| rest.split(';').next()).any(|expression| expression.contains(").local_addr()"))
}

#[test]
fn the_reader_of_laws_reads() {
    let source = |text: &str| Source { path: "x.rs".into(), lines: vec![(1, text.to_owned())] };
    let named = |text: &str| source(text).rooms_named().into_iter().collect::<Vec<_>>().join(" ");
    assert_eq!(named("use crate::tree::Tree;"), "tree");
    assert_eq!(named("use crate::{base::Size, tree::{Tree, Meta}, verity};"), "base tree verity");
    assert_eq!(named("let x = crate::fetch::fetch(crate::lock::file::read());"), "fetch lock");
    let code = "error(\"no {folder} in \\\"x\\\": a folder\") '\"' b(\"more\")";
    assert_eq!(texts(code), ["no  in x: a folder", "more"]);
    let drops = |rest: &str| drops_a_port(&format!("letbound={BIND}{rest}"));
    assert!(drops("(\"127.0.0.1\",0)).unwrap().local_addr().unwrap().port();"));
    assert!(!drops("\"127.0.0.1:0\").unwrap();letport=bound.local_addr();"));
}
