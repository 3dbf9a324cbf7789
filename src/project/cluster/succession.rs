//! An authority in a cluster's directory while another one takes its place: what the files there say, and what changes them.
//!
//! Which file is there says how far it is. `authority.pem` signs, at each moment. `authority.next.pem` is believed beside it,
//! and signs later. `authority.last.pem` signed before, is still believed, and has no key any more. The same for
//! `peer-authority.pem`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::{AUTHORITIES, LIFE_SECONDS, MOST_BYTES};
use crate::base::input;
use crate::pki::{Authority, Bundle};

/// How far a replacement is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// There is one authority.
    Alone,
    /// Step 1: the next one is believed as well.
    Next,
    /// Step 2: the next one signs, and the last one is believed as well. Step 3 leads to `Alone`.
    Last,
}

impl Stage {
    /// The one that follows.
    pub fn then(self) -> Self {
        match self {
            Self::Alone => Self::Next,
            Self::Next => Self::Last,
            Self::Last => Self::Alone,
        }
    }
}

/// One write, after which the directory is whole or one from which the same verb goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Write {
    /// A file gets this text.
    File(PathBuf, String),
    /// A file gets another name, in place of what has that.
    Rename(PathBuf, PathBuf),
    /// A file goes.
    Remove(PathBuf),
}

impl Write {
    /// Does it; once this returns, it is on the disk.
    pub(super) fn run(&self) -> Result<()> {
        let (path, done) = match self {
            Self::File(path, text) => return super::directory::write(path, text),
            Self::Rename(from, to) => (to, fs::rename(from, to)),
            Self::Remove(path) => (path, fs::remove_file(path)),
        };
        done.and_then(|()| crate::base::atomic::sync_name(path))
            .with_context(|| format!("changing {}", path.display()))
    }
}

/// One of the two authorities.
#[derive(Debug)]
pub(super) struct Succession {
    directory: PathBuf,
    /// One of [`AUTHORITIES`].
    file: &'static str,
    pub(super) signs: Authority,
    pub(super) next: Option<Authority>,
    pub(super) last: Option<Bundle>,
}

impl Succession {
    /// What lies in `directory` of the authority in `file`.
    pub(super) fn read(directory: &Path, file: &'static str) -> Result<Self> {
        let mut found = Self {
            directory: directory.to_owned(),
            file,
            signs: authority(&directory.join(file))?,
            next: None,
            last: None,
        };
        let [next, last] = [found.at("next"), found.at("last")];
        if next.symlink_metadata().is_ok() {
            found.next = Some(authority(&next)?);
        } else if last.symlink_metadata().is_ok() {
            let doing = || format!("reading {}", last.display());
            let bundle =
                Bundle::read(&input::read(&last, MOST_BYTES).with_context(doing)?).with_context(doing)?;
            // A change that was taken back by hand leaves what is itself.
            found.last = Some(bundle).filter(|last| !last.is_same(&found.signs.believed()));
        }
        Ok(found)
    }

    fn at(&self, what: &str) -> PathBuf {
        self.directory.join(self.file.replace(".pem", &format!(".{what}.pem")))
    }

    pub(super) fn stage(&self) -> Stage {
        match (&self.next, &self.last) {
            (Some(_), _) => Stage::Next,
            (None, Some(_)) => Stage::Last,
            (None, None) => Stage::Alone,
        }
    }

    /// All that are believed now: the one that signs first.
    pub(super) fn believed(&self) -> Bundle {
        let beside = self.next.as_ref().map(Authority::believed).or_else(|| self.last.clone());
        self.signs.believed().and(&beside.unwrap_or_default())
    }

    /// The one that signs, and beside it those that are believed.
    pub(super) fn authority(&self) -> Result<Authority> {
        Ok(Authority::read(self.signs.to_pem().as_bytes())?.beside(self.believed()))
    }

    /// Goes on to the next stage. After each write, the files still tell which stage it is.
    pub(super) fn advance(self, purpose: &str, now: i64) -> Result<(Self, Vec<Write>)> {
        let at = self.directory.join(self.file);
        let [next, last] = [self.at("next"), self.at("last")];
        let Self { directory, file, signs, .. } = self;
        Ok(match (self.next, self.last) {
            (None, None) => {
                let new = Authority::make_until(purpose, now.saturating_add(LIFE_SECONDS))?;
                let write = Write::File(next, new.to_pem());
                (Self { directory, file, signs, next: Some(new), last: None }, vec![write])
            }
            (Some(new), _) => {
                let before = signs.believed();
                // Its certificate is there before its key goes.
                let writes = vec![Write::File(last, before.to_pem()), Write::Rename(next, at)];
                (Self { directory, file, signs: new, next: None, last: Some(before) }, writes)
            }
            (None, Some(_)) => {
                (Self { directory, file, signs, next: None, last: None }, vec![Write::Remove(last)])
            }
        })
    }
}

fn authority(path: &Path) -> Result<Authority> {
    let doing = || format!("reading {}", path.display());
    Authority::read(&input::read_private(path, MOST_BYTES).with_context(doing)?).with_context(doing)
}

/// Both authorities of a cluster.
#[derive(Debug)]
pub(super) struct Successions {
    pub(super) clients: Succession,
    pub(super) peers: Succession,
}

impl Successions {
    pub(super) fn read(directory: &Path) -> Result<Self> {
        let [clients, peers] = AUTHORITIES.map(|file| Succession::read(directory, file));
        Ok(Self { clients: clients?, peers: peers? })
    }

    /// How far both are. The one of clients goes first: where that of members is not as far, it was cut off.
    pub(super) fn stage(&self) -> Result<(Stage, bool)> {
        let (clients, peers) = (self.clients.stage(), self.peers.stage());
        match () {
            () if clients == peers => Ok((clients, true)),
            () if clients == peers.then() => Ok((clients, false)),
            () => bail!(
                "{} and {} are at different steps, as no replacement leaves them: put back both, and what lies beside them, \
                 from one copy of the directory",
                self.clients.directory.join(self.clients.file).display(),
                self.peers.directory.join(self.peers.file).display()
            ),
        }
    }

    /// Brings that of members as far as that of clients, or both one stage on.
    pub(super) fn advance(self, cluster: &str, is_whole: bool, now: i64) -> Result<(Self, Vec<Write>)> {
        let Self { clients, peers } = self;
        let (clients, mut writes) = match is_whole {
            true => clients.advance(&format!("{cluster} authority"), now)?,
            false => (clients, Vec::new()),
        };
        let (peers, more) = peers.advance(&format!("{cluster} peer authority"), now)?;
        writes.extend(more);
        Ok((Self { clients, peers }, writes))
    }
}
