//! The forms of single values that manifests and documents of nodes have. Pure: text in, value or reason out.

use std::ops::RangeInclusive;
use std::time::Duration;

use url::Url;

use super::decode::At;
use super::diagnostic::Report;
use crate::base::duration;
use crate::base::web::misleads;
use crate::base::width::to_index;
use crate::base::window::Window;

/// Why a text is no good, and what would be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    /// Follows the quoted text: `is not …`.
    pub what: String,
    /// What would be right.
    pub help: String,
    /// The text is not for the eyes of those who read logs.
    pub secret: bool,
}

impl Report {
    /// The value that `form` makes of the text; else the reason is reported.
    pub(crate) fn form<T>(
        &mut self,
        at: &At<String>,
        form: impl FnOnce(&str) -> Result<T, Wrong>,
    ) -> Option<T> {
        match form(&at.value) {
            Ok(value) => Some(value),
            Err(Wrong { what, help, secret }) => {
                let shown = match at.value.char_indices().nth(60) {
                    _ if secret => "this".to_owned(),
                    Some((end, _)) => format!("`{}…`", at.value[..end].escape_debug()),
                    None => format!("`{}`", at.value.escape_debug()),
                };
                self.error(at.mark, format!("{shown} {what}")).help(help).secret(secret);
                None
            }
        }
    }

    /// `value`, which the text has, unless a rule refuses it that documents were taken without for long: what is kept goes on
    /// to count.
    pub(crate) fn later<T: Copy>(
        &mut self,
        at: &At<String>,
        value: T,
        rule: impl FnOnce(T) -> Result<(), Wrong>,
    ) -> Option<T> {
        match self.is_of_kept() {
            true => Some(value),
            false => self.form(at, |_| rule(value)).map(|()| value),
        }
    }

    /// The text itself when it has this form.
    pub(crate) fn checked(
        &mut self,
        at: At<String>,
        form: impl FnOnce(&str) -> Result<(), Wrong>,
    ) -> Option<String> {
        self.form(&at, form).map(|()| at.value)
    }
}

/// What is wrong, and what would be right.
pub(crate) fn wrong<T>(what: impl Into<String>, help: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong { what: what.into(), help: help.into(), secret: false })
}

/// The same of what nobody is to read.
pub(crate) fn secret<T>(what: &str, help: &str) -> Result<T, Wrong> {
    Err(Wrong { what: what.into(), help: help.into(), secret: true })
}

/// A letter or digit of names.
pub(crate) fn lower(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

/// RFC 1123, and the kernel's 64 characters.
pub(crate) fn host_name(text: &str) -> Result<(), Wrong> {
    let is_label = |label: &str| {
        !label.is_empty()
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    match text.split('.').all(is_label) {
        true if text.len() <= 64 => Ok(()),
        true => wrong("is too long", "at most 64 characters"),
        false => wrong("is no host name", "letters, digits, `-` and `.`, such as `rack1-07`"),
    }
}

/// Suffixes of systemd.unit(5); scopes exist only once a program has made them.
const UNIT_SUFFIXES: [&str; 10] = [
    ".service",
    ".socket",
    ".timer",
    ".target",
    ".path",
    ".mount",
    ".automount",
    ".swap",
    ".device",
    ".slice",
];

/// A unit by its full name.
pub(crate) fn unit(text: &str) -> Result<(), Wrong> {
    let good_characters = text.chars().all(|c| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c));
    match UNIT_SUFFIXES.iter().any(|suffix| text.len() > suffix.len() && text.ends_with(suffix)) {
        true if good_characters => Ok(()),
        _ if good_characters && !text.is_empty() && !text.contains('.') => {
            wrong("is not the full name of a unit", format!("write `{text}.service`"))
        }
        _ => wrong("is not the name of a unit", "such as `nginx.service` or `fstrim.timer`"),
    }
}

/// useradd(8)'s names.
pub(crate) fn account(text: &str) -> Result<(), Wrong> {
    let good = text.len() <= 31
        && text.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && text.chars().all(|c| lower(c) || "_-".contains(c));
    match good {
        true => Ok(()),
        false => wrong(
            "is not the name of an account",
            "a-z, 0-9, `_` and `-`, beginning with a letter, at most 31",
        ),
    }
}

/// Names of accounts of services and of groups, as systemd-sysusers takes them: Debian has some with capitals, such as
/// `Debian-exim`.
pub(crate) fn system_account(text: &str) -> Result<(), Wrong> {
    match account(&text.to_ascii_lowercase()) {
        Ok(()) => Ok(()),
        Err(_) => wrong(
            "is not the name of an account",
            "letters of ASCII, 0-9, `_` and `-`, beginning with a letter or `_`, at most 31",
        ),
    }
}

/// An absolute path in its shortest form.
pub(crate) fn absolute(text: &str) -> Result<(), Wrong> {
    if !text.starts_with('/') {
        return wrong("is not an absolute path", format!("begin with `/`: `/{text}`"));
    }
    if text.contains(['\n', '\0']) {
        return wrong("is not a path", "a path has one line");
    }
    if text.len() > 1 && text[1..].split('/').any(|part| matches!(part, "" | "." | "..")) {
        return wrong("is not in its shortest form", "leave out `.`, `..`, `//` and a `/` at the end");
    }
    Ok(())
}

/// A path that stands in a line of passwd(5): a home or a shell.
pub(crate) fn account_path(text: &str) -> Result<(), Wrong> {
    absolute(text)?;
    account_text(text)
}

/// What stands in a field of a line of passwd(5), as systemd's `valid_gecos()` and `valid_home()` have it.
pub(crate) fn account_text(text: &str) -> Result<(), Wrong> {
    match text.chars().any(|letter| letter == ':' || letter.is_control()) {
        true => wrong(
            "cannot stand in /etc/passwd",
            "leave out `:`, line breaks and other control characters: they end a field or a line there",
        ),
        false => Ok(()),
    }
}

/// Octal permission bits.
pub(crate) fn mode(text: &str) -> Result<u16, Wrong> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    match u16::from_str_radix(digits, 8) {
        Ok(mode) if mode <= 0o7777 && (3..=5).contains(&digits.len()) => Ok(mode),
        _ => wrong("is not an octal mode", "three or four octal digits, such as \"0644\" or \"0755\""),
    }
}

/// A crypt hash as in shadow(5).
pub(crate) fn password_hash(text: &str) -> Result<(), Wrong> {
    let good = text.starts_with('$')
        && text.matches('$').count() >= 3
        && text.len() >= 20
        && text.chars().all(|c| c.is_ascii_graphic() && c != ':');
    match good {
        true => Ok(()),
        false => secret(
            "is not a password hash",
            "make one with `mkpasswd`; a password itself must never stand here",
        ),
    }
}

/// Key types of ssh-keygen(1) that sshd takes in authorized_keys.
const KEY_TYPES: [&str; 7] = [
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];

/// A line of authorized_keys: options, type, key, comment.
pub(crate) fn ssh_key(text: &str) -> Result<(), Wrong> {
    let example = "one line of authorized_keys, such as the content of `~/.ssh/id_ed25519.pub`";
    if text.contains("PRIVATE KEY") {
        return secret(
            "is a private key",
            "take the public half, the file that ends in `.pub`; replace this key, it is no secret now",
        );
    }
    if text.contains('\n') {
        return wrong("is more than one line", "one item for each key");
    }
    let mut words = text.split_whitespace().skip_while(|word| !KEY_TYPES.contains(word));
    let (Some(kind), Some(body)) = (words.next(), words.next()) else {
        return wrong("is not an ssh key", example);
    };
    match base64(body).as_deref().map(|blob| whole_key(blob, kind)) {
        Some(true) => Ok(()),
        _ => wrong("is not an ssh key: what follows the type is damaged or cut short", example),
    }
}

/// RFC 4648, with padding.
pub(crate) fn base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    if !text.len().is_multiple_of(4) || text.len() - digits.len() > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut held, mut bits) = (0_u32, 0);
    for byte in digits.bytes() {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        held = held << 6 | u32::from(digit);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits).to_le_bytes()[0]);
        }
    }
    Some(bytes)
}

/// RFC 4253, section 6.6: strings with a length before each, the first of which repeats the type.
fn whole_key(mut blob: &[u8], kind: &str) -> bool {
    let mut fields = Vec::new();
    while let Some((length, rest)) = blob.split_first_chunk::<4>() {
        let Some((field, rest)) = rest.split_at_checked(to_index(u32::from_be_bytes(*length))) else {
            return false;
        };
        fields.push(field);
        blob = rest;
    }
    blob.is_empty() && fields.len() >= 2 && fields[0] == kind.as_bytes()
}

/// `a-z`, `0-9` and `-`, beginning with a letter.
pub(crate) fn id(text: &str) -> Result<(), Wrong> {
    let good = text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(|c| lower(c) || c == '-')
        && !text.ends_with('-');
    match good {
        true if text.len() <= 32 => Ok(()),
        true => wrong("is too long", "at most 32 characters"),
        false => wrong(
            "is not a name",
            "letters a-z, digits and `-`, beginning with a letter, such as `edge-node`",
        ),
    }
}

/// Seconds of a length of time in `range`.
pub(crate) fn duration(text: &str, range: &RangeInclusive<Duration>) -> Result<u64, Wrong> {
    match duration::parse(text, range) {
        Ok(duration) => Ok(duration.as_secs()),
        Err(error) => wrong(error.problem.to_string(), error.problem.expected()),
    }
}

/// A time of day, on all days or some.
pub(crate) fn window(text: &str) -> Result<Window, Wrong> {
    match text.parse() {
        Ok(window) => Ok(window),
        Err(_) => wrong("is not a time of day", "such as `02:00-05:00` or `Sat,Sun 02:00-05:00`"),
    }
}

/// An address with one of `schemes`, without a password.
pub(crate) fn url(text: &str, schemes: &[&str]) -> Result<(), Wrong> {
    let example = "such as `https://mirror.example/debian`";
    let parsed = Url::parse(text).ok().filter(|_| misleads(text).is_none());
    let Some(url) = parsed else {
        return match text.contains('@') {
            true => secret("is not an address", example),
            false => wrong("is not an address", example),
        };
    };
    if url.password().is_some() {
        return secret(
            "carries a password",
            "keep secrets out of manifests and node documents; for a mirror, apt's auth.conf(5) is the place for them",
        );
    }
    if !schemes.contains(&url.scheme()) {
        return wrong(
            format!("has the scheme `{}`", url.scheme()),
            format!("{}, {example}", schemes.join(", ")),
        );
    }
    if url.scheme() != "file" && url.host_str().is_none_or(str::is_empty) {
        return wrong("has no host", example);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ssh_keys() {
        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFKy6hBVTZO0vCEWCFBCiWXCXrkL3cdRaqFJCqYxVp2B me@here";
        assert_eq!(ssh_key(key), Ok(()));
        assert_eq!(ssh_key(&format!("no-pty,command=\"echo hi\" {key}")), Ok(()));
        assert!(ssh_key(&key.replace("Vp2B", "")).is_err());
        assert!(ssh_key(&key.replace("ssh-ed25519", "ssh-rsa")).is_err());
        assert!(ssh_key("-----BEGIN OPENSSH PRIVATE KEY-----").is_err());
        assert!(ssh_key("AAAAC3NzaC1lZDI1NTE5").is_err());
    }
}
