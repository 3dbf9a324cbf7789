//! The only place that draws: bars on a terminal, plain lines elsewhere, nothing with `--quiet`.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{consoles, streams};
use crate::base::Size;
use crate::base::progress::{Progress, TaskId, Unit};
use crate::base::terminal;

/// How much is shown on standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Errors and warnings.
    Quiet,
    /// Stages and the summary.
    Normal,
    /// Every note too.
    Verbose,
}

/// Draws what the engine reports, and remembers how long each stage took.
pub struct Display {
    verbosity: Verbosity,
    bars: Option<MultiProgress>,
    serial: AtomicUsize,
    running: Mutex<HashMap<TaskId, Running>>,
    stages: Mutex<Vec<StageTime>>,
}

struct Running {
    stage: String,
    unit: Unit,
    total: u64,
    done: u64,
    begun: Instant,
    told: Instant,
    bar: Option<ProgressBar>,
}

/// Where the consoles of a machine show what is done, how often they show how far it is.
const BEAT: Duration = Duration::from_secs(10);

/// What one stage did.
#[derive(Clone, Debug)]
pub struct StageTime {
    /// Its name.
    pub stage: String,
    /// From begin to end.
    pub time: Duration,
    /// Units done.
    pub done: u64,
    /// What was counted.
    pub unit: Unit,
}

impl Display {
    /// Bars where standard error is a terminal and `verbosity` is not quiet.
    pub fn new(verbosity: Verbosity) -> Self {
        let draw = verbosity > Verbosity::Quiet && streams::errors_are_on_terminal();
        let bars = draw.then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10)));
        Self {
            verbosity,
            bars,
            serial: AtomicUsize::new(0),
            running: Mutex::default(),
            stages: Mutex::default(),
        }
    }

    /// The stages that have ended, in the order of their end.
    pub fn stages(&self) -> Vec<StageTime> {
        self.stages.lock().expect("no panic while held").clone()
    }

    fn line(&self, text: &str) {
        match &self.bars {
            Some(bars) => bars.suspend(|| streams::message(text)),
            None => streams::message(text),
        }
    }
}

fn style(total: u64, unit: Unit) -> ProgressStyle {
    let template = match (unit, total) {
        (Unit::Bytes, 0) => "{prefix:>12} {spinner} {bytes} {binary_bytes_per_sec} {wide_msg}",
        (Unit::Bytes, _) => {
            "{prefix:>12} [{bar:30}] {bytes}/{total_bytes} {binary_bytes_per_sec} {eta} {wide_msg}"
        }
        (Unit::Items, 0) => "{prefix:>12} {spinner} {pos} {wide_msg}",
        (Unit::Items, _) => "{prefix:>12} [{bar:30}] {pos}/{len} {wide_msg}",
    };
    ProgressStyle::with_template(template).expect("the templates are well-formed").progress_chars("=> ")
}

fn amount(done: u64, unit: Unit, time: Duration) -> String {
    match unit {
        _ if done == 0 => String::new(),
        Unit::Items => format!("{done}"),
        Unit::Bytes if time.as_millis() > 0 => {
            let rate = u128::from(done) * 1000 / time.as_millis();
            let rate = Size(u64::try_from(rate).unwrap_or(u64::MAX));
            format!("{}, {}/s", Size(done).human(), rate.human())
        }
        Unit::Bytes => Size(done).human(),
    }
}

impl Running {
    /// How far it is, in a line.
    fn so_far(&self) -> String {
        let done = amount(self.done, self.unit, self.begun.elapsed());
        match self.done.saturating_mul(100).checked_div(self.total) {
            Some(percent) => format!("{:>12} {percent} %  {done}", self.stage),
            None => format!("{:>12} {done}", self.stage),
        }
    }
}

impl Progress for Display {
    fn begin(&self, stage: &str, total: u64, unit: Unit) -> TaskId {
        let id = TaskId(self.serial.fetch_add(1, Ordering::Relaxed));
        let bar = self.bars.as_ref().map(|bars| {
            let bar = bars.add(if total == 0 { ProgressBar::no_length() } else { ProgressBar::new(total) });
            bar.set_style(style(total, unit));
            bar.set_prefix(terminal::one_line(stage).into_owned());
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        if bar.is_none() && self.verbosity > Verbosity::Quiet {
            streams::message(stage);
        }
        let begun = Instant::now();
        let running = Running { stage: stage.to_owned(), unit, total, done: 0, begun, told: begun, bar };
        self.running.lock().expect("no panic while held").insert(id, running);
        id
    }

    fn advance(&self, task: TaskId, by: u64) {
        if let Some(running) = self.running.lock().expect("no panic while held").get_mut(&task) {
            running.done += by;
            if let Some(bar) = &running.bar {
                bar.inc(by);
            }
            if consoles::are_joined() && running.told.elapsed() >= BEAT {
                running.told = Instant::now();
                streams::message(running.so_far());
            }
        }
    }

    fn at(&self, task: TaskId, what: &str) {
        if let Some(bar) =
            self.running.lock().expect("no panic while held").get(&task).and_then(|r| r.bar.as_ref())
        {
            bar.set_message(terminal::one_line(what).into_owned());
        }
    }

    fn end(&self, task: TaskId) {
        let Some(running) = self.running.lock().expect("no panic while held").remove(&task) else { return };
        if let Some(bar) = running.bar {
            bar.finish_and_clear();
        }
        let time = running.begun.elapsed();
        if self.verbosity >= Verbosity::Verbose {
            let amount = amount(running.done, running.unit, time);
            self.line(&format!("{:>12} {:.2} s  {amount}", running.stage, time.as_secs_f64()));
        }
        let stage = StageTime { stage: running.stage, time, done: running.done, unit: running.unit };
        self.stages.lock().expect("no panic while held").push(stage);
    }

    fn detail(&self, text: &str) {
        if self.verbosity >= Verbosity::Verbose {
            self.line(text);
        }
    }

    fn note(&self, text: &str) {
        if self.verbosity >= Verbosity::Normal {
            self.line(text);
        }
    }

    fn warn(&self, text: &str) {
        self.line(&format!("warning: {text}"));
    }
}

/// The closing table: a line a stage with its time and amount.
pub fn summary(stages: &[StageTime]) -> String {
    let mut text = String::new();
    let mut merged: Vec<StageTime> = Vec::new();
    for stage in stages {
        match merged.iter_mut().find(|known| known.stage == stage.stage) {
            Some(known) => {
                known.time += stage.time;
                known.done += stage.done;
            }
            None => merged.push(stage.clone()),
        }
    }
    for stage in merged {
        let amount = amount(stage.done, stage.unit, stage.time);
        text.push_str(&format!("{:>14} {:7.2} s  {amount}\n", stage.stage, stage.time.as_secs_f64()));
    }
    text
}
