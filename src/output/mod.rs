//! The formats in which an image leaves.
