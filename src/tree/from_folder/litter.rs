//! What version control, desktops and editors leave in a directory of sources.

/// By their whole name.
const NAMES: [&str; 13] = [
    ".git",
    ".gitattributes",
    ".gitignore",
    ".gitmodules",
    ".hg",
    ".svn",
    ".bzr",
    "CVS",
    ".DS_Store",
    ".directory",
    "Thumbs.db",
    "desktop.ini",
    ".idea",
];

/// By the beginning and end of their name: backups and autosaves of Emacs and others, its locks, swap files of
/// Vim, NFS's deleted files that are open, AppleDouble.
const PATTERNS: [(&str, &str); 8] = [
    ("", "~"),
    ("#", "#"),
    (".#", ""),
    (".", ".swp"),
    (".", ".swo"),
    (".", ".swx"),
    (".nfs", ""),
    ("._", ""),
];

/// Whether a name is one that no package has and nobody means to have on a node.
pub(super) fn is_litter(name: &[u8]) -> bool {
    let fits = |(start, end): &(&str, &str)| {
        name.len() > start.len() + end.len()
            && name.starts_with(start.as_bytes())
            && name.ends_with(end.as_bytes())
    };
    NAMES.iter().any(|known| known.as_bytes() == name) || PATTERNS.iter().any(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for name in [".git", "x~", "#x#", ".#x", ".x.swp", "._x", ".nfs0001", "Thumbs.db"] {
            assert!(is_litter(name.as_bytes()), "{name}");
        }
        for name in ["git", "~", "#", "##", ".swp", "x.swp", "x.bak", "x#", ".config", ".meta", ".nfs"] {
            assert!(!is_litter(name.as_bytes()), "{name}");
        }
    }
}
