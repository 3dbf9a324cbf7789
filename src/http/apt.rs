//! apt's configuration (apt.conf(5)): which proxies and authorities a host has set there.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use crate::base::{input, limits};

/// Where apt's settings are.
pub const FOLDER: &str = "/etc/apt";

/// apt's configuration: values by their full names in lower case, e.g. `acquire::http::proxy`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config(BTreeMap<String, String>);

impl Config {
    /// Reads apt.conf.d and apt.conf of the apt folder `folder`; what cannot be read is left out.
    pub fn read(folder: &Path) -> Self {
        let mut config = Self::default();
        let mut files = parts(&folder.join("apt.conf.d"), &["", "conf"]);
        files.push(folder.join("apt.conf"));
        for file in files {
            if let Ok(text) = input::read_text(&file, limits::TEXT) {
                config.parse(&text);
            }
        }
        config
    }

    /// The value of `name`, whatever the case of its letters; an empty one is none.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(&name.to_ascii_lowercase()).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Takes in one file: `Scope::Name "value";` and `Scope { Name "value"; };`. List items (`Name:: "x";`
    /// and bare values) are of no interest here.
    fn parse(&mut self, text: &str) {
        let mut scopes: Vec<String> = Vec::new();
        let mut statement: Vec<String> = Vec::new();
        for token in tokens(text) {
            match token {
                Token::Word(word) => statement.push(word),
                Token::Open => {
                    scopes.push(statement.first().cloned().unwrap_or_default());
                    statement.clear();
                }
                Token::Close => {
                    scopes.pop();
                    statement.clear();
                }
                Token::End => {
                    let name = |last: &str| {
                        scopes
                            .iter()
                            .map(String::as_str)
                            .chain([last])
                            .collect::<Vec<_>>()
                            .join("::")
                            .to_ascii_lowercase()
                    };
                    match statement.as_slice() {
                        [directive, target] if directive == "#clear" => {
                            let name = name(target);
                            let below = format!("{name}::");
                            self.0.retain(|key, _| *key != name && !key.starts_with(&below));
                        }
                        [key, value] => {
                            self.0.insert(name(key), value.clone());
                        }
                        _ => {}
                    }
                    statement.clear();
                }
            }
        }
    }
}

enum Token {
    Word(String),
    Open,
    Close,
    End,
}

/// Words, quoted or bare, and punctuation; comments are `//`, `/* */` and lines that begin with `#`, other
/// than the directive `#clear`.
fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let is_comment = rest.starts_with("//") || (first == '#' && !rest.starts_with("#clear"));
        if is_comment {
            rest = rest.find('\n').map_or("", |end| &rest[end..]);
        } else if rest.starts_with("/*") {
            rest = rest.find("*/").map_or("", |end| &rest[end + 2..]);
        } else if let Some(quoted) = rest.strip_prefix('"') {
            let end = quoted.find('"').unwrap_or(quoted.len());
            tokens.push(Token::Word(quoted[..end].to_owned()));
            rest = quoted.get(end + 1..).unwrap_or_default();
        } else if let Some(token) = match first {
            '{' => Some(Token::Open),
            '}' => Some(Token::Close),
            ';' => Some(Token::End),
            _ => None,
        } {
            tokens.push(token);
            rest = &rest[1..];
        } else if first.is_whitespace() {
            rest = rest.trim_start();
        } else {
            let end = rest.find(|c: char| c.is_whitespace() || "{};\"".contains(c)).unwrap_or(rest.len());
            tokens.push(Token::Word(rest[..end].to_owned()));
            rest = &rest[end..];
        }
    }
    tokens
}

/// The files of a `.d` folder that apt would read, in its order: only plain names with one of the
/// `extensions`, or none at all if that list has an empty one.
pub fn parts(folder: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    let plain = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    let listing = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = listing
        .map(|item| item.path())
        .filter(|path| {
            let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
            let extension = path.extension().and_then(OsStr::to_str).unwrap_or_default();
            plain(name) && !name.starts_with('.') && extensions.contains(&extension) && path.is_file()
        })
        .collect();
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration() {
        let mut config = Config::default();
        config.parse(
            "// Acquire::http::Proxy \"no\";\n/* Acquire::http::Proxy \"no\"; */\n# also\n\
             Acquire::http::Proxy \"http://proxy.example:3128/\";\n\
             ACQUIRE { https { Proxy \"DIRECT\"; CAInfo /ca.pem; }; Retries 3; \"list\"; };\n\
             Acquire::http::Proxy::host.example \"DIRECT\"; DPkg::Hook { \"a;b}\"; };\n\
             x::y \"1\"; x::y::z \"2\"; #clear x::y;\n",
        );
        assert_eq!(config.get("Acquire::HTTP::Proxy"), Some("http://proxy.example:3128/"));
        assert_eq!(config.get("acquire::https::proxy"), Some("DIRECT"));
        assert_eq!(config.get("acquire::https::cainfo"), Some("/ca.pem"));
        assert_eq!(config.get("acquire::http::proxy::host.example"), Some("DIRECT"));
        assert_eq!((config.get("x::y"), config.get("x::y::z"), config.get("nothing")), (None, None, None));
    }
}
