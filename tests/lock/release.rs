//! Signatures and dates.

use std::collections::BTreeMap;

use keller::source::debian::release::{Expectation, Keyring, ReleaseError, verify};
use sequoia_openpgp::types::HashAlgorithm;

use super::chain;
use crate::repository::{DATE, DAY, Release, key, public, revoked, sign};

const NOW: i64 = DATE + DAY;

fn expectation() -> Expectation<'static> {
    Expectation { suite: Some("trixie"), now: NOW, allow_expired: false }
}

fn text(release: &Release) -> String {
    release.text(&BTreeMap::from([("main/binary-amd64/Packages".to_owned(), b"x".to_vec())]))
}

#[test]
fn a_good_signature_is_enough_beside_an_unknown_one() {
    let (known, other) = (key(3650), key(3650));
    let text = text(&Release::new("trixie", &known, ""));
    let keyring = Keyring::read(&public(&known)).unwrap();
    let release =
        verify(&sign(&[&known], &text, DATE, HashAlgorithm::SHA512), &keyring, &expectation()).unwrap();
    assert_eq!((release.date, release.valid_until), (DATE, Some(DATE + 7 * DAY)));
    assert_eq!(release.signed_by, keyring.fingerprints());
    assert_eq!(release.files["main/binary-amd64/Packages"].1, 1);
    let both = sign(&[&other, &known], &text, DATE, HashAlgorithm::SHA256);
    assert_eq!(verify(&both, &keyring, &expectation()).unwrap().signed_by, keyring.fingerprints());
    let everyone = Keyring::read(&[public(&other), public(&known)].concat()).unwrap();
    assert_eq!(verify(&both, &everyone, &expectation()).unwrap().signed_by.len(), 2);
}

#[test]
fn an_unknown_key_is_named() {
    let (known, other) = (key(3650), key(3650));
    let signed = sign(&[&other], &text(&Release::new("trixie", &known, "")), DATE, HashAlgorithm::SHA256);
    let error = verify(&signed, &Keyring::read(&public(&known)).unwrap(), &expectation()).unwrap_err();
    let message = chain(&error);
    assert!(matches!(error, ReleaseError::UnknownKey { .. }), "{message}");
    assert!(message.contains(&other.fingerprint().to_hex()), "{message}");
    assert!(message.contains(&known.fingerprint().to_hex()), "{message}");
}

#[test]
fn an_expired_key_does_not_count_even_for_what_it_signed_in_time() {
    // Dies a day after the release.
    let brief = key(366);
    let signed = sign(&[&brief], &text(&Release::new("trixie", &brief, "")), DATE, HashAlgorithm::SHA256);
    let keyring = Keyring::read(&public(&brief)).unwrap();
    let late = verify(&signed, &keyring, &Expectation { now: NOW + DAY, ..expectation() }).unwrap_err();
    assert!(matches!(late, ReleaseError::ExpiredKey { .. }), "{late}");
    assert!(chain(&late).contains("expired on 2026-06-02T00:00:00Z"), "{late}");
    verify(&signed, &keyring, &Expectation { now: DATE + DAY / 2, ..expectation() }).unwrap();
    // Signed after its death.
    let dead = key(300);
    let signed = sign(&[&dead], &text(&Release::new("trixie", &dead, "")), DATE, HashAlgorithm::SHA256);
    let error = verify(&signed, &Keyring::read(&public(&dead)).unwrap(), &expectation()).unwrap_err();
    assert!(matches!(error, ReleaseError::ExpiredKey { .. }), "{error}");
}

#[test]
fn a_revoked_key_does_not_count() {
    let lost = key(3650);
    let signed = sign(&[&lost], &text(&Release::new("trixie", &lost, "")), DATE, HashAlgorithm::SHA256);
    let keyring = Keyring::read(&public(&revoked(&lost))).unwrap();
    let error = verify(&signed, &keyring, &expectation()).unwrap_err();
    assert!(matches!(error, ReleaseError::RevokedKey { .. }), "{error}");
}

#[test]
fn a_forgeable_digest_is_refused() {
    let key = key(3650);
    let signed = sign(&[&key], &text(&Release::new("trixie", &key, "")), DATE, HashAlgorithm::SHA1);
    let error = verify(&signed, &Keyring::read(&public(&key)).unwrap(), &expectation()).unwrap_err();
    assert!(matches!(error, ReleaseError::WeakDigest { .. }), "{error}");
    assert!(chain(&error).contains("SHA1"), "{error}");
}

#[test]
fn a_changed_text_is_refused() {
    let key = key(3650);
    let signed = sign(&[&key], &text(&Release::new("trixie", &key, "")), DATE, HashAlgorithm::SHA256);
    let keyring = Keyring::read(&public(&key)).unwrap();
    let changed = String::from_utf8(signed.clone()).unwrap().replace("Origin: Test", "Origin: Best");
    let error = verify(changed.as_bytes(), &keyring, &expectation()).unwrap_err();
    assert!(matches!(error, ReleaseError::Tampered { .. }), "{error}");
    let unsigned = String::from_utf8(signed).unwrap();
    let error = verify(format!("Suite: x\n\n{unsigned}").as_bytes(), &keyring, &expectation()).unwrap_err();
    assert!(matches!(error, ReleaseError::Form { .. }), "{error}");
    let error =
        verify(text(&Release::new("trixie", &key, "")).as_bytes(), &keyring, &expectation()).unwrap_err();
    assert!(matches!(error, ReleaseError::Form { .. }), "{error}");
}

#[test]
fn dash_escapes_are_undone() {
    let key = key(3650);
    let text = text(&Release::new("trixie", &key, "")).replace("Origin: Test", "-Origin: Test");
    let signed = sign(&[&key], &text, DATE, HashAlgorithm::SHA256);
    assert!(
        String::from_utf8_lossy(&signed).contains("\n- -Origin")
            || String::from_utf8_lossy(&signed).contains("- -Origin")
    );
    verify(&signed, &Keyring::read(&public(&key)).unwrap(), &expectation()).unwrap();
}

#[test]
fn dates_and_suites_are_held_to() {
    let key = key(3650);
    let keyring = Keyring::read(&public(&key)).unwrap();
    let signed = sign(&[&key], &text(&Release::new("trixie", &key, "")), DATE, HashAlgorithm::SHA256);
    let late = Expectation { now: DATE + 8 * DAY, ..expectation() };
    let error = verify(&signed, &keyring, &late).unwrap_err();
    assert!(matches!(error, ReleaseError::Expired { .. }), "{error}");
    let message = chain(&error);
    assert!(message.contains("2026-06-08T00:00:00Z") && message.contains("allow_expired"), "{message}");
    verify(&signed, &keyring, &Expectation { allow_expired: true, ..late }).unwrap();

    let error =
        verify(&signed, &keyring, &Expectation { suite: Some("forky"), ..expectation() }).unwrap_err();
    assert!(matches!(error, ReleaseError::OtherSuite { .. }), "{error}");
    verify(&signed, &keyring, &Expectation { suite: Some("stable"), ..expectation() }).unwrap();

    let early = Release { date: NOW + DAY, ..Release::new("trixie", &key, "") };
    let signed = sign(&[&key], &text(&early), DATE, HashAlgorithm::SHA256);
    let error = verify(&signed, &keyring, &expectation()).unwrap_err();
    assert!(matches!(error, ReleaseError::Future { .. }), "{error}");
}

#[test]
fn a_file_that_is_no_keyring_is_refused() {
    assert!(Keyring::read(b"").is_err());
    assert!(Keyring::read(b"hello").is_err());
}
