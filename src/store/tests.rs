use std::collections::BTreeSet;
use std::os::unix::fs::{FileExt, PermissionsExt};

use super::*;

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    (folder, store)
}

fn read(mut file: File) -> String {
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    text
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
    assert_eq!(store.receive(&b"hello"[..], 5).unwrap(), (Digest::of("hello"), 5));
    assert!(store.has(&Digest::of("hello")));
    assert!(matches!(store.receive(&b"hello"[..], 4), Err(StoreError::WrongSize { expected: 4, .. })));
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
            assert_eq!(actual, Digest::of("jello"));
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
    assert_eq!(read(make("one").unwrap()), "one");
    assert_eq!(read(make("two").unwrap()), "one");
    assert_eq!(read(store.derived("kind", "key").unwrap().unwrap()), "one");
}

#[test]
fn derived_file_cut_short_is_made_again() {
    use std::io::Write;
    let (_folder, store) = store();
    let make = || store.derive::<io::Error>("kind", "key", |file| write!(file, "whole")).unwrap();
    drop(make());
    let path = store.derived_path("kind", "key");
    if rustix::fs::getxattr(&path, LENGTH_XATTR, &mut [0; 8][..]).is_err() {
        println!("SKIPPED: the file system has no user attributes");
        return;
    }
    File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
    assert_eq!(read(make()), "whole");
}

#[test]
fn sweeps_what_is_neither_kept_nor_young() {
    use std::io::Write;
    let (folder, mut store) = store();
    let (kept, swept) = (store.import("kept").unwrap(), store.import("swept").unwrap());
    drop(store.derive::<io::Error>("kind", "key", |file| write!(file, "derived")).unwrap());
    fs::write(store.root().join("blobs/ab.tmp"), "litter").unwrap();
    let keep = BTreeSet::from([kept]);
    let other = Store::open(folder.path()).unwrap();
    assert!(matches!(store.gc(&keep, Duration::ZERO), Err(StoreError::InUse { .. })));
    // The failed attempt must not have cost the shared lock.
    let mut third = Store::open(folder.path()).unwrap();
    drop(other);
    assert!(matches!(third.gc(&keep, Duration::ZERO), Err(StoreError::InUse { .. })));
    drop(third);
    let freed = store.gc(&keep, Duration::from_secs(60)).unwrap();
    assert_eq!(freed, Freed { litter: 1, bytes: 6, ..Freed::default() });
    let freed = store.gc(&keep, Duration::ZERO).unwrap();
    assert_eq!(freed, Freed { blobs: 1, derived: 1, bytes: 12, ..Freed::default() });
    assert!(store.has(&kept) && !store.has(&swept));
    // And shares again after a sweep.
    Store::open(folder.path()).unwrap();
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
    let store = Store::open(&folder).unwrap();
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
    assert_eq!(store.derivatives().unwrap(), []);
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
                let store = Store::open(folder.path()).unwrap();
                store.insert(&bytes[..], &digest, Some(bytes.len() as u64)).unwrap();
                let made = store.derive::<io::Error>("kind", "key", |file| file.write_all(&bytes)).unwrap();
                assert_eq!(made.metadata().unwrap().len(), bytes.len() as u64);
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
fn unusable_folder_says_what_to_do() {
    let (folder, _) = store();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let error = Store::open(file.join("store")).unwrap_err().to_string();
    assert!(error.contains("KELLER_STORE") && error.contains("file/store"), "{error}");
}
