//! Records of pax extended headers: `LENGTH KEY=VALUE\n`, where LENGTH counts the whole record.
//! POSIX.1-2017, `pax`, "pax Extended Header".
//!
//! Values are bytes: a file capability may well contain a line break, so lines are no way to split them.

/// One record, or what is wrong with it.
pub(super) type Record<'a> = Result<(&'a [u8], &'a [u8]), &'static str>;

/// The records of `body` in order; nothing follows an error.
pub(super) fn records(body: &[u8]) -> impl Iterator<Item = Record<'_>> {
    let mut rest = body;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let record = split(rest);
        rest = record.map_or(&[], |(_, _, rest)| rest);
        Some(record.map(|(key, value, _)| (key, value)).ok_or("malformed pax record"))
    })
}

fn split(body: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    // Twenty digits hold any 64-bit length.
    let space = body.iter().take(21).position(|byte| *byte == b' ')?;
    let digits = str::from_utf8(&body[..space]).ok()?;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let len: usize = digits.parse().ok()?;
    let record = body.get(space + 1..len)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    Some((&record[..equals], &record[equals + 1..], &body[len..]))
}

/// Whole seconds of a time such as `1700000000.25` or `-1.5`, rounded down as the kernel does.
pub(super) fn seconds(value: &[u8]) -> Option<i64> {
    let text = str::from_utf8(value).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let seconds: i64 = whole.parse().ok()?;
    let below = whole.starts_with('-') && fraction.bytes().any(|digit| digit != b'0');
    seconds.checked_sub(i64::from(below))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_bytes() {
        let all: Vec<_> = records(b"14 path=a\nb\nc\n11 x=12345\n").collect();
        assert_eq!(all, [Ok((&b"path"[..], &b"a\nb\nc"[..])), Ok((b"x", b"12345"))]);
        for bad in [
            &b"9 path=a"[..],
            b"x",
            b"0 \n",
            b"-1 a=b\n",
            b"+7 a=b\n",
            b"5 ab\n",
            b"99999999999999999999999 a=b\n",
        ] {
            assert!(records(bad).any(|record| record.is_err()), "{bad:?}");
        }
    }

    #[test]
    fn times() {
        assert_eq!(seconds(b"1700000000.25"), Some(1_700_000_000));
        assert_eq!((seconds(b"-1.5"), seconds(b"-1.0"), seconds(b"1.x")), (Some(-2), Some(-1), None));
    }
}
