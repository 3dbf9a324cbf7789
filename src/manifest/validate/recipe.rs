//! What a tree is made of: one way for the root of a node and for the image of a container.

use std::collections::BTreeMap;

use super::accounts::Accounts;
use super::{At, Validator, text};
use crate::manifest::raw::RawRecipe;
use crate::manifest::{Allowed, Place, Recipe};

/// Whose tree a recipe makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// A node's root, of which the state partition covers some directories.
    Node,
    /// The image of a container.
    Container,
}

impl Validator<'_> {
    /// `accounts` are those that the tree has besides.
    pub(super) fn recipe(&mut self, raw: RawRecipe, accounts: Accounts, target: Target) -> Recipe {
        let outer = std::mem::take(&mut self.said);
        let packages = self.packages(raw.packages);
        Recipe {
            assume: self.assume(raw.assume, &packages),
            packages,
            prune: self.names("prune", raw.prune, text::pattern),
            keep: self.names("keep", raw.keep, text::pattern),
            overlays: self.overlays(raw.overlays),
            files: self.files(raw.files, target),
            system_users: self.system_users(raw.system_users, accounts),
            groups: self.groups(raw.groups),
            allowed: self.allowed(raw.setuid, raw.device_nodes, raw.world_writable),
            missing_libraries: self.reasons(raw.missing_libraries, text::library),
            said: std::mem::replace(&mut self.said, outer),
        }
    }

    /// What may give others rights, by path.
    pub(super) fn allowed(
        &mut self,
        setuid: Vec<At<String>>,
        device_nodes: Vec<At<String>>,
        world_writable: Vec<At<String>>,
    ) -> Allowed {
        Allowed {
            setuid: self.names("setuid", setuid, text::path_pattern),
            device_nodes: self.names("device_nodes", device_nodes, text::path_pattern),
            world_writable: self.names("world_writable", world_writable, text::path_pattern),
        }
    }

    fn packages(&mut self, items: Vec<At<String>>) -> BTreeMap<String, Place> {
        let mut packages = BTreeMap::new();
        for at in items {
            let mark = at.mark;
            if let Some(name) = self.checked(at, text::package) {
                let place = self.place(mark);
                packages.entry(name).or_insert(place);
            }
        }
        packages
    }

    fn assume(
        &mut self,
        items: BTreeMap<String, At<String>>,
        packages: &BTreeMap<String, Place>,
    ) -> BTreeMap<String, String> {
        for (name, reason) in &items {
            if let Some(place) = packages.get(name) {
                let asked = format!("{}:{}", place.file.display(), place.line);
                self.error(reason.mark, format!("`{name}` is assumed, but also wanted at {asked}"))
                    .help("an assumed package is not unpacked: remove one of the two");
            }
        }
        for (name, reason) in &items {
            self.note("assume", name, reason.mark);
        }
        self.reasons(items, text::package)
    }
}
