//! OCI layers: one laid over those before it, member by member.
//!
//! Source: OCI Image Format Specification 1.1, "Applying Changesets" and "Whiteouts". A later layer wins,
//! otherwise than with packages, where the first directory's owner and mode hold:
//!
//! - A directory over a directory replaces mode, owner, time and attributes, and keeps what is in it. Anything
//!   else replaces what is there whole, with all below it.
//! - A parent that the layer does not have keeps what it is, or is made as 0755 root:root. A symbolic link on the
//!   way is followed inside the tree, as umoci and containerd do.
//! - A whiteout hides what the layers before have, wherever in its own layer it stands, and nothing of its own.
//! - A hard link may lead to a file of a layer before.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::sync::Arc;

use super::from_tar::{Body, Member, TarError, TreeSize};
use super::{Content, Kind, MAX_LINKS, Meta, Node, NodeId, Origin, Tree, is_plain_attribute, show};
use crate::base::limits;

/// What begins the name of a whiteout.
const WHITEOUT: &[u8] = b".wh.";
/// The whiteout of all that is in its directory.
const OPAQUE: &[u8] = b".wh..opq";
/// What follows on [`WHITEOUT`] in names that AUFS kept for itself; old layers have them.
const AUFS: &[u8] = b".wh.";

impl Tree {
    /// Lays the members of a layer over the tree; bodies are in `file` from byte `base` on.
    ///
    /// # Errors
    /// `UnsafePath`, `Attribute`, `BelowFile`, `LinkTarget` or `TooManyNodes`. The tree is of no use then.
    pub fn apply_layer(
        &mut self,
        members: &[Member],
        file: &Arc<File>,
        base: u64,
        origin: &str,
    ) -> Result<(), TarError> {
        let origin = self.origin(origin);
        let mut layer = Layer {
            tree: self,
            origin,
            own: BTreeSet::new(),
            size: TreeSize::default(),
            cleared: BTreeSet::new(),
        };
        for member in members {
            layer.member(member, file, base)?;
        }
        // What layers before had and this one replaced must not count for ever, nor take memory.
        if self.capacity() > limits::NODES && self.forget_unnamed() > limits::NODES {
            let member = members.last().map(|member| show(&member.path)).unwrap_or_default();
            return Err(TarError::TooManyNodes { member, limit: limits::NODES });
        }
        Ok(())
    }
}

struct Layer<'a> {
    tree: &'a mut Tree,
    origin: Origin,
    /// Names, each in its directory, that this layer has: no whiteout of it hides them.
    own: BTreeSet<(NodeId, Vec<u8>)>,
    /// What this layer adds.
    size: TreeSize,
    /// Directories that have nothing of layers before any more: another whiteout finds nothing in them.
    cleared: BTreeSet<NodeId>,
}

impl Layer<'_> {
    fn member(&mut self, member: &Member, file: &Arc<File>, base: u64) -> Result<(), TarError> {
        let refused = |why| TarError::UnsafePath { member: show(&member.path), why };
        if let Some(name) = member.meta.xattrs.keys().find(|name| !is_plain_attribute(name)) {
            return Err(TarError::Attribute { member: show(&member.path), name: show(name) });
        }
        if member.path.is_empty() {
            if member.body != Body::Directory {
                return Err(refused("only a directory can be the root"));
            }
            let root = self.tree.root();
            self.tree.node_mut(root).meta = member.meta.clone();
            return Ok(());
        }
        let at = member.path.iter().rposition(|byte| *byte == b'/');
        let (folder, name) = at.map_or((&[][..], &member.path[..]), |at| {
            let (folder, name) = member.path.split_at(at);
            (folder, &name[1..])
        });
        if folder.split(|byte| *byte == b'/').any(|part| part.starts_with(b".wh..wh.")) {
            return Ok(());
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            if hidden.is_empty() {
                return Err(refused("it is a whiteout without a name"));
            }
            if matches!(hidden, b"." | b"..") {
                return Err(refused("it is the whiteout of a directory that it lies in"));
            }
            self.whiteout(folder, hidden);
            return Ok(());
        }
        let parent = self.parent(member, folder)?;
        self.put(member, parent, name, file, base)
    }

    fn put(
        &mut self,
        member: &Member,
        parent: NodeId,
        name: &[u8],
        file: &Arc<File>,
        base: u64,
    ) -> Result<(), TarError> {
        self.size.add(member, member.path.len())?;
        self.tree.layered += member.names();
        if self.tree.layered > limits::NAMES {
            let (what, member) = ("the paths, targets and attributes of all layers", show(&member.path));
            return Err(TarError::Names { what, member, limit: limits::NAMES });
        }
        self.own.insert((parent, name.to_vec()));
        let kind = match &member.body {
            Body::Link(target) => {
                let found = self.tree.lookup(target);
                let found = found.filter(|id| !matches!(self.tree.node(*id).kind, Kind::Directory(_)));
                let id = found.ok_or_else(|| TarError::LinkTarget {
                    member: show(&member.path),
                    target: show(target),
                })?;
                self.tree.set_child(parent, name.to_vec(), id);
                return Ok(());
            }
            Body::Directory => {
                let existing = self.tree.child(parent, name);
                if let Some(id) = existing.filter(|id| matches!(self.tree.node(*id).kind, Kind::Directory(_)))
                {
                    let node = self.tree.node_mut(id);
                    (node.meta, node.origin) = (member.meta.clone(), self.origin);
                    return Ok(());
                }
                Kind::Directory(BTreeMap::new())
            }
            Body::File { offset, len } => {
                Kind::File(Content::Slice { file: file.clone(), offset: base + offset, len: *len })
            }
            Body::Symlink(target) => Kind::Symlink(target.clone()),
            Body::CharDevice(major, minor) => Kind::CharDevice(*major, *minor),
            Body::BlockDevice(major, minor) => Kind::BlockDevice(*major, *minor),
            Body::Fifo => Kind::Fifo,
        };
        let id = self.tree.add(Node { meta: member.meta.clone(), kind, origin: self.origin });
        self.tree.set_child(parent, name.to_vec(), id);
        Ok(())
    }

    /// The directory at `path`, in which `member` lies.
    fn parent(&mut self, member: &Member, path: &[u8]) -> Result<NodeId, TarError> {
        let parts =
            |path: &[u8]| path.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec).collect::<Vec<_>>();
        let mut pending = parts(path);
        let mut trail = vec![self.tree.root()];
        let (mut links, mut steps) = (0, 0);
        while let Some(part) = pending.pop() {
            steps += 1;
            self.tree.step(1);
            if self.tree.is_exhausted() {
                let why =
                    "links on the way of all members lead over more than 100000000 directories and links";
                return Err(TarError::UnsafePath { member: show(&member.path), why });
            }
            if steps > limits::STEPS {
                let why = "links on the way lead over more than 1024 directories and links";
                return Err(TarError::UnsafePath { member: show(&member.path), why });
            }
            let here = *trail.last().expect("the root stays");
            match part.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    if trail.len() > 1 {
                        trail.pop();
                    }
                    continue;
                }
                _ => {}
            }
            let child = self.tree.child(here, &part);
            match child.map(|id| (id, &self.tree.node(id).kind)) {
                Some((id, Kind::Directory(_))) => trail.push(id),
                Some((_, Kind::Symlink(target))) => {
                    links += 1;
                    if links > MAX_LINKS {
                        let why = "symbolic links on the way lead in a circle";
                        return Err(TarError::UnsafePath { member: show(&member.path), why });
                    }
                    if target.starts_with(b"/") {
                        trail.truncate(1);
                    }
                    pending.extend(parts(target));
                    continue;
                }
                Some(_) if self.own.contains(&(here, part.clone())) => {
                    return Err(TarError::BelowFile { member: show(&member.path), parent: show(&part) });
                }
                // Nothing, or a file of a layer before, which makes way.
                _ => {
                    self.size.add(member, path.len())?;
                    if trail.len() > limits::DEPTH {
                        let why = "it lies below more than 256 directories";
                        return Err(TarError::UnsafePath { member: show(&member.path), why });
                    }
                    trail.push(self.directory(here, &part));
                }
            }
            self.own.insert((here, part));
        }
        Ok(*trail.last().expect("the root stays"))
    }

    fn directory(&mut self, parent: NodeId, name: &[u8]) -> NodeId {
        let meta = Meta::new(0o755).at(self.tree.epoch);
        let id = self.tree.add(Node { meta, kind: Kind::Directory(BTreeMap::new()), origin: self.origin });
        self.tree.set_child(parent, name.to_vec(), id);
        id
    }

    /// Takes away what layers before have: all in `folder`, or one name in it.
    fn whiteout(&mut self, folder: &[u8], hidden: &[u8]) {
        let Ok(parent) = self.tree.resolve(folder) else { return };
        if hidden == OPAQUE {
            self.clear(parent);
        } else if hidden.starts_with(AUFS) {
            // Kept by AUFS for itself.
        } else if self.own.contains(&(parent, hidden.to_vec())) {
            if let Some(id) = self.tree.child(parent, hidden) {
                self.clear(id);
            }
        } else if let Kind::Directory(children) = &mut self.tree.node_mut(parent).kind {
            children.remove(hidden);
        }
    }

    /// Empties the directory `id` of all that is not of this layer.
    fn clear(&mut self, id: NodeId) {
        if !self.cleared.insert(id) {
            return;
        }
        let children: Vec<_> = self.tree.children(id).map(|(name, child)| (name.to_vec(), child)).collect();
        for (name, child) in children {
            if self.own.contains(&(id, name.clone())) {
                self.clear(child);
            } else if let Kind::Directory(children) = &mut self.tree.node_mut(id).kind {
                children.remove(&name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(path: &str, mode: u16, owner: u32, body: Body) -> Member {
        Member { path: path.into(), meta: Meta::new(mode).owned(owner, owner), body }
    }

    fn file(path: &str) -> Member {
        member(path, 0o644, 0, Body::File { offset: 0, len: 0 })
    }

    fn folder(path: &str, mode: u16, owner: u32) -> Member {
        member(path, mode, owner, Body::Directory)
    }

    fn flattened(layers: &[&[Member]]) -> Result<Vec<String>, TarError> {
        let mut tree = Tree::new(0);
        let body = Arc::new(tempfile::tempfile().unwrap());
        for members in layers {
            tree.apply_layer(members, &body, 0, "image")?;
        }
        let line = |(path, id): (Vec<u8>, NodeId)| {
            let node = tree.node(id);
            format!("{} {:o} {} {}", node.kind.letter(), node.meta.mode, node.meta.uid, show(&path))
        };
        Ok(tree.walk().into_iter().skip(1).map(line).collect())
    }

    #[test]
    fn a_later_directory_wins() {
        let lower = [folder("data", 0o755, 0), file("data/x"), folder("secret", 0o755, 0)];
        let upper = [folder("data", 0o750, 1000), folder("secret", 0o700, 0)];
        let expected = ["d 750 1000 data", "- 644 0 data/x", "d 700 0 secret"];
        assert_eq!(flattened(&[&lower, &upper]).unwrap(), expected);
    }

    #[test]
    fn kinds_replace_each_other() {
        let link = |path, target: &str| member(path, 0o777, 0, Body::Symlink(target.into()));
        let lower = [file("a"), folder("b", 0o755, 0), file("b/x"), link("c", "b"), link("d", "b")];
        let upper = [folder("a", 0o700, 0), file("b"), folder("c", 0o700, 0), file("d")];
        let expected = ["d 700 0 a", "- 644 0 b", "d 700 0 c", "- 644 0 d"];
        assert_eq!(flattened(&[&lower, &upper]).unwrap(), expected);
    }

    #[test]
    fn whiteouts_hide_what_was_before_only() {
        let lower = [file("a"), folder("d", 0o755, 0), file("d/x"), folder("e", 0o755, 0), file("e/old")];
        let upper =
            [file("a"), file(".wh.a"), file("d/y"), file("d/.wh..wh..opq"), file("e/new"), file(".wh.e")];
        let expected = ["- 644 0 a", "d 755 0 d", "- 644 0 d/y", "d 755 0 e", "- 644 0 e/new"];
        assert_eq!(flattened(&[&lower, &upper]).unwrap(), expected);
        let aufs = [file(".wh..wh.aufs"), folder(".wh..wh.plnk", 0o700, 0), file(".wh..wh.plnk/1.2")];
        assert_eq!(flattened(&[&aufs]).unwrap(), [""; 0]);
        for unsafe_name in [".wh.", ".wh..", ".wh...", "d/.wh..."] {
            assert!(matches!(flattened(&[&[file(unsafe_name)]]), Err(TarError::UnsafePath { .. })));
        }
    }

    #[test]
    fn attributes_that_the_kernel_obeys_are_refused_by_name() {
        let with = |name: &str| {
            let mut member = folder("d", 0o755, 0);
            member.meta.xattrs.insert(name.into(), b"y".to_vec());
            flattened(&[&[member]])
        };
        for bad in [
            "trusted.overlay.opaque",
            "trusted.overlay.redirect",
            "trusted.overlay.metacopy",
            "trusted.x",
            "security.selinux",
            "security.ima",
            "security.evm",
            "security.capabilityx",
            "system.posix_acl_access",
            "user",
            "user.",
            "",
        ] {
            let said = with(bad).unwrap_err().to_string();
            assert!(said.contains(&format!("member \"d\" has the attribute {bad}:")), "{said}");
        }
        for good in ["user.a", "security.capability"] {
            assert_eq!(with(good).unwrap(), ["d 755 0 d"]);
        }
        // The root has attributes, too.
        let mut root = folder("", 0o755, 0);
        root.meta.xattrs.insert(b"trusted.overlay.opaque".to_vec(), b"y".to_vec());
        assert!(matches!(flattened(&[&[root]]), Err(TarError::Attribute { .. })));
    }

    #[test]
    fn whiteouts_without_a_name_are_told_so() {
        let said = |path: &str| flattened(&[&[file(path)]]).unwrap_err().to_string();
        assert!(said("d/.wh.").contains("it is a whiteout without a name"));
        assert!(said(".wh..").contains("the whiteout of a directory that it lies in"));
    }

    #[test]
    fn parents_that_the_layer_does_not_have() {
        let link = |path, target: &str| member(path, 0o777, 0, Body::Symlink(target.into()));
        let lower = [folder("usr", 0o711, 7), link("bin", "usr/bin"), link("up", "../../usr"), file("was")];
        let upper = [file("bin/sh"), file("up/x"), file("new/y"), file("was/z")];
        let expected = [
            "l 777 0 bin",
            "d 755 0 new",
            "- 644 0 new/y",
            "l 777 0 up",
            "d 711 7 usr",
            "d 755 0 usr/bin",
            "- 644 0 usr/bin/sh",
            "- 644 0 usr/x",
            "d 755 0 was",
            "- 644 0 was/z",
        ];
        assert_eq!(flattened(&[&lower, &upper]).unwrap(), expected);
        let circle = [link("a", "b"), link("b", "a"), file("a/x")];
        assert!(matches!(flattened(&[&circle]), Err(TarError::UnsafePath { .. })));
        assert!(matches!(flattened(&[&[file("f"), file("f/x")]]), Err(TarError::BelowFile { .. })));
    }

    #[test]
    fn hard_links_across_layers() {
        let lower = [file("a")];
        let upper = [member("b", 0, 0, Body::Link("a".into())), folder("d", 0o755, 0)];
        assert_eq!(flattened(&[&lower, &upper]).unwrap(), ["- 644 0 a", "- 644 0 b", "d 755 0 d"]);
        let bad = [member("c", 0, 0, Body::Link("d".into()))];
        assert!(matches!(flattened(&[&lower, &upper, &bad]), Err(TarError::LinkTarget { .. })));
    }

    /// As many whiteouts as files: each that finds nothing must not look at all of them.
    #[test]
    fn whiteouts_in_one_directory_cost_once() {
        let mut members: Vec<Member> = (0..20_000).map(|number| file(&format!("d/{number}"))).collect();
        members.extend((0..20_000).map(|_| file("d/.wh..wh..opq")));
        assert_eq!(flattened(&[&[file("d/old")], &members]).unwrap().len(), 20_001);
    }

    /// Each layer has what one may have.
    #[test]
    fn attributes_of_all_layers_have_a_sum() {
        let layer = |number: usize| -> Vec<Member> {
            let with = |path: String| {
                let mut member = file(&path);
                member.meta.xattrs = BTreeMap::from([(b"user.a".to_vec(), Vec::new())]);
                member
            };
            (0..20_000).map(|file| with(format!("{number}-{file}"))).collect()
        };
        let (first, second) = (layer(1), layer(2));
        assert!(flattened(&[&first]).is_ok());
        let told = flattened(&[&first, &second]).unwrap_err().to_string();
        assert!(
            told.starts_with("the paths, targets and attributes of all layers up to member \"2-"),
            "{told}"
        );
    }

    #[test]
    fn depth_and_ways_round_have_limits() {
        let link = |path: &str, target: &str| member(path, 0o777, 0, Body::Symlink(target.into()));
        let told = |layers: &[&[Member]]| flattened(layers).unwrap_err().to_string();
        let deep = "d/".repeat(limits::DEPTH);
        let lower = [folder(&deep[..deep.len() - 1], 0o755, 0), link("bottom", &deep)];
        let error = told(&[&lower, &[file("bottom/e/x")]]);
        assert!(error.ends_with("it lies below more than 256 directories"), "{error}");
        let round = "a/../".repeat(300);
        let lower = [folder("a", 0o755, 0), link("l", &format!("{round}{round}a"))];
        let error = told(&[&lower, &[file("l/x")]]);
        assert!(error.ends_with("lead over more than 1024 directories and links"), "{error}");
    }

    /// What a layer replaces counts no more, and takes no memory: an image of many layers may write one file again and
    /// again.
    #[test]
    fn what_layers_replace_does_not_count() {
        let layer = |prefix: &str| -> Vec<Member> {
            (0..limits::NODES * 3 / 4).map(|number| file(&format!("{prefix}{number}"))).collect()
        };
        let body = Arc::new(tempfile::tempfile().unwrap());
        let mut tree = Tree::new(0);
        let same = layer("");
        for _ in 0..4 {
            tree.apply_layer(&same, &body, 0, "image").unwrap();
            assert!(tree.capacity() <= limits::NODES, "{}", tree.capacity());
        }
        assert_eq!(tree.walk().len(), same.len() + 1);
        let told = tree.apply_layer(&layer("x"), &body, 0, "image").unwrap_err().to_string();
        assert!(
            told.starts_with("more than 200000 files and directories, with member \"x149999\""),
            "{told}"
        );
    }
}
