//! What runs on the node once it is up: takes updates, judges boots, goes back.

mod accounts;
mod bless;
pub mod choice;
pub mod clock;
pub mod disk;
pub mod esp;
pub mod etc;
pub mod etcd;
mod evidence;
pub mod health;
mod install;
pub mod look;
pub mod machine;
pub mod node;
pub mod record;
mod rollback;
mod said;
pub mod schedule;
pub mod service;
pub mod settings;
pub mod status;
pub mod systemd;
pub mod trial;
pub mod units;
mod updater;
mod wire;

pub use crate::base::failure::{Doing, Failure};
pub use bless::bless;
pub use choice::Wanted;
pub use install::Until;
pub use rollback::RolledBack;
pub use settings::{Settings, Source};
pub use status::Status;
pub use updater::{Updater, reset_clock};
pub use wire::Counted;
