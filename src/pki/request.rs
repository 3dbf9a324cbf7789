//! A key that has no certificate yet, and the request for one: PKCS #10 (RFC 2986).
//!
//! Of a request nothing but its public key is ever taken. What the certificate says is the signer's own knowledge.

use pem::Pem;
use rcgen::{KeyPair, PublicKeyData, SubjectPublicKeyInfo};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use super::pair::{self, KEY, Pair};
use super::wanted::{ALGORITHM, NO_END_SECONDS, subject};
use super::{Authority, Error, Wanted};

const REQUEST: &str = "CERTIFICATE REQUEST";

/// A private key that waits for its certificate.
#[derive(Debug)]
pub(super) struct Fresh(KeyPair);

impl Fresh {
    pub(super) fn make() -> Result<Self, Error> {
        KeyPair::generate_for(ALGORITHM).map(Self).map_err(Error::Making)
    }

    /// Reads what [`Fresh::to_pem`] gave.
    pub(super) fn read(text: &str) -> Result<Self, Error> {
        let blocks = pem::parse_many(text)?;
        let block = blocks.iter().find(|block| block.tag() == KEY).ok_or(Error::Missing("private key"))?;
        KeyPair::try_from(block.contents()).map(Self).map_err(Error::Key)
    }

    pub(super) fn to_pem(&self) -> String {
        pair::block(KEY, self.0.serialized_der())
    }

    /// Asks for a certificate. The name is for people: see the head of this file.
    pub(super) fn request(&self, name: &str) -> Result<String, Error> {
        let request = subject(name, NO_END_SECONDS).serialize_request(&self.0).map_err(Error::Making)?;
        Ok(pair::block(REQUEST, request.der()))
    }

    /// The pair that it makes with `certificate`, which is PEM.
    pub(super) fn with(self, certificate: &str) -> Result<Pair, Error> {
        Pair::read((self.to_pem() + certificate).as_bytes())
    }
}

/// A public key whose owner has shown that the private one is there.
#[derive(Debug)]
pub(super) struct Proven(SubjectPublicKeyInfo);

impl Proven {
    /// The key of the request `text`, which is PEM and signed by itself.
    pub(super) fn read(text: &str) -> Result<Self, Error> {
        let unread = |error: &dyn std::fmt::Display| Error::Request(error.to_string());
        let blocks = pem::parse_many(text)?;
        let [block] = &blocks[..] else { return Err(Error::Missing("certificate request")) };
        if block.tag() != REQUEST {
            return Err(Error::Missing("certificate request"));
        }
        let parsed = X509CertificationRequest::from_der(Pem::contents(block));
        let (rest, request) = parsed.map_err(|error| unread(&error))?;
        if !rest.is_empty() {
            return Err(unread(&"something follows it"));
        }
        request.verify_signature().map_err(|_| Error::NoProof)?;
        let key = SubjectPublicKeyInfo::from_der(request.certification_request_info.subject_pki.raw);
        let key = key.map_err(|error| unread(&error))?;
        if key.algorithm() != ALGORITHM {
            return Err(Error::OtherAlgorithm);
        }
        Ok(Self(key))
    }
}

impl Authority {
    /// Signs a certificate for a key whose owner keeps it: what is `wanted`, as long as one that [`Authority::issue`] makes
    /// is good. PEM, and when it ends.
    pub(super) fn sign(&self, key: &Proven, wanted: &Wanted, now: i64) -> Result<(String, i64), Error> {
        let ends = self.latest_end(now);
        let der = self.certify(&key.0, wanted, ends)?;
        Ok((pair::certificate_pem(&der), ends))
    }
}
