//! Digests that a signed release or an index vouches with: SHA-256, or SHA-512 where an archive has only that.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha512 as Hasher};

use crate::base::Digest;

/// A SHA-512 digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha512([u8; 64]);

impl Sha512 {
    /// Of `bytes`.
    pub fn of(bytes: impl AsRef<[u8]>) -> Self {
        Self(Hasher::digest(bytes.as_ref()).into())
    }

    /// Of all that `reader` has.
    pub fn of_reader(mut reader: impl std::io::Read) -> std::io::Result<Self> {
        let mut hasher = Hasher::new();
        let mut buffer = vec![0; 128 << 10];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return Ok(Self(hasher.finalize().into())),
                Ok(count) => hasher.update(&buffer[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl fmt::Display for Sha512 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Sha512 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sha512({self})")
    }
}

/// What the bytes of a file must hash to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// The store's own kind: such a file may be there already.
    Sha256(Digest),
    /// Known only after the file is here.
    Sha512(Sha512),
}

impl Checksum {
    /// Of `bytes`, by the same kind of digest.
    pub fn of_same_kind(self, bytes: &[u8]) -> Self {
        match self {
            Self::Sha256(_) => Self::Sha256(Digest::of(bytes)),
            Self::Sha512(_) => Self::Sha512(Sha512::of(bytes)),
        }
    }

    /// The field of a release and the directory below `by-hash` that have this kind.
    pub fn field(self) -> &'static str {
        match self {
            Self::Sha256(_) => "SHA256",
            Self::Sha512(_) => "SHA512",
        }
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(digest) => write!(f, "{digest}"),
            Self::Sha512(digest) => write!(f, "{digest}"),
        }
    }
}

/// Hexadecimal digits of another count than SHA-256 and SHA-512 have, or no such digits.
#[derive(Debug, thiserror::Error)]
#[error("neither a SHA-256 nor a SHA-512 digest")]
pub struct ParseChecksumError;

impl FromStr for Checksum {
    type Err = ParseChecksumError;

    /// The number of digits tells the kind.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() != 128 {
            return text.parse().map(Self::Sha256).map_err(|_| ParseChecksumError);
        }
        let mut bytes = [0; 64];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| ParseChecksumError)?;
        Ok(Self::Sha512(Sha512(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_by_their_length() {
        let (short, long) = (Digest::of("x").to_string(), Sha512::of("x").to_string());
        assert_eq!(short.parse::<Checksum>().unwrap(), Checksum::Sha256(Digest::of("x")));
        assert_eq!(long.parse::<Checksum>().unwrap(), Checksum::Sha512(Sha512::of("x")));
        // As sha512sum has it.
        assert!(
            long.starts_with("a4abd4448c49562d828115d13a1fccea927f52b4d5459297f8b43e42da89238b"),
            "{long}"
        );
        assert_eq!(Sha512::of_reader(&b"x"[..]).unwrap(), Sha512::of("x"));
        for bad in ["", "00", &long[1..], &long.replace('a', "g"), &format!("{long}00")] {
            assert!(bad.parse::<Checksum>().is_err(), "{bad}");
        }
    }
}
