//! Manifests as people write them: what is right, and every error word for word.
//!
//! Each `tests/manifest/NAME.yaml`, or `tests/manifest/NAME/node.yaml`, is wrong in ways that `NAME.txt`
//! tells. With KELLER_BLESS=1 the texts are written anew; read the difference.

use std::fs;
use std::path::{Path, PathBuf};

use keller::manifest::{self, OverlaySource, RootFilesystem};

const CASES: &str = "tests/manifest";

/// What `keller check` says of the manifest at `path`.
fn told(path: &Path) -> String {
    match manifest::load(path) {
        Ok(_) => panic!("{} is wrong, but nothing was told", path.display()),
        Err(diagnostics) => format!("{diagnostics}\n"),
    }
}

#[test]
fn every_error_word_for_word() {
    let bless = std::env::var_os("KELLER_BLESS").is_some();
    let (mut count, mut different) = (0, Vec::new());
    for entry in fs::read_dir(CASES).unwrap() {
        let entry: PathBuf = entry.unwrap().path();
        let name = entry.file_stem().unwrap().to_str().unwrap().to_owned();
        let path = match entry.extension().map(|extension| extension.to_str().unwrap()) {
            Some("yaml") if name != "image" => entry,
            None if name != "decided" => entry.join("node.yaml"),
            _ => continue,
        };
        count += 1;
        let (told, expected) = (told(&path), Path::new(CASES).join(format!("{name}.txt")));
        if bless {
            fs::write(&expected, &told).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != told {
            different.push(format!("{} is not what is told now:\n{told}", expected.display()));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
    assert!(count > 15, "only {count} cases were found");
}

#[test]
fn files_that_are_no_manifests() {
    let folder = tempfile::tempdir().unwrap();
    let told_of = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        told(&path)
    };
    assert!(told_of("latin1", b"keller: 1\nid: n\xf6de\n").contains("latin1:2:6: byte 0xf6 is not UTF-8"));
    assert!(told_of("large", &vec![b' '; 1 << 21]).contains("larger than 1 MiB"));
    let deep = format!("packages: {}a{}", "[".repeat(200), "]".repeat(200));
    assert!(told_of("deep", deep.as_bytes()).contains("nested deeper than 24 levels"));
    let block: String = (0..400).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    assert!(told_of("stairs", block.as_bytes()).contains("deep"));
    assert!(told_of("nul", b"keller: \0").contains("nul:1:"));
    assert!(told(folder.path()).contains("not a regular file"));
    assert!(told(&folder.path().join("gone")).contains("No such file"));
}

#[test]
fn the_outer_file_decides() {
    let manifest =
        manifest::load(Path::new("tests/manifest/decided/node.yaml")).unwrap_or_else(|e| panic!("{e}"));
    let names: Vec<&String> = manifest.recipe.packages.keys().collect();
    assert_eq!(names, ["curl", "htop", "nginx"]);
    assert_eq!(manifest.recipe.packages["curl"].file, Path::new("tests/manifest/decided/a.yaml"));
    assert_eq!(manifest.disk.root.to_string(), "4GiB");
    assert_eq!(manifest.disk.esp.to_string(), "256MiB");
    assert_eq!(manifest.disk.filesystem, RootFilesystem::Ext4);
    let files = fs::canonicalize("tests/manifest/decided/sub/files").unwrap();
    assert_eq!(manifest.recipe.overlays[0].source, OverlaySource::Folder(files));
    assert!(manifest.recipe.assume.is_empty(), "{:?}", manifest.recipe.assume);
    assert_eq!(
        (&*manifest.services.enable, &*manifest.services.mask),
        (&["b.service".into()][..], &["a.service".into()][..])
    );
}

#[test]
fn the_default_node_is_right_on_disk_and_inside() {
    let inside = manifest::load_embedded(manifest::DEFAULT).unwrap_or_else(|e| panic!("{e}"));
    let on_disk = manifest::load(Path::new("manifests/node.yaml")).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(
        inside.recipe.packages.keys().collect::<Vec<_>>(),
        on_disk.recipe.packages.keys().collect::<Vec<_>>()
    );
    assert!(
        inside.recipe.overlays.iter().all(|overlay| matches!(overlay.source, OverlaySource::Embedded(_)))
    );
    assert!(on_disk.recipe.overlays.iter().all(|overlay| matches!(overlay.source, OverlaySource::Folder(_))));
    assert_eq!(inside.services, on_disk.services);
}

#[test]
fn every_component_is_right() {
    for component in ["containerd", "kernel-metal"] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.yaml");
        let text = format!(
            "keller: 1\nid: a\nversion: 1\ninclude:\n  - keller:manifests/components/base.yaml\n  - \
             keller:manifests/components/{component}.yaml\n"
        );
        fs::write(&path, text).unwrap();
        manifest::load(&path).unwrap_or_else(|e| panic!("{e}"));
    }
}

#[test]
fn each_recipe_knows_what_it_says_itself() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    let run = "packages: [busybox]\nentrypoint: [/bin/gone]\nuser: nobody\n";
    write("carried.yaml", &format!("include: [keller:manifests/containers/base.yaml]\n{run}"));
    write("own.yaml", &format!("{run}assume: {{adduser: x}}\nprune: [/usr/share/man]\n"));
    write(
        "node.yaml",
        "keller: 1\nid: node\nversion: 1.0.0\ninclude: [keller:manifests/components/base.yaml]\nruntime: podman\n\
         containers:\n  - {name: carried, image: {build: carried.yaml}}\n  - {name: own, image: {build: own.yaml}}\n",
    );
    let node = manifest::load(&folder.path().join("node.yaml")).unwrap_or_else(|error| panic!("{error}"));
    let recipes: Vec<_> = node.recipes().collect();
    let scopes: Vec<&str> = recipes.iter().map(|(scope, _)| scope.as_str()).collect();
    assert_eq!(scopes, ["", "container carried: ", "container own: "]);
    let carried = |field, name| [0, 1, 2].map(|index| recipes[index].1.said.is_carried(field, name));
    assert_eq!(carried("prune", "/usr/share/man"), [true, true, false]);
    assert_eq!(carried("assume", "adduser"), [true, true, false]);
    // What a container assumes takes nothing away from the node.
    assert!(!node.may_lack("systemd-timesyncd.service"));
    for container in &node.containers {
        let place = |field, name| container.said.place(field, name).unwrap().to_string();
        for (field, name) in [("entrypoint", "/bin/gone"), ("user", "nobody")] {
            let file = format!("/{}.yaml:", container.name);
            assert!(place(field, name).contains(&file), "{}", place(field, name));
        }
    }
}

/// Without a speed the kernel takes 9600 baud.
#[test]
fn a_component_may_enable_what_the_manifest_takes_away() {
    let folder = tempfile::tempdir().unwrap();
    let load = |rest: &str| {
        let node = folder.path().join("node.yaml");
        let begin = "keller: 1\nid: node\nversion: 1.0.0\ninclude: [keller:manifests/components/base.yaml]\n";
        fs::write(&node, format!("{begin}{rest}")).unwrap();
        manifest::load(&node).unwrap_or_else(|error| panic!("{error}"))
    };
    let unit = "systemd-timesyncd.service";
    assert!(!load("").may_lack(unit));
    let own =
        load("assume: {systemd-timesyncd: chrony keeps the time}\nservices: {enable: [chrony.service]}\n");
    assert!(own.may_lack(unit) && !own.may_lack("chrony.service"));
    assert!(load("prune: [/usr/lib/systemd/system/systemd-timesyncd.service]\n").may_lack(unit));
}

#[test]
fn a_serial_console_has_a_speed() {
    let mut consoles = 0;
    for file in fs::read_dir("manifests/components").unwrap() {
        let text = fs::read_to_string(file.unwrap().path()).unwrap();
        for word in text.split("console=").skip(1) {
            let word = word.split([' ', ']', '"']).next().unwrap().trim_end_matches(',');
            assert!(!word.starts_with("ttyS") || word.ends_with(",115200"), "{word}");
            consoles += usize::from(word.starts_with("ttyS"));
        }
    }
    assert_eq!(consoles, 2);
}

#[test]
fn the_reference_is_that_of_the_schema() {
    let page = manifest::schema::markdown();
    if std::env::var_os("KELLER_BLESS").is_some() {
        fs::write("docs/manifest.md", &page).unwrap();
    }
    let kept = fs::read_to_string("docs/manifest.md").unwrap_or_default();
    assert!(kept == page, "docs/manifest.md is old: `keller schema --markdown > docs/manifest.md`");
}

/// Whatever is cut off or damaged, there is an answer and no panic.
#[test]
fn damaged_files_are_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.yaml");
    let whole = fs::read_to_string("tests/manifest/values.yaml").unwrap();
    for cut in (0..whole.len()).step_by(11) {
        for damage in ["", "\0", "{", "]", "\n\t- &a *a", ": !x", "\u{fffd}\r\n"] {
            fs::write(&path, format!("{}{damage}{}", &whole[..cut], &whole[(cut + 3).min(whole.len())..]))
                .unwrap();
            assert!(told(&path).ends_with(" errors\n") || told(&path).ends_with("1 error\n"));
        }
    }
}

/// The manifests and parts of manifests in `docs/manifest.md`: fenced blocks, and words of the text that
/// are a field with its value.
fn examples_of_the_page() -> Vec<String> {
    let page = fs::read_to_string("docs/manifest.md").unwrap();
    let guide = page.split("\n## Fields").next().unwrap();
    let (mut examples, mut text) = (Vec::new(), String::new());
    for (number, part) in guide.split("```").enumerate() {
        match part.strip_prefix("yaml\n") {
            Some(block) if number % 2 == 1 => {
                let indent = block.len() - block.trim_start_matches(' ').len();
                let lines = block.lines().map(|line| line.get(indent..).unwrap_or_default());
                examples.push(lines.collect::<Vec<_>>().join("\n"));
            }
            _ if number % 2 == 0 => text.push_str(part),
            _ => {}
        }
    }
    let fields =
        ["packages: ", "files: ", "system_users: ", "services: ", "overlays: ", "include: ", "keep: "];
    let words = text.split('`').skip(1).step_by(2);
    examples
        .extend(words.filter(|word| fields.iter().any(|field| word.starts_with(field))).map(str::to_owned));
    examples
}

#[test]
fn examples_of_the_page_are_right() {
    let examples = examples_of_the_page();
    assert!(examples.len() >= 10, "only {examples:#?} were found");
    let folder = tempfile::tempdir().unwrap();
    for directory in ["overlay", "keys"] {
        fs::create_dir(folder.path().join(directory)).unwrap();
    }
    for key in ["keys/own.asc", "keys/flat.asc"] {
        fs::copy("src/source/debian/keys/debian-archive-trixie-stable.asc", folder.path().join(key)).unwrap();
    }
    let node = folder.path().join("node.yaml");
    for example in examples {
        let begin = "keller: 1\nid: node\nversion: 1.0.0\n";
        let whole = if example.starts_with("keller: ") { example } else { format!("{begin}{example}\n") };
        fs::write(&node, &whole).unwrap();
        manifest::load(&node).unwrap_or_else(|error| panic!("{whole}\n{error}"));
    }
}

/// The waits of keller's own units in a row: for the network, then for the slowest start.
#[test]
fn no_own_wait_is_longer_than_the_deadline() {
    let overlay = |path: &str| std::fs::read_to_string(Path::new("overlays").join(path)).unwrap();
    let seconds = |text: &str, before: &str| -> u64 {
        let (_, rest) = text.split_once(before).unwrap_or_else(|| panic!("no {before} in {text}"));
        rest.split_whitespace().next().unwrap().parse().unwrap()
    };
    let units = "usr/lib/systemd/system";
    let network = overlay(&format!("base/{units}/systemd-networkd-wait-online.service.d/10-keller.conf"));
    let etcd = overlay(&format!("etcd/{units}/etcd.service.d/10-keller.conf"));
    let slowest = seconds(&etcd, "\nTimeoutStartSec=").max(keller::rootfs::containers::START_SECONDS);
    let node = manifest::load_embedded(manifest::DEFAULT).unwrap_or_else(|e| panic!("{e}"));
    assert!(seconds(&network, "--timeout=") + slowest <= node.health.deadline_seconds);
}
