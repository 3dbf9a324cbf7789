//! What the EFI system partition holds, as a tree.
//!
//! ```text
//! EFI/BOOT/BOOTX64.EFI               systemd-boot, where firmware looks when nothing else is set up
//! EFI/systemd/systemd-bootx64.efi    the same, where `bootctl` looks
//! EFI/Linux/ID_VERSION.efi           the unified kernel image
//! loader/loader.conf                 settings of systemd-boot
//! loader/entries.srel                says that loader/entries has entries of type 1, of which there are none
//! ```
//!
//! There is no loader/random-seed: nothing writes to the ESP behind the updater's back, and Linux has other
//! sources by then.

use std::fmt;

use crate::tree::{Content, Tree, TreeError};

/// The menu does not wait: 0 s. Holding a key while the machine starts, e.g. the space bar, brings it up;
/// `e` there edits the command line for one boot, which is how `keller.etc=factory` and the like are given.
/// The editor is on since without Secure Boot whoever sits there could boot another disk anyhow; with Secure
/// Boot, systemd-stub ignores what was typed.
///
/// Nor is there a `default`: it would outrank the try counters, and the newest version that is not used up
/// is what must boot.
const LOADER_CONF: &str = "timeout 0\neditor yes\n";

/// The type of the entries in loader/entries, for `bootctl`.
const ENTRIES_SREL: &str = "type1\n";

/// Names a version's entry for the boot loader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryName<'a> {
    /// IMAGE_ID.
    pub id: &'a str,
    /// IMAGE_VERSION.
    pub version: &'a str,
    /// How often the loader may try it before it falls back. An entry of the factory has none: there is
    /// nothing to fall back to, tries would only be used up.
    pub tries: Option<u8>,
}

impl EntryName<'_> {
    /// Path on the ESP.
    pub fn path(&self) -> String {
        format!("EFI/Linux/{self}")
    }
}

impl fmt::Display for EntryName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.id, self.version)?;
        if let Some(tries) = self.tries {
            write!(f, "+{tries}")?;
        }
        f.write_str(".efi")
    }
}

/// The ESP of a new image. `loader` is `systemd-bootx64.efi`, `epoch` the time of all files in seconds since
/// 1970.
pub fn tree(
    epoch: i64,
    loader: &Content,
    id: &str,
    version: &str,
    uki: impl Into<Content>,
) -> Result<Tree, TreeError> {
    let mut tree = Tree::new(epoch);
    tree.file("EFI/BOOT/BOOTX64.EFI", 0o644, loader.clone())?;
    tree.file("EFI/systemd/systemd-bootx64.efi", 0o644, loader.clone())?;
    tree.file(EntryName { id, version, tries: None }.path(), 0o644, uki)?;
    tree.file("loader/loader.conf", 0o644, LOADER_CONF)?;
    tree.file("loader/entries.srel", 0o644, ENTRIES_SREL)?;
    tree.directory("loader/entries", 0o755)?;
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_firmware_and_loader_look() {
        let loader = Content::from("MZ");
        let tree = tree(0, &loader, "node", "1.0.0", "UKI").unwrap();
        let paths: Vec<_> =
            tree.walk().into_iter().map(|(path, _)| String::from_utf8(path).unwrap()).collect();
        assert_eq!(
            paths,
            [
                "",
                "EFI",
                "EFI/BOOT",
                "EFI/BOOT/BOOTX64.EFI",
                "EFI/Linux",
                "EFI/Linux/node_1.0.0.efi",
                "EFI/systemd",
                "EFI/systemd/systemd-bootx64.efi",
                "loader",
                "loader/entries",
                "loader/entries.srel",
                "loader/loader.conf",
            ]
        );
        let name = EntryName { id: "node", version: "2", tries: Some(3) };
        assert_eq!(name.path(), "EFI/Linux/node_2+3.efi");
    }
}
