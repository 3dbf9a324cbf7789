//! Who a container runs as: `user` or `user:group`, each by name or number.
//!
//! Source: OCI Image Format Specification 1.1, "Image Configuration", `User`; moby/sys/user (`GetExecUser`), by which
//! podman and containerd read it.

/// The largest number that engines take: theirs is a signed one of 32 bits.
pub const MAX_NUMBER: u32 = i32::MAX as u32;

/// Why a text is not a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAUser {
    /// Of another form.
    #[error("is not a user: expected `user` or `user:group`, each by name or number, in one line")]
    Form,
    /// A number that no engine takes.
    #[error("is not a user: numbers go from 0 to {MAX_NUMBER}")]
    Number,
}

/// Judges the form of `text`; whether an image has such names is for others to see. Either part may be empty.
///
/// # Errors
/// See [`NotAUser`].
pub fn check(text: &str) -> Result<(), NotAUser> {
    if text.chars().any(char::is_control) || text.matches(':').count() > 1 {
        return Err(NotAUser::Form);
    }
    text.split(':').try_for_each(number)
}

/// Refuses numbers out of range. A sign makes no name either: engines read it as part of a number.
fn number(part: &str) -> Result<(), NotAUser> {
    let digits = part.strip_prefix(['+', '-']).unwrap_or(part);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(());
    }
    match part.starts_with(['+', '-']) || !part.parse().is_ok_and(|number: u32| number <= MAX_NUMBER) {
        true => Err(NotAUser::Number),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_range_of_engines() {
        for good in ["0", "7:7", "2147483647", "www", "www:", ":web", "1a", "007", "-", "_apt:0"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "4294967296",
            "4294967295",
            "2147483648",
            "0:2147483648",
            "-1",
            "+5",
            "0:-0",
            "99999999999999999999",
        ] {
            assert_eq!(check(bad), Err(NotAUser::Number), "{bad}");
        }
        for bad in ["0\n[Service]", "0\n[Service]\nUser=root", "a\tb", "a:b:c", "www\0", "0\r"] {
            assert_eq!(check(bad), Err(NotAUser::Form), "{bad:?}");
        }
    }
}
