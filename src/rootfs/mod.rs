//! Packages, overlays, users and units become one tree.
