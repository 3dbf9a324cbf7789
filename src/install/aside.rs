//! Work on a thread of its own. The caller's thread shows the progress and listens for an interruption, which a silent
//! server would otherwise hold up.

use std::panic;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use crate::base::Unit;
use crate::base::progress::{Progress, TaskId};

/// Between two looks at whether somebody wants to stop.
const PAUSE: Duration = Duration::from_millis(100);

/// What the work tells, in its order.
enum Told {
    Begin(String, u64, Unit),
    Advance(TaskId, u64),
    At(TaskId, String),
    End(TaskId),
    Detail(String),
    Note(String),
    Warn(String),
}

/// Hands on what it hears. Tasks have the numbers of their order.
struct Teller {
    queue: Sender<Told>,
    begun: AtomicUsize,
}

impl Teller {
    fn tell(&self, told: Told) {
        // Nobody hears it once the work was left.
        let _ = self.queue.send(told);
    }
}

impl Progress for Teller {
    fn begin(&self, stage: &str, total: u64, unit: Unit) -> TaskId {
        let id = TaskId(self.begun.fetch_add(1, Ordering::Relaxed));
        self.tell(Told::Begin(stage.to_owned(), total, unit));
        id
    }
    fn advance(&self, task: TaskId, by: u64) {
        self.tell(Told::Advance(task, by));
    }
    fn at(&self, task: TaskId, what: &str) {
        self.tell(Told::At(task, what.to_owned()));
    }
    fn end(&self, task: TaskId) {
        self.tell(Told::End(task));
    }
    fn detail(&self, text: &str) {
        self.tell(Told::Detail(text.to_owned()));
    }
    fn note(&self, text: &str) {
        self.tell(Told::Note(text.to_owned()));
    }
    fn warn(&self, text: &str) {
        self.tell(Told::Warn(text.to_owned()));
    }
}

/// Does `work`, whose tasks are begun one at a time. Gives nothing once `is_stopped`; the work then runs on unheard and ends
/// with the program.
pub(super) fn aside<T: Send + 'static>(
    work: impl FnOnce(&dyn Progress) -> T + Send + 'static,
    is_stopped: &dyn Fn() -> bool,
    progress: &dyn Progress,
) -> Option<T> {
    let (queue, told) = mpsc::channel();
    let worker = thread::spawn(move || work(&Teller { queue, begun: AtomicUsize::new(0) }));
    let mut tasks = Vec::new();
    loop {
        if is_stopped() {
            return None;
        }
        match told.recv_timeout(PAUSE) {
            Ok(told) => pass_on(told, &mut tasks, progress),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Some(worker.join().unwrap_or_else(|panicked| panic::resume_unwind(panicked)));
            }
        }
    }
}

/// Tells `progress`, which has given each of the `tasks` a number of its own.
fn pass_on(told: Told, tasks: &mut Vec<TaskId>, progress: &dyn Progress) {
    match told {
        Told::Begin(stage, total, unit) => tasks.push(progress.begin(&stage, total, unit)),
        Told::Advance(task, by) => progress.advance(tasks[task.0], by),
        Told::At(task, what) => progress.at(tasks[task.0], &what),
        Told::End(task) => progress.end(tasks[task.0]),
        Told::Detail(text) => progress.detail(&text),
        Told::Note(text) => progress.note(&text),
        Told::Warn(text) => progress.warn(&text),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::base::Task;
    use crate::base::progress::Silent;

    /// Writes down what it hears; its tasks are numbered from 7 on.
    #[derive(Default)]
    struct Heard(Mutex<Vec<String>>);

    impl Heard {
        fn hear(&self, text: String) {
            self.0.lock().unwrap().push(text);
        }
    }

    impl Progress for Heard {
        fn begin(&self, stage: &str, total: u64, _: Unit) -> TaskId {
            let count = self.0.lock().unwrap().iter().filter(|text| text.starts_with("begin")).count();
            self.hear(format!("begin {stage} {total}"));
            TaskId(7 + count)
        }
        fn advance(&self, task: TaskId, by: u64) {
            self.hear(format!("{} +{by}", task.0));
        }
        fn at(&self, task: TaskId, what: &str) {
            self.hear(format!("{} at {what}", task.0));
        }
        fn end(&self, task: TaskId) {
            self.hear(format!("{} ends", task.0));
        }
        fn note(&self, text: &str) {
            self.hear(format!("note {text}"));
        }
        fn warn(&self, text: &str) {
            self.hear(format!("warn {text}"));
        }
    }

    #[test]
    fn what_the_work_tells_is_told_and_what_it_gives_is_given() {
        let heard = Heard::default();
        let work = |progress: &dyn Progress| {
            let first = Task::new(progress, "one", 5, Unit::Bytes);
            progress.note("x");
            let second = Task::new(progress, "two", 0, Unit::Items);
            second.at("y");
            first.advance(5);
            drop(first);
            progress.warn("z");
            42
        };
        assert_eq!(aside(work, &|| false, &heard), Some(42));
        let expected =
            ["begin one 5", "note x", "begin two 0", "8 at y", "7 +5", "7 ends", "warn z", "8 ends"];
        assert_eq!(*heard.0.lock().unwrap(), expected);
    }

    #[test]
    fn work_that_hangs_is_left() {
        let hangs = |_: &dyn Progress| thread::sleep(Duration::from_secs(3600));
        let looks = AtomicUsize::new(0);
        let stopped = || looks.fetch_add(1, Ordering::Relaxed) > 1;
        assert_eq!(aside(hangs, &stopped, &Silent), None);
    }
}
