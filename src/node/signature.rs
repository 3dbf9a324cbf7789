//! Signatures of node documents: lines at the end of a document, each by one ed25519 key over all text before the first.
//!
//! ```text
//! node: 1
//! name: rack1-07
//! # signed: BASE64
//! ```
//!
//! To YAML they are comments. Each document of a file has its own, so that it can be cut out of it; of the text only a `---`
//! that begins it does not count. Keys are PEM as openssl(1) makes and reads it.

use std::fmt;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Begins a line with a signature.
const MARK: &str = "# signed: ";
/// RFC 7468 section 13.
const TAG: &str = "PUBLIC KEY";
/// What stands before the 32 bytes of an ed25519 key in a SubjectPublicKeyInfo (RFC 8410 section 4).
const PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// Bytes of an ed25519 key (RFC 8032 section 5.1.5).
const LENGTH: usize = 32;
/// Bytes of a signature by one.
const SIGNATURE: usize = 64;

/// The public half of an ed25519 key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PublicKey([u8; LENGTH]);

impl PublicKey {
    /// Of its raw bytes.
    ///
    /// # Errors
    /// Another number of bytes.
    pub fn new(bytes: &[u8]) -> Result<Self, String> {
        let wrong = |_| format!("an ed25519 key has {LENGTH} bytes, and this has {}", bytes.len());
        bytes.try_into().map(Self).map_err(wrong)
    }

    /// Reads PEM.
    ///
    /// # Errors
    /// What it is instead.
    pub fn from_pem(bytes: &[u8]) -> Result<Self, String> {
        let pem = pem::parse(bytes).map_err(|_| "it is no PEM".to_owned())?;
        match (pem.tag(), pem.contents().strip_prefix(&PREFIX)) {
            (TAG, Some(key)) => Self::new(key),
            (TAG, None) => Err("it is no ed25519 key".to_owned()),
            (tag, _) => Err(format!("it is a {tag}, where a {TAG} is wanted")),
        }
    }

    /// Reads PEM, or what stands in it between the first line and the last.
    ///
    /// # Errors
    /// What it is instead.
    pub fn of_text(text: &str) -> Result<Self, String> {
        match text.contains("-----BEGIN ") {
            true => Self::from_pem(text.as_bytes()),
            false => Self::from_pem(
                format!("-----BEGIN {TAG}-----\n{}\n-----END {TAG}-----\n", text.trim()).as_bytes(),
            ),
        }
    }

    /// Its text as PEM.
    pub fn to_pem(self) -> String {
        let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
        pem::encode_config(&pem::Pem::new(TAG, [&PREFIX[..], &self.0].concat()), config)
    }

    fn has_signed(&self, text: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0).verify(text, signature).is_ok()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", hex::encode(self.0))
    }
}

/// Hexadecimal.
impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(self.0))
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = hex::decode(String::deserialize(deserializer)?).map_err(D::Error::custom)?;
        Self::new(&bytes).map_err(D::Error::custom)
    }
}

/// What a signature of the document `text` is of, and the signatures that it has. A line that has none ends them.
fn split(text: &str) -> (&str, Vec<Vec<u8>>) {
    let begin = match text.split_once('\n') {
        Some((first, rest)) if first.trim_end() == "---" => rest,
        _ => text,
    };
    let mut body = begin;
    let mut signatures = Vec::new();
    loop {
        let trimmed = body.trim_end();
        let at = trimmed.rfind('\n').map_or(0, |at| at + 1);
        let Some(signature) = trimmed[at..].strip_prefix(MARK) else { break };
        let Some(signature) = STANDARD.decode(signature).ok().filter(|bytes| bytes.len() == SIGNATURE) else {
            break;
        };
        signatures.push(signature);
        body = &body[..at];
    }
    // White space after the last line counts only where a signature follows it.
    (if signatures.is_empty() { begin } else { body }, signatures)
}

/// The document `text` without its signatures, and what a new one is of.
pub fn unsigned(text: &str) -> &str {
    split(text).0
}

/// The line that says `signature`.
pub fn line(signature: &[u8]) -> String {
    format!("{MARK}{}\n", STANDARD.encode(signature))
}

/// Whether one of `keys` has signed the document `text`.
///
/// # Errors
/// Why it does not count.
pub fn check(text: &str, keys: &[PublicKey]) -> Result<(), &'static str> {
    let (body, signatures) = split(text);
    if signatures.is_empty() {
        return Err("it is not signed");
    }
    let is_good = |signature: &Vec<u8>| keys.iter().any(|key| key.has_signed(body.as_bytes(), signature));
    match signatures.iter().any(is_good) {
        true => Ok(()),
        false => Err("it was changed after it was signed, or signed by a key that does not count here"),
    }
}

/// Whether one of `keys` has signed each document of the file `text`, before anything of it is read as YAML. What comes before
/// the first `---` without being a document belongs to it.
///
/// # Errors
/// Why one of them does not count.
pub fn check_file(text: &str, keys: &[PublicKey]) -> Result<(), &'static str> {
    let is_marker = |line: &str| {
        line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
    };
    let says_nothing = |line: &str| line.trim().is_empty() || line.starts_with(['#', '%']);
    let (mut starts, mut at) = (vec![0], 0);
    for line in text.split_inclusive('\n') {
        let is_first = starts.len() == 1 && text[..at].lines().all(says_nothing);
        if is_marker(line) && !is_first {
            starts.push(at);
        }
        at += line.len();
    }
    starts.push(at);
    let says_any = |piece: &&str| !piece.strip_prefix("---").unwrap_or(piece).trim().is_empty();
    let mut pieces = starts.windows(2).map(|ends| &text[ends[0]..ends[1]]).filter(says_any).peekable();
    match pieces.peek() {
        None => Err("it is not signed"),
        Some(_) => pieces.try_for_each(|piece| check(piece, keys)),
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};

    use super::*;
    use crate::node::read;

    fn pair() -> (Ed25519KeyPair, PublicKey) {
        let pair = Ed25519KeyPair::generate().unwrap();
        let key = PublicKey::new(pair.public_key().as_ref()).unwrap();
        (pair, key)
    }

    fn signed(pair: &Ed25519KeyPair, text: &str) -> String {
        format!("{text}{}", line(pair.sign(unsigned(text).as_bytes()).as_ref()))
    }

    #[test]
    fn every_change_is_seen_and_each_document_stands_for_itself() {
        let ((ours, key), (theirs, other)) = (pair(), pair());
        let text = "node: 1\nname: a\n";
        let whole = signed(&ours, text);
        assert_eq!(check(&whole, &[key]), Ok(()));
        assert_eq!(check(&whole, &[other, key]), Ok(()));
        assert_eq!(check(text, &[key]), Err("it is not signed"));
        assert!(check(&whole, &[other]).is_err() && check(&whole, &[]).is_err());
        for at in 0..text.len() {
            let mut bytes = whole.clone().into_bytes();
            bytes[at] ^= 1;
            assert!(check(&String::from_utf8(bytes).unwrap(), &[key]).is_err(), "byte {at}");
        }
        assert_eq!(check(&format!("{whole}\n\n"), &[key]), Ok(()));
        for more in [
            "labels: {a: b}\n",
            "# a word\n",
            "# signed: AAAA\n",
            "# signed: !\n",
            "# signed: A\rmask: [a]\r",
        ] {
            assert_eq!(check(&format!("{whole}{more}"), &[key]), Err("it is not signed"), "{more:?}");
        }
        // A second signature is beside the first, not over it.
        let twice = format!("{whole}{}", line(theirs.sign(unsigned(&whole).as_bytes()).as_ref()));
        assert_eq!((check(&twice, &[key]), check(&twice, &[other])), (Ok(()), Ok(())));

        let file = format!(
            "{}---\n{}",
            signed(&ours, "node: 1\nname: a\nmatch: {serial: A}\n"),
            signed(&ours, "node: 1\n")
        );
        let documents = read("x", file.as_bytes()).unwrap();
        assert_eq!(documents.len(), 2);
        for document in &documents {
            assert_eq!(check(&document.text, &[key]), Ok(()), "{}", document.text);
            let alone = read("x", document.text.as_bytes()).unwrap();
            assert_eq!(alone[0].text, document.text);
        }
    }

    /// What is refused here is not even parsed; what passes is what each document that is parsed is signed for.
    #[test]
    fn a_file_is_known_to_be_signed_before_it_is_read() {
        let ((ours, key), (theirs, _)) = (pair(), pair());
        let (a, b) = (signed(&ours, "node: 1\nname: a\n"), signed(&ours, "node: 1\nmatch: {serial: B}\n"));
        let begun = signed(&ours, "# of rack 1\n\n---\nnode: 1\nname: a\n");
        for good in [
            a.clone(),
            format!("---\n{a}"),
            format!("{a}---\n{b}"),
            format!("---\n{a}---\n{b}---\n\n"),
            format!("{begun}---\n{b}"),
            a.replace('\n', "\r\n").replace("name: a\r\n", "name: a\n").replace("node: 1\r\n", "node: 1\n"),
        ] {
            assert_eq!(check_file(&good, &[key]), Ok(()), "{good}");
            for document in read("x", good.as_bytes()).unwrap_or_else(|wrong| panic!("{wrong}")) {
                assert_eq!(check(&document.text, &[key]), Ok(()), "{good}");
            }
        }
        for bad in [
            String::new(),
            "\n---\n".to_owned(),
            "node: 1\n".to_owned(),
            format!("node: 1\n---\n{b}"),
            format!("{a}---\nnode: 1\nmatch: {{serial: C}}\n"),
            format!("{a}--- {{node: 1}}\n"),
            format!("{a}---\n# nothing\n---\n{b}"),
            format!("# more\n{a}"),
            format!("#\rnode: 1\r\n---\n{b}"),
            format!("{a}---\n{}", signed(&theirs, "node: 1\nmatch: {serial: B}\n")),
            a.replace("name: a", "name: b"),
        ] {
            assert!(check_file(&bad, &[key]).is_err(), "{bad}");
        }
    }

    /// The parser ends a line at a carriage return, and nothing else here does.
    #[test]
    fn what_stands_behind_a_carriage_return_is_refused() {
        let (ours, key) = pair();
        let whole = signed(&ours, "node: 1\nmatch: {serial: S2}\n");
        let shifted = "---\n#\r#\r#\r#\r#\n---\nnode: 1\nname: own\nmatch: {serial: S1}\n#\n---\n";
        for text in [format!("{whole}# signed: A\rmask: [a.service]\r"), format!("{shifted}{whole}")] {
            let told = read("x", text.as_bytes()).unwrap_err().to_string();
            assert!(told.contains("a carriage return stands here without a line feed"), "{told}");
        }
        let windows = signed(&ours, "node: 1\r\nname: a\r\n").replace("=\n", "=\r\n");
        assert_eq!(check(&read("x", windows.as_bytes()).unwrap()[0].text, &[key]), Ok(()));
    }

    #[test]
    fn what_is_no_public_key_is_told() {
        let (_, key) = pair();
        assert_eq!(PublicKey::from_pem(key.to_pem().as_bytes()), Ok(key));
        let pem = key.to_pem();
        assert_eq!(
            (PublicKey::of_text(&pem), PublicKey::of_text(pem.lines().nth(1).unwrap())),
            (Ok(key), Ok(key))
        );
        assert!(PublicKey::of_text("").is_err() && PublicKey::of_text("AAAA").is_err());
        let json = serde_json::to_string(&key).unwrap();
        assert_eq!(serde_json::from_str::<PublicKey>(&json).unwrap(), key);
        let pem = |tag: &str, bytes: &[u8]| pem::encode(&pem::Pem::new(tag, bytes));
        for (text, said) in [
            ("no".to_owned(), "it is no PEM"),
            (pem("PRIVATE KEY", &[1]), "it is a PRIVATE KEY, where a PUBLIC KEY is wanted"),
            (pem(TAG, &[1; 44]), "it is no ed25519 key"),
            (pem(TAG, &[&PREFIX[..], &[1; 31]].concat()), "an ed25519 key has 32 bytes, and this has 31"),
        ] {
            assert_eq!(PublicKey::from_pem(text.as_bytes()), Err(said.to_owned()));
        }
    }
}
