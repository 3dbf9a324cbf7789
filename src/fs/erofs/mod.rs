//! EROFS, uncompressed.
