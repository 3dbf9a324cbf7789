//! New certificates for a member of a cluster that runs: the member makes keys and asks, whoever has the authorities signs,
//! the member takes. No private key leaves the node.
//!
//! What is asked for travels through etcd, where every member, and without rights every client, could write it in another's
//! name. So the member vouches for it with the key of the certificate that it shows to other members, which nobody else
//! has. Names, addresses and uses in the certificates come from the signer's list.
//!
//! A power cut at any point leaves pairs that are whole: the new keys lie in one file until all pairs are new
//! ones, and each pair is replaced in one step.

use std::collections::BTreeMap;
use std::path::Path;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::SigningKey as _;
use serde::{Deserialize, Serialize};
use thiserror::Error as ThisError;

use super::etcd::{CLIENT, Member, PEER, SERVER};
use super::request::{Fresh, Proven};
use super::{Authority, Bundle, Directory, Error, LIFETIME_SECONDS, Owner, Pair, Wanted, given, pair};
use crate::base::failure::{Doing, Failure};
use crate::base::json;

/// A member asks once its first certificate has less left: a third of its life, as a node that has its own authority
/// renews. That is three months before `keller cluster status` begins to warn, so that an operator who looks once a month
/// is never late.
pub const ASKS_SECONDS: i64 = LIFETIME_SECONDS / 3;
/// A certificate that ends so little later is not worth asking for: the authority itself is about to end.
const GAIN_SECONDS: i64 = 86_400;
/// In the directory of the pairs, readable for root alone: keys that wait for their certificates, and what was asked.
const PENDING: &str = "pending.json";
/// Maximum bytes of a request, and of what answers it. They have some 3 KiB.
pub const MOST_BYTES: usize = 16 << 10;
/// More than the values in either.
const MOST_VALUES: usize = 32;
/// The form of both.
const FORM: u32 = 1;

/// Why a request is not signed, or an answer not taken.
#[derive(Debug, ThisError)]
pub enum Refusal {
    /// More bytes than any of ours has.
    #[error("it has {0} bytes, more than the {MOST_BYTES} that are read")]
    TooLarge(usize),
    /// Not the JSON that it should be.
    #[error("it cannot be read: {0}")]
    Unreadable(serde_json::Error),
    /// Of another keller.
    #[error("it has form {0}, and this keller reads form {FORM}: use one as new as that of the nodes")]
    Form(u32),
    /// It stands under another member's name.
    #[error("it names {0:?}, and stands under another name")]
    OtherName(String),
    /// The part for one file.
    #[error("{file}: {cause}")]
    File {
        /// The file that it is for.
        file: &'static str,
        /// What is wrong.
        cause: Error,
    },
    /// The certificate of who asks is not this member's.
    #[error("the certificate that vouches for it is not this member's: {0}")]
    Stranger(Error),
    /// It was this member's.
    #[error("the certificate that vouches for it has ended: `keller cluster issue` makes new ones")]
    Ended,
    /// Who wrote it does not have that certificate's key, or it was changed since.
    #[error("the member's key has not signed it: somebody else wrote it, or changed it")]
    NotVouched,
    /// The authority's own end is near.
    #[error("what is signed now would end no later than what the member has: the authority itself ends then")]
    NoLater,
    /// An answer to another request.
    #[error("it is for other keys than those that wait: an older request was signed")]
    OtherKey,
}

/// What a member asks, as it stands in etcd.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Asked {
    form: u32,
    member: String,
    /// Seconds since 1970.
    since: i64,
    /// Requests by the files that the pairs lie in.
    requests: BTreeMap<String, String>,
    /// What the member shows to others.
    certificate: String,
    /// By its key, over all above but itself.
    signature: String,
}

impl Asked {
    /// What the signature is of.
    fn vouched(&self) -> Vec<u8> {
        let said = ("keller certificate request", self.form, &self.member, self.since, &self.requests);
        serde_json::to_vec(&said).expect("texts and numbers are JSON")
    }
}

/// What answers it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Signed {
    form: u32,
    member: String,
    /// Certificates by the files that the pairs lie in.
    certificates: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Form {
    form: u32,
}

fn read<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, Refusal> {
    if text.len() > MOST_BYTES {
        return Err(Refusal::TooLarge(text.len()));
    }
    match json::parse::<Form>(text, MOST_VALUES).map_err(Refusal::Unreadable)?.form {
        FORM => serde_json::from_slice(text).map_err(Refusal::Unreadable),
        other => Err(Refusal::Form(other)),
    }
}

/// A request whose keys are proven, and which names the member it stands under. Who wrote it is not known yet.
#[derive(Debug)]
pub struct Request {
    asked: Asked,
    keys: Vec<(&'static str, Wanted, Proven)>,
    voucher: Vec<u8>,
}

/// A request that was signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// For the member.
    pub text: String,
    /// When the first of its certificates ends: seconds since 1970.
    pub ends: i64,
}

impl Request {
    /// Reads what stands under the name of `member`.
    pub fn read(text: &[u8], member: &Member) -> Result<Self, Refusal> {
        let asked: Asked = read(text)?;
        if asked.member != member.name {
            return Err(Refusal::OtherName(asked.member.chars().take(64).collect()));
        }
        let mut keys = Vec::new();
        for (file, wanted) in member.wanted() {
            let blamed = |cause| Refusal::File { file, cause };
            let request = asked.requests.get(file).ok_or(Error::Missing("request")).map_err(blamed)?;
            keys.push((file, wanted, Proven::read(request).map_err(blamed)?));
        }
        let voucher = pair::read_certificate(asked.certificate.as_bytes()).map_err(Refusal::Stranger)?;
        Ok(Self { asked, keys, voucher })
    }

    /// Since when it is asked for: seconds since 1970, by the member's clock.
    pub fn since(&self) -> i64 {
        self.asked.since
    }

    /// When the certificate ends that vouches for it: seconds since 1970.
    pub fn ends(&self) -> Result<i64, Refusal> {
        pair::end_of_der(&self.voucher).map_err(Refusal::Stranger)
    }

    /// Signs it, if `member` wrote it: it vouches with a certificate that `peers`, or one that is believed beside it, signed.
    pub fn sign(
        &self,
        member: &Member,
        clients: &Authority,
        peers: &Authority,
        now: i64,
    ) -> Result<Answer, Refusal> {
        let ends = self.vouched(member, &peers.believed())?;
        if ends <= now {
            return Err(Refusal::Ended);
        }
        let mut certificates = BTreeMap::new();
        let mut first = i64::MAX;
        for (file, wanted, key) in &self.keys {
            let authority = if *file == PEER { peers } else { clients };
            let signed = authority.sign(key, wanted, now);
            let (certificate, ends) = signed.map_err(|cause| Refusal::File { file, cause })?;
            first = first.min(ends);
            certificates.insert((*file).to_owned(), certificate);
        }
        if first <= ends {
            return Err(Refusal::NoLater);
        }
        let signed = Signed { form: FORM, member: member.name.clone(), certificates };
        let text = serde_json::to_string(&signed).map_err(Refusal::Unreadable)?;
        Ok(Answer { text, ends: first })
    }

    /// Whether `member` wrote it; when the certificate ends that says so.
    fn vouched(&self, member: &Member, believed: &Bundle) -> Result<i64, Refusal> {
        let [_, (_, wanted), _] = member.wanted();
        given::judge(&self.voucher, believed, &wanted).map_err(Refusal::Stranger)?;
        let certificate = pair::parse(&self.voucher).map_err(Refusal::Stranger)?;
        let signature = STANDARD.decode(&self.asked.signature).map_err(|_| Refusal::NotVouched)?;
        let key = &certificate.public_key().subject_public_key.data;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key)
            .verify(&self.asked.vouched(), &signature)
            .map_err(|_| Refusal::NotVouched)?;
        Ok(certificate.validity().not_after.timestamp())
    }
}

/// What waits on the node.
#[derive(Debug, Serialize, Deserialize)]
struct Pending {
    /// Private keys by the files that their pairs will lie in.
    keys: BTreeMap<String, String>,
    /// As it stands in etcd.
    request: String,
}

impl Pending {
    fn make() -> Result<Self, Error> {
        let mut keys = BTreeMap::new();
        for file in [SERVER, PEER, CLIENT] {
            keys.insert(file.to_owned(), Fresh::make()?.to_pem());
        }
        Ok(Self { keys, request: String::new() })
    }

    fn key(&self, file: &str) -> Result<Fresh, Error> {
        Fresh::read(self.keys.get(file).ok_or(Error::Missing("private key"))?)
    }

    /// Asks anew with the same keys, `peer` vouching for it.
    fn ask(&mut self, member: &Member, peer: &Pair, now: i64) -> Result<(), Error> {
        let mut asked = Asked {
            form: FORM,
            member: member.name.clone(),
            since: now,
            requests: BTreeMap::new(),
            certificate: pair::certificate_pem(&peer.certificate),
            signature: String::new(),
        };
        for (file, wanted) in member.wanted() {
            asked.requests.insert(file.to_owned(), self.key(file)?.request(&wanted.name)?);
        }
        asked.signature = STANDARD.encode(peer.key.sign(&asked.vouched()).map_err(Error::Making)?);
        self.request = serde_json::to_string(&asked).map_err(|error| Error::Request(error.to_string()))?;
        Ok(())
    }

    /// Whether what was asked is of these keys, and vouched for by `peer`.
    fn is_asked(&self, peer: &Pair) -> bool {
        let asked = serde_json::from_str::<Asked>(&self.request).ok();
        asked.is_some_and(|asked| asked.certificate == pair::certificate_pem(&peer.certificate))
    }
}

/// What a member's certificates are in need of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing.
    Nothing {
        /// Whether keys lie there that wait no more.
        is_pending: bool,
    },
    /// This request is to stand in etcd.
    Ask {
        /// The request.
        request: String,
        /// When the first of the certificates ends that are there: seconds since 1970.
        ends: i64,
    },
}

/// The pairs of a member and what waits beside them.
#[derive(Debug)]
pub struct Renewal {
    directory: Directory,
    member: Member,
    etcd: Owner,
}

impl Renewal {
    /// Of `member`, whose pairs lie in `directory`, and whose etcd runs as `etcd`. The directory is locked meanwhile.
    pub fn open(directory: &Path, member: Member, etcd: Owner) -> Result<Self, Failure> {
        Ok(Self { directory: Directory::open(directory, etcd.gid)?, member, etcd })
    }

    /// What the pairs need at `now`, in seconds since 1970. Keys for a request are made where none wait.
    pub fn need(&self, now: i64) -> Result<Need, Failure> {
        let mut first = i64::MAX;
        let mut is_due = false;
        for (file, wanted) in self.member.wanted() {
            let ends = self.pair(file, &wanted)?.ends().doing(format!("reading {file}"))?;
            let best = self.authorities(wanted.role.authority())?.ends();
            is_due |= ends < now.saturating_add(ASKS_SECONDS) && ends + GAIN_SECONDS < best;
            first = first.min(ends);
        }
        let pending = self.pending()?;
        if !is_due {
            return Ok(Need::Nothing { is_pending: pending.is_some() });
        }
        let doing = "asking for certificates";
        let [_, (file, wanted), _] = self.member.wanted();
        let peer = self.pair(file, &wanted)?;
        let mut pending = match pending {
            Some(Ok(pending)) if pending.is_asked(&peer) => {
                return Ok(Need::Ask { request: pending.request, ends: first });
            }
            Some(Ok(pending)) => pending,
            // Damaged: nothing was signed for these keys that is of use.
            Some(Err(_)) | None => Pending::make().doing(doing)?,
        };
        pending.ask(&self.member, &peer, now).doing(doing)?;
        let text = serde_json::to_vec(&pending).doing(doing)?;
        self.directory.put(PENDING, &text, Some(Owner::this_process()))?;
        Ok(Need::Ask { request: pending.request, ends: first })
    }

    /// Puts the certificates of `answer` into place, with the keys that wait for them: all of them are judged before the
    /// first is put. Gives when the first of the member's certificates ends then.
    ///
    /// # Errors
    /// The inner one is what is wrong with the answer.
    pub fn take(&self, answer: &[u8]) -> Result<Result<i64, Refusal>, Failure> {
        let Some(Ok(pending)) = self.pending()? else { return Ok(Err(Refusal::OtherKey)) };
        let signed: Signed = match read(answer) {
            Ok(signed) => signed,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if signed.member != self.member.name {
            return Ok(Err(Refusal::OtherName(signed.member.chars().take(64).collect())));
        }
        let mut pairs = Vec::new();
        let mut first = i64::MAX;
        for (file, wanted) in self.member.wanted() {
            let authorities = self.authorities(wanted.role.authority())?;
            let pair = match judged(&pending, &signed, file, &wanted, &authorities) {
                Ok(pair) => pair,
                Err(Refusal::File { cause: Error::OtherKey, .. }) => return Ok(Err(Refusal::OtherKey)),
                Err(refusal) => return Ok(Err(refusal)),
            };
            let ends = pair.ends().doing(format!("reading {file}"))?;
            let own = self.pair(file, &wanted)?;
            // The same again is what a power cut left behind.
            let is_there = own.certificate == pair.certificate;
            if !is_there && ends <= own.ends().doing(format!("reading {file}"))? {
                return Ok(Err(Refusal::NoLater));
            }
            first = first.min(ends);
            pairs.push((file, pair, wanted.role.reader(self.etcd)));
        }
        for (file, pair, reader) in pairs {
            self.directory.put(file, pair.to_pem().as_bytes(), Some(reader))?;
        }
        Ok(Ok(first))
    }

    /// The keys that waited wait no more.
    pub fn settle(&self) -> Result<(), Failure> {
        self.directory.remove(PENDING)
    }

    fn pending(&self) -> Result<Option<serde_json::Result<Pending>>, Failure> {
        Ok(self.directory.read(PENDING)?.map(|text| serde_json::from_slice(&text)))
    }

    fn authorities(&self, file: &str) -> Result<Bundle, Failure> {
        let doing = || format!("reading {file}");
        let text = self.directory.read(file)?.ok_or(Error::Missing("content")).doing(doing())?;
        Bundle::read(&text).doing(doing())
    }

    /// What the member has.
    fn pair(&self, file: &str, wanted: &Wanted) -> Result<Pair, Failure> {
        let doing = || format!("reading {file}");
        let text = self.directory.read(file)?.ok_or(Error::Missing("content")).doing(doing())?;
        super::read(&text, &self.authorities(wanted.role.authority())?, wanted).doing(doing())
    }
}

/// The pair of a key that waits and the certificate that came for it, if that is what is wanted.
fn judged(
    pending: &Pending,
    signed: &Signed,
    file: &'static str,
    wanted: &Wanted,
    authorities: &Bundle,
) -> Result<Pair, Refusal> {
    let judge = || {
        let certificate = signed.certificates.get(file).ok_or(Error::Missing("certificate"))?;
        let pair = pending.key(file)?.with(certificate)?;
        given::judge(&pair.certificate, authorities, wanted).map(|()| pair)
    };
    judge().map_err(|cause| Refusal::File { file, cause })
}

#[cfg(test)]
mod tests;
