//! Packages, overlays, users and units become one tree.
pub mod checks;
pub mod containers;
pub mod error;
pub mod ldcache;
pub mod modules;
pub mod packages;

pub use error::Error;
pub use modules::ModuleIndex;
