//! The certificates of one etcd member, and where they lie.
//!
//! Clients and peers have an authority each: a client's certificate must not open the port of the peers, where nobody
//! asks for rights.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use super::{Authority, Bundle, Directory, Error, Owner, Role, Wanted};
use crate::base::failure::{Doing, Failure};
use crate::base::progress::Progress;

/// Where they lie on a node.
pub const DIRECTORY: &str = "/var/lib/keller/pki/etcd";
/// The authorities that servers and clients believe: certificates.
pub const CA: &str = "ca.pem";
/// The authorities that peers believe: certificates.
pub const PEER_CA: &str = "peer-ca.pem";
/// What the server shows to clients: key and certificate.
pub const SERVER: &str = "server.pem";
/// What a member shows to others: key and certificate.
pub const PEER: &str = "peer.pem";
/// With this, root is a client: key and certificate.
pub const CLIENT: &str = "client.pem";
/// The system user that etcd runs as.
pub const USER: &str = "etcd";
/// Where a single member answers its clients, without a scheme.
pub const CLIENT_ADDRESS: &str = "127.0.0.1:2379";
/// Where a single member would answer its peers, without a scheme.
pub const PEER_ADDRESS: &str = "127.0.0.1:2380";
/// The port on which members answer clients.
pub const CLIENT_PORT: u16 = 2379;
/// The port on which members answer each other.
pub const PEER_PORT: u16 = 2380;
/// What a member of a cluster reads besides, for one start: how it begins.
pub const ENVIRONMENT: &str = "/run/keller/etcd.env";
/// That all members of a new cluster were without data: its name. It outlives a power cut, and goes once etcd is ready.
pub const AGREED: &str = "/var/lib/keller/etcd-agreed";
/// Below it lie the data of members, each in a directory of its own.
pub const DATA: &str = "/var/lib/etcd";
/// The name of a single member.
pub const MEMBER: &str = "default";
/// The variable of the member's name.
pub const NAME: &str = "ETCD_NAME";
/// The variable of the addresses that a new member gives to others, with commas between them.
pub const PEER_URLS: &str = "ETCD_INITIAL_ADVERTISE_PEER_URLS";
/// The variable of the members of a new cluster, each `NAME=ADDRESS`. etcd does not start unless it has what the two
/// others say.
pub const CLUSTER: &str = "ETCD_INITIAL_CLUSTER";

/// Key and certificate of the authority of servers and clients.
const AUTHORITY: &str = "authority.pem";
/// Key and certificate of the authority of peers.
const PEER_AUTHORITY: &str = "peer-authority.pem";

/// A member, as its certificates name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Common name of the server and of the peer.
    pub name: String,
    /// Names and addresses that others reach it by.
    pub hosts: Vec<String>,
    /// Common name of the node's own client: the user that etcd takes it for.
    pub client: String,
}

impl Member {
    /// The only member, on loopback, which root of the node uses.
    pub fn single() -> Self {
        let hosts = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
        Self { name: MEMBER.to_owned(), hosts, client: "root".to_owned() }
    }

    /// A member of a cluster, which others reach at `address`.
    pub fn of_cluster(name: &str, address: IpAddr) -> Self {
        let single = Self::single();
        let hosts = [vec![name.to_owned(), address.to_string()], single.hosts].concat();
        Self { name: name.to_owned(), hosts, ..single }
    }

    /// Its pairs, by the names of their files.
    pub fn wanted(&self) -> [(&'static str, Wanted); 3] {
        let pair = |role, name: &str, hosts: &[String]| Wanted {
            role,
            name: name.to_owned(),
            hosts: hosts.to_vec(),
        };
        [
            (SERVER, pair(Role::Server, &self.name, &self.hosts)),
            (PEER, pair(Role::Peer, &self.name, &self.hosts)),
            (CLIENT, pair(Role::Client, &self.client, &[])),
        ]
    }
}

impl Role {
    /// The file of the authority that signs such a pair.
    pub(super) fn authority(self) -> &'static str {
        match self {
            Self::Server | Self::Client => CA,
            Self::Peer => PEER_CA,
        }
    }

    /// Who reads such a pair, where etcd runs as `etcd`.
    pub(super) fn reader(self, etcd: Owner) -> Owner {
        match self {
            Self::Server | Self::Peer => etcd,
            Self::Client => Owner::this_process(),
        }
    }
}

/// What [`keep`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Files that were made anew.
    pub made: Vec<&'static str>,
    /// Whether an authority is another one now, so that an etcd that runs does not know it. etcd reads pairs for each
    /// connection, and authorities when it starts.
    pub wants_restart: bool,
}

/// Makes what is missing in `directory` and renews what ends, for an etcd that runs as `etcd`. `now` is in seconds since
/// 1970.
pub fn keep(
    directory: &Path,
    member: &Member,
    etcd: Owner,
    now: i64,
    progress: &dyn Progress,
) -> Result<Kept, Failure> {
    let directory = Directory::open(directory, etcd.gid)?;
    let authority = directory.authority(AUTHORITY, "etcd authority", now, progress)?;
    let peers = directory.authority(PEER_AUTHORITY, "etcd peer authority", now, progress)?;
    let mut made = Vec::new();
    for (file, wanted) in member.wanted() {
        let owner = wanted.role.reader(etcd);
        let authority = if wanted.role == Role::Peer { &peers } else { &authority };
        if directory.pair(file, &wanted, owner, (authority, now), progress)? {
            made.push(file);
        }
    }
    // Last, and the clients' at the very end: as long as it is the old one, the next run still knows of the restart.
    let other = directory.trust(PEER_CA, &peers)?;
    let wants_restart = directory.trust(CA, &authority)? || other;
    Ok(Kept { made, wants_restart })
}

/// What a member of a cluster was given: files by the names that they have here.
pub type Given = BTreeMap<&'static str, Vec<u8>>;

/// Makes what `member` is given, signed by the authorities of servers and clients, and of peers.
pub fn issue(member: &Member, clients: &Authority, peers: &Authority, now: i64) -> Result<Given, Error> {
    let mut given = Given::from([
        (CA, clients.believed().to_pem().into_bytes()),
        (PEER_CA, peers.believed().to_pem().into_bytes()),
    ]);
    for (name, wanted) in member.wanted() {
        let authority = if wanted.role == Role::Peer { peers } else { clients };
        given.insert(name, authority.issue(&wanted, now)?.to_pem().into_bytes());
    }
    Ok(given)
}

/// Puts what was given to a member in place of what is in `directory`, if all of it is what it should be. A pair that is
/// there stays if the same authority signed it, and it ends later: the member got it by [`renewal`]. What the
/// node made for itself before it was a member goes.
///
/// [`renewal`]: super::renewal
pub fn take(directory: &Path, given: &Given, member: &Member, etcd: Owner) -> Result<Kept, Failure> {
    let (clients, peers) = (bundle(given, CA)?, bundle(given, PEER_CA)?);
    let mut pairs = Vec::new();
    for (name, wanted) in member.wanted() {
        let authorities = if wanted.role == Role::Peer { &peers } else { &clients };
        let pair = super::read(of(given, name)?, authorities, &wanted);
        let pair = pair.doing(format!("reading the credential etcd.{name}")).map_err(|failure| {
            failure.help(
                "the documents that `keller cluster init` makes hold one that fits; is this another node's?",
            )
        })?;
        pairs.push((name, wanted, authorities, pair));
    }
    let directory = Directory::open(directory, etcd.gid)?;
    let mut made = Vec::new();
    for (name, wanted, authorities, pair) in pairs {
        let stays = directory.has_later(name, &wanted, authorities, &pair)?;
        if !stays && directory.put(name, pair.to_pem().as_bytes(), Some(wanted.role.reader(etcd)))? {
            made.push(name);
        }
    }
    [AUTHORITY, PEER_AUTHORITY].iter().try_for_each(|name| directory.remove(name))?;
    // Last, and the clients' at the very end: as long as it is the old one, the next run still knows of the restart.
    let other = directory.believe(PEER_CA, &peers)?;
    let wants_restart = directory.believe(CA, &clients)? || other;
    Ok(Kept { made, wants_restart })
}

/// Whether [`take`] would change which authorities are believed, so that an etcd that runs has to be restarted for it.
pub fn is_to_restart(directory: &Path, given: &Given) -> Result<bool, Failure> {
    let differs = |name| -> Result<bool, Failure> {
        let new = bundle(given, name)?;
        let old = std::fs::read(directory.join(name)).ok().and_then(|text| Bundle::read(&text).ok());
        Ok(old.is_none_or(|old| !old.is_same(&new)))
    };
    Ok(differs(CA)? || differs(PEER_CA)?)
}

fn of<'a>(given: &'a Given, name: &str) -> Result<&'a [u8], Failure> {
    let bytes = given.get(name).ok_or(Error::Missing("content"));
    bytes.map(Vec::as_slice).doing(format!("reading the credential etcd.{name}"))
}

fn bundle(given: &Given, name: &str) -> Result<Bundle, Failure> {
    Bundle::read(of(given, name)?).doing(format!("reading the credential etcd.{name}"))
}

/// What etcd reads from its environment, so that it answers nobody without a certificate. The files lie in `directory`.
pub fn environment(directory: &str) -> Vec<(&'static str, String)> {
    let file = |name: &str| format!("{directory}/{name}");
    let client = format!("https://{CLIENT_ADDRESS}");
    let peer = format!("https://{PEER_ADDRESS}");
    vec![
        (NAME, MEMBER.to_owned()),
        ("ETCD_LISTEN_CLIENT_URLS", client.clone()),
        ("ETCD_ADVERTISE_CLIENT_URLS", client),
        ("ETCD_CERT_FILE", file(SERVER)),
        ("ETCD_KEY_FILE", file(SERVER)),
        ("ETCD_TRUSTED_CA_FILE", file(CA)),
        ("ETCD_CLIENT_CERT_AUTH", "true".to_owned()),
        ("ETCD_LISTEN_PEER_URLS", peer.clone()),
        (PEER_URLS, peer.clone()),
        (CLUSTER, format!("{MEMBER}={peer}")),
        ("ETCD_PEER_CERT_FILE", file(PEER)),
        ("ETCD_PEER_KEY_FILE", file(PEER)),
        ("ETCD_PEER_TRUSTED_CA_FILE", file(PEER_CA)),
        ("ETCD_PEER_CLIENT_CERT_AUTH", "true".to_owned()),
    ]
}
