//! Files of the user's own that nothing on the node reads: their names end otherwise than their reader wants, or the
//! program that reads them is not in the image. A node says nothing of them either.

use super::{Finding, Severity, View};
use crate::tree::{Kind, NodeId, Tree, show};

/// Files and directories that only one program reads: path, where that program would be, what to do instead.
const BY_ONE: [(&str, &str, &str); 9] = [
    ("etc/crontab", "cron", CRON),
    ("etc/cron.d", "cron", CRON),
    ("etc/cron.hourly", "cron", CRON),
    ("etc/cron.daily", "cron", CRON),
    ("etc/cron.weekly", "cron", CRON),
    ("etc/cron.monthly", "cron", CRON),
    ("etc/logrotate.d", "logrotate", "logs of services are in the journal; else add logrotate to `packages`"),
    (
        "etc/network/interfaces",
        "ifup",
        "say it in /etc/systemd/network (systemd.network(5)), or add ifupdown to `packages`",
    ),
    (
        "etc/netplan",
        "netplan",
        "say it in /etc/systemd/network (systemd.network(5)), or add netplan.io to `packages`",
    ),
];
const CRON: &str = "let a unit of type .timer do it (systemd.timer(5)), or add cron to `packages`";
/// Where programs are.
const PROGRAMS: [&str; 2] = ["usr/bin", "usr/sbin"];
/// What systemd-sysctl does not read since Debian 13; a link below /etc/sysctl.d may lead to it.
const SYSCTL: &str = "etc/sysctl.conf";

/// Where directories of configuration are.
const PARENTS: [&str; 2] = ["etc", "usr/lib"];
/// Directories below them, and how the names of files end that are read.
const ENDINGS: [(&str, &[&str]); 9] = [
    ("binfmt.d", CONF),
    ("environment.d", CONF),
    ("modprobe.d", CONF),
    ("modules-load.d", CONF),
    ("sysctl.d", CONF),
    ("sysusers.d", CONF),
    ("systemd/network", &[".network", ".netdev", ".link"]),
    ("tmpfiles.d", CONF),
    ("udev/rules.d", &[".rules"]),
];
const CONF: &[&str] = &[".conf"];

/// What drop-ins extend, by the end of its name.
const EXTENDED: [&str; 14] = [
    "automount",
    "conf",
    "device",
    "link",
    "mount",
    "netdev",
    "network",
    "path",
    "scope",
    "service",
    "slice",
    "socket",
    "target",
    "timer",
];

/// Reports them.
pub(super) fn check(view: &View<'_>) -> Vec<Finding> {
    let tree = view.tree;
    let own = view
        .paths
        .iter()
        .filter(|(_, id)| tree.is_users(*id) && matches!(tree.node(*id).kind, Kind::File(_)));
    let findings = own.filter_map(|(path, id)| {
        let text = show(path);
        let (problem, advice) =
            by_one(tree, &text).or_else(|| sysctl(tree, &text, *id)).or_else(|| ending(&text))?;
        Some(view.finding(Severity::Warning, path, *id, problem, advice))
    });
    findings.collect()
}

fn by_one(tree: &Tree, path: &str) -> Option<(String, String)> {
    let inside =
        |folder: &str| path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let (_, program, advice) = BY_ONE.iter().find(|(folder, ..)| inside(folder))?;
    let there = PROGRAMS.iter().any(|folder| tree.exists(format!("{folder}/{program}")));
    (!there).then(|| (format!("is read by {program}, which is not in the image"), (*advice).to_owned()))
}

fn sysctl(tree: &Tree, path: &str, id: NodeId) -> Option<(String, String)> {
    let leads = |(name, _): (&[u8], NodeId)| {
        tree.resolve([b"etc/sysctl.d/", name].concat()).is_ok_and(|found| found == id)
    };
    let linked = tree.resolve("etc/sysctl.d").is_ok_and(|folder| tree.children(folder).any(leads));
    (path == SYSCTL && !linked).then(|| {
        (
            "is read by nothing: Debian 13 has no such file".to_owned(),
            "put it into /etc/sysctl.d/NAME.conf".to_owned(),
        )
    })
}

fn ending(path: &str) -> Option<(String, String)> {
    let (folder, name) = path.rsplit_once('/')?;
    let below = PARENTS.iter().find_map(|parent| folder.strip_prefix(parent)?.strip_prefix('/'))?;
    let drop_in = below.starts_with("systemd/") && has_drop_ins(below);
    let endings = match ENDINGS.iter().find(|(known, _)| *known == below) {
        Some((_, endings)) => *endings,
        None if drop_in => CONF,
        None => return None,
    };
    let read = name.starts_with("README") || endings.iter().any(|ending| name.ends_with(ending));
    (!read).then(|| {
        let endings = endings.join(" or ");
        (format!("is read by nothing: in /{folder}, names end in {endings}"), "rename it".to_owned())
    })
}

/// Whether a directory is one of drop-ins: of a daemon's configuration, of a unit, or of all units of a type. Others end
/// in `.d` as well, and their readers want other names.
fn has_drop_ins(folder: &str) -> bool {
    let name = folder.rsplit('/').next().and_then(|name| name.strip_suffix(".d"));
    name.is_some_and(|name| EXTENDED.contains(&name.rsplit('.').next().unwrap_or(name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{FILES_ORIGIN, Meta};

    fn told(files: &[&str]) -> Vec<String> {
        let mut tree = Tree::new(0);
        let origin = tree.origin(FILES_ORIGIN);
        for path in files {
            tree.put(path, Meta::new(0o644), Kind::File("x".into()), origin).unwrap();
        }
        tree.file("etc/cron.d/of-a-package", 0o644, "").unwrap();
        tree.file("usr/lib/sysctl.d/of-a-package", 0o644, "").unwrap();
        let view = View::of(&tree);
        check(&view).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn names_that_end_otherwise_than_their_reader_wants() {
        assert_eq!(
            told(&["etc/sysctl.d/99-mine", "etc/sysctl.d/README.mine", "etc/sysctl.d/good.conf"]),
            [
                "/etc/sysctl.d/99-mine (files) is read by nothing: in /etc/sysctl.d, names end in .conf: rename it"
            ]
        );
        for (bad, good) in [
            ("usr/lib/modules-load.d/kvm", "usr/lib/modules-load.d/kvm.conf"),
            ("etc/udev/rules.d/10-mine.rule", "etc/udev/rules.d/10-mine.rules"),
            ("etc/systemd/network/lan.conf", "etc/systemd/network/lan.network"),
            ("etc/systemd/network/lan.network.d/dns", "etc/systemd/network/lan.network.d/dns.conf"),
            (
                "usr/lib/systemd/system/ssh.service.d/override",
                "usr/lib/systemd/system/ssh.service.d/override.conf",
            ),
            ("etc/systemd/journald.conf.d/size", "etc/systemd/journald.conf.d/size.conf"),
        ] {
            assert_eq!((told(&[bad]).len(), told(&[good]).len()), (1, 0), "{bad}");
        }
        let others = ["etc/systemd/system/mine.service", "etc/app.d/x", "etc/profile.d/x"];
        let systemds =
            ["etc/systemd/ntp-units.d/50-mine.list", "etc/sysupdate.d/x.transfer", "etc/systemd/x.d/y"];
        assert_eq!(told(&[others, systemds].concat()), [""; 0]);
    }

    #[test]
    fn files_of_programs_that_are_not_there() {
        assert_eq!(
            told(&["etc/cron.d/backup"]),
            [
                "/etc/cron.d/backup (files) is read by cron, which is not in the image: let a unit of type .timer do it \
              (systemd.timer(5)), or add cron to `packages`"
            ]
        );
        assert_eq!(told(&["etc/cron.d/backup", "usr/sbin/cron", "etc/network/interfaces"]).len(), 1);
        assert_eq!(told(&["etc/sysctl.conf"]).len(), 1);
        let mut tree = Tree::new(0);
        let origin = tree.origin(FILES_ORIGIN);
        tree.put("etc/sysctl.conf", Meta::new(0o644), Kind::File("x".into()), origin).unwrap();
        tree.symlink("etc/sysctl.d/99-sysctl.conf", "../sysctl.conf").unwrap();
        assert!(check(&View::of(&tree)).is_empty());
    }
}
