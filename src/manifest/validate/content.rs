//! Overlays and single files.

use super::recipe::Target;
use super::{At, Firsts, Kind, Location, Mark, Validator, or, text, unique};
use crate::base::Digest;
use crate::base::capabilities::{Capabilities, CapabilityError};
use crate::manifest::raw::{RawFile, RawOverlay};
use crate::manifest::{FileContent, FileEntry, Overlay, OverlaySource};
use crate::written::decode::Short;

/// On the state partition: what an image has there is made at the first boot, and belongs to the node from then on.
const STATE: [&str; 4] = ["/var", "/home", "/root", "/srv"];
/// Links to the state partition themselves; what an image has in them is read in the verified root.
const SHIPPED: [&str; 2] = ["/opt", "/usr/local"];
/// Where nothing of the image is seen at run time, and what is there instead.
const COVERED: [(&str, &str); 4] = [
    ("/proc", "the kernel's"),
    ("/sys", "the kernel's"),
    ("/dev", "the kernel's"),
    ("/run", "empty at each boot"),
];

/// Why a node would not have the file at `path` as the image has it, and the way out. Of what is on the state partition a
/// manifest can make directories, and say whose things are: that a node has for ever.
fn covered(path: &str, content: Option<&FileContent>) -> Option<(String, &'static str)> {
    let inside = |folder: &&str| {
        path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let lasts = matches!(content, Some(FileContent::Directory | FileContent::Existing));
    if let Some(folder) = STATE.iter().find(|folder| inside(folder)) {
        if lasts && *folder != path {
            return None;
        }
        return Some((
            format!("on the node, {folder} is on the state partition: no update would change this file"),
            "an overlay can ship it for the first boot, and so can a file in /usr/lib/tmpfiles.d (tmpfiles.d(5))",
        ));
    }
    if let Some(folder) = SHIPPED.iter().find(|folder| **folder == path) {
        let problem =
            format!("on the node, {folder} is a link to the state partition: this would not be seen");
        return Some((problem, "name what is in it"));
    }
    let (folder, what) = COVERED.iter().find(|(folder, _)| inside(folder))?;
    Some((
        format!("on the node, {folder} is {what}: this file would not be seen"),
        "let a file in /usr/lib/tmpfiles.d make it at boot (tmpfiles.d(5))",
    ))
}

impl Validator<'_> {
    pub(super) fn overlays(&mut self, items: Vec<At<Short<RawOverlay>>>) -> Vec<Overlay> {
        let overlays = items.into_iter().filter_map(|item| {
            let (path, replace) = match item.value {
                Short::Text(value) => (At { value, mark: item.mark }, false),
                Short::Long(raw) => (raw.path, or(raw.replace, false)),
            };
            let source = match self.beside(&path, &[Kind::Folder])?.identity() {
                Location::Disk(folder) => OverlaySource::Folder(folder),
                Location::Embedded(inside) => match inside.strip_prefix("overlays/") {
                    Some(name) if !name.contains('/') => OverlaySource::Embedded(name.to_owned()),
                    _ => {
                        self.error(path.mark, format!("keller:{inside} is not an overlay"))
                            .help("such as `keller:overlays/base`");
                        return None;
                    }
                },
            };
            Some(Overlay { source, replace })
        });
        unique(overlays.collect())
    }

    /// Files of a tree; of a node's, none is where the state partition covers it.
    pub(super) fn files(&mut self, items: Vec<At<RawFile>>, target: Target) -> Vec<FileEntry> {
        let node = target == Target::Node;
        let mut paths = Firsts::new();
        let mut files = Vec::new();
        for At { value: raw, mark } in items {
            let path_mark = raw.path.mark;
            if let Some(first) = paths.note(raw.path.value.clone(), path_mark) {
                self.error(path_mark, format!("`{}` stands here a second time", raw.path.value))
                    .related(first, "the first is here");
            }
            let content = self.content(&raw, At { value: (), mark });
            if let Some((problem, help)) = covered(&raw.path.value, content.as_ref()).filter(|_| node) {
                self.error(path_mark, problem).help(help);
            }
            let mode = raw.mode.and_then(|at| self.form(&at, text::mode));
            let usual = match content {
                Some(FileContent::Existing) => None,
                _ => Some("root".to_owned()),
            };
            let owner = raw.owner.map_or(usual.clone(), |at| self.checked(at, text::system_account));
            let group = raw.group.map_or(usual, |at| self.checked(at, text::system_account));
            let capabilities = self.capabilities(raw.capabilities, content.as_ref());
            let path = self.checked(raw.path, text::absolute);
            if let (Some(path), Some(content)) = (path, content) {
                let replace = or(raw.replace, false);
                files.push(FileEntry { path, content, mode, owner, group, capabilities, replace });
            }
        }
        files
    }

    fn capabilities(&mut self, clauses: Vec<At<String>>, content: Option<&FileContent>) -> Vec<String> {
        if let (Some(first), Some(FileContent::Link(_) | FileContent::Directory)) = (clauses.first(), content)
        {
            self.error(first.mark, "only a file has capabilities").help("name the program itself");
        }
        for (at, error) in unfit(&clauses) {
            self.error(at, error.to_string()).help("such as `cap_net_raw+ep`: capabilities(7)");
        }
        clauses.into_iter().map(|clause| clause.value).collect()
    }

    fn content(&mut self, raw: &RawFile, whole: At<()>) -> Option<FileContent> {
        let directory = raw.directory.as_ref().filter(|at| at.value);
        let mut said: Vec<_> = [&raw.content, &raw.source, &raw.url, &raw.link]
            .into_iter()
            .flatten()
            .map(|at| at.mark)
            .chain(directory.map(|at| at.mark))
            .collect();
        said.sort();
        match said[..] {
            [] if raw.mode.is_some()
                || raw.owner.is_some()
                || raw.group.is_some()
                || !raw.capabilities.is_empty() =>
            {
                self.existing(raw);
                return Some(FileContent::Existing);
            }
            [] => {
                self.error(whole.mark, "this entry does not say what is there")
                    .help("one of `content`, `source`, `url`, `link` or `directory: true`");
                return None;
            }
            [_] => {}
            [first, second, ..] => {
                self.error(second, "this entry says twice what is there")
                    .help("only one of `content`, `source`, `url`, `link` and `directory`")
                    .related(first, "the first is here");
                return None;
            }
        }
        if let Some(sha256) = raw.sha256.as_ref().filter(|_| raw.url.is_none()) {
            self.error(sha256.mark, "`sha256` goes with `url` only")
                .help("the lock records the digests of local files");
        }
        if let Some(mode) = raw.mode.as_ref().filter(|_| raw.link.is_some()) {
            self.error(mode.mark, "a link has no mode").help("remove `mode`");
        }
        if let Some(text) = &raw.content {
            return Some(FileContent::Text(text.value.clone()));
        }
        if let Some(source) = &raw.source {
            return self.beside_on_disk(source, &[Kind::File]).map(FileContent::Source);
        }
        if let Some(url) = &raw.url {
            let address = self.checked(url.clone(), |text| text::url(text, &["http", "https", "file"]));
            let Some(sha256) = &raw.sha256 else {
                self.error(url.mark, "this address has no `sha256`")
                    .help("add `sha256: …` with the digest of what it must give");
                return None;
            };
            let digest = match sha256.value.parse::<Digest>() {
                Ok(digest) => Some(digest),
                Err(_) => {
                    self.error(sha256.mark, "this is not a SHA-256 digest")
                        .help("64 hexadecimal digits, as sha256sum prints them");
                    None
                }
            };
            return Some(FileContent::Url { url: address?, sha256: digest? });
        }
        if let Some(link) = &raw.link {
            if link.value.is_empty() {
                self.error(link.mark, "the link has no target");
            }
            return Some(FileContent::Link(link.value.clone()));
        }
        Some(FileContent::Directory)
    }

    /// Refuses what has no effect on a file that only changes.
    fn existing(&mut self, raw: &RawFile) {
        if let Some(sha256) = &raw.sha256 {
            self.error(sha256.mark, "`sha256` goes with `url` only")
                .help("this entry changes what a package or an overlay has: add `url`, or remove `sha256`");
        }
        if let Some(replace) = raw.replace.as_ref().filter(|at| at.value) {
            self.error(replace.mark, "nothing is replaced here: this entry does not say what is there").help(
                "remove `replace`, or add one of `content`, `source`, `url`, `link` and `directory: true`",
            );
        }
    }
}

/// The clauses that are to blame when all together do not make capabilities of a file: those that are wrong by
/// themselves, else the one after the longest beginning that is right.
fn unfit(clauses: &[At<String>]) -> Vec<(Mark, CapabilityError)> {
    let parse = |clauses: &[At<String>]| Capabilities::parse(clauses.iter().map(|at| at.value.as_str()));
    let Err(error) = parse(clauses) else { return Vec::new() };
    let alone: Vec<_> = clauses
        .iter()
        .filter_map(|at| Some((at.mark, parse(std::slice::from_ref(at)).err()?)))
        .filter(|(_, error)| *error != CapabilityError::Effective)
        .collect();
    if !alone.is_empty() {
        return alone;
    }
    // The empty list is right, so there is a longest beginning that is.
    let agreed = (0..clauses.len()).rev().find(|count| parse(&clauses[..*count]).is_ok());
    agreed.and_then(|count| clauses.get(count)).map(|at| (at.mark, error)).into_iter().collect()
}
