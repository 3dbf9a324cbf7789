//! A lab that flags describe, without a file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::document::{self, Known};
use super::{form, validate};
use crate::base::Size;
use crate::lab::plan::{self, Identity, MOST_MACHINES, Machine, Plan};
use crate::qemu::Bus;
use crate::written::form::Wrong;

/// What flags ask for.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The image of all machines.
    pub image: PathBuf,
    /// Their names, and the node documents of those that have one.
    pub machines: Vec<(String, Option<PathBuf>)>,
    /// The memory of each.
    pub memory: Size,
    /// The processors of each.
    pub cpus: u32,
    /// What their disks hang on.
    pub(crate) bus: Bus,
    /// How large their disks are, if not as large as a node needs.
    pub disk: Option<Size>,
}

/// A flag that cannot be.
#[derive(Debug, thiserror::Error)]
#[error("{flag}: {text} {what}; {help}")]
pub struct WrongFlag {
    /// With its dashes.
    pub flag: &'static str,
    /// What was given.
    pub text: String,
    /// Follows the text.
    pub what: String,
    /// What would be right.
    pub help: String,
}

fn flag(flag: &'static str, text: impl Into<String>) -> impl FnOnce(Wrong) -> WrongFlag {
    let text = text.into();
    move |Wrong { what, help, .. }| WrongFlag { flag, text, what, help }
}

impl Asked {
    /// The lab that is asked for.
    ///
    /// # Errors
    /// The first flag that cannot be.
    pub fn plan(&self) -> Result<Plan, WrongFlag> {
        let image = validate::exists(self.image.clone());
        let image = image.map_err(flag("--image", self.image.display().to_string()))?;
        let refuse = |name: &str, what: &str, help: &str| {
            let wrong = Wrong { what: what.to_owned(), help: help.to_owned(), secret: false };
            Err(flag("--machine", name)(wrong))
        };
        if self.machines.len() > MOST_MACHINES {
            return refuse(&self.machines[MOST_MACHINES].0, "is one too many", "64 machines are the most");
        }
        let mut seen = BTreeSet::new();
        let mut cards = BTreeMap::new();
        for (name, _) in &self.machines {
            form::name(name).map_err(flag("--machine", name))?;
            if cards.insert(name.clone(), plan::mac(name)).is_some() {
                return refuse(name, "stands here twice", "each machine has a name of its own");
            }
            if !seen.insert(plan::mac(name)) {
                return refuse(name, "comes to the same card as another one", "choose another name");
            }
        }
        let mut warnings = Vec::new();
        let mut machines = Vec::new();
        for ((name, document), number) in self.machines.iter().zip(1..) {
            let identity = match document {
                Some(file) => {
                    warnings.extend(Self::check(name, file, &cards)?);
                    Identity::Document(file.clone())
                }
                None => {
                    let (address, prefix) = plan::address(number);
                    Identity::Address(address, prefix)
                }
            };
            machines.push(Machine {
                name: name.clone(),
                image: image.clone(),
                identity,
                memory: self.memory,
                cpus: self.cpus,
                bus: self.bus,
                disk: self.disk,
                clock: None,
                forwards: Vec::new(),
            });
        }
        Ok(Plan { machines, warnings })
    }

    fn check(name: &str, file: &Path, cards: &BTreeMap<String, String>) -> Result<Option<String>, WrongFlag> {
        document::check(file, &Known { name, cards }).map_err(flag("--machine", file.display().to_string()))
    }
}
