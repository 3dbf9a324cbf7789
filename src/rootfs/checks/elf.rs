//! Libraries that programs need: NEEDED entries, program interpreters, and what is opened at run time as far
//! as the program says so (the note `.note.dlopen`; systemd.io, "ELF Package Metadata: dlopen").
//!
//! Searched as ld.so(8) does: RPATH (only without RUNPATH) or RUNPATH, the folders of ld.so.conf, its own.

use std::collections::{BTreeMap, BTreeSet};

use object::Endianness;
use object::elf;
use object::read::elf::{Dyn, FileHeader, ProgramHeader};
use object::read::{ReadCache, ReadCacheOps, ReadRef};
use serde::Deserialize;

use super::links::{Destination, on_node};
use super::programs::{Form, Program};
use super::{Finding, Severity, View, and_others};
use crate::rootfs::ldcache;
use crate::tree::{Content, NodeId, show};

/// Type of the note that lists libraries opened at run time; its owner is `FDO`.
const NOTE_DLOPEN: u32 = 0x407c_0c0a;

/// Longest name or path in a string table, in bytes: PATH_MAX, many times for a list of folders.
const MAX_STRING: u64 = 64 << 10;

/// What one ELF file asks of the loader.
#[derive(Debug, Default, PartialEq)]
pub struct Object {
    /// The loader that the kernel starts for it.
    interpreter: Option<String>,
    needed: Vec<String>,
    /// Folders of RUNPATH, or else of RPATH, as written.
    folders: Vec<String>,
    /// They are of RPATH: what this file loads is also searched there, and so on.
    passes_on: bool,
    opened: Vec<Opened>,
}

/// One entry of the note: libraries of which one is enough.
#[derive(Clone, Debug, Deserialize, PartialEq)]
struct Opened {
    soname: Vec<String>,
    #[serde(default)]
    priority: Priority,
    #[serde(default)]
    feature: String,
    #[serde(default)]
    description: String,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Priority {
    Required,
    #[default]
    Recommended,
    Suggested,
}

impl Object {
    /// Reads the headers of `content`; nothing for what is not linked for this machine: kernel modules,
    /// programs of the BPF machine, libraries of other architectures.
    pub fn read(content: &Content) -> Result<Option<Self>, &'static str> {
        let data = &ReadCache::new(Window { content, position: 0 });
        let Ok(header) = elf::FileHeader64::<Endianness>::parse(data) else { return Ok(None) };
        let endian = header.endian().map_err(|_| "byte order")?;
        let kind = header.e_type(endian);
        if header.e_machine(endian) != elf::EM_X86_64 || (kind != elf::ET_EXEC && kind != elf::ET_DYN) {
            return Ok(None);
        }
        let segments = header.program_headers(endian, data).map_err(|_| "program headers")?;
        let mut object = Self::default();
        for segment in segments {
            if let Some(text) = segment.interpreter(endian, data).map_err(|_| "program interpreter")? {
                object.interpreter = Some(String::from_utf8_lossy(text).into_owned());
            }
            if let Some(entries) = segment.dynamic(endian, data).map_err(|_| "dynamic segment")? {
                object.dynamic(entries, endian, segments, data)?;
            }
            let Some(mut notes) = segment.notes(endian, data).map_err(|_| "notes")? else { continue };
            while let Some(note) = notes.next().map_err(|_| "notes")? {
                if note.name() == b"FDO" && note.n_type(endian).0 == NOTE_DLOPEN {
                    let json = note.desc().split(|byte| *byte == 0).next().unwrap_or_default();
                    let opened: Vec<Opened> =
                        serde_json::from_slice(json).map_err(|_| "note of libraries")?;
                    object.opened.extend(opened);
                }
            }
        }
        Ok(Some(object))
    }

    fn dynamic<'a, R: ReadRef<'a>>(
        &mut self,
        entries: &[elf::Dyn64<Endianness>],
        endian: Endianness,
        segments: &[elf::ProgramHeader64<Endianness>],
        data: R,
    ) -> Result<(), &'static str> {
        let address = entries.iter().find(|entry| entry.tag(endian) == elf::DT_STRTAB);
        let Some(address) = address.map(|entry| entry.val(endian)) else { return Ok(()) };
        let strings = segments
            .iter()
            .filter(|segment| segment.p_type(endian) == elf::PT_LOAD)
            .find_map(|segment| {
                let into = address.checked_sub(segment.p_vaddr(endian))?;
                (into < segment.p_filesz(endian)).then(|| segment.p_offset(endian).checked_add(into))?
            })
            .ok_or("address of the strings")?;
        let text = |entry: &elf::Dyn64<Endianness>| {
            let start = strings.checked_add(entry.val(endian)).ok_or("name of a library")?;
            let end = data.len().map_or(0, |len| len.min(start.saturating_add(MAX_STRING)));
            let bytes = data.read_bytes_at_until(start..end, 0).map_err(|()| "name of a library")?;
            Ok::<_, &'static str>(String::from_utf8_lossy(bytes).into_owned())
        };
        let (mut old, mut new) = (None, None);
        for entry in entries {
            match entry.tag(endian) {
                elf::DT_NULL => break,
                elf::DT_NEEDED => self.needed.push(text(entry)?),
                elf::DT_RPATH => old = Some(text(entry)?),
                elf::DT_RUNPATH => new = Some(text(entry)?),
                _ => {}
            }
        }
        self.passes_on = new.is_none();
        if let Some(folders) = new.or(old) {
            self.folders = folders.split(':').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        }
        Ok(())
    }
}

/// Positioned reads of a [`Content`], so that a 100 MB program costs a few kilobytes.
struct Window<'a> {
    content: &'a Content,
    position: u64,
}

impl ReadCacheOps for Window<'_> {
    fn len(&mut self) -> Result<u64, ()> {
        Ok(self.content.len())
    }

    fn seek(&mut self, position: u64) -> Result<u64, ()> {
        self.position = position;
        Ok(position)
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ()> {
        let rest = self.content.len().saturating_sub(self.position);
        let count = rest.min(buffer.len() as u64) as usize;
        self.read_exact(&mut buffer[..count]).map(|()| count)
    }

    fn read_exact(&mut self, buffer: &mut [u8]) -> Result<(), ()> {
        self.content.read_at(buffer, self.position).map_err(drop)?;
        self.position += buffer.len() as u64;
        Ok(())
    }
}

/// Where libraries are found.
struct Search<'a> {
    view: &'a View<'a>,
    /// Whether a node is an ELF file of this machine.
    is_object: Vec<bool>,
    /// Folders for everyone.
    folders: Vec<String>,
    /// Answers for these folders.
    known: BTreeMap<String, bool>,
}

impl Search<'_> {
    /// Whether a library or loader is at a path that somebody names.
    fn holds(&self, path: &str) -> bool {
        matches!(on_node(self.view.tree, path.as_bytes()), Destination::Found(id) if self.is_object[id.index()])
    }

    /// Whether it is in a directory of the loader's cache, which has what was there at build time.
    fn has_cached(&self, path: &str) -> bool {
        self.view.tree.resolve(path).is_ok_and(|id: NodeId| self.is_object[id.index()])
    }

    /// Whether a folder of the file's own RPATH or RUNPATH has `library`.
    fn in_own_folders(&self, program: &Program<'_>, object: &Object, library: &str) -> bool {
        object.folders.iter().any(|folder| self.holds(&format!("{}/{library}", expand(program, folder))))
    }

    fn finds(&mut self, program: &Program<'_>, object: &Object, library: &str) -> bool {
        let expand = |text: &str| expand(program, text);
        if library.contains('/') {
            return self.holds(&expand(library));
        }
        if self.in_own_folders(program, object, library) {
            return true;
        }
        if let Some(known) = self.known.get(library) {
            return *known;
        }
        let found = self.folders.iter().any(|folder| self.has_cached(&format!("{folder}/{library}")));
        self.known.insert(library.to_owned(), found);
        found
    }
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

/// Who asks for a library of a name.
type Users<'u, 'a> = BTreeMap<&'u str, Vec<(&'u Program<'a>, &'u Object)>>;

impl<'a> Search<'_> {
    /// Whether all who ask for this library bring `wanted` themselves: then it is loaded already, by name.
    /// Libraries in a program's private folder do without a RUNPATH of their own in this way. So it is where an
    /// RPATH of those who ask has it, as that holds for all that they load.
    ///
    /// A library that nobody asks for is opened by name while its program runs. What it needs and its own
    /// package has somewhere is loaded before it: libjava.so finds libjvm.so so.
    fn comes_with(
        &mut self,
        library: &Program<'_>,
        users: &Users<'_, 'a>,
        wanted: &str,
        asked: &mut BTreeSet<NodeId>,
    ) -> bool {
        let Form::Elf(object) = &library.form else { return false };
        // A program has nobody before it.
        if object.interpreter.is_some() {
            return false;
        }
        // Libraries ask for each other in circles; those who come in from outside decide.
        if !asked.insert(library.id) {
            return true;
        }
        let name = show(library.path.rsplit(|byte| *byte == b'/').next().unwrap_or_default());
        match users.get(name.as_str()) {
            None => self.in_same_package(library, wanted),
            Some(users_of_it) => users_of_it.iter().all(|(user, object)| {
                (object.needed.iter().any(|needed| needed == wanted) && self.finds(user, object, wanted))
                    || (object.passes_on && self.in_own_folders(user, object, wanted))
                    || self.comes_with(user, users, wanted, asked)
            }),
        }
    }

    /// Whether the package of `library` has a library `wanted` below the directory of its own, or beside it.
    fn in_same_package(&self, library: &Program<'_>, wanted: &str) -> bool {
        let tree = self.view.tree;
        let origin = tree.node(library.id).origin;
        let Some(slash) = library.path.iter().rposition(|byte| *byte == b'/') else { return false };
        let own = &library.path[..slash];
        self.view.paths.iter().any(|(path, id)| {
            let Some((folder, name)) =
                path.iter().rposition(|byte| *byte == b'/').map(|at| path.split_at(at))
            else {
                return false;
            };
            &name[1..] == wanted.as_bytes()
                && (folder.starts_with(own) || own.starts_with(folder))
                && tree.node(*id).origin == origin
                && self.holds(&show(path))
        })
    }
}

/// Reports libraries and loaders that are not there. `accepted` are libraries that may be absent.
pub fn check(view: &View<'_>, programs: &[Program<'_>], accepted: &BTreeMap<String, String>) -> Vec<Finding> {
    let mut is_object = vec![false; view.tree.capacity()];
    for program in programs {
        is_object[program.id.index()] = matches!(program.form, Form::Elf(_));
    }
    // A malformed ld.so.conf is an error where ld.so.cache is written.
    let folders = ldcache::folders(view.tree).unwrap_or_default();
    let mut search = Search { view, is_object, folders, known: BTreeMap::new() };
    // Who asks for a file of this name.
    let mut users: Users<'_, '_> = BTreeMap::new();
    for program in programs {
        let Form::Elf(object) = &program.form else { continue };
        for library in &object.needed {
            users.entry(library).or_default().push((program, object));
        }
    }
    // By what is missing: one finding for all who miss it.
    let mut missing: BTreeMap<(String, String), Vec<&Program<'_>>> = BTreeMap::new();
    let mut used = Vec::new();
    let mut findings = Vec::new();
    for program in programs {
        let object = match &program.form {
            Form::Elf(object) => object,
            Form::Broken(what) => {
                let problem = format!("is no sound ELF file ({what})");
                let advice = "leave it out with `prune`, or bring a sound one".to_owned();
                findings.push(view.finding(Severity::Warning, program.path, program.id, problem, advice));
                continue;
            }
            Form::Script { .. } => continue,
        };
        if let Some(interpreter) = object.interpreter.as_ref().filter(|path| !search.holds(path)) {
            let key = (format!("is started by {interpreter}, which is not in the image"), String::new());
            missing.entry(key).or_default().push(program);
        }
        for library in &object.needed {
            if search.finds(program, object, library)
                || search.comes_with(program, &users, library, &mut BTreeSet::new())
            {
                continue;
            }
            if let Some(name) = accepted.keys().find(|name| *name == library) {
                used.push(name);
                continue;
            }
            let key = (format!("needs {library}, which is not in the image"), library.clone());
            missing.entry(key).or_default().push(program);
        }
        for opened in object.opened.iter().filter(|opened| opened.priority != Priority::Suggested) {
            if opened.soname.iter().any(|library| search.finds(program, object, library)) {
                continue;
            }
            let accepts: Vec<_> = accepted.keys().filter(|name| opened.soname.contains(name)).collect();
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
    for ((problem, library), programs) in missing {
        let others: Vec<_> = programs[1..].iter().map(|program| program.path).collect();
        let advice = match library.as_str() {
            "" => "add the package that has the loader".to_owned(),
            library => format!(
                "add the package that has it, or accept its absence with \
                 `missing_libraries: {{{library}: \"the reason\"}}`"
            ),
        };
        let problem = problem + &and_others(&others);
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
