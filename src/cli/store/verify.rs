//! `keller store verify`: all of a store is read, whatever is wrong with parts of it.

use std::fmt::Display;

use serde_json::{Value, json};

use super::Report;
use crate::base::terminal::one_line;
use crate::base::{Chain, Size, json};
use crate::project::store::KINDS;
use crate::store::{Checked, CheckedDerived, Part, Store, StoreError};

/// Reads all of `store`.
///
/// # Errors
/// `Io` of the disk where not even the names of tools can be read.
pub(super) fn verify(store: &Store) -> anyhow::Result<Report> {
    let mut seen = Seen::default();
    let (blobs, failures) = store.survey(Part::Blobs);
    failures.iter().for_each(|error| seen.unread(error));
    for (digest, size) in blobs.iter().filter_map(|entry| Some((entry.digest?, entry.size))) {
        match store.open_verified(&digest) {
            Ok(Checked::Good(_)) => seen.blobs.good(size),
            // Another process has moved or swept it away.
            Ok(Checked::Missing) => {}
            Ok(Checked::Rotten { actual, moved_to }) => {
                let is = actual.map_or("no file that can be read".to_owned(), |actual| actual.to_hex());
                seen.line(format_args!("{digest}: rotten, is {is} and now {}", moved_to.display()));
                seen.blobs.bad.push(
                    json!({ "sha256": digest, "actual": actual, "moved_to": json::text_of(&moved_to) }),
                );
            }
            Err(StoreError::Stuck { path, reason }) => {
                seen.line(format_args!("{digest}: rotten, and stays {} ({reason})", path.display()));
                let stuck =
                    json!({ "sha256": digest, "path": json::text_of(&path), "error": reason.to_string() });
                seen.blobs.stuck.push(stuck);
            }
            Err(error) => seen.unread(&error),
        }
    }
    let (derived, failures) = store.survey(Part::Derived);
    failures.iter().for_each(|error| seen.unread(error));
    for entry in &derived {
        let checked = store.verify_derived(entry, &KINDS);
        seen.note(|seen| &mut seen.derived, checked, &entry.path.display(), entry.size);
    }
    for name in store.tools()? {
        seen.note(|seen| &mut seen.tools, store.verify_tool(&name), &name, 0);
    }
    Ok(seen.report())
}

/// What was found of one part of the store.
#[derive(Default)]
struct Found {
    good: usize,
    bytes: u64,
    /// Sealed with another key.
    foreign: usize,
    /// Of another keller.
    another: usize,
    /// Wrong and moved away.
    bad: Vec<Value>,
    /// Wrong and still there.
    stuck: Vec<Value>,
}

impl Found {
    fn good(&mut self, size: u64) {
        self.good += 1;
        self.bytes = self.bytes.saturating_add(size);
    }

    fn to_json(&self) -> Value {
        json!({
            "good": self.good, "foreign": self.foreign, "another": self.another, "broken": self.bad,
            "stuck": self.stuck
        })
    }
}

/// What was found of all of it.
#[derive(Default)]
struct Seen {
    blobs: Found,
    derived: Found,
    tools: Found,
    /// Why some of it could not be read.
    unread: Vec<String>,
    text: String,
}

impl Seen {
    /// Names may be anybody's: none of them begins a line of its own.
    fn line(&mut self, line: impl Display) {
        self.text.push_str(&one_line(&line.to_string()));
        self.text.push('\n');
    }

    fn unread(&mut self, error: &StoreError) {
        self.unread.push(Chain(error).to_string());
        self.line(Chain(error));
    }

    fn note(
        &mut self,
        part: impl Fn(&mut Self) -> &mut Found,
        checked: Result<CheckedDerived, StoreError>,
        name: &dyn Display,
        size: u64,
    ) {
        match checked {
            Ok(CheckedDerived::Good) => part(self).good(size),
            Ok(CheckedDerived::Foreign) => part(self).foreign += 1,
            Ok(CheckedDerived::Another) => part(self).another += 1,
            Ok(CheckedDerived::Broken { why, moved_to }) => {
                self.line(format_args!("{why}; it is now {}", moved_to.display()));
                let bad =
                    json!({ "name": name.to_string(), "why": why, "moved_to": json::text_of(&moved_to) });
                part(self).bad.push(bad);
            }
            Ok(CheckedDerived::Stuck { why, error }) => {
                self.line(format_args!("{why}; it stays where it is ({error})"));
                let stuck = json!({ "name": name.to_string(), "why": why, "error": error });
                part(self).stuck.push(stuck);
            }
            Err(error) => self.unread(&error),
        }
    }

    fn report(mut self) -> Report {
        let Self { blobs, derived, tools, .. } = &self;
        let mut lines = vec![
            format!("{} blobs verified, {}", blobs.good, Size(blobs.bytes).human()),
            format!("{} derived files verified, {}", derived.good, Size(derived.bytes).human()),
            format!("{} tools verified", tools.good),
        ];
        for (what, found) in [("derived files", derived), ("tools", tools)] {
            if found.foreign > 0 {
                lines.push(format!(
                    "{} {what} are sealed with a key that is not yours: they are not used, but made anew",
                    found.foreign
                ));
            }
            if found.another > 0 {
                lines.push(format!(
                    "{} {what} are of another version of keller: this one does not use them, and `keller store gc` \
                     removes them 30 days after their last use",
                    found.another
                ));
            }
        }
        let amiss = self.amiss();
        let Self { blobs, derived, tools, unread, .. } = &self;
        let json = json!({
            "good": blobs.good, "bytes": blobs.bytes, "rotten": blobs.bad, "stuck": blobs.stuck,
            "derived": derived.to_json(), "tools": tools.to_json(), "unread": unread
        });
        lines.iter().for_each(|line| self.line(line));
        Report { text: self.text, json, amiss }
    }

    /// What is wrong, if anything.
    fn amiss(&self) -> Option<String> {
        let Self { blobs, derived, tools, unread, .. } = self;
        let counted = [
            (blobs.bad.len(), "blobs were rotten and are moved away: the next build fetches them again"),
            (
                blobs.stuck.len(),
                "blobs are rotten and cannot be moved away: builds fail until somebody who can write the store \
                 removes them or runs `keller store verify`",
            ),
            (
                derived.bad.len(),
                "derived files were changed and are moved away: the next build makes them anew",
            ),
            (
                derived.stuck.len(),
                "derived files were changed and cannot be moved away: builds make them anew and do not use these",
            ),
            (
                tools.bad.len(),
                "tools were changed and are moved away: they are unpacked anew when they are needed",
            ),
            (
                tools.stuck.len(),
                "tools were changed and cannot be moved away: they are unpacked anew when they are needed",
            ),
            (unread.len(), "files or directories could not be read"),
        ];
        let amiss: Vec<_> = counted
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        (!amiss.is_empty()).then(|| amiss.join("; "))
    }
}
