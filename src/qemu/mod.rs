//! Boots images on a workstation.
