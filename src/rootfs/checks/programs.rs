//! What can be started or loaded: ELF files and scripts, told by their first bytes; and whether a program that
//! somebody names can be.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use super::elf::Object;
use super::links::{Destination, on_node};
use super::{Finding, Severity, View};
use crate::base::{Size, limits};
use crate::manifest::Container;
use crate::rootfs::containers::Config;
use crate::rootfs::containers::mounts::Mounts;
use crate::tree::{Content, Kind, NodeId, Tree};

/// Where a service of systemd looks for programs that are named without a directory: the default of
/// `DefaultEnvironment=` and of `ExecSearchPath=`.
pub const PATH: [&str; 4] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"];

/// Longest first line that the kernel reads of a script, in bytes (BINPRM_BUF_SIZE).
const SCRIPT_LINE: u64 = 256;

/// A program, library or script.
pub struct Program<'a> {
    /// The first of its paths, without leading slash.
    pub path: &'a [u8],
    /// Its file.
    pub id: NodeId,
    /// How it starts.
    pub form: Form,
}

/// How a program starts.
pub enum Form {
    /// An ELF file of this machine that is linked to be run or loaded.
    Elf(Object),
    /// An ELF file of this machine whose structures make no sense, and which.
    Broken(&'static str),
    /// An executable script.
    Script {
        /// What runs it, as it says.
        interpreter: String,
        /// The rest of the line.
        argument: String,
    },
}

/// Why a program cannot be started. Follows on its name: `/usr/bin/x, which …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// Nothing is there.
    Missing,
    /// A directory, device or the like.
    NoFile,
    /// No execute bit.
    NotExecutable {
        /// Its permission bits.
        mode: u16,
    },
    /// An ELF file that the kernel of this machine does not start.
    OtherMachine {
        /// As Debian or the kernel calls it.
        machine: String,
    },
    /// Neither an ELF file nor a script.
    NoProgram,
    /// A script whose interpreter is missing.
    NoInterpreter {
        /// As the script names it.
        interpreter: String,
    },
    /// It would lie where only the running node has something: the state partition, memory.
    State,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("is not in the image"),
            Self::NoFile => f.write_str("is not a file"),
            Self::NotExecutable { mode } => write!(f, "is not executable (mode {mode:04o})"),
            Self::OtherMachine { machine } => write!(f, "is for another machine ({machine})"),
            Self::NoProgram => f.write_str("is neither a program nor a script"),
            Self::NoInterpreter { interpreter } => {
                write!(f, "is a script for {interpreter}, which is not in the image")
            }
            Self::State => f.write_str("lies where the image has nothing, only the running node"),
        }
    }
}

/// Whether the kernel starts the program `name`: at its path, or else from the first of `folders` that has it.
/// `path` are the directories of its own PATH, where `env` looks.
pub fn judge(tree: &Tree, name: &str, folders: &[&str], path: &[&str]) -> Result<(), Unfit> {
    if name.contains('/') {
        return judge_file(tree, name, path);
    }
    let mut worst = Unfit::Missing;
    for folder in folders {
        match judge_file(tree, &format!("{}/{name}", folder.trim_end_matches('/')), path) {
            Ok(()) => return Ok(()),
            // As execvp(3): a file that cannot be started does not end the search.
            Err(Unfit::Missing | Unfit::State) => {}
            Err(unfit) if worst == Unfit::Missing => worst = unfit,
            Err(_) => {}
        }
    }
    Err(worst)
}

/// Where a container looks for programs that are named without a directory, unless its environment says so.
const CONTAINER_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Why the first word of what `container` runs cannot be started in its image, which is `tree`; with the word
/// and the field that says it. What a volume covers is known only on the node.
pub fn of_container(
    tree: &Tree,
    container: &Container,
    config: &Config,
) -> Option<(&'static str, String, Unfit)> {
    let words = [
        ("entrypoint", &config.entrypoint),
        ("containers.command", &container.command),
        ("command", &config.command),
    ];
    let (field, program) = words.into_iter().find_map(|(field, words)| Some((field, words.first()?)))?;
    let path = container.environment.get("PATH").or(config.environment.get("PATH"));
    let folders: Vec<&str> = path.map_or(CONTAINER_PATH, String::as_str).split(':').collect();
    let whole = match (program.starts_with('/'), program.contains('/')) {
        (false, true) => format!("{}/{program}", config.workdir.as_deref().unwrap_or("/")),
        _ => program.clone(),
    };
    let mounts = Mounts::of(tree, container);
    let covered = |name: &str| mounts.cover_program(tree, name, &folders);
    if covered(&whole) {
        return None;
    }
    // An image has all that it starts with, /var as well.
    let unfit = match judge(tree, &whole, &folders, &folders).err()? {
        Unfit::NoInterpreter { interpreter } if covered(&interpreter) => return None,
        Unfit::State => Unfit::Missing,
        unfit => unfit,
    };
    Some((field, program.clone(), unfit))
}

fn judge_file(tree: &Tree, file: &str, path: &[&str]) -> Result<(), Unfit> {
    let found = on_node(tree, file.as_bytes());
    let id = match &found {
        Destination::Found(id) => *id,
        Destination::Missing(_) if found.is_filled_at_boot() => return Err(Unfit::State),
        Destination::Missing(_) | Destination::Loop | Destination::Far => return Err(Unfit::Missing),
    };
    let node = tree.node(id);
    let Kind::File(content) = &node.kind else { return Err(Unfit::NoFile) };
    if node.meta.mode & 0o111 == 0 {
        return Err(Unfit::NotExecutable { mode: node.meta.mode });
    }
    startable(tree, content, path)
}

/// ELF machines, by number (elf.h), as Debian calls them.
const MACHINES: [(u16, &str); 8] = [
    (8, "mips"),
    (20, "powerpc"),
    (21, "ppc64el"),
    (22, "s390x"),
    (40, "armhf"),
    (183, "arm64"),
    (243, "riscv64"),
    (258, "loong64"),
];
/// Programs of i386 run on amd64, where their loader is.
const OURS: [u16; 2] = [3, 62];

fn startable(tree: &Tree, content: &Content, path: &[&str]) -> Result<(), Unfit> {
    let mut head = vec![0; content.len().min(SCRIPT_LINE) as usize];
    if content.read_at(&mut head, 0).is_err() {
        return Err(Unfit::NoProgram);
    }
    if let Some(machine) = head.strip_prefix(b"\x7fELF").and_then(|_| head.get(18..20)) {
        let bytes = [machine[0], machine[1]];
        let machine = if head[5] == 2 { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) };
        if OURS.contains(&machine) {
            return Ok(());
        }
        let name = MACHINES.iter().find(|(number, _)| *number == machine).map(|(_, name)| (*name).to_owned());
        return Err(Unfit::OtherMachine {
            machine: name.unwrap_or_else(|| format!("ELF machine {machine}")),
        });
    }
    match form(content, true) {
        Some(Form::Script { interpreter, argument }) => match lacking(tree, &interpreter, &argument, path) {
            None => Ok(()),
            Some(interpreter) => Err(Unfit::NoInterpreter { interpreter }),
        },
        _ => Err(Unfit::NoProgram),
    }
}

/// What the first line of a script names and the tree does not have: the interpreter, or what `env` is to
/// start from one of the directories `path`.
pub fn lacking(tree: &Tree, interpreter: &str, argument: &str, path: &[&str]) -> Option<String> {
    let exists = |file: &str| matches!(on_node(tree, file.as_bytes()), Destination::Found(_));
    let found = |name: &str| match (name.starts_with('/'), name.contains('/')) {
        (true, _) => exists(name),
        // From a working directory that is known only once it runs.
        (false, true) => true,
        (false, false) => path.iter().any(|folder| exists(&format!("{folder}/{name}"))),
    };
    let mut words =
        argument.split_whitespace().skip_while(|word| word.starts_with('-') || word.contains('='));
    match (interpreter.rsplit('/').next(), words.next()) {
        _ if !exists(interpreter) => Some(interpreter.to_owned()),
        (Some("env"), Some(name)) if !found(name) => Some(name.to_owned()),
        _ => None,
    }
}

/// What [`scan`] found.
pub(super) struct Scanned<'a> {
    pub programs: Vec<Program<'a>>,
    /// Whether some were left out, since what they ask for is more than [`limits::LIBRARIES`].
    pub is_cut: bool,
}

/// The finding about what was left out.
pub(super) fn too_much() -> Finding {
    let most = Size(limits::LIBRARIES as u64).human();
    Finding {
        severity: Severity::Error,
        path: String::new(),
        origin: String::new(),
        problem: format!("the libraries that all programs ask for have names of more than {most} together"),
        advice: "leave out packages, or `prune` programs".to_owned(),
    }
}

/// Looks at the beginning of every regular file, once for all its names.
pub(super) fn scan<'a>(view: &'a View<'_>) -> Scanned<'a> {
    let mut seen = vec![false; view.tree.capacity()];
    let first: Vec<_> =
        view.paths.iter().filter(|(_, id)| !std::mem::replace(&mut seen[id.index()], true)).collect();
    let names = AtomicUsize::new(0);
    let programs = first.par_iter().filter_map(|(path, id)| {
        let node = view.tree.node(*id);
        let Kind::File(content) = &node.kind else { return None };
        let form = form(content, node.meta.mode & 0o111 != 0)?;
        let own = match &form {
            Form::Elf(object) => object.size(),
            _ => 0,
        };
        let before = names.fetch_add(own, Ordering::Relaxed);
        (before + own <= limits::LIBRARIES).then_some(Program { path, id: *id, form })
    });
    let programs = programs.collect();
    Scanned { programs, is_cut: names.into_inner() > limits::LIBRARIES }
}

fn form(content: &Content, executable: bool) -> Option<Form> {
    let mut head = vec![0; content.len().min(SCRIPT_LINE) as usize];
    // What the disk does not give is told where the whole file is read, as it is written to the image.
    content.read_at(&mut head, 0).ok()?;
    if head.starts_with(b"\x7fELF") {
        return Object::read(content)
            .map_or_else(|what| Some(Form::Broken(what)), |object| object.map(Form::Elf));
    }
    let line = head.strip_prefix(b"#!").filter(|_| executable)?;
    let line = line.split(|byte| *byte == b'\n').next()?;
    let line = String::from_utf8_lossy(line);
    let (interpreter, argument) = line.trim().split_once(char::is_whitespace).unwrap_or((line.trim(), ""));
    Some(Form::Script { interpreter: interpreter.to_owned(), argument: argument.trim().to_owned() })
}
