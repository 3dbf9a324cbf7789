//! keller as a user meets it: the real binary, its words, its exit codes and what it leaves on the disk.
//! Without a network: the archive is made and signed on the spot.

pub mod archive;
mod bad_input;
mod boot;
mod build;
mod conf_lines;
mod derived;
mod dialogue;
mod documents;
mod door;
mod elf;
mod enabling;
mod fetched;
mod hardware;
mod help;
mod hostile;
mod inspect;
mod install;
mod interrupted;
mod kernel;
mod lab;
mod leaves;
mod lock;
mod names;
mod owners;
mod pipes;
pub mod project;
mod publish;
mod recipes;
mod rights;
mod sharing;
mod standing;
mod store;
mod strangers;
mod streams;
mod sums;
mod tools;
