//! What is wrong with a line of tmpfiles.d, as systemd-tmpfiles would say on the node.
//!
//! `parse_line()` of systemd 257's tmpfiles.c, with `parse_mode()`, `parse_time()` and `parse_devnum()`.

use super::line::{Line, answered};
use crate::rootfs::conf_d::{Backslash, unescaped, word};
use crate::tree::show;

/// Letters of lines without an argument, of those that may have one, and of those that must.
const WITHOUT: &[u8] = b"dvqQeDpxXrRmzZ";
const OPTIONAL: &[u8] = b"fFLC";
const REQUIRED: &[u8] = b"wcbtTaAhH";
/// Letters whose argument has escapes of C and specifiers.
const ESCAPED: &[u8] = b"CLfFw";
/// Letters whose argument may be base64 (`~`).
const BASE64: &[u8] = b"fFw";
/// Modifiers of all lines; links have `?` besides.
const MODIFIERS: &[u8] = b"!+-=~^$";
/// File attributes as lsattr(1) writes them.
const ATTRIBUTES: &[u8] = b"ASDacdijstTueCP";
/// Units of time, of which the first that a text begins with counts: `extract_multiplier()`.
const UNITS: [&str; 28] = [
    "seconds", "second", "sec", "s", "minutes", "minute", "min", "months", "month", "M", "msec", "ms", "m",
    "hours", "hour", "hr", "h", "days", "day", "d", "weeks", "week", "w", "years", "year", "y", "usec", "us",
];
/// Bits of a major and a minor number.
const MAJOR_BITS: u32 = 12;
const MINOR_BITS: u32 = 20;

/// Something that a line says wrongly.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mistake {
    /// The words cannot be told apart, or there are too few.
    #[error("{0}")]
    Words(&'static str),
    /// No letter that there is.
    #[error("there is no line of type {letter:?}")]
    Letter {
        /// As written.
        letter: char,
    },
    /// A modifier that there is not, or twice.
    #[error("{modifier:?} is not a modifier, or stands twice")]
    Modifier {
        /// As written.
        modifier: char,
    },
    /// A path that does not begin with a slash.
    #[error("the path {path:?} is not absolute")]
    Relative {
        /// With specifiers resolved.
        path: String,
    },
    /// A field that cannot be read.
    #[error("{value:?} is not {what}")]
    Field {
        /// What is expected.
        what: &'static str,
        /// As written.
        value: String,
    },
    /// A line that needs one.
    #[error("a line of type {letter} needs an argument")]
    NoArgument {
        /// Its type.
        letter: char,
    },
    /// An argument in a form that this type does not take.
    #[error("a line of type {letter} takes no base64 (`~`)")]
    NoBase64 {
        /// Its type.
        letter: char,
    },
    /// An argument that does nothing.
    #[error("a line of type {letter} takes no argument, and {argument:?} does nothing")]
    Surplus {
        /// Its type.
        letter: char,
        /// As written.
        argument: String,
    },
}

impl Mistake {
    /// Whether systemd-tmpfiles passes over the line.
    pub fn is_fatal(&self) -> bool {
        !matches!(self, Self::Surplus { .. })
    }
}

/// What is wrong with `text`, a line without blanks at its ends. What only the node knows is not judged.
pub fn find(text: &[u8]) -> Option<Mistake> {
    let line = match Line::parse(text) {
        Ok(line) => line,
        Err(what) => return Some(Mistake::Words(what)),
    };
    let letter = char::from(line.letter);
    modifiers(&line)
        .or_else(|| path(&line))
        .or_else(|| {
            let known = [WITHOUT, OPTIONAL, REQUIRED].iter().any(|letters| letters.contains(&line.letter));
            (!known).then_some(Mistake::Letter { letter })
        })
        .or_else(|| argument(&line))
        .or_else(|| mode(&line.mode))
        .or_else(|| age(&line.age))
        .or_else(|| {
            let surplus = WITHOUT.contains(&line.letter) && !line.rest.is_empty();
            surplus.then(|| Mistake::Surplus { letter, argument: show(&line.rest) })
        })
}

fn modifiers(line: &Line) -> Option<Mistake> {
    let known = |modifier: u8| MODIFIERS.contains(&modifier) || (modifier == b'?' && line.letter == b'L');
    let twice = |at: usize, modifier: u8| line.modifiers[..at].contains(&modifier);
    let mut modifiers = line.modifiers.iter().enumerate();
    let bad = modifiers.find(|(at, modifier)| !known(**modifier) || twice(*at, **modifier));
    bad.map(|(_, modifier)| Mistake::Modifier { modifier: char::from(*modifier) })
}

fn path(line: &Line) -> Option<Mistake> {
    let path = answered(&line.path)?;
    (!path.starts_with(b"/")).then(|| Mistake::Relative { path: show(&path) })
}

fn argument(line: &Line) -> Option<Mistake> {
    let letter = char::from(line.letter);
    let coded = line.modifiers.contains(&b'~');
    let credential = line.modifiers.contains(&b'^');
    let bad = |what| Some(Mistake::Field { what, value: show(&line.rest) });
    if coded
        && (REQUIRED.contains(&line.letter) || OPTIONAL.contains(&line.letter))
        && !BASE64.contains(&line.letter)
    {
        return Some(Mistake::NoBase64 { letter });
    }
    if line.rest.is_empty() {
        return (credential || REQUIRED.contains(&line.letter)).then_some(Mistake::NoArgument { letter });
    }
    match line.letter {
        b'c' | b'b' if !is_device(&line.rest) => return bad("a pair of device numbers such as 1:3"),
        b'h' | b'H' if !is_attributes(&line.rest) => return bad("attributes of chattr(1) such as +C"),
        b't' | b'T' if !credential && !is_xattrs(&line.rest) => {
            return bad("extended attributes such as user.name=value");
        }
        _ if coded && !credential && !is_base64(&line.rest) => return bad("base64"),
        letter if ESCAPED.contains(&letter) && !coded && unescaped(&line.rest).is_err() => {
            return bad("a text whose escapes are those of C");
        }
        _ => {}
    }
    let source =
        line.argument().filter(|source| line.letter == b'C' && !credential && !source.starts_with(b"/"));
    source.map(|source| Mistake::Field { what: "an absolute path to copy from", value: show(&source) })
}

fn mode(field: &[u8]) -> Option<Mistake> {
    let prefix = field.iter().take_while(|byte| b"~:".contains(byte)).count();
    let digits = &field[prefix..];
    let octal =
        str::from_utf8(digits).ok().filter(|text| text.bytes().all(|byte| (b'0'..=b'7').contains(&byte)));
    let good = field.is_empty()
        || octal.and_then(|text| u16::from_str_radix(text, 8).ok()).is_some_and(|mode| mode <= 0o7777);
    (!good).then(|| Mistake::Field { what: "an octal mode such as 0755", value: show(field) })
}

fn age(field: &[u8]) -> Option<Mistake> {
    let text = show(field);
    let rest = text.strip_prefix('~').unwrap_or(&text);
    let (by, span) = rest.split_once(':').map_or((None, rest), |(by, span)| (Some(by), span));
    let by_good = by.is_none_or(|by| !by.is_empty() && by.chars().all(|letter| "abcmABCM".contains(letter)));
    let good = field.is_empty() || (by_good && is_span(span));
    (!good).then(|| Mistake::Field { what: "an age such as 10d or am:1h", value: text.clone() })
}

/// Whether systemd reads `text` as a span of time.
fn is_span(text: &str) -> bool {
    let blank = [' ', '\t', '\n', '\r'];
    let mut rest = text.trim_start_matches(blank);
    if let Some(tail) = rest.strip_prefix("infinity") {
        return tail.trim_start_matches(blank).is_empty();
    }
    let mut something = false;
    loop {
        rest = rest.trim_start_matches(blank);
        if rest.is_empty() {
            return something;
        }
        let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
        let whole = digits(rest);
        let tail = match rest[whole..].strip_prefix('.') {
            Some(fraction) => &fraction[digits(fraction)..],
            None if whole == 0 => return false,
            None => &rest[whole..],
        };
        if rest[..whole].parse::<i64>().is_err() && whole > 0 {
            return false;
        }
        let unit = tail.trim_start_matches(blank);
        let known = UNITS.iter().chain(&["\u{3bc}s", "\u{b5}s"]).find_map(|known| unit.strip_prefix(known));
        let next = known.unwrap_or(unit);
        if next.len() == tail.len() && !next.is_empty() {
            return false;
        }
        (rest, something) = (next, true);
    }
}

fn is_device(argument: &[u8]) -> bool {
    let number = |text: &str, bits: u32| {
        text.bytes().all(|byte| byte.is_ascii_digit())
            && text.parse::<u32>().is_ok_and(|number| number >> bits == 0)
    };
    str::from_utf8(argument)
        .ok()
        .and_then(|text| text.split_once(':'))
        .is_some_and(|(major, minor)| number(major, MAJOR_BITS) && number(minor, MINOR_BITS))
}

/// `parse_attribute_from_arg()`: letters, after what is to become of them.
fn is_attributes(argument: &[u8]) -> bool {
    let letters = argument.strip_prefix(b"+").or(argument.strip_prefix(b"-")).or(argument.strip_prefix(b"="));
    let letters = letters.unwrap_or(argument);
    !letters.is_empty() && letters.iter().all(|letter| ATTRIBUTES.contains(letter))
}

fn is_xattrs(mut argument: &[u8]) -> bool {
    let words = std::iter::from_fn(|| word(&mut argument, Backslash::Escapes).transpose());
    let is_pair = |word: &Vec<u8>| word.iter().position(|byte| *byte == b'=').is_some_and(|at| at > 0);
    words.into_iter().all(|word| word.is_ok_and(|word| is_pair(&word)))
}

fn is_base64(argument: &[u8]) -> bool {
    let letters: Vec<u8> = argument.iter().copied().filter(|byte| !b" \t\n\r".contains(byte)).collect();
    let padding = letters.iter().rev().take_while(|byte| **byte == b'=').count();
    let body = &letters[..letters.len() - padding];
    padding <= 2
        && letters.len().is_multiple_of(4)
        && body.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+/".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_named() {
        for (line, part) in [
            ("d", "there is no path"),
            ("d \"/x", "a quote without its end"),
            ("y /x", "no line of type 'y'"),
            ("d* /x", "'*' is not a modifier"),
            ("d!! /x", "stands twice"),
            ("d x/y", "the path \"x/y\" is not absolute"),
            ("d /x 0999", "\"0999\" is not an octal mode"),
            ("d /x 07777777", "is not an octal mode"),
            ("d /x 0755 - - 10x", "\"10x\" is not an age"),
            ("d /x 0755 - - zz:10d", "is not an age"),
            ("w /x", "needs an argument"),
            ("c /x - - - - 1", "device numbers"),
            ("L~ /x - - - - eA==", "takes no base64"),
            ("f~ /x - - - - !", "is not base64"),
            (r"f /x - - - - \q", "escapes are those of C"),
            ("C /x - - - - relative", "an absolute path to copy from"),
            ("h /x - - - - +q", "attributes of chattr"),
            ("t /x - - - - user.x", "extended attributes"),
            ("f? /x", "'?' is not a modifier"),
            ("f^ /x", "needs an argument"),
            ("d /x 0755 - - - surplus", "takes no argument, and \"surplus\" does nothing"),
        ] {
            let mistake = find(line.as_bytes()).unwrap_or_else(|| panic!("{line}")).to_string();
            assert!(mistake.contains(part), "{line}: {mistake}");
        }
        for line in [
            "d /x",
            "f+!$ /x ~0644 root :0 ~aB:1w2d hello",
            "Z %H/x :0755",
            "e /x - - - 1.5h",
            "L? /x - - - - /y",
            "h /x - - - - +C",
            "t /x - - - - user.a=b \"user.c=d e\"",
            "C /x - - - - %S",
        ] {
            assert_eq!(find(line.as_bytes()), None, "{line}");
        }
    }
}
