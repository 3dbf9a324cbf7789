//! Our bytes as the real tools see them.

mod depmod;
mod dpkg;
mod erofs;
mod fixture;
mod folder;
mod ldconfig;
mod tool;
mod verity;
