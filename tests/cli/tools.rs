//! Tools that keller unpacks for this host, as it does QEMU: made anew out of the store, whoever's key it was that
//! sealed them, and never out of what nobody has signed.

use std::fs;
use std::path::{Path, PathBuf};

use keller::base::Digest;
use keller::base::progress::Silent;
use keller::base::seal::Key;
use keller::project::{Inputs, Wanted};
use keller::store::{Access, Store};

use super::project::Project;

const MANIFEST: &str = "keller: 1\nid: tool\nversion: 1.0.0\n\
    debian: {suite: trixie, updates: false, security: false, keys: archive.asc}\n\
    packages: [greeter]\nruntime: none\n";

/// A project whose tool is a package of its archive.
struct Host {
    project: Project,
}

impl Host {
    fn new() -> Self {
        let project = Project::new();
        project.write("node/tool.yaml", MANIFEST);
        Self { project }
    }

    /// The store of a user with this key, or with none.
    fn store(&self, key: Option<u8>) -> Store {
        let key = key.map(|byte| Key::from_bytes([byte; 32]));
        Store::open_with(self.project.path("store"), Access { key, shared: false }).unwrap()
    }

    /// Unpacks it for a moment: where it was, and what its program is.
    fn unpack(&self, key: Option<u8>, offline: bool) -> Result<(PathBuf, Vec<u8>), String> {
        let wanted = Wanted {
            name: "greet",
            title: "the greeter",
            size: "nothing much",
            instead: "installing greeter",
            request: Digest::of(MANIFEST),
            manifest: keller::manifest::load(&self.project.path("node/tool.yaml")).unwrap(),
        };
        let inputs = Inputs {
            mirror: Some(self.project.path("mirror/debian").display().to_string()),
            store: None,
            allow_shared_store: false,
            offline,
            threads: 1,
        };
        let store = self.store(key);
        let tool = wanted.unpacked(&inputs, &store, &Silent).map_err(|error| format!("{error:#}"))?;
        let program = fs::read(tool.folder().join("usr/bin/greet")).unwrap();
        Ok((tool.folder().to_owned(), program))
    }

    /// Files of the store by the begin of what they have.
    fn blob(&self, begin: &[u8]) -> PathBuf {
        let store = self.store(None);
        let blobs = store.blobs().unwrap().into_iter().map(|entry| entry.path);
        blobs.into_iter().find(|path| fs::read(path).unwrap().starts_with(begin)).unwrap()
    }
}

#[test]
fn made_anew_without_a_network_for_another_key() {
    let host = Host::new();
    let (place, program) = host.unpack(Some(1), false).unwrap();
    assert_eq!(place, host.project.path("store/tools/greet"));
    // From here on there is nobody to ask.
    fs::remove_dir_all(host.project.path("mirror")).unwrap();
    assert_eq!(host.unpack(Some(1), true).unwrap(), (place.clone(), program.clone()));
    // Another user, or a cache that was restored without the key; and a tool that was changed.
    for key in [2, 3, 2] {
        fs::write(place.join("usr/bin/greet"), "changed").unwrap();
        assert_eq!(host.unpack(Some(key), true).unwrap(), (place.clone(), program.clone()), "{key}");
        assert_eq!(fs::read(place.join("usr/bin/greet")).unwrap(), program);
    }
    // With no key nothing is left, and what others have stays.
    let (elsewhere, once) = host.unpack(None, true).unwrap();
    assert_eq!(once, program);
    assert!(elsewhere != place && !elsewhere.exists());
    assert_eq!(host.store(Some(2)).tools().unwrap(), ["greet"]);
    assert!(host.store(Some(2)).tool("greet", &Digest::of(MANIFEST)).is_some());
}

#[test]
fn what_is_missing_is_named() {
    let missing = |remove: &dyn Fn(&Host), named: &str| {
        let host = Host::new();
        host.unpack(Some(1), false).unwrap();
        remove(&host);
        let error = host.unpack(Some(2), true).unwrap_err();
        println!("{error}");
        assert!(error.starts_with("unpacking the greeter out of the store "), "{error}");
        assert!(
            error.contains("running this once without --offline, or installing greeter, would do"),
            "{error}"
        );
        assert!(error.contains(named), "{error}");
        // And that is so.
        host.unpack(Some(2), false).unwrap();
        host.unpack(Some(3), true).unwrap();
    };
    let remove = |path: &Path| fs::remove_file(path).unwrap();
    missing(
        &|host| remove(&host.project.path("store/tools/greet.releases")),
        "the store has no dists/trixie/InRelease",
    );
    missing(
        &|host| remove(&host.blob(b"-----BEGIN PGP SIGNED MESSAGE-----")),
        "the store has no dists/trixie/InRelease",
    );
    let xz = b"\xfd7zXZ";
    missing(&|host| remove(&host.blob(xz)), "the store has no dists/trixie/main/binary-amd64/Packages");
    missing(&|host| remove(&host.blob(b"!<arch>")), "of the lock's files");
}

#[test]
fn notes_of_a_planter_lead_to_nothing_unsigned() {
    let host = Host::new();
    let (_, program) = host.unpack(Some(1), false).unwrap();
    let notes = "store/tools/greet.releases";
    let whole = host.project.text(notes);
    let release = host.project.text("mirror/debian/dists/trixie/InRelease");
    let plant = |bytes: &[u8]| {
        let digest = host.store(None).import(bytes).unwrap();
        host.project.write(notes, format!("{digest} dists/trixie/InRelease\n"));
        host.unpack(Some(2), true).unwrap_err()
    };
    for planted in [&b""[..], b"\0", release.replacen("amd64", "amd65", 1).as_bytes(), &[b'x'; 70_000]] {
        let error = plant(planted);
        assert!(error.contains("verifying file:///debian/dists/trixie/InRelease: "), "{error}");
    }
    for text in ["", "\n\n", "x", "dists/trixie/InRelease", &"x".repeat(1 << 20), "\u{0}\u{1b}[2J"] {
        host.project.write(notes, text);
        let error = host.unpack(Some(2), true).unwrap_err();
        assert!(error.contains("the store has no dists/trixie/InRelease"), "{error}");
    }
    // Something else under the name of a package's digest.
    host.project.write(notes, whole);
    let deb = host.blob(b"!<arch>");
    let bytes = fs::read(&deb).unwrap();
    fs::write(&deb, [&bytes[..], b"more"].concat()).unwrap();
    let error = host.unpack(Some(2), true).unwrap_err();
    assert!(error.contains("unpacking "), "{error}");
    fs::write(&deb, bytes).unwrap();
    assert_eq!(host.unpack(Some(2), true).unwrap().1, program);
}
