//! `keller keys`: what signs a repository of updates.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;
use serde_json::json;

use super::{Global, streams, time};
use crate::base::{input, json, limits};
use crate::repository::keys::{Keys, Wanted};
use crate::repository::{RoleType, keys::Shown};

/// Make and replace the keys that sign updates.
///
/// Images carry root.json of this directory, and take what the keys that it names have signed. The keys of root are
/// needed to replace keys, not to publish: keep private/root-*.pem offline.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    keller keys init                                      a directory `keys`, for `update: {keys: keys}`\n  \
    keller keys init --root-keys 3 --root-threshold 2     any two of three people can replace keys\n  \
    keller keys show                                      what there is, and what is kept elsewhere\n  \
    keller keys rotate timestamp --key stick/root.pem     another key for the server that publishes\n\n\
    After a rotation: keller publish --refresh --to DIR")]
pub struct KeysArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make keys and the first root.json.
    #[command(after_help = "Examples:\n  \
        keller keys init\n  \
        keller keys init --root-keys 3 --root-threshold 2 --expires 1095d node-keys")]
    Init {
        /// Directory of the keys; made when missing.
        #[arg(default_value = "keys")]
        folder: PathBuf,
        /// Number of root keys.
        #[arg(long, value_name = "N", default_value_t = 1)]
        root_keys: u64,
        /// Number of root keys that must sign the replacement of keys.
        #[arg(long, value_name = "N", default_value_t = 1)]
        root_threshold: u64,
        #[command(flatten)]
        life: Life,
    },
    /// Replace the keys of a role; root keys of before, and new ones where those are replaced, must be at hand.
    #[command(after_help = "Examples:\n  \
        keller keys rotate timestamp\n  \
        keller keys rotate root --only 3f9a2c11 --key stick/root-3f9a2c11.pem\n\n\
        Then: keller publish --refresh --to DIR")]
    Rotate {
        /// Whose keys.
        role: RoleName,
        /// Only the key whose id begins so.
        #[arg(long, value_name = "ID")]
        only: Option<String>,
        #[command(flatten)]
        source: KeySource,
        #[command(flatten)]
        life: Life,
    },
    /// Make the next root.json with the same keys, before this one expires.
    #[command(after_help = "Examples:\n  \
        keller keys renew --key stick/root.pem\n\n\
        Then: keller publish --refresh --to DIR")]
    Renew {
        #[command(flatten)]
        source: KeySource,
        #[command(flatten)]
        life: Life,
    },
    /// List keys, and when root.json expires.
    #[command(after_help = "Examples:\n  keller keys show\n  keller keys show --json node-keys")]
    Show {
        #[command(flatten)]
        source: KeySource,
    },
}

/// Which keys.
#[derive(Debug, Args)]
struct KeySource {
    /// Directory of the keys.
    #[arg(default_value = "keys")]
    folder: PathBuf,
    /// A private key that is kept elsewhere, or a pipe as of <(COMMAND); may be repeated.
    #[arg(long, value_name = "FILE")]
    key: Vec<PathBuf>,
}

#[derive(Clone, Copy, Debug, Args)]
struct Life {
    /// How long root.json is good, e.g. 730d.
    #[arg(long, value_name = "TIME", default_value = "730d", value_parser = time::any)]
    expires: Duration,
}

impl Life {
    fn end(self) -> Result<Timestamp> {
        Timestamp::now().checked_add(self.expires).context("--expires is too far away")
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum RoleName {
    /// Signs who may sign.
    Root,
    /// Signs the list of releases.
    Targets,
    /// Signs which list is meant.
    Snapshot,
    /// Signs that there is nothing newer.
    Timestamp,
}

impl From<RoleName> for RoleType {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Root => Self::Root,
            RoleName::Targets => Self::Targets,
            RoleName::Snapshot => Self::Snapshot,
            RoleName::Timestamp => Self::Timestamp,
        }
    }
}

/// Runs the verb.
///
/// # Errors
/// Those of keys.
pub fn run(args: &KeysArgs, global: &Global) -> Result<ExitCode> {
    let (text, json) = match &args.verb {
        Verb::Init { folder, root_keys, root_threshold, life } => {
            let wanted =
                Wanted { root_keys: *root_keys, root_threshold: *root_threshold, expires: life.end()? };
            let keys = Keys::init(folder, wanted).context("making keys")?;
            let shown = folder.display();
            let text = format!(
                "{}\nnext:\n  put `update: {{url: …, keys: {shown}}}` into the manifest: images carry {shown}/root.json\n  \
                move {shown}/private/root-*.pem to a place that is not online; publishing does not need them\n  \
                keep a copy of {shown}/private: without root keys, every node has to be given a new root.json by hand\n",
                listed(&keys)
            );
            (text, described(&keys))
        }
        Verb::Rotate { role, only, source, life } => {
            let mut keys = open(source)?;
            let rotated = keys
                .rotate((*role).into(), only.as_deref(), life.end()?)
                .with_context(|| format!("replacing keys of {}", RoleType::from(*role)))?;
            let text = format!(
                "root.json is version {}: {} replaced\nnext: keller publish --refresh --to DIR\n",
                rotated.version,
                rotated.retired.iter().map(|id| brief(id)).collect::<Vec<_>>().join(", ")
            );
            let json =
                json!({ "version": rotated.version, "retired": rotated.retired, "made": rotated.made });
            (text, json)
        }
        Verb::Renew { source, life } => {
            let mut keys = open(source)?;
            let version = keys.renew(life.end()?).context("renewing root.json")?;
            let text = format!("root.json is version {version}\nnext: keller publish --refresh --to DIR\n");
            (text, json!({ "version": version }))
        }
        Verb::Show { source } => {
            let keys = open(source)?;
            (listed(&keys), described(&keys))
        }
    };
    match global.json {
        true => streams::json(json)?,
        false if global.quiet => {}
        false => streams::print(text)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn open(source: &KeySource) -> Result<Keys> {
    read(&source.folder, &source.key)
}

/// How long a command such as that of a secret manager may take before it is told that it is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// Reads a directory of keys, and those `besides`: files, or pipes as of `--key <(COMMAND)`, since a key need not lie on a
/// disk.
pub(super) fn read(folder: &Path, besides: &[PathBuf]) -> Result<Keys> {
    let (pipes, files): (Vec<_>, Vec<_>) =
        besides.iter().cloned().partition(|path| input::is_given_pipe(path));
    let reading = || format!("reading the keys in {}", folder.display());
    let mut keys = Keys::open(folder, &files).with_context(reading)?;
    for path in pipes {
        let name = path.display();
        let mut waiting =
            || streams::tell(format_args!("waiting for a private key from {name}; Ctrl-C ends it"));
        let pem = input::read_pipe(&path, limits::TEXT, PATIENCE, &mut waiting);
        keys.add(&path, &pem.with_context(|| format!("reading {name}"))?).with_context(reading)?;
    }
    Ok(keys)
}

fn brief(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

fn listed(keys: &Keys) -> String {
    let root = &keys.root().signed;
    let mut text = format!(
        "root.json version {}, good until {}\n",
        root.version,
        root.expires.strftime("%Y-%m-%d %H:%M UTC")
    );
    for Shown { role, id, private } in keys.shown() {
        let threshold = root.roles.get(&role).map_or(1, |own| own.threshold.get());
        let place = private.map_or("(not here)".to_owned(), |path| path.display().to_string());
        let name = role.to_string();
        text.push_str(&format!(
            "  {name:<10} {threshold} of {}  {}  {place}\n",
            count(keys, role),
            brief(&id)
        ));
    }
    text
}

fn count(keys: &Keys, role: RoleType) -> usize {
    keys.root().signed.roles.get(&role).map_or(0, |own| own.keyids.len())
}

fn described(keys: &Keys) -> serde_json::Value {
    let root = &keys.root().signed;
    let shown: Vec<_> = keys
        .shown()
        .into_iter()
        .map(|key| json!({ "role": key.role, "id": key.id, "private": key.private.as_deref().map(json::text_of) }))
        .collect();
    let thresholds: std::collections::BTreeMap<String, u64> =
        root.roles.iter().map(|(role, own)| (role.to_string(), own.threshold.get())).collect();
    json!({
        "version": root.version,
        "expires": root.expires.to_string(),
        "thresholds": thresholds,
        "keys": shown,
    })
}
