//! The kernel command line: what the builder tells `/init`, as one type and its text.
//!
//! The builder renders, `/init` parses, and both run this file. Words are separated by blanks; double quotes
//! keep blanks inside a word, as in the kernel's own parser (lib/cmdline.c). Where a word comes twice the
//! last one counts, so that what an operator types behind the rest at the boot menu has its way; only
//! `roothash=` must not contradict itself. An unknown word is somebody else's and is kept as it is, but an
//! unknown value of a word of ours is an error: a mistyped `keller.reset=` must not boot as if nothing had
//! been asked.

use std::fmt;

use crate::base::Digest;

/// The whole command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cmdline {
    /// `roothash=`: names the root, its verity partition and every byte in them.
    pub root_hash: Digest,
    /// All the rest.
    pub options: Options,
}

/// What the command line says besides the root hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// `rootfstype=`.
    pub root_fs: RootFs,
    /// `keller.etc=`.
    pub etc: Etc,
    /// `keller.state=`; where nothing is said, a node that runs from memory may do without a disk.
    pub state: Option<State>,
    /// `keller.grow=`: whether the state partition is grown to the end of the disk.
    pub grow: bool,
    /// `keller.reset=`, never rendered by the builder: an image that resets itself at each boot keeps
    /// nothing.
    pub reset: Option<Reset>,
    /// `keller.debug`: a shell instead of a reboot where `/init` fails.
    pub debug: bool,
    /// `init=`: what to start instead of systemd.
    pub init: Option<String>,
    /// `systemd.machine_id=` where it has 32 hexadecimal digits; systemd reads the same word.
    pub machine_id: Option<String>,
    /// `keller.image=`, never rendered by the builder: where a disk image that is fetched comes from. An address that ends
    /// with `/` is the directory that has it.
    pub image: Option<String>,
    /// `keller.document=`, never rendered by the builder: where a node that runs from memory fetches the document of what it
    /// installs. It may have a password in it.
    pub document: Option<String>,
    /// `keller.document.sha256=`: the digest of that file.
    pub document_sha256: Option<Digest>,
    /// `panic=`, in seconds: how long a panic, e.g. of dm-verity, stays on the screen before the reboot.
    /// At 0 the kernel would stay there for ever and the boot loader's try counter never advance.
    pub panic_after: u32,
    /// Words that are not ours, in their order.
    pub extra: Vec<String>,
}

/// The root's file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RootFs {
    /// EROFS.
    #[default]
    Erofs,
    /// ext4, never written to.
    Ext4,
}

/// Where changes to /etc go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Etc {
    /// To the state partition.
    #[default]
    Persistent,
    /// To memory: gone at reboot.
    Ephemeral,
    /// As persistent, but the changes so far are put aside first, under a new name on the state partition.
    Factory,
}

/// Where /var is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// On the boot disk's state partition, or where the root is in memory, on a disk that has nothing else.
    Disk,
    /// In memory, the partition left alone: to look at one that cannot be mounted.
    Memory,
}

/// What an operator wants made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// The state partition, with all that is on it.
    State,
}

/// Why a command line could not be understood.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CmdlineError {
    /// The word that names the root is missing.
    #[error("the command line has no roothash=, so there is no root to look for")]
    NoRootHash,
    /// A root hash that is none.
    #[error("roothash={text}: expected 64 hexadecimal digits of SHA-256")]
    BadRootHash {
        /// The value as given.
        text: String,
    },
    /// Two roots.
    #[error("the command line names two roots: roothash={first} and roothash={second}")]
    TwoRootHashes {
        /// The one that came first.
        first: Digest,
        /// The other.
        second: Digest,
    },
    /// A value that the word does not have.
    #[error("{word}={value}: expected {expected}")]
    BadValue {
        /// The word before the `=`.
        word: &'static str,
        /// The value as given.
        value: String,
        /// What would be right.
        expected: &'static str,
    },
}

const DOCUMENT_SHA256: &str = "keller.document.sha256";

/// How long a panic stays on the screen, in seconds, unless the builder says otherwise.
pub const PANIC_AFTER: u32 = 10;

impl Default for Options {
    fn default() -> Self {
        Self {
            root_fs: RootFs::default(),
            etc: Etc::default(),
            state: None,
            grow: true,
            reset: None,
            debug: false,
            init: None,
            machine_id: None,
            image: None,
            document: None,
            document_sha256: None,
            panic_after: PANIC_AFTER,
            extra: Vec::new(),
        }
    }
}

/// Words that every image has and that nothing reads back:
///
/// - `ro`: without it systemd-remount-fs tries to make the verified root writable, and fails;
/// - `gpt`: a torn primary partition table falls back to the backup even without a protective MBR;
/// - `systemd.condition_needs_update=0`: what an image ships is final, whatever the times of /usr and /etc.
const FIXED: [&str; 3] = ["ro", "gpt", "systemd.condition_needs_update=0"];

impl RootFs {
    /// The kernel's name of the file system.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Erofs => "erofs",
            Self::Ext4 => "ext4",
        }
    }
}

impl Etc {
    /// The value on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Persistent => "persistent",
            Self::Ephemeral => "ephemeral",
            Self::Factory => "factory",
        }
    }
}

impl State {
    /// The value on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Memory => "memory",
        }
    }
}

impl Reset {
    /// The value on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::State => "state",
        }
    }
}

impl Cmdline {
    /// Reads the text of `/proc/cmdline`.
    pub fn parse(text: &str) -> Result<Self, CmdlineError> {
        let mut root_hash = None;
        let mut options = Options { panic_after: 0, ..Options::default() };
        for word in words(text) {
            let (key, value) = match word.split_once('=') {
                Some((key, value)) => (key, Some(value)),
                None => (word.as_str(), None),
            };
            match (key, value) {
                ("roothash", Some(value)) => root_hash = Some(root(value, root_hash)?),
                ("rootfstype", Some(value)) => {
                    options.root_fs = match value {
                        "erofs" => RootFs::Erofs,
                        "ext4" => RootFs::Ext4,
                        _ => return Err(bad("rootfstype", value, "erofs or ext4")),
                    };
                }
                ("keller.etc", value) => {
                    options.etc = match value.unwrap_or_default() {
                        "persistent" => Etc::Persistent,
                        "ephemeral" => Etc::Ephemeral,
                        "factory" => Etc::Factory,
                        value => {
                            return Err(bad("keller.etc", value, "persistent, ephemeral or factory"));
                        }
                    };
                }
                ("keller.state", value) => {
                    options.state = match value.unwrap_or_default() {
                        "disk" => Some(State::Disk),
                        "memory" => Some(State::Memory),
                        value => return Err(bad("keller.state", value, "disk or memory")),
                    };
                }
                ("keller.grow", value) => {
                    options.grow = match value.unwrap_or_default() {
                        "yes" => true,
                        "no" => false,
                        value => return Err(bad("keller.grow", value, "yes or no")),
                    };
                }
                ("keller.reset", value) => {
                    options.reset = match value.unwrap_or_default() {
                        "state" => Some(Reset::State),
                        value => return Err(bad("keller.reset", value, "state")),
                    };
                }
                ("keller.debug", value) => {
                    options.debug = match value {
                        None | Some("1") => true,
                        Some("0") => false,
                        Some(value) => return Err(bad("keller.debug", value, "nothing, 0 or 1")),
                    };
                }
                ("keller.image", value) => {
                    options.image =
                        named("keller.image", value, "an address, such as http://boot.example/keller/")?;
                }
                ("keller.document", value) => {
                    options.document = named("keller.document", value, "an address of a node document")?;
                }
                (DOCUMENT_SHA256, value) => {
                    options.document_sha256 = Some(digest(value.unwrap_or_default())?)
                }
                ("init", Some(value)) => options.init = Some(value.to_owned()),
                ("systemd.machine_id", Some(value)) if is_machine_id(value) => {
                    options.machine_id = Some(value.to_ascii_lowercase());
                }
                // The kernel also takes negative seconds, for a reboot at once.
                ("panic", Some(value)) if value.parse::<u32>().is_ok() => {
                    options.panic_after = value.parse().unwrap_or_default();
                }
                _ if FIXED.contains(&word.as_str()) => {}
                _ => options.extra.push(word),
            }
        }
        together(&options)?;
        Ok(Self { root_hash: root_hash.ok_or(CmdlineError::NoRootHash)?, options })
    }
}

/// The root hash in `value`, which must not contradict the one `before`.
fn root(value: &str, before: Option<Digest>) -> Result<Digest, CmdlineError> {
    let hash = value.parse().map_err(|_| CmdlineError::BadRootHash { text: value.to_owned() })?;
    match before {
        Some(first) if first != hash => Err(CmdlineError::TwoRootHashes { first, second: hash }),
        _ => Ok(hash),
    }
}

/// The address in the `value` of `word`.
fn named(
    word: &'static str,
    value: Option<&str>,
    expected: &'static str,
) -> Result<Option<String>, CmdlineError> {
    match value.unwrap_or_default() {
        "" => Err(bad(word, "", expected)),
        value => Ok(Some(value.to_owned())),
    }
}

fn digest(value: &str) -> Result<Digest, CmdlineError> {
    value.parse().map_err(|_| bad(DOCUMENT_SHA256, value, "64 hexadecimal digits"))
}

/// Whether words that need another have it.
fn together(options: &Options) -> Result<(), CmdlineError> {
    match (&options.document_sha256, &options.document) {
        (Some(digest), None) => Err(bad(DOCUMENT_SHA256, &digest.to_hex(), "keller.document= beside it")),
        _ => Ok(()),
    }
}

fn bad(word: &'static str, value: &str, expected: &'static str) -> CmdlineError {
    CmdlineError::BadValue { word, value: value.to_owned(), expected }
}

fn is_machine_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit()) && text.bytes().any(|b| b != b'0')
}

/// Words as the kernel reads them: next_arg() of lib/cmdline.c. Quotes go where they are around a whole word or a
/// whole value, and stay elsewhere.
pub fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = skip_blanks(text.as_bytes());
    while !rest.is_empty() {
        let quoted = rest.starts_with(b"\"");
        let body = &rest[usize::from(quoted)..];
        let mut inside = quoted;
        let ends = |byte: &u8| {
            inside ^= *byte == b'"';
            is_blank(*byte) && !inside
        };
        let end = body.iter().position(ends).unwrap_or(body.len());
        words.push(String::from_utf8_lossy(&bare(&body[..end], quoted)).into_owned());
        rest = skip_blanks(&body[end..]);
    }
    words
}

/// A word without the quotes around it or its value; `quoted` where one came before it.
fn bare(word: &[u8], quoted: bool) -> Vec<u8> {
    // An equals sign at the very beginning is none.
    let equals = (1..word.len()).find(|at| word[*at] == b'=');
    let (key, value) = word.split_at(equals.map_or(0, |at| at + 1));
    let unclosed = |text: &[u8]| text.strip_suffix(b"\"").unwrap_or(text).to_vec();
    let value = match value.strip_prefix(b"\"") {
        Some(value) if equals.is_some() => unclosed(value),
        _ if quoted => unclosed(value),
        _ => value.to_vec(),
    };
    [key, &value].concat()
}

/// isspace() of the kernel, for which the blank of Latin-1 is one: a byte of many letters in UTF-8, such as `à`.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r' | 0xa0)
}

fn skip_blanks(text: &[u8]) -> &[u8] {
    let blanks = text.iter().take_while(|byte| is_blank(**byte)).count();
    &text[blanks..]
}

/// A word as it must be written so that [`words`] and the kernel read it back: quotes go around the value,
/// where the kernel expects them.
fn quote(word: &str) -> String {
    let has_blank = |text: &str| text.bytes().any(is_blank);
    match word.split_once('=').filter(|(key, _)| !key.is_empty()) {
        _ if !word.is_empty() && !has_blank(word) => word.to_owned(),
        Some((key, value)) if !has_blank(key) => format!("{key}=\"{value}\""),
        _ => format!("\"{word}\""),
    }
}

impl fmt::Display for Cmdline {
    /// The text for the `.cmdline` section. What is at its default and would say nothing is left out;
    /// `keller.etc` always stands there, as the word that an operator is most likely to look for.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options = &self.options;
        write!(f, "roothash={} rootfstype={}", self.root_hash, options.root_fs.name())?;
        for word in FIXED {
            write!(f, " {word}")?;
        }
        write!(f, " panic={} keller.etc={}", options.panic_after, options.etc.name())?;
        if let Some(state) = options.state {
            write!(f, " keller.state={}", state.name())?;
        }
        if !options.grow {
            write!(f, " keller.grow=no")?;
        }
        if let Some(reset) = options.reset {
            write!(f, " keller.reset={}", reset.name())?;
        }
        if options.debug {
            write!(f, " keller.debug")?;
        }
        if let Some(init) = &options.init {
            write!(f, " {}", quote(&format!("init={init}")))?;
        }
        if let Some(id) = &options.machine_id {
            write!(f, " systemd.machine_id={id}")?;
        }
        for word in &options.extra {
            write!(f, " {}", quote(word))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Cmdline {
        Cmdline { root_hash: Digest::of("root"), options: Options::default() }
    }

    #[test]
    fn the_default_text() {
        let expected = format!(
            "roothash={} rootfstype=erofs ro gpt systemd.condition_needs_update=0 panic=10 keller.etc=persistent",
            Digest::of("root")
        );
        assert_eq!(sample().to_string(), expected);
    }

    #[test]
    fn survives_a_round_trip() {
        let mut all = sample();
        all.options = Options {
            image: None,
            document: None,
            document_sha256: None,
            root_fs: RootFs::Ext4,
            etc: Etc::Factory,
            state: Some(State::Memory),
            grow: false,
            reset: Some(Reset::State),
            debug: true,
            init: Some("/bin/my init".to_owned()),
            machine_id: Some("0123456789abcdef0123456789abcdef".to_owned()),
            panic_after: 5,
            extra: vec!["console=ttyS0,115200".to_owned(), "x=a b".to_owned(), "quiet".to_owned()],
        };
        for line in [sample(), all] {
            assert_eq!(Cmdline::parse(&line.to_string()).unwrap(), line);
        }
    }

    #[test]
    fn the_last_word_counts() {
        let line = Cmdline::parse(&format!("{} keller.etc=factory keller.debug panic=3", sample())).unwrap();
        assert_eq!(line.options.etc, Etc::Factory);
        assert!(line.options.debug);
        assert_eq!(line.options.panic_after, 3);
    }

    #[test]
    fn strange_words_of_ours_are_refused() {
        let hash = Digest::of("root");
        assert_eq!(Cmdline::parse("ro quiet"), Err(CmdlineError::NoRootHash));
        assert!(matches!(Cmdline::parse("roothash=abc"), Err(CmdlineError::BadRootHash { .. })));
        let other = Digest::of("other");
        assert!(matches!(
            Cmdline::parse(&format!("roothash={hash} roothash={other}")),
            Err(CmdlineError::TwoRootHashes { .. })
        ));
        assert!(Cmdline::parse(&format!("roothash={hash} roothash={hash}")).is_ok());
        for word in ["keller.reset=all", "keller.reset", "keller.etc=none", "keller.state=", "rootfstype=xfs"]
        {
            let error = Cmdline::parse(&format!("roothash={hash} {word}")).unwrap_err();
            assert!(matches!(error, CmdlineError::BadValue { .. }), "{word}");
        }
    }

    #[test]
    fn a_document_is_named_with_its_digest() {
        let (root, digest) = (Digest::of("root"), Digest::of("a document"));
        let parse = |words: &str| Cmdline::parse(&format!("roothash={root} {words}"));
        let url = "keller.document=https://d.example/${serial}.yaml?a=b";
        let options = parse(&format!("{url} keller.document.sha256={digest}")).unwrap().options;
        assert_eq!(options.document.as_deref(), Some("https://d.example/${serial}.yaml?a=b"));
        assert_eq!(options.document_sha256, Some(digest));
        for (words, told) in [
            (
                "keller.document=".to_owned(),
                "keller.document=: expected an address of a node document".to_owned(),
            ),
            (
                format!("{url} keller.document.sha256=12"),
                "keller.document.sha256=12: expected 64 hexadecimal digits".to_owned(),
            ),
            (
                format!("keller.document.sha256={digest}"),
                format!("keller.document.sha256={digest}: expected keller.document= beside it"),
            ),
        ] {
            assert_eq!(parse(&words).unwrap_err().to_string(), told);
        }
    }

    #[test]
    fn quotes_keep_blanks() {
        assert_eq!(words("a \"b c\" d=\"e f\"\n"), ["a", "b c", "d=e f"]);
        assert_eq!(quote("dyndbg=file x +p"), "dyndbg=\"file x +p\"");
    }

    #[test]
    fn words_are_those_of_the_kernel() {
        // What next_arg() of Linux 6.12 makes of each, key and value put together again.
        for (text, expected) in [
            (" a\tb\u{b}c\n ", &["a", "b", "c"][..]),
            ("a=\"b c\" d", &["a=b c", "d"]),
            ("\"a=b c\" d", &["a=b c", "d"]),
            ("a\"b c\"d", &["a\"b c\"d"]),
            ("a=b\"c d\"", &["a=b\"c d\""]),
            ("a=\"b\"c d", &["a=b\"c", "d"]),
            ("a=\"\" b=", &["a=", "b="]),
            ("=\"x\" \"\"", &["=\"x\"", ""]),
            ("a=\"open b", &["a=open b"]),
            ("name=\"K\u{e4}se \u{e0} la\" x=\u{fc}", &["name=K\u{e4}se \u{e0} la", "x=\u{fc}"]),
        ] {
            assert_eq!(words(text), expected, "{text}");
        }
        let can_be_written = |word: &str| words(&quote(word)) == [word];
        // A byte of this letter is a blank for the kernel.
        assert_eq!(words("x=\u{e0}1").len(), 2);
        for word in [
            "a",
            "a=b c",
            "a b",
            "x=\u{e0}1",
            "\u{e0}",
            "a=\u{b}",
            "=a b",
            "=a=b c",
            "",
            "a=b\"c",
            "a==b c",
            "a=it's",
        ] {
            assert!(can_be_written(word), "{word}: {}", quote(word));
        }
        // Nothing escapes a quote: such a word is refused when the line is bound to the kernel.
        assert!(!can_be_written("a=b \"c d") && !can_be_written("\"a"));
    }
}
