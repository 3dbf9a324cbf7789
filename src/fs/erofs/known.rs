//! What is known of the bodies in an image that was written before: so that one that has not changed is neither read
//! nor hashed again.
//!
//! ```text
//! for each body, 72 bytes: identity 32, BLAKE3 32 or zeros where it is not known, first block 4, zeros 4
//! ```
//!
//! They stand in the order of their identities. Numbers are little-endian.

use crate::base::Fingerprint;
use crate::base::on_disk::{FromBytes, FromZeros, IntoBytes, le, on_disk};

on_disk! {
    /// One body.
    Entry: 72 bytes {
        identity: [u8; 32],
        print: [u8; 32],
        block: le::U32,
        _zeros: [u8; 4],
    }
}

/// The bodies of an image, by [`crate::tree::Content::identity`]: 7 MB of 100,000 files, kept as it is written.
#[derive(Debug, Default)]
pub struct Known(Vec<Entry>);

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Body {
    /// Of its bytes, if these were compared with those of another.
    pub print: Option<Fingerprint>,
    /// The first of its blocks in the image.
    pub block: u32,
}

impl Known {
    /// The body with this identity.
    pub fn get(&self, identity: &Fingerprint) -> Option<Body> {
        let at = self.0.binary_search_by_key(&identity.as_bytes(), |entry| &entry.identity).ok()?;
        let entry = &self.0[at];
        let print = (entry.print != [0; 32]).then(|| Fingerprint::from_bytes(entry.print));
        Some(Body { print, block: entry.block.get() })
    }

    /// As it is kept.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Reads what [`Known::as_bytes`] gave; `None` for anything of another length or order.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let entries = <[Entry]>::ref_from_bytes(bytes).ok()?;
        entries.is_sorted_by(|one, next| one.identity < next.identity).then(|| Self(entries.to_vec()))
    }
}

impl FromIterator<(Fingerprint, Body)> for Known {
    fn from_iter<T: IntoIterator<Item = (Fingerprint, Body)>>(bodies: T) -> Self {
        let entry = |(identity, body): (Fingerprint, Body)| Entry {
            identity: *identity.as_bytes(),
            print: body.print.map_or([0; 32], |print| *print.as_bytes()),
            block: body.block.into(),
            ..Entry::new_zeroed()
        };
        let mut entries: Vec<Entry> = bodies.into_iter().map(entry).collect();
        // Bodies with one identity have equal bytes: any of them will do, and the first is as good as it is the same each time.
        entries.sort_by_key(|entry| entry.identity);
        entries.dedup_by_key(|entry| entry.identity);
        Self(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_back_as_it_was_kept() {
        let [a, b] = ["a", "b"].map(Fingerprint::of);
        let [of_a, of_b] = [Body { print: Some(b), block: 7 }, Body { print: None, block: u32::MAX }];
        let known: Known = [(a, of_a), (b, of_b), (a, of_b)].into_iter().collect();
        let mut bytes = known.as_bytes().to_vec();
        assert_eq!(bytes.len(), 144);
        let read = Known::from_bytes(&bytes).unwrap();
        assert_eq!([a, b, Fingerprint::of("c")].map(|it| read.get(&it)), [Some(of_a), Some(of_b), None]);
        bytes.rotate_left(72);
        assert!(Known::from_bytes(&bytes).is_none());
        assert!(Known::from_bytes(&bytes[1..]).is_none());
    }
}
