//! An image onto a disk of this machine.

mod repository;
mod telling;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use crate::agent;
use crate::base::progress::Progress;
use crate::base::{clock, input, limits};
use crate::boot::cmdline::{Cmdline, Options};
use crate::boot::live;
use crate::install::{self, PAUSES, Patience, Places};
use crate::node::policy::Place;
use crate::node::{self, Document, Machine, Policy, Remote, Secret, laying};
use telling::{Reports, Who};

pub use crate::install::{
    BootEntry, Choice, DocumentOrigin, Origin, Refusal, Report, Request as Install, State, Target, Wanted,
    WriteError, numbered,
};
pub use crate::node::{Selector, Then};
pub use repository::Asked;

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

/// Where a running node has its state.
const HOME: &str = "/var/lib/keller";
const CMDLINE: &str = "/proc/cmdline";
/// A network without time servers has none to wait for.
const CLOCK: Duration = Duration::from_secs(60);

/// What an unattended installation starts from: a machine that runs from memory.
#[derive(Clone, Debug)]
pub struct Ground {
    /// What is installed.
    pub image: PathBuf,
    /// Which node documents the image takes.
    pub policy: Policy,
    /// Where the machine's own document is, if it has one.
    pub document: PathBuf,
    /// The document that the kernel command line says to fetch, if any.
    pub remote: Option<Remote>,
    /// Where the kernel shows the machine.
    pub sys: PathBuf,
    /// Pauses between tries to fetch it; the last one repeats.
    pub pauses: &'static [Duration],
    /// Where the system of the machine is, which knows where updates come from.
    pub root: PathBuf,
    /// How long a repository waits for a clock that is about to be set.
    pub clock: Duration,
    /// A disk to use instead of the one that the documents describe.
    pub disk: Option<PathBuf>,
}

/// The document that a machine has, with its file.
struct Own {
    name: String,
    text: Vec<u8>,
    document: Document,
}

impl Ground {
    /// This machine's, if it runs from memory.
    ///
    /// # Errors
    /// What is wrong with the kernel command line, and files of this system that cannot be read.
    pub fn here() -> Result<Option<Self>> {
        if !agent::node::handover()?.live {
            return Ok(None);
        }
        let words = input::read_text(CMDLINE, limits::WORDS).with_context(|| format!("reading {CMDLINE}"))?;
        Ok(Some(Self {
            image: live::DISK.into(),
            policy: Policy::of_root(Path::new("/"))?,
            document: Path::new(HOME).join(laying::KEPT),
            remote: remote(&Cmdline::parse(&words)?.options)?,
            sys: Places::here().system.sys,
            pauses: &PAUSES,
            root: "/".into(),
            clock: CLOCK,
            disk: None,
        }))
    }

    /// Installs what the machine's documents ask for, or refuses with a reason, and tells the server that they name. Gives what
    /// was done and what the machine does afterwards; nothing where nothing is asked for. See [`Install::run`].
    ///
    /// # Errors
    /// A document that cannot be read; see [`install::fetch`] and [`install::install`]. What the server of reports does is only
    /// told.
    pub fn install(
        &self,
        watch: &dyn Fn() -> io::Result<Arc<AtomicBool>>,
        progress: &dyn Progress,
    ) -> Result<Option<(Report, Then)>> {
        let own = self.own()?;
        let asked = own.as_ref().and_then(|own| own.document.install.as_ref());
        let named = asked.and_then(|asked| asked.document.as_ref());
        if self.remote.is_some() && named.is_some() {
            progress.note("keller.document= on the kernel command line counts, not `install: document` of the node document");
        }
        let remote = self.remote.as_ref().or(named);
        if asked.is_none() && remote.is_none() {
            return Ok(None);
        }
        let name = own.as_ref().and_then(|own| own.document.name.clone());
        let mut reports = Reports::new(Who { machine: Machine::of(&self.sys), name });
        reports.open(asked.and_then(|asked| asked.report.as_ref()), progress);
        let result = match (remote, &own) {
            (None, Some(own)) => {
                self.run(&own.document, DocumentOrigin::File(self.document.clone()), watch, progress)
            }
            (None, None) => return Ok(None),
            (Some(remote), own) => self.run_fetched(remote, own.as_ref(), &mut reports, watch, progress),
        };
        reports.end(result.as_ref().map(|(report, _)| report), progress);
        result.map(Some)
    }

    fn own(&self) -> Result<Option<Own>> {
        let name = self.document.display().to_string();
        let text = match input::read(&self.document, node::LARGEST + 1) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text.with_context(|| format!("reading {name}"))?,
        };
        // What is kept is the one for this machine.
        let document = node::read(&name, &text)?.into_iter().next();
        Ok(document.map(|document| Own { name, text, document }))
    }

    fn request(&self, asked: Option<&node::Install>, document: Option<DocumentOrigin>) -> Install {
        let described = asked.and_then(|asked| asked.disk.clone()).map(Target::Selected);
        Install {
            image: Origin::File(self.image.clone()),
            sha256: None,
            target: self.disk.clone().map(Target::Path).or(described).unwrap_or(Target::Unnamed),
            wipe: asked.and_then(|asked| asked.wipe.clone()),
            keep_state: asked.is_some_and(|asked| asked.keep_state),
            only_state: false,
            document,
            document_sha256: None,
            boot_entry: true,
            unattended: true,
        }
    }

    /// Does what `document` asks for, which the node gets from `origin`.
    fn run(
        &self,
        document: &Document,
        origin: DocumentOrigin,
        watch: &dyn Fn() -> io::Result<Arc<AtomicBool>>,
        progress: &dyn Progress,
    ) -> Result<(Report, Then)> {
        let asked = document.install.as_ref();
        let mut request = self.request(asked, Some(origin));
        if asked.is_some_and(|asked| asked.from_repository) {
            request.image = repository::of_node(&self.root, document.update.as_ref())
                .context("reading where the image comes from")?;
            clock::wait(self.clock, progress);
        }
        let report = request.run(watch, progress)?;
        Ok((report, asked.map(|asked| asked.then).unwrap_or_default()))
    }

    /// A machine that has been installed starts its disk whether or not there is a server.
    fn run_fetched(
        &self,
        remote: &Remote,
        own: Option<&Own>,
        reports: &mut Reports,
        watch: &dyn Fn() -> io::Result<Arc<AtomicBool>>,
        progress: &dyn Progress,
    ) -> Result<(Report, Then)> {
        let asked = own.and_then(|own| own.document.install.as_ref());
        let request = self.request(asked, None);
        // What is in a repository may be newer than what is on the disk and on the medium.
        let may_be_replaced = asked.is_some_and(|asked| asked.from_repository && asked.keep_state);
        if !may_be_replaced
            && let Some(report) = install::standing(&request, &self.image, &Places::here(), progress)?
        {
            return Ok((report, asked.map(|asked| asked.then).unwrap_or_default()));
        }
        let (whole, document) = self.fetch(remote, own, reports, progress)?;
        reports.name(whole.name.as_ref());
        reports.open(whole.install.as_ref().and_then(|asked| asked.report.as_ref()), progress);
        self.run(&whole, document, watch, progress)
    }

    /// What the fetched document and the machine's own say together, and what its node gets: the fetched one as it is, with its
    /// signature, where the own one says nothing more for a node.
    fn fetch(
        &self,
        remote: &Remote,
        own: Option<&Own>,
        reports: &mut Reports,
        progress: &dyn Progress,
    ) -> Result<(Document, DocumentOrigin)> {
        if !self.policy.takes_from(Place::Esp) {
            return Err(Refusal::FetchedNotFromEsp.into());
        }
        let machine = || Machine::of(&self.sys);
        let mut waiting = |text: &str| {
            progress.warn(text);
            reports.wait(text);
        };
        let patience = Patience::Endless(self.pauses);
        let fetched = install::fetch(remote, &machine, &self.policy, patience, progress, &mut waiting)?;
        let machine = machine();
        let document = fetched.choose(&machine)?.clone();
        let url = fetched.name;
        if document.install.as_ref().is_some_and(|asked| asked.document.is_some()) {
            return Err(Refusal::LeadsOn { url }.into());
        }
        self.policy.check(&document).map_err(|why| Refusal::DocumentUnsigned { url: url.clone(), why })?;
        let whole = match own {
            None => document.clone(),
            Some(own) => {
                let files = [(url.clone(), fetched.text), (own.name.clone(), own.text.clone())];
                // Each was judged before.
                node::merge(&files, &machine, &Policy::default())?
            }
        };
        if whole.install.as_ref().is_none_or(|asked| asked.disk.is_none()) {
            return Err(Refusal::NoDiskNamed { url }.into());
        }
        let text = if document.says_all_of(&whole) { document.text } else { whole.text.clone() };
        Ok((whole, DocumentOrigin::Text(url, Secret(text.into_bytes()))))
    }
}

/// Where the words of the kernel command line say that a document is.
fn remote(options: &Options) -> Result<Option<Remote>> {
    let Some(text) = &options.document else { return Ok(None) };
    let remote = text.parse().and_then(|address| Remote::new(address, options.document_sha256, Vec::new()));
    remote.map(Some).map_err(|error| {
        anyhow!("keller.document= on the kernel command line: the address {error}: {}", error.help())
    })
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
    use crate::base::Digest;
    use crate::base::progress::Silent;

    fn ground(directory: &Path) -> Ground {
        Ground {
            image: "disk.raw".into(),
            policy: Policy::default(),
            document: directory.join("node.yaml"),
            remote: None,
            sys: directory.join("sys"),
            pauses: &[],
            root: directory.to_owned(),
            clock: Duration::ZERO,
            disk: None,
        }
    }

    #[test]
    fn a_document_says_what_is_installed_where() {
        let directory = tempfile::tempdir().unwrap();
        let ground = ground(directory.path());
        let nothing = || ground.install(&|| Ok(Arc::default()), &Silent);
        let write = |text: &str| std::fs::write(&ground.document, text).unwrap();
        assert!(nothing().unwrap().is_none());
        write("node: 1\nname: a\n");
        assert!(nothing().unwrap().is_none());
        write("node: 1\ninstall: {disk: \"bus=nvme,smallest\", wipe: S1, then: poweroff}\n");
        let asked = ground.own().unwrap().unwrap().document.install.unwrap();
        let install = ground.request(Some(&asked), None);
        assert_eq!((install.wipe.as_deref(), asked.then), (Some("S1"), Then::Poweroff));
        assert_eq!(install.target, Target::Selected("bus=nvme,smallest".parse().unwrap()));
        assert!(install.unattended && !install.keep_state);
        write("node: 1\ninstall: {disk: sda}\n");
        let error = format!("{:#}", nothing().unwrap_err());
        assert!(error.contains("\"sda\" does not describe a disk"), "{error}");
    }

    #[test]
    fn the_command_line_names_a_document() {
        let hash = Digest::of("root");
        let told = |words: &str| {
            let options = Cmdline::parse(&format!("roothash={hash} {words}")).unwrap().options;
            remote(&options).map_err(|error| error.to_string())
        };
        assert_eq!(told("quiet"), Ok(None));
        let named = told(&format!("keller.document=http://d.example/n.yaml keller.document.sha256={hash}"));
        assert_eq!(named.unwrap().unwrap().sha256, Some(hash));
        for (words, part) in [
            ("keller.document=http://d.example/${name}".to_owned(), "has the unknown placeholder `${name}`"),
            ("keller.document=http://me:s3cret@:x/".to_owned(), "is no address at http or https"),
            (
                format!("keller.document=http://d.example/${{uuid}} keller.document.sha256={hash}"),
                "has a placeholder, and `sha256` is that of one file",
            ),
        ] {
            let error = told(&words).unwrap_err();
            let begin = format!("keller.document= on the kernel command line: the address {part}: ");
            assert!(error.starts_with(&begin) && !error.contains("s3cret"), "{error}");
        }
    }
}
