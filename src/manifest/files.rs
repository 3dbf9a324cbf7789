//! Where manifests and overlays lie: on disk or inside the binary.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::embedded;
use crate::base::input;

/// What begins a path into the binary: `keller:manifests/components/base.yaml`.
pub const EMBEDDED: &str = "keller:";

/// Text beyond this is no manifest: the largest that ships has a few KiB.
pub const LARGEST: u64 = 1 << 20;

/// A file or folder, on disk or inside the binary.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Location {
    /// As the user would name it; relative to the working folder or absolute.
    Disk(PathBuf),
    /// Relative to the root of the embedded set: `manifests/…`, `overlays/…` or `qemu/…`.
    Embedded(String),
}

/// What is at a location.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// Neither.
    Other,
}

/// Removes `.` and folds `..` by text alone. On disk that holds only without symbolic links to folders,
/// so there it is for shown names only.
fn fold(path: &Path) -> PathBuf {
    let mut folded = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if matches!(folded.components().next_back(), Some(Component::Normal(_))) => {
                folded.pop();
            }
            part => folded.push(part),
        }
    }
    folded
}

impl Location {
    /// What `text` means when the file at `self` says it.
    pub fn resolve(&self, text: &str) -> Self {
        if let Some(inside) = text.strip_prefix(EMBEDDED) {
            return Self::Embedded(fold(Path::new(inside)).to_string_lossy().into_owned());
        }
        match self {
            Self::Disk(file) => Self::Disk(file.parent().unwrap_or(Path::new("")).join(text)),
            Self::Embedded(file) => {
                let joined = Path::new(file).parent().unwrap_or(Path::new("")).join(text);
                Self::Embedded(fold(&joined).to_string_lossy().into_owned())
            }
        }
    }

    /// What is there, if anything.
    pub fn kind(&self) -> Option<Kind> {
        match self {
            Self::Disk(path) => {
                let metadata = fs::metadata(path).ok()?;
                Some(match () {
                    () if metadata.is_file() => Kind::File,
                    () if metadata.is_dir() => Kind::Folder,
                    () => Kind::Other,
                })
            }
            Self::Embedded(path) if embedded::file(path).is_some() => Some(Kind::File),
            Self::Embedded(path) => embedded::under(path).next().map(|_| Kind::Folder),
        }
    }

    /// The bytes of a manifest file.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        match self {
            Self::Disk(path) => {
                let large = |_| io::Error::new(io::ErrorKind::FileTooLarge, "larger than 1 MiB");
                let is_large = |error: &io::Error| error.kind() == io::ErrorKind::FileTooLarge;
                input::read(path, LARGEST)
                    .map_err(|error| if is_large(&error) { large(error) } else { error })
            }
            Self::Embedded(path) => match embedded::file(path) {
                Some(file) => Ok(file.bytes.to_vec()),
                None => Err(io::Error::new(io::ErrorKind::NotFound, "not inside this keller")),
            },
        }
    }

    /// One name for one file, however it is reached.
    pub fn identity(&self) -> Self {
        match self {
            Self::Disk(path) => Self::Disk(fs::canonicalize(path).unwrap_or_else(|_| path.clone())),
            Self::Embedded(_) => self.clone(),
        }
    }

    /// The path by which people know it.
    pub fn name(&self) -> PathBuf {
        match self {
            Self::Disk(path) => fold(path),
            Self::Embedded(path) => PathBuf::from(format!("{EMBEDDED}{path}")),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name().display().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolves_beside_the_file_that_speaks() {
        let disk = Location::Disk("a/b.yaml".into());
        assert_eq!(disk.resolve("../c").to_string(), "c");
        assert_eq!(disk.resolve("/c"), Location::Disk("/c".into()));
        assert_eq!(disk.resolve("keller:manifests/../overlays/x"), Location::Embedded("overlays/x".into()));
        let embedded = Location::Embedded("manifests/components/base.yaml".into());
        assert_eq!(embedded.resolve("../../overlays/base"), Location::Embedded("overlays/base".into()));
        assert_eq!(embedded.resolve("../node.yaml").to_string(), "keller:manifests/node.yaml");
    }
}
