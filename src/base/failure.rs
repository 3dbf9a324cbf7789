//! Why a step on a node failed: what was being done, the cause, and what helps.

use std::error::Error;
use std::fmt;

/// A step that failed.
#[derive(Debug)]
pub struct Failure {
    /// In the gerund: `mounting the root`.
    doing: String,
    cause: Box<dyn Error + Send + Sync>,
    /// What a person can do about it.
    help: Option<String>,
}

impl Failure {
    /// `doing` failed for `cause`, an error or a text.
    pub fn new(doing: impl Into<String>, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { doing: doing.into(), cause: cause.into(), help: None }
    }

    /// The same as a cause of a larger step.
    pub fn within(self, doing: &str) -> Self {
        Self::new(doing, self)
    }

    /// Names what a person can do about it.
    pub fn help(self, text: impl Into<String>) -> Self {
        Self { help: Some(text.into()), ..self }
    }

    /// The lines for a console, the way out last.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![self.doing.clone()];
        let mut cause = self.source();
        while let Some(error) = cause {
            lines.push(format!("  {error}"));
            cause = error.source();
        }
        lines.extend(self.help.iter().map(|help| format!("way out: {help}")));
        lines
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.doing)?;
        match &self.help {
            Some(help) => write!(f, " ({help})"),
            None => Ok(()),
        }
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.cause.as_ref())
    }
}

/// Names the step that failed.
pub trait Doing<T> {
    /// `what` in the gerund.
    fn doing(self, what: impl Into<String>) -> Result<T, Failure>;
}

impl<T, E: Into<Box<dyn Error + Send + Sync>>> Doing<T> for Result<T, E> {
    fn doing(self, what: impl Into<String>) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(what, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Chain;

    #[test]
    fn tells_step_help_and_cause() {
        let failure = Failure::new("stopping boot.mount", "target is busy").help("somebody is in /boot");
        assert_eq!(Chain(&failure).to_string(), "stopping boot.mount (somebody is in /boot): target is busy");
    }

    #[test]
    fn lines_name_step_causes_and_way_out() {
        let inner = Failure::new("reading block 0", "input/output error");
        let outer = Failure::new("mounting the root", inner).help("buy a disk");
        assert_eq!(
            outer.lines(),
            ["mounting the root", "  reading block 0", "  input/output error", "way out: buy a disk"]
        );
    }
}
