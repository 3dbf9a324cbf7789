//! Where inputs come from.
pub mod apt;
pub mod debian;
pub mod mirror;
