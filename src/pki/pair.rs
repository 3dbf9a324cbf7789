//! A key and the certificate for it, in one file: they are replaced in one step, so that neither a power cut nor a
//! server that reads them meanwhile sees a key of one and a certificate of another.

use std::collections::BTreeSet;
use std::net::IpAddr;

use pem::Pem;
use rcgen::KeyPair;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Name;

use super::Error;
use super::wanted::Wanted;
use crate::base::terminal::said;

pub(super) const KEY: &str = "PRIVATE KEY";
pub(super) const CERTIFICATE: &str = "CERTIFICATE";
/// Letters of a name in a certificate that are shown.
const MOST_SHOWN: usize = 256;

/// A private key and the certificate for it.
#[derive(Debug)]
pub struct Pair {
    pub(super) key: KeyPair,
    /// DER.
    pub(super) certificate: Vec<u8>,
}

impl Pair {
    /// Reads what [`Pair::to_pem`] gave, and holds key and certificate against each other.
    pub fn read(text: &[u8]) -> Result<Self, Error> {
        let blocks = pem::parse_many(text)?;
        let block = |tag: &str| blocks.iter().find(|block| block.tag() == tag).map(Pem::contents);
        let key = KeyPair::try_from(block(KEY).ok_or(Error::Missing("private key"))?).map_err(Error::Key)?;
        let certificate = block(CERTIFICATE).ok_or(Error::Missing("certificate"))?.to_vec();
        let of_certificate = parse(&certificate)?.public_key().subject_public_key.data.to_vec();
        if of_certificate != key.public_key_raw() {
            return Err(Error::OtherKey);
        }
        Ok(Self { key, certificate })
    }

    /// The certificate, as DER.
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// The key (PKCS #8), then the certificate. Whoever reads this can act as its owner.
    pub fn to_pem(&self) -> String {
        to_pem(&self.key, &self.certificate)
    }

    /// When its certificate ends: seconds since 1970.
    pub fn ends(&self) -> Result<i64, Error> {
        end_of_der(&self.certificate)
    }

    /// The name of the authority that has signed its certificate: DER.
    pub(super) fn issuer(&self) -> Result<Vec<u8>, Error> {
        Ok(parse(&self.certificate)?.issuer().as_raw().to_vec())
    }
}

pub(super) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, Error> {
    let (rest, certificate) =
        X509Certificate::from_der(der).map_err(|error| Error::Certificate(error.to_string()))?;
    match rest {
        [] => Ok(certificate),
        _ => Err(Error::Certificate("something follows it".to_owned())),
    }
}

/// The first certificate of a file.
pub(super) fn read_certificate(text: &[u8]) -> Result<Vec<u8>, Error> {
    let blocks = pem::parse_many(text)?;
    let found = blocks.into_iter().find(|block| block.tag() == CERTIFICATE);
    found.map(Pem::into_contents).ok_or(Error::Missing("certificate"))
}

/// When the first certificate in `text`, which is PEM, ends: seconds since 1970.
pub fn end_of(text: &[u8]) -> Result<i64, Error> {
    end_of_der(&read_certificate(text)?)
}

/// When the certificate `der` ends: seconds since 1970.
pub fn end_of_der(der: &[u8]) -> Result<i64, Error> {
    Ok(parse(der)?.validity().not_after.timestamp())
}

/// Whose a certificate is, and who signed it: common names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// Its owner's.
    pub own: String,
    /// That of the authority that it says has signed it.
    pub issuer: String,
}

/// The names in the certificate `der`. That the issuer has signed it is not looked at.
pub fn names_of(der: &[u8]) -> Result<Names, Error> {
    let certificate = parse(der)?;
    Ok(Names { own: shown(certificate.subject()), issuer: shown(certificate.issuer()) })
}

/// The common name of the distinguished name `der`; all of it, where it has none.
pub fn name_of(der: &[u8]) -> Result<String, Error> {
    let (_, name) = X509Name::from_der(der).map_err(|error| Error::Certificate(error.to_string()))?;
    Ok(shown(&name))
}

fn shown(name: &X509Name<'_>) -> String {
    let common = name.iter_common_name().next().and_then(|name| name.as_str().ok());
    // Whoever shows a certificate has chosen it.
    said(&common.map_or_else(|| name.to_string(), str::to_owned), MOST_SHOWN)
}

/// Whether the owner of the certificate `authority` signed `certificate`.
pub(super) fn has_signed(authority: &[u8], certificate: &X509Certificate<'_>) -> bool {
    parse(authority).is_ok_and(|own| {
        certificate.issuer().as_raw() == own.subject().as_raw()
            && certificate.verify_signature(Some(own.public_key())).is_ok()
    })
}

pub(super) fn to_pem(key: &KeyPair, certificate: &[u8]) -> String {
    block(KEY, key.serialized_der()) + &certificate_pem(certificate)
}

pub(super) fn certificate_pem(certificate: &[u8]) -> String {
    block(CERTIFICATE, certificate)
}

/// One block of PEM.
pub(super) fn block(tag: &str, der: &[u8]) -> String {
    let lines = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&Pem::new(tag, der), lines)
}

/// Whether name, hosts and usages are those that are wanted, no more and no less.
pub(super) fn is_for(certificate: &X509Certificate<'_>, wanted: &Wanted) -> bool {
    let mut names = certificate.subject().iter_common_name();
    let name = names.next().and_then(|name| name.as_str().ok());
    let usages = certificate.extended_key_usage().ok().flatten();
    let usages = usages.map(|usages| (usages.value.server_auth, usages.value.client_auth));
    let wanted_hosts: BTreeSet<String> = wanted.hosts.iter().map(|host| canonical(host)).collect();
    name == Some(wanted.name.as_str())
        && names.next().is_none()
        && usages == Some(wanted.role.answers_and_calls())
        && hosts(certificate) == Some(wanted_hosts)
}

/// An address in its shortest form, and a name as it is.
fn canonical(host: &str) -> String {
    host.parse::<IpAddr>().map_or_else(|_| host.to_owned(), |address| address.to_string())
}

/// The hosts that the certificate names; nothing where one is neither a name nor an address.
fn hosts(certificate: &X509Certificate<'_>) -> Option<BTreeSet<String>> {
    let Some(names) = certificate.subject_alternative_name().ok()? else { return Some(BTreeSet::new()) };
    let host = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => Some(IpAddr::from(<[u8; 4]>::try_from(*bytes).ok()?).to_string()),
            _ => Some(IpAddr::from(<[u8; 16]>::try_from(*bytes).ok()?).to_string()),
        },
        _ => None,
    };
    names.value.general_names.iter().map(host).collect()
}
