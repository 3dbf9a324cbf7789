//! A new cluster of etcd: its authorities, and a node document for each member.

mod authority;
mod directory;
mod issue;
mod sign;
mod succession;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::base::input;
use crate::base::scratch::Scratch;
use crate::cluster::access::{LIST, List};
use crate::node::cluster::PREFIX;
use crate::node::{self, Document};
use crate::pki::etcd::{self, Given, Member};
use crate::pki::{Authority, Role, Wanted};

pub use authority::{Did, Replace, Replaced};
pub use issue::{Issue, Issued};
pub use sign::Sign;
pub use succession::Stage;

/// The authorities of servers and clients, and of peers: keys and certificates.
const AUTHORITIES: [&str; 2] = ["authority.pem", "peer-authority.pem"];
/// Ten years.
const LIFE_SECONDS: i64 = 3653 * 86_400;
/// More than an authority or a list of members has.
const MOST_BYTES: u64 = 64 << 10;
/// The directory, in that of the cluster, of whoever asks from outside; and the name in its certificate.
const OPERATOR: &str = "operator";
/// As etcd's documentation has it: more cost more than they bear.
const MOST_MEMBERS: usize = 7;

/// A cluster that is to be made.
#[derive(Clone, Debug)]
pub struct Init {
    /// Tells clusters apart.
    pub name: String,
    /// Names of nodes and their addresses.
    pub members: Vec<(String, IpAddr)>,
    /// Names of nodes that are clients of it.
    pub clients: Vec<String>,
    /// A file of node documents, which get the cluster's part by `name`.
    pub with: Option<PathBuf>,
    /// A directory that is made.
    pub directory: PathBuf,
    /// Seconds since 1970.
    pub now: i64,
}

/// What was made.
#[derive(Debug)]
pub struct Made {
    /// Documents by the names of members and clients.
    pub documents: BTreeMap<String, PathBuf>,
    /// What sign certificates, and belong to no node.
    pub authorities: [PathBuf; 2],
    /// A directory for whoever asks the cluster from outside.
    pub operator: PathBuf,
    /// What is unwise about it.
    pub warnings: Vec<String>,
}

impl Init {
    /// Makes it: the directory is there whole, or not at all.
    ///
    /// # Errors
    /// Lists that make no cluster, and what the disk says.
    pub fn run(&self) -> Result<Made> {
        let warnings = self.check()?;
        let list = List {
            name: self.name.clone(),
            members: self.members.iter().cloned().collect(),
            clients: self.clients.iter().cloned().collect(),
        };
        let others = self.documents()?;
        let ends = self.now.saturating_add(LIFE_SECONDS);
        let clients = Authority::make_until(&format!("{} authority", self.name), ends)?;
        let peers = Authority::make_until(&format!("{} peer authority", self.name), ends)?;
        let mut files =
            vec![(AUTHORITIES[0].to_owned(), clients.to_pem()), (AUTHORITIES[1].to_owned(), peers.to_pem())];
        for (name, address) in &self.members {
            let given = etcd::issue(&Member::of_cluster(name, *address), &clients, &peers, self.now)?;
            let text = form(&list, name, others.get(name), &given);
            node::read(&format!("{name}.yaml"), text.as_bytes())
                .with_context(|| format!("making the node document of {name}"))?;
            files.push((format!("{name}.yaml"), text));
        }
        for name in &self.clients {
            files.push((
                format!("{name}.yaml"),
                form_of_client(name, &given_to_client(name, &clients, self.now)?)?,
            ));
        }
        files.extend(of_operator(&list, &clients, &peers, self.now)?);
        self.write(&files)?;
        let at = |name: &str| self.directory.join(name);
        let names = self.members.iter().map(|(name, _)| name).chain(&self.clients);
        let documents = names.map(|name| (name.clone(), at(&format!("{name}.yaml"))));
        Ok(Made {
            documents: documents.collect(),
            authorities: AUTHORITIES.map(at),
            operator: at(OPERATOR),
            warnings,
        })
    }

    fn check(&self) -> Result<Vec<String>> {
        let mut names = BTreeMap::new();
        for (name, address) in &self.members {
            if !node::is_host_name(name) {
                bail!("{name:?} is no host name: letters, digits, `-` and `.`, such as rack1-07");
            }
            if let Some(first) = names.insert(name, address) {
                bail!(
                    "{name} stands in the list twice, as {first} and as {address}: each member has a name of its own"
                );
            }
        }
        for name in &self.clients {
            client_name(name)?;
            if let Some(first) = names.get(name) {
                bail!("{name} is a member, at {first}: a client has a name of its own");
            }
        }
        if let Some(twice) =
            self.clients.iter().enumerate().find(|(at, name)| self.clients[..*at].contains(name))
        {
            bail!("{} is named twice as a client", twice.1);
        }
        let count = self.members.len();
        if count > MOST_MEMBERS {
            bail!("{count} members are too many: at most {MOST_MEMBERS}, usually three or five");
        }
        if self.directory.symlink_metadata().is_ok() {
            bail!(
                "{} is there already: name another directory, or remove it if no node has a document of it",
                self.directory.display()
            );
        }
        let is_even = count.is_multiple_of(2);
        Ok(is_even
            .then(|| {
                format!(
                    "{count} members survive the loss of {}, no more than {} would: use an odd number",
                    count.div_ceil(2) - 1,
                    count - 1
                )
            })
            .into_iter()
            .collect())
    }

    /// The documents that members have so far.
    fn documents(&self) -> Result<BTreeMap<String, Document>> {
        let names: Vec<String> = self.members.iter().map(|(name, _)| name.clone()).collect();
        self.with.as_deref().map_or_else(|| Ok(BTreeMap::new()), |file| documents(file, &names))
    }

    fn write(&self, files: &[(String, String)]) -> Result<()> {
        let above = self.directory.parent().filter(|above| !above.as_os_str().is_empty());
        let above = above.unwrap_or(Path::new("."));
        let doing = || format!("writing {}", self.directory.display());
        fs::create_dir_all(above).with_context(doing)?;
        let scratch = Scratch::new_in(above, ".keller-cluster-").with_context(doing)?;
        let whole = scratch.path().join("whole");
        fs::DirBuilder::new().mode(0o700).create(&whole).with_context(doing)?;
        fs::DirBuilder::new().mode(0o700).create(whole.join(OPERATOR)).with_context(doing)?;
        for (name, text) in files {
            let mut options = fs::OpenOptions::new();
            let mut file = options.write(true).create_new(true).mode(0o600).open(whole.join(name))?;
            file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).with_context(doing)?;
        }
        // A directory takes the place of an empty one only.
        fs::rename(&whole, &self.directory).with_context(doing)
    }
}

/// What whoever asks from outside needs, and no more.
fn of_operator(
    list: &List,
    clients: &Authority,
    peers: &Authority,
    now: i64,
) -> Result<[(String, String); 4]> {
    let wanted = Wanted { role: Role::Client, name: OPERATOR.to_owned(), hosts: Vec::new() };
    Ok([
        (etcd::CA, clients.believed().to_pem()),
        (etcd::PEER_CA, peers.believed().to_pem()),
        (etcd::CLIENT, clients.issue(&wanted, now)?.to_pem()),
        (LIST, serde_json::to_string_pretty(list)? + "\n"),
    ]
    .map(|(name, text)| (format!("{OPERATOR}/{name}"), text)))
}

/// Names of users that etcd has for members and operators are nobody else's.
fn client_name(name: &str) -> Result<()> {
    if !node::is_host_name(name) {
        bail!("{name:?} is no host name: letters, digits, `-` and `.`, such as rack1-07");
    }
    if [OPERATOR, "root"].contains(&name) {
        bail!("{name} is the name of a user that may do everything: a client has another");
    }
    Ok(())
}

/// What a client is given.
fn given_to_client(name: &str, clients: &Authority, now: i64) -> Result<Given> {
    let wanted = Wanted { role: Role::Client, name: name.to_owned(), hosts: Vec::new() };
    let pair = clients.issue(&wanted, now)?.to_pem();
    Ok(Given::from([(etcd::CA, clients.believed().to_pem().into_bytes()), (etcd::CLIENT, pair.into_bytes())]))
}

/// The node document of a client.
fn form_of_client(name: &str, given: &Given) -> Result<String> {
    let text = format!("node: {}\nname: {name:?}\n", node::FORM) + &credentials(given);
    node::read(&format!("{name}.yaml"), text.as_bytes())
        .with_context(|| format!("making the node document of {name}"))?;
    Ok(text)
}

fn credentials(given: &Given) -> String {
    let mut text = "credentials:\n".to_owned();
    for (file, bytes) in given {
        text += &format!("  {PREFIX}{file}: |\n");
        String::from_utf8_lossy(bytes).lines().for_each(|pem| text += &format!("    {pem}\n"));
    }
    text
}

/// The documents in `file`, one for each of `names`, which get the cluster's part.
fn documents(file: &Path, names: &[String]) -> Result<BTreeMap<String, Document>> {
    let bytes =
        input::read(file, node::LARGEST + 1).with_context(|| format!("reading {}", file.display()))?;
    let mut documents = BTreeMap::new();
    for document in node::read(&file.to_string_lossy(), &bytes)? {
        let Some(name) = document.name.clone() else {
            bail!("{}: a document has no `name`, so that it belongs to no member", file.display());
        };
        if document.cluster.is_some() || !document.credentials.is_empty() {
            bail!(
                "{}: the document of {name} has `cluster` or `credentials` already: leave them to this command, and \
                 add further credentials to what it writes",
                file.display()
            );
        }
        if !names.contains(&name) {
            bail!(
                "{}: {name} is not among the members: name it with --member, or leave it out",
                file.display()
            );
        }
        if documents.insert(name.clone(), document).is_some() {
            bail!("{}: two documents have the name {name}", file.display());
        }
    }
    if let Some(name) = names.iter().find(|name| !documents.contains_key(*name)) {
        bail!("{} has no document of the member {name}", file.display());
    }
    Ok(documents)
}

/// The node document of `name`.
fn form(list: &List, name: &str, other: Option<&Document>, given: &Given) -> String {
    let mut text = match other {
        // The place between two documents of a file is not of either.
        Some(other) => other.text.trim_start_matches("---").trim_start().trim_end().to_owned() + "\n",
        None => format!("node: {}\nname: {name:?}\n", node::FORM),
    };
    let mut line = |args: std::fmt::Arguments<'_>| {
        text.write_fmt(args).expect("a String takes everything");
        text.push('\n');
    };
    line(format_args!("cluster:\n  name: {:?}\n  members:", list.name));
    list.members.iter().for_each(|(name, ip)| line(format_args!("    {name:?}: \"{ip}\"")));
    text + &credentials(given)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn init(directory: &Path, members: &[(&str, &str)]) -> Init {
        let members = members.iter().map(|(name, ip)| ((*name).to_owned(), ip.parse().unwrap())).collect();
        Init {
            name: "rack1".to_owned(),
            members,
            clients: Vec::new(),
            with: None,
            directory: directory.join("rack1"),
            now: 1_800_000_000,
        }
    }

    const THREE: [(&str, &str); 3] = [("a", "10.0.0.1"), ("b", "10.0.0.2"), ("c", "fd00::3")];

    #[test]
    fn each_member_gets_a_document_that_fits_it() {
        let home = tempfile::tempdir().unwrap();
        let made = init(home.path(), &THREE).run().unwrap();
        assert_eq!(made.warnings, [""; 0]);
        for (name, path) in &made.documents {
            assert_eq!(fs::metadata(path).unwrap().mode() & 0o777, 0o600);
            let documents = node::read("x", &fs::read(path).unwrap()).unwrap();
            let [document] = &documents[..] else { panic!("{documents:?}") };
            assert_eq!(document.name.as_ref(), Some(name));
            let cluster = document.cluster.as_ref().unwrap();
            assert_eq!((cluster.me.as_str(), cluster.members.len()), (name.as_str(), 3));
            // The one reader of what it holds.
            let given = |file| (file, document.credentials[&format!("{PREFIX}{file}")].0.clone());
            let given: Given = node::cluster::FILES.into_iter().map(given).collect();
            let owner = crate::pki::Owner {
                uid: rustix::process::getuid().as_raw(),
                gid: rustix::process::getgid().as_raw(),
            };
            let take = |of: &str| {
                let member = Member::of_cluster(of, cluster.members[of]);
                etcd::take(&home.path().join(of), &given, &member, owner)
            };
            assert!(take(name).is_ok());
            let other = if name == "a" { "b" } else { "a" };
            let error = crate::base::Chain(&take(other).unwrap_err()).to_string();
            assert!(error.contains("etcd.server.pem") && error.contains("another node's"), "{error}");
        }
        assert_eq!(fs::metadata(home.path().join("rack1")).unwrap().mode() & 0o777, 0o700);
        assert_eq!(
            fs::read_dir(home.path()).unwrap().filter(|e| e.as_ref().unwrap().file_name() == "rack1").count(),
            1
        );
        let access = crate::cluster::Access::of_operator(&made.operator).unwrap();
        assert_eq!((access.list.name.as_str(), access.list.members.len()), ("rack1", 3));
        let again = init(home.path(), &THREE).run().unwrap_err().to_string();
        assert!(again.contains("is there already"), "{again}");
    }

    #[test]
    fn the_cluster_joins_what_a_document_says_already() {
        let home = tempfile::tempdir().unwrap();
        let with = home.path().join("rack.yaml");
        let text = "node: 1\nname: a\nlabels: {rack: r1}\n---\nnode: 1\nname: b\nmatch: {serial: S2}\n";
        fs::write(&with, text).unwrap();
        let run = |text: &str, members: &[(&str, &str)]| {
            fs::write(&with, text).unwrap();
            let _ = fs::remove_dir_all(home.path().join("rack1"));
            Init { with: Some(with.clone()), ..init(home.path(), members) }.run()
        };
        let made = run(text, &THREE[..2]).unwrap();
        assert_eq!(
            made.warnings,
            ["2 members survive the loss of 0, no more than 1 would: use an odd number"]
        );
        let b = &node::read("x", &fs::read(&made.documents["b"]).unwrap()).unwrap()[0];
        assert_eq!(b.matches.serial.as_deref(), Some("S2"));
        for (text, says) in [
            ("node: 1\nname: a\n", "no document of the member b"),
            ("node: 1\n", "has no `name`"),
            ("node: 1\nname: a\ncredentials: {x: y}\n", "has `cluster` or `credentials` already"),
            ("node: 1\nname: d\n", "d is not among the members"),
            (
                "node: 1\nname: a\nmatch: {serial: A}\n---\nnode: 1\nname: a\n",
                "two documents have the name a",
            ),
        ] {
            let error = run(text, &THREE[..2]).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn lists_that_make_no_cluster() {
        let home = tempfile::tempdir().unwrap();
        let says = |members: &[(&str, &str)]| format!("{:#}", init(home.path(), members).run().unwrap_err());
        assert!(says(&[("a", "10.0.0.1"), ("a", "10.0.0.2")]).contains("stands in the list twice"));
        let eight: Vec<String> = (1..=8).map(|last| format!("10.0.0.{last}")).collect();
        let eight: Vec<(&str, &str)> = eight.iter().map(|ip| (&ip[7..], ip.as_str())).collect();
        assert!(says(&eight).contains("8 members are too many"));
        assert!(
            says(&[("a", "10.0.0.1"), ("b", "10.0.0.1"), ("c", "10.0.0.3")])
                .contains("address of two members")
        );
        assert!(says(&[("a", "127.0.0.1")]).contains("no address that another machine reaches"));
        let name = says(&[("a_b", "10.0.0.1")]);
        assert!(name.contains("is no host name"), "{name}");
        for (client, wanted) in
            [("a", "a is a member"), ("operator", "may do everything"), ("a b", "no host name")]
        {
            let clients = vec![client.to_owned()];
            let error = format!("{:#}", Init { clients, ..init(home.path(), &THREE) }.run().unwrap_err());
            assert!(error.contains(wanted), "{error}");
        }
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0, "nothing is left");
    }
}
