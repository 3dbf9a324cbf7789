//! What an operator asks of a cluster of etcd that runs: from a member, or from outside with a certificate.
//!
//! `access` says who is asked and as whom, `view` asks all members at once, `wound` says what is wrong with what they
//! answered, `change` takes members in and out, `rights` says who may do what, `backup` saves what they have as a
//! `snapshot`, `requests` are those of members for new certificates, `sign` answers these, and `trust` says how far members
//! are while their authorities are replaced.

pub mod access;
pub mod backup;
pub mod change;
pub mod requests;
pub mod rights;
pub mod sign;
pub mod snapshot;
pub mod trust;
pub mod view;
pub mod wound;

pub use access::Access;
pub use view::View;
