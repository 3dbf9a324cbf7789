//! The starts of a version on trial that were not good: each is written down, so that the same failure on two starts is
//! seen as that, and the version that comes back can tell the whole story.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::record::FOLDER;
use super::said::Said;
use super::units::Fallen;
use crate::base::atomic;
use crate::base::failure::{Doing, Failure};

/// Its name in [`FOLDER`].
const FILE: &str = "trial.json";

/// The starts of one version that were not good.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// IMAGE_VERSION.
    pub version: String,
    /// The boot in which the version was made ready: one that is taken again is on another trial.
    pub made_ready: Option<String>,
    /// One after the other.
    pub starts: Vec<Start>,
}

/// A start that was not good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// The boot.
    pub boot: String,
    /// When it was judged, in seconds since 1970 by the node's clock.
    pub at: i64,
    /// What was missing, a line each.
    pub missing: Vec<String>,
    /// The unit that had failed for good, where that ended the start.
    pub fallen: Option<Fallen>,
    /// The last lines of the units that were missing.
    pub said: Vec<Said>,
}

impl Trial {
    /// What is known of `version`; nothing that makes sense is as good as nothing.
    pub fn load(version: &str) -> Option<Self> {
        Self::load_from(Path::new(FOLDER), version)
    }

    fn load_from(folder: &Path, version: &str) -> Option<Self> {
        let trial: Self = serde_json::from_slice(&fs::read(folder.join(FILE)).ok()?).ok()?;
        Some(trial).filter(|trial| trial.version == version)
    }

    /// Adds a start of `version`. A boot that is judged once more counts once.
    pub(super) fn with(folder: &Path, version: &str, made_ready: Option<&str>, start: Start) -> Self {
        let known = Self::load_from(folder, version);
        let known = known.filter(|known| known.made_ready.as_deref() == made_ready);
        let mut trial = known.unwrap_or_else(|| Self {
            version: version.to_owned(),
            made_ready: made_ready.map(str::to_owned),
            starts: Vec::new(),
        });
        trial.starts.retain(|known| known.boot != start.boot);
        trial.starts.push(start);
        trial
    }

    pub(super) fn save(&self, folder: &Path) -> Result<(), Failure> {
        let path = folder.join(FILE);
        let doing = || format!("writing {}", path.display());
        fs::create_dir_all(folder).doing(doing())?;
        atomic::write(&path, serde_json::to_string_pretty(self).doing(doing())? + "\n").doing(doing())
    }

    /// On how many starts the same unit has failed as it has on the last one.
    pub fn alike(&self) -> usize {
        let last = self.starts.last().and_then(|start| start.fallen.as_ref());
        let Some(last) = last else { return 0 };
        let alike = |start: &&Start| start.fallen.as_ref().is_some_and(|fallen| fallen.is_like(last));
        self.starts.iter().filter(alike).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(boot: &str, unit: Option<&str>) -> Start {
        let fallen = unit.map(|unit| Fallen {
            unit: unit.to_owned(),
            needs: None,
            how: Some("exited with status 3".to_owned()),
        });
        Start { boot: boot.to_owned(), at: 7, missing: vec!["x".to_owned()], fallen, said: Vec::new() }
    }

    #[test]
    fn starts_that_fail_alike_are_counted_over_reboots() {
        let folder = tempfile::tempdir().unwrap();
        let failed = |version: &str, made_ready: &str, boot: &str, unit: Option<&str>| {
            let trial = Trial::with(folder.path(), version, Some(made_ready), start(boot, unit));
            trial.save(folder.path()).unwrap();
            trial.alike()
        };
        let (a, b) = (Some("a.service"), Some("b.service"));
        assert_eq!(failed("2", "r", "1", a), 1);
        // Judged once more in the same boot.
        assert_eq!(failed("2", "r", "1", a), 1);
        // Another unit, and one that only was not in time.
        assert_eq!(failed("2", "r", "2", b), 1);
        assert_eq!(failed("2", "r", "3", None), 0);
        assert_eq!(failed("2", "r", "4", a), 2);
        assert_eq!(Trial::load_from(folder.path(), "2").unwrap().starts.len(), 4);
        // Taken again, and another version.
        assert_eq!(failed("2", "s", "5", a), 1);
        assert_eq!(failed("3", "s", "6", a), 1);
        assert_eq!(Trial::load_from(folder.path(), "2"), None);
    }

    #[test]
    fn a_memory_that_makes_no_sense_is_none() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), "{\"version\": ").unwrap();
        let trial = Trial::with(folder.path(), "2", None, start("1", Some("a.service")));
        assert_eq!(trial.alike(), 1);
    }
}
