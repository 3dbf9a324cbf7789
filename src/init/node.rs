//! The node document: which one counts, its copy on the state partition, and the files that follow from it.

use std::fs;
use std::io;
use std::path::Path;

use super::chroot::ROOT;
use super::console::Console;
use super::disks::BootDisk;
use super::given::{Decided, Given, decide};
use super::modules::Loader;
use super::{cards, esp_document, fw_cfg, media, smbios, state};
use crate::base::failure::{Doing, Failure};
use crate::boot::live;
use crate::node::laying::{self, LAYER};
use crate::node::policy::{Place, Policy};
use crate::node::{CREDENTIAL, FACTS, Image, Rendered, facts, render};

/// What a document made in this boot.
#[derive(Debug, Default)]
pub(super) struct Laid {
    /// Paths below /etc.
    etc: Vec<String>,
    /// Paths below /run/systemd/system.
    units: Vec<String>,
}

/// The verified root.
struct Root;

impl Image for Root {
    fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(format!("{ROOT}{path}")).ok()
    }
}

/// What a document is looked for with.
pub(super) struct Ground<'a> {
    pub console: &'a Console,
    pub loader: &'a mut Loader,
    pub disk: &'a BootDisk,
    /// Whether what is kept outlives this boot.
    pub lasts: bool,
}

/// What was taken from the ESP and erased there, where other places have a part of the document, too: they give theirs
/// again at each boot, and this is the ESP's.
const TAKEN: &str = "node/esp.yaml";

/// A document that is in the ESP in this boot.
struct FromEsp {
    bytes: Vec<u8>,
    /// Whether no other place has one.
    is_alone: bool,
}

/// Reads the document that this boot goes by, keeps it, and lays its files. The node must have its state, and not yet
/// its /etc. Whatever is wrong with a document is told; the boot goes on.
pub(super) fn settle(ground: &mut Ground<'_>) -> Laid {
    let console = ground.console;
    let home = Path::new(state::HOME);
    let (kept, unread) = match kept(home) {
        Ok(kept) => (kept, None),
        Err(failure) => (None, Some(failure)),
    };
    if let Some(failure) = unread {
        console.alarm(&failure.lines());
    }
    let undone = forget_pending(console, home);
    if let Err(failure) = laying::prepare(Path::new(ROOT)) {
        console.alarm(&failure.lines());
    }
    let policy = read_policy(console);
    let (given, from_esp) = given(ground, home, &policy, kept.is_none());
    let decided =
        decide(given, kept, &policy, cards::machine(), &|documents| cards::find(console, documents));
    if let Err(failure) = hand_over(ground, home, &decided, from_esp) {
        let help =
            "EFI/keller/node.yaml stays in the EFI system partition, and is read again at the next boot";
        console.alarm(&failure.help(help).lines());
    }
    apply(console, &decided, undone)
}

/// Keeps a new document, and then erases what the ESP has of it.
fn hand_over(
    ground: &Ground<'_>,
    home: &Path,
    decided: &Decided,
    from_esp: Option<FromEsp>,
) -> Result<(), Failure> {
    let Some((document, _)) = &decided.document else { return Ok(()) };
    let is_kept = !decided.is_new || keep_told(ground.console, home, &document.text);
    if let Some(from_esp) = from_esp.filter(|_| decided.is_given && is_kept && ground.lasts) {
        take(home, &from_esp).doing(format!("keeping the part of the node document in {TAKEN}"))?;
        esp_document::erase_told(ground.console, ground.disk);
    }
    Ok(())
}

/// Keeps the ESP's part beside the whole, unless it is the whole.
fn take(home: &Path, from_esp: &FromEsp) -> io::Result<()> {
    let path = home.join(TAKEN);
    if !from_esp.is_alone {
        return laying::keep(&path, &String::from_utf8_lossy(&from_esp.bytes));
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn apply(console: &Console, decided: &Decided, undone: Option<&str>) -> Laid {
    if !decided.refused.is_empty() {
        let goes_on = match &decided.document {
            Some((_, source)) => format!("the node goes on with {source}"),
            None => "the node starts without one".to_owned(),
        };
        let head = format!("a node document is refused, and nothing of it is applied; {goes_on}");
        console.alarm(&[vec![head], decided.refused.clone()].concat());
    }
    let Some((document, source)) = &decided.document else {
        let refused = (!decided.refused.is_empty()).then_some(decided.refused.as_slice());
        tell(console, facts(None, "none", refused), None, undone);
        return Laid::default();
    };
    let Rendered { items, warnings } = render(document, &Root);
    warnings.iter().for_each(|warning| console.warn(&format!("node document: {warning}")));
    let mut laid = Laid::default();
    for item in &items {
        match laying::lay(item, Path::new(ROOT)) {
            Ok(()) => laid.note(&item.path),
            Err(failure) => console.alarm(&failure.lines()),
        }
    }
    let refused = (!decided.refused.is_empty()).then_some(decided.refused.as_slice());
    tell(console, facts(Some(document), source, refused), decided.is_given.then_some(source), undone);
    if let Err(failure) = laying::note(items.iter().map(|item| item.path.as_str())) {
        console.alarm(&failure.lines());
    }
    let name = document.name.as_deref().map(|name| format!(", {name}")).unwrap_or_default();
    console.say(&format!("node document from {source}{name}: {} files", items.len()));
    laid
}

/// Keeps the text for boots to which nothing is given; tells what went wrong.
fn keep_told(console: &Console, home: &Path, text: &str) -> bool {
    let path = home.join(laying::KEPT);
    let kept = laying::keep(&path, text).doing(format!("writing {}", shown(&path)));
    if let Err(failure) = kept {
        let help = "the next boot does not know this document unless it is given again";
        console.alarm(&failure.help(help).lines());
        return false;
    }
    true
}

/// What the machine gives, and what of it is in the ESP.
fn given(
    ground: &mut Ground<'_>,
    home: &Path,
    policy: &Policy,
    first: bool,
) -> (Vec<Result<Given, String>>, Option<FromEsp>) {
    let console = ground.console;
    let may = |place| policy.takes_from(place);
    let mut given = Vec::new();
    if may(Place::Smbios) {
        let table = fs::read(smbios::TABLE).unwrap_or_default();
        given.extend(smbios::credentials(&table, CREDENTIAL));
    }
    if may(Place::FwCfg) {
        given.extend(fw_cfg::credential(console, CREDENTIAL));
    }
    let in_esp = may(Place::Esp).then(|| esp_document::document(console, ground.disk)).flatten();
    if may(Place::Medium) {
        media::wait(console, ground.loader, first && given.is_empty() && in_esp.is_none());
        given.extend(media::documents(&ground.disk.name));
    }
    // It is for many machines, so that a medium with a part for this one is waited for.
    given.extend(may(Place::Initramfs).then(built_in).flatten());
    let is_alone = given.is_empty();
    let bytes = in_esp.as_ref().and_then(|found| Some(found.as_ref().ok()?.bytes.clone()));
    // What was taken counts as the copy does, wherever documents may come from now.
    let taken = if in_esp.is_none() && !is_alone { taken(home) } else { None };
    given.extend(in_esp.into_iter().chain(taken));
    (given, bytes.map(|bytes| FromEsp { bytes, is_alone }))
}

/// Who may give a document, by the verified root. It says so where that is not everybody: an operator who puts one elsewhere
/// would wait for it.
fn read_policy(console: &Console) -> Policy {
    let policy = Policy::of_root(Path::new(ROOT)).unwrap_or_else(|failure| {
        console.alarm(&failure.help("no document is taken from anywhere").lines());
        Policy::closed()
    });
    if let Some(sources) = &policy.sources {
        let places: Vec<&str> = sources.iter().map(|place| place.name()).collect();
        let from = if places.is_empty() { "nowhere".to_owned() } else { places.join(", ") };
        console.say(&format!("this image takes node documents from: {from}"));
    }
    policy
}

/// The document that the image was built with, for machines that run it from memory.
fn built_in() -> Option<Result<Given, String>> {
    let source = format!("/{} of the initramfs", live::DOCUMENT);
    match fs::read(Path::new("/").join(live::DOCUMENT)) {
        Ok(bytes) => Some(Ok(Given { source, bytes })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => Some(Err(format!("{source}: {error}"))),
    }
}

/// What was taken from the ESP in an earlier boot.
fn taken(home: &Path) -> Option<Result<Given, String>> {
    let path = home.join(TAKEN);
    let source = shown(&path);
    match laying::kept(&path) {
        Ok(bytes) => Some(Ok(Given { source, bytes: bytes? })),
        Err(error) => Some(Err(format!("{source}: {error}"))),
    }
}

/// The copy of an earlier boot.
fn kept(home: &Path) -> Result<Option<Given>, Failure> {
    let path = home.join(laying::KEPT);
    let bytes = laying::kept(&path).doing(format!("reading {}", shown(&path)))?;
    Ok(bytes.map(|bytes| Given { source: shown(&path), bytes }))
}

/// Forgets a change of the network that nobody had confirmed when the node went down; says what is told of it.
fn forget_pending(console: &Console, home: &Path) -> Option<&'static str> {
    let path = home.join(laying::PENDING);
    let text = laying::kept(&path).ok().flatten();
    if let Err(error) = fs::remove_file(&path) {
        if error.kind() != io::ErrorKind::NotFound {
            console.warn(&format!("removing {}: {error}", shown(&path)));
        }
        return None;
    }
    // Power may have failed between the two steps of a confirmation.
    let is_kept = laying::kept(&home.join(laying::KEPT)).ok().flatten() == text;
    if is_kept {
        return None;
    }
    let why = "a change of the network was not confirmed before the node went down: it goes on as before";
    console.warn(why);
    Some(why)
}

/// A path as it will be on the running node.
fn shown(path: &Path) -> String {
    let text = path.to_string_lossy();
    text.strip_prefix(ROOT).unwrap_or(&text).to_owned()
}

fn tell(console: &Console, mut facts: serde_json::Value, given: Option<&String>, undone: Option<&str>) {
    facts["given"] = given.map(String::as_str).into();
    facts["undone"] = undone.into();
    let write = || -> io::Result<()> {
        fs::create_dir_all(Path::new(FACTS).parent().unwrap_or(Path::new("/run")))?;
        fs::write(FACTS, format!("{facts:#}\n"))
    };
    if let Err(failure) = write().doing(format!("writing {FACTS}")) {
        console.alarm(&failure.lines());
    }
}

impl Laid {
    fn note(&mut self, path: &str) {
        self.etc.extend(path.strip_prefix("/etc/").map(str::to_owned));
        self.units.extend(path.strip_prefix("/run/systemd/system/").map(str::to_owned));
    }

    /// Tells which of its files the node's own changes, in `upper`, cover.
    pub(super) fn tell_covered(&self, console: &Console, upper: &Path) {
        let units = "systemd/system/";
        for path in &self.units {
            // In /run a unit is covered by one of the same name in /etc, whoever made that.
            let in_etc = [upper, Path::new(LAYER), &Path::new(ROOT).join("etc")];
            if in_etc.iter().any(|etc| fs::symlink_metadata(etc.join(units).join(path)).is_ok()) {
                console.warn(&format!(
                    "node document: /etc/{units}{path} covers the document's /run/{units}{path}"
                ));
            }
        }
        for path in &self.etc {
            if fs::symlink_metadata(upper.join(path)).is_ok() {
                console.warn(&format!(
                    "node document: /etc/{path} was changed on this node, which covers the document's"
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_esp_had_beside_others_stays_a_part() {
        let home = tempfile::tempdir().unwrap();
        let part = |is_alone| FromEsp { bytes: b"node: 1\n".to_vec(), is_alone };
        assert_eq!(taken(home.path()), None);
        take(home.path(), &part(false)).unwrap();
        assert_eq!(taken(home.path()).unwrap().unwrap().bytes, b"node: 1\n");
        // A later one that is the whole needs no part.
        take(home.path(), &part(true)).unwrap();
        assert_eq!(taken(home.path()), None);
        take(home.path(), &part(true)).unwrap();
    }

    #[test]
    fn what_was_not_confirmed_is_forgotten() {
        let home = tempfile::tempdir().unwrap();
        let (kept, pending) = (home.path().join(laying::KEPT), home.path().join(laying::PENDING));
        let console = Console::open();
        assert_eq!(forget_pending(&console, home.path()), None);
        laying::keep(&kept, "node: 1\n").unwrap();
        laying::keep(&pending, "node: 1\nname: new\n").unwrap();
        assert!(forget_pending(&console, home.path()).is_some() && !pending.exists());
        assert_eq!(super::kept(home.path()).unwrap().unwrap().bytes, b"node: 1\n");
        // Power that fails in a confirmation: the copy is the new one already.
        laying::keep(&pending, "node: 1\n").unwrap();
        assert!(forget_pending(&console, home.path()).is_none() && !pending.exists());
    }
}
