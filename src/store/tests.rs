mod derived;
mod full;
mod tools;
mod trust;

use std::collections::BTreeSet;
use std::os::unix::fs::{FileExt, PermissionsExt};

use super::*;

/// What is waited for is counted in these.
const HOUR: Duration = Duration::from_secs(3600);

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = opened(folder.path());
    (folder, store)
}

/// The store of a user who has a key.
fn opened(folder: &Path) -> Store {
    opened_with(folder, 7)
}

fn opened_with(folder: &Path, key: u8) -> Store {
    Store::open_with(folder, Access { key: Some(Key::from_bytes([key; 32])), shared: false }).unwrap()
}

fn text(file: Sealed) -> String {
    String::from_utf8(file.to_vec().unwrap()).unwrap()
}

fn read(mut file: File) -> String {
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    text
}

fn tool_of(store: &Store, name: &str, request: &Digest) -> Option<PathBuf> {
    store.tool(name, request).map(|tool| tool.folder().to_owned())
}

#[test]
fn located_by_the_environment() {
    let locate = |vars: &[(&str, &str)]| {
        let vars = vars.to_vec();
        Store::locate_in(|name| vars.iter().find(|var| var.0 == name).map(|var| var.1.into()))
    };
    let all = [("KELLER_STORE", "/s"), ("XDG_CACHE_HOME", "/c"), ("HOME", "/h")];
    assert_eq!(locate(&all).unwrap(), Path::new("/s"));
    assert_eq!(locate(&all[1..]).unwrap(), Path::new("/c/keller"));
    assert_eq!(locate(&all[2..]).unwrap(), Path::new("/h/.cache/keller"));
    assert_eq!(
        locate(&[("KELLER_STORE", ""), ("XDG_CACHE_HOME", "relative"), ("HOME", "/h")]).unwrap(),
        Path::new("/h/.cache/keller")
    );
    assert!(matches!(locate(&[]), Err(StoreError::NoFolder)));
}

#[test]
fn takes_only_what_was_promised() {
    let (_folder, store) = store();
    let digest = Digest::of("hello");
    assert!(!store.has(&digest));
    assert!(store.open_blob(&digest).unwrap().is_none());
    let insert = |bytes: &str, size| store.insert(bytes.as_bytes(), &digest, size);
    assert!(matches!(insert("hell", Some(5)), Err(StoreError::WrongSize { expected: 5, actual: 4 })));
    assert!(matches!(insert("hello!", Some(5)), Err(StoreError::WrongSize { expected: 5, .. })));
    assert!(matches!(insert("hallo", Some(5)), Err(StoreError::WrongDigest { .. })));
    assert!(matches!(insert("hallo", None), Err(StoreError::WrongDigest { .. })));
    assert_eq!(store.blobs().unwrap(), []);
    insert("hello", Some(5)).unwrap();
    assert_eq!(read(store.open_blob(&digest).unwrap().unwrap()), "hello");
    assert_eq!(store.import("hello").unwrap(), digest);
    assert_eq!(store.blobs().unwrap().len(), 1);
}

#[test]
fn receives_unknown_bytes_up_to_a_limit() {
    let (_folder, store) = store();
    let receive = |limit| {
        let mut incoming = store.incoming(None, None).unwrap().at_most(limit);
        incoming.write(b"hello")?;
        assert_eq!(incoming.len(), 5);
        incoming.finish()
    };
    assert_eq!(receive(5).unwrap(), Digest::of("hello"));
    assert!(store.has(&Digest::of("hello")));
    assert!(matches!(receive(4), Err(StoreError::WrongSize { expected: 4, .. })));
}

#[test]
fn restarts_without_a_trace_of_the_first_try() {
    let (_folder, store) = store();
    let mut incoming = store.incoming(Some(Digest::of("abc")), None).unwrap();
    incoming.write(b"something longer").unwrap();
    incoming.restart().unwrap();
    incoming.write(b"abc").unwrap();
    incoming.finish().unwrap();
    assert_eq!(read(store.open_blob(&Digest::of("abc")).unwrap().unwrap()), "abc");
}

#[test]
fn rotten_blob_is_moved_away() {
    let (_folder, store) = store();
    let digest = store.import("hello").unwrap();
    assert!(matches!(store.open_verified(&digest).unwrap(), Checked::Good(_)));
    File::options().write(true).open(store.blob_path(&digest)).unwrap().write_all_at(b"j", 0).unwrap();
    match store.open_verified(&digest).unwrap() {
        Checked::Rotten { actual, moved_to } => {
            assert_eq!(actual, Some(Digest::of("jello")));
            assert!(moved_to.exists());
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(store.open_verified(&digest).unwrap(), Checked::Missing));
    store.import("hello").unwrap();
    assert!(matches!(store.open_verified(&digest).unwrap(), Checked::Good(_)));
}

#[test]
fn sweeps_what_is_neither_kept_nor_young() {
    use std::io::Write;
    let (folder, mut store) = store();
    let (kept, swept) = (store.import("kept").unwrap(), store.import("swept").unwrap());
    drop(store.derive::<io::Error>("kind", "key", |file| write!(file, "derived")).unwrap());
    fs::write(store.root().join("blobs/ab.tmp"), "litter").unwrap();
    let keep = BTreeSet::from([kept]);
    let other = opened(folder.path());
    assert!(matches!(store.gc(&keep, Duration::ZERO), Err(StoreError::InUse { .. })));
    // The failed attempt must not have cost the shared lock.
    let mut third = Store::open(folder.path()).unwrap();
    drop(other);
    assert!(matches!(third.gc(&keep, Duration::ZERO), Err(StoreError::InUse { .. })));
    drop(third);
    let freed = store.gc(&keep, Duration::from_secs(60)).unwrap();
    assert_eq!(freed, Freed { litter: 1, bytes: 6, ..Freed::default() });
    let sealed = store.derivatives().unwrap()[0].size;
    let freed = store.gc(&keep, Duration::ZERO).unwrap();
    assert_eq!(freed, Freed { blobs: 1, derived: 1, bytes: 5 + sealed, ..Freed::default() });
    assert!(store.has(&kept) && !store.has(&swept));
    // And shares again after a sweep.
    Store::open(folder.path()).unwrap();
}

#[test]
fn derived_files_make_room_in_the_order_of_their_use() {
    let (folder, mut store) = store();
    let now = SystemTime::now();
    let blob = store.import(vec![7; 50_000]).unwrap();
    for (key, hours) in [("young", 1), ("oldest", 72), ("old", 48), ("future", 0)] {
        derived(&store, "kind", key, &"x".repeat(1000));
        let used = if key == "future" { now + Duration::from_secs(999) } else { now - hours * HOUR };
        let file = File::options().write(true).open(store.derived_path("kind", key)).unwrap();
        file.set_modified(used).unwrap();
    }
    fs::write(folder.path().join("derived/.half.tmp"), [0; 5000]).unwrap();
    let size = store.derivatives().unwrap()[0].size;
    let day = 24 * HOUR;
    let left = |store: &Store| -> Vec<String> {
        let name = |entry: Entry| entry.path.file_name().unwrap().to_str().unwrap().to_owned();
        store.derivatives().unwrap().into_iter().map(name).collect()
    };
    assert_eq!(store.trim(4 * size, Duration::ZERO).unwrap(), Freed::default());
    let other = opened(folder.path());
    assert_eq!(store.trim(4 * size, Duration::ZERO).unwrap(), Freed::default());
    assert!(matches!(store.trim(0, Duration::ZERO), Err(StoreError::InUse { .. })));
    drop(other);
    assert_eq!(store.trim(4 * size - 1, day).unwrap(), Freed { derived: 1, bytes: size, ..Freed::default() });
    assert_eq!(left(&store), ["future", "old", "young"]);
    assert_eq!(store.trim(0, day).unwrap().derived, 1);
    assert_eq!(left(&store), ["future", "young"]);
    assert_eq!(store.trim(0, Duration::ZERO).unwrap().derived, 1);
    // A clock that was set back is no reason to remove anything.
    assert_eq!(left(&store), ["future"]);
    assert!(store.has(&blob));
    opened(folder.path());
}

#[test]
fn use_is_noted() {
    let (_folder, store) = store();
    let digest = store.import("x").unwrap();
    let path = store.blob_path(&digest);
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    File::options().write(true).open(&path).unwrap().set_modified(long_ago).unwrap();
    assert!(store.has(&digest));
    assert!(matches!(store.open_verified(&digest).unwrap(), Checked::Good(_)));
    assert_eq!(store.blobs().unwrap()[0].used, long_ago);
    assert!(store.claim(&digest) && !store.claim(&Digest::of("y")));
    assert!(store.blobs().unwrap()[0].used > long_ago);
}

#[test]
fn two_writers_at_once() {
    use std::io::Write;
    let (folder, _) = store();
    let bytes = vec![42; 3 << 20];
    let digest = Digest::of(&bytes);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let store = opened(folder.path());
                store.insert(&bytes[..], &digest, Some(bytes.len() as u64)).unwrap();
                let made = store.derive::<io::Error>("kind", "key", |file| file.write_all(&bytes)).unwrap();
                assert_eq!(made.len(), bytes.len() as u64);
            });
        }
    });
    let store = Store::open(folder.path()).unwrap();
    assert!(matches!(store.open_verified(&digest).unwrap(), Checked::Good(_)));
    assert_eq!((store.blobs().unwrap().len(), store.derivatives().unwrap().len()), (1, 1));
}

#[test]
fn read_only_store_can_be_read() {
    let (folder, store) = store();
    let digest = store.import("x").unwrap();
    drop(store);
    fs::remove_file(folder.path().join("lock")).unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o555)).unwrap();
    let store = Store::open(folder.path()).unwrap();
    assert_eq!(read(store.open_blob(&digest).unwrap().unwrap()), "x");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn nobody_else_may_hold_its_lock() {
    let (folder, store) = store();
    let mode = || fs::metadata(folder.path().join("lock")).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(), 0o600);
    drop(store);
    // As an older keller left it.
    fs::set_permissions(folder.path().join("lock"), fs::Permissions::from_mode(0o644)).unwrap();
    Store::open(folder.path()).unwrap();
    assert_eq!(mode(), 0o600);
}

#[test]
fn unusable_folder_says_what_to_do() {
    let (folder, _) = store();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let error = Store::open(file.join("store")).unwrap_err().to_string();
    assert!(error.contains("KELLER_STORE") && error.contains("file/store"), "{error}");
}

fn derived(store: &Store, kind: &str, key: &str, body: &str) -> String {
    use std::io::Write;
    text(store.derive::<io::Error>(kind, key, |file| file.write_all(body.as_bytes())).unwrap())
}

fn fifo(path: &Path) {
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
}

#[test]
fn blob_that_is_no_file_does_not_block() {
    let (_folder, store) = store();
    let digest = store.import("x").unwrap();
    let path = store.blob_path(&digest);
    fs::remove_file(&path).unwrap();
    fifo(&path);
    assert!(!store.has(&digest) && !store.claim(&digest) && store.open_blob(&digest).unwrap().is_none());
    match store.open_verified(&digest).unwrap() {
        Checked::Rotten { actual: None, moved_to } => assert!(fs::symlink_metadata(moved_to).is_ok()),
        other => panic!("{other:?}"),
    }
    store.import("x").unwrap();
    assert_eq!(read(store.open_blob(&digest).unwrap().unwrap()), "x");
}

#[test]
fn blob_that_changes_after_it_was_verified_is_noticed() {
    let (_folder, store) = store();
    let bytes = "blob ".repeat(20_000);
    let digest = store.import(&bytes).unwrap();
    let Checked::Good(blob) = store.open_verified(&digest).unwrap() else { panic!("it is good") };
    assert_eq!(text(blob), bytes);
    let Checked::Good(blob) = store.open_verified(&digest).unwrap() else { panic!("it is good") };
    File::options().write(true).open(store.blob_path(&digest)).unwrap().write_all_at(b"B", 50_000).unwrap();
    assert_eq!(blob.to_vec().unwrap_err().kind(), io::ErrorKind::InvalidData);
    assert!(store.is_mended() && store.words().len() == 1);
    assert!(matches!(store.open_verified(&digest).unwrap(), Checked::Rotten { .. }));
}

#[test]
fn directories_where_files_belong_make_way() {
    let (folder, store) = store();
    let digest = store.import("x").unwrap();
    derived(&store, "kind", "key", "body");
    for path in [store.blob_path(&digest), store.derived_path("kind", "key")] {
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        fs::write(path.join("planted"), "x").unwrap();
    }
    assert!(!store.has(&digest) && store.open_blob(&digest).unwrap().is_none());
    store.import("x").unwrap();
    assert_eq!(read(store.open_blob(&digest).unwrap().unwrap()), "x");
    assert_eq!(derived(&store, "kind", "key", "anew"), "anew");
    let words = store.words();
    assert!(
        words.len() == 2 && words[1].contains("kind/key is a directory, where keller has a file"),
        "{words:?}"
    );
    assert!(folder.path().join("rotten/derived-kind-key/planted").exists());
    // Once more, with what was put aside before in the way.
    for _ in 0..2 {
        fs::remove_file(store.blob_path(&digest)).unwrap();
        fs::create_dir(store.blob_path(&digest)).unwrap();
        assert!(matches!(store.open_verified(&digest).unwrap(), Checked::Rotten { actual: None, .. }));
        store.import("x").unwrap();
    }
}

#[test]
fn a_directory_that_another_thread_has_just_made_stays() {
    let (folder, store) = store();
    for round in 0..200 {
        let kind = format!("kind-{round}");
        // In every other round a file is in the way, which the first one moves.
        if round % 2 == 1 {
            fs::write(folder.path().join("derived").join(&kind), "planted").unwrap();
        }
        let start = std::sync::Barrier::new(3);
        std::thread::scope(|scope| {
            for key in ["one", "two", "three"] {
                let (store, kind, start) = (&store, &kind, &start);
                scope.spawn(move || {
                    start.wait();
                    assert_eq!(derived(store, kind, key, key), key);
                });
            }
        });
        for key in ["one", "two", "three"] {
            assert!(store.derived_path(&kind, key).is_file(), "{key} of round {round}");
        }
    }
    let aside = fs::read_dir(folder.path().join("rotten")).unwrap();
    let is_file = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_type().unwrap().is_file();
    assert!(aside.into_iter().all(is_file));
}

#[test]
fn bad_blob_that_cannot_be_moved_is_named() {
    let (folder, store) = store();
    let digest = store.import("x").unwrap();
    fs::write(store.blob_path(&digest), "y").unwrap();
    // As in a store that cannot be written, which root could all the same.
    fs::write(folder.path().join("rotten"), "").unwrap();
    let error = store.open_verified(&digest).unwrap_err().to_string();
    let path = store.blob_path(&digest);
    let told = format!("{} is not what its name says, and cannot be moved away (", path.display());
    assert!(error.starts_with(&told), "{error}");
    assert!(error.ends_with("remove it, or name another directory by --store or KELLER_STORE"), "{error}");
}

#[test]
fn blob_that_vanishes_after_it_was_promised_is_told() {
    let (folder, store) = store();
    let digest = store.import("x").unwrap();
    drop(store);
    let store = opened(folder.path());
    // Whoever was promised nothing is told nothing.
    assert!(store.open_blob(&Digest::of("y")).unwrap().is_none() && !store.is_mended());
    for open in [
        &(|store: &Store| store.open_blob(&digest).unwrap().is_none()) as &dyn Fn(&Store) -> bool,
        &|store| matches!(store.open_verified(&digest).unwrap(), Checked::Missing),
    ] {
        assert!(store.claim(&digest));
        fs::remove_file(store.blob_path(&digest)).unwrap();
        assert!(open(&store));
        let words = store.words();
        let told = format!(
            "{digest} was in the store {} and is gone: `keller store gc` or",
            folder.path().display()
        );
        assert!(words.len() == 1 && words[0].starts_with(&told), "{words:?}");
        assert!(!words[0].contains("a sweep does not wait"));
        assert!(store.is_mended());
        // Once is enough.
        assert!(open(&store) && !store.is_mended() && store.words().is_empty());
        store.import("x").unwrap();
    }
    // Without the lock, that is told too.
    drop(store);
    fs::remove_file(folder.path().join("lock")).unwrap();
    fs::create_dir(folder.path().join("lock")).unwrap();
    let mut store = opened(folder.path());
    assert!(store.claim(&digest));
    fs::remove_file(store.blob_path(&digest)).unwrap();
    assert!(store.open_blob(&digest).unwrap().is_none());
    assert!(store.words()[0].contains("; a sweep does not wait for this user, who cannot hold "));
    let error = store.gc(&BTreeSet::new(), Duration::ZERO).unwrap_err();
    assert!(matches!(error, StoreError::NoLock { .. }), "{error}");
}

#[test]
fn sweeping_follows_no_link_out_of_the_store() {
    use std::os::unix::fs::symlink;
    for part in ["blobs", "blobs/ab", "derived", "derived/kind", "tools", "rotten"] {
        let (folder, mut store) = store();
        let home = tempfile::tempdir().unwrap();
        fs::create_dir_all(home.path().join(".ssh/deep")).unwrap();
        fs::create_dir_all(home.path().join("mail")).unwrap();
        for name in [".ssh/key", ".ssh/deep/key", ".profile", "thesis", "mail/1", "x.tmp", ".x.tmp"] {
            fs::write(home.path().join(name), "mine").unwrap();
        }
        let place = folder.path().join(part);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        let _ = fs::remove_dir(&place);
        symlink(home.path(), &place).unwrap();
        store.gc(&BTreeSet::new(), Duration::ZERO).unwrap();
        let left = fs::read_dir(home.path()).unwrap().count();
        assert_eq!((left, fs::read_dir(home.path().join(".ssh")).unwrap().count()), (6, 2), "{part}");
        // Nothing of keller's is put among them either.
        if part == "rotten" {
            symlink(home.path(), &place).unwrap();
            let digest = store.import("x").unwrap();
            fs::write(store.blob_path(&digest), "y").unwrap();
            store.open_verified(&digest).unwrap();
            assert_eq!(fs::read_dir(home.path()).unwrap().count(), 6);
        }
    }
    // Where a user has put a part of the store on another disk, what keller names is swept.
    let (folder, mut store) = store();
    let digest = store.import("x").unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    fs::rename(folder.path().join("blobs"), elsewhere.path().join("blobs")).unwrap();
    symlink(elsewhere.path().join("blobs"), folder.path().join("blobs")).unwrap();
    fs::write(store.blob_path(&digest).with_file_name(format!(".{digest}.1.2.tmp")), "half").unwrap();
    let freed = store.gc(&BTreeSet::new(), Duration::ZERO).unwrap();
    assert_eq!(freed, Freed { blobs: 1, litter: 1, bytes: 5, ..Freed::default() });
}

#[test]
fn blob_of_any_size_is_not_read_for_ever() {
    let (_folder, store) = store();
    let digest = store.import("x").unwrap();
    let hole = |path: &Path| File::options().write(true).open(path).unwrap().set_len(1 << 42);
    if hole(&store.blob_path(&digest)).is_err() {
        println!("SKIPPED: no file of this size can be made here");
        return;
    }
    assert!(matches!(store.open_verified(&digest).unwrap(), Checked::Rotten { actual: None, .. }));
    let request = Digest::of("request");
    let tool = store.keep_tool::<StoreError>("qemu", &request, |tree| {
        fs::write(tree.join("program"), "program").unwrap();
        Ok(())
    });
    hole(&tool.unwrap().folder().join("program")).unwrap();
    assert_eq!(tool_of(&store, "qemu", &request), None);
    assert!(matches!(store.verify_tool("qemu").unwrap(), CheckedDerived::Broken { .. }));
}
