//! Unit files as systemd reads them: lines, sections, and which value takes back which.
//!
//! Format: systemd.syntax(7), and config_parse() of systemd 257.

use std::collections::HashMap;

use super::words::{BLANKS, Escapes, words};

/// Settings of a unit and its drop-ins, in the order in which they were read: section, key and value. None is a value
/// that takes back those before it, which stay in the list: to take them out each time could cost the square of it.
#[derive(Debug, Default)]
pub struct Settings(Vec<(String, String, Option<String>)>);

impl Settings {
    /// Adds the settings of one file. A line that is not UTF-8 does not count, as for systemd.
    pub fn read(&mut self, text: &[u8]) {
        let mut section = String::new();
        for line in logical_lines(text) {
            let Ok(line) = std::str::from_utf8(&line) else { continue };
            let line = line.trim_matches(BLANKS);
            if let Some(name) = line.strip_prefix('[') {
                section = name.strip_suffix(']').unwrap_or_default().to_owned();
            } else if let Some((key, value)) = line.split_once('=') {
                self.add(&section, key.trim_matches(BLANKS), value.trim_matches(BLANKS));
            }
        }
    }

    /// An empty value takes the earlier ones back, other than of dependencies.
    fn add(&mut self, section: &str, key: &str, value: &str) {
        let resettable =
            section != "Unit" || ["Condition", "Assert"].iter().any(|kind| key.starts_with(kind));
        let value = (!value.is_empty() || !resettable).then(|| value.to_owned());
        self.0.push((section.to_owned(), key.to_owned(), value));
    }

    /// Values of one key.
    pub fn all(&self, section: &str, key: &str) -> impl Iterator<Item = &str> {
        let is_it = move |(s, k, _): &&(String, String, Option<String>)| s == section && k == key;
        let taken_back = self.0.iter().rposition(|entry| is_it(&entry) && entry.2.is_none());
        let left = &self.0[taken_back.map_or(0, |place| place + 1)..];
        left.iter().filter(is_it).filter_map(|(_, _, value)| value.as_deref())
    }

    /// Keys that begin with `prefix`, and their values.
    pub fn keys(&self, section: &str, prefix: &str) -> impl Iterator<Item = (&str, &str)> {
        let all = self.0.iter().enumerate();
        let all = all.filter(move |(_, (s, k, _))| s == section && k.starts_with(prefix));
        let taken_back = all.clone().filter(|(_, (_, _, value))| value.is_none());
        let taken_back: HashMap<&str, usize> =
            taken_back.map(|(place, (_, key, _))| (key.as_str(), place)).collect();
        all.filter_map(move |(place, (_, key, value))| {
            let is_left = taken_back.get(key.as_str()).is_none_or(|end| place > *end);
            value.as_deref().filter(|_| is_left).map(|value| (key.as_str(), value))
        })
    }

    /// Names in all values of one key. Backslashes are part of a unit's name.
    pub fn names(&self, section: &str, key: &str) -> Vec<String> {
        self.all(section, key).flat_map(|value| words(value, Escapes::Kept)).collect()
    }

    /// The value that holds, of a key that has only one.
    pub fn last(&self, section: &str, key: &str) -> Option<&str> {
        self.all(section, key).last().filter(|value| !value.is_empty())
    }

    /// What `Environment=` sets the variable `name` to, by its last assignment.
    pub fn variable(&self, name: &str) -> Option<String> {
        let words = self.all("Service", "Environment").flat_map(|value| words(value, Escapes::C));
        words.filter_map(|word| Some(word.strip_prefix(name)?.strip_prefix('=')?.to_owned())).last()
    }
}

/// Truth as systemd writes it.
pub fn is_true(value: &str) -> bool {
    ["1", "yes", "y", "true", "t", "on"].contains(&value.to_ascii_lowercase().as_str())
}

/// Lines, continued ones in one piece. A line continues if it ends in a backslash that no other escapes; comments
/// between are passed over.
fn logical_lines(text: &[u8]) -> Vec<Vec<u8>> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let (mut lines, mut open) = (Vec::new(), None::<Vec<u8>>);
    for line in text.split(|byte| matches!(byte, b'\n' | b'\0')) {
        // read_line() ends a line at "\r\n" as well.
        let line = line.strip_suffix(b"\r").unwrap_or(line).trim_ascii_start();
        if line.starts_with(b"#") || line.starts_with(b";") {
            continue;
        }
        let mut whole = open.take().unwrap_or_default();
        whole.extend_from_slice(line);
        // What is before this line ends with a blank.
        let continues = line.iter().fold(false, |escaped, byte| !escaped && *byte == b'\\');
        if continues {
            whole.pop();
            whole.push(b' ');
            open = Some(whole);
        } else {
            lines.push(whole);
        }
    }
    lines.extend(open);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_continue_reset_and_repeat() {
        let mut settings = Settings::default();
        settings.read(b"[Unit]\nWants=a.service \\\n# c\n  b.service\n[Service]\nExecStart=/bin/a\nUser=x\n");
        settings.read(b"[Service]\nExecStart=\nExecStart=-/bin/b\nUser=y\n");
        assert_eq!(settings.names("Unit", "Wants"), ["a.service", "b.service"]);
        assert_eq!(settings.keys("Service", "Exec").collect::<Vec<_>>(), [("ExecStart", "-/bin/b")]);
        assert_eq!(settings.last("Service", "User"), Some("y"));
    }

    /// They took the square of their number: a unit of the largest size, 2,000,000 lines, minutes.
    #[test]
    fn a_great_many_lines() {
        let mut settings = Settings::default();
        settings.read(format!("[Service]\nA=1{}2\n", "\\\n".repeat(200_000)).as_bytes());
        let value = settings.last("Service", "A").unwrap();
        assert!(value.starts_with("1  ") && value.ends_with("  2") && value.len() == 200_002);
        let mut settings = Settings::default();
        settings.read(format!("[Service]\n{}A=2\n", "A=1\nB=\nA=\nB=3\n".repeat(25_000)).as_bytes());
        assert_eq!(settings.all("Service", "A").collect::<Vec<_>>(), ["2"]);
        assert_eq!(settings.keys("Service", "").collect::<Vec<_>>(), [("B", "3"), ("A", "2")]);
    }

    #[test]
    fn lines_of_every_kind() {
        let mut settings = Settings::default();
        settings.read(
            b"\xef\xbb\xbf; first\r\n[Unit]\r\nWants=a\\x2db.service \"c d.service\"\r\nWants=\n\
              [Service]\nA=x\\\\\nB=1 \\\n\n C=2\nD=1\\\n;no\n#no\\\n  2 \\\n3\nE=\xff\nF = g = h \n\
              Environment=P=\"a b\" 'Q=c d' \"R=\\x41\\n\"\nEnvironment=Q=1 Q=2\nG=last\\",
        );
        assert_eq!(settings.names("Unit", "Wants"), ["a\\x2db.service", "c d.service"]);
        let value = |key| settings.last("Service", key);
        assert_eq!(["A", "B", "D", "F", "G"].map(value), ["x\\\\", "1", "1 2  3", "g = h", "last"].map(Some));
        assert_eq!((value("C"), value("E")), (Some("2"), None));
        let variable = |name| settings.variable(name);
        assert_eq!(["P", "Q", "R"].map(variable), ["a b", "2", "A\n"].map(|value| Some(value.to_owned())));
        settings.read(b"[Service]\nEnvironment=\nEnvironment=Q2=3\n");
        assert_eq!(["P", "Q"].map(|name| settings.variable(name)), [None, None]);
    }
}
