//! The document that makes a node of an image: its name, network, keys, units and secrets.
//!
//! `raw` is what people write, `validate` and `network` make a [`Document`] of it, `machine` chooses among several by
//! what is known of a machine, `render` says which files follow, and `laying` lays them. `policy` is what an image says
//! of who may give one, `signature` how one is signed, and `address` where one is fetched from.

mod address;
pub mod cluster;
pub mod laying;
mod machine;
mod merge;
mod network;
pub mod policy;
mod raw;
mod reach;
mod render;
pub mod schema;
pub mod selector;
pub mod signature;
mod validate;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Range;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::written::decode::decode;
use crate::written::diagnostic::Report;
use crate::written::header::{self, Header};
use crate::written::place::{Mark, Source, Sources, Sum};
use crate::written::{Diagnostics, form, shape, yaml};

pub use address::{Address, AddressError, Placeholder, Remote};
pub use cluster::Cluster;
pub use machine::{Choice, Machine};
pub use merge::merge;
pub(crate) use network::interfaces;
pub use policy::Policy;
pub(crate) use raw::RawNetwork;
pub use render::{CLOSED, FACTS, Image, Item, Kind, Rendered, UPDATE, facts, networkd, render};
pub use selector::Selector;

/// The form of documents that this keller reads.
pub const FORM: u32 = 1;

const HEADER: Header = Header { field: "node", form: FORM, one: "document", many: "documents" };

/// The name of the credential that carries it (systemd.system-credentials(7)).
pub const CREDENTIAL: &str = "keller.node";

/// A document is a few KiB; certificates and keys make it tens.
pub const LARGEST: u64 = 256 << 10;

/// A document for one machine, or for any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// For which machine it is.
    pub matches: Match,
    /// Host name.
    pub name: Option<String>,
    /// In the order of the document.
    pub interfaces: Vec<Interface>,
    /// Accounts.
    pub users: Vec<User>,
    /// Files below /etc and /run.
    pub files: Vec<File>,
    /// Units and drop-ins.
    pub units: Vec<Unit>,
    /// Units that start at boot.
    pub enable: Vec<String>,
    /// Units that never start.
    pub mask: Vec<String>,
    /// Words about the machine.
    pub labels: BTreeMap<String, String>,
    /// Secrets by name.
    pub credentials: BTreeMap<String, Secret>,
    /// The cluster of etcd that it is a member of.
    pub cluster: Option<Cluster>,
    /// Where updates come from, and when they are taken.
    pub update: Option<Update>,
    /// What is installed where, if the machine runs from memory.
    pub install: Option<Install>,
    /// The text that says all this, without the other documents of its file.
    pub text: String,
}

/// What must be so of a machine; nothing, for any.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Match {
    /// Serial number.
    pub serial: Option<String>,
    /// UUID in lower case.
    pub uuid: Option<String>,
    /// Address of one of its cards.
    pub mac: Option<String>,
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Interface {
    /// Its name, or what stands for a card.
    pub name: String,
    /// What it is.
    pub kind: InterfaceKind,
    /// Whether addresses come by DHCP.
    pub dhcp: Dhcp,
    /// With prefix.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Default routers.
    pub gateways: Vec<IpAddr>,
    /// Further routes.
    pub routes: Vec<Route>,
    /// Name servers.
    pub dns: Vec<IpAddr>,
    /// Search domains.
    pub domains: Vec<String>,
    /// Time servers.
    pub ntp: Vec<String>,
    /// The largest packet, in bytes.
    pub mtu: Option<u32>,
    /// Whether the node is online only with it.
    pub required: bool,
}

/// What an interface is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum InterfaceKind {
    /// The card with this address.
    Mac(String),
    /// Cards whose names fit.
    Named(String),
    /// Cards that are plugged in there.
    Path(String),
    /// A bond of these.
    Bond(Vec<String>, BondMode),
    /// A VLAN of this interface.
    Vlan(String, u16),
    /// A bridge between these.
    Bridge(Vec<String>),
}

/// Which addresses come by DHCP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Dhcp {
    /// None.
    #[default]
    None,
    /// Of IPv4.
    Ipv4,
    /// Of IPv6.
    Ipv6,
    /// Of both.
    Both,
}

/// Where updates come from, and when they are taken; what is none stays as the image has it. It is written as the agent reads
/// it in /etc/keller/update.yaml.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Update {
    /// Root of the repository: http or https.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The channel to follow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// Whether a new version is taken without anybody's word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub automatic: Option<bool>,
    /// When that may be, or `always`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<String>,
    /// Time between two looks at the repository, with its unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<String>,
    /// Proxy for http and https.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
}

/// An unattended installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Install {
    /// Which disk; nothing where a document that is fetched says it.
    pub disk: Option<Selector>,
    /// What is fetched and merged with this document before anything is installed.
    pub document: Option<Remote>,
    /// Whether the image comes out of the repository of updates, in place of the one that the machine runs.
    pub from_repository: bool,
    /// What may be lost.
    pub wipe: Option<String>,
    /// Whether the state of the node that is there stays.
    pub keep_state: bool,
    /// The address at http or https that is told how it goes; it may have a password in it.
    pub report: Option<Secret>,
    /// What the machine does afterwards.
    pub then: Then,
}

/// What a machine does once it was installed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Then {
    /// It starts from the disk.
    #[default]
    Reboot,
    /// It powers off.
    Poweroff,
    /// It stays as it is.
    Stay,
}

/// Where the image of an installation comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum From {
    /// The repository of updates
    Repository,
}

/// What an installation leaves as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// The state partition
    State,
}

/// How a bond uses its cards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BondMode {
    /// One at a time.
    #[default]
    #[serde(rename = "active-backup")]
    ActiveBackup,
    /// All, as the switch agrees to by LACP.
    #[serde(rename = "802.3ad")]
    Lacp,
    /// All in turn.
    #[serde(rename = "balance-rr")]
    RoundRobin,
    /// By addresses.
    #[serde(rename = "balance-xor")]
    Xor,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Route {
    /// Network with prefix.
    pub to: (IpAddr, u8),
    /// The router.
    pub via: IpAddr,
    /// The least counts.
    pub metric: Option<u32>,
}

/// An account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Login name.
    pub name: String,
    /// How it is made, unless the image has it.
    pub made: Option<Made>,
    /// Lines of authorized_keys.
    pub ssh_keys: Vec<String>,
    /// Crypt hash.
    pub password_hash: Option<Secret>,
}

/// What is needed to make an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// Also the number of its group.
    pub uid: u32,
    /// Further groups.
    pub groups: Vec<String>,
    /// Absolute path.
    pub shell: String,
}

/// A file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Absolute.
    pub path: String,
    /// What is there.
    pub content: Content,
}

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Text with these permissions.
    Text(Secret, u16),
    /// A symbolic link.
    Link(String),
}

/// A unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Full name.
    pub name: String,
    /// Its text, unless the image has it.
    pub content: Option<String>,
    /// By file name.
    pub drop_ins: BTreeMap<String, String>,
}

/// Bytes that no message shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub Vec<u8>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "({} bytes)", self.0.len())
    }
}

/// The address of a card in its usual form.
///
/// # Errors
/// What is wrong with it.
pub fn mac(text: &str) -> Result<String, String> {
    network::mac(text).map_err(|wrong| format!("it {}: {}", wrong.what, wrong.help))
}

/// Whether a node can have this name.
pub fn is_host_name(text: &str) -> bool {
    form::host_name(text).is_ok()
}

/// Reads the documents of a file that people know by `name`.
///
/// # Errors
/// All that is wrong with any of them.
pub fn read(name: &str, bytes: &[u8]) -> Result<Vec<Document>, Diagnostics> {
    read_by(name, bytes, Report::default())
}

/// The same of a file that was taken before, maybe by an older keller: a node that has started with it goes on to.
///
/// # Errors
/// As [`read`], without what later rules refuse.
pub fn read_kept(name: &str, bytes: &[u8]) -> Result<Vec<Document>, Diagnostics> {
    read_by(name, bytes, Report::of_kept())
}

fn read_by(name: &str, bytes: &[u8], mut report: Report) -> Result<Vec<Document>, Diagnostics> {
    let mut sources = Sources::default();
    match parse(name, bytes, &mut sources, &mut report) {
        Some(found) if report.is_empty() => Ok(found.into_iter().map(|(_, document)| document).collect()),
        _ => Err(report.finish(&sources)),
    }
}

/// The same, each document with the tree that it was read from.
fn parse(
    name: &str,
    bytes: &[u8],
    sources: &mut Sources,
    report: &mut Report,
) -> Option<Vec<(yaml::Node, Document)>> {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let source = sources.add(Source { name: PathBuf::from(name), text });
    if bytes.len() as u64 > LARGEST {
        let what = format!("this is larger than the {LARGEST} bytes that a document can have");
        report.error(Mark::top(source), what).help("large files belong into an image");
        return None;
    }
    documents(source, bytes, report)
}

fn documents(source: u32, bytes: &[u8], report: &mut Report) -> Option<Vec<(yaml::Node, Document)>> {
    let Some(text) = yaml::decode(source, bytes, report) else {
        report.hide(source, 0..u32::MAX);
        return None;
    };
    let mut sum = Sum::default();
    let found = match yaml::read_all(source, text, &mut sum, report) {
        Some(found) => found,
        None => {
            // Where the text is no YAML nobody knows which line is a secret.
            report.hide(source, 0..u32::MAX);
            return None;
        }
    };
    if found.is_empty() {
        report
            .error(Mark::top(source), "there is no document here")
            .help(format!("begin with `node: {FORM}`"));
    }
    let schema = schema::document();
    let lines: Vec<&str> = text.split('\n').collect();
    let mut documents = Vec::new();
    for yaml::Document { mut node, lines: range } in found {
        secrets(&node, &lines, range.clone()).into_iter().for_each(|lines| report.hide(source, lines));
        let mark = node.mark;
        if !header::is_readable(&node, &HEADER, report) || !shape::check(&mut node, &schema, report) {
            continue;
        }
        let text = slice(&lines, range);
        match decode(&node) {
            Ok(raw) => {
                let document = validate::document(raw, text, report);
                documents.push((node, document));
            }
            Err(fault) => {
                report.error(fault.mark.unwrap_or(mark), fault.message);
            }
        }
    }
    validate::apart(&documents, report);
    Some(documents)
}

/// The lines that may hold a secret: of fields that are secrets, and of those that nobody knows.
fn secrets(node: &yaml::Node, lines: &[&str], range: Range<u32>) -> Vec<Range<u32>> {
    const OPEN: [&str; 11] = [
        "node", "name", "match", "network", "units", "enable", "mask", "labels", "cluster", "update",
        "install",
    ];
    let mut hidden = Vec::new();
    if let yaml::Value::Map(entries) = &node.value {
        for (index, entry) in entries.iter().enumerate() {
            let end = entries.get(index + 1).map_or(range.end, |next| next.mark.line + 1);
            if !OPEN.contains(&entry.key.as_str()) {
                hidden.push(entry.mark.line..end);
            }
        }
    } else {
        hidden.push(range.clone());
    }
    // What is indented wrongly stands under another field.
    let words = ["password", "hash", "credential", "secret", "PRIVATE", "report", "://"];
    for line in range {
        let text = usize::try_from(line).ok().and_then(|line| lines.get(line.checked_sub(1)?));
        if text.is_some_and(|text| words.iter().any(|word| text.contains(word))) {
            hidden.push(line..line + 1);
        }
    }
    hidden
}

/// These lines as a file of its own.
fn slice(lines: &[&str], range: Range<u32>) -> String {
    let index = |line: u32| usize::try_from(line).unwrap_or(usize::MAX).saturating_sub(1).min(lines.len());
    let mut text = lines[index(range.start)..index(range.end)].join("\n");
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}
