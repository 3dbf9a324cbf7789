//! What `%` stands for in a unit, as far as the image can tell: systemd.unit(5), "Specifiers".

use crate::base::limits;

/// Directories of a service manager for the whole system.
const FOLDERS: [(char, &str); 7] = [
    ('t', "/run"),
    ('S', "/var/lib"),
    ('C', "/var/cache"),
    ('L', "/var/log"),
    ('E', "/etc"),
    ('T', "/tmp"),
    ('V', "/var/tmp"),
];

/// Fills in what the unit's own name says (`%i`, `%p`, `%n`, `%N` and so on) and the system's directories; nothing
/// when only the running system knows, and where it becomes longer than any path: a unit can want instances of itself whose
/// names have its own twice.
pub(super) fn fill(text: &str, name: &str) -> Option<String> {
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    let (prefix, instance) = stem.split_once('@').unwrap_or((stem, ""));
    let last = prefix.rsplit('-').next().unwrap_or_default();
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        filled.push_str(before);
        let specifier = after.chars().next()?;
        match specifier {
            '%' => filled.push('%'),
            'i' if !instance.is_empty() => filled.push_str(instance),
            'I' if !instance.is_empty() => filled.push_str(&unescaped(instance)?),
            'p' => filled.push_str(prefix),
            'P' => filled.push_str(&unescaped(prefix)?),
            'j' => filled.push_str(last),
            'J' => filled.push_str(&unescaped(last)?),
            'f' => {
                let path = unescaped(if instance.is_empty() { prefix } else { instance })?;
                filled.push_str(&format!("/{}", path.trim_start_matches('/')));
            }
            'n' => filled.push_str(name),
            'N' => filled.push_str(stem),
            other => filled.push_str(FOLDERS.iter().find(|(letter, _)| *letter == other)?.1),
        }
        rest = &after[specifier.len_utf8()..];
        if filled.len() > limits::PATH {
            return None;
        }
    }
    filled.push_str(rest);
    Some(filled)
}

/// Part of a unit's name without its escapes: `-` is a slash, `\x2d` a byte.
fn unescaped(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        match (first, after) {
            (b'-', _) => bytes.push(b'/'),
            (b'\\', [b'x', high, low, after @ ..]) => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16);
                bytes.push(u8::try_from(digit(high)? * 16 + digit(low)?).ok()?);
                rest = after;
            }
            (byte, _) => bytes.push(*byte),
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_folders() {
        let of = |text: &str, name: &str| fill(text, name).unwrap_or_else(|| "none".to_owned());
        assert_eq!(of("%p-%i%%", "getty@tty1.service"), "getty-tty1%");
        assert_eq!(
            of("%i %I %f %j %N", r"a-b@srv-my\x2dapp.mount"),
            r"srv-my\x2dapp srv/my-app /srv/my-app b a-b@srv-my\x2dapp"
        );
        assert_eq!(of("%E/x %S/y %f", "a.service"), "/etc/x /var/lib/y /a");
        for unknown in ["/run/user/%U", "%H", "%", "%i"] {
            assert_eq!(fill(unknown, "a.service"), None, "{unknown}");
        }
    }
}
