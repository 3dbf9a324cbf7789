//! A machine's own disk: a layer over its image, which stays as it is, and the firmware's variables.

use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::base::{AtomicFile, input, limits};
use crate::output::qcow2;
use crate::qemu::machine::DiskFormat;

/// Where a machine's disk and variables lie, and what they are made of.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    /// The machine's directory.
    pub(crate) directory: PathBuf,
    /// Absolute.
    pub(crate) image: PathBuf,
    /// The image's format.
    pub(crate) format: DiskFormat,
    /// Of the disk, in bytes.
    pub(crate) size: u64,
    /// The firmware's blank variables.
    pub(crate) blank: PathBuf,
}

/// What is known of the image that a kept disk lies over; another image below it would be another disk.
const RECORD: &str = "disk.json";

impl Layer {
    /// The disk.
    pub(crate) fn disk(&self) -> PathBuf {
        self.directory.join("disk.qcow2")
    }

    /// The firmware's variables.
    pub(crate) fn variables(&self) -> PathBuf {
        self.directory.join("uefi-vars")
    }

    /// Makes both anew. With `keep`, a later lab may go on with them.
    ///
    /// # Errors
    /// Those of the system.
    pub(crate) fn make(&self, keep: bool) -> io::Result<()> {
        self.remove()?;
        let put = |file: AtomicFile| if keep { file.commit() } else { file.commit_unsynced() };
        let disk = AtomicFile::create(&self.disk())?;
        qcow2::layer(disk.file(), self.size, self.image.as_os_str().as_bytes(), self.format.name())?;
        put(disk)?;
        let mut variables = AtomicFile::create(&self.variables())?;
        variables.file_mut().write_all(&input::read(&self.blank, limits::TEXT)?)?;
        put(variables)?;
        if keep {
            // Last: a disk with a record is whole.
            let mut record = AtomicFile::create(&self.directory.join(RECORD))?;
            record.file_mut().write_all(self.record()?.as_bytes())?;
            record.commit()?;
        }
        Ok(())
    }

    /// Throws both away.
    ///
    /// # Errors
    /// Those of the system.
    pub(crate) fn remove(&self) -> io::Result<()> {
        // First: what is left of a disk without a record belongs to nobody.
        for path in [self.directory.join(RECORD), self.disk(), self.variables()] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether an earlier lab kept a disk here.
    pub(crate) fn is_kept(&self) -> bool {
        self.directory.join(RECORD).exists()
    }

    /// Whether the disk that was kept lies over this very image and has this size.
    ///
    /// # Errors
    /// Those of the system.
    pub(crate) fn fits(&self) -> io::Result<bool> {
        Ok(input::read_text(self.directory.join(RECORD), limits::TEXT)? == self.record()?)
    }

    fn record(&self) -> io::Result<String> {
        use std::os::unix::fs::MetadataExt;
        let image = fs::metadata(&self.image)?;
        Ok(format!(
            "{}\n",
            serde_json::json!({
                "image": self.image,
                "bytes": image.len(),
                "modified": [image.mtime(), image.mtime_nsec()],
                "inode": image.ino(),
                "size": self.size,
            })
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_disk_knows_its_image() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("x.raw");
        fs::write(&image, [0; 4096]).unwrap();
        fs::write(folder.path().join("blank"), "blank").unwrap();
        let layer = Layer {
            directory: folder.path().to_owned(),
            image: image.clone(),
            format: DiskFormat::Raw,
            size: 1 << 20,
            blank: folder.path().join("blank"),
        };
        layer.make(false).unwrap();
        assert!(!layer.is_kept() && layer.disk().exists() && layer.variables().exists());
        layer.make(true).unwrap();
        assert!(layer.is_kept() && layer.fits().unwrap());
        assert!(!Layer { size: 2 << 20, ..layer.clone() }.fits().unwrap());
        // Another image of the same name, as a build leaves it.
        fs::write(folder.path().join("new"), [1; 4096]).unwrap();
        fs::rename(folder.path().join("new"), &image).unwrap();
        assert!(!layer.fits().unwrap());
        layer.remove().unwrap();
        assert!(!layer.is_kept() && !layer.disk().exists() && !layer.variables().exists());
        layer.remove().unwrap();
    }
}
