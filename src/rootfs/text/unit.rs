//! Units of systemd.
//!
//! Format: systemd.syntax(7), and systemd.service(5), "Command Lines", of systemd 257.

/// A unit file under construction.
#[derive(Clone, Debug, Default)]
pub struct Unit {
    text: String,
}

impl Unit {
    /// Begins the section `name`.
    pub fn section(&mut self, name: &str) -> &mut Self {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.text.push_str(&format!("[{name}]\n"));
        self
    }

    /// A setting whose value is written as it is.
    pub fn set(&mut self, key: &str, value: &str) -> &mut Self {
        self.text.push_str(&format!("{key}={value}\n"));
        self
    }

    /// A command, each word an argument of its own. `prefix` is one of systemd's, such as `-`.
    pub fn command(&mut self, key: &str, prefix: &str, words: &[&str]) -> &mut Self {
        let words: Vec<String> = words.iter().map(|word| argument(word)).collect();
        self.set(key, &format!("{prefix}{}", words.join(" ")))
    }

    /// The text of the file.
    pub fn finish(&self) -> String {
        self.text.clone()
    }
}

/// Words that need no quotes, in any setting.
fn plain(text: &str) -> bool {
    let safe = |c: char| c.is_ascii_alphanumeric() || "/._-:=,+@".contains(c);
    !text.is_empty() && text.chars().all(safe)
}

/// A word with C escapes. `%` would begin a specifier.
fn quoted(text: &str) -> String {
    if plain(text) {
        return text.to_owned();
    }
    let mut quoted = String::from('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '%' => quoted.push_str("%%"),
            letter if letter.is_ascii_control() => quoted.push_str(&format!("\\x{:02x}", u32::from(letter))),
            letter => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}

/// One word of a setting that is a list, such as Environment= or RequiresMountsFor=.
pub fn word(text: &str) -> String {
    quoted(text)
}

/// One argument of a command. There, other than in lists, `$` begins a variable.
pub fn argument(text: &str) -> String {
    quoted(&text.replace('$', "$$"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted() {
        let words = ["a b", "50%", "\"$x\"", "", ";", "plain/_x"].map(argument).join(" ");
        assert_eq!(words, r#""a b" "50%%" "\"$$x\"" "" ";" plain/_x"#);
        assert_eq!(word("A=$x"), "\"A=$x\"");
        assert_eq!(word("a\n\u{7}"), r#""a\n\x07""#);
    }

    #[test]
    fn sections_are_apart() {
        let mut unit = Unit::default();
        unit.section("Unit").set("After", "x.service").section("Service");
        unit.command("ExecStart", "-", &["/bin/sh", "-c", "exec true"]);
        let text = "[Unit]\nAfter=x.service\n\n[Service]\nExecStart=-/bin/sh -c \"exec true\"\n";
        assert_eq!(unit.finish(), text);
    }
}
