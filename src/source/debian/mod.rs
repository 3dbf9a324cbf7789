//! Debian archives.
pub mod deb;
