//! What an update is made of, and the only writer of slots.
//!
//! `document` says what a version is: the one file of it that is signed. `delta` turns it into the bytes of
//! a root by whichever way is the shortest from what the node has, and `apply` puts them into the slot that
//! is not running, in an order in which every interruption leaves a node that boots.

pub mod apply;
mod counted;
pub mod delta;
pub mod document;
pub mod remote;
pub mod settings;

pub use counted::Counted;
pub use document::Document;
pub use remote::{Remote, RemoteError};
