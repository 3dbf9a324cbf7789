//! Why a boot failed, for the person at the console: what was being done, why it did not work, and a way out.

use std::error::Error;
use std::fmt;

/// A step of the boot that did not work.
#[derive(Debug)]
pub struct Failure {
    /// In the gerund: `mounting the root`.
    doing: String,
    cause: Box<dyn Error + Send + Sync>,
    way_out: Option<&'static str>,
}

impl Failure {
    /// `doing` failed for `cause`, an error or a text.
    pub fn new(doing: impl Into<String>, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { doing: doing.into(), cause: cause.into(), way_out: None }
    }

    /// What a person could do about it.
    pub fn way_out(self, text: &'static str) -> Self {
        Self { way_out: Some(text), ..self }
    }

    /// The lines for the console.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![self.doing.clone()];
        let mut cause: Option<&(dyn Error + 'static)> = Some(self.cause.as_ref());
        while let Some(error) = cause {
            lines.push(format!("  {error}"));
            cause = error.source();
        }
        if let Some(way_out) = self.way_out {
            lines.push(format!("way out: {way_out}"));
        }
        lines
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.doing)
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.cause.as_ref())
    }
}

/// Says what was being done when something failed.
pub trait Doing<T> {
    /// `what` in the gerund.
    fn doing(self, what: impl Into<String>) -> Result<T, Failure>;
}

impl<T, E: Into<Box<dyn Error + Send + Sync>>> Doing<T> for Result<T, E> {
    fn doing(self, what: impl Into<String>) -> Result<T, Failure> {
        self.map_err(|cause| Failure::new(what, cause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_step_causes_and_way_out() {
        let inner = Failure::new("reading block 0", "input/output error");
        let outer = Failure::new("mounting the root", inner).way_out("buy a disk");
        assert_eq!(
            outer.lines(),
            ["mounting the root", "  reading block 0", "  input/output error", "way out: buy a disk"]
        );
    }
}
