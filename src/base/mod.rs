//! What every room may lean on: digests, sizes, alignment, devices, whole files, sealed files, input that is only read
//! if it is a file, decompression, JSON with a bound, limits, names that were probably meant, progress, signals, scratch
//! directories, chains of errors, text for terminals, addresses that mean what they show, the order
//! of versions.

pub mod align;
pub mod atomic;
pub mod capabilities;
pub mod chain;
pub mod clock;
pub mod compression;
pub mod device;
pub mod digest;
pub mod duration;
pub mod failure;
pub mod fingerprint;
pub mod flock;
pub mod heap;
pub mod input;
pub mod json;
pub mod kernel;
pub mod limits;
pub mod near;
pub mod on_disk;
pub mod progress;
pub mod scratch;
pub mod seal;
pub mod signal;
pub mod size;
pub mod terminal;
pub mod user;
pub mod version;
pub mod web;
pub mod width;
pub mod window;

#[cfg(test)]
pub(crate) mod power_cut;

pub use atomic::AtomicFile;
pub use chain::Chain;
pub use compression::Compression;
pub use digest::{Digest, Hasher};
pub use fingerprint::Fingerprint;
pub use progress::{Progress, Task, Unit};
pub use signal::Signal;
pub use size::Size;
