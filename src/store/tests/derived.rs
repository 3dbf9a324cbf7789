//! What was derived: sealed, believed by its own user only, and made anew.

use super::*;

#[test]
fn derives_once() {
    use std::io::Write;
    let (_folder, store) = store();
    let make = |text: &'static str| store.derive::<io::Error>("kind", "key", |file| write!(file, "{text}"));
    assert!(store.derive::<io::Error>("kind", "key", |_| Err(io::ErrorKind::Other.into())).is_err());
    assert!(store.derived("kind", "key").is_none());
    assert_eq!(text(make("one").unwrap()), "one");
    assert_eq!(text(make("two").unwrap()), "one");
    assert_eq!(text(store.derived("kind", "key").unwrap()), "one");
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
fn what_was_derived_is_made_anew_without_its_key() {
    let (folder, store) = store();
    assert_eq!(derived(&store, "kind", "key", "mine"), "mine");
    // Another user, or a cache that was restored elsewhere.
    let other = opened_with(folder.path(), 8);
    assert!(other.derived("kind", "key").is_none());
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
    assert_eq!(store.derivatives().unwrap().len(), 1);
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
    let file = store.derived("kind", "key").unwrap();
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
    for entry in store.derivatives().unwrap() {
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
    assert_eq!(store.derivatives().unwrap().len(), 2);
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
    let entry = store.derivatives().unwrap().remove(0);
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
