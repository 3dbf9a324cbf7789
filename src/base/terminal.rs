//! Text of strangers, such as the label of a partition, as a terminal may have it.
//!
//! What a terminal would act upon is written as an escape: control characters move the cursor, change colours or answer in
//! the user's name, and marks of direction reverse the order in which text is shown. So is what a terminal does not show at
//! all, as by it two names that look the same are not.

use std::borrow::Cow;

/// Whether a terminal may do something at `letter` but show it.
///
/// These are the control characters of C0 and C1, of which 0x9b begins a sequence as ESC does; the separators of lines and
/// paragraphs; and what Unicode 16 gives the property Default_Ignorable_Code_Point, which marks of direction, characters
/// without width, selectors of variants and tags have, with the marks of annotations.
pub fn acts(letter: char) -> bool {
    letter.is_control()
        || matches!(letter,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// `text` with an escape, such as `\u{1b}`, in place of each letter that `is_refused`.
fn replaced(text: &str, is_refused: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_refused) {
        return text.into();
    }
    let escape =
        |letter| if is_refused(letter) { letter.escape_unicode().to_string() } else { letter.into() };
    text.chars().map(escape).collect::<String>().into()
}

/// `text` as a terminal may have it, in lines.
pub fn escaped(text: &str) -> Cow<'_, str> {
    replaced(text, |letter| acts(letter) && !matches!(letter, '\n' | '\t'))
}

/// `text` as a terminal may have it, in one line: a name that could otherwise pass for a line of the program's own.
pub fn one_line(text: &str) -> Cow<'_, str> {
    replaced(text, acts)
}

/// What somebody else said, as a part of a sentence of ours: in one line, and no more than `most` letters of it.
pub fn said(text: &str, most: usize) -> String {
    let end = text.char_indices().nth(most).map_or(text.len(), |(at, _)| at);
    let mut said = one_line(&text[..end]).into_owned();
    if end < text.len() {
        said.push('…');
    }
    said
}

/// `text` with its lines after the first indented, where they are not: none of them can pass for a message of its own.
pub fn hanging(text: &str) -> Cow<'_, str> {
    let mut lines = text.split('\n');
    let first = lines.next().unwrap_or_default();
    let stands = |line: &str| !line.is_empty() && !line.starts_with([' ', '\t']);
    if !lines.clone().any(stands) {
        return text.into();
    }
    let mut hanging = first.to_owned();
    for line in lines {
        hanging.push_str(if stands(line) { "\n  " } else { "\n" });
        hanging.push_str(line);
    }
    hanging.into()
}

/// `json`, a document, with JSON's own escapes in place of what a terminal would act upon: the values stay what they are.
pub fn json(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for letter in json.chars() {
        if !acts(letter) || matches!(letter, '\n' | '\t') {
            text.push(letter);
            continue;
        }
        // RFC 8259 section 7: beyond 16 bits, two of them.
        for unit in letter.encode_utf16(&mut [0; 2]) {
            text.push_str(&format!("\\u{unit:04x}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_act_upon() {
        for (text, shown) in [
            ("plain \u{e4} \u{65e5}", "plain \u{e4} \u{65e5}"),
            ("\u{1b}]0;title\u{7}", r"\u{1b}]0;title\u{7}"),
            ("\u{9b}2J", r"\u{9b}2J"),
            ("good\rbad\u{8}\u{7f}", r"good\u{d}bad\u{8}\u{7f}"),
            ("a\u{202e}b\u{2066}c\u{200f}\u{61c}\u{2028}", r"a\u{202e}b\u{2066}c\u{200f}\u{61c}\u{2028}"),
            // Nothing of these is seen: without width, a tag, a selector, a soft hyphen, a filler.
            (
                "e\u{200b}\u{feff}\u{e0041}\u{fe0f}\u{ad}\u{3164}",
                r"e\u{200b}\u{feff}\u{e0041}\u{fe0f}\u{ad}\u{3164}",
            ),
        ] {
            assert_eq!((escaped(text), one_line(text)), (shown.into(), shown.into()));
            let quoted = serde_json::json!([text]).to_string();
            let safe = json(&quoted);
            assert_eq!(safe.chars().find(|letter| acts(*letter)), None, "{safe}");
            assert_eq!(serde_json::from_str::<[String; 1]>(&safe).unwrap(), [text]);
        }
        assert_eq!(escaped("a\tb\nc"), "a\tb\nc");
        assert_eq!(one_line("a\nerror: b"), r"a\u{a}error: b");
    }

    #[test]
    fn what_others_say_is_one_line_of_bounded_length() {
        for (text, shown) in [
            ("3.5.16", "3.5.16"),
            ("a\nerror: all is lost", r"a\u{a}error: all is lost"),
            ("\u{1b}[2J\u{9b}1m", r"\u{1b}[2J\u{9b}1m"),
            ("äöüäöüäöüäöüäöüäöüäöüäöüäöüä", "äöüäöüäöüäöüäöüäöüäöüäöüäöüä"),
            ("äöüäöüäöüäöüäöüäöüäöüäöüäöüäö", "äöüäöüäöüäöüäöüäöüäöüäöüäöüä…"),
        ] {
            assert_eq!(said(text, 28), shown);
        }
    }

    #[test]
    fn lines_after_the_first_hang() {
        assert_eq!(hanging("reading x\nerror: y\n  z\n\nw"), "reading x\n  error: y\n  z\n\n  w");
        assert_eq!(hanging("one"), "one");
    }
}
