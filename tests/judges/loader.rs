//! Libraries that are missing, as the loader of glibc says it and as the checks of a root do.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use keller::rootfs::checks::{self, Inputs};

use super::folder;
use super::tool::{run, tool};
use super::umoci::Lot;

const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";

/// How many libraries a made program has around it.
const LIBRARIES: u64 = 8;

/// Where they lie; the first is on the loader's own way.
const FOLDERS: [&str; 3] = ["usr/lib/x86_64-linux-gnu", "usr/lib/app", "usr/lib/app/plugins"];

/// An object that asks for libraries, made by the host's linker: `arguments` say where it looks for them.
fn link(path: &Path, source: &Path, stubs: &Path, needed: &[String], arguments: &[String]) {
    let mut cc = tool("cc").unwrap();
    cc.args(["-nostdlib", "-Wl,--no-as-needed", "-Wl,--unresolved-symbols=ignore-all", "-o"]).arg(path);
    cc.arg(source).args(arguments).arg("-L").arg(stubs);
    run(cc.args(needed.iter().map(|name| format!("-l:{name}"))));
}

/// A program `usr/bin/program` below `root` and libraries, which ask for each other in circles or for what is not
/// there. Directories are said by RUNPATH or RPATH, or not at all.
fn make(root: &Path, lot: &mut Lot) {
    let (source, stubs) = (root.join("a.c"), root.join("stubs"));
    fs::write(&source, "int start(void) { return 1; }").unwrap();
    for folder in FOLDERS.into_iter().chain(["stubs", "usr/bin"]) {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    let name = |number: u64| format!("liba{number}.so");
    for number in 0..=LIBRARIES {
        let soname = format!("-Wl,-soname,{}", name(number));
        link(&stubs.join(name(number)), &source, &stubs, &[], &["-shared".into(), soname]);
    }
    let some = |lot: &mut Lot, most: u64| -> Vec<String> {
        let wanted: Vec<u64> = (0..1 + lot.below(most)).map(|_| lot.below(LIBRARIES + 1)).collect();
        wanted.into_iter().map(name).collect()
    };
    let way = |lot: &mut Lot, up: &str| -> Vec<String> {
        let folder = lot.of(&FOLDERS);
        match lot.below(3) {
            0 => vec![],
            tags => vec![
                format!("-Wl,-rpath,$ORIGIN/{up}/{folder}:/nowhere"),
                format!("-Wl,--{}able-new-dtags", if tags == 1 { "en" } else { "dis" }),
            ],
        }
    };
    // The last is nowhere.
    for number in 0..LIBRARIES {
        let folder = lot.of(&FOLDERS);
        let up = folder.split('/').map(|_| "..").collect::<Vec<_>>().join("/");
        let mut arguments = vec!["-shared".to_owned()];
        // Some answer to their file's name only.
        if lot.below(4) > 0 {
            arguments.push(format!("-Wl,-soname,{}", name(number)));
        }
        arguments.extend(way(lot, &up));
        link(&root.join(folder).join(name(number)), &source, &stubs, &some(lot, 3), &arguments);
    }
    let mut arguments = vec!["-Wl,-e,start".to_owned(), format!("-Wl,--dynamic-linker={LOADER}")];
    arguments.extend(way(lot, "../.."));
    link(&root.join("usr/bin/program"), &source, &stubs, &some(lot, 4), &arguments);
    fs::remove_dir_all(stubs).unwrap();
}

/// Names that the loader does not find for the program, and the files that it does.
fn by_the_loader(root: &Path) -> (BTreeSet<String>, BTreeSet<PathBuf>) {
    let mut command = tool(LOADER).unwrap();
    let library_path = root.join(FOLDERS[0]);
    command.env("LD_TRACE_LOADED_OBJECTS", "1");
    command.args(["--inhibit-cache", "--library-path"]).arg(library_path);
    let told = command.arg(root.join("usr/bin/program")).output().unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    let (mut missing, mut found) = (BTreeSet::new(), BTreeSet::new());
    for line in told.lines() {
        let Some((name, place)) = line.trim().split_once(" => ") else { continue };
        match place.starts_with("not found") {
            true => _ = missing.insert(name.to_owned()),
            false => {
                let path = place.split(" (").next().unwrap();
                _ = found.insert(fs::canonicalize(path).unwrap());
            }
        }
    }
    (missing, found)
}

#[test]
fn what_is_missing_is_what_the_loader_misses() {
    if tool("cc").is_none() {
        return;
    }
    let (mut lacking, mut whole) = (0, 0);
    for seed in 0..16 {
        let work = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(work.path()).unwrap();
        make(&root, &mut Lot(seed));
        let (missing, found) = by_the_loader(&root);
        // What the program does not load might be opened by it while it runs, which the loader cannot tell.
        for folder in FOLDERS {
            for entry in fs::read_dir(root.join(folder)).unwrap() {
                let path = entry.unwrap().path();
                if path.is_file() && !found.contains(&path) {
                    fs::remove_file(path).unwrap();
                }
            }
        }
        let findings = checks::check(&folder::load(&root), &Inputs::default());
        let told: BTreeSet<String> = findings
            .iter()
            .filter_map(|finding| finding.problem.strip_prefix("needs ")?.split(',').next())
            .map(str::to_owned)
            .collect();
        assert_eq!(told, missing, "seed {seed}: {findings:#?}");
        match missing.is_empty() {
            true => whole += 1,
            false => lacking += 1,
        }
    }
    assert!(lacking > 4 && whole > 0, "{lacking} programs lack something, {whole} nothing");
}
