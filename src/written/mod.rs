//! What people write: YAML or JSON in which every value knows its place, and all that is wrong with it told at once.
//!
//! `yaml` reads text into a tree with places, `header` looks which form it has, `shape` compares that with the schema of a type, `decode` makes the type
//! out of it. Manifests, node documents and lab files are written so; what their fields mean is for their rooms to
//! say, with the forms of single values (`form`) that they share.

pub(crate) mod decode;
pub mod diagnostic;
pub(crate) mod firsts;
pub(crate) mod form;
pub(crate) mod header;
pub(crate) mod place;
pub mod schema;
pub(crate) mod shape;
pub(crate) mod yaml;

pub use diagnostic::Diagnostics;
pub use place::Place;
