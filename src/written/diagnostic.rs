//! What is wrong with a file, told with the place, the line and the way out.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;

use serde::{Serialize, Serializer, ser::SerializeStruct};

use super::place::{Mark, Place, Sources};
use crate::base::terminal::{acts, one_line};
use crate::base::width::to_index;
use crate::base::{json, limits};

/// A finding while the sources are still at hand.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    pub mark: Mark,
    pub message: String,
    pub help: Option<String>,
    pub related: Vec<(Mark, String)>,
    /// The line holds what must not be shown: it would end up in logs.
    pub secret: bool,
}

/// Everything found so far; reading goes on after each finding.
#[derive(Debug, Default)]
pub(crate) struct Report {
    problems: Vec<Problem>,
    /// The latest one beyond [`limits::MISTAKES`], which is not told.
    untold: Option<Problem>,
    /// Lines that hold secrets, by source, whatever is wrong with them.
    secrets: Vec<(u32, Range<u32>)>,
    /// Whether all of this was taken before.
    is_of_kept: bool,
}

impl Report {
    /// Of a text that was judged when it was taken, maybe by an older keller, which asked for less.
    pub(crate) fn of_kept() -> Self {
        Self { is_of_kept: true, ..Self::default() }
    }

    pub(crate) fn is_of_kept(&self) -> bool {
        self.is_of_kept
    }

    /// Notes a finding; more can be said about it through what is given back.
    pub(crate) fn error(&mut self, mark: Mark, message: impl Into<String>) -> &mut Problem {
        let message = message.into();
        let problem = Problem { mark, message, help: None, related: Vec::new(), secret: false };
        if self.problems.len() >= limits::MISTAKES {
            return self.untold.insert(problem);
        }
        self.problems.push(problem);
        self.problems.last_mut().expect("one was just added")
    }

    /// Keeps these lines of a source out of every message.
    pub(crate) fn hide(&mut self, source: u32, lines: Range<u32>) {
        self.secrets.push((source, lines));
    }

    /// Nothing was found.
    pub(crate) fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// The findings in the order of the files and lines, each once.
    pub(crate) fn finish(self, sources: &Sources) -> Diagnostics {
        let mut problems = self.problems;
        problems.sort_by(|a, b| (a.mark, &a.message).cmp(&(b.mark, &b.message)));
        problems.dedup_by(|a, b| a.mark == b.mark && a.message == b.message);
        let told: BTreeSet<_> =
            problems.iter().filter(|p| p.secret).map(|p| (p.mark.source, p.mark.line)).collect();
        let hidden = self.secrets;
        let is_secret = |mark: Mark| {
            told.contains(&(mark.source, mark.line))
                || hidden.iter().any(|(source, lines)| *source == mark.source && lines.contains(&mark.line))
        };
        if let Some(more) = self.untold {
            let message = format!("there are more mistakes than the {} that are told", limits::MISTAKES);
            let help = Some("mend these first".to_owned());
            problems.push(Problem { message, help, related: Vec::new(), ..more });
        }
        let excerpt = |mark: Mark| match is_secret(mark) {
            true => Excerpt { text: String::new(), skipped: 0, length: to_index(mark.length) },
            false => Excerpt::of(sources.line(mark), mark),
        };
        let list = problems.into_iter().map(|problem| Diagnostic {
            place: sources.place(problem.mark),
            message: problem.message,
            help: problem.help,
            excerpt: excerpt(problem.mark),
            related: problem
                .related
                .into_iter()
                .map(|(mark, note)| Related { place: sources.place(mark), note, excerpt: excerpt(mark) })
                .collect(),
        });
        Diagnostics { list: list.collect() }
    }
}

impl Problem {
    /// What would be right.
    pub(crate) fn help(&mut self, help: impl Into<String>) -> &mut Self {
        self.help = Some(help.into());
        self
    }

    /// Keeps the line out of every message.
    pub(crate) fn secret(&mut self, secret: bool) -> &mut Self {
        self.secret |= secret;
        self
    }

    /// Another place that has to do with it.
    pub(crate) fn related(&mut self, mark: Mark, note: impl Into<String>) -> &mut Self {
        self.related.push((mark, note.into()));
        self
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Where.
    pub place: Place,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub help: Option<String>,
    /// The line itself.
    pub excerpt: Excerpt,
    /// Other places that have to do with it.
    pub related: Vec<Related>,
}

/// Another place that a diagnostic speaks of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Related {
    /// Where.
    pub place: Place,
    /// What is there.
    pub note: String,
    /// The line itself.
    pub excerpt: Excerpt,
}

/// A source line and how many of its characters, from the place's column on, are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excerpt {
    /// So much of the line as is shown, without its end; empty when it holds a secret.
    pub text: String,
    /// Characters of the line before that.
    pub skipped: usize,
    /// In characters, at least 1.
    pub length: usize,
}

/// All that is wrong; never empty. Shown as plain text, in the order of the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostics {
    /// In the order of files and lines.
    pub list: Vec<Diagnostic>,
}

/// Longer lines are cut in the middle of nowhere rather than wrapped: a pasted key fills a screen.
const WIDEST: usize = 160;

impl Excerpt {
    /// What is shown of `line`: a line may be a whole file, and have a mistake in each word.
    fn of(line: &str, mark: Mark) -> Self {
        let length = to_index(mark.length);
        let skipped = (to_index(mark.column) + length.min(40)).saturating_sub(WIDEST);
        let shown = |c: char| if acts(c) { ' ' } else { c };
        let text = line.chars().skip(skipped).take(WIDEST).map(shown).collect();
        Self { text, skipped, length }
    }
}

fn show(f: &mut fmt::Formatter<'_>, place: &Place, message: &str, excerpt: &Excerpt) -> fmt::Result {
    // What is quoted may have line breaks, and would stand there as a mistake of its own.
    writeln!(
        f,
        "{}",
        one_line(&format!("{}:{}:{}: {message}", place.file.display(), place.line, place.column))
    )?;
    let text = &excerpt.text;
    if text.trim().is_empty() {
        return Ok(());
    }
    let column = place.column - 1 - excerpt.skipped;
    let room = text.chars().count().saturating_sub(column).max(1);
    writeln!(f, "{:>5} | {}", place.line, text.trim_end())?;
    writeln!(f, "      | {}{}", " ".repeat(column), "^".repeat(excerpt.length.clamp(1, room)))
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, &self.place, &self.message, &self.excerpt)?;
        if let Some(help) = &self.help {
            writeln!(f, "      = {}", one_line(help))?;
        }
        for related in &self.related {
            show(f, &related.place, &related.note, &related.excerpt)?;
        }
        Ok(())
    }
}

impl Diagnostics {
    /// The lines without any of the text itself: for a console, and for a journal that others can read.
    pub fn brief(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for Diagnostic { place, message, help, related, .. } in &self.list {
            lines.push(format!("{place}: {message}"));
            lines.extend(related.iter().map(|Related { place, note, .. }| format!("  {place}: {note}")));
            lines.extend(help.iter().map(|help| format!("  = {help}")));
        }
        lines
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for diagnostic in &self.list {
            writeln!(f, "{diagnostic}")?;
        }
        match self.list.len() {
            1 => write!(f, "1 error"),
            count => write!(f, "{count} errors"),
        }
    }
}

impl std::error::Error for Diagnostics {}

impl Serialize for Diagnostic {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Diagnostic", 6)?;
        object.serialize_field("file", &json::text_of(&self.place.file))?;
        object.serialize_field("line", &self.place.line)?;
        object.serialize_field("column", &self.place.column)?;
        object.serialize_field("message", &self.message)?;
        object.serialize_field("help", &self.help)?;
        object.serialize_field("related", &self.related)?;
        object.end()
    }
}

impl Serialize for Related {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Related", 4)?;
        object.serialize_field("file", &json::text_of(&self.place.file))?;
        object.serialize_field("line", &self.place.line)?;
        object.serialize_field("column", &self.place.column)?;
        object.serialize_field("note", &self.note)?;
        object.end()
    }
}
