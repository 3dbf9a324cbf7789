//! Which units start: what the manifest enables and masks, and nothing else that is not linked statically.
//!
//! Enablement is what `systemctl enable` would make of a unit's [Install] section, as links below
//! /usr/lib: they are part of the verified root, and no change of /etc on a node hides them.

pub mod unit;

use std::collections::{BTreeMap, BTreeSet};

use self::unit::{Install, UnitName};
use super::error::{Error, near};
use super::etc_defaults::default;
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
    /// Things that are worth a look.
    pub notes: Vec<String>,
}

/// Masks, enables, sets the default target and writes the preset that says the same.
pub fn write(tree: &mut Tree, services: &Services) -> Result<Enabled, Error> {
    let mut enabled = Enabled::default();
    let mut masked: BTreeMap<&str, &str> =
        services.mask.iter().map(|name| (name.as_str(), "services.mask")).collect();
    masked.extend(FOREIGN.into_iter().filter(|(unit, _)| tree.exists(format!("{SHIPPED}/{unit}"))));
    for name in masked.keys() {
        let folder = if SUFFIXES.iter().any(|suffix| name.ends_with(suffix)) { LOCAL } else { GENERATORS };
        tree.symlink(format!("{folder}/{name}"), "/dev/null")?;
        enabled.masked.insert((*name).to_owned());
    }

    // Not for presets to decide: without a bus there is no login and no networkctl.
    let bus = tree.exists(format!("{SHIPPED}/dbus-broker.service")).then_some("dbus-broker.service");
    for name in services.enable.iter().map(String::as_str).chain(bus) {
        if let Some(by) = masked.get(name) {
            return Err(Error::Masked { unit: name.to_owned(), by: (*by).to_owned() });
        }
        let Some(found) = find(tree, name)? else {
            return Err(Error::UnknownUnit { unit: name.to_owned(), near: similar(tree, name) });
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

/// The file of a unit; a template's for an instance. Links to other names are followed.
fn find(tree: &Tree, name: &str) -> Result<Option<Found>, Error> {
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
                return if other == name || target == "/dev/null" { Ok(None) } else { find(tree, &other) };
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

/// Makes the links of a unit and of those that it names in `Also=`. Says whether it can be enabled at all.
fn enable(tree: &mut Tree, found: &Found, enabled: &mut Enabled) -> Result<bool, Error> {
    let Found { install, folder, file, .. } = found;
    if install.is_empty() {
        return Ok(false);
    }
    let mut name = found.name.clone();
    if name.is_template() {
        let Some(instance) = &install.default_instance else {
            return Err(Error::NoInstance { unit: name.to_string() });
        };
        name = name.with_instance(&name.expand(instance, file)?);
    }
    if !enabled.units.insert(name.to_string()) {
        return Ok(true);
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
    for also in &install.also {
        let also = name.expand(also, file)?;
        match find(tree, &also)? {
            Some(found) => drop(enable(tree, &found, enabled)?),
            None => {
                enabled.notes.push(format!("{name} asks to enable {also} too, which is masked or not there"))
            }
        }
    }
    Ok(true)
}

/// Names of units that are like `name`.
fn similar(tree: &Tree, name: &str) -> Vec<String> {
    let mut names = BTreeSet::new();
    for folder in [LOCAL, SHIPPED] {
        let Ok(id) = tree.resolve(folder) else { continue };
        names.extend(
            tree.children(id).map(|(name, _)| show(name)).filter(|name| UnitName::parse(name).is_some()),
        );
    }
    near(name, names.iter().map(String::as_str))
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
        let result = write(&mut tree, &Services { enable: owned(enable), mask: owned(mask) });
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
    fn refusals_say_what_would_be_right() {
        let message = |name: &str, mask: &[&str]| run(&[name], mask).1.unwrap_err().to_string();
        assert!(message("ssh.servce", &[]).ends_with("did you mean ssh.service?"));
        assert!(message("static.service", &[]).contains("no [Install] section"));
        assert!(message("bare@.service", &[]).contains("bare@NAME.service"));
        assert!(message("systemd-boot-update.service", &[]).contains("only updates write the ESP"));
        assert!(message("ssh.service", &["ssh.service"]).contains("masked by services.mask"));
    }
}
