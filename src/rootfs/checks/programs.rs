//! What can be started or loaded: ELF files and scripts, told by their first bytes.

use rayon::prelude::*;

use super::View;
use super::elf::Object;
use crate::tree::{Content, Kind, NodeId};

/// Longest first line that the kernel reads of a script, in bytes (BINPRM_BUF_SIZE).
const SCRIPT_LINE: u64 = 256;

/// A program, library or script.
pub struct Program<'a> {
    /// The first of its paths, without leading slash.
    pub path: &'a [u8],
    pub id: NodeId,
    pub form: Form,
}

pub enum Form {
    /// An ELF file of this machine that is linked to be run or loaded.
    Elf(Object),
    /// An ELF file of this machine whose structures make no sense, and which.
    Broken(&'static str),
    /// An executable script.
    Script {
        interpreter: String,
        /// The rest of the line.
        argument: String,
    },
}

/// Looks at the beginning of every regular file, once for all its names.
pub fn scan<'a>(view: &'a View<'_>) -> Vec<Program<'a>> {
    let mut seen = vec![false; view.tree.capacity()];
    let first: Vec<_> =
        view.paths.iter().filter(|(_, id)| !std::mem::replace(&mut seen[id.index()], true)).collect();
    first
        .par_iter()
        .filter_map(|(path, id)| {
            let node = view.tree.node(*id);
            let Kind::File(content) = &node.kind else { return None };
            let form = form(content, node.meta.mode & 0o111 != 0)?;
            Some(Program { path, id: *id, form })
        })
        .collect()
}

fn form(content: &Content, executable: bool) -> Option<Form> {
    let mut head = vec![0; content.len().min(SCRIPT_LINE) as usize];
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
