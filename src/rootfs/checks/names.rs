//! Names in the manifest that must be names of something in the tree: units, programs, shells, what reads a
//! person's keys. Each would pass the build, and fail on every node.

use std::collections::BTreeSet;

use super::programs::{self, Unfit};
use super::units::{Look, Units};
use super::{Finding, Inputs, Severity, View, waits};
use crate::base::near::{did_you_mean, near_or_part};
use crate::manifest::{Container, Manifest, Runtime};
use crate::rootfs::pruned::Taken;
use crate::tree::Tree;

/// Types of units that exist only as files; others (devices, mounts, slices) come up by themselves.
const FILE_TYPES: [&str; 5] = [".service", ".socket", ".target", ".timer", ".path"];
/// Where generators are.
const GENERATORS: [&str; 2] = ["etc/systemd/system-generators", "usr/lib/systemd/system-generators"];
/// Shells that end every login: they stand in no /etc/shells, on purpose.
const NO_LOGIN: [&str; 2] = ["nologin", "false"];
/// Units by which sshd starts.
const SSH_UNITS: [&str; 4] = ["ssh.service", "ssh.socket", "sshd.service", "sshd.socket"];
/// systemd-sysv-generator makes a unit of each file here.
const INIT_SCRIPTS: &str = "etc/init.d";

/// Reports names of `manifest` that nothing has.
pub(super) fn check(
    view: &View<'_>,
    inputs: &Inputs,
    units: &Units<'_>,
    manifest: &Manifest,
) -> Vec<Finding> {
    let mut check =
        Check { view, tree: view.tree, pruned: &inputs.pruned, units, manifest, findings: Vec::new() };
    check.health_units();
    check.health_command();
    check.masks();
    check.people();
    check.engine();
    check.containers();
    check.findings.extend(waits::check(units, manifest));
    check.findings
}

/// What is looked at, and what was found.
struct Check<'a> {
    view: &'a View<'a>,
    tree: &'a Tree,
    pruned: &'a Taken,
    units: &'a Units<'a>,
    manifest: &'a Manifest,
    findings: Vec<Finding>,
}

impl Check<'_> {
    fn report(&mut self, severity: Severity, problem: String, advice: impl Into<String>) {
        let (path, origin, advice) = (String::new(), "manifest".to_owned(), advice.into());
        self.findings.push(Finding { severity, path, origin, problem, advice });
    }

    fn error(&mut self, problem: String, advice: impl Into<String>) {
        self.report(Severity::Error, problem, advice);
    }

    fn container(&self, unit: &str) -> Option<&Container> {
        let name = unit.strip_suffix(".service")?;
        self.manifest.containers.iter().find(|container| container.name == name)
    }

    /// Names of units like `name`, containers' among them.
    fn like(&self, name: &str) -> String {
        let (mut names, aliases) = self.units.names().clone();
        names.extend(aliases.into_keys());
        names.extend(self.manifest.containers.iter().map(|container| format!("{}.service", container.name)));
        // A mask is a file of this name itself.
        names.remove(name);
        did_you_mean(&near_or_part(name, names.iter().map(String::as_str)))
    }

    fn health_units(&mut self) {
        for unit in &self.manifest.health.units {
            let names = self.manifest.said.names("health.units", unit);
            if let Some(container) = self.container(unit) {
                if !container.start {
                    let problem =
                        format!("{names}, a container that does not start at boot (`start: false`)");
                    self.error(problem, "no boot could become good: take it out of one of the two");
                }
                continue;
            }
            match self.units.look(unit) {
                Look::Absent if self.by_others(unit) => {
                    let by = self.units.other_generators().join(" or ");
                    let problem =
                        format!("{names}, which nothing in the image has, unless {by} makes it at boot");
                    let advice = match self.pruned.unit(self.tree, unit) {
                        Some(way) => format!("where it does not, no boot could become good: {way}"),
                        None => "where it does not, no boot could become good".to_owned(),
                    };
                    self.report(Severity::Warning, problem, advice);
                }
                Look::Absent if FILE_TYPES.iter().any(|suffix| unit.ends_with(suffix)) => {
                    match self.pruned.unit(self.tree, unit) {
                        Some(way) => self.error(
                            format!("{names}, which is left out"),
                            format!("no boot could become good: {way}"),
                        ),
                        None => self.error(
                            format!("{names}, which no package and no overlay has{}", self.like(unit)),
                            "no boot could become good: name a unit that there is",
                        ),
                    }
                }
                Look::Masked => {
                    let problem = format!("{names}, which is masked");
                    self.error(
                        problem,
                        "no boot could become good: take it out of `health.units` or of what masks it",
                    );
                }
                Look::File { passes: true, .. } => {
                    let problem =
                        format!("{names}, which is inactive again as soon as it has run (Type=oneshot)");
                    let advice = "no boot could become good: give the unit `RemainAfterExit=yes` by a drop-in, or \
                                  run its command in `health.command`";
                    self.error(problem, advice);
                }
                Look::File { started: false, .. } | Look::Generated { starts: false } => {
                    let problem =
                        format!("{names}, which nothing in the image starts at boot, as far as units tell");
                    self.report(Severity::Warning, problem, "enable it in `services.enable`");
                }
                Look::Absent | Look::Generated { .. } | Look::File { .. } => {}
            }
        }
    }

    /// Whether the unit may be one of those that a generator makes which keller does not know.
    fn by_others(&self, unit: &str) -> bool {
        FILE_TYPES.iter().any(|suffix| unit.ends_with(suffix)) && !self.units.other_generators().is_empty()
    }

    fn health_command(&mut self) {
        let Some(program) = self.manifest.health.command.first() else { return };
        let Err(unfit) = programs::judge(self.tree, program, &programs::PATH, &programs::PATH) else {
            return;
        };
        let names = self.manifest.said.names("health.command", program);
        match unfit {
            Unfit::State => {
                let problem = format!("{names}, which {unfit}");
                self.report(
                    Severity::Warning,
                    problem,
                    "at the first boot it is missing: ship it in the image",
                );
            }
            _ => {
                let problem = format!("{names}, which {unfit}");
                let way = self.pruned.program(self.tree, program, &unfit, &programs::PATH);
                let way = way.unwrap_or_else(|| "add the package that has it".to_owned());
                self.error(problem, format!("no boot could become good: {way}, or name another command"));
            }
        }
    }

    fn masks(&mut self) {
        for name in &self.manifest.services.mask {
            if self.manifest.said.is_carried("services.mask", name) || self.container(name).is_some() {
                continue;
            }
            let is_unit = FILE_TYPES.iter().any(|suffix| name.ends_with(suffix));
            let known = match name.contains('.') {
                // Found through the mask itself otherwise.
                true => !is_unit || self.by_others(name) || self.units.is_shipped(name),
                false => GENERATORS[1..].iter().any(|folder| self.tree.exists(format!("{folder}/{name}"))),
            };
            if !known {
                let names = self.manifest.said.names("services.mask", name);
                let generators = [GENERATORS[1]];
                let way = match name.contains('.') {
                    true => self.pruned.unit(self.tree, name),
                    false => self.pruned.named(self.tree, name, &generators),
                };
                match way {
                    Some(way) => {
                        self.error(format!("{names}, which is left out"), format!("remove the entry: {way}"));
                    }
                    None => self.error(
                        format!("{names}, which no package and no overlay has{}", self.like(name)),
                        "remove the entry, or name what there is",
                    ),
                }
            }
        }
    }

    fn people(&mut self) {
        let shells = self.view.read("etc/shells");
        let shells: Option<BTreeSet<String>> = shells.map(|bytes| {
            String::from_utf8_lossy(&bytes).lines().map(|line| line.trim().to_owned()).collect()
        });
        for user in &self.manifest.users {
            let (said, name) = (&self.manifest.said, &user.name);
            let field = if said.place("users.shell", name).is_some() { "users.shell" } else { "users" };
            let has = said.at(field, name, &format!("user {name} has the shell {}", user.shell));
            match programs::judge(self.tree, &user.shell, &[], &programs::PATH) {
                Err(Unfit::State) => {
                    self.report(
                        Severity::Warning,
                        format!("{has}, which {}", Unfit::State),
                        "name one of the image",
                    );
                }
                Err(unfit) => {
                    let way = self.pruned.program(self.tree, &user.shell, &unfit, &programs::PATH);
                    let way = way.unwrap_or_else(|| "add the package that has it".to_owned());
                    let advice = format!("nobody could log in: {way}, or set another `shell`");
                    self.error(format!("{has}, which {unfit}"), advice);
                }
                Ok(()) => {
                    let base = user.shell.rsplit('/').next().unwrap_or_default();
                    if shells.as_ref().is_some_and(|known| !known.contains(&user.shell))
                        && !NO_LOGIN.contains(&base)
                    {
                        let problem = format!("{has}, which is not in /etc/shells");
                        self.report(Severity::Warning, problem, "add it to the file that an overlay brings");
                    }
                }
            }
            if user.ssh_keys.is_empty() {
                continue;
            }
            let has = self.manifest.said.at("users.ssh_keys", name, &format!("user {name} has ssh_keys"));
            if !self.tree.exists("usr/sbin/sshd") {
                let way = self.pruned.way_out(self.tree, "usr/sbin/sshd");
                let way = way.unwrap_or_else(|| "include keller:manifests/components/ssh.yaml".to_owned());
                let advice = format!("{way}, or remove the keys");
                self.error(format!("{has}, but the image has no sshd that would read them"), advice);
            } else if !SSH_UNITS.iter().any(|unit| self.units.starts(unit)) {
                let problem = format!("{has}, but nothing starts sshd at boot");
                self.report(Severity::Warning, problem, "add ssh.service to `services.enable`");
            }
        }
    }

    fn engine(&mut self) {
        let (runtime, program) = match self.manifest.runtime {
            Runtime::Podman => ("podman", "/usr/bin/podman"),
            Runtime::Containerd => ("containerd", "/usr/bin/ctr"),
            Runtime::Crun => ("crun", "/usr/bin/crun"),
            Runtime::None => return,
        };
        // With containers, each says what it needs.
        if !self.manifest.containers.is_empty() {
            return;
        }
        if let Err(unfit) = programs::judge(self.tree, program, &[], &programs::PATH) {
            let problem =
                self.manifest.said.at("runtime", "", &format!("runtime is {runtime}, but {program} {unfit}"));
            let way = self.pruned.program(self.tree, program, &unfit, &[]);
            let way = way.unwrap_or_else(|| format!("include keller:manifests/components/{runtime}.yaml"));
            self.error(problem, format!("{way}, or set `runtime: none`"));
        }
    }

    /// A container is a unit of its name: it must not replace or hide another.
    fn containers(&mut self) {
        let (names, aliases) = self.units.names();
        for container in &self.manifest.containers {
            let unit = format!("{}.service", container.name);
            let name = &container.name;
            let has = container.said.at("containers", name, &format!("container {name}"));
            if self.manifest.services.mask.contains(&unit) {
                self.error(
                    format!("{has} is masked in `services.mask`"),
                    "`start: false` keeps it from starting at boot",
                );
                continue;
            }
            let script = self.tree.exists(format!("{INIT_SCRIPTS}/{}", container.name));
            let taken = match (names.contains(&unit), aliases.get(&unit)) {
                (true, _) if !script => Some(format!("unit {unit}, which is in the image already")),
                (_, Some(of)) => Some(format!("unit {unit}, another name (Alias=) of {of}")),
                _ if script => {
                    Some(format!("unit {unit}, which systemd makes of /{INIT_SCRIPTS}/{}", container.name))
                }
                _ => None,
            };
            if let Some(taken) = taken {
                let advice = "it would replace or hide that unit: give the container another name";
                self.error(format!("{has} would be {taken}"), advice);
            }
        }
    }
}
