//! How the engine tells what it is doing. The engine never prints; `cli::progress` draws.

use std::io::{self, Read, Write};

use crate::base::width::to_u64;

/// What a task counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes, shown with a rate.
    Bytes,
    /// Things: packages, files.
    Items,
}

/// Names one running task of a [`Progress`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TaskId(pub usize);

/// Receives reports from every room below `cli`.
pub trait Progress: Send + Sync {
    /// A stage such as `downloading` begins; `total` in `unit`, 0 when unknown.
    fn begin(&self, stage: &str, total: u64, unit: Unit) -> TaskId;
    /// `task` has come further by `by` units.
    fn advance(&self, task: TaskId, by: u64);
    /// What `task` is at just now, e.g. a package name.
    fn at(&self, _task: TaskId, _what: &str) {}
    /// `task` has ended.
    fn end(&self, task: TaskId);
    /// Something that only those want to read who asked for every step.
    fn detail(&self, _text: &str) {}
    /// Something worth a line.
    fn note(&self, text: &str);
    /// Something a person should look at; the work goes on.
    fn warn(&self, text: &str);
}

/// A running task; it ends when dropped.
pub struct Task<'a> {
    progress: &'a dyn Progress,
    id: TaskId,
}

impl<'a> Task<'a> {
    /// Begins `stage` with `total` units of work, 0 when unknown.
    pub fn new(progress: &'a dyn Progress, stage: &str, total: u64, unit: Unit) -> Self {
        Self { progress, id: progress.begin(stage, total, unit) }
    }

    /// The task has come further by `by` units.
    pub fn advance(&self, by: u64) {
        self.progress.advance(self.id, by);
    }

    /// What the task is at just now.
    pub fn at(&self, what: &str) {
        self.progress.at(self.id, what);
    }
}

impl Drop for Task<'_> {
    fn drop(&mut self) {
        self.progress.end(self.id);
    }
}

/// Tells a task of each byte that passes through it.
pub struct Counted<'a, T> {
    inner: T,
    task: &'a Task<'a>,
}

impl<'a, T> Counted<'a, T> {
    /// Reads from `inner`, or writes to it.
    pub fn new(inner: T, task: &'a Task<'a>) -> Self {
        Self { inner, task }
    }

    /// What is underneath, of which the task hears nothing.
    pub fn get_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

impl<T: Read> Read for Counted<'_, T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.task.advance(to_u64(count));
        Ok(count)
    }
}

impl<T: Write> Write for Counted<'_, T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.task.advance(to_u64(count));
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Says of which part of the work each line is.
pub struct Scoped<'a> {
    scope: &'a str,
    inner: &'a dyn Progress,
}

impl<'a> Scoped<'a> {
    /// Puts `scope`, such as `container web: `, before each line that `inner` hears.
    pub fn new(scope: &'a str, inner: &'a dyn Progress) -> Self {
        Self { scope, inner }
    }
}

impl Progress for Scoped<'_> {
    fn begin(&self, stage: &str, total: u64, unit: Unit) -> TaskId {
        self.inner.begin(stage, total, unit)
    }
    fn advance(&self, task: TaskId, by: u64) {
        self.inner.advance(task, by);
    }
    fn at(&self, task: TaskId, what: &str) {
        self.inner.at(task, what);
    }
    fn end(&self, task: TaskId) {
        self.inner.end(task);
    }
    fn detail(&self, text: &str) {
        self.inner.detail(&format!("{}{text}", self.scope));
    }
    fn note(&self, text: &str) {
        self.inner.note(&format!("{}{text}", self.scope));
    }
    fn warn(&self, text: &str) {
        self.inner.warn(&format!("{}{text}", self.scope));
    }
}

/// Says nothing: for tests and for callers that do not look.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _: &str, _: u64, _: Unit) -> TaskId {
        TaskId(0)
    }
    fn advance(&self, _: TaskId, _: u64) {}
    fn end(&self, _: TaskId) {}
    fn note(&self, _: &str) {}
    fn warn(&self, _: &str) {}
}
