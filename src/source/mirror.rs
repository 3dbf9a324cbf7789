//! Where the Debian archives are for this build. No address is built in.

pub mod list;

use std::collections::BTreeMap;

use crate::http;
use crate::http::url::{Url, UrlError};
use crate::manifest::Debian;
use crate::source::apt::Source;
use list::Mirror;

/// Name in a lock of the archive with the suite and its updates.
pub const DEBIAN: &str = "debian";

/// Name in a lock of the archive with the security suite.
pub const SECURITY: &str = "security";

/// Mirrors of Debian's archives. Where there are several of one, they are asked one after the other until one has
/// what is wanted: what they carry is signed, and so the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirrors {
    /// The main archive; at least one.
    pub debian: Vec<Mirror>,
    /// The security archive; none where it is not known.
    pub security: Vec<Mirror>,
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
        "no security archive is known, and none can be derived from {}: name one by \
         KELLER_SECURITY_MIRROR or by `debian: security_mirror:`, or set `debian: security: false`",
        .debian.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    )]
    NoSecurity {
        /// The mirrors of the main archive.
        debian: Vec<Url>,
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

/// What of apt's sources leads to no archive here, each once, with the reason.
fn not_asked(sources: &[Source]) -> Vec<String> {
    let mut list: Vec<String> = Vec::new();
    for refused in sources.iter().flat_map(|source| &source.refused) {
        let line = format!("{} ({})", refused.uri, refused.reason);
        if !list.contains(&line) {
            list.push(line);
        }
    }
    list
}

impl Mirrors {
    /// The mirrors that the flag, KELLER_MIRROR, the manifest or the host's apt `sources` name, in this order.
    pub fn find(
        flag: Option<&str>,
        manifest: &Debian,
        sources: impl FnOnce() -> Vec<Source>,
    ) -> Result<Self, MirrorError> {
        let var = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self::choose(flag, var, manifest, sources)
    }

    fn choose(
        flag: Option<&str>,
        var: impl Fn(&str) -> Option<String>,
        manifest: &Debian,
        sources: impl FnOnce() -> Vec<Source>,
    ) -> Result<Self, MirrorError> {
        let named = |by, text: &str| match Url::root(text) {
            Ok(root) => Ok(vec![Mirror::new(root)]),
            Err(source) => Err(MirrorError::Address { by, source }),
        };
        let security = match var("KELLER_SECURITY_MIRROR") {
            Some(text) => named("KELLER_SECURITY_MIRROR", &text)?,
            None => Vec::new(),
        };
        let in_manifest = || match &manifest.security_mirror {
            Some(text) => named("the manifest's security_mirror", text),
            None => Ok(Vec::new()),
        };
        let explicit = match (flag, var("KELLER_MIRROR")) {
            (Some(text), _) => Some((named("--mirror", text)?, NamedBy::Flag)),
            (None, Some(text)) => Some((named("KELLER_MIRROR", &text)?, NamedBy::Environment)),
            (None, None) => None,
        };
        if let Some((debian, named_by)) = explicit {
            let security = first([security, siblings(&debian)]);
            let security = if security.is_empty() { in_manifest()? } else { security };
            return Ok(Self { debian, security, named_by });
        }
        let security = if security.is_empty() { in_manifest()? } else { security };
        if let Some(text) = &manifest.mirror {
            let debian = named("the manifest", text)?;
            let security = first([security, siblings(&debian)]);
            return Ok(Self { debian, security, named_by: NamedBy::Manifest });
        }
        let found = Self::of_host(&sources())?;
        Ok(Self { security: first([security, found.security]), ..found })
    }

    /// The mirrors that apt's `sources` name.
    ///
    /// # Errors
    /// `None` where no source is Debian's main archive.
    pub fn of_host(sources: &[Source]) -> Result<Self, MirrorError> {
        let debian = main_mirrors(sources);
        if debian.is_empty() {
            return Err(MirrorError::None {
                folder: http::apt::FOLDER.to_owned(),
                passed_over: not_asked(sources),
            });
        }
        let security = first([security_mirrors(sources), siblings(&debian)]);
        Ok(Self { debian, security, named_by: NamedBy::Host })
    }

    /// The security archive.
    ///
    /// # Errors
    /// `NoSecurity` when none is known.
    pub fn security(&self) -> Result<&[Mirror], MirrorError> {
        if self.security.is_empty() {
            let debian = self.debian.iter().map(|mirror| mirror.root.clone()).collect();
            return Err(MirrorError::NoSecurity { debian });
        }
        Ok(&self.security)
    }

    /// Where packages of all archives are, by their names in a lock, the manifest's own repositories included.
    pub fn archives(&self, manifest: &Debian) -> Result<BTreeMap<String, Vec<Url>>, MirrorError> {
        let roots = |mirrors: &[Mirror]| -> Vec<Url> {
            let with_packages = mirrors.iter().filter(|mirror| mirror.has_packages());
            with_packages.map(|mirror| mirror.root.clone()).collect()
        };
        let mut archives = BTreeMap::from([(DEBIAN.to_owned(), roots(&self.debian))]);
        if !self.security.is_empty() {
            archives.insert(SECURITY.to_owned(), roots(&self.security));
        }
        for repository in &manifest.repositories {
            let root = Url::root(&repository.url)
                .map_err(|source| MirrorError::Address { by: "a repository of the manifest", source })?;
            archives.insert(repository.name.clone(), vec![root]);
        }
        Ok(archives)
    }
}

/// The first of two that has any.
fn first(choices: [Vec<Mirror>; 2]) -> Vec<Mirror> {
    choices.into_iter().find(|mirrors| !mirrors.is_empty()).unwrap_or_default()
}

/// Mirrors that carry both archives have them side by side.
fn siblings(debian: &[Mirror]) -> Vec<Mirror> {
    debian.iter().filter_map(|mirror| mirror.sibling("debian", "debian-security")).collect()
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

/// The mirrors of a source; none where its suite, which ends in a slash, is a path to a flat repository.
fn mirrors(source: &Source) -> &[Mirror] {
    if source.suite.ends_with('/') { &[] } else { &source.mirrors }
}

/// The mirrors of all these sources, each once.
fn all<'s>(sources: impl Iterator<Item = &'s Source>) -> Vec<Mirror> {
    let mut found: Vec<Mirror> = Vec::new();
    for mirror in sources.flat_map(mirrors) {
        if !found.contains(mirror) {
            found.push(mirror.clone());
        }
    }
    found
}

fn is_security(source: &Source) -> bool {
    let is_in_path = |path: &str| path.trim_end_matches('/').ends_with("/debian-security");
    source.suite.ends_with("-security")
        || source.suite.ends_with("/updates")
        || is_in_path(&source.uri)
        || mirrors(source).iter().any(|mirror| is_in_path(mirror.root.path()))
}

/// How sure it is that a source is Debian's main archive and not one of another vendor, which use Debian's
/// suite names too. 0 is no sign at all.
fn score(source: &Source) -> u32 {
    if is_security(source) {
        return 0;
    }
    // One mirror of a list tells for the whole list.
    mirrors(source).iter().map(|mirror| score_at(source, &mirror.root)).max().unwrap_or(0)
}

fn score_at(source: &Source, url: &Url) -> u32 {
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

/// The mirrors of Debian's main archive among the host's sources: of all those that are as sure to be it, in their
/// order. The suite does not matter: an archive has all of them.
fn main_mirrors(sources: &[Source]) -> Vec<Mirror> {
    let best = sources.iter().map(score).max().unwrap_or(0);
    all(sources.iter().filter(|source| best > 0 && score(source) == best))
}

/// The mirrors of Debian's security archive among the host's sources. Where several URIs and several suites stand in
/// one stanza, the main archive is among them with the security suite, which it does not have: so the address tells
/// first.
fn security_mirrors(sources: &[Source]) -> Vec<Mirror> {
    let is_debian = |source: &&Source| SUITES.iter().any(|suite| source.suite.starts_with(suite));
    let candidates = || sources.iter().filter(is_debian).filter(|source| is_security(source));
    let is_named =
        |uri: &str| uri.trim_end_matches('/').rsplit('/').take(2).any(|part| part.contains("security"));
    let says_so = |source: &&Source| {
        is_named(&source.uri) || mirrors(source).iter().any(|mirror| is_named(mirror.root.path()))
    };
    let named = all(candidates().filter(says_so));
    if named.is_empty() { all(candidates()) } else { named }
}

#[cfg(test)]
mod tests {
    use super::list::Refused;
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
        let uri = word();
        let (mirrors, refused) = match Url::root(&uri) {
            Ok(root) => (vec![Mirror::new(root)], Vec::new()),
            Err(_) => (Vec::new(), vec![Refused::unused(&uri, "a reason")]),
        };
        Source {
            uri,
            mirrors,
            refused,
            suite: word(),
            components: vec!["main".to_owned()],
            signed_by: None,
            file: "sources.list.d/x.list".into(),
        }
    }

    /// The addresses, joined.
    fn shown(mirrors: &[Mirror]) -> String {
        mirrors.iter().map(|mirror| mirror.root.to_string()).collect::<Vec<_>>().join(" ")
    }

    fn on_host(lines: &[&str]) -> Result<(String, String), MirrorError> {
        let sources: Vec<Source> = lines.iter().map(|line| source(line)).collect();
        let mirrors = Mirrors::of_host(&sources)?;
        Ok((shown(&mirrors.debian), shown(&mirrors.security)))
    }

    #[test]
    fn order() {
        let choose = |flag, vars: &[(&str, &str)], manifest: &Debian| {
            let var = |name: &str| vars.iter().find(|var| var.0 == name).map(|var| var.1.to_owned());
            let sources = || vec![source("http://host.example/debian bookworm")];
            let found = Mirrors::choose(flag, var, manifest, sources).unwrap();
            (shown(&found.debian), shown(&found.security), found.named_by)
        };
        let own = |host: &str, by| {
            let root = |name| format!("http://{host}.example/{name}/");
            (root("debian"), root("debian-security"), by)
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
        assert_eq!(choose(None, &[], &manifest).1, "http://manifest.example/sec/");
        // A frozen mirror on the command line is not mixed with today's security archive.
        assert_eq!(choose(flag, &[], &manifest), own("flag", NamedBy::Flag));
        let security = [("KELLER_SECURITY_MIRROR", "/srv/security")];
        assert_eq!(choose(flag, &security, &manifest).1, "file:///srv/security/");
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
        assert_eq!(debian, "http://mirror.example/debian/ http://second.example/debian/");
        assert_eq!(security, "http://other.example/security/");
        let mut unknown_suite = source("http://mirror.example/debian thing");
        assert!(main_mirrors(std::slice::from_ref(&unknown_suite)).is_empty());
        unknown_suite.signed_by = Some("/k/debian-archive-keyring.gpg".to_owned());
        assert_eq!(shown(&main_mirrors(&[unknown_suite])), "http://mirror.example/debian/");
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
        assert_eq!(security, "http://mirror.example/debian-security/");
        // All that are as good.
        let (debian, security) =
            on_host(&["http://a.example/debian trixie", "http://b.example/debian trixie"]).unwrap();
        assert_eq!(debian, "http://a.example/debian/ http://b.example/debian/");
        assert_eq!(security, "http://a.example/debian-security/ http://b.example/debian-security/");
    }

    #[test]
    fn all_of_a_list_is_one_archive() {
        let of_list = |suite: &str, text: &str| {
            let (mirrors, refused) = list::parse(text, true);
            Source { mirrors, refused, ..source(&format!("mirror+http://lists.example/x {suite}")) }
        };
        let sources = [
            of_list("trixie", "http://a.example/debian\nhttp://b.example/deb priority:1\nfile:/srv/c\n"),
            of_list("trixie-security", "http://a.example/debian-security\nhttp://b.example/sec\n"),
            source("http://vendor.example/linux trixie"),
        ];
        let found = Mirrors::of_host(&sources).unwrap();
        assert_eq!(shown(&found.debian), "http://b.example/deb/ http://a.example/debian/");
        assert_eq!(shown(&found.security), "http://a.example/debian-security/ http://b.example/sec/");
        let none = Mirrors::of_host(&[of_list("trixie", "file:/srv/debian\n")]).unwrap_err().to_string();
        assert!(
            none.ends_with(
                "passed over: file:/srv/debian (a directory of this machine, named by another one))"
            ),
            "{none}"
        );
    }

    #[test]
    fn what_is_passed_over_is_told() {
        let disc = "cdrom:[Debian_13]/ trixie";
        let found = on_host(&[disc, "http://mirror.example/debian trixie"]).unwrap();
        assert_eq!(found.0, "http://mirror.example/debian/");
        let error = on_host(&[disc, disc, "tor+http://x/debian sid"]).unwrap_err().to_string();
        assert!(
            error.ends_with(
                "have none; passed over: cdrom:[Debian_13]/ (a reason), tor+http://x/debian (a reason))"
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
        let mirrors = Mirrors::choose(Some("/srv/m"), |_| None, &manifest(), Vec::new).unwrap();
        assert!(mirrors.security().unwrap_err().to_string().contains("KELLER_SECURITY_MIRROR"));
    }

    #[test]
    fn bad_address_keeps_its_secret() {
        let find = Mirrors::find(Some("ftp://me:s3cret@mirror.example/"), &manifest(), Vec::new).unwrap_err();
        assert!(!format!("{find:?}").contains("s3cret"));
    }
}
