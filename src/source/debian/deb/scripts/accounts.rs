//! Which account a script's command makes: adduser(8), addgroup(8), useradd(8), groupadd(8), usermod(8).

use std::collections::BTreeMap;

/// Options with a value in the next word; all others stand alone or bring their value after `=`.
const WITH_VALUE: [&str; 38] = [
    "--home",
    "--shell",
    "--ingroup",
    "--gecos",
    "--comment",
    "--uid",
    "--gid",
    "--firstuid",
    "--lastuid",
    "--firstgid",
    "--lastgid",
    "--conf",
    "--home-dir",
    "--base-dir",
    "--groups",
    "--inactive",
    "--expiredate",
    "--skel",
    "--key",
    "--password",
    "--root",
    "--prefix",
    "--login",
    "-d",
    "-s",
    "-g",
    "-G",
    "-c",
    "-u",
    "-b",
    "-e",
    "-f",
    "-k",
    "-K",
    "-p",
    "-R",
    "-P",
    "-l",
];
/// Most bytes of a command that are looked at: real ones have some hundred.
const COMMAND: usize = 4096;
/// Most commands of a script of which more than the name is looked at: real scripts have some ten, and in a hostile one
/// each word is a command with the rest of the line.
pub(super) const COMMANDS: usize = 256;
/// Most bytes of a word, and of what a variable holds: names have at most 32, paths of homes some more.
const WORD: usize = 256;
/// Options that say nothing of what is made.
const QUIET: [&str; 3] = ["--quiet", "-q", "--"];
/// Options that name the home directory.
const HOME: [&str; 3] = ["--home", "--home-dir", "-d"];

/// An account that a script would make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Of the user or group; with a `$` where only the script knows it.
    pub name: String,
    /// It is a group alone.
    pub group: bool,
    /// Home directory, where the command names one.
    pub home: Option<String>,
}

impl Account {
    /// What a word of an action says that it makes.
    pub fn of(word: &str) -> Option<Self> {
        let mut parts = word.split(' ');
        let (command, name) = (parts.next()?, parts.next()?);
        let group = match command {
            "adduser" | "useradd" => false,
            "addgroup" | "groupadd" => true,
            _ => return None,
        };
        let home = parts.next().and_then(|option| option.strip_prefix("--home=")).map(str::to_owned);
        Some(Self { name: name.to_owned(), group, home })
    }

    /// Whether the name is known without running the script.
    pub fn is_known(&self) -> bool {
        !self.name.contains(['$', '`'])
    }
}

/// What variables hold that are set once, to text.
pub(super) fn variables(text: &str) -> BTreeMap<String, String> {
    let mut found: BTreeMap<String, Option<String>> = BTreeMap::new();
    for line in text.lines() {
        let line = line.trim_start();
        let line = ["export ", "local ", "readonly "]
            .iter()
            .find_map(|word| line.strip_prefix(word))
            .unwrap_or(line);
        let Some((name, _)) = line.split_once('=') else { continue };
        let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !is_name {
            continue;
        }
        let value = tokens(&line[name.len() + 1..]).into_iter().next().unwrap_or_default();
        let value = Some(value).filter(|value| value.len() <= WORD && !value.contains(['$', '`']));
        match found.get(name) {
            Some(known) if *known != value => drop(found.insert(name.to_owned(), None)),
            _ => drop(found.insert(name.to_owned(), value)),
        }
    }
    found.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

/// `adduser NAME`, or `adduser NAME --home=DIR`, of the command `name` with the words `rest`; no name where it only
/// makes one account a member of another.
pub(super) fn command(name: &str, rest: &str, variables: &BTreeMap<String, String>) -> String {
    let mut home = None;
    let mut operands = Vec::new();
    let mut creates = false;
    let words = tokens(up_to(rest, COMMAND));
    let mut words = words.iter().map(|word| filled(up_to(word, WORD), variables));
    while let Some(word) = words.next() {
        creates |= word.starts_with('-') && !QUIET.contains(&word.as_str());
        if let Some((option, value)) = word.split_once('=').filter(|_| word.starts_with("--")) {
            if HOME.contains(&option) {
                home = Some(value.to_owned());
            }
        } else if WITH_VALUE.contains(&word.as_str()) {
            let value = words.next();
            if HOME.contains(&word.as_str()) {
                home = value;
            }
        } else if !word.starts_with('-') && !word.is_empty() {
            operands.push(word);
        }
    }
    let mut text = name.to_owned();
    if let Some(account) = made(name, &operands, creates) {
        text += &format!(" {}", account.replace(' ', "_"));
        if let Some(home) = home.filter(|home| home.starts_with('/') && !home.contains([' ', '$', '`'])) {
            text += &format!(" --home={home}");
        }
    }
    text
}

/// Which of the words that are no options is the account. `adduser USER GROUP` makes none: adduser(8), "Add an
/// existing user to an existing group". A variable before others holds options: `adduser $quiet --system x`.
fn made<'a>(command: &str, operands: &'a [String], creates: bool) -> Option<&'a String> {
    let options = operands.len() == 3 && operands[0].starts_with('$');
    if command == "adduser" && !creates && (operands.len() == 2 || options) {
        return None;
    }
    operands.iter().find(|word| !word.starts_with('$')).or(operands.last())
}

/// The words of one simple command: up to what ends it, quotes taken off.
fn tokens(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quote, mut any) = (Vec::new(), String::new(), None, false);
    for c in text.chars() {
        match (quote, c) {
            (Some(end), c) if c == end => quote = None,
            (Some(_), c) => word.push(c),
            (None, '"' | '\'') => (quote, any) = (Some(c), true),
            (None, ';' | '|' | '&' | ')' | '<' | '>' | '\n') => break,
            (None, c) if c.is_whitespace() => {
                if any || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                any = false;
            }
            (None, c) => word.push(c),
        }
    }
    // What a redirection takes, such as the 2 of `2>`, is no word.
    if (any || !word.is_empty()) && !(text.contains(&format!("{word}>")) && word.parse::<u8>().is_ok()) {
        words.push(word);
    }
    words
}

/// The beginning of `text`, of at most `limit` bytes.
fn up_to(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

/// `$NAME`, `${NAME}` and `${NAME:-text}` replaced up to the first whose value is not known, or too long.
fn filled(word: &str, variables: &BTreeMap<String, String>) -> String {
    let mut text = String::new();
    let mut rest = word;
    while let Some((before, after)) = rest.split_once('$') {
        let (name, default, behind) = variable(after);
        let value = variables.get(name).map(String::as_str).or(default);
        let Some(value) = value.filter(|value| text.len() + value.len() <= WORD) else { break };
        text += before;
        text += value;
        rest = behind;
    }
    text + rest
}

/// Name, default and what comes after them, of what stands behind a `$`.
fn variable(after: &str) -> (&str, Option<&str>, &str) {
    match after.strip_prefix('{').and_then(|after| after.split_once('}')) {
        Some((inside, behind)) => match inside.split_once(":-") {
            Some((name, default)) => (name, Some(default), behind),
            None => (inside, None, behind),
        },
        None => {
            let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
            (&after[..end], None, &after[end..])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::debian::deb::scripts::words;

    #[test]
    fn commands_of_real_scripts() {
        for (script, expected) in [
            // lldpd
            (
                "adduser --system --quiet --home /var/run/lldpd --no-create-home --group _lldpd\n",
                "adduser _lldpd --home=/var/run/lldpd",
            ),
            (
                "if ! getent passwd tor > /dev/null; then\n  adduser --quiet \\\n --system \\\n --disabled-password --gecos \"Tor daemon\" debian-tor || exit 1\nfi\n",
                "adduser debian-tor",
            ),
            (
                "U=\"ntpsec\"\nuseradd -r -d /nonexistent -s /usr/sbin/nologin -g ntp -c 'a b' \"$U\" 2>/dev/null\n",
                "useradd ntpsec --home=/nonexistent",
            ),
            ("addgroup --system ssl-cert; true\n", "addgroup ssl-cert"),
            ("groupadd -g 300 -r ${G:-render}\n", "groupadd render"),
            ("adduser --home=/srv/x --uid 7 x games\n", "adduser x --home=/srv/x"),
            ("adduser --system $USER\n", "adduser $USER"),
            ("A=one\nA=two\nadduser --system $A\n", "adduser $A"),
            ("usermod -a -G shadow x\n", "usermod x"),
            // postgresql-common
            (
                "[ \"$DPKG\" ] && quiet=\"--quiet\"\nadduser --system $quiet --home /var/lib/postgresql --shell /bin/bash --gecos \"an admin\" postgres\n",
                "adduser postgres --home=/var/lib/postgresql",
            ),
            ("addgroup $quiet --system postgres\n", "addgroup postgres"),
            ("adduser $quiet postgres ssl-cert\n", "adduser"),
            ("adduser --quiet sddm video\n", "adduser"),
            ("adduser $USER video\n", "adduser"),
            ("adduser $OPTIONS --system \"$USER\"\n", "adduser $USER"),
            ("adduser\n", "adduser"),
        ] {
            let said = words(script.as_bytes(), false);
            assert!(said.contains(&expected.to_owned()), "{script}: {said:?}");
        }
    }

    /// The stack and the time do not grow with a script that nobody wrote for people.
    #[test]
    fn a_hostile_script_costs_little() {
        let variables = BTreeMap::from([("a".to_owned(), "x".to_owned())]);
        assert_eq!(filled(&"$a".repeat(200), &variables), "x".repeat(200));
        assert_eq!(filled("${a}-$a.${b:-c}$b$a", &variables), "x-x.c$b$a");
        let many = filled(&"$a".repeat(1_000_000), &variables);
        assert!(many.starts_with(&"x".repeat(WORD)) && many[WORD..].starts_with("$a"));

        let long = format!("a=x\nadduser --system {}\n", "$a".repeat(100_000));
        assert_eq!(words(long.as_bytes(), false), [format!("adduser {}", "x".repeat(WORD / 2))]);
        let value = format!("a={}\nadduser $a$a\n", "x".repeat(100_000));
        assert_eq!(words(value.as_bytes(), false), ["adduser $a$a"]);
        // At a boundary of letters.
        let wide = format!("adduser \u{fc}{}\n", "\u{2026}".repeat(100_000));
        let said = words(wide.as_bytes(), false).remove(0);
        assert!(said.starts_with("adduser \u{fc}\u{2026}") && said.len() < "adduser ".len() + WORD);
        let line = format!("{}\n", "adduser ".repeat(150_000));
        assert_eq!(words(line.as_bytes(), false), ["adduser", "adduser adduser"]);
        let far = format!("adduser {} --home /srv/x\n", "b ".repeat(COMMAND));
        assert_eq!(words(far.as_bytes(), false), ["adduser b"]);
    }

    #[test]
    fn what_a_word_makes() {
        let of = |word: &str| {
            Account::of(word).map(|account| (account.name.clone(), account.group, account.is_known()))
        };
        assert_eq!(of("adduser _lldpd --home=/run/x"), Some(("_lldpd".into(), false, true)));
        assert_eq!(of("groupadd x"), Some(("x".into(), true, true)));
        assert_eq!(of("adduser $USER"), Some(("$USER".into(), false, false)));
        assert_eq!((of("usermod x"), of("adduser"), of("ln")), (None, None, None));
        assert_eq!(Account::of("adduser _lldpd --home=/run/x").unwrap().home.as_deref(), Some("/run/x"));
    }
}
