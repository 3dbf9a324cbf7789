//! Other programs' text formats: one writer and one reader for each format, judged by the program that reads it.
//!
//! Whatever stands in a manifest, a package or a container image reaches such a format through these alone, so
//! that blanks, quotes, `%`, `$`, backslashes and line breaks mean themselves. Whatever is read of such a format
//! is read by these alone, so that it means here what it means on a node.

pub mod command;
pub mod quadlet;
pub mod settings;
pub mod unit;
pub mod words;
