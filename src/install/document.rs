//! The node document: checked before anything is written, put into the ESP, and found again on a disk that was installed
//! before.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};

use super::Request;
use super::fetch::{self, Patience};
use super::refusal::Refusal;
use crate::base::device::{Device, Shared, Uncached, Window};
use crate::base::{Digest, Progress, input, width::to_u64};
use crate::disk::gpt::{Entry, Table};
use crate::disk::layout::STATE_LABEL;
use crate::disk::unfold::is_unmade;
use crate::fs::ext4;
use crate::fs::fat::{Editor, Reader};
use crate::http::url::is_address;
use crate::node::laying::{IN_ESP, KEPT};
use crate::node::policy::Place;
use crate::node::{self, Address, Choice, Document, LARGEST, Machine, Policy, Remote, Secret};

/// What is keller's own on the state partition.
const HOME: &str = "lib/keller";

/// Where a file of node documents comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DocumentOrigin {
    /// A file.
    File(PathBuf),
    /// A web server.
    Url(Address),
    /// It is here, with its name for messages.
    Text(String, Secret),
}

impl DocumentOrigin {
    /// As people write it: an address, or else a path.
    ///
    /// # Errors
    /// What is wrong with the address.
    pub fn of(text: &str) -> Result<Self> {
        match is_address(text) {
            false => Ok(Self::File(text.into())),
            true => {
                let address = text.parse::<Address>();
                address
                    .map(Self::Url)
                    .map_err(|error| anyhow!("the address of the node document {error}: {}", error.help()))
            }
        }
    }
}

impl fmt::Display for DocumentOrigin {
    /// Without what is secret of an address.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Url(address) => write!(f, "{address}"),
            Self::Text(name, _) => f.write_str(name),
        }
    }
}

/// A file of documents that was checked as `keller node check` does.
#[derive(Debug)]
pub(super) struct Given {
    /// As it is.
    pub text: Vec<u8>,
    documents: Vec<Document>,
}

impl Given {
    fn new(name: &str, text: Vec<u8>) -> Result<Self> {
        let documents = node::read(name, &text)?;
        Ok(Self { text, documents })
    }

    /// Reads and checks the one that `request` names, unless it has to be fetched.
    pub(super) fn here(request: &Request) -> Result<Option<Self>> {
        let (name, text) = match &request.document {
            None | Some(DocumentOrigin::Url(_)) => return Ok(None),
            Some(DocumentOrigin::Text(name, text)) => (name.clone(), text.0.clone()),
            Some(DocumentOrigin::File(path)) => {
                let name = path.display().to_string();
                let text = input::read(path, LARGEST + 1).with_context(|| format!("reading {name}"))?;
                (name, text)
            }
        };
        let actual = Digest::of(&text);
        match request.document_sha256.filter(|expected| *expected != actual) {
            Some(expected) => {
                Err(Refusal::OtherBytes { name, by: "--document-sha256".to_owned(), expected, actual }.into())
            }
            None => Self::new(&name, text).map(Some),
        }
    }

    /// Fetches and checks the one that `request` names by an address. The keys in `policy`, that of the image, vouch for it
    /// where no digest is given.
    pub(super) fn fetched(
        request: &Request,
        policy: &Policy,
        sys: &Path,
        progress: &dyn Progress,
    ) -> Result<Option<Self>> {
        let Some(DocumentOrigin::Url(address)) = &request.document else { return Ok(None) };
        let remote = Remote::new(address.clone(), request.document_sha256, Vec::new());
        let remote = remote.map_err(|error| anyhow!("--document: the address {error}: {}", error.help()))?;
        let machine = || Machine::of(sys);
        let found = fetch::fetch(&remote, &machine, policy, Patience::Short, progress, &mut |_| {})?;
        Ok(Some(Self { text: found.text, documents: found.documents }))
    }

    /// Refuses what the node of an image with this `policy` would not take from its ESP.
    ///
    /// # Errors
    /// [`Refusal::NotFromEsp`], [`Refusal::Unsigned`].
    pub(super) fn judge(&self, policy: &Policy) -> Result<(), Refusal> {
        if !policy.takes_from(Place::Esp) {
            return Err(Refusal::NotFromEsp);
        }
        policy.check_all(&self.documents).map_err(|(document, why)| {
            let name = document.name.clone().unwrap_or_else(|| "without a name".to_owned());
            Refusal::Unsigned { name, why }
        })
    }

    /// Whether this is what a disk has: the same file still in the ESP, or the one of it that the node on it keeps, which is the
    /// one for `machine` where that is known.
    pub(super) fn is(&self, had: &Had, machine: Option<&Machine>) -> bool {
        let own = |document: &Document| match machine.map(|machine| machine.choose(&self.documents)) {
            Some(Choice::One(chosen)) => chosen == document,
            Some(_) => false,
            None => true,
        };
        match had {
            Had::Nothing => false,
            Had::InEsp(bytes) => *bytes == self.text,
            Had::Kept(bytes) => {
                self.documents.iter().any(|document| document.text.as_bytes() == bytes && own(document))
            }
        }
    }
}

/// The document of a disk.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Had {
    /// It has none.
    Nothing,
    /// It has not been started since.
    InEsp(Vec<u8>),
    /// The node has taken it.
    Kept(Vec<u8>),
}

/// The document on `disk`, which has `table`; none where that cannot be found out.
pub(super) fn had(disk: &Arc<dyn Shared>, table: &Table) -> Option<Had> {
    let esp = table.esp(None)?;
    let mut reader = Reader::open(Window::new(disk, esp.start, esp.size)).ok()?;
    let is_there = reader.list().ok()?.iter().any(|file| file.path.eq_ignore_ascii_case(IN_ESP));
    if is_there {
        let bytes = reader.read(IN_ESP, LARGEST).ok()?;
        if !bytes.is_empty() {
            return Some(Had::InEsp(bytes));
        }
    }
    let is_state = |entry: &&Entry| entry.label == STATE_LABEL && !is_unmade(table, entry);
    let Some(state) = table.entries.iter().find(is_state) else { return Some(Had::Nothing) };
    let window = Window::new(disk.clone(), state.start, state.size);
    let kept = ext4::read_file(window, &format!("{HOME}/{KEPT}"), LARGEST).ok()?;
    Some(kept.map_or(Had::Nothing, Had::Kept))
}

/// Puts `text` into the ESP of `disk`, and reads it back.
pub(super) fn put<D: Device>(
    disk: &mut D,
    table: &Table,
    text: &[u8],
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let esp = table.esp(None).ok_or("the image has no ESP")?;
    let mut window = Window::new(&mut *disk, esp.start, esp.size);
    Editor::open(&mut window)?.put(IN_ESP, &mut &*text, to_u64(text.len()))?;
    window.flush()?;
    let window = Window::new(Uncached(&*disk), esp.start, esp.size);
    match Reader::open(window)?.read(IN_ESP, LARGEST)? == text {
        true => Ok(()),
        false => Err(io::Error::other("the disk has other bytes of it: it is failing").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_must_be_the_document_of_this_machine() {
        let text = b"node: 1\nname: a\nmatch: {serial: A}\n---\nnode: 1\nname: b\nmatch: {serial: B}\n";
        let given = Given::new("rack.yaml", text.to_vec()).unwrap();
        let kept = Had::Kept(given.documents[1].text.clone().into_bytes());
        let machine = |serial: &str| Machine { serial: Some(serial.to_owned()), ..Machine::default() };
        assert!(given.is(&kept, Some(&machine("B"))) && given.is(&kept, None));
        assert!(!given.is(&kept, Some(&machine("A"))) && !given.is(&kept, Some(&machine("C"))));
        assert!(!given.is(&Had::Nothing, None));
    }
}
