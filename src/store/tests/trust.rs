//! Who else may write where the store lies.

use super::*;

#[test]
fn store_that_others_can_write_is_refused() {
    let (folder, _) = store();
    derived(&opened(folder.path()), "kind", "key", "x");
    let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let blob = opened(folder.path()).import("x").unwrap().to_hex();
    fs::create_dir(folder.path().join("rotten")).unwrap();
    for part in ["", "blobs", &format!("blobs/{}", &blob[..2]), "derived", "derived/kind", "rotten"] {
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

/// Whoever can put another link in the place of one on the way chooses the store.
#[test]
fn links_on_the_way_are_judged() {
    let (folder, _) = store();
    let open = folder.path().join("open");
    fs::create_dir(&open).unwrap();
    let link = |target: &Path, name: &str| std::os::unix::fs::symlink(target, open.join(name)).unwrap();
    link(folder.path(), "whole");
    link(Path::new("whole/.."), "above");
    link(Path::new("b"), "a");
    link(Path::new("a"), "b");
    let name = folder.path().file_name().unwrap();
    let ways = [open.join("whole"), open.join("above").join(name), open.join("whole/open/whole")];
    let opens = |path: &Path| Store::open(path).map(drop).map_err(|error| error.to_string());
    for (mode, words) in [(0o777, "open is writable by everybody (mode 0777)"), (0o1777, ""), (0o755, "")] {
        fs::set_permissions(&open, fs::Permissions::from_mode(mode)).unwrap();
        for path in &ways {
            match words {
                "" => opens(path).unwrap(),
                words => assert!(opens(path).unwrap_err().contains(words), "{}", path.display()),
            }
        }
    }
    assert!(
        opens(&open.join("a/store")).unwrap_err().contains("is unknown: Too many levels of symbolic links")
    );
    if std::os::unix::fs::lchown(open.join("whole"), Some(12345), None).is_err() {
        println!("SKIPPED: only root can give a link to somebody else");
        return;
    }
    for path in &ways {
        let error = opens(path).unwrap_err();
        assert!(error.contains("open/whole belongs to user 12345, neither to you nor to root"), "{error}");
        assert!(error.contains("name a directory of your own by --store or KELLER_STORE"), "{error}");
    }
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
