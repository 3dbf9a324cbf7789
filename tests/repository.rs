//! A small Debian archive, made and signed on the spot, in memory.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use keller::base::{Digest, Progress};
use keller::http::url::Url;
use keller::lock::archives::{Archive, Archives, Suite};
use keller::source::debian::checksum::Sha512;
use keller::source::debian::release::Keyring;
use keller::source::debian::upstream::{Received, Upstream, UpstreamError};
use keller::source::mirror::list::Mirror;
use sequoia_openpgp as openpgp;

use openpgp::Cert;
use openpgp::cert::{CertBuilder, CertRevocationBuilder};
use openpgp::packet::prelude::*;
use openpgp::serialize::SerializeInto;
use openpgp::serialize::stream::{Armorer, Message, Signer};
use openpgp::types::{HashAlgorithm, KeyFlags, ReasonForRevocation};

/// Mon, 01 Jun 2026 00:00:00 UTC: the Date of releases, in seconds since 1970.
pub const DATE: i64 = 1_780_272_000;
/// Seconds.
pub const DAY: i64 = 86_400;

fn time(seconds: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.unsigned_abs())
}

/// A certificate that signs, made a year before [`DATE`] and living for `days`.
pub fn key(days: i64) -> Cert {
    let (cert, _) = CertBuilder::new()
        .set_creation_time(time(DATE - 365 * DAY))
        .set_validity_period(Duration::from_secs((days * DAY).unsigned_abs()))
        .set_primary_key_flags(KeyFlags::empty().set_signing())
        .add_userid("archive of a test")
        .generate()
        .unwrap();
    cert
}

/// The certificate with a revocation by its owner.
pub fn revoked(cert: &Cert) -> Cert {
    let mut signer = cert.primary_key().key().clone().parts_into_secret().unwrap().into_keypair().unwrap();
    let revocation = CertRevocationBuilder::new()
        .set_signature_creation_time(time(DATE - DAY))
        .unwrap()
        .set_reason_for_revocation(ReasonForRevocation::KeyCompromised, b"lost")
        .unwrap()
        .build(&mut signer, cert, HashAlgorithm::SHA256)
        .unwrap();
    cert.clone().insert_packets([Packet::from(revocation)]).unwrap().0
}

/// `text` with cleartext signatures made at `at`.
pub fn sign(certs: &[&Cert], text: &str, at: i64, digest: HashAlgorithm) -> Vec<u8> {
    let mut keypairs = certs
        .iter()
        .map(|cert| cert.primary_key().key().clone().parts_into_secret().unwrap().into_keypair().unwrap());
    let mut out = Vec::new();
    let first = Signer::new(Message::new(&mut out), keypairs.next().unwrap()).unwrap();
    let mut message = keypairs
        .fold(first, |signer, keypair| signer.add_signer(keypair).unwrap())
        .hash_algo(digest)
        .unwrap()
        .creation_time(time(at))
        .cleartext()
        .build()
        .unwrap();
    message.write_all(text.as_bytes()).unwrap();
    message.finalize().unwrap();
    out
}

/// A signature over `bytes` by itself, made at `at`, as the content of Release.gpg.
pub fn sign_beside(cert: &Cert, bytes: &[u8], at: i64, armored: bool) -> Vec<u8> {
    let keypair = cert.primary_key().key().clone().parts_into_secret().unwrap().into_keypair().unwrap();
    let mut out = Vec::new();
    let message = Message::new(&mut out);
    let message = match armored {
        true => Armorer::new(message).kind(openpgp::armor::Kind::Signature).build().unwrap(),
        false => message,
    };
    let signer = Signer::new(message, keypair).unwrap().creation_time(time(at));
    let mut message = signer.hash_algo(HashAlgorithm::SHA256).unwrap().detached().build().unwrap();
    message.write_all(bytes).unwrap();
    message.finalize().unwrap();
    out
}

/// The public half as a file.
pub fn public(cert: &Cert) -> Vec<u8> {
    cert.armored().to_vec().unwrap()
}

/// A suite of an archive, with what a test may want to have different.
pub struct Release {
    pub suite: String,
    pub codename: String,
    pub date: i64,
    pub valid_until: Option<i64>,
    pub by_hash: bool,
    pub key: Cert,
    /// One package a paragraph: `Package: …\nVersion: …`; the rest is filled in.
    pub packages: String,
}

impl Release {
    pub fn new(codename: &str, key: &Cert, packages: &str) -> Self {
        Self {
            suite: codename.replace("trixie", "stable"),
            codename: codename.to_owned(),
            date: DATE,
            valid_until: Some(DATE + 7 * DAY),
            by_hash: true,
            key: key.clone(),
            packages: packages.to_owned(),
        }
    }

    /// The index, with architecture, path, size and digest for each package.
    pub fn index(&self) -> String {
        let paragraphs = self.packages.split("\n\n").map(str::trim).filter(|paragraph| !paragraph.is_empty());
        paragraphs
            .map(|paragraph| {
                let field = |name: &str| {
                    paragraph
                        .lines()
                        .find_map(|line| line.strip_prefix(name))
                        .unwrap_or_else(|| panic!("{paragraph}"))
                };
                let file = format!("{}_{}_amd64.deb", field("Package: "), field("Version: "));
                let digest = Digest::of(format!("{file} of {}", self.codename));
                format!(
                    "{paragraph}\nArchitecture: amd64\nFilename: pool/{file}\nSize: {}\nSHA256: {digest}\n\n",
                    1000 + paragraph.len()
                )
            })
            .collect()
    }

    /// The text of the release, listing `files`.
    pub fn text(&self, files: &BTreeMap<String, Vec<u8>>) -> String {
        let date = |at: i64| {
            let text = jiff::fmt::rfc2822::to_string(
                &jiff::Timestamp::from_second(at).unwrap().in_tz("UTC").unwrap(),
            );
            text.unwrap().replace("+0000", "UTC")
        };
        let mut text = format!(
            "Origin: Test\nSuite: {}\nCodename: {}\nDate: {}\n",
            self.suite,
            self.codename,
            date(self.date)
        );
        if let Some(until) = self.valid_until {
            text += &format!("Valid-Until: {}\n", date(until));
        }
        if self.by_hash {
            text += "Acquire-By-Hash: yes\n";
        }
        text += "Architectures: amd64\nComponents: main\nDescription: a\n folded line\nSHA256:\n";
        for (path, bytes) in files {
            text += &format!(" {} {} {path}\n", Digest::of(bytes), bytes.len());
        }
        text
    }
}

/// Files by address. Counts how often each was asked for.
#[derive(Default)]
pub struct Server {
    pub files: BTreeMap<String, Vec<u8>>,
    pub kept: Mutex<BTreeMap<Digest, Vec<u8>>>,
    pub asked: Mutex<Vec<String>>,
    /// Says 403 of what is missing.
    pub forbids: bool,
}

impl Server {
    /// Adds a suite with its index, compressed by xz, below `root`.
    pub fn publish(&mut self, root: &str, release: &Release) {
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(release.index().as_bytes()).unwrap();
        let path = "main/binary-amd64/Packages.xz";
        let files = BTreeMap::from([(path.to_owned(), xz.finish().unwrap())]);
        let folder = format!("{root}/dists/{}", release.codename);
        let signed = sign(&[&release.key], &release.text(&files), release.date, HashAlgorithm::SHA256);
        self.files.insert(format!("{folder}/InRelease"), signed);
        let bytes = files[path].clone();
        let address = match release.by_hash {
            true => format!("{folder}/main/binary-amd64/by-hash/SHA256/{}", Digest::of(&bytes)),
            false => format!("{folder}/{path}"),
        };
        self.files.insert(address, bytes);
    }
}

impl Upstream for Server {
    fn get(&self, url: &Url, _: Option<(Digest, u64)>, _: &dyn Progress) -> Result<Vec<u8>, UpstreamError> {
        self.asked.lock().unwrap().push(url.to_string());
        let missing = || UpstreamError::NotFound { url: url.clone(), forbidden: self.forbids };
        self.files.get(&url.to_string()).cloned().ok_or_else(missing)
    }

    fn receive(&self, url: &Url, _: u64, progress: &dyn Progress) -> Result<Received, UpstreamError> {
        let bytes = self.get(url, None, progress)?;
        let (sha256, sha512) = (Digest::of(&bytes), Sha512::of(&bytes));
        Ok(Received { sha256, sha512, size: bytes.len() as u64 })
    }

    fn recall(&self, key: &Digest) -> Option<Vec<u8>> {
        self.kept.lock().unwrap().get(key).cloned()
    }

    fn keep(&self, key: &Digest, bytes: &[u8]) {
        self.kept.lock().unwrap().insert(*key, bytes.to_vec());
    }
}

/// An archive with these suites, trusting `key`.
pub fn archive(name: &str, root: &str, key: &Cert, suites: &[&str]) -> Archive {
    Archive {
        name: name.to_owned(),
        mirrors: vec![Mirror::new(Url::root(root).unwrap())],
        keyring: Keyring::read(&public(key)).unwrap(),
        suites: suites
            .iter()
            .map(|suite| Suite { name: (*suite).to_owned(), components: vec!["main".to_owned()] })
            .collect(),
    }
}

/// Only these archives.
pub fn archives(list: Vec<Archive>) -> Archives {
    Archives(list)
}
