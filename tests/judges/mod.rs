//! Our bytes as the real tools see them.

mod boot_versions;
mod capabilities;
mod cpio;
mod depmod;
mod dpkg;
mod dpkg_root;
mod erofs;
mod ext4;
mod fat;
mod fat_editor;
mod finished;
pub mod fixture;
mod folder;
mod gpt;
mod ldconfig;
mod modprobe;
mod qcow2;
mod quadlet;
mod tmpfiles;
pub mod tool;
pub mod trixie;
pub mod uki;
pub mod umoci;
mod units;
mod verity;
mod versions;
mod volumes;
