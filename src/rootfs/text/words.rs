//! Words of a setting of a unit: blanks, quotes and backslashes.
//!
//! Format: systemd.syntax(7), "Quoting", and extract_first_word() of systemd 257.

/// systemd's blanks.
pub(super) const BLANKS: [char; 4] = [' ', '\t', '\n', '\r'];

/// What backslashes mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escapes {
    /// Themselves: names of units, such as `dev-disk-by\x2dlabel.device`.
    Kept,
    /// C escapes: command lines, `Environment=`. An unknown one means itself.
    C,
}

/// A quote that is not closed, or a lone backslash at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unbalanced;

/// All words of a list. What follows on a quote that is left open does not count.
pub fn words(value: &str, escapes: Escapes) -> Vec<String> {
    let mut rest = value;
    std::iter::from_fn(|| first(&mut rest, escapes).ok().flatten()).collect()
}

/// Takes the first word off `rest`, and the blanks behind it; nothing at the end.
pub fn first(rest: &mut &str, escapes: Escapes) -> Result<Option<String>, Unbalanced> {
    *rest = rest.trim_start_matches(BLANKS);
    if rest.is_empty() {
        return Ok(None);
    }
    let (mut word, mut quote) = (Vec::new(), None);
    let mut letters = rest.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' if escapes == Escapes::C => {
                let after = letters.as_str();
                if let Some((bytes, len)) = escape(after) {
                    word.extend(bytes);
                    letters = after[len..].chars();
                } else if after.is_empty() && quote.is_some() {
                    return Err(Unbalanced);
                } else {
                    // The letter behind it means itself too, even a blank or a quote.
                    word.push(b'\\');
                    word.extend(letters.next().map(String::from).unwrap_or_default().bytes());
                }
            }
            letter if quote == Some(letter) => quote = None,
            '"' | '\'' if quote.is_none() => quote = Some(letter),
            letter if quote.is_none() && BLANKS.contains(&letter) => break,
            letter => word.extend(letter.encode_utf8(&mut [0; 4]).bytes()),
        }
    }
    if quote.is_some() {
        return Err(Unbalanced);
    }
    *rest = letters.as_str().trim_start_matches(BLANKS);
    Ok(Some(String::from_utf8_lossy(&word).into_owned()))
}

/// The bytes of a C escape, and its length without the backslash: cunescape_one().
fn escape(text: &str) -> Option<(Vec<u8>, usize)> {
    let letter = text.chars().next()?;
    let number = |from: usize, len: usize, radix: u32| {
        let digits = text.get(from..from + len)?;
        let digits = digits.chars().all(|digit| digit.is_digit(radix)).then_some(digits)?;
        u32::from_str_radix(digits, radix).ok().filter(|number| *number != 0)
    };
    let byte = |byte: u8| Some((vec![byte], 1));
    let unicode = |len: usize| {
        let letter = char::from_u32(number(1, len, 16)?)?;
        Some((letter.to_string().into_bytes(), 1 + len))
    };
    match letter {
        'a' => byte(7),
        'b' => byte(8),
        'f' => byte(12),
        'n' => byte(b'\n'),
        'r' => byte(b'\r'),
        't' => byte(b'\t'),
        'v' => byte(11),
        's' => byte(b' '),
        '\\' | '"' | '\'' => byte(letter as u8),
        'x' => Some((vec![u8::try_from(number(1, 2, 16)?).ok()?], 3)),
        'u' => unicode(4),
        'U' => unicode(8),
        '0'..='7' => Some((vec![u8::try_from(number(0, 3, 8)?).ok()?], 3)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn c(value: &str) -> Vec<String> {
        words(value, Escapes::C)
    }

    #[test]
    fn quotes_and_blanks() {
        assert_eq!(c(" a  \"b c\"\t'd \"e'f\"\" '' "), ["a", "b c", "d \"ef", ""]);
        assert_eq!(c("a \"open b"), ["a"]);
        assert_eq!(c(r"a\ b \"), [r"a\ b", r"\"]);
        assert_eq!(words(r#"dev-a\x2db.device "x y" \"#, Escapes::Kept), [r"dev-a\x2db.device", "x y", r"\"]);
    }

    #[test]
    fn c_escapes() {
        assert_eq!(
            c(r#"\x41\102\u00fc\U0001F40C \s\t\n "\"" '\'' \\ \;"#),
            ["AB\u{fc}\u{1F40C}", " \t\n", "\"", "'", "\\", "\\;"]
        );
        // Unknown, too short, or a zero byte: they mean themselves.
        assert_eq!(
            c(r"\q \x4 \x00 \08 \777 \u12 ä\xc3\xbc"),
            [r"\q", r"\x4", r"\x00", r"\08", r"\777", r"\u12", "äü"]
        );
    }
}
