//! Lines of `.meta`; the form is in the parent module.

use crate::base::capabilities::{Capabilities, CapabilityError};

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
    #[error("there is no {path} in the overlay; a directory to be made is written with a slash at its end")]
    Absent {
        /// The path.
        path: String,
    },
    /// A path that was there already.
    #[error("{path} is there twice")]
    Exists {
        /// The path.
        path: String,
    },
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
