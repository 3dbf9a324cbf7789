//! Verbs.

pub mod progress;
