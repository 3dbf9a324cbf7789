//! An error with its causes in one line, as people read it.

use std::error::Error;
use std::fmt;

/// Shows an error and its causes, joined by `: `. A cause that the text before it ends with already, as
/// some libraries have it, is not said twice.
pub struct Chain<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.0.to_string();
        f.write_str(&said)?;
        let mut next = self.0.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            if !said.ends_with(&text) {
                // A list begins with a line of its own.
                f.write_str(if text.starts_with('\n') { ":" } else { ": " })?;
                f.write_str(&text)?;
                said = text;
            }
            next = cause.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Layer(&'static str, Option<Box<Layer>>);

    impl fmt::Display for Layer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Layer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|layer| layer as &(dyn Error + 'static))
        }
    }

    #[test]
    fn says_nothing_twice() {
        let layer = |text, source: Option<Layer>| Layer(text, source.map(Box::new));
        let inner =
            layer("opening x: no such file", Some(layer("no such file", Some(layer("errno 2", None)))));
        let error = layer("building", Some(inner));
        assert_eq!(Chain(&error).to_string(), "building: opening x: no such file: errno 2");
    }
}
