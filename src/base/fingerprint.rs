//! Tells contents apart within a build or a store of one user, at several times the speed of [`super::Digest`]: what
//! is pinned, signed or part of a format is named by that one.

use std::io::{self, Read};

use crate::base::width::to_u64;

/// Bytes that are hashed at once: enough for all lanes of BLAKE3.
const PIECE: usize = 16 << 10;

/// BLAKE3 of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Of bytes in memory.
    pub fn of(bytes: impl AsRef<[u8]>) -> Self {
        Self(*blake3::hash(bytes.as_ref()).as_bytes())
    }

    /// Of `parts`, each with its length, where they serve `purpose`: equal bytes for another purpose have another one.
    pub fn of_parts(purpose: &str, parts: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(purpose);
        for part in parts {
            hasher.update(&to_u64(part.len()).to_le_bytes()).update(part);
        }
        Self(*hasher.finalize().as_bytes())
    }

    /// A quarter of it, where many are held and one that is taken for another costs little.
    pub fn short(&self) -> u64 {
        let (first, _) = self.0.split_first_chunk().expect("32 bytes have 8");
        u64::from_le_bytes(*first)
    }

    /// From its 32 raw bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Reads `reader` to its end; gives the fingerprint and the number of bytes.
    pub fn of_reader(reader: &mut impl Read) -> io::Result<(Self, u64)> {
        let mut hasher = blake3::Hasher::new();
        let mut piece = [0; PIECE];
        let mut size = 0;
        loop {
            match reader.read(&mut piece) {
                Ok(0) => return Ok((Self(*hasher.finalize().as_bytes()), size)),
                Ok(count) => {
                    hasher.update(&piece[..count]);
                    size += to_u64(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The 32 raw bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_blake3() {
        for length in [0, 1, PIECE - 1, PIECE, 3 * PIECE + 7] {
            let bytes: Vec<u8> = (0..length).map(|at| at as u8).collect();
            let (fingerprint, size) = Fingerprint::of_reader(&mut &bytes[..]).unwrap();
            assert_eq!((fingerprint.as_bytes(), size), (blake3::hash(&bytes).as_bytes(), to_u64(length)));
            assert_eq!(Fingerprint::of(&bytes), fingerprint);
        }
        let of_parts = |purpose, parts: &[&[u8]]| Fingerprint::of_parts(purpose, parts);
        assert_ne!(of_parts("a", &[b"xy", b"z"]), of_parts("a", &[b"x", b"yz"]));
        assert_ne!(of_parts("a", &[b"x"]), of_parts("b", &[b"x"]));
        assert_eq!(Fingerprint::from_bytes(*of_parts("a", &[]).as_bytes()), of_parts("a", &[]));
        // The test vector of the empty input in the BLAKE3 repository.
        let empty = Fingerprint::of_reader(&mut io::empty()).unwrap().0;
        assert!(hex::encode(empty.as_bytes()).starts_with("af1349b9f5f9a1a6a0404dea36dcc949"));
    }
}
