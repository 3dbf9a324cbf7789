//! An image onto a disk of this machine.

mod telling;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result};

use crate::agent;
use crate::base::input;
use crate::base::progress::Progress;
use crate::boot::live;
use crate::http::url::Url;
use crate::install::{self, Places};
use crate::node::{self, Machine, Secret, laying};
use telling::{CAP, Teller, Who};

pub use crate::install::{
    BootEntry, Choice, Origin, Refusal, Report, Request as Install, State, Target, WriteError, numbered,
};
pub use crate::node::{Selector, Then};

impl Install {
    /// Installs, or refuses with a reason. `watch` is called before anything is written; what it gives ends that early once
    /// it is true.
    ///
    /// # Errors
    /// See [`install::install`].
    pub fn run(
        &self,
        watch: &dyn Fn() -> io::Result<Arc<AtomicBool>>,
        progress: &dyn Progress,
    ) -> Result<Report> {
        install::install(self, &Places::here(), watch, progress)
    }
}

#[cfg(test)]
pub(crate) use crate::install::choice;

/// The disks of this machine, with what is on each.
///
/// # Errors
/// What /sys says.
pub fn disks() -> Result<Vec<Choice>> {
    install::choices(&Places::here().system).context("looking for disks")
}

/// The image that this node runs from, if it runs from memory.
pub fn own_image() -> Option<PathBuf> {
    let live = agent::node::handover().is_ok_and(|handover| handover.live);
    live.then(|| live::DISK.into())
}

/// What the document of a machine that runs from memory asks for.
#[derive(Clone, Debug)]
pub struct Unattended {
    /// What is done.
    pub install: Install,
    /// What the machine does afterwards.
    pub then: Then,
    /// Who is told how it goes.
    report: Option<Secret>,
    /// The machine's name.
    name: Option<String>,
}

impl Unattended {
    /// Installs, or refuses with a reason, and tells the server that the document names. See [`Install::run`].
    ///
    /// # Errors
    /// See [`install::install`]; what the server does is only told.
    pub fn run(
        &self,
        watch: &dyn Fn() -> io::Result<Arc<AtomicBool>>,
        progress: &dyn Progress,
    ) -> Result<Report> {
        let Some(mut teller) = self.teller(progress) else { return self.install.run(watch, progress) };
        let who = Who { machine: Machine::of(&Places::here().system.sys), name: self.name.clone() };
        teller.tell(who.begun());
        let result = self.install.run(watch, progress);
        teller.tell(who.ended(&result));
        teller.end(CAP).iter().for_each(|failed| progress.warn(failed));
        result
    }

    fn teller(&self, progress: &dyn Progress) -> Option<Teller> {
        let Secret(address) = self.report.as_ref()?;
        let url = String::from_utf8_lossy(address).parse::<Url>();
        let teller = url.map_err(|error| error.to_string()).and_then(Teller::new);
        teller.inspect_err(|reason| progress.warn(reason)).ok()
    }
}

/// Where a running node has its state.
const HOME: &str = "/var/lib/keller";

/// What the document of this machine asks for, where it runs from memory; none where it does not, or asks for nothing.
///
/// # Errors
/// A document that cannot be read.
pub fn unattended() -> Result<Option<Unattended>> {
    if !agent::node::handover()?.live {
        return Ok(None);
    }
    wanted(&Path::new(HOME).join(laying::KEPT), Path::new(live::DISK))
}

/// The same by the document at `path`; `image` is what is installed.
///
/// # Errors
/// A document that cannot be read.
pub fn wanted(path: &Path, image: &Path) -> Result<Option<Unattended>> {
    let name = path.display().to_string();
    let text = match input::read(path, node::LARGEST + 1) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text.with_context(|| format!("reading {name}"))?,
    };
    // What is kept is the one for this machine.
    let Some(document) = node::read(&name, &text)?.into_iter().next() else { return Ok(None) };
    let Some(wanted) = document.install else { return Ok(None) };
    let install = Install {
        image: Origin::File(image.to_owned()),
        sha256: None,
        target: Target::Selected(wanted.disk),
        wipe: wanted.wipe,
        keep_state: wanted.keep_state,
        only_state: false,
        document: Some(PathBuf::from(path)),
        boot_entry: true,
        unattended: true,
    };
    Ok(Some(Unattended { install, then: wanted.then, report: wanted.report, name: document.name }))
}

/// What comes after what `report` tells, where the document says `wanted`. A machine that cannot start the disk it was
/// installed to stays, or it would start over for ever.
pub fn after(report: &Report, wanted: Then) -> Then {
    match (report.state, &report.boot_entry) {
        (State::Already, Some(BootEntry::Set(_))) | (State::Installed, _) => wanted,
        (State::Already, _) => Then::Stay,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_says_what_is_installed_where() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("node.yaml");
        let wanted = || wanted(&path, Path::new("disk.raw"));
        assert!(wanted().unwrap().is_none());
        std::fs::write(&path, "node: 1\nname: a\n").unwrap();
        assert!(wanted().unwrap().is_none());
        std::fs::write(&path, "node: 1\ninstall: {disk: \"bus=nvme,smallest\", wipe: S1, then: poweroff}\n")
            .unwrap();
        let Unattended { install, then, report, .. } = wanted().unwrap().unwrap();
        assert!(report.is_none());
        assert_eq!((install.wipe.as_deref(), then), (Some("S1"), Then::Poweroff));
        assert_eq!(install.target, Target::Selected("bus=nvme,smallest".parse().unwrap()));
        assert!(install.unattended && install.document.as_deref() == Some(&*path));
        std::fs::write(&path, "node: 1\ninstall: {disk: sda}\n").unwrap();
        let error = format!("{:#}", wanted().unwrap_err());
        assert!(error.contains("\"sda\" does not describe a disk"), "{error}");
    }
}
