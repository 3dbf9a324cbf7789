//! All integration tests, one crate: it links once.

mod judges;
