//! Where the Debian archives are for this build. No address is built in.

use std::collections::BTreeMap;
use std::path::Path;

use crate::manifest::Debian;
use crate::source::apt::{self, Source};
use crate::source::url::{Url, UrlError, redacted};

/// Name in a lock of the archive with the suite and its updates.
pub const DEBIAN: &str = "debian";

/// Name in a lock of the archive with the security suite.
pub const SECURITY: &str = "security";

/// Roots of Debian's archives: the folders that have `dists` and `pool`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirrors {
    /// The main archive.
    pub debian: Url,
    /// The security archive, if one is known.
    pub security: Option<Url>,
    /// Who named the main archive, for messages.
    pub named_by: NamedBy,
}

/// Who named a mirror.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamedBy {
    /// `--mirror`.
    Flag,
    /// KELLER_MIRROR.
    Environment,
    /// `debian.mirror` in the manifest.
    Manifest,
    /// The host's apt sources.
    Host,
}

/// Why there is no mirror.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// Nobody named one.
    #[error(
        "no Debian mirror is known: name one by --mirror URL, by KELLER_MIRROR or by `debian: mirror:` in \
         the manifest (the host's apt sources in {folder} have none{})", besides(.passed_over)
    )]
    None {
        /// Where apt's settings were looked for.
        folder: String,
        /// Sources there that name no archive that can be asked, such as a disc.
        passed_over: Vec<String>,
    },
    /// A security archive is wanted and not known.
    #[error(
        "no security archive is known, and none can be derived from {debian}: name one by \
         KELLER_SECURITY_MIRROR or by `debian: security_mirror:`, or set `debian: security: false`"
    )]
    NoSecurity {
        /// The main archive.
        debian: Url,
    },
    /// What was named is no address.
    #[error("the mirror of {by}")]
    Address {
        /// e.g. `--mirror`.
        by: &'static str,
        /// What is wrong with it.
        #[source]
        source: UrlError,
    },
}

fn besides(sources: &[String]) -> String {
    match sources.is_empty() {
        true => String::new(),
        false => format!("; passed over: {}", sources.join(", ")),
    }
}

/// Sources of apt that lead to no archive here, each once, with the reason.
fn not_asked(sources: &[Source]) -> Vec<String> {
    let mut list: Vec<String> = Vec::new();
    for source in sources {
        let reason = match source.uri.split(':').next().unwrap_or_default() {
            "cdrom" => "a disc",
            "mirror" | "mirror+http" | "mirror+https" => "a list of mirrors on a server",
            "mirror+file" | "mirror+copy" => "a list of mirrors that cannot be read",
            _ if Url::root(&source.uri).is_err() => "neither http nor https nor a file",
            _ => continue,
        };
        let line = format!("{} ({reason})", redacted(&source.uri));
        if !list.contains(&line) {
            list.push(line);
        }
    }
    list
}

impl Mirrors {
    /// The mirrors that the flag, KELLER_MIRROR, the manifest or the host's apt sources name, in this order.
    pub fn find(flag: Option<&str>, manifest: &Debian) -> Result<Self, MirrorError> {
        let folder = Path::new(apt::FOLDER);
        let var = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self::choose(flag, var, manifest, || apt::sources(folder), folder)
    }

    fn choose(
        flag: Option<&str>,
        var: impl Fn(&str) -> Option<String>,
        manifest: &Debian,
        sources: impl FnOnce() -> Vec<Source>,
        folder: &Path,
    ) -> Result<Self, MirrorError> {
        let named = |by, text: &str| Url::root(text).map_err(|source| MirrorError::Address { by, source });
        let security =
            var("KELLER_SECURITY_MIRROR").map(|text| named("KELLER_SECURITY_MIRROR", &text)).transpose()?;
        let in_manifest = || {
            manifest
                .security_mirror
                .as_deref()
                .map(|text| named("the manifest's security_mirror", text))
                .transpose()
        };
        let explicit = match (flag, var("KELLER_MIRROR")) {
            (Some(text), _) => Some((named("--mirror", text)?, NamedBy::Flag)),
            (None, Some(text)) => Some((named("KELLER_MIRROR", &text)?, NamedBy::Environment)),
            (None, None) => None,
        };
        if let Some((debian, named_by)) = explicit {
            let security = match security.or_else(|| sibling(&debian)) {
                Some(security) => Some(security),
                None => in_manifest()?,
            };
            return Ok(Self { debian, security, named_by });
        }
        let security = match security {
            Some(security) => Some(security),
            None => in_manifest()?,
        };
        if let Some(text) = &manifest.mirror {
            let debian = named("the manifest", text)?;
            let security = security.or_else(|| sibling(&debian));
            return Ok(Self { debian, security, named_by: NamedBy::Manifest });
        }
        let sources = sources();
        let debian = main_root(&sources).ok_or_else(|| MirrorError::None {
            folder: folder.display().to_string(),
            passed_over: not_asked(&sources),
        })?;
        let security = security.or_else(|| security_root(&sources)).or_else(|| sibling(&debian));
        Ok(Self { debian, security, named_by: NamedBy::Host })
    }

    /// The security archive.
    ///
    /// # Errors
    /// `NoSecurity` when none is known.
    pub fn security(&self) -> Result<&Url, MirrorError> {
        self.security.as_ref().ok_or_else(|| MirrorError::NoSecurity { debian: self.debian.clone() })
    }

    /// Roots of all archives by their names in a lock, the manifest's own repositories included.
    pub fn archives(&self, manifest: &Debian) -> Result<BTreeMap<String, Vec<Url>>, MirrorError> {
        let mut archives = BTreeMap::from([(DEBIAN.to_owned(), vec![self.debian.clone()])]);
        if let Some(security) = &self.security {
            archives.insert(SECURITY.to_owned(), vec![security.clone()]);
        }
        for repository in &manifest.repositories {
            let root = Url::root(&repository.url)
                .map_err(|source| MirrorError::Address { by: "a repository of the manifest", source })?;
            archives.insert(repository.name.clone(), vec![root]);
        }
        Ok(archives)
    }
}

/// Mirrors that carry both archives have them side by side.
fn sibling(debian: &Url) -> Option<Url> {
    debian.sibling("debian", "debian-security")
}

/// What a Debian suite begins with. A name that is too new to stand here needs a better sign, see [`score`].
const SUITES: [&str; 12] = [
    "bullseye",
    "bookworm",
    "trixie",
    "forky",
    "duke",
    "sid",
    "stable",
    "oldstable",
    "oldoldstable",
    "testing",
    "unstable",
    "experimental",
];

/// `mirror:` and `mirror+file:` name lists of mirrors, `cdrom:` a disc; neither is the root of an archive.
fn root(source: &Source) -> Option<Url> {
    // A suite that ends in a slash is a path to a flat repository.
    (!source.suite.ends_with('/')).then(|| Url::root(&source.uri).ok()).flatten()
}

fn is_security(source: &Source) -> bool {
    let path = source.uri.trim_end_matches('/');
    source.suite.ends_with("-security")
        || source.suite.ends_with("/updates")
        || path.ends_with("/debian-security")
}

/// How sure it is that a source is Debian's main archive and not one of another vendor, which use Debian's
/// suite names too. 0 is no sign at all.
fn score(source: &Source) -> u32 {
    let Some(url) = root(source) else { return 0 };
    if is_security(source) {
        return 0;
    }
    let last = url.path().trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let suite = source.suite.split('-').next().unwrap_or_default();
    let file = source.file.file_name().unwrap_or_default();
    let signs = [
        (4, source.signed_by.as_deref().is_some_and(|path| path.contains("debian-archive"))),
        (3, last == "debian"),
        (1, url.path().split('/').any(|part| part == "debian")),
        (1, file == "sources.list" || file == "debian.sources"),
    ];
    let score = signs.iter().filter(|(_, holds)| *holds).map(|(weight, _)| weight).sum();
    match SUITES.contains(&suite) && source.components.iter().any(|component| component == "main") {
        true => score,
        // Only what is beyond doubt.
        false => {
            if score >= 7 {
                score
            } else {
                0
            }
        }
    }
}

/// The root of Debian's main archive among the host's sources. The suite does not matter: an archive has
/// all of them.
fn main_root(sources: &[Source]) -> Option<Url> {
    let mut best: Option<(u32, &Source)> = None;
    for source in sources {
        let score = score(source);
        if score > best.map_or(0, |(score, _)| score) {
            best = Some((score, source));
        }
    }
    root(best?.1)
}

/// The root of Debian's security archive among the host's sources. Where several URIs and several suites stand in
/// one stanza, the main archive is among them with the security suite, which it does not have: so the address tells
/// first.
fn security_root(sources: &[Source]) -> Option<Url> {
    let is_debian = |source: &&Source| SUITES.iter().any(|suite| source.suite.starts_with(suite));
    let candidates = || sources.iter().filter(is_debian).filter(|source| is_security(source));
    let says_so = |source: &&Source| source.uri.rsplit('/').take(2).any(|part| part.contains("security"));
    candidates().filter(says_so).find_map(root).or_else(|| candidates().find_map(root))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Debian {
        Debian {
            suite: "trixie".to_owned(),
            components: vec!["main".to_owned()],
            updates: true,
            security: true,
            mirror: None,
            security_mirror: None,
            allow_expired: false,
            keys: None,
            repositories: Vec::new(),
        }
    }

    fn source(line: &str) -> Source {
        let mut words = line.split(' ').map(str::to_owned);
        let mut word = || words.next().unwrap();
        Source {
            uri: word(),
            suite: word(),
            components: vec!["main".to_owned()],
            signed_by: None,
            file: "sources.list.d/x.list".into(),
        }
    }

    fn on_host(lines: &[&str]) -> Result<(String, Option<String>), MirrorError> {
        let sources = || lines.iter().map(|line| source(line)).collect();
        let mirrors = Mirrors::choose(None, |_| None, &manifest(), sources, Path::new("/etc/apt"))?;
        Ok((mirrors.debian.to_string(), mirrors.security.map(|url| url.to_string())))
    }

    #[test]
    fn order() {
        let choose = |flag, vars: &[(&str, &str)], manifest: &Debian| {
            let var = |name: &str| vars.iter().find(|var| var.0 == name).map(|var| var.1.to_owned());
            let sources = || vec![source("http://host.example/debian bookworm")];
            let found = Mirrors::choose(flag, var, manifest, sources, Path::new("/etc/apt")).unwrap();
            (found.debian.to_string(), found.security.map(|url| url.to_string()), found.named_by)
        };
        let own = |host: &str, by| {
            let root = |name| format!("http://{host}.example/{name}/");
            (root("debian"), Some(root("debian-security")), by)
        };
        let mut manifest = manifest();
        let environment = [("KELLER_MIRROR", "http://env.example/debian")];
        assert_eq!(choose(None, &[], &manifest), own("host", NamedBy::Host));
        manifest.mirror = Some("http://manifest.example/debian".to_owned());
        assert_eq!(choose(None, &[], &manifest), own("manifest", NamedBy::Manifest));
        assert_eq!(choose(None, &environment, &manifest), own("env", NamedBy::Environment));
        let flag = Some("http://flag.example/debian/");
        assert_eq!(choose(flag, &environment, &manifest), own("flag", NamedBy::Flag));
        manifest.security_mirror = Some("http://manifest.example/sec".to_owned());
        assert_eq!(choose(None, &[], &manifest).1.unwrap(), "http://manifest.example/sec/");
        // A frozen mirror on the command line is not mixed with today's security archive.
        assert_eq!(choose(flag, &[], &manifest), own("flag", NamedBy::Flag));
        let security = [("KELLER_SECURITY_MIRROR", "/srv/security")];
        assert_eq!(choose(flag, &security, &manifest).1.unwrap(), "file:///srv/security/");
    }

    #[test]
    fn debian_among_others() {
        let (debian, security) = on_host(&[
            "http://vendor.example/linux bookworm",
            "https://apt.example/debian/12/prod bookworm",
            "mirror+file:/etc/mirrors.txt bookworm",
            "http://mirror.example/debian bookworm",
            "http://second.example/debian bookworm-updates",
            "http://ports.example/debian-ports sid",
            "http://flat.example/debian ./",
            "http://other.example/security bookworm-security",
        ])
        .unwrap();
        assert_eq!(debian, "http://mirror.example/debian/");
        assert_eq!(security.unwrap(), "http://other.example/security/");
        let mut unknown_suite = source("http://mirror.example/debian thing");
        assert!(main_root(std::slice::from_ref(&unknown_suite)).is_none());
        unknown_suite.signed_by = Some("/k/debian-archive-keyring.gpg".to_owned());
        assert_eq!(main_root(&[unknown_suite]).unwrap().to_string(), "http://mirror.example/debian/");
    }

    #[test]
    fn several_addresses_and_suites_in_one_stanza() {
        let (debian, security) = on_host(&[
            "http://mirror.example/debian trixie",
            "http://mirror.example/debian trixie-security",
            "http://mirror.example/debian-security trixie",
            "http://mirror.example/debian-security trixie-security",
        ])
        .unwrap();
        assert_eq!(debian, "http://mirror.example/debian/");
        assert_eq!(security.unwrap(), "http://mirror.example/debian-security/");
        // The first of several that are as good.
        let (debian, security) =
            on_host(&["http://a.example/debian trixie", "http://b.example/debian trixie"]).unwrap();
        assert_eq!(debian, "http://a.example/debian/");
        assert_eq!(security.unwrap(), "http://a.example/debian-security/");
    }

    #[test]
    fn what_is_passed_over_is_told() {
        let disc = "cdrom:[Debian_13]/ trixie";
        let found = on_host(&[disc, "http://mirror.example/debian trixie"]).unwrap();
        assert_eq!(found.0, "http://mirror.example/debian/");
        let error =
            on_host(&[disc, disc, "mirror+https://lists.example/debian trixie", "tor+http://x/debian sid"])
                .unwrap_err()
                .to_string();
        assert!(
            error.ends_with(
                "have none; passed over: cdrom:[Debian_13]/ (a disc), mirror+https://lists.example/debian (a list of \
                 mirrors on a server), tor+http://x/debian (neither http nor https nor a file))"
            ),
            "{error}"
        );
    }

    #[test]
    fn none_says_how_to_name_one() {
        for lines in [&[][..], &["http://archive.example/ubuntu noble", "http://s.example/x trixie-security"]]
        {
            let error = on_host(lines).unwrap_err().to_string();
            assert!(error.contains("--mirror") && error.contains("KELLER_MIRROR"), "{error}");
        }
        let mirrors =
            Mirrors { debian: Url::root("/srv/m").unwrap(), security: None, named_by: NamedBy::Flag };
        assert!(mirrors.security().unwrap_err().to_string().contains("KELLER_SECURITY_MIRROR"));
    }

    #[test]
    fn bad_address_keeps_its_secret() {
        let find = Mirrors::find(Some("ftp://me:s3cret@mirror.example/"), &manifest()).unwrap_err();
        assert!(!format!("{find:?}").contains("s3cret"));
    }
}
