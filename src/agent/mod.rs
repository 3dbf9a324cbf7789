//! What runs on the node once it is up: takes updates, judges boots, goes back.
