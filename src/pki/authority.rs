//! An authority: the key that signs, and its own certificate.

use rcgen::{BasicConstraints, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData};

use super::pair::{self, Pair};
use super::wanted::{ALGORITHM, LIFETIME_SECONDS, NO_END_SECONDS, Wanted, subject};
use super::{Bundle, Error, Flaw};
use crate::base::Digest;

/// Two clocks of one moment differ by less.
const SLACK_SECONDS: i64 = 86_400;

/// Signs certificates. [`Authority::to_pem`] has the key: whoever reads that is every server and every client.
#[derive(Debug)]
pub struct Authority {
    pub(super) certificate: Vec<u8>,
    /// Believed as it is, while one takes the other's place.
    pub(super) beside: Bundle,
    ends: i64,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes one without an end. `purpose` is the beginning of its name, whose rest tells authorities apart.
    pub fn make(purpose: &str) -> Result<Self, Error> {
        Self::make_until(purpose, NO_END_SECONDS)
    }

    /// Makes one that ends at `ends`, in seconds since 1970.
    pub fn make_until(purpose: &str, ends: i64) -> Result<Self, Error> {
        let key = KeyPair::generate_for(ALGORITHM).map_err(Error::Making)?;
        let digest = Digest::of(key.public_key_raw()).to_string();
        let mut params = subject(&format!("{purpose} {}", &digest[digest.len() - 8..]), ends);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(Error::Making)?.der().to_vec();
        Ok(Self { certificate, beside: Bundle::default(), ends, issuer: Issuer::new(params, key) })
    }

    /// Reads what [`Authority::to_pem`] gave.
    pub fn read(text: &[u8]) -> Result<Self, Error> {
        let Pair { key, certificate } = Pair::read(text)?;
        let parsed = pair::parse(&certificate)?;
        if !parsed.is_ca() || parsed.verify_signature(None).is_err() {
            return Err(Error::NotAnAuthority);
        }
        let ends = parsed.validity().not_after.timestamp();
        let issuer = Issuer::from_ca_cert_der(&certificate.as_slice().into(), key).map_err(Error::Key)?;
        Ok(Self { certificate, beside: Bundle::default(), ends, issuer })
    }

    /// The same, for whoever is to believe `others` beside it.
    pub fn beside(self, others: Bundle) -> Self {
        Self { beside: others, ..self }
    }

    /// All that whoever believes it is to believe: itself first, then those beside it.
    pub fn believed(&self) -> Bundle {
        Bundle::of(&self.certificate).and(&self.beside)
    }

    /// When it ends: seconds since 1970.
    pub fn ends(&self) -> i64 {
        self.ends
    }

    /// Key and certificate.
    pub fn to_pem(&self) -> String {
        pair::to_pem(self.issuer.key(), &self.certificate)
    }

    /// The certificate alone.
    pub fn certificate_pem(&self) -> String {
        pair::certificate_pem(&self.certificate)
    }

    /// Makes a key and signs a certificate for it, good from before every clock until a year from `now` (seconds since
    /// 1970), and no longer than the authority itself.
    pub fn issue(&self, wanted: &Wanted, now: i64) -> Result<Pair, Error> {
        let key = KeyPair::generate_for(ALGORITHM).map_err(Error::Making)?;
        let certificate = self.certify(&key, wanted, self.latest_end(now))?;
        Ok(Pair { key, certificate })
    }

    /// Signs a certificate for `key`; DER.
    pub(super) fn certify(
        &self,
        key: &impl PublicKeyData,
        wanted: &Wanted,
        ends: i64,
    ) -> Result<Vec<u8>, Error> {
        let certificate = wanted.params(ends)?.signed_by(key, &self.issuer).map_err(Error::Making)?;
        Ok(certificate.der().to_vec())
    }

    /// Why `pair` is to be replaced by one that is made `now`, if it is: a third of its life is left, or it is not what is
    /// `wanted`.
    pub fn flaw_of(&self, pair: &Pair, wanted: &Wanted, now: i64) -> Option<Flaw> {
        let Ok(certificate) = pair::parse(&pair.certificate) else { return Some(Flaw::OtherUse) };
        let ends = certificate.validity().not_after.timestamp();
        let best = self.latest_end(now);
        if !pair::has_signed(&self.certificate, &certificate) {
            Some(Flaw::OtherAuthority)
        } else if !pair::is_for(&certificate, wanted) {
            Some(Flaw::OtherUse)
        } else if ends < best - LIFETIME_SECONDS * 2 / 3 {
            Some(Flaw::EndsSoon { ends })
        } else if ends > best + SLACK_SECONDS {
            Some(Flaw::EndsLate { ends })
        } else {
            None
        }
    }

    /// When a certificate ends that is made now.
    pub(super) fn latest_end(&self, now: i64) -> i64 {
        now.saturating_add(LIFETIME_SECONDS).min(self.ends)
    }

    /// Why it is to be replaced, if it is.
    pub fn flaw(&self, now: i64) -> Option<Flaw> {
        let is_short = self.ends < now.saturating_add(LIFETIME_SECONDS / 3);
        is_short.then_some(Flaw::EndsSoon { ends: self.ends })
    }
}
