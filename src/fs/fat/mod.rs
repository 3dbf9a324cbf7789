//! FAT32, for the ESP.
