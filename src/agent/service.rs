//! The agent as a service: judges what has become of the last update, then looks for the next one for as long as
//! the node is up.

use std::thread;
use std::time::Duration;

use super::install::Until;
use super::machine::State;
use super::settings::{Settings, Source};
use super::updater::Updater;
use super::{choice::Wanted, clock, node, remote, schedule};
use crate::base::Chain;
use crate::base::failure::Failure;
use crate::base::kernel;
use crate::base::progress::Progress;
use crate::update::Counted;

/// Between two looks at whether this version is blessed.
const PAUSE: Duration = Duration::from_secs(5);
/// systemd-bless-boot is done within this after the judgement.
const BLESSING: Duration = Duration::from_secs(60);
/// How long the first look waits for the clock; a node without time servers goes by its own.
const CLOCK: Duration = Duration::from_secs(600);

/// Runs until the node goes down; ends at once where nothing names a repository.
pub fn run(progress: &dyn Progress) -> Result<(), Failure> {
    if node::handover()?.live {
        progress.note("this node runs from memory: it takes no updates");
        return Ok(());
    }
    // A wrong letter in an operator's file must not cost a good version its place.
    settle(&Settings::read_lenient(progress)?, progress);
    let settings = Settings::read()?;
    settings.tell(progress);
    let Some(source) = &settings.source else {
        progress.note("nothing names a repository of updates");
        return Ok(());
    };
    let machine = node::machine_id();
    let up = Duration::from_secs_f64(kernel::uptime());
    thread::sleep(schedule::first(&machine, source.interval_seconds).saturating_sub(up));
    clock::wait(CLOCK, progress);
    loop {
        let (failures, opens) = match look(&settings, source, progress) {
            Ok(opens) => (0, opens),
            Err((failure, failures)) => {
                progress.warn(&Chain(&failure).to_string());
                (failures, None)
            }
        };
        let pause = schedule::next(&machine, source.interval_seconds, failures);
        thread::sleep(opens.map_or(pause, |opens| pause.min(opens)));
    }
}

/// What has become of the last update: waits until a version on trial is blessed or has had its time. Nothing of it
/// keeps the agent from its further work.
fn settle(settings: &Settings, progress: &dyn Progress) {
    let limit = Duration::from_secs(settings.health.deadline_seconds) + BLESSING;
    let mut waited = Duration::ZERO;
    loop {
        let settled = Updater::open(settings, progress).and_then(|mut updater| {
            if updater.is_on_trial() {
                return Ok(false);
            }
            updater.complete_blessing().map(|()| true)
        });
        match settled {
            Ok(true) => return,
            Ok(false) if waited >= limit => {
                return progress.warn(&format!("{} is still on trial", settings.version));
            }
            Ok(false) => {}
            // Somebody else may have the turn, or /boot may not be there yet.
            Err(failure) if waited >= BLESSING => return progress.warn(&Chain(&failure).to_string()),
            Err(failure) => progress.detail(&Chain(&failure).to_string()),
        }
        thread::sleep(PAUSE);
        waited += PAUSE;
    }
}

/// One look, and the update if it is for the agent to take. Gives the time until the window opens for an update that
/// waits for it; with a failure, how many there were in a row.
fn look(
    settings: &Settings,
    source: &Source,
    progress: &dyn Progress,
) -> Result<Option<Duration>, (Failure, u32)> {
    let mut updater = Updater::open(settings, progress).map_err(|failure| (failure, 1))?;
    let remote = remote::connect(source).map_err(|failure| (failure, 1))?;
    let remote = Counted::new(remote.as_ref());
    let result = (|| {
        let found = updater.check(&remote, &Wanted::default())?;
        let Some(document) = found.document else { return Ok(None) };
        let version = &document.version;
        let waits = matches!(&updater.record().state, State::WaitingToReboot { version: waiting, .. } if waiting == version);
        let held = updater.is_held(version);
        if let Some(told) =
            left_to_an_operator(version, source.automatic && (!waits || held), node::forgetful())
        {
            progress.note(&told);
            return Ok(None);
        }
        let closed = schedule::until_open(source.window.as_ref(), clock::shown());
        if !closed.is_zero() {
            progress
                .note(&format!("{version} is there; the window opens in {} minutes", closed.as_secs() / 60));
            return Ok(Some(closed));
        }
        if !held {
            updater.install(&remote, &document, Until::Ready)?;
        }
        updater.let_go(version)?;
        updater.reboot().map(|()| None)
    })();
    let failures = updater.record().trouble.as_ref().map_or(1, |trouble| trouble.times);
    result.map_err(|failure| (failure, failures))
}

/// What is told of `version` where the agent does not take it by itself: it may not, or what was remembered of updates is
/// out of reach, a pin among it.
fn left_to_an_operator(version: &str, may: bool, forgetful: Option<String>) -> Option<String> {
    let way = "`keller update apply` takes it";
    match (may, forgetful) {
        (true, None) => None,
        (true, Some(why)) => {
            Some(format!("{version} is there; {way}, since a pin or a fall-back may be forgotten: {why}"))
        }
        (false, _) => Some(format!("{version} is there: {way}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_forgets_takes_nothing_by_itself() {
        assert_eq!(left_to_an_operator("2", true, None), None);
        let told = left_to_an_operator("2", true, Some("no reserve".to_owned())).unwrap();
        assert_eq!(
            told,
            "2 is there; `keller update apply` takes it, since a pin or a fall-back may be forgotten: no reserve"
        );
        for forgetful in [None, Some("no reserve".to_owned())] {
            let told = left_to_an_operator("2", false, forgetful);
            assert_eq!(told.as_deref(), Some("2 is there: `keller update apply` takes it"));
        }
    }
}
