//! Debian archives: signed releases, package indexes, versions, packages.

pub mod checksum;
pub mod deb;
pub mod packages;
pub(crate) mod path;
pub mod release;
pub mod upstream;
pub mod version;
