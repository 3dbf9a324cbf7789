//! One line of sysusers.d: the only place that takes one apart.
//!
//! Format: sysusers.d(5) of systemd 257, `parse_line()` of its sysusers.c, `valid_user_group_name()`,
//! `valid_gecos()` and `valid_home()` of its user-util.c, `parse_uid()` and `parse_uid_range()`.

use std::ops::RangeInclusive;

use crate::rootfs::conf_d::{Backslash, word};
use crate::tree::show;

/// Bytes that a name may have at most: utmp's field without its NUL.
const LONGEST_NAME: usize = 31;
/// Bytes that a path and one of its parts may have at most: PATH_MAX without its NUL, and NAME_MAX.
const LONGEST_PATH: usize = 4095;
const LONGEST_PART: usize = 255;
/// What the sixth word is called.
const SHELL: &str = "login shell";
/// (uid_t) -1 in 16 and in 32 bits: neither is anybody's.
const NOBODYS: [u32; 2] = [0xffff, 0xffff_ffff];

/// A specifier that is the same on every node, and what it stands for.
const SPECIFIERS: [(u8, &[u8]); 4] = [(b'%', b"%"), (b'T', b"/tmp"), (b'V', b"/var/tmp"), (b'a', b"x86-64")];
/// Specifiers that only the node or a later step of the build can answer.
const OF_THE_NODE: &[u8] = b"AbBHlmMoqvwW";

/// What a line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// `u`
    User(User),
    /// `g`
    Group {
        /// Its name.
        name: String,
        /// Its number.
        id: Id,
    },
    /// `m`
    Member {
        /// Name of the user.
        user: String,
        /// Name of the group.
        group: String,
    },
    /// `r`: numbers out of which those are chosen that are left open.
    Range(RangeInclusive<u32>),
}

/// Where a number comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Id {
    /// It is chosen.
    #[default]
    Open,
    /// This one.
    Number(u32),
    /// That of the owner of what is at this path.
    OfPath(String),
}

/// The primary group of a user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Primary {
    /// One of the user's name.
    #[default]
    Own,
    /// One that is there, by number.
    Number(u32),
    /// One that is there, by name.
    Named(String),
}

/// A line of type `u`; what was absent or `-` is nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// Its name.
    pub name: String,
    /// Its number.
    pub id: Id,
    /// Its primary group.
    pub group: Primary,
    /// Shown name.
    pub description: Option<String>,
    /// Home directory.
    pub home: Option<String>,
    /// Login shell.
    pub shell: Option<String>,
    /// `u!`: nobody may log in, by no means.
    pub locked: bool,
}

/// Why systemd-sysusers passes over a line, or why the build has to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// The words cannot be told apart.
    #[error("{0}")]
    Words(&'static str),
    /// Less than a type and a name.
    #[error("expected a type and a name")]
    Short,
    /// More than six words.
    #[error("expected at most six words, but {rest:?} follows: a text with blanks stands in quotes")]
    Long {
        /// What follows.
        rest: String,
    },
    /// No type that there is.
    #[error("unknown type {kind:?}: expected u, u!, g, m or r")]
    Kind {
        /// As written.
        kind: String,
    },
    /// A specifier that the build cannot answer.
    #[error("%{specifier} is not known when the image is built: write out what it stands for")]
    Specifier {
        /// Its letter.
        specifier: char,
    },
    /// No name of an account.
    #[error(
        "{name:?} is not a name of a user or group: letters a-z and A-Z, digits, `_` and `-`, at most 31, and no \
         digit or `-` first"
    )]
    Name {
        /// With specifiers resolved.
        name: String,
    },
    /// No number of an account.
    #[error("{id:?} is no id")]
    Id {
        /// As written.
        id: String,
    },
    /// No range of numbers.
    #[error("{range:?} is not a range of ids such as 500-900")]
    Range {
        /// As written.
        range: String,
    },
    /// A text that cannot stand in /etc/passwd.
    #[error("{value:?} cannot be the {field}: {why}")]
    Field {
        /// Which.
        field: &'static str,
        /// With specifiers resolved.
        value: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A word that a line of this type needs.
    #[error("a line of type {kind} needs {what}")]
    Absent {
        /// The type.
        kind: char,
        /// What is missing.
        what: &'static str,
    },
    /// A word that a line of this type does not have.
    #[error("a line of type {kind} has no {what}")]
    Surplus {
        /// The type.
        kind: char,
        /// What is too much.
        what: &'static str,
    },
}

impl Line {
    /// Reads a line without blanks at its ends.
    ///
    /// # Errors
    /// What systemd-sysusers passes over too, and specifiers that the build cannot answer.
    pub fn parse(mut text: &[u8]) -> Result<Self, LineError> {
        let mut next = || word(&mut text, Backslash::Quotes).map_err(LineError::Words);
        let (kind, name) = (next()?, next()?);
        let mut said = || next().map(|word| word.filter(|word| !word.is_empty() && word != b"-"));
        let (id, description, home, shell) = (said()?, said()?, said()?, said()?);
        let (Some(kind), Some(name)) = (kind, name) else { return Err(LineError::Short) };
        if !text.is_empty() {
            return Err(LineError::Long { rest: show(text) });
        }
        let (kind, locked) = match kind[..] {
            [kind] => (kind, false),
            [kind, b'!'] => (kind, true),
            _ => return Err(LineError::Kind { kind: show(&kind) }),
        };
        if !b"ugmr".contains(&kind) {
            return Err(LineError::Kind { kind: show(&[kind]) });
        }
        let name = Some(name).filter(|name| !name.is_empty() && name != b"-").map(valid_name).transpose()?;
        let id = id.map(|id| answered(&id)).transpose()?;
        let description = description.map(description_of).transpose()?;
        let home = home.map(|home| path("home directory", &home)).transpose()?;
        let shell = shell.map(|shell| path(SHELL, &shell)).transpose()?;

        let letter = char::from(kind);
        let absent = |what| LineError::Absent { kind: letter, what };
        let more = [(description.is_some(), "description"), (home.is_some(), "home directory")]
            .into_iter()
            .chain([(shell.is_some(), SHELL), (locked, "`!`"), (kind == b'r' && name.is_some(), "name")]);
        if kind != b'u'
            && let Some((_, what)) = more.clone().find(|(there, _)| *there)
        {
            return Err(LineError::Surplus { kind: letter, what });
        }
        if kind == b'r' {
            return range(&id.ok_or_else(|| absent("a range"))?).map(Self::Range);
        }
        let name = name.ok_or_else(|| absent("a name"))?;
        match kind {
            b'm' => {
                let group = id.ok_or_else(|| absent("the name of a group"))?;
                Ok(Self::Member { user: name, group: checked_name(group)? })
            }
            b'g' => Ok(Self::Group { name, id: id.map(|id| id_of(&id)).transpose()?.unwrap_or_default() }),
            _ => {
                let (id, group) = id.map(|id| ids(&id)).transpose()?.unwrap_or_default();
                Ok(Self::User(User { name, id, group, description, home, shell, locked }))
            }
        }
    }
}

/// `text` with its specifiers resolved. One that systemd does not know stays as it is.
fn answered(text: &[u8]) -> Result<Vec<u8>, LineError> {
    let mut answer = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        let specifier = (*byte == b'%').then(|| bytes.next()).flatten();
        match specifier {
            Some(letter) if OF_THE_NODE.contains(letter) => {
                return Err(LineError::Specifier { specifier: char::from(*letter) });
            }
            Some(letter) => match SPECIFIERS.iter().find(|(known, _)| known == letter) {
                Some((_, meaning)) => answer.extend_from_slice(meaning),
                None => answer.extend([b'%', *letter]),
            },
            None => answer.push(*byte),
        }
    }
    Ok(answer)
}

fn valid_name(word: Vec<u8>) -> Result<String, LineError> {
    checked_name(answered(&word)?)
}

fn checked_name(name: Vec<u8>) -> Result<String, LineError> {
    let good = is_name(&name);
    match String::from_utf8(name) {
        Ok(name) if good => Ok(name),
        Ok(name) => Err(LineError::Name { name }),
        Err(error) => Err(LineError::Name { name: show(error.as_bytes()) }),
    }
}

/// Whether systemd takes `name` for that of an account.
fn is_name(name: &[u8]) -> bool {
    let first = name.first().is_some_and(|first| first.is_ascii_alphabetic() || *first == b'_');
    first
        && name.len() <= LONGEST_NAME
        && name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(byte))
}

/// A text that may stand between colons.
fn field(field: &'static str, bytes: Vec<u8>) -> Result<String, LineError> {
    let bad = |value: String, why| Err(LineError::Field { field, value, why });
    match String::from_utf8(bytes) {
        Err(error) => bad(show(error.as_bytes()), "it is not UTF-8"),
        Ok(text) if text.contains(':') => bad(text, "a colon ends a field of /etc/passwd"),
        Ok(text) if text.contains(|letter: char| letter.is_ascii_control()) => {
            bad(text, "it has control characters")
        }
        Ok(text) => Ok(text),
    }
}

fn description_of(word: Vec<u8>) -> Result<String, LineError> {
    field("description", answered(&word)?)
}

/// A path without `.` and needless slashes that leads nowhere else.
fn path(what: &'static str, word: &[u8]) -> Result<String, LineError> {
    let text = field(what, answered(word)?)?;
    let why = match () {
        () if !text.starts_with('/') => "it is not absolute",
        () if text.split('/').any(|part| part == "..") => "it has `..`",
        () if text.split('/').any(|part| part.len() > LONGEST_PART) || text.len() > LONGEST_PATH => {
            "it is too long"
        }
        () => match simple(&text) {
            path if path == "/" && what == SHELL => "it is a directory",
            path => return Ok(path),
        },
    };
    Err(LineError::Field { field: what, value: text, why })
}

fn simple(path: &str) -> String {
    let parts = path.split('/').filter(|part| !part.is_empty() && *part != ".");
    let simple: String = parts.flat_map(|part| ["/", part]).collect();
    if simple.is_empty() { "/".to_owned() } else { simple }
}

fn number(text: &str) -> Option<u32> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|id| plain && !NOBODYS.contains(id))
}

fn id_of(bytes: &[u8]) -> Result<Id, LineError> {
    let text = show(bytes);
    if text.starts_with('/') {
        return Ok(Id::OfPath(simple(&text)));
    }
    number(&text).map(Id::Number).ok_or(LineError::Id { id: text })
}

/// The third word of a user: its number, and its group if it is named besides.
fn ids(bytes: &[u8]) -> Result<(Id, Primary), LineError> {
    let Some(colon) = bytes.iter().position(|byte| *byte == b':').filter(|_| !bytes.starts_with(b"/")) else {
        return Ok((id_of(bytes)?, Primary::Own));
    };
    let (user, group) = (&bytes[..colon], &bytes[colon + 1..]);
    let group = match number(&show(group)) {
        Some(number) => Primary::Number(number),
        None if is_name(group) => Primary::Named(show(group)),
        None => return Err(LineError::Id { id: show(group) }),
    };
    let id = match user {
        b"-" => Id::Open,
        user => Id::Number(number(&show(user)).ok_or_else(|| LineError::Id { id: show(user) })?),
    };
    Ok((id, group))
}

fn range(bytes: &[u8]) -> Result<RangeInclusive<u32>, LineError> {
    let text = show(bytes);
    let (first, last) = text.split_once('-').unwrap_or((&text, &text));
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => Ok(first..=last),
        _ => Err(LineError::Range { range: text.clone() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(line: &str) -> User {
        match Line::parse(line.as_bytes()).unwrap() {
            Line::User(user) => user,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn words_are_taken_as_systemd_takes_them() {
        let named = user(r#"u! "app" 7:adm 'Gr\"\'ü' "/var//lib/./my app/" /bin/sh"#);
        assert_eq!((named.name.as_str(), named.locked, named.id), ("app", true, Id::Number(7)));
        assert_eq!(named.group, Primary::Named("adm".into()));
        assert_eq!(named.description.as_deref(), Some("Gr\"'ü"));
        assert_eq!(named.home.as_deref(), Some("/var/lib/my app"));
        assert_eq!(user("u a - 100%% %T/%z").description.as_deref(), Some("100%"));
        assert_eq!(user("u a - - %V/%z").home.as_deref(), Some("/var/tmp/%z"));
        assert_eq!(user("u a /etc//x/").id, Id::OfPath("/etc/x".into()));
        assert_eq!(Line::parse(b"r - 5-9").unwrap(), Line::Range(5..=9));
        assert_eq!(Line::parse(b"r - 5").unwrap(), Line::Range(5..=5));
    }

    #[test]
    fn what_is_refused_is_named() {
        let long = "u ".to_owned() + &"n".repeat(32);
        for (line, part) in [
            ("u", "a type and a name"),
            ("u a - - - - -", "at most six words"),
            ("x a", "unknown type \"x\""),
            ("g! a", "has no `!`"),
            ("u+ a", "unknown type \"u+\""),
            ("u 1a", "is not a name"),
            ("u grün", "is not a name"),
            ("u a.b", "is not a name"),
            (&long, "at most 31"),
            ("u a ten", "\"ten\" is no id"),
            ("u a 007", "\"007\" is no id"),
            ("u a 65535", "no id"),
            ("u a :5", "no id"),
            ("u a - a:b", "a colon"),
            ("u a - - home", "not absolute"),
            ("u a - - /a/../b", "`..`"),
            ("u a - - - //", "is a directory"),
            ("g a - text", "has no description"),
            ("m a", "needs the name of a group"),
            ("u -", "needs a name"),
            ("r a 5-9", "has no name"),
            ("r - 9-5", "not a range"),
            ("u a-%H", "%H is not known when the image is built"),
            ("u \"a", "a quote without its end"),
        ] {
            let error = Line::parse(line.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(part), "{line}: {error}");
        }
    }
}
