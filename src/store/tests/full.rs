//! A disk that is full.

use super::*;

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
