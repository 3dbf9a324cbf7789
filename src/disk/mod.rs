//! Partition layout, GPT, slots, the image file.

pub mod gpt;
pub mod image;
pub mod layout;
pub mod slot;
pub mod sys;

pub use crate::base::device::{Device, FileDevice, ReadAt, SectorSize, Window};
pub use image::Image;
pub use layout::{Layout, Role, Sizes};
pub use slot::{Release, Slot};
