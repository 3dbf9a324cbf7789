//! Units that systemd's generators make at boot out of files of the image: systemd.generator(7).
//!
//! No file of the tree is such a unit, and yet a node has it.

use std::collections::{BTreeMap, BTreeSet};

use super::{GENERATORS, LOCAL, SHIPPED, unit::UnitName};
use crate::rootfs::text::settings::Settings;
use crate::rootfs::text::words::{Escapes, words};
use crate::tree::{Kind, NodeId, Tree, TreeError, show};

/// Where packages bring generators.
const SHIPPED_GENERATORS: &str = "usr/lib/systemd/system-generators";

/// What systemd-sysv-generator reads.
const INIT_SCRIPTS: &str = "etc/init.d";
const SYSV: &str = "systemd-sysv-generator";
/// Runlevels whose links start a script at boot.
const RUNLEVELS: [char; 4] = ['2', '3', '4', '5'];

const QUADLET: &str = "podman-system-generator";
/// Where podman's generator finds the files that it turns into units, and into which.
const QUADLETS: [&str; 2] = ["etc/containers/systemd", "usr/share/containers/systemd"];
const QUADLET_UNITS: [(&str, &str); 7] = [
    (".container", ".service"),
    (".kube", ".service"),
    (".pod", "-pod.service"),
    (".volume", "-volume.service"),
    (".network", "-network.service"),
    (".image", "-image.service"),
    (".build", "-build.service"),
];

/// Units that generators of systemd make of what only the node has: its kernel command line, /etc/crypttab, vsock.
/// A name that ends in `@` stands for all instances.
const OF_THE_NODE: [(&str, &[&str]); 5] = [
    ("systemd-cryptsetup-generator", &["systemd-cryptsetup@"]),
    ("systemd-veritysetup-generator", &["systemd-veritysetup@"]),
    ("systemd-integritysetup-generator", &["systemd-integritysetup@"]),
    ("systemd-run-generator", &["kernel-command-line.service"]),
    (
        "systemd-ssh-generator",
        &["sshd-unix-local.socket", "sshd-unix-local@", "sshd-vsock.socket", "sshd-vsock@"],
    ),
];
/// Beginnings of the names of generators whose units are all known: those above, or files that the image has.
const KNOWN: [&str; 2] = ["systemd-", "podman-"];

/// A unit that is made at boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// The file that it is made of, without leading slash.
    pub of: String,
    /// Whether something starts it at boot.
    pub starts: bool,
    /// The unit's own name, if this is another one of it.
    pub alias_of: Option<String>,
    /// Whether an init script is what it is made of.
    pub is_script: bool,
}

/// All of them, by name.
#[derive(Clone, Debug, Default)]
pub struct Generated {
    units: BTreeMap<String, Made>,
    generators: BTreeSet<String>,
}

impl Generated {
    /// What generators make of the tree.
    ///
    /// # Errors
    /// Those of files that are there and cannot be read.
    pub fn of(tree: &Tree) -> Result<Self, TreeError> {
        let generators = generators(tree);
        let mut units = if generators.contains(QUADLET) { quadlets(tree)? } else { BTreeMap::new() };
        if generators.contains(SYSV) {
            for (name, made) in scripts(tree)? {
                units.entry(name).or_insert(made);
            }
        }
        Ok(Self { units, generators })
    }

    /// What there is under this name, or under that of its template.
    pub fn get(&self, name: &str) -> Option<&Made> {
        let template = || UnitName::parse(name)?.template();
        self.units.get(name).or_else(|| self.units.get(&template()?))
    }

    /// Names of all units that are made of files of the image.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.units.keys()
    }

    /// The generator that makes this unit out of something that only the node knows.
    pub fn by(&self, name: &str) -> Option<&str> {
        let is_of = |known: &&str| match known.ends_with('@') {
            true => name.strip_prefix(known).is_some_and(|rest| rest.ends_with(".service")),
            false => *known == name,
        };
        let by = OF_THE_NODE.iter().find(|(_, names)| names.iter().any(is_of))?.0;
        self.generators.get(by).map(String::as_str)
    }

    /// Generators of others, which may make units of any name.
    pub fn others(&self) -> impl Iterator<Item = &str> {
        let known = |name: &&str| KNOWN.iter().any(|known| name.starts_with(known));
        self.generators.iter().map(String::as_str).filter(move |name| !known(name))
    }
}

/// The files of which units would be made were all generators there, by unit.
///
/// # Errors
/// Those of files that are there and cannot be read.
pub fn sources(tree: &Tree) -> Result<BTreeMap<String, String>, TreeError> {
    let made = scripts(tree)?.into_iter().chain(quadlets(tree)?);
    Ok(made.map(|(unit, made)| (unit, made.of)).collect())
}

/// Names of generators that run at boot.
fn generators(tree: &Tree) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let Ok(folder) = tree.resolve(SHIPPED_GENERATORS) else { return names };
    for (name, id) in tree.children(folder).map(|(name, id)| (show(name), id)) {
        // A link in /etc hides it: to /dev/null, or to another one of its name.
        let masked = tree.lookup(format!("{GENERATORS}/{name}"));
        let nothing = |id: NodeId| matches!(&tree.node(id).kind, Kind::Symlink(to) if to == b"/dev/null");
        if !masked.is_some_and(nothing) && !nothing(id) {
            names.insert(name);
        }
    }
    names
}

fn quadlets(tree: &Tree) -> Result<BTreeMap<String, Made>, TreeError> {
    let mut units = BTreeMap::new();
    for folder in QUADLETS {
        let Ok(id) = tree.resolve(folder) else { continue };
        // quadlet also looks into directories.
        let mut pending = vec![(folder.to_owned(), id)];
        while let Some((folder, id)) = pending.pop() {
            for (name, id) in tree.children(id) {
                let (name, path) = (show(name), format!("{folder}/{}", show(name)));
                match &tree.node(id).kind {
                    // The units of people: podman-systemd.unit(5), "Rootless unit search path".
                    Kind::Directory(_) if QUADLETS.contains(&folder.as_str()) && name == "users" => {}
                    Kind::Directory(_) => pending.push((path, id)),
                    _ => {
                        let unit = QUADLET_UNITS
                            .iter()
                            .find_map(|(from, to)| Some(format!("{}{to}", name.strip_suffix(from)?)));
                        if let Some(unit) = unit {
                            let (unit, made) = quadlet(tree, &path, unit)?;
                            units.insert(unit, made);
                        }
                    }
                }
            }
        }
    }
    Ok(units)
}

/// The unit that quadlet makes of one file; `ServiceName=` gives it another name, without the ending.
fn quadlet(tree: &Tree, path: &str, unit: String) -> Result<(String, Made), TreeError> {
    let mut settings = Settings::default();
    // A link is an instance of the template that it leads to.
    settings.read(&tree.read_if_there(path)?.unwrap_or_default());
    let sections = ["Container", "Kube", "Pod", "Volume", "Network", "Image", "Build"];
    let name = sections.iter().find_map(|section| settings.last(section, "ServiceName"));
    let starts = ["WantedBy", "RequiredBy", "UpheldBy"].iter();
    let starts = starts.map(|key| settings.names("Install", key)).any(|units| !units.is_empty());
    let made = Made { of: path.to_owned(), starts, alias_of: None, is_script: false };
    Ok((name.map_or(unit, |name| format!("{name}.service")), made))
}

/// Init scripts without a unit of their own. `foo.sh` is `foo.service`, and each `Provides:` another name.
fn scripts(tree: &Tree) -> Result<BTreeMap<String, Made>, TreeError> {
    let mut units = BTreeMap::new();
    let mut aliases = Vec::new();
    let Ok(folder) = tree.resolve(INIT_SCRIPTS) else { return Ok(units) };
    let linked: BTreeSet<String> = RUNLEVELS.iter().flat_map(|level| linked(tree, *level)).collect();
    for (name, _) in tree.children(folder) {
        let of = format!("{INIT_SCRIPTS}/{}", show(name));
        let Ok(id) = tree.resolve(&of) else { continue };
        let node = tree.node(id);
        let unit = service(&show(name));
        let is_program = matches!(node.kind, Kind::File(_)) && node.meta.mode & 0o100 != 0;
        // A mask is not another unit: the script is what it masks.
        let is_native = [SHIPPED, LOCAL].iter().any(|folder| {
            let path = format!("{folder}/{unit}");
            tree.lookup(&path).is_some_and(|id| match &tree.node(id).kind {
                Kind::Symlink(target) => target != b"/dev/null",
                _ => true,
            })
        });
        if !is_program || is_native || UnitName::parse(&unit).is_none() {
            continue;
        }
        let starts = linked.contains(&*show(name));
        for provided in header(tree, &of, "Provides")?.iter().filter(|word| !word.starts_with('$')) {
            let made = Made { of: of.clone(), starts, alias_of: Some(unit.clone()), is_script: true };
            aliases.push((service(provided), made));
        }
        units.insert(unit, Made { of, starts, alias_of: None, is_script: true });
    }
    for (alias, made) in aliases {
        units.entry(alias).or_insert(made);
    }
    Ok(units)
}

fn service(script: &str) -> String {
    format!("{}.service", script.strip_suffix(".sh").unwrap_or(script))
}

/// Names of the scripts that links of a runlevel start.
fn linked(tree: &Tree, level: char) -> impl Iterator<Item = String> {
    let folder = tree.resolve(format!("etc/rc{level}.d"));
    let names = folder.into_iter().flat_map(|folder| tree.children(folder)).map(|(name, _)| show(name));
    names.filter(|name| name.starts_with('S')).filter_map(|name| name.get(3..).map(str::to_owned))
}

/// Words of a field in the header of an init script: "LSB Core", Comment Conventions for Init Scripts.
fn header(tree: &Tree, script: &str, field: &str) -> Result<Vec<String>, TreeError> {
    let text = tree.read(script)?;
    let text = String::from_utf8_lossy(&text).into_owned();
    let lines = text.lines().skip_while(|line| line.trim_end() != "### BEGIN INIT INFO").skip(1);
    let lines = lines.take_while(|line| line.trim_end() != "### END INIT INFO");
    // systemd does not go on in the next line, as it does for the description.
    let values = lines.filter_map(|line| line.strip_prefix('#')?.split_once(':'));
    let values = values.filter(|(key, _)| key.trim().eq_ignore_ascii_case(field));
    Ok(values.flat_map(|(_, value)| words(value, Escapes::Kept)).collect())
}

/// What init scripts of Debian use, as their text names it, where it is, and the package that has it.
const USED_BY_SCRIPTS: [(&str, &str, &str); 2] = [
    ("/lib/lsb/init-functions", "usr/lib/lsb/init-functions", "sysvinit-utils"),
    ("start-stop-daemon", "usr/sbin/start-stop-daemon", "dpkg"),
];

/// What of it the script names and the tree does not have, each with its package.
///
/// # Errors
/// Those of [`Tree::read`].
pub fn lacking(tree: &Tree, script: &str) -> Result<Vec<(&'static str, &'static str)>, TreeError> {
    let text = tree.read(script)?;
    let text = String::from_utf8_lossy(&text);
    let lacks = |(name, path, _): &(&str, &str, &str)| text.contains(name) && tree.resolve(path).is_err();
    Ok(USED_BY_SCRIPTS.into_iter().filter(lacks).map(|(name, _, package)| (name, package)).collect())
}

/// Starts an init script at boot, as update-rc.d(8) does it: by links of the runlevels that its header names.
pub fn enable_script(tree: &mut Tree, script: &str) -> Result<(), TreeError> {
    let levels = header(tree, script, "Default-Start")?;
    let wanted = |level: &char| match levels.is_empty() {
        true => true,
        false => levels.iter().any(|word| word.contains(*level)),
    };
    let name = script.rsplit('/').next().unwrap_or(script);
    let mut chosen: Vec<char> = RUNLEVELS.into_iter().filter(wanted).collect();
    if chosen.is_empty() {
        // It names runlevels that no boot reaches, as scripts for the early boot do (`S`).
        chosen = RUNLEVELS.to_vec();
    }
    for level in chosen {
        if !linked(tree, level).any(|linked| linked == name) {
            tree.symlink(format!("etc/rc{level}.d/S01{name}"), format!("../init.d/{name}"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = "#!/bin/sh\n### BEGIN INIT INFO\n# Provides: old $net older\n#   no\n\
                          # Default-Start: 3 5\n# Short-Description: x\n### END INIT INFO\n# Provides: not\n";

    fn tree() -> Tree {
        let mut tree = Tree::new(0);
        tree.file(format!("{SHIPPED_GENERATORS}/{SYSV}"), 0o755, "").unwrap();
        tree.file(format!("{SHIPPED_GENERATORS}/systemd-run-generator"), 0o755, "").unwrap();
        tree.file("etc/init.d/old", 0o755, SCRIPT).unwrap();
        tree.file("etc/init.d/native", 0o755, SCRIPT).unwrap();
        tree.file("etc/init.d/clock.sh", 0o755, "#!/bin/sh\n").unwrap();
        tree.file("etc/init.d/README", 0o644, "").unwrap();
        tree.file(format!("{SHIPPED}/native.service"), 0o644, "[Service]\n").unwrap();
        tree
    }

    #[test]
    fn init_scripts_are_units() {
        let mut tree = tree();
        let generated = Generated::of(&tree).unwrap();
        let names: Vec<_> = generated.names().collect();
        assert_eq!(names, ["clock.service", "old.service", "older.service"]);
        assert_eq!(generated.get("older.service").unwrap().alias_of.as_deref(), Some("old.service"));
        assert!(!generated.get("old.service").unwrap().starts);
        enable_script(&mut tree, "etc/init.d/old").unwrap();
        assert!(tree.exists("etc/rc3.d/S01old") && tree.exists("etc/rc5.d/S01old"));
        assert!(!tree.exists("etc/rc2.d"));
        assert!(Generated::of(&tree).unwrap().get("older.service").unwrap().starts);
        assert_eq!(generated.by("kernel-command-line.service"), Some("systemd-run-generator"));
        assert_eq!(generated.by("systemd-cryptsetup@a.service"), None);
        tree.symlink(format!("{GENERATORS}/{SYSV}"), "/dev/null").unwrap();
        assert_eq!(Generated::of(&tree).unwrap().names().count(), 0);
    }

    #[test]
    fn quadlets_of_every_kind() {
        let mut tree = Tree::new(0);
        for (name, text) in [
            ("users/f.container", ""),
            ("a.container", "[Install]\nWantedBy=multi-user.target\n"),
            ("in/b.volume", ""),
            ("c@.container", "[Container]\nServiceName=named\n"),
            ("d@.kube", ""),
            ("e.pod", ""),
            ("a.container.d/x.conf", ""),
        ] {
            tree.file(format!("etc/containers/systemd/{name}"), 0o644, text).unwrap();
        }
        // Nothing makes them where podman is not.
        assert_eq!(Generated::of(&tree).unwrap().names().count(), 0);
        tree.symlink(format!("{SHIPPED_GENERATORS}/{QUADLET}"), "../quadlet").unwrap();
        let generated = Generated::of(&tree).unwrap();
        let names: Vec<_> = generated.names().collect();
        assert_eq!(names, ["a.service", "b-volume.service", "d@.service", "e-pod.service", "named.service"]);
        assert!(generated.get("a.service").unwrap().starts && !generated.get("d@x.service").unwrap().starts);
    }
}
