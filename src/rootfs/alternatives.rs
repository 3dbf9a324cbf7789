//! Names that update-alternatives, or a postinst of its own, would link to one of several programs.

use super::error::Error;
use crate::tree::Tree;

/// Name and candidates, best first. Links are made only where the name is free and a candidate is there.
const CHOICES: [(&str, &[&str]); 9] = [
    ("/usr/bin/sh", &["/usr/bin/dash", "/usr/bin/bash", "/usr/bin/busybox"]),
    ("/usr/bin/awk", &["/usr/bin/mawk", "/usr/bin/gawk", "/usr/bin/original-awk"]),
    ("/usr/bin/nawk", &["/usr/bin/mawk", "/usr/bin/gawk", "/usr/bin/original-awk"]),
    ("/usr/bin/pager", &["/usr/bin/less", "/usr/bin/more"]),
    ("/usr/bin/which", &["/usr/bin/which.debianutils", "/usr/bin/which.gnu"]),
    ("/usr/sbin/rmt", &["/usr/sbin/rmt-tar", "/usr/sbin/rmt-cpio"]),
    ("/usr/bin/nc", &["/usr/bin/nc.openbsd", "/usr/bin/nc.traditional"]),
    ("/usr/bin/vi", &["/usr/bin/vim.basic", "/usr/bin/vim.tiny", "/usr/bin/nvi"]),
    ("/usr/bin/telnet", &["/usr/bin/inetutils-telnet"]),
];
/// Each with its `-save` and `-restore`, and with two ways to talk to the kernel.
const FILTERS: [&str; 4] = ["iptables", "ip6tables", "arptables", "ebtables"];

/// Makes the links.
pub fn write(tree: &mut Tree) -> Result<(), Error> {
    for (name, candidates) in CHOICES {
        choose(tree, name, candidates)?;
    }
    for filter in FILTERS {
        for part in ["", "-save", "-restore"] {
            let candidates = ["nft", "legacy"].map(|way| format!("/usr/sbin/{filter}-{way}{part}"));
            choose(tree, &format!("/usr/sbin/{filter}{part}"), &candidates)?;
        }
    }
    Ok(())
}

fn choose(tree: &mut Tree, name: &str, candidates: &[impl AsRef<str>]) -> Result<(), Error> {
    if tree.exists(name) {
        return Ok(());
    }
    let folder = |path: &str| path.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
    if let Some(found) = candidates.iter().map(AsRef::as_ref).find(|path| tree.resolve(path).is_ok()) {
        // All candidates lie beside the name: a relative link is right in every root.
        debug_assert_eq!(folder(name), folder(found));
        tree.symlink(name, found.rsplit('/').next().unwrap_or(found))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn best_candidate_that_is_there() {
        let mut tree = Tree::new(0);
        for path in ["usr/bin/bash", "usr/bin/more", "usr/sbin/iptables-nft", "usr/sbin/iptables-legacy"] {
            tree.file(path, 0o755, path).unwrap();
        }
        tree.file("usr/bin/which", 0o755, "mine").unwrap();
        tree.file("usr/bin/which.debianutils", 0o755, "theirs").unwrap();
        write(&mut tree).unwrap();
        assert_eq!(tree.read("usr/bin/sh").unwrap(), b"usr/bin/bash");
        assert_eq!(tree.read("usr/bin/pager").unwrap(), b"usr/bin/more");
        assert_eq!(tree.read("usr/sbin/iptables").unwrap(), b"usr/sbin/iptables-nft");
        assert_eq!(tree.read("usr/bin/which").unwrap(), b"mine");
        assert!(!tree.exists("usr/sbin/ip6tables") && !tree.exists("usr/bin/awk"));
    }
}
