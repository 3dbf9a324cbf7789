//! What stands in a file a second time.

use std::collections::{BTreeMap, BTreeSet};

use super::place::Mark;

/// Each value once, in the order of first mention.
pub(crate) fn unique<T: Ord + Clone>(mut values: Vec<T>) -> Vec<T> {
    let mut seen = BTreeSet::new();
    values.retain(|value| seen.insert(value.clone()));
    values
}

/// The first values under each key, to tell of the second.
pub(crate) struct Firsts<K>(BTreeMap<K, Mark>);

impl<K: Ord> Firsts<K> {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Where `key` was before, if it was.
    pub(crate) fn note(&mut self, key: K, mark: Mark) -> Option<Mark> {
        match self.0.get(&key) {
            Some(first) => Some(*first),
            None => {
                self.0.insert(key, mark);
                None
            }
        }
    }
}
