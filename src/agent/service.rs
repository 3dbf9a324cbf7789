//! The agent as a service: judges what has become of the last update.

use std::thread;
use std::time::Duration;

use super::failure::Failure;
use super::settings::Settings;
use super::updater::Updater;
use super::{health, node};
use crate::base::Chain;
use crate::base::progress::Progress;

/// Between two looks at whether this boot was judged.
const PAUSE: Duration = Duration::from_secs(3);
/// systemd-bless-boot is done within this after the judgement.
const BLESSING: Duration = Duration::from_secs(60);

/// Finds out what has become of the last update.
pub fn run(progress: &dyn Progress) -> Result<(), Failure> {
    let settings = Settings::read()?;
    wait_for_judgement(progress);
    settle(&settings, progress);
    Ok(())
}

/// The verdict comes by its deadline; a node without the unit that gives it is not held up for ever.
fn wait_for_judgement(progress: &dyn Progress) {
    let limit = Settings::image().map_or(0, |built| built.health.deadline_seconds) + BLESSING.as_secs();
    let judged = || health::last().filter(|verdict| verdict.boot == node::boot_id());
    let mut waited = 0;
    while judged().is_none() && waited < limit {
        thread::sleep(PAUSE);
        waited += PAUSE.as_secs();
    }
    if judged().is_none() {
        progress.warn("nothing has judged this boot");
    }
}

/// What has become of the last update. Nothing of it keeps the agent from its further work.
fn settle(settings: &Settings, progress: &dyn Progress) {
    let mut waited = Duration::ZERO;
    loop {
        let settled = Updater::open(settings, progress).and_then(|mut updater| {
            if updater.is_on_trial() {
                return Ok(false);
            }
            updater.after_blessing().map(|()| true)
        });
        match settled {
            Ok(true) => return,
            Ok(false) if waited < BLESSING => {}
            Ok(false) => return progress.warn(&format!("{} is still on trial", settings.version)),
            Err(failure) if waited < BLESSING => progress.detail(&Chain(&failure).to_string()),
            Err(failure) => return progress.warn(&Chain(&failure).to_string()),
        }
        thread::sleep(PAUSE);
        waited += PAUSE;
    }
}
