//! Writers of other programs' text formats: one for each format, each judged by the program that reads it.
//!
//! Whatever stands in a manifest, a package or a container image reaches such a format through these alone, so
//! that blanks, quotes, `%`, `$`, backslashes and line breaks mean themselves.

pub mod quadlet;
pub mod unit;
