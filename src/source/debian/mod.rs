//! Debian archives: signed releases, package indexes, versions.

pub mod packages;
pub mod release;
pub mod upstream;
pub mod version;
