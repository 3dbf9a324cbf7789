//! Other authorities for a cluster that runs, in three steps, after each of which every member gets its document anew.
//!
//! 1. New authorities are made. Each document believes the old ones and the new ones; certificates stay.
//! 2. The new ones sign: each document has new certificates. The keys of the old ones go.
//! 3. Each document believes the new ones alone.
//!
//! At each step a member believes what members that are one step before or after show, so that they can get their documents
//! one after the other. The next step begins only when all members show that they have this one.
//!
//! What lies in the directory says which step it is at. All writes of a step are in one order: authorities first, so that no
//! document believes one whose key was lost; then documents, each whole; then what the operator has, which must go with members
//! that are at either step. Wherever that is cut off, what is missing is found by reading the directory again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::directory::{self, renewed};
use super::succession::{Stage, Succession, Successions, Write};
use super::{AUTHORITIES, OPERATOR, given_to_client, of_operator};
use crate::base::input;
use crate::cluster::access::{LIST, List};
use crate::cluster::trust::{self, Asked, Lag};
use crate::cluster::{Access, View};
use crate::etcd::Credentials;
use crate::node::cluster::{FILES, PREFIX};
use crate::node::signature::unsigned;
use crate::node::{self, Document};
use crate::pki::etcd::{self, Given, Member};
use crate::pki::{self, Bundle, Role, Wanted};

/// An authority is replaced without being asked for when it ends before this time is over.
const SOON_SECONDS: i64 = 365 * 86_400;

/// A step to be done.
#[derive(Clone, Debug)]
pub struct Replace {
    /// That `keller cluster init` made.
    pub directory: PathBuf,
    /// Whether a replacement begins although the authorities do not end soon.
    pub begin: bool,
    /// Members that are gone for good, or get their document before they start again.
    pub without: Vec<String>,
    /// Seconds since 1970.
    pub now: i64,
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Did {
    /// Nothing: there is one authority, and it is good for long.
    Nothing,
    /// What an earlier run was cut off in.
    Finished,
    /// The next step.
    Advanced,
    /// Nothing: members are behind.
    Waits,
}

/// Where a replacement is.
#[derive(Debug)]
pub struct Replaced {
    /// Of the cluster.
    pub cluster: String,
    /// Where it is now.
    pub stage: Stage,
    /// What was done.
    pub did: Did,
    /// Files that are written, in their order.
    pub wrote: Vec<PathBuf>,
    /// Documents of members, which each of them is to have now.
    pub members: BTreeMap<String, PathBuf>,
    /// The same of nodes that are clients, which nobody can ask.
    pub clients: BTreeMap<String, PathBuf>,
    /// Members and clients of which no document is here.
    pub missing: Vec<String>,
    /// Documents whose signature is not valid any more.
    pub unsigned: Vec<PathBuf>,
    /// Members that are not as far.
    pub behind: Vec<Lag>,
    /// When the authorities end that sign now: seconds since 1970.
    pub ends: i64,
    writes: Vec<Write>,
}

/// A document in the directory, and what it is to be.
struct Due {
    name: String,
    path: PathBuf,
    is_member: bool,
    was_signed: bool,
    /// Nothing where it is so already.
    text: Option<String>,
}

impl Replace {
    /// Looks where the replacement is, asks the cluster by `look`, and does what is next.
    ///
    /// # Errors
    /// A directory that `init` did not make, or of more than one cluster; members that are named and answer; what the disk says.
    pub fn run(&self, look: &dyn Fn(&Access) -> View) -> Result<Replaced> {
        let _lock = directory::lock(&self.directory)?;
        let replaced = self.plan(look)?;
        replaced.writes.iter().try_for_each(Write::run)?;
        Ok(replaced)
    }

    /// The same, and nothing is written.
    ///
    /// # Errors
    /// The same.
    pub fn try_run(&self, look: &dyn Fn(&Access) -> View) -> Result<Replaced> {
        self.plan(look)
    }

    fn plan(&self, look: &dyn Fn(&Access) -> View) -> Result<Replaced> {
        let list = directory::list(&self.directory)?;
        if let Some(name) = self.without.iter().find(|name| !list.members.contains_key(*name)) {
            let known: Vec<&str> = list.members.keys().map(String::as_str).collect();
            bail!("the cluster has no member {name}: it has {}", known.join(", "));
        }
        let now = Successions::read(&self.directory)?;
        let (stage, is_whole) = now.stage()?;
        self.judge(&list, &now)?;
        if !is_whole {
            let (then, writes) = now.advance(&list.name, false, self.now)?;
            return self.told(&list, stage, Did::Finished, &then, writes);
        }
        let there = self.told(&list, stage, Did::Finished, &now, Vec::new())?;
        let of_nodes = |write: &Write| matches!(write, Write::File(path, _) if !path.starts_with(self.directory.join(OPERATOR)));
        if there.writes.iter().any(of_nodes) {
            return Ok(there);
        }
        if self.begin && stage != Stage::Alone {
            bail!(
                "the authorities are being replaced already, and the step before is done here: leave out --begin to go on"
            );
        }
        let behind = self.behind(look(&self.access(&now)?), stage, &now)?;
        let is_due =
            stage != Stage::Alone || self.begin || there.ends < self.now.saturating_add(SOON_SECONDS);
        if !is_due || !behind.is_empty() {
            let did = if is_due { Did::Waits } else { Did::Nothing };
            return Ok(Replaced { did, behind, ..there });
        }
        let (then, writes) = now.advance(&list.name, true, self.now)?;
        // What the operator lacked comes with it.
        self.told(&list, stage.then(), Did::Advanced, &then, writes)
    }

    /// What follows from the authorities `now` for all documents, after the writes that led to them.
    fn told(
        &self,
        list: &List,
        stage: Stage,
        did: Did,
        now: &Successions,
        mut writes: Vec<Write>,
    ) -> Result<Replaced> {
        let mut told = Replaced {
            cluster: list.name.clone(),
            stage,
            did,
            wrote: Vec::new(),
            members: BTreeMap::new(),
            clients: BTreeMap::new(),
            missing: Vec::new(),
            unsigned: Vec::new(),
            behind: Vec::new(),
            ends: now.clients.signs.ends().min(now.peers.signs.ends()),
            writes: Vec::new(),
        };
        for name in list.members.keys().chain(&list.clients) {
            let Some(due) = self.due(list, name, now)? else {
                told.missing.push(name.clone());
                continue;
            };
            let documents = if due.is_member { &mut told.members } else { &mut told.clients };
            documents.insert(due.name, due.path.clone());
            if let Some(text) = due.text {
                told.unsigned.extend(due.was_signed.then(|| due.path.clone()));
                writes.push(Write::File(due.path, text));
            }
        }
        writes.extend(self.operator(list, now)?);
        let path = |write: &Write| match write {
            Write::File(path, _) | Write::Rename(_, path) | Write::Remove(path) => path.clone(),
        };
        told.wrote = writes.iter().map(path).collect();
        Ok(Replaced { writes, ..told })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.yaml"))
    }

    /// The document of `name`, if it is here.
    fn document(&self, name: &str) -> Result<Option<Document>> {
        let path = self.path(name);
        if path.symlink_metadata().is_err() {
            return Ok(None);
        }
        let bytes =
            input::read(&path, node::LARGEST + 1).with_context(|| format!("reading {}", path.display()))?;
        let documents = node::read(&path.to_string_lossy(), &bytes)?;
        match <[Document; 1]>::try_from(documents) {
            Ok([document]) if document.name.as_deref() == Some(name) => Ok(Some(document)),
            _ => bail!("{} is not the document of {name}, and of it alone", path.display()),
        }
    }

    /// Whether all certificates here are of the authorities here: else another cluster's would be replaced by these.
    fn judge(&self, list: &List, now: &Successions) -> Result<()> {
        let operator = self.directory.join(OPERATOR).join(etcd::CLIENT);
        let text = input::read(&operator, super::MOST_BYTES)
            .with_context(|| format!("reading {}", operator.display()))?;
        let other = |what: &Path, authority: &str, mend: &str| {
            format!(
                "a certificate in {} is of another authority than that in {}: it is another cluster's, or of one that \
                 was replaced before. {mend}",
                what.display(),
                self.directory.join(authority).display()
            )
        };
        let has_signed = |of: &Succession, pem: &[u8]| {
            let believed = of.believed();
            pki::Pair::read(pem).is_ok_and(|pair| believed.has_signed(pair.certificate()))
        };
        if !has_signed(&now.clients, &text) {
            let mend = "Where it is this cluster's, `keller cluster issue DIR --operator` makes it anew";
            bail!(other(&operator, AUTHORITIES[0], mend));
        }
        for name in list.members.keys().chain(&list.clients) {
            let Some(document) = self.document(name)? else { continue };
            for (file, authority, of) in [
                (etcd::SERVER, AUTHORITIES[0], &now.clients),
                (etcd::CLIENT, AUTHORITIES[0], &now.clients),
                (etcd::PEER, AUTHORITIES[1], &now.peers),
            ] {
                let pem = document.credentials.get(&format!("{PREFIX}{file}"));
                if pem.is_some_and(|pem| !has_signed(of, &pem.0)) {
                    let kind = if list.members.contains_key(name) { "--member" } else { "--client" };
                    let mend = format!(
                        "Where it is this cluster's, `keller cluster issue DIR {kind} {name}` makes it anew"
                    );
                    bail!(other(&self.path(name), authority, &mend));
                }
            }
        }
        Ok(())
    }

    /// What the document of `name` lacks.
    fn due(&self, list: &List, name: &str, now: &Successions) -> Result<Option<Due>> {
        let Some(document) = self.document(name)? else { return Ok(None) };
        let path = self.path(name);
        let ip = list.members.get(name);
        let of_cluster = document.cluster.as_ref().map(|cluster| (cluster.name.as_str(), cluster.address()));
        if of_cluster != ip.map(|ip| (list.name.as_str(), *ip)) {
            bail!("{} is not the document of {name} as {} lists it", path.display(), list.name);
        }
        let pem =
            |file: &str| document.credentials.get(&format!("{PREFIX}{file}")).map(|pem| pem.0.as_slice());
        let believes = |file, of: &Succession| {
            pem(file)
                .is_some_and(|pem| Bundle::read(pem).is_ok_and(|believed| believed.is_same(&of.believed())))
        };
        let (wanted, authorities, files): (Vec<(&str, Wanted)>, &[&'static str], &[&'static str]) = match ip {
            Some(ip) => (Member::of_cluster(name, *ip).wanted().into(), &[etcd::CA, etcd::PEER_CA], &FILES),
            None => {
                let client = Wanted { role: Role::Client, name: name.to_owned(), hosts: Vec::new() };
                (vec![(etcd::CLIENT, client)], &[etcd::CA], &[etcd::CA, etcd::CLIENT])
            }
        };
        let is_by_signer = |(file, wanted): &(&str, Wanted)| {
            let of = if wanted.role == Role::Peer { &now.peers } else { &now.clients };
            pem(file).is_some_and(|pem| pki::read(pem, &of.signs.believed(), wanted).is_ok())
        };
        let text = if !wanted.iter().all(is_by_signer) {
            Some(self.renewed(&path, &self.given(name, ip.copied(), now)?, files)?)
        } else if believes(etcd::CA, &now.clients) && (ip.is_none() || believes(etcd::PEER_CA, &now.peers)) {
            None
        } else {
            let given = [(etcd::CA, &now.clients), (etcd::PEER_CA, &now.peers)];
            let given: Given = given.map(|(file, of)| (file, of.believed().to_pem().into_bytes())).into();
            Some(self.renewed(&path, &given, authorities)?)
        };
        let was_signed = unsigned(&document.text).len() < document.text.len();
        Ok(Some(Due { name: name.to_owned(), path, is_member: ip.is_some(), was_signed, text }))
    }

    fn renewed(&self, path: &Path, given: &Given, files: &[&'static str]) -> Result<String> {
        renewed(path, given, files).with_context(|| format!("renewing {}", path.display()))
    }

    /// New certificates for `name`, by the authorities that sign now.
    fn given(&self, name: &str, ip: Option<std::net::IpAddr>, now: &Successions) -> Result<Given> {
        let clients = now.clients.authority()?;
        match ip {
            Some(ip) => {
                Ok(etcd::issue(&Member::of_cluster(name, ip), &clients, &now.peers.authority()?, self.now)?)
            }
            None => given_to_client(name, &clients, self.now),
        }
    }

    /// What the operator's directory lacks. Its certificate changes when all members believe who signs it.
    fn operator(&self, list: &List, now: &Successions) -> Result<Vec<Write>> {
        let home = self.directory.join(OPERATOR);
        let read = |file: &str| input::read(home.join(file), super::MOST_BYTES).unwrap_or_default();
        let is_same = |file: &str, of: &Succession| {
            Bundle::read(&read(file)).is_ok_and(|believed| believed.is_same(&of.believed()))
        };
        let wanted = Wanted { role: Role::Client, name: OPERATOR.to_owned(), hosts: Vec::new() };
        let mut writes = Vec::new();
        let new = of_operator(list, &now.clients.authority()?, &now.peers.authority()?, self.now)?;
        for (path, text) in new {
            let file = Path::new(&path).file_name().unwrap_or_default().to_string_lossy().into_owned();
            let is_so = match file.as_str() {
                etcd::CA => is_same(&file, &now.clients),
                etcd::PEER_CA => is_same(&file, &now.peers),
                etcd::CLIENT => pki::read(&read(&file), &now.clients.signs.believed(), &wanted).is_ok(),
                LIST => true,
                _ => bail!("{path} is not a file of the operator"),
            };
            if !is_so {
                writes.push(Write::File(self.directory.join(path), text));
            }
        }
        Ok(writes)
    }

    /// How the cluster is asked, with a look at what members show to each other.
    fn access(&self, now: &Successions) -> Result<Access> {
        let access = Access::of_operator(&self.directory.join(OPERATOR))?;
        let peer = Credentials::without_identity(now.peers.believed().to_pem().as_bytes())?;
        Ok(Access { peer: Some(peer), ..access })
    }

    /// Members that do not show that they are at `stage`.
    fn behind(&self, view: View, stage: Stage, now: &Successions) -> Result<Vec<Lag>> {
        let asked = |of: &Succession| {
            let signs = of.signs.believed().names();
            let shown = (stage != Stage::Next).then(|| signs.concat());
            let all = if stage == Stage::Next { of.believed().names() } else { signs };
            Asked { shown, believed: BTreeSet::from_iter(all), alone: stage == Stage::Alone }
        };
        let lagging = trust::lagging(&view, &asked(&now.clients), &asked(&now.peers));
        if let Some(lag) = lagging.iter().find(|lag| lag.answers && self.without.contains(&lag.member)) {
            bail!(
                "{} is named with --without, and answers: it is not gone, and would be locked out. {}",
                lag.member,
                lag.why
            );
        }
        Ok(lagging.into_iter().filter(|lag| !self.without.contains(&lag.member)).collect())
    }
}

#[cfg(test)]
mod tests;
