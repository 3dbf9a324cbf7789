//! What the guest wrote on its serial port, and waiting for a text in it.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

/// How much of the output is kept, in bytes: a boot writes about 60 KB.
const KEPT: usize = 4 << 20;

/// The console's output so far.
#[derive(Debug, Default)]
pub(crate) struct Console {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The last [`KEPT`] bytes, without terminal control sequences.
    kept: VecDeque<u8>,
    /// How many bytes were dropped before them.
    dropped: usize,
    escape: Escape,
    closed: bool,
}

/// Where in a terminal control sequence (ECMA-48, 5.4) the output is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Escape {
    #[default]
    None,
    Begun,
    Sequence,
    String,
}

/// How waiting for a text ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// The text came; it ends at this position of the output.
    Found(usize),
    /// The guest's serial port was closed first.
    Closed,
    /// Time was up.
    TimedOut,
}

impl Console {
    /// Takes in what the guest wrote.
    pub(crate) fn push(&self, bytes: &[u8]) {
        let mut state = self.state.lock().expect("no panic while held");
        for &byte in bytes {
            let (next, keep) = match (state.escape, byte) {
                (_, 0x1b) => (Escape::Begun, false),
                (Escape::Begun, b'[') => (Escape::Sequence, false),
                (Escape::Begun, b']' | b'P' | b'_' | b'^') => (Escape::String, false),
                (Escape::Begun, _) => (Escape::None, false),
                (Escape::Sequence, 0x40..=0x7e) => (Escape::None, false),
                (Escape::String, 0x07) => (Escape::None, false),
                (Escape::Sequence, _) => (Escape::Sequence, false),
                (Escape::String, _) => (Escape::String, false),
                (Escape::None, b'\r' | 0) => (Escape::None, false),
                (Escape::None, _) => (Escape::None, true),
            };
            state.escape = next;
            if keep {
                state.kept.push_back(byte);
            }
        }
        while state.kept.len() > KEPT {
            state.kept.pop_front();
            state.dropped += 1;
        }
        self.changed.notify_all();
    }

    /// Nothing more will come.
    pub(crate) fn close(&self) {
        self.state.lock().expect("no panic while held").closed = true;
        self.changed.notify_all();
    }

    /// The position behind all that has come.
    pub(crate) fn position(&self) -> usize {
        let state = self.state.lock().expect("no panic while held");
        state.dropped + state.kept.len()
    }

    /// Waits until one of `texts` stands behind position `from`, at most `timeout`; control sequences and
    /// carriage returns do not count.
    pub(crate) fn wait_for(&self, text: &str, from: usize, timeout: Duration) -> Wait {
        let deadline = Instant::now() + timeout;
        let mut state = self.state.lock().expect("no panic while held");
        let mut searched = from;
        loop {
            let start = searched.saturating_sub(state.dropped).min(state.kept.len());
            let kept = state.kept.make_contiguous();
            if let Some(at) = find(&kept[start..], text.as_bytes()) {
                return Wait::Found(state.dropped + start + at + text.len());
            }
            searched = (state.dropped + state.kept.len()).saturating_sub(text.len()).max(from);
            if state.closed {
                return Wait::Closed;
            }
            let now = Instant::now();
            if now >= deadline {
                return Wait::TimedOut;
            }
            state = self.changed.wait_timeout(state, deadline - now).expect("no panic while held").0;
        }
    }

    /// All that is kept from position `from` on.
    pub(crate) fn text(&self, from: usize) -> String {
        let mut state = self.state.lock().expect("no panic while held");
        let start = from.saturating_sub(state.dropped).min(state.kept.len());
        String::from_utf8_lossy(&state.kept.make_contiguous()[start..]).into_owned()
    }

    /// The last `lines` lines.
    pub(crate) fn tail(&self, lines: usize) -> String {
        let text = self.text(0);
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len().max(1)).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_across_pieces_and_colours() {
        let console = Console::default();
        console.push(b"Wel\x1b[0;1mcome\r\n to ");
        console.push(b"\x1b]8;;x\x07keller\n");
        let found = console.wait_for("come\n to kel", 0, Duration::ZERO);
        assert_eq!(found, Wait::Found(15));
        assert_eq!(console.wait_for("Welcome", 3, Duration::ZERO), Wait::TimedOut);
        console.close();
        assert_eq!(console.wait_for("x", 0, Duration::from_secs(9)), Wait::Closed);
        assert_eq!(console.tail(1), " to keller");
    }
}
