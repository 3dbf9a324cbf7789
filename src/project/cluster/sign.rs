//! New certificates for members that ask for them: the authorities in the cluster's directory sign what stands in etcd.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{AUTHORITIES, MOST_BYTES, OPERATOR};
use crate::base::input;
use crate::cluster::Access;
use crate::cluster::sign::{self, Signer, Treated};
use crate::pki::Authority;

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
    /// Asks the cluster as its operator, and signs.
    ///
    /// # Errors
    /// A directory that `init` did not make, and what the cluster says. A request that is refused is no error.
    pub fn run(&self) -> Result<Vec<Treated>> {
        let [clients, peers] = AUTHORITIES.map(|name| authority(&self.directory.join(name)));
        let (clients, peers) = (clients?, peers?);
        let access = Access::of_operator(&self.directory.join(OPERATOR))?;
        let signer = Signer { list: &access.list, clients: &clients, peers: &peers, now: self.now };
        Ok(sign::sign(&access, &signer, &self.members, self.dry_run)?)
    }
}

fn authority(path: &Path) -> Result<Authority> {
    let doing = || format!("reading {}: `keller cluster init` makes it", path.display());
    Authority::read(&input::read(path, MOST_BYTES).with_context(doing)?).with_context(doing)
}
