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

/// All derived files.
fn derivatives(store: &Store) -> Vec<Entry> {
    let (entries, failures) = store.survey(Part::Derived);
    assert!(failures.is_empty(), "{failures:?}");
    entries
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
fn derives_once() {
    use std::io::Write;
    let (_folder, store) = store();
    let make = |text: &'static str| store.derive::<io::Error>("kind", "key", |file| write!(file, "{text}"));
    assert!(store.derive::<io::Error>("kind", "key", |_| Err(io::ErrorKind::Other.into())).is_err());
    assert!(store.derived("kind", "key").unwrap().is_none());
    assert_eq!(text(make("one").unwrap()), "one");
    assert_eq!(text(make("two").unwrap()), "one");
    assert_eq!(text(store.derived("kind", "key").unwrap().unwrap()), "one");
}

#[test]
fn derived_file_cut_short_is_made_again() {
    use std::io::Write;
    let (_folder, store) = store();
    let make = || store.derive::<io::Error>("kind", "key", |file| write!(file, "whole")).unwrap();
    drop(make());
    let path = store.derived_path("kind", "key");
    let whole = fs::metadata(&path).unwrap().len();
    for length in [0, 1, whole - 1] {
        File::options().write(true).open(&path).unwrap().set_len(length).unwrap();
        assert_eq!(text(make()), "whole");
        assert_eq!(store.words().len(), 1);
    }
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
    let sealed = derivatives(&store)[0].size;
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

/// A file system of `bytes` in memory that nobody else sees, as a path; it goes away with its file.
fn small(bytes: u64) -> Option<(File, PathBuf)> {
    use std::os::fd::AsRawFd;

    use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
    let made = || {
        let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        rustix::mount::fsconfig_set_string(&context, "size", bytes.to_string())?;
        rustix::mount::fsconfig_set_string(&context, "mode", "0755")?;
        rustix::mount::fsconfig_create(&context)?;
        rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
    };
    match made() {
        Ok(mount) => {
            let mount = File::from(mount);
            let path = format!("/proc/self/fd/{}", mount.as_raw_fd()).into();
            Some((mount, path))
        }
        Err(rustix::io::Errno::PERM | rustix::io::Errno::NOSYS) => None,
        Err(errno) => panic!("making a small file system: {errno}"),
    }
}

#[test]
fn full_disk_names_folder_and_bytes() {
    let Some((_mount, folder)) = small(64 << 10) else { return injected() };
    let store = Store::open(&folder).unwrap();
    for needed in [65 << 10, 68 << 30] {
        match store.incoming(None, Some(needed)) {
            Err(StoreError::Full { folder: named, needed: bytes, free }) => {
                assert_eq!((named, bytes), (folder.clone(), needed));
                assert!((1..64 << 10).contains(&free), "{free} bytes are free");
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(store.check_room(needed), Err(StoreError::Full { .. })));
        // Nothing was taken, not even for a moment that would last until the next write.
        store.check_room(32 << 10).unwrap();
    }
    store.import(vec![7; 32 << 10]).unwrap();
}

#[test]
fn full_disk_leaves_nothing() {
    let Some((_mount, folder)) = small(64 << 10) else { return injected() };
    let store = opened(&folder);
    let bytes = vec![7; 1 << 20];
    let error = store.insert(&bytes[..], &Digest::of(&bytes), None).unwrap_err();
    assert!(matches!(error, StoreError::Full { .. }), "{error}");
    assert!(error.to_string().contains(&folder.display().to_string()));
    assert_eq!(store.blobs().unwrap(), []);
    let error = store.derive::<StoreError>("kind", "key", |file| {
        io::Write::write_all(file, &bytes)
            .map_err(|error| store.write_error(error, "writing", &folder, 1 << 20))
    });
    assert!(matches!(error, Err(StoreError::Full { needed: 1_048_576, .. })), "{error:?}");
    assert_eq!(derivatives(&store), []);
}

/// What the tests of a full disk try where no small file system may be made: the error itself.
fn injected() {
    println!("no small file system may be made here: the error of a full disk is injected");
    let (folder, store) = store();
    for kind in [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded] {
        match store.write_error(kind.into(), "writing", folder.path(), 5) {
            StoreError::Full { folder: named, needed: 5, .. } => assert_eq!(named, folder.path()),
            other => panic!("{other}"),
        }
    }
    let no_room = io::Error::new(io::ErrorKind::StorageFull, room::NoRoom { free: 3 });
    let error = store.write_error(no_room, "reserving", folder.path(), 5);
    assert!(matches!(error, StoreError::Full { needed: 5, free: 3, .. }), "{error}");
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
    assert_eq!((store.blobs().unwrap().len(), derivatives(&store).len()), (1, 1));
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

#[test]
fn what_was_derived_is_made_anew_without_its_key() {
    let (folder, store) = store();
    assert_eq!(derived(&store, "kind", "key", "mine"), "mine");
    // Another user, or a cache that was restored elsewhere.
    let other = opened_with(folder.path(), 8);
    assert!(other.derived("kind", "key").unwrap().is_none());
    assert_eq!(derived(&other, "kind", "key", "theirs"), "theirs");
    assert_eq!(derived(&other, "kind", "key", "again"), "theirs");
    // Nothing is wrong with that.
    assert_eq!(other.words(), [""; 0]);
    assert_eq!(derived(&store, "kind", "key", "mine again"), "mine again");
}

#[test]
fn without_a_key_nothing_is_left() {
    let (folder, store) = store();
    assert_eq!(derived(&store, "kind", "key", "mine"), "mine");
    let keyless = Store::open(folder.path()).unwrap();
    assert_eq!(derived(&keyless, "kind", "key", "once"), "once");
    assert_eq!(derived(&keyless, "kind", "key", "twice"), "twice");
    assert_eq!(derived(&keyless, "kind", "other", "once"), "once");
    assert_eq!(derived(&store, "kind", "key", "again"), "mine");
    assert_eq!(derivatives(&store).len(), 1);
}

#[test]
fn planted_files_are_not_believed() {
    let (folder, store) = store();
    assert_eq!(derived(&store, "kind", "one", "one"), "one");
    assert_eq!(derived(&store, "kind", "two", "two"), "two");
    assert_eq!(derived(&store, "other", "one", "other"), "other");
    let path = |of: &str| folder.path().join("derived").join(of);
    // Moved between names and kinds.
    for (from, to) in [("kind/two", "kind/one"), ("other/one", "kind/one")] {
        fs::copy(path(from), path(to)).unwrap();
        assert_eq!(derived(&store, "kind", "one", "anew"), "anew", "{from} as {to}");
        let words = store.words();
        assert!(words[0].contains("kind/one is not what was sealed under this name"), "{words:?}");
    }
    // Sealed by somebody who has no key.
    let (elsewhere, forger) = (tempfile::tempdir().unwrap(), 9);
    derived(&opened_with(elsewhere.path(), forger), "kind", "one", "forged");
    fs::copy(elsewhere.path().join("derived/kind/one"), path("kind/one")).unwrap();
    assert_eq!(derived(&store, "kind", "one", "anew"), "anew");
    for planted in ["", "planted", &"planted".repeat(1000)] {
        fs::write(path("kind/one"), planted).unwrap();
        assert_eq!(derived(&store, "kind", "one", "anew"), "anew");
    }
    // What would block, or is nothing to read.
    fs::remove_file(path("kind/one")).unwrap();
    fifo(&path("kind/one"));
    assert_eq!(derived(&store, "kind", "one", "anew"), "anew");
    assert_eq!(derived(&store, "kind", "one", "kept"), "anew");
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
fn after_a_broken_part_nothing_derived_is_believed() {
    let (_folder, store) = store();
    derived(&store, "kind", "other", "fine");
    let body = "body ".repeat(20_000);
    drop(
        store.derive::<io::Error>("kind", "key", |file| io::Write::write_all(file, body.as_bytes())).unwrap(),
    );
    let path = store.derived_path("kind", "key");
    File::options().write(true).open(&path).unwrap().write_all_at(b"B", 40_000).unwrap();
    let file = store.derived("kind", "key").unwrap().unwrap();
    assert!(!store.is_mended());
    store.sound().unwrap();
    assert_eq!(file.to_vec().unwrap_err().kind(), io::ErrorKind::InvalidData);
    assert!(matches!(store.sound(), Err(StoreError::Unsound { .. })));
    let words = store.words();
    assert!(words.len() == 1 && words[0].ends_with("all that is derived is made anew"), "{words:?}");
    assert!(store.is_mended() && !store.is_mended() && store.words().is_empty());
    store.sound().unwrap();
    assert_eq!(derived(&store, "kind", "key", &body), body);
    assert_eq!(derived(&store, "kind", "other", "anew"), "anew");
}

#[test]
fn verifying_covers_what_was_derived() {
    let (folder, store) = store();
    for name in ["good", "flipped", "cut", "moved"] {
        derived(&store, "kind", name, name);
    }
    derived(&opened_with(folder.path(), 8), "kind", "foreign", "foreign");
    let path = |name: &str| folder.path().join("derived/kind").join(name);
    File::options().write(true).open(path("flipped")).unwrap().write_all_at(b"F", 0).unwrap();
    File::options().write(true).open(path("cut")).unwrap().set_len(20).unwrap();
    fs::rename(path("moved"), path("elsewhere")).unwrap();
    fs::write(folder.path().join("derived/litter"), "x").unwrap();
    let mut found = std::collections::BTreeMap::new();
    for entry in derivatives(&store) {
        let name = entry.path.file_name().unwrap().to_string_lossy().into_owned();
        let checked = store.verify_derived(&entry, &["kind"]).unwrap();
        if let CheckedDerived::Broken { moved_to, .. } = &checked {
            assert!(moved_to.exists() && !entry.path.exists());
        }
        found.insert(name, checked);
    }
    let broken: Vec<_> = found
        .iter()
        .filter(|one| matches!(one.1, CheckedDerived::Broken { .. }))
        .map(|one| one.0.as_str())
        .collect();
    assert_eq!(broken, ["cut", "elsewhere", "flipped", "litter"]);
    assert_eq!((&found["good"], &found["foreign"]), (&CheckedDerived::Good, &CheckedDerived::Foreign));
    assert_eq!(derivatives(&store).len(), 2);
}

fn tool_of(store: &Store, name: &str, request: &Digest) -> Option<PathBuf> {
    store.tool(name, request).unwrap().map(|tool| tool.folder().to_owned())
}

#[test]
fn tools_are_looked_at_before_each_use() {
    use std::os::unix::fs::symlink;
    let (folder, store) = store();
    let request = Digest::of("request");
    let unpack = |store: &Store| {
        let unpacked = store.keep_tool::<StoreError>("qemu", &request, |tree| {
            fs::create_dir_all(tree.join("usr/bin")).unwrap();
            fs::write(tree.join("usr/bin/qemu"), "program").unwrap();
            symlink("usr/bin", tree.join("bin")).unwrap();
            Ok(())
        });
        unpacked.unwrap().folder().to_owned()
    };
    assert_eq!(tool_of(&store, "qemu", &request), None);
    let tool = unpack(&store);
    assert_eq!(tool_of(&store, "qemu", &request), Some(tool.clone()));
    assert_eq!(store.tools().unwrap(), ["qemu"]);
    assert_eq!(store.verify_tool("qemu").unwrap(), CheckedDerived::Good);
    // For another request it is made anew, and so it is for another user.
    assert_eq!(tool_of(&store, "qemu", &Digest::of("newer")), None);
    let other = opened_with(folder.path(), 8);
    assert_eq!(tool_of(&other, "qemu", &request), None);
    assert_eq!(other.verify_tool("qemu").unwrap(), CheckedDerived::Foreign);
    let program = tool.join("usr/bin/qemu");
    let changes: [&dyn Fn(); 6] = [
        &|| fs::write(&program, "proGram").unwrap(),
        &|| fs::write(tool.join("usr/bin/more"), "").unwrap(),
        &|| fs::remove_file(&program).unwrap(),
        &|| fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).unwrap(),
        &|| {
            fs::remove_file(tool.join("bin")).unwrap();
            symlink("/tmp", tool.join("bin")).unwrap();
        },
        &|| {
            fs::remove_file(&program).unwrap();
            fifo(&program);
        },
    ];
    for (at, change) in changes.iter().enumerate() {
        unpack(&store);
        change();
        assert_eq!(tool_of(&store, "qemu", &request), None, "change {at}");
        let words = store.words();
        assert!(words[0].contains("is not as keller unpacked it: the tool is unpacked anew"), "{words:?}");
        match store.verify_tool("qemu").unwrap() {
            CheckedDerived::Broken { moved_to, .. } => assert!(moved_to.exists() && !tool.exists()),
            checked => panic!("{checked:?}"),
        }
    }
    // Planted, with no seal or with that of something else.
    unpack(&store);
    fs::rename(&tool, folder.path().join("tools/other")).unwrap();
    assert_eq!(tool_of(&store, "other", &request), None);
    fs::copy(folder.path().join("tools/qemu.seal"), folder.path().join("tools/other.seal")).unwrap();
    assert_eq!(tool_of(&store, "other", &request), None);
    unpack(&store);
    assert!(tool_of(&store, "qemu", &request).is_some());
    let mut store = store;
    drop(other);
    store.gc(&BTreeSet::new(), Duration::ZERO).unwrap();
    assert!(!folder.path().join("rotten").exists());
}

#[test]
fn store_that_others_can_write_is_refused() {
    let (folder, _) = store();
    derived(&opened(folder.path()), "kind", "key", "x");
    let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let blob = opened(folder.path()).import("x").unwrap().to_hex();
    for part in ["", "blobs", &format!("blobs/{}", &blob[..2]), "derived", "derived/kind"] {
        let path = folder.path().join(part);
        for mode in [0o775, 0o757, 0o1777] {
            set(&path, mode);
            let error = Store::open(folder.path()).unwrap_err();
            let text = error.to_string();
            assert!(matches!(error, StoreError::Shared { .. }), "{text}");
            assert!(text.contains("chmod -R go-w") && text.contains("--allow-shared-store"), "{text}");
            Store::open_with(folder.path(), Access { key: None, shared: true }).unwrap();
        }
        set(&path, 0o755);
    }
    Store::open(folder.path()).unwrap();
    // What is above it counts too, by whatever link it is reached.
    let inner = folder.path().join("a/b");
    fs::create_dir_all(&inner).unwrap();
    std::os::unix::fs::symlink(&inner, folder.path().join("link")).unwrap();
    set(&folder.path().join("a"), 0o777);
    for path in [inner, folder.path().join("link")] {
        let error = Store::open(path).unwrap_err().to_string();
        assert!(error.contains("/a is writable by everybody (mode 0777)"), "{error}");
    }
    set(&folder.path().join("a"), 0o1777);
    Store::open(folder.path().join("a/b")).unwrap();
}

#[test]
fn store_of_somebody_else_is_refused() {
    let (folder, _) = store();
    if std::os::unix::fs::chown(folder.path(), Some(12345), None).is_err() {
        // Who is not root cannot give anything away; `judges_as_ssh_does` has the same by numbers.
        println!("SKIPPED: only root can give a store to somebody else");
        return;
    }
    let error = Store::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("belongs to user 12345, neither to you nor to root"), "{error}");
    assert!(error.contains("name a directory of your own by --store or KELLER_STORE"), "{error}");
    Store::open_with(folder.path(), Access { key: None, shared: true }).unwrap();
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
fn links_to_where_others_write_are_followed() {
    let (folder, store) = store();
    store.import("x").unwrap();
    drop(store);
    let open = folder.path().join("open");
    fs::create_dir(&open).unwrap();
    fs::rename(folder.path().join("blobs"), open.join("blobs")).unwrap();
    std::os::unix::fs::symlink(open.join("blobs"), folder.path().join("blobs")).unwrap();
    opened(folder.path());
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    let error = Store::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("open is writable by everybody (mode 0777)"), "{error}");
}

#[test]
fn nothing_is_left_in_the_home_of_somebody_else() {
    let (folder, _) = store();
    let home = folder.path().join("home");
    fs::create_dir(&home).unwrap();
    if std::os::unix::fs::chown(&home, Some(12345), None).is_err() {
        println!("SKIPPED: only root can make a home for somebody else");
        return;
    }
    let error = Store::open(home.join(".cache/keller")).unwrap_err().to_string();
    assert!(error.contains("home belongs to user 12345, neither to you nor to root"), "{error}");
    assert_eq!(fs::read_dir(&home).unwrap().count(), 0);
}

#[test]
fn two_that_unpack_one_tool_at_once_both_have_it() {
    let (folder, store) = store();
    let request = Digest::of("request");
    let unpacked = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let store = opened(folder.path());
                let made = store.keep_tool::<StoreError>("qemu", &request, |tree| {
                    unpacked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    fs::write(tree.join("program"), "program").unwrap();
                    Ok(())
                });
                assert!(made.unwrap().folder().join("program").exists());
            });
        }
    });
    assert_eq!(unpacked.into_inner(), 1);
    assert_eq!(store.verify_tool("qemu").unwrap(), CheckedDerived::Good);
    assert_eq!(store.tools().unwrap(), ["qemu"]);
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

#[test]
fn tool_where_nothing_can_be_put() {
    let (folder, store) = store();
    let request = Digest::of("request");
    let unpack = |tree: &Path| {
        fs::write(tree.join("program"), "program").unwrap();
        Ok::<_, StoreError>(())
    };
    // In a place that even root cannot write.
    std::os::unix::fs::symlink("/sys/kernel", folder.path().join("tools")).unwrap();
    let tool = store.keep_tool("qemu", &request, unpack).unwrap();
    let place = tool.folder().to_owned();
    assert!(place.starts_with(std::env::temp_dir()) && place.join("program").exists());
    drop(tool);
    assert!(!place.exists());
    // Without a key: on the disk of the store, for once.
    fs::remove_file(folder.path().join("tools")).unwrap();
    let keyless = Store::open(folder.path()).unwrap();
    let tool = keyless.keep_tool("qemu", &request, unpack).unwrap();
    assert!(tool.folder().starts_with(folder.path().join("tools")) && tool.folder().join("program").exists());
    assert_eq!(keyless.tools().unwrap(), [""; 0]);
    drop(tool);
    assert_eq!(fs::read_dir(folder.path().join("tools")).unwrap().count(), 0);
    // What is in the way goes.
    fs::remove_dir(folder.path().join("tools")).unwrap();
    fs::write(folder.path().join("tools"), "planted").unwrap();
    let tool = store.keep_tool("qemu", &request, unpack).unwrap();
    assert_eq!(tool.folder(), folder.path().join("tools/qemu"));
    assert!(store.words()[0].contains("tools is not a directory, where keller has one: it is now "));
}

#[test]
fn tool_that_another_user_could_still_change_is_not_run() {
    let (_folder, store) = store();
    let request = Digest::of("request");
    let unpack = || {
        let tool = store.keep_tool::<StoreError>("qemu", &request, |tree| {
            fs::create_dir(tree.join("bin")).unwrap();
            fs::write(tree.join("bin/program"), "program").unwrap();
            Ok(())
        });
        tool.unwrap().folder().to_owned()
    };
    for name in ["bin/program", "bin", ""] {
        let tool = unpack();
        if std::os::unix::fs::chown(tool.join(name), Some(12345), None).is_err() {
            println!("SKIPPED: only root can give a file to somebody else");
            return;
        }
        assert_eq!(tool_of(&store, "qemu", &request), None, "{name:?}");
    }
}

#[test]
fn what_another_version_sealed_is_nothing_wrong() {
    let (folder, store) = store();
    derived(&store, "kind", "key", "body");
    let path = folder.path().join("derived/kind/key");
    let mut bytes = fs::read(&path).unwrap();
    let magic = bytes.len() - 64 + b"keller-sealed-".len();
    bytes[magic] = b'2';
    fs::write(&path, &bytes).unwrap();
    let entry = derivatives(&store).remove(0);
    assert_eq!(store.verify_derived(&entry, &["kind"]).unwrap(), CheckedDerived::Another);
    assert_eq!(store.verify_derived(&entry, &["kind-2"]).unwrap(), CheckedDerived::Another);
    // It is made anew, and nothing is told.
    assert_eq!(derived(&store, "kind", "key", "anew"), "anew");
    assert_eq!(store.words(), [""; 0]);
    assert_eq!(store.verify_derived(&entry, &["kind"]).unwrap(), CheckedDerived::Good);
    // A tool whose list has lines of another form.
    let request = Digest::of("request");
    store.keep_tool::<StoreError>("qemu", &request, |_| Ok(())).unwrap();
    let list = store.list_path("qemu");
    store
        .seal_at::<StoreError>(&list, "tools", "qemu", |list| {
            io::Write::write_all(list, format!("request {request}\n").as_bytes()).map_err(StoreError::Read)
        })
        .unwrap();
    assert_eq!(store.verify_tool("qemu").unwrap(), CheckedDerived::Another);
    assert_eq!(tool_of(&store, "qemu", &request), None);
}

#[test]
fn derived_file_whose_directory_is_gone_is_read_all_the_same() {
    let (folder, store) = store();
    let made = store.derive::<io::Error>("kind", "key", |file| {
        io::Write::write_all(file, b"body")?;
        fs::remove_dir_all(folder.path().join("derived"))
    });
    assert_eq!(text(made.unwrap()), "body");
    for planted in ["derived", "derived/kind"] {
        let path = folder.path().join(planted);
        let _ = fs::create_dir(path.parent().unwrap());
        let _ = fs::remove_dir_all(&path);
        fs::write(&path, "planted").unwrap();
        assert_eq!(derived(&store, "kind", "key", planted), planted);
        assert!(store.words()[0].contains("is not a directory, where keller has one: it is now "));
        assert_eq!(derived(&store, "kind", "key", "anew"), planted);
    }
}
