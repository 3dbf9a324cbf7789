//! User and password for a host: from netrc files in the form that apt takes (apt_auth.conf(5)).

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::base::{input, limits};
use crate::http::url::Url;

/// What the files say, in order; the first entry that fits is used.
#[derive(Clone, Default)]
pub struct Credentials {
    entries: Vec<Entry>,
    /// Of files that are there and cannot be used: `; PATH was not read: REASON`.
    unread: String,
}

#[derive(Clone, Default)]
struct Entry {
    /// `[scheme://]host[:port][/path]`.
    machine: String,
    login: Option<String>,
    password: Option<String>,
}

impl Credentials {
    /// Reads the netrc file of the user (`$NETRC`, else `~/.netrc`, as `var` tells) and apt's auth.conf and
    /// auth.conf.d. Files that this user may not read are left out.
    pub fn read(var: impl Fn(&str) -> Option<PathBuf>, apt: &Path) -> Self {
        let netrc = var("NETRC").or_else(|| var("HOME").map(|home| home.join(".netrc")));
        let mut parts: Vec<PathBuf> = fs::read_dir(apt.join("auth.conf.d"))
            .into_iter()
            .flatten()
            .flatten()
            .map(|item| item.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "conf"))
            .collect();
        parts.sort();
        let mut credentials = Self::default();
        for file in netrc.into_iter().chain([apt.join("auth.conf")]).chain(parts) {
            match input::read_text(&file, limits::CREDENTIALS) {
                Ok(text) => credentials.parse(&text),
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => {}
                Err(error) => {
                    credentials.unread += &format!("; {} was not read: {error}", file.display());
                }
            }
        }
        credentials
    }

    /// What is to be told of files that are there and were not read, when credentials are missing.
    pub(super) fn unread(&self) -> &str {
        &self.unread
    }

    /// Takes in one file: words, `machine NAME login USER password PASSWORD`, in any layout.
    fn parse(&mut self, text: &str) {
        let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
        let mut words = lines.flat_map(str::split_ascii_whitespace);
        let mut open = false;
        while let Some(word) = words.next() {
            match (word, self.entries.last_mut().filter(|_| open)) {
                ("machine", _) => {
                    let machine = words.next().unwrap_or_default().to_owned();
                    self.entries.push(Entry { machine, ..Entry::default() });
                    open = true;
                }
                // curl's catch-all would send a password to any host: not here.
                ("default", _) => open = false,
                ("login", Some(entry)) => entry.login = words.next().map(str::to_owned),
                ("password", Some(entry)) => entry.password = words.next().map(str::to_owned),
                ("account", _) => drop(words.next()),
                _ => {}
            }
        }
    }

    /// User and password for `url`: its own, else those of the first entry that fits.
    pub(super) fn find(&self, url: &Url) -> Option<(String, Option<String>)> {
        url.credentials().or_else(|| {
            let entry = self.entries.iter().find(|entry| entry.fits(url))?;
            Some((entry.login.clone()?, entry.password.clone()))
        })
    }
}

impl Entry {
    /// apt's rule: without a scheme an entry is for https only, as a password in the clear must be asked
    /// for; the host must be the same, port and beginning of the path too where they are given.
    fn fits(&self, url: &Url) -> bool {
        let (scheme, rest) = self.machine.split_once("://").unwrap_or(("https", &self.machine));
        let (host, path) = match rest.find('/') {
            Some(index) => rest.split_at(index),
            None => (rest, ""),
        };
        let (host, port) = match host.rsplit_once(':') {
            Some((name, port)) if !name.contains(':') || name.ends_with(']') => (name, port.parse().ok()),
            _ => (host, None),
        };
        scheme == url.scheme()
            && url.host().is_some_and(|own| own.eq_ignore_ascii_case(host))
            && (port.is_none() || port == url.port())
            && url.path().starts_with(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_end_is_not_read_and_told_of() {
        let directory = tempfile::tempdir().unwrap();
        let netrc = directory.path().join(".netrc");
        let read =
            || Credentials::read(|name| (name == "NETRC").then(|| netrc.clone()), Path::new("/nowhere"));
        assert_eq!(read().unread(), "");
        fs::write(&netrc, "machine a ".repeat(110_000)).unwrap();
        let told = format!("; {} was not read: it has more than the 1.0 MiB", netrc.display());
        assert!(read().unread().starts_with(&told), "{}", read().unread());
        fs::write(&netrc, "machine a ".repeat(100_000)).unwrap();
        assert_eq!((read().entries.len(), read().unread()), (100_000, ""));
        // Words in strange places: names without values, control characters, a line without end.
        let mut credentials = Credentials::default();
        credentials.parse("login x password y machine machine login\u{1b}[2J machine a.example login");
        assert!(credentials.find(&"https://a.example/".parse().unwrap()).is_none());
    }

    #[test]
    fn entries() {
        let mut credentials = Credentials::default();
        credentials.parse(
            "# machine a.example login no password no\n\
             machine a.example/private/ login one password p1\n\
             machine a.example\n\tlogin two\n\tpassword p2\n\
             machine http://plain.example:8080 login three password p3\n\
             machine bare.example login four default login no password no",
        );
        let find = |url: &str| credentials.find(&url.parse().unwrap());
        let some = |user: &str, password: &str| Some((user.to_owned(), Some(password.to_owned())));
        assert_eq!(find("https://a.example/private/x"), some("one", "p1"));
        assert_eq!(find("https://A.example:8443/x"), some("two", "p2"));
        assert_eq!(find("http://a.example/x"), None);
        assert_eq!(find("http://plain.example:8080/x"), some("three", "p3"));
        assert_eq!(find("http://plain.example/x"), None);
        assert_eq!(find("https://bare.example/x"), Some(("four".to_owned(), None)));
        assert_eq!(find("https://other.example/x"), None);
        assert_eq!(find("https://me:p%40ss@a.example/x"), some("me", "p@ss"));
    }
}
