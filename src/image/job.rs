//! What one build is told.

use anyhow::{Context, Result};
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::base::Digest;
use crate::base::progress::Progress;
use crate::lock::Lock;
use crate::manifest::Manifest;
use crate::store::Store;
use crate::tree::Content;

/// Stack of a thread in bytes, of which only what is used is memory: modules that wish for each other in a row, as many
/// as are read, are followed one within the other.
const STACK: usize = 32 << 20;

/// Settings that change how a build works, never what it makes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Threads for unpacking, hashing and compressing; 0 is one for each processor.
    pub threads: usize,
}

impl Settings {
    /// Threads to work in, so many as are wanted.
    pub(crate) fn pool(&self) -> Result<ThreadPool> {
        let pool = ThreadPoolBuilder::new().num_threads(self.threads).stack_size(STACK);
        pool.build().context("starting threads")
    }
}

/// Where a build works, how, and who hears of it: nothing of this reaches the image.
#[derive(Clone, Copy)]
pub struct Means<'a> {
    /// Where the locked inputs are.
    pub store: &'a Store,
    /// How to work.
    pub settings: Settings,
    /// Who hears of it.
    pub progress: &'a dyn Progress,
}

/// Everything that a build works from. Nothing else reaches the image.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    /// What is wanted.
    pub manifest: &'a Manifest,
    /// What was resolved, whole.
    pub lock: &'a Lock,
    /// The keller for the node, and its digest.
    pub keller: (&'a Content, Digest),
    /// How to work.
    pub means: Means<'a>,
}
