//! File systems: bytes out of a tree. Values in, bytes out; no clock, no process.

pub mod erofs;
pub mod ext4;
pub mod fat;
