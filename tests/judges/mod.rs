//! Our bytes as the real tools see them.

mod erofs;
mod fixture;
mod tool;
mod verity;
