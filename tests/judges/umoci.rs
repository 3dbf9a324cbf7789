//! Layers of container images, laid over each other by umoci and by keller.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::Command;

use keller::base::Digest;
use keller::rootfs::containers::archive;
use keller::tree::{Kind, Tree, show};
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

use super::tool::run;
use super::trixie::trixie;
use crate::boot::parts::is_root;

/// The time of directories that no layer has.
const EPOCH: i64 = 77;

/// A sequence that is the same in every run (Knuth's MMIX).
pub struct Lot(pub u64);

impl Lot {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    pub fn of<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[self.below(all.len() as u64) as usize]
    }
}

/// An OCI layout of these layers, each a tar archive, with a tag `x`, for a process as the specification has it.
pub fn layout(folder: &Path, layers: &[Vec<u8>], process: &Value) {
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8], kind: &str| {
        let digest = Digest::of(bytes);
        fs::write(blobs.join(digest.to_hex()), bytes).unwrap();
        json!({ "mediaType": kind, "digest": format!("sha256:{digest}"), "size": bytes.len() })
    };
    let ids: Vec<String> = layers.iter().map(|layer| format!("sha256:{}", Digest::of(layer))).collect();
    let layers: Vec<_> =
        layers.iter().map(|layer| put(layer, "application/vnd.oci.image.layer.v1.tar")).collect();
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": process,
        "rootfs": { "type": "layers", "diff_ids": ids },
    });
    let config = put(config.to_string().as_bytes(), "application/vnd.oci.image.config.v1+json");
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config, "layers": layers,
    });
    let mut manifest = put(manifest.to_string().as_bytes(), "application/vnd.oci.image.manifest.v1+json");
    manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": "x" });
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    fs::write(folder.join("index.json"), index.to_string()).unwrap();
    fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

/// What one entry of a layer is.
pub enum Entry<'a> {
    File(&'a [u8]),
    Directory,
    Symlink(&'static str),
    Link(String),
    Fifo,
}

/// A layer: of each entry path, mode, owner (the group is one more), time and what it is.
pub fn layer(entries: &[(String, u32, u64, u64, Entry<'_>)]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (path, mode, owner, time, entry) in entries {
        let mut header = Header::new_gnu();
        header.set_mode(*mode);
        header.set_uid(*owner);
        header.set_gid(owner + 1);
        header.set_mtime(*time);
        header.set_size(0);
        let empty: &[u8] = b"";
        match entry {
            Entry::File(body) => {
                header.set_entry_type(EntryType::Regular);
                header.set_size(body.len() as u64);
                builder.append_data(&mut header, path, *body).unwrap();
            }
            Entry::Directory => {
                header.set_entry_type(EntryType::Directory);
                builder.append_data(&mut header, path, empty).unwrap();
            }
            Entry::Symlink(target) => {
                header.set_entry_type(EntryType::Symlink);
                builder.append_link(&mut header, path, target).unwrap();
            }
            Entry::Link(target) => {
                header.set_entry_type(EntryType::Link);
                builder.append_link(&mut header, path, target).unwrap();
            }
            Entry::Fifo => {
                header.set_entry_type(EntryType::Fifo);
                builder.append_data(&mut header, path, empty).unwrap();
            }
        }
    }
    builder.into_inner().unwrap()
}

/// The whole of a tree, by path: kind, mode, owner, time, target or body, and who shares a node.
type Listing = BTreeMap<Vec<u8>, String>;

fn line(kind: char, mode: u32, owner: (u32, u32), time: i64, body: &[u8], with_owner: bool) -> String {
    let owner = if with_owner { format!("{}:{}", owner.0, owner.1) } else { String::new() };
    // A link's mode means nothing. umoci sets a directory's time to now where it makes one in it.
    let time = if kind == 'd' { 0 } else { time };
    let mode = if kind == 'l' { 0o777 } else { mode & 0o7777 };
    format!("{kind} {mode:o} {owner} {time} {}", show(body))
}

fn ours(tree: &Tree, with_owner: bool) -> Listing {
    let (mut listing, mut first) = (Listing::new(), BTreeMap::new());
    for (path, id) in tree.walk().into_iter().skip(1) {
        let node = tree.node(id);
        let body = match &node.kind {
            Kind::File(content) => content.to_vec().unwrap(),
            Kind::Symlink(target) => target.clone(),
            _ => Vec::new(),
        };
        let meta = &node.meta;
        let owner = (meta.uid, meta.gid);
        let text = line(node.kind.letter(), u32::from(meta.mode), owner, meta.mtime, &body, with_owner);
        let shared = first.entry(id).or_insert_with(|| path.clone());
        listing.insert(path.clone(), format!("{text} = {}", show(shared)));
    }
    listing
}

fn theirs(
    root: &Path,
    folder: &Path,
    with_owner: bool,
    listing: &mut Listing,
    first: &mut BTreeMap<u64, Vec<u8>>,
) {
    let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    for path in names {
        let meta = fs::symlink_metadata(&path).unwrap();
        let kind = meta.file_type();
        let (letter, body) = match () {
            () if kind.is_dir() => ('d', Vec::new()),
            () if kind.is_symlink() => ('l', fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec()),
            () if kind.is_fifo() => ('p', Vec::new()),
            () => ('-', fs::read(&path).unwrap()),
        };
        let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
        let text = line(letter, meta.mode(), (meta.uid(), meta.gid()), meta.mtime(), &body, with_owner);
        let shared = first.entry(meta.ino()).or_insert_with(|| name.clone()).clone();
        listing.insert(name, format!("{text} = {}", show(&shared)));
        if kind.is_dir() {
            theirs(root, &path, with_owner, listing, first);
        }
    }
}

/// Both listings of an image of these layers, or why umoci refused them; nothing without umoci.
fn both(layers: &[Vec<u8>]) -> Option<Result<(Listing, Listing), String>> {
    let mut umoci = trixie(&["umoci"], "usr/bin/umoci")?;
    let work = tempfile::tempdir().unwrap();
    let (image, root) = (work.path().join("image"), work.path().join("root"));
    layout(&image, layers, &json!({ "Cmd": ["/x"] }));
    umoci.args(["raw", "unpack", "--image"]).arg(format!("{}:x", image.display()));
    // Only root can give files away.
    umoci.args((!is_root()).then_some("--rootless")).arg(&root);
    let output = umoci.output().unwrap();
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        // A file of a layer before, above what has no entry, makes way in keller, as it does with podman.
        assert!(said.contains("not a directory") || archive::read(&image, None, EPOCH).is_err(), "{said}");
        return Some(Err(said));
    }
    let (mut listing, mut first) = (Listing::new(), BTreeMap::new());
    theirs(&root, &root, is_root(), &mut listing, &mut first);
    let (image, _) = archive::read(&image, None, EPOCH).unwrap();
    // What umoci made may not be readable for everybody.
    run(Command::new("chmod").args(["-R", "u+rwX"]).arg(&root));
    Some(Ok((ours(&image.tree, is_root()), listing)))
}

fn compare(layers: &[Vec<u8>], what: &str) -> Option<Listing> {
    let (ours, theirs) = both(layers)?.unwrap_or_else(|said| panic!("{what}: {said}"));
    same(&ours, &theirs, what);
    Some(ours)
}

fn same(ours: &Listing, theirs: &Listing, what: &str) {
    for path in ours.keys().chain(theirs.keys()) {
        assert_eq!(ours.get(path), theirs.get(path), "{what}: {}", show(path));
    }
}

#[test]
fn a_later_layer_closes_a_directory() {
    let lower = layer(&[
        ("data/".into(), 0o755, 0, 5, Entry::Directory),
        ("data/kept".into(), 0o644, 0, 5, Entry::File(b"kept")),
        ("secret/".into(), 0o755, 0, 5, Entry::Directory),
    ]);
    let upper = layer(&[
        ("data/".into(), 0o750, 1000, 6, Entry::Directory),
        ("secret/".into(), 0o700, 0, 7, Entry::Directory),
    ]);
    let Some(listing) = compare(&[lower, upper], "sample") else { return };
    assert!(listing[&b"secret"[..]].starts_with("d 700 "), "{listing:#?}");
    assert!(listing[&b"data"[..]].starts_with("d 750 "), "{listing:#?}");
    assert!(listing.contains_key(&b"data/kept"[..]));
}

#[test]
fn random_layers_come_out_as_with_umoci() {
    let names = ["a", "b", "c", "a/x", "a/y", "b/x", "b/y/z", "c/x", "a/x/deep", "d/e/f"];
    let targets = ["a", "b", "/c", "../a", "nowhere", "b/../a"];
    let mut compared = 0;
    for seed in 0..150 {
        let mut lot = Lot(seed);
        let mut layers = Vec::new();
        for depth in 0..3 {
            let (mut entries, mut own) = (Vec::new(), Vec::<String>::new());
            for _ in 0..2 + lot.below(7) {
                let name = lot.of(&names).to_owned();
                // What a layer has below a file or link of its own, or twice, no tool reads as another does.
                let related = |own: &String| {
                    *own == name
                        || name.starts_with(&format!("{own}/"))
                        || own.starts_with(&format!("{name}/"))
                };
                if own.iter().any(related) {
                    continue;
                }
                let (mode, owner) = (0o400 + lot.below(0o400) as u32, lot.below(3) * 1000);
                let time = 100 + lot.below(1000);
                let (folder, last) =
                    name.rsplit_once('/').map_or(("", name.as_str()), |(folder, last)| (folder, last));
                let below =
                    |last: &str| if folder.is_empty() { last.to_owned() } else { format!("{folder}/{last}") };
                let (path, entry) = match lot.below(if depth == 0 { 6 } else { 10 }) {
                    0 | 1 => (name.clone(), Entry::File(b"body")),
                    2 | 3 => (format!("{name}/"), Entry::Directory),
                    4 => (name.clone(), Entry::Symlink(lot.of(&targets))),
                    5 => (name.clone(), Entry::Fifo),
                    6 => (below(&format!(".wh.{last}")), Entry::File(b"")),
                    7 => (format!("{name}/.wh..wh..opq"), Entry::File(b"")),
                    8 => (name.clone(), Entry::File(b"another")),
                    _ => (format!("{name}/"), Entry::Directory),
                };
                own.push(name);
                entries.push((path, mode, owner, time, entry));
            }
            layers.push(layer(&entries));
        }
        match both(&layers) {
            None => return,
            Some(Ok((ours, theirs))) => {
                same(&ours, &theirs, &format!("seed {seed}"));
                compared += 1;
            }
            Some(Err(_)) => {}
        }
    }
    assert!(compared > 80, "umoci took {compared} of 150 images");
}

#[test]
fn hard_links_into_the_layer_before() {
    let lower = layer(&[("a".into(), 0o640, 1000, 5, Entry::File(b"one"))]);
    let upper = layer(&[
        ("b".into(), 0o640, 1000, 5, Entry::Link("a".into())),
        ("d/c".into(), 0o640, 1000, 5, Entry::Link("a".into())),
    ]);
    let top = layer(&[("a".into(), 0o600, 0, 6, Entry::File(b"two"))]);
    let Some(listing) = compare(&[lower, upper, top], "links") else { return };
    assert!(listing[&b"d/c"[..]].ends_with("one = b"), "{listing:#?}");
}
