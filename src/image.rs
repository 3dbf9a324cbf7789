//! The recipe: manifest and lock in, image out.
