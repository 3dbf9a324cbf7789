//! The manifest as it is written. The reference (docs/manifest.md) and the JSON Schema are made from these
//! types and the comments on their fields, so the comments speak to users.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Etc, Output, RootFilesystem, Runtime};
use crate::node::RawNetwork;
use crate::node::policy::Place;
use crate::written::decode::{At, Short};

/// What a node is made of. Every field but `keller`, `id` and `version` may also stand in a component, a file
/// named by `include`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[schemars(rename = "manifest", deny_unknown_fields)]
pub(super) struct Raw {
    /// Form of the manifest: 1. Not in a component.
    pub keller: Option<At<u32>>,
    /// Name of the image, of `a-z`, `0-9` and `-`: it stands in labels, file names and os-release. Not in a
    /// component.
    pub id: Option<At<String>>,
    /// Version of the image, of letters, digits, `.`, `-`, `~` and `^`, ordered as the UAPI version format
    /// says. Not in a component.
    pub version: Option<At<String>>,
    /// Components: fragments of a manifest, by path relative to this file, or `keller:manifests/components/…`
    /// for those that keller carries.
    #[serde(default)]
    #[expect(dead_code, reason = "for the schema; merge takes it out of the tree")]
    pub include: Vec<At<String>>,
    /// Where packages come from.
    #[serde(default)]
    pub debian: RawDebian,
    /// What the root is made of.
    #[serde(rename = "$keller::same")]
    #[schemars(flatten)]
    pub recipe: RawRecipe,
    /// Accounts of people.
    #[serde(default)]
    pub users: Vec<At<RawUser>>,
    /// Which units start at boot.
    #[serde(default)]
    pub services: RawServices,
    /// The kernel's command line and modules.
    #[serde(default)]
    pub kernel: RawKernel,
    /// What cards are for on all nodes of this image, in place of DHCP on each of them. A node document
    /// (docs/node.md) adds to it: an interface of its own takes the place of that of the same name.
    #[serde(default)]
    pub network: RawNetwork,
    /// Whether changes to /etc outlive a reboot. Default: `persistent`.
    pub etc: Option<At<Etc>>,
    /// What runs containers. Default: `none`.
    pub runtime: Option<At<Runtime>>,
    /// Containers inside the verified root; each becomes a unit `NAME.service`.
    #[serde(default)]
    pub containers: Vec<At<RawContainer>>,
    /// A key-value store on the node.
    pub kv: Option<RawKv>,
    /// When a boot counts as good. An update whose boot does not become good is rolled back.
    #[serde(default)]
    pub health: RawHealth,
    /// Who may give a node its document (docs/node.md). Default: whoever can.
    #[serde(default)]
    pub node: RawNode,
    /// Sizes on the disk of a node.
    #[serde(default)]
    pub disk: RawDisk,
    /// Where updates come from.
    pub update: Option<At<RawUpdate>>,
    /// File formats of the image. Default: `[raw]`.
    #[serde(default)]
    pub outputs: Vec<At<Output>>,
    /// What machines that start over the network fetch (`outputs: [netboot-http]`).
    pub netboot: Option<At<RawNetboot>>,
}

/// What a tree is made of: the root of a node, or the image of a container. Its fields stand among those of the manifest
/// and of a container image's file.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[schemars(rename = "recipe")]
pub(super) struct RawRecipe {
    /// Names of wanted packages. What they depend on comes along, what they recommend does not.
    #[serde(default)]
    pub packages: Vec<At<String>>,
    /// Packages taken as present without being unpacked, each with the reason.
    #[serde(default)]
    pub assume: BTreeMap<String, At<String>>,
    /// Paths of packages that are left out. `*` stays within a directory, `**` does not; a directory goes with all
    /// that is in it.
    #[serde(default)]
    pub prune: Vec<At<String>>,
    /// Exceptions to `prune`.
    #[serde(default)]
    pub keep: Vec<At<String>>,
    /// Directories that are laid over the root, in this order: a path relative to this file, `keller:overlays/…`, or the
    /// long form.
    #[serde(default)]
    pub overlays: Vec<At<Short<RawOverlay>>>,
    /// Single files, links and directories.
    #[serde(default)]
    pub files: Vec<At<RawFile>>,
    /// Accounts of services whose packages would make them in a script; keller runs no scripts.
    #[serde(default)]
    pub system_users: Vec<At<RawSystemUser>>,
    /// Groups of the system beyond those of packages, for `groups` of users and `group` of files.
    #[serde(default)]
    pub groups: Vec<At<RawGroup>>,
    /// Files that may be setuid or setgid or have capabilities; any other fails the build. Paths or patterns as in
    /// `prune`: what matches a directory holds for all below it.
    #[serde(default)]
    pub setuid: Vec<At<String>>,
    /// Device nodes that packages may bring, named as in `setuid`; any other fails the build. A container's are left
    /// out: it has the devices of its own `/dev`.
    #[serde(default)]
    pub device_nodes: Vec<At<String>>,
    /// Files that everybody may write to, and such directories without the sticky bit, named as in `setuid`; any other
    /// fails the build.
    #[serde(default)]
    pub world_writable: Vec<At<String>>,
    /// Libraries (`libfoo.so.1`) whose absence is accepted, each with the reason.
    #[serde(default)]
    pub missing_libraries: BTreeMap<String, At<String>>,
}

/// Debian's archives.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "debian")]
pub(super) struct RawDebian {
    /// Default: `trixie`.
    pub suite: Option<At<String>>,
    /// Default: `[main]`. Firmware for bare metal needs `non-free-firmware`.
    #[serde(default)]
    pub components: Vec<At<String>>,
    /// Whether the suite's `-updates` is used. Default: `true`.
    pub updates: Option<At<bool>>,
    /// Whether the suite's `-security` is used. Default: `true`.
    pub security: Option<At<bool>>,
    /// Mirror, such as `https://mirror.example/debian`. `--mirror` and KELLER_MIRROR come before it, the
    /// host's apt sources after it.
    pub mirror: Option<At<String>>,
    /// Mirror of the security archive; found beside the mirror where not named.
    pub security_mirror: Option<At<String>>,
    /// Whether an archive past its Valid-Until is used, as snapshots need. Default: `false`.
    pub allow_expired: Option<At<bool>>,
    /// OpenPGP certificates that sign these archives, as a file beside the manifest: for a mirror that you filter and
    /// sign yourself. Replaces Debian's keys, which keller carries.
    pub keys: Option<At<String>>,
    /// Further archives with keys of their own.
    #[serde(default)]
    pub repositories: Vec<At<RawRepository>>,
}

/// An archive with its own keys.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "repository")]
pub(super) struct RawRepository {
    /// Short name; stands in the lock instead of the address.
    pub name: At<String>,
    /// Root of the archive: http, https or file.
    pub url: At<String>,
    /// Such as `stable`. Of a flat archive, which has no `dists`, the directory below `url` that has its indexes,
    /// with a slash at its end: `./` or `amd64/`.
    pub suite: At<String>,
    /// Such as `[main]`; none where the archive is flat.
    #[serde(default)]
    pub components: Vec<At<String>>,
    /// OpenPGP certificates that may sign it, as a file beside the manifest.
    pub keys: At<String>,
}

/// The long form of an overlay.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "overlay")]
pub(super) struct RawOverlay {
    /// The directory.
    pub path: At<String>,
    /// Whether files of packages may be replaced; else they are conflicts. Default: `false`.
    pub replace: Option<At<bool>>,
}

/// A file, link or directory on the node. One of `content`, `source`, `url`, `link` and `directory` says what it
/// is. Without any, `mode`, `owner`, `group` and `capabilities` change what a package or overlay has there.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "file")]
pub(super) struct RawFile {
    /// Absolute path on the node.
    pub path: At<String>,
    /// The text of the file.
    pub content: Option<At<String>>,
    /// A file beside the manifest.
    pub source: Option<At<String>>,
    /// Fetched from http, https or file; needs `sha256`.
    pub url: Option<At<String>>,
    /// What `url` must give: 64 hexadecimal digits.
    pub sha256: Option<At<String>>,
    /// A symbolic link to this target.
    pub link: Option<At<String>>,
    /// `true` for a directory.
    pub directory: Option<At<bool>>,
    /// Octal permission bits. Default: `"0644"`, for directories `"0755"`.
    pub mode: Option<At<String>>,
    /// Owner by name. Default: `root`.
    pub owner: Option<At<String>>,
    /// Group by name. Default: `root`.
    pub group: Option<At<String>>,
    /// Capabilities that the program gets whoever starts it, as setcap(8) takes them: `cap_net_raw+ep`. The program
    /// must also be listed in `setuid`.
    #[serde(default)]
    pub capabilities: Vec<At<String>>,
    /// Whether a file of a package or overlay may be replaced. Default: `false`.
    pub replace: Option<At<bool>>,
}

/// The account of a person.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "user")]
pub(super) struct RawUser {
    /// Login name.
    pub name: At<String>,
    /// From 1000 to 59999.
    pub uid: At<u32>,
    /// Further groups.
    #[serde(default)]
    pub groups: Vec<At<String>>,
    /// Lines of authorized_keys.
    #[serde(default)]
    pub ssh_keys: Vec<At<String>>,
    /// Default: `/bin/bash`.
    pub shell: Option<At<String>>,
    /// As in shadow(5), such as `$y$…`. Without one there is no login by password.
    pub password_hash: Option<At<String>>,
}

/// The account of a service.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "system_user")]
pub(super) struct RawSystemUser {
    /// Name of the user and its group.
    pub name: At<String>,
    /// From 100 to 999. Without one, keller chooses and the lock records it.
    pub uid: Option<At<u32>>,
    /// Home directory. Default: `/`.
    pub home: Option<At<String>>,
    /// Further groups.
    #[serde(default)]
    pub groups: Vec<At<String>>,
    /// Shown name.
    pub description: Option<At<String>>,
}

/// A group of the system.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "group")]
pub(super) struct RawGroup {
    /// Its name.
    pub name: At<String>,
    /// From 100 to 999. Without one, keller chooses and the lock records it.
    pub gid: Option<At<u32>>,
}

/// Enablement of units. Nothing starts because a package is there; it must be named here, or be wanted by a
/// unit that is.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "services")]
pub(super) struct RawServices {
    /// Units that start at boot, such as `nginx.service`.
    #[serde(default)]
    pub enable: Vec<At<String>>,
    /// Units, and generators by their bare name, that never start. Another name of a unit (`Alias=`) stands for the
    /// unit.
    #[serde(default)]
    pub mask: Vec<At<String>>,
}

/// Kernel command line and modules.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "kernel")]
pub(super) struct RawKernel {
    /// Words appended to those that keller sets itself. `MODULE.PARAMETER=VALUE`, `modprobe.blacklist=` and
    /// `module_blacklist=` hold for modules of the initramfs too.
    #[serde(default)]
    pub cmdline: Vec<At<String>>,
    /// `auto` for the disks, buses and file systems that a host may boot from, or a list of names. What they
    /// depend on comes along. Default: `auto`.
    pub initramfs_modules: Option<At<Short<Vec<At<String>>>>>,
    /// Modules loaded at boot.
    #[serde(default)]
    pub load: Vec<At<String>>,
}

/// A container that is part of the image.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "container")]
pub(super) struct RawContainer {
    /// Of `a-z`, `0-9` and `-`; the unit is `NAME.service`.
    pub name: At<String>,
    /// Where its image comes from.
    pub image: At<RawImage>,
    /// Replaces the image's command.
    #[serde(default)]
    pub command: Vec<At<String>>,
    /// Environment of the command.
    #[serde(default)]
    pub environment: BTreeMap<String, At<String>>,
    /// Published ports, `host:container` or `host:container/udp`.
    #[serde(default)]
    pub ports: Vec<At<String>>,
    /// Directories of the host, `host:container` or `host:container:ro`.
    #[serde(default)]
    pub volumes: Vec<At<String>>,
    /// Whether it shares the host's network. Default: `false`.
    pub host_network: Option<At<bool>>,
    /// Whether it starts at boot. Default: `true`.
    pub start: Option<At<bool>>,
    /// Whether its setuid programs, and those with capabilities, give whoever starts them more rights inside the
    /// container, as `sudo` needs it. Default: `false`.
    pub new_privileges: Option<At<bool>>,
    /// With `containerd` and `crun`: how much memory may be taken by what it writes outside of its volumes. Default:
    /// `128MiB`.
    pub scratch: Option<At<String>>,
}

/// Where a container's image comes from: exactly one of the two.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "image")]
pub(super) struct RawImage {
    /// A file that says what the image is made of; see *Container images* below.
    pub build: Option<At<String>>,
    /// An OCI layout or the output of `docker save` beside the manifest, as a directory or a tar archive, which may
    /// be compressed by gzip, zstd, xz or bzip2.
    pub archive: Option<At<String>>,
    /// Which image of an archive with several: by name, such as `app:1.2`, or by digest, `sha256:…`.
    pub reference: Option<At<String>>,
    /// Of an archive: files that may be setuid or setgid or have capabilities, named as in a manifest; any other fails
    /// the build. They give nobody more rights unless the container has `new_privileges`.
    #[serde(default)]
    pub setuid: Vec<At<String>>,
    /// Of an archive: device nodes that it may bring, named as in a manifest; any other fails the build. They are left
    /// out: a container has the devices of its own `/dev`.
    #[serde(default)]
    pub device_nodes: Vec<At<String>>,
    /// Of an archive: files that everybody may write to, and such directories without the sticky bit, named as in a
    /// manifest; any other fails the build.
    #[serde(default)]
    pub world_writable: Vec<At<String>>,
}

/// How a container's image is made from packages. Stands in a file of its own, named by a container's
/// `image: {build: …}`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[schemars(rename = "container_image", deny_unknown_fields)]
pub(super) struct RawBuild {
    /// Further files of this form, as in a manifest.
    #[serde(default)]
    #[expect(dead_code, reason = "for the schema; merge takes it out of the tree")]
    pub include: Vec<At<String>>,
    /// What the image is made of.
    #[serde(rename = "$keller::same")]
    #[schemars(flatten)]
    pub recipe: RawRecipe,
    /// What runs, as arguments.
    #[serde(default)]
    pub entrypoint: Vec<At<String>>,
    /// Default arguments.
    #[serde(default)]
    pub command: Vec<At<String>>,
    /// Default environment.
    #[serde(default)]
    pub environment: BTreeMap<String, At<String>>,
    /// User inside the container, by name or number. Default: `root`.
    pub user: Option<At<String>>,
    /// Working directory.
    pub workdir: Option<At<String>>,
    /// What asks the process to end, such as `SIGQUIT`; ten seconds later it is killed. Default: `SIGTERM`.
    pub stop_signal: Option<At<String>>,
}

/// The key-value store.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "kv")]
pub(super) struct RawKv {
    /// etcd as this node's member: its unit is enabled, so its package must be there (component `etcd.yaml`). It answers
    /// nobody without a certificate, which the node makes for itself at the first boot; root's etcdctl has one.
    pub etcd: At<RawEtcd>,
}

/// How etcd forms.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "etcd")]
pub(super) struct RawEtcd {
    /// `single` for one member on loopback, as long as no node document says otherwise. `static`, a cluster of listed
    /// members, is refused: `keller cluster init` makes node documents of them. Default: `single`.
    pub cluster: Option<At<Cluster>>,
    /// The members of a static cluster; refused, as `static` is.
    #[serde(default)]
    pub members: Vec<At<RawMember>>,
}

/// How the members know of each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "cluster")]
pub(super) enum Cluster {
    /// There is one.
    #[default]
    Single,
    /// By the list in the manifest.
    Static,
}

/// A member of a static cluster.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "member")]
pub(super) struct RawMember {
    /// Host name of the node.
    #[expect(dead_code, reason = "for the schema; a cluster is refused")]
    pub name: At<String>,
    /// Where its peers reach it, such as `https://10.0.0.1:2380`.
    #[expect(dead_code, reason = "for the schema; a cluster is refused")]
    pub peer: At<String>,
}

/// Who may give a node its document.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "node")]
pub(super) struct RawNode {
    /// Where a document is looked for; `[]` for nowhere. Default: everywhere. `keller node apply` on the node is not limited
    /// by it.
    pub sources: Option<Vec<At<Place>>>,
    /// Files beside the manifest with public keys, ed25519 in PEM, as `keller node keygen` makes them: only a document that one
    /// of them has signed counts, also for `keller node apply`. Default: none, and no document needs to be signed.
    #[serde(default)]
    pub keys: Vec<At<String>>,
}

/// When a boot counts as good: all of these hold before the deadline.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "health")]
pub(super) struct RawHealth {
    /// Units that are active.
    #[serde(default)]
    pub units: Vec<At<String>>,
    /// Whether etcd answers that it is healthy. Default: `false`.
    pub etcd: Option<At<bool>>,
    /// Whether the containers that start at boot must run. Default: `true`.
    pub containers: Option<At<bool>>,
    /// Whether the addresses and default routers that the node document names must be there, and a default route where it
    /// names none. Default: `false`.
    pub network: Option<At<bool>>,
    /// A command that succeeds, as arguments.
    pub command: Option<At<Vec<At<String>>>>,
    /// How long a unit must have been active without a restart. Default: `5s`.
    pub stable: Option<At<String>>,
    /// Time from the start of systemd, such as `90s` or `5min`. Default: `120s`.
    pub deadline: Option<At<String>>,
    /// How many starts of a new version on which the same unit failed the same way are enough to give the version up
    /// and to go back, from 1 to 3. Default: `2`.
    pub give_up_after: Option<At<u32>>,
}

/// Sizes on the disk of a node, such as `512MiB` or `1GiB`; each a whole number of MiB. An image is smaller: it holds the
/// EFI system partition and one root, and the first boot makes the rest.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "disk")]
pub(super) struct RawDisk {
    /// The EFI system partition; it holds the kernels of both slots. Default: `512MiB`.
    pub esp: Option<At<String>>,
    /// The root partition of one slot; there are two. Default: `1GiB`.
    pub root: Option<At<String>>,
    /// The partition of the journal and of the records of updates, which a container or service that fills /var
    /// cannot take: one half for each. At least `64MiB`, or `none` for a disk without it, where both are in /var. A
    /// node has what its disk was made with. Default: `256MiB`.
    pub reserve: Option<At<String>>,
    /// The state partition, mounted at /var.
    #[serde(default)]
    pub state: RawState,
    /// File system of the root. Default: `erofs`.
    pub filesystem: Option<At<RootFilesystem>>,
    /// Size of the disk's logical sectors in bytes: 512 or 4096. Default: `512`.
    pub sector_size: Option<At<u32>>,
}

/// The state partition.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "state")]
pub(super) struct RawState {
    /// Its least size. A node refuses a disk on which it does not fit. Default: `512MiB`.
    pub min: Option<At<String>>,
    /// Whether it takes the rest of the disk at first boot. Default: `true`.
    pub grow: Option<At<bool>>,
}

/// Where updates come from.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "update")]
pub(super) struct RawUpdate {
    /// Root of the update repository: http or https.
    pub url: At<String>,
    /// Directory beside the manifest that holds `root.json`, whose keys a node trusts.
    pub keys: At<String>,
    /// Of the channels that a version is published in, the one to follow. Default: `stable`.
    pub channel: Option<At<String>>,
    /// Whether a node takes a new version by itself, with the reboot that it needs. Without, it only looks, and
    /// `keller update apply` takes it. Default: `false`.
    pub automatic: Option<At<bool>>,
    /// When a node may take it by itself, in the node's time: `02:00-05:00`, or on some days
    /// `Sat,Sun 02:00-05:00`. Default: at any time.
    pub window: Option<At<String>>,
    /// Time between two looks at the repository, such as `5m` or `1h`; at least a minute. Default: `1h`.
    pub interval: Option<At<String>>,
}

/// What machines that start over the network fetch.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "netboot")]
pub(super) struct RawNetboot {
    /// The directory on a web server that has the files of the build: http, as the image is pinned by its SHA-256.
    /// `keller.image=` on the kernel command line comes before it.
    pub url: At<String>,
}
