//! Images of the manifest's containers: made out of packages by the root's own pipeline, or taken from an
//! OCI archive.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

use super::inputs::Owned;
use super::job::Means;
use super::laid::{self, Purpose};
use crate::base::limits;
use crate::base::progress::{Progress, Scoped};
use crate::lock::{Facts, Lock, Resolved};
use crate::manifest::{Container, ContainerBuild, ContainerImage, Manifest, Recipe, User};
use crate::rootfs::checks::{self, Finding, Inputs, programs};
use crate::rootfs::containers::mounts::Mounts;
use crate::rootfs::containers::{Config, Image, spec};
use crate::rootfs::pruned::Taken;
use crate::rootfs::{self, Accounts};
use crate::tree::{Kind, Tree};

/// The image of a container before anybody owns anything in it.
pub enum LaidContainer {
    /// Read out of an archive, as it is.
    Archive(Image),
    /// Made out of packages.
    Build(laid::LaidTree<()>),
}

impl LaidContainer {
    /// How many files, directories and links it has.
    fn nodes(&mut self) -> usize {
        match self {
            // Nobody knows a node of it by its number.
            Self::Archive(image) => image.tree.forget_unnamed(),
            Self::Build(laid) => laid.tree.link_counts().iter().filter(|count| **count > 0).count(),
        }
    }
}

/// Lays together what each container of the manifest is made of, in its order; `facts` get what is to be locked of it.
pub fn lay(
    manifest: &Manifest,
    resolved: &Resolved,
    facts: &mut Facts,
    means: &Means<'_>,
) -> Result<Vec<LaidContainer>> {
    let (mut all, mut nodes) = (Vec::new(), 0);
    for container in &manifest.containers {
        let laid = match &container.image {
            ContainerImage::Build(build) => {
                let none = BTreeMap::new();
                let locked = resolved.containers.get(&container.name).unwrap_or(&none);
                laid::lay(&Built::of(container, build), locked, resolved.epoch, facts, means).map(
                    |(laid, scripts)| {
                        facts.container_scripts.insert(container.name.clone(), scripts);
                        LaidContainer::Build(laid)
                    },
                )
            }
            ContainerImage::Archive { path, reference: wanted, .. } => {
                rootfs::containers::archive::read(path, wanted.as_deref(), resolved.epoch)
                    .with_context(|| format!("reading the image in {}", path.display()))
                    .map(|(image, digest)| {
                        facts.local.insert(format!("container {}", container.name), digest);
                        LaidContainer::Archive(Image { reference: reference(container), ..image })
                    })
            }
        };
        let mut laid = laid.with_context(|| making(container))?;
        // All images are in memory until the root is there to put them into.
        nodes += laid.nodes();
        if nodes > limits::ROOT_NODES {
            bail!(
                "the containers up to {} have more than {} files, directories and links together: make their images \
                 with fewer, or leave containers out",
                container.name,
                limits::ROOT_NODES
            );
        }
        all.push(laid);
    }
    Ok(all)
}

/// One image for each container of the manifest, of what was laid for each.
pub fn finish(
    manifest: &Manifest,
    laid: Vec<LaidContainer>,
    lock: &Lock,
    means: &Means<'_>,
) -> Result<Vec<Image>> {
    let progress = means.progress;
    let one = |(container, laid): (&Container, LaidContainer)| {
        let image = match (&container.image, laid) {
            (ContainerImage::Archive { path, .. }, LaidContainer::Archive(mut image)) => {
                judge(container, &image, progress)
                    .with_context(|| format!("reading the image in {}", path.display()))
                    .map(|()| {
                        leave_devices(&mut image.tree);
                        image
                    })
            }
            (ContainerImage::Build(build), LaidContainer::Build(laid)) => {
                finish_build(container, build, laid, lock, progress)
            }
            _ => unreachable!("what is laid of a container is in its order"),
        };
        image.with_context(|| making(container))
    };
    manifest.containers.iter().zip(laid).map(one).collect()
}

fn making(container: &Container) -> String {
    format!("making container {}", container.name)
}

/// Tells what an archive brings that would give others rights; fails with what is not allowed.
fn judge(container: &Container, image: &Image, progress: &dyn Progress) -> Result<()> {
    let (users, groups) = spec::numbers(&image.tree)?;
    let inputs = Inputs {
        allowed: container.allowed().clone(),
        said: container.said.clone(),
        users,
        groups,
        is_archive: true,
        leaves_devices: true,
        ..Default::default()
    };
    let scope = container.scope();
    let errors = laid::errors(checks::image(&image.tree, &inputs), &Scoped::new(&scope, progress));
    let all = match errors.len() {
        0 => return Ok(()),
        1 => String::new(),
        _ => checks::wanted(&image.tree),
    };
    bail!("the image would give others rights on the node:{}{all}", laid::lines(&errors))
}

/// Leaves device nodes out. No container opens those of its image: its control group has no devices but those of its
/// own /dev. But crun mounts an image anew without `nodev`, and a user of the node with the number of the container's
/// user comes there by /proc/PID/root.
fn leave_devices(tree: &mut Tree) {
    let mut devices = Vec::new();
    tree.visit(&mut |path, id| {
        if matches!(tree.node(id).kind, Kind::CharDevice(..) | Kind::BlockDevice(..)) {
            devices.push(path.to_vec());
        }
    });
    for path in devices {
        tree.remove(&path);
    }
}

fn reference(container: &Container) -> String {
    format!("localhost/{}:latest", container.name)
}

/// Refuses an image in which the engine could not start the process.
fn starts(container: &Container, config: &Config, tree: &Tree, pruned: &Taken) -> Result<()> {
    if let Some((field, program, unfit)) = programs::of_container(tree, container, config) {
        let way = pruned.program(tree, &program, &unfit, &programs::PATH);
        let way = way.unwrap_or_else(|| "add the package that has it to the image".to_owned());
        bail!(
            "{}, which {unfit}: {way}, or run another program",
            container.said.at(field, &program, &format!("it runs {program}"))
        );
    }
    if let Some(user) = &config.user
        && spec::account(tree, Some(user))?.is_none()
    {
        bail!(
            "{}, which its /etc/passwd and /etc/group do not have: name it in the image's `system_users`",
            container.said.at("user", user, &format!("it runs as user {user}"))
        );
    }
    Ok(())
}

/// The purpose of an image that is made out of packages.
struct Built<'a> {
    container: &'a Container,
    recipe: &'a Recipe,
    scope: String,
}

impl<'a> Built<'a> {
    fn of(container: &'a Container, build: &'a ContainerBuild) -> Self {
        Self { container, recipe: &build.recipe, scope: container.scope() }
    }
}

impl Purpose for Built<'_> {
    type Aside = ();
    type Fixed = ();
    const BOOTS: bool = false;

    fn recipe(&self) -> &Recipe {
        self.recipe
    }

    fn people(&self) -> &[User] {
        &[]
    }

    fn scope(&self) -> &str {
        &self.scope
    }

    fn aside(&self, _: &mut Tree) -> Result<()> {
        Ok(())
    }

    fn install(&self, _: &mut Tree, (): &(), _: &mut Facts) -> Result<()> {
        Ok(())
    }

    fn placed(&self, error: rootfs::Error) -> anyhow::Error {
        anyhow::anyhow!("{}{error}", laid::place(self.recipe, &error))
    }

    fn fix_up(&self, tree: &mut Tree, accounts: &Accounts, _: &Owned, _: &Taken) -> Result<()> {
        rootfs::finish_container(tree, self.recipe, accounts).map_err(|error| self.placed(error))
    }

    fn check(&self, tree: &Tree, inputs: &Inputs) -> Vec<Finding> {
        let inputs = Inputs { mounts: Mounts::of(tree, self.container), ..inputs.clone() };
        let mut findings = checks::check(tree, &inputs);
        findings.extend(checks::layer(tree, &inputs));
        findings
    }
}

fn finish_build(
    container: &Container,
    build: &ContainerBuild,
    laid: laid::LaidTree<()>,
    lock: &Lock,
    progress: &dyn Progress,
) -> Result<Image> {
    let laid::Finished { mut tree, inputs, .. } =
        laid.finish(&Built::of(container, build), &lock.ids, progress)?;
    let config = Config {
        entrypoint: build.entrypoint.clone(),
        command: build.command.clone(),
        environment: build.environment.clone(),
        user: build.user.clone(),
        workdir: build.workdir.clone(),
        stop_signal: build.stop_signal,
    };
    starts(container, &config, &tree, &inputs.pruned)?;
    leave_devices(&mut tree);
    Ok(Image { reference: reference(container), tree, config })
}
