//! keller turns a declarative manifest into a bootable disk image of a minimal container host, and runs on
//! this host as its initramfs' `/init` and its agent.
//!
//! The pipeline, in the order of the rooms:
//!
//! `manifest` says what is wanted, in the way that `written` reads. `source` and `lock` turn it into pins, `fetch` brings the pinned bytes
//! into the `store`. `rootfs` makes one `tree` of packages, overlays and users. `fs` writes it as EROFS or
//! ext4, `verity` computes the hash tree and with it the root hash. `boot` binds this hash into a unified
//! kernel image and puts that into an ESP. `disk` lays out a GPT with two slots, and `output` writes the
//! result in the format that was asked for. `init` and `agent` are what runs on the node; `qemu` boots
//! images on a workstation. `http` gets files, `pki` makes certificates and `etcd` asks etcd, on either side; `cluster` is what an operator
//! asks of several nodes. `cli` is the only room that
//! prints.

// A test tells a story, which may be long.
#![cfg_attr(test, allow(clippy::too_many_lines))]
// What its samples are worth is known.
#![cfg_attr(
    test,
    allow(
        clippy::cast_lossless,
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        clippy::cast_sign_loss
    )
)]

#[cfg(test)]
extern crate self as keller;

pub mod agent;
pub mod base;
pub mod boot;
pub mod cli;
pub mod cluster;
pub mod disk;
pub mod etcd;
pub mod fetch;
pub mod fs;
pub mod http;
pub mod image;
pub mod init;
pub mod install;
pub mod lab;
pub mod lock;
pub mod manifest;
pub mod node;
pub mod output;
pub mod pki;
pub mod project;
pub(crate) mod qemu;
pub mod repository;
pub mod rootfs;
pub mod source;
pub mod store;
pub mod tree;
pub mod update;
pub mod verity;
pub mod written;
