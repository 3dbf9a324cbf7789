//! The agent's side of an image: keller itself, what it is told, and whose updates it trusts.

use anyhow::{Context, Result, bail};

use crate::base::Digest;
use crate::disk::layout;
use crate::manifest::{GIVE_UP_AFTER, MOST_STARTS, Manifest};
use crate::node::{Policy, policy};
use crate::tree::{Content, Kind, Meta, Tree};
use crate::update::document;
use crate::update::settings::{self, Built, Health, PATH, PROGRAM, ROOT_JSON, Source};

/// The root of trust among the public halves of the keys.
const ROOT_FILE: &str = "root.json";

// A manifest may ask for every try, and by default for as many as an agent that is told nothing.
const _: () = assert!(MOST_STARTS == settings::TRIES as u32 && GIVE_UP_AFTER == settings::GIVE_UP_AFTER);

/// Puts keller itself into the root.
pub fn install(tree: &mut Tree, keller: &Content) -> Result<()> {
    let origin = tree.origin("keller");
    let meta = Meta::new(0o755).at(tree.epoch);
    tree.put(PROGRAM, meta, Kind::File(keller.clone()), origin)?;
    Ok(())
}

/// Writes the settings of the agent, the sizes of the node's partitions and what it is to trust into the root. Gives the digests of keys that lie beside
/// the manifest, by their names in the lock.
pub fn write_settings(tree: &mut Tree, manifest: &Manifest) -> Result<Vec<(String, Digest)>> {
    let built = built(manifest, tree.epoch);
    let text = serde_json::to_string_pretty(&built).context("telling the agent its settings")? + "\n";
    tree.file(PATH, 0o644, text)?;
    let sizes =
        serde_json::to_string_pretty(&super::sizes(manifest)?).context("telling the sizes of the disk")?;
    tree.file(layout::PATH, 0o644, sizes + "\n")?;
    let mut keys = Vec::new();
    if manifest.node != Policy::default() {
        let text =
            serde_json::to_string_pretty(&manifest.node).context("telling who gives documents")? + "\n";
        if !manifest.node.keys.is_empty() {
            keys.push(("node keys".to_owned(), Digest::of(text.as_bytes())));
        }
        tree.file(policy::PATH, 0o644, text)?;
    }
    let Some(update) = &manifest.update else { return Ok(keys) };
    let path = update.keys.join(ROOT_FILE);
    let bytes = crate::base::input::read(&path, crate::base::limits::TEXT)
        .with_context(|| format!("reading {}, which `keller keys init` makes", path.display()))?;
    let json: serde_json::Value = crate::base::json::parse(&bytes, crate::base::limits::JSON_VALUES)
        .with_context(|| format!("reading {}", path.display()))?;
    if json.pointer("/signed/_type").and_then(|kind| kind.as_str()) != Some("root") {
        bail!("{} is no root.json of a TUF repository", path.display());
    }
    let digest = Digest::of(&bytes);
    tree.file(ROOT_JSON, 0o644, bytes)?;
    keys.push((format!("update {ROOT_FILE}"), digest));
    Ok(keys)
}

fn built(manifest: &Manifest, epoch: i64) -> Built {
    let health = &manifest.health;
    let mut units = health.units.clone();
    if health.containers {
        let starting = manifest.containers.iter().filter(|container| container.start);
        units.extend(starting.map(|container| format!("{}.service", container.name)));
    }
    units.sort();
    units.dedup();
    Built {
        id: manifest.id.clone(),
        version: manifest.version.clone(),
        epoch,
        health: Health {
            units,
            etcd: health.etcd,
            network: health.network,
            command: health.command.clone(),
            stable_seconds: health.stable_seconds,
            deadline_seconds: health.deadline_seconds,
            give_up_after: health.give_up_after,
        },
        documents: document::FORMAT,
        update: manifest.update.as_ref().map(|update| Source {
            url: update.url.clone(),
            channel: update.channel.clone(),
            automatic: update.automatic,
            window: update.window,
            interval_seconds: update.interval_seconds,
        }),
    }
}
