//! Images of the manifest's containers: made out of packages by the root's own pipeline, or taken from an
//! OCI archive.

use anyhow::{Context, Result, bail};

use super::{Settings, inputs, root, scripts};
use crate::base::progress::{Progress, Task, Unit};
use crate::lock::Lock;
use crate::manifest::{Allowed, Container, ContainerBuild, ContainerImage, Manifest, Said};
use crate::rootfs::checks::{Severity, programs};
use crate::rootfs::containers::mounts::Mounts;
use crate::rootfs::containers::{Config, Image, spec};
use crate::rootfs::dangling::LeftOut;
use crate::rootfs::{self, Wanted};
use crate::store::Store;
use crate::tree::prune::Patterns;
use crate::tree::{Kind, Tree};

/// One image for each container of the manifest, in its order.
pub fn images(
    manifest: &Manifest,
    lock: &mut Lock,
    store: &Store,
    settings: &Settings,
    progress: &dyn Progress,
) -> Result<Vec<Image>> {
    let mut images = Vec::new();
    for container in &manifest.containers {
        let image = match &container.image {
            ContainerImage::Build(recipe) => {
                build(container, recipe, &manifest.said, lock, store, settings, progress)
            }
            ContainerImage::Archive { path, reference: wanted } => {
                let archive = rootfs::containers::archive::read(path, wanted.as_deref(), lock.epoch)
                    .map_err(anyhow::Error::from)
                    .and_then(|(mut image, digest)| {
                        judge(container, &image, progress)?;
                        leave_devices(&mut image.tree);
                        Ok((image, digest))
                    })
                    .with_context(|| format!("reading the image in {}", path.display()));
                archive.map(|(image, digest)| {
                    lock.local.insert(format!("container {}", container.name), digest);
                    Image { reference: reference(container), ..image }
                })
            }
        };
        images.push(image.with_context(|| format!("making container {}", container.name))?);
    }
    Ok(images)
}

/// What may give others rights in the image of `container`.
pub fn allowed(container: &Container) -> Allowed {
    match &container.image {
        ContainerImage::Archive { .. } => container.allowed.clone(),
        ContainerImage::Build(recipe) => Allowed {
            setuid: recipe.setuid.clone(),
            device_nodes: recipe.device_nodes.clone(),
            world_writable: recipe.world_writable.clone(),
        },
    }
}

/// Tells what an archive brings that would give others rights; fails with what is not allowed.
fn judge(container: &Container, image: &Image, progress: &dyn Progress) -> Result<()> {
    let (users, groups) = spec::numbers(&image.tree);
    let Allowed { setuid, device_nodes, world_writable } = container.allowed.clone();
    let inputs = rootfs::checks::Inputs {
        setuid,
        device_nodes,
        world_writable,
        users,
        groups,
        is_archive: true,
        ..Default::default()
    };
    let (errors, warnings): (Vec<_>, Vec<_>) = rootfs::checks::image(&image.tree, &inputs)
        .into_iter()
        .partition(|finding| finding.severity == Severity::Error);
    for warning in &warnings {
        progress.note(&format!("container {}: {warning}", container.name));
    }
    if errors.is_empty() {
        return Ok(());
    }
    let lines: Vec<_> = errors.iter().map(|finding| format!("\n  {finding}")).collect();
    let all = match errors.len() {
        1 => String::new(),
        _ => rootfs::checks::wanted(&image.tree),
    };
    bail!("the image would give others rights on the node:{}{all}", lines.concat())
}

/// Leaves device nodes out. No container opens those of its image: its control group has no devices but those of its
/// own /dev. But crun mounts an image anew without `nodev`, and a user of the node with the number of the container's
/// user comes there by /proc/PID/root.
fn leave_devices(tree: &mut Tree) {
    for (path, id) in tree.walk() {
        if matches!(tree.node(id).kind, Kind::CharDevice(..) | Kind::BlockDevice(..)) {
            tree.remove(&path);
        }
    }
}

fn reference(container: &Container) -> String {
    format!("localhost/{}:latest", container.name)
}

/// Refuses an image in which the engine could not start the process.
fn starts(container: &Container, config: &Config, tree: &Tree, said: &Said) -> Result<()> {
    if let Some((field, program, unfit)) = programs::of_container(tree, container, config) {
        bail!(
            "{}, which {unfit}: add the package that has it to the image, or run another program",
            said.at(field, &program, &format!("it runs {program}"))
        );
    }
    if let Some(user) = &config.user
        && spec::account(tree, Some(user)).is_none()
    {
        bail!(
            "{}, which its /etc/passwd and /etc/group do not have: name it in the image's `system_users`",
            said.at("user", user, &format!("it runs as user {user}"))
        );
    }
    Ok(())
}

fn build(
    container: &Container,
    recipe: &ContainerBuild,
    said: &Said,
    lock: &mut Lock,
    store: &Store,
    settings: &Settings,
    progress: &dyn Progress,
) -> Result<Image> {
    let locked = lock.containers.get(&container.name).cloned().unwrap_or_default();
    let root::Packages { mut tree, scripts } =
        root::packages(&locked, lock.epoch, store, settings, progress)?;
    let packages = lock.containers.entry(container.name.clone()).or_default();
    let scope = format!("container {}: ", container.name);
    scripts::settle(&scope, packages, scripts, progress);
    let _task = Task::new(progress, "container", 0, Unit::Items);
    let libraries = rootfs::checks::libraries(&tree);
    let leading = rootfs::dangling::leading(&tree);
    let patterns = Patterns::new(&recipe.prune, &recipe.keep)?;
    let carried = |field: &str, pattern: &str| said.is_carried(&format!("containers.{field}"), pattern);
    root::prune(&mut tree, &patterns, &scope, &carried, progress);
    let mut left_out = LeftOut::take(&mut tree, leading);
    let overlays = inputs::overlays(&mut tree, &recipe.overlays, &scope, &mut lock.local, progress)?;
    left_out.put_back(&mut tree)?;
    let files = inputs::files(&mut tree, &recipe.files, &scope, store, lock, progress)?;
    left_out.put_back(&mut tree)?;
    root::tell_links(&left_out, &scope, false, progress);
    inputs::own_numbers(&mut tree, &overlays);
    let fixed = Wanted::fixed(&[], &recipe.system_users, &recipe.groups);
    root::judge(rootfs::checks::lines::sysusers(&tree, fixed)?, progress)?;
    lock.ids = rootfs::container_ids(&tree, recipe, &lock.ids)?;
    let accounts = &rootfs::container_accounts(&tree, recipe, &lock.ids)?;
    let owned = inputs::own(&mut tree, &recipe.files, &files, &overlays, accounts)?;
    let rights = rootfs::checks::Inputs {
        setuid: recipe.setuid.clone(),
        device_nodes: recipe.device_nodes.clone(),
        world_writable: recipe.world_writable.clone(),
        ..Default::default()
    };
    let known = root::check_inputs(accounts);
    let mut findings = rootfs::checks::brought(&tree, &rights);
    rootfs::finish_container(&mut tree, recipe, accounts)?;
    owned.again(&mut tree);
    let inputs = rootfs::checks::Inputs {
        missing_libraries: recipe.missing_libraries.clone(),
        mounts: Mounts::of(&tree, container),
        libraries,
        users: known.users,
        groups: known.groups,
        ..rights
    };
    findings.extend(rootfs::checks::check(&tree, &inputs));
    findings.extend(rootfs::checks::layer(&tree, &inputs));
    root::judge(findings, progress)?;
    let config = Config {
        entrypoint: recipe.entrypoint.clone(),
        command: recipe.command.clone(),
        environment: recipe.environment.clone(),
        user: recipe.user.clone(),
        workdir: recipe.workdir.clone(),
        stop_signal: recipe.stop_signal,
    };
    starts(container, &config, &tree, said)?;
    leave_devices(&mut tree);
    Ok(Image { reference: reference(container), tree, config })
}
