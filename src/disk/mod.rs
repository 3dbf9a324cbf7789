//! Partition layout, GPT, slots, how an image becomes the disk of a node, disks for a state alone, the partitions of an image file.

pub mod gpt;
pub mod layout;
mod partition_writer;
pub mod slot;
pub mod state_disk;
pub mod sys;
pub mod unfold;

pub use crate::base::device::{Device, FileDevice, ReadAt, SectorSize, Window};
pub use layout::{Layout, Role, Sizes};
pub use partition_writer::PartitionWriter;
pub use slot::{Release, Slot};
