//! What runs on the node once it is up: takes updates, judges boots, goes back.

pub mod esp;
mod failure;
pub mod health;
pub mod node;
pub mod settings;
pub mod systemd;

pub use failure::{Doing, Failure};
pub use settings::Settings;
