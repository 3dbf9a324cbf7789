use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

/// A state directory, and the key's place in it.
fn state() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(PLACE);
    (folder, path)
}

fn digits(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn set(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn made_once_for_its_user_alone() {
    let (_folder, path) = state();
    let found = at(&path).unwrap();
    assert!(found.replaced.is_none());
    let first = digits(&path);
    assert_eq!((first.len() as u64, mode(&path), mode(path.parent().unwrap())), (LENGTH, 0o600, 0o700));
    assert!(at(&path).unwrap().replaced.is_none());
    assert_eq!(digits(&path), first);
    let (_other, path) = state();
    at(&path).unwrap();
    assert_ne!(digits(&path), first);
    // Nothing lies beside it.
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
}

#[test]
fn made_once_by_many() {
    let (_folder, path) = state();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let seen: std::collections::BTreeSet<String> = std::thread::scope(|scope| {
        let one = || {
            at(&path).unwrap();
            digits(&path)
        };
        let all: Vec<_> = (0..8).map(|_| scope.spawn(one)).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(seen.len(), 1, "one of them took the name from another");
}

#[test]
fn replaced_by_many_at_once() {
    let (_folder, path) = state();
    at(&path).unwrap();
    set(&path, 0o644);
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..8).map(|_| scope.spawn(|| at(&path).map(drop))).collect();
        all.into_iter().for_each(|one| one.join().unwrap().unwrap());
    });
    assert!(at(&path).unwrap().replaced.is_none() && mode(&path) == 0o600);
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
}

#[test]
fn nothing_is_left_in_the_home_of_somebody_else() {
    let (folder, path) = state();
    if std::os::unix::fs::chown(folder.path(), Some(12345), None).is_err() {
        println!("SKIPPED: only root can make a home for somebody else");
        return;
    }
    let error = at(&path).unwrap_err();
    assert!(matches!(error, KeyError::Shared { .. }), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn one_that_others_could_read_is_replaced() {
    for open in [0o644, 0o640, 0o604, 0o620, 0o666, 0o4601] {
        let (_folder, path) = state();
        at(&path).unwrap();
        let first = digits(&path);
        set(&path, open);
        let told = at(&path).unwrap().replaced.unwrap();
        assert!(told.contains(&format!("store.key is open to others (mode {open:04o}, not 0600)")), "{told}");
        assert!(digits(&path) != first && mode(&path) == 0o600);
        assert!(at(&path).unwrap().replaced.is_none());
    }
}

#[test]
fn one_that_is_none_is_replaced() {
    let (folder, path) = state();
    let other = folder.path().join("other");
    for (what, make) in [
        ("is damaged", &(|path: &Path| fs::write(path, "").unwrap()) as &dyn Fn(&Path)),
        ("is damaged", &|path| fs::write(path, "0".repeat(63)).unwrap()),
        ("is damaged", &|path| fs::write(path, "x".repeat(64)).unwrap()),
        ("is damaged", &|path| fs::write(path, "0".repeat(66)).unwrap()),
        ("is a link", &|path| symlink(&other, path).unwrap()),
        ("is not a file", &|path| {
            let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
            rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        }),
    ] {
        at(&path).unwrap();
        fs::remove_file(&path).unwrap();
        make(&path);
        if path.is_file() {
            set(&path, 0o600);
        }
        let told = at(&path).unwrap().replaced.unwrap();
        assert!(told.contains(what), "{told}");
    }
    assert!(!other.exists());
}

#[test]
fn belongs_to_its_user() {
    let (_folder, path) = state();
    at(&path).unwrap();
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!(unfit(&metadata, metadata.uid()), None);
    let told = unfit(&metadata, metadata.uid() + 1).unwrap();
    assert_eq!(told, format!("belongs to user {}", metadata.uid()));
}

#[test]
fn no_key_where_others_write() {
    let (folder, path) = state();
    for open in [0o777, 0o775, 0o1777] {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        set(path.parent().unwrap(), open);
        let error = at(&path).unwrap_err();
        assert!(matches!(error, KeyError::Shared { .. }), "{error}");
        set(path.parent().unwrap(), 0o700);
    }
    set(folder.path(), 0o777);
    assert!(at(&path).unwrap_err().to_string().ends_with("is writable by everybody (mode 0777)"));
}

#[test]
fn lies_in_the_state_directory() {
    let folder = tempfile::tempdir().unwrap();
    let here = |name: &str| folder.path().join(name);
    fs::create_dir(here("home")).unwrap();
    let of = |vars: &[(&str, PathBuf)]| {
        of_user_in(Path::new("/nowhere"), |name| {
            vars.iter().find(|var| var.0 == name).map(|var| var.1.clone())
        })
    };
    of(&[("HOME", here("home"))]).unwrap();
    assert!(here("home/.local/state/keller/store.key").exists());
    of(&[("HOME", here("home")), ("XDG_STATE_HOME", here("state"))]).unwrap();
    assert!(here("state/keller/store.key").exists());
    of(&[("HOME", here("home")), ("XDG_STATE_HOME", "relative".into())]).unwrap();
    assert!(!Path::new("relative").exists());
    // A home that is not there is not made.
    assert!(matches!(of(&[("HOME", here("nowhere"))]), Err(KeyError::NoFolder)));
    assert!(!here("nowhere").exists());
    assert!(matches!(of(&[]), Err(KeyError::NoFolder)));
}

#[test]
fn never_in_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let here = |name: &str| folder.path().join(name);
    let of = |store: PathBuf| {
        of_user_in(&store, |name| (name == "XDG_STATE_HOME").then(|| folder.path().join("state")))
    };
    fs::create_dir_all(here("state")).unwrap();
    symlink(here("state"), here("link")).unwrap();
    // As where XDG_CACHE_HOME and XDG_STATE_HOME are one directory, and by any way that leads there.
    for store in ["state", "state/keller", "state/../state", "link", "link/keller", "."] {
        let error = of(here(store)).unwrap_err();
        assert!(matches!(error, KeyError::InStore { .. }), "{store}: {error}");
        assert_eq!(fs::read_dir(here("state")).unwrap().count(), 0);
    }
    of(here("state/keller/store")).unwrap();
    of(here("state/keller-store")).unwrap();
}
