//! User and password for a host: from netrc files in the form that apt takes (apt_auth.conf(5)).

use std::fs;
use std::path::{Path, PathBuf};

use crate::base::{input, limits};
use crate::http::url::Url;

/// What the files say, in order; the first entry that fits is used.
#[derive(Clone, Default)]
pub struct Credentials(Vec<Entry>);

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
            if let Ok(text) = input::read_text(file, limits::TEXT) {
                credentials.parse(&text);
            }
        }
        credentials
    }

    /// Takes in one file: words, `machine NAME login USER password PASSWORD`, in any layout.
    fn parse(&mut self, text: &str) {
        let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
        let mut words = lines.flat_map(str::split_ascii_whitespace);
        let mut open = false;
        while let Some(word) = words.next() {
            match (word, self.0.last_mut().filter(|_| open)) {
                ("machine", _) => {
                    let machine = words.next().unwrap_or_default().to_owned();
                    self.0.push(Entry { machine, ..Entry::default() });
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
            let entry = self.0.iter().find(|entry| entry.fits(url))?;
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
