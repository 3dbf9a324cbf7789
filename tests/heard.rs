//! Who listens to what keller tells while it works.

use std::sync::{Mutex, MutexGuard, PoisonError};

use keller::base::progress::{Progress, TaskId, Unit};

/// Hears notes and warnings.
#[derive(Default)]
pub struct Heard {
    /// Both, in their order.
    all: Mutex<Vec<String>>,
    warnings: Mutex<Vec<String>>,
}

fn lock(lines: &Mutex<Vec<String>>) -> MutexGuard<'_, Vec<String>> {
    lines.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Heard {
    /// All that was said, a line each.
    pub fn text(&self) -> String {
        lock(&self.all).join("\n")
    }

    /// What was warned of.
    pub fn warnings(&self) -> Vec<String> {
        lock(&self.warnings).clone()
    }
}

impl Progress for Heard {
    fn begin(&self, _: &str, _: u64, _: Unit) -> TaskId {
        TaskId(0)
    }
    fn advance(&self, _: TaskId, _: u64) {}
    fn end(&self, _: TaskId) {}
    fn note(&self, text: &str) {
        lock(&self.all).push(text.to_owned());
    }
    fn warn(&self, text: &str) {
        self.note(text);
        lock(&self.warnings).push(text.to_owned());
    }
}
