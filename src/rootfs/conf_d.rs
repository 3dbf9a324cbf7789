//! Configuration folders as systemd reads them: `/etc/NAME.d` before `/usr/lib/NAME.d`, by file name, and
//! lines that are split into words with quotes.

use std::collections::BTreeMap;

use super::error::Error;
use crate::tree::{Kind, Tree, show};

/// One file of a folder.
#[derive(Debug)]
pub struct ConfFile {
    /// Absolute path in the tree.
    pub path: String,
    /// Its whole text.
    pub text: String,
}

/// The `.conf` files of `name`, e.g. `sysusers.d`, ordered by file name. A file in /etc hides one of the
/// same name in /usr/lib; an empty one or a link to /dev/null hides it for good.
pub fn files(tree: &Tree, name: &str) -> Result<Vec<ConfFile>, Error> {
    let mut found: BTreeMap<Vec<u8>, String> = BTreeMap::new();
    for folder in [format!("/usr/lib/{name}"), format!("/etc/{name}")] {
        let Ok(id) = tree.resolve(&folder) else { continue };
        for (file, _) in tree.children(id).filter(|(file, _)| file.ends_with(b".conf")) {
            found.insert(file.to_vec(), format!("{folder}/{}", show(file)));
        }
    }
    let mut files = Vec::new();
    for path in found.into_values() {
        // A link to /dev/null leads nowhere in a tree.
        let Ok(id) = tree.resolve(&path) else { continue };
        if let Kind::File(content) = &tree.node(id).kind
            && !content.is_empty()
        {
            let text = String::from_utf8_lossy(&tree.read(&path)?).into_owned();
            files.push(ConfFile { path, text });
        }
    }
    Ok(files)
}

impl ConfFile {
    /// Lines that say something, split into words, each with its number from 1.
    pub fn lines(&self) -> impl Iterator<Item = Result<(usize, Vec<String>), Error>> {
        self.text.lines().zip(1..).filter_map(|(text, line)| {
            let text = text.trim();
            if text.is_empty() || text.starts_with('#') {
                return None;
            }
            Some(words(text).map(|words| (line, words)).map_err(|what| self.malformed(line, what)))
        })
    }

    /// An error about a line of this file.
    pub fn malformed(&self, line: usize, what: impl Into<String>) -> Error {
        Error::Malformed { path: self.path.clone(), line, what: what.into() }
    }
}

/// Words between white space; quotes hold a word together, a backslash takes the next character as it is.
pub fn words(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match (character, quote) {
            ('\\', _) => {
                let next = characters.next().ok_or("a backslash at the end of the line")?;
                let next = match next {
                    'n' => '\n',
                    't' => '\t',
                    other => other,
                };
                word.get_or_insert_default().push(next);
            }
            (_, Some(open)) if character == open => quote = None,
            ('"' | '\'', None) => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (_, None) if character.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(character),
        }
    }
    if quote.is_some() {
        return Err("a quote without its end".to_owned());
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_escapes() {
        let split = words(r#"u etcd - "etcd \"store\"" '' a\ b"#).unwrap();
        assert_eq!(split, ["u", "etcd", "-", "etcd \"store\"", "", "a b"]);
        assert!(words("u \"open").is_err());
    }

    #[test]
    fn etc_comes_first_and_can_hide() {
        let mut tree = Tree::new(0);
        tree.file("usr/lib/sysusers.d/b.conf", 0o644, "g b -").unwrap();
        tree.file("usr/lib/sysusers.d/a.conf", 0o644, "g a -").unwrap();
        tree.file("etc/sysusers.d/b.conf", 0o644, "# ours\ng ours -").unwrap();
        tree.file("usr/lib/sysusers.d/c.conf", 0o644, "g c -").unwrap();
        tree.symlink("etc/sysusers.d/c.conf", "/dev/null").unwrap();
        let files = files(&tree, "sysusers.d").unwrap();
        let paths: Vec<_> = files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, ["/usr/lib/sysusers.d/a.conf", "/etc/sysusers.d/b.conf"]);
        assert_eq!(
            files[1].lines().next().unwrap().unwrap(),
            (2, vec!["g".into(), "ours".into(), "-".into()])
        );
    }
}
