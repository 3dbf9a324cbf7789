//! Keys are made, rotated, renewed, and refused.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use super::*;

fn soon() -> Timestamp {
    Timestamp::now() + Duration::from_secs(3600)
}

fn wanted(root_keys: u64, root_threshold: u64) -> Wanted {
    Wanted { root_keys, root_threshold, expires: soon() }
}

fn refused(result: Result<impl Sized, KeysError>) -> String {
    match result {
        Ok(_) => panic!("it was not refused"),
        Err(error) => crate::base::Chain(&error).to_string(),
    }
}

#[test]
fn made_once_and_for_their_owner_alone() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("keys");
    let keys = Keys::init(&folder, wanted(3, 2)).unwrap();
    assert_eq!(keys.shown().len(), 6);
    for key in keys.shown() {
        let path = key.private.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{path:?}");
        assert!(fs::read_to_string(&path).unwrap().starts_with("-----BEGIN PRIVATE KEY-----\n"));
    }
    assert_eq!(fs::read(folder.join("root.json")).unwrap(), fs::read(folder.join("1.root.json")).unwrap());
    let again = Keys::open(&folder, &[]).unwrap();
    assert_eq!(again.root(), keys.root());
    let text = refused(Keys::init(&folder, wanted(1, 1)));
    assert!(text.contains("root.json is there already") && text.contains("keller keys rotate"), "{text}");
    let text = refused(Keys::init(&folder.join("x"), wanted(1, 2)));
    assert_eq!(text, "a threshold of 2 does not go with 1 root keys");
    assert!(!folder.join("x").exists());
    let text = refused(Keys::open(&folder.join("none"), &[]));
    assert!(text.contains("keller keys init"), "{text}");
}

#[test]
fn a_rotation_is_signed_by_old_and_new() {
    let folder = tempfile::tempdir().unwrap();
    let mut keys = Keys::init(folder.path(), wanted(2, 2)).unwrap();
    let before = keys.root().clone();
    for role in ROLES {
        let rotated = keys.rotate(role, None, soon()).unwrap();
        let count = if role == RoleType::Root { 2 } else { 1 };
        assert_eq!((rotated.made.len(), rotated.retired.len()), (count, count), "{role}");
    }
    assert_eq!(keys.root().signed.version.get(), 5);
    assert_eq!(keys.root().signed.keys.len(), 5);
    let second = &keys.roots[&2];
    assert!(metadata::is_signed(&before, second) && metadata::is_signed(second, second));
    assert!(!metadata::is_signed(&before, keys.root()));
    let again = Keys::open(folder.path(), &[]).unwrap();
    assert_eq!(again.roots.len(), 5);
    for role in ROLES {
        again.signers(&again.root().signed, role).unwrap();
    }
}

#[test]
fn one_key_of_several() {
    let folder = tempfile::tempdir().unwrap();
    let mut keys = Keys::init(folder.path(), wanted(3, 2)).unwrap();
    let [lost, kept, _] = &key_ids(&keys.root().signed, RoleType::Root)[..] else { panic!() };
    keys.private.retain(|key| hex::encode(&key.id) != *lost);
    let rotated = keys.rotate(RoleType::Root, Some(&lost[..6]), soon()).unwrap();
    assert_eq!(rotated.retired, [lost.as_str()]);
    let now = key_ids(&keys.root().signed, RoleType::Root);
    assert!(now.contains(kept) && !now.contains(lost) && now.len() == 3);
    let text = refused(keys.rotate(RoleType::Root, Some("zz"), soon()));
    assert!(text.contains("keller keys show"), "{text}");
}

#[test]
fn keys_that_are_elsewhere_are_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let mut keys = Keys::init(folder.path(), wanted(1, 1)).unwrap();
    let root = keys.shown().remove(0).private.unwrap();
    let away = folder.path().join("stick.pem");
    fs::rename(&root, &away).unwrap();
    keys = Keys::open(folder.path(), &[]).unwrap();
    let before = keys.private.len();
    let text = refused(keys.rotate(RoleType::Timestamp, None, soon()));
    assert!(text.starts_with("signing for root takes 1 of its keys, and 0 are here; put "), "{text}");
    assert!(text.ends_with("or name the file with --key"), "{text}");
    assert_eq!((keys.private.len(), keys.root().signed.version.get()), (before, 1));
    assert!(!folder.path().join("2.root.json").exists());
    assert_eq!(fs::read_dir(folder.path().join(PRIVATE)).unwrap().count(), 4);
    keys = Keys::open(folder.path(), std::slice::from_ref(&away)).unwrap();
    assert_eq!(keys.renew(soon()).unwrap(), 2);
    fs::write(&away, "ssh-ed25519").unwrap();
    let text = refused(Keys::open(folder.path(), &[away]));
    assert!(text.contains("expected ed25519 as PKCS#8 in PEM"), "{text}");
}

#[test]
fn what_does_not_belong_together() {
    let folder = tempfile::tempdir().unwrap();
    let mut keys = Keys::init(folder.path(), wanted(1, 1)).unwrap();
    keys.renew(soon()).unwrap();
    keys.renew(soon()).unwrap();
    keys.check_expiry(Timestamp::now()).unwrap();
    let late = keys.root().signed.expires + Duration::from_secs(1);
    let text = refused(keys.check_expiry(late));
    assert!(text.contains("version 3, has expired on") && text.contains("keller keys renew"), "{text}");
    let second = fs::read(folder.path().join("2.root.json")).unwrap();
    fs::remove_file(folder.path().join("2.root.json")).unwrap();
    let text = refused(Keys::open(folder.path(), &[]));
    assert!(text.contains("2.root.json is missing"), "{text}");
    let other = tempfile::tempdir().unwrap();
    let mut stranger = Keys::init(other.path(), wanted(1, 1)).unwrap();
    stranger.renew(soon()).unwrap();
    fs::copy(other.path().join("2.root.json"), folder.path().join("2.root.json")).unwrap();
    let text = refused(Keys::open(folder.path(), &[]));
    assert!(text.contains("2.root.json is not signed by enough root keys of 1.root.json"), "{text}");
    let cut = &second[..second.len() / 2];
    fs::write(folder.path().join("2.root.json"), cut).unwrap();
    assert!(refused(Keys::open(folder.path(), &[])).contains("is no root of trust"));
}
