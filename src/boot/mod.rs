//! From a kernel and a root hash to an ESP.
