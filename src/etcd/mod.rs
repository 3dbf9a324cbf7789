//! A client of etcd: gRPC over HTTP/2 and mutual TLS, one member at a time.
//!
//! etcd's own HTTP gateway takes every request for one of the server itself, whatever certificate the client shows, so
//! that rights by certificates need gRPC. All calls block, and each has a deadline. Who is asked is an address: nothing is
//! looked up, and no other member is tried, so that an error is about the member that it names.

mod client;
mod connection;
mod error;
mod messages;

pub use client::{Change, Client, Known};
pub use connection::{Credentials, Shown, look};
pub use error::{Disbelief, Error};
pub use messages::{Alarm, CORRUPT, KeyValue, Member, NO_SPACE, ResponseHeader, Status};
pub use tonic::Code;
