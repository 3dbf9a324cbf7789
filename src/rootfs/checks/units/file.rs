//! The text of unit files: systemd.syntax(7), and command lines of systemd.service(5).

/// Keys for which an empty value takes all earlier ones back.
const RESETTABLE: [&str; 3] = ["Exec", "Condition", "Assert"];

/// Settings of a unit and its drop-ins, in the order in which they were read.
#[derive(Debug, Default)]
pub struct Settings(Vec<(String, String, String)>);

impl Settings {
    /// Adds the settings of one file.
    pub fn read(&mut self, text: &str) {
        let mut section = String::new();
        let mut logical = String::new();
        for line in text.lines() {
            let line = line.trim();
            // Comments are passed over even inside a continued line.
            if line.starts_with(['#', ';']) {
                continue;
            }
            if let Some(continued) = line.strip_suffix('\\') {
                logical.push_str(continued);
                logical.push(' ');
                continue;
            }
            logical.push_str(line);
            let line = std::mem::take(&mut logical);
            if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                section = name.to_owned();
            } else if let Some((key, value)) = line.split_once('=') {
                self.add(&section, key.trim(), value.trim());
            }
        }
    }

    fn add(&mut self, section: &str, key: &str, value: &str) {
        if value.is_empty() && RESETTABLE.iter().any(|prefix| key.starts_with(prefix)) {
            self.0.retain(|(s, k, _)| s != section || k != key);
            return;
        }
        self.0.push((section.to_owned(), key.to_owned(), value.to_owned()));
    }

    /// Values of one key.
    pub fn all(&self, section: &str, key: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(s, k, _)| s == section && k == key).map(|(_, _, value)| value.as_str())
    }

    /// Keys that begin with `prefix`, and their values.
    pub fn keys(&self, section: &str, prefix: &str) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .filter(move |(s, k, _)| s == section && k.starts_with(prefix))
            .map(|(_, key, value)| (key.as_str(), value.as_str()))
    }

    /// Words of all values of one key.
    pub fn words(&self, section: &str, key: &str) -> impl Iterator<Item = &str> {
        self.all(section, key).flat_map(str::split_whitespace)
    }

    /// The value that holds, of a key that has only one.
    pub fn last(&self, section: &str, key: &str) -> Option<&str> {
        self.all(section, key).last().filter(|value| !value.is_empty())
    }
}

/// Truth as systemd writes it.
pub fn is_true(value: &str) -> bool {
    ["1", "yes", "y", "true", "t", "on"].contains(&value.to_ascii_lowercase().as_str())
}

/// What `Environment=` sets the variable `name` to, by its last assignment since an empty value took back the
/// earlier ones.
pub fn variable<'a>(values: impl Iterator<Item = &'a str>, name: &str) -> Option<&'a str> {
    values.fold(None, |before, value| {
        let words = value.split_whitespace().map(|word| word.trim_matches(['"', '\'']));
        let set = words.filter_map(|word| word.strip_prefix(name)?.strip_prefix('=')).last();
        set.or(before.filter(|_| !value.is_empty()))
    })
}

/// The programs that one `Exec…=` starts: the first word, and the first after each lone `;`. Those that may
/// fail (`-`) may be absent as well.
pub fn programs(value: &str) -> impl Iterator<Item = &str> {
    let mut begins = true;
    value.split_whitespace().filter_map(move |word| {
        let is_program = std::mem::replace(&mut begins, word == ";") && word != ";";
        let program = word.trim_start_matches(['@', '-', ':', '+', '!', '|']);
        let prefix = &word[..word.len() - program.len()];
        let program = program.trim_matches(['"', '\'']);
        (is_program && !prefix.contains('-') && !program.is_empty() && !program.starts_with('$'))
            .then_some(program)
    })
}

/// Fills in what the unit's own name says (`%i`, `%p`, `%n`, `%N` and so on); nothing when only the running
/// system knows.
pub fn specifiers(text: &str, name: &str) -> Option<String> {
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    let (prefix, instance) = stem.split_once('@').unwrap_or((stem, ""));
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        filled.push_str(before);
        let specifier = after.chars().next()?;
        match specifier {
            '%' => filled.push('%'),
            'i' | 'I' if !instance.is_empty() => filled.push_str(instance),
            'p' | 'P' => filled.push_str(prefix),
            'n' => filled.push_str(name),
            'N' => filled.push_str(stem),
            _ => return None,
        }
        rest = &after[specifier.len_utf8()..];
    }
    filled.push_str(rest);
    Some(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_continue_reset_and_repeat() {
        let mut settings = Settings::default();
        settings.read("[Unit]\nWants=a.service \\\n# c\n  b.service\n[Service]\nExecStart=/bin/a\nUser=x\n");
        settings.read("[Service]\nExecStart=\nExecStart=-/bin/b\nUser=y\n");
        assert_eq!(settings.words("Unit", "Wants").collect::<Vec<_>>(), ["a.service", "b.service"]);
        assert_eq!(settings.keys("Service", "Exec").collect::<Vec<_>>(), [("ExecStart", "-/bin/b")]);
        assert_eq!(settings.last("Service", "User"), Some("y"));
    }

    #[test]
    fn command_lines() {
        let of = |value| programs(value).collect::<Vec<_>>();
        assert_eq!(of("@!/bin/a a -x ; /bin/b"), ["/bin/a", "/bin/b"]);
        assert_eq!(of("-/bin/a"), [""; 0]);
        let path = |values: &[&'static str]| variable(values.iter().copied(), "PATH");
        assert_eq!(path(&["A=b \"PATH=/a:/b\" PATHS=/d", "C=d"]), Some("/a:/b"));
        assert_eq!(path(&["PATH=/a", "", "PATHS=/b"]), None);
        assert_eq!(of("\"/bin/a\" ${X}"), ["/bin/a"]);
        assert_eq!(specifiers("%p-%i%%", "getty@tty1.service").as_deref(), Some("getty-tty1%"));
        assert_eq!(specifiers("/run/user/%U", "a.service"), None);
    }
}
