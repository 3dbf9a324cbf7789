use serde_json::{Value, json};

use super::*;
use crate::rootfs::containers::layer;

#[test]
fn layers_are_flattened_and_checked() {
    let mut lower = Tree::new(0);
    lower.file("a", 0o644, "old").unwrap();
    lower.file("d/x", 0o644, "x").unwrap();
    let mut upper = Tree::new(0);
    upper.file(".wh.a", 0o644, "").unwrap();
    upper.file("d/.wh..wh..opq", 0o644, "").unwrap();
    upper.file("d/y", 0o600, "y").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let blobs = folder.path().join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8]| {
        let digest = Digest::of(bytes);
        std::fs::write(blobs.join(digest.to_hex()), bytes).unwrap();
        format!("sha256:{digest}")
    };
    let layers: Vec<_> = [lower, upper]
        .iter()
        .map(|tree| {
            let mut bytes = Vec::new();
            layer::write(tree, &mut bytes).unwrap();
            serde_json::json!({ "digest": put(&bytes), "mediaType": "application/vnd.oci.image.layer.v1.tar" })
        })
        .collect();
    let config = put(br#"{"config":{"Cmd":["/x"],"Env":["A=b=c"],"User":""}}"#);
    let manifest = serde_json::json!({ "config": { "digest": config }, "layers": layers }).to_string();
    let index = serde_json::json!({ "manifests": [{ "digest": put(manifest.as_bytes()) }] }).to_string();
    std::fs::write(folder.path().join("index.json"), index).unwrap();
    let (image, _) = read(folder.path(), None, 0).unwrap();
    let paths: Vec<_> =
        image.tree.walk().into_iter().map(|(path, _)| String::from_utf8(path).unwrap()).collect();
    assert_eq!(paths, ["", "d", "d/y"]);
    assert_eq!(image.config.environment["A"], "b=c");
    assert_eq!((image.config.command, image.config.user), (vec!["/x".to_owned()], None));

    let victim = std::fs::read_dir(&blobs).unwrap().next().unwrap().unwrap().path();
    std::fs::write(victim, "rotten").unwrap();
    assert!(matches!(read(folder.path(), None, 0), Err(ArchiveError::Digest { .. })));
}

/// A layout under construction.
struct Layout {
    folder: tempfile::TempDir,
    entries: Vec<Value>,
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

impl Layout {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("blobs/sha256")).unwrap();
        Self { folder, entries: Vec::new() }
    }

    fn put(&self, bytes: &[u8], kind: &str) -> Value {
        let digest = Digest::of(bytes);
        std::fs::write(self.folder.path().join("blobs/sha256").join(digest.to_hex()), bytes).unwrap();
        json!({ "digest": format!("sha256:{digest}"), "mediaType": kind, "size": bytes.len() })
    }

    /// An image with one file `name`.
    fn image(&self, name: &str, architecture: &str) -> Value {
        let mut tree = Tree::new(0);
        tree.file(name, 0o755, "x").unwrap();
        let mut layer = Vec::new();
        layer::write(&tree, &mut layer).unwrap();
        let config = json!({
            "architecture": architecture, "os": "linux", "config": { "Cmd": [name] },
            "rootfs": { "diff_ids": [format!("sha256:{}", Digest::of(&layer))] },
        });
        let config = self.put(config.to_string().as_bytes(), "application/vnd.oci.image.config.v1+json");
        let layer = self.put(&layer, "application/vnd.oci.image.layer.v1.tar");
        self.put(json!({ "config": config, "layers": [layer] }).to_string().as_bytes(), MANIFEST)
    }

    fn add(&mut self, mut entry: Value, name: Option<&str>, platform: Option<&str>) {
        if let Some(name) = name {
            entry["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
        }
        if let Some(architecture) = platform {
            let os = if architecture == "unknown" { "unknown" } else { "linux" };
            entry["platform"] = json!({ "architecture": architecture, "os": os });
        }
        self.entries.push(entry);
    }

    fn index(&self) -> Value {
        json!({ "schemaVersion": 2, "manifests": self.entries })
    }

    fn write(&self) -> &Path {
        std::fs::write(self.folder.path().join("index.json"), self.index().to_string()).unwrap();
        self.folder.path()
    }

    /// The command of the image that is chosen, or what is said.
    fn chosen(&self, wanted: Option<&str>) -> String {
        match read(self.write(), wanted, 0) {
            Ok((image, _)) => image.config.command.concat(),
            Err(error) => error.to_string(),
        }
    }

    /// The layout as a tar archive.
    fn tar(&self) -> Vec<u8> {
        let tree = Overlay::from_folder(self.write(), "x", 0).unwrap().tree;
        let mut bytes = Vec::new();
        layer::write(&tree, &mut bytes).unwrap();
        bytes
    }
}

#[test]
fn one_of_several_is_chosen_by_name_or_digest() {
    let mut layout = Layout::new();
    let (app, db) = (layout.image("app", "amd64"), layout.image("db", "amd64"));
    layout.add(app.clone(), Some("localhost/app:1.2"), None);
    layout.add(db, Some("docker.io/library/db:9"), None);
    assert_eq!(
        layout.chosen(None),
        "there are several images: docker.io/library/db:9, localhost/app:1.2; choose one by `reference`"
    );
    for (wanted, found) in [
        ("localhost/app:1.2", "app"),
        ("app:1.2", "app"),
        ("library/db:9", "db"),
        (app["digest"].as_str().unwrap(), "app"),
    ] {
        assert_eq!(layout.chosen(Some(wanted)), found, "{wanted}");
    }
    for wanted in ["1.2", "pp:1.2", "app", "nosuch", ""] {
        let said = layout.chosen(Some(wanted));
        assert!(
            said.contains("no image is called") && said.contains("localhost/app:1.2"),
            "{wanted}: {said}"
        );
    }
    // The same under a further name is one image.
    let mut layout = Layout::new();
    let app = layout.image("app", "amd64");
    layout.add(app.clone(), Some("app:1"), None);
    layout.add(app, Some("app:latest"), None);
    assert_eq!(layout.chosen(None), "app");
}

#[test]
fn an_image_for_another_machine_is_refused() {
    // With the platform in the index, and, as podman writes it, in the configuration alone.
    for platform in [Some("arm64"), None] {
        let mut layout = Layout::new();
        let arm = layout.image("arm", "arm64");
        layout.add(arm, Some("app:1"), platform);
        let said = layout.chosen(None);
        assert!(said.contains("is for linux/arm64") && said.contains("--platform linux/amd64"), "{said}");
        let ours = layout.image("ours", "amd64");
        layout.add(ours, Some("app:2"), platform.map(|_| "amd64"));
        assert_eq!(layout.chosen(None), "ours");
        assert!(layout.chosen(Some("app:1")).contains("linux/arm64"));
    }
}

#[test]
fn an_index_for_many_platforms() {
    let mut inner = Layout::new();
    for architecture in ["arm64", "amd64", "unknown"] {
        let image = inner.image(architecture, architecture);
        inner.add(image, None, Some(architecture));
    }
    // What the layout does not have was left out when it was copied for one platform.
    inner.entries.push(json!({
        "digest": format!("sha256:{}", Digest::of("gone")), "mediaType": MANIFEST,
        "platform": { "architecture": "s390x", "os": "linux" },
    }));
    let index = inner.put(inner.index().to_string().as_bytes(), INDEX);
    let digest = index["digest"].as_str().unwrap().to_owned();
    inner.entries.clear();
    inner.add(index, Some("app:1"), None);
    for wanted in [None, Some("app:1"), Some(digest.as_str())] {
        assert_eq!(inner.chosen(wanted), "amd64");
    }
}

#[test]
fn what_is_no_image_is_told() {
    let mut layout = Layout::new();
    assert!(layout.chosen(None).contains("names no image"));
    let config = layout.put(b"{}", "application/vnd.cncf.helm.config.v1+json");
    let chart = layout.put(json!({ "config": config, "layers": [] }).to_string().as_bytes(), MANIFEST);
    layout.add(chart, None, None);
    assert!(layout.chosen(None).contains("is not a container image but application/vnd.cncf.helm"));
    let folder = tempfile::tempdir().unwrap();
    let said = read(folder.path(), None, 0).unwrap_err().to_string();
    assert!(said.contains("index.json is missing") && said.contains("skopeo copy"), "{said}");
}

#[test]
fn compressed_archives() {
    let mut layout = Layout::new();
    let image = layout.image("app", "amd64");
    layout.add(image, None, None);
    let plain = layout.tar();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, &plain).unwrap();
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    std::io::Write::write_all(&mut bzip2, &plain).unwrap();
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 0);
    std::io::Write::write_all(&mut xz, &plain).unwrap();
    let all = [
        gzip.finish().unwrap(),
        bzip2.finish().unwrap(),
        xz.finish().unwrap(),
        zstd::encode_all(&plain[..], 1).unwrap(),
        // pzstd begins with a frame that says how long the next one is.
        [b"\x50\x2a\x4d\x18\x04\0\0\0size", &zstd::encode_all(&plain[..], 1).unwrap()[..]].concat(),
        plain,
    ];
    let file = layout.folder.path().join("archive");
    for bytes in &all {
        std::fs::write(&file, bytes).unwrap();
        assert_eq!(read(&file, None, 0).unwrap().0.config.command, ["app"]);
        std::fs::write(&file, &bytes[..bytes.len() / 3]).unwrap();
        assert!(read(&file, None, 0).is_err());
    }
}

#[test]
fn a_name_that_looks_compressed() {
    let magics: [&[u8]; 6] =
        [b"BZh91AY&SY", b"BZh", b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ", b"\x50\x2a\x4d\x18"];
    for magic in magics {
        let name = [magic, b".txt"].concat();
        let mut header = tar::Header::new_ustar();
        header.as_ustar_mut().unwrap().name[..name.len()].copy_from_slice(&name);
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(0);
        header.set_cksum();
        let member = header.as_bytes().to_vec();
        assert!(member.starts_with(magic));
        let mut layer = [&member[..], &[0; 1024]].concat();
        // A layer whose every byte a tool wrote, or one that ends with its last member.
        for end in [layer.len(), 512] {
            layer.truncate(end);
            let mut layout = Layout::new();
            let config = json!({
                "architecture": "amd64", "os": "linux", "config": { "Cmd": ["/x"] },
                "rootfs": { "diff_ids": [format!("sha256:{}", Digest::of(&layer))] },
            });
            let config =
                layout.put(config.to_string().as_bytes(), "application/vnd.oci.image.config.v1+json");
            let layer = layout.put(&layer, "application/vnd.oci.image.layer.v1.tar");
            let image =
                layout.put(json!({ "config": config, "layers": [layer] }).to_string().as_bytes(), MANIFEST);
            layout.add(image, None, None);
            // The archive around it begins with such a name, too.
            let archive = layout.folder.path().join("archive");
            std::fs::write(&archive, [&member[..], &layout.tar()].concat()).unwrap();
            let (image, _) = read(&archive, None, 0).unwrap();
            assert!(image.tree.exists(&name), "{}", name.escape_ascii());
        }
    }
}

#[test]
fn a_user_that_is_none() {
    let config = |user: &str| {
        let process = Process { user: Some(user.to_owned()), ..Process::default() };
        process.config("blobs/sha256/c").map(|config| config.user).map_err(|error| error.to_string())
    };
    for good in ["web", "1000", "web:web", "1000:1000", ":web", "web:", "domain user"] {
        assert_eq!(config(good).unwrap().as_deref(), Some(good));
    }
    assert_eq!(config("").unwrap(), None);
    for bad in ["web\nroot:x:0:0::/:/bin/sh", "a:b:c", "web\t", "\0"] {
        let said = config(bad).unwrap_err();
        assert!(said.starts_with("blobs/sha256/c: its User ") && said.contains("`user:group`"), "{said}");
        assert_eq!(said.lines().count(), 1);
    }
    for bad in ["0\n[Service]", "4294967296", "4294967295", "2147483648:0", "0:-1"] {
        let said = config(bad).unwrap_err();
        assert!(said.contains(&format!("its User {bad:?} is not a user: ")), "{said}");
    }
}

#[test]
fn texts_that_no_program_can_be_given_are_refused() {
    for process in [
        Process { entrypoint: Some(vec!["/x".into(), "a\0b".into()]), ..Process::default() },
        Process { cmd: Some(vec!["\0".into()]), ..Process::default() },
        Process { env: Some(vec!["A=\0".into()]), ..Process::default() },
        Process { working_dir: Some("/a\0".into()), ..Process::default() },
    ] {
        let said = process.config("c").unwrap_err().to_string();
        assert!(said.contains("a NUL ends a text"), "{said}");
    }
    for (length, is_good) in [(limits::ARGUMENT, true), (limits::ARGUMENT + 1, false)] {
        let text = "x".repeat(length);
        for process in [
            Process { cmd: Some(vec![text.clone()]), ..Process::default() },
            Process { env: Some(vec![text.clone()]), ..Process::default() },
        ] {
            let said = process.config("c").map_err(|error| error.to_string());
            assert_eq!(said.is_ok(), is_good);
            assert!(is_good || said.unwrap_err().contains("of 131072 bytes, and a program is given 131071"));
        }
    }
}

#[test]
fn a_directory_to_start_in_is_one_that_can_be() {
    for (folder, part) in [
        ("app".to_owned(), "\"app\" does not begin with `/`"),
        ("/app/../..".to_owned(), "climbs with `..`"),
        (format!("/{}", "a".repeat(256)), "is longer than a path can be"),
        ("/aaaaaaa".repeat(512), "is longer than a path can be"),
    ] {
        let process = Process { working_dir: Some(folder), ..Process::default() };
        let said = process.config("c").unwrap_err().to_string();
        assert!(said.starts_with("c: its WorkingDir ") && said.contains(part), "{said}");
    }
    for (folder, kept) in [("", None), ("/", Some("/")), ("/a b/./c/", Some("/a b/./c/"))] {
        let process = Process { working_dir: Some(folder.to_owned()), ..Process::default() };
        assert_eq!(process.config("c").unwrap().workdir.as_deref(), kept);
    }
}

#[test]
fn what_docker_save_writes() {
    let folder = tempfile::tempdir().unwrap();
    let mut tree = Tree::new(0);
    tree.file("app", 0o755, "x").unwrap();
    let mut layer = Vec::new();
    layer::write(&tree, &mut layer).unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::create_dir(path("one")).unwrap();
    std::fs::create_dir(path("two")).unwrap();
    std::fs::write(path("one/layer.tar"), &layer).unwrap();
    std::os::unix::fs::symlink("../one/layer.tar", path("two/layer.tar")).unwrap();
    let id = format!("sha256:{}", Digest::of(&layer));
    let config = |ids: [&str; 2]| json!({ "architecture": "amd64", "os": "linux", "config": { "Cmd": ["app"] }, "rootfs": { "diff_ids": ids } });
    std::fs::write(path("config.json"), config([&id, &id]).to_string()).unwrap();
    let saved = json!([{
        "Config": "config.json", "RepoTags": ["app:1"], "Layers": ["one/layer.tar", "two/layer.tar"],
    }]);
    std::fs::write(path("manifest.json"), saved.to_string()).unwrap();
    for wanted in [None, Some("app:1")] {
        let (image, _) = read(folder.path(), wanted, 0).unwrap();
        assert!(image.tree.exists("app"));
    }
    std::fs::write(path("config.json"), config([&id, &format!("sha256:{}", Digest::of("x"))]).to_string())
        .unwrap();
    assert!(matches!(read(folder.path(), None, 0), Err(ArchiveError::Digest { .. })));
}

#[test]
fn a_layer_without_padding_and_end() {
    let mut tree = Tree::new(0);
    tree.file("a", 0o644, "body").unwrap();
    let mut whole = Vec::new();
    layer::write(&tree, &mut whole).unwrap();
    let read_up_to = |end: usize| {
        let mut copy = Vec::new();
        let limits = Limits { members: 10, bytes: 1 << 20 };
        from_tar::read_layer(&mut &whole[..end], &mut copy, limits).map(|members| members.len())
    };
    // A header, four bytes of a body, its padding, the marker of two blocks.
    for end in [whole.len(), 512 + 512 + 512, 512 + 512, 512 + 100, 512 + 4] {
        assert_eq!(read_up_to(end).unwrap(), 1, "{end}");
    }
    for end in [512 + 3, 511, 512 + 512 + 100] {
        assert!(matches!(read_up_to(end), Err(TarError::Truncated { .. })), "{end}");
    }
}

#[test]
fn all_layers_share_the_room() {
    let mut tree = Tree::new(0);
    tree.file("a", 0o644, vec![1; 60_000]).unwrap();
    let mut layer = Vec::new();
    layer::write(&tree, &mut layer).unwrap();
    let mut room = Room(100_000);
    let mut unpack = || room.unpack("layer x", &mut &layer[..]).map(|(members, _)| members.len());
    assert_eq!(unpack().unwrap(), 1);
    let told = unpack().unwrap_err().to_string();
    assert!(told.starts_with("layer x: member \"a\" brings the archive to 6"), "{told}");
    assert!(told.contains("bytes, more than the 3") && told.ends_with(" that are allowed"), "{told}");
}
