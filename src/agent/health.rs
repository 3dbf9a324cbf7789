//! When a boot counts as good: all that the manifest declares holds, and has held for some seconds.
//!
//! This runs as a unit before boot-complete.target; when it ends well, systemd-bless-boot.service takes the try counter
//! off the entry. It asks for single units: to wait until the whole system is up would be to wait for itself.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::missing::Missing;
use super::units::{Fallen, Look, Units};
use super::{etcd, network, node};
use crate::base::atomic;
use crate::base::failure::{Doing, Failure};
use crate::base::kernel;
use crate::base::progress::Progress;
use crate::pki;
use crate::update::settings::Health;

/// What the last judgement was, for `keller update status` and for the version that comes after a fall-back.
pub const VERDICT: &str = "/var/lib/keller/update/health.json";

/// The last that was not good: the next boot, of another version, must not hide it.
const BAD_VERDICT: &str = "/var/lib/keller/update/unhealthy.json";

/// Between two looks, of which each costs a small machine some milliseconds.
const PAUSE: Duration = Duration::from_secs(1);
/// Between two looks where all are active and only time is missing: short enough to count the runs of a unit that
/// ends again and again.
const LONG_PAUSE: Duration = Duration::from_secs(5);

/// How a boot was judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// IMAGE_VERSION that was judged.
    pub version: String,
    /// The boot.
    pub boot: String,
    /// Whether it was good.
    pub good: bool,
    /// What was missing, a line each.
    pub missing: Vec<String>,
}

/// How a judgement ended.
#[derive(Debug, Default)]
pub struct Judged {
    /// What is not as it should be; nothing in a good boot.
    pub missing: Vec<Missing>,
    /// The unit that has failed for good, where that ended the judgement before the deadline.
    pub fallen: Option<Fallen>,
}

/// Waits until all of `health` holds, until `deadline` at the latest. Where it `ends_early`, a unit that has failed for
/// good is not waited for.
pub fn wait(
    health: &Health,
    deadline: Instant,
    ends_early: bool,
    progress: &dyn Progress,
) -> Result<Judged, Failure> {
    let mut units = Units::default();
    let mut told = Vec::new();
    let mut verdict = None;
    loop {
        let Look { mut missing, fallen } =
            units.look(&health.units, Duration::from_secs(health.stable_seconds))?;
        if health.etcd
            && let Err(answer) = ask_etcd()
        {
            missing.push(Missing::Etcd { answer });
        }
        if health.network {
            missing.extend(network::missing().map(|what| Missing::Network { what }));
        }
        // Last, and only when all else is well: a command may be costly.
        if missing.is_empty() && !health.command.is_empty() {
            missing
                .extend(command(&health.command, deadline).err().map(|now| whole_verdict(&mut verdict, now)));
        }
        let fallen = fallen.filter(|_| ends_early);
        if missing.is_empty() || fallen.is_some() || Instant::now() >= deadline {
            return Ok(Judged { missing, fallen });
        }
        let lines: Vec<String> = missing.iter().map(Missing::to_string).collect();
        if lines != told {
            progress.detail(&format!("waiting: {}", lines.join("; ")));
            told = lines;
        }
        thread::sleep(until_next(&missing).min(deadline.saturating_duration_since(Instant::now())));
    }
}

/// How long until the next look. Where only time is missing, few are needed before: a unit that was started anew
/// meanwhile is seen then, too.
fn until_next(missing: &[Missing]) -> Duration {
    let left = |missing: &Missing| match missing {
        Missing::Fresh { left, .. } => Some(*left),
        _ => None,
    };
    let left: Option<Vec<Duration>> = missing.iter().map(left).collect();
    left.and_then(|left| left.into_iter().max()).map_or(PAUSE, |left| left.min(LONG_PAUSE))
}

/// What is to be said of the own command: a run that only the deadline cut off hides no failure before it.
fn whole_verdict(verdict: &mut Option<Missing>, now: Missing) -> Missing {
    match now {
        Missing::Cut => verdict.clone().unwrap_or(Missing::Cut),
        failed => verdict.insert(failed).clone(),
    }
}

/// Asks the node's own member.
fn ask_etcd() -> Result<(), String> {
    let address = pki::etcd::CLIENT_ADDRESS.parse().expect("an address and a port");
    etcd::health(Path::new(pki::etcd::DIRECTORY), address)
}

/// Runs the own command until `deadline` at the latest, with all that it started.
fn command(words: &[String], deadline: Instant) -> Result<(), Missing> {
    let failed = |end: String| Missing::Command { end };
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).stdin(Stdio::null()).process_group(0);
    let mut child = command.spawn().map_err(|error| failed(format!("does not start: {error}")))?;
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => return Err(failed(format!("failed: {status}"))),
            Err(error) => return Err(failed(format!("got lost: {error}"))),
            Ok(None) if Instant::now() >= deadline => {
                end(&mut child);
                return Err(Missing::Cut);
            }
            Ok(None) => thread::sleep(PAUSE / 10),
        }
    }
}

fn end(child: &mut Child) {
    if let Some(group) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    let _ = child.wait();
}

/// The moment until which this boot must be good: the time that `/init` took does not count.
pub fn deadline(health: &Health) -> Instant {
    let systemd_began = node::handover().map_or(0.0, |facts| facts.uptime);
    let since = Duration::from_secs_f64((kernel::uptime() - systemd_began).max(0.0));
    // By hand, long after the start, there is still time for one judgement.
    let judgement = Duration::from_secs(health.stable_seconds) + etcd::JUDGEMENT;
    Instant::now() + Duration::from_secs(health.deadline_seconds).saturating_sub(since).max(judgement)
}

/// Writes down how this boot was judged.
pub fn record(verdict: &Verdict) -> Result<(), Failure> {
    let doing = || format!("writing {VERDICT}");
    let text = serde_json::to_string_pretty(verdict).doing(doing())? + "\n";
    let folder = Path::new(VERDICT).parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder).doing(doing())?;
    if !verdict.good {
        atomic::write(Path::new(BAD_VERDICT), &text).doing(doing())?;
    }
    atomic::write(Path::new(VERDICT), text).doing(doing())
}

/// The last judgement, of whatever boot.
pub fn last() -> Option<Verdict> {
    serde_json::from_slice(&fs::read(VERDICT).ok()?).ok()
}

/// The last judgement that was not good, of whatever boot.
pub fn last_bad() -> Option<Verdict> {
    serde_json::from_slice(&fs::read(BAD_VERDICT).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_only_time_is_missing_it_is_looked_less_often() {
        let fresh = |left| Missing::Fresh {
            name: "a.service".to_owned(),
            stable: Duration::from_secs(60),
            left: Duration::from_secs(left),
        };
        let failed = Missing::Unit { name: "b.service".to_owned(), state: "failed".to_owned() };
        assert_eq!(until_next(&[fresh(4), fresh(2)]), Duration::from_secs(4));
        assert_eq!(until_next(&[fresh(60)]), LONG_PAUSE);
        assert_eq!(until_next(&[fresh(4), failed]), PAUSE);
    }

    #[test]
    fn the_deadline_hides_no_failure() {
        let failed = Missing::Command { end: "failed: exit status: 1".to_owned() };
        let mut verdict = None;
        assert_eq!(whole_verdict(&mut verdict, Missing::Cut), Missing::Cut);
        assert_eq!(whole_verdict(&mut verdict, failed.clone()), failed);
        assert_eq!(whole_verdict(&mut verdict, Missing::Cut), failed);
    }

    #[test]
    fn a_command_has_until_the_deadline() {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let soon = || Instant::now() + Duration::from_millis(300);
        assert_eq!(command(&words(&["true"]), soon()), Ok(()));
        assert!(command(&words(&["false"]), soon()).unwrap_err().to_string().contains("exit status: 1"));
        let late = command(&words(&["sh", "-c", "sleep 60; true"]), soon()).unwrap_err();
        assert!(late.to_string().contains("deadline"));
        assert!(command(&words(&["/no/such"]), soon()).unwrap_err().to_string().contains("does not start"));
    }
}
