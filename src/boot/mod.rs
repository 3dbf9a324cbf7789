//! From a kernel and a root hash to an ESP, and what the builder and `/init` agree on.
//!
//! Two contracts live here, each defined once: the kernel command line ([`cmdline`]) and the list of modules
//! in the initramfs ([`modules`]) with how to load them ([`modprobe`]). A third, [`handover`], is what `/init` tells the running node, and a
//! fourth, [`starts`], what they tell the next `/init`.

pub mod cmdline;
pub mod cpio;
pub mod entries;
pub mod esp;
pub mod handover;
pub mod initramfs;
pub mod lease;
pub mod live;
pub mod load_option;
pub mod microcode;
pub mod modprobe;
pub mod modules;
pub mod network;
pub mod pe;
pub mod starts;
pub mod uki;
pub mod variables;
