//! The etcd of this node: its certificates, whether it is healthy, and when a member of a cluster may start.

mod door;
mod gate;
mod listed;
pub mod member;
pub mod promote;
pub mod renew;
pub mod restart;
pub mod restore;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::accounts;
use super::settings::Settings;
use super::{clock, systemd};
use crate::base::Chain;
use crate::base::failure::{Doing, Failure};
use crate::base::progress::Progress;
use crate::etcd::{Client, Credentials};
use crate::http;
use crate::node;
use crate::pki::etcd::{self, Member};

/// For an answer, which has some 30 bytes.
const PATIENCE: Duration = Duration::from_secs(5);
/// For all that [`health`] asks.
pub const JUDGEMENT: Duration = PATIENCE.saturating_mul(4);
/// More than this is not what is asked for.
const MOST_BYTES: u64 = 16 << 10;
const UNIT: &str = "etcd.service";
/// Where the node document's secrets are.
const CREDENTIALS: &str = "/run/credstore";

/// Makes the certificates that are missing, and renews those that end: before each start of etcd, once a day, and when
/// the clock has jumped. etcd goes on where only pairs are new, since it reads those for each connection.
pub fn certificates(progress: &dyn Progress) -> Result<(), Failure> {
    let owner = accounts::find(Path::new("/"), etcd::USER)?;
    // A clock that shows less than the image's own age is not set yet. What it says then must not make a certificate
    // that has ended when it is.
    let now = clock::shown().max(Settings::image()?.epoch);
    let directory = Path::new(etcd::DIRECTORY);
    let kept = match member::cluster()? {
        None => etcd::keep(directory, &Member::single(), owner, now, progress)?,
        Some(cluster) => {
            let member = Member::of_cluster(&cluster.me, cluster.address());
            let given = given()?;
            // Nothing is written before it may: else the next run would not know of the restart any more.
            if etcd::is_to_restart(directory, &given)? {
                restart::for_authorities(progress)?;
            }
            etcd::take(directory, &given, &member, owner)?
        }
    };
    for file in &kept.made {
        progress.detail(&format!("made {}/{file}", etcd::DIRECTORY));
    }
    if kept.wants_restart {
        progress.detail(&format!("{UNIT} is to believe other authorities now: it is restarted if it runs"));
        // Without waiting: this may run as part of its start, which it does not disturb.
        systemd::systemctl(&["--no-block", "try-restart", UNIT])?;
    }
    Ok(())
}

/// What the node document gives a member.
fn given() -> Result<etcd::Given, Failure> {
    let read = |file| {
        let path = format!("{CREDENTIALS}/{}{file}", node::cluster::PREFIX);
        fs::read(&path).map(|bytes| (file, bytes)).doing(format!("reading {path}"))
    };
    node::cluster::FILES.into_iter().map(read).collect()
}

/// Whether the etcd at `address` is whole, asked with the client certificate in `directory`: no alarm is raised, a majority
/// is there, this member has all that the majority had when it was asked, and it has a vote.
pub fn health(directory: &Path, address: SocketAddr) -> Result<(), String> {
    answers_well(directory, address)?;
    votes(directory, address).map_err(|failure| Chain(&failure).to_string())?
}

/// Whether it has a vote. etcd's own word of its health is the same with one and without.
fn votes(directory: &Path, address: SocketAddr) -> Result<Result<(), String>, Failure> {
    let doing = || format!("asking {address} for its vote");
    let read = |name: &str| {
        let path = directory.join(name);
        fs::read(&path).doing(format!("reading {}", path.display()))
    };
    let credentials = Credentials::new(&read(etcd::CA)?, &read(etcd::CLIENT)?).doing(doing())?;
    let known = Client::connect(address, &credentials, PATIENCE).and_then(|mut client| client.status());
    Ok(match known.doing(doing())?.status.is_learner {
        true => Err("this member is a learner, and has no vote before it has caught up".to_owned()),
        false => Ok(()),
    })
}

/// Asks as `etcdctl endpoint health` does. etcd answers with true once it has read through a majority: what that had then,
/// it has applied.
fn answers_well(directory: &Path, address: SocketAddr) -> Result<(), String> {
    let body = ask(directory, address).map_err(|failure| Chain(&failure).to_string())?;
    let says = serde_json::from_str::<serde_json::Value>(body.trim()).unwrap_or_default();
    match says.get("health").and_then(|health| health.as_str()) {
        Some("true") => Ok(()),
        _ if body.trim().is_empty() => Err("an answer without content".to_owned()),
        _ => Err(body.trim().to_owned()),
    }
}

fn ask(directory: &Path, address: SocketAddr) -> Result<String, Failure> {
    let read = |name: &str| {
        let path = directory.join(name);
        fs::read(&path).doing(format!("reading {}", path.display()))
    };
    let url = format!("https://{address}/health");
    let body = http::get_as(&url, &read(etcd::CA)?, &read(etcd::CLIENT)?, PATIENCE, MOST_BYTES);
    Ok(String::from_utf8_lossy(&body.doing(format!("asking {url}"))?).into_owned())
}

#[cfg(test)]
mod tests;
