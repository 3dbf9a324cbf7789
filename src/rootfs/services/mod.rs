//! Which units start: what the manifest enables and masks, and nothing else that is not linked statically.
//!
//! Enablement is what `systemctl enable` would make of a unit's [Install] section, as links below
//! /usr/lib: they are part of the verified root, and no change of /etc on a node hides them.

pub mod generated;
pub mod unit;

use std::collections::{BTreeMap, BTreeSet};

use self::generated::{Generated, Made, enable_script};
use self::unit::{Install, UnitName};
use super::error::Error;
use super::etc_defaults::default;
use crate::base::near::near_or_part;
use crate::manifest::Services;
use crate::rootfs::text::settings::Settings;
use crate::tree::{Kind, Tree, show};

const SHIPPED: &str = "usr/lib/systemd/system";
const LOCAL: &str = "etc/systemd/system";
const GENERATORS: &str = "etc/systemd/system-generators";
const PRESET: &str = "usr/lib/systemd/system-preset/00-keller.preset";
/// Endings of unit names; a name in `mask` without one is a generator.
const SUFFIXES: [&str; 11] = [
    ".service",
    ".socket",
    ".target",
    ".timer",
    ".path",
    ".mount",
    ".automount",
    ".swap",
    ".slice",
    ".scope",
    ".device",
];
/// Units that would do behind our back what only keller does, each with the reason.
const FOREIGN: [(&str, &str); 3] = [
    ("systemd-boot-random-seed.service", "keller: only updates write the ESP"),
    ("systemd-boot-update.service", "keller: only updates write the ESP"),
    ("systemd-update-done.service", "keller: what an image ships is final"),
];

/// What was done, for the build's report.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Enabled {
    /// Units that were enabled, those of `Also=` included.
    pub units: BTreeSet<String>,
    /// Units and generators that are masked.
    pub masked: BTreeSet<String>,
    /// Units to enable that nothing has, and that need not be there.
    pub absent: Vec<String>,
    /// Things that are worth a look.
    pub notes: Vec<String>,
}

/// Masks, enables, sets the default target and writes the preset that says the same. A unit to enable must be
/// there, unless `may_lack` it.
pub fn write(
    tree: &mut Tree,
    services: &Services,
    may_lack: &dyn Fn(&str) -> bool,
) -> Result<Enabled, Error> {
    let mut enabled = Enabled::default();
    let mut masked: BTreeMap<String, String> =
        services.mask.iter().map(|name| (name.clone(), "services.mask".to_owned())).collect();
    for name in &services.mask {
        // By such a name a bus starts a unit, and the mask is meant to keep it from that alone.
        let units = if name.starts_with("dbus") { BTreeSet::new() } else { other_names(tree, name)? };
        for unit in units {
            masked.entry(unit).or_insert_with(|| format!("services.mask, which has its other name {name}"));
        }
    }
    let foreign = FOREIGN.iter().filter(|(unit, _)| tree.exists(format!("{SHIPPED}/{unit}")));
    masked.extend(foreign.map(|(unit, by)| ((*unit).to_owned(), (*by).to_owned())));
    for name in masked.keys() {
        let folder = if SUFFIXES.iter().any(|suffix| name.ends_with(suffix)) { LOCAL } else { GENERATORS };
        tree.symlink(format!("{folder}/{name}"), "/dev/null")?;
        enabled.masked.insert(name.clone());
    }

    // Not for presets to decide: without a bus there is no login and no networkctl.
    let bus = tree.exists(format!("{SHIPPED}/dbus-broker.service")).then_some("dbus-broker.service");
    for name in services.enable.iter().map(String::as_str).chain(bus) {
        if let Some(by) = masked.get(name) {
            return Err(Error::Masked { unit: name.to_owned(), by: by.clone() });
        }
        let Some(found) = find(tree, name)? else {
            let generated = Generated::of(tree)?;
            if let Some(made) = generated.get(name) {
                enable_made(tree, name, made, &mut enabled)?;
                continue;
            }
            if let Some(by) = generated.by(name) {
                let text =
                    format!("services.enable names {name}, which {by} makes at boot and starts by itself");
                enabled.notes.push(text);
                continue;
            }
            if may_lack(name) {
                enabled.absent.push(name.to_owned());
                continue;
            }
            return Err(Error::UnknownUnit { unit: name.to_owned(), near: similar(tree, name)? });
        };
        if !enable(tree, &found, &mut enabled)? {
            return Err(Error::NotInstallable { unit: name.to_owned() });
        }
    }

    if !tree.exists(format!("{LOCAL}/default.target")) {
        tree.symlink(format!("{SHIPPED}/default.target"), "multi-user.target")?;
    }
    let mut preset = "# What the manifest enables; everything else stays off.\n".to_owned();
    preset.extend(enabled.units.iter().map(|unit| format!("enable {unit}\n")));
    default(tree, PRESET, &(preset + "disable *\n"))?;
    Ok(enabled)
}

/// A unit file, and the name under which it is asked for.
#[derive(Clone, Debug)]
struct Found {
    /// With the instance, if any.
    name: UnitName,
    /// The file's own name.
    file: String,
    /// [`SHIPPED`] or [`LOCAL`].
    folder: &'static str,
    install: Install,
}

/// How many links to other names lead to a unit at most: the kernel's MAXSYMLINKS.
const MAX_LINKS: usize = 40;

/// The file of a unit; a template's for an instance. Links to other names are followed.
fn find(tree: &Tree, name: &str) -> Result<Option<Found>, Error> {
    find_within(tree, name, MAX_LINKS)
}

fn find_within(tree: &Tree, name: &str, links: usize) -> Result<Option<Found>, Error> {
    let Some(parsed) = UnitName::parse(name) else { return Ok(None) };
    let template = parsed.template();
    for file in [Some(name), template.as_deref()].into_iter().flatten() {
        for folder in [LOCAL, SHIPPED] {
            let path = format!("{folder}/{file}");
            let Some(id) = tree.lookup(&path) else { continue };
            if let Kind::Symlink(target) = &tree.node(id).kind {
                let target = show(target);
                let other = target.rsplit('/').next().unwrap_or_default();
                let other = match (&parsed.instance, UnitName::parse(other)) {
                    (Some(instance), Some(other)) if other.is_template() => {
                        other.with_instance(instance).to_string()
                    }
                    _ => other.to_owned(),
                };
                return match links.checked_sub(1) {
                    Some(links) if target != "/dev/null" => find_within(tree, &other, links),
                    _ => Ok(None),
                };
            }
            let mut settings = Settings::default();
            settings.read(&tree.read(&path)?);
            for drop_in in drop_ins(tree, file) {
                settings.read(&tree.read(&drop_in)?);
            }
            let install = Install::of(&settings);
            return Ok(Some(Found { name: parsed, file: file.to_owned(), folder, install }));
        }
    }
    Ok(None)
}

/// Units whose [Install] section gives them the name `name`, or that are made of an init script which provides it:
/// a mask of that name alone would leave them running. A name that has a file of its own, even a link to another
/// unit, stands for itself, as ctrl-alt-del.target does.
fn other_names(tree: &Tree, name: &str) -> Result<BTreeSet<String>, Error> {
    let mut units = BTreeSet::new();
    let Some(parsed) = UnitName::parse(name) else { return Ok(units) };
    let own = |folder: &&str| tree.exists(format!("{folder}/{name}"));
    if [LOCAL, SHIPPED].iter().any(own) {
        return Ok(units);
    }
    let instance = parsed.instance.as_deref().filter(|instance| !instance.is_empty());
    let template = parsed.template();
    for file in files(tree) {
        let Some(found) = find(tree, &file)? else { continue };
        // A link to another unit is read as that one.
        if found.file != file {
            continue;
        }
        for alias in &found.install.alias {
            let Ok(alias) = found.name.expand(alias, &file) else { continue };
            if alias == name {
                units.insert(file.clone());
            } else if let (Some(instance), true) = (instance, template.as_deref() == Some(&alias)) {
                units.insert(found.name.with_instance(instance).to_string());
            }
        }
    }
    units.extend(Generated::of(tree)?.get(name).and_then(|made| made.alias_of.clone()));
    Ok(units)
}

/// The file of each unit, by name: its own, or the one of which a generator would make it.
///
/// # Errors
/// Those of files that are there and cannot be read.
pub fn sources(tree: &Tree) -> Result<BTreeMap<String, String>, Error> {
    let mut sources = generated::sources(tree)?;
    for folder in [SHIPPED, LOCAL] {
        sources.extend(files_in(tree, folder).map(|name| (name.clone(), format!("{folder}/{name}"))));
    }
    Ok(sources)
}

/// The file of `unit` among `sources`, or of the template that it is an instance of.
pub fn file_of<'a>(sources: &'a BTreeMap<String, String>, unit: &str) -> Option<&'a String> {
    sources.get(unit).or_else(|| sources.get(&UnitName::parse(unit)?.template()?))
}

/// Names of all files of units.
fn files(tree: &Tree) -> BTreeSet<String> {
    [LOCAL, SHIPPED].into_iter().flat_map(|folder| files_in(tree, folder)).collect()
}

fn files_in(tree: &Tree, folder: &str) -> impl Iterator<Item = String> {
    let files = tree.resolve(folder).into_iter().flat_map(move |id| tree.children(id));
    let units = files.filter(move |(_, id)| !matches!(tree.node(*id).kind, Kind::Directory(_)));
    units.map(|(name, _)| show(name)).filter(|name| UnitName::parse(name).is_some())
}

/// Enables a unit that a generator makes at boot.
fn enable_made(tree: &mut Tree, name: &str, made: &Made, enabled: &mut Enabled) -> Result<(), Error> {
    let null = |path: &String| {
        let Some(id) = tree.lookup(path) else { return false };
        matches!(&tree.node(id).kind, Kind::Symlink(target) if target == b"/dev/null")
    };
    if let Some(by) = [LOCAL, SHIPPED].map(|folder| format!("{folder}/{name}")).iter().find(|path| null(path))
    {
        return Err(Error::Masked {
            unit: name.to_owned(),
            by: format!("/{}, a link to /dev/null", by.trim_start_matches('/')),
        });
    }
    if made.is_script {
        for (program, package) in generated::lacking(tree, &made.of)? {
            enabled.notes.push(format!(
                "services.enable names {name}, whose /{} uses {program}, which is not in the image: add {package} to \
                 `packages`",
                made.of
            ));
        }
        enable_script(tree, &made.of)?;
    } else if !made.starts {
        return Err(Error::NotInstallableAtBoot { unit: name.to_owned(), of: made.of.clone() });
    }
    enabled.units.insert(made.alias_of.clone().unwrap_or_else(|| name.to_owned()));
    Ok(())
}

/// Files of `NAME.d` folders, by file name.
fn drop_ins(tree: &Tree, file: &str) -> Vec<String> {
    let mut found = BTreeMap::new();
    for folder in [SHIPPED, LOCAL] {
        let folder = format!("{folder}/{file}.d");
        let Ok(id) = tree.resolve(&folder) else { continue };
        for (name, child) in tree.children(id) {
            if name.ends_with(b".conf") && matches!(tree.node(child).kind, Kind::File(_)) {
                found.insert(name.to_vec(), format!("{folder}/{}", show(name)));
            }
        }
    }
    found.into_values().collect()
}

/// Makes the links of a unit and of those that it names in `Also=`, and so on. Says whether it can be enabled at all.
fn enable(tree: &mut Tree, found: &Found, enabled: &mut Enabled) -> Result<bool, Error> {
    let Some(also) = enable_one(tree, found, enabled)? else { return Ok(false) };
    // Units may name each other in a row, as many as there are: none is enabled within another. The last is the next.
    let mut pending = also;
    while let Some((by, also)) = pending.pop() {
        match find(tree, &also)? {
            Some(found) => pending.extend(enable_one(tree, &found, enabled)?.unwrap_or_default()),
            None => {
                enabled.notes.push(format!("{by} asks to enable {also} too, which is masked or not there"))
            }
        }
    }
    Ok(true)
}

/// Makes the links of a unit; the units of its `Also=` in backward order, each after its own name. Nothing for one that
/// cannot be enabled at all.
fn enable_one(
    tree: &mut Tree,
    found: &Found,
    enabled: &mut Enabled,
) -> Result<Option<Vec<(String, String)>>, Error> {
    let Found { install, folder, file, .. } = found;
    if install.is_empty() {
        return Ok(None);
    }
    let mut name = found.name.clone();
    if name.is_template() {
        let Some(instance) = &install.default_instance else {
            return Err(Error::NoInstance { unit: name.to_string() });
        };
        name = name.with_instance(&name.expand(instance, file)?);
    }
    if !enabled.units.insert(name.to_string()) {
        return Ok(Some(Vec::new()));
    }
    let target = if *folder == SHIPPED { format!("../{file}") } else { format!("/{folder}/{file}") };
    for (kind, units) in
        [("wants", &install.wanted_by), ("requires", &install.required_by), ("upholds", &install.upheld_by)]
    {
        for unit in units {
            let unit = name.expand(unit, file)?;
            tree.symlink(format!("{SHIPPED}/{unit}.{kind}/{name}"), &target)?;
        }
    }
    for alias in &install.alias {
        let alias = name.expand(alias, file)?;
        // A package's unit of that name is hidden from /etc, as systemctl does it.
        let taken = tree
            .lookup(format!("{SHIPPED}/{alias}"))
            .is_some_and(|id| !matches!(tree.node(id).kind, Kind::Symlink(_)));
        if taken || *folder == LOCAL {
            tree.symlink(format!("{LOCAL}/{alias}"), format!("/{folder}/{file}"))?;
        } else {
            tree.symlink(format!("{SHIPPED}/{alias}"), file)?;
        }
    }
    let also = install.also.iter().rev().map(|also| Ok((name.to_string(), name.expand(also, file)?)));
    Ok(Some(also.collect::<Result<_, Error>>()?))
}

/// Names of units that are like `name`.
fn similar(tree: &Tree, name: &str) -> Result<Vec<String>, Error> {
    let mut names = files(tree);
    names.extend(Generated::of(tree)?.names().cloned());
    // A link that leads nowhere has the very name.
    names.remove(name);
    Ok(near_or_part(name, names.iter().map(String::as_str)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> Tree {
        let mut tree = Tree::new(0);
        let units = [
            (
                "ssh.service",
                "[Unit]\nWantedBy=no\n[Install]\nWantedBy=multi-user.target\nAlias=sshd.service\n",
            ),
            ("net.service", "[Install]\nWantedBy=a.target \\\n  b.target\nAlso=net.socket gone.service\n"),
            ("net.socket", "[Install]\nRequiredBy=sockets.target\n"),
            ("serial@.service", "[Install]\nDefaultInstance=tty1\nWantedBy=getty.target dev-%i.device\n"),
            ("bare@.service", "[Install]\nWantedBy=getty.target\n"),
            ("static.service", "[Service]\n"),
            ("dbus-broker.service", "[Install]\nAlias=dbus.service\n"),
            ("dbus.service", "[Service]\n"),
            ("systemd-boot-update.service", "[Install]\nWantedBy=sysinit.target\n"),
        ];
        for (name, text) in units {
            tree.file(format!("{SHIPPED}/{name}"), 0o644, text).unwrap();
        }
        tree.file(format!("{LOCAL}/mine.service"), 0o644, "[Install]\nWantedBy=multi-user.target\n").unwrap();
        tree.file(
            format!("{LOCAL}/ssh.service.d/x.conf"),
            0o644,
            "[Install]\nWantedBy=\nWantedBy=x.target\n",
        )
        .unwrap();
        tree
    }

    fn run(enable: &[&str], mask: &[&str]) -> (Tree, Result<Enabled, Error>) {
        let mut tree = tree();
        let owned = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect();
        let result = write(&mut tree, &Services { enable: owned(enable), mask: owned(mask) }, &|_| false);
        (tree, result)
    }

    fn link(tree: &Tree, path: &str) -> String {
        match tree.lookup(path).map(|id| &tree.node(id).kind) {
            Some(Kind::Symlink(target)) => show(target),
            other => panic!("{path} is {other:?}"),
        }
    }

    #[test]
    fn links_as_systemctl_makes_them() {
        let (tree, enabled) = run(
            &["ssh.service", "net.service", "serial@.service", "serial@ttyS0.service", "mine.service"],
            &["tmp.mount", "some-generator"],
        );
        let enabled = enabled.unwrap();
        assert_eq!(link(&tree, "usr/lib/systemd/system/x.target.wants/ssh.service"), "../ssh.service");
        assert!(!tree.exists("usr/lib/systemd/system/multi-user.target.wants/ssh.service"));
        assert_eq!(link(&tree, "usr/lib/systemd/system/sshd.service"), "ssh.service");
        assert_eq!(link(&tree, "usr/lib/systemd/system/b.target.wants/net.service"), "../net.service");
        assert_eq!(link(&tree, "usr/lib/systemd/system/sockets.target.requires/net.socket"), "../net.socket");
        assert_eq!(
            link(&tree, "usr/lib/systemd/system/getty.target.wants/serial@tty1.service"),
            "../serial@.service"
        );
        assert_eq!(
            link(&tree, "usr/lib/systemd/system/dev-ttyS0.device.wants/serial@ttyS0.service"),
            "../serial@.service"
        );
        assert_eq!(
            link(&tree, "usr/lib/systemd/system/multi-user.target.wants/mine.service"),
            "/etc/systemd/system/mine.service"
        );
        assert_eq!(
            link(&tree, "etc/systemd/system/dbus.service"),
            "/usr/lib/systemd/system/dbus-broker.service"
        );
        assert_eq!(link(&tree, "etc/systemd/system/tmp.mount"), "/dev/null");
        assert_eq!(link(&tree, "etc/systemd/system-generators/some-generator"), "/dev/null");
        assert_eq!(link(&tree, "etc/systemd/system/systemd-boot-update.service"), "/dev/null");
        assert_eq!(link(&tree, "usr/lib/systemd/system/default.target"), "multi-user.target");
        assert_eq!(enabled.notes.len(), 1);
        assert!(tree.read(PRESET).unwrap().ends_with(b"disable *\n"));
    }

    #[test]
    fn masks_of_other_names_reach_the_unit() {
        let null = |tree: &Tree, unit: &str| link(tree, &format!("{LOCAL}/{unit}")) == "/dev/null";
        let (tree, enabled) = run(&[], &["sshd.service"]);
        assert!(null(&tree, "sshd.service") && null(&tree, "ssh.service"));
        assert!(enabled.unwrap().masked.contains("ssh.service"));
        let told = run(&["ssh.service"], &["sshd.service"]).1.unwrap_err().to_string();
        assert_eq!(
            told,
            "ssh.service is in services.enable, but masked by services.mask, which has its other name sshd.service"
        );
        // A bus starts it by such a name, and nobody else: the unit goes on.
        let mut tree = self::tree();
        let unit = "[Install]\nWantedBy=multi-user.target\nAlias=dbus-org.example.net1.service\n";
        tree.file(format!("{SHIPPED}/names.service"), 0o644, unit).unwrap();
        let mask = vec!["dbus-org.example.net1.service".to_owned()];
        let enable = vec!["names.service".to_owned()];
        let masked = write(&mut tree, &Services { enable, mask }, &|_| false).unwrap().masked;
        assert!(masked.contains("dbus-org.example.net1.service") && !masked.contains("names.service"));
        // A file of the name stands for itself.
        let mut tree = self::tree();
        tree.file(format!("{SHIPPED}/reboot.target"), 0o644, "[Install]\nAlias=ctrl-alt-del.target\n")
            .unwrap();
        tree.symlink(format!("{SHIPPED}/ctrl-alt-del.target"), "reboot.target").unwrap();
        tree.file(format!("{SHIPPED}/tty@.service"), 0o644, "[Install]\nAlias=vt@.service t@%i.service\n")
            .unwrap();
        let mask = ["ctrl-alt-del.target", "vt@a.service"].map(str::to_owned).to_vec();
        write(&mut tree, &Services { enable: Vec::new(), mask }, &|_| false).unwrap();
        assert!(null(&tree, "ctrl-alt-del.target") && !tree.exists(format!("{LOCAL}/reboot.target")));
        assert!(null(&tree, "tty@a.service") && !tree.exists(format!("{LOCAL}/tty@.service")));
    }

    fn services(enable: &[&str], mask: &[&str]) -> Services {
        let owned = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect();
        Services { enable: owned(enable), mask: owned(mask) }
    }

    #[test]
    fn links_in_a_circle_are_no_unit() {
        let mut tree = tree();
        for (name, target) in [("a.service", "b.service"), ("b.service", "a.service")] {
            tree.symlink(format!("{SHIPPED}/{name}"), target).unwrap();
        }
        write(&mut tree.clone(), &services(&[], &["name.service"]), &|_| false).unwrap();
        let told = write(&mut tree, &services(&["a.service"], &[]), &|_| false).unwrap_err().to_string();
        assert!(told.starts_with("services.enable names a.service, which no package"), "{told}");
        assert!(!told.contains("mean a.service"), "{told}");
    }

    #[test]
    fn units_that_are_made_at_boot() {
        let mut tree = tree();
        let generators = "usr/lib/systemd/system-generators";
        tree.symlink(format!("{generators}/podman-system-generator"), "../../../libexec/podman/quadlet")
            .unwrap();
        tree.file("usr/lib/systemd/system-generators/systemd-sysv-generator", 0o755, "").unwrap();
        let header = "### BEGIN INIT INFO\n# Provides: older\n# Default-Start: 2 S\n### END INIT INFO\n";
        for script in ["old", "other"] {
            tree.file(format!("etc/init.d/{script}"), 0o755, header).unwrap();
        }
        tree.file("etc/containers/systemd/a.container", 0o644, "[Install]\nWantedBy=x.target\n").unwrap();
        tree.file("etc/containers/systemd/b.pod", 0o644, "[Pod]\n").unwrap();
        let mut made = tree.clone();
        write(&mut made, &services(&["old.service", "a.service"], &["other.service"]), &|_| false).unwrap();
        assert_eq!(link(&made, "etc/rc2.d/S01old"), "../init.d/old");
        assert!(!made.exists("etc/rc3.d") && !made.exists("etc/rc2.d/S01other"));
        assert_eq!(link(&made, "etc/systemd/system/other.service"), "/dev/null");
        write(&mut tree.clone(), &services(&[], &["older.service"]), &|_| false).unwrap();
        let told =
            write(&mut tree.clone(), &services(&["b-pod.service"], &[]), &|_| false).unwrap_err().to_string();
        assert!(told.contains("made of /etc/containers/systemd/b.pod at boot"), "{told}");
        let told = write(&mut tree, &services(&["oldd.service"], &[]), &|_| false).unwrap_err().to_string();
        assert!(told.ends_with("did you mean old.service?"), "{told}");
    }

    #[test]
    fn scripts_without_their_functions_and_units_that_start_by_themselves() {
        let mut tree = tree();
        let generators = "usr/lib/systemd/system-generators";
        for name in ["systemd-sysv-generator", "systemd-cryptsetup-generator"] {
            tree.file(format!("{generators}/{name}"), 0o755, "").unwrap();
        }
        let script = ". /lib/lsb/init-functions\nstart-stop-daemon --start\n";
        tree.file("etc/init.d/uses", 0o755, script).unwrap();
        let uses = services(&["uses.service"], &[]);
        let told = write(&mut tree.clone(), &uses, &|_| false).unwrap().notes.join("\n");
        assert!(
            told.contains("uses /lib/lsb/init-functions, which is not in the image: add sysvinit-utils"),
            "{told}"
        );
        assert!(told.contains("uses start-stop-daemon, which is not in the image: add dpkg to"), "{told}");
        let crypt = services(&["systemd-cryptsetup@data.service"], &[]);
        let notes = write(&mut tree.clone(), &crypt, &|_| false).unwrap().notes;
        assert!(notes[0].ends_with("which systemd-cryptsetup-generator makes at boot and starts by itself"));
        // A mask of the package's is not overruled.
        tree.symlink(format!("{SHIPPED}/uses.service"), "/dev/null").unwrap();
        let told = write(&mut tree, &uses, &|_| false).unwrap_err().to_string();
        assert!(
            told.contains("masked by /usr/lib/systemd/system/uses.service, a link to /dev/null"),
            "{told}"
        );
    }

    #[test]
    fn what_may_lack_is_told_and_passed_over() {
        let mut tree = tree();
        let enable = ["gone.service", "net.service"].map(str::to_owned).into();
        let services = Services { enable, mask: Vec::new() };
        let enabled = write(&mut tree, &services, &|unit| unit == "gone.service").unwrap();
        assert_eq!(enabled.absent, ["gone.service"]);
        assert!(enabled.units.contains("net.service") && !enabled.units.contains("gone.service"));
        assert!(write(&mut tree, &services, &|_| false).is_err());
    }

    #[test]
    fn refusals_say_what_would_be_right() {
        let message = |name: &str, mask: &[&str]| run(&[name], mask).1.unwrap_err().to_string();
        assert!(message("ssh.servce", &[]).ends_with("did you mean ssh.service?"));
        assert!(message("static.service", &[]).contains("no [Install] section"));
        assert!(message("bare@.service", &[]).contains("bare@NAME.service"));
        assert!(message("systemd-boot-update.service", &[]).contains("only updates write the ESP"));
        assert!(message("ssh.service", &["ssh.service"]).contains("masked by services.mask"));
    }

    #[test]
    fn units_that_name_each_other_in_a_row() {
        let mut tree = Tree::new(0);
        for number in 0..20_000 {
            let text = format!("[Install]\nAlso=u{}.service\n", number + 1);
            tree.file(format!("{SHIPPED}/u{number}.service"), 0o644, text).unwrap();
        }
        let services = Services { enable: vec!["u0.service".to_owned()], ..Services::default() };
        let enabled = write(&mut tree, &services, &|_| false).unwrap();
        assert_eq!(enabled.units.len(), 20_000);
        assert_eq!(
            enabled.notes,
            ["u19999.service asks to enable u20000.service too, which is masked or not there"]
        );
    }
}
