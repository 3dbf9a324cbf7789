//! Containers and what their images are made of.

use std::collections::BTreeMap;

use super::accounts::Accounts;
use super::recipe::Target;
use super::{At, Firsts, Kind, Validator, or, text};
use crate::base::Size;
use crate::manifest::raw::{RawBuild, RawContainer, RawImage};
use crate::manifest::{Container, ContainerBuild, ContainerImage, Runtime, merge, schema};
use crate::written::decode;
use crate::written::place::Mark;

/// Less than any container gets by with.
const LEAST_SCRATCH: Size = Size(1 << 20);

impl Validator<'_> {
    pub(super) fn containers(
        &mut self,
        items: Vec<At<RawContainer>>,
        said: Option<Mark>,
        runtime: Runtime,
    ) -> Vec<Container> {
        if let (Some(first), Runtime::None) = (items.first(), runtime) {
            let mark = said.unwrap_or(first.mark);
            let problem = self.error(mark, "there are containers, but nothing that runs them");
            problem.help("add `runtime: podman`, or `containerd`, or `crun`");
            if said.is_some() {
                problem.related(first.mark, "the first container");
            }
        }
        let (mut names, mut ports) = (Firsts::new(), Firsts::new());
        match runtime {
            Runtime::Containerd | Runtime::Crun => self.no_ports(&items, said),
            Runtime::Podman => self.no_scratch(&items, said),
            Runtime::None => {}
        }
        let containers = items.into_iter().filter_map(|at| self.container(at.value, &mut names, &mut ports));
        containers.collect()
    }

    /// Without podman nobody makes networks for containers.
    fn no_ports(&mut self, items: &[At<RawContainer>], said: Option<Mark>) {
        for At { value: raw, .. } in items {
            let host_network = raw.host_network.as_ref().is_some_and(|at| at.value);
            if let (false, Some(port)) = (host_network, raw.ports.first()) {
                let problem = self.error(port.mark, "only podman publishes ports");
                problem.help("`host_network: true` instead of `ports`, or `runtime: podman`");
                if let Some(mark) = said {
                    problem.related(mark, "the runtime is set here");
                }
            }
        }
    }

    /// podman keeps on the state partition what a container writes.
    fn no_scratch(&mut self, items: &[At<RawContainer>], said: Option<Mark>) {
        for at in items.iter().filter_map(|at| at.value.scratch.as_ref()) {
            let problem = self.error(at.mark, "with podman, what a container writes is not in memory");
            problem.help("remove `scratch`, or set `runtime: crun` or `runtime: containerd`");
            if let Some(mark) = said {
                problem.related(mark, "the runtime is set here");
            }
        }
    }

    fn container(
        &mut self,
        raw: RawContainer,
        names: &mut Firsts<String>,
        ports: &mut Firsts<(u16, bool)>,
    ) -> Option<Container> {
        if let Some(first) = names.note(raw.name.value.clone(), raw.name.mark) {
            self.error(
                raw.name.mark,
                format!("the container `{}` stands here a second time", raw.name.value),
            )
            .related(first, "the first is here");
        }
        let host_network = or(raw.host_network.clone(), false);
        if let (Some(at), Some(port)) = (raw.host_network.filter(|at| at.value), raw.ports.first()) {
            self.error(port.mark, "a container on the host's network publishes no ports")
                .help("remove `ports` or `host_network`")
                .related(at.mark, "it shares the host's network");
        }
        let mut published = Vec::new();
        for at in raw.ports {
            let Some(port) = self.form(&at, text::port) else { continue };
            if let Some(first) = ports.note((port.host, port.udp), at.mark) {
                self.error(at.mark, format!("port {} of the host is taken", port.host))
                    .help("each published port can be used once")
                    .related(first, "it is published here");
            }
            published.push(port);
        }
        let (mut volumes, mut places) = (Vec::new(), Firsts::new());
        for at in raw.volumes {
            let Some(volume) = self.form(&at, text::volume) else { continue };
            if let Some(first) = places.note(volume.container.clone(), at.mark) {
                self.error(at.mark, format!("{} of the container is a volume already", volume.container))
                    .related(first, "the first is here");
            }
            volumes.push(volume);
        }
        let outer = std::mem::take(&mut self.said);
        self.note("containers", &raw.name.value, raw.name.mark);
        if let Some(program) = raw.command.first() {
            self.note("containers.command", &program.value, program.mark);
        }
        let scratch = raw.scratch.and_then(|at| self.form(&at, |text| text::size(text, LEAST_SCRATCH)));
        let image = self.image(raw.image);
        let said = std::mem::replace(&mut self.said, outer);
        let name = self.checked(raw.name, text::id);
        Some(Container {
            name: name?,
            image: image?,
            said,
            new_privileges: or(raw.new_privileges, false),
            scratch: scratch.unwrap_or(Container::SCRATCH),
            command: self.arguments(raw.command),
            environment: self.environment(raw.environment),
            ports: published,
            volumes,
            host_network,
            start: or(raw.start, true),
        })
    }

    /// Words that programs can be given.
    fn arguments(&mut self, items: Vec<At<String>>) -> Vec<String> {
        for at in &items {
            if let Some(why) = text::not_exec(&at.value, 0) {
                self.error(at.mark, format!("this argument {why}"))
                    .help("no program can be given such an argument; a file in a volume can hold it");
            }
        }
        plain(items)
    }

    fn environment(&mut self, items: BTreeMap<String, At<String>>) -> BTreeMap<String, String> {
        let mut environment = BTreeMap::new();
        for (name, at) in items {
            if let Some(why) = text::not_exec(&at.value, name.len() + 1) {
                self.error(at.mark, format!("the value of `{name}` {why}"))
                    .help("no program can be given such a variable; a file in a volume can hold it");
            }
            if let Some(name) = self.checked(At { value: name, mark: at.mark }, text::variable) {
                environment.insert(name, at.value);
            }
        }
        environment
    }

    fn image(&mut self, At { value: raw, mark }: At<RawImage>) -> Option<ContainerImage> {
        if let (Some(at), None) = (&raw.reference, &raw.archive) {
            self.error(at.mark, "only an archive has several images to choose from")
                .help("remove `reference`; a recipe makes one image");
        }
        let lists = [
            ("setuid", &raw.setuid),
            ("device_nodes", &raw.device_nodes),
            ("world_writable", &raw.world_writable),
        ];
        for (field, list) in lists.into_iter().filter(|_| raw.archive.is_none()) {
            if let Some(first) = list.first() {
                self.error(first.mark, format!("here `{field}` is for an archive"))
                    .help(format!("move `{field}` into the recipe"));
            }
        }
        let allowed = self.allowed(raw.setuid, raw.device_nodes, raw.world_writable);
        let reference = raw.reference.and_then(|at| self.checked(at, text::reference));
        match (raw.build, raw.archive) {
            (Some(build), None) => self.build(&build).map(|build| ContainerImage::Build(Box::new(build))),
            (None, Some(archive)) => {
                let path = self.beside_on_disk(&archive, &[Kind::File, Kind::Folder])?;
                Some(ContainerImage::Archive { path, reference, allowed })
            }
            (Some(_), Some(archive)) => {
                self.error(archive.mark, "an image comes from `build` or from `archive`, not from both");
                None
            }
            (None, None) => {
                self.error(mark, "this does not say where the image comes from")
                    .help("`build: containers/NAME.yaml` or `archive: NAME.tar`");
                None
            }
        }
    }

    fn build(&mut self, at: &At<String>) -> Option<ContainerBuild> {
        let location = self.sources.location(at.mark).resolve(&at.value);
        let schema = schema::container_image();
        let node = merge::Loader::new(self.sources, self.report, &schema).load(location, Some(at.mark))?;
        let raw: RawBuild = match decode::decode(&node) {
            Ok(raw) => raw,
            Err(fault) => {
                self.error(fault.mark.unwrap_or(node.mark), fault.message);
                return None;
            }
        };
        let parts = &raw.recipe;
        if parts.packages.is_empty() && parts.files.is_empty() && parts.overlays.is_empty() {
            self.error(node.mark, "this image is empty").help("name `packages`, `overlays` or `files`");
        }
        for (field, items) in [("entrypoint", &raw.entrypoint), ("command", &raw.command)] {
            if let Some(program) = items.first() {
                self.note(field, &program.value, program.mark);
            }
        }
        if let Some(at) = &raw.user {
            self.note("user", &at.value, at.mark);
        }
        if raw.entrypoint.is_empty() && raw.command.is_empty() {
            self.error(node.mark, "this image has nothing to run").help("add `entrypoint: [/usr/bin/…]`");
        }
        Some(ContainerBuild {
            recipe: self.recipe(raw.recipe, Accounts::default(), Target::Container),
            entrypoint: self.arguments(raw.entrypoint),
            command: self.arguments(raw.command),
            environment: self.environment(raw.environment),
            user: raw.user.and_then(|at| self.checked(at, text::container_user)),
            workdir: raw.workdir.and_then(|at| self.checked(at, text::absolute)),
            stop_signal: raw.stop_signal.and_then(|at| self.form(&at, text::signal)),
        })
    }
}

/// Arguments: any text, in order, repeated as written.
pub(super) fn plain(items: Vec<At<String>>) -> Vec<String> {
    items.into_iter().map(|at| at.value).collect()
}
