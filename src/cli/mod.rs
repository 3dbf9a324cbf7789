//! Verbs.

pub mod check;
pub mod new;
pub mod progress;
pub mod schema;
pub mod store;
