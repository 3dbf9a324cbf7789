//! The order of versions that boot loader, updater and publisher agree on.
//!
//! Source: UAPI.10 Version Format Specification, as systemd 257 implements it (`strverscmp_improved`), which
//! is what systemd-boot sorts by: where the text leaves something open, such as characters that no version
//! has, this does as systemd does.

use std::cmp::Ordering;

/// Compares two versions; the newer one is the greater.
///
/// `1.0.0~rc1` is older than `1.0.0`, `1.0.0-rc1` newer. `Equal` does not mean the same text: zeros before
/// a number and characters that no version has do not count.
pub fn compare(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        a = without_separators(a);
        b = without_separators(b);
        match prefix(&mut a, &mut b, b'~') {
            Ordering::Equal => {}
            different => return different,
        }
        // Only `~` makes what is longer older, so the end is looked for after it.
        if a.is_empty() || b.is_empty() {
            return b.is_empty().cmp(&a.is_empty());
        }
        for mark in [b'-', b'^', b'.'] {
            match prefix(&mut a, &mut b, mark) {
                Ordering::Equal => {}
                different => return different,
            }
        }
        let numeric = [a, b].iter().any(|rest| rest.first().is_some_and(u8::is_ascii_digit));
        let order = if numeric {
            let (left, right) = (take(&mut a, u8::is_ascii_digit), take(&mut b, u8::is_ascii_digit));
            // Digits are newer than none; then a number of more digits is the greater one.
            let value =
                |digits: &[u8]| digits.iter().position(|digit| *digit != b'0').unwrap_or(digits.len());
            let (low, high) = (&left[value(left)..], &right[value(right)..]);
            (!left.is_empty())
                .cmp(&!right.is_empty())
                .then(low.len().cmp(&high.len()))
                .then_with(|| low.cmp(high))
        } else {
            take(&mut a, u8::is_ascii_alphabetic).cmp(take(&mut b, u8::is_ascii_alphabetic))
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

/// What has the mark is older than what has not; where both have it, it is taken away.
fn prefix(a: &mut &[u8], b: &mut &[u8], mark: u8) -> Ordering {
    match (a.strip_prefix(&[mark]), b.strip_prefix(&[mark])) {
        (Some(left), Some(right)) => {
            (*a, *b) = (left, right);
            Ordering::Equal
        }
        (left, right) => left.is_none().cmp(&right.is_none()),
    }
}

/// The longest beginning of such bytes, taken away from `rest`.
fn take<'t>(rest: &mut &'t [u8], such: impl Fn(&u8) -> bool) -> &'t [u8] {
    let end = rest.iter().position(|byte| !such(byte)).unwrap_or(rest.len());
    let (taken, left) = rest.split_at(end);
    *rest = left;
    taken
}

fn without_separators(text: &[u8]) -> &[u8] {
    let counts = |byte: &u8| byte.is_ascii_alphanumeric() || b"~-^.".contains(byte);
    &text[text.iter().position(counts).unwrap_or(text.len())..]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Oldest first; from the specification's examples, with ours between.
    const ORDERED: [&str; 34] = [
        "~1",
        "",
        "A",
        "ab",
        "abb",
        "abc",
        "0",
        "0001~",
        "1",
        "1.0.0~rc1",
        "1.0.0~rc1-2",
        "1.0.0~rc2",
        "1.0.0~rc10",
        "1.0.0",
        "1.0.0-rc1",
        "1.0.0^git1",
        "1.0.0.1",
        "1.0.1",
        "1.0.9",
        "1.0.10",
        "122.1",
        "123~rc1-1",
        "123",
        "123-a",
        "123-a.1",
        "123-1",
        "123-1.1",
        "123^post1",
        "123.a-1",
        "123.1-1",
        "123a",
        "123a-1",
        "124-1",
        "99999999999999999999999999",
    ];

    #[test]
    fn every_pair_is_ordered() {
        for (at, low) in ORDERED.iter().enumerate() {
            assert_eq!(compare(low, low), Ordering::Equal, "{low}");
            for high in &ORDERED[at + 1..] {
                assert_eq!(compare(low, high), Ordering::Less, "{low} {high}");
                assert_eq!(compare(high, low), Ordering::Greater, "{high} {low}");
            }
        }
    }

    #[test]
    fn what_does_not_count() {
        for (a, b) in [("123", "00123"), ("123_a", "123a"), ("_1", "1"), ("1.01", "1.1"), ("a+b", "a_b")] {
            assert_eq!(compare(a, b), Ordering::Equal, "{a} {b}");
        }
    }

    #[test]
    fn any_text_has_an_end() {
        let parts = ["", "~", "-", "^", ".", "_", "0", "1", "a", "é"];
        for text in 0..10_000_usize {
            let digit = |place: u32| parts[text / 10_usize.pow(place) % 10];
            let (a, b) = ([digit(0), digit(1)].concat(), [digit(2), digit(3)].concat());
            assert_eq!(compare(&a, &b), compare(&b, &a).reverse(), "{a} {b}");
        }
    }
}
