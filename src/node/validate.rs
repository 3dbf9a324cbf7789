//! Written → meant: forms of values, and values that make no sense together. All findings are collected; a document is
//! worth something only when there are none.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::raw::{Raw, RawCredential, RawFile, RawInstall, RawMatch, RawRemote, RawUnit, RawUpdate, RawUser};
use super::signature::PublicKey;
use super::{
    Address, Content, Document, File, Image, Install, Made, Match, Remote, Secret, Selector, Unit, Update,
    User, cluster, network, render,
};
use crate::base::Digest;
use crate::base::duration::INTERVAL;
use crate::base::web::misleads;
use crate::written::decode::{At, Short};
use crate::written::diagnostic::Report;
use crate::written::firsts::{Firsts, unique};
use crate::written::form::{self, Wrong, wrong};
use crate::written::place::Mark;
use crate::written::yaml::Node;

/// systemd.io, "Users, Groups, UIDs and GIDs on systemd Systems": regular users.
const PEOPLE: std::ops::RangeInclusive<u32> = 1000..=59_999;

/// Between two looks for updates: more often, a fleet is an attack on its server.
const INTERVALS: std::ops::RangeInclusive<Duration> = Duration::from_secs(60)..=*INTERVAL.end();

/// Paths that another field is for, or that are no document's.
const TAKEN: [(&str, &str); 9] = [
    ("/etc/hostname", "`name` sets it"),
    ("/etc/machine-id", "every node has its own; keller keeps it on the state partition"),
    ("/etc/passwd", "`users` makes accounts"),
    ("/etc/group", "`users` makes accounts"),
    ("/etc/shadow", "`users` sets passwords"),
    ("/etc/gshadow", "`users` makes accounts"),
    ("/etc/ssh/authorized_keys.d", "`users` brings keys"),
    ("/run/keller", "it is keller's own"),
    ("/run/credstore", "`credentials` brings secrets"),
];

/// The whole document.
pub(super) fn document(raw: Raw, text: String, report: &mut Report) -> Document {
    let matches = raw.r#match.map(|at| matches(at, report)).unwrap_or_default();
    let name = raw.name.and_then(|at| report.checked(at, form::host_name));
    let interfaces = network::interfaces(raw.network, report);
    let users = users(raw.users, report);
    let files = files(raw.files, report);
    let units = units(raw.units, report);
    let (enable, mask) = enabling(raw.enable, raw.mask, &units, report);
    let labels = labels(raw.labels, report);
    let credentials = credentials(raw.credentials, report);
    let cluster = raw.cluster.and_then(|at| cluster::cluster(at, name.as_deref(), &credentials, report));
    let update = raw.update.and_then(|at| update(at, report));
    let install = raw.install.and_then(|at| install(at, report));
    let (marks, files): (Vec<Mark>, Vec<File>) = files.into_iter().unzip();
    let document = Document {
        matches,
        name,
        interfaces,
        users,
        files,
        units,
        enable,
        mask,
        labels,
        credentials,
        cluster,
        update,
        install,
        text,
    };
    made_twice(&document, &marks, report);
    document
}

/// No two documents of a file may be for the same machines.
pub(super) fn apart(documents: &[(Node, Document)], report: &mut Report) {
    let mut firsts = Firsts::new();
    for (Node { mark, .. }, document) in documents {
        if let Some(first) = firsts.note(document.matches.clone(), *mark) {
            let message = match document.has_match() {
                true => "this document is for the same machine as another one",
                false => "this document is for any machine, as another one is",
            };
            report
                .error(*mark, message)
                .help("let `match` tell them apart")
                .related(first, "the other begins here");
        }
    }
}

fn install(at: At<RawInstall>, report: &mut Report) -> Option<Install> {
    let At { value: raw, mark } = at;
    let words = |text: &str| match text.parse::<Selector>() {
        Ok(selector) => Ok(selector),
        Err(error) => {
            wrong(format!("does not say which disk: {error}"), "use the words of `keller install --disk`")
        }
    };
    if raw.disk.is_none() && raw.document.is_none() {
        report
            .error(mark, "`install` does not say which disk")
            .help("add `disk`, in the words of `keller install --disk`");
    }
    let disk = raw.disk.map(|at| report.form(&at, words));
    let document = raw.document.map(|at| remote(at.value, report));
    let wipe = raw.wipe.and_then(|at| {
        report.checked(at, |text| match text.trim().is_empty() {
            true => wrong("names no disk", "a serial number, or no `wipe` at all"),
            false => Ok(()),
        })
    });
    if let (Some(keep), Some(_)) = (&raw.keep, &wipe) {
        report
            .error(keep.mark, "`keep` and `wipe` exclude each other")
            .help("`keep: state` for a new system under the state that is there, `wipe` for a new node");
    }
    let address = raw.report.and_then(|at| report.checked(at, web));
    let address = address.map(|address| Secret(address.into_bytes()));
    Some(Install {
        disk: disk.map_or(Some(None), |known| known.map(Some))?,
        document: document.map_or(Some(None), |known| known.map(Some))?,
        from_repository: raw.image.is_some(),
        wipe,
        keep_state: raw.keep.is_some(),
        report: address,
        then: raw.then.map(|at| at.value).unwrap_or_default(),
    })
}

fn remote(raw: RawRemote, report: &mut Report) -> Option<Remote> {
    let address = report.form(&raw.url, |text| {
        text.parse::<Address>().or_else(|error| form::secret(&error.to_string(), error.help()))
    });
    let digest = |text: &str| match text.parse::<Digest>() {
        Ok(digest) => Ok(digest),
        Err(_) => wrong("is no SHA-256", "64 hexadecimal digits, as `sha256sum` prints them"),
    };
    let sha256 = raw.sha256.as_ref().and_then(|at| report.form(at, digest));
    let key = |text: &str| match PublicKey::of_text(text) {
        Ok(key) => Ok(key),
        Err(_) => wrong(
            "is no public key",
            "the line between the first and the last of `rack.pub`, which `keller node keygen rack` makes",
        ),
    };
    let keys: Vec<PublicKey> = raw.keys.iter().filter_map(|at| report.form(at, key)).collect();
    let made = Remote::new(address?, sha256, keys);
    if let (Err(error), Some(at)) = (&made, &raw.sha256) {
        report.error(at.mark, format!("the address {error}")).help(error.help());
    }
    made.ok()
}

/// An address of a web server. What is wrong may have a password in it.
fn web(text: &str) -> Result<(), Wrong> {
    let is_one = |url: &url::Url| matches!(url.scheme(), "http" | "https") && url.has_host();
    match misleads(text).is_none() && url::Url::parse(text).is_ok_and(|url| is_one(&url)) {
        true => Ok(()),
        false => form::secret("is no address at http or https", "such as `https://deploy.example/report`"),
    }
}

fn update(at: At<RawUpdate>, report: &mut Report) -> Option<Update> {
    let At { value: RawUpdate { url, channel, automatic, window, interval, proxy }, mark } = at;
    let address = |text: &str| form::url(text, &["http", "https"]);
    let update = Update {
        url: url.and_then(|at| report.checked(at, address)),
        channel: channel.and_then(|at| report.checked(at, form::id)),
        automatic: automatic.map(|at| at.value),
        window: window.and_then(|at| {
            report.checked(at, |text| match text {
                "always" => Ok(()),
                _ => form::window(text).map(drop),
            })
        }),
        interval: interval
            .and_then(|at| report.checked(at, |text| form::duration(text, &INTERVALS).map(drop))),
        proxy: proxy.and_then(|at| report.checked(at, address)),
    };
    if update == Update::default() {
        // What it says was refused, or it says nothing.
        if report.is_empty() {
            report.error(mark, "this `update` says nothing").help("add `url`, or leave it out");
        }
        return None;
    }
    Some(update)
}

fn matches(at: At<RawMatch>, report: &mut Report) -> Match {
    let At { value: RawMatch { serial, uuid, mac }, mark } = at;
    if serial.is_none() && uuid.is_none() && mac.is_none() {
        report
            .error(mark, "this `match` says nothing")
            .help("one of `serial`, `uuid` and `mac`, or no `match` at all");
    }
    let serial = serial.and_then(|at| {
        report.checked(at, |text| match text.trim().is_empty() {
            true => wrong("is no serial number", "as /sys/class/dmi/id/product_serial has it"),
            false => Ok(()),
        })
    });
    let uuid = uuid.and_then(|at| {
        report.form(&at, |text| match uuid::Uuid::try_parse(text) {
            Ok(uuid) => Ok(uuid.hyphenated().to_string()),
            Err(_) => wrong("is no UUID", "such as `9d9cba0e-1234-4567-89ab-0123456789ab`"),
        })
    });
    let mac = mac.and_then(|at| report.form(&at, network::mac));
    Match { serial: serial.map(|text| text.trim().to_owned()), uuid, mac }
}

fn users(users: Vec<At<RawUser>>, report: &mut Report) -> Vec<User> {
    let (mut names, mut ids) = (Firsts::new(), Firsts::new());
    let mut checked = Vec::new();
    for At { value: raw, .. } in users {
        if let Some(first) = names.note(raw.name.value.clone(), raw.name.mark) {
            report
                .error(raw.name.mark, format!("the account `{}` stands here a second time", raw.name.value))
                .related(first, "the first is here");
        }
        if let Some(uid) = &raw.uid {
            if !PEOPLE.contains(&uid.value) {
                report
                    .error(uid.mark, format!("{} is not the id of a person's account", uid.value))
                    .help("from 1000 to 59999");
            }
            if let Some(first) = ids.note(uid.value, uid.mark) {
                report
                    .error(uid.mark, format!("the id {} is taken", uid.value))
                    .help("each account has an id of its own")
                    .related(first, "by this account");
            }
        }
        checked.extend(user(raw, report));
    }
    checked
}

fn user(raw: RawUser, report: &mut Report) -> Option<User> {
    if raw.uid.is_none() {
        let shell = raw.shell.as_ref().map(|at| ("shell", at.mark));
        let groups = raw.groups.first().map(|at| ("groups", at.mark));
        for (field, mark) in shell.into_iter().chain(groups) {
            report
                .error(mark, format!("`{field}` is for an account that is made"))
                .help("add `uid`, or leave it out: an account of the image stays as it is");
        }
        if raw.ssh_keys.is_empty() && raw.password_hash.is_none() {
            report
                .error(raw.name.mark, format!("nothing is said of the account `{}`", raw.name.value))
                .help("add `ssh_keys` or `password_hash`, or `uid` to make it");
        }
    }
    let mut list = |items: Vec<At<String>>, form: fn(&str) -> Result<(), Wrong>| {
        unique(items.into_iter().filter_map(|at| report.checked(at, form)).collect::<Vec<_>>())
    };
    let (groups, ssh_keys) = (list(raw.groups, form::system_account), list(raw.ssh_keys, form::ssh_key));
    let shell = raw.shell.and_then(|at| report.checked(at, form::account_path));
    let made = raw.uid.map(|uid| Made {
        uid: uid.value,
        groups,
        shell: shell.unwrap_or_else(|| "/bin/bash".to_owned()),
    });
    let hash = raw.password_hash.and_then(|at| report.checked(at, form::password_hash));
    let name = report.checked(raw.name, form::account)?;
    Some(User { name, made, ssh_keys, password_hash: hash.map(|hash| Secret(hash.into_bytes())) })
}

/// A path that a document may have.
fn file_path(text: &str) -> Result<(), Wrong> {
    form::absolute(text)?;
    let is_in = |folder: &str| text.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
    if !is_in("/etc") && !is_in("/run") {
        return wrong(
            "is neither below /etc nor below /run",
            "the root is verified, and what lies on the state partition is the node's own: a unit can write there",
        );
    }
    match TAKEN.iter().find(|(path, _)| text == *path || is_in(path)) {
        Some((_, why)) => wrong("is not for `files`", *why),
        None => Ok(()),
    }
}

fn files(files: Vec<At<RawFile>>, report: &mut Report) -> Vec<(Mark, File)> {
    let mut paths = Firsts::new();
    let mut checked: Vec<(Mark, File)> = Vec::new();
    for At { value: raw, mark } in files {
        let at = raw.path.mark;
        if let Some(first) = paths.note(raw.path.value.clone(), at) {
            report
                .error(at, format!("`{}` stands here a second time", raw.path.value))
                .related(first, "the first is here");
        }
        let mode = raw.mode.as_ref().and_then(|at| report.form(at, form::mode));
        if let Some(mode) = raw.mode.as_ref().filter(|_| raw.link.is_some()) {
            report.error(mode.mark, "a link has no mode").help("remove `mode`");
        }
        let content = match (raw.content, raw.link) {
            (Some(text), None) => Some(Content::Text(Secret(text.value.into_bytes()), mode.unwrap_or(0o644))),
            (None, Some(link)) => report.checked(link, link_target).map(Content::Link),
            (Some(_), Some(link)) => {
                report.error(link.mark, "this entry says twice what is there").help("`content` or `link`");
                None
            }
            (None, None) => {
                report
                    .error(mark, "this entry does not say what is there")
                    .help("one of `content` and `link`; `content: \"\"` for an empty file");
                None
            }
        };
        if let (Some(path), Some(content)) = (report.checked(raw.path, file_path), content) {
            checked.push((at, File { path, content }));
        }
    }
    for (mark, file) in &checked {
        let outer = checked
            .iter()
            .find(|(_, outer)| file.path.strip_prefix(&outer.path).is_some_and(|rest| rest.starts_with('/')));
        if let Some((first, outer)) = outer {
            report
                .error(*mark, format!("`{}` is a file, so that nothing can be in it", outer.path))
                .related(*first, "it stands here");
        }
    }
    checked
}

/// What other fields make is not for `files`; what they make depends on the image too, as far as `enable` goes.
fn made_twice(document: &Document, marks: &[Mark], report: &mut Report) {
    struct Unknown;
    impl Image for Unknown {
        fn read(&self, _: &str) -> Option<String> {
            None
        }
    }
    let others = render(&Document { files: Vec::new(), ..document.clone() }, &Unknown).items;
    for (file, mark) in document.files.iter().zip(marks) {
        let is_in = |inner: &str, outer: &str| {
            inner == outer || inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/'))
        };
        let made = others.iter().find(|item| is_in(&item.path, &file.path) || is_in(&file.path, &item.path));
        if let Some(item) = made {
            let message = format!("`{}` is made by another field of this document", item.path);
            report.error(*mark, message).help("leave it out of `files`, or out of the other field");
        }
    }
}

fn link_target(text: &str) -> Result<(), Wrong> {
    match text.is_empty() || text.contains('\0') {
        true => wrong("is no target", "a path"),
        false => Ok(()),
    }
}

fn units(units: Vec<At<RawUnit>>, report: &mut Report) -> Vec<Unit> {
    let mut names = Firsts::new();
    let mut checked = Vec::new();
    for At { value: raw, mark } in units {
        if let Some(first) = names.note(raw.name.value.clone(), raw.name.mark) {
            report
                .error(raw.name.mark, format!("the unit `{}` stands here a second time", raw.name.value))
                .help("one entry has the unit and all its drop-ins")
                .related(first, "the first is here");
        }
        if raw.content.is_none() && raw.drop_ins.is_empty() {
            report.error(mark, "this entry says nothing of the unit").help("add `content` or `drop_ins`");
        }
        let mut drop_ins = BTreeMap::new();
        for (file, text) in raw.drop_ins {
            let file = At { value: file, mark: text.mark };
            if let Some(file) = report.checked(file, drop_in) {
                drop_ins.insert(file, text.value);
            }
        }
        let content = raw.content.map(|at| at.value);
        if let Some(name) = report.checked(raw.name, form::unit) {
            checked.push(Unit { name, content, drop_ins });
        }
    }
    checked
}

fn drop_in(text: &str) -> Result<(), Wrong> {
    let good = text.len() > ".conf".len()
        && text.ends_with(".conf")
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        && !text.starts_with('.');
    match good {
        true => Ok(()),
        false => wrong("is not the name of a drop-in", "such as `10-limits.conf`"),
    }
}

fn enabling(
    enable: Vec<At<String>>,
    mask: Vec<At<String>>,
    units: &[Unit],
    report: &mut Report,
) -> (Vec<String>, Vec<String>) {
    let enabled: BTreeSet<String> = enable.iter().map(|at| at.value.clone()).collect();
    for at in &mask {
        if enabled.contains(&at.value) {
            report.error(at.mark, format!("`{}` is enabled and masked", at.value)).help("one of both");
        }
        if units.iter().any(|unit| unit.name == at.value && unit.content.is_some()) {
            report.error(at.mark, format!("`{}` is a unit of this document", at.value)).help("leave it out");
        }
    }
    let mut list = |items: Vec<At<String>>| {
        unique(items.into_iter().filter_map(|at| report.checked(at, form::unit)).collect::<Vec<_>>())
    };
    (list(enable), list(mask))
}

fn labels(labels: BTreeMap<String, At<String>>, report: &mut Report) -> BTreeMap<String, String> {
    let mut checked = BTreeMap::new();
    for (name, value) in labels {
        let name = At { value: name, mark: value.mark };
        if let Some(name) = report.checked(name, label) {
            checked.insert(name, value.value);
        }
    }
    checked
}

fn label(text: &str) -> Result<(), Wrong> {
    let good = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    match !text.is_empty() && text.len() <= 128 && text.chars().all(good) {
        true => Ok(()),
        false => {
            wrong("is not the name of a label", "letters, digits, `.`, `_`, `-` and `/`, such as `rack`")
        }
    }
}

fn credentials(
    credentials: BTreeMap<String, At<Short<RawCredential>>>,
    report: &mut Report,
) -> BTreeMap<String, Secret> {
    let mut checked = BTreeMap::new();
    for (name, At { value, mark }) in credentials {
        let name = report.checked(At { value: name, mark }, credential);
        let bytes = match value {
            Short::Text(text) => Some(text.into_bytes()),
            Short::Long(RawCredential { base64 }) => report.form(&base64, |text| {
                form::base64(&text.split_whitespace().collect::<String>()).ok_or(Wrong {
                    what: "is not base64".to_owned(),
                    help: "as `base64` prints it, with padding".to_owned(),
                    secret: true,
                })
            }),
        };
        if let (Some(name), Some(bytes)) = (name, bytes) {
            checked.insert(name, Secret(bytes));
        }
    }
    checked
}

/// systemd.exec(5): what `LoadCredential=` takes as a name.
fn credential(text: &str) -> Result<(), Wrong> {
    let good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    match !text.is_empty() && text.len() <= 128 && text.chars().all(good) && !text.starts_with('.') {
        true => Ok(()),
        false => {
            wrong("is not the name of a credential", "letters, digits, `.`, `_` and `-`, such as `web.key`")
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::node::{Kind, read, render};

    #[test]
    fn no_file_is_made_by_two_fields() {
        let text = "node: 1\nname: n\nmask: [idle.service]\n\
                    network: {interfaces: [{name: br0, bridge: {of: []}, dhcp: ipv4}]}\n\
                    units: [{name: web.service, drop_ins: {a.conf: \"[Service]\"}}]\nfiles:\n";
        for (path, made) in [
            ("/etc/hosts", "/etc/hosts"),
            ("/run/systemd/system/web.service.d/a.conf", "/run/systemd/system/web.service.d/a.conf"),
            ("/run/systemd/system/web.service.d", "/run/systemd/system/web.service.d/a.conf"),
            ("/run/systemd/network/10-keller-br0.netdev/x", "/run/systemd/network/10-keller-br0.netdev"),
            ("/run/systemd/system/idle.service", "/run/systemd/system/idle.service"),
        ] {
            let text = format!("{text}- {{path: {path}, content: x}}\n");
            let told = read("x", text.as_bytes()).unwrap_err().brief().join("\n");
            assert!(told.contains(&format!("x:7:10: `{made}` is made by another field")), "{told}");
        }
        let good = format!("{text}- {{path: /run/systemd/system/web.service.d/b.conf, content: x}}\n");
        read("x", good.as_bytes()).unwrap_or_else(|wrong| panic!("{wrong}"));
    }

    #[test]
    fn what_only_the_image_knows_is_told() {
        struct Image;
        impl crate::node::Image for Image {
            fn read(&self, path: &str) -> Option<String> {
                (path == "/usr/lib/systemd/system/a.service")
                    .then(|| "[Install]\nWantedBy=b.target\n".to_owned())
            }
        }
        let text = "node: 1\nenable: [a.service]\n\
                    files: [{path: /run/systemd/system/b.target.wants/a.service, content: x}]\n";
        let rendered = render(&read("x", text.as_bytes()).unwrap()[0], &Image);
        assert!(matches!(&rendered.items[..], [item] if matches!(item.kind, Kind::File(..))));
        assert!(rendered.warnings[0].contains("b.target.wants/a.service is made by two fields"));
    }
}
