//! Addresses of web servers, as people write them.

/// Why an address would be taken for another one than it shows, if so. Whoever parses addresses as browsers do drops line breaks
/// and tabs, and looks for the host behind however many slashes there are: `http:///etc/x` would be asked of the host `etc`.
pub fn misleads(text: &str) -> Option<&'static str> {
    if text.contains(char::is_control) {
        return Some("it has a line break, a tab or another control character in it");
    }
    let (scheme, rest) = text.trim().split_once(':')?;
    let is_web = ["http", "https"].iter().any(|web| scheme.eq_ignore_ascii_case(web));
    let has_host = || rest.strip_prefix("//").is_some_and(|host| !host.starts_with(['/', '\\']));
    (is_web && !has_host()).then_some("no host follows its `//`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_for_something_else() {
        for good in [
            "http://h/x y",
            "HTTPS://h",
            "file:///srv/a b",
            "/srv/a:b",
            "h:80",
            "ftp:x",
            "http://[::1]:80/",
            "",
        ] {
            assert_eq!(misleads(good), None, "{good}");
        }
        for bad in
            ["http:///h/x", "http:h", "https:/h/", "http:\\\\h\\x", "http://\\h", "HTTP:////h", " http:///h"]
        {
            assert_eq!(misleads(bad), Some("no host follows its `//`"), "{bad}");
        }
        for bad in ["http://h\nx/", "http://h/\t", "file:///a\nb", "http://h/\u{0}"] {
            assert!(misleads(bad).unwrap().contains("a line break"), "{bad:?}");
        }
    }
}
