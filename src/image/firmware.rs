//! Firmware that modules of the initramfs declare, as the root has it.

use anyhow::Result;

use super::Job;
use crate::base::{Digest, Size};
use crate::boot::initramfs::Firmware;
use crate::boot::modules::matches;
use crate::tree::{Content, Kind, Tree, show};

/// Where the kernel looks (drivers/base/firmware_loader/main.c), the first place that has a file counts.
const FOLDERS: [&str; 2] = ["usr/lib/firmware/updates", "usr/lib/firmware"];
/// In the kernel's order: plain, zstd, xz.
const ENDS: [&str; 3] = ["", ".zst", ".xz"];

/// What `tree` has of the names that a module declares; a name may be a pattern, as `brcm/brcmfmac*.bin` is.
pub(super) fn of(tree: &Tree, declared: &[String]) -> Vec<Firmware> {
    let mut found = Vec::new();
    for name in declared {
        if !name.contains(['*', '?', '[']) {
            found.push(Firmware { name: name.clone(), body: body(tree, name) });
            continue;
        }
        let mut names = matching(tree, name);
        if names.is_empty() {
            found.push(Firmware { name: name.clone(), body: None });
        }
        names.sort();
        names.dedup();
        found.extend(names.into_iter().map(|name| Firmware { body: body(tree, &name), name }));
    }
    found
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
fn matching(tree: &Tree, pattern: &str) -> Vec<String> {
    let (folder, last) = pattern.rsplit_once('/').map_or(("", pattern), |(folder, last)| (folder, last));
    let mut names = Vec::new();
    for root in FOLDERS {
        let Ok(id) = tree.resolve(format!("{root}/{folder}").trim_end_matches('/')) else { continue };
        for (name, _) in tree.children(id) {
            let name = show(name);
            let plain = ENDS[1..].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(&name);
            if matches(last, plain) {
                names.push(if folder.is_empty() { plain.to_owned() } else { format!("{folder}/{plain}") });
            }
        }
    }
    names
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
        let found = of(&tree, &declared);
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
}
