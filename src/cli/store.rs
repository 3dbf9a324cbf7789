//! `keller store`: the folder of downloads, by hand.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::base::{Digest, Size};
use crate::lock::Lock;
use crate::store::{Checked, Store};

/// Look at the store of downloads, and make room in it.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Say where the store is.
    Path,
    /// List the blobs: digest, size in bytes, and when each was last used.
    List,
    /// Remove what was not used for some time and is not in one of the locks.
    Gc {
        /// Keep the files that this lock names, whatever their age; may be repeated.
        #[arg(long, value_name = "LOCK")]
        keep: Vec<PathBuf>,
        /// Remove only what was not used for this many days.
        #[arg(long, value_name = "DAYS", default_value_t = 30)]
        older_than: u32,
    },
    /// Read every blob, and move away those that have rotted on the disk.
    Verify,
}

/// Runs the verb.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let root = Store::locate()?;
    let mut out = io::stdout().lock();
    match &args.verb {
        Verb::Path => writeln!(out, "{}", root.display())?,
        Verb::List => list(&Store::open(root)?, &mut out)?,
        Verb::Gc { keep, older_than } => {
            let keep = kept(keep)?;
            let age = Duration::from_secs(u64::from(*older_than) * 24 * 3600);
            let mut store = Store::open(root)?;
            let freed = store.gc(&keep, age).context("sweeping the store")?;
            writeln!(
                out,
                "{} freed: {} blobs, {} derived files, {} left-overs",
                Size(freed.bytes).human(),
                freed.blobs,
                freed.derived,
                freed.litter
            )?;
        }
        Verb::Verify => verify(&Store::open(root)?, &mut out)?,
    }
    Ok(())
}

fn list(store: &Store, out: &mut impl Write) -> anyhow::Result<()> {
    for entry in store.blobs()? {
        let used = jiff::Timestamp::try_from(entry.used).unwrap_or_default();
        let digest = entry.digest.map(|digest| digest.to_hex()).unwrap_or_default();
        writeln!(out, "{digest} {:>12} {}", entry.size, used.strftime("%Y-%m-%d %H:%M"))?;
    }
    Ok(())
}

/// All digests that the lock files name.
fn kept(locks: &[PathBuf]) -> anyhow::Result<BTreeSet<Digest>> {
    let mut digests = BTreeSet::new();
    for path in locks {
        let text = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        let lock: Lock =
            serde_json::from_slice(&text).with_context(|| format!("reading {}", path.display()))?;
        digests.extend(lock.packages.values().map(|package| package.sha256));
        digests.extend(lock.containers.values().flat_map(|packages| packages.values()).map(|p| p.sha256));
        digests.extend(lock.files.values().map(|file| file.sha256));
        digests.extend(lock.local.values());
        digests.extend(lock.provenance.releases.values().map(|release| release.sha256));
    }
    Ok(digests)
}

fn verify(store: &Store, out: &mut impl Write) -> anyhow::Result<()> {
    let (mut good, mut bytes, mut rotten) = (0, 0, 0);
    for entry in store.blobs()? {
        let Some(digest) = entry.digest else { continue };
        match store.open_verified(&digest)? {
            Checked::Good(_) => {
                good += 1;
                bytes += entry.size;
            }
            Checked::Missing => {}
            Checked::Rotten { actual, moved_to } => {
                rotten += 1;
                writeln!(out, "{digest}: rotten, is {actual} and now {}", moved_to.display())?;
            }
        }
    }
    writeln!(out, "{good} blobs verified, {}", Size(bytes).human())?;
    if rotten > 0 {
        bail!("{rotten} blobs were rotten and are moved away: the next build fetches them again");
    }
    Ok(())
}
