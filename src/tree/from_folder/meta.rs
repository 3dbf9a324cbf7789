//! Lines of `.meta`; the form is in the parent module.

use crate::base::capabilities::{Capabilities, CapabilityError};
use crate::tree::Kind;

/// Permission bits that say more than who may do what.
const SETUID: u16 = 0o4000;
const SETGID: u16 = 0o2000;
const STICKY: u16 = 0o1000;
const EXECUTE: u16 = 0o111;

/// Mode and owner that `.meta` gives to a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stated {
    /// Permission bits, `0o7777` at most.
    pub mode: u16,
    /// User, by name or number.
    pub owner: String,
    /// Group, by name or number.
    pub group: String,
    /// Of a program.
    pub capabilities: Option<Capabilities>,
}

/// One line that says something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// `path mode owner group`
    Stated {
        /// Relative to the overlay, or absolute in the image: both mean the same.
        path: String,
        /// Whether the path ends with a slash.
        directory: bool,
        /// Mode and owner.
        stated: Stated,
    },
    /// `path -> target`
    Link {
        /// Of the link.
        path: String,
        /// As it will stand in the link.
        target: String,
    },
}

/// What is wrong with a line.
#[derive(Debug, thiserror::Error)]
pub enum MetaError {
    /// Not one of the two forms.
    #[error("expected `path mode owner group [capabilities]` or `path -> target`, but have {line:?}")]
    Form {
        /// The line.
        line: String,
    },
    /// No octal number up to 7777.
    #[error("expected an octal mode such as 0644, but have {mode:?}")]
    Mode {
        /// As written.
        mode: String,
    },
    /// The fifth word.
    #[error(transparent)]
    Capability(#[from] CapabilityError),
    /// A path that the overlay does not have.
    #[error(
        "there is no {path} in the overlay; a directory to be made is written with a slash at its end, and `files` gives mode \
         and owner to what a package has"
    )]
    Absent {
        /// The path.
        path: String,
    },
    /// Capabilities of what is no file.
    #[error("{path} is {kind}, and only a program has capabilities: {out}")]
    NoProgram {
        /// The path.
        path: String,
        /// What it is.
        kind: &'static str,
        /// The way out.
        out: &'static str,
    },
    /// Capabilities, setuid or setgid of what cannot be started.
    #[error(
        "nobody may execute {path} with mode {mode:04o}: it needs execute bits to be setuid or setgid or to have \
         capabilities"
    )]
    NotExecutable {
        /// The path.
        path: String,
        /// As written.
        mode: u16,
    },
    /// A mode that changes nothing.
    #[error("mode {mode:04o} does nothing on {path}, which is {kind}: {out}")]
    Idle {
        /// The path.
        path: String,
        /// As written.
        mode: u16,
        /// What it is.
        kind: &'static str,
        /// The way out.
        out: &'static str,
    },
    /// A slash after what is there and is no directory.
    #[error("{path} is {kind}, and a slash at its end makes a directory: write it without")]
    NoDirectory {
        /// The path.
        path: String,
        /// What it is.
        kind: &'static str,
    },
    /// A path that was there already.
    #[error("{path} is there twice")]
    Exists {
        /// The path.
        path: String,
    },
}

impl Stated {
    /// Whether all of it counts for what is at `path`; `directory` is whether a directory is asked for.
    ///
    /// # Errors
    /// The word that would do nothing.
    pub fn judge(&self, path: &str, kind: &Kind, directory: bool) -> Result<(), MetaError> {
        let Self { mode, .. } = *self;
        let (path, name) = (path.to_owned(), name(kind));
        let idle = |out| Err(MetaError::Idle { path: path.clone(), mode, kind: name, out });
        let no_program = |out| Err(MetaError::NoProgram { path: path.clone(), kind: name, out });
        let capabilities = self.capabilities.is_some();
        match kind {
            Kind::Directory(_) if capabilities => {
                no_program("name the program in it, or take out the fifth word")
            }
            Kind::Directory(_) if mode & SETUID != 0 => idle("Linux knows setuid of programs only"),
            Kind::Directory(_) => Ok(()),
            _ if directory => Err(MetaError::NoDirectory { path, kind: name }),
            Kind::Symlink(_) if capabilities => {
                no_program("name what it leads to, or take out the fifth word")
            }
            Kind::Symlink(_) if mode != 0o777 => idle("write 0777, or name what it leads to"),
            Kind::Symlink(_) => Ok(()),
            _ if mode & STICKY != 0 => idle("Linux knows the sticky bit of directories only"),
            _ if (capabilities || mode & (SETUID | SETGID) != 0) && mode & EXECUTE == 0 => {
                Err(MetaError::NotExecutable { path, mode })
            }
            _ => Ok(()),
        }
    }
}

fn name(kind: &Kind) -> &'static str {
    match kind {
        Kind::Directory(_) => "a directory",
        Kind::Symlink(_) => "a link",
        _ => "a file",
    }
}

impl Line {
    /// Reads one line; nothing for an empty line or a comment, which begins with `#`.
    pub fn parse(line: &str) -> Result<Option<Self>, MetaError> {
        let text = line.trim();
        if text.is_empty() || text.starts_with('#') {
            return Ok(None);
        }
        let words: Vec<&str> = text.split_whitespace().collect();
        match words[..] {
            [path, "->", target] => Ok(Some(Self::Link { path: path.to_owned(), target: target.to_owned() })),
            [path, mode, owner, group, ref more @ ..] if more.len() <= 1 => {
                let number = u16::from_str_radix(mode, 8).ok().filter(|number| *number <= 0o7777);
                let mode = number.ok_or_else(|| MetaError::Mode { mode: mode.to_owned() })?;
                Ok(Some(Self::Stated {
                    path: path.to_owned(),
                    directory: path.ends_with('/'),
                    stated: Stated {
                        mode,
                        owner: owner.to_owned(),
                        group: group.to_owned(),
                        capabilities: match more {
                            [] => None,
                            clauses => Some(Capabilities::parse(clauses.iter().copied())?),
                        },
                    },
                }))
            }
            _ => Err(MetaError::Form { line: text.to_owned() }),
        }
    }
}
