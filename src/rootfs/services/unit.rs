//! Names of units and their [Install] sections: systemd.unit(5).

use std::fmt;

use super::super::error::Error;
use crate::rootfs::text::settings::Settings;

/// `prefix@instance.suffix`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitName {
    prefix: String,
    /// Empty for a template itself, none for a plain unit.
    pub instance: Option<String>,
    suffix: String,
}

impl UnitName {
    /// Nothing if `name` has no ending of a unit.
    pub fn parse(name: &str) -> Option<Self> {
        let (stem, suffix) = name.rsplit_once('.')?;
        if stem.is_empty() || !super::SUFFIXES.iter().any(|known| known[1..] == *suffix) {
            return None;
        }
        let (prefix, instance) = match stem.split_once('@') {
            Some((prefix, instance)) => (prefix, Some(instance.to_owned())),
            None => (stem, None),
        };
        Some(Self { prefix: prefix.to_owned(), instance, suffix: suffix.to_owned() })
    }

    /// Whether this is `foo@.service`.
    pub fn is_template(&self) -> bool {
        self.instance.as_deref() == Some("")
    }

    /// `foo@.service` for `foo@bar.service`.
    pub fn template(&self) -> Option<String> {
        let instance = self.instance.as_deref().filter(|instance| !instance.is_empty());
        instance.map(|_| format!("{}@.{}", self.prefix, self.suffix))
    }

    /// The same with another instance.
    pub fn with_instance(&self, instance: &str) -> Self {
        Self { instance: Some(instance.to_owned()), ..self.clone() }
    }

    /// Replaces the specifiers that an [Install] section may use and that are known before a boot.
    pub fn expand(&self, text: &str, file: &str) -> Result<String, Error> {
        let instance = self.instance.as_deref().unwrap_or_default();
        let whole = self.to_string();
        let stem = whole.rsplit_once('.').map_or(whole.as_str(), |(stem, _)| stem);
        let mut out = String::new();
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            if character != '%' {
                out.push(character);
                continue;
            }
            match characters.next() {
                Some('%') => out.push('%'),
                Some('i') => out.push_str(instance),
                Some('n') => out.push_str(&whole),
                Some('N') => out.push_str(stem),
                Some('p') => out.push_str(&self.prefix),
                Some('j') => out.push_str(self.prefix.rsplit('-').next().unwrap_or_default()),
                other => {
                    let what =
                        format!("specifier %{} in [Install]", other.map_or(String::new(), String::from));
                    return Err(Error::Malformed { path: file.to_owned(), line: 0, what });
                }
            }
        }
        Ok(out)
    }
}

impl fmt::Display for UnitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.prefix)?;
        if let Some(instance) = &self.instance {
            write!(f, "@{instance}")?;
        }
        write!(f, ".{}", self.suffix)
    }
}

/// What `systemctl enable` reads.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Install {
    /// Units that want it.
    pub wanted_by: Vec<String>,
    /// Units that require it.
    pub required_by: Vec<String>,
    /// Units that keep it running.
    pub upheld_by: Vec<String>,
    /// Further names.
    pub alias: Vec<String>,
    /// Units to enable with it.
    pub also: Vec<String>,
    /// Instance of a template that is enabled without one.
    pub default_instance: Option<String>,
}

impl Install {
    /// Whether nothing can be enabled.
    pub fn is_empty(&self) -> bool {
        let Self { wanted_by, required_by, upheld_by, alias, also, .. } = self;
        [wanted_by, required_by, upheld_by, alias, also].iter().all(|list| list.is_empty())
    }

    /// The [Install] section of a unit and its drop-ins.
    pub fn of(settings: &Settings) -> Self {
        let names = |key| settings.names("Install", key);
        Self {
            wanted_by: names("WantedBy"),
            required_by: names("RequiredBy"),
            upheld_by: names("UpheldBy"),
            alias: names("Alias"),
            also: names("Also"),
            default_instance: settings.last("Install", "DefaultInstance").map(str::to_owned),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_specifiers() {
        let name = UnitName::parse("serial-getty@ttyS0.service").unwrap();
        assert_eq!(name.template().unwrap(), "serial-getty@.service");
        let expanded = name.expand("%i %n %N %p %j %%", "x").unwrap();
        assert_eq!(expanded, "ttyS0 serial-getty@ttyS0.service serial-getty@ttyS0 serial-getty getty %");
        assert!(name.expand("%m", "x").is_err());
        assert!(UnitName::parse("systemd-ssh-generator").is_none() && UnitName::parse("a.conf").is_none());
    }
}
