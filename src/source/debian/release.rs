//! Releases of archives, InRelease or Release with Release.gpg: who signed them, when, and what they list.
//!
//! Sources: RFC 9580 section 7 (cleartext signatures) and 10.4 (detached signatures), the repository format of
//! Debian's wiki (DebianRepository/Format), apt-secure(8). Nothing but the signed text is looked at; an InRelease
//! with text around it is refused.

pub mod ask;
mod text;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use sequoia_openpgp as openpgp;

use openpgp::Cert;
use openpgp::KeyHandle;
use openpgp::cert::CertParser;
use openpgp::cert::amalgamation::ValidAmalgamation;
use openpgp::parse::Parse;
use openpgp::parse::stream::{
    DetachedVerifierBuilder, GoodChecksum, MessageLayer, MessageStructure, VerificationError,
    VerificationHelper, VerifierBuilder,
};
use openpgp::policy::StandardPolicy;
use openpgp::types::{HashAlgorithm, RevocationStatus};

use super::checksum::Checksum;
use crate::base::{Digest, input, limits};

/// Seconds by which a release's Date may lie ahead of our clock: clocks of build hosts drift.
const FUTURE_TOLERANCE: i64 = 600;

/// The certificates that an archive's releases may be signed by.
#[derive(Clone, Debug)]
pub struct Keyring {
    certificates: Vec<Cert>,
}

/// Why a file is of no use as a keyring.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// It holds no certificate.
    #[error("there is no OpenPGP certificate in it")]
    Empty,
    /// It is not OpenPGP.
    #[error("reading OpenPGP certificates")]
    Corrupt(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Keyring {
    /// Debian's own keys for trixie; keys/README.md says where they come from.
    pub fn debian() -> Self {
        let files: [&[u8]; 3] = [
            include_bytes!("keys/debian-archive-trixie-automatic.asc"),
            include_bytes!("keys/debian-archive-trixie-security-automatic.asc"),
            include_bytes!("keys/debian-archive-trixie-stable.asc"),
        ];
        let certificates = files.iter().map(|bytes| Cert::from_bytes(*bytes).expect("shipped key")).collect();
        Self { certificates }
    }

    /// Reads certificates, armored or binary, one or more; of armored ones also several blocks in a row, as `cat`
    /// makes them. One that cannot be read, of an old version perhaps, does not spoil the others.
    pub fn read(bytes: &[u8]) -> Result<Self, KeyringError> {
        let mut certificates = Vec::new();
        let mut fault = None;
        for block in blocks(bytes) {
            match CertParser::from_bytes(block) {
                Ok(parser) => parser.for_each(|certificate| match certificate {
                    Ok(certificate) => certificates.push(certificate),
                    Err(error) => fault = Some(error),
                }),
                Err(error) => fault = Some(error),
            }
        }
        match fault {
            _ if !certificates.is_empty() => Ok(Self { certificates }),
            Some(error) => Err(KeyringError::Corrupt(error.into())),
            None => Err(KeyringError::Empty),
        }
    }

    /// Fingerprints of the certificates, in capitals, in the order of the file.
    pub fn fingerprints(&self) -> Vec<String> {
        self.certificates.iter().map(|certificate| certificate.fingerprint().to_hex()).collect()
    }
}

/// The armored blocks of a file, or all of it where there are none: OpenPGP's reader stops after the first.
fn blocks(bytes: &[u8]) -> Vec<&[u8]> {
    const BEGIN: &[u8] = b"-----BEGIN PGP PUBLIC KEY BLOCK-----";
    let starts: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(BEGIN)).collect();
    if starts.is_empty() {
        return vec![bytes];
    }
    let ends = starts.iter().skip(1).copied().chain([bytes.len()]);
    starts.iter().zip(ends).map(|(start, end)| &bytes[*start..end]).collect()
}

/// What a release is held to.
#[derive(Clone, Copy, Debug)]
pub struct Expectation<'a> {
    /// Suite or codename that was asked for; none for a flat archive, which has no suites.
    pub suite: Option<&'a str>,
    /// The time at which dates and keys are judged, in seconds since 1970.
    pub now: i64,
    /// Whether a release past its Valid-Until will do.
    pub allow_expired: bool,
}

/// A release that was signed by a key of the keyring and met the expectation.
#[derive(Clone, Debug, PartialEq)]
pub struct Release {
    /// Of the InRelease file, or of the Release file where its signature lies beside it.
    pub sha256: Digest,
    /// Seconds since 1970.
    pub date: i64,
    /// Seconds since 1970.
    pub valid_until: Option<i64>,
    /// Whether files can be had by their digest, so that an update of the mirror does not come between.
    pub by_hash: bool,
    /// Whether packages for all architectures stand in an index of their own.
    pub separate_all: bool,
    /// As listed, without the `updates/` that security archives put before them.
    pub components: Vec<String>,
    /// Fingerprints of the certificates whose signature was found good, sorted.
    pub signed_by: Vec<String>,
    /// Digest and size in bytes of each file, by path relative to the release.
    pub files: BTreeMap<String, (Checksum, u64)>,
}

/// Why a release is refused.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// Signed, but by nobody whom the keyring knows.
    #[error("signed by unknown key {}, but the archive's keys are {}", .keys.join(", "), .known.join(", "))]
    UnknownKey {
        /// Fingerprints or key ids that the signatures name.
        keys: Vec<String>,
        /// Fingerprints of the keyring.
        known: Vec<String>,
    },
    /// The key's life has ended.
    #[error("signed by key {key}, which expired{}", .since.map(|at| format!(" on {}", shown(at))).unwrap_or_default())]
    ExpiredKey {
        /// Fingerprint of the certificate.
        key: String,
        /// Seconds since 1970.
        since: Option<i64>,
    },
    /// The key's owner or certificate says that it must not be trusted.
    #[error("signed by key {key}, which was revoked")]
    RevokedKey {
        /// Fingerprint of the certificate.
        key: String,
    },
    /// The key is not for signing, is not yet valid, or uses algorithms that are held broken.
    #[error("signed by key {key}, which may not sign releases: {reason}")]
    UnfitKey {
        /// Fingerprint of the certificate.
        key: String,
        /// In OpenPGP's words.
        reason: String,
    },
    /// A digest that can be forged.
    #[error(
        "signed by key {key} over a {algorithm} digest, which can be forged; SHA-256 or better is wanted"
    )]
    WeakDigest {
        /// Fingerprint of the certificate.
        key: String,
        /// The digest's name.
        algorithm: String,
    },
    /// The text is not what was signed.
    #[error("changed after it was signed: the signature of key {key} does not match the text")]
    Tampered {
        /// Fingerprint of the certificate.
        key: String,
    },
    /// There is no signature.
    #[error("not signed")]
    Unsigned,
    /// Not a cleartext-signed file, or one with text outside of the signed part.
    #[error("expected one cleartext-signed message and nothing around it: {reason}")]
    Form {
        /// What stands there instead.
        reason: String,
    },
    /// A Release file that is not text, such as a page in another encoding.
    #[error("it is not UTF-8 text")]
    NotText,
    /// Release.gpg holds no signature.
    #[error("Release.gpg beside it holds no OpenPGP signature: {reason}")]
    Signature {
        /// In OpenPGP's words.
        reason: String,
    },
    /// Nothing but digests that can be forged.
    #[error(
        "the signed text lists files by {} only, which can be forged; the archive has to be made anew with SHA256",
        .kinds.join(" and ")
    )]
    WeakList {
        /// Fields of the text.
        kinds: Vec<&'static str>,
    },
    /// The signed text is not a release.
    #[error("line {line} of the signed text: {reason}")]
    Corrupt {
        /// From 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A field without which nothing can be judged.
    #[error("the signed text has no {field}")]
    Missing {
        /// The field's name.
        field: &'static str,
    },
    /// Genuine, but of another suite.
    #[error("asked for suite {asked}, but it is of suite {suite}, codename {codename}")]
    OtherSuite {
        /// As in the manifest.
        asked: String,
        /// `-` where absent.
        suite: String,
        /// `-` where absent.
        codename: String,
    },
    /// Genuine, but older than its maker wants it to be used.
    #[error(
        "it was valid until {}, and now is {}: the mirror is stale, or somebody holds back updates; \
         `debian: {{allow_expired: true}}` in the manifest allows it",
        shown(*.valid_until), shown(*.now)
    )]
    Expired {
        /// Seconds since 1970.
        valid_until: i64,
        /// Seconds since 1970.
        now: i64,
    },
    /// Made in what is the future here.
    #[error("it was made on {}, but now is {}: this machine's clock is behind", shown(*.date), shown(*.now))]
    Future {
        /// Seconds since 1970.
        date: i64,
        /// Seconds since 1970.
        now: i64,
    },
}

/// A time for messages.
fn shown(seconds: i64) -> String {
    Timestamp::from_second(seconds).map_or_else(|_| format!("@{seconds}"), |time| time.to_string())
}

fn system_time(seconds: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.max(0).unsigned_abs())
}

fn unix_time(time: SystemTime) -> Option<i64> {
    time.duration_since(SystemTime::UNIX_EPOCH).ok().and_then(|since| since.as_secs().try_into().ok())
}

/// Verifies the InRelease file `bytes` and reads its signed text.
pub fn verify(
    bytes: &[u8],
    keyring: &Keyring,
    expectation: &Expectation<'_>,
) -> Result<Release, ReleaseError> {
    check_form(bytes)?;
    let (text, signed_by) = signed_text(bytes, keyring, expectation.now)?;
    judge(bytes, &text, signed_by, expectation)
}

/// Verifies the Release file `bytes` by `signature`, the content of Release.gpg, and reads it.
pub fn verify_detached(
    bytes: &[u8],
    signature: &[u8],
    keyring: &Keyring,
    expectation: &Expectation<'_>,
) -> Result<Release, ReleaseError> {
    let text = str::from_utf8(bytes).map_err(|_| ReleaseError::NotText)?;
    if signature.len() > limits::SIGNATURES {
        let reason = format!("it has more than {} bytes", limits::SIGNATURES);
        return Err(ReleaseError::Signature { reason });
    }
    let signed_by = signers(bytes, signature, keyring, expectation.now)?;
    judge(bytes, text, signed_by, expectation)
}

/// Reads the signed `text` of the file `bytes` and holds it to `expectation`.
fn judge(
    bytes: &[u8],
    text: &str,
    signed_by: Vec<String>,
    expectation: &Expectation<'_>,
) -> Result<Release, ReleaseError> {
    let mut release = text::parse(text, expectation.suite)?;
    release.sha256 = Digest::of(bytes);
    release.signed_by = signed_by;
    if release.date > expectation.now + FUTURE_TOLERANCE {
        return Err(ReleaseError::Future { date: release.date, now: expectation.now });
    }
    match release.valid_until {
        Some(valid_until) if valid_until < expectation.now && !expectation.allow_expired => {
            Err(ReleaseError::Expired { valid_until, now: expectation.now })
        }
        _ => Ok(release),
    }
}

/// Refuses whatever stands around the signed message: other readers might take it for signed.
fn check_form(bytes: &[u8]) -> Result<(), ReleaseError> {
    const BEGIN: &str = "-----BEGIN PGP SIGNED MESSAGE-----";
    const SIGNATURE: &str = "-----BEGIN PGP SIGNATURE-----";
    const END: &str = "-----END PGP SIGNATURE-----";
    let refuse = |reason: &str| Err(ReleaseError::Form { reason: reason.to_owned() });
    let Ok(text) = std::str::from_utf8(bytes) else { return refuse("it is not UTF-8 text") };
    // A line of the text that begins with a dash has another one before it (RFC 9580, 7.2).
    let signature = text.lines().find(|line| line.trim_end() == SIGNATURE);
    let signatures = signature.map_or(0, |line| text.len() - (line.as_ptr().addr() - text.as_ptr().addr()));
    if signatures > limits::SIGNATURES {
        return refuse(&format!("it has signatures of more than {} bytes", limits::SIGNATURES));
    }
    let mut lines = text.lines().map(str::trim_end);
    if lines.next() != Some(BEGIN) {
        return refuse("it does not begin with a signed message");
    }
    for header in lines.by_ref().take_while(|line| !line.is_empty()) {
        if !header.starts_with("Hash: ") {
            return refuse("it has unsigned lines before the signed text");
        }
    }
    if lines.by_ref().take_while(|line| *line != END).any(|line| line == BEGIN) {
        return refuse("it has two signed messages");
    }
    if !text.lines().any(|line| line.trim_end() == END) {
        return refuse("it is cut off before the end of the signature");
    }
    if lines.any(|line| !line.is_empty()) {
        return refuse("it has text after the signature");
    }
    Ok(())
}

/// What became of one signature.
enum Verdict {
    Good(String),
    Unknown(Vec<String>),
    Bad(ReleaseError),
}

struct Judge<'a> {
    keyring: &'a Keyring,
    policy: &'a StandardPolicy<'a>,
    now: SystemTime,
    verdicts: Vec<Verdict>,
}

impl VerificationHelper for Judge<'_> {
    fn get_certs(&mut self, _: &[KeyHandle]) -> openpgp::Result<Vec<Cert>> {
        Ok(self.keyring.certificates.clone())
    }

    fn check(&mut self, structure: MessageStructure<'_>) -> openpgp::Result<()> {
        for layer in structure {
            if let MessageLayer::SignatureGroup { results } = layer {
                for result in results {
                    let verdict = match result {
                        Ok(good) => self.judge_good(&good),
                        Err(error) => self.judge_bad(error),
                    };
                    self.verdicts.push(verdict);
                }
            }
        }
        Ok(())
    }
}

impl Judge<'_> {
    /// The library looks at keys as they were when the signature was made. A key that was lost later must
    /// not sign with an old date, so they have to hold now as well.
    fn judge_good(&self, good: &GoodChecksum<'_>) -> Verdict {
        let key = good.ka.cert().fingerprint().to_hex();
        match self.fault_now(good.ka.cert(), &KeyHandle::from(good.ka.key().fingerprint())) {
            None => Verdict::Good(key),
            Some(fault) => Verdict::Bad(fault),
        }
    }

    fn judge_bad(&self, error: VerificationError<'_>) -> Verdict {
        let (signature, certificate, handle, reason, over_text) = match &error {
            VerificationError::MissingKey { sig } => {
                // An issuer may stand there twice, by fingerprint and by the id that is its end.
                let mut keys: Vec<String> = sig.get_issuers().iter().map(KeyHandle::to_hex).collect();
                let all = keys.clone();
                keys.retain(|key| !all.iter().any(|other| other != key && other.ends_with(key)));
                return Verdict::Unknown(keys);
            }
            VerificationError::UnboundKey { sig, cert, error } => {
                (sig, *cert, sig.get_issuers().into_iter().next(), error, false)
            }
            VerificationError::BadKey { sig, ka, error } => {
                (sig, ka.cert(), Some(ka.key().fingerprint().into()), error, false)
            }
            VerificationError::BadSignature { sig, ka, error } => {
                let over_text = sig.signature_alive(self.now, None).is_ok();
                (sig, ka.cert(), Some(ka.key().fingerprint().into()), error, over_text)
            }
            other => return Verdict::Unknown(vec![format!("(unreadable: {other})")]),
        };
        let key = certificate.fingerprint().to_hex();
        if weak(signature.hash_algo()) {
            let algorithm = signature.hash_algo().to_string();
            return Verdict::Bad(ReleaseError::WeakDigest { key, algorithm });
        }
        if over_text {
            return Verdict::Bad(ReleaseError::Tampered { key });
        }
        let fault = handle.and_then(|handle| self.fault_now(certificate, &handle));
        Verdict::Bad(fault.unwrap_or_else(|| ReleaseError::UnfitKey { key, reason: format!("{reason:#}") }))
    }

    /// What speaks against the key `handle` of `certificate` at the time of judgement.
    fn fault_now(&self, certificate: &Cert, handle: &KeyHandle) -> Option<ReleaseError> {
        let key = certificate.fingerprint().to_hex();
        let unfit = |error: openpgp::anyhow::Error| {
            Some(ReleaseError::UnfitKey { key: key.clone(), reason: format!("{error:#}") })
        };
        let valid = match certificate.with_policy(self.policy, self.now) {
            Ok(valid) => valid,
            Err(error) => return unfit(error),
        };
        if matches!(valid.revocation_status(), RevocationStatus::Revoked(_)) {
            return Some(ReleaseError::RevokedKey { key });
        }
        let passed = |end: Option<SystemTime>| end.filter(|end| *end <= self.now).and_then(unix_time);
        if let Some(since) = passed(valid.primary_key().key_expiration_time()) {
            return Some(ReleaseError::ExpiredKey { key, since: Some(since) });
        }
        if let Err(error) = valid.alive() {
            return unfit(error);
        }
        let Some(signing) = valid.keys().key_handle(handle.clone()).next() else {
            return unfit(openpgp::anyhow::anyhow!("subkey {} is not bound to it", handle.to_hex()));
        };
        if matches!(signing.revocation_status(), RevocationStatus::Revoked(_)) {
            return Some(ReleaseError::RevokedKey { key });
        }
        if let Some(since) = passed(signing.key_expiration_time()) {
            return Some(ReleaseError::ExpiredKey { key, since: Some(since) });
        }
        match signing.alive() {
            Err(error) => unfit(error),
            Ok(()) => None,
        }
    }
}

fn weak(algorithm: HashAlgorithm) -> bool {
    matches!(algorithm, HashAlgorithm::MD5 | HashAlgorithm::SHA1 | HashAlgorithm::RipeMD)
}

/// The signed text, with dash-escapes undone, and the certificates whose signature is good.
fn signed_text(bytes: &[u8], keyring: &Keyring, now: i64) -> Result<(String, Vec<String>), ReleaseError> {
    let form = |error: &dyn std::fmt::Display| ReleaseError::Form { reason: error.to_string() };
    let now = system_time(now);
    let policy = StandardPolicy::at(now);
    let judge = Judge { keyring, policy: &policy, now, verdicts: Vec::new() };
    let mut verifier = VerifierBuilder::from_bytes(bytes)
        .and_then(|builder| builder.with_policy(&policy, now, judge))
        .map_err(|error| form(&error))?;
    // A signed text may be compressed within its message.
    let text = input::read_open(&mut verifier, limits::RELEASE).map_err(|error| form(&error))?;
    let text = String::from_utf8(text).map_err(|error| form(&error))?;
    Ok((text, good(verifier.into_helper())?))
}

/// The certificates whose signature over `text`, one of those in `signature`, is good.
fn signers(text: &[u8], signature: &[u8], keyring: &Keyring, now: i64) -> Result<Vec<String>, ReleaseError> {
    let unreadable = |error: openpgp::anyhow::Error| ReleaseError::Signature { reason: format!("{error:#}") };
    let now = system_time(now);
    let policy = StandardPolicy::at(now);
    let judge = Judge { keyring, policy: &policy, now, verdicts: Vec::new() };
    let mut verifier = DetachedVerifierBuilder::from_bytes(signature)
        .and_then(|builder| builder.with_policy(&policy, now, judge))
        .map_err(unreadable)?;
    verifier.verify_bytes(text).map_err(unreadable)?;
    good(verifier.into_helper())
}

/// The certificates whose signature was found good, sorted.
fn good(judge: Judge<'_>) -> Result<Vec<String>, ReleaseError> {
    let mut signed_by = Vec::new();
    let mut unknown = Vec::new();
    let mut faults = Vec::new();
    for verdict in judge.verdicts {
        match verdict {
            Verdict::Good(key) => signed_by.push(key),
            Verdict::Unknown(keys) => unknown.extend(keys),
            Verdict::Bad(fault) => faults.push(fault),
        }
    }
    // A known key whose signature does not match outweighs another that does.
    if let Some(at) = faults.iter().position(|fault| matches!(fault, ReleaseError::Tampered { .. })) {
        return Err(faults.swap_remove(at));
    }
    if !signed_by.is_empty() {
        signed_by.sort();
        signed_by.dedup();
        return Ok(signed_by);
    }
    match faults.into_iter().next() {
        Some(fault) => Err(fault),
        None if unknown.is_empty() => Err(ReleaseError::Unsigned),
        None => Err(ReleaseError::UnknownKey { keys: unknown, known: judge.keyring.fingerprints() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ships_the_keys_of_the_readme() {
        let readme = include_str!("keys/README.md");
        let fingerprints = Keyring::debian().fingerprints();
        assert_eq!(fingerprints.len(), 3);
        assert!(fingerprints.iter().all(|fingerprint| readme.contains(fingerprint)), "{fingerprints:?}");
    }

    #[test]
    fn refuses_text_around_the_message() {
        let message = "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nx: y\n-----BEGIN PGP SIGNATURE-----\n\nAA==\n-----END PGP SIGNATURE-----\n";
        assert!(check_form(message.as_bytes()).is_ok());
        for bad in [
            format!("Suite: x\n{message}"),
            format!("{message}Suite: x\n"),
            format!("{message}{message}"),
            message.replace("Hash: SHA256\n", "Hash: SHA256\nSuite: x\n"),
            message[..message.len() - 30].to_owned(),
            String::new(),
        ] {
            assert!(matches!(check_form(bad.as_bytes()), Err(ReleaseError::Form { .. })), "{bad}");
        }
    }

    #[test]
    fn signatures_without_end() {
        let message = |armor: usize| {
            let armor = "AAAA\n".repeat(armor / 5);
            format!(
                "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nx: y\n-----BEGIN PGP SIGNATURE-----\n\n{armor}\
                 -----END PGP SIGNATURE-----\n"
            )
        };
        assert!(check_form(message(60_000).as_bytes()).is_ok());
        let error = check_form(message(70_000).as_bytes()).unwrap_err().to_string();
        assert!(error.ends_with("it has signatures of more than 65536 bytes"), "{error}");
        let expectation = Expectation { suite: None, now: 0, allow_expired: false };
        let detached = verify_detached(b"x: y\n", &[0; 70_000], &Keyring::debian(), &expectation);
        let error = detached.unwrap_err().to_string();
        assert!(error.ends_with("it has more than 65536 bytes"), "{error}");
    }
}
