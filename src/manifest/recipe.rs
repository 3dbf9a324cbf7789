//! What a tree is made of. The root of a node and the image of a container have the same recipe.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

use super::{Place, Said};
use crate::base::Digest;

/// What a tree is made of, after every value was checked.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Recipe {
    /// Names of wanted packages, each with the place that asked, for explanations.
    pub packages: BTreeMap<String, Place>,
    /// Packages taken as present without being unpacked, each with its reason.
    pub assume: BTreeMap<String, String>,
    /// Absolute path patterns (`*` stays within a directory, `**` does not) of what is left out.
    pub prune: Vec<String>,
    /// Exceptions to `prune`, same form.
    pub keep: Vec<String>,
    /// File trees laid over the packages, in this order.
    pub overlays: Vec<Overlay>,
    /// Single files, links and directories.
    pub files: Vec<FileEntry>,
    /// Accounts that packages make in a postinst, told here since no script runs.
    pub system_users: Vec<SystemUser>,
    /// Groups beyond those that packages bring.
    pub groups: Vec<Group>,
    /// What may give others rights.
    pub allowed: Allowed,
    /// Libraries (`libfoo.so.1`) whose absence is accepted, each with its reason.
    pub missing_libraries: BTreeMap<String, String>,
    /// Where it says what.
    #[serde(skip)]
    pub said: Said,
}

/// A file tree laid over the root.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Overlay {
    /// The tree: a directory on disk or one that is embedded in keller.
    pub source: OverlaySource,
    /// Whether files of packages may be replaced; else they are conflicts.
    pub replace: bool,
}

/// Where an overlay's files are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum OverlaySource {
    /// Absolute path of a directory.
    Folder(PathBuf),
    /// Name of an overlay inside the binary, e.g. `base`.
    Embedded(String),
}

/// One entry of `files:`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FileEntry {
    /// Absolute path on the node.
    pub path: String,
    /// What is there.
    pub content: FileContent,
    /// Permission bits; default 0644 for files, 0755 for directories.
    pub mode: Option<u16>,
    /// Owner by name; root by default, or for [`FileContent::Existing`] whose it is.
    pub owner: Option<String>,
    /// Group by name, the same.
    pub group: Option<String>,
    /// Clauses that [`crate::base::capabilities::Capabilities`] reads.
    pub capabilities: Vec<String>,
    /// Whether a file of a package or an overlay may be replaced.
    pub replace: bool,
}

/// What an entry of `files:` puts at its path.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum FileContent {
    /// These very characters.
    Text(String),
    /// A file beside the manifest, absolute path.
    Source(PathBuf),
    /// Fetched, verified.
    Url {
        /// http, https or file.
        url: String,
        /// What it must be.
        sha256: Digest,
    },
    /// A symbolic link to this target.
    Link(String),
    /// A directory.
    Directory,
    /// What a package or an overlay has there, with another mode or owner.
    Existing,
}

/// An account that a service runs as.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SystemUser {
    /// Login and group name.
    pub name: String,
    /// A fixed id below 1000; else one is chosen and recorded in the lock.
    pub uid: Option<u32>,
    /// Home directory, `/` by default.
    pub home: String,
    /// Further groups by name.
    pub groups: Vec<String>,
    /// Shown name.
    pub description: String,
}

/// A group of the system.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// A fixed number below 1000; else one is chosen and recorded in the lock.
    pub gid: Option<u32>,
}

/// What may give others rights, by absolute path in an image: any other fails the build.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Allowed {
    /// Patterns of what may be setuid or setgid or carry capabilities.
    pub setuid: Vec<String>,
    /// Patterns of device nodes that may be there.
    pub device_nodes: Vec<String>,
    /// Patterns of files that everybody may write to, and of such directories without the sticky bit.
    pub world_writable: Vec<String>,
}
