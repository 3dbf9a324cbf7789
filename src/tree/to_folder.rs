//! A tree written out as a folder of the host, by an ordinary user: programs that keller itself runs.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use super::{Kind, Tree};

impl Tree {
    /// Writes folders, files, links and hard links below `folder`, which must exist and be empty. Owners,
    /// extended attributes, setuid bits, devices and sockets are left out: an ordinary user may not make
    /// them, and tools need none of them.
    ///
    /// # Errors
    /// What the disk says, with the path in the message.
    pub fn write_to_folder(&self, folder: &Path) -> io::Result<()> {
        let mut first_names: Vec<Option<PathBuf>> = vec![None; self.capacity()];
        for (path, id) in self.walk() {
            let target = folder.join(Path::new(std::ffi::OsStr::from_bytes(&path)));
            let node = self.node(id);
            let result = match (&node.kind, &first_names[id.index()]) {
                (Kind::Directory(_), _) if path.is_empty() => Ok(()),
                (Kind::Directory(_), _) => fs::create_dir(&target),
                (Kind::File(_), Some(first)) => fs::hard_link(first, &target),
                (Kind::File(content), None) => {
                    first_names[id.index()] = Some(target.clone());
                    let mode = u32::from(node.meta.mode) & 0o755 | 0o600;
                    let mut options = OpenOptions::new();
                    let file = options.write(true).create_new(true).mode(mode).open(&target);
                    file.and_then(|mut file| io::copy(&mut content.reader(), &mut file)).map(drop)
                }
                (Kind::Symlink(link), _) => symlink(std::ffi::OsStr::from_bytes(link), &target),
                _ => Ok(()),
            };
            result.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", target.display())))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_files_and_links() {
        let mut tree = Tree::new(0);
        let id = tree.file("a/b", 0o4755, "body").unwrap();
        tree.link("c", id).unwrap();
        tree.symlink("d", "a/b").unwrap();
        let folder = tempfile::tempdir().unwrap();
        tree.write_to_folder(folder.path()).unwrap();
        for name in ["a/b", "c", "d"] {
            assert_eq!(fs::read_to_string(folder.path().join(name)).unwrap(), "body");
        }
    }
}
