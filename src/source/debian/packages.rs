//! Package indexes: found in a release, fetched by digest, trimmed to what a resolver needs.
//!
//! An index of 57 MB becomes 20 MB of lines with tab-separated fields, which is kept under the digest of the
//! compressed file: reading that again takes a fiftieth of the time of decoding and parsing.

use std::io::BufReader;
use std::iter;
use std::sync::{Mutex, PoisonError};

mod trim;

use super::checksum::Checksum;
use super::release::Release;
use super::upstream::{Upstream, UpstreamError};
use super::version::ARCHITECTURE;
use crate::base::width::to_u64;
use crate::base::{Compression, Digest, Fingerprint, Progress, Size, limits};
use crate::http::url::{Url, UrlError};
use memchr::memmem;
use trim::{FAULT, LEFT_OUT, LEFT_OUT_LATER, trim};

/// Part of the key under which trimmed indexes are kept; changes with their form.
const TRIMMED_FORM: &str = "keller trimmed package index 3";

/// Forms in which an index may be compressed, the smallest first, with the suffix of the file.
const FORMS: [(&str, Compression); 6] = [
    (".xz", Compression::Xz),
    (".zst", Compression::Zstd),
    (".bz2", Compression::Bzip2),
    (".lzma", Compression::Lzma),
    (".gz", Compression::Gzip),
    ("", Compression::None),
];

/// Where in an archive to look.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// Root of the archive; paths of packages are relative to it.
    pub root: &'a Url,
    /// e.g. `trixie`; of a flat archive its folder, ending in `/`.
    pub suite: &'a str,
    /// e.g. `main`; none in a flat archive.
    pub components: &'a [String],
}

impl Source<'_> {
    /// Whether the archive has no suites and components, but its indexes in one folder.
    pub fn is_flat(&self) -> bool {
        self.suite.ends_with('/')
    }

    /// Folder of the release, relative to the root, with a slash at its end unless it is the root.
    fn folder(&self) -> String {
        if self.is_flat() {
            self.suite.trim_start_matches("./").trim_start_matches('/').to_owned()
        } else {
            format!("dists/{}/", self.suite)
        }
    }

    /// Address of the file `name` beside the indexes, such as `InRelease`.
    pub fn release_url(&self, name: &str) -> Result<Url, UrlError> {
        self.root.join(&format!("{}{name}", self.folder()))
    }

    /// Paths of the wanted indexes, relative to the release and without a compression's suffix.
    fn indexes(&self, release: &Release) -> Result<Vec<String>, IndexError> {
        if self.is_flat() {
            return Ok(vec!["Packages".to_owned()]);
        }
        let listed = |path: &str| {
            FORMS.iter().any(|(suffix, _)| release.files.contains_key(&format!("{path}{suffix}")))
        };
        let mut paths = Vec::new();
        for component in self.components {
            let path = format!("{component}/binary-{ARCHITECTURE}/Packages");
            let all = format!("{component}/binary-all/Packages");
            // An archive of nothing but scripts has no other.
            if !listed(&path) && listed(&all) {
                paths.push(all);
                continue;
            }
            if !listed(&path) {
                return Err(IndexError::NoComponent {
                    component: component.clone(),
                    components: release.components.clone(),
                });
            }
            paths.push(path);
            if release.separate_all && listed(&all) {
                paths.push(all);
            }
        }
        Ok(paths)
    }
}

/// Why an index is of no use.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The release has no such part.
    #[error("the release has no component {component} for {ARCHITECTURE}; it has {}", .components.join(", "))]
    NoComponent {
        /// As in the manifest.
        component: String,
        /// What there is.
        components: Vec<String>,
    },
    /// The release lists no index in a form that is known here.
    #[error("the release lists no {path}, neither as such nor as .xz, .zst, .gz, .bz2 or .lzma")]
    Unlisted {
        /// Relative to the release.
        path: String,
    },
    /// Not what the signed release says.
    #[error(
        "{url} is not what the signed release lists: expected {expected} of {expected_size} bytes, but have {actual} of {actual_size} bytes"
    )]
    Tampered {
        /// Where it came from.
        url: Box<Url>,
        /// As signed.
        expected: Checksum,
        /// In bytes, as signed.
        expected_size: u64,
        /// As received.
        actual: Checksum,
        /// In bytes, as received.
        actual_size: u64,
    },
    /// It cannot be decompressed, or is more than any index.
    #[error("decoding {path}")]
    Decode {
        /// Relative to the release.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The signed release announces more bytes than any index has.
    #[error(
        "the release lists {path} with {} bytes, and at most {} of an index are read", .size, Size(*.limit).human()
    )]
    TooLarge {
        /// Relative to the release.
        path: String,
        /// In bytes, as signed.
        size: u64,
        /// In bytes.
        limit: u64,
    },
    /// All indexes together are more than fits into memory.
    #[error(
        "the names, versions and relations of all packages have more than {} together: name fewer components",
        Size(limits::INDEX_KEPT).human()
    )]
    TooMany,
    /// The manifest's suite or component is no part of an address.
    #[error(transparent)]
    Address(#[from] UrlError),
    /// It cannot be had.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
}

/// The packages of one suite, trimmed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Index {
    /// One line a package, see [`Record`].
    text: String,
}

/// One package of an index. Relation fields are as in the index, empty where absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Package name.
    pub name: &'a str,
    /// Debian version.
    pub version: &'a str,
    /// `amd64` or `all`.
    pub architecture: &'a str,
    /// Pre-Depends and Depends.
    pub depends: &'a str,
    /// Conflicts and Breaks.
    pub conflicts: &'a str,
    /// Provides.
    pub provides: &'a str,
    /// `required`, `important`, `standard`, `optional`; maybe empty.
    pub priority: &'a str,
    /// Its file, or why it has none that can be used.
    pub file: Result<Deb<'a>, &'a str>,
}

/// What a resolver looks at of every package of an index. Of most it wants no more, and taking a line apart costs more than
/// all else that it does.
#[derive(Clone, Copy, Debug)]
pub struct Heading<'a> {
    /// As in [`Record`].
    pub name: &'a str,
    /// As in [`Record`].
    pub version: &'a str,
    /// As in [`Record`].
    pub provides: &'a str,
    /// As in [`Record`].
    pub priority: &'a str,
    line: &'a str,
}

/// The file of a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deb<'a> {
    /// Relative to the archive's root.
    pub path: &'a str,
    /// In bytes.
    pub size: u64,
    /// Of its bytes.
    pub checksum: Checksum,
}

impl Index {
    /// Brings all indexes of `source` that `release` lists, and trims them.
    pub fn fetch(
        upstream: &dyn Upstream,
        source: &Source<'_>,
        release: &Release,
        progress: &dyn Progress,
    ) -> Result<Self, IndexError> {
        let mut text = String::new();
        for path in source.indexes(release)? {
            let part = fetch_trimmed(upstream, source, release, &path, progress)?;
            match text.is_empty() {
                true => text = part,
                false => text.push_str(&part),
            }
            if to_u64(text.len()) > limits::INDEX_KEPT {
                return Err(IndexError::TooMany);
            }
        }
        Ok(Self { text })
    }

    /// Bytes that it takes.
    pub fn size(&self) -> u64 {
        to_u64(self.text.len())
    }

    /// Paragraphs that are left out, as `package: reason`.
    pub fn left_out(&self) -> impl Iterator<Item = String> {
        // Most indexes have none: the text is not taken apart for them.
        let first = self.text.starts_with(LEFT_OUT).then_some(0);
        let others = memmem::find_iter(self.text.as_bytes(), LEFT_OUT_LATER).map(|at| at + 1);
        first.into_iter().chain(others).filter_map(|at| {
            let line = self.text[at..].lines().next()?;
            Some(line.strip_prefix(LEFT_OUT)?.replacen('\t', ": ", 1))
        })
    }

    /// The packages in the order of the index.
    pub fn headings(&self) -> impl Iterator<Item = Heading<'_>> {
        self.lines().filter_map(Heading::from_line)
    }

    fn lines(&self) -> impl Iterator<Item = &str> {
        let mut rest = self.text.as_str();
        iter::from_fn(move || {
            let end = memchr::memchr(b'\n', rest.as_bytes())?;
            let line = &rest[..end];
            rest = &rest[end + 1..];
            Some(line)
        })
    }

    /// The packages in the order of the index, in full.
    #[cfg(test)]
    fn records(&self) -> impl Iterator<Item = Record<'_>> {
        self.headings().map(|heading| heading.record())
    }
}

/// Held by whoever has a large index in memory, or decodes one: suites are read at once, and their indexes one after the
/// other.
static LARGE: Mutex<()> = Mutex::new(());

/// Indexes of up to as many bytes are fetched at once.
const SMALL: u64 = 1 << 20;

fn fetch_trimmed(
    upstream: &dyn Upstream,
    source: &Source<'_>,
    release: &Release,
    path: &str,
    progress: &dyn Progress,
) -> Result<String, IndexError> {
    let mut missing = None;
    for (suffix, compression) in FORMS {
        let listed = format!("{path}{suffix}");
        let Some(&expected) = release.files.get(&listed) else { continue };
        let key = Digest::of(format!("{TRIMMED_FORM} {}", expected.0));
        if let Some(text) = upstream.recall(&key).and_then(unseal) {
            return Ok(text);
        }
        let limit = match compression {
            Compression::None => limits::INDEX_PLAIN,
            _ => limits::INDEX_FETCHED,
        };
        if expected.1 > limit {
            return Err(IndexError::TooLarge { path: listed, size: expected.1, limit });
        }
        let wait = || LARGE.lock().unwrap_or_else(PoisonError::into_inner);
        let alone = (expected.1 > SMALL).then(wait);
        let bytes = match fetch_listed(upstream, source, release, &listed, expected, progress) {
            Err(IndexError::Upstream(error @ UpstreamError::NotFound { .. })) => {
                missing = Some(error);
                continue;
            }
            other => other?,
        };
        let _alone = alone.unwrap_or_else(wait);
        let decoded = compression.reader(&bytes[..]).and_then(|reader| trim(BufReader::new(reader)));
        let text = decoded.map_err(|source| IndexError::Decode { path: listed, source })?;
        drop(bytes);
        upstream.keep(&key, &seal(&text));
        return Ok(text);
    }
    Err(missing.map_or_else(|| IndexError::Unlisted { path: path.to_owned() }, IndexError::Upstream))
}

/// A trimmed index as it is kept: with its fingerprint, since a damaged one would miss packages without a word.
fn seal(text: &str) -> Vec<u8> {
    [text.as_bytes(), Fingerprint::of(text).as_bytes()].concat()
}

fn unseal(mut bytes: Vec<u8>) -> Option<String> {
    let fingerprint = bytes.split_off(bytes.len().checked_sub(size_of::<Fingerprint>())?);
    (fingerprint == Fingerprint::of(&bytes).as_bytes()).then(|| String::from_utf8(bytes).ok())?
}

/// Gets a file by its digest where the archive has it so, else by its name.
fn fetch_listed(
    upstream: &dyn Upstream,
    source: &Source<'_>,
    release: &Release,
    path: &str,
    expected: (Checksum, u64),
    progress: &dyn Progress,
) -> Result<Vec<u8>, IndexError> {
    let get = |url: &Url| {
        let (checksum, size) = expected;
        let sha256 = match checksum {
            Checksum::Sha256(sha256) => sha256,
            Checksum::Sha512(_) => upstream.receive(url, size, progress)?.sha256,
        };
        upstream.get(url, Some((sha256, size)), progress)
    };
    let folder = source.folder();
    let plain = source.root.join(&format!("{folder}{path}"))?;
    let directory = path.rsplit_once('/').map_or(String::new(), |(directory, _)| format!("{directory}/"));
    let by_hash =
        source.root.join(&format!("{folder}{directory}by-hash/{}/{}", expected.0.field(), expected.0))?;
    let (url, bytes) = match release.by_hash.then(|| get(&by_hash)) {
        Some(Ok(bytes)) => (by_hash, bytes),
        None | Some(Err(UpstreamError::NotFound { .. })) => {
            let bytes = get(&plain)?;
            (plain, bytes)
        }
        Some(Err(error)) => return Err(error.into()),
    };
    let (actual, actual_size) = (expected.0.of_same_kind(&bytes), to_u64(bytes.len()));
    if (actual, actual_size) != expected {
        let (url, (expected, expected_size)) = (Box::new(url), expected);
        return Err(IndexError::Tampered { url, expected, expected_size, actual, actual_size });
    }
    Ok(bytes)
}

impl<'a> Heading<'a> {
    fn from_line(line: &'a str) -> Option<Self> {
        if line.starts_with(LEFT_OUT) {
            return None;
        }
        let mut ends = memchr::memchr_iter(b'\t', line.as_bytes());
        let (name, version) = (ends.next()?, ends.next()?);
        let (conflicts, provides, priority) = (ends.nth(2)?, ends.next()?, ends.next()?);
        Some(Self {
            name: &line[..name],
            version: &line[name + 1..version],
            provides: &line[conflicts + 1..provides],
            priority: &line[provides + 1..priority],
            line,
        })
    }

    /// All of the package.
    pub fn record(&self) -> Record<'a> {
        Record::from_line(self.line).expect("a trimmed index has no other lines")
    }
}

impl<'a> Record<'a> {
    /// A line of a trimmed index; none of another form is ever written.
    fn from_line(line: &'a str) -> Option<Self> {
        let mut fields = line.split('\t');
        let mut next = || fields.next();
        Some(Self {
            name: next()?,
            version: next()?,
            architecture: next()?,
            depends: next()?,
            conflicts: next()?,
            provides: next()?,
            priority: next()?,
            file: {
                let path = next()?;
                match path.strip_prefix(FAULT) {
                    Some(reason) => Err(reason),
                    None => Ok(Deb { path, size: next()?.parse().ok()?, checksum: next()?.parse().ok()? }),
                }
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::base::progress::Silent;
    use crate::source::debian::upstream::Received;

    /// A plain index.
    fn read(input: &[u8]) -> io::Result<Index> {
        Ok(Index { text: trim(input)? })
    }

    fn paragraph(change: (&str, &str)) -> String {
        let text = "Package: app\nVersion: 1.0-1\nArchitecture: amd64\nPre-Depends: a\nDepends: b (>= 1),\n c | d\n\
                    Description: long\n more\nFilename: ./pool/a/app.deb\nSize: 7\nSHA256: DIGEST\n\n";
        text.replace("DIGEST", &"0".repeat(64)).replace(change.0, change.1)
    }

    #[test]
    fn trims_and_reads_back() {
        let other = paragraph(("amd64", "i386"));
        let text = paragraph(("", "")) + &other + &paragraph(("app\n", "app2\n"));
        let index = read(text.trim_end().as_bytes()).unwrap();
        let records: Vec<_> = index.records().collect();
        assert_eq!(records.len(), 2);
        assert_eq!(records[0].depends, "a, b (>= 1), c | d");
        let file = records[0].file.unwrap();
        assert_eq!((file.path, file.size, records[0].conflicts), ("pool/a/app.deb", 7, ""));
        assert_eq!(records[1].name, "app2");
    }

    /// The only package that is read after `change`, and what is left out.
    fn changed(change: (&str, &str)) -> (Option<Result<String, String>>, Vec<String>) {
        let index = read((paragraph(change) + &paragraph(("app\n", "other\n"))).as_bytes()).unwrap();
        let files = |record: Record<'_>| record.file.map(|file| file.path.to_owned()).map_err(str::to_owned);
        let mut records = index.records();
        let app = records.next().filter(|record| record.name == "app").map(files);
        assert!(index.records().any(|record| record.name == "other" && record.file.is_ok()), "{change:?}");
        (app, index.left_out().collect())
    }

    #[test]
    fn what_makes_no_sense_spoils_no_other() {
        let zeros = "0".repeat(64);
        for (change, reason) in [
            (("./pool/a", "../pool"), "its Filename leads out of the archive"),
            (("./pool/a", "/../pool"), "its Filename leads out of the archive"),
            (("./pool/a/app.deb", "./pool/a/"), "its Filename leads out of the archive"),
            (("./pool/a", "pool\\a"), "its Filename leads out of the archive"),
            (("Filename", "Filenam"), "it has no Filename"),
            (("Size: 7", "Size: seven"), "it has no proper Size"),
            (("Size: 7", "Size"), "its line \"Size\" is not `field: value`"),
            (("Size: 7\n", ""), "it has no proper Size"),
            ((zeros.as_str(), "00"), "it has neither a SHA256 nor a SHA512"),
            (("SHA256", "MD5sum"), "it has neither a SHA256 nor a SHA512"),
            (("SHA256", "SHA512"), ""),
        ] {
            let (app, left_out) = changed(change);
            let expected =
                if reason.is_empty() { Ok("pool/a/app.deb".to_owned()) } else { Err(reason.to_owned()) };
            assert_eq!((app, left_out.len()), (Some(expected), 0), "{change:?}");
        }
        for (change, reason) in [
            (("1.0-1", ""), "app: it has no proper Version"),
            (("1.0-1", "1 2"), "app: it has no proper Version"),
            (("Package: app", "Package: a/../p"), "a/../p: it has no proper Package"),
            (("Package: app", "Packag: app"), ": it has no proper Package"),
        ] {
            assert_eq!(changed(change), (None, vec![reason.to_owned()]), "{change:?}");
        }
        // No name of another package gets in by a tab, and bytes that are not text stay within their paragraph.
        assert_eq!(changed(("a/app.deb", "a/app\t.deb")).0, Some(Ok("pool/a/app .deb".to_owned())));
        let mut text = paragraph(("Depends: b", "Depends: \u{fc}"));
        let at = text.find('\u{fc}').unwrap();
        let mut bytes = std::mem::take(&mut text).into_bytes();
        bytes.remove(at);
        bytes.extend(paragraph(("app\n", "other\n")).bytes());
        let index = read(&bytes).unwrap();
        let faults: Vec<_> = index.records().map(|record| record.file.err()).collect();
        assert_eq!(faults, [Some("its Depends is not UTF-8"), None]);
    }

    #[test]
    fn paths_as_real_archives_have_them() {
        for path in [
            "/pool/a/app.deb",
            "pool/a/app.deb",
            "./pool/a//app.deb",
            ".//pool/./a/app.deb",
            "//pool/a/app.deb",
        ] {
            assert_eq!(
                changed(("./pool/a/app.deb", path)).0,
                Some(Ok("pool/a/app.deb".to_owned())),
                "{path}"
            );
        }
        assert_eq!(changed(("pool/a/app.deb", "app.deb")).0, Some(Ok("app.deb".to_owned())));
    }

    #[test]
    fn written_on_windows_or_by_hand() {
        let text = paragraph(("", "")).replace('\n', "\r\n").replace("Filename:", "filename:");
        let index = read(text.as_bytes()).unwrap();
        let plain = paragraph(("", ""));
        assert_eq!(index, read(plain.as_bytes()).unwrap());
        assert_eq!(index.records().count(), 1);
    }

    #[test]
    fn knows_where_releases_lie() {
        let root = Url::root("https://mirror.example/debian/").unwrap();
        for (suite, url) in [
            ("trixie", "https://mirror.example/debian/dists/trixie/InRelease"),
            ("./", "https://mirror.example/debian/InRelease"),
            ("/", "https://mirror.example/debian/InRelease"),
            ("deb/", "https://mirror.example/debian/deb/InRelease"),
        ] {
            let source = Source { root: &root, suite, components: &[] };
            assert_eq!(source.release_url("InRelease").unwrap().to_string(), url);
        }
        let climbing = Source { root: &root, suite: "../x", components: &[] };
        assert!(climbing.release_url("InRelease").is_err());
    }

    struct Nothing;

    impl Upstream for Nothing {
        fn get(&self, _: &Url, _: Option<(Digest, u64)>, _: &dyn Progress) -> Result<Vec<u8>, UpstreamError> {
            panic!("it was fetched")
        }

        fn receive(&self, _: &Url, _: u64, _: &dyn Progress) -> Result<Received, UpstreamError> {
            panic!("it was fetched")
        }
    }

    #[test]
    fn an_index_that_is_announced_with_gigabytes() {
        let root = Url::root("https://mirror.example/debian/").unwrap();
        let source = Source { root: &root, suite: "./", components: &[] };
        let checksum: Checksum = "0".repeat(64).parse().unwrap();
        let files = [("Packages.xz".to_owned(), (checksum, 3 << 30))].into();
        let release = Release {
            sha256: Digest::of(""),
            date: 0,
            valid_until: None,
            by_hash: false,
            separate_all: false,
            components: Vec::new(),
            signed_by: Vec::new(),
            files,
        };
        let told = Index::fetch(&Nothing, &source, &release, &Silent).unwrap_err().to_string();
        assert_eq!(
            told,
            "the release lists Packages.xz with 3221225472 bytes, and at most 32.0 MiB of an index are read"
        );
    }

    #[test]
    fn lines_have_a_limit() {
        let told = |text: &str| read(text.as_bytes()).unwrap_err().to_string();
        let line = |length: usize| format!("Tag: {}", "x".repeat(length - 5));
        let most = limits::INDEX_LINE;
        // With its line break, and without one at the end.
        for good in [line(most - 1) + "\n", line(most)] {
            assert_eq!(read((paragraph(("", "")) + &good).as_bytes()).unwrap().records().count(), 1);
        }
        let said = |line: u32| format!("line {line} has more than the 1.0 MiB that are read of one");
        assert_eq!(told(&line(most + 1)), said(1));
        assert_eq!(told(&format!("Package: app\n {}\n", "x".repeat(most))), said(2));
    }

    #[test]
    fn does_not_trust_a_damaged_memory() {
        let mut kept = seal("app\t1.0");
        assert_eq!(unseal(kept.clone()).as_deref(), Some("app\t1.0"));
        kept[2] ^= 1;
        assert_eq!(unseal(kept), None);
        assert_eq!(unseal(Vec::new()), None);
    }
}
