//! Where inputs come from.
pub mod debian;
