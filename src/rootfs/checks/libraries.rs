//! Libraries that are not there. What a program loads is found as ld.so(8) finds it, in the order in which it
//! loads: what is loaded already answers to its name; then RPATH of the file and of those that loaded it (only
//! without RUNPATH), or RUNPATH; then the directories of ld.so.conf and its own.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::rc::Rc;

use super::elf::{Object, Opened, Priority};
use super::links::{Destination, name_on_node, on_node};
use super::programs::{Form, Program};
use super::{Finding, Inputs, Severity, View, and_others};
use crate::base::limits;
use crate::rootfs::{Error, ldcache};
use crate::tree::{NodeId, show};

/// An ELF file of the image.
#[derive(Clone, Copy)]
struct File<'a> {
    program: &'a Program<'a>,
    object: &'a Object,
}

/// Place of a file in [`Loader::files`].
type Index = usize;

/// Where libraries are found.
struct Loader<'a> {
    view: &'a View<'a>,
    files: Vec<File<'a>>,
    /// By node.
    index: HashMap<NodeId, Index>,
    /// Directories for everyone.
    folders: Vec<String>,
    /// Directories of RPATH or RUNPATH of a file.
    expanded: HashMap<Index, Rc<[String]>>,
    /// Bytes that these may still take.
    room: usize,
    /// What they have.
    known: HashMap<&'a str, Option<Index>>,
    /// What a file finds in directories of its own.
    known_to: HashMap<(Index, &'a str), Option<Index>>,
    /// Names of files that some file asks for.
    asked_for: HashSet<&'a str>,
    /// Where the image has files of these names, by place in the paths of the view.
    named: HashMap<&'a str, Vec<usize>>,
    /// Steps that may still be made: see [`limits::LOADS`].
    left: Cell<usize>,
}

/// A file that needs a library which is not found.
type Miss<'a> = (Index, &'a str);

impl<'a> Loader<'a> {
    fn new(view: &'a View<'a>, programs: &'a [Program<'a>]) -> Self {
        let files: Vec<_> = programs
            .iter()
            .filter_map(|program| match &program.form {
                Form::Elf(object) => Some(File { program, object }),
                _ => None,
            })
            .collect();
        let index = files.iter().enumerate().map(|(index, file)| (file.program.id, index)).collect();
        let asked_for =
            files.iter().flat_map(|file| &file.object.needed).map(|name| base(name.as_bytes())).collect();
        // Once ld.so.cache is written, each file that this reads was read: it failed there if it is malformed.
        let folders = match ldcache::folders(view.tree) {
            Err(Error::Tree(error)) => view.told(Err(error)).unwrap_or_default(),
            folders => folders.unwrap_or_default(),
        };
        let (known, known_to, expanded) = (HashMap::new(), HashMap::new(), HashMap::new());
        let asked_for: HashSet<&'a str> = asked_for;
        let mut named: HashMap<&'a str, Vec<usize>> = HashMap::new();
        for (place, (path, _)) in view.paths.iter().enumerate() {
            if let Some(name) = asked_for.get(base(path)) {
                named.entry(name).or_default().push(place);
            }
        }
        let left = Cell::new(limits::LOADS);
        Self {
            view,
            files,
            index,
            folders,
            expanded,
            room: limits::LIBRARIES,
            known,
            known_to,
            asked_for,
            named,
            left,
        }
    }

    /// Whether `count` more steps may be made.
    fn step(&self, count: usize) -> bool {
        self.left.set(self.left.get().saturating_sub(count));
        self.left.get() > 0
    }

    /// The library or loader at a path that somebody names.
    fn at(&self, path: &str) -> Option<Index> {
        match on_node(self.view.tree, path.as_bytes()) {
            Destination::Found(id) => self.index.get(&id).copied(),
            _ => None,
        }
    }

    /// The directories of RPATH or RUNPATH of `file`, expanded once for all that it loads.
    fn own_folders(&mut self, file: Index) -> Rc<[String]> {
        if let Some(known) = self.expanded.get(&file) {
            return known.clone();
        }
        let File { program, object } = self.files[file];
        let fits = |folder: &String| folder.len() <= limits::PATH;
        let folders =
            object.folders.iter().filter(|folder| fits(folder)).map(|folder| expand(program, folder));
        let mut folders: Rc<[String]> = folders.filter(fits).collect();
        let size: usize = folders.iter().map(|folder| folder.len() + size_of::<String>()).sum();
        match self.room.checked_sub(size) {
            Some(room) => self.room = room,
            // `$ORIGIN`, thousands of times: nothing more is looked for.
            None => {
                folders = Rc::default();
                self.left.set(0);
            }
        }
        self.expanded.insert(file, folders.clone());
        folders
    }

    /// `library` in a directory of the RPATH or RUNPATH of `file`.
    fn in_own_folders(&mut self, file: Index, library: &'a str) -> Option<Index> {
        if let Some(known) = self.known_to.get(&(file, library)) {
            return *known;
        }
        if self.files[file].object.folders.is_empty() {
            return None;
        }
        let folders = self.own_folders(file);
        // What a path costs: four steps for each of its parts.
        if !self.step(folders.iter().map(|folder| 4 * folder.matches('/').count().max(1)).sum()) {
            return None;
        }
        let paths = folders.iter().map(|folder| format!("{folder}/{library}"));
        let found = paths.filter_map(|path| self.at(&path)).next();
        self.known_to.insert((file, library), found);
        found
    }

    /// `library` in a directory of the loader's cache, which was made before /usr/local and /opt moved.
    fn cached(&mut self, library: &'a str) -> Option<Index> {
        if let Some(known) = self.known.get(library) {
            return *known;
        }
        if !self.step(self.folders.len()) {
            return None;
        }
        let paths = self.folders.iter().map(|folder| format!("{folder}/{library}"));
        let found = paths.filter_map(|path| self.at(&path)).next();
        self.known.insert(library, found);
        found
    }

    /// What `file` gets for `library`; `above` are those that loaded it, nearest first.
    fn find(
        &mut self,
        file: Index,
        library: &'a str,
        mut above: impl Iterator<Item = Index>,
    ) -> Option<Index> {
        if library.contains('/') {
            // What the path costs: as many steps as it has parts.
            let parts = library.matches(['/', '$']).count();
            return self.step(parts).then(|| self.at(&expand(self.files[file].program, library))).flatten();
        }
        if let Some(found) = self.in_own_folders(file, library) {
            return Some(found);
        }
        if self.files[file].object.passes_on {
            let passed_on = above.find_map(|user| {
                let asks = self.step(1) && self.files[user].object.passes_on;
                asks.then(|| self.in_own_folders(user, library)).flatten()
            });
            if passed_on.is_some() {
                return passed_on;
            }
        }
        self.cached(library)
    }

    /// Loads `first` and all that it needs, breadth first as ld.so does: what was loaded, and what was not found.
    fn load(&mut self, first: Index) -> (Vec<Index>, Vec<Miss<'a>>) {
        let mut loaded = vec![first];
        let mut known = HashSet::from([first]);
        // By place in `loaded`: who loaded it.
        let mut by = vec![None];
        let mut names: HashSet<&'a str> = self.name(first).into_iter().collect();
        let mut misses = Vec::new();
        let mut next = 0;
        while let Some(&file) = loaded.get(next) {
            let object: &'a Object = self.files[file].object;
            for library in &object.needed {
                if !self.step(1) {
                    break;
                }
                if names.contains(library.as_str()) {
                    continue;
                }
                let above = std::iter::successors(by[next], |place: &usize| by[*place]);
                match self.find(file, library, above.map(|place| loaded[place])) {
                    None => misses.push((file, library.as_str())),
                    Some(found) => {
                        names.insert(library);
                        names.extend(self.name(found));
                        if known.insert(found) {
                            loaded.push(found);
                            by.push(Some(next));
                        }
                    }
                }
            }
            next += 1;
        }
        (loaded, misses)
    }

    fn name(&self, file: Index) -> Option<&'a str> {
        self.files[file].object.soname.as_deref()
    }

    /// Whether no file asks for this one, as for plugins: it is opened by name while a program runs.
    fn is_opened(&self, file: Index) -> bool {
        let name = base(self.files[file].program.path);
        !self.asked_for.contains(name) && !self.name(file).is_some_and(|name| self.asked_for.contains(name))
    }

    /// All that is needed and not found, each with the file that was started or opened when it was first missed.
    /// Programs are loaded first, then what they open, and last what none of these has loaded.
    fn misses(&mut self) -> BTreeMap<Miss<'a>, Index> {
        let mut misses = BTreeMap::new();
        let mut seen = vec![false; self.files.len()];
        let all: Vec<Index> = (0..self.files.len()).collect();
        let starts = |file: &Index| self.files[*file].object.interpreter.is_some();
        let (programs, others): (Vec<_>, Vec<_>) = all.into_iter().partition(starts);
        let (opened, rest): (Vec<_>, Vec<_>) = others.into_iter().partition(|file| self.is_opened(*file));
        for program in programs {
            let (loaded, missed) = self.load(program);
            loaded.into_iter().for_each(|file| seen[file] = true);
            missed.into_iter().for_each(|miss| _ = misses.entry(miss).or_insert(program));
        }
        for library in opened {
            let (loaded, missed) = self.load(library);
            loaded.into_iter().for_each(|file| seen[file] = true);
            // What a package has somewhere, its program has loaded before: libjava.so finds libjvm.so so.
            let missed = missed.into_iter().filter(|(_, wanted)| !self.comes_before(library, wanted));
            missed.for_each(|miss| _ = misses.entry(miss).or_insert(library));
        }
        for library in rest {
            if !seen[library] {
                let (loaded, missed) = self.load(library);
                loaded.into_iter().for_each(|file| seen[file] = true);
                missed.into_iter().for_each(|miss| _ = misses.entry(miss).or_insert(library));
            }
        }
        misses
    }

    /// The path of a library of this name that the image has somewhere.
    fn elsewhere(&self, library: &str) -> Option<String> {
        self.step(self.files.len()).then_some(())?;
        let named = self.files.iter().find(|file| base(file.program.path) == library)?;
        Some(format!("/{}", show(name_on_node(named.program.path))))
    }

    /// Whether whoever opens `library` may be taken to have loaded `wanted`: it lies in the same directory, or its
    /// package has it above or below.
    fn comes_before(&self, library: Index, wanted: &str) -> bool {
        let tree = self.view.tree;
        let Program { path, id, .. } = self.files[library].program;
        let Some(slash) = path.iter().rposition(|byte| *byte == b'/') else { return false };
        let own = &path[..slash];
        let places = self.named.get(wanted).map(Vec::as_slice).unwrap_or_default();
        self.step(places.len())
            && places.iter().map(|place| &self.view.paths[*place]).any(|(path, other)| {
                let Some(at) = path.iter().rposition(|byte| *byte == b'/') else { return false };
                let folder = &path[..at];
                (folder == own
                    || (folder.starts_with(own) || own.starts_with(folder))
                        && tree.node(*other).origin == tree.node(*id).origin)
                    && self.at(&show(path)).is_some()
            })
    }
}

/// The last part of a path; nothing where it is not UTF-8.
fn base(path: &[u8]) -> &str {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    std::str::from_utf8(name).unwrap_or_default()
}

/// Fills in `$ORIGIN` and its like in what the file `program` says: ld.so(8), "Dynamic string tokens".
fn expand(program: &Program<'_>, text: &str) -> String {
    let origin = match program.path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => format!("/{}", show(&program.path[..slash])),
        None => "/".to_owned(),
    };
    [("ORIGIN", &*origin), ("LIB", "lib/x86_64-linux-gnu"), ("PLATFORM", "x86_64")].iter().fold(
        text.to_owned(),
        |text, (name, value)| {
            text.replace(&format!("${{{name}}}"), value).replace(&format!("${name}"), value)
        },
    )
}

/// Files by what they miss: the problem, and the library whose absence can be accepted. Each makes one finding.
type Missing<'a> = BTreeMap<(String, String), Vec<&'a Program<'a>>>;

/// Reports libraries and loaders that are not there.
pub(super) fn check<'a>(view: &'a View<'a>, programs: &'a [Program<'a>], inputs: &Inputs) -> Vec<Finding> {
    let accepted = &inputs.missing_libraries;
    let mut loader = Loader::new(view, programs);
    let misses = loader.misses();
    let mut missing = Missing::new();
    // Of libraries that are where nobody looks: what misses them once it is started.
    let mut starts: BTreeMap<&str, Index> = BTreeMap::new();
    let mut used = BTreeSet::new();
    for index in 0..loader.files.len() {
        let File { program, object } = loader.files[index];
        if let Some(interpreter) = object.interpreter.as_ref().filter(|path| loader.at(path).is_none()) {
            let problem = format!("is started by {interpreter}, which is not in the image");
            missing.entry((problem, String::new())).or_default().push(program);
        }
        for library in &object.needed {
            let Some(first) = misses.get(&(index, library.as_str())) else { continue };
            if accepted.contains_key(library) {
                used.insert(library);
                continue;
            }
            let problem = match loader.elsewhere(library) {
                None => format!("needs {library}, which is not in the image"),
                Some(path) => {
                    starts.entry(library).or_insert(*first);
                    format!("needs {library}, which is at {path}, but in no directory that is searched")
                }
            };
            missing.entry((problem, library.clone())).or_default().push(program);
        }
        for opened in object.opened.iter().filter(|opened| opened.priority != Priority::Suggested) {
            if opened.soname.iter().any(|library| loader.find(index, library, std::iter::empty()).is_some()) {
                continue;
            }
            let accepts: Vec<_> = opened.soname.iter().filter(|name| accepted.contains_key(*name)).collect();
            if !accepts.is_empty() {
                used.extend(accepts);
                continue;
            }
            let Opened { soname, feature, description, .. } = opened;
            let problem = format!(
                "opens {} for {} ({}), which is not in the image",
                soname.join(" or "),
                if feature.is_empty() { "a feature without name" } else { feature },
                description
            );
            missing.entry((problem, soname.first().cloned().unwrap_or_default())).or_default().push(program);
        }
    }
    let mut findings: Vec<_> = programs.iter().filter_map(|program| broken(view, program)).collect();
    // What was not looked for is not known to be missing.
    if loader.left.get() == 0 {
        findings.push(Finding {
            severity: Severity::Error,
            path: String::new(),
            origin: String::new(),
            problem: format!("programs and libraries ask for each other in more than {} ways", limits::LOADS),
            advice: "leave out packages, or `prune` programs".to_owned(),
        });
        return findings;
    }
    for ((problem, library), programs) in missing {
        let others: Vec<_> = programs[1..].iter().map(|program| program.path).collect();
        let problem = problem + &and_others(&others);
        let start = starts.get(library.as_str()).map(|first| loader.files[*first].program.path);
        let advice = advice(view, &library, start, inputs);
        findings.push(view.finding(Severity::Error, programs[0].path, programs[0].id, problem, advice));
    }
    for name in accepted.keys().filter(|name| !used.contains(name)) {
        findings.push(Finding {
            severity: Severity::Warning,
            path: String::new(),
            origin: "manifest".to_owned(),
            problem: format!("missing_libraries names {name}, which nothing misses"),
            advice: "remove the entry".to_owned(),
        });
    }
    findings
}

fn broken(view: &View<'_>, program: &Program<'_>) -> Option<Finding> {
    let Form::Broken(what) = &program.form else { return None };
    let problem = format!("is no sound ELF file ({what})");
    let advice = "leave it out with `prune`, or bring a sound one".to_owned();
    Some(view.finding(Severity::Warning, program.path, program.id, problem, advice))
}

/// What to do about a library that is missing; without a name, about a loader. `start` misses it though the image
/// has it.
fn advice(view: &View<'_>, library: &str, start: Option<&[u8]>, inputs: &Inputs) -> String {
    if library.is_empty() {
        return "add the package that has the loader".to_owned();
    }
    let accept = format!("or accept its absence with `missing_libraries: {{{library}: \"the reason\"}}`");
    if let Some(start) = start {
        let start = show(name_on_node(start));
        return format!(
            "leave /{start}, which looks elsewhere, out with `prune`, add the directory to /etc/ld.so.conf.d, {accept}"
        );
    }
    if let Some(path) = inputs.libraries.get(library).filter(|path| view.tree.lookup(path).is_none()) {
        // A library is a file and links to it.
        let pattern = inputs.pruned.pattern(path).map(|pattern| format!(": [{pattern}]")).unwrap_or_default();
        return format!(
            "`prune{pattern}` takes {path} away; bring it back with `keep: [\"{path}*\"]`, {accept}"
        );
    }
    match inputs.assumed.iter().find(|package| brings(package, library)) {
        Some(package) => {
            let by = inputs.said.at("assume", package, &format!("`assume` takes {package} as present"));
            format!("{by}; add {package} to `packages`, which takes that away, {accept}")
        }
        None => format!("add the package that has it, {accept}"),
    }
}

/// Whether `package` is by its name the one with `library`, as Debian's policy has it (8.1): libffi8 has
/// libffi.so.8, libsasl2-2 libsasl2.so.2, libssl3t64 libssl.so.3.
fn brings(package: &str, library: &str) -> bool {
    let Some((stem, version)) = library.split_once(".so") else { return false };
    let version = version.trim_start_matches('.');
    let package = package.strip_suffix("t64").unwrap_or(package);
    let stem = stem.to_lowercase().replace('_', "-");
    package == format!("{stem}{version}") || package == format!("{stem}-{version}")
}
