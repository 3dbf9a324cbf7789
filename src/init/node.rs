//! The node document: which one counts, its copy on the state partition, and the files that follow from it.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use super::chroot::ROOT;
use super::console::Console;
use super::disks::BootDisk;
use super::given::{Decided, Given, decide};
use super::modules::Loader;
use super::{cards, esp_document, fw_cfg, media, smbios, state};
use crate::base::AtomicFile;
use crate::base::failure::{Doing, Failure};
use crate::node::{CLOSED, CREDENTIAL, FACTS, Image, Item, Kind, LARGEST, Rendered, facts, render};

/// The copy, below [`state::HOME`].
const KEPT: &str = "node/node.yaml";
/// What a document has in /etc: a layer between the root's and the node's changes.
const LAYER: &str = "/run/keller/node/etc";

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
    let given = given(ground, kept.is_none());
    let decided = decide(given, kept, cards::machine(), &|documents| cards::find(console, documents));
    apply(ground, home, &decided)
}

fn apply(ground: &Ground<'_>, home: &Path, decided: &Decided) -> Laid {
    let console = ground.console;
    if !decided.refused.is_empty() {
        let goes_on = match &decided.document {
            Some((_, source)) => format!("the node goes on with {source}"),
            None => "the node starts without one".to_owned(),
        };
        let head = format!("a node document is refused, and nothing of it is applied; {goes_on}");
        console.alarm(&[vec![head], decided.refused.clone()].concat());
    }
    let Some((document, source)) = &decided.document else {
        if !decided.refused.is_empty() {
            tell(console, &facts(None, "none", Some(&decided.refused)));
        }
        return Laid::default();
    };
    let is_kept = !decided.is_new || keep_told(console, home, &document.text);
    if decided.is_given && is_kept && ground.lasts {
        esp_document::hand_over(console, ground.disk);
    }
    let Rendered { items, warnings } = render(document, &Root);
    warnings.iter().for_each(|warning| console.warn(&format!("node document: {warning}")));
    let mut laid = Laid::default();
    for item in &items {
        match lay(item) {
            Ok(()) => laid.note(&item.path),
            Err(failure) => console.alarm(&failure.lines()),
        }
    }
    let refused = (!decided.refused.is_empty()).then_some(decided.refused.as_slice());
    tell(console, &facts(Some(document), source, refused));
    let name = document.name.as_deref().map(|name| format!(", {name}")).unwrap_or_default();
    console.say(&format!("node document from {source}{name}: {} files", items.len()));
    laid
}

/// As [`keep`]; tells what went wrong.
fn keep_told(console: &Console, home: &Path, text: &str) -> bool {
    let kept = keep(home, text);
    if let Err(failure) = kept {
        let help = "the next boot does not know this document unless it is given again";
        console.alarm(&failure.help(help).lines());
        return false;
    }
    true
}

/// What the machine gives.
fn given(ground: &mut Ground<'_>, first: bool) -> Vec<Result<Given, String>> {
    let console = ground.console;
    let table = fs::read(smbios::TABLE).unwrap_or_default();
    let mut given = smbios::credentials(&table, CREDENTIAL);
    given.extend(fw_cfg::credential(console, CREDENTIAL));
    given.extend(esp_document::document(console, ground.disk));
    media::wait(console, ground.loader, first && given.is_empty());
    given.extend(media::documents(&ground.disk.name));
    given
}

/// The copy of an earlier boot.
fn kept(home: &Path) -> Result<Option<Given>, Failure> {
    let path = home.join(KEPT);
    let doing = || format!("reading {}", shown(&path));
    let is_regular = match fs::symlink_metadata(&path) {
        Ok(found) => found.is_file() && found.len() <= LARGEST,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Failure::new(doing(), error)),
    };
    if !is_regular {
        return Err(Failure::new(doing(), "it is not a file of a document's size"));
    }
    let bytes = fs::read(&path).doing(doing())?;
    Ok(Some(Given { source: shown(&path), bytes }))
}

/// A path as it will be on the running node.
fn shown(path: &Path) -> String {
    let text = path.to_string_lossy();
    text.strip_prefix(ROOT).unwrap_or(&text).to_owned()
}

/// Keeps the text for boots to which nothing is given. Once this is done, it is on the disk.
fn keep(home: &Path, text: &str) -> Result<(), Failure> {
    let path = home.join(KEPT);
    let doing = || format!("writing {}", shown(&path));
    let directory = path.parent().unwrap_or(home);
    let write = || -> io::Result<()> {
        fs::create_dir_all(directory)?;
        fs::set_permissions(directory, Permissions::from_mode(0o700))?;
        let mut file = AtomicFile::create(&path)?;
        file.set_mode(0o600)?;
        file.file_mut().write_all(text.as_bytes())?;
        file.commit()?;
        fs::File::open(directory)?.sync_all()?;
        // The directories above are as new as this one, at a first boot.
        Ok(rustix::fs::syncfs(fs::File::open(home)?)?)
    };
    write().doing(doing())
}

/// Where an item is written before the node has its /etc, and the directory of the root that its own lies over.
fn place(path: &str) -> PathBuf {
    match path.strip_prefix("/etc/") {
        Some(rest) => Path::new(LAYER).join(rest),
        None => PathBuf::from(path),
    }
}

fn lay(item: &Item) -> Result<(), Failure> {
    let doing = || format!("making {} of the node document", item.path);
    let place = place(&item.path);
    let write = || -> io::Result<()> {
        directories(&item.path)?;
        if fs::symlink_metadata(&place).is_ok_and(|found| !found.is_dir()) {
            fs::remove_file(&place)?;
        }
        match &item.kind {
            Kind::Link(target) => symlink(target, &place),
            Kind::File(bytes, mode) => {
                let mut options = fs::OpenOptions::new();
                let mut file = options.write(true).create_new(true).mode(0o600).open(&place)?;
                file.write_all(&bytes.0)?;
                file.set_permissions(Permissions::from_mode(u32::from(*mode)))
            }
        }
    };
    write().doing(doing())
}

/// Makes the directories above `path`. A layer's directory hides the mode and the owner of the one that it lies over,
/// so that it gets them.
fn directories(path: &str) -> io::Result<()> {
    let mut above = String::new();
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    for part in &parts[..parts.len().saturating_sub(1)] {
        above = format!("{above}/{part}");
        let here = if above == "/etc" { PathBuf::from(LAYER) } else { place(&above) };
        if fs::symlink_metadata(&here).is_ok_and(|found| found.is_dir()) {
            continue;
        }
        fs::create_dir_all(&here)?;
        let mode = if CLOSED.contains(&above.as_str()) { 0o700 } else { 0o755 };
        fs::set_permissions(&here, Permissions::from_mode(mode))?;
        if !above.starts_with("/etc") {
            continue;
        }
        match fs::symlink_metadata(format!("{ROOT}{above}")) {
            Ok(below) if below.is_dir() => {
                chown(&here, Some(below.uid()), Some(below.gid()))?;
                fs::set_permissions(&here, Permissions::from_mode(below.mode() & 0o7777))?;
            }
            Ok(_) => {
                fs::remove_dir(&here)?;
                return Err(io::Error::other(format!("{above} of this image is not a directory")));
            }
            Err(_) => {}
        }
    }
    Ok(())
}

fn tell(console: &Console, facts: &serde_json::Value) {
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

    /// The layer of /etc, if there is anything in it.
    pub(super) fn layer(&self) -> Option<&'static str> {
        (!self.etc.is_empty()).then_some(LAYER)
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
    fn the_copy_is_for_root_alone() {
        let home = tempfile::tempdir().unwrap();
        assert_eq!(kept(home.path()).unwrap(), None);
        keep(home.path(), "node: 1\n").unwrap();
        keep(home.path(), "node: 1\nname: two\n").unwrap();
        let path = home.path().join(KEPT);
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert_eq!(kept(home.path()).unwrap().unwrap().bytes, b"node: 1\nname: two\n");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        // What is no file is told, and not waited for.
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(kept(home.path()).is_err());
    }
}
