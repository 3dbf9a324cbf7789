//! The files that one manifest is made of, and where they lie.

use std::ops::{Deref, DerefMut};

use super::files::Location;
use crate::written::place::{self, Mark};

/// All files of a manifest.
#[derive(Clone, Debug, Default)]
pub(super) struct Sources {
    texts: place::Sources,
    /// Of each text.
    locations: Vec<Location>,
}

impl Sources {
    /// Adds the file at `location` and gives its number.
    pub(super) fn add(&mut self, location: Location, text: String) -> u32 {
        let name = location.name();
        self.locations.push(location);
        self.texts.add(place::Source { name, text })
    }

    /// Where the file lies in which `mark` is.
    pub(super) fn location(&self, mark: Mark) -> &Location {
        &self.locations[crate::base::width::to_index(mark.source)]
    }
}

impl Deref for Sources {
    type Target = place::Sources;

    fn deref(&self) -> &place::Sources {
        &self.texts
    }
}

impl DerefMut for Sources {
    fn deref_mut(&mut self) -> &mut place::Sources {
        &mut self.texts
    }
}
