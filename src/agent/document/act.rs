//! Makes a running node what its document says. All of it is tried: what fails is told, and stops nothing else.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::Command;

use rustix::fs::CWD;
use rustix::mount::{OpenTreeFlags, open_tree};

use super::plan::Plan;
use crate::agent::etc::UPPERS;
use crate::agent::systemd;
use crate::base::failure::{Doing, Failure};
use crate::node::{Image, Item, laying};

/// Drops names that the kernel remembers of /etc (Documentation/admin-guide/sysctl/vm.rst, "drop_caches"): 2 for names
/// and inodes. The layer of a document lies under a mounted overlay, which else shows what it has seen before.
const DROP: (&str, &str) = ("/proc/sys/vm/drop_caches", "2");

/// The verified root, without what lies over it.
#[derive(Debug)]
pub(super) struct Root(OwnedFd);

impl Root {
    pub(super) fn open() -> Result<Self, Failure> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        open_tree(CWD, "/", flags).map(Self).doing("opening the verified root")
    }

    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }
}

impl Image for Root {
    fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.path().join(path.trim_start_matches('/'))).ok()
    }
}

/// Does what `plan` says, which leads to `items`. Gives what went wrong, and what must wait for a restart.
pub(super) fn act(plan: &Plan, items: &[Item], root: &Root) -> (Vec<Failure>, Vec<String>) {
    let mut wrong = Vec::new();
    let mut tried = |result: Result<(), Failure>| wrong.extend(result.err());
    // Whatever ends this in the middle, all that may lie there is known.
    let all = laying::noted().into_iter().chain(items.iter().map(|item| item.path.clone()));
    let all: std::collections::BTreeSet<String> = all.collect();
    tried(laying::note(all.iter().map(String::as_str)));
    let job = |verb: &str, name: &str| systemd::systemctl(&plan.job(verb, name));
    for name in &plan.stop {
        tried(job("stop", name));
    }
    for change in &plan.changes {
        tried(match items.iter().find(|item| item.path == change.path) {
            Some(item) => laying::lay(item, &root.path()),
            None => laying::take_away(&change.path),
        });
    }
    tried(laying::note(items.iter().map(|item| item.path.as_str())));
    if plan.changes.iter().any(|change| change.path.starts_with("/etc/")) {
        tried(fs::write(DROP.0, DROP.1).doing("dropping the names that the kernel remembers of /etc"));
    }
    if plan.set_name {
        tried(set_name());
    }
    if plan.make_homes {
        let homes = ["--create", "/run/tmpfiles.d/keller-node.conf"];
        tried(systemd::output(Command::new("systemd-tmpfiles").args(homes)).map(drop));
    }
    if plan.reload_units {
        tried(systemd::systemctl(&["daemon-reload"]));
    }
    for name in &plan.delete_interfaces {
        // One that never came about is no reason to stop.
        let _ = systemd::output(Command::new("networkctl").args(["delete", name]));
    }
    if plan.reload_network {
        tried(systemd::output(Command::new("networkctl").arg("reload")).map(drop));
    }
    for name in &plan.restart {
        tried(job("try-restart", name));
    }
    for name in &plan.renew {
        tried(job("restart", name));
    }
    for name in &plan.start {
        tried(job("start", name));
    }
    (wrong, unseen(plan, items))
}

/// The name that /etc/hostname has now.
fn set_name() -> Result<(), Failure> {
    let text = fs::read_to_string("/etc/hostname").unwrap_or_default();
    match text.trim() {
        "" => Ok(()),
        name => rustix::system::sethostname(name.as_bytes()).doing(format!("setting the host name {name}")),
    }
}

/// Paths of /etc that do not show what was laid: the operator's own file covers them, or the overlay has kept what it
/// had.
fn unseen(plan: &Plan, items: &[Item]) -> Vec<String> {
    let shown = |path: &str| match fs::symlink_metadata(path) {
        Ok(found) if found.is_symlink() => {
            fs::read_link(path).ok().map(|target| target.to_string_lossy().into_owned().into_bytes())
        }
        Ok(_) => fs::read(path).ok(),
        Err(_) => None,
    };
    let mut later = Vec::new();
    for change in plan.changes.iter().filter(|change| change.path.starts_with("/etc/")) {
        let wanted = items.iter().find(|item| item.path == change.path).map(|item| match &item.kind {
            crate::node::Kind::File(bytes, _) => bytes.0.clone(),
            crate::node::Kind::Link(target) => target.clone().into_bytes(),
        });
        let path = &change.path;
        let covers = |upper: &&str| fs::symlink_metadata(format!("{upper}{}", &path["/etc".len()..])).is_ok();
        if UPPERS.iter().any(covers) {
            later.push(format!("{path} was changed on this node, which covers the document's"));
        } else if wanted.is_some() && wanted != shown(path) {
            later.push(format!("{path} shows what the document says only after a restart of the node"));
        }
    }
    later
}
