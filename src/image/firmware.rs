//! Firmware that modules of the initramfs declare, as the root has it.

use std::collections::BTreeSet;

use anyhow::{Result, bail};

use super::Job;
use crate::base::{Digest, Size, limits};
use crate::boot::initramfs::Firmware;
use crate::boot::modules::matches;
use crate::tree::{Content, Kind, Tree, show};

/// Where the kernel looks (drivers/base/firmware_loader/main.c), the first place that has a file counts.
const FOLDERS: [&str; 2] = ["usr/lib/firmware/updates", "usr/lib/firmware"];
/// In the kernel's order: plain, zstd, xz.
const ENDS: [&str; 3] = ["", ".zst", ".xz"];

/// What may still be found and looked at of the firmware of all modules.
pub(super) struct Left {
    files: usize,
    looks: usize,
}

impl Default for Left {
    fn default() -> Self {
        Self { files: limits::FIRMWARE_FILES, looks: limits::FIRMWARE_LOOKS }
    }
}

impl Left {
    /// Takes `files` in, and `looks`, for the name `name`.
    fn take(&mut self, name: &str, files: usize, looks: usize) -> Result<()> {
        let Some(left) = self.files.checked_sub(files) else {
            bail!(
                "all modules together declare more than {} files of firmware, with {name}: leave the package out, or \
                 `prune` modules",
                limits::FIRMWARE_FILES
            );
        };
        let Some(looks) = self.looks.checked_sub(looks) else {
            bail!(
                "the patterns of firmware of all modules, with {name}, are compared with names in more than {} steps: \
                 leave the package out, or `prune` modules",
                limits::FIRMWARE_LOOKS
            );
        };
        *self = Self { files: left, looks };
        Ok(())
    }
}

/// What `tree` has of the names that a module declares, each once; a name may be a pattern, as `brcm/brcmfmac*.bin` is.
///
/// # Errors
/// More than all modules may declare.
pub(super) fn of(tree: &Tree, declared: &[String], left: &mut Left) -> Result<Vec<Firmware>> {
    let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
    for name in declared.iter().filter(|name| seen.insert(*name)) {
        if !name.contains(['*', '?', '[']) {
            left.take(name, 1, 0)?;
            found.push(Firmware { name: name.clone(), body: body(tree, name) });
            continue;
        }
        let mut names = matching(tree, name, left)?;
        if names.is_empty() {
            found.push(Firmware { name: name.clone(), body: None });
        }
        names.sort();
        names.dedup();
        left.take(name, names.len().max(1), 0)?;
        found.extend(names.into_iter().map(|name| Firmware { body: body(tree, &name), name }));
    }
    Ok(found)
}

fn body(tree: &Tree, name: &str) -> Option<Content> {
    FOLDERS.iter().flat_map(|folder| ENDS.map(|end| format!("{folder}/{name}{end}"))).find_map(|path| {
        match tree.resolve(&path).map(|id| &tree.node(id).kind) {
            Ok(Kind::File(content)) => Some(content.clone()),
            _ => None,
        }
    })
}

/// Names in the folder of a pattern: the kernel's own are patterns in their last part only.
fn matching(tree: &Tree, pattern: &str, left: &mut Left) -> Result<Vec<String>> {
    let (folder, last) = pattern.rsplit_once('/').map_or(("", pattern), |(folder, last)| (folder, last));
    let mut names = Vec::new();
    for root in FOLDERS {
        let Ok(id) = tree.resolve(format!("{root}/{folder}").trim_end_matches('/')) else { continue };
        // A name of a file is at most as long as the kernel has them, whatever the pattern is.
        left.take(pattern, 0, tree.children(id).count() * last.len())?;
        for (name, _) in tree.children(id) {
            let name = show(name);
            let plain = ENDS[1..].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(&name);
            if matches(last, plain) {
                names.push(if folder.is_empty() { plain.to_owned() } else { format!("{folder}/{plain}") });
            }
        }
    }
    Ok(names)
}

/// Tells what comes along and what is missing; gives a text that names every byte. What is missing for a module
/// that the manifest names (`named`) is for a person to see; most that keller takes by itself do without.
pub(super) fn settle(job: &Job<'_>, firmware: &[(String, Firmware)], named: bool) -> Result<String> {
    let mut key = String::new();
    let (mut names, mut missing) = (Vec::new(), Vec::new());
    let mut size = 0;
    for (module, Firmware { name, body }) in firmware {
        match body {
            Some(body) => {
                key += &format!("{name} {}\n", Digest::of_reader(&mut body.reader())?.0);
                size += body.len();
                names.push(name.as_str());
            }
            None => missing.push(format!("{name} ({module})")),
        }
    }
    if !names.is_empty() {
        let size = Size(size).human();
        job.means
            .progress
            .detail(&format!("the initramfs has firmware of its modules, {size}: {}", names.join(", ")));
    }
    if !missing.is_empty() {
        let text = format!(
            "the root has no firmware that modules of the initramfs may ask for: {}",
            missing.join(", ")
        );
        match named {
            false => job.means.progress.detail(&text),
            true => job.means.progress.note(&text),
        }
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_patterns_and_compressed_forms() {
        let mut tree = Tree::new(0);
        let mut put =
            |path: &str| drop(tree.file(format!("usr/lib/firmware/{path}"), 0o644, path.as_bytes()));
        for path in ["a.bin.xz", "updates/b.bin", "b.bin", "ql/one.fw", "ql/two.fw.zst", "ql/other"] {
            put(path);
        }
        tree.symlink("usr/lib/firmware/link.bin", "ql/other").unwrap();
        let declared = ["a.bin", "b.bin", "link.bin", "none.bin", "ql/*.fw", "no*"].map(str::to_owned);
        let found = of(&tree, &declared, &mut Left::default()).unwrap();
        let seen: Vec<_> = found
            .iter()
            .map(|one| {
                let body = one.body.as_ref().map(|body| String::from_utf8(body.to_vec().unwrap()).unwrap());
                (one.name.as_str(), body.unwrap_or_default())
            })
            .collect();
        let expected = [
            ("a.bin", "a.bin.xz"),
            ("b.bin", "updates/b.bin"),
            ("link.bin", "ql/other"),
            ("none.bin", ""),
            ("ql/one.fw", "ql/one.fw"),
            ("ql/two.fw", "ql/two.fw.zst"),
            ("no*", ""),
        ];
        assert_eq!(seen, expected.map(|(name, body)| (name, body.to_owned())));
    }

    #[test]
    fn patterns_have_sums() {
        let mut tree = Tree::new(0);
        for number in 0..300 {
            tree.file(format!("usr/lib/firmware/{}{number}", "x".repeat(100)), 0o644, "").unwrap();
        }
        let patterns = |count: usize| (0..count).map(|number| "?".repeat(number) + "*").collect::<Vec<_>>();
        let mut left = Left::default();
        assert_eq!(of(&tree, &patterns(60), &mut left).unwrap().len(), 18_000);
        // All modules share what is left; a name that one declares again is not looked for again.
        let error = of(&tree, &patterns(10), &mut left).unwrap_err().to_string();
        let told = "all modules together declare more than 20000 files of firmware, with ??????*: ";
        assert!(error.starts_with(told), "{error}");
        assert_eq!(of(&tree, &vec!["*".to_owned(); 1000], &mut Left::default()).unwrap().len(), 300);
        let long: Vec<String> = (0..100).map(|number| "*y".repeat(200 + number)).collect();
        let error = of(&tree, &long, &mut Left::default()).unwrap_err().to_string();
        assert!(error.contains("are compared with names in more than"), "{error}");
    }
}
