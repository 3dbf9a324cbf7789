//! Addresses that can be shown: what they carry of secrets never gets into a message, a log or a lock.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

use crate::base::web::misleads;

/// Stands where a secret was.
const HIDDEN: &str = "***";

/// An http, https or file address. Both `{}` and `{:?}` leave out its user, password and query values; it
/// cannot be serialized. Only this room sees them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Url(url::Url);

/// Whether people who wrote `text` meant an address at http or https, and not a path.
pub fn is_address(text: &str) -> bool {
    let scheme = text.split_once("://").map(|(scheme, _)| scheme);
    scheme.is_some_and(|scheme| ["http", "https"].iter().any(|one| scheme.eq_ignore_ascii_case(one)))
}

/// What is wrong with the text of an address. The text is shown without its secrets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// No address at all.
    #[error("{text:?} is no URL: {reason}")]
    Syntax {
        /// As given, without what may be a password.
        text: String,
        /// What the parser says.
        reason: String,
    },
    /// An address of a kind that is not spoken here.
    #[error("{text}: expected http, https or file, but have {scheme}")]
    Scheme {
        /// As given, without what may be a password.
        text: String,
        /// e.g. `ftp`.
        scheme: String,
    },
    /// The root of an archive with something after its path.
    #[error("{text}: the root of an archive has no query and no fragment")]
    NotRoot {
        /// As given, without what may be a password.
        text: String,
    },
    /// A file on another machine.
    #[error("{text}: a file address names no host; write file:///path")]
    RemoteFile {
        /// As given.
        text: String,
    },
    /// A relative path that leads elsewhere.
    #[error("{path:?} is no path below the root of an archive")]
    Path {
        /// As given.
        path: String,
    },
}

impl Url {
    /// The root of an archive: below it, paths can be appended. A plain absolute path is a file address.
    pub fn root(text: &str) -> Result<Self, UrlError> {
        let mut url: Self = match Path::new(text).is_absolute() {
            true => Self::from_path(Path::new(text))?,
            false => text.parse()?,
        };
        if url.0.query().is_some() || url.0.fragment().is_some() {
            return Err(UrlError::NotRoot { text: url.to_string() });
        }
        if !url.0.path().ends_with('/') {
            let path = format!("{}/", url.0.path());
            url.0.set_path(&path);
        }
        Ok(url)
    }

    /// The address of a local file; `path` is absolute.
    pub fn from_path(path: &Path) -> Result<Self, UrlError> {
        url::Url::from_file_path(path)
            .map(Self)
            .map_err(|()| UrlError::Path { path: path.display().to_string() })
    }

    /// The address of `path`, relative and without `..`, below this root.
    pub fn join(&self, path: &str) -> Result<Self, UrlError> {
        let unsafe_path = || UrlError::Path { path: path.to_owned() };
        if path.split('/').any(|part| matches!(part, "" | "." | "..")) || path.contains(['\0', '\\']) {
            return Err(unsafe_path());
        }
        let mut url = self.0.clone();
        url.path_segments_mut().map_err(|()| unsafe_path())?.pop_if_empty().extend(path.split('/'));
        Ok(Self(url))
    }

    /// A target that this address redirects to, which may be relative to it.
    pub(super) fn redirected(&self, location: &str) -> Result<Self, UrlError> {
        let url = self.0.join(location).map_err(|error| syntax(location, &error))?;
        checked(url, location)
    }

    /// The same with the last part of the path that is `from` changed into `to`; none if there is none.
    pub fn sibling(&self, from: &str, to: &str) -> Option<Self> {
        let mut parts: Vec<&str> = self.0.path_segments()?.collect();
        let index = parts.iter().rposition(|part| *part == from)?;
        parts[index] = to;
        let path = parts.join("/");
        let mut url = self.0.clone();
        url.set_path(&path);
        Some(Self(url))
    }

    /// `http`, `https` or `file`.
    pub fn scheme(&self) -> &str {
        self.0.scheme()
    }

    /// The host, if any; an IPv6 address in brackets.
    pub fn host(&self) -> Option<&str> {
        self.0.host_str()
    }

    /// The port, given or usual; none for files.
    pub fn port(&self) -> Option<u16> {
        self.0.port_or_known_default()
    }

    /// The path, percent-encoded.
    pub fn path(&self) -> &str {
        self.0.path()
    }

    /// For a file address, the path of the file.
    pub fn file_path(&self) -> Option<PathBuf> {
        (self.scheme() == "file").then(|| self.0.to_file_path().ok()).flatten()
    }

    /// User and password in the address itself, decoded.
    pub(super) fn credentials(&self) -> Option<(String, Option<String>)> {
        let decode = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
        let has_any = !self.0.username().is_empty() || self.0.password().is_some();
        has_any.then(|| (decode(self.0.username()), self.0.password().map(decode)))
    }

    /// The address to connect to, user and password taken out.
    pub(super) fn bare(&self) -> url::Url {
        let mut url = self.0.clone();
        let _ = url.set_username("");
        let _ = url.set_password(None);
        url
    }
}

impl FromStr for Url {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // The parser drops a line break at the end, as `echo` writes it, without another meaning.
        if let Some(reason) = misleads(text.trim_ascii()) {
            return Err(UrlError::Syntax { text: redacted(text), reason: reason.to_owned() });
        }
        checked(url::Url::parse(text).map_err(|error| syntax(text, &error))?, text)
    }
}

impl<'de> Deserialize<'de> for Url {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.bare();
        shown.set_fragment(None);
        if let Some(query) = self.0.query().filter(|query| !query.is_empty()) {
            let names: Vec<String> = query
                .split('&')
                .map(|pair| match pair.split_once('=') {
                    Some((name, _)) => format!("{name}={HIDDEN}"),
                    None => HIDDEN.to_owned(),
                })
                .collect();
            shown.set_query(Some(&names.join("&")));
        }
        f.write_str(shown.as_str())
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Url({self})")
    }
}

fn checked(url: url::Url, text: &str) -> Result<Url, UrlError> {
    match url.scheme() {
        "http" | "https" => Ok(Url(url)),
        "file" if url.to_file_path().is_ok() => Ok(Url(url)),
        "file" => Err(UrlError::RemoteFile { text: redacted(text) }),
        scheme => Err(UrlError::Scheme { text: redacted(text), scheme: scheme.to_owned() }),
    }
}

fn syntax(text: &str, error: &url::ParseError) -> UrlError {
    UrlError::Syntax { text: redacted(text), reason: error.to_string() }
}

/// `text`, which may not parse, without what stands where a password would.
pub fn redacted(text: &str) -> String {
    // A password may hold any character, so the last `@` counts, wherever it is.
    let (start, rest) = match text.rfind('@') {
        Some(at) => (text.find("//").map_or(0, |index| index + 2).min(at), &text[at..]),
        None => (0, text),
    };
    let hidden = if rest.len() < text.len() { HIDDEN } else { "" };
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    format!("{}{hidden}{rest}", &text[..start])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_shows_a_secret() {
        let url: Url = "https://me:s3cret@mirror.example/x?token=s3cret&s3cret#s3cret".parse().unwrap();
        assert_eq!(url.to_string(), "https://mirror.example/x?token=***&***");
        assert!(!format!("{url:?}").contains("s3cret"));
        assert_eq!(url.credentials().unwrap(), ("me".to_owned(), Some("s3cret".to_owned())));
        for bad in [
            "https://me:s3cret@host:port/",
            "ftp://me:s3cret@host/",
            "me:s3cret@host",
            "http://me:s3c@ret@",
            "http://me:s3c?ret@host/",
            "http://me:s3cret@host\n.example/",
            "http:///me:s3cret@host/",
        ] {
            let error = bad.parse::<Url>().unwrap_err();
            assert!(!error.to_string().contains("s3c"), "{error}");
            assert!(!format!("{error:?}").contains("s3c"), "{error:?}");
        }
    }

    #[test]
    fn paths_below_a_root() {
        let root = Url::root("http://mirror.example/debian").unwrap();
        assert_eq!(Url::root(" http://mirror.example/debian\r\n"), Ok(root.clone()), "as `echo` writes it");
        let join = |path| root.join(path).map(|url| url.to_string());
        assert_eq!(
            join("pool/main/g/g++/g++_1.0~rc1+b1_amd64.deb").unwrap(),
            "http://mirror.example/debian/pool/main/g/g++/g++_1.0~rc1+b1_amd64.deb"
        );
        assert_eq!(join("a%b?c#d").unwrap(), "http://mirror.example/debian/a%25b%3Fc%23d");
        for bad in ["", "/etc/passwd", "../x", "a/../../x", "a//b", "./a", "a\\b"] {
            assert!(join(bad).is_err(), "{bad}");
        }
        assert_eq!(Url::root("/srv/mirror").unwrap().to_string(), "file:///srv/mirror/");
        assert_eq!(
            Url::root("file:///srv/a b").unwrap().join("c").unwrap().file_path().unwrap(),
            Path::new("/srv/a b/c")
        );
        assert!(Url::root("http://mirror.example/debian?x=y").is_err());
        assert!("file://other/x".parse::<Url>().is_err());
    }

    #[test]
    fn siblings() {
        let sibling =
            |text| Url::root(text).unwrap().sibling("debian", "debian-security").map(|url| url.to_string());
        assert_eq!(
            sibling("https://mirror.example/debian").unwrap(),
            "https://mirror.example/debian-security/"
        );
        assert_eq!(
            sibling("https://mirror.example/archive/debian/20260101T000000Z/").unwrap(),
            "https://mirror.example/archive/debian-security/20260101T000000Z/"
        );
        assert_eq!(sibling("https://mirror.example/apt/"), None);
    }
}
