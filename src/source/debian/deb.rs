//! Binary packages: deb(5), format 2.0, as Debian's archive has them.
//!
//! A package is read once, front to back: an `ar` archive with `debian-binary`, `control.tar.*` and
//! `data.tar.*`. Its data is decompressed into one file, in which the tree's bodies then lie; an [`index`]
//! behind the data spares later builds even the walk over its headers.

pub mod control;
pub mod index;
pub mod scripts;
mod stream;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};

use crate::base::seal::Sealed;
use crate::base::width::{to_u64, to_usize};
use crate::base::{Digest, Size, limits};
use crate::tree::from_tar::{self, Body, Limits, Member, TarError};
use crate::tree::{Bodies, NoBodies, Tree};

pub use control::{Control, ControlError};
pub use index::IndexError;
use stream::{Ar, Measured};

/// Control members are a few kilobytes of text and one line for each file (md5sums).
const CONTROL_LIMITS: Limits = Limits { members: limits::CONTROL_MEMBERS, bytes: limits::CONTROL };

/// Maintainer scripts, and the control files that make others' scripts run.
const SCRIPTS: [&str; 6] = ["preinst", "postinst", "prerm", "postrm", "config", "triggers"];

/// What a package is, besides its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// The `control` file.
    pub control: Control,
    /// Digests of the maintainer scripts and of `triggers`, by name.
    pub scripts: BTreeMap<String, Digest>,
    /// Words of its scripts that do something to the system, by script; see [`scripts::words`].
    pub actions: BTreeMap<String, Vec<String>>,
    /// The data, offsets counted from the beginning of the unpacked file.
    pub members: Vec<Member>,
}

/// Why a package could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum DebError {
    /// The file is not the one that was asked for: it rotted, or was cut short.
    #[error("expected {expected} bytes, but have {actual}")]
    Size {
        /// As locked.
        expected: u64,
        /// As found.
        actual: u64,
    },
    /// The file is not the one that was asked for: it rotted.
    #[error("expected SHA-256 {expected}, but have {actual}")]
    Digest {
        /// As locked.
        expected: Digest,
        /// As computed.
        actual: Digest,
    },
    /// A member of the outer archive that is not read here.
    #[error("{member} is {what}, which is not supported")]
    Unsupported {
        /// Such as `data.tar.bz2`.
        member: String,
        /// The feature.
        what: &'static str,
    },
    /// The outer archive is none, or lacks a part.
    #[error("no Debian package: {what} at byte {offset}")]
    Corrupt {
        /// Where in the .deb.
        offset: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// The `control` file makes no sense.
    #[error("control file: {0}")]
    Control(#[from] ControlError),
    /// The data is more than such a package can have.
    #[error(
        "{member}: {source} of a package of {size} bytes: {}, and {} times its size",
        Size(limits::PACKAGES_SLACK).human(), limits::RATIO
    )]
    TooLarge {
        /// Such as `data.tar.xz`.
        member: String,
        /// Where the limit is passed.
        source: TarError,
        /// Of the .deb, in bytes.
        size: u64,
    },
    /// One of the two inner archives is refused.
    #[error("{member}: {source}")]
    Tar {
        /// Such as `data.tar.xz`.
        member: String,
        /// Why.
        source: TarError,
    },
    /// The .deb could not be read.
    #[error("reading the package: {0}")]
    Read(#[source] io::Error),
    /// The unpacked file could not be written.
    #[error("writing the unpacked package: {0}")]
    Write(#[source] io::Error),
}

/// Unpacks `deb` into `unpacked`, which is empty: its decompressed data, then the index. `read` hears of
/// every stretch of the .deb that was read, in bytes.
///
/// # Errors
/// See [`DebError`]. A .deb that is not `size` bytes with the digest `sha256` fails as such, whatever else
/// its bytes lead to. After any error `unpacked` is of no use.
pub fn unpack(
    deb: &File,
    sha256: &Digest,
    size: u64,
    unpacked: &mut dyn Write,
    read: &dyn Fn(u64),
) -> Result<Package, DebError> {
    let actual = deb.metadata().map_err(DebError::Read)?.len();
    if actual != size {
        return Err(DebError::Size { expected: size, actual });
    }
    let mut measured = Measured::new(deb, read);
    let mut counted = Counted { writer: unpacked, count: 0 };
    let package = read_package(&mut measured, size, &mut counted);
    if matches!(&package, Err(DebError::Write(_) | DebError::Tar { source: TarError::Write { .. }, .. })) {
        return package;
    }
    let actual = measured.finish().map_err(DebError::Read)?;
    if actual != *sha256 {
        return Err(DebError::Digest { expected: *sha256, actual });
    }
    let package = package?;
    // Members that make no tree are refused before the file gets its name.
    package.tree(&NoBodies, "", 0)?;
    let start = counted.count;
    counted.write_all(&index::encode(&package, start)).map_err(DebError::Write)?;
    Ok(package)
}

/// Knows how far it is.
struct Counted<'a> {
    writer: &'a mut dyn Write,
    count: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.writer.write(bytes)?;
        self.count += to_u64(count);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// Reads back what [`unpack`] left in `unpacked`.
///
/// # Errors
/// See [`IndexError`]; the file must then be made again.
pub fn load(unpacked: &Sealed) -> Result<Package, IndexError> {
    index::load(unpacked)
}

impl Package {
    /// Bytes of its names, attributes and control data.
    pub fn size_in_memory(&self) -> u64 {
        let texts: usize = self.actions.values().flatten().map(|text| text.len() + 64).sum();
        let members: u64 = self.members.iter().map(Member::names).sum();
        let control = self.control.text();
        // Each field is kept in the text and by itself.
        let control = 2 * control.len() + 64 * control.lines().count();
        to_u64(control + texts) + members
    }

    /// The data as a tree, its bodies in `unpacked`, every node of the origin `name`.
    ///
    /// # Errors
    /// Those of [`from_tar::tree`]; they were found by [`unpack`] already.
    pub fn tree(&self, unpacked: &impl Bodies, name: &str, epoch: i64) -> Result<Tree, DebError> {
        from_tar::tree(&self.members, unpacked, 0, name, epoch)
            .map_err(|source| DebError::Tar { member: "data.tar".to_owned(), source })
    }
}

fn read_package(
    measured: &mut Measured<'_>,
    size: u64,
    unpacked: &mut dyn Write,
) -> Result<Package, DebError> {
    let mut ar = Ar::new(measured)?;
    let version = ar.expect("debian-binary")?;
    let mut text = Vec::new();
    ar.body(&version).take(64).read_to_end(&mut text).map_err(DebError::Read)?;
    if !text.starts_with(b"2.") {
        return Err(DebError::Unsupported { member: version.name, what: "not of format 2" });
    }
    ar.end(&version)?;

    let member = ar.expect("control.tar")?;
    let mut bytes = Vec::new();
    let parts = read_tar(&mut ar, &member, &mut bytes, CONTROL_LIMITS)?;
    ar.end(&member)?;
    let mut package = control_members(&parts, &bytes, &member)?;

    let member = ar.expect("data.tar")?;
    let limits = Limits { members: limits::NODES, bytes: unpacked_limit(size) };
    let mut writer = BufWriter::with_capacity(1 << 20, unpacked);
    package.members = read_tar(&mut ar, &member, &mut writer, limits).map_err(|error| match error {
        DebError::Tar { member, source: source @ TarError::TooLarge { limit, .. } }
            if limit == limits.bytes =>
        {
            DebError::TooLarge { member, source, size }
        }
        other => other,
    })?;
    writer.flush().map_err(DebError::Write)?;
    ar.end(&member)?;
    Ok(package)
}

/// How far a package of `size` bytes may unpack before it counts as a bomb, in bytes: what no compressor reaches on real
/// files but for a few, for which there is some room. What it says of itself, its Installed-Size, may be anything.
fn unpacked_limit(size: u64) -> u64 {
    size.saturating_mul(limits::RATIO).saturating_add(limits::PACKAGES_SLACK).min(limits::PACKAGE)
}

fn read_tar(
    ar: &mut Ar<'_, '_>,
    member: &stream::ArMember,
    copy: &mut dyn Write,
    limits: Limits,
) -> Result<Vec<Member>, DebError> {
    let mut archive = stream::decompress(&member.name, ar.body(member))?;
    from_tar::read(&mut archive, copy, limits)
        .map_err(|source| DebError::Tar { member: member.name.clone(), source })
}

fn control_members(parts: &[Member], bytes: &[u8], archive: &stream::ArMember) -> Result<Package, DebError> {
    let find = |name: &str| {
        parts.iter().find(|part| part.path == name.as_bytes()).and_then(|part| match part.body {
            Body::File { offset, len } => bytes.get(to_usize(offset)..to_usize(offset + len)),
            _ => None,
        })
    };
    let corrupt = |what| DebError::Corrupt { offset: archive.offset, what };
    for name in SCRIPTS.into_iter().chain(["control"]) {
        if find(name).is_some_and(|text| text.len() > limits::CONTROL_FILE) {
            return Err(corrupt("a control file or script has more than 1 MiB"));
        }
    }
    let control = find("control").ok_or_else(|| corrupt("no control file"))?;
    let control = str::from_utf8(control).map_err(|_| corrupt("control file is not UTF-8"))?;
    let mut digests = BTreeMap::new();
    let mut actions = BTreeMap::new();
    for name in SCRIPTS {
        let Some(script) = find(name) else { continue };
        digests.insert(name.to_owned(), Digest::of(script));
        let words = scripts::words(script, false);
        if !words.is_empty() {
            actions.insert(name.to_owned(), words);
        }
    }
    if actions.values().map(Vec::len).sum::<usize>() > limits::ACTIONS {
        return Err(corrupt("its scripts name more than 10000 programs and files"));
    }
    Ok(Package { control: Control::parse(control)?, scripts: digests, actions, members: Vec::new() })
}
