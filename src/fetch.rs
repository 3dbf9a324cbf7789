//! Lock to store: parallel, verified, resumable.
