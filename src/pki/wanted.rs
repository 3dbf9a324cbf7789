//! What a certificate is for.

use std::net::IpAddr;

use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
    SignatureAlgorithm, date_time_ymd,
};

use super::Error;

/// How long a certificate is good for. An authority's own has no end that a node lives to see: its key lies on the same
/// disk as what it protects, so that an end would guard nothing and stop the node one day.
pub const LIFETIME_SECONDS: i64 = 365 * 86_400;

/// Every key: what each TLS library takes, and what costs a small machine little.
pub(super) const ALGORITHM: &SignatureAlgorithm = &PKCS_ECDSA_P256_SHA256;

/// What the owner of a certificate does with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Answers clients. It is a client as well: etcd's HTTP gateway hands requests on to the server's own port with the
    /// server's certificate.
    Server,
    /// A member among members, each of which calls the others and is called by them.
    Peer,
    /// Calls servers, and is known to them by its name.
    Client,
}

/// A certificate to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// What it is for.
    pub role: Role,
    /// The common name. Of a client, etcd takes it as the user's name.
    pub name: String,
    /// Host names and addresses that its owner is reached by; none for a client.
    pub hosts: Vec<String>,
}

impl Role {
    /// Whether its owner answers, and whether its owner calls.
    pub fn answers_and_calls(self) -> (bool, bool) {
        match self {
            Self::Server | Self::Peer => (true, true),
            Self::Client => (false, true),
        }
    }
}

impl Wanted {
    pub(super) fn params(&self, ends: i64) -> Result<CertificateParams, Error> {
        let mut params = subject(&self.name, ends);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let (answers, calls) = self.role.answers_and_calls();
        let usages = [
            answers.then_some(ExtendedKeyUsagePurpose::ServerAuth),
            calls.then_some(ExtendedKeyUsagePurpose::ClientAuth),
        ];
        params.extended_key_usages = usages.into_iter().flatten().collect();
        params.subject_alt_names =
            self.hosts.iter().map(|host| alternative(host)).collect::<Result<_, _>>()?;
        params.use_authority_key_identifier_extension = true;
        Ok(params)
    }
}

/// What every certificate has. It is good from 1970 on: nothing is gained by a beginning, and with one the node would
/// have no etcd after a start with an empty clock battery.
pub(super) fn subject(name: &str, ends: i64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(1970, 1, 1);
    let ends = u64::try_from(ends.clamp(0, NO_END_SECONDS)).unwrap_or_default();
    params.not_after = params.not_before + std::time::Duration::from_secs(ends);
    params
}

/// 9999-12-31 23:59:59, which says that there is no end: RFC 5280, 4.1.2.5.
pub(super) const NO_END_SECONDS: i64 = 253_402_300_799;

fn alternative(host: &str) -> Result<SanType, Error> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let fits = !host.is_empty()
        && host.len() <= 253
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte));
    let name = host.try_into().ok().filter(|_| fits);
    name.map(SanType::DnsName).ok_or_else(|| Error::Name(host.to_owned()))
}
