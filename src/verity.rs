//! The dm-verity hash tree and its root hash.
