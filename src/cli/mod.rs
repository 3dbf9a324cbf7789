//! Verbs.

pub mod progress;
pub mod store;
