//! The agent as a service: finds out what has become of the last update.

use std::thread;
use std::time::Duration;

use super::failure::Failure;
use super::settings::Settings;
use super::updater::Updater;
use crate::base::Chain;
use crate::base::progress::Progress;

/// Between two looks at whether this version is blessed.
const PAUSE: Duration = Duration::from_secs(5);
/// systemd-bless-boot is done within this after the judgement.
const BLESSING: Duration = Duration::from_secs(60);

/// Finds out what has become of the last update.
pub fn run(progress: &dyn Progress) -> Result<(), Failure> {
    // A wrong letter in an operator's file must not cost a good version its place.
    settle(&Settings::read_lenient(progress)?, progress);
    Ok(())
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
            updater.after_blessing().map(|()| true)
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
