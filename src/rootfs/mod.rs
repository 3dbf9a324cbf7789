//! Packages, overlays, users and units become one tree.
pub mod containers;
