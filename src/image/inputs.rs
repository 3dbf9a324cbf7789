//! Overlays, single files and local archives: what stands beside the manifest.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};

use super::job::Means;
use crate::base::capabilities::{ATTRIBUTE, Capabilities};
use crate::base::{Digest, Progress, input, limits};
use crate::lock::{Facts, LockedFile};
use crate::manifest::{self, FileContent, FileEntry, OverlaySource, embedded};
use crate::rootfs::Accounts;
use crate::rootfs::tmpfiles::owners;
use crate::store::Checked;
use crate::tree::from_folder::{EXECUTE, META, Overlay, READ_BY_ALL, SPECIAL};
use crate::tree::{Content, FILES_ORIGIN, Kind, Meta, NodeId, OVERLAY_ORIGIN, Tree, show_line};

/// What becomes of a file that had been brought into the store.
pub(super) const GONE: &str =
    "not in the store any more: `keller store gc` or another program has removed it, so run it again";

/// An overlay in a root.
pub struct LaidOverlay {
    overlay: Overlay,
    /// What its `.meta` is about.
    nodes: BTreeMap<Vec<u8>, NodeId>,
}

/// What has the mode, owner and capabilities that the manifest or an overlay gives it.
pub struct Owned(Vec<(Vec<u8>, char, Meta)>);

impl Owned {
    fn note(&mut self, tree: &Tree, path: &[u8], id: NodeId) {
        let node = tree.node(id);
        self.0.push((path.to_vec(), node.kind.letter(), node.meta.clone()));
    }

    /// Makes it hold at boot too, against lines of tmpfiles.d that packages bring.
    ///
    /// # Errors
    /// Of the tree.
    pub fn outlast(&self, tree: &mut Tree) -> Result<()> {
        let said = self.0.iter().filter(|(_, kind, _)| *kind != 'l').map(|(path, _, meta)| {
            let path = path.strip_prefix(b"/").unwrap_or(path);
            ([b"/", path].concat(), (meta.mode, meta.uid, meta.gid))
        });
        Ok(owners::user_first(tree, &said.collect())?)
    }

    /// Says it again of what is at its path still: lines of tmpfiles.d are about packages' files.
    pub fn again(&self, tree: &mut Tree) {
        for (path, kind, said) in &self.0 {
            let there = if *kind == 'd' { tree.resolve(path).ok() } else { tree.lookup(path) };
            let Some(id) = there.filter(|id| tree.node(*id).kind.letter() == *kind) else { continue };
            let meta = &mut tree.node_mut(id).meta;
            (meta.mode, meta.uid, meta.gid) = (said.mode, said.uid, said.gid);
            match said.xattrs.get(ATTRIBUTE) {
                Some(value) => meta.xattrs.insert(ATTRIBUTE.to_vec(), value.clone()),
                None => meta.xattrs.remove(ATTRIBUTE),
            };
        }
    }
}

/// Lays overlays over `tree`, in order, and notes their digests in `local` under `scope`.
pub fn overlays(
    tree: &mut Tree,
    overlays: &[manifest::Overlay],
    scope: &str,
    local: &mut BTreeMap<String, Digest>,
    progress: &dyn Progress,
) -> Result<Vec<LaidOverlay>> {
    let mut laid = Vec::new();
    for asked in overlays {
        let name = name(&asked.source);
        let overlay = match &asked.source {
            OverlaySource::Folder(folder) => Overlay::from_folder(folder, &name, tree.epoch),
            OverlaySource::Embedded(embedded) => {
                let files: Vec<_> = embedded::overlay(embedded)
                    .map(|(path, file)| (path, file.bytes, file.executable))
                    .collect();
                Overlay::from_embedded(&files, &name, tree.epoch)
            }
        };
        let overlay = overlay.with_context(|| format!("reading {name}"))?;
        told(&overlay, &name, progress);
        let digest = overlay.digest().with_context(|| format!("reading {name}"))?;
        local.insert(free(format!("{scope}{name}"), local), digest);
        tree.merge(&overlay.tree, asked.replace).with_context(|| {
            format!("laying {name} over the root (`replace: true` on an overlay lets it replace files)")
        })?;
        let nodes = overlay.laid(tree).with_context(|| format!("laying {name} over the root"))?;
        laid.push(LaidOverlay { overlay, nodes });
    }
    Ok(laid)
}

/// Says what of an overlay's directory is not as it is on disk.
fn told(overlay: &Overlay, name: &str, progress: &dyn Progress) {
    if let [(first, mode), others @ ..] = &overlay.left_out[..] {
        let (first, more) = (show_line(first), and_more(others.len()));
        progress.note(&format!(
            "{name}: {first}{more} is left out, as what other programs leave; a line in {META} takes it along: \
             `{first} {mode:04o} root root`"
        ));
    }
    if let [(first, mode), others @ ..] = &overlay.opened[..] {
        let (first, more) = (show_line(first), and_more(others.len()));
        progress.note(&format!(
            "{name}: modes on disk do not count, and {first}{more}, which has {mode:04o}, will be open to all on a \
             node; a line in {META} says what it is to have: `{first} {mode:04o} root root`"
        ));
    }
}

fn and_more(count: usize) -> String {
    if count == 0 { String::new() } else { format!(" (and {count} more)") }
}

/// What an overlay is called in messages and in the lock: never by a path of this machine.
fn name(source: &OverlaySource) -> String {
    match source {
        OverlaySource::Folder(folder) => {
            format!("{OVERLAY_ORIGIN}{}", folder.file_name().unwrap_or_default().to_string_lossy())
        }
        OverlaySource::Embedded(name) => format!("{OVERLAY_ORIGIN}{name}"),
    }
}

/// `name`, or the first of `name (2)`, `name (3)` and so on that `local` does not have: folders may lie in
/// different places under one name, and each must stand in the lock.
fn free(name: String, local: &BTreeMap<String, Digest>) -> String {
    let numbered = (2..).map(|number| format!("{name} ({number})"));
    std::iter::once(name.clone()).chain(numbered).find(|name| !local.contains_key(name)).unwrap_or_default()
}

/// A file beside the manifest: in memory if it is small; see [`Content::foreign`].
fn content(path: &Path) -> std::io::Result<Content> {
    match input::read(path, limits::SMALL_FILE) {
        Err(error) if error.kind() == std::io::ErrorKind::FileTooLarge => Content::foreign(path),
        read => Ok(read?.into()),
    }
}

/// Puts the entries of `files:` into `tree`, and gives the node of each; notes digests in `facts` under `scope`; owners are set later by [`own`].
pub fn files(
    tree: &mut Tree,
    entries: &[FileEntry],
    scope: &str,
    facts: &mut Facts,
    means: &Means<'_>,
) -> Result<Vec<NodeId>> {
    let origin = tree.origin(FILES_ORIGIN);
    let mut nodes = Vec::new();
    for entry in entries {
        if matches!(entry.content, FileContent::Existing) {
            nodes.push(change(tree, entry)?);
            continue;
        }
        if !entry.replace
            && let Some(id) = tree.lookup(&entry.path)
            && !(matches!(entry.content, FileContent::Directory)
                && matches!(tree.node(id).kind, Kind::Directory(_)))
        {
            let owner = tree.origin_name(tree.node(id).origin);
            bail!("files: {} is in {owner} already; `replace: true` replaces it", entry.path);
        }
        let kind = match &entry.content {
            FileContent::Text(text) => Kind::File(text.clone().into()),
            FileContent::Source(path) => {
                let content = content(path).with_context(|| format!("reading {}", path.display()))?;
                if entry.mode.is_none() {
                    tell_mode(path, entry, means.progress)?;
                }
                let digest = content.digest().with_context(|| format!("reading {}", path.display()))?;
                facts.local.insert(format!("{scope}file {}", entry.path), digest);
                Kind::File(content)
            }
            FileContent::Url { sha256, .. } => {
                let file = match means.store.open_verified(sha256)? {
                    Checked::Good(file) => file,
                    Checked::Missing => bail!("{} is {GONE}", entry.path),
                    Checked::Rotten { moved_to, .. } => bail!(
                        "{} has changed on the disk since it was fetched; it was moved to {}, and has to be \
                         fetched anew",
                        entry.path,
                        moved_to.display()
                    ),
                };
                let len = file.len();
                facts
                    .files
                    .insert(format!("{scope}{}", entry.path), LockedFile { size: len, sha256: *sha256 });
                Kind::File(Content::Sealed { file: Arc::new(file), offset: 0, len })
            }
            FileContent::Link(target) => Kind::Symlink(target.clone().into_bytes()),
            FileContent::Directory => Kind::Directory(BTreeMap::new()),
            FileContent::Existing => continue,
        };
        let usual = match kind {
            Kind::Directory(_) => 0o755,
            Kind::Symlink(_) => 0o777,
            _ => 0o644,
        };
        let mut meta = Meta::new(entry.mode.unwrap_or(usual)).at(tree.epoch);
        give(&mut meta, &entry.capabilities)?;
        let put = tree.put(&entry.path, meta, kind, origin);
        nodes.push(put.with_context(|| format!("files: {}", entry.path))?);
    }
    Ok(nodes)
}

/// Says when a source without a `mode` has one on disk that does not count.
fn tell_mode(source: &Path, entry: &FileEntry, progress: &dyn Progress) -> Result<()> {
    let metadata = fs::metadata(source).with_context(|| format!("reading {}", source.display()))?;
    let on_disk = (metadata.permissions().mode() & 0o7777) as u16;
    let becomes = match on_disk {
        mode if mode & READ_BY_ALL == 0 => "will be open to all on a node",
        mode if mode & (SPECIAL | EXECUTE) != 0 => "will be a plain file on a node",
        _ => return Ok(()),
    };
    progress.note(&format!(
        "files: modes on disk do not count, and {}, whose source has {on_disk:04o}, {becomes} with 0644; `mode: \
         \"{on_disk:04o}\"` says what it is to have",
        entry.path
    ));
    Ok(())
}

/// Changes mode and capabilities of what a package or an overlay has.
fn change(tree: &mut Tree, entry: &FileEntry) -> Result<NodeId> {
    let Some(id) = tree.lookup(&entry.path) else {
        bail!(
            "files: no package and no overlay has {}, of which only mode, owner or capabilities are said; one of \
             `content`, `source`, `url`, `link` and `directory` makes it",
            entry.path
        );
    };
    let node = tree.node_mut(id);
    match node.kind {
        Kind::Symlink(_) => bail!("files: {} is a link; name what it leads to", entry.path),
        Kind::File(_) => {}
        _ if !entry.capabilities.is_empty() => {
            bail!("files: {} is not a file to have capabilities", entry.path)
        }
        _ => {}
    }
    node.meta.mode = entry.mode.unwrap_or(node.meta.mode);
    give(&mut node.meta, &entry.capabilities)?;
    Ok(id)
}

/// Gives a file capabilities, if there are any.
fn give(meta: &mut Meta, clauses: &[String]) -> Result<()> {
    if !clauses.is_empty() {
        let capabilities = Capabilities::parse(clauses.iter().map(String::as_str))?;
        meta.xattrs.insert(ATTRIBUTE.to_vec(), capabilities.to_bytes());
    }
    Ok(())
}

/// Gives overlays the owners that they name by number: lines of sysusers.d may go by them. `files` names accounts only.
pub fn own_numbers(tree: &mut Tree, overlays: &[LaidOverlay]) {
    for LaidOverlay { overlay, nodes } in overlays {
        overlay.own_numbers(tree, nodes);
    }
}

/// Gives overlays and files, in this order, the modes, owners and capabilities that they name, once names
/// have numbers. `nodes` are those of `entries`; what has replaced one keeps its own.
pub fn own(
    tree: &mut Tree,
    entries: &[FileEntry],
    nodes: &[NodeId],
    overlays: &[LaidOverlay],
    accounts: &Accounts,
) -> Result<Owned> {
    let user = |name: &str| accounts.users.get(name).map(|(uid, ..)| *uid);
    let group = |name: &str| accounts.groups.get(name).map(|(gid, _)| *gid);
    let mut owned = Owned(Vec::new());
    for LaidOverlay { overlay, nodes } in overlays {
        for (path, id) in overlay.own(tree, nodes, &user, &group)? {
            owned.note(tree, &path, id);
        }
    }
    for (entry, id) in entries.iter().zip(nodes) {
        match tree.lookup(&entry.path) {
            Some(there) if there == *id => {}
            Some(_) => continue,
            None => bail!("files: {} is gone, since another entry has replaced what is above it", entry.path),
        }
        let number = |what: &str, name: &str, known: &dyn Fn(&str) -> Option<u32>| {
            name.parse().ok().or_else(|| known(name)).with_context(|| {
                format!("files: {} belongs to {what} {name}, whom the image does not know", entry.path)
            })
        };
        let uid = entry.owner.as_ref().map(|name| number("user", name, &user)).transpose()?;
        let gid = entry.group.as_ref().map(|name| number("group", name, &group)).transpose()?;
        let meta = &mut tree.node_mut(*id).meta;
        (meta.uid, meta.gid) = (uid.unwrap_or(meta.uid), gid.unwrap_or(meta.gid));
        meta.mode = entry.mode.unwrap_or(meta.mode);
        give(meta, &entry.capabilities)?;
        owned.note(tree, entry.path.as_bytes(), *id);
    }
    Ok(owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::progress::Silent;
    use crate::image::Settings;
    use crate::rootfs::users::Class;
    use crate::store::Store;

    #[test]
    fn two_overlays_of_one_name_both_count() {
        let folder = tempfile::tempdir().unwrap();
        let overlay = |parent: &str, text: &str| {
            let source = folder.path().join(parent).join("overlay");
            fs::create_dir_all(source.join("etc")).unwrap();
            fs::write(source.join("etc").join(parent), text).unwrap();
            manifest::Overlay { source: OverlaySource::Folder(source), replace: false }
        };
        let digests = |text: &str| {
            let mut local = BTreeMap::new();
            let laid = [overlay("a", text), overlay("b", "b")];
            overlays(&mut Tree::new(0), &laid, "", &mut local, &Silent).unwrap();
            local
        };
        let (before, after) = (digests("a"), digests("changed"));
        assert_eq!(before.keys().collect::<Vec<_>>(), ["overlay overlay", "overlay overlay (2)"]);
        assert_ne!(before["overlay overlay"], after["overlay overlay"]);
        assert_eq!(before["overlay overlay (2)"], after["overlay overlay (2)"]);
    }

    #[test]
    fn a_download_that_rotted_does_not_get_in() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let sha256 = store.import("body").unwrap();
        let entry = |path: &str| FileEntry {
            path: path.to_owned(),
            content: FileContent::Url { url: "http://mirror.example/x".to_owned(), sha256 },
            mode: None,
            owner: None,
            group: None,
            capabilities: Vec::new(),
            replace: false,
        };
        let mut tree = Tree::new(0);
        let means = Means { store: &store, settings: Settings::default(), progress: &Silent };
        let mut facts = Facts::default();
        files(&mut tree, &[entry("/x")], "", &mut facts, &means).unwrap();
        let blob = store.blobs().unwrap().remove(0).path;
        fs::write(&blob, "bodY").unwrap();
        let error = files(&mut tree, &[entry("/y")], "", &mut facts, &means).unwrap_err().to_string();
        assert!(error.starts_with("/y has changed on the disk") && !blob.exists(), "{error}");
    }
    #[test]
    fn what_a_package_has_is_changed() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let means = Means { store: &store, settings: Settings::default(), progress: &Silent };
        let mut facts = Facts::default();
        let entry = |path: &str| FileEntry {
            path: path.to_owned(),
            content: FileContent::Existing,
            mode: None,
            owner: None,
            group: Some("shared".to_owned()),
            capabilities: vec!["cap_net_raw+ep".to_owned()],
            replace: false,
        };
        let mut tree = Tree::new(0);
        let id = tree.file("usr/bin/ping", 0o755, "ping").unwrap();
        tree.node_mut(id).meta.uid = 7;
        tree.symlink("usr/bin/ping4", "ping").unwrap();
        let entries = [entry("/usr/bin/ping")];
        let nodes = files(&mut tree, &entries, "", &mut facts, &means).unwrap();
        let mut accounts = Accounts::default();
        accounts.groups.insert("shared".to_owned(), (200, Class::System));
        own(&mut tree, &entries, &nodes, &[], &accounts).unwrap();
        let meta = &tree.node(id).meta;
        assert_eq!((meta.mode, meta.uid, meta.gid, meta.xattrs[ATTRIBUTE].len()), (0o755, 7, 200, 20));
        let root = FileEntry { capabilities: Vec::new(), mode: Some(0o711), ..entry("/") };
        let nodes = files(&mut tree, std::slice::from_ref(&root), "", &mut facts, &means).unwrap();
        own(&mut tree, &[root], &nodes, &[], &accounts).unwrap();
        let meta = &tree.node(tree.root()).meta;
        assert_eq!((meta.mode, meta.gid), (0o711, 200));
        let mut refused =
            |path| files(&mut tree, &[entry(path)], "", &mut facts, &means).unwrap_err().to_string();
        assert!(refused("/usr/bin/pong").contains("no package and no overlay has /usr/bin/pong"));
        assert!(refused("/usr/bin/ping4").contains("is a link"));
        assert!(refused("/usr/bin").contains("is not a file"));
    }
}
