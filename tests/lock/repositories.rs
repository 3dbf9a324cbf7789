//! Archives as tools other than Debian's make them: reprepro, aptly, dpkg-scanpackages, Nexus, object stores.

use std::collections::BTreeMap;
use std::io::Write;

use keller::base::Digest;
use keller::lock::Lock;
use keller::source::debian::checksum::Sha512;
use keller::source::debian::release::Keyring;
use sequoia_openpgp::Cert;
use sequoia_openpgp::types::HashAlgorithm;

use super::{World, chain, manifest};
use crate::repository::{DATE, Release, archive, archives, key, public, sign, sign_beside};

const ROOT: &str = "https://packages.example/apt";

/// An archive with one suite, `stable`, of which a test changes what it likes.
struct Repository {
    key: Cert,
    /// Files beside the release, by path.
    indexes: BTreeMap<String, Vec<u8>>,
    /// Text of the release.
    text: String,
    world: World,
}

impl Repository {
    fn new(packages: &str) -> Self {
        Self::with(packages, "main/binary-amd64/Packages", <[u8]>::to_vec)
    }

    /// With its index under `path`, made from the plain one by `form`.
    fn with(packages: &str, path: &str, form: impl Fn(&[u8]) -> Vec<u8>) -> Self {
        let key = key(3650);
        let release = Release { by_hash: false, ..Release::new("stable", &key, packages) };
        let indexes = BTreeMap::from([(path.to_owned(), form(release.index().as_bytes()))]);
        let text = release.text(&indexes);
        Self { key, indexes, text, world: World::new("", "") }
    }

    fn reindexed(packages: &str, change: impl Fn(String) -> String) -> Self {
        let change = |plain: &[u8]| change(String::from_utf8(plain.to_vec()).unwrap()).into_bytes();
        Self::with(packages, "main/binary-amd64/Packages", change)
    }

    /// Puts it on the server with these files beside the indexes.
    fn serve(&mut self, signed: &[(&str, Vec<u8>)]) {
        let folder = format!("{ROOT}/dists/stable");
        for (path, bytes) in &self.indexes {
            self.world.server.files.insert(format!("{folder}/{path}"), bytes.clone());
        }
        for (name, bytes) in signed {
            self.world.server.files.insert(format!("{folder}/{name}"), bytes.clone());
        }
        self.world.archives = archives(vec![archive("own", ROOT, &self.key, &["stable"])]);
    }

    fn resolve(&self, package: &str) -> Result<Lock, String> {
        self.world.resolve(&manifest(&[package], &[])).map_err(|error| chain(&error))
    }

    /// Served with an InRelease.
    fn inline(mut self) -> Self {
        let signed = sign(&[&self.key], &self.text, DATE, HashAlgorithm::SHA256);
        self.serve(&[("InRelease", signed)]);
        self
    }
}

const APP: &str = "Package: app\nVersion: 1.0\n";

#[test]
fn the_signature_may_lie_beside_the_release() {
    for text in [|text: &str| text.to_owned(), |text: &str| text.replace('\n', "\r\n")] {
        let mut repository = Repository::new(APP);
        let text = text(&repository.text);
        let beside = sign_beside(&repository.key, text.as_bytes(), DATE, true);
        let binary = sign_beside(&repository.key, text.as_bytes(), DATE, false);
        for signature in [beside, binary] {
            repository.serve(&[("Release", text.clone().into_bytes()), ("Release.gpg", signature)]);
            let lock = repository.resolve("app").unwrap();
            let release = &lock.provenance.releases["own stable"];
            assert_eq!(release.sha256, Digest::of(&text));
            assert_eq!(release.signed_by, [repository.key.fingerprint().to_hex()]);
        }
    }
}

#[test]
fn a_signature_beside_is_as_strict_as_one_within() {
    let served = |text: &str, signature: Option<Vec<u8>>| {
        let mut repository = Repository::new(APP);
        let text = text.replace("TEXT", &repository.text).into_bytes();
        let by_itself = sign_beside(&repository.key, repository.text.as_bytes(), DATE, true);
        let mut files = vec![("Release", text)];
        match signature {
            None => files.push(("Release.gpg", by_itself)),
            Some(other) if other.is_empty() => {}
            Some(other) => files.push(("Release.gpg", other)),
        }
        repository.serve(&files);
        repository.resolve("app").unwrap_err()
    };
    let release = "verifying https://packages.example/apt/dists/stable/Release: ";
    let changed = served("TEXT\nOrigin2: x\n", None);
    assert!(changed.starts_with(&format!("{release}changed after it was signed")), "{changed}");
    let stranger = served("TEXT", Some(sign_beside(&key(3650), b"x", DATE, true)));
    assert!(stranger.starts_with(&format!("{release}signed by unknown key")), "{stranger}");
    let nonsense = served("TEXT", Some(b"<html>".to_vec()));
    assert!(
        nonsense.starts_with(&format!("{release}Release.gpg beside it holds no OpenPGP signature")),
        "{nonsense}"
    );
    let unsigned = served("TEXT", Some(Vec::new()));
    assert!(
        unsigned.contains("dists/stable/Release is there, but neither InRelease nor Release.gpg beside it")
            && unsigned.contains("gpg --clearsign"),
        "{unsigned}"
    );
}

#[test]
fn a_bad_inrelease_is_not_passed_over() {
    let mut repository = Repository::new(APP);
    let beside = sign_beside(&repository.key, repository.text.as_bytes(), DATE, true);
    let text = repository.text.clone().into_bytes();
    repository.serve(&[("InRelease", b"<html>".to_vec()), ("Release", text), ("Release.gpg", beside)]);
    let told = repository.resolve("app").unwrap_err();
    assert!(told.contains("InRelease: expected one cleartext-signed message"), "{told}");
}

#[test]
fn what_is_missing_is_told_in_statements() {
    let mut repository = Repository::new(APP);
    repository.serve(&[]);
    let told = repository.resolve("app").unwrap_err();
    assert_eq!(
        told,
        "asking archive own for suite stable: there is no https://packages.example/apt/dists/stable/InRelease, nor \
         a Release beside it: the mirror does not carry this suite, or its URL does not stop before `dists`"
    );
    repository.world.server.forbids = true;
    let told = repository.resolve("app").unwrap_err();
    assert!(
        told.contains("does not stop before `dists` (the server says 403: object stores do so"),
        "{told}"
    );
    repository.world.archives = archives(vec![archive("own", ROOT, &repository.key, &["./"])]);
    let told = repository.resolve("app").unwrap_err();
    assert!(told.contains("`url` and `suite` together name the directory that has InRelease"), "{told}");
}

#[test]
fn an_object_store_says_403_of_what_is_missing() {
    // Neither InRelease nor by-hash nor the smaller form of the index is there.
    let mut repository = Repository::new(APP);
    let listed = format!(" {} 3 main/binary-amd64/Packages.xz\n", Digest::of("abc"));
    let text = repository.text.replace("Codename", "Acquire-By-Hash: yes\nCodename") + &listed;
    let beside = sign_beside(&repository.key, text.as_bytes(), DATE, true);
    repository.serve(&[("Release", text.into_bytes()), ("Release.gpg", beside)]);
    repository.world.server.forbids = true;
    assert_eq!(repository.resolve("app").unwrap().packages["app"].version, "1.0");
    repository.world.server.kept.lock().unwrap().clear();
    repository.world.server.files.retain(|url, _| !url.ends_with("Packages"));
    let told = repository.resolve("app").unwrap_err();
    assert!(told.contains("Packages: the server says 403: credentials go into a line"), "{told}");
}

#[test]
fn digests_of_the_release_may_be_sha512() {
    for by_hash in [false, true] {
        let mut repository = Repository::new(APP);
        let index = repository.indexes["main/binary-amd64/Packages"].clone();
        let sha512 = Sha512::of(&index);
        repository.text = repository
            .text
            .replace("SHA256:", "SHA512:")
            .replace(&Digest::of(&index).to_string(), &sha512.to_string());
        if by_hash {
            repository.text = repository.text.replace("SHA512:", "Acquire-By-Hash: yes\nSHA512:");
            repository.indexes =
                BTreeMap::from([(format!("main/binary-amd64/by-hash/SHA512/{sha512}"), index)]);
        }
        let mut repository = repository.inline();
        assert_eq!(repository.resolve("app").unwrap().packages["app"].version, "1.0");
        repository.world.server.kept.lock().unwrap().clear();
        for (url, bytes) in &mut repository.world.server.files {
            if url.contains("binary-amd64") {
                bytes.extend(b"\n");
            }
        }
        let told = repository.resolve("app").unwrap_err();
        assert!(told.contains(&format!("not what the signed release lists: expected {sha512}")), "{told}");
    }
    let mut weak = Repository::new(APP);
    weak.text = weak.text.replace("SHA256:", "MD5Sum:");
    let told = weak.inline().resolve("app").unwrap_err();
    assert!(told.contains("lists files by MD5Sum only, which can be forged"), "{told}");
}

#[test]
fn indexes_in_every_form() {
    fn xz(bytes: &[u8]) -> Vec<u8> {
        crate::deb::xz(bytes)
    }
    fn lzma(bytes: &[u8]) -> Vec<u8> {
        crate::deb::lzma(bytes)
    }
    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Default::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }
    fn zstd(bytes: &[u8]) -> Vec<u8> {
        ::zstd::encode_all(bytes, 1).unwrap()
    }
    let forms: [(&str, fn(&[u8]) -> Vec<u8>); 6] = [
        ("", <[u8]>::to_vec),
        (".xz", xz),
        (".gz", gzip),
        (".zst", zstd),
        (".bz2", crate::deb::bzip2),
        (".lzma", lzma),
    ];
    for (ending, form) in forms {
        let repository = Repository::with(APP, &format!("main/binary-amd64/Packages{ending}"), form).inline();
        assert_eq!(repository.resolve("app").unwrap().packages["app"].version, "1.0", "{ending}");
    }
    // An archive that has nothing but scripts, with or without a word about it.
    for architectures in ["all", "amd64"] {
        let mut repository = Repository::with(APP, "main/binary-all/Packages.gz", gzip);
        repository.text =
            repository.text.replace("Architectures: amd64", &format!("Architectures: {architectures}"));
        repository.inline().resolve("app").unwrap();
    }
    let other = Repository::with(APP, "main/binary-amd64/Packages.lz4", <[u8]>::to_vec).inline();
    let told = other.resolve("app").unwrap_err();
    assert!(told.contains("no component main for amd64"), "{told}");
}

#[test]
fn file_names_with_a_leading_slash() {
    for (from, path) in [("/pool/", "pool/"), ("./pool/", "pool/"), ("pool//x/", "pool/x/"), (".//", "")] {
        let repository = Repository::reindexed(APP, |index| index.replace("pool/", from)).inline();
        let lock = repository.resolve("app").unwrap();
        assert_eq!(lock.packages["app"].path, format!("{path}app_1.0_amd64.deb"));
        let url = repository.world.archives.urls("own", &lock.packages["app"].path).unwrap().remove(0);
        assert_eq!(url.to_string(), format!("{ROOT}/{path}app_1.0_amd64.deb"));
    }
}

/// `app` and `bad`, whose paragraph is changed.
fn beside_a_bad_one(from: &'static str, to: &'static str) -> Repository {
    let packages = "Package: app\nVersion: 1.0\n\nPackage: bad\nVersion: 2.0\n\nPackage: bad\nVersion: 1.5\n";
    let change = move |index: String| {
        let paragraphs = index.split("\n\n").map(|paragraph| match paragraph.contains("Version: 2.0") {
            true => paragraph.replace(from, to),
            false => paragraph.to_owned(),
        });
        paragraphs.collect::<Vec<_>>().join("\n\n")
    };
    Repository::reindexed(packages, change).inline()
}

#[test]
fn a_paragraph_that_nobody_asks_for_is_no_matter() {
    for (from, to, reason) in [
        ("SHA256", "MD5sum", "it has neither a SHA256 nor a SHA512"),
        ("Filename: pool", "Filename: ../pool", "its Filename leads out of the archive"),
        ("Filename: pool", "Filename: /../pool", "its Filename leads out of the archive"),
        ("Size: ", "Size: about ", "it has no proper Size"),
        ("Size: ", "Size ", "is not `field: value`"),
    ] {
        let repository = beside_a_bad_one(from, to);
        assert_eq!(repository.resolve("app").unwrap().packages["app"].version, "1.0");
        let told = repository.resolve("bad").unwrap_err();
        assert!(told.starts_with("bad 2.0 of archive own cannot be used, since in its index "), "{told}");
        assert!(told.contains(reason) && told.ends_with("; `bad=1.5` asks for a version that can"), "{told}");
        assert_eq!(repository.resolve("bad=1.5").unwrap().packages["bad"].version, "1.5");
    }
    // Without a version it does not even exist.
    let repository = beside_a_bad_one("Version: 2.0", "Version:");
    assert_eq!(repository.resolve("bad").unwrap().packages["bad"].version, "1.5");
}

#[test]
fn another_archive_may_have_what_can_be_used() {
    let mut repository = beside_a_bad_one("SHA256", "SHA1");
    let other =
        Release { by_hash: false, ..Release::new("stable", &repository.key, "Package: bad\nVersion: 2.0\n") };
    repository.world.server.publish("https://other.example", &other);
    let key = &repository.key;
    repository.world.archives = archives(vec![
        archive("own", ROOT, key, &["stable"]),
        archive("other", "https://other.example", key, &["stable"]),
    ]);
    assert_eq!(repository.resolve("bad").unwrap().packages["bad"].archive, "other");
}

#[test]
fn a_package_with_a_sha512_only() {
    let (deb, url) = (b"the file".to_vec(), format!("{ROOT}/pool/app_1.0_amd64.deb"));
    let sha512 = Sha512::of(&deb).to_string();
    let size = deb.len();
    let mut repository = Repository::reindexed(APP, |index| {
        let digest = index.split_once("SHA256: ").unwrap().1.trim().to_owned();
        let listed = index.split_once("Size: ").unwrap().1.split_once('\n').unwrap().0.to_owned();
        index
            .replace("SHA256: ", "SHA512: ")
            .replace(&digest, &sha512)
            .replace(&format!("Size: {listed}"), &format!("Size: {size}"))
    })
    .inline();
    let told = repository.resolve("app").unwrap_err();
    assert!(
        told.starts_with(
            "fetching app 1.0 of archive own, whose SHA-256 its index does not have: there is no"
        ),
        "{told}"
    );
    repository.world.server.files.insert(url.clone(), b"another!".to_vec());
    let told = repository.resolve("app").unwrap_err();
    assert!(told.starts_with("app 1.0 of archive own is not what its index lists: expected "), "{told}");
    repository.world.server.files.insert(url.clone(), deb.clone());
    assert_eq!(repository.resolve("app").unwrap().packages["app"].sha256, Digest::of(&deb));
    // What was found out is remembered.
    repository.world.server.files.remove(&url);
    assert_eq!(repository.resolve("app").unwrap().packages["app"].sha256, Digest::of(&deb));
}

#[test]
fn keys_in_a_row_and_one_that_cannot_be_read() {
    let (one, two) = (key(3650), key(3650));
    let both = Keyring::read(&[public(&one), b"\n# the second\n".to_vec(), public(&two)].concat()).unwrap();
    assert_eq!(both.fingerprints(), [&one, &two].map(|cert| cert.fingerprint().to_hex()));
    let broken = String::from_utf8(public(&two)).unwrap().replacen("\n\n", "\n\nAAAA", 1).into_bytes();
    let left = Keyring::read(&[public(&one), broken.clone()].concat()).unwrap();
    assert_eq!(left.fingerprints(), [one.fingerprint().to_hex()]);
    assert!(Keyring::read(&broken).is_err());
}
