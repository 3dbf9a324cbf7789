//! All integration tests, one crate: it links once.

// Nothing leaves a program of tests.
#![allow(unreachable_pub)]
// A test tells a story, which may be long.
#![allow(clippy::too_many_lines)]
// What its samples are worth is known.
#![allow(
    clippy::cast_lossless,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss
)]

mod bad_updates;
mod boot;
mod ci;
mod cli;
mod deb;
mod dump;
mod fetch;
mod heard;
mod http_server;
mod judges;
mod lab;
mod laws;
mod lock;
mod manifest;
mod node;
mod pages;
mod repository;
mod stream;
mod unfold;
mod unpack;
mod updates;
