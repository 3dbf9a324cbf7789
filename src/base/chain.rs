//! An error with its causes in one line, as people read it.

use std::error::Error;
use std::fmt;
use std::io;

/// Whether `said` has `cause` in it already, at its end or before what helps, as some errors have theirs.
pub fn is_said(said: &str, cause: &str) -> bool {
    let is_whole = |rest: &str| rest.is_empty() || rest.starts_with(['.', ';', ':', ',', ')', ' ', '\n']);
    let cause_at = format!(": {cause}");
    said.ends_with(cause)
        || said.match_indices(&cause_at).any(|(at, found)| is_whole(&said[at + found.len()..]))
}

/// Whether a full disk or a quota is why.
pub fn is_full(error: &(dyn Error + 'static)) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    // Some errors have the cause in their text alone: ENOSPC and EDQUOT.
    const NUMBERS: [&str; 2] = ["(os error 28)", "(os error 122)"];
    anyhow::Chain::new(error).any(|cause| {
        let kind = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        let text = cause.to_string();
        matches!(kind, Some(QuotaExceeded | StorageFull))
            || NUMBERS.iter().any(|number| text.ends_with(number))
    })
}

/// Whether a file was to become larger than `ulimit -f` or its file system allows. Its kind alone does not tell: what is larger
/// than keller reads has the same.
pub fn is_too_large(error: &(dyn Error + 'static)) -> bool {
    anyhow::Chain::new(error).any(|cause| cause.to_string().ends_with("(os error 27)"))
}

/// Shows an error and its causes, joined by `: `. A cause that the text before it says already, as some libraries have it,
/// is not said twice.
pub struct Chain<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.0.to_string();
        f.write_str(&said)?;
        let mut next = self.0.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            if !is_said(&said, &text) {
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
        let error = layer("writing: it is full. Use another disk", Some(layer("it is full", None)));
        assert_eq!(Chain(&error).to_string(), "writing: it is full. Use another disk");
    }

    #[test]
    fn a_full_disk_is_seen_through_all_steps() {
        assert!(is_full(&io::Error::from(io::ErrorKind::StorageFull)));
        assert!(is_full(&io::Error::other(io::Error::from_raw_os_error(libc::ENOSPC))));
        assert!(is_full(&Layer("building", Some(Box::new(Layer("x: Quota exceeded (os error 122)", None))))));
        let large = Layer("building", Some(Box::new(Layer("x: File too large (os error 27)", None))));
        assert!(is_too_large(&large) && !is_full(&large));
        assert!(!is_too_large(&io::Error::from(io::ErrorKind::FileTooLarge)));
        assert!(!is_full(&Layer("building", Some(Box::new(Layer("no such file", None))))));
    }
}
