//! A node's view of a repository on a real web server that does what servers do.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use keller::base::Chain;
use keller::base::progress::Silent;
use keller::http::Settings;
use keller::http::url::Url;
use keller::repository::keys::{Keys, Wanted};
use keller::repository::publish::{Image, Options, Times};
use keller::repository::{Client, Layout, Repository, RepositoryError, RoleType, Web};
use keller::verity;
use tempfile::TempDir;
use uuid::Uuid;

use crate::http_server::{Act, Server};

const LIFE: Duration = Duration::from_secs(14 * 86_400);

/// A publisher, its web server, and a node.
pub struct World {
    /// IMAGE_ID of what is published.
    id: &'static str,
    /// Of the disks that it is published for, in bytes.
    sector_size: u32,
    folder: TempDir,
    pub server: Server,
    pub root_json: Vec<u8>,
}

impl World {
    fn new(versions: &[&str]) -> Self {
        Self::of("node", versions)
    }

    /// Small versions of `id`, published and served.
    pub fn of(id: &'static str, versions: &[&str]) -> Self {
        Self::with_sectors(512, id, versions)
    }

    /// The same for disks with sectors of so many bytes.
    pub fn with_sectors(sector_size: u32, id: &'static str, versions: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let expires = Timestamp::now() + Duration::from_secs(86_400 * 700);
        Keys::init(&folder.path().join("keys"), Wanted { root_keys: 3, root_threshold: 2, expires }).unwrap();
        let root_json = std::fs::read(folder.path().join("keys/root.json")).unwrap();
        let world = Self { id, sector_size, folder, server: Server::start(), root_json };
        versions.iter().for_each(|version| world.publish(version));
        world
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn keys(&self) -> Keys {
        Keys::open(&self.path("keys"), &[]).unwrap()
    }

    fn publish(&self, version: &str) {
        let root = version.as_bytes().repeat(4096);
        let root = &root[..4096 * 5];
        let options = verity::Options { salt: vec![7], uuid: Uuid::nil() };
        let mut tree = verity::Writer::new(io::sink(), options).unwrap();
        tree.write_all(root).unwrap();
        let image = Image {
            id: self.id,
            version,
            epoch: 0,
            reads: keller::update::document::FORMAT,
            sector_size: self.sector_size,
            root: &root,
            root_size: root.len() as u64,
            root_hash: tree.finish().unwrap().root_hash.digest(),
            salt: &[7],
            verity_uuid: Uuid::nil(),
            uki: version.as_bytes(),
            layout: Layout { esp: 8 << 20, root: 8 << 20, verity: 8 << 20 },
            root_json: Some(self.root_json.clone()),
        };
        let options =
            Options { channels: vec!["stable".to_owned()], notes: None, minimum: None, patches: 0, level: 3 };
        let times = Times { now: Timestamp::now(), life: LIFE };
        let keys = self.keys();
        let mut repository = Repository::open(self.path("repository"), &keys).unwrap();
        repository.add(&image, &options, times, &Silent).unwrap();
        drop(repository);
        self.serve(&self.path("repository"), "");
    }

    fn rotate(&self, roles: &[RoleType]) {
        for role in roles {
            self.keys().rotate(*role, None, Timestamp::now() + LIFE * 10).unwrap();
        }
        let times = Times { now: Timestamp::now(), life: LIFE };
        let keys = self.keys();
        Repository::open(self.path("repository"), &keys).unwrap().refresh(times, &Silent).unwrap();
        self.serve(&self.path("repository"), "");
    }

    fn serve(&self, folder: &Path, path: &str) {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = format!("{path}/{}", entry.file_name().to_string_lossy());
            match entry.file_type().unwrap().is_dir() {
                true => self.serve(&entry.path(), &path),
                false => self.server.put(&path, std::fs::read(entry.path()).unwrap(), &[Act::Serve]),
            }
        }
    }

    /// Has one file answered otherwise.
    fn fault(&self, path: &str, acts: &[Act]) {
        let bytes = std::fs::read(self.path("repository").join(path)).unwrap_or_default();
        self.server.put(&format!("/{path}"), bytes, acts);
    }

    /// The versions and their documents, from a node that remembers.
    fn look(&self) -> Result<Vec<String>, String> {
        self.look_at(Timestamp::now())
    }

    /// The same by a clock that shows `now`.
    fn look_at(&self, now: Timestamp) -> Result<Vec<String>, String> {
        let settings = Settings {
            idle: Duration::from_secs(2),
            pauses: vec![Duration::from_millis(1)],
            ..Settings::default()
        };
        let web = Web::new(Url::root(&self.server.url("")).unwrap(), settings).unwrap();
        let look = || -> Result<Vec<String>, RepositoryError> {
            let datastore = self.path("datastore");
            let trusted = Client::update(&self.root_json, &web, &datastore, now.as_second())?;
            let documents = trusted.releases().iter().map(|listing| trusted.document(listing));
            documents.map(|document| Ok(document?.version)).collect()
        };
        look().map_err(|error| Chain(&error).to_string())
    }
}

#[test]
fn a_server_that_fails_and_one_that_recovers() {
    let world = World::new(&["1.0.0"]);
    let listing = std::fs::read_dir(world.path("repository/targets")).unwrap().next().unwrap().unwrap();
    let document = format!("targets/{}", listing.file_name().into_string().unwrap());
    let files = ["metadata/timestamp.json", "metadata/1.snapshot.json", "metadata/1.targets.json", &document];
    for path in files {
        for (act, expected) in [
            (Act::Status(404), "is not on the server"),
            (Act::Status(403), "is not on the server: the address must be that of"),
            (Act::Status(500), "500"),
            (Act::Status(503), "503"),
            (Act::Hang, path),
            (Act::HangAt(10), path),
            (Act::ResetAt(10), path),
            (Act::Garbage, path),
            (Act::Close, path),
            (Act::Trickle, "slower than 256 B a second"),
            (Act::Endless, "has more than the"),
            (Act::Other(b"<html>not here</html>".to_vec()), path),
            (Act::Other(Vec::new()), path),
        ] {
            world.fault(path, std::slice::from_ref(&act));
            let text = world.look().unwrap_err();
            assert!(text.contains(expected) && text.contains(path), "{path}, {act:?}: {text}");
        }
        // A hiccup is no failure.
        world.fault(path, &[Act::Status(500), Act::Serve]);
        assert_eq!(world.look().unwrap(), ["1.0.0"], "{path}");
        world.fault(path, &[Act::ResetAt(20), Act::Serve]);
        assert_eq!(world.look().unwrap(), ["1.0.0"], "{path}");
        world.fault(path, &[Act::Serve]);
    }
    assert_eq!(world.look().unwrap(), ["1.0.0"]);
}

#[test]
fn a_root_that_the_server_fails_to_give_is_not_passed_over() {
    let world = World::new(&["1.0.0"]);
    world.rotate(&[RoleType::Root]);
    for act in [Act::Status(500), Act::Hang, Act::ResetAt(30), Act::Endless, Act::Other(b"{}".to_vec())] {
        world.fault("metadata/2.root.json", std::slice::from_ref(&act));
        let text = world.look().unwrap_err();
        assert!(text.contains("metadata/2.root.json"), "{act:?}: {text}");
    }
    world.fault("metadata/2.root.json", &[Act::Serve]);
    assert_eq!(world.look().unwrap(), ["1.0.0"]);
}

#[test]
fn an_object_store_says_403_of_the_next_root() {
    let world = World::new(&["1.0.0"]);
    world.fault("metadata/2.root.json", &[Act::Status(403)]);
    assert_eq!(world.look().unwrap(), ["1.0.0"]);
    world.rotate(&[RoleType::Root]);
    world.fault("metadata/2.root.json", &[Act::Serve]);
    world.fault("metadata/3.root.json", &[Act::Status(403)]);
    world.publish("1.0.1");
    assert_eq!(world.look().unwrap(), ["1.0.1", "1.0.0"]);
}

#[test]
fn roots_rotate_in_a_row_and_one_is_missing() {
    let world = World::new(&["1.0.0"]);
    assert_eq!(world.look().unwrap(), ["1.0.0"]);
    let roles = [RoleType::Root, RoleType::Timestamp, RoleType::Root, RoleType::Snapshot];
    world.rotate(&roles);
    world.publish("1.0.1");
    world.fault("metadata/3.root.json", &[Act::Status(404)]);
    let text = world.look().unwrap_err();
    assert!(
        text.starts_with("metadata/3.root.json is not in the repository, but 4.root.json is: publish again"),
        "{text}"
    );
    world.fault("metadata/3.root.json", &[Act::Serve]);
    assert_eq!(world.look().unwrap(), ["1.0.1", "1.0.0"]);
    // Next time nothing of the chain is asked for but its end.
    let before = world.server.seen().len();
    world.look().unwrap();
    let asked: Vec<String> =
        world.server.seen()[before..].iter().map(|request| request.line.clone()).collect();
    assert_eq!(asked[..2], ["GET /metadata/6.root.json", "GET /metadata/timestamp.json"]);
}

#[test]
fn a_state_that_is_frozen_expires() {
    let world = World::new(&["1.0.0"]);
    let day = |day: u64| Timestamp::now() + Duration::from_secs(day * 86_400);
    // Somebody goes on serving what was there before 1.0.1.
    let frozen = std::fs::read(world.path("repository/metadata/timestamp.json")).unwrap();
    world.publish("1.0.1");
    world.server.put("/metadata/timestamp.json", frozen, &[Act::Serve]);
    assert_eq!(world.look_at(day(13)).unwrap(), ["1.0.0"]);
    let text = world.look_at(day(15)).unwrap_err();
    assert!(
        text.starts_with("the timestamp metadata has expired on ")
            && text.ends_with("`keller publish --refresh` renews it at the publisher's"),
        "{text}"
    );
    world.fault("metadata/timestamp.json", &[Act::Serve]);
    assert_eq!(world.look_at(day(13)).unwrap(), ["1.0.1", "1.0.0"]);
    // The node has seen that day: a clock before it is wrong now, or was then.
    let text = world.look_at(day(3)).unwrap_err();
    assert!(text.ends_with("if the clock was in the future once, `keller update reset-clock` forgets it"));
    assert!(keller::repository::forget_time(&world.path("datastore")).unwrap());
    assert_eq!(world.look_at(day(3)).unwrap(), ["1.0.1", "1.0.0"]);
}

#[test]
fn old_states_are_replayed() {
    let world = World::new(&["1.0.0"]);
    let old = std::fs::read(world.path("repository/metadata/timestamp.json")).unwrap();
    world.publish("1.0.1");
    assert_eq!(world.look().unwrap(), ["1.0.1", "1.0.0"]);
    world.server.put("/metadata/timestamp.json", old, &[Act::Serve]);
    let text = world.look().unwrap_err();
    assert!(
        text.starts_with("the timestamp metadata is version 1, and this node has seen version 2"),
        "{text}"
    );
    world.fault("metadata/timestamp.json", &[Act::Serve]);
    assert_eq!(world.look().unwrap(), ["1.0.1", "1.0.0"]);
    let other = World::new(&["6.6.6"]);
    world.serve(&other.path("repository"), "");
    let text = world.look().unwrap_err();
    assert!(
        text.starts_with("metadata/timestamp.json is not signed by the keys that timestamp has in root 1"),
        "{text}"
    );
    world.serve(&world.path("repository"), "");
    assert_eq!(world.look().unwrap(), ["1.0.1", "1.0.0"]);
}
