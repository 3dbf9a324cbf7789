//! Which QEMU runs, and with which firmware: the host's, or Debian's packages unpacked in a folder.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{QemuError, settings};

/// QEMU and UEFI firmware.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    path: PathBuf,
    /// The folder of an unpacked Debian tree that holds QEMU and every library it needs.
    tree: Option<PathBuf>,
    firmware: PathBuf,
    variables: PathBuf,
}

/// The packages that an unpacked QEMU is made of, with what they depend on.
pub(crate) const PACKAGES: [&str; 2] = ["qemu-system-x86", "ovmf"];

/// Where distributions keep UEFI firmware.
const FIRMWARE: &str = include_str!("../../qemu/firmware.paths");

const NAME: &str = "qemu-system-x86_64";

fn firmware_in(root: &Path) -> Option<(PathBuf, PathBuf)> {
    settings(FIRMWARE)
        .filter_map(|words| match words[..] {
            [code, variables] => Some((root.join(code), root.join(variables))),
            _ => None,
        })
        .find(|(code, variables)| code.is_file() && variables.is_file())
}

impl Program {
    /// The given programs and files.
    pub(crate) fn on_path(path: PathBuf, firmware: PathBuf, variables: PathBuf) -> Self {
        Self { path, tree: None, firmware, variables }
    }

    /// The host's own, looked up in `search_path` (the form of PATH). Nothing when either is missing.
    pub(crate) fn find(search_path: &std::ffi::OsStr) -> Option<Self> {
        let path =
            std::env::split_paths(search_path).map(|folder| folder.join(NAME)).find(|path| path.is_file())?;
        let (firmware, variables) = firmware_in(Path::new("/"))?;
        Some(Self::on_path(path, firmware, variables))
    }

    /// Debian's packages unpacked below `tree`.
    ///
    /// # Errors
    /// `Missing` when a part is not there.
    pub(crate) fn in_tree(tree: &Path) -> Result<Self, QemuError> {
        let path = tree.join("usr/bin").join(NAME);
        if !path.is_file() {
            return Err(QemuError::Missing { what: NAME.to_owned() });
        }
        let (firmware, variables) = firmware_in(tree)
            .ok_or_else(|| QemuError::Missing { what: "UEFI firmware (ovmf)".to_owned() })?;
        Ok(Self { path, tree: Some(tree.to_owned()), firmware, variables })
    }

    /// Whether it is that of Debian's packages, which are those of trixie or later.
    pub(crate) fn is_unpacked(&self) -> bool {
        self.tree.is_some()
    }

    /// The program itself, for messages.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// UEFI code.
    pub(crate) fn firmware(&self) -> &Path {
        &self.firmware
    }

    /// Blank UEFI variables, to be copied for each machine.
    pub(crate) fn variables(&self) -> &Path {
        &self.variables
    }

    /// Folders with QEMU's own data, in the order of search.
    pub(crate) fn data_folders(&self) -> Vec<PathBuf> {
        let folders = ["usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"];
        self.tree.iter().flat_map(|tree| folders.map(|folder| tree.join(folder))).collect()
    }

    /// The command without arguments. An unpacked QEMU is started by its own loader with its own libraries,
    /// so that it runs on any host.
    pub(crate) fn command(&self) -> Command {
        let Some(tree) = &self.tree else { return Command::new(&self.path) };
        let libraries = tree.join("usr/lib/x86_64-linux-gnu");
        let mut command = Command::new(tree.join("usr/lib64/ld-linux-x86-64.so.2"));
        let path = format!("{}:{}", libraries.display(), libraries.join("pulseaudio").display());
        command.args(["--argv0", NAME, "--library-path", &path]).arg(&self.path);
        command.env("QEMU_MODULE_DIR", libraries.join("qemu"));
        command
    }
}
