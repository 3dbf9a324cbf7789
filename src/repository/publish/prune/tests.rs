//! What is pruned and when, what nodes see of it, and what becomes of it where it ends in between.

use std::collections::BTreeSet;
use std::path::Path;

use super::*;
use crate::agent::record::Record;
use crate::agent::{Wanted, choice, look};
use crate::base::progress::Silent;
use crate::base::{Chain, Digest};
use crate::repository::testing::{Publisher, allow, copy, day, made, options, times};
use crate::repository::{Client, Folder};
use crate::update::delta;
use crate::update::remote::Remote;

const VERSIONS: [&str; 6] = ["1.0.5", "1.0.4", "1.0.3", "1.0.2", "1.0.1", "1.0.0"];

/// Keeps so many versions, and none for patches.
fn keep(versions: usize) -> Prune {
    Prune { keep: Some(Keep { versions, patches: 0, id: None }), grace: None }
}

const FILES: Prune = Prune { keep: None, grace: None };

fn at_once(prune: Prune) -> Prune {
    Prune { grace: Some(Duration::ZERO), ..prune }
}

fn published(versions: &[&str]) -> Publisher {
    let publisher = Publisher::new();
    versions.iter().rev().for_each(|version| drop(publisher.publish(version)));
    age(&publisher);
    publisher
}

fn prune(publisher: &Publisher, prune: &Prune, now: i64) -> Result<Pruned, PublishError> {
    let keys = publisher.keys();
    Repository::open(publisher.repository(), &keys)?.prune(prune, times(now), &Silent)
}

fn plan(publisher: &Publisher, prune: &Prune, now: i64) -> Result<Pruned, PublishError> {
    let keys = publisher.keys();
    Repository::open_to_read(publisher.repository(), &keys)?.plan_prune(prune, times(now), &Silent)
}

fn refused<T>(result: Result<T, PublishError>) -> String {
    match result {
        Ok(_) => panic!("it was not refused"),
        Err(error) => Chain(&error).to_string(),
    }
}

/// The paths of all files.
fn files(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in walk(folder) {
        found.insert(entry.strip_prefix(folder).unwrap().to_str().unwrap().to_owned());
    }
    found
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().flatten();
    entries
        .flat_map(|entry| match entry.file_type().unwrap().is_dir() {
            true => walk(&entry.path()),
            false => vec![entry.path()],
        })
        .collect()
}

/// Files are as old as days go by in these tests: they were all written today.
fn age(publisher: &Publisher) {
    for path in walk(&publisher.repository()) {
        let file = fs::File::options().append(true).open(path).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_780_272_000)).unwrap();
    }
}

/// Looks as a node that has seen nothing, and fetches all that the versions seen consist of.
fn take_all(publisher: &Publisher, remote: &dyn Remote, now: i64) -> Vec<String> {
    let datastore = tempfile::tempdir().unwrap();
    let now = day(now).as_second();
    let trusted = Client::update(&publisher.root_json(), remote, datastore.path(), now)
        .unwrap_or_else(|error| panic!("{}", Chain(&error)));
    for listing in trusted.releases() {
        let document = trusted.document(listing).unwrap();
        for path in document.files() {
            let mut bytes = Vec::new();
            let part = remote.open(&path, None);
            let mut body = part.unwrap_or_else(|error| panic!("{error}")).body;
            std::io::Read::read_to_end(&mut body, &mut bytes).unwrap();
            assert_eq!(path, format!("blobs/{}", Digest::of(&bytes)));
        }
    }
    trusted.releases().iter().map(|listing| listing.version.clone()).collect()
}

#[test]
fn versions_leave_the_list_and_files_stay_until_nobody_believes_it() {
    let publisher = published(&VERSIONS);
    let before = files(&publisher.repository());
    let old = publisher.folder.path().join("old");
    copy(&publisher.repository(), &old);
    let planned = plan(&publisher, &keep(2), 1).unwrap();
    assert_eq!(files(&publisher.repository()), before);
    let pruned = prune(&publisher, &keep(2), 1).unwrap();
    let unlisted: Vec<_> = pruned.unlisted.iter().map(|it| it.version.as_str()).collect();
    assert_eq!(unlisted, ["1.0.3", "1.0.2", "1.0.1", "1.0.0"]);
    assert_eq!(planned.unlisted, pruned.unlisted);
    assert_eq!(pruned.kept.iter().map(|it| it.version.as_str()).collect::<Vec<_>>(), ["1.0.5", "1.0.4"]);
    // Not a file is gone; the list of that day is believed for 30 days.
    assert_eq!(pruned.removed, Count::default());
    assert_eq!(planned.removed, pruned.removed);
    assert!(files(&publisher.repository()).is_superset(&before));
    assert!(pruned.waiting.files > 20 && pruned.until == Some(day(30)), "{pruned:?}");
    assert_eq!(planned.until, pruned.until);
    // A node for which a cache has kept the old timestamp, and one that begins now.
    copy(&publisher.repository(), &publisher.folder.path().join("cached"));
    let cached = publisher.folder.path().join("cached");
    fs::copy(old.join("metadata/timestamp.json"), cached.join("metadata/timestamp.json")).unwrap();
    assert_eq!(take_all(&publisher, &Folder::new(&cached), 13), VERSIONS);
    let repository = Folder::new(publisher.repository());
    assert_eq!(take_all(&publisher, &repository, 2), VERSIONS[..2]);
    // Refreshed on the way, and once the time has come.
    age(&publisher);
    for now in [10, 20, 29] {
        publisher.refresh(now).unwrap();
        assert_eq!(prune(&publisher, &FILES, now).unwrap().removed, Count::default(), "day {now}");
    }
    let last = prune(&publisher, &FILES, 31).unwrap();
    assert!(last.removed.files > 20, "{last:?}");
    assert_eq!(take_all(&publisher, &repository, 31), VERSIONS[..2]);
    // Nothing but what the list names, and metadata that is still believed.
    let left = files(&publisher.repository());
    assert_eq!(left.iter().filter(|path| path.starts_with("targets/")).count(), 2, "{left:?}");
    assert!(left.contains("metadata/1.root.json") && !left.contains("metadata/1.targets.json"), "{left:?}");
    assert_eq!(prune(&publisher, &FILES, 31).unwrap().removed, Count::default());
    // The next version is made as if nothing had been there, and its number of files is new.
    let added = publisher.add(&made("1.0.6"), &["stable"], 31).unwrap();
    assert_eq!(added.patches.iter().map(|it| it.from.as_str()).collect::<Vec<_>>(), VERSIONS[..2]);
}

#[test]
fn a_grace_period_counts_from_when_the_list_changed() {
    let publisher = published(&VERSIONS);
    let named = || -> BTreeSet<String> {
        files(&publisher.repository()).into_iter().filter(|path| !path.starts_with("metadata/")).collect()
    };
    let before = named();
    let grace = |days: u64| Prune { grace: Some(Duration::from_secs(days * 86_400)), ..keep(1) };
    // Lists of the first day, which was two days ago, go with the third; the last of them was believed until the second.
    for now in [1, 2] {
        prune(&publisher, &grace(2), now).unwrap();
        assert_eq!(named(), before, "day {now}");
        age(&publisher);
        publisher.refresh(now).unwrap();
        age(&publisher);
    }
    prune(&publisher, &grace(2), 3).unwrap();
    assert!(named().len() + 20 < before.len());
    // An interruption has left a list that never was what nodes saw: it is not taken for the day on which the list changed.
    let publisher = published(&VERSIONS);
    allow(Some(2));
    assert!(prune(&publisher, &keep(1), 1).is_err());
    allow(None);
    assert!(publisher.repository().join("metadata/7.snapshot.json").exists());
    prune(&publisher, &keep(1), 9).unwrap();
    age(&publisher);
    prune(&publisher, &grace(2), 10).unwrap();
    let left = files(&publisher.repository());
    assert!(before.iter().all(|path| left.contains(path)), "{left:?}");
    assert!(prune(&publisher, &grace(2), 11).unwrap().removed.files > 20);
    // At once.
    let publisher = published(&VERSIONS);
    let pruned = prune(&publisher, &at_once(keep(1)), 1).unwrap();
    assert!(pruned.removed.files > 30 && pruned.waiting == Count::default(), "{pruned:?}");
    assert_eq!(take_all(&publisher, &Folder::new(publisher.repository()), 1), ["1.0.5"]);
}

#[test]
fn patches_and_steps_stay() {
    let publisher = published(&["1.0.1", "1.0.0"]);
    let minimum = |minimum: &str| Options { minimum: Some(minimum.to_owned()), ..options(&["stable"]) };
    publisher.add_with(&made("1.0.2"), &minimum("1.0.1"), 0).unwrap();
    publisher.add_with(&made("1.0.3"), &minimum("1.0.2"), 0).unwrap();
    publisher.publish("1.0.4");
    publisher.add_with(&made("1.0.5"), &minimum("1.0.2"), 0).unwrap();
    let all = keep(1);
    let pruned = prune(&publisher, &at_once(all), 0).unwrap();
    let kept: Vec<_> = pruned.kept.iter().map(|it| it.version.as_str()).collect();
    assert_eq!(kept, ["1.0.5", "1.0.4"]);
    assert!(pruned.kept[1].needs == [Need::Step("stable".to_owned())], "{pruned:?}");
    // A node of a version that is gone goes by the step, and by a patch where there is one.
    let trusted = |node: &str| {
        let folder = Folder::new(publisher.repository());
        let datastore = tempfile::tempdir().unwrap();
        let trusted =
            Client::update(&publisher.root_json(), &folder, datastore.path(), day(0).as_second()).unwrap();
        let node = choice::Node { id: "node", version: node, channel: "stable" };
        look::find(&trusted, node, &Record::default(), &Wanted::default()).unwrap().document.unwrap()
    };
    for (node, next) in [("0.1", "1.0.4"), ("1.0.1", "1.0.4"), ("1.0.2", "1.0.5"), ("1.0.4", "1.0.5")] {
        assert_eq!(trusted(node).version, next, "from {node}");
    }
    let old = made("1.0.3");
    let bytes = old.root.as_slice();
    let (document, folder) = (trusted("1.0.3"), Folder::new(publisher.repository()));
    let mut uki = Vec::new();
    let fetched = delta::uki(&document.uki, &folder, Some(&old.uki), &mut uki, &Silent).unwrap();
    assert!(uki == made("1.0.5").uki && fetched.way == delta::Way::Patch && !bytes.is_empty());
    // Versions that the next patches start from.
    let publisher = published(&VERSIONS);
    let patches = Keep { versions: 1, patches: 3, id: None };
    let pruned = prune(&publisher, &Prune { keep: Some(patches), grace: None }, 0).unwrap();
    assert_eq!(pruned.kept.len(), 3);
    assert_eq!(publisher.publish("1.0.6").patches.len(), 3);
}

#[test]
fn what_was_taken_out_is_remembered() {
    let publisher = Publisher::new();
    let mut small = made("1.0.0");
    small.layout.root = 900 << 10;
    publisher.add(&small, &["stable"], 0).unwrap();
    publisher.publish("1.0.1");
    publisher.add(&made("1.0.2"), &["beta"], 0).unwrap();
    publisher.add(&made("1.0.3"), &["beta"], 0).unwrap();
    prune(&publisher, &at_once(keep(1)), 0).unwrap();
    let folder = Folder::new(publisher.repository());
    assert_eq!(take_all(&publisher, &folder, 0), ["1.0.3", "1.0.1"]);
    // Its nodes' disks bound what comes after.
    let mut large = made("1.0.4");
    large.root.resize(1 << 20, 0);
    let text = refused(publisher.add(&large, &["stable"], 0));
    assert!(text.contains("the disks of node 1.0.0 have room for 900.0 KiB"), "{text}");
    // It stays one thing.
    let mut other = made("1.0.2");
    other.root[0] ^= 1;
    let text = refused(publisher.add(&other, &["stable"], 0));
    assert!(text.starts_with("another image was published as 1.0.2 and has been taken out"), "{text}");
    assert!(publisher.add(&made("1.0.2"), &["stable"], 0).unwrap().new);
    // After another round of it, too.
    publisher.add(&made("1.0.5"), &["stable", "beta"], 0).unwrap();
    prune(&publisher, &at_once(keep(1)), 0).unwrap();
    let mut other = made("1.0.1");
    other.uki[0] ^= 1;
    assert!(refused(publisher.add(&other, &["old"], 0)).starts_with("another image was published as 1.0.1"));
    // A node that asks for it by name.
    let datastore = tempfile::tempdir().unwrap();
    let trusted =
        Client::update(&publisher.root_json(), &folder, datastore.path(), day(0).as_second()).unwrap();
    let node = choice::Node { id: "node", version: "1.0.5", channel: "stable" };
    let said = |version: &str| {
        let wanted = Wanted { version: Some(version.to_owned()), again: false };
        Chain(&look::find(&trusted, node, &Record::default(), &wanted).unwrap_err()).to_string()
    };
    assert_eq!(
        said("1.0.1"),
        "choosing a version: 1.0.1 of node is no longer published: its publisher has taken it out of the repository; \
         choose one of these: 1.0.5"
    );
    assert!(said("0.7").ends_with("0.7 is not published for node; there is: 1.0.5"));
}

/// A node that is too old for any step is told so.
#[test]
fn a_node_without_a_way_is_told() {
    let publisher = published(&["1.0.0"]);
    let minimum = Options { minimum: Some("1.0.0".to_owned()), ..options(&["stable"]) };
    publisher.add_with(&made("2.0.0"), &minimum, 0).unwrap();
    let keys = publisher.keys();
    let mut repository = Repository::open(publisher.repository(), &keys).unwrap();
    repository.withdraw(None, "1.0.0", "stable", times(0), &Silent).unwrap();
    repository.prune(&at_once(keep(5)), times(0), &Silent).unwrap();
    let folder = Folder::new(publisher.repository());
    let datastore = tempfile::tempdir().unwrap();
    let trusted =
        Client::update(&publisher.root_json(), &folder, datastore.path(), day(0).as_second()).unwrap();
    let node = choice::Node { id: "node", version: "0.9", channel: "stable" };
    let error = look::find(&trusted, node, &Record::default(), &Wanted::default()).unwrap_err();
    assert_eq!(
        Chain(&error).to_string(),
        "going to 2.0.0 (ask the publisher for a newer version with a --minimum that this node meets, or write a newer \
         image to the disk): \
         it takes 1.0.0 or newer to go to it, this is 0.9, and there is no step in between"
    );
}

#[test]
fn what_cannot_be_judged_is_not_touched() {
    let publisher = published(&VERSIONS);
    let before = files(&publisher.repository());
    // By this clock nobody believes any of it.
    let text = refused(prune(&publisher, &at_once(FILES), 20));
    assert!(
        text.starts_with("timestamp.json has expired on 2026-06-15 00:00 UTC, and it is 2026-06-21"),
        "{text}"
    );
    // A key that is elsewhere: nothing is taken out, and files need none.
    let keys = publisher.keys();
    let private =
        keys.shown().into_iter().find(|key| key.role == RoleType::Targets).unwrap().private.unwrap();
    let pem = fs::read(&private).unwrap();
    fs::remove_file(&private).unwrap();
    assert!(refused(prune(&publisher, &keep(1), 0)).starts_with("signing for targets takes 1 of its keys"));
    assert!(refused(plan(&publisher, &keep(1), 0)).starts_with("signing for targets takes 1 of its keys"));
    assert_eq!(files(&publisher.repository()), before);
    assert_eq!(prune(&publisher, &FILES, 0).unwrap().removed, Count::default());
    fs::write(&private, pem).unwrap();
    std::fs::set_permissions(&private, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    // A document that is damaged, gone, or of a newer form.
    let listing = Repository::open(publisher.repository(), &keys).unwrap().releases()[0].clone();
    let path = publisher.repository().join(listing.path());
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, b"{}").unwrap();
    assert!(
        refused(prune(&publisher, &at_once(keep(1)), 0)).contains("it is not what the list of releases says")
    );
    fs::remove_file(&path).unwrap();
    assert!(refused(prune(&publisher, &at_once(keep(1)), 0)).contains("so nothing was deleted"));
    fs::write(&path, bytes).unwrap();
    assert_eq!(files(&publisher.repository()), before);
    // Another publisher.
    let held = Repository::open(publisher.repository(), &keys).unwrap();
    assert!(refused(prune(&publisher, &keep(1), 0)).starts_with("another keller is publishing"));
    assert!(plan(&publisher, &keep(1), 0).is_ok());
    drop(held);
    let nothing = Publisher::new();
    assert!(refused(prune(&nothing, &FILES, 0)).contains("has nothing published yet"));
}

/// Files of others, of the next try, of a killed one, and of documents to come.
#[test]
fn only_files_of_the_publisher_go() {
    let publisher = published(&["1.0.1", "1.0.0"]);
    let digest = Digest::of("x").to_hex();
    let others = [
        "index.html",
        "blobs/README",
        "blobs/.nfs0001",
        "metadata/role.json",
        "metadata/01.targets.json",
        "metadata/9.root.json",
        "targets/node.json",
        "blobs/sub/file",
    ];
    let own = [format!("blobs/{digest}"), format!("targets/{digest}.node_0.json")];
    fs::create_dir_all(publisher.repository().join("blobs/sub")).unwrap();
    for path in others[..4]
        .iter()
        .chain(&others[4..5])
        .chain(&others[6..])
        .map(|it| (*it).to_owned())
        .chain(own.clone())
    {
        fs::write(publisher.repository().join(path), "x").unwrap();
    }
    let litter = format!("blobs/.{digest}.4711.0.tmp");
    fs::write(publisher.repository().join(&litter), "x").unwrap();
    // What an interrupted publication has left is for its next try; a name that stood in is for nobody.
    let keys = publisher.keys();
    let now = Times { now: Timestamp::now(), life: Duration::from_secs(14 * 86_400) };
    let mut repository = Repository::open(publisher.repository(), &keys).unwrap();
    repository.refresh(now, &Silent).unwrap();
    let pruned = repository.prune(&FILES, now, &Silent).unwrap();
    let left = files(&publisher.repository());
    assert!(!left.contains(&litter) && own.iter().all(|path| left.contains(path)), "{left:?}");
    assert!(pruned.waiting.files >= 2);
    let pruned = repository.prune(&at_once(FILES), now, &Silent).unwrap();
    let left = files(&publisher.repository());
    assert!(pruned.removed.files >= 2 && !own.iter().any(|path| left.contains(path)), "{left:?}");
    for path in others.iter().filter(|path| !path.contains("9.root")) {
        assert!(left.contains(*path), "{path} is gone");
    }
    drop(repository);
    assert_eq!(take_all(&publisher, &Folder::new(publisher.repository()), 0).len(), 2);
}

/// Ends after every file that is written or removed; nodes, also one that saw the state before, take all that they see.
#[test]
fn interrupted_after_every_file() {
    let publisher = published(&VERSIONS);
    let kept = publisher.folder.path().join("kept");
    copy(&publisher.repository(), &kept);
    for (prunes, grace, cached_until) in
        [(keep(2), "no list that names them", true), (at_once(keep(2)), "at once", false)]
    {
        let mut count = None;
        for writes in 0.. {
            fs::remove_dir_all(publisher.repository()).unwrap();
            copy(&kept, &publisher.repository());
            age(&publisher);
            allow(Some(writes));
            let result = prune(&publisher, &prunes, 1);
            allow(None);
            let done = result.is_ok();
            if !done {
                let text = refused(result);
                assert!(text.starts_with("writing ") || text.starts_with("deleting "), "{text}");
            }
            let seen = take_all(&publisher, &Folder::new(publisher.repository()), 1);
            assert!(seen == VERSIONS[..2] || seen == VERSIONS && !done, "{grace}, {writes}: {seen:?}");
            if cached_until {
                let timestamp = "metadata/timestamp.json";
                let new = fs::read(publisher.repository().join(timestamp)).unwrap();
                fs::copy(kept.join(timestamp), publisher.repository().join(timestamp)).unwrap();
                assert_eq!(take_all(&publisher, &Folder::new(publisher.repository()), 1), VERSIONS);
                fs::write(publisher.repository().join(timestamp), new).unwrap();
            }
            // The next publication, and the next try.
            if writes % 8 > 0 && !done {
                prune(&publisher, &prunes, 1).unwrap();
                assert_eq!(take_all(&publisher, &Folder::new(publisher.repository()), 1), VERSIONS[..2]);
                continue;
            }
            assert!(publisher.add(&made("1.0.6"), &["stable"], 1).unwrap().new);
            prune(&publisher, &prunes, 1).unwrap();
            let seen = take_all(&publisher, &Folder::new(publisher.repository()), 1);
            assert_eq!(seen, ["1.0.6", "1.0.5"], "{grace}, {writes}");
            if done {
                count = Some(writes);
                break;
            }
        }
        // Targets, snapshot and timestamp; and files.
        assert!(
            count.is_some_and(|count| count == 3 && cached_until || count > 25 && !cached_until),
            "{count:?}"
        );
    }
}

/// A node in the middle of a version whose files go at once fails, looks again, and goes to what there is.
#[test]
fn a_download_whose_files_are_gone_begins_anew() {
    let publisher = published(&["1.0.1", "1.0.0"]);
    let folder = Folder::new(publisher.repository());
    let datastore = tempfile::tempdir().unwrap();
    let look = || {
        let trusted =
            Client::update(&publisher.root_json(), &folder, datastore.path(), day(1).as_second()).unwrap();
        let node = choice::Node { id: "node", version: "0.9", channel: "stable" };
        look::find(&trusted, node, &Record::default(), &Wanted::default()).unwrap().document.unwrap()
    };
    let begun = look();
    publisher.publish("1.0.2");
    age(&publisher);
    prune(&publisher, &at_once(keep(1)), 1).unwrap();
    let mut uki = Vec::new();
    let error = delta::uki(&begun.uki, &folder, None, &mut uki, &Silent).map(drop).unwrap_err();
    assert!(Chain(&error).to_string().contains("is not there"), "{}", Chain(&error));
    let next = look();
    assert_eq!(next.version, "1.0.2");
    delta::uki(&next.uki, &folder, None, &mut uki, &Silent).unwrap();
    assert!(uki == made("1.0.2").uki);
}
