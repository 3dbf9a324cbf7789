//! Written → meant: defaults, forms of values, and values that make no sense together. All findings are
//! collected; a manifest comes out only when there are none.

mod accounts;
mod containers;
mod content;
mod node;
mod recipe;
pub(super) mod text;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::files::{Kind, Location};
use super::raw::{Raw, RawDebian, RawDisk, RawNetboot};
use super::sources::Sources;
use super::{Debian, Manifest, Output, Place, Repository, Said};
use crate::written::decode::At;
use crate::written::diagnostic::{Problem, Report};
use crate::written::firsts::{Firsts, unique};
use crate::written::form::Wrong;
use crate::written::place::Mark;
use accounts::Accounts;
use recipe::Target;

/// The form of manifests that this keller reads.
pub(super) const FORM: u32 = 1;

/// GPT names have 36 characters; the longest of ours is `<id>_<version>_verity`.
pub(super) const LABEL_ROOM: usize = 36 - "_".len() - "_verity".len();

/// Whether id and version can name partitions together.
pub(super) fn fits_label(id: &str, version: &str) -> bool {
    id.len() + version.len() <= LABEL_ROOM
}

pub(super) struct Validator<'a> {
    pub sources: &'a mut Sources,
    pub report: &'a mut Report,
    said: Said,
}

/// Defaults to true, false and so on where nothing is written.
fn or<T>(value: Option<At<T>>, default: T) -> T {
    value.map_or(default, |at| at.value)
}

impl<'a> Validator<'a> {
    pub(super) fn new(sources: &'a mut Sources, report: &'a mut Report) -> Self {
        Self { sources, report, said: Said::default() }
    }
}

impl Validator<'_> {
    /// Remembers where `field` says `name`.
    fn note(&mut self, field: &str, name: &str, mark: Mark) {
        let carried = self.is_carried(mark);
        let place = self.place(mark);
        self.said.note(field, name, place, carried);
    }

    /// Whether keller carries the file of `mark`.
    fn is_carried(&self, mark: Mark) -> bool {
        matches!(self.sources.location(mark).identity(), Location::Embedded(_))
    }

    /// As [`Self::list`], and the places are remembered under `field`.
    fn names(
        &mut self,
        field: &str,
        items: Vec<At<String>>,
        form: impl Fn(&str) -> Result<(), Wrong>,
    ) -> Vec<String> {
        for at in &items {
            self.note(field, &at.value, at.mark);
        }
        self.list(items, form)
    }

    fn error(&mut self, mark: Mark, message: impl Into<String>) -> &mut Problem {
        self.report.error(mark, message)
    }

    /// The value that `form` makes of the text; else the reason is reported.
    fn form<T>(&mut self, at: &At<String>, form: impl FnOnce(&str) -> Result<T, Wrong>) -> Option<T> {
        self.report.form(at, form)
    }

    /// The text itself when it has this form.
    fn checked(&mut self, at: At<String>, form: impl FnOnce(&str) -> Result<(), Wrong>) -> Option<String> {
        self.report.checked(at, form)
    }

    /// All texts of this form, each once.
    fn list(&mut self, items: Vec<At<String>>, form: impl Fn(&str) -> Result<(), Wrong>) -> Vec<String> {
        unique(items.into_iter().filter_map(|at| self.checked(at, &form)).collect())
    }

    /// A reason for each key of this form.
    fn reasons(
        &mut self,
        items: BTreeMap<String, At<String>>,
        form: impl Fn(&str) -> Result<(), Wrong>,
    ) -> BTreeMap<String, String> {
        let mut reasons = BTreeMap::new();
        for (key, reason) in items {
            if reason.value.trim().is_empty() {
                self.error(reason.mark, format!("`{key}` has no reason"))
                    .help("say why, for those who read it later");
            }
            let key = At { value: key, mark: reason.mark };
            if let Some(key) = self.checked(key, &form) {
                reasons.insert(key, reason.value);
            }
        }
        reasons
    }

    /// What `at` names, beside the file that says so; reported unless it is of this kind.
    fn beside(&mut self, at: &At<String>, kinds: &[Kind]) -> Option<Location> {
        let location = self.sources.location(at.mark).resolve(&at.value);
        let wanted = match kinds {
            [Kind::File] => "file",
            [Kind::Folder] => "directory",
            _ => "file or directory",
        };
        match location.kind() {
            Some(kind) if kinds.contains(&kind) => Some(location),
            Some(_) => {
                self.error(at.mark, format!("{location} is not a {wanted}"));
                None
            }
            None => {
                self.error(at.mark, format!("there is no {wanted} {location}")).help(
                    "paths are relative to the file that names them; `keller:…` names what keller carries",
                );
                None
            }
        }
    }

    /// As [`Self::beside`], but on disk only.
    fn beside_on_disk(&mut self, at: &At<String>, kinds: &[Kind]) -> Option<PathBuf> {
        match self.beside(at, kinds)?.identity() {
            Location::Disk(path) => Some(path),
            Location::Embedded(_) => {
                self.error(at.mark, "this must be on disk, not inside keller")
                    .help("name a path beside the manifest");
                None
            }
        }
    }

    fn place(&self, mark: Mark) -> Place {
        self.sources.place(mark)
    }

    /// The whole manifest. It is worth something only when nothing was reported.
    pub(super) fn manifest(&mut self, raw: Raw, top: Mark, folder: &Path) -> Manifest {
        let (id, version) = self.identity(&raw, top);
        let mut accounts = Accounts::default();
        let users = self.users(raw.users, &mut accounts);
        let recipe = self.recipe(raw.recipe, accounts, Target::Node);
        if let Some(at) = &raw.runtime {
            self.note("runtime", "", at.mark);
        }
        let runtime = or(raw.runtime.clone(), Default::default());
        let containers = self.containers(raw.containers, raw.runtime.as_ref().map(|at| at.mark), runtime);
        let services = self.services(raw.services, raw.kv.as_ref().map(|kv| kv.etcd.mark));
        let kv = raw.kv.and_then(|kv| self.kv(kv));
        let interfaces = self.interfaces(raw.network, &services);
        let outputs = self.outputs(raw.outputs, &raw.disk);
        Manifest {
            folder: folder.to_owned(),
            id,
            version,
            debian: self.debian(raw.debian),
            recipe,
            users,
            services,
            kernel: self.kernel(raw.kernel),
            interfaces,
            etc: or(raw.etc, Default::default()),
            runtime,
            containers,
            health: self.health(raw.health, kv.is_some()),
            kv,
            disk: self.disk(raw.disk),
            node: self.node(raw.node),
            update: raw.update.and_then(|at| self.update(at.value)),
            netboot_url: raw.netboot.and_then(|at| self.netboot(at, &outputs)),
            outputs,
            said: std::mem::take(&mut self.said),
        }
    }

    /// The formats, each once. Two kinds of disks have sectors of 512 bytes on every platform that takes them.
    fn outputs(&mut self, raw: Vec<At<Output>>, disk: &RawDisk) -> Vec<Output> {
        let large = disk.sector_size.as_ref().is_some_and(|at| at.value == 4096);
        for at in &raw {
            let name = match at.value {
                Output::Vmdk => "vmdk",
                Output::Vhd => "vhd",
                Output::VhdFixed => "vhd-fixed",
                Output::Raw | Output::Qcow2 | Output::RawZst => continue,
                Output::Netboot | Output::Iso | Output::NetbootHttp => continue,
            };
            if large {
                let message = format!("`{name}` has sectors of 512 bytes, and `disk.sector_size` is 4096");
                self.error(at.mark, message)
                    .help("leave one of the two out: firmware would find no partitions");
            }
        }
        let outputs = unique(raw.into_iter().map(|at| at.value).collect());
        if outputs.is_empty() { vec![Output::Raw] } else { outputs }
    }

    /// The directory of the image for those that fetch it.
    fn netboot(&mut self, at: At<RawNetboot>, outputs: &[Output]) -> Option<String> {
        if !outputs.contains(&Output::NetbootHttp) {
            self.error(at.mark, "`netboot` is for the output `netboot-http`, which `outputs` does not have")
                .help("add it to `outputs`, or leave `netboot` out");
        }
        let url = at.value.url;
        if url.value.starts_with("https:") {
            self.error(url.mark, "`netboot.url` is https, which the small kernel image does not speak")
                .help("write http: the SHA-256 in the kernel image pins the image, whoever sends it");
            return None;
        }
        self.checked(url, |text| text::url(text, &["http"]))
    }

    fn identity(&mut self, raw: &Raw, top: Mark) -> (String, String) {
        match &raw.keller {
            Some(form) if form.value == FORM => {}
            Some(form) => {
                let message = format!("this keller reads manifests of form {FORM}, not {}", form.value);
                self.error(form.mark, message).help("another version of keller may read it");
            }
            None => {
                self.error(top, "the manifest has no `keller`").help(format!("begin with `keller: {FORM}`"));
            }
        }
        let mut named = |field: &str,
                         at: &Option<At<String>>,
                         form: fn(&str) -> Result<(), Wrong>,
                         example: &str| match at {
            Some(at) => self.form(at, form).map(|()| at.value.clone()).unwrap_or_default(),
            None => {
                self.error(top, format!("the manifest has no `{field}`"))
                    .help(format!("add `{field}: {example}`"));
                String::new()
            }
        };
        let id = named("id", &raw.id, text::id, "node");
        let version = named("version", &raw.version, text::version, "1.0.0");
        if let Some(at) = &raw.version
            && !fits_label(&id, &version)
        {
            self.error(at.mark, "id and version are too long together")
                .help(format!("at most {LABEL_ROOM} characters: they name partitions"));
        }
        (id, version)
    }

    fn debian(&mut self, raw: RawDebian) -> Debian {
        let mut mirror = |at: Option<At<String>>| {
            at.and_then(|at| self.checked(at, |text| text::url(text, &["http", "https", "file"])))
        };
        let (main, security_mirror) = (mirror(raw.mirror), mirror(raw.security_mirror));
        let suite = raw.suite.and_then(|at| self.checked(at, text::suite)).unwrap_or_else(|| "trixie".into());
        let mut components = self.list(raw.components, text::component);
        if components.is_empty() {
            components.push("main".into());
        }
        let mut names = Firsts::new();
        let mut repositories = Vec::new();
        for At { value: raw, mark: whole } in raw.repositories {
            let mark = raw.name.mark;
            if let Some(first) = names.note(raw.name.value.clone(), mark) {
                self.error(mark, format!("the repository `{}` stands here a second time", raw.name.value))
                    .related(first, "the first is here");
            }
            if ["debian", "security"].contains(&raw.name.value.as_str()) {
                self.error(mark, format!("`{}` is the name of one of Debian's own archives", raw.name.value))
                    .help("choose another; it only stands in the lock");
            }
            match (raw.suite.value.ends_with('/'), raw.components.first()) {
                (false, None) => {
                    self.error(whole, "the repository has no components").help(
                        "such as `components: [main]`; of a flat archive, `suite` ends in a slash, such as `./`",
                    );
                }
                (true, Some(first)) => {
                    self.error(first.mark, "a flat archive has no components").help("leave them out");
                }
                _ => {}
            }
            let name = self.checked(raw.name, text::id);
            let url = self.checked(raw.url, |text| text::url(text, &["http", "https", "file"]));
            let suite = self.checked(raw.suite, text::suite);
            let components = self.list(raw.components, text::component);
            let keys = self.beside_on_disk(&raw.keys, &[Kind::File]);
            if let (Some(name), Some(url), Some(suite), Some(keys)) = (name, url, suite, keys) {
                repositories.push(Repository { name, url, suite, components, keys });
            }
        }
        let keys = raw.keys.and_then(|at| self.beside_on_disk(&at, &[Kind::File]));
        Debian {
            suite,
            components,
            updates: or(raw.updates, true),
            security: or(raw.security, true),
            mirror: main,
            security_mirror,
            allow_expired: or(raw.allow_expired, false),
            keys,
            repositories,
        }
    }
}
