//! Package indexes: found in a release, fetched by digest, trimmed to what a resolver needs.
//!
//! An index of 57 MB becomes 20 MB of lines with tab-separated fields, which is kept under the digest of the
//! compressed file: reading that again takes a fiftieth of the time of decoding and parsing.

use std::io::{BufRead, BufReader, Read};

use super::release::Release;
use super::upstream::{Upstream, UpstreamError};
use super::version::{ARCHITECTURE, is_name};
use crate::base::{Digest, Progress};
use crate::source::url::{Url, UrlError};

/// Part of the key under which trimmed indexes are kept; changes with their form.
const TRIMMED_FORM: &str = "keller trimmed package index 1";

/// Forms in which an index may be compressed, the smallest first, with the suffix of the file.
const FORMS: [(&str, Compression); 3] =
    [(".xz", Compression::Xz), (".gz", Compression::Gzip), ("", Compression::None)];

#[derive(Clone, Copy)]
enum Compression {
    Xz,
    Gzip,
    None,
}

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

    /// Address of the signed release.
    pub fn release_url(&self) -> Result<Url, UrlError> {
        self.root.join(&format!("{}InRelease", self.folder()))
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
            if !listed(&path) {
                return Err(IndexError::NoComponent {
                    component: component.clone(),
                    components: release.components.clone(),
                });
            }
            paths.push(path);
            let all = format!("{component}/binary-all/Packages");
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
    #[error("the release lists no {path}, neither as such nor as .xz or .gz")]
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
        expected: Digest,
        /// In bytes, as signed.
        expected_size: u64,
        /// As received.
        actual: Digest,
        /// In bytes, as received.
        actual_size: u64,
    },
    /// A paragraph that makes no sense, though it was signed.
    #[error("package {package} of the index: {reason}")]
    Corrupt {
        /// Its name, or `?`.
        package: String,
        /// What is wrong.
        reason: String,
    },
    /// It cannot be decompressed.
    #[error("decoding the index")]
    Decode(#[from] std::io::Error),
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
    /// Relative to the archive's root.
    pub path: &'a str,
    /// Of the .deb, in bytes.
    pub size: u64,
    /// Of the .deb.
    pub sha256: Digest,
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
            text.push_str(&fetch_trimmed(upstream, source, release, &path, progress)?);
        }
        Ok(Self { text })
    }

    /// Reads a plain index, as tests and local archives have it.
    pub fn read(input: impl Read) -> Result<Self, IndexError> {
        Ok(Self { text: trim(BufReader::new(input))? })
    }

    /// The packages in the order of the index.
    pub fn records(&self) -> impl Iterator<Item = Record<'_>> {
        self.text.lines().filter_map(Record::from_line)
    }
}

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
        let bytes = match fetch_listed(upstream, source, release, &listed, expected, progress) {
            Err(IndexError::Upstream(error @ UpstreamError::NotFound(_))) => {
                missing = Some(error);
                continue;
            }
            other => other?,
        };
        let text = match compression {
            Compression::Xz => {
                trim(BufReader::new(liblzma::bufread::XzDecoder::new_multi_decoder(&bytes[..])))?
            }
            Compression::Gzip => trim(BufReader::new(flate2::bufread::MultiGzDecoder::new(&bytes[..])))?,
            Compression::None => trim(&bytes[..])?,
        };
        upstream.keep(&key, &seal(&text));
        return Ok(text);
    }
    Err(missing.map_or_else(|| IndexError::Unlisted { path: path.to_owned() }, IndexError::Upstream))
}

/// A trimmed index as it is kept: with its digest, since a damaged one would miss packages without a word.
fn seal(text: &str) -> Vec<u8> {
    [text.as_bytes(), Digest::of(text).as_bytes()].concat()
}

fn unseal(mut bytes: Vec<u8>) -> Option<String> {
    let digest = bytes.split_off(bytes.len().checked_sub(size_of::<Digest>())?);
    (digest == Digest::of(&bytes).as_bytes()).then(|| String::from_utf8(bytes).ok())?
}

/// Gets a file by its digest where the archive has it so, else by its name.
fn fetch_listed(
    upstream: &dyn Upstream,
    source: &Source<'_>,
    release: &Release,
    path: &str,
    expected: (Digest, u64),
    progress: &dyn Progress,
) -> Result<Vec<u8>, IndexError> {
    let get = |url: &Url| upstream.get(url, Some(expected), progress);
    let folder = source.folder();
    let plain = source.root.join(&format!("{folder}{path}"))?;
    let directory = path.rsplit_once('/').map_or(String::new(), |(directory, _)| format!("{directory}/"));
    let by_hash = source.root.join(&format!("{folder}{directory}by-hash/SHA256/{}", expected.0))?;
    let (url, bytes) = match release.by_hash.then(|| get(&by_hash)) {
        Some(Ok(bytes)) => (by_hash, bytes),
        None | Some(Err(UpstreamError::NotFound(_))) => {
            let bytes = get(&plain)?;
            (plain, bytes)
        }
        Some(Err(error)) => return Err(error.into()),
    };
    let (actual, actual_size) = (Digest::of(&bytes), bytes.len() as u64);
    if (actual, actual_size) != expected {
        let (url, (expected, expected_size)) = (Box::new(url), expected);
        return Err(IndexError::Tampered { url, expected, expected_size, actual, actual_size });
    }
    Ok(bytes)
}

/// Whether `path` is relative and never climbs, so that joining it to a root stays there.
pub(super) fn stays_below(path: &str) -> bool {
    !path.is_empty()
        && !path.contains(['\\', '\0'])
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// The fields of a paragraph that are kept.
#[derive(Default)]
struct Paragraph {
    name: String,
    version: String,
    architecture: String,
    pre_depends: String,
    depends: String,
    conflicts: String,
    breaks: String,
    provides: String,
    priority: String,
    filename: String,
    size: String,
    sha256: String,
}

impl Paragraph {
    fn field(&mut self, name: &[u8]) -> Option<&mut String> {
        Some(match name {
            b"Package" => &mut self.name,
            b"Version" => &mut self.version,
            b"Architecture" => &mut self.architecture,
            b"Pre-Depends" => &mut self.pre_depends,
            b"Depends" => &mut self.depends,
            b"Conflicts" => &mut self.conflicts,
            b"Breaks" => &mut self.breaks,
            b"Provides" => &mut self.provides,
            b"Priority" => &mut self.priority,
            b"Filename" => &mut self.filename,
            b"Size" => &mut self.size,
            b"SHA256" => &mut self.sha256,
            _ => return None,
        })
    }

    fn clear(&mut self) {
        for name in [
            "Package",
            "Version",
            "Architecture",
            "Pre-Depends",
            "Depends",
            "Conflicts",
            "Breaks",
            "Provides",
            "Priority",
            "Filename",
            "Size",
            "SHA256",
        ] {
            self.field(name.as_bytes()).expect("listed above").clear();
        }
    }

    /// Appends the paragraph as a line of a trimmed index, unless it is empty or for another architecture.
    fn write(&mut self, out: &mut String) -> Result<(), IndexError> {
        if self.name.is_empty() && self.version.is_empty() {
            return Ok(());
        }
        let corrupt =
            |reason: &str| IndexError::Corrupt { package: self.name.clone(), reason: reason.to_owned() };
        if !is_name(&self.name) {
            return Err(corrupt("its name has characters that names do not have"));
        }
        if !matches!(self.architecture.as_str(), ARCHITECTURE | "all") {
            return Ok(());
        }
        if self.version.is_empty() || self.version.contains(char::is_whitespace) {
            return Err(corrupt("it has no proper version"));
        }
        let path = self.filename.trim_start_matches("./");
        if !stays_below(path) {
            return Err(corrupt("its Filename leads out of the archive"));
        }
        self.size.parse::<u64>().map_err(|_| corrupt("it has no size"))?;
        self.sha256.parse::<Digest>().map_err(|_| corrupt("it has no SHA-256"))?;
        let joined = |a: &str, b: &str| {
            if a.is_empty() || b.is_empty() { format!("{a}{b}") } else { format!("{a}, {b}") }
        };
        let fields = [
            &self.name,
            &self.version,
            &self.architecture,
            &joined(&self.pre_depends, &self.depends),
            &joined(&self.conflicts, &self.breaks),
            &self.provides,
            &self.priority,
            path,
            &self.size,
            &self.sha256,
        ];
        for (index, field) in fields.into_iter().enumerate() {
            if index > 0 {
                out.push('\t');
            }
            out.push_str(field);
        }
        out.push('\n');
        Ok(())
    }
}

/// Reads the paragraphs of a plain index one by one, so that its whole text is never in memory.
fn trim(mut input: impl BufRead) -> Result<String, IndexError> {
    let mut out = String::new();
    let mut paragraph = Paragraph::default();
    let mut line = Vec::new();
    // Whether the line before was of a kept field, and which: folded lines belong to it.
    let mut current: Option<Vec<u8>> = None;
    loop {
        line.clear();
        let end = input.read_until(b'\n', &mut line)? == 0;
        while line.last().is_some_and(u8::is_ascii_whitespace) {
            line.pop();
        }
        if line.is_empty() {
            paragraph.write(&mut out)?;
            paragraph.clear();
            current = None;
            if end {
                return Ok(out);
            }
            continue;
        }
        if line[0].is_ascii_whitespace() {
            if let Some(field) = current.as_deref().and_then(|name| paragraph.field(name)) {
                append(field, &line)?;
            }
            continue;
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            let reason = format!("{:?} is not `field: value`", String::from_utf8_lossy(&line));
            return Err(IndexError::Corrupt { package: paragraph.name, reason });
        };
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        current = None;
        if let Some(field) = paragraph.field(name) {
            append(field, value)?;
            current = Some(name.to_owned());
        }
    }
}

/// Appends to a field, in one line and without tabs, which separate fields.
fn append(field: &mut String, value: &[u8]) -> Result<(), IndexError> {
    let value = std::str::from_utf8(value.trim_ascii()).map_err(|_| IndexError::Corrupt {
        package: "?".to_owned(),
        reason: format!("{:?} is not UTF-8", String::from_utf8_lossy(value)),
    })?;
    if !field.is_empty() {
        field.push(' ');
    }
    field.extend(value.chars().map(|c| if c.is_control() { ' ' } else { c }));
    Ok(())
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
            path: next()?,
            size: next()?.parse().ok()?,
            sha256: next()?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paragraph(change: (&str, &str)) -> String {
        let text = "Package: app\nVersion: 1.0-1\nArchitecture: amd64\nPre-Depends: a\nDepends: b (>= 1),\n c | d\n\
                    Description: long\n more\nFilename: ./pool/a/app.deb\nSize: 7\nSHA256: DIGEST\n\n";
        text.replace("DIGEST", &"0".repeat(64)).replace(change.0, change.1)
    }

    #[test]
    fn trims_and_reads_back() {
        let other = paragraph(("amd64", "i386"));
        let text = paragraph(("", "")) + &other + &paragraph(("app\n", "app2\n"));
        let index = Index::read(text.trim_end().as_bytes()).unwrap();
        let records: Vec<_> = index.records().collect();
        assert_eq!(records.len(), 2);
        assert_eq!(records[0].depends, "a, b (>= 1), c | d");
        assert_eq!((records[0].path, records[0].size, records[0].conflicts), ("pool/a/app.deb", 7, ""));
        assert_eq!(records[1].name, "app2");
    }

    #[test]
    fn refuses_what_makes_no_sense() {
        for change in [
            ("./pool/a", "../pool"),
            ("./pool/a", "/pool"),
            ("./pool/a", "pool//a"),
            ("Size: 7", "Size: seven"),
            (&"0".repeat(64), "00"),
            ("1.0-1", ""),
            ("Package: app", "Package: a/../p"),
            ("Size: 7", "Size"),
        ] {
            let error = Index::read(paragraph(change).as_bytes()).unwrap_err();
            assert!(matches!(error, IndexError::Corrupt { .. }), "{change:?}: {error}");
        }
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
            assert_eq!(source.release_url().unwrap().to_string(), url);
        }
        let climbing = Source { root: &root, suite: "../x", components: &[] };
        assert!(climbing.release_url().is_err());
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
