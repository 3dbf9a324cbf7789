//! The forms that single values have. Pure: text in, value or reason out.

use globset::GlobBuilder;

use crate::base::user::{self, NotAUser};
use crate::base::{Signal, Size, limits};
use crate::manifest::{Port, Volume};
pub(crate) use crate::written::form::{
    Wrong, absolute, account, account_path, account_text, duration, id, mode, password_hash, ssh_key,
    system_account, unit, url, window,
};
use crate::written::form::{lower, wrong};

/// The UAPI version format specification's characters but `_` and `+`: in the ESP the file is named
/// `<id>_<version>+<tries>.efi`.
pub(crate) fn version(text: &str) -> Result<(), Wrong> {
    if let Some(bad) = text.chars().find(|c| !(c.is_ascii_alphanumeric() || ".-~^".contains(*c))) {
        let why = match bad {
            '+' => "`+` begins the boot counter in the name of the boot entry".to_owned(),
            '_' => "`_` stands between id and version in file names".to_owned(),
            '/' => "`/` cannot stand in a file name".to_owned(),
            c if c.is_whitespace() => "white space cannot stand in a version".to_owned(),
            c => format!("`{c}` cannot stand in a version"),
        };
        return wrong(
            "is not a version",
            format!("{why}; use letters, digits, `.`, `-`, `~` and `^`, such as `1.2.3`"),
        );
    }
    match text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        true => Ok(()),
        false => wrong("is not a version", "begin with a letter or digit, such as `1.2.3`"),
    }
}

/// Debian policy 5.6.1.
pub(crate) fn package(text: &str) -> Result<(), Wrong> {
    let name = text.split([':', '=', '/', ' ', '(']).next().unwrap_or_default();
    let good =
        name.len() >= 2 && name.starts_with(lower) && name.chars().all(|c| lower(c) || "+-.".contains(c));
    match () {
        () if good && name == text => Ok(()),
        () if good => wrong(
            "is not the name of a package",
            format!("write `{name}` alone: the lock records its version, and the architecture is amd64"),
        ),
        () => wrong(
            "is not the name of a package",
            "a-z, 0-9, `+`, `-` and `.`, at least two, such as `openssh-server`",
        ),
    }
}

/// An archive's suite, `trixie` or `stable/updates`.
pub(crate) fn suite(text: &str) -> Result<(), Wrong> {
    let good = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-/".contains(c));
    if good { Ok(()) } else { wrong("is not a suite", "one word, such as `trixie`") }
}

/// An archive's component, `main` or `non-free-firmware`.
pub(crate) fn component(text: &str) -> Result<(), Wrong> {
    let good = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-/".contains(c));
    if good { Ok(()) } else { wrong("is not a component", "one word, such as `main`") }
}

/// A unit, or a generator by its bare name.
pub(crate) fn unit_or_generator(text: &str) -> Result<(), Wrong> {
    let bare = text.ends_with("-generator") && text.chars().all(|c| lower(c) || c == '-');
    if bare { Ok(()) } else { unit(text) }
}

/// Who a container runs as: `user` or `user:group`, each by name or number. Names are the image's own.
pub(crate) fn container_user(text: &str) -> Result<(), Wrong> {
    let is_one = |part: &str| !part.is_empty() && account_text(part).is_ok();
    let good = match text.split_once(':') {
        Some((user, group)) => is_one(user) && is_one(group),
        None => is_one(text),
    };
    match (good, user::check(text)) {
        (true, Ok(())) => Ok(()),
        (true, Err(NotAUser::Number)) => {
            wrong("is not a user", format!("numbers go from 0 to {}", user::MAX_NUMBER))
        }
        _ => wrong("is not a user", "`user` or `user:group`, each by name or number"),
    }
}

/// An absolute path with `*`, `?`, `[…]`, `{…}` and `**`.
pub(crate) fn pattern(text: &str) -> Result<(), Wrong> {
    if !text.starts_with('/') {
        return wrong("is not an absolute path", format!("begin with `/`: `/{text}`"));
    }
    match GlobBuilder::new(text).literal_separator(true).build() {
        Ok(_) if text.len() > 1 => Ok(()),
        Ok(_) => wrong("is everything", "name what is to be left out"),
        Err(error) => wrong(
            format!("is not a pattern: {}", error.kind()),
            "such as `/usr/share/doc` or `/usr/lib/**/*.a`",
        ),
    }
}

/// A pattern as in `prune` that is not to remove anything: it may be all, and has no other form than paths have.
pub(crate) fn path_pattern(text: &str) -> Result<(), Wrong> {
    absolute(text)?;
    match GlobBuilder::new(text).literal_separator(true).build() {
        Ok(_) => Ok(()),
        Err(error) => wrong(
            format!("is not a pattern: {}", error.kind()),
            r"such as `/usr/bin/su` or `/srv/**/*.sock`; `\` before a sign such as `[` makes it one of a name",
        ),
    }
}

/// A size that is a whole number of MiB, at least `least`.
pub(crate) fn size(text: &str, least: Size) -> Result<Size, Wrong> {
    let Ok(size) = text.parse::<Size>() else {
        return wrong("is not a size", "a whole number with KiB, MiB, GiB or TiB, such as `512MiB`");
    };
    match () {
        () if size < least => wrong("is too small", format!("at least {least}")),
        () if size > Size(1 << 50) => wrong("is too large", "at most 1024TiB"),
        () if !size.bytes().is_multiple_of(1 << 20) => {
            let up = crate::base::align::up(size.bytes(), 1 << 20);
            wrong(
                "is not a whole number of MiB",
                format!("partitions are aligned to 1 MiB; the next is {}", Size(up)),
            )
        }
        () => Ok(size),
    }
}

/// The size of a partition that a disk may do without, by the word `none`.
pub(crate) fn size_or_none(text: &str, least: Size) -> Result<Option<Size>, Wrong> {
    if text == "none" {
        return Ok(None);
    }
    let with_none = |wrong: Wrong| Wrong { help: format!("{}, or `none`", wrong.help), ..wrong };
    size(text, least).map(Some).map_err(with_none)
}

/// `host:container[/udp]`.
pub(crate) fn port(text: &str) -> Result<Port, Wrong> {
    let (numbers, udp) = match text.rsplit_once('/') {
        Some((numbers, "udp")) => (numbers, Some(true)),
        Some((numbers, "tcp")) => (numbers, Some(false)),
        Some(_) => ("", None),
        None => (text, Some(false)),
    };
    let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port != 0);
    let pair =
        numbers.split_once(':').and_then(|(host, container)| Some((number(host)?, number(container)?)));
    match (pair, udp) {
        (Some((host, container)), Some(udp)) => Ok(Port { host, container, udp }),
        _ => wrong(
            "is not a published port",
            "`host:container`, from 1 to 65535, such as \"8080:80\" or \"53:53/udp\"",
        ),
    }
}

/// `host:container[:ro]`.
pub(crate) fn volume(text: &str) -> Result<Volume, Wrong> {
    let parts: Vec<&str> = text.split(':').collect();
    let (host, container, read_only) = match parts[..] {
        [host, container] => (host, container, false),
        [host, container, "ro"] => (host, container, true),
        [host, container, "rw"] => (host, container, false),
        _ => return wrong("is not a volume", "`host:container` or `host:container:ro`, both absolute paths"),
    };
    for path in [host, container] {
        if let Err(Wrong { what, help, .. }) = absolute(path) {
            return wrong(format!("is not a volume: {path:?} {what}"), help);
        }
    }
    Ok(Volume { host: host.to_owned(), container: container.to_owned(), read_only })
}

/// Why no program can be given this text as an argument, with so many bytes before it; nothing if it can.
pub(crate) fn not_exec(text: &str, before: usize) -> Option<&'static str> {
    if text.contains('\0') {
        return Some("has a NUL in it");
    }
    (before + text.len() > limits::ARGUMENT).then_some("is longer than 131071 bytes")
}

/// An image of an archive, by name or digest.
pub(crate) fn reference(text: &str) -> Result<(), Wrong> {
    let good = |c: char| c.is_ascii_alphanumeric() || "._-/:@+".contains(c);
    match !text.is_empty() && text.chars().all(good) {
        true => Ok(()),
        false => wrong("is not the name of an image", "such as `app:1.2`, or `sha256:…` with its digest"),
    }
}

/// A signal by name or number.
pub(crate) fn signal(text: &str) -> Result<Signal, Wrong> {
    match text.parse() {
        Ok(signal) => Ok(signal),
        Err(_) => {
            wrong("is not a signal", "a name or number of signal(7), such as `SIGQUIT` or `SIGRTMIN+3`")
        }
    }
}

/// `NAME` of an environment variable.
pub(crate) fn variable(text: &str) -> Result<(), Wrong> {
    let good = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if good {
        Ok(())
    } else {
        wrong("is not the name of a variable", "letters, digits and `_`, such as `LOG_LEVEL`")
    }
}

/// A shared library's file name.
pub(crate) fn library(text: &str) -> Result<(), Wrong> {
    let good = text.contains(".so") && !text.contains(|c: char| c == '/' || c.is_whitespace());
    if good {
        Ok(())
    } else {
        wrong("is not the name of a library", "such as `libfoo.so.1`, without a directory")
    }
}

/// A kernel module's name, without a folder or suffix.
pub(crate) fn module(text: &str) -> Result<(), Wrong> {
    let good = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c));
    if good {
        Ok(())
    } else {
        wrong("is not the name of a module", "such as `nvme` or `virtio_blk`, without `.ko`")
    }
}

/// Words of the kernel command line that keller sets, and why no one else may.
const OWNED: [(&str, &str); 13] = [
    ("roothash=", "the root hash is computed by the build"),
    ("keller.", "`keller.…` is for keller, and for a person at the boot menu"),
    ("root=", "the root is found by its hash"),
    ("rootfstype=", "the root's file system is `disk.filesystem`"),
    ("rootflags=", "the root is mounted by keller"),
    ("usrhash=", "there is no separate /usr"),
    ("init=", "the kernel starts keller, and keller starts systemd"),
    ("rdinit=", "the kernel starts keller"),
    ("initrd=", "the initramfs is part of the kernel image"),
    ("panic=", "a failed boot must restart by itself, or the next entry is never tried"),
    ("systemd.condition_needs_update=", "what an image ships is final"),
    ("gpt", "keller sets it, so that a torn partition table is mended from its backup"),
    ("systemd.machine_id=", "every node has its own; keller keeps it on the state partition"),
];

/// The one word of keller's that a manifest may say: a node that runs from memory waits for the disk that has its state.
const STATE_ON_DISK: &str = "keller.state=disk";

/// One word of the kernel command line.
pub(crate) fn cmdline_word(text: &str) -> Result<(), Wrong> {
    let bare = text.split('=').next().unwrap_or_default();
    if text.is_empty() || text.contains(|c: char| c.is_control()) {
        return wrong("is not a word of a command line", "such as `console=ttyS0`");
    }
    if !text.matches('"').count().is_multiple_of(2) {
        return wrong(
            "leaves a quote open",
            "the kernel would take all that follows for one word: write `name=\"some text\"`; no quote can stand \
             inside of quotes",
        );
    }
    let outside = || text.split('"').step_by(2);
    if text.contains('"') && outside().any(|part| part.as_bytes().contains(&0xa0)) {
        return wrong(
            "has a letter outside of its quotes of which the kernel takes a byte for a blank",
            "write `name=\"some text\"`, with the whole value in quotes",
        );
    }
    if outside().any(|part| part.contains(' ')) {
        return wrong(
            "is more than one word",
            format!("one item each: `[{}]`", text.split_whitespace().collect::<Vec<_>>().join(", ")),
        );
    }
    if matches!(bare, "ro" | "rw") {
        return wrong("belongs to keller", "the root is read-only, always");
    }
    // A node that runs from memory has no boot menu.
    if text == STATE_ON_DISK {
        return Ok(());
    }
    let owned = OWNED.iter().find(|(word, _)| match word.ends_with(['=', '.']) {
        true => text.starts_with(word),
        false => text == *word,
    });
    match owned {
        Some((_, why)) => wrong("belongs to keller", *why),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn versions() {
        for good in ["1.0.0", "1", "2026.11.23", "1.0.0~rc1", "1.0.0-rc1", "1.2^post", "1.0-5-gabc"] {
            assert_eq!(version(good), Ok(()), "{good}");
        }
        for bad in ["", "1+2", "1_0", "a/b", "1 0", ".1", "-1", "ü"] {
            assert!(version(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn short_forms() {
        let day = Duration::from_secs(1)..=Duration::from_secs(86_400);
        for (good, seconds) in [("5min", 300), ("5m", 300), ("1h30m", 5400), ("1d", 86_400)] {
            assert_eq!(duration(good, &day), Ok(seconds), "{good}");
        }
        for bad in ["5 weeks", "0s", "", "90"] {
            assert!(duration(bad, &day).is_err(), "{bad}");
        }
        assert_eq!(mode("0644"), Ok(0o644));
        assert!(
            mode("644x").is_err() && mode("0999").is_err() && mode("rw").is_err() && mode("077777").is_err()
        );
        assert_eq!(port("53:54/udp"), Ok(Port { host: 53, container: 54, udp: true }));
        assert!(
            port("80").is_err()
                && port("0:80").is_err()
                && port("1:70000").is_err()
                && port("1:2/x").is_err()
        );
        assert!(volume("/a:/b:ro").unwrap().read_only && volume("a:/b").is_err() && volume("/a").is_err());
        assert!(size("1GiB", Size::mib(64)).is_ok() && size("1025KiB", Size(0)).is_err());
        assert!(package("a").is_err() && package("Nginx").is_err() && package("libc6:amd64").is_err());
        assert!(unit("nginx").is_err() && unit("a@b.service").is_ok() && unit(".service").is_err());
        assert!(
            cmdline_word("roothash=1").is_err()
                && cmdline_word("gpt").is_err()
                && cmdline_word("gptx").is_ok()
        );
        assert!(cmdline_word("x=\"a b\"").is_ok() && cmdline_word("\"x=a b\"").is_ok());
        for wrong in ["x=\"a b", "\"a b\" c", "a \"b c\"", "x\"", "", "x=\u{e0}\"a b\""] {
            assert!(cmdline_word(wrong).is_err(), "{wrong}");
        }
        assert!(cmdline_word("keller.state=disk").is_ok() && cmdline_word("keller.state=memory").is_err());
        assert!(cmdline_word("a b").is_err() && cmdline_word("console=ttyS0,115200").is_ok());
    }
}
