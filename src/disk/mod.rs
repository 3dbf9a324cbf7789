//! Partition layout, GPT, slots, the image file.
