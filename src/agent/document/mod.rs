//! The node document of a running node: what a new one changes, making it so, and going back from a change of the
//! network that nobody has confirmed.
//!
//! The copy on the state partition is what the next boot goes by. A change of the network is made without touching it:
//! the new text lies beside it, and a timer of systemd's, which needs no process of ours, undoes the change unless it
//! is confirmed. So a loss of power undoes it too, and /init clears away what lies beside.

mod act;
mod login;
mod plan;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::systemd;
use crate::base::failure::{Doing, Failure};
use crate::base::{atomic, flock, kernel};
use crate::node::{self, Choice, Document, FACTS, Item, Machine, Policy, laying, policy};
use crate::written::Diagnostics;
use act::Root;
pub use plan::{Change, Plan};

const HOME: &str = "/var/lib/keller";
/// What is known of a change that waits to be confirmed.
const WAITING: &str = "/run/keller/node/waiting.json";
const LOCK: &str = "/run/keller/node/lock";
/// What every node has: how its image was made.
const BUILT: &str = "/usr/lib/keller/image.json";
/// The timer and the service that undo.
const UNDO: &str = "keller-node-undo";
/// The document of a node that has none.
const NOTHING: &[u8] = b"node: 1\n";
/// As messages call what counted before a change that is undone.
const BEFORE: &str = "the document from before";

/// A change that waits.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Waiting {
    /// Seconds since the start of the kernel.
    uptime: f64,
    /// Addresses over which a login confirms; any, where there are none.
    addresses: Vec<String>,
    /// Seconds since 1970: when it is undone.
    until: u64,
}

/// What a document changes on this node.
#[derive(Debug)]
pub struct Diff {
    /// What is done.
    pub plan: Plan,
    /// What the document says and this image has no use for.
    pub warnings: Vec<String>,
    document: Document,
    items: Vec<Item>,
    root: Root,
}

/// How a document was applied.
#[derive(Debug, Default, Serialize)]
pub struct Applied {
    /// Until when it must be confirmed, in seconds since 1970; nothing where it need not be.
    pub until: Option<u64>,
    /// What does not change before something else is done.
    pub later: Vec<String>,
    /// What went wrong.
    pub failed: Vec<String>,
}

/// How undoing ended.
#[derive(Debug)]
pub enum Undone {
    /// There was nothing to undo.
    Nothing,
    /// It was confirmed by this login.
    Confirmed(String),
    /// The node is as it was.
    Back,
}

/// What `file` would change.
///
/// # Errors
/// What is wrong with the document, and what the node says.
pub fn diff(name: &str, bytes: &[u8]) -> Result<Diff, Failure> {
    plan_for(signed(name, choose(name, node::read(name, bytes))?)?)
}

/// The document, if this image takes it. This does not guard against root; it keeps a document from being applied here that would
/// be refused on the next machine.
fn signed(name: &str, document: Document) -> Result<Document, Failure> {
    match Policy::of_root(Path::new("/"))?.check(&document) {
        Ok(()) => Ok(document),
        Err(why) => Err(Failure::new(format!("reading {name}"), why).help(policy::SIGN)),
    }
}

fn choose(name: &str, documents: Result<Vec<Document>, Diagnostics>) -> Result<Document, Failure> {
    let doing = || format!("reading {name}");
    let documents = documents.doing(doing())?;
    let machine = Machine::of(Path::new("/sys"));
    match machine.choose(&documents) {
        Choice::One(document) => Ok(document.clone()),
        Choice::None => {
            Err(Failure::new(doing(), format!("no document of it is for this machine: {}", machine.shown())))
        }
        Choice::Many(count) => {
            let cause = format!("{count} documents of it are for this machine: {}", machine.shown());
            Err(Failure::new(doing(), cause))
        }
    }
}

fn plan_for(document: Document) -> Result<Diff, Failure> {
    let root = Root::open()?;
    let node::Rendered { items, warnings } = node::render(&document, &root);
    let plan = Plan::new(&laying::noted(), &items, &document, &laying::laid);
    Ok(Diff { plan, warnings, document, items, root })
}

/// Makes the node what `name` says. Where that changes the network, it is undone `within` this time unless confirmed.
///
/// # Errors
/// Nothing was changed, or the change is undone after its time.
pub fn apply(name: &str, bytes: &[u8], within: Duration) -> Result<Applied, Failure> {
    let _lock = lock()?;
    let document = signed(name, choose(name, node::read(name, bytes))?)?;
    if pending().exists() {
        let cause = "a change of its network is not confirmed yet";
        let failure = Failure::new("changing this node", cause);
        return Err(failure.help("`keller node confirm` keeps it, `keller node undo` goes back at once"));
    }
    let diff = plan_for(document)?;
    let text = diff.document.text.clone();
    let mut applied = Applied::default();
    let (failed, later) = match diff.plan.reload_network {
        true => {
            // The timer first: without a text that waits it does nothing.
            let waiting = waiting(&diff.document, within);
            remember(&waiting)?;
            arm(within)?;
            if let Err(error) = laying::keep(&pending(), &text) {
                disarm();
                return Err(error).doing("keeping the document until it is confirmed");
            }
            applied.until = Some(waiting.until);
            tell(Some(&diff.document), json!("keller node apply"), applied.until, None)?;
            let done = act::act(&diff.plan, &diff.items, &diff.root);
            // What came in until now came in over the network from before.
            remember(&Waiting { uptime: kernel::uptime(), ..waiting })?;
            done
        }
        false => {
            keep(&text)?;
            tell(Some(&diff.document), json!("keller node apply"), None, None)?;
            act::act(&diff.plan, &diff.items, &diff.root)
        }
    };
    applied.failed = failed.iter().map(|failure| failure.lines().join(": ")).collect();
    applied.later = [later, diff.plan.later.clone(), diff.warnings.clone()].concat();
    if let Some(given) = status().get("given").and_then(Value::as_str) {
        applied.later.push(format!("the next boot goes by {given} again, which the machine gives"));
    }
    Ok(applied)
}

/// Keeps what was applied.
///
/// # Errors
/// There is nothing to confirm; what the disk says.
pub fn confirm() -> Result<(), Failure> {
    let _lock = lock()?;
    keep_pending()
}

fn keep_pending() -> Result<(), Failure> {
    let doing = "confirming the change of the network";
    let Some(bytes) = laying::kept(&pending()).doing(doing)? else {
        return Err(Failure::new(doing, "there is none that waits"));
    };
    keep(&String::from_utf8_lossy(&bytes))?;
    fs::remove_file(pending()).doing(doing)?;
    disarm();
    tell(None, Value::Null, None, None)
}

/// Goes back to the document from before, unless somebody has come in over the network since: what the timer runs.
/// With `now`, whoever has come in.
///
/// # Errors
/// What the node says; the change still waits.
pub fn undo(now: bool) -> Result<Undone, Failure> {
    let _lock = lock()?;
    if !pending().exists() {
        return Ok(Undone::Nothing);
    }
    if let Some(login) = login().filter(|_| !now) {
        keep_pending()?;
        return Ok(Undone::Confirmed(login));
    }
    let before =
        laying::kept(&Path::new(HOME).join(laying::KEPT)).doing("reading the document from before")?;
    let mut diff = plan_for(choose(BEFORE, node::read_kept(BEFORE, before.as_deref().unwrap_or(NOTHING)))?)?;
    // Whoever made the change may have ended between its files and what reads them, and so may an earlier try of this.
    (diff.plan.reload_network, diff.plan.reload_units) = (true, true);
    let (failed, _) = act::act(&diff.plan, &diff.items, &diff.root);
    if let Some(failure) = failed.into_iter().next() {
        return Err(failure);
    }
    fs::remove_file(pending()).doing("forgetting the change that was not confirmed")?;
    if now {
        disarm();
    }
    let why = "a change of the network was not confirmed, and was undone";
    let source = before.map_or_else(|| "none".to_owned(), |_| format!("{HOME}/{}", laying::KEPT));
    tell(Some(&diff.document), json!(source), None, Some(why))?;
    Ok(Undone::Back)
}

/// What is known of the node's document: /run/keller/node.json, which everybody may read.
pub fn status() -> Value {
    let text = fs::read_to_string(FACTS).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_else(|_| node::facts(None, "none", None))
}

/// The login that confirms, if there was one.
fn login() -> Option<String> {
    let waiting: Waiting = serde_json::from_slice(&fs::read(WAITING).ok()?).ok()?;
    login::find(&login::journal().ok()?, waiting.uptime, &waiting.addresses)
}

fn waiting(document: &Document, within: Duration) -> Waiting {
    let known = status();
    let old = known.pointer("/network/addresses").and_then(Value::as_array).cloned().unwrap_or_default();
    let addresses: Vec<String> = document
        .interfaces
        .iter()
        .flat_map(|one| one.addresses.iter().map(|(ip, _)| ip.to_string()))
        .filter(|ip| !old.iter().any(|old| old == ip))
        .collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Waiting { uptime: kernel::uptime(), addresses, until: (now + within).as_secs() }
}

fn remember(waiting: &Waiting) -> Result<(), Failure> {
    atomic::write(Path::new(WAITING), json!(waiting).to_string()).doing(format!("writing {WAITING}"))
}

fn pending() -> PathBuf {
    Path::new(HOME).join(laying::PENDING)
}

fn keep(text: &str) -> Result<(), Failure> {
    let path = Path::new(HOME).join(laying::KEPT);
    laying::keep(&path, text).doing(format!("writing {}", path.display()))
}

/// Serializes apply, confirm and undo.
fn lock() -> Result<File, Failure> {
    if !Path::new(BUILT).exists() {
        let cause = format!("this machine has no {BUILT}");
        return Err(Failure::new("changing this node", cause).help("run it on a node that keller built"));
    }
    lock_at(Path::new(LOCK))
}

fn lock_at(path: &Path) -> Result<File, Failure> {
    let doing = || format!("locking {}", path.display());
    fs::create_dir_all(path.parent().unwrap_or(Path::new("/run"))).doing(doing())?;
    let file = flock::open(path).doing(doing())?;
    rustix::fs::flock(&file, FlockOperation::LockExclusive).doing(doing())?;
    Ok(file)
}

/// Has systemd undo the change after this time, whatever becomes of this process.
fn arm(within: Duration) -> Result<(), Failure> {
    disarm();
    let mut command = Command::new("systemd-run");
    command.args(["--quiet", "--collect", &format!("--unit={UNDO}")]);
    command.args([&format!("--on-active={}s", within.as_secs()), "--timer-property=AccuracySec=1s"]);
    command.args(["--property=Type=oneshot", "--property=Restart=on-failure", "--property=RestartSec=5s"]);
    command.arg("--description=Go back to the node document from before");
    systemd::output(command.args(["/usr/bin/keller", "node", "undo", "--unless-login"])).map(drop)
}

fn disarm() {
    let _ = systemd::output(Command::new("systemctl").args(["stop", &format!("{UNDO}.timer")]));
}

/// Writes down what everybody may know.
fn tell(
    document: Option<&Document>,
    source: Value,
    until: Option<u64>,
    undone: Option<&str>,
) -> Result<(), Failure> {
    let mut facts = status();
    if let Some(document) = document {
        let new = node::facts(Some(document), "", None);
        for key in ["name", "labels", "network"] {
            facts[key] = new[key].clone();
        }
    }
    if !source.is_null() {
        facts["source"] = source;
    }
    facts["pending"] = json!(until.map(|until| json!({ "until": until })));
    facts["undone"] = json!(undone);
    atomic::write(Path::new(FACTS), format!("{facts:#}\n")).doing(format!("writing {FACTS}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn nobody_else_can_hold_up_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node/lock");
        drop(lock_at(&path).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
    }
}
