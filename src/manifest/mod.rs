//! What a user asked for, validated. YAML in, [`Manifest`] out; nothing here has looked at a repository.
//!
//! `yaml` reads text into a tree with places, `shape` compares that with the schema, `merge` joins a file with
//! what it includes, `decode` makes the types of `raw` out of the result, and `validate` makes a [`Manifest`].
//! Each goes on after an error, so that all are told at once.

mod decode;
pub mod diagnostic;
pub mod embedded;
pub mod files;
mod merge;
mod place;
mod raw;
mod said;
pub mod schema;
mod shape;
mod validate;
mod yaml;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::base::window::Window;
use crate::base::{Digest, Signal, Size};

pub use diagnostic::{Diagnostic, Diagnostics};
use files::Location;
pub use said::Said;

/// The manifest that is built where none is named; see [`load_embedded`].
pub const DEFAULT: &str = "manifests/node.yaml";

/// Whether `text` can be the name of an image.
pub fn is_id(text: &str) -> bool {
    validate::text::id(text).is_ok()
}

/// `text`, if it can be a version.
///
/// # Errors
/// What is wrong with it and what would be right.
pub fn parse_version(text: &str) -> Result<String, String> {
    match validate::text::version(text) {
        Ok(()) => Ok(text.to_owned()),
        Err(wrong) => Err(format!("{}: {}", wrong.what, wrong.help)),
    }
}

/// Reads the manifest at `path` with all that it includes; or tells everything that is wrong.
pub fn load(path: &Path) -> Result<Manifest, Diagnostics> {
    read(Location::Disk(path.to_owned()))
}

/// Reads a manifest that the binary carries, such as `manifests/node.yaml`.
pub fn load_embedded(name: &str) -> Result<Manifest, Diagnostics> {
    read(Location::Embedded(name.to_owned()))
}

/// Packages that the components which the binary carries name: what they need is said there.
pub fn carried_packages() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for file in embedded::under("manifests/components") {
        let mut report = diagnostic::Report::default();
        let mut sum = place::Sum::default();
        let node = yaml::decode(0, file.bytes, &mut report)
            .and_then(|text| yaml::read(0, text, &mut sum, &mut report));
        let node = node.expect("a test reads every component");
        names.extend(merge::names(&node, "packages").map(|(name, _)| name.to_owned()));
    }
    names
}

fn read(location: Location) -> Result<Manifest, Diagnostics> {
    let mut sources = place::Sources::default();
    let mut report = diagnostic::Report::default();
    let folder = match location.identity() {
        Location::Disk(path) => path.parent().map(Path::to_owned).unwrap_or_default(),
        Location::Embedded(_) => PathBuf::new(),
    };
    let schema = schema::manifest();
    let manifest = match merge::Loader::new(&mut sources, &mut report, &schema).load(location, None) {
        None => None,
        Some(node) => match decode::decode(&node) {
            Ok(raw) => {
                let mut validator = validate::Validator::new(&mut sources, &mut report);
                Some(validator.manifest(raw, node.mark, &folder))
            }
            Err(fault) => {
                report.error(fault.mark.unwrap_or(node.mark), fault.message);
                None
            }
        },
    };
    match manifest {
        Some(manifest) if report.is_empty() => Ok(manifest),
        _ => Err(report.finish(&sources)),
    }
}

impl Manifest {
    /// Whether `unit`, which is to be enabled, need not be there: only components inside the binary enable it,
    /// and the manifest takes packages away by an `assume` or a `prune` of its own.
    pub fn may_lack(&self, unit: &str) -> bool {
        let takes_away = self.assume.keys().any(|name| !self.said.is_carried("assume", name))
            || self.prune.iter().any(|pattern| !self.carried_prune.contains(pattern));
        takes_away && self.said.is_carried("services.enable", unit)
    }

    /// The same node as version `version`.
    ///
    /// # Errors
    /// As for the field `version`: what is wrong and what would be right.
    pub fn with_version(self, version: &str) -> Result<Self, String> {
        let version = parse_version(version)?;
        match validate::fits_label(&self.id, &version) {
            true => Ok(Self { version, ..self }),
            false => Err(format!(
                "id {} and version {version} are too long together: at most {} characters: they name partitions",
                self.id,
                validate::LABEL_ROOM
            )),
        }
    }
}

/// A whole node, after includes were merged and every value was checked.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Manifest {
    /// Absolute folder of the manifest, empty when the binary carries it; not part of what is digested.
    #[serde(skip)]
    pub folder: PathBuf,
    /// Name of the image: `[a-z0-9-]`, used in labels, file names and os-release's IMAGE_ID.
    pub id: String,
    /// Version as the UAPI version format knows it; no `+`, `_`, `/` or white space.
    pub version: String,
    /// Where packages come from.
    pub debian: Debian,
    /// Package names that are wanted, each with the place that asked, for explanations.
    pub packages: BTreeMap<String, Place>,
    /// Packages taken as present without being unpacked, each with its reason.
    pub assume: BTreeMap<String, String>,
    /// Absolute path patterns (`*` stays within a folder, `**` does not) of what is left out.
    pub prune: Vec<String>,
    /// Those of `prune` that only components inside the binary have: they fit many nodes, so one that
    /// matches nothing is nobody's mistake.
    #[serde(skip)]
    pub carried_prune: BTreeSet<String>,
    /// Exceptions to `prune`, same form.
    pub keep: Vec<String>,
    /// File trees laid over the root, in this order.
    pub overlays: Vec<Overlay>,
    /// Single files, links and folders.
    pub files: Vec<FileEntry>,
    /// Accounts beyond those that packages bring.
    pub users: Vec<User>,
    /// Accounts that packages make in a postinst, told here since no script runs; system users.
    pub system_users: Vec<SystemUser>,
    /// Groups beyond those that packages bring.
    pub groups: Vec<Group>,
    /// Units.
    pub services: Services,
    /// Kernel and what the initramfs carries.
    pub kernel: Kernel,
    /// Whether changes to /etc outlive a reboot.
    pub etc: Etc,
    /// What runs containers.
    pub runtime: Runtime,
    /// Containers inside the verified root.
    pub containers: Vec<Container>,
    /// Key-value store, if any.
    pub kv: Option<Kv>,
    /// When a boot counts as good.
    pub health: Health,
    /// Sizes on disk.
    pub disk: Disk,
    /// Where updates come from, if anywhere.
    pub update: Option<Update>,
    /// Patterns of what may be setuid or setgid; any other fails the build.
    pub setuid: Vec<String>,
    /// Patterns of device nodes that may be there; any other fails the build.
    pub device_nodes: Vec<String>,
    /// Patterns of files that everybody may write to, and of such directories without the sticky bit; any other fails
    /// the build.
    pub world_writable: Vec<String>,
    /// Libraries (`libfoo.so.1`) whose absence is accepted, each with its reason.
    pub missing_libraries: BTreeMap<String, String>,
    /// File formats to write.
    pub outputs: Vec<Output>,
    /// Where it says what.
    #[serde(skip)]
    pub said: Said,
}

/// A place in a manifest file, for messages: 1-based line and column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The file as the user named it.
    #[serde(skip)]
    pub file: PathBuf,
    /// Line, from 1.
    #[serde(skip)]
    pub line: usize,
    /// Column, from 1.
    #[serde(skip)]
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file.display(), self.line, self.column)
    }
}

/// Debian's archives and others of their form.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Debian {
    /// e.g. `trixie`.
    pub suite: String,
    /// e.g. `main`, `non-free-firmware`.
    pub components: Vec<String>,
    /// Whether `<suite>-updates` is used.
    pub updates: bool,
    /// Whether `<suite>-security` is used.
    pub security: bool,
    /// The mirror named in the manifest; `--mirror` and KELLER_MIRROR come before it.
    pub mirror: Option<String>,
    /// The security mirror named in the manifest.
    pub security_mirror: Option<String>,
    /// Whether an archive past its Valid-Until is used all the same.
    pub allow_expired: bool,
    /// OpenPGP certificates that sign these archives in place of Debian's, absolute path.
    pub keys: Option<PathBuf>,
    /// Further archives.
    pub repositories: Vec<Repository>,
}

/// An archive with its own keys.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Repository {
    /// Short name; stands in the lock instead of an address.
    pub name: String,
    /// Root of the archive (http, https, file).
    pub url: String,
    /// e.g. `stable`.
    pub suite: String,
    /// e.g. `main`.
    pub components: Vec<String>,
    /// OpenPGP certificates, armored or binary, absolute path.
    pub keys: PathBuf,
}

/// A file tree laid over the root.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Overlay {
    /// The tree: a folder on disk or one that is embedded in keller.
    pub source: OverlaySource,
    /// Whether files of packages may be replaced; else they are conflicts.
    pub replace: bool,
}

/// Where an overlay's files are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum OverlaySource {
    /// Absolute path of a folder.
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
    /// Permission bits; default 0644 for files, 0755 for folders.
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
    /// A folder.
    Directory,
    /// What a package or an overlay has there, with another mode or owner.
    Existing,
}

/// A person's or a program's account with a home.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct User {
    /// Login name.
    pub name: String,
    /// From 1000 to 59999.
    pub uid: u32,
    /// Further groups by name.
    pub groups: Vec<String>,
    /// Lines of authorized_keys; public, so they may be in an image.
    pub ssh_keys: Vec<String>,
    /// Absolute path.
    pub shell: String,
    /// Crypt hash; none means no login by password.
    pub password_hash: Option<String>,
}

/// An account that a service runs as.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SystemUser {
    /// Login and group name.
    pub name: String,
    /// A fixed id below 1000; else one is chosen and recorded in the lock.
    pub uid: Option<u32>,
    /// Home folder, `/` by default.
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

/// Enablement of units; all others that packages ship stay off unless they are started by others.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Services {
    /// Enabled as `systemctl enable` would.
    pub enable: Vec<String>,
    /// Linked to /dev/null; names without a suffix in `generators` are systemd generators.
    pub mask: Vec<String>,
}

/// Kernel command line and modules.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Kernel {
    /// Appended to what keller itself needs.
    pub cmdline: Vec<String>,
    /// Modules of the initramfs.
    pub initramfs_modules: InitramfsModules,
    /// Modules loaded at boot by name, through modules-load.d.
    pub load: Vec<String>,
}

/// Which modules the initramfs carries.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub enum InitramfsModules {
    /// Those for the disks, buses and file systems that a host may boot from.
    #[default]
    Auto,
    /// These by name, with what they depend on, besides those that keller itself needs.
    List(Vec<String>),
}

impl InitramfsModules {
    /// The modules that the manifest names, if it does.
    pub fn named(&self) -> Option<&[String]> {
        match self {
            Self::Auto => None,
            Self::List(names) => Some(names),
        }
    }
}

/// Life span of changes to /etc.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Etc {
    /// Kept on the state partition.
    #[default]
    Persistent,
    /// Gone at reboot.
    Ephemeral,
}

/// What runs containers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// podman and crun, containers as quadlet units.
    Podman,
    /// containerd, containers as units that call ctr.
    Containerd,
    /// crun alone: the smallest.
    Crun,
    /// No containers.
    #[default]
    None,
}

/// A container that is part of the image.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Container {
    /// Name of the unit and the container: `[a-z0-9-]`.
    pub name: String,
    /// Where its image comes from.
    pub image: ContainerImage,
    /// Replaces the image's command when not empty.
    pub command: Vec<String>,
    /// `NAME=value`.
    pub environment: BTreeMap<String, String>,
    /// Host ports.
    pub ports: Vec<Port>,
    /// Mounts from the host.
    pub volumes: Vec<Volume>,
    /// Uses the host's network instead of its own.
    pub host_network: bool,
    /// Started at boot.
    pub start: bool,
    /// Its setuid programs and those with capabilities have an effect.
    pub new_privileges: bool,
    /// Memory for what it writes outside of its volumes, where the runtime keeps that in memory.
    pub scratch: Size,
    /// What its archive may have; a recipe says that itself.
    pub allowed: Allowed,
}

impl Container {
    /// What [`Container::scratch`] is by default.
    pub const SCRATCH: Size = Size(128 << 20);
}

/// What may give others rights, by absolute path in an image: any other fails the build.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Allowed {
    /// As in [`Manifest::setuid`].
    pub setuid: Vec<String>,
    /// As in [`Manifest::device_nodes`].
    pub device_nodes: Vec<String>,
    /// As in [`Manifest::world_writable`].
    pub world_writable: Vec<String>,
}

/// Where a container's image comes from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum ContainerImage {
    /// Made by keller out of packages.
    Build(Box<ContainerBuild>),
    /// An OCI layout, or what `docker save` writes, beside the manifest.
    Archive {
        /// Absolute, a directory or a tar archive.
        path: PathBuf,
        /// Which of its images; the only one when none.
        reference: Option<String>,
    },
}

/// How to make an image: the root's own pipeline with less in it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ContainerBuild {
    /// Package names.
    pub packages: BTreeMap<String, Place>,
    /// As in [`Manifest::assume`].
    pub assume: BTreeMap<String, String>,
    /// As in [`Manifest::prune`].
    pub prune: Vec<String>,
    /// As in [`Manifest::keep`].
    pub keep: Vec<String>,
    /// As in [`Manifest::overlays`].
    pub overlays: Vec<Overlay>,
    /// As in [`Manifest::files`].
    pub files: Vec<FileEntry>,
    /// As in [`Manifest::system_users`].
    pub system_users: Vec<SystemUser>,
    /// As in [`Manifest::groups`].
    pub groups: Vec<Group>,
    /// The image's entry point.
    pub entrypoint: Vec<String>,
    /// The image's default arguments.
    pub command: Vec<String>,
    /// The image's environment.
    pub environment: BTreeMap<String, String>,
    /// Name or number; root when none.
    pub user: Option<String>,
    /// The image's working folder.
    pub workdir: Option<String>,
    /// What asks the image's process to end; SIGTERM when none.
    pub stop_signal: Option<Signal>,
    /// As in [`Manifest::setuid`].
    pub setuid: Vec<String>,
    /// As in [`Manifest::device_nodes`].
    pub device_nodes: Vec<String>,
    /// As in [`Manifest::world_writable`].
    pub world_writable: Vec<String>,
    /// As in [`Manifest::missing_libraries`].
    pub missing_libraries: BTreeMap<String, String>,
}

/// A published port: `host:container[/udp]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Port {
    /// On the host.
    pub host: u16,
    /// In the container.
    pub container: u16,
    /// UDP instead of TCP.
    pub udp: bool,
}

/// A bind mount: `host:container[:ro]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Volume {
    /// Absolute path on the host; under /var it is made at boot.
    pub host: String,
    /// Absolute path in the container.
    pub container: String,
    /// Mounted read-only.
    pub read_only: bool,
}

/// The key-value store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Kv {
    /// etcd, one member on loopback: its unit is enabled.
    Etcd,
}

/// How often a new version is tried at most.
pub const MOST_STARTS: u32 = 3;
/// A slow disk or a name server that hiccups fails one start, and rarely two.
pub const GIVE_UP_AFTER: u32 = 2;

/// When a boot counts as good.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Health {
    /// Units that must be active.
    pub units: Vec<String>,
    /// Whether etcd must answer healthy.
    pub etcd: bool,
    /// Whether the containers that start at boot must run.
    pub containers: bool,
    /// A command that must succeed, as arguments; none when empty.
    pub command: Vec<String>,
    /// Seconds for which a unit must have been active without a restart.
    pub stable_seconds: u64,
    /// Seconds from the start of systemd until which all of it must hold.
    pub deadline_seconds: u64,
    /// On so many starts the same unit has failed the same way when a new version is given up.
    pub give_up_after: u32,
}

/// Sizes on disk.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Disk {
    /// The EFI system partition.
    pub esp: Size,
    /// One slot's root partition; its verity partition is derived.
    pub root: Size,
    /// The root's file system.
    pub filesystem: RootFilesystem,
    /// Size of the state partition in the image.
    pub state_min: Size,
    /// Whether the state partition is grown to the disk at boot.
    pub state_grow: bool,
    /// Logical sector size in bytes: 512 or 4096.
    pub sector_size: u32,
}

/// File system of the root.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RootFilesystem {
    /// Read-only by design; the default.
    #[default]
    Erofs,
    /// For tools that know nothing else.
    Ext4,
}

/// Where updates come from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Update {
    /// Root of the repository.
    pub url: String,
    /// Folder with root.json, absolute path.
    pub keys: PathBuf,
    /// Of the channels that a version is published in, the one to follow.
    pub channel: String,
    /// Whether a new version is taken without anybody's word.
    pub automatic: bool,
    /// When that may be; any time when none.
    pub window: Option<Window>,
    /// Seconds between two looks at the repository.
    pub interval_seconds: u64,
}

/// A file format to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Output {
    /// The disk, sparse.
    Raw,
    /// QEMU's copy-on-write format, version 3.
    Qcow2,
}
