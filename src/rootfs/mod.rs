//! Packages, overlays, users and units become one tree.
pub mod checks;
pub mod conf_d;
pub mod containers;
pub mod error;
pub mod ldcache;
pub mod modules;
pub mod packages;
pub mod users;

pub use error::Error;
pub use modules::ModuleIndex;
