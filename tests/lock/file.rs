//! Lock files: what is written is read, and what is not ours is refused.

use std::path::Path;

use keller::lock::asked::staleness;
use keller::lock::file::{LockFileError, parse, path_for, read, to_text, write};

use super::{World, manifest};

fn lock() -> keller::lock::Lock {
    World::new("Package: app\nVersion: 1\n", "").resolve(&manifest(&["app"], &[])).unwrap()
}

#[test]
fn lies_beside_the_manifest_and_reads_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = path_for(&folder.path().join("node.yaml"));
    assert!(path.ends_with("node.lock"));
    assert!(read(&path, "node").unwrap().is_none());
    let lock = lock();
    write(&path, &lock).unwrap();
    assert_eq!(read(&path, "node").unwrap().unwrap(), lock);
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text, to_text(&lock));
    assert!(!text.contains("mirror.example"), "a lock never names a mirror");
}

#[test]
fn foreign_newer_and_broken_locks_are_refused() {
    let text = to_text(&lock());
    let path = Path::new("node.lock");
    let error = parse(&text, path, "other").unwrap_err();
    assert!(matches!(error, LockFileError::OtherManifest { .. }), "{error}");
    assert!(
        error.to_string().starts_with("node.lock is the lock of node, but the manifest is other"),
        "{error}"
    );
    let newer = text.replace("\"keller_lock\": 1", "\"keller_lock\": 2").replace("\"epoch\"", "\"era\"");
    assert!(matches!(parse(&newer, path, "node"), Err(LockFileError::Newer { format: 2, .. })));
    let broken = text.replace("\"size\": ", "\"size\": -");
    let error = parse(&broken, path, "node").unwrap_err().to_string();
    let line = 1 + broken.lines().position(|line| line.contains("\"size\": -")).unwrap();
    assert!(error.starts_with(&format!("node.lock:{line}:")), "{error}");
    assert!(error.contains("invalid value") && error.contains("\n  \"size\": -"), "{error}");
    for bad in ["", "{", "[]", "{}", &text[..text.len() / 2]] {
        assert!(matches!(parse(bad, path, "node"), Err(LockFileError::Syntax { .. })), "{bad}");
    }
}

#[test]
fn a_stale_lock_says_what_is_different() {
    let lock = lock();
    assert_eq!(staleness(&lock, &manifest(&["app"], &[])), None);
    let stale = staleness(&lock, &manifest(&["curl"], &["libc6"])).unwrap();
    assert_eq!(
        stale.to_string(),
        "the manifest has changed since the lock was made:\n  packages: curl was added\n  \
         packages: app was removed\n  assume: libc6 was added"
    );
    // A new keller and a new release are no reasons.
    let mut later = lock.clone();
    later.provenance.keller = "99".into();
    later.provenance.releases.clear();
    assert_eq!(staleness(&later, &manifest(&["app"], &[])), None);
}
