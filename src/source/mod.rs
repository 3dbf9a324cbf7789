//! Where inputs come from.
pub mod apt;
pub mod debian;
pub mod http;
pub mod mirror;
pub mod url;
