//! The certificates of all authorities that somebody believes: one as a rule, two while one takes the other's place.

use std::collections::BTreeSet;

use x509_parser::certificate::X509Certificate;

use super::Error;
use super::pair::{self, CERTIFICATE};

/// An authority and the one that takes its place, and room for two that somebody has besides.
const MOST: usize = 4;

/// Certificates of authorities, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bundle(Vec<Vec<u8>>);

impl Bundle {
    /// Reads a file of certificates. A text that other readers would take in part is refused: what they pass over, such as a
    /// block that was cut short, may be the one authority that counts. One that stands in it twice counts once.
    ///
    /// # Errors
    /// What is neither a certificate of an authority nor a comment, none at all, and too many.
    pub fn read(text: &[u8]) -> Result<Self, Error> {
        let text = std::str::from_utf8(text).map_err(|_| Error::NotInBundle { line: 1 })?;
        let mut found = Self(Vec::new());
        let mut lines = text.lines().zip(1..);
        while let Some((line, number)) = lines.next() {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            if line.trim_end() != format!("-----BEGIN {CERTIFICATE}-----") {
                return Err(Error::NotInBundle { line: number });
            }
            let mut block = format!("{line}\n");
            loop {
                let (line, _) = lines.next().ok_or(Error::NotInBundle { line: number })?;
                block += line;
                block.push('\n');
                if line.starts_with("-----") {
                    break;
                }
            }
            found.add(pem::parse(block)?.into_contents())?;
        }
        if found.0.is_empty() { Err(Error::Missing("certificate")) } else { Ok(found) }
    }

    pub(super) fn of(certificate: &[u8]) -> Self {
        Self(vec![certificate.to_vec()])
    }

    /// Those of `others` after these, each once.
    pub fn and(mut self, others: &Self) -> Self {
        for other in &others.0 {
            if !self.0.contains(other) {
                self.0.push(other.clone());
            }
        }
        self
    }

    fn add(&mut self, certificate: Vec<u8>) -> Result<(), Error> {
        if !pair::parse(&certificate)?.is_ca() {
            return Err(Error::NotAnAuthority);
        }
        if self.0.contains(&certificate) {
            return Ok(());
        }
        if self.0.len() == MOST {
            return Err(Error::Many(MOST));
        }
        self.0.push(certificate);
        Ok(())
    }

    /// One after the other.
    pub fn to_pem(&self) -> String {
        self.0.iter().map(|certificate| pair::certificate_pem(certificate)).collect()
    }

    /// Whether the same authorities are believed, in whatever order they stand.
    pub fn is_same(&self, other: &Self) -> bool {
        let all = |bundle: &Self| bundle.0.iter().cloned().collect::<BTreeSet<_>>();
        all(self) == all(other)
    }

    /// When the last of them ends: seconds since 1970. Until then there is one that can be believed.
    pub fn ends(&self) -> i64 {
        let end = |certificate: &Vec<u8>| pair::end_of_der(certificate).ok();
        self.0.iter().filter_map(end).max().unwrap_or(i64::MIN)
    }

    /// The names of the authorities, in the order in which they stand.
    pub fn names(&self) -> Vec<String> {
        self.0
            .iter()
            .map(|certificate| pair::names_of(certificate).map_or_else(|_| "?".to_owned(), |names| names.own))
            .collect()
    }

    /// Whether one of them has signed the certificate `der`.
    pub fn has_signed(&self, der: &[u8]) -> bool {
        pair::parse(der).is_ok_and(|certificate| self.signed(&certificate))
    }

    pub(super) fn signed(&self, certificate: &X509Certificate<'_>) -> bool {
        self.0.iter().any(|authority| pair::has_signed(authority, certificate))
    }
}

#[cfg(test)]
mod tests {
    use super::super::etcd::{self, Member};
    use super::super::{Authority, Owner, Role, Wanted};
    use super::*;
    use crate::base::Chain;

    const NOW: i64 = 1_800_000_000;

    fn authority(name: &str) -> Authority {
        Authority::make(name).unwrap()
    }

    fn read(text: &str) -> Result<Bundle, Error> {
        Bundle::read(text.as_bytes())
    }

    #[test]
    fn all_are_read_each_once_and_in_their_order() {
        let (one, other) = (authority("one"), authority("other"));
        let (first, second) = (one.certificate_pem(), other.certificate_pem());
        let both = read(&format!("# old\n{first}\n# new\n{second}{first}")).unwrap();
        assert_eq!(both.to_pem(), format!("{first}{second}"));
        assert_eq!(read(&both.to_pem().replace('\n', "\r\n")).unwrap(), both);
        assert!(both.names()[0].starts_with("one ") && both.names()[1].starts_with("other "), "{both:?}");
        let around = read(&format!("{second}{first}")).unwrap();
        assert!(around.is_same(&both) && around != both);
        assert!(!read(&first).unwrap().is_same(&both) && !both.is_same(&read(&first).unwrap()));
        let other_ends = Authority::make_until("short", NOW).unwrap();
        assert_eq!(other_ends.believed().ends(), NOW);
        let long = Authority::make_until("long", NOW + 7).unwrap();
        assert_eq!(long.beside(other_ends.believed()).believed().ends(), NOW + 7);
        assert_eq!(one.beside(both.clone()).believed(), both);
        assert_eq!(other.beside(both.clone()).believed(), around);
    }

    #[test]
    fn what_other_readers_would_pass_over_is_refused() {
        let one = authority("one");
        let (certificate, pair) = (one.certificate_pem(), one.to_pem());
        let other = authority("other").certificate_pem();
        let client = Wanted { role: Role::Client, name: "root".to_owned(), hosts: Vec::new() };
        let client = one.issue(&client, NOW).unwrap().to_pem();
        let leaf = &client[client.find("-----BEGIN CERT").unwrap()..];
        let thousand: String = (0..1_000).map(|at| authority(&at.to_string()).certificate_pem()).collect();
        for (text, says) in [
            (String::new(), "the file has no certificate"),
            ("# nothing\n\n".to_owned(), "the file has no certificate"),
            ("x".to_owned(), "line 1 begins neither"),
            (format!("{certificate}rest\n{other}"), "begins neither a whole certificate nor a comment"),
            (pair, "line 1 begins neither"),
            (format!("{certificate}{}", &other[..other.len() / 2]), "begins neither"),
            (format!("{certificate}{}", other.replace("END", "BEGIN")), "not PEM"),
            (format!("{}{other}", certificate.replacen("MII", "M!I", 1)), "not PEM"),
            (format!("{certificate}{}", other.replacen("MII", "MIJ", 1)), "the certificate cannot be read"),
            (format!("{certificate}{leaf}"), "not one of an authority"),
            (thousand, "more than 4 different certificates"),
        ] {
            let error = read(&text).unwrap_err().to_string();
            assert!(error.contains(says), "{says:?}: {error}");
        }
        assert!(Bundle::read(b"\xff\xfe").is_err());
    }

    /// What a member is given at each step of a replacement, and at the step before.
    #[test]
    fn a_member_takes_each_step_and_restarts_only_for_other_authorities() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("etcd");
        let owner =
            Owner { uid: rustix::process::getuid().as_raw(), gid: rustix::process::getgid().as_raw() };
        let member = Member::of_cluster("a", [10, 0, 0, 1].into());
        let [clients, peers] = ["clients", "peers"].map(authority);
        let [new_clients, new_peers] = ["new clients", "new peers"].map(authority);
        let again = |authority: &Authority| Authority::read(authority.to_pem().as_bytes()).unwrap();
        let by = |clients: &Authority, beside: &Authority, peers: &Authority, beside_peers: &Authority| {
            let clients = again(clients).beside(beside.believed());
            let peers = again(peers).beside(beside_peers.believed());
            etcd::issue(&member, &clients, &peers, NOW).unwrap()
        };
        let steps = [
            (etcd::issue(&member, &clients, &peers, NOW).unwrap(), true),
            (by(&clients, &new_clients, &peers, &new_peers), true),
            (by(&new_clients, &clients, &new_peers, &peers), false),
            (etcd::issue(&member, &new_clients, &new_peers, NOW).unwrap(), true),
        ];
        for (given, restarts) in &steps {
            assert_eq!(etcd::is_to_restart(&directory, given).unwrap(), *restarts);
            let kept = etcd::take(&directory, given, &member, owner).unwrap();
            assert_eq!((kept.made.len(), kept.wants_restart), (3, *restarts));
            let kept = etcd::take(&directory, given, &member, owner).unwrap();
            assert_eq!(kept, etcd::Kept::default(), "said again, nothing happens");
            assert!(!etcd::is_to_restart(&directory, given).unwrap());
        }
        // What is believed is refused whole, and nothing changes.
        let before = std::fs::read(directory.join(etcd::CA)).unwrap();
        for (file, text) in [
            (etcd::CA, [&before[..], b"x\n"].concat()),
            (etcd::PEER_CA, b"".to_vec()),
            // Pairs of an authority that is not believed any more.
            (etcd::CA, clients.certificate_pem().into_bytes()),
        ] {
            let mut given = steps[3].0.clone();
            given.insert(file, text);
            let error = etcd::take(&directory, &given, &member, owner).unwrap_err();
            assert!(Chain(&error).to_string().starts_with("reading the credential etcd."), "{error}");
            assert_eq!(std::fs::read(directory.join(etcd::CA)).unwrap(), before);
        }
    }
}
