//! Mirrors of one archive, and the lists that name them for apt.
//!
//! Source: apt-transport-mirror(1). Where apt picks one of several mirrors at random, the first is taken, so that two
//! builds ask the same.

use std::io;

use crate::base::Compression;
use crate::http::url::{Url, redacted};
use crate::source::debian::version::ARCHITECTURE;

/// The most bytes that a list may unpack to: some thousand mirrors.
const LIMIT: u64 = 1 << 20;

/// One mirror of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// The directory that has `dists` and `pool`.
    pub root: Url,
    limits: Limits,
}

/// What a mirror is to be asked for; nothing is no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Limits {
    /// `index`, `deb`, and others.
    kinds: Vec<String>,
    /// Names of suites and codenames.
    suites: Vec<String>,
    components: Vec<String>,
}

/// An address that leads to no mirror.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// As written, without secrets.
    pub uri: String,
    /// e.g. `a disc`.
    pub reason: String,
    /// Whether it is one that could be used, and failed.
    pub failed: bool,
}

impl Refused {
    /// `uri` is of a kind that is not used.
    pub fn unused(uri: &str, reason: &str) -> Self {
        Self { uri: redacted(uri), reason: reason.to_owned(), failed: false }
    }

    /// `uri` would be used, had it not failed.
    pub fn failed(uri: &str, reason: String) -> Self {
        Self { uri: redacted(uri), reason, failed: true }
    }
}

impl Mirror {
    /// A mirror that has all of its archive.
    pub fn new(root: Url) -> Self {
        Self { root, limits: Limits::default() }
    }

    /// Whether it may be asked for packages.
    pub fn has_packages(&self) -> bool {
        self.limits.kinds.is_empty() || self.limits.kinds.iter().any(|kind| kind == "deb")
    }

    /// Whether it may be asked for the indexes of all these parts of a suite.
    pub fn has_indexes(&self, suite: &str, components: &[String]) -> bool {
        let Limits { kinds, suites, components: held } = &self.limits;
        (kinds.is_empty() || kinds.iter().any(|kind| kind == "index"))
            && (suites.is_empty() || suites.iter().any(|held| held == suite))
            && (held.is_empty() || components.iter().all(|component| held.contains(component)))
    }

    /// The mirror beside it, with the same limits, of another archive.
    pub fn sibling(&self, from: &str, to: &str) -> Option<Self> {
        Some(Self { root: self.root.sibling(from, to)?, limits: self.limits.clone() })
    }
}

/// The mirrors of a list, those of the lowest priority first, and what of it leads to none. A list from another
/// machine (`is_remote`) cannot name files of this one.
pub fn parse(text: &str, is_remote: bool) -> (Vec<Mirror>, Vec<Refused>) {
    let (mut mirrors, mut refused) = (Vec::new(), Vec::new());
    for line in text.lines().map(|line| line.split('#').next().unwrap_or_default()) {
        let mut words = line.split_ascii_whitespace();
        let Some(uri) = words.next() else { continue };
        let words: Vec<(&str, &str)> = words.filter_map(|word| word.split_once(':')).collect();
        let values = |name: &str| -> Vec<String> {
            let of_name = words.iter().filter(|(key, _)| *key == name);
            of_name.map(|(_, value)| (*value).to_owned()).collect()
        };
        let architectures = values("arch");
        if !architectures.is_empty() && !architectures.iter().any(|held| held == ARCHITECTURE) {
            refused.push(Refused::unused(uri, "for other architectures"));
            continue;
        }
        match Url::root(uri) {
            Ok(root) if is_remote && root.scheme() == "file" => {
                refused.push(Refused::unused(uri, "a directory of this machine, named by another one"));
            }
            Ok(root) => {
                let suites = [values("suite"), values("codename")].concat();
                let limits = Limits { kinds: values("type"), suites, components: values("component") };
                let priority = values("priority").first().and_then(|value| value.parse().ok());
                mirrors.push((priority.unwrap_or(u64::MAX), Mirror { root, limits }));
            }
            Err(_) => refused.push(Refused::unused(uri, "neither http nor https nor a file")),
        }
    }
    mirrors.sort_by_key(|(priority, _)| *priority);
    (mirrors.into_iter().map(|(_, mirror)| mirror).collect(), refused)
}

/// The text of a list that came from `name`, whose ending tells how it is compressed.
///
/// # Errors
/// Bytes that are not what the ending says; a text that is too long.
pub fn decode(name: &str, bytes: &[u8]) -> io::Result<String> {
    let ending = name.rsplit('/').next().and_then(|last| last.rfind('.').map(|at| &last[at..]));
    let compression = ending.and_then(Compression::of_ending).unwrap_or(Compression::None);
    let text = compression.unpack(bytes, LIMIT)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(mirrors: &[&Mirror]) -> String {
        mirrors.iter().map(|mirror| mirror.root.host().unwrap_or("file")).collect::<Vec<_>>().join(" ")
    }

    /// The example of apt-transport-mirror(1), with hosts of its kind.
    const EXAMPLE: &str = "file:/srv/local/debian/mirror/\tpriority:1 type:index\n\
        http://partial.example/mirror/\tpriority:2 arch:amd64 arch:all type:deb\n\
        http://us.example/debian/\ttype:deb\nhttp://de.example/debian/\ttype:deb\n\
        https://all.example/debian/\n";

    #[test]
    fn the_manual_page() {
        let (mirrors, refused) = parse(EXAMPLE, false);
        assert!(refused.is_empty(), "{refused:?}");
        let of = |may: &dyn Fn(&Mirror) -> bool| {
            names(&mirrors.iter().filter(|mirror| may(mirror)).collect::<Vec<_>>())
        };
        assert_eq!(of(&|mirror| mirror.has_indexes("trixie", &["main".to_owned()])), "file all.example");
        assert_eq!(of(&Mirror::has_packages), "partial.example us.example de.example all.example");
        let (mirrors, refused) = parse(EXAMPLE, true);
        assert_eq!(
            names(&mirrors.iter().collect::<Vec<_>>()),
            "partial.example us.example de.example all.example"
        );
        assert_eq!(refused[0].reason, "a directory of this machine, named by another one");
    }

    #[test]
    fn limits_and_what_leads_nowhere() {
        let list = "http://a.example suite:stable codename:trixie component:main component:contrib\n\
            http://b.example priority:7 unknown:word type:deb type:index\r\n\
            mirror+http://nested.example/list\nftp://old.example/debian\nhttp://arm.example arch:arm64\n\
            http://bad.example priority:high\n";
        let (mirrors, refused) = parse(list, true);
        let [b, a, bad] = &mirrors[..] else { panic!("{mirrors:?}") };
        assert_eq!(names(&[b, a, bad]), "b.example a.example bad.example");
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        assert!(
            a.has_indexes("trixie", &words(&["main"]))
                && a.has_indexes("stable", &words(&["main", "contrib"]))
        );
        assert!(!a.has_indexes("sid", &words(&["main"])) && !a.has_indexes("trixie", &words(&["non-free"])));
        assert!(a.has_packages() && b.has_packages() && b.has_indexes("sid", &words(&["x"])));
        let refused: Vec<String> =
            refused.iter().map(|one| format!("{} ({})", one.uri, one.reason)).collect();
        assert_eq!(
            refused,
            [
                "mirror+http://nested.example/list (neither http nor https nor a file)",
                "ftp://old.example/debian (neither http nor https nor a file)",
                "http://arm.example (for other architectures)",
            ]
        );
    }

    #[test]
    fn the_ending_tells_the_compression() {
        use std::io::Write;
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(b"http://a.example\n").unwrap();
        let gzip = gzip.finish().unwrap();
        assert_eq!(decode("/lists/debian.list.gz", &gzip).unwrap(), "http://a.example\n");
        for name in ["/lists/debian.list", "/lists.gz/debian", "debian"] {
            assert_eq!(decode(name, b"http://a.example").unwrap(), "http://a.example");
        }
        assert!(decode("x.gz", b"http://a.example").is_err());
        assert!(decode("x", &vec![b'#'; (1 << 20) + 1]).is_err());
    }
}
