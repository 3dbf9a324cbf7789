//! A file of node documents from a web server: asked for until it comes, and known to be right before it is read.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::refusal::Refusal;
use crate::base::{Chain, Digest, Progress};
use crate::http::url::Url;
use crate::http::{Cause, Client, HttpError, Settings};
use crate::node::signature::{self, PublicKey};
use crate::node::{self, Choice, Document, LARGEST, Machine, Placeholder, Policy, Remote};

/// How long it is asked for.
#[derive(Clone, Copy, Debug)]
pub enum Patience {
    /// Once, and some times more if that may help.
    Short,
    /// For ever, with these pauses between tries; the last one repeats.
    Endless(&'static [Duration]),
}

/// Pauses of an unattended machine. They never end, so that mending a server needs no visit to each machine.
pub const PAUSES: [Duration; 6] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(20),
    Duration::from_secs(60),
];
/// An unreachable server is not reported earlier: a machine that has just started has no network yet.
const START: Duration = Duration::from_secs(15);

/// A file that something vouches for.
#[derive(Debug)]
pub struct Fetched {
    /// Its address, without secrets.
    pub name: String,
    /// As it came.
    pub text: Vec<u8>,
    /// What it says.
    pub documents: Vec<Document>,
}

/// Fetches the file that `remote` names. `machine` is called before each try: a card may appear late. `policy` is the image's.
/// `waiting` is told why the file has not come yet.
///
/// # Errors
/// [`Refusal`], where nothing vouches for it or it is not right; all that is wrong with the documents; with
/// [`Patience::Short`], what the server or the network says.
pub fn fetch(
    remote: &Remote,
    machine: &dyn Fn() -> Machine,
    policy: &Policy,
    patience: Patience,
    progress: &dyn Progress,
    waiting: &mut dyn FnMut(&str),
) -> Result<Fetched> {
    let signers = remote.signers(policy).ok_or(Refusal::NothingVouches)?;
    progress.note(&format!("fetching the node document from {}", remote.address));
    let (begun, mut tries) = (Instant::now(), 0);
    loop {
        let (text, is_unreachable) = match ask(remote, &machine(), patience) {
            Ok((url, text)) => return judged(url, text, remote, signers),
            Err(Trouble::Lasting(error)) => return Err(error),
            Err(Trouble::Passing { text, is_unreachable }) => (text, is_unreachable),
        };
        let Patience::Endless(pauses) = patience else { bail!(text) };
        if !is_unreachable || begun.elapsed() >= START {
            waiting(&text);
        }
        thread::sleep(pauses.get(tries).or(pauses.last()).copied().unwrap_or_default());
        tries += 1;
    }
}

/// Why it has not come.
enum Trouble {
    /// Another try may help, by then.
    Passing {
        text: String,
        /// Whether no server was reached.
        is_unreachable: bool,
    },
    /// No other try helps.
    Lasting(anyhow::Error),
}

impl From<anyhow::Error> for Trouble {
    fn from(error: anyhow::Error) -> Self {
        Self::Lasting(error)
    }
}

/// Asks at each address in turn.
fn ask(remote: &Remote, machine: &Machine, patience: Patience) -> Result<(Url, Vec<u8>), Trouble> {
    let addresses = remote.address.of(machine).map_err(|lacking| {
        let refusal = Refusal::Lacks { word: lacking.text(), what: lacking.meaning() };
        match lacking {
            // One whose driver is slow may come.
            Placeholder::Mac => Trouble::Passing { text: refusal.to_string(), is_unreachable: true },
            Placeholder::Serial | Placeholder::Uuid => Trouble::Lasting(refusal.into()),
        }
    })?;
    let mut settings = Settings::of_host();
    if let Patience::Endless(_) = patience {
        settings.pauses.clear();
    }
    // A new client for each try: one keeps the name servers of its first request.
    let client = Client::new(settings).context("setting up HTTP")?;
    let (mut missing, mut trouble) = (Vec::new(), None);
    for address in addresses {
        let url: Url = address.parse().context("reading the address of the node document")?;
        match client.get_small(&url, LARGEST) {
            Ok(text) => return Ok((url, text)),
            Err(error) if error.is_not_found() => missing.push(url.to_string()),
            Err(error) if matches!(*error.cause, Cause::TooLarge { .. }) => {
                let refusal = Refusal::DocumentTooLarge { url: url.to_string() };
                return Err(Trouble::Lasting(refusal.into()));
            }
            // Some servers answer so for a file that they do not have: the next card's may be there.
            Err(error) => {
                let is_unreachable = error.is_unreachable();
                trouble.get_or_insert(Trouble::Passing { text: advised(&error), is_unreachable });
            }
        }
    }
    if let Some(trouble) = trouble {
        return Err(trouble);
    }
    let text =
        format!("fetching {}: not found: put the file there, or correct the address", missing.join(" and "));
    Err(Trouble::Passing { text, is_unreachable: false })
}

/// What the server or the network says, with what to do.
fn advised(error: &HttpError) -> String {
    let url = &error.url;
    match &*error.cause {
        Cause::Unauthorized { status, .. } => format!(
            "fetching {url}: the server says {status}: let it hand out the file to this machine, or write user and password \
             into the address"
        ),
        Cause::Connection { .. } => {
            format!("{}: look whether the web server runs and is reached from here", Chain(error))
        }
        _ => Chain(error).to_string(),
    }
}

/// What has come, if it is what was meant.
fn judged(url: Url, text: Vec<u8>, remote: &Remote, signers: &[PublicKey]) -> Result<Fetched> {
    let name = url.to_string();
    let actual = Digest::of(&text);
    if let Some(expected) = remote.sha256.filter(|expected| *expected != actual) {
        return Err(Refusal::OtherDocument { url: name, expected, actual }.into());
    }
    let unsigned = |why| Refusal::DocumentUnsigned { url: name.clone(), why };
    if signers.is_empty() {
        return Ok(Fetched { documents: node::read(&name, &text)?, name, text });
    }
    let whole = std::str::from_utf8(&text).map_err(|_| unsigned("it is not text"))?;
    signature::check_file(whole, signers).map_err(unsigned)?;
    let documents = node::read(&name, &text)?;
    // And once more, as the parser divides it.
    let judged = documents.iter().try_for_each(|document| signature::check(&document.text, signers));
    judged.map_err(unsigned)?;
    Ok(Fetched { name, text, documents })
}

impl Fetched {
    /// The document that is for `machine`.
    ///
    /// # Errors
    /// [`Refusal`]: there is not exactly one.
    pub fn choose(&self, machine: &Machine) -> Result<&Document, Refusal> {
        let (url, machine_is) = (self.name.clone(), machine.shown());
        match machine.choose(&self.documents) {
            Choice::One(document) => Ok(document),
            Choice::None => Err(Refusal::OtherMachine { url, machine: machine_is }),
            Choice::Many(count) => Err(Refusal::ManyDocuments { url, count, machine: machine_is }),
        }
    }
}
