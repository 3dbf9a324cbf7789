//! Versions are published, refused, moved between channels; and every interruption leaves the old state.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::*;
use crate::base::Chain;
use crate::base::progress::Silent;
use crate::base::width::to_u64;
use crate::repository::metadata::ROLES;
use crate::repository::testing::{Publisher, allow, copy, day, made, options, times};
use crate::update::delta;

fn refused<T>(result: Result<T, PublishError>) -> String {
    match result {
        Ok(_) => panic!("it was not refused"),
        Err(error) => Chain(&error).to_string(),
    }
}

/// Every file below `folder`, with its digest.
fn files(folder: &Path) -> BTreeMap<PathBuf, Digest> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(files(&entry.path())),
            false => drop(found.insert(entry.path(), Digest::of(fs::read(entry.path()).unwrap()))),
        }
    }
    found
}

#[test]
fn a_version_is_made_of_its_files() {
    let publisher = Publisher::new();
    publisher.publish("1.0.0");
    publisher.publish("1.0.1");
    let added = publisher.publish("1.0.2");
    let from: Vec<_> = added.patches.iter().map(|patch| patch.from.as_str()).collect();
    assert_eq!(from, ["1.0.1", "1.0.0"]);
    assert!(added.patches.iter().all(|patch| patch.root.unwrap() < added.root && patch.uki.is_some()));
    let keys = publisher.keys();
    let repository = Repository::open(publisher.repository(), &keys).unwrap();
    let document = repository.document(&added.listing).unwrap();
    drop(repository);
    let (new, old) = (made("1.0.2"), made("1.0.0"));
    // As a node takes it: by the patch, and from nothing.
    let folder = Folder::new(publisher.repository());
    for before in [None, Some(&old)] {
        let file = tempfile::tempfile().unwrap();
        file.set_len(document.root.size).unwrap();
        let sectors = crate::base::device::SectorSize::B512;
        let mut target = crate::base::device::FileDevice::image(file, sectors).unwrap();
        let root = before.map(|before| before.root.as_slice());
        let old = before.zip(root.as_ref()).map(|(before, root)| delta::Old {
            root,
            root_size: to_u64(before.root.len()),
            root_hash: before.root_hash(),
            uki: Some(&before.uki),
        });
        delta::root(&document.root, &folder, old.as_ref(), &mut target, &Silent).unwrap();
        let mut bytes = vec![0; new.root.len()];
        target.read_at(&mut bytes, 0).unwrap();
        assert!(bytes == new.root);
        let uki = before.map(|before| before.uki.as_slice());
        let mut bytes = Vec::new();
        let fetched = delta::uki(&document.uki, &folder, uki, &mut bytes, &Silent).unwrap();
        assert!(bytes == new.uki);
        assert_eq!(fetched.way == delta::Way::Patch, before.is_some());
    }
    assert_eq!(publisher.publish("1.0.3").patches.len(), 3);
    let none = Options { patches: 0, ..options(&["stable"]) };
    assert!(publisher.add_with(&made("1.0.4"), &none, 0).unwrap().patches.is_empty());
}

#[test]
fn the_same_again_is_nothing() {
    let publisher = Publisher::new();
    publisher.publish("1.0.0");
    publisher.publish("1.0.1");
    let before = files(&publisher.repository());
    let again = publisher.publish("1.0.0");
    assert!(!again.new && again.listing.channels == ["stable"]);
    assert_eq!(files(&publisher.repository()), before);
    let mut other = made("1.0.0");
    other.root[5000] ^= 1;
    let text = refused(publisher.add(&other, &["stable"], 0));
    assert!(text.starts_with("1.0.0 is published already with root hash "), "{text}");
    assert!(text.ends_with("give it a new version"), "{text}");
    let mut other = made("1.0.0");
    other.uki[0] ^= 1;
    assert!(refused(publisher.add(&other, &["stable"], 0)).contains("another kernel image"));
    let notes = Options { notes: Some("better".to_owned()), ..options(&["stable"]) };
    let text = refused(publisher.add_with(&made("1.0.1"), &notes, 0));
    assert_eq!(text, "1.0.1 is published already, and its notes cannot be changed");
    assert_eq!(files(&publisher.repository()), before);
}

#[test]
fn whoever_reads_a_repository_holds_up_nobody() {
    let publisher = Publisher::new();
    publisher.publish("1.0.0");
    let keys = publisher.keys();
    let mode =
        |name: &str| fs::metadata(publisher.repository().join(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(".lock"), 0o600);
    // The directory and what nodes read are open to everybody, and none of them is the lock.
    for name in ["", "metadata", "metadata/timestamp.json"] {
        let held = fs::File::open(publisher.repository().join(name)).unwrap();
        rustix::fs::flock(&held, FlockOperation::NonBlockingLockExclusive).unwrap();
        Repository::open(publisher.repository(), &keys).unwrap();
    }
    let held = Repository::open(publisher.repository(), &keys).unwrap();
    let text = refused(Repository::open(publisher.repository(), &keys));
    assert!(
        text.ends_with(" just now") || text.contains(&format!("process {} (", std::process::id())),
        "{text}"
    );
    drop(held);
    // A publisher's link is no way to another's file.
    let other = publisher.folder.path().join("other");
    fs::write(&other, "").unwrap();
    fs::remove_file(publisher.repository().join(".lock")).unwrap();
    std::os::unix::fs::symlink(&other, publisher.repository().join(".lock")).unwrap();
    let text = refused(Repository::open(publisher.repository(), &keys));
    assert!(
        text.starts_with("opening ") && text.contains("/repository/.lock, the repository's lock: "),
        "{text}"
    );
    assert!(Repository::open_to_read(publisher.repository(), &keys).is_ok());
}

#[test]
fn only_forward() {
    let publisher = Publisher::new();
    publisher.publish("1.0.1");
    let before = files(&publisher.repository());
    for version in ["1.0.0", "1.0.1~rc1", "0.9"] {
        assert_eq!(
            refused(publisher.add(&made(version), &["stable"], 0)),
            format!("{version} is not newer than 1.0.1, the newest in stable: nodes would not take it")
        );
    }
    // The same to whoever compares.
    assert!(refused(publisher.add(&made("1.00.1"), &["stable"], 0)).contains("give it a new version"));
    let minimum = Options { minimum: Some("3".to_owned()), ..options(&["stable"]) };
    assert_eq!(
        refused(publisher.add_with(&made("2.0"), &minimum, 0)),
        "--minimum 3 is not older than 2.0: no node could take it"
    );
    assert_eq!(
        refused(publisher.add(&made("2.0"), &["Stable!"], 0)),
        "\"Stable!\" cannot be the name of a channel: use a-z, 0-9 and `-`, at most 32"
    );
    assert_eq!(files(&publisher.repository()), before);
}

#[test]
fn what_does_not_fit_is_refused() {
    let publisher = Publisher::new();
    publisher.publish("1.0.0");
    let before = files(&publisher.repository());
    let mut large = made("1.0.1");
    large.root.resize(2 << 20, 0);
    large.layout.root = 4 << 20;
    assert!(refused(publisher.add(&large, &["stable"], 0)).starts_with(
        "the root file system has 2.0 MiB (2097152 bytes), and the disks of node 1.0.0 have room for 1.0 MiB"
    ));
    let mut large = made("1.0.1");
    large.uki.resize(3 << 20, 1);
    assert!(refused(publisher.add(&large, &["stable"], 0)).starts_with("two unified kernel images"));
    let root = large.root.as_slice();
    let sectors = Image { sector_size: 4096, uki: &[], ..large.image(&root) };
    let keys = publisher.keys();
    let mut repository = Repository::open(publisher.repository(), &keys).unwrap();
    let text = refused(repository.add(&sectors, &options(&["stable"]), times(0), &Silent));
    assert!(text.starts_with("the image is for sectors of 4096 bytes, and 1.0.0 is for 512"), "{text}");
    assert_eq!(files(&publisher.repository()), before);
}

#[test]
fn channels() {
    let publisher = Publisher::new();
    publisher.publish("1.0.0");
    publisher.add(&made("1.0.2"), &["beta"], 0).unwrap();
    let keys = publisher.keys();
    let mut repository = Repository::open(publisher.repository(), &keys).unwrap();
    let promoted = repository.promote(None, "1.0.2", "stable", times(0), &Silent).unwrap();
    assert_eq!(promoted.channels, ["beta", "stable"]);
    let again = repository.promote(None, "1.0.2", "stable", times(0), &Silent).unwrap();
    assert_eq!(again, promoted);
    assert_eq!(
        refused(repository.promote(None, "1.0.0", "beta", times(0), &Silent)),
        "1.0.0 is not newer than 1.0.2, the newest in beta: nodes would not take it"
    );
    let withdrawn = repository.withdraw(None, "1.0.2", "stable", times(0), &Silent).unwrap();
    assert_eq!(withdrawn.channels, ["beta"]);
    assert_eq!(
        refused(repository.withdraw(None, "1.0.2", "stable", times(0), &Silent)),
        "1.0.2 is not in stable; it is in: beta"
    );
    assert_eq!(
        refused(repository.promote(None, "7", "stable", times(0), &Silent)),
        "7 is not published; there is: node 1.0.2, node 1.0.0"
    );
    let mut other = made("1.0.2");
    other.id = "other".to_owned();
    let root = other.root.as_slice();
    repository.add(&other.image(&root), &options(&["stable"]), times(0), &Silent).unwrap();
    assert_eq!(
        refused(repository.withdraw(None, "1.0.2", "beta", times(0), &Silent)),
        "1.0.2 is published for node and other: say which with --id"
    );
    repository.withdraw(Some("node"), "1.0.2", "beta", times(0), &Silent).unwrap();
    assert_eq!(repository.releases().len(), 3);
}

#[test]
fn keys_and_repositories_that_do_not_go_together() {
    let publisher = Publisher::new();
    let keys = publisher.keys();
    let text = refused(publisher.refresh(0));
    assert!(text.contains("has nothing published yet: `keller publish IMAGE --to"), "{text}");
    publisher.publish("1.0.0");
    let other = Publisher::new();
    let text = refused(Repository::open(publisher.repository(), &other.keys()));
    assert!(text.starts_with("the repository has another 1.root.json than"), "{text}");
    publisher.rotate(RoleType::Root);
    publisher.refresh(0).unwrap();
    let text = refused(Repository::open(publisher.repository(), &keys));
    assert!(
        text.contains("the repository has root 2 already") && text.contains("only 1: use the directory"),
        "{text}"
    );
    let keys = publisher.keys();
    let held = Repository::open(publisher.repository(), &keys).unwrap();
    assert!(
        refused(Repository::open(publisher.repository(), &keys)).starts_with("another keller is publishing")
    );
    // Whoever lists holds nobody up, nor is it held up.
    assert!(!Repository::open_to_read(publisher.repository(), &keys).unwrap().releases().is_empty());
    drop(held);
    let text = refused(publisher.refresh(701));
    assert!(text.starts_with("root.json, version 2, has expired on"), "{text}");
    for key in keys.shown() {
        if key.role == RoleType::Targets {
            fs::remove_file(key.private.unwrap()).unwrap();
        }
    }
    let text = refused(publisher.add(&made("1.0.1"), &["stable"], 0));
    assert!(text.starts_with("signing for targets takes 1 of its keys, and 0 are here"), "{text}");
    // Renewing goes without, until the list of releases expires.
    publisher.refresh(300).unwrap();
    assert!(refused(publisher.refresh(366)).starts_with("signing for targets takes 1"));
    // An image of another publisher.
    let publisher = Publisher::new();
    let mut image = made("1.0.0");
    image.root_json = Some(other.root_json());
    let text = refused(publisher.add(&image, &["stable"], 0));
    assert!(text.starts_with("the root of trust in 1.0.0 is none of those in "), "{text}");
    image.root_json = Some(publisher.root_json());
    publisher.rotate(RoleType::Root);
    publisher.add(&image, &["stable"], 0).unwrap();
}

#[test]
fn damage_is_not_built_upon() {
    let publisher = Publisher::new();
    let added = publisher.publish("1.0.0");
    let metadata = publisher.repository().join("metadata");
    let timestamp = fs::read(metadata.join("timestamp.json")).unwrap();
    for (name, expected) in [
        ("timestamp.json", "metadata/timestamp.json of the repository is damaged"),
        ("1.snapshot.json", "metadata/1.snapshot.json of the repository is damaged"),
        ("1.targets.json", "metadata/1.targets.json of the repository is damaged"),
    ] {
        let bytes = fs::read(metadata.join(name)).unwrap();
        let text = String::from_utf8(bytes.clone()).unwrap().replace("\"version\": 1", "\"version\": 3");
        fs::write(metadata.join(name), text).unwrap();
        let text = refused(publisher.refresh(0));
        assert!(text.starts_with(expected) && text.contains("not signed by any"), "{text}");
        fs::remove_file(metadata.join(name)).unwrap();
        if name != "timestamp.json" {
            assert!(refused(publisher.refresh(0)).contains("it is not there, and what names it is"));
        }
        fs::write(metadata.join(name), bytes).unwrap();
    }
    fs::write(metadata.join("timestamp.json"), timestamp).unwrap();
    let keys = publisher.keys();
    let document = Repository::open(publisher.repository(), &keys).unwrap().document(&added.listing).unwrap();
    let frames = publisher.repository().join(document.root.ways.frames.path());
    let mut bytes = fs::read(&frames).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&frames, &bytes).unwrap();
    let text = refused(publisher.add(&made("1.0.1"), &["stable"], 0));
    assert!(text.contains("1.0.0") && text.contains("--patches 0 goes without"), "{text}");
    let none = Options { patches: 0, ..options(&["stable"]) };
    publisher.add_with(&made("1.0.1"), &none, 0).unwrap();
}

/// What of the version before serves is taken over and changes nothing; what has rotted is made anew.
#[test]
fn a_version_is_the_same_whatever_was_there_before() {
    let none = Options { patches: 0, ..options(&["stable"]) };
    let document = |publisher: &Publisher, added: &Added| {
        let keys = publisher.keys();
        Repository::open(publisher.repository(), &keys).unwrap().document(&added.listing).unwrap()
    };
    let alone = Publisher::new();
    let expected = document(&alone, &alone.add_with(&made("1.0.1"), &none, 0).unwrap());
    assert_eq!(expected.root.ways.level, Some(none.level));
    for rotten in [None, Some("frames"), Some("index"), Some("full"), Some("nothing is left")] {
        let publisher = Publisher::new();
        let before = document(&publisher, &publisher.publish("1.0.0"));
        for ways in [&before.root.ways, &before.uki.ways] {
            let blobs = [("frames", ways.frames), ("index", ways.index), ("full", ways.full)];
            for (name, blob) in blobs {
                let path = publisher.repository().join(blob.path());
                match rotten {
                    Some(rotten) if rotten == name => {
                        let mut bytes = fs::read(&path).unwrap();
                        bytes.iter_mut().step_by(50).for_each(|byte| *byte ^= 4);
                        fs::write(&path, bytes).unwrap();
                    }
                    Some("nothing is left") => fs::remove_file(&path).unwrap(),
                    _ => {}
                }
            }
        }
        let added = publisher.add_with(&made("1.0.1"), &none, 0).unwrap();
        assert_eq!(document(&publisher, &added), expected, "{rotten:?}");
        for blob in [expected.root.ways.frames, expected.root.ways.full, expected.uki.ways.full] {
            let there = fs::read(publisher.repository().join(blob.path())).unwrap();
            assert_eq!(Digest::of(&there), blob.sha256, "{rotten:?}");
        }
    }
}

/// Ends `work` on a copy of the repository after each number of files, and gives how many there were. What nodes
/// see must be `old` all the time until it is `new`; then the same work comes to its end.
fn interrupted(
    publisher: &Publisher,
    root_json: &[u8],
    old: &[&str],
    new: &[&str],
    work: impl Fn(&Publisher) -> Result<(), PublishError>,
) -> usize {
    let kept = publisher.folder.path().join("kept");
    copy(&publisher.repository(), &kept);
    let look = || {
        // A node that has seen the old state, and one that has seen nothing.
        let datastore = publisher.datastore();
        let _ = fs::remove_dir_all(&datastore);
        publisher.look(root_json, &Folder::new(&kept), 0).unwrap();
        let seen = publisher.look(root_json, &Folder::new(publisher.repository()), 0).unwrap();
        fs::remove_dir_all(&datastore).unwrap();
        let fresh = publisher.look(root_json, &Folder::new(publisher.repository()), 0).unwrap();
        assert_eq!(seen, fresh);
        seen
    };
    for writes in 0.. {
        fs::remove_dir_all(publisher.repository()).unwrap();
        copy(&kept, &publisher.repository());
        allow(Some(writes));
        let result = work(publisher);
        allow(None);
        let seen = look();
        let done = result.is_ok();
        if !done {
            let text = refused(result);
            assert!(text.starts_with("writing "), "{text}");
        }
        assert!(seen == new || seen == old && !done, "after {writes} files: {seen:?}");
        work(publisher).unwrap();
        assert_eq!(look(), new, "after {writes} files and another try");
        if done {
            return writes;
        }
    }
    unreachable!()
}

#[test]
fn interrupted_after_every_file() {
    let publisher = Publisher::new();
    publisher.publish("1.0.0");
    let root_json = publisher.root_json();
    let count = interrupted(&publisher, &root_json, &["1.0.0"], &["1.0.1", "1.0.0"], |publisher| {
        publisher.add(&made("1.0.1"), &["stable"], 0).map(drop)
    });
    // Frames, index and all of root and kernel image, two patches, document, targets, snapshot, timestamp.
    assert_eq!(count, 12);
}

#[test]
fn interrupted_while_all_keys_change() {
    let publisher = Publisher::new();
    publisher.publish("1.0.0");
    let root_json = publisher.root_json();
    for role in ROLES.into_iter().chain([RoleType::Timestamp, RoleType::Root]) {
        publisher.rotate(role);
    }
    let count = interrupted(&publisher, &root_json, &["1.0.0"], &["1.0.0"], |publisher| {
        publisher.refresh(1).map(drop)
    });
    // Targets, snapshot, timestamp, six roots.
    assert_eq!(count, 9);
    // Keys that have been replaced sign nothing any more.
    publisher.refresh(2).unwrap();
    let timestamp = fs::read_to_string(publisher.repository().join("metadata/timestamp.json")).unwrap();
    assert_eq!(timestamp.matches("keyid").count(), 1, "{timestamp}");
}

#[test]
fn keys_that_are_lost_are_replaced() {
    let publisher = Publisher::new();
    publisher.publish("1.0.0");
    let root_json = publisher.root_json();
    for key in publisher.keys().shown() {
        if key.role != RoleType::Root {
            fs::remove_file(key.private.unwrap()).unwrap();
        }
    }
    assert!(refused(publisher.refresh(0)).starts_with("signing for snapshot takes 1"));
    for role in [RoleType::Targets, RoleType::Snapshot, RoleType::Timestamp] {
        publisher.rotate(role);
    }
    publisher.refresh(0).unwrap();
    let folder = Folder::new(publisher.repository());
    assert_eq!(publisher.look(&root_json, &folder, 0).unwrap(), ["1.0.0"]);
}

#[test]
fn what_expires_is_renewed() {
    let publisher = Publisher::new();
    publisher.publish("1.0.0");
    assert_eq!(publisher.refresh(1).unwrap(), day(15));
    let targets = || {
        let names = fs::read_dir(publisher.repository().join("metadata")).unwrap().flatten();
        names.filter(|entry| entry.file_name().to_string_lossy().ends_with(".targets.json")).count()
    };
    assert_eq!(targets(), 1);
    publisher.refresh(200).unwrap();
    assert_eq!(targets(), 2);
    let folder = Folder::new(publisher.repository());
    assert!(publisher.look(&publisher.root_json(), &folder, 201).is_ok());
}
