//! One line of tmpfiles.d: the only place that takes one apart or puts one together.
//!
//! Format: tmpfiles.d(5) of systemd 257, `parse_line()` and `specifier_expansion_from_arg()` of its
//! tmpfiles.c. Five fields are words; what follows the sixth is the raw rest of the line, without quotes,
//! in which only escapes of C and specifiers count.

use std::ops::Range;

use super::FACTORY;
use crate::rootfs::conf_d::{Backslash, escaped, quoted, unescaped, word};

/// Specifiers that are the same on every node, and what they stand for where systemd-tmpfiles is root's.
const SPECIFIERS: [(u8, &[u8]); 12] = [
    (b'%', b"%"),
    (b'C', b"/var/cache"),
    (b'L', b"/var/log"),
    (b'S', b"/var/lib"),
    (b'T', b"/tmp"),
    (b'V', b"/var/tmp"),
    (b'g', b"root"),
    (b'G', b"0"),
    (b'h', b"/root"),
    (b't', b"/run"),
    (b'u', b"root"),
    (b'U', b"0"),
];

/// What a path and an argument may be long at most, with the NUL at the end: the kernel's PATH_MAX.
const PATH_MAX: usize = 4096;

/// A line, its fields as written but for quotes; those that are absent or `-` are empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// What it does.
    pub letter: u8,
    /// What follows on the letter.
    pub modifiers: Vec<u8>,
    /// With specifiers: see [`answered`].
    pub path: Vec<u8>,
    /// Where the path stands in the line.
    pub path_at: Range<usize>,
    /// Octal, with its prefixes.
    pub mode: Vec<u8>,
    /// Name or number, with its prefix.
    pub user: Vec<u8>,
    /// Name or number, with its prefix.
    pub group: Vec<u8>,
    /// What is cleaned, when.
    pub age: Vec<u8>,
    /// The raw rest of the line: see [`Line::argument`].
    pub rest: Vec<u8>,
}

impl Line {
    /// Reads a line without blanks at its ends.
    ///
    /// # Errors
    /// What systemd-tmpfiles refuses too; it passes over such a line.
    pub fn parse(text: &[u8]) -> Result<Self, &'static str> {
        let mut rest = text;
        let next = |rest: &mut &[u8]| word(rest, Backslash::Escapes);
        let kind = next(&mut rest)?.unwrap_or_default();
        let start = text.len() - rest.len();
        let path = next(&mut rest)?.ok_or("there is no path")?;
        let end = start + text[start..text.len() - rest.len()].trim_ascii_end().len();
        let mut field =
            || next(&mut rest).map(|field| field.filter(|field| field != b"-").unwrap_or_default());
        let (mode, user, group, age) = (field()?, field()?, field()?, field()?);
        let rest = if rest == b"-" { &[] } else { rest };
        let (letter, modifiers) = kind.split_first().ok_or("there is no letter")?;
        Ok(Self {
            letter: *letter,
            modifiers: modifiers.to_vec(),
            path,
            path_at: start..end,
            mode,
            user,
            group,
            age,
            rest: rest.to_vec(),
        })
    }

    /// The path without specifiers and needless slashes; nothing where only the node knows it, or where it
    /// is not absolute.
    pub fn place(&self) -> Option<Vec<u8>> {
        let path = answered(&self.path)?;
        path.starts_with(b"/").then(|| simple(&path))
    }

    /// This line, as written in `text`, for another path, which has its specifiers already. What the line took by
    /// its path from the factory it then names.
    pub fn moved(&self, text: &[u8], path: &[u8]) -> Vec<u8> {
        let (before, mut after) = (&text[..self.path_at.start], &text[self.path_at.end..]);
        let path = quoted(path);
        let implied = b"CL".contains(&self.letter) && self.rest.is_empty();
        let Some(source) = self.source().filter(|_| implied) else {
            return [before, path.as_bytes(), after].concat();
        };
        let mut fields = String::new();
        for _ in 0..4 {
            let field = word(&mut after, Backslash::Escapes).ok().flatten();
            fields += &format!(" {}", quoted(&field.unwrap_or_else(|| b"-".to_vec())));
        }
        [before, path.as_bytes(), fields.as_bytes(), b" ", rest(&source).as_bytes()].concat()
    }

    /// What is linked to or copied: the factory's by default. Nothing where only the node knows it.
    pub fn source(&self) -> Option<Vec<u8>> {
        let argument = self.argument()?;
        if !argument.is_empty() {
            return Some(argument);
        }
        let place = self.place()?;
        Some([b"/", FACTORY.as_bytes(), &place].concat())
    }

    /// What is to be written, linked to or copied; nothing where only the node knows it.
    pub fn argument(&self) -> Option<Vec<u8>> {
        answered(&unescaped(&self.rest).ok()?)
    }
}

/// `text` with its specifiers resolved; nothing if one of them is known on the node alone, or if the whole is
/// longer than systemd-tmpfiles takes.
pub fn answered(text: &[u8]) -> Option<Vec<u8>> {
    let mut answer = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let specifier = bytes.next()?;
                let (_, meaning) = SPECIFIERS.iter().find(|(letter, _)| letter == specifier)?;
                answer.extend_from_slice(meaning);
            }
            other => answer.push(*other),
        }
    }
    (answer.len() < PATH_MAX).then_some(answer)
}

/// `text` in which no `%` begins a specifier.
pub fn literal(text: &[u8]) -> Vec<u8> {
    text.iter().flat_map(|byte| std::iter::repeat_n(*byte, if *byte == b'%' { 2 } else { 1 })).collect()
}

/// A path without `.` and needless slashes: `path_simplify()` of systemd.
fn simple(path: &[u8]) -> Vec<u8> {
    let parts = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".");
    let simple: Vec<u8> = parts.flat_map(|part| [b"/", part].concat()).collect();
    if simple.is_empty() { b"/".to_vec() } else { simple }
}

/// Mode, user and group of what a line makes.
pub type Access = (u16, u32, u32);

/// A line, with its end, for what keller wants on the state partition: it makes what is missing, and leaves
/// mode and owner of what is there as they are. `path` and `argument` are meant as they are. A copy (`C`) has
/// mode and owner of its source, and no `access`: systemd-tmpfiles would set them at every boot, `:` or not.
pub fn make(letter: char, path: &[u8], access: Option<Access>, argument: Option<&[u8]>) -> String {
    let path = quoted(&literal(path));
    // `:` for nodes that are new only; without it systemd-tmpfiles sets them at every boot.
    let access = match access {
        Some((mode, uid, gid)) => format!(":{mode:04o} :{uid} :{gid}"),
        None => "- - -".to_owned(),
    };
    format!("{letter} {path} {access} - {}\n", argument.map_or("-".to_owned(), rest))
}

/// An argument as the raw rest of a line.
fn rest(argument: &[u8]) -> String {
    let text = escaped(&literal(argument), |letter| letter == '\\');
    if text == "-" {
        return "\\x2d".to_owned();
    }
    // Control characters are escapes already, so that only blanks of this kind can be lost at the ends.
    let inner = text.trim_matches(' ');
    let start = text.len() - text.trim_start_matches(' ').len();
    if inner.is_empty() {
        return "\\x20".repeat(text.len());
    }
    let end = text.len() - start - inner.len();
    format!("{}{inner}{}", "\\x20".repeat(start), "\\x20".repeat(end))
}

/// Whether a path field may hold a pattern that matches several: then only the node knows them.
pub fn is_pattern(path: &[u8]) -> bool {
    path.iter().any(|byte| b"*?[".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_of_the_line_is_raw() {
        let line = Line::parse(b"f /run/x 0644 root root - Don't panic, \"A\" 'B").unwrap();
        assert_eq!(line.argument().unwrap(), b"Don't panic, \"A\" 'B");
        let line =
            Line::parse(br#"f+!  "/etc/a b"	~0644 - :core 10d	 two\nlines\x20100%% "#.trim_ascii()).unwrap();
        assert_eq!((line.letter, &line.modifiers[..], &line.path[..]), (b'f', &b"+!"[..], &b"/etc/a b"[..]));
        assert_eq!(
            (&line.mode[..], &line.user[..], &line.group[..]),
            (&b"~0644"[..], &b""[..], &b":core"[..])
        );
        assert_eq!(line.argument().unwrap(), b"two\nlines 100%");
        assert_eq!(Line::parse(b"d /x").unwrap().argument().unwrap(), b"");
        assert_eq!(Line::parse(b"f /x - - - - -").unwrap().argument().unwrap(), b"");
        for bad in [&b"d"[..], b"\"\" /x", b"d \"/x", b"d /x 07\\q5"] {
            assert!(Line::parse(bad).is_err());
        }
    }

    #[test]
    fn specifiers_that_only_the_node_knows() {
        let place = |text: &[u8]| Line::parse(text).unwrap().place();
        assert_eq!(place(b"d %S//a/./b/").unwrap(), b"/var/lib/a/b");
        assert_eq!(place(b"d /etc/100%%").unwrap(), b"/etc/100%");
        for unknown in ["%m", "%b", "%H", "%v", "%l", "%A", "%w", "%!", "%"] {
            assert!(place(format!("d /etc/{unknown}").as_bytes()).is_none(), "{unknown}");
        }
        assert!(Line::parse(b"f /etc/x - - - - on %H").unwrap().argument().is_none());
        assert!(Line::parse(br"f /etc/x - - - - C:\q").unwrap().argument().is_none());
        assert!(place(b"d etc/x").is_none());
    }

    #[test]
    fn what_is_written_is_read_back() {
        let long = vec![b'y'; 3000];
        let texts: [&[u8]; 12] = [
            b"/a",
            b"/with space",
            b"/50%",
            b"/$HOME",
            b"/\\n",
            b"/\"'",
            b"/ ",
            b"/\n\t",
            b"/\xff",
            b"-",
            b" ",
            &long,
        ];
        for text in texts {
            let line = make('d', text, Some((0o640, 1, 2)), Some(text));
            let line = Line::parse(line.strip_suffix('\n').unwrap().as_bytes()).unwrap();
            assert_eq!(answered(&line.path).unwrap(), text);
            assert_eq!(line.argument().unwrap(), text);
            assert_eq!(
                (&line.mode[..], &line.user[..], &line.group[..]),
                (&b":0640"[..], &b":1"[..], &b":2"[..])
            );
        }
        assert_eq!(make('d', b"/var/a b", Some((0o755, 0, 0)), None), "d \"/var/a b\" :0755 :0 :0 - -\n");
        assert_eq!(make('L', b"/var/x", None, Some(b"../a b")), "L /var/x - - - - ../a b\n");
    }
}
