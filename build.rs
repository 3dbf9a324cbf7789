//! Lists manifests/, overlays/ and qemu/ as a table for `manifest::embedded`, so that the binary carries them. A list
//! made by the compiler's macros alone would lose the executable bits.

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    // A new file in a folder changes the folder, which makes cargo run this again.
    println!("cargo::rerun-if-changed={}", folder.display());
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("listing {}: {error}", folder.display()))
    {
        let path = entry.expect("a listed folder can be read").path();
        let kind = fs::symlink_metadata(&path).expect("a listed file can be asked").file_type();
        match () {
            () if kind.is_dir() => collect(&path, files),
            () if kind.is_file() => files.push(path),
            () => panic!("{}: only files and folders are embedded; links go into `files:`", path.display()),
        }
    }
}

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // What lints a build as ci/test makes it: cargo knows of neither.
    println!("cargo::rerun-if-changed=clippy.toml");
    println!("cargo::rerun-if-changed=ci/rustc-and-clippy");
    let root = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    std::env::set_current_dir(&root).expect("the package folder exists");
    let mut files = Vec::new();
    for folder in ["manifests", "overlays", "qemu"] {
        collect(Path::new(folder), &mut files);
    }
    files.sort();
    let mut table = String::from("[\n");
    for path in files {
        let executable = fs::metadata(&path).expect("it was just listed").permissions().mode() & 0o100 != 0;
        println!("cargo::rerun-if-changed={}", path.display());
        writeln!(
            table,
            "    File {{ path: {path:?}, executable: {executable}, bytes: include_bytes!({:?}) }},",
            root.join(&path)
        )
        .expect("a String takes everything");
    }
    table.push(']');
    let target = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it")).join("embedded.rs");
    fs::write(&target, table).unwrap_or_else(|error| panic!("writing {}: {error}", target.display()));
}
