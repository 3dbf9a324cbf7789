//! From a manifest to the files that were asked for.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};

use super::outputs::Outputs;
use super::relock::{begin, save};
use super::store::{mending, trim};
use super::{Inputs, Policy, Project, keller};
use crate::base::input;
use crate::base::progress::Progress;
use crate::image::{Job, Means, Report};
use crate::install::Refusal;
use crate::manifest::Manifest;
use crate::node::policy::{self, Place};
use crate::node::{self, Remote};
use crate::output::Format;

/// What is to be built, and how.
#[derive(Clone, Debug)]
pub struct Build {
    /// The manifest; without one, the default node inside this program.
    pub manifest: Option<PathBuf>,
    /// The version that it becomes, whatever the manifest says.
    pub version: Option<String>,
    /// Where the files go; `out` beside the manifest by default.
    pub output: Option<PathBuf>,
    /// How much of the lock may change.
    pub policy: Policy,
    /// Whether it is built a second time in another way, and compared.
    pub check: bool,
    /// Whether SHA256SUMS is written: an image that is only booted here need not be read once more, holes and all.
    pub sums: bool,
    /// Node documents for the machines that run the image from memory.
    pub install: Option<PathBuf>,
    /// The keller for the node; by default the one that runs.
    pub keller: Option<PathBuf>,
    /// Whether the one that runs may be unoptimised.
    pub allow_debug: bool,
    /// Where inputs come from.
    pub inputs: Inputs,
}

/// What a build left behind.
#[derive(Clone, Debug)]
pub struct Built {
    /// The files, by format.
    pub files: Vec<(Format, PathBuf)>,
    /// What they are.
    pub report: Report,
    /// What was asked for.
    pub project: Project,
}

impl Build {
    /// Builds.
    ///
    /// # Errors
    /// What is wrong with the manifest, its inputs or the image that would come of them, and files that cannot be
    /// written.
    pub fn run(&self, progress: &dyn Progress) -> Result<Built> {
        let (bytes, digest) = keller::read(self.keller.as_deref(), self.allow_debug)?;
        let output = self.output_folder();
        let project = self.project(&output)?;
        let (manifest, inputs, policy) = (&project.manifest, &self.inputs, &self.policy);
        let store = inputs.open_store(progress)?;
        let document = self.document(manifest)?;
        let outputs = Outputs::new(manifest, &output, document.as_deref());
        outputs.check()?;
        let means = Means { store: &store, settings: inputs.settings(), progress };
        let work = || {
            let begun = begin(&project, policy, inputs, &means)?;
            let root = begun.laid.finish(manifest, &begun.lock, &bytes, &means)?;
            store.sound()?;
            let lock = save(&project, policy, begun.before.as_ref(), begun.lock, progress)?;
            fs::create_dir_all(&output).with_context(|| format!("making {}", output.display()))?;
            let job = Job { manifest, lock: &lock, keller: (&bytes, digest), means };
            outputs.write(&job, root, self.check, self.sums)
        };
        let built = mending(&store, progress, work);
        let (files, report) = built.with_context(|| format!("building {}", project.name))?;
        trim(store, progress);
        Ok(Built { files, report, project })
    }

    /// The checked bytes of the node documents.
    fn document(&self, manifest: &Manifest) -> Result<Option<Vec<u8>>> {
        let Some(path) = &self.install else { return Ok(None) };
        if !manifest.outputs.iter().any(|output| output.runs_from_memory()) {
            bail!(
                "--install {}: no output carries documents: add iso, netboot or netboot-http to `outputs`",
                path.display()
            );
        }
        let bytes =
            input::read(path, node::LARGEST + 1).with_context(|| format!("reading {}", path.display()))?;
        let policy = &manifest.node;
        if !policy.takes_from(Place::Initramfs) {
            bail!(
                "--install {}: no node of this image would read it: `node.sources` of the manifest has no `initramfs`",
                path.display()
            );
        }
        let documents = node::read(&path.to_string_lossy(), &bytes)?;
        if documents.iter().any(|document| document.install.is_some()) && !policy.takes_from(Place::Esp) {
            bail!(
                "--install {}: what is installed would not get its document: add `esp` to `node.sources` of the manifest",
                path.display()
            );
        }
        let is_open = |remote: &Remote| remote.signers(policy).is_none();
        let asked = documents.iter().filter_map(|document| document.install.as_ref());
        if asked.filter_map(|asked| asked.document.as_ref()).any(is_open) {
            bail!("--install {}: {}", path.display(), Refusal::NothingVouches);
        }
        policy.check_all(&documents).map_err(|(document, why)| {
            let name = document.name.as_deref().unwrap_or("without a name");
            anyhow!("--install {}: document {name}: {why}; {}", path.display(), policy::SIGN)
        })?;
        Ok(Some(bytes))
    }

    fn project(&self, output: &Path) -> Result<Project> {
        let mut project = Project::load(self.manifest.as_deref(), output)?;
        if let Some(version) = &self.version {
            let manifest = project.manifest.with_version(version);
            project.manifest = manifest.map_err(|problem| anyhow!("--version: {problem}"))?;
        }
        Ok(project)
    }

    fn output_folder(&self) -> PathBuf {
        match (&self.output, &self.manifest) {
            (Some(output), _) => output.clone(),
            (None, Some(manifest)) => manifest.parent().unwrap_or(Path::new("")).join("out"),
            (None, None) => PathBuf::from("out"),
        }
    }
}

impl Built {
    /// The file to boot: raw before others, and a compressed one where there is no other.
    pub fn bootable(&self) -> &Path {
        &self.files.iter().min_by_key(|(format, _)| *format).expect("every manifest asks for an output").1
    }

    /// The ports of the node behind which its containers serve pages once it runs.
    pub fn pages(&self) -> Vec<u16> {
        let containers = self.project.manifest.containers.iter().filter(|container| container.start);
        let ports = containers.flat_map(|container| &container.ports).filter(|port| !port.udp);
        ports.map(|port| port.host).collect()
    }
}
