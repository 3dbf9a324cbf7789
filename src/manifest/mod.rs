//! What a user asked for, validated. YAML in, [`Manifest`] out; nothing here has looked at a repository.
//!
//! Room `written` reads text into a tree with places and compares that with the schema, `merge` joins a file with what it
//! includes, `raw` has the types that are made out of the result, and `validate` makes a [`Manifest`].
//! Each goes on after an error, so that all are told at once.

pub mod embedded;
pub mod files;
mod merge;
mod raw;
mod recipe;
mod said;
pub mod schema;
mod sources;
mod validate;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::base::window::Window;
use crate::base::{Signal, Size};
use crate::node::{Interface, Policy};
use crate::written::diagnostic::Report;
use crate::written::{decode, place, yaml};

pub use crate::written::{Diagnostics, Place};

use files::Location;
pub use recipe::{Allowed, FileContent, FileEntry, Group, Overlay, OverlaySource, Recipe, SystemUser};
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
        let mut report = Report::default();
        let mut sum = place::Sum::default();
        let node = yaml::decode(0, file.bytes, &mut report)
            .and_then(|text| yaml::read(0, text, &mut sum, &mut report));
        let node = node.expect("a test reads every component");
        names.extend(merge::names(&node, "packages").map(|(name, _)| name.to_owned()));
    }
    names
}

fn read(location: Location) -> Result<Manifest, Diagnostics> {
    let mut sources = sources::Sources::default();
    let mut report = Report::default();
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
        let Recipe { assume, prune, said, .. } = &self.recipe;
        let takes_away = assume.keys().any(|name| !said.is_carried("assume", name))
            || prune.iter().any(|pattern| !said.is_carried("prune", pattern));
        takes_away && self.said.is_carried("services.enable", unit)
    }

    /// What the root and each built container are made of, the root first; each with its [`Container::scope`].
    pub fn recipes(&self) -> impl Iterator<Item = (String, &Recipe)> {
        let built = self
            .containers
            .iter()
            .filter_map(|container| Some((container.scope(), &container.build()?.recipe)));
        std::iter::once((String::new(), &self.recipe)).chain(built)
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
    /// What the root is made of.
    pub recipe: Recipe,
    /// Accounts beyond those that packages bring.
    pub users: Vec<User>,
    /// Units.
    pub services: Services,
    /// Kernel and what the initramfs carries.
    pub kernel: Kernel,
    /// Network interfaces that all nodes of the image have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<Interface>,
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
    /// Who may give a node its document.
    pub node: Policy,
    /// Where updates come from, if anywhere.
    pub update: Option<Update>,
    /// File formats to write.
    pub outputs: Vec<Output>,
    /// Where machines that are started over the network find the image, if the manifest says so: a directory at http.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netboot_url: Option<String>,
    /// Where it says what, besides what [`Recipe::said`] and [`Container::said`] know.
    #[serde(skip)]
    pub said: Said,
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
    /// Where it says what, and its image's file, besides what [`Recipe::said`] knows.
    #[serde(skip)]
    pub said: Said,
}

impl Container {
    /// What [`Container::scratch`] is by default.
    pub const SCRATCH: Size = Size(128 << 20);

    /// Stands before what is said and locked of it; the root's is empty.
    pub fn scope(&self) -> String {
        format!("container {}: ", self.name)
    }

    /// How its image is made, unless it is an archive.
    pub fn build(&self) -> Option<&ContainerBuild> {
        match &self.image {
            ContainerImage::Build(build) => Some(build),
            ContainerImage::Archive { .. } => None,
        }
    }

    /// What may give others rights in its image.
    pub fn allowed(&self) -> &Allowed {
        match &self.image {
            ContainerImage::Build(build) => &build.recipe.allowed,
            ContainerImage::Archive { allowed, .. } => allowed,
        }
    }
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
        /// What it may have.
        allowed: Allowed,
    },
}

/// How to make an image, and what runs in it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ContainerBuild {
    /// What the image is made of.
    pub recipe: Recipe,
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
    /// Whether the node's network must be as its document says.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub network: bool,
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
    /// The partition of the journal and of the records of updates, unless the disk has none.
    pub reserve: Option<Size>,
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
#[serde(rename_all = "kebab-case")]
pub enum Output {
    /// The disk, sparse.
    Raw,
    /// QEMU's copy-on-write format, version 3.
    Qcow2,
    /// The disk, compressed by Zstandard.
    #[serde(rename = "raw.zst")]
    RawZst,
    /// VMware's format, streamOptimized.
    Vmdk,
    /// Microsoft's format, dynamic, for Hyper-V and XenServer.
    Vhd,
    /// Microsoft's format, fixed, for Azure: `ID_VERSION.fixed.vhd`.
    VhdFixed,
    /// An EFI program that runs the image from memory, for PXE and HTTP: `ID_VERSION.netboot.efi`.
    Netboot,
    /// The same, as an image for a CD or a stick: `ID_VERSION.iso`.
    Iso,
    /// A small EFI program that fetches `ID_VERSION.raw.zst`, which is written as well, over HTTP and runs it from
    /// memory: `ID_VERSION.netboot-http.efi`, with a script for iPXE, `ID_VERSION.ipxe`.
    NetbootHttp,
}

impl Output {
    /// Whether a machine that starts it runs the node from memory.
    pub const fn runs_from_memory(self) -> bool {
        matches!(self, Self::Netboot | Self::Iso | Self::NetbootHttp)
    }
}
