//! Paragraphs of an index as lines of tab-separated fields.
//!
//! A paragraph that cannot be used is kept with the reason: who asks for its package is told, and nobody else
//! is. One without a proper name or version can be asked for by nobody; it is left out and noted.

use std::io::{self, BufRead, Read};

use crate::base::width::to_u64;
use crate::base::{Size, limits};
use crate::source::debian::checksum::Checksum;
use crate::source::debian::path::below;
use crate::source::debian::version::{ARCHITECTURE, is_name};

/// Stands before the reason why a package cannot be used.
pub(super) const FAULT: char = '!';

/// Begins the line of a paragraph that was left out.
pub(super) const LEFT_OUT: char = '?';
/// The same after another line.
pub(super) const LEFT_OUT_LATER: &str = "\n?";

/// The fields of a paragraph that are kept.
#[derive(Default)]
struct Paragraph {
    name: String,
    version: String,
    architecture: String,
    pre_depends: String,
    depends: String,
    conflicts: String,
    breaks: String,
    provides: String,
    priority: String,
    filename: String,
    size: String,
    sha256: String,
    sha512: String,
    /// What cannot be read of it, if anything.
    fault: Option<String>,
    /// Bytes of all fields so far.
    kept: u64,
}

impl Paragraph {
    /// Names are compared without regard to case (deb822(5)).
    fn field(&mut self, name: &[u8]) -> Option<&mut String> {
        let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
        Some(match name.first()?.to_ascii_lowercase() {
            b'p' if is("Package") => &mut self.name,
            b'v' if is("Version") => &mut self.version,
            b'a' if is("Architecture") => &mut self.architecture,
            b'p' if is("Pre-Depends") => &mut self.pre_depends,
            b'd' if is("Depends") => &mut self.depends,
            b'c' if is("Conflicts") => &mut self.conflicts,
            b'b' if is("Breaks") => &mut self.breaks,
            b'p' if is("Provides") => &mut self.provides,
            b'p' if is("Priority") => &mut self.priority,
            b'f' if is("Filename") => &mut self.filename,
            b's' if is("Size") => &mut self.size,
            b's' if is("SHA256") => &mut self.sha256,
            b's' if is("SHA512") => &mut self.sha512,
            _ => return None,
        })
    }

    /// Appends to a field, in one line and without tabs, which separate fields.
    fn append(&mut self, name: &[u8], value: &[u8]) -> bool {
        let Some(field) = self.field(name) else { return false };
        let before = field.len();
        let value = String::from_utf8_lossy(value.trim_ascii());
        if !field.is_empty() {
            field.push(' ');
        }
        field.extend(value.chars().map(|c| if c.is_control() { ' ' } else { c }));
        let grown = to_u64(field.len() - before);
        self.kept += grown;
        if value.contains(char::REPLACEMENT_CHARACTER) {
            let name = String::from_utf8_lossy(name);
            self.fault.get_or_insert_with(|| format!("its {name} is not UTF-8"));
        }
        true
    }

    /// Where and what the .deb is, as three fields.
    fn file(&self) -> Result<String, String> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        let path = match below(&self.filename) {
            Some(path) => path,
            None if self.filename.is_empty() => return Err("it has no Filename".to_owned()),
            None => return Err("its Filename leads out of the archive".to_owned()),
        };
        if self.size.parse::<u64>().is_err() {
            return Err("it has no proper Size".to_owned());
        }
        let checksum =
            [&self.sha256, &self.sha512].into_iter().find_map(|text| text.parse::<Checksum>().ok());
        match checksum {
            Some(checksum) => Ok(format!("{path}\t{}\t{checksum}", self.size)),
            None => Err("it has neither a SHA256 nor a SHA512".to_owned()),
        }
    }

    /// Appends the paragraph as a line, unless it is empty or for another architecture.
    fn write(&self, out: &mut String) {
        if self.name.is_empty() && self.version.is_empty() {
            return;
        }
        if !matches!(self.architecture.as_str(), ARCHITECTURE | "all") {
            return;
        }
        let unnamed = match self.version.is_empty() || self.version.contains(char::is_whitespace) {
            true => Some("it has no proper Version"),
            false => None,
        };
        let unnamed = if is_name(&self.name) { unnamed } else { Some("it has no proper Package") };
        if let Some(reason) = unnamed {
            out.extend([&LEFT_OUT.to_string(), self.name.as_str(), "\t", reason, "\n"]);
            return;
        }
        let joined = |a: &str, b: &str| {
            if a.is_empty() || b.is_empty() { format!("{a}{b}") } else { format!("{a}, {b}") }
        };
        for field in [
            &self.name,
            &self.version,
            &self.architecture,
            &joined(&self.pre_depends, &self.depends),
            &joined(&self.conflicts, &self.breaks),
            &self.provides,
            &self.priority,
        ] {
            out.push_str(field);
            out.push('\t');
        }
        match self.file() {
            Ok(file) => out.push_str(&file),
            Err(fault) => out.extend([&FAULT.to_string(), fault.as_str()]),
        }
        out.push('\n');
    }
}

/// More than any index of an archive has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooMuch {
    /// A line that would fill the memory.
    #[error("line {line} has more than the {} that are read of one", Size(to_u64(limits::INDEX_LINE)).human())]
    Line {
        /// From 1.
        line: u64,
    },
    /// Lines without end, with little in each.
    #[error("it has more than {} lines", limits::INDEX_LINES)]
    Lines,
    /// A bomb.
    #[error("it unpacks to more than {}", Size(limits::INDEX).human())]
    Text,
    /// Names, versions and relations of too many packages.
    #[error(
        "the names, versions and relations up to its line {line} have more than {} together",
        Size(limits::INDEX_KEPT).human()
    )]
    Kept {
        /// From 1.
        line: u64,
    },
}

impl From<TooMuch> for io::Error {
    fn from(error: TooMuch) -> Self {
        Self::new(io::ErrorKind::FileTooLarge, error)
    }
}

/// Reads the paragraphs of a plain index one by one, so that its whole text is never in memory.
pub(super) fn trim(input: impl BufRead) -> io::Result<String> {
    let mut input = input.take(limits::INDEX + 1);
    let mut number = 0;
    let mut out = String::new();
    let mut paragraph = Paragraph::default();
    let mut line = Vec::new();
    // Whether the line before was of a kept field, and which: folded lines belong to it.
    let mut current: Option<Vec<u8>> = None;
    loop {
        line.clear();
        number += 1;
        let end = (&mut input).take(to_u64(limits::INDEX_LINE) + 1).read_until(b'\n', &mut line)? == 0;
        if line.len() > limits::INDEX_LINE {
            return Err(TooMuch::Line { line: number }.into());
        }
        if number > limits::INDEX_LINES {
            return Err(TooMuch::Lines.into());
        }
        if input.limit() == 0 {
            return Err(TooMuch::Text.into());
        }
        if to_u64(out.len()) + paragraph.kept > limits::INDEX_KEPT {
            return Err(TooMuch::Kept { line: number }.into());
        }
        while line.last().is_some_and(u8::is_ascii_whitespace) {
            line.pop();
        }
        if line.is_empty() {
            paragraph.write(&mut out);
            paragraph = Paragraph::default();
            current = None;
            if end {
                return Ok(out);
            }
            continue;
        }
        if line[0].is_ascii_whitespace() {
            if let Some(name) = &current {
                paragraph.append(name, &line);
            }
            continue;
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            let shown: String =
                String::from_utf8_lossy(&line).chars().take(40).filter(|c| !c.is_control()).collect();
            paragraph.fault.get_or_insert_with(|| format!("its line {shown:?} is not `field: value`"));
            current = None;
            continue;
        };
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        current = paragraph.append(name, value).then(|| name.to_owned());
    }
}
