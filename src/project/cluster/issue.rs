//! Certificates of a cluster that is there: for one more member, or anew for those that end.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::directory::{self, renewed, write};
use super::succession::Successions;
use super::{
    MOST_MEMBERS, OPERATOR, client_name, documents, form, form_of_client, given_to_client, of_operator,
};
use crate::cluster::access::{LIST, List};
use crate::node::cluster::FILES;
use crate::node::{self, Document};
use crate::pki::etcd::{self, Member};

/// Certificates that are to be made, by the authority that signs now; who gets them believes those that are believed now.
#[derive(Clone, Debug)]
pub struct Issue {
    /// That `keller cluster init` made.
    pub directory: PathBuf,
    /// Members; new ones with their address.
    pub members: Vec<(String, Option<IpAddr>)>,
    /// Names of nodes that are clients, new ones and others.
    pub clients: Vec<String>,
    /// Documents that new members have so far.
    pub with: Option<PathBuf>,
    /// Whether whoever asks from outside gets a new one.
    pub operator: bool,
    /// Seconds since 1970.
    pub now: i64,
}

/// What was made.
#[derive(Debug, Default)]
pub struct Issued {
    /// Documents that were not there before, by the names of members.
    pub new: BTreeMap<String, PathBuf>,
    /// Documents that have new certificates.
    pub renewed: BTreeMap<String, PathBuf>,
    /// The operator's directory, if that has a new one.
    pub operator: Option<PathBuf>,
}

impl Issue {
    /// Makes them. What is there and is not named stays as it is.
    ///
    /// # Errors
    /// A directory that `init` did not make, lists that make no cluster, documents that cannot be renewed, and what the disk
    /// says.
    pub fn run(&self) -> Result<Issued> {
        if self.members.is_empty() && self.clients.is_empty() && !self.operator {
            bail!("nothing is to be made: name members with --member, clients with --client, or --operator");
        }
        let _lock = directory::lock(&self.directory)?;
        let mut list = directory::list(&self.directory)?;
        let authorities = Successions::read(&self.directory)?;
        let (clients, peers) = (authorities.clients.authority()?, authorities.peers.authority()?);
        let new = self.admit(&mut list)?;
        let others = match &self.with {
            Some(file) => documents(file, &new)?,
            None => BTreeMap::new(),
        };
        let mut issued = Issued::default();
        let mut files = Vec::new();
        for (name, _) in &self.members {
            let given =
                etcd::issue(&Member::of_cluster(name, list.members[name]), &clients, &peers, self.now)?;
            let path = self.directory.join(format!("{name}.yaml"));
            let text = match path.exists() {
                true => {
                    renewed(&path, &given, &FILES).with_context(|| format!("renewing {}", path.display()))?
                }
                false => form(&list, name, others.get(name), &given),
            };
            self.judge(&path, &text, name, &list)?;
            let made = if path.exists() { &mut issued.renewed } else { &mut issued.new };
            made.insert(name.clone(), path.clone());
            files.push((path, text));
        }
        for name in &self.clients {
            client_name(name)?;
            if list.members.contains_key(name) {
                bail!("{name} is a member: a client has a name of its own");
            }
            list.clients.insert(name.clone());
            let given = given_to_client(name, &clients, self.now)?;
            let path = self.directory.join(format!("{name}.yaml"));
            let (text, made) = match path.exists() {
                true => {
                    let text = renewed(&path, &given, &[etcd::CA, etcd::CLIENT])
                        .with_context(|| format!("renewing {}", path.display()))?;
                    (text, &mut issued.renewed)
                }
                false => (form_of_client(name, &given)?, &mut issued.new),
            };
            made.insert(name.clone(), path.clone());
            files.push((path, text));
        }
        if self.operator {
            let texts = of_operator(&list, &clients, &peers, self.now)?;
            files.extend(texts.map(|(name, text)| (self.directory.join(name), text)));
            issued.operator = Some(self.directory.join(OPERATOR));
        } else {
            let text = serde_json::to_string_pretty(&list)? + "\n";
            files.push((self.directory.join(OPERATOR).join(LIST), text));
        }
        files.iter().try_for_each(|(path, text)| write(path, text))?;
        Ok(issued)
    }

    /// Puts new members into the list; gives their names.
    fn admit(&self, list: &mut List) -> Result<Vec<String>> {
        let mut new = Vec::new();
        let mut named = Vec::new();
        for (name, ip) in &self.members {
            if named.contains(&name) {
                bail!("{name} is named twice");
            }
            named.push(name);
            match (list.members.get(name), ip) {
                (None, None) => bail!("{name} is no member yet: write {name}=ADDRESS"),
                (Some(_), None) => {}
                (Some(old), Some(ip)) if old == ip => {}
                (Some(old), Some(ip)) => bail!(
                    "{name} is at {old}, and not at {ip}: a member keeps its address; remove it, and add one of another name"
                ),
                (None, Some(_)) if list.clients.contains(name) => {
                    bail!("{name} is a client: a member has a name of its own")
                }
                (None, Some(ip)) => {
                    if let Some((other, _)) = list.members.iter().find(|(_, at)| *at == ip) {
                        bail!("{ip} is the address of {other}: each member has an address of its own");
                    }
                    list.members.insert(name.clone(), *ip);
                    new.push(name.clone());
                }
            }
        }
        if !new.is_empty() && list.members.len() > MOST_MEMBERS {
            bail!(
                "{} members are too many: at most {MOST_MEMBERS}. Of those in {}, remove what has gone",
                list.members.len(),
                self.directory.join(OPERATOR).join(LIST).display()
            );
        }
        Ok(new)
    }

    fn judge(&self, path: &Path, text: &str, name: &str, list: &List) -> Result<()> {
        let documents = node::read(&path.to_string_lossy(), text.as_bytes())
            .with_context(|| format!("making the node document of {name}"))?;
        let of = |document: &Document| {
            document
                .cluster
                .as_ref()
                .map(|cluster| (cluster.name.clone(), cluster.me.clone(), cluster.address()))
        };
        match documents.as_slice() {
            [one] if of(one) == Some((list.name.clone(), name.to_owned(), list.members[name])) => Ok(()),
            _ => bail!(
                "{} is not the document of {name} in {} at {}",
                path.display(),
                list.name,
                list.members[name]
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Init;
    use super::*;
    use crate::node::cluster::PREFIX;
    use std::fs;

    const NOW: i64 = 1_800_000_000;

    fn made(home: &Path) -> PathBuf {
        let members = [("a", "10.0.0.1"), ("b", "10.0.0.2"), ("c", "fd00::3")];
        let members = members.map(|(name, ip)| (name.to_owned(), ip.parse().unwrap())).into();
        let directory = home.join("rack1");
        Init {
            name: "rack1".to_owned(),
            members,
            clients: Vec::new(),
            with: None,
            directory: directory.clone(),
            now: NOW,
        }
        .run()
        .unwrap();
        directory
    }

    fn issue(directory: &Path, members: &[(&str, Option<&str>)]) -> Issue {
        let member =
            |(name, ip): &(&str, Option<&str>)| ((*name).to_owned(), ip.map(|ip| ip.parse().unwrap()));
        Issue {
            directory: directory.to_owned(),
            members: members.iter().map(member).collect(),
            clients: Vec::new(),
            with: None,
            operator: false,
            now: NOW + 300 * 86_400,
        }
    }

    fn read(path: &Path) -> Document {
        node::read("x", &fs::read(path).unwrap()).unwrap().remove(0)
    }

    fn client_ends(document: &Document) -> i64 {
        crate::pki::end_of(&document.credentials[&format!("{PREFIX}{}", etcd::CLIENT)].0).unwrap()
    }

    #[test]
    fn one_more_member_has_all_in_its_document() {
        let home = tempfile::tempdir().unwrap();
        let directory = made(home.path());
        let issued = issue(&directory, &[("d", Some("10.0.0.4"))]).run().unwrap();
        let d = read(&issued.new["d"]);
        let cluster = d.cluster.unwrap();
        assert_eq!((cluster.me.as_str(), cluster.members.len()), ("d", 4));
        // Of the same authorities.
        let a = read(&directory.join("a.yaml"));
        let ca = format!("{PREFIX}{}", etcd::CA);
        assert_eq!(d.credentials[&ca].0, a.credentials[&ca].0);
        let list: List =
            serde_json::from_slice(&fs::read(directory.join(OPERATOR).join(LIST)).unwrap()).unwrap();
        assert_eq!(list.members.len(), 4);
        // Said again, it is a renewal.
        assert!(issue(&directory, &[("d", None)]).run().unwrap().renewed.contains_key("d"));
    }

    #[test]
    fn a_renewed_document_keeps_what_was_written_into_it() {
        let home = tempfile::tempdir().unwrap();
        let directory = made(home.path());
        let path = directory.join("a.yaml");
        let text = fs::read_to_string(&path).unwrap() + "  # by hand\n  own: secret\n";
        fs::write(&path, text).unwrap();
        let before = read(&path);
        Issue { operator: true, ..issue(&directory, &[("a", None)]) }.run().unwrap();
        let after = read(&path);
        assert_eq!(client_ends(&after), client_ends(&before) + 300 * 86_400);
        assert_eq!(after.credentials["own"], before.credentials["own"]);
        assert_eq!((&after.name, &after.cluster), (&before.name, &before.cluster));
        assert!(fs::read_to_string(&path).unwrap().contains("  # by hand\n"));
        let operator = fs::read(directory.join(OPERATOR).join(etcd::CLIENT)).unwrap();
        assert_eq!(crate::pki::end_of(&operator).unwrap(), client_ends(&after));
    }

    #[test]
    fn a_client_has_a_certificate_of_its_name_and_is_no_member() {
        let home = tempfile::tempdir().unwrap();
        let directory = made(home.path());
        let clients = |names: &[&str]| Issue {
            clients: names.iter().map(|name| (*name).to_owned()).collect(),
            ..issue(&directory, &[])
        };
        let issued = clients(&["w1"]).run().unwrap();
        let document = read(&issued.new["w1"]);
        assert_eq!((document.name.as_deref(), document.cluster), (Some("w1"), None));
        assert_eq!(document.credentials.len(), 2);
        assert!(clients(&["w1"]).run().unwrap().renewed.contains_key("w1"));
        let list: List =
            serde_json::from_slice(&fs::read(directory.join(OPERATOR).join(LIST)).unwrap()).unwrap();
        assert_eq!((list.members.len(), list.clients), (3, ["w1".to_owned()].into()));
        for (name, wanted) in [("a", "a is a member"), ("root", "may do everything"), ("a b", "no host name")]
        {
            let error = format!("{:#}", clients(&[name]).run().unwrap_err());
            assert!(error.contains(wanted), "{error}");
        }
        let error = format!("{:#}", issue(&directory, &[("w1", Some("10.0.0.7"))]).run().unwrap_err());
        assert!(error.contains("w1 is a client"), "{error}");
    }

    #[test]
    fn what_makes_no_cluster_is_refused_and_changes_nothing() {
        let home = tempfile::tempdir().unwrap();
        let directory = made(home.path());
        let says = |issue: Issue| format!("{:#}", issue.run().unwrap_err());
        let before = fs::read(directory.join("a.yaml")).unwrap();
        for (members, wanted) in [
            (&[][..], "nothing is to be made"),
            (&[("d", None)], "d is no member yet: write d=ADDRESS"),
            (&[("a", Some("10.0.0.9"))], "a is at 10.0.0.1, and not at 10.0.0.9"),
            (&[("d", Some("10.0.0.1"))], "10.0.0.1 is the address of a"),
            (&[("a", None), ("a", None)], "a is named twice"),
        ] {
            let error = says(issue(&directory, members));
            assert!(error.contains(wanted), "{error}");
        }
        let error = says(issue(home.path(), &[("a", None)]));
        assert!(error.contains("one that `keller cluster init` made?"), "{error}");
        // A document of another name, and one whose credentials lie elsewhere.
        fs::copy(directory.join("b.yaml"), directory.join("a.yaml")).unwrap();
        let error = says(issue(&directory, &[("a", None)]));
        assert!(error.contains("is not the document of a"), "{error}");
        fs::write(directory.join("a.yaml"), "node: 1\nname: a\n").unwrap();
        let error = says(issue(&directory, &[("a", None)]));
        assert!(error.contains("it has no line `etcd.ca.pem: |`"), "{error}");
        assert_ne!(fs::read(directory.join("a.yaml")).unwrap(), before);
    }
}
