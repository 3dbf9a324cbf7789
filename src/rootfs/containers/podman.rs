//! podman: images in an additional image store of containers/storage, containers as quadlet units.
//!
//! Source: containers/storage, drivers/overlay/overlay.go, layers.go and images.go (the on-disk form of the
//! overlay driver); podman-systemd.unit(5). The store lies in the verified root and is only ever read:
//! storage.conf(5) "additionalimagestores".

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::{Value, json};

use super::image::{Documents, Image, time};
use super::{ContainerError, FOLDER, START_SECONDS, closed, program, unit, volumes};
use crate::base::Digest;
use crate::base::width::to_index;
use crate::manifest::Container;
use crate::rootfs::Accounts;
use crate::rootfs::text::quadlet;
use crate::rootfs::text::unit::{Unit, word};
use crate::tree::{Tree, TreeError};

/// The image store in the verified root. storage.conf of the podman overlay names it.
pub const STORE: &str = "usr/share/keller/containers/storage";

/// Where quadlet looks for units of the system.
const QUADLETS: &str = "usr/share/containers/systemd";

/// Adds the image to the store and a quadlet unit `<name>.container`. Says where the image's root directory is.
pub fn install(
    tree: &mut Tree,
    container: &Container,
    image: Image,
    accounts: &Accounts,
) -> Result<String, ContainerError> {
    super::need(tree, container, "/usr/bin/podman", "podman")?;
    let account = program::check(container, &image)?;
    let documents = image.documents()?;
    // As containers/storage makes its own: what an image has setuid is for its containers alone.
    closed(tree, FOLDER)?;
    closed(tree, STORE)?;
    add_image(tree, &image, &documents)?;
    let quadlet = quadlet_file(container, &image);
    tree.file(format!("{QUADLETS}/{}.container", container.name), 0o644, quadlet)?;
    volumes::install(tree, container, &image, &account, accounts)?;
    add_layer(tree, container, image.tree, &documents)
}

fn add_layer(
    tree: &mut Tree,
    container: &Container,
    image: Tree,
    documents: &Documents,
) -> Result<String, ContainerError> {
    let id = documents.layer.to_hex();
    let layer = format!("{STORE}/overlay/{id}");
    let rootfs = format!("{layer}/diff");
    if tree.exists(&layer) {
        return Ok(rootfs);
    }
    let origin = tree.origin(&format!("container {}", container.name));
    let created = time(image.epoch);
    tree.graft(&rootfs, image, origin)?;
    let link = short_id(&documents.layer);
    tree.file(format!("{layer}/link"), 0o600, link.clone())?;
    tree.symlink(format!("{STORE}/overlay/l/{link}"), format!("../{id}/diff"))?;
    let digest = format!("sha256:{id}");
    append(
        tree,
        &format!("{STORE}/overlay-layers/layers.json"),
        json!({
            "id": id,
            "created": created,
            "compressed-diff-digest": digest,
            "compressed-size": documents.layer_size,
            "diff-digest": digest,
            "diff-size": documents.layer_size,
        }),
    )?;
    tree.file(format!("{STORE}/overlay-layers/layers.lock"), 0o600, "")?;
    Ok(rootfs)
}

fn add_image(tree: &mut Tree, image: &Image, documents: &Documents) -> Result<(), ContainerError> {
    let id = Digest::of(&documents.config).to_hex();
    let manifest_digest = format!("sha256:{}", Digest::of(&documents.manifest));
    let config_key = format!("sha256:{id}");
    let folder = format!("{STORE}/overlay-images/{id}");
    // The manifest is kept under the plain key and under the one that carries its digest.
    let manifest_key = format!("manifest-{manifest_digest}");
    let bodies = [
        ("manifest".to_owned(), &documents.manifest),
        (manifest_key, &documents.manifest),
        (config_key, &documents.config),
    ];
    let (mut sizes, mut digests, mut names) = (json!({}), json!({}), Vec::new());
    for (key, body) in bodies {
        tree.file(format!("{folder}/{}", file_name(&key)), 0o600, body.clone())?;
        sizes[&key] = json!(body.len());
        digests[&key] = json!(format!("sha256:{}", Digest::of(body)));
        names.push(key);
    }
    append(
        tree,
        &format!("{STORE}/overlay-images/images.json"),
        json!({
            "id": id,
            "digest": manifest_digest,
            "names": [image.reference],
            "layer": documents.layer.to_hex(),
            "created": time(image.tree.epoch),
            "big-data-names": names,
            "big-data-sizes": sizes,
            "big-data-digests": digests,
        }),
    )?;
    tree.file(format!("{STORE}/overlay-images/images.lock"), 0o600, "")?;
    Ok(())
}

/// Adds `entry` to the JSON list in the file at `path`, which is made when missing.
fn append(tree: &mut Tree, path: &str, entry: Value) -> Result<(), TreeError> {
    let mut list: Vec<Value> = match tree.exists(path) {
        true => serde_json::from_slice(&tree.read(path)?).expect("written by this module"),
        false => Vec::new(),
    };
    list.push(entry);
    tree.file(path, 0o600, Value::Array(list).to_string())?;
    Ok(())
}

/// The 26 letters by which overlay mounts name a layer. podman draws them by lot; here the digest gives them.
fn short_id(layer: &Digest) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let (mut bits, mut count, mut text) = (0u32, 0, String::new());
    for byte in &layer.as_bytes()[..17] {
        bits = bits << 8 | u32::from(*byte);
        count += 8;
        while count >= 5 && text.len() < 26 {
            count -= 5;
            text.push(char::from(ALPHABET[to_index(bits >> count & 31)]));
        }
    }
    text
}

/// The file in which an item of an image's data lies: its key, or base64 of it where the key has more than
/// dots, digits and lower-case letters (images.go, makeBigDataBaseName).
fn file_name(key: &str) -> String {
    if key.bytes().all(|b| b == b'.' || b.is_ascii_digit() || b.is_ascii_lowercase()) {
        return key.to_owned();
    }
    format!("={}", BASE64_STANDARD.encode(key))
}

/// The quadlet file.
pub fn quadlet_file(container: &Container, image: &Image) -> String {
    let volumes: Vec<_> = container
        .volumes
        .iter()
        .map(|volume| quadlet::volume(&volume.host, &volume.container, volume.read_only))
        .collect();
    let mut unit = Unit::default();
    // Else the generator has every container wait for the network, also one that is not reached from there.
    unit.section("Quadlet").set("DefaultDependencies", "false");
    unit.section("Unit").set("Description", &format!("Container {}", container.name));
    if unit::waits_for_network(container) {
        unit.set("Wants", "network-online.target").set("After", "network-online.target");
    }
    for path in volumes.iter().filter_map(|volume| volume.mounts.as_ref()) {
        unit.set("RequiresMountsFor", path);
    }
    unit.section("Container").set("ContainerName", &container.name).set("Image", &image.reference);
    unit.set("Pull", "never");
    if !container.new_privileges {
        unit.set("NoNewPrivileges", "true");
    }
    if !container.command.is_empty() {
        unit.set("Exec", &quadlet::command(&container.command));
    }
    for (name, value) in &container.environment {
        unit.set("Environment", &quadlet::environment(name, value));
    }
    if let Some(signal) = image.config.stop_signal {
        unit.set("StopSignal", &signal.to_string());
    }
    if container.host_network {
        unit.set("Network", "host");
    }
    for port in &container.ports {
        let protocol = if port.udp { "/udp" } else { "" };
        unit.set("PublishPort", &format!("{}:{}{protocol}", port.host, port.container));
    }
    for volume in &volumes {
        let (key, value) = &volume.setting;
        unit.set(key, value);
    }
    unit.section("Service");
    for (name, value) in quadlet::variables(&container.command) {
        unit.set("Environment", &word(&format!("{name}={value}")));
    }
    unit.set("Restart", "always").set("RestartSec", "2");
    unit.set("TimeoutStartSec", &START_SECONDS.to_string());
    if container.start {
        unit.section("Install").set("WantedBy", "multi-user.target");
    }
    unit.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_the_store() {
        assert_eq!(file_name("manifest"), "manifest");
        assert_eq!(file_name("sha256:ab"), "=c2hhMjU2OmFi");
        assert_eq!(file_name("a:"), "=YTo=");
        let id = short_id(&Digest::of(""));
        assert_eq!(id.len(), 26);
        assert!(id.bytes().all(|b| b.is_ascii_uppercase() || (b'2'..=b'7').contains(&b)));
    }
}
