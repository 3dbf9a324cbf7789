//! Which files follow from a document. Those of /etc go into a layer between the verified root's /etc and the node's
//! own changes, which is made anew at each boot, as /run is: what a document no longer says is gone.

mod cluster;
pub mod networkd;
mod units;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Content, Document, Made, Secret, Update, User};

/// The verified root, as far as a document has to do with it.
pub trait Image {
    /// The text of the file at this absolute path.
    fn read(&self, path: &str) -> Option<String>;
}

/// What a document makes.
#[derive(Debug, Default)]
pub struct Rendered {
    /// In the order of their making; each path once.
    pub items: Vec<Item>,
    /// What the document says and this image has no use for.
    pub warnings: Vec<String>,
}

/// A file or a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Absolute, below /etc or /run.
    pub path: String,
    /// What is there.
    pub kind: Kind,
}

/// What is at a path; all of it is root's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Bytes and permissions.
    File(Secret, u16),
    /// A symbolic link.
    Link(String),
}

/// Where the document's facts stand for programs.
pub const FACTS: &str = "/run/keller/node.json";

/// Directories that are not for everybody.
pub const CLOSED: [&str; 1] = ["/run/credstore"];

/// An operator's word about updates, as the agent reads it.
pub const UPDATE: &str = "/etc/keller/update.yaml";

/// An operator's root of trust for updates.
const OWN_KEYS: &str = "/etc/keller/root.json";

const READABLE: u16 = 0o644;
const PRIVATE: u16 = 0o600;

impl Rendered {
    fn file(&mut self, path: impl Into<String>, mode: u16, bytes: impl Into<Vec<u8>>) {
        let item = Item { path: path.into(), kind: Kind::File(Secret(bytes.into()), mode) };
        self.items.push(item);
    }

    fn link(&mut self, path: impl Into<String>, target: impl Into<String>) {
        self.items.push(Item { path: path.into(), kind: Kind::Link(target.into()) });
    }
}

/// All that `document` makes on a node of `image`.
pub fn render(document: &Document, image: &dyn Image) -> Rendered {
    let mut rendered = Rendered::default();
    if let Some(name) = &document.name {
        rendered.file("/etc/hostname", READABLE, format!("{name}\n"));
        rendered.file("/etc/hosts", READABLE, hosts(name, image));
    }
    networkd::render(&document.interfaces, image, &mut rendered);
    users(&document.users, image, &mut rendered);
    for file in &document.files {
        match &file.content {
            Content::Text(text, mode) => rendered.file(&file.path, *mode, text.0.clone()),
            Content::Link(target) => rendered.link(&file.path, target),
        }
    }
    if let Some(update) = &document.update {
        updates(update, document, image, &mut rendered);
    }
    units::render(document, image, &mut rendered);
    cluster::render(document, image, &mut rendered);
    for (name, secret) in &document.credentials {
        rendered.file(format!("/run/credstore/{name}"), PRIVATE, secret.0.clone());
    }
    once(&mut rendered);
    rendered
}

/// Leaves each path once. Two names of a unit may ask for the same link. What else comes twice was refused, but for a
/// file where `enable` has a link, which only the image knows.
fn once(rendered: &mut Rendered) {
    let mut firsts: BTreeMap<String, Kind> = BTreeMap::new();
    let Rendered { items, warnings } = rendered;
    items.retain(|item| {
        let first = firsts.get(&item.path);
        if first.is_some_and(|first| *first != item.kind) {
            warnings.push(format!("{} is made by two fields: what `files` says counts", item.path));
        }
        let is_first = first.is_none();
        if is_first {
            firsts.insert(item.path.clone(), item.kind.clone());
        }
        is_first
    });
}

/// The node finds itself by its name, whoever answers for other names.
fn hosts(name: &str, image: &dyn Image) -> String {
    let mut text =
        image.read("/etc/hosts").unwrap_or_else(|| "127.0.0.1 localhost\n::1 localhost\n".to_owned());
    if !text.ends_with('\n') {
        text.push('\n');
    }
    let short = name.split_once('.').map(|(short, _)| format!(" {short}")).unwrap_or_default();
    text + &format!("127.0.1.1 {name}{short}\n")
}

/// What everybody may know of it; `source` says where it came from.
pub fn facts(document: Option<&Document>, source: &str, problem: Option<&[String]>) -> Value {
    json!({
        "source": source,
        "name": document.and_then(|document| document.name.as_ref()),
        "labels": document.map(|document| &document.labels),
        "refused": problem,
        "network": document.map(network),
    })
}

/// What must be there for the network to be as the document says.
fn network(document: &Document) -> Value {
    let addresses = document.interfaces.iter().flat_map(|one| &one.addresses);
    let gateways = document.interfaces.iter().flat_map(|one| &one.gateways);
    json!({
        "addresses": addresses.map(|(ip, _)| ip.to_string()).collect::<Vec<_>>(),
        "gateways": gateways.map(ToString::to_string).collect::<Vec<_>>(),
        "dhcp": document.interfaces.iter().any(|one| one.dhcp != super::Dhcp::None),
    })
}

/// What the agent reads of updates, in place of what the image has at this path. JSON is YAML, too.
fn updates(update: &Update, document: &Document, image: &dyn Image, rendered: &mut Rendered) {
    if image.read(UPDATE).is_some() {
        rendered.warnings.push(format!("`update` takes the place of the image's {UPDATE}, all of it"));
    }
    let keys = ["/usr/lib/keller/root.json", OWN_KEYS];
    let has_keys = keys.iter().any(|path| image.read(path).is_some())
        || document.files.iter().any(|file| file.path == OWN_KEYS);
    if update.url.is_some() && !has_keys {
        let warning = format!(
            "`update` names a repository, but this image has no key to check it with: the node takes no updates without \
             {OWN_KEYS}"
        );
        rendered.warnings.push(warning);
    }
    let text = serde_json::to_string_pretty(update).expect("texts have a form in JSON");
    rendered.file(UPDATE, READABLE, text + "\n");
}

fn users(users: &[User], image: &dyn Image, rendered: &mut Rendered) {
    let mut homes = String::new();
    for user in users {
        let name = &user.name;
        if !user.ssh_keys.is_empty() {
            let keys = user.ssh_keys.join("\n") + "\n";
            rendered.file(format!("/etc/ssh/authorized_keys.d/{name}"), READABLE, keys);
        }
        match &user.made {
            Some(made) => {
                account(name, made, user.password_hash.as_ref(), rendered);
                homes += &format!("d /var/home/{name} 0700 {uid} {uid} -\n", uid = made.uid);
            }
            None => known(user, image, rendered),
        }
    }
    if !homes.is_empty() {
        rendered.file("/run/tmpfiles.d/keller-node.conf", READABLE, homes);
    }
    shadow(users, image, rendered);
}

/// Makes an account as a userdb record, which nss-systemd reads.
fn account(name: &str, made: &Made, hash: Option<&Secret>, rendered: &mut Rendered) {
    let uid = made.uid;
    let user = json!({
        "userName": name, "uid": uid, "gid": uid, "disposition": "regular",
        "homeDirectory": format!("/home/{name}"), "shell": made.shell,
    });
    let group = json!({ "groupName": name, "gid": uid, "disposition": "regular" });
    record(rendered, name, uid, "user", READABLE, &user);
    record(rendered, name, uid, "group", READABLE, &group);
    if let Some(hash) = hash {
        record(rendered, name, uid, "user-privileged", PRIVATE, &privileged(hash));
    }
    for group in &made.groups {
        rendered.file(format!("/run/userdb/{name}:{group}.membership"), READABLE, "{}\n");
    }
}

fn privileged(hash: &Secret) -> Value {
    json!({ "privileged": { "hashedPassword": [String::from_utf8_lossy(&hash.0)] } })
}

fn record(rendered: &mut Rendered, name: &str, id: u32, kind: &str, mode: u16, record: &Value) {
    rendered.file(format!("/run/userdb/{name}.{kind}"), mode, format!("{record:#}\n"));
    rendered.link(format!("/run/userdb/{id}.{kind}"), format!("{name}.{kind}"));
}

/// An account of the image: its record is copied beside the password, since a record in /run covers it whole.
fn known(user: &User, image: &dyn Image, rendered: &mut Rendered) {
    let name = &user.name;
    let is_static = passwd(image, name).is_some();
    let found = image.read(&format!("/usr/lib/userdb/{name}.user"));
    let uid = found.as_deref().and_then(|text| serde_json::from_str::<Value>(text).ok());
    let uid = uid.as_ref().and_then(|record| record.get("uid")).and_then(Value::as_u64);
    match (found, uid.and_then(|uid| u32::try_from(uid).ok()), &user.password_hash) {
        (Some(text), Some(uid), Some(hash)) if !is_static => {
            rendered.file(format!("/run/userdb/{name}.user"), READABLE, text);
            rendered.link(format!("/run/userdb/{uid}.user"), format!("{name}.user"));
            record(rendered, name, uid, "user-privileged", PRIVATE, &privileged(hash));
        }
        (None, ..) if !is_static => rendered
            .warnings
            .push(format!("`users` names {name}, and this image has no such account: add `uid` to make it")),
        _ => {}
    }
}

fn passwd(image: &dyn Image, name: &str) -> Option<String> {
    let text = image.read("/etc/passwd")?;
    text.lines().find(|line| line.split(':').next() == Some(name)).map(str::to_owned)
}

/// Passwords of accounts that stand in /etc/passwd.
fn shadow(users: &[User], image: &dyn Image, rendered: &mut Rendered) {
    let hashes: Vec<(&str, &Secret)> = users
        .iter()
        .filter(|user| user.made.is_none() && passwd(image, &user.name).is_some())
        .filter_map(|user| Some((user.name.as_str(), user.password_hash.as_ref()?)))
        .collect();
    if hashes.is_empty() {
        return;
    }
    let text = image.read("/etc/shadow").unwrap_or_default();
    let mut lines: Vec<String> = Vec::new();
    let mut pending = hashes.clone();
    for line in text.lines() {
        let mut fields: Vec<&str> = line.split(':').collect();
        let at = pending.iter().position(|(name, _)| fields.first() == Some(name));
        let hash = at.map(|at| String::from_utf8_lossy(&pending.remove(at).1.0).into_owned());
        if let (Some(hash), Some(field)) = (&hash, fields.get_mut(1)) {
            *field = hash;
        }
        lines.push(fields.join(":"));
    }
    lines.extend(
        pending.iter().map(|(name, hash)| format!("{name}:{}:1::::::", String::from_utf8_lossy(&hash.0))),
    );
    rendered.file("/etc/shadow", PRIVATE, lines.join("\n") + "\n");
}
