//! New certificates for members that ask for them: the authorities in the cluster's directory sign what stands in etcd.

use std::path::PathBuf;

use anyhow::Result;

use super::succession::Successions;
use super::{OPERATOR, directory};
use crate::cluster::Access;
use crate::cluster::sign::{self, Signer, Treated};

/// Requests that are to be signed.
#[derive(Clone, Debug)]
pub struct Sign {
    /// That `keller cluster init` made.
    pub directory: PathBuf,
    /// Members whose requests are signed; without any, all.
    pub members: Vec<String>,
    /// Whether they are judged alone.
    pub dry_run: bool,
    /// Seconds since 1970.
    pub now: i64,
}

impl Sign {
    /// Asks the cluster as its operator, and signs by the authorities that sign now. A member vouches for its request with a
    /// certificate of any that is believed now.
    ///
    /// # Errors
    /// A directory that `init` did not make, and what the cluster says. A request that is refused is no error.
    pub fn run(&self) -> Result<Vec<Treated>> {
        // None takes another's place meanwhile.
        let _lock = directory::lock(&self.directory)?;
        let authorities = Successions::read(&self.directory)?;
        let (clients, peers) = (authorities.clients.authority()?, authorities.peers.authority()?);
        let access = Access::of_operator(&self.directory.join(OPERATOR))?;
        let signer = Signer { list: &access.list, clients: &clients, peers: &peers, now: self.now };
        Ok(sign::sign(&access, &signer, &self.members, self.dry_run)?)
    }
}
