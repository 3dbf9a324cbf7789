//! The root of the default image is what dpkg-deb says is in the packages, plus a list of edits.
//!
//! Two judges see the root: fsck.erofs, which extracts it anywhere, and the kernel, which mounts it where the
//! tests are root and alone shows setuid bits and extended attributes for certain. keller's own readers of
//! packages, trees and EROFS have no part in it.

mod edits;
mod folder;
mod packages;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::OnceLock;

use globset::{GlobBuilder, GlobMatcher};
use keller::lock::{Lock, file};
use keller::manifest::{self, ContainerImage, FileContent, FileEntry, Manifest, Overlay, OverlaySource};

use object::{Object, ObjectSection};

use self::edits::{Edit, Row};
use super::image;
use super::parts::{is_root, parts};
use crate::judges::tool::tool;

/// The container store in the root; below `overlay/*/diff` is what a container sees.
const STORE: &str = "usr/share/keller/containers/storage/overlay/";

/// What is at a path.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    /// As `ls -l` writes it.
    pub kind: char,
    /// Permissions, setuid, setgid and sticky.
    pub mode: u32,
    /// User and group.
    pub owner: (u64, u64),
    /// Seconds since 1970.
    pub mtime: i64,
    /// By full name.
    pub xattrs: BTreeMap<String, Vec<u8>>,
    /// Length and SHA-256 of a file, target of a link, numbers of a device.
    pub content: String,
    /// Who brought it, for messages.
    pub from: String,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, mode, owner: (user, group), mtime, xattrs, content, .. } = self;
        write!(f, "{kind} {mode:04o} {user}:{group} {mtime} {content} {xattrs:?}")
    }
}

/// Everything by path, without a leading slash; the root is the empty path.
pub type Contents = BTreeMap<String, Entry>;

/// What should be in the image: the packages with overlays and files laid over them, before any edit.
struct Expected {
    root: Contents,
    hello: Contents,
    prune: [Vec<GlobMatcher>; 2],
    keep: [Vec<GlobMatcher>; 2],
    /// The lock's time.
    epoch: i64,
}

fn expected() -> Option<&'static Expected> {
    static EXPECTED: OnceLock<Option<Expected>> = OnceLock::new();
    EXPECTED.get_or_init(expect).as_ref()
}

fn expect() -> Option<Expected> {
    tool("dpkg-deb")?;
    let manifest: Manifest =
        manifest::load_embedded(manifest::DEFAULT).unwrap_or_else(|errors| panic!("{errors}"));
    let path = image().with_file_name("node.lock");
    let lock: Lock = file::read(&path, &manifest.id).unwrap().expect("a lock beside the image");
    let [container] = &manifest.containers[..] else { panic!("expected one container") };
    let ContainerImage::Build(hello) = &container.image else { panic!("expected a built container") };

    let mut root = packages::read(&lock.packages);
    lay(&mut root, &manifest.recipe.overlays, &manifest.recipe.files, lock.epoch);
    let mut inner = packages::read(&lock.containers[&container.name]);
    lay(&mut inner, &hello.recipe.overlays, &hello.recipe.files, lock.epoch);
    let globs = |patterns: &[String]| patterns.iter().map(|pattern| glob(pattern)).collect();
    Some(Expected {
        root,
        hello: inner,
        prune: [globs(&manifest.recipe.prune), globs(&hello.recipe.prune)],
        keep: [globs(&manifest.recipe.keep), globs(&hello.recipe.keep)],
        epoch: lock.epoch,
    })
}

/// Lays the overlays of this checkout and the `files:` of a manifest over `contents`, exactly as they are.
fn lay(contents: &mut Contents, overlays: &[Overlay], files: &[FileEntry], epoch: i64) {
    let mut laid = Contents::new();
    for overlay in overlays {
        let OverlaySource::Embedded(name) = &overlay.source else { panic!("an overlay outside of keller") };
        for (path, entry) in folder::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("overlays").join(name))
        {
            // A checkout has the modes and owners that somebody's umask and account gave it.
            let mode = if entry.kind == 'd' || entry.mode & 0o100 != 0 { 0o755 } else { 0o644 };
            laid.insert(path, Entry { mode, from: format!("overlay {name}"), ..entry });
        }
    }
    for file in files {
        let FileContent::Text(text) = &file.content else { panic!("{} is no text", file.path) };
        let entry = Entry {
            kind: '-',
            mode: file.mode.unwrap_or(0o644).into(),
            content: folder::digest(text.as_bytes()),
            from: "files".to_owned(),
            ..folder::directory()
        };
        let path = file.path.trim_start_matches('/');
        for (at, _) in path.match_indices('/') {
            laid.entry(path[..at].to_owned()).or_insert_with(folder::directory);
        }
        laid.insert(path.to_owned(), entry);
    }
    for (path, entry) in laid {
        let entry = Entry { owner: (0, 0), mtime: epoch, ..entry };
        if entry.kind == 'd' {
            contents.entry(path).or_insert(entry);
        } else {
            contents.insert(path, entry);
        }
    }
}

fn glob(pattern: &str) -> GlobMatcher {
    let pattern = pattern.trim_start_matches('/');
    GlobBuilder::new(pattern)
        .literal_separator(true)
        .empty_alternates(true)
        .build()
        .unwrap()
        .compile_matcher()
}

/// Whether `path` or a folder above it matches.
fn matches(globs: &[GlobMatcher], path: &str) -> bool {
    Path::new(path).ancestors().any(|path| globs.iter().any(|glob| glob.is_match(path)))
}

/// Everything that is neither the same on both sides nor pruned nor in `rows`.
fn unexplained(
    expected: &Contents,
    actual: &Contents,
    (prune, keep): (&[GlobMatcher], &[GlobMatcher]),
    rows: &[Row],
) -> Vec<String> {
    let rows: Vec<_> = rows.iter().map(|(pattern, edit, _)| (glob(pattern), edit)).collect();
    let listed = |path: &str, is: &dyn Fn(&Edit) -> bool| {
        rows.iter().any(|(glob, edit)| glob.is_match(path) && is(edit))
    };
    let pruned = |path: &str| matches(prune, path) && !matches(keep, path);
    let empty = |path: &str| {
        let below = format!("{path}/");
        let mut children = expected.range(below.clone()..).take_while(|(path, _)| path.starts_with(&below));
        children.clone().next().is_some() && children.all(|(path, _)| !actual.contains_key(path))
    };
    let mut found = Vec::new();
    for (path, entry) in expected {
        let from = &entry.from;
        match actual.get(path) {
            None => {
                let emptied = entry.kind == 'd' && empty(path);
                if !emptied && !pruned(path) && !listed(path, &|edit| *edit == Edit::Removed) {
                    found.push(format!("/{path} is in {from}, but not in the image"));
                }
            }
            Some(_) if entry.kind != 'd' && pruned(path) && !from.starts_with("overlay") => {
                found.push(format!("/{path} of {from} should be pruned, but is in the image"));
            }
            Some(other) => {
                let fields = differing(entry, other);
                let allowed = |edit: &Edit| matches!(edit, Edit::Changed(names) if fields.iter().all(|field| names.contains(field)));
                if !fields.is_empty() && !listed(path, &allowed) {
                    found.push(format!(
                        "/{path} differs in {}: {entry}, in the image {other}",
                        fields.join(", ")
                    ));
                }
            }
        }
    }
    let added = actual.iter().filter(|(path, _)| !expected.contains_key(*path));
    let strangers = added.filter(|(path, _)| !listed(path, &|edit| *edit == Edit::Added));
    found.extend(
        strangers.map(|(path, entry)| format!("/{path} is in the image, but in no package: {entry}")),
    );
    found
}

fn differing(a: &Entry, b: &Entry) -> Vec<&'static str> {
    let fields = [
        ("type", a.kind != b.kind),
        ("mode", a.mode != b.mode),
        ("owner", a.owner != b.owner),
        ("mtime", a.mtime != b.mtime),
        ("xattrs", a.xattrs != b.xattrs),
        ("content", a.content != b.content),
    ];
    fields.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
}

/// Compares the root that a judge unfolds in `folder`; `sight` takes from both sides what it cannot see.
fn compare(folder: &Path, sight: impl Fn(&mut Entry)) {
    let Some(expected) = expected() else { return };
    let see = |contents: &Contents| -> Contents {
        contents
            .iter()
            .map(|(path, entry)| {
                let mut entry = entry.clone();
                sight(&mut entry);
                (path.clone(), entry)
            })
            .collect()
    };
    let actual = see(&folder::read(folder));
    // Nothing comes from a clock.
    let latest = actual.iter().find(|(_, entry)| entry.mtime > expected.epoch);
    assert!(latest.is_none(), "{} is later than the lock", latest.unwrap().0);
    let (mut root, mut hello) = (Contents::new(), Contents::new());
    for (path, entry) in actual {
        let inside = path.strip_prefix(STORE).and_then(|rest| rest.split_once("/diff"));
        match inside {
            Some((_, rest)) => drop(hello.insert(rest.trim_start_matches('/').to_owned(), entry)),
            None => drop(root.insert(path, entry)),
        }
    }
    assert!(root.len() > 3000 && hello.len() > 20, "{} and {} names", root.len(), hello.len());
    let [node_prune, hello_prune] = &expected.prune;
    let [node_keep, hello_keep] = &expected.keep;
    let mut found = unexplained(&see(&expected.root), &root, (node_prune, node_keep), edits::NODE);
    let inner = unexplained(&see(&expected.hello), &hello, (hello_prune, hello_keep), edits::CONTAINER);
    found.extend(inner.into_iter().map(|line| format!("container hello: {line}")));
    assert!(found.is_empty(), "{} differences that no edit explains:\n{}", found.len(), found.join("\n"));
}

#[test]
fn fsck_extracts_the_packages_and_the_listed_edits() {
    let Some(parts) = parts() else { return };
    let owners = is_root();
    if !owners {
        println!("SKIPPED: owners, which only root can extract");
    }
    compare(&parts.root_folder, |entry| {
        // erofs-utils 1.5 gives files away after their modes are set, which takes setuid and setgid from
        // them, and has no attributes and no times of folders.
        entry.mode &= if entry.kind == '-' { 0o1777 } else { 0o7777 };
        (entry.mtime, entry.xattrs) = (0, BTreeMap::new());
        if !owners {
            entry.owner = (0, 0);
        }
    });
}

#[test]
fn the_kernel_mounts_the_packages_and_the_listed_edits() {
    let Some(parts) = parts() else { return };
    let Some(mounted) = Mounted::new(&parts.root, &parts.folder.join("mounted")) else { return };
    compare(&mounted.folder, |_| ());
    let tree = mounted.folder.join("usr/sbin/unix_chkpwd");
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(tree).unwrap().permissions());
    assert_eq!(mode & 0o7777, 0o2755, "Debian's only file that is setgid and not pruned");
}

/// What is not in the root because it is on the ESP is there to the byte.
#[test]
fn kernel_and_boot_loader_are_those_of_the_packages() {
    let (Some(parts), Some(expected)) = (parts(), expected()) else { return };
    let packaged = |start: &str, end: &str| {
        let mut found =
            expected.root.iter().filter(|(path, _)| path.starts_with(start) && path.ends_with(end));
        found.next().unwrap_or_else(|| panic!("no package has {start}*{end}")).1.content.clone()
    };
    let esp = |path: &str| fs::read(parts.esp_folder.join(path)).unwrap();
    let loader = packaged("usr/lib/systemd/boot/efi/systemd-bootx64", ".efi");
    assert_eq!(folder::digest(&esp("EFI/BOOT/BOOTX64.EFI")), loader);
    assert_eq!(folder::digest(&esp("EFI/systemd/systemd-bootx64.efi")), loader);

    let uki = esp("EFI/Linux/node_1.0.0.efi");
    let uki = object::File::parse(&*uki).unwrap();
    let section = uki.section_by_name(".linux").expect("a section with the kernel").data().unwrap();
    let kernel = packaged("boot/vmlinuz-", "");
    let length: usize = kernel.split(' ').next().unwrap().parse().unwrap();
    let (found, padding) = section.split_at(length);
    assert_eq!(folder::digest(found), kernel);
    assert!(padding.iter().all(|byte| *byte == 0));
}

/// What packages have in /var comes back at the first boot: tmpfiles.d of the root has a line for each.
#[test]
fn the_root_makes_its_var() {
    let (Some(parts), Some(expected)) = (parts(), expected()) else { return };
    let mut lines: BTreeMap<String, String> = BTreeMap::new();
    for file in fs::read_dir(parts.root_folder.join("usr/lib/tmpfiles.d")).unwrap() {
        let text = fs::read_to_string(file.unwrap().path()).unwrap();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            if let Some(path) = line.split_whitespace().nth(1) {
                lines.insert(path.to_owned(), line.to_owned());
            }
        }
    }
    let missing = expected.root.iter().filter(|(path, entry)| {
        let path = format!("/{path}");
        path.starts_with("/var/") && !made(&lines, &path, entry)
    });
    let missing: Vec<_> =
        missing.map(|(path, entry)| format!("/{path} of {}: {entry}", entry.from)).collect();
    assert!(missing.is_empty(), "not made as packages have it:\n{}", missing.join("\n"));
}

/// Whether tmpfiles.d lines, by path, make `entry` at `path` as it was.
fn made(lines: &BTreeMap<String, String>, path: &str, entry: &Entry) -> bool {
    let Some(line) = lines.get(path) else {
        // systemd-tmpfiles makes the folders above what it makes.
        let below = format!("{path}/");
        return (entry.kind, entry.mode) == ('d', 0o755) && lines.keys().any(|path| path.starts_with(&below));
    };
    let words: Vec<&str> = line.split_whitespace().collect();
    let &[letter, _, mode, user, group, _, ref argument @ ..] = &words[..] else { return false };
    // A colon: only what is made now.
    let owner = |name: &str| match name.trim_start_matches(':') {
        "-" | "root" => Ok(0),
        number => number.parse(),
    };
    let made = match &letter[..1] {
        // systemd has its own mind of these two, whatever a package says.
        "L" if ["/var/lock", "/var/run"].contains(&path) => return true,
        "L" => 'l',
        "C" => '-',
        "d" | "D" | "q" | "Q" | "v" | "V" => 'd',
        _ => return false,
    };
    if made == 'l' {
        return entry.kind == 'l' && argument == [entry.content.as_str()];
    }
    let mode = if mode == "-" { Ok(0o755) } else { u32::from_str_radix(mode.trim_start_matches(':'), 8) };
    (made, mode, owner(user), owner(group))
        == (entry.kind, Ok(entry.mode), Ok(entry.owner.0), Ok(entry.owner.1))
}

/// A file system that the kernel mounts for as long as this value lives, in a mount namespace of its own:
/// whatever happens to the test, nothing stays mounted.
struct Mounted {
    child: Child,
    folder: std::path::PathBuf,
}

impl Mounted {
    fn new(image: &Path, place: &Path) -> Option<Self> {
        if !is_root() {
            println!("SKIPPED: only root can mount");
            return None;
        }
        fs::create_dir_all(place).unwrap();
        let script = "mount -t erofs -o ro,loop \"$1\" \"$2\" && echo mounted && read -r line";
        let mut unshare = tool("unshare")?;
        unshare.args(["--mount", "sh", "-c", script, "sh"]).arg(image).arg(place);
        let mut child = unshare.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let folder = Path::new("/proc")
            .join(child.id().to_string())
            .join("root")
            .join(place.strip_prefix("/").unwrap());
        let mounted = Self { child, folder };
        if line.trim() != "mounted" {
            println!("SKIPPED: this kernel mounts no EROFS");
            return None;
        }
        Some(mounted)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
