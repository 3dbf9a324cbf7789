//! Units that are started at boot, or by what is started at boot, and cannot be: their program, their user
//! or a unit that they require is missing. systemd.unit(5), systemd.service(5).

mod specifiers;

use std::cell::{Cell, OnceCell};
use std::collections::{BTreeMap, BTreeSet};

use super::links::{Destination, destination};
use super::programs::{self, Unfit};
use super::{Finding, Inputs, Severity, View};
use crate::base::limits;
use crate::rootfs::services::generated::Generated;
use crate::rootfs::text::command::{Broken, commands};
use crate::rootfs::text::settings::{Settings, is_true};
use crate::tree::{Kind, NodeId, show};

/// Where units are, in the order in which systemd looks; `/run` is empty in an image.
const FOLDERS: [&str; 4] = [
    "etc/systemd/system",
    "usr/local/lib/systemd/system",
    // Where /usr/local leads at boot.
    "usr/lib/keller/shipped/usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
];

/// Types of units that exist only as files; others (devices, mounts, slices) come up by themselves.
const FILE_TYPES: [&str; 5] = [".service", ".socket", ".target", ".timer", ".path"];

/// Keys whose values are command lines.
const COMMANDS: [&str; 7] =
    ["ExecCondition", "ExecReload", "ExecStart", "ExecStartPost", "ExecStartPre", "ExecStop", "ExecStopPost"];

/// Conditions that compare a path with the tree; the unit is passed over when they do not hold.
const PATH_CONDITIONS: [&str; 6] = [
    "ConditionPathExists",
    "ConditionPathIsDirectory",
    "ConditionFileIsExecutable",
    "ConditionFileNotEmpty",
    "ConditionDirectoryNotEmpty",
    "AssertPathExists",
];

/// Units of a tree: what there is, and what of it starts.
pub(super) struct Units<'a> {
    walk: Walk<'a>,
    /// Files of units that are started at boot, or by what is.
    started: BTreeSet<NodeId>,
    /// See [`Units::names`]: for each of them a file is read.
    names: OnceCell<(BTreeSet<String>, BTreeMap<String, String>)>,
}

/// What there is under the name of a unit.
#[derive(Debug)]
pub(super) enum Look {
    /// Nothing.
    Absent,
    /// It never starts.
    Masked,
    /// A generator makes it at boot.
    Generated {
        /// Whether something starts it, as far as the image tells.
        starts: bool,
    },
    /// A file.
    File {
        /// Whether something starts it.
        started: bool,
        /// Whether it is done as soon as it has run, and so never counts as active for long.
        passes: bool,
    },
}

impl<'a> Units<'a> {
    /// The units of the tree; what keeps started ones from starting comes beside.
    pub(super) fn of(view: &'a View<'a>, inputs: &'a Inputs) -> (Self, Vec<Finding>) {
        let generated = view.told(Generated::of(view.tree)).unwrap_or_default();
        let drop_ins_left = Cell::new(Some(limits::DROP_INS));
        let mut walk = Walk { view, inputs, generated, findings: Vec::new(), drop_ins_left };
        let started = started(&mut walk);
        let findings = std::mem::take(&mut walk.findings);
        (Self { walk, started, names: OnceCell::new() }, findings)
    }

    /// What the tree has under `name`.
    pub(super) fn look(&self, name: &str) -> Look {
        match self.walk.find(name) {
            Some(Fragment::Masked) => Look::Masked,
            Some(Fragment::File { path, id }) => {
                let settings = self.walk.settings(name, id);
                let passes = settings.last("Service", "Type") == Some("oneshot")
                    && !settings.last("Service", "RemainAfterExit").is_some_and(is_true);
                let id = match destination(self.walk.view.tree, &path) {
                    Destination::Found(id) => id,
                    _ => id,
                };
                Look::File { started: self.started.contains(&id), passes }
            }
            None => match self.walk.generated.get(name) {
                Some(made) => Look::Generated { starts: made.starts },
                None if self.walk.generated.by(name).is_some() => Look::Generated { starts: true },
                None => Look::Absent,
            },
        }
    }

    /// What the file of this name and its drop-ins say.
    pub(super) fn settings(&self, name: &str) -> Option<Settings> {
        match self.walk.find(name)? {
            Fragment::File { id, .. } => Some(self.walk.settings(name, id)),
            Fragment::Masked => None,
        }
    }

    /// What drop-ins of the tree say to a unit that is made at boot.
    pub(super) fn drop_ins(&self, name: &str) -> Settings {
        let mut settings = Settings::default();
        self.walk.drop_ins(name, &mut settings);
        settings
    }

    /// Whether the unit `name` is ordered after `other`, by itself or by what it is after.
    pub(super) fn comes_after(&self, name: &str, other: &str) -> bool {
        let (mut known, mut pending) = (BTreeSet::from([name.to_owned()]), vec![name.to_owned()]);
        while let Some(name) = pending.pop() {
            let names =
                self.settings(&name).map(|settings| settings.names("Unit", "After")).unwrap_or_default();
            let names = names.iter().filter_map(|after| specifiers::fill(after, &name));
            for after in names.collect::<Vec<_>>() {
                if after == other {
                    return true;
                }
                if known.len() < limits::UNITS && known.insert(after.clone()) {
                    pending.push(after);
                }
            }
        }
        false
    }

    /// Generators that keller does not know: they may make units of any name.
    pub(super) fn other_generators(&self) -> Vec<&str> {
        self.walk.generated.others().collect()
    }

    /// Whether the image has this name, or that of its template, other than as a mask: a file, another name of a
    /// unit (`Alias=`), or something that a generator makes.
    pub(super) fn is_shipped(&self, name: &str) -> bool {
        let names = [Some(name.to_owned()), template(name)];
        let in_tree = |folder: &str, name: &str| {
            let tree = self.walk.view.tree;
            let link_to_nothing =
                |id| matches!(&tree.node(id).kind, Kind::Symlink(target) if target == b"/dev/null");
            tree.lookup(format!("{folder}/{name}")).is_some_and(|id| !link_to_nothing(id))
        };
        let alias = |name: &String| self.names().1.contains_key(name);
        self.walk.generated.get(name).is_some()
            || self.walk.generated.by(name).is_some()
            || names.iter().flatten().any(alias)
            || names.iter().flatten().any(|name| FOLDERS.iter().any(|folder| in_tree(folder, name)))
    }

    /// A started unit that `package` brings, by the path of its file.
    pub(super) fn started_of(&self, package: &str) -> Option<String> {
        let View { tree, paths, .. } = self.walk.view;
        let of_package = |id: &NodeId| tree.origin_name(tree.node(*id).origin) == package;
        let (path, _) = paths.iter().find(|(_, id)| self.started.contains(id) && of_package(id))?;
        Some(format!("/{}", show(path)))
    }

    /// Whether a file of this name is started at boot.
    pub(super) fn starts(&self, name: &str) -> bool {
        matches!(self.look(name), Look::File { started: true, .. })
    }

    /// Names of all units, and of those that are `Alias=` of one: alias and file.
    pub(super) fn names(&self) -> &(BTreeSet<String>, BTreeMap<String, String>) {
        self.names.get_or_init(|| self.read_names())
    }

    fn read_names(&self) -> (BTreeSet<String>, BTreeMap<String, String>) {
        let tree = self.walk.view.tree;
        let (mut names, mut aliases): (BTreeSet<String>, _) =
            (self.walk.generated.names().cloned().collect(), BTreeMap::new());
        for folder in FOLDERS {
            let Ok(id) = tree.resolve(folder) else { continue };
            for (name, id) in tree.children(id).map(|(name, id)| (show(name), id)) {
                if !matches!(tree.node(id).kind, Kind::Directory(_)) {
                    let settings = self.walk.settings(&name, id);
                    let words = settings.names("Install", "Alias").into_iter();
                    aliases.extend(words.map(|alias| (alias, name.clone())));
                    names.insert(name);
                }
            }
        }
        (names, aliases)
    }
}

/// Files of all units that are started, and in `walk` what is wrong with them.
fn started(walk: &mut Walk<'_>) -> BTreeSet<NodeId> {
    let mut files = BTreeSet::new();
    if walk.find("default.target").is_none() {
        // No systemd, as in most containers.
        return files;
    }
    let mut known = BTreeSet::from(["default.target".to_owned()]);
    let mut pending: Vec<String> = known.iter().cloned().collect();
    while let Some(name) = pending.pop() {
        if let Some(Fragment::File { id, .. }) = walk.find(&name) {
            files.insert(id);
        }
        for next in walk.unit(&name) {
            if known.insert(next.clone()) {
                pending.push(next);
            }
        }
        if known.len() > limits::UNITS {
            let told = format!(
                "more than {} units are started at boot, or by what is, {name} among them",
                limits::UNITS
            );
            walk.view.tell_unread(told);
            break;
        }
    }
    files
}

/// A unit's file.
enum Fragment {
    /// Linked to /dev/null, or empty: systemd will not start it.
    Masked,
    File {
        path: Vec<u8>,
        id: NodeId,
    },
}

struct Walk<'a> {
    view: &'a View<'a>,
    inputs: &'a Inputs,
    generated: Generated,
    findings: Vec<Finding>,
    /// Files of drop-ins that may still be looked at.
    drop_ins_left: Cell<Option<usize>>,
}

/// `getty@.service` for `getty@tty1.service`.
fn template(name: &str) -> Option<String> {
    let (prefix, rest) = name.split_once('@')?;
    let (instance, suffix) = rest.rsplit_once('.')?;
    (!instance.is_empty()).then(|| format!("{prefix}@.{suffix}"))
}

fn same_name(name: &str, suffix: &str) -> String {
    format!("{}{suffix}", name.rsplit_once('.').map_or(name, |(stem, _)| stem))
}

impl Walk<'_> {
    fn find(&self, name: &str) -> Option<Fragment> {
        let names = [Some(name.to_owned()), template(name)];
        for name in names.into_iter().flatten() {
            for folder in FOLDERS {
                let path = format!("{folder}/{name}").into_bytes();
                let Some(link) = self.view.tree.lookup(&path) else { continue };
                match destination(self.view.tree, &path) {
                    Destination::Found(id) => match &self.view.tree.node(id).kind {
                        Kind::File(content) if content.is_empty() => return Some(Fragment::Masked),
                        Kind::File(_) => return Some(Fragment::File { path, id }),
                        _ => return Some(Fragment::Masked),
                    },
                    Destination::Missing(target) if target == b"dev/null" => return Some(Fragment::Masked),
                    // A dangling alias is the business of the check of links; it still has a name.
                    _ => return Some(Fragment::File { path, id: link }),
                }
            }
        }
        None
    }

    /// Checks one unit; the names of those that are started with it.
    fn unit(&mut self, name: &str) -> BTreeSet<String> {
        let Some(Fragment::File { path, id }) = self.find(name) else { return BTreeSet::new() };
        let settings = self.settings(name, id);
        let suffix = name.rsplit_once('.').map_or("", |(_, suffix)| suffix);
        let mut next = BTreeSet::new();
        if self.never_starts(&settings) {
            return next;
        }
        for key in ["Wants", "Upholds", "Requires", "BindsTo"] {
            let required = matches!(key, "Requires" | "BindsTo");
            for other in settings.names("Unit", key) {
                let Some(other) = specifiers::fill(&other, name) else { continue };
                if required && !self.exists(&other) {
                    let problem = format!("has {key}={other}, a unit that is not in the image");
                    let way = self.inputs.pruned.unit(self.view.tree, &other);
                    self.report(&path, id, problem, way.as_deref().unwrap_or("add the package that has it"));
                }
                next.insert(other);
            }
        }
        // A unit's folders count under each of its names.
        let mut names = BTreeSet::from([name.to_owned()]);
        names.extend(template(name));
        names.insert(show(path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()));
        if let Destination::Found(_) = destination(self.view.tree, &path)
            && let Some(target) = self.target_name(&path)
        {
            names.insert(target);
        }
        for of in names {
            self.enabled_by(&of, &mut next);
        }
        match suffix {
            "socket" if settings.last("Socket", "Accept").is_some_and(is_true) => {
                next.insert(same_name(name, "@.service"));
            }
            "socket" => next.extend(self.activated(&settings, "Socket", "Service", name)),
            "timer" => next.extend(self.activated(&settings, "Timer", "Unit", name)),
            "path" => next.extend(self.activated(&settings, "Path", "Unit", name)),
            "service" => self.service(name, &path, id, &settings),
            _ => {}
        }
        next
    }

    /// What the file `id` of the unit `name` and its drop-ins say.
    fn settings(&self, name: &str, id: NodeId) -> Settings {
        let mut settings = Settings::default();
        if let Kind::File(content) = &self.view.tree.node(id).kind
            && let Some(bytes) = self.view.content(content, name)
        {
            settings.read(&bytes);
        }
        let suffix = name.rsplit_once('.').map_or("", |(_, suffix)| suffix);
        for of in [Some(suffix.to_owned()), template(name), Some(name.to_owned())].into_iter().flatten() {
            self.drop_ins(&of, &mut settings);
        }
        settings
    }

    fn activated(&self, settings: &Settings, section: &str, key: &str, name: &str) -> Option<String> {
        match settings.last(section, key) {
            Some(other) => specifiers::fill(other, name),
            None => Some(same_name(name, ".service")),
        }
    }

    /// The last part of the path that the link at `path` leads to.
    fn target_name(&self, path: &[u8]) -> Option<String> {
        match &self.view.tree.node(self.view.tree.lookup(path)?).kind {
            Kind::Symlink(target) => target.rsplit(|byte| *byte == b'/').next().map(show),
            _ => None,
        }
    }

    fn exists(&self, name: &str) -> bool {
        !FILE_TYPES.iter().any(|suffix| name.ends_with(suffix))
            || self.generated.get(name).is_some()
            || self.generated.by(name).is_some()
            || self.find(name).is_some()
    }

    fn drop_ins(&self, of: &str, settings: &mut Settings) {
        // The first folder's file of a name hides the others'; they are read in the order of their names.
        let mut files = BTreeMap::new();
        for folder in FOLDERS.iter().take_while(|_| self.drop_ins_left.get().is_some()) {
            let Ok(id) = self.view.tree.resolve(format!("{folder}/{of}.d")) else { continue };
            let count = self.view.tree.children(id).count();
            let left = self.drop_ins_left.get().and_then(|left| left.checked_sub(count));
            self.drop_ins_left.set(left);
            if left.is_none() {
                let most = limits::DROP_INS;
                self.view.tell_unread(format!(
                    "the drop-ins of all units are more than {most}, with those of {of}"
                ));
                return;
            }
            for (name, _) in self.view.tree.children(id).filter(|(name, _)| name.ends_with(b".conf")) {
                files
                    .entry(name.to_vec())
                    .or_insert_with(|| [folder.as_bytes(), b"/", of.as_bytes(), b".d/", name].concat());
            }
        }
        for path in files.values() {
            if let Some(bytes) = self.view.read(path) {
                settings.read(&bytes);
            }
        }
    }

    /// Units that are linked into `of`'s folders.
    fn enabled_by(&mut self, of: &str, next: &mut BTreeSet<String>) {
        for (folder, kind) in
            FOLDERS.iter().flat_map(|folder| ["wants", "requires", "upholds"].map(|kind| (folder, kind)))
        {
            let folder = format!("{folder}/{of}.{kind}");
            let Ok(id) = self.view.tree.resolve(&folder) else { continue };
            let links: Vec<_> = self.view.tree.children(id).map(|(name, id)| (show(name), id)).collect();
            for (name, id) in links {
                if !self.exists(&name) {
                    let problem = format!("enables {name}, a unit that is not in the image");
                    let advice = match self.inputs.pruned.unit(self.view.tree, &name) {
                        Some(way) => format!("{way}, or leave the link out too"),
                        None => "add the package that has it, or take the link away".to_owned(),
                    };
                    self.report(format!("{folder}/{name}").as_bytes(), id, problem, &advice);
                }
                next.insert(name);
            }
        }
    }

    /// Whether a condition on a path of the image keeps the unit off.
    fn never_starts(&self, settings: &Settings) -> bool {
        PATH_CONDITIONS.iter().flat_map(|key| settings.all("Unit", key)).any(|value| {
            let path = value.strip_prefix('/').unwrap_or("");
            // Negated, one of several that trigger, or known only at run time.
            if path.is_empty() || path.contains(['%', '*', '?', '[']) {
                return false;
            }
            let found = destination(self.view.tree, path.as_bytes());
            matches!(found, Destination::Missing(_)) && !found.is_filled_at_boot()
        })
    }

    fn service(&mut self, name: &str, path: &[u8], id: NodeId, settings: &Settings) {
        // Its programs are those of another root.
        let elsewhere =
            ["RootDirectory", "RootImage"].iter().any(|key| settings.last("Service", key).is_some());
        let folders: Vec<&str> = match settings.last("Service", "ExecSearchPath") {
            Some(folders) => folders.split(':').collect(),
            None => programs::PATH.to_vec(),
        };
        let own_path = settings.variable("PATH");
        let own_path = own_path.map(|path| specifiers::fill(&path, name).unwrap_or(path));
        let searched: Option<Vec<&str>> = own_path.as_ref().map(|path| path.split(':').collect());
        let searched = searched.unwrap_or_else(|| folders.clone());
        let lines = settings.keys("Service", "Exec").filter(|(key, _)| COMMANDS.contains(key));
        for (key, value) in lines.filter(|_| !elsewhere) {
            let commands = commands(value).unwrap_or_else(|broken| {
                self.broken(path, id, (key, value), broken);
                Vec::new()
            });
            // What may fail may be absent as well; a variable is known on the node alone.
            for command in commands.iter().filter(|command| !command.may_fail && !command.is_variable()) {
                let Some(program) = specifiers::fill(&command.program, name) else { continue };
                if let Err(unfit) = programs::judge(self.view.tree, &program, &folders, &searched)
                    && unfit != Unfit::State
                {
                    let problem = format!("has {key}={program}, which {unfit}");
                    let way = self.inputs.pruned.program(self.view.tree, &program, &unfit, &folders);
                    let way = way.unwrap_or_else(|| "add the package that has it".to_owned());
                    self.report(path, id, problem, &format!("{way}, or do not enable the unit"));
                }
            }
        }
        if settings.last("Service", "DynamicUser").is_some_and(is_true) {
            return;
        }
        for (key, known) in [("User", &self.inputs.users), ("Group", &self.inputs.groups)] {
            let account = settings.last("Service", key).and_then(|account| specifiers::fill(account, name));
            let Some(account) = account.filter(|account| !account.is_empty() && account != "root") else {
                continue;
            };
            let number = account.parse::<u32>();
            if number.as_ref().is_ok_and(|number| known.values().any(|known| known == number))
                || known.contains_key(&account)
            {
                continue;
            }
            let problem = format!("has {key}={account}, an account that the image does not have");
            let advice = "name it in `system_users`";
            let finding = self.view.finding(Severity::Error, path, id, problem, advice.to_owned());
            self.findings.push(finding);
            return;
        }
    }

    fn broken(&mut self, path: &[u8], id: NodeId, (key, value): (&str, &str), broken: Broken) {
        let problem = format!("has {key}={value}, in which {broken}: systemd does not start it");
        self.report(path, id, problem, "write it as systemd.service(5) says under Command Lines");
    }

    fn report(&mut self, path: &[u8], id: NodeId, problem: String, advice: &str) {
        self.findings.push(self.view.finding(Severity::Error, path, id, problem, advice.to_owned()));
    }
}
