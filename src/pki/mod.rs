//! Certificates that a node makes for itself: an authority, and pairs of a key and a certificate that it has signed.
//!
//! `wanted` says what a certificate is for, `authority` signs it, `pair` holds it beside its key and judges one that is
//! there already, `given` takes one that was made elsewhere, `bundle` has all authorities that somebody believes,
//! `directory` keeps the files through power cuts, and `etcd` is the set that one etcd member needs. `request` asks for a
//! certificate without showing the key, and `renewal` does so for the set of a member. No function here asks the clock: the
//! caller says what time it is.

mod authority;
mod bundle;
mod directory;
mod error;
pub mod etcd;
mod given;
mod pair;
pub mod renewal;
mod request;
mod wanted;

pub use authority::Authority;
pub use bundle::Bundle;
pub use directory::{Directory, Owner};
pub use error::{Error, Flaw};
pub use given::read;
pub use pair::{Names, Pair, end_of, end_of_der, name_of, names_of};
pub use wanted::{LIFETIME_SECONDS, Role, Wanted};

#[cfg(test)]
mod tests;
