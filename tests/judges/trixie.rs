//! Programs of Debian trixie as judges, whatever the host has: their packages are locked, fetched and unpacked
//! by keller itself, and a program is started by its tree's own loader with its tree's own libraries.
//!
//! The host is often a release behind, and systemd 252 reads units and tmpfiles.d lines otherwise than the
//! systemd 257 of an image does.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use anyhow::{Context, Result};
use keller::base::progress::Silent;
use keller::image::{Means, laid};
use keller::manifest;
use keller::project::{Inputs, Outside, Policy};
use keller::tree::Tree;

/// Directories with libraries, beside which the loader of a tree searches none of the host's.
const LIBRARIES: [&str; 2] = ["usr/lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu/systemd"];

/// A command for `program` (a path without a leading slash, such as `usr/bin/systemd-tmpfiles`) out of the given
/// packages of trixie and what they depend on. Where they cannot be fetched, says so and gives nothing, so that
/// the test can end; in continuous integration (`CI` is set) that is a failure.
pub fn trixie(packages: &[&str], program: &str) -> Option<Command> {
    let tree = had(packages)?;
    let path = whole(&tree, program);
    let libraries = LIBRARIES.map(|folder| tree.join(folder).display().to_string()).join(":");
    let mut command = Command::new(tree.join("usr/lib64/ld-linux-x86-64.so.2"));
    command.arg("--argv0").arg(path.file_name().expect("a program has a name"));
    command.args(["--library-path", &libraries]).arg(&path);
    Some(command)
}

/// The file at `path`, named as a program is for [`trixie`], of these packages.
pub fn file(packages: &[&str], path: &str) -> Option<PathBuf> {
    Some(whole(&had(packages)?, path))
}

fn whole(tree: &Path, path: &str) -> PathBuf {
    let file = tree.join(path);
    assert!(file.is_file(), "there is no {}", file.display());
    file
}

/// The directory with these packages; nothing as with [`trixie`].
fn had(packages: &[&str]) -> Option<PathBuf> {
    match tree(packages) {
        Ok(tree) => Some(tree),
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "{packages:?} of trixie: {error:#}, and CI is set");
            println!("SKIPPED: {packages:?} of trixie cannot be had: {error:#}");
            None
        }
    }
}

/// The directory with these packages, made once for all tests and kept for later runs.
fn tree(packages: &[&str]) -> Result<PathBuf> {
    // Tests of one run wait for the first of them; another run that makes the same one is first or second below.
    static MAKING: Mutex<()> = Mutex::new(());
    let _making = MAKING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let parent = Path::new(env!("CARGO_TARGET_TMPDIR")).join("trixie");
    let tree = parent.join(packages.join("+"));
    if tree.is_dir() {
        return Ok(tree);
    }
    fs::create_dir_all(&parent)?;
    let scratch = tempfile::Builder::new().prefix(".making-").tempdir_in(&parent)?;
    let unpacked = scratch.path().join("tree");
    fs::create_dir(&unpacked)?;
    unpack(packages, scratch.path(), &unpacked)?;
    // Another run may have been first.
    if let Err(error) = fs::rename(&unpacked, &tree)
        && !tree.is_dir()
    {
        return Err(error).context("giving the tree its name");
    }
    Ok(tree)
}

/// The files of Debian's kernel and of these packages with firmware for it; nothing as with [`trixie`].
pub fn kernel(firmware: &[&str]) -> Option<Tree> {
    let fields = "debian: {suite: trixie, components: [main, non-free-firmware]}\n\
                  assume: {initramfs-tools: x, initramfs-tools-core: x, initramfs-tools-bin: x, dracut-install: x, \
                  klibc-utils: x, libklibc: x, linux-base: x, kmod: x}\n";
    let packages = [&["linux-image-amd64"], firmware].concat();
    let scratch = tempfile::tempdir().unwrap();
    match laid_out(&packages, fields, scratch.path()) {
        Ok(tree) => Some(tree),
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "{packages:?} of trixie: {error:#}, and CI is set");
            println!("SKIPPED: {packages:?} of trixie cannot be had: {error:#}");
            None
        }
    }
}

fn unpack(packages: &[&str], scratch: &Path, target: &Path) -> Result<()> {
    let tree = laid_out(packages, "debian: {suite: trixie}\n", scratch)?;
    tree.write_to_folder(target).context("writing the packages into a directory")
}

fn laid_out(packages: &[&str], fields: &str, scratch: &Path) -> Result<Tree> {
    let path = scratch.join("judge.yaml");
    let text = format!(
        "keller: 1\nid: judge\nversion: 1.0.0\n{fields}runtime: none\npackages: [{}]\n",
        packages.join(", ")
    );
    fs::write(&path, text)?;
    let manifest = manifest::load(&path).map_err(|errors| anyhow::anyhow!("{errors}"))?;
    let inputs = Inputs::default();
    let store = inputs.open_store(&Silent)?;
    let outside = Outside::new(&inputs);
    let means = Means { store: &store, settings: inputs.settings(), progress: &Silent };
    let resolved = Policy::Follow.resolved(&manifest, &scratch.join("judge.lock"), None, &outside, &means)?;
    let fetched = outside.fetch(&manifest, resolved, &means)?.resolved;
    Ok(laid::packages(&fetched.packages, fetched.epoch, &means)?.tree)
}

#[test]
fn systemd_of_trixie_runs_here() {
    for program in ["usr/bin/systemd-tmpfiles", "usr/bin/systemd-analyze", "usr/bin/systemd-sysusers"] {
        let Some(mut command) = trixie(&["systemd"], program) else { return };
        let said = super::tool::run(command.arg("--version"));
        assert!(said.starts_with("systemd 257 "), "{program}: {said}");
    }
}
