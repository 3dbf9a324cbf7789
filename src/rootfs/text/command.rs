//! Command lines of units.
//!
//! Format: systemd.service(5), "Command Lines", and config_parse_exec() of systemd 257.

use std::fmt;

use super::words::BLANKS;
use super::words::{Escapes, Unbalanced, first};

/// One command of an `Exec…=`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Command {
    /// The program, without prefixes; specifiers are left in it.
    pub program: String,
    /// Prefix `-`: it may fail, and so be absent.
    pub may_fail: bool,
    /// Prefix `@`: the first argument is the name under which the program runs.
    pub names_itself: bool,
    /// What follows on the program.
    pub arguments: Vec<String>,
}

impl Command {
    /// Whether a variable is in the place of the program, which only the node can tell.
    pub fn is_variable(&self) -> bool {
        self.program.starts_with('$')
    }

    /// Takes the prefixes off the first word.
    fn begin(word: &str) -> Self {
        let mut command = Self::default();
        // `|` is of systemd 258.
        let (mut verbatim, mut shell, mut privileged) = (false, false, String::new());
        let mut rest = word;
        loop {
            let flag = match rest.chars().next() {
                Some('-') => &mut command.may_fail,
                Some('@') => &mut command.names_itself,
                Some(':') => &mut verbatim,
                Some('|') => &mut shell,
                Some(letter @ ('+' | '!'))
                    if ["", "!"].contains(&&*privileged) && (letter == '!' || privileged.is_empty()) =>
                {
                    privileged.push(letter);
                    rest = &rest[1..];
                    continue;
                }
                _ => break,
            };
            if std::mem::replace(flag, true) {
                break;
            }
            rest = &rest[1..];
        }
        rest.clone_into(&mut command.program);
        command
    }
}

/// Why systemd takes a command line for broken. Follows on its value: `ExecStart=x, in which …`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// A quote that nothing closes.
    Quote,
    /// Prefixes, and no program.
    Empty,
    /// A program whose path has a slash inside, and none at its beginning.
    Relative,
    /// A program whose path ends in a slash.
    Directory,
    /// A quote, a backslash or a control character in the program's path.
    Letters,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Quote => "a quote is left open",
            Self::Empty => "the program is empty",
            Self::Relative => "the program is neither a plain name nor an absolute path",
            Self::Directory => "the program ends in `/`, as directories do",
            Self::Letters => "the program has a quote, a backslash or a control character in its path",
        })
    }
}

/// The commands of one value: a `;` that is a word of its own, without quotes, is between two of them. A broken
/// one that may fail (`-`) is passed over with all that follows on it.
pub fn commands(value: &str) -> Result<Vec<Command>, Broken> {
    let (mut commands, mut rest) = (Vec::new(), value);
    while let Some(word) = first(&mut rest, Escapes::C).map_err(|Unbalanced| Broken::Quote)? {
        if word == ";" {
            continue;
        }
        let mut command = Command::begin(&word);
        match program(&command).and_then(|()| arguments(&mut rest)) {
            Ok(arguments) => command.arguments = arguments,
            Err(_) if command.may_fail => break,
            Err(broken) => return Err(broken),
        }
        commands.push(command);
    }
    Ok(commands)
}

fn program(command: &Command) -> Result<(), Broken> {
    let program = &command.program;
    match program.as_str() {
        "" => Err(Broken::Empty),
        path if path.contains(|c: char| c.is_ascii_control() || "\"'\\".contains(c)) => Err(Broken::Letters),
        path if path.ends_with('/') => Err(Broken::Directory),
        path if path.contains('/') && !path.starts_with(['/', '%', '$']) => Err(Broken::Relative),
        _ => Ok(()),
    }
}

/// The words up to the end of the command, which is taken off `rest`.
fn arguments(rest: &mut &str) -> Result<Vec<String>, Broken> {
    let mut arguments = Vec::new();
    loop {
        if let Some(after) = lone(rest, ";") {
            *rest = after;
            return Ok(arguments);
        }
        if let Some(after) = lone(rest, "\\;") {
            *rest = after;
            arguments.push(";".to_owned());
            continue;
        }
        match first(rest, Escapes::C).map_err(|Unbalanced| Broken::Quote)? {
            Some(word) => arguments.push(word),
            None => return Ok(arguments),
        }
    }
}

/// What follows on `word`, where it stands for itself at the beginning of `text`.
fn lone<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let after = text.strip_prefix(word)?;
    (after.is_empty() || after.starts_with(BLANKS)).then(|| after.trim_start_matches(BLANKS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: &str) -> Vec<Vec<String>> {
        let words = |command: Command| [vec![command.program], command.arguments].concat();
        commands(value).unwrap().into_iter().map(words).collect()
    }

    #[test]
    fn commands_of_systemds_page() {
        assert_eq!(of("echo one ; echo \"two two\""), [vec!["echo", "one"], vec!["echo", "two two"]]);
        assert_eq!(of(r#"echo / >/dev/null & \; ls"#), [["echo", "/", ">/dev/null", "&", ";", "ls"]]);
        assert_eq!(of("/bin/echo ${ONE} $TWO"), [["/bin/echo", "${ONE}", "$TWO"]]);
    }

    #[test]
    fn programs() {
        let programs = |value: &str| {
            commands(value).unwrap().into_iter().map(|command| command.program).collect::<Vec<_>>()
        };
        assert_eq!(programs("@!/bin/a a -x ; /bin/b"), ["/bin/a", "/bin/b"]);
        assert_eq!(programs("\"/usr/lib/My App/run\" x"), ["/usr/lib/My App/run"]);
        assert_eq!(programs(r"/usr/lib/My\x20App/run;x"), ["/usr/lib/My App/run;x"]);
        assert_eq!(programs(r#""-/bin/a" ";" /bin/no ; ; +:@/bin/b b ;"#), ["/bin/a", "/bin/b"]);
        assert_eq!(programs(r"/bin/a a\; /bin/no \;; /bin/no"), ["/bin/a"]);
        assert_eq!(programs("!!/bin/a ; --x"), ["/bin/a", "-x"]);
        assert!(commands("${X} y").unwrap()[0].is_variable() && commands("-/bin/a").unwrap()[0].may_fail);
        assert_eq!(programs(""), [""; 0]);
    }

    #[test]
    fn broken_lines() {
        for (value, broken) in [
            ("/bin/a \"b", Broken::Quote),
            ("/bin/a ; 'b c", Broken::Quote),
            ("@", Broken::Empty),
            ("bin/a", Broken::Relative),
            ("/bin/", Broken::Directory),
            (r#"/bin/\"a"#, Broken::Letters),
        ] {
            assert_eq!(commands(value), Err(broken), "{value}");
        }
        assert_eq!(commands("/bin/a ; -/bin/b \"c").unwrap().len(), 1);
    }
}
