//! No field does nothing: every leaf of the schema is set in two ways, and the image, the lock or the answer
//! is another. A leaf without a sample fails, so whoever adds a field adds its sample to `samples`.

mod network;
mod samples;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use keller::base::{Digest, Hasher};
use keller::manifest::schema;
use keller::node::signature::PublicKey;
use rayon::prelude::*;
use serde_json::{Value, json};

use super::archive::{Archive, KEY, Package, RELEASED, greeter};
use super::elf;
use super::project::Project;
use crate::deb::tar;
use crate::repository::{DAY, key, public};
use samples::{IMAGE_BASE, IMAGES, MANIFEST_BASE, MANIFESTS, Sample};

/// What comes of a manifest.
#[derive(Clone, Debug, PartialEq)]
enum Outcome {
    /// Digest of image and lock, and names of the files.
    Built(Digest, Vec<String>),
    Refused(String),
}

/// Names of all leaves below `node`: fields joined by dots, `*` for any key of a map, `=` before each word of
/// a closed set, `[]` for a list where one word would do.
fn leaves(root: &Value, node: &Value, name: &str, found: &mut BTreeSet<String>) {
    if let Some(target) = node["$ref"].as_str() {
        return leaves(root, root.pointer(target.trim_start_matches('#')).unwrap(), name, found);
    }
    if let Some(words) = node["oneOf"].as_array().or(node["enum"].as_array()) {
        for word in words {
            let word = word.as_str().or(word["const"].as_str());
            found.insert(format!("{name}={}", word.unwrap_or_else(|| panic!("{name}: {node}"))));
        }
    } else if let Some(forms) = node["anyOf"].as_array() {
        for form in forms {
            let list = if form["type"] == "array" { "[]" } else { "" };
            leaves(root, form, &format!("{name}{list}"), found);
        }
    } else if let Some(fields) = node["properties"].as_object() {
        for (field, node) in fields {
            let dot = if name.is_empty() || name.ends_with(' ') { "" } else { "." };
            leaves(root, node, &format!("{name}{dot}{field}"), found);
        }
    } else if node["additionalProperties"].is_object() {
        leaves(root, &node["additionalProperties"], &format!("{name}.*"), found);
    } else if node["type"] == "array" {
        leaves(root, &node["items"], name, found);
    } else {
        assert!(["string", "boolean", "integer"].contains(&node["type"].as_str().unwrap()), "{name}: {node}");
        found.insert(name.to_owned());
    }
}

fn manifests() -> impl Iterator<Item = &'static Sample> {
    MANIFESTS.iter().chain(network::NETWORK)
}

#[test]
fn every_leaf_has_a_sample() {
    let mut found = BTreeSet::new();
    for (root, name) in [(schema::manifest(), ""), (schema::container_image(), "image: ")] {
        leaves(&root, &root, name, &mut found);
    }
    assert!(found.len() > 120, "{found:#?}");
    let sampled: BTreeSet<String> = manifests()
        .map(|sample| sample.leaf.to_owned())
        .chain(IMAGES.iter().map(|sample| format!("image: {}", sample.leaf)))
        .collect();
    let (missing, unknown): (Vec<_>, Vec<_>) =
        (found.difference(&sampled).collect(), sampled.difference(&found).collect());
    assert!(missing.is_empty(), "fields without a sample in tests/cli/leaves: {missing:#?}");
    assert!(unknown.is_empty(), "samples of fields that are gone: {unknown:#?}");
}

#[test]
fn every_leaf_has_an_effect() {
    let project = project();
    let mut texts: BTreeMap<String, String> = BTreeMap::new();
    for sample in manifests() {
        texts.extend([sample.one, sample.other].map(|text| (text.to_owned(), manifest(text))));
    }
    for (index, sample) in IMAGES.iter().enumerate() {
        for (side, text) in [sample.one, sample.other].into_iter().enumerate() {
            let name = format!("image-{index}-{side}.yaml");
            let include = if text.contains("include:") { "" } else { "include: [image-base.yaml]\n" };
            project.write(&format!("node/{name}"), format!("{include}{text}"));
            let container = format!(
                "runtime: podman\ncontainers:\n  - {{name: hello, image: {{build: {name}}}, start: false}}\n"
            );
            texts.insert(image_key(text), manifest(&container));
        }
    }
    let numbered: Vec<(usize, (&String, &String))> = texts.iter().enumerate().collect();
    let outcomes: BTreeMap<&String, Outcome> = numbered
        .par_iter()
        .map(|(number, (key, text))| (*key, build(&project, &format!("sample-{number}"), text)))
        .collect();
    let mut wrong = Vec::new();
    let mut judge = |leaf: String, sample: &Sample, one: &Outcome, other: &Outcome| {
        let refused = |outcome: &Outcome| match outcome {
            Outcome::Refused(text) => Some(text.clone()),
            Outcome::Built(..) => None,
        };
        let told = [one, other].into_iter().filter_map(refused).collect::<Vec<_>>();
        let as_told = match sample.told {
            "" => told.is_empty(),
            text => told.iter().any(|told| told.contains(text)),
        };
        if one == other || !as_told {
            wrong.push(format!("{leaf}: {:?} and {:?} give\n{one:?}\n{other:?}", sample.one, sample.other));
        }
    };
    for sample in manifests() {
        let of = |text: &str| &outcomes[&text.to_owned()];
        judge(sample.leaf.to_owned(), sample, of(sample.one), of(sample.other));
    }
    for sample in IMAGES {
        let of = |text: &str| &outcomes[&image_key(text)];
        judge(format!("image: {}", sample.leaf), sample, of(sample.one), of(sample.other));
    }
    assert!(
        wrong.is_empty(),
        "{} fields do nothing, or not what is said:\n{}",
        wrong.len(),
        wrong.join("\n\n")
    );
}

fn image_key(text: &str) -> String {
    format!("image: {text}")
}

/// A whole manifest: what `text` does not say itself comes from the base.
fn manifest(text: &str) -> String {
    let mut whole = String::new();
    for line in MANIFEST_BASE.lines() {
        let (field, _) = line.split_once(':').unwrap();
        let said = text.lines().any(|line| line.split(':').next() == Some(field));
        if !said {
            whole += &format!("{line}\n");
        }
    }
    whole + text + "\n"
}

/// Builds `text` in the folder of the project, under a name of its own.
fn build(project: &Project, name: &str, text: &str) -> Outcome {
    let place = format!("file://{}", project.path("mirror").display());
    project.write(&format!("node/{name}.yaml"), text.replace("MIRROR", &place));
    let out = format!("out/{name}");
    let manifest = format!("node/{name}.yaml");
    let mut command = project.keller(&["build", "--keller", "fake-keller", "--no-sums", "--json"]);
    command.args(["--threads", "1", "-o", &out, &manifest]).env_remove("KELLER_MIRROR");
    let ran = super::project::Ran::of(&command.output().unwrap());
    if ran.code != Some(0) {
        let told = ran.error().replace(&place, "MIRROR");
        return Outcome::Refused(told.replace(name, "NAME"));
    }
    let said: Value = serde_json::from_str(&ran.out).unwrap();
    let mut hasher = Hasher::new();
    let mut names = Vec::new();
    for path in said["files"].as_array().unwrap() {
        let path = path.as_str().unwrap();
        names.push(path.rsplit('/').next().unwrap().to_owned());
        data(&project.path(path), &mut hasher);
    }
    let mut lock = project.json(&format!("node/{name}.lock"));
    lock["provenance"].as_object_mut().unwrap().remove("judged_at");
    hasher.update(lock.to_string().as_bytes());
    fs::remove_dir_all(project.path(&out)).unwrap();
    Outcome::Built(hasher.finish(), names)
}

/// The bytes of a sparse file that are not zero, with their places.
fn data(path: &Path, hasher: &mut Hasher) {
    let file = fs::File::open(path).unwrap();
    let length = file.metadata().unwrap().len();
    hasher.update(length.to_le_bytes());
    let mut at = 0;
    let mut block = [0; 65536];
    while let Ok(next) = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(at)) {
        at = next / 65536 * 65536;
        let count = file.read_at(&mut block, at).unwrap();
        if block[..count].iter().any(|byte| *byte != 0) {
            hasher.update(at.to_le_bytes());
            hasher.update(&block[..count]);
        }
        at += 65536;
    }
}

/// A project with more packages and files than samples need at once.
fn project() -> Project {
    let mut project = Project::new();
    let unit = "usr/lib/systemd/system";
    for package in [
        Package::new("engines", "1")
            .file("usr/bin/crun", elf::program())
            .file("usr/bin/ctr", elf::program())
            .file("usr/bin/mount", elf::program())
            .file("usr/bin/umount", elf::program())
            .file("usr/bin/mkdir", elf::program())
            .file("usr/bin/sh", elf::program())
            .file(&format!("{unit}/containerd.service"), "[Service]\nExecStart=/usr/bin/ctr\n"),
        Package::new("sshd", "1").file("usr/sbin/sshd", elf::program()).file("usr/bin/rm", elf::program()),
        Package::new("etcd-server", "1").file("usr/bin/etcd", elf::program()).file(
            &format!("{unit}/etcd.service"),
            "[Service]\nExecStart=/usr/bin/etcd\n[Install]\nWantedBy=multi-user.target\n",
        ),
        Package::new("noded", "1").member("./usr/lib/noded/disk", b'4', ""),
        Package::new("needy", "1").field("Depends: debhelp").file("usr/bin/needy", elf::program()),
        Package::new("needy-tool", "1").file("usr/bin/needy-tool", elf::needing("libgone.so.1")),
        Package::new("debhelp", "1").file("usr/bin/debhelp", elf::program()),
    ] {
        project.archive.add(&package);
    }
    project.publish();
    let mut other = Archive::new(&KEY, &[greeter("3.0-1")]);
    other.pool.extend(project.archive.pool.clone());
    other.write(&project.path("mirror/other"));
    let mut old = Archive::new(&KEY, &[]);
    old.pool = project.archive.pool.clone();
    old.release.valid_until = Some(RELEASED + 7 * DAY);
    old.write(&project.path("mirror/old"));
    Archive::new(&KEY, &[Package::new("extra", "1").file("usr/bin/extra", elf::program())])
        .write(&project.path("mirror/extra"));
    Archive::new(&KEY, &[Package::new("extra", "2").file("usr/bin/extra", elf::program())])
        .write(&project.path("mirror/extra2"));
    project.write("node/stranger.asc", public(&key(365 * 50)));
    project.write("node/base.yaml", samples::BASE);
    project.write("node/image-base.yaml", IMAGE_BASE);
    project.write("node/more.yaml", "packages: [greeter]\n");
    project.write("node/image-more.yaml", "packages: [debhelp]\ninclude: [image-base.yaml]\n");
    project.write("node/note.txt", "a note\n");
    for (folder, root) in [("keys", "root"), ("keys2", "root")] {
        fs::create_dir_all(project.path(&format!("node/{folder}"))).unwrap();
        let text = json!({ "signed": { "_type": root, "of": folder } }).to_string();
        project.write(&format!("node/{folder}/root.json"), text);
    }
    for (name, byte) in [("rack", 1), ("rack2", 2)] {
        let key = PublicKey::new(&[byte; 32]).unwrap();
        project.write(&format!("node/{name}.pub"), key.to_pem());
    }
    fs::create_dir_all(project.path("node/overlay2/usr/lib/systemd/system")).unwrap();
    project.write("node/overlay2/usr/lib/systemd/system/multi-user.target", "[Unit]\nDescription=another\n");
    layout(&project);
    super::rights::layout(&project, "node/open.oci", &json!({ "Entrypoint": ["/usr/bin/greet"] }));
    project
}

/// An OCI layout of one layer, `node/hello.oci`.
fn layout(project: &Project) {
    let program = elf::program();
    let layer = tar(&[("usr/bin/greet", b'0', "", program.len() as u64, &program)]);
    let blob = |bytes: &[u8]| {
        let path = format!("node/hello.oci/blobs/sha256/{}", Digest::of(bytes));
        fs::create_dir_all(project.path(&path).parent().unwrap()).unwrap();
        project.write(&path, bytes);
        format!("sha256:{}", Digest::of(bytes))
    };
    let diff = blob(&layer);
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": { "Entrypoint": ["/usr/bin/greet"] },
        "rootfs": { "type": "layers", "diff_ids": [diff] },
    })
    .to_string();
    let kind = |name: &str| format!("application/vnd.oci.image.{name}");
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": kind("manifest.v1+json"),
        "config": {
            "mediaType": kind("config.v1+json"), "digest": blob(config.as_bytes()), "size": config.len(),
        },
        "layers": [{ "mediaType": kind("layer.v1.tar"), "digest": diff, "size": layer.len() }],
    })
    .to_string();
    let index = json!({
        "schemaVersion": 2,
        "manifests": [{
            "mediaType": kind("manifest.v1+json"), "digest": blob(manifest.as_bytes()), "size": manifest.len(),
        }],
    });
    project.write("node/hello.oci/index.json", index.to_string());
    project.write("node/hello.oci/oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
}
