//! `keller node`: the document that makes a node of an image.

mod file;
mod on_node;
mod sign;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Global, failure, streams, time};
use crate::base::{atomic, json};
use crate::node::{self, Choice, Document, Image, Item, Kind, Machine, Policy, schema};

/// Arguments of `keller node`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    keller node init rack1.yaml        write a document to begin with\n  \
    keller node check rack1.yaml       tell everything that is wrong with it\n  \
    keller node sign --key rack.pem rack1.yaml\n  \
    keller node show rack1.yaml        which files it makes on a node\n  \
    keller node apply rack1.yaml       apply it to this node\n  \
    keller node status                 on a node: which document it goes by\n  \
    keller node schema --markdown      every field, as in docs/node.md\n  \
    keller boot --node rack1.yaml out/node_1.0.0.raw")]
pub struct NodeArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Write a document to begin with.
    #[command(after_help = "Examples:\n  keller node init rack1.yaml\n  keller node init > rack1.yaml")]
    Init {
        /// Where it goes; without one, to standard output. A file that is there stays as it is.
        file: Option<PathBuf>,
    },
    /// Tell everything that is wrong with the documents of a file.
    #[command(after_help = "Examples:\n  \
        keller node check rack1.yaml\n  \
        keller node check --json rack1.yaml\n  \
        keller node check --key rack.pub rack1.yaml\n\n\
        With --json: {\"documents\": [{\"name\", \"match\", \"note\"}], \"errors\": []}, or \"error\" and the findings in \
        \"errors\" and \"places\". Lines that may hold a secret are not shown.")]
    Check {
        /// YAML or JSON.
        file: PathBuf,
        /// Require a signature with this public key on each document. May be given more than once: one of the keys is enough.
        #[arg(long = "key", value_name = "FILE")]
        keys: Vec<PathBuf>,
    },
    /// Sign documents, for images whose manifest names keys under `node`.
    #[command(after_help = "Examples:\n  \
        keller node sign --key rack.pem rack1.yaml\n  \
        keller node sign --key rack.pem --out signed.yaml rack1.yaml\n\n\
        Each document of the file gets a line with its signature at the end; signatures with other keys stay. A change to \
        the text before these lines makes them invalid.")]
    Sign {
        /// YAML or JSON. The signature is a YAML comment: a signed file is YAML.
        file: PathBuf,
        /// Private key: ed25519 in PEM, as `keller node keygen` or `openssl genpkey -algorithm ed25519` makes it.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// File to write. Default: replace the input.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Make a pair of keys that sign documents: NAME.pem, which is private, and NAME.pub.
    #[command(after_help = "Examples:\n  \
        keller node keygen rack\n\n\
        `node: {keys: [rack.pub]}` in the manifest makes nodes take only what rack.pem has signed.")]
    Keygen {
        /// Path of both files, without `.pem` and `.pub`.
        #[arg(value_name = "NAME")]
        name: PathBuf,
    },
    /// Show which document is a machine's, and which files it makes there; no secret is shown.
    #[command(after_help = "Examples:\n  \
        keller node show rack1.yaml\n  \
        keller node show --serial 7HX2K13 rack1.yaml\n  \
        keller node show --mac 52:54:00:12:34:56 rack1.yaml\n\n\
        What `enable` and passwords of the image's own accounts make depends on the image, and is not shown.")]
    Show {
        /// YAML or JSON.
        file: PathBuf,
        /// The machine's serial number.
        #[arg(long, value_name = "TEXT")]
        serial: Option<String>,
        /// The machine's UUID.
        #[arg(long, value_name = "UUID")]
        uuid: Option<String>,
        /// The address of a card of it; may be given for each.
        #[arg(long, value_name = "ADDRESS", value_parser = node::mac)]
        mac: Vec<String>,
    },
    /// On a node: what a document would change.
    #[command(after_help = "Examples:\n  \
        sudo keller node diff rack1.yaml\n  \
        sudo keller node diff --json rack1.yaml\n\n\
        Paths and actions are shown, never contents. Exit code: 0 when nothing changes, 1 when something does.")]
    Diff {
        /// YAML or JSON.
        file: PathBuf,
    },
    /// On a node: make it what a document says, without a restart where that is possible.
    #[command(after_help = "Examples:\n  \
        sudo keller node apply rack1.yaml\n  \
        sudo keller node apply --within 5m rack1.yaml\n\n\
        A change of the network is undone after --within, unless `keller node confirm` keeps it or somebody logs in by \
        ssh over a new connection, to an address that is new where the document has such. Power that fails before undoes \
        it too.")]
    Apply {
        /// YAML or JSON.
        file: PathBuf,
        /// How long a change of the network waits to be confirmed: from 10s to 1h.
        #[arg(long, value_name = "TIME", default_value = "2m", value_parser = time::confirmation)]
        within: Duration,
    },
    /// On a node: keep a change of the network.
    #[command(after_help = "Examples:\n  sudo keller node confirm")]
    Confirm,
    /// On a node: go back from a change of the network that is not confirmed.
    #[command(after_help = "Examples:\n  sudo keller node undo")]
    Undo {
        /// Keep the change where somebody has logged in over it: what the timer runs.
        #[arg(long, hide = true)]
        unless_login: bool,
    },
    /// On a node: which document it goes by, what was refused, and what waits to be confirmed.
    #[command(after_help = "Examples:\n  \
        keller node status\n  \
        keller node status --json\n\n\
        With --json: /run/keller/node.json.")]
    Status,
    /// Write the JSON Schema of documents, or their reference, to standard output.
    #[command(after_help = "Examples:\n  \
        keller node schema > node.schema.json\n  \
        keller node schema --markdown")]
    Schema {
        /// The reference as Markdown.
        #[arg(long)]
        markdown: bool,
    },
}

/// What `init` writes.
const STARTER: &str = include_str!("starter/document.yaml");

/// Runs it.
///
/// # Errors
/// What is wrong with the document, and what the disk says.
pub fn run(args: &NodeArgs, global: &Global) -> Result<ExitCode> {
    match &args.action {
        Action::Init { file } => init(file.as_deref(), global)?,
        Action::Check { file, keys } => return check(file, keys, global),
        Action::Sign { file, key, out } => sign::sign(file, key, out.as_deref(), global)?,
        Action::Keygen { name } => sign::keygen(name, global)?,
        Action::Show { file, serial, uuid, mac } => {
            let uuid = uuid.as_ref().map(|uuid| uuid.to_lowercase());
            let macs = mac.iter().cloned().collect();
            show(file, &Machine { serial: serial.clone(), uuid, macs }, global)?;
        }
        Action::Diff { file } => return on_node::diff(file, global),
        Action::Apply { file, within } => on_node::apply(file, *within, global)?,
        Action::Confirm => on_node::confirm(global)?,
        Action::Undo { unless_login } => on_node::undo(!unless_login, global)?,
        Action::Status => on_node::status(global)?,
        Action::Schema { markdown: true } if global.json => bail!("the reference is Markdown, not JSON"),
        Action::Schema { markdown: true } => streams::print(schema::markdown())?,
        Action::Schema { markdown: false } => streams::json(format_args!("{:#}", schema::document()))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn init(file: Option<&Path>, global: &Global) -> Result<()> {
    let Some(file) = file else {
        match global.json {
            true => streams::json(json!({ "document": STARTER }))?,
            false => streams::print(STARTER)?,
        }
        return Ok(());
    };
    if file.symlink_metadata().is_ok() {
        bail!("{} is there already: name another file", file.display());
    }
    atomic::write(file, STARTER).with_context(|| format!("writing {}", file.display()))?;
    match global.json {
        true => streams::json(json!({ "file": json::text_of(file) }))?,
        false if global.quiet => {}
        false => {
            streams::print(format_args!("wrote {0}\n\nnext:\n  keller node check {0}\n", file.display()))?
        }
    }
    Ok(())
}

fn check(file: &Path, keys: &[PathBuf], global: &Global) -> Result<ExitCode> {
    match node::read(&file.to_string_lossy(), &file::read(file)?) {
        Ok(documents) => {
            if !keys.is_empty() {
                sign::verify(file, &documents, keys)?;
            }
            match global.json {
                true => {
                    let checked = |document| {
                        let mut described = described(document);
                        described["note"] = asks_image(document).then_some(ASKS_IMAGE).into();
                        described
                    };
                    let found: Vec<Value> = documents.iter().map(checked).collect();
                    streams::json(json!({ "documents": found, "errors": [] }))?;
                }
                false if global.quiet => {}
                false => {
                    for document in &documents {
                        let unless =
                            if asks_image(document) { format!(", {ASKS_IMAGE}") } else { String::new() };
                        streams::line(format_args!("{}: nothing wrong{unless}", summary(document)))?;
                    }
                }
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(diagnostics) => {
            streams::tell(&diagnostics);
            if global.json {
                let findings = json!(diagnostics.list);
                let mut described = failure::described(&diagnostics.into());
                described["errors"] = findings;
                streams::json(described)?;
            }
            Ok(ExitCode::FAILURE)
        }
    }
}

fn described(document: &Document) -> Value {
    json!({
        "name": document.name,
        "match": { "serial": document.matches.serial, "uuid": document.matches.uuid, "mac": document.matches.mac },
    })
}

const ASKS_IMAGE: &str = "provided that the image has `node: keys`, since nothing else vouches for what `install: document` fetches";

/// Whether only an image can vouch for what it fetches.
fn asks_image(document: &Document) -> bool {
    let remote = document.install.as_ref().and_then(|install| install.document.as_ref());
    remote.is_some_and(|remote| remote.signers(&Policy::default()).is_none())
}

fn summary(document: &Document) -> String {
    let name = document.name.as_deref().unwrap_or("(no name)");
    let serial = document.matches.serial.iter().map(|serial| format!("serial {serial}"));
    let uuid = document.matches.uuid.iter().map(|uuid| format!("UUID {uuid}"));
    let mac = document.matches.mac.iter().map(|mac| format!("card {mac}"));
    let machine: Vec<String> = serial.chain(uuid).chain(mac).collect();
    match machine.is_empty() {
        true => format!("{name}, for any machine"),
        false => format!("{name}, for {}", machine.join(" and ")),
    }
}

/// An image of which nothing is known.
struct Unknown;

impl Image for Unknown {
    fn read(&self, _: &str) -> Option<String> {
        None
    }
}

fn show(file: &Path, machine: &Machine, global: &Global) -> Result<()> {
    let documents = node::read(&file.to_string_lossy(), &file::read(file)?)?;
    let document = match machine.choose(&documents) {
        Choice::One(document) => document,
        Choice::None => {
            bail!("no document of {} is for this machine: {}", file.display(), machine.shown())
        }
        Choice::Many(count) => {
            bail!("{count} documents of {} are for this machine: {}", file.display(), machine.shown())
        }
    };
    let items = node::render(document, &Unknown).items;
    if global.json {
        let items: Vec<Value> = items.iter().map(item).collect();
        let mut described = described(document);
        described["labels"] = json!(document.labels);
        described["files"] = json!(items);
        return Ok(streams::json(described)?);
    }
    streams::line(format_args!("{}:", summary(document)))?;
    for item in &items {
        match &item.kind {
            Kind::File(bytes, mode) => {
                streams::line(format_args!("  {mode:04o} {:>7} B  {}", bytes.0.len(), item.path))?;
            }
            Kind::Link(target) => streams::line(format_args!("  link            {} → {target}", item.path))?,
        }
    }
    Ok(())
}

fn item(item: &Item) -> Value {
    match &item.kind {
        Kind::File(bytes, mode) => {
            json!({ "path": item.path, "mode": format!("{mode:04o}"), "bytes": bytes.0.len() })
        }
        Kind::Link(target) => json!({ "path": item.path, "link": target }),
    }
}
