//! Lines of sysusers.d and tmpfiles.d that do not do what they say.
//!
//! systemd logs such a line at every boot and passes over it, where nobody looks. One of the user's own files is
//! an error; one of a package is told.

use std::collections::BTreeMap;

use super::super::conf_d;
use super::super::error::Error;
use super::super::tmpfiles::line::Line;
use super::super::tmpfiles::{mistakes, shipped};
use super::super::users::{Accounts, Wanted, passwd, sysusers};
use super::{Finding, Severity, sorted};
use crate::tree::{Tree, show};

/// Checks the sysusers.d files of a tree that has all packages, overlays and files. `wanted` knows the numbers that
/// the manifest names ([`Wanted::fixed`]).
///
/// # Errors
/// Of the tree.
pub fn sysusers(tree: &Tree, mut wanted: Wanted) -> Result<Vec<Finding>, Error> {
    passwd::masters(tree, &mut wanted)?;
    sysusers::collect(tree, &mut wanted)?;
    let findings = wanted.problems.into_iter().map(|problem| {
        let name = "sysusers.d";
        let Place { origin, of_user } = Place::of(tree, &problem.path);
        let advice = match (problem.ignored, of_user) {
            (true, true) => format!("systemd-sysusers passes over the line, and so would the build; mend it: {name}(5)"),
            (true, false) => format!(
                "the line does nothing, as on Debian; a file of the same name in /etc/{name} (`overlays` or `files`) \
                 takes the place of this one"
            ),
            (false, _) => {
                let way_out = match problem.of_path {
                    true => {
                        "let `.meta` give the path an owner of 1 to 999 whom nobody else is, or name a number"
                    },
                    false => "ask for a free id, or for none",
                };
                format!("systemd-sysusers does the same; {way_out}")
            }
        };
        Finding {
            severity: if problem.ignored && of_user { Severity::Error } else { Severity::Warning },
            path: format!("{}:{}", problem.path, problem.line),
            origin,
            problem: format!("has a line without effect: {}", problem.what),
            advice,
        }
    });
    Ok(sorted(findings.collect()))
}

/// Checks the user's own tmpfiles.d files; what packages bring is said on the node, as on Debian.
///
/// # Errors
/// Of the tree.
pub fn tmpfiles(tree: &Tree, accounts: &Accounts) -> Result<Vec<Finding>, Error> {
    let mut findings = Vec::new();
    let mut first = Makers::default();
    for file in conf_d::files(tree, "tmpfiles.d")? {
        let Place { origin, of_user } = Place::of(tree, &file.path);
        for (number, text) in file.lines() {
            let (mistake, stranger) = (mistakes::find(text), stranger(text, accounts));
            let counts = stranger.is_none() && !mistake.as_ref().is_some_and(mistakes::Mistake::is_fatal);
            let place = format!("{}:{number}", file.path);
            let earlier = counts.then(|| first.before(text, &place)).flatten();
            if !of_user {
                continue;
            }
            let finding = |severity, problem: String, advice: &str| Finding {
                severity,
                path: place.clone(),
                origin: origin.clone(),
                problem: format!("has a line without effect: {problem}"),
                advice: advice.to_owned(),
            };
            match mistake {
                Some(mistake) if mistake.is_fatal() => findings.push(finding(
                    Severity::Error,
                    mistake.to_string(),
                    "systemd-tmpfiles passes over the line on every node; mend it: tmpfiles.d(5)",
                )),
                Some(mistake) => findings.push(finding(
                    Severity::Warning,
                    mistake.to_string(),
                    "take it out, or use another type: tmpfiles.d(5)",
                )),
                None if earlier.is_some() => findings.push(finding(
                    Severity::Warning,
format!(
                        "{} makes the path otherwise, and the first line counts",
                        earlier.as_deref().unwrap_or_default()
                    ),
                    first_counts(earlier.as_deref(), &file.path),
                )),
                None => findings.extend(stranger.map(|name| {
                    finding(
                        Severity::Warning,
                        format!("the image does not have {name}"),
                        "systemd-tmpfiles passes over the line where the node does not have it either; `system_users` and \
                         `groups` make accounts",
                    )
                })),
            }
        }
    }
    Ok(sorted(findings))
}

/// The way out where the line at `earlier` counts instead of one in the file at `path`.
fn first_counts(earlier: Option<&str>, path: &str) -> &'static str {
    match earlier.and_then(|place| place.rsplit_once(':')) {
        Some((same, _)) if same == path => "take one of the two out",
        _ => "give the file a name before that one's, or the same name in /etc/tmpfiles.d to take its place",
    }
}

/// What is read at boot, before or while /usr/local is filled, and how the names of its files end. systemd reads what
/// sessions and late services use (environment.d, systemd/user) in time.
const READ_AT_BOOT: [(&str, &[&str]); 12] = [
    ("tmpfiles.d", &[".conf"]),
    ("modprobe.d", &[".conf"]),
    ("sysctl.d", &[".conf"]),
    ("modules-load.d", &[".conf"]),
    ("binfmt.d", &[".conf"]),
    ("udev/rules.d", &[".rules"]),
    ("systemd/network", &[".network", ".netdev", ".link", ".conf"]),
    ("systemd/system", &[""]),
    ("systemd/system-preset", &[".preset"]),
    ("systemd/system-generators", &[""]),
    ("systemd/system-environment-generators", &[""]),
    ("systemd/*.conf.d", &[".conf"]),
];

/// Checks that no file for the boot is in /usr/local/lib, which leads to the state partition: that is blank when a node
/// starts for the first time, and systemd-tmpfiles itself fills it.
pub fn local(tree: &Tree) -> Vec<Finding> {
    let files = READ_AT_BOOT.iter().flat_map(|(name, endings)| {
        let paths = conf_d::local(tree, name).into_iter();
        paths.filter(|path| endings.iter().any(|ending| path.ends_with(ending))).map(move |path| (name, path))
    });
    let findings = files.map(|(name, path)| {
        let name = directory(name, &path);
        let Place { origin, of_user } = Place::of(tree, &path);
        let (severity, advice) = match of_user {
            true => (Severity::Error, format!("put it into /usr/lib/{name} or /etc/{name}")),
            false => (
                Severity::Warning,
                format!("the build leaves it out of account; a copy in /etc/{name} (`overlays` or `files`) counts"),
            ),
        };
        Finding {
            severity,
            path,
            origin,
            problem: "is not there when a node reads it at its first boot: /usr/local leads to the state partition, \
                      which is blank then"
                .to_owned(),
            advice,
        }
    });
    sorted(findings.collect())
}

/// `name`, or the directory of `path` itself, where a `*` in `name` stands for it.
fn directory<'a>(name: &'a str, path: &'a str) -> &'a str {
    let itself = || Some(path.strip_prefix("/usr/local/lib/")?.rsplit_once('/')?.0);
    itself().filter(|_| name.contains('*')).unwrap_or(name)
}

/// Checks that each line of the user's own tmpfiles.d files in a finished root is about what a node can write to: of
/// what the image ships in /opt and /usr/local it can change nothing.
///
/// # Errors
/// Of the tree.
pub fn shipped(tree: &Tree) -> Result<Vec<Finding>, Error> {
    let links = shipped::links(tree)?;
    let mut findings = Vec::new();
    for file in conf_d::files(tree, "tmpfiles.d")? {
        let Place { origin, of_user } = Place::of(tree, &file.path);
        for (number, text) in file.lines().filter(|_| of_user) {
            let Some(place) = shipped::left_over(tree, &links, text) else { continue };
            findings.push(Finding {
                severity: Severity::Warning,
                path: format!("{}:{number}", file.path),
                origin: origin.clone(),
                problem: format!(
                    "has a line without effect: the image ships {}, which is read-only on a node",
                    show(&place)
                ),
                advice: "say it with `files` or in an overlay and its .meta, or name a path below /var"
                    .to_owned(),
            });
        }
    }
    Ok(sorted(findings))
}

/// Lines that make something, by path: of two that differ, systemd-tmpfiles takes the first
/// (`item_compatible()` of its tmpfiles.c). All that count are like the first of the path, which is enough.
#[derive(Default)]
struct Makers(BTreeMap<Vec<u8>, (String, Line)>);

impl Makers {
    /// The place of a line before this one that makes the same path otherwise; else the line counts.
    fn before(&mut self, text: &[u8], place: &str) -> Option<String> {
        let line = Line::parse(text).ok().filter(|line| b"fFdDvqQpLcbC".contains(&line.letter))?;
        if line.modifiers.iter().any(|sign| b"^?".contains(sign)) {
            return None;
        }
        let (mode, user, group, age, rest) = (&line.mode, &line.user, &line.group, &line.age, &line.rest);
        let same = |known: &Line| {
            (&known.mode, &known.user, &known.group, &known.age, &known.rest)
                == (mode, user, group, age, rest)
        };
        let path = line.place()?;
        if let Some((place, known)) = self.0.get(&path) {
            return (!same(known)).then(|| place.clone());
        }
        self.0.insert(path, (place.to_owned(), line));
        None
    }
}

/// The first account of a line that the image does not have, unless only the node knows its name.
fn stranger(text: &[u8], accounts: &Accounts) -> Option<String> {
    let line = Line::parse(text).ok()?;
    let name = |field: &[u8]| show(field.strip_prefix(b":").unwrap_or(field));
    let (user, group) = (name(&line.user), name(&line.group));
    let unknown = |name: &str, id: Option<u32>| {
        !name.is_empty() && name != "root" && !name.contains('%') && id.is_none()
    };
    if unknown(&user, accounts.uid(&user)) {
        return Some(format!("user {user}"));
    }
    unknown(&group, accounts.gid(&group)).then(|| format!("group {group}"))
}

/// Who has brought a file.
struct Place {
    origin: String,
    of_user: bool,
}

impl Place {
    fn of(tree: &Tree, path: &str) -> Self {
        let Ok(id) = tree.resolve(path) else { return Self { origin: String::new(), of_user: false } };
        let node = tree.node(id);
        Self { origin: tree.origin_name(node.origin).to_owned(), of_user: tree.is_users(id) }
    }
}
