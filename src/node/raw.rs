//! The document as it is written. The reference (docs/node.md) and the JSON Schema are made from these types and the
//! comments on their fields, so the comments speak to users.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{BondMode, Dhcp, From, Keep, Then};
use crate::written::decode::{At, Short};
use crate::written::place::Mark;

/// What makes a node of an image: one machine's name, network, keys and secrets.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[schemars(rename = "node", deny_unknown_fields)]
pub(super) struct Raw {
    /// Form of the document: 1.
    #[expect(dead_code, reason = "looked at before all else")]
    pub node: Option<At<u32>>,
    /// Host name, such as `rack1-07` or `db.example.org`.
    pub name: Option<At<String>>,
    /// For which machine it is. Of the documents in a file, the one whose `match` fits is taken, else the one without
    /// a `match`.
    pub r#match: Option<At<RawMatch>>,
    /// What the machine's cards are for. A card that no entry names stays as the image has it, which asks for an
    /// address by DHCP.
    #[serde(default)]
    pub network: RawNetwork,
    /// Keys and passwords of accounts that the image has, and further accounts.
    #[serde(default)]
    pub users: Vec<At<RawUser>>,
    /// Files below /etc and /run.
    #[serde(default)]
    pub files: Vec<At<RawFile>>,
    /// Units of systemd, and drop-ins for those that the image has. They lie in /run/systemd/system.
    #[serde(default)]
    pub units: Vec<At<RawUnit>>,
    /// Units that start at boot, by what their `[Install]` says.
    #[serde(default)]
    pub enable: Vec<At<String>>,
    /// Units that never start.
    #[serde(default)]
    pub mask: Vec<At<String>>,
    /// Words about the machine, for programs: they stand in /run/keller/node.json, which everybody may read.
    #[serde(default)]
    pub labels: BTreeMap<String, At<String>>,
    /// Secrets by name. A unit gets one by `LoadCredential=NAME`; nobody but root can read them.
    #[serde(default)]
    pub credentials: BTreeMap<String, At<Short<RawCredential>>>,
    /// The cluster of etcd that this node is a member of. `keller cluster init` writes it, and the credentials that it
    /// needs.
    pub cluster: Option<At<RawCluster>>,
    /// Where this node gets its updates, and when, over what its image says. It lies in /etc/keller/update.yaml.
    pub update: Option<At<RawUpdate>>,
    /// What a machine that was started from an ISO or over the network installs, and where. A node that runs from its disk
    /// ignores it.
    pub install: Option<At<RawInstall>>,
}

/// An unattended installation.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "install")]
pub(super) struct RawInstall {
    /// Which disk, in the words of `keller install --disk`, such as `serial=S3Z9NB0K` or `bus=nvme,size=400GiB..,smallest`.
    /// Exactly one must fit. It can be left out only where `document` names a file that says it.
    pub disk: Option<At<String>>,
    /// A file of documents on a web server. The one for this machine is merged with this document before anything is installed,
    /// and the installed node gets it.
    pub document: Option<At<RawRemote>>,
    /// Where the image comes from: `repository` for the newest version of the channel in the repository that the node takes
    /// updates from, by `update` here or in the image, and by the keys that the image trusts. The machine
    /// retries until the repository can be reached. Default: the image that the machine runs.
    pub image: Option<At<From>>,
    /// What may be lost: the disk's serial number, or the beginning of its table's id where it has none. Without it, the disk
    /// must be empty. A disk that has this image in any version is never wiped.
    pub wipe: Option<At<String>>,
    /// What to keep of the node on the disk. The rest is replaced, but only if it is an older version of this image. If there
    /// is no state, or it does not fit, nothing is written. It excludes `wipe`.
    pub keep: Option<At<Keep>>,
    /// Address at http or https for reports, sent as JSON by POST when the installation begins, while it waits for its
    /// document, and when it ends: `state` (`begun`, `waiting`, and at the end `installed`, `already`, `refused` or `failed`),
    /// `reason`, the machine's `serial`, `uuid` and `macs`, and more (docs/bare-metal.md).
    pub report: Option<At<String>>,
    /// What the machine does afterwards. Default: `reboot`.
    pub then: Option<At<Then>>,
}

/// A file of documents on a web server. Its `sha256` vouches for it, or `keys`, or both; without either, the keys of the image
/// (`node: keys` of its manifest).
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "document")]
pub(super) struct RawRemote {
    /// Address at http or https. In its path or query, `${serial}`, `${uuid}` and `${mac}` stand for the machine's own; with
    /// `${mac}`, the address of each of its cards is tried in turn.
    pub url: At<String>,
    /// SHA-256 of the file. The address is then without placeholders: one file for all machines.
    pub sha256: Option<At<String>>,
    /// Public keys: of `rack.pub`, which `keller node keygen rack` makes, the line between the first and the last. One of them
    /// has signed each document of the file.
    #[serde(default)]
    pub keys: Vec<At<String>>,
}

/// Where updates come from, and when they are taken. What is not said stays as the image has it.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "update")]
pub(super) struct RawUpdate {
    /// Root of the update repository, at http or https. It must be signed with the image's keys, or with those of
    /// /etc/keller/root.json where that file exists.
    pub url: Option<At<String>>,
    /// Of the channels that a version is published in, the one to follow.
    pub channel: Option<At<String>>,
    /// Whether the node takes a new version by itself, with the restart that it needs.
    pub automatic: Option<At<bool>>,
    /// When it may do so, in the node's time: `02:00-05:00`, or on some days `Sat,Sun 02:00-05:00`; `always` takes away
    /// the image's window.
    pub window: Option<At<String>>,
    /// Time between two looks at the repository, such as `5m` or `1h`; at least a minute.
    pub interval: Option<At<String>>,
    /// Proxy for http and https, such as `http://proxy.example:3128`.
    pub proxy: Option<At<String>>,
}

/// A cluster of etcd. Its members know of each other by this list, and by nothing else.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "cluster")]
pub(super) struct RawCluster {
    /// Tells clusters apart, such as `rack1`.
    pub name: At<String>,
    /// Addresses of all members by the names of their nodes, this node among them.
    pub members: BTreeMap<String, At<String>>,
}

/// For which machine a document is. All that is said must fit.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "match")]
pub(super) struct RawMatch {
    /// The machine's serial number, as in /sys/class/dmi/id/product_serial.
    pub serial: Option<At<String>>,
    /// The machine's UUID, as in /sys/class/dmi/id/product_uuid.
    pub uuid: Option<At<String>>,
    /// The address of one of its cards, whichever, such as `52:54:00:12:34:56`.
    pub mac: Option<At<String>>,
}

/// The network of a node.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "network")]
pub(crate) struct RawNetwork {
    /// Cards, and what is made of them: bonds, VLANs and bridges.
    #[serde(default)]
    pub(super) interfaces: Vec<At<RawInterface>>,
}

impl RawNetwork {
    /// Where it says something first.
    pub(crate) fn first(&self) -> Option<Mark> {
        self.interfaces.first().map(|at| at.mark)
    }
}

/// A card with `card`, or one of `bond`, `vlan` and `bridge`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "interface")]
pub(super) struct RawInterface {
    /// Of a card: by which other entries name it; the kernel's name stays. Of all others: the interface's own name.
    pub name: At<String>,
    /// Which card it is.
    pub card: Option<At<RawCard>>,
    /// It is a bond of these cards.
    pub bond: Option<At<RawBond>>,
    /// It is a VLAN.
    pub vlan: Option<At<RawVlan>>,
    /// It is a bridge between these interfaces.
    pub bridge: Option<At<RawBridge>>,
    /// Whether addresses come by DHCP. Default: `none`.
    pub dhcp: Option<At<Dhcp>>,
    /// Addresses with their prefix, such as `10.0.0.5/24`.
    #[serde(default)]
    pub addresses: Vec<At<String>>,
    /// Default routers, such as `10.0.0.1`.
    #[serde(default)]
    pub gateways: Vec<At<String>>,
    /// Further routes.
    #[serde(default)]
    pub routes: Vec<At<RawRoute>>,
    /// Addresses of name servers.
    #[serde(default)]
    pub dns: Vec<At<String>>,
    /// Domains in which short names are looked up.
    #[serde(default)]
    pub domains: Vec<At<String>>,
    /// Time servers, by name or address.
    #[serde(default)]
    pub ntp: Vec<At<String>>,
    /// Largest packet in bytes, from 68 to 65535.
    pub mtu: Option<At<u32>>,
    /// Whether the node counts as online only with it. Default: `true` where it has addresses.
    pub required: Option<At<bool>>,
}

/// Which card is meant: by one of these.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "card")]
pub(super) struct RawCard {
    /// The card's own (permanent) address, such as `52:54:00:12:34:56`.
    pub mac: Option<At<String>>,
    /// The kernel's name, with `*` and `?`, such as `en*`.
    pub name: Option<At<String>>,
    /// Where it is plugged in, as udev's ID_PATH has it, with `*` and `?`, such as `pci-0000:02:00.0`.
    pub path: Option<At<String>>,
}

/// A bond.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "bond")]
pub(super) struct RawBond {
    /// Names of its cards.
    pub of: Vec<At<String>>,
    /// Default: `active-backup`.
    pub mode: Option<At<BondMode>>,
}

/// A VLAN.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "vlan")]
pub(super) struct RawVlan {
    /// Name of the interface that carries it.
    pub of: At<String>,
    /// From 1 to 4094.
    pub id: At<u32>,
}

/// A bridge.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "bridge")]
pub(super) struct RawBridge {
    /// Names of its interfaces.
    pub of: Vec<At<String>>,
}

/// A route.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "route")]
pub(super) struct RawRoute {
    /// Network, such as `10.1.0.0/16`.
    pub to: At<String>,
    /// Address of the router.
    pub via: At<String>,
    /// The route with the least counts.
    pub metric: Option<At<u32>>,
}

/// An account.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "user")]
pub(super) struct RawUser {
    /// Login name.
    pub name: At<String>,
    /// From 1000 to 59999: the account is made. Without one it must be one of the image.
    pub uid: Option<At<u32>>,
    /// Further groups of an account that is made.
    #[serde(default)]
    pub groups: Vec<At<String>>,
    /// Lines of authorized_keys, besides those that the image has.
    #[serde(default)]
    pub ssh_keys: Vec<At<String>>,
    /// Shell of an account that is made. Default: `/bin/bash`.
    pub shell: Option<At<String>>,
    /// As in shadow(5), such as `$y$…`: in place of the one that the image has.
    pub password_hash: Option<At<String>>,
}

/// A file or a link. It belongs to root.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "file")]
pub(super) struct RawFile {
    /// Absolute path below /etc or /run. What the image has there is covered.
    pub path: At<String>,
    /// Its text.
    pub content: Option<At<String>>,
    /// A symbolic link to this target instead.
    pub link: Option<At<String>>,
    /// Octal permissions. Default: `0644`.
    pub mode: Option<At<String>>,
}

/// A unit with `content`, drop-ins for one, or both.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "unit")]
pub(super) struct RawUnit {
    /// Full name, such as `web.service`.
    pub name: At<String>,
    /// The unit's text.
    pub content: Option<At<String>>,
    /// Texts of drop-ins by file name, such as `10-limits.conf`.
    #[serde(default)]
    pub drop_ins: BTreeMap<String, At<String>>,
}

/// A secret that is not text.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "credential")]
pub(super) struct RawCredential {
    /// Its bytes in base64.
    pub base64: At<String>,
}
