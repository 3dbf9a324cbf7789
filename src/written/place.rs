//! Where something stands in a file.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use crate::base::width::to_index;
use crate::base::{Size, limits};

/// A place in a file that somebody wrote, for messages: 1-based line and column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The file as the user named it.
    #[serde(skip)]
    pub file: PathBuf,
    /// Line, from 1.
    #[serde(skip)]
    pub line: usize,
    /// Column, from 1.
    #[serde(skip)]
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file.display(), self.line, self.column)
    }
}

/// A stretch of one line of one source. Small enough to stand beside every value that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mark {
    /// Index into [`Sources`].
    pub source: u32,
    /// From 1.
    pub line: u32,
    /// In characters, from 1.
    pub column: u32,
    /// In characters, at least 1: how far the caret line reaches.
    pub length: u32,
}

impl Mark {
    /// The first character of a source: for what is missing from the file as a whole.
    pub(crate) const fn top(source: u32) -> Self {
        Self { source, line: 1, column: 1, length: 1 }
    }

    /// All four numbers in one, for the passage through serde.
    pub(crate) const fn pack(self) -> u128 {
        (self.source as u128) << 96
            | (self.line as u128) << 64
            | (self.column as u128) << 32
            | self.length as u128
    }

    /// Undoes [`Mark::pack`].
    #[expect(clippy::cast_possible_truncation, reason = "what a number leaves out is the others'")]
    pub(crate) const fn unpack(packed: u128) -> Self {
        Self {
            source: (packed >> 96) as u32,
            line: (packed >> 64) as u32,
            column: (packed >> 32) as u32,
            length: packed as u32,
        }
    }
}

/// One file that was read.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// The path by which people know it.
    pub name: PathBuf,
    /// Its text; not UTF-8 replaced.
    pub text: String,
}

/// All files that one manifest is made of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources {
    files: Vec<Source>,
    /// What they have together.
    pub(crate) sum: Sum,
}

/// What all files of a manifest have together, so that no number of small ones becomes large.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sum {
    /// Bytes of text.
    text: u64,
    /// Values, after aliases are expanded.
    values: usize,
    /// Bytes of these values.
    bytes: usize,
}

impl Sum {
    /// Counts a file of `len` bytes. False: it is too much.
    pub(crate) fn file(&mut self, len: usize) -> bool {
        self.text += len as u64;
        self.text <= limits::TEXT
    }

    /// Counts values with so many bytes; or says which limit they exceed.
    pub(crate) fn add(&mut self, values: usize, bytes: usize) -> Result<(), String> {
        self.values = self.values.saturating_add(values);
        self.bytes = self.bytes.saturating_add(bytes);
        let most = match () {
            () if self.values > limits::VALUES => format!("{} values", limits::VALUES),
            () if self.bytes > limits::VALUE_BYTES => {
                format!("{} of text in their values", Size(limits::VALUE_BYTES as u64).human())
            }
            () => return Ok(()),
        };
        Err(format!("all files of this manifest have more than {most} together"))
    }
}

impl Sources {
    /// Adds a file and gives its number.
    pub(crate) fn add(&mut self, source: Source) -> u32 {
        self.files.push(source);
        u32::try_from(self.files.len() - 1).expect("few files are read at once")
    }

    /// The file with this number.
    pub(crate) fn get(&self, source: u32) -> &Source {
        &self.files[to_index(source)]
    }

    /// The same place for the outside.
    pub(crate) fn place(&self, mark: Mark) -> Place {
        Place {
            file: self.get(mark.source).name.clone(),
            line: to_index(mark.line),
            column: to_index(mark.column),
        }
    }

    /// A line's text without its end.
    pub(crate) fn line(&self, mark: Mark) -> &str {
        let text = &self.get(mark.source).text;
        text.split('\n').nth(to_index(mark.line) - 1).unwrap_or_default().trim_end_matches('\r')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packs_without_loss() {
        let mark = Mark { source: 7, line: u32::MAX, column: 3, length: 1 };
        assert_eq!(Mark::unpack(mark.pack()), mark);
    }
}
