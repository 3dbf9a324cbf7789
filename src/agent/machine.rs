//! The state of a node's update. It outlives reboots; [`State::settle`] compares it with what is found after one.
//!
//! docs/agent.dot draws it; its edges are the methods that change a state.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::base::version;
use crate::boot::entries::BootEntry;

/// Why an operator's roll-back gave a version up.
pub const BY_HAND: &str = "rolled back by hand";

/// How far a node is. The names are those of status and of the drawing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum State {
    /// Nothing is under way, and nothing is known of the version that runs.
    #[default]
    Idle,
    /// A version is on its way into the slot that is not running.
    Staging {
        /// The new one.
        version: String,
    },
    /// It is there, whole and read back; nothing leads to it yet.
    Staged {
        /// The new one.
        version: String,
    },
    /// The boot loader will start it.
    WaitingToReboot {
        /// The new one.
        version: String,
        /// The boot in which it was made ready.
        boot: String,
    },
    /// It runs, on trial.
    BootedUnproven {
        /// The new one.
        version: String,
    },
    /// It runs, and the boot loader has it for good.
    Good {
        /// The one that runs.
        version: String,
    },
    /// It was given up; the version before it runs, or will from the next boot on.
    FallenBack {
        /// The one that was given up.
        version: String,
        /// Why.
        why: String,
        /// The boot in which that was found or decided.
        boot: String,
    },
}

/// A change that the drawing does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the update is {state}, and from there it cannot {change}")]
pub struct Refused {
    /// The state.
    pub state: State,
    /// The change, by its method's name.
    pub change: &'static str,
}

type Changed = Result<State, Refused>;

/// What is found on the node.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// Version that runs.
    pub running: &'a str,
    /// This boot.
    pub boot: &'a str,
    /// All entries of this image in the ESP.
    pub entries: &'a [BootEntry],
}

impl Seen<'_> {
    fn entry(&self, version: &str) -> Option<&BootEntry> {
        self.entries.iter().find(|entry| entry.version == version)
    }

    /// Whether the version that runs has not proven itself.
    pub fn is_on_trial(&self) -> bool {
        self.entry(self.running).is_some_and(|entry| entry.counter.is_some())
    }

    /// Whether the boot loader has given `version` up, or never will start it.
    fn is_spent(&self, version: &str) -> bool {
        self.entry(version).is_none_or(BootEntry::is_used_up)
    }
}

impl State {
    /// A new version starts to come in.
    pub fn begin(self, version: &str) -> Changed {
        match self {
            Self::Idle | Self::Good { .. } | Self::FallenBack { .. } | Self::Staged { .. } => {
                Ok(Self::Staging { version: version.to_owned() })
            }
            state => Err(Refused { state, change: "begin" }),
        }
    }

    /// It did not come through. What has come stays on the disk, for the next time.
    pub fn give_up(self) -> Changed {
        match self {
            Self::Staging { .. } => Ok(Self::Idle),
            state => Err(Refused { state, change: "give_up" }),
        }
    }

    /// It is in the slot, and was read back.
    pub fn seal(self) -> Changed {
        match self {
            Self::Staging { version } => Ok(Self::Staged { version }),
            state => Err(Refused { state, change: "seal" }),
        }
    }

    /// Its entry is in the ESP.
    pub fn activate(self, boot: &str) -> Changed {
        match self {
            Self::Staged { version } => Ok(Self::WaitingToReboot { version, boot: boot.to_owned() }),
            state => Err(Refused { state, change: "activate" }),
        }
    }

    /// It is not wanted any more, before it ever ran.
    pub fn withdraw(self) -> Changed {
        match self {
            Self::Staged { .. } | Self::WaitingToReboot { .. } => Ok(Self::Idle),
            state => Err(Refused { state, change: "withdraw" }),
        }
    }

    /// It was started.
    pub fn boot(self, version: &str) -> Changed {
        match self {
            Self::Idle
            | Self::Staged { .. }
            | Self::WaitingToReboot { .. }
            | Self::Good { .. }
            | Self::FallenBack { .. } => Ok(Self::BootedUnproven { version: version.to_owned() }),
            state => Err(Refused { state, change: "boot" }),
        }
    }

    /// Somebody has chosen another version in the boot menu, though this one has tries left.
    pub fn put_off(self, boot: &str) -> Changed {
        match self {
            Self::BootedUnproven { version } => Ok(Self::WaitingToReboot { version, boot: boot.to_owned() }),
            state => Err(Refused { state, change: "put_off" }),
        }
    }

    /// It was healthy, and its entry has no counter any more.
    pub fn bless(self) -> Changed {
        match self {
            Self::BootedUnproven { version } => Ok(Self::Good { version }),
            state => Err(Refused { state, change: "bless" }),
        }
    }

    /// The boot loader has given it up, and another version runs.
    pub fn fall_back(self, version: &str, why: &str, boot: &str) -> Changed {
        match self {
            Self::Idle
            | Self::Staged { .. }
            | Self::WaitingToReboot { .. }
            | Self::BootedUnproven { .. }
            | Self::Good { .. } => {
                Ok(Self::FallenBack { version: version.into(), why: why.into(), boot: boot.into() })
            }
            state => Err(Refused { state, change: "fall_back" }),
        }
    }

    /// An operator has given up the one that runs.
    pub fn roll_back(self, running: &str, boot: &str) -> Changed {
        match self {
            Self::Idle | Self::BootedUnproven { .. } | Self::Good { .. } => Ok(Self::FallenBack {
                version: running.to_owned(),
                why: BY_HAND.to_owned(),
                boot: boot.to_owned(),
            }),
            state => Err(Refused { state, change: "roll_back" }),
        }
    }

    /// Another version runs by somebody's choice, and nothing is wrong with this one.
    pub fn forget(self) -> Changed {
        match self {
            Self::Good { .. } => Ok(Self::Idle),
            state => Err(Refused { state, change: "forget" }),
        }
    }

    /// The version that it speaks of.
    pub fn version(&self) -> Option<&str> {
        match self {
            Self::Idle => None,
            Self::Staging { version }
            | Self::Staged { version }
            | Self::WaitingToReboot { version, .. }
            | Self::BootedUnproven { version }
            | Self::Good { version }
            | Self::FallenBack { version, .. } => Some(version),
        }
    }

    /// What has become of it since it was written down.
    pub fn settle(self, seen: &Seen<'_>, why: &dyn Fn(&str) -> String) -> Self {
        let before = self.clone();
        self.settled(seen, why).unwrap_or(before)
    }

    fn settled(self, seen: &Seen<'_>, why: &dyn Fn(&str) -> String) -> Changed {
        let runs = self.version() == Some(seen.running);
        let proven = |state: Self| if seen.is_on_trial() { Ok(state) } else { state.bless() };
        match &self {
            // Who stages holds the lock, and so does who settles: that one is gone.
            Self::Staging { .. } => self.give_up()?.settled(seen, why),
            // The power failed between the entry and the note of it.
            Self::Staged { .. } if runs => proven(self.boot(seen.running)?),
            Self::Staged { version } if seen.entry(version).is_some_and(BootEntry::is_used_up) => {
                let (version, why) = (version.clone(), why(version));
                self.fall_back(&version, &why, seen.boot)
            }
            Self::Staged { .. } => Ok(self),
            Self::WaitingToReboot { boot, .. } | Self::FallenBack { boot, .. } if boot == seen.boot => {
                Ok(self)
            }
            Self::WaitingToReboot { .. } if runs => proven(self.boot(seen.running)?),
            Self::BootedUnproven { .. } if runs => proven(self),
            Self::Good { .. } if runs && !seen.is_on_trial() => Ok(self),
            // A version that fell back runs after all: somebody has chosen it in the boot menu.
            Self::FallenBack { .. } if runs => proven(self.boot(seen.running)?),
            Self::WaitingToReboot { version, .. }
            | Self::BootedUnproven { version }
            | Self::Good { version }
                if !runs && seen.is_spent(version) =>
            {
                let (version, why) = (version.clone(), why(version));
                self.fall_back(&version, &why, seen.boot)
            }
            Self::BootedUnproven { .. } => self.put_off(seen.boot),
            Self::WaitingToReboot { .. } => Ok(self),
            // Nothing was written down of it, e.g. because the state partition is new.
            Self::Idle | Self::Good { .. } | Self::FallenBack { .. } if seen.is_on_trial() => {
                self.boot(seen.running)
            }
            Self::Good { .. } => self.forget(),
            Self::Idle => {
                let newer = |entry: &&BootEntry| {
                    entry.is_used_up() && version::compare(&entry.version, seen.running).is_gt()
                };
                match seen.entries.iter().find(newer).map(|entry| entry.version.clone()) {
                    Some(version) => self.fall_back(&version, &why(&version), seen.boot),
                    None => Ok(self),
                }
            }
            Self::FallenBack { .. } => Ok(self),
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "idle",
            Self::Staging { .. } => "staging",
            Self::Staged { .. } => "staged",
            Self::WaitingToReboot { .. } => "waiting-to-reboot",
            Self::BootedUnproven { .. } => "booted-unproven",
            Self::Good { .. } => "good",
            Self::FallenBack { .. } => "fallen-back",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::entries;
    use std::collections::BTreeSet;

    fn all() -> Vec<State> {
        let version = || "2".to_owned();
        vec![
            State::Idle,
            State::Staging { version: version() },
            State::Staged { version: version() },
            State::WaitingToReboot { version: version(), boot: "a".to_owned() },
            State::BootedUnproven { version: version() },
            State::Good { version: version() },
            State::FallenBack { version: version(), why: "x".to_owned(), boot: "a".to_owned() },
        ]
    }

    type Change = fn(State) -> Changed;

    #[test]
    fn the_drawing_is_the_machine() {
        let changes: [(&str, Change); 11] = [
            ("begin", |state| state.begin("2")),
            ("give_up", State::give_up),
            ("seal", State::seal),
            ("activate", |state| state.activate("a")),
            ("withdraw", State::withdraw),
            ("boot", |state| state.boot("2")),
            ("put_off", |state| state.put_off("a")),
            ("bless", State::bless),
            ("fall_back", |state| state.fall_back("2", "x", "a")),
            ("roll_back", |state| state.roll_back("2", "a")),
            ("forget", State::forget),
        ];
        let mut edges = BTreeSet::new();
        for state in all() {
            for (name, change) in changes {
                match change(state.clone()) {
                    Ok(next) => drop(edges.insert(format!("\"{state}\" -> \"{next}\" [label={name}]"))),
                    Err(refused) => assert_eq!(refused.change, name),
                }
            }
        }
        let drawing = include_str!("../../docs/agent.dot");
        let drawn: BTreeSet<String> = drawing
            .lines()
            .map(|line| line.trim().trim_end_matches(';').to_owned())
            .filter(|line| line.contains("->"))
            .collect();
        assert_eq!(drawn, edges, "docs/agent.dot differs from the machine");
    }

    fn settle(state: State, running: &str, boot: &str, files: &[&str]) -> State {
        let entries: Vec<_> = files.iter().filter_map(|file| entries::parse(file)).collect();
        state.settle(&Seen { running, boot, entries: &entries }, &|_| "it hung".to_owned())
    }

    fn waiting() -> State {
        State::WaitingToReboot { version: "2".to_owned(), boot: "a".to_owned() }
    }

    fn fallen(boot: &str) -> State {
        State::FallenBack { version: "2".to_owned(), why: "it hung".to_owned(), boot: boot.to_owned() }
    }

    #[test]
    fn a_version_that_comes_up_is_unproven_and_then_good() {
        let unproven = State::BootedUnproven { version: "2".to_owned() };
        let good = State::Good { version: "2".to_owned() };
        assert_eq!(settle(waiting(), "2", "b", &["n_1.efi", "n_2+2-1.efi"]), unproven);
        assert_eq!(settle(unproven.clone(), "2", "b", &["n_1.efi", "n_2+2-1.efi"]), unproven);
        assert_eq!(settle(unproven, "2", "b", &["n_1.efi", "n_2.efi"]), good);
        assert_eq!(settle(waiting(), "2", "b", &["n_1.efi", "n_2.efi"]), good);
        assert_eq!(settle(good.clone(), "2", "c", &["n_1.efi", "n_2.efi"]), good);
    }

    #[test]
    fn a_cut_right_after_the_entry_is_made_up_for() {
        let staged = State::Staged { version: "2".to_owned() };
        let unproven = State::BootedUnproven { version: "2".to_owned() };
        assert_eq!(settle(staged.clone(), "2", "b", &["n_1.efi", "n_2+2-1.efi"]), unproven);
        assert_eq!(settle(staged.clone(), "1", "e", &["n_1.efi", "n_2+0-3.efi"]), fallen("e"));
        assert_eq!(settle(staged.clone(), "1", "e", &["n_1.efi", "n_2+3.efi"]), staged);
        assert_eq!(settle(staged.clone(), "1", "e", &["n_1.efi"]), staged);
    }

    #[test]
    fn a_version_whose_tries_are_spent_has_fallen_back() {
        let unproven = State::BootedUnproven { version: "2".to_owned() };
        assert_eq!(settle(waiting(), "1", "a", &["n_1.efi", "n_2+3.efi"]), waiting());
        assert_eq!(settle(waiting(), "1", "b", &["n_1.efi", "n_2+1-2.efi"]), waiting());
        for state in [waiting(), unproven, State::Good { version: "2".to_owned() }, State::Idle] {
            assert_eq!(settle(state, "1", "e", &["n_1.efi", "n_2+0-3.efi"]), fallen("e"));
        }
        assert_eq!(settle(fallen("e"), "1", "f", &["n_1.efi", "n_2+0-3.efi"]), fallen("e"));
    }

    #[test]
    fn what_an_operator_does_is_no_failure() {
        let good = State::Good { version: "2".to_owned() };
        let unproven = State::BootedUnproven { version: "2".to_owned() };
        let here = State::WaitingToReboot { version: "2".to_owned(), boot: "c".to_owned() };
        assert_eq!(settle(unproven, "1", "c", &["n_1.efi", "n_2+1-2.efi"]), here);
        assert_eq!(settle(good.clone(), "1", "c", &["n_1.efi", "n_2.efi"]), State::Idle);
        // A roll-back is for the next boot: until then the version goes on running.
        let rolled = good.clone().roll_back("2", "c").unwrap();
        assert_eq!(settle(rolled.clone(), "2", "c", &["n_1.efi", "n_2+0.efi"]), rolled);
        assert_eq!(settle(rolled.clone(), "1", "d", &["n_1.efi", "n_2+0.efi"]), rolled);
        assert_eq!(settle(rolled, "2", "d", &["n_1.efi", "n_2.efi"]), good);
    }

    #[test]
    fn a_node_that_remembers_nothing_finds_its_way() {
        assert_eq!(settle(State::Idle, "1", "a", &["n_1.efi"]), State::Idle);
        let unproven = State::BootedUnproven { version: "2".to_owned() };
        assert_eq!(settle(State::Idle, "2", "a", &["n_1.efi", "n_2+2-1.efi"]), unproven);
        assert_eq!(settle(State::Staging { version: "2".to_owned() }, "1", "b", &["n_1.efi"]), State::Idle);
        let text = serde_json::to_string(&waiting()).unwrap();
        assert_eq!(text, r#"{"state":"waiting-to-reboot","version":"2","boot":"a"}"#);
        assert_eq!(serde_json::from_str::<State>(&text).unwrap(), waiting());
    }
}
