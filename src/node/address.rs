//! Where a machine fetches its document from, and what vouches for what comes.

use std::fmt;
use std::str::FromStr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::signature::PublicKey;
use super::{Machine, Policy};
use crate::base::{Digest, web};

/// What a value keeps as it is: RFC 3986, section 2.3, and the colons of a card's address, which a path may have.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b':');

/// An address at http or https in which `${serial}`, `${uuid}` and `${mac}` stand for what a machine is known by. Both `{}` and
/// `{:?}` leave out what may be secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Address(String);

/// What stands for something of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placeholder {
    /// Its serial number.
    Serial,
    /// Its UUID.
    Uuid,
    /// The address of one of its cards.
    Mac,
}

/// What is wrong with an address, as the end of a sentence. The address itself is not shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Something else.
    #[error("is no address at http or https")]
    Syntax,
    /// A placeholder that is not one of ours.
    #[error("has the unknown placeholder `${{{}}}`", name.escape_debug())]
    Unknown {
        /// Its name.
        name: String,
    },
    /// `${` without `}`.
    #[error("has a `${{` that nothing closes")]
    Open,
    /// The machine would choose whom it asks.
    #[error("has a placeholder before its path")]
    InHost,
    /// One digest for the files of many machines.
    #[error("has a placeholder, and `sha256` is that of one file")]
    OneDigest,
}

/// A file of documents on a web server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Where it is.
    pub address: Address,
    /// Of the whole file.
    pub sha256: Option<Digest>,
    /// One of these has signed each document.
    pub keys: Vec<PublicKey>,
}

impl Placeholder {
    const ALL: [Self; 3] = [Self::Serial, Self::Uuid, Self::Mac];

    /// Its text in an address.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Serial => "${serial}",
            Self::Uuid => "${uuid}",
            Self::Mac => "${mac}",
        }
    }

    /// What it stands for.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Serial => "serial number",
            Self::Uuid => "UUID",
            Self::Mac => "network card",
        }
    }

    fn values(self, machine: &Machine) -> Vec<&str> {
        match self {
            Self::Serial => machine.serial.as_deref().into_iter().collect(),
            Self::Uuid => machine.uuid.as_deref().into_iter().collect(),
            Self::Mac => machine.macs.iter().map(String::as_str).collect(),
        }
    }
}

impl AddressError {
    /// What would be right.
    pub const fn help(&self) -> &'static str {
        match self {
            Self::Syntax => "such as `https://deploy.example/nodes/${serial}.yaml`",
            Self::Unknown { .. } | Self::Open => "`${serial}`, `${uuid}` and `${mac}` are known",
            Self::InHost => "placeholders stand in the path or behind it",
            Self::OneDigest => "leave the placeholder out, or have the documents signed and name `keys`",
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let begin = text.find("://").ok_or(AddressError::Syntax)? + 3;
        let host = text[begin..].split(['/', '\\', '?', '#']).next().unwrap_or_default();
        if text[..begin + host.len()].contains("${") {
            return Err(AddressError::InHost);
        }
        for part in text.split("${").skip(1) {
            let (name, _) = part.split_once('}').ok_or(AddressError::Open)?;
            if !Placeholder::ALL.iter().any(|known| known.text() == format!("${{{name}}}")) {
                return Err(AddressError::Unknown { name: name.to_owned() });
            }
        }
        let address = Self(text.to_owned());
        let sample = address.filled(|_| "0");
        if web::misleads(text).is_some() {
            return Err(AddressError::Syntax);
        }
        let is_one = |url: url::Url| matches!(url.scheme(), "http" | "https") && url.has_host();
        match url::Url::parse(&sample).is_ok_and(is_one) {
            true => Ok(address),
            false => Err(AddressError::Syntax),
        }
    }
}

impl Address {
    /// Where `machine` asks: in turn, where a card's address is in it.
    ///
    /// # Errors
    /// What is in it and not known of the machine.
    pub fn of(&self, machine: &Machine) -> Result<Vec<String>, Placeholder> {
        let lacks = |placeholder: &Placeholder| {
            self.0.contains(placeholder.text()) && placeholder.values(machine).is_empty()
        };
        if let Some(placeholder) = Placeholder::ALL.into_iter().find(lacks) {
            return Err(placeholder);
        }
        let value = |placeholder: Placeholder, mac| match placeholder {
            Placeholder::Mac => mac,
            other => other.values(machine).first().copied().unwrap_or_default(),
        };
        Ok(match self.0.contains(Placeholder::Mac.text()) {
            true => machine.macs.iter().map(|mac| self.filled(|one| value(one, mac))).collect(),
            false => vec![self.filled(|one| value(one, ""))],
        })
    }

    fn filled<'v>(&self, value: impl Fn(Placeholder) -> &'v str) -> String {
        Placeholder::ALL.into_iter().fold(self.0.clone(), |text, one| {
            text.replace(one.text(), &utf8_percent_encode(value(one), ENCODED).to_string())
        })
    }
}

impl fmt::Display for Address {
    /// Without user, password and query.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, rest) = self.0.split_once("://").unwrap_or_default();
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        let (host, path) = rest.split_at(rest.find(['/', '\\']).unwrap_or(rest.len()));
        write!(f, "{scheme}://{}{path}", host.rsplit('@').next().unwrap_or_default())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

impl Remote {
    /// Puts it together.
    ///
    /// # Errors
    /// A digest for an address of many files.
    pub fn new(address: Address, sha256: Option<Digest>, keys: Vec<PublicKey>) -> Result<Self, AddressError> {
        match sha256.is_some() && address.0.contains("${") {
            true => Err(AddressError::OneDigest),
            false => Ok(Self { address, sha256, keys }),
        }
    }

    /// The keys that may sign: each document must be signed by one of them. None where the digest is enough; no list where
    /// nothing vouches for what comes. `policy` is that of the image.
    pub fn signers<'a>(&'a self, policy: &'a Policy) -> Option<&'a [PublicKey]> {
        match (&self.sha256, self.keys.is_empty()) {
            (_, false) | (Some(_), true) => Some(&self.keys),
            (None, true) => Some(policy.keys.as_slice()).filter(|keys| !keys.is_empty()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        let macs = ["52:54:00:12:34:57", "52:54:00:12:34:56"].map(str::to_owned).into();
        Machine { serial: Some("7H/X 2?K".to_owned()), uuid: Some("9d9cba0e-aaaa".to_owned()), macs }
    }

    #[test]
    fn placeholders_are_what_the_machine_is_known_by() {
        let of = |text: &str, machine: &Machine| text.parse::<Address>().unwrap().of(machine);
        assert_eq!(of("http://d.example/n.yaml", &Machine::default()).unwrap(), ["http://d.example/n.yaml"]);
        assert_eq!(
            of("https://d.example/${serial}/${uuid}.yaml?s=${serial}", &machine()).unwrap(),
            ["https://d.example/7H%2FX%202%3FK/9d9cba0e-aaaa.yaml?s=7H%2FX%202%3FK"]
        );
        assert_eq!(
            of("http://d.example/${mac}", &machine()).unwrap(),
            ["http://d.example/52:54:00:12:34:56", "http://d.example/52:54:00:12:34:57"]
        );
        // What a machine calls itself is no placeholder.
        let sly = Machine { serial: Some("${uuid}".to_owned()), ..machine() };
        assert_eq!(of("http://d.example/${serial}", &sly).unwrap(), ["http://d.example/%24%7Buuid%7D"]);
        for (text, lacks) in [
            ("http://d.example/${serial}", Placeholder::Serial),
            ("http://d.example/${uuid}", Placeholder::Uuid),
            ("http://d.example/${mac}", Placeholder::Mac),
        ] {
            assert_eq!(of(text, &Machine::default()), Err(lacks));
        }
    }

    #[test]
    fn what_is_no_address_of_a_document_is_refused() {
        for (text, expected) in [
            ("", AddressError::Syntax),
            ("nodes.yaml", AddressError::Syntax),
            ("ftp://d.example/n.yaml", AddressError::Syntax),
            ("file:///srv/n.yaml", AddressError::Syntax),
            ("http://d.example:port/", AddressError::Syntax),
            ("http:///d.example/n.yaml", AddressError::Syntax),
            ("http://d\n.example/n.yaml", AddressError::Syntax),
            ("http://d.example/${host}.yaml", AddressError::Unknown { name: "host".to_owned() }),
            ("http://d.example/${SERIAL}", AddressError::Unknown { name: "SERIAL".to_owned() }),
            ("http://d.example/${serial", AddressError::Open),
            ("http://${serial}.example/", AddressError::InHost),
            ("http://${serial}@d.example/", AddressError::InHost),
            ("${mac}://d.example/", AddressError::InHost),
        ] {
            assert_eq!(text.parse::<Address>(), Err(expected), "{text}");
        }
        assert_eq!(
            AddressError::Unknown { name: "host".to_owned() }.to_string(),
            "has the unknown placeholder `${host}`"
        );
        let secret: Address = "http://me:s3c@ret@d.example/${mac}@n?token=s3cret#s3cret".parse().unwrap();
        assert_eq!(
            format!("{secret} {secret:?}"),
            "http://d.example/${mac}@n Address(http://d.example/${mac}@n)"
        );
    }

    #[test]
    fn something_vouches_for_what_comes() {
        let digest = Some(Digest::of("x"));
        let key = |byte: u8| PublicKey::new(&[byte; 32]).unwrap();
        let remote = |text: &str, sha256, keys| Remote::new(text.parse().unwrap(), sha256, keys);
        let (one, many) = ("http://d.example/n", "http://d.example/${uuid}");
        assert_eq!(remote(many, digest, Vec::new()), Err(AddressError::OneDigest));
        let (open, closed) = (Policy::default(), Policy { sources: None, keys: vec![key(1)] });
        let none = remote(many, None, Vec::new()).unwrap();
        assert_eq!((none.signers(&open), none.signers(&closed)), (None, Some(&[key(1)][..])));
        let pinned = remote(one, digest, Vec::new()).unwrap();
        assert_eq!((pinned.signers(&open), pinned.signers(&closed)), (Some(&[][..]), Some(&[][..])));
        let signed = remote(many, None, vec![key(2)]).unwrap();
        assert_eq!(signed.signers(&closed), Some(&[key(2)][..]));
        assert_eq!(remote(one, digest, vec![key(2)]).unwrap().signers(&open), Some(&[key(2)][..]));
    }
}
