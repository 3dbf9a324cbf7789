//! Values of quadlet files, which podman's generator turns into units of systemd.
//!
//! Format: podman-systemd.unit(5) of podman 5.4. Two programs read what stands here. The generator takes words
//! apart and writes them anew, with the quotes that it thinks they need; `%` and `$` it leaves to systemd.

use super::unit;

/// What the generator loses or leaves without quotes: an empty word ends the list, and systemd takes a bare `;`
/// for the end of the command. systemd puts the values of variables in place of these.
const VARIABLES: [(&str, &str); 2] = [("", "KELLER_EMPTY"), (";", "KELLER_SEMICOLON")];

/// Exec=, as arguments.
pub fn command(words: &[String]) -> String {
    let word = |word: &String| match variable(word) {
        Some((_, name)) => format!("${{{name}}}"),
        None => unit::argument(word),
    };
    words.iter().map(word).collect::<Vec<_>>().join(" ")
}

/// Variables that systemd must have for the words of [`command`]: name and value.
pub fn variables(words: &[String]) -> impl Iterator<Item = (&'static str, &'static str)> {
    let used = VARIABLES.iter().filter(|(value, _)| words.iter().any(|word| word == value));
    used.map(|(value, name)| (*name, *value))
}

fn variable(word: &str) -> Option<&'static (&'static str, &'static str)> {
    VARIABLES.iter().find(|(value, _)| *value == word)
}

/// Environment= in the section `Container`: the generator makes an argument of podman of it.
pub fn environment(name: &str, value: &str) -> String {
    unit::argument(&format!("{name}={value}"))
}

/// The settings for a volume of the section `Container`, and that of the section `Unit` where there must be one.
///
/// The generator puts the path of Volume= into RequiresMountsFor= as it is, where systemd reads words. A path
/// that is more than one word, or has quotes or variables, is therefore given to podman as an argument.
pub fn volume(host: &str, container: &str, read_only: bool) -> Volume {
    let value = format!("{host}:{container}:{}", if read_only { "ro" } else { "rw" });
    if unit::word(&value) == value {
        return Volume { setting: ("Volume", value), mounts: None };
    }
    Volume {
        setting: ("PodmanArgs", format!("-v {}", unit::argument(&value))),
        mounts: Some(unit::word(host)),
    }
}

/// See [`volume`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Key and value in the section `Container`.
    pub setting: (&'static str, String),
    /// RequiresMountsFor= in the section `Unit`.
    pub mounts: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_the_generator_loses() {
        let words = ["redis-server", "--save", "", ";", "$x"].map(str::to_owned);
        assert_eq!(command(&words), "redis-server --save ${KELLER_EMPTY} ${KELLER_SEMICOLON} \"$$x\"");
        let needed: Vec<_> = variables(&words).collect();
        assert_eq!(needed, [("KELLER_EMPTY", ""), ("KELLER_SEMICOLON", ";")]);
        assert_eq!(variables(&words[..2]).count(), 0);
    }

    #[test]
    fn volumes() {
        let plain = volume("/var/lib/db", "/data", true);
        assert_eq!(plain, Volume { setting: ("Volume", "/var/lib/db:/data:ro".into()), mounts: None });
        let odd = volume("/var/lib/with space", "/50%", false);
        assert_eq!(odd.setting, ("PodmanArgs", "-v \"/var/lib/with space:/50%%:rw\"".to_owned()));
        assert_eq!(odd.mounts.unwrap(), "\"/var/lib/with space\"");
    }
}
