//! Configuration folders as systemd reads them: `/etc/NAME.d` before `/usr/lib/NAME.d`, by file name, and
//! lines that are split into words with quotes.
//!
//! Words: `extract_first_word()` of systemd 257. Names on a disk are bytes, and so are lines.

use std::collections::BTreeMap;

use super::error::Error;
use crate::base::limits;
use crate::tree::{Kind, Tree, show};

/// What separates words; no other blank does.
pub const BLANKS: [u8; 4] = [b' ', b'\t', b'\n', b'\r'];

/// One file of a folder.
#[derive(Debug)]
pub struct ConfFile {
    /// Absolute path in the tree.
    pub path: String,
    /// All of it.
    pub bytes: Vec<u8>,
}

/// What a backslash does in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backslash {
    /// It begins an escape of C (`\n`, `\x20`, `\040`): tmpfiles.d.
    Escapes,
    /// It takes the next byte as it is: sysusers.d.
    Quotes,
}

/// Where the directories are, each before those whose files it hides. /run is empty in an image.
const PARENTS: [&str; 2] = ["/etc", "/usr/lib"];
/// Between them, but only for what the build itself does: it leads to the state partition, which is blank at the
/// first boot.
const LOCAL: &str = "/usr/local/lib";
/// What the build does, so that nothing reads it at boot.
const DONE_AT_BUILD: &str = "sysusers.d";

/// The `.conf` files of `name`, e.g. `sysusers.d`, ordered by file name. A file in /etc hides one of the
/// same name in /usr/lib; an empty one or a link to /dev/null hides it for good. Files in /usr/local/lib count for
/// `sysusers.d` alone.
///
/// # Errors
/// Those of the tree; `Malformed` for a line that is one more than [`limits::LINES`].
pub fn files(tree: &Tree, name: &str) -> Result<Vec<ConfFile>, Error> {
    let [etc, usr] = PARENTS;
    let parents = match name {
        DONE_AT_BUILD => &[usr, LOCAL, etc][..],
        _ => &[usr, etc],
    };
    let mut found: BTreeMap<Vec<u8>, String> = BTreeMap::new();
    for parent in parents {
        found.extend(names(tree, &format!("{parent}/{name}")));
    }
    let (mut files, mut lines) = (Vec::new(), 0);
    for path in found.into_values() {
        // A link to /dev/null leads nowhere in a tree.
        let Ok(id) = tree.resolve(&path) else { continue };
        if let Kind::File(content) = &tree.node(id).kind
            && !content.is_empty()
        {
            let bytes = tree.read(&path)?;
            let file = ConfFile { path, bytes };
            if let Some((line, _)) = file.lines().nth(limits::LINES - lines) {
                let what = format!(
                    "all files of {name} have more than {} lines, the most that are read",
                    limits::LINES
                );
                return Err(file.malformed(line, what));
            }
            lines += file.lines().count();
            files.push(file);
        }
    }
    Ok(files)
}

/// Paths of the files of `name` in /usr/local/lib, those of drop-ins (`X.d/`) among them. A `*` in the last part of
/// `name` stands for any text.
pub fn local(tree: &Tree, name: &str) -> Vec<String> {
    let (above, last) = name
        .rsplit_once('/')
        .map_or((LOCAL.to_owned(), name), |(above, last)| (format!("{LOCAL}/{above}"), last));
    let folders = match last.split_once('*') {
        None => vec![format!("{above}/{last}")],
        Some((begin, end)) => {
            let fits = |name: &[u8]| name.starts_with(begin.as_bytes()) && name.ends_with(end.as_bytes());
            children(tree, &above).filter(|(name, ..)| fits(name)).map(|(_, path, _)| path).collect()
        }
    };
    let mut files = Vec::new();
    for (name, path, is_directory) in folders.iter().flat_map(|folder| children(tree, folder)) {
        match is_directory {
            false => files.push(path),
            true if name.ends_with(b".d") => {
                files.extend(children(tree, &path).filter(|child| !child.2).map(|(_, path, _)| path));
            }
            true => {}
        }
    }
    files
}

/// Name and path of what is in `folder`, and whether it is a directory.
fn children<'t>(tree: &'t Tree, folder: &str) -> impl Iterator<Item = (&'t [u8], String, bool)> {
    let entries = tree.resolve(folder).into_iter().flat_map(move |id| tree.children(id));
    let folder = folder.to_owned();
    entries.map(move |(name, id)| {
        let is_directory = matches!(tree.node(id).kind, Kind::Directory(_));
        (name, format!("{folder}/{}", show(name)), is_directory)
    })
}

/// Paths of the `.conf` files in `folder`, by file name.
fn names(tree: &Tree, folder: &str) -> BTreeMap<Vec<u8>, String> {
    let Ok(id) = tree.resolve(folder) else { return BTreeMap::new() };
    let files = tree.children(id).filter(|(file, _)| file.ends_with(b".conf"));
    files.map(|(file, _)| (file.to_vec(), format!("{folder}/{}", show(file)))).collect()
}

impl ConfFile {
    /// All of it as text.
    pub fn text(&self) -> String {
        show(&self.bytes)
    }

    /// Lines that say something, without blanks around them, each with its number from 1.
    pub fn lines(&self) -> impl Iterator<Item = (usize, &[u8])> {
        let lines = self.bytes.split(|byte| *byte == b'\n').map(stripped).zip(1..);
        lines.filter(|(text, _)| !text.is_empty() && text[0] != b'#').map(|(text, line)| (line, text))
    }

    /// An error about a line of this file.
    pub fn malformed(&self, line: usize, what: impl Into<String>) -> Error {
        Error::Malformed { path: self.path.clone(), line, what: what.into() }
    }
}

/// `text` without blanks at its ends.
pub fn stripped(text: &[u8]) -> &[u8] {
    let blank = |byte: &u8| BLANKS.contains(byte);
    let Some(start) = text.iter().position(|byte| !blank(byte)) else { return &[] };
    let end = text.iter().rposition(|byte| !blank(byte)).map_or(start, |last| last + 1);
    &text[start..end]
}

/// Takes the first word off `rest`, with the blanks behind it; nothing where no word is left.
///
/// # Errors
/// What is wrong with the word: a quote without its end, an escape that is none.
pub fn word(rest: &mut &[u8], backslash: Backslash) -> Result<Option<Vec<u8>>, &'static str> {
    let mut text = *rest;
    while let [first, tail @ ..] = text
        && BLANKS.contains(first)
    {
        text = tail;
    }
    if text.is_empty() {
        *rest = text;
        return Ok(None);
    }
    let mut word = Vec::new();
    let mut quote = None;
    loop {
        match (text, quote) {
            ([], None) => break,
            ([], Some(_)) => return Err("a quote without its end"),
            ([b'\\', tail @ ..], _) => {
                text = tail;
                match backslash {
                    Backslash::Escapes => escape(&mut text, &mut word)?,
                    Backslash::Quotes => {
                        let (first, tail) = text.split_first().ok_or("a backslash at the end of the line")?;
                        word.push(*first);
                        text = tail;
                    }
                }
                continue;
            }
            ([first, ..], Some(open)) if *first == open => quote = None,
            ([first @ (b'"' | b'\''), ..], None) => quote = Some(*first),
            ([first, ..], None) if BLANKS.contains(first) => break,
            ([first, ..], _) => word.push(*first),
        }
        text = &text[1..];
    }
    while let [first, tail @ ..] = text
        && BLANKS.contains(first)
    {
        text = tail;
    }
    *rest = text;
    Ok(Some(word))
}

/// All of `text` with the escapes of C resolved: `cunescape()` of systemd.
///
/// # Errors
/// An escape that is none.
pub fn unescaped(mut text: &[u8]) -> Result<Vec<u8>, &'static str> {
    let mut bytes = Vec::with_capacity(text.len());
    while let Some((first, tail)) = text.split_first() {
        text = tail;
        match first {
            b'\\' => escape(&mut text, &mut bytes)?,
            other => bytes.push(*other),
        }
    }
    Ok(bytes)
}

/// One escape, of which the backslash has been read.
fn escape(text: &mut &[u8], into: &mut Vec<u8>) -> Result<(), &'static str> {
    const BAD: &str = "an escape that is none of C's";
    let (first, tail) = text.split_first().ok_or("a backslash at the end of the line")?;
    *text = tail;
    let mut digits = |count: usize, radix: u32| {
        let digits = text.get(..count).and_then(|digits| str::from_utf8(digits).ok()).ok_or(BAD)?;
        if !digits.chars().all(|digit| digit.is_digit(radix)) {
            return Err(BAD);
        }
        *text = &text[count..];
        u32::from_str_radix(digits, radix).ok().filter(|number| *number != 0).ok_or(BAD)
    };
    let byte = match first {
        b'a' => 7,
        b'b' => 8,
        b'f' => 12,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 11,
        b's' => b' ',
        b'\\' | b'"' | b'\'' => *first,
        b'x' => u8::try_from(digits(2, 16)?).map_err(|_| BAD)?,
        b'u' | b'U' => {
            let letter = char::from_u32(digits(if *first == b'u' { 4 } else { 8 }, 16)?).ok_or(BAD)?;
            into.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
            return Ok(());
        }
        b'0'..=b'7' => {
            let rest = tail.get(..2).ok_or(BAD)?;
            if !rest.iter().all(|digit| (b'0'..=b'7').contains(digit)) {
                return Err(BAD);
            }
            *text = &tail[2..];
            let number =
                [*first, rest[0], rest[1]].iter().fold(0, |sum, digit| sum * 8 + u32::from(digit - b'0'));
            u8::try_from(number).ok().filter(|byte| *byte != 0).ok_or(BAD)?
        }
        _ => return Err(BAD),
    };
    into.push(byte);
    Ok(())
}

/// `word` as [`word`] reads it back, whatever is in it: in quotes where it has to be, with escapes of C for
/// control characters and for bytes that are no UTF-8.
pub fn quoted(word: &[u8]) -> String {
    let special = |byte: &u8| byte.is_ascii_control() || b" \"'\\".contains(byte);
    let text = escaped(word, |letter| matches!(letter, '"' | '\\'));
    if word.is_empty() || word.iter().any(special) { format!("\"{text}\"") } else { text }
}

/// `bytes` with a backslash before what `special` picks, and as `\xHH` what is no text.
pub fn escaped(bytes: &[u8], special: impl Fn(char) -> bool) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                letter if special(letter) => text.extend(['\\', letter]),
                letter if letter.is_ascii_control() => text += &format!("\\x{:02x}", u32::from(letter)),
                letter => text.push(letter),
            }
        }
        chunk.invalid().iter().for_each(|byte| text += &format!("\\x{byte:02x}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_a_number() {
        let mut tree = Tree::new(0);
        tree.file("usr/lib/tmpfiles.d/a.conf", 0o644, "# nothing\n\nd /a\n".repeat(limits::LINES - 1))
            .unwrap();
        tree.file("usr/lib/tmpfiles.d/b.conf", 0o644, "#\nd /b\n").unwrap();
        assert_eq!(files(&tree, "tmpfiles.d").unwrap().len(), 2);
        tree.file("usr/lib/tmpfiles.d/c.conf", 0o644, "#\nd /c\n").unwrap();
        let told = files(&tree, "tmpfiles.d").unwrap_err().to_string();
        let said = "/usr/lib/tmpfiles.d/c.conf:2: all files of tmpfiles.d have more than 50000 lines, the most that are read";
        assert_eq!(told, said);
    }

    fn words(line: &[u8], backslash: Backslash) -> Result<Vec<Vec<u8>>, &'static str> {
        let mut rest = line;
        std::iter::from_fn(|| word(&mut rest, backslash).transpose()).collect()
    }

    #[test]
    fn quotes_and_escapes() {
        let line = br#"u etcd - "etcd \"store\"" '' a\ b\n c"d e"f"#;
        let split = words(line, Backslash::Quotes).unwrap();
        let expected: [&[u8]; 7] = [b"u", b"etcd", b"-", b"etcd \"store\"", b"", b"a bn", b"cd ef"];
        assert_eq!(split, expected);
        assert!(words(b"u \"open", Backslash::Quotes).is_err());
        let split = words(br"a\x20b\n\303\274 \u00fc\s\\", Backslash::Escapes).unwrap();
        assert_eq!(split, ["a b\n\u{fc}".as_bytes(), "\u{fc} \\".as_bytes()]);
        for bad in [&br"\q"[..], br"\x2", br"\x00", br"\08", br"\400", b"\\", br"\x+1"] {
            assert!(words(bad, Backslash::Escapes).is_err(), "{}", show(bad));
        }
    }

    #[test]
    fn what_is_quoted_is_read_back() {
        let long = vec![b'x'; 5000];
        for bytes in
            [&b""[..], b" ", b"a b", b"'", b"\"\\", b"\n\t\x01", b"\xff\xfe a", "\u{fc}".as_bytes(), &long]
        {
            let line = quoted(bytes);
            assert!(!line.contains('\n'));
            assert_eq!(words(line.as_bytes(), Backslash::Escapes).unwrap(), [bytes], "{line}");
        }
        assert_eq!(quoted(b"/usr/lib"), "/usr/lib");
    }

    #[test]
    fn etc_comes_first_and_can_hide() {
        let mut tree = Tree::new(0);
        tree.file("usr/lib/sysusers.d/b.conf", 0o644, "g b -").unwrap();
        tree.file("usr/lib/sysusers.d/a.conf", 0o644, "g a -").unwrap();
        tree.file("etc/sysusers.d/b.conf", 0o644, "# ours\n \tg ours - \n").unwrap();
        tree.file("usr/lib/sysusers.d/c.conf", 0o644, "g c -").unwrap();
        tree.symlink("etc/sysusers.d/c.conf", "/dev/null").unwrap();
        let files = files(&tree, "sysusers.d").unwrap();
        let paths: Vec<_> = files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, ["/usr/lib/sysusers.d/a.conf", "/etc/sysusers.d/b.conf"]);
        assert_eq!(files[1].lines().collect::<Vec<_>>(), [(2, &b"g ours -"[..])]);
    }
}
