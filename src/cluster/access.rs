//! Who is asked, and as whom.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::failure::{Doing, Failure};
use crate::base::input;
use crate::etcd::{Client, Credentials, Error, Shown, look};
use crate::node::cluster::Cluster;
use crate::pki::{self, Bundle, etcd};

/// In an operator's directory: which cluster it is for.
pub const LIST: &str = "cluster.json";
/// Longest wait for one answer. A member without a leader takes seconds to answer; on a busy machine without KVM, an answer
/// took more than five.
pub const PATIENCE: Duration = Duration::from_secs(15);
/// More than a certificate with its key has, or a list of members.
const MOST_BYTES: u64 = 64 << 10;

/// A cluster, as whoever is in no list of its members has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct List {
    /// Tells clusters apart.
    pub name: String,
    /// Addresses of members by name.
    pub members: BTreeMap<String, IpAddr>,
    /// Nodes that are clients, each with a part of the keys.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub clients: BTreeSet<String>,
}

/// A certificate that lies here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Dated {
    /// Its file.
    pub file: String,
    /// Seconds since 1970.
    pub ends: i64,
    /// Whether it signs others: of several, it is the one that ends last.
    pub is_authority: bool,
}

/// Who is asked, and as whom.
#[derive(Clone, Debug)]
pub struct Access {
    /// Of the cluster.
    pub list: List,
    /// The member that asks, if one does.
    pub me: Option<String>,
    /// Certificate and key.
    pub credentials: Credentials,
    /// Whom members believe among each other, and what a member shows to others; from outside nothing is shown.
    pub peer: Option<Credentials>,
    /// The certificates that lie beside them.
    pub certificates: Vec<Dated>,
    /// On which members answer clients, and each other.
    pub ports: (u16, u16),
    /// For one answer.
    pub patience: Duration,
}

impl Access {
    /// From a node, whose certificates are in `directory`. Without a cluster it is the only member, on loopback.
    pub fn of_node(cluster: Option<Cluster>, directory: &Path) -> Result<Self, Failure> {
        let (list, me) = match cluster {
            Some(Cluster { name, me, members }) => (List { name, members, clients: BTreeSet::new() }, me),
            None => {
                let only = (etcd::MEMBER.to_owned(), IpAddr::from([127, 0, 0, 1]));
                let name = etcd::MEMBER.to_owned();
                (List { name, members: [only].into(), clients: BTreeSet::new() }, etcd::MEMBER.to_owned())
            }
        };
        let names = [etcd::CA, etcd::PEER_CA, etcd::SERVER, etcd::PEER, etcd::CLIENT];
        let access = Self::new(list, Some(me), directory, &names)?;
        let peer = credentials(directory, etcd::PEER_CA, etcd::PEER)?;
        Ok(Self { peer: Some(peer), ..access })
    }

    /// From outside, with the directory that `keller cluster init` made for an operator.
    pub fn of_operator(directory: &Path) -> Result<Self, Failure> {
        let path = directory.join(LIST);
        let text = input::read(&path, MOST_BYTES).doing(format!("reading {}", path.display()));
        let text = text.map_err(|failure| {
            failure.help("the directory `operator`, in the one that `keller cluster init` made, has it")
        })?;
        let list = serde_json::from_slice(&text).doing(format!("reading {}", path.display()))?;
        let key = directory.join(etcd::CLIENT);
        input::read_private(&key, MOST_BYTES).doing(format!("reading {}", key.display()))?;
        // A directory of an earlier keller does not have it.
        if !directory.join(etcd::PEER_CA).exists() {
            return Self::new(list, None, directory, &[etcd::CA, etcd::CLIENT]);
        }
        let access = Self::new(list, None, directory, &[etcd::CA, etcd::PEER_CA, etcd::CLIENT])?;
        let peer = Credentials::without_identity(&read(directory, etcd::PEER_CA)?);
        let peer = peer.doing(format!("reading {}", directory.join(etcd::PEER_CA).display()))?;
        Ok(Self { peer: Some(peer), ..access })
    }

    fn new(list: List, me: Option<String>, directory: &Path, names: &[&str]) -> Result<Self, Failure> {
        let dated = |name: &&str| {
            let file = directory.join(name).display().to_string();
            let text = read(directory, name)?;
            let is_authority = [etcd::CA, etcd::PEER_CA].contains(name);
            // While one authority takes another's place, the one that lasts counts.
            let ends = match is_authority {
                true => Bundle::read(&text).map(|authorities| authorities.ends()),
                false => pki::end_of(&text),
            };
            Ok(Dated { ends: ends.doing(format!("reading {file}"))?, file, is_authority })
        };
        let certificates = names.iter().map(dated).collect::<Result<_, Failure>>()?;
        let credentials = credentials(directory, etcd::CA, etcd::CLIENT)?;
        let ports = (etcd::CLIENT_PORT, etcd::PEER_PORT);
        Ok(Self { list, me, credentials, peer: None, certificates, ports, patience: PATIENCE })
    }

    /// Where the member at `ip` answers clients.
    pub fn endpoint(&self, ip: IpAddr) -> SocketAddr {
        SocketAddr::new(ip, self.ports.0)
    }

    /// Where the member at `ip` answers other members.
    pub fn peer_url(&self, ip: IpAddr) -> String {
        format!("https://{}", SocketAddr::new(ip, self.ports.1))
    }

    /// Asks the member at `endpoint`.
    pub fn connect(&self, endpoint: SocketAddr) -> Result<Client, Error> {
        Client::connect(endpoint, &self.credentials, self.patience)
    }

    /// What the member at `ip` shows to other members; nothing where it is not known whom they believe.
    pub fn peer_shown(&self, ip: IpAddr) -> Option<Result<Shown, Error>> {
        Some(look(SocketAddr::new(ip, self.ports.1), self.peer.as_ref()?, self.patience))
    }
}

fn read(directory: &Path, name: &str) -> Result<Vec<u8>, Failure> {
    let path = directory.join(name);
    input::read(&path, MOST_BYTES).doing(format!("reading {}", path.display()))
}

fn credentials(directory: &Path, authority: &str, identity: &str) -> Result<Credentials, Failure> {
    Credentials::new(&read(directory, authority)?, &read(directory, identity)?)
        .doing(format!("reading the certificates in {}", directory.display()))
}

/// The address in a URL of etcd's.
pub fn address(url: &str) -> Option<SocketAddr> {
    url.strip_prefix("https://")?.trim_end_matches('/').parse().ok()
}
