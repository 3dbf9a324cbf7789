//! What becomes different on a running node, and what has to be done for it.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::node::{Document, Item, Kind, UPDATE, cluster};
use crate::pki::etcd;

const UNITS: &str = "/run/systemd/system/";
const NETWORKS: &str = "/run/systemd/network/";
const SECRETS: &str = "/run/credstore/";
/// As a member of a cluster it may wait for others for hours, and whoever asks for its start must not.
const ETCD: &str = "etcd.service";
/// Takes a member's certificates to where its etcd reads them.
const CERTIFICATES: &str = "keller-etcd-certificates.service";
/// Which authorities a member believes: etcd reads them only when it starts.
const OF_AUTHORITIES: [&str; 2] = [etcd::CA, etcd::PEER_CA];
const RESTARTS: &str = "etcd.service starts over if it is to believe other authorities, as soon as the other members do \
                        without it: `journalctl -u keller-etcd-certificates` says what it waits for";
/// Reads the update settings when it starts, and exits if there are none.
const AGENT: &str = "keller-agent.service";
const HOMES: &str = "/run/tmpfiles.d/";
/// Files of /etc that are read anew each time that somebody asks.
const READ_ANEW: [&str; 4] = ["/etc/hostname", "/etc/hosts", "/etc/shadow", "/etc/ssh/authorized_keys.d/"];

/// One path that changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Absolute.
    pub path: String,
    /// `added`, `changed` or `removed`.
    pub what: &'static str,
}

/// What is done, besides writing files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Paths, in their order.
    pub changes: Vec<Change>,
    /// Whether systemd reads its units again.
    pub reload_units: bool,
    /// Whether networkd reads its files again: this can cut the operator off.
    pub reload_network: bool,
    /// Interfaces that are taken away, to be made anew or not.
    pub delete_interfaces: Vec<String>,
    /// Whether the host name is set.
    pub set_name: bool,
    /// Whether homes of accounts are made.
    pub make_homes: bool,
    /// Units that stop before their files change.
    pub stop: Vec<String>,
    /// Units that start anew, where they run.
    pub restart: Vec<String>,
    /// Units that start anew, whether or not they run.
    pub renew: Vec<String>,
    /// Units that start.
    pub start: Vec<String>,
    /// Units that are started or restarted without waiting (`--no-block`).
    pub unawaited: Vec<String>,
    /// What does not change before something else is done, in words.
    pub later: Vec<String>,
}

impl Plan {
    /// What leads from the paths that were `laid` to `items`; `now` tells what is at a path.
    pub fn new(
        laid: &[String],
        items: &[Item],
        document: &Document,
        now: &dyn Fn(&str) -> Option<Kind>,
    ) -> Self {
        let mut plan = Self::default();
        for item in items {
            match now(&item.path) {
                None => plan.add(&item.path, "added", Some(&item.kind), document),
                Some(kind) if kind != item.kind => {
                    plan.add(&item.path, "changed", Some(&item.kind), document)
                }
                Some(_) => {}
            }
        }
        let wanted: BTreeSet<&str> = items.iter().map(|item| item.path.as_str()).collect();
        for path in laid.iter().filter(|path| !wanted.contains(path.as_str()) && now(path).is_some()) {
            plan.add(path, "removed", None, document);
        }
        plan.settle(document);
        plan
    }

    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    fn add(&mut self, path: &str, what: &'static str, kind: Option<&Kind>, document: &Document) {
        self.changes.push(Change { path: path.to_owned(), what });
        if let Some(rest) = path.strip_prefix(UNITS) {
            self.unit(rest, what, kind);
        } else if let Some(rest) = path.strip_prefix(NETWORKS) {
            self.reload_network = true;
            let name = rest.strip_suffix(".netdev").and_then(|rest| rest.strip_prefix("10-keller-"));
            self.delete_interfaces.extend(name.filter(|_| what != "added").map(str::to_owned));
        } else if let Some(name) = path.strip_prefix(SECRETS) {
            self.secret(name, what, document);
        } else if path == "/etc/hostname" {
            self.set_name = true;
        } else if path == UPDATE {
            self.renew.push(AGENT.to_owned());
        } else if path.starts_with("/etc/systemd/network/") {
            self.reload_network = true;
        } else if path.starts_with("/etc/systemd/system/") {
            self.reload_units = true;
        } else if path.starts_with(HOMES) {
            self.make_homes |= what != "removed";
        } else if path.starts_with("/etc/") && !READ_ANEW.iter().any(|known| path.starts_with(known)) {
            self.later.push(format!("{path}: programs that have read it go on with what they read"));
        }
    }

    /// A unit, a drop-in, a mask, or a link that starts one at boot.
    fn unit(&mut self, rest: &str, what: &'static str, kind: Option<&Kind>) {
        self.reload_units = true;
        match rest.split_once('/') {
            None if matches!(kind, Some(Kind::Link(target)) if target == "/dev/null") => {
                self.stop.push(rest.to_owned());
            }
            None if what == "removed" => self.stop.push(rest.to_owned()),
            None if what == "changed" => self.restart.push(rest.to_owned()),
            None => {}
            Some((above, _)) if above.ends_with(".d") => {
                let unit = above.strip_suffix(".d").unwrap_or(above);
                // Of a template, all that were made of it.
                self.restart.push(unit.replacen("@.", "@*.", 1));
            }
            Some((_, name)) if what == "removed" => self.stop.push(name.to_owned()),
            Some((_, name)) => self.start.push(name.to_owned()),
        }
    }

    /// A unit has a secret as it was when it started.
    fn secret(&mut self, name: &str, what: &'static str, document: &Document) {
        // etcd reads them for each connection, from where this puts them.
        if document.cluster.is_some() && is_of_member(name) {
            self.start.push(CERTIFICATES.to_owned());
            let restarts = OF_AUTHORITIES.iter().any(|file| name.strip_prefix(cluster::PREFIX) == Some(file));
            if restarts && what == "changed" && !self.later.iter().any(|line| line == RESTARTS) {
                self.later.push(RESTARTS.to_owned());
            }
            return;
        }
        let asks = |text: &String| {
            text.lines().any(|line| {
                let words = ["LoadCredential=", "LoadCredentialEncrypted=", "ImportCredential="];
                words
                    .iter()
                    .any(|word| line.trim().strip_prefix(word).is_some_and(|rest| is_asked(rest, name)))
            })
        };
        let units = document.units.iter();
        let known: Vec<String> = units
            .filter(|unit| unit.content.iter().chain(unit.drop_ins.values()).any(asks))
            .map(|unit| unit.name.clone())
            .collect();
        match known.is_empty() {
            true => self.later.push(format!("the credential {name}: a unit gets it at its next start")),
            false => self.restart.extend(known),
        }
    }

    /// Each unit once, and in one way.
    fn settle(&mut self, document: &Document) {
        for names in [&mut self.stop, &mut self.start, &mut self.restart, &mut self.delete_interfaces] {
            names.sort();
            names.dedup();
        }
        // What one path stops and another one starts has changed its place only.
        let starts: BTreeSet<String> = self.start.iter().chain(&document.enable).cloned().collect();
        self.stop.retain(|name| !starts.contains(name));
        let stops: BTreeSet<String> = self.stop.iter().cloned().collect();
        self.start.retain(|name| !stops.contains(name));
        self.renew.retain(|name| !stops.contains(name));
        self.restart.retain(|name| !stops.contains(name) && !self.start.contains(name));
        if let Some(cluster) = &document.cluster
            && [&self.start, &self.restart].into_iter().flatten().any(|name| name == ETCD)
        {
            self.unawaited.push(ETCD.to_owned());
            self.later.push(format!(
                "{ETCD} starts as a member of {} once the others let it: `journalctl -u etcd` has what it waits for",
                cluster.name
            ));
        }
    }

    /// What `systemctl` is told to `verb` a unit. Where the network changes, undoing waits for this to end: a unit that
    /// starts for ever must not hold it up.
    pub(super) fn job<'a>(&self, verb: &'a str, name: &'a str) -> Vec<&'a str> {
        match self.reload_network || self.unawaited.iter().any(|unit| unit == name) {
            true => vec!["--no-block", verb, name],
            false => vec![verb, name],
        }
    }

    /// What is done, a line each.
    pub fn lines(&self) -> Vec<String> {
        let list =
            |word: &str, names: &[String]| (!names.is_empty()).then(|| format!("{word} {}", names.join(" ")));
        let once = |word: &str, is: bool| is.then(|| word.to_owned());
        [
            list("stop", &self.stop),
            once("set the host name", self.set_name),
            once("make homes of accounts", self.make_homes),
            once("read units again", self.reload_units),
            list("take away the interfaces", &self.delete_interfaces),
            once("read the network again", self.reload_network),
            list("start anew, where it runs,", &self.restart),
            list("start anew", &self.renew),
            list("start", &self.start),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// Whether a member's certificate is called so.
fn is_of_member(name: &str) -> bool {
    name.strip_prefix(cluster::PREFIX).is_some_and(|file| cluster::FILES.contains(&file))
}

/// Whether what follows `LoadCredential=` and its like asks for the secret `name`.
fn is_asked(rest: &str, name: &str) -> bool {
    let wanted = rest.split(':').next().unwrap_or(rest).trim();
    match wanted.strip_suffix('*') {
        Some(begin) => name.starts_with(begin),
        None => wanted == name,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::node::{Image, read, render};

    struct Empty;
    impl Image for Empty {
        fn read(&self, _: &str) -> Option<String> {
            None
        }
    }

    /// An image that has etcd.
    struct WithEtcd;
    impl Image for WithEtcd {
        fn read(&self, path: &str) -> Option<String> {
            path.ends_with("/etcd.service").then(String::new)
        }
    }

    fn document(text: &str) -> Document {
        read("x", format!("node: 1\n{text}").as_bytes()).unwrap_or_else(|wrong| panic!("{wrong}")).remove(0)
    }

    fn plan(old: &str, new: &str) -> Plan {
        let items = |text: &str| render(&document(text), &Empty).items;
        let now: BTreeMap<String, Kind> = items(old).into_iter().map(|item| (item.path, item.kind)).collect();
        let laid: Vec<String> = now.keys().cloned().collect();
        Plan::new(&laid, &items(new), &document(new), &|path| now.get(path).cloned())
    }

    #[test]
    fn the_same_document_does_nothing() {
        let text = "name: a\nunits: [{name: web.service, content: \"[Service]\\n\"}]\ncredentials: {k: v}\n";
        assert_eq!(plan(text, text), Plan::default());
    }

    #[test]
    fn each_change_has_its_deed() {
        let unit = |text: &str, more: &str| {
            format!(
                "units: [{{name: web.service, content: \"[Service]\\nExecStart={text}\\nLoadCredential=k\\n\
                     [Install]\\nWantedBy=multi-user.target\\n\"}}]\n{more}"
            )
        };
        let started = plan("", &unit("a", "enable: [web.service]\n"));
        assert_eq!(
            (started.start, started.restart, started.reload_units),
            (vec!["web.service".into()], vec![], true)
        );
        let changed = plan(&unit("a", ""), &unit("b", ""));
        assert_eq!((changed.restart, changed.stop), (vec!["web.service".to_owned()], vec![]));
        let stopped = plan(&unit("a", "enable: [web.service]\n"), "");
        assert_eq!((stopped.stop, stopped.start), (vec!["web.service".to_owned()], vec![]));
        let secret = plan(&unit("a", "credentials: {k: v}\n"), &unit("a", "credentials: {k: w}\n"));
        assert_eq!((secret.restart, secret.reload_units), (vec!["web.service".to_owned()], false));
        assert_eq!(plan("", "mask: [x.timer]\n").stop, ["x.timer"]);
        assert!(plan("name: a\n", "name: b\n").set_name);
        let channel = |name: &str| format!("update: {{channel: {name}}}\n");
        for (old, new) in
            [(String::new(), channel("a")), (channel("a"), channel("b")), (channel("a"), String::new())]
        {
            let plan = plan(&old, &new);
            assert_eq!((plan.renew, plan.later), (vec![AGENT.to_owned()], vec![]), "{old} {new}");
        }
        let masked = plan("", &format!("{}mask: [{AGENT}]\n", channel("a")));
        assert_eq!((masked.renew, masked.stop), (vec![], vec![AGENT.to_owned()]));
        let later = plan("", "files: [{path: /etc/app.conf, content: x}]\n").later;
        assert!(later[0].starts_with("/etc/app.conf: "), "{later:?}");
        let bridge = |mtu: &str| {
            format!("network: {{interfaces: [{{name: br0, bridge: {{of: []}}, {mtu} dhcp: ipv4}}]}}\n")
        };
        let network = plan(&bridge(""), &bridge("mtu: 1400,"));
        assert!(network.reload_network && network.delete_interfaces.is_empty());
        assert_eq!(plan(&bridge(""), "").delete_interfaces, ["br0"]);
        assert!(!plan("", "name: a\n").reload_network);
        let raw = plan("", "files: [{path: /etc/systemd/network/5-x.network, content: x}]\n");
        assert!(raw.reload_network && raw.later.is_empty());
        assert!(plan("", "files: [{path: /etc/systemd/system/x.service, content: x}]\n").reload_units);
        let template = "units: [{name: getty@.service, drop_ins: {1.conf: \"[Service]\\n\"}}]\n";
        assert_eq!(plan("", template).restart, ["getty@*.service"]);
    }

    /// A member's etcd goes on, and its new certificates are there at once.
    #[test]
    fn new_certificates_of_a_member_are_taken_over() {
        let member = |word: &str| {
            let files = cluster::FILES.map(|file| format!("  {}{file}: {word}\n", cluster::PREFIX));
            let list = "name: a\ncluster: {name: rack1, members: {a: 10.0.0.1}}\n";
            format!("{list}credentials:\n  own: {word}\n{}", files.concat())
        };
        let renewed = plan(&member("old"), &member("new"));
        assert_eq!((renewed.start, renewed.restart), (vec![CERTIFICATES.to_owned()], vec![]));
        assert_eq!(renewed.later, [RESTARTS, "the credential own: a unit gets it at its next start"]);
        let client = |word: &str| format!("name: d\ncredentials: {{etcd.client.pem: {word}}}\n");
        assert_eq!(plan(&client("old"), &client("new")).start, [""; 0]);
    }

    /// A node that was in no cluster: its etcd ends, and may then wait for machines that come in a week.
    #[test]
    fn nobody_waits_for_a_node_to_become_a_member() {
        let alone = "name: a\n";
        let files = cluster::FILES.map(|file| format!("  {}{file}: x\n", cluster::PREFIX)).concat();
        let member =
            format!("{alone}cluster: {{name: rack1, members: {{a: 10.0.0.1}}}}\ncredentials:\n{files}");
        let plan = |old: &str, new: &str| {
            let items = |text: &str| render(&document(text), &WithEtcd).items;
            let now: BTreeMap<String, Kind> =
                items(old).into_iter().map(|item| (item.path, item.kind)).collect();
            let laid: Vec<String> = now.keys().cloned().collect();
            Plan::new(&laid, &items(new), &document(new), &|path| now.get(path).cloned())
        };
        let joins = plan(alone, &member);
        assert_eq!((joins.restart.as_slice(), joins.reload_network), (&[ETCD.to_owned()][..], false));
        assert_eq!(joins.job("try-restart", ETCD), ["--no-block", "try-restart", ETCD]);
        assert_eq!(joins.job("start", CERTIFICATES), ["start", CERTIFICATES]);
        assert!(
            joins.later[0].starts_with("etcd.service starts as a member of rack1 once"),
            "{:?}",
            joins.later
        );
        // On the way back it waits for nobody.
        let leaves = plan(&member, alone);
        assert_eq!(leaves.job("try-restart", ETCD), ["try-restart", ETCD]);
        assert_eq!(leaves.restart, [ETCD]);
    }

    #[test]
    fn a_secret_is_asked_for_by_its_whole_name() {
        for (rest, name, is) in [
            ("key", "key", true),
            ("monkey", "key", false),
            ("key:/run/x", "key", true),
            ("web.*", "web.key", true),
            ("web.*", "key", false),
        ] {
            assert_eq!(is_asked(rest, name), is, "{rest} {name}");
        }
    }
}
