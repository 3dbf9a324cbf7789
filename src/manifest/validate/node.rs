//! What the node does: units, kernel, health, key-value store, disk, updates.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::{At, Kind, Validator, containers, or, text};
use crate::base::duration::INTERVAL;
use crate::base::{Size, input, limits};
use crate::manifest::files::Location;
use crate::manifest::raw::{Cluster, RawDisk, RawHealth, RawKernel, RawKv, RawNode, RawServices, RawUpdate};
use crate::manifest::{
    Disk, GIVE_UP_AFTER, Health, InitramfsModules, Kernel, Kv, MOST_STARTS, Services, Update,
};
use crate::node::signature::PublicKey;
use crate::node::{self, Interface, Policy, RawNetwork};
use crate::written::decode::Short;
use crate::written::firsts::unique;
use crate::written::place::Mark;

/// Two kernel images of up to 100 MiB and the boot loader have room.
const LEAST_ESP: Size = Size::mib(64);

/// FAT32 has at least 65,525 clusters (Microsoft's FAT specification, section 3.5); with sectors of 4096 bytes
/// these alone are 256 MiB.
const LEAST_ESP_4K: Size = Size::mib(272);

/// The smallest Debian with systemd is larger.
const LEAST_ROOT: Size = Size::mib(64);

/// mke2fs gives smaller file systems a journal too small for a busy node.
const LEAST_STATE: Size = Size::mib(64);

/// Of its 57 MiB of room, the half for updates holds a kernel image of 20 MiB, which the default node has.
const LEAST_RESERVE: Size = Size::mib(64);

/// Of its 237 MiB of room, the half for updates holds a kernel image with all drivers and microcode (66 MiB) and
/// its successor's records; the half for the journal is some weeks of a quiet node.
const RESERVE: Size = Size::mib(256);

/// Health is checked until two minutes after the start, unless said otherwise: a slow disk and an emulated
/// processor make it in one.
const DEADLINE_SECONDS: u64 = 120;
/// A unit that crashes and starts anew is active most of the time, but not for so long: systemd's own pause between
/// two starts is 0.1 to a few seconds.
const STABLE_SECONDS: u64 = 5;

/// A boot that takes longer than a day is none.
const HEALTH: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(86_400);

/// What reads `network`.
const NETWORKD: &str = "systemd-networkd.service";

/// What `kv` enables.
const ETCD: &str = "etcd.service";

/// A look at the repository costs a file of about a kilobyte.
const INTERVAL_SECONDS: u64 = 3600;

impl Validator<'_> {
    /// `kv` is where the manifest asks for etcd, whose unit is then enabled.
    pub(super) fn services(&mut self, mut raw: RawServices, kv: Option<Mark>) -> Services {
        if let Some(mark) = kv.filter(|_| raw.enable.iter().all(|at| at.value != ETCD)) {
            raw.enable.push(At { value: ETCD.to_owned(), mark });
        }
        let masked: Vec<At<String>> = raw.mask.clone();
        for at in &raw.enable {
            if let Some(mask) = masked.iter().find(|mask| mask.value == at.value) {
                self.error(at.mark, format!("`{}` is enabled and masked", at.value))
                    .help("remove one of the two")
                    .related(mask.mark, "it is masked here");
            }
        }
        Services {
            enable: self.names("services.enable", raw.enable, text::unit),
            mask: self.names("services.mask", raw.mask, text::unit_or_generator),
        }
    }

    /// Interfaces of all nodes.
    pub(super) fn interfaces(&mut self, raw: RawNetwork, services: &Services) -> Vec<Interface> {
        let first = raw.first();
        let interfaces = node::interfaces(raw, self.report);
        if let Some(mark) = first.filter(|_| !services.enable.iter().any(|unit| unit == NETWORKD)) {
            self.error(mark, format!("`network` is for {NETWORKD}, which nothing enables")).help(format!(
                "include keller:manifests/components/base.yaml, or add {NETWORKD} to `services.enable`"
            ));
        }
        interfaces
    }

    /// Who may give a node its document.
    pub(super) fn node(&mut self, raw: RawNode) -> Policy {
        let RawNode { sources, keys } = raw;
        let sources = sources.map(|sources| unique(sources.into_iter().map(|at| at.value).collect()));
        let keys: Vec<PublicKey> = keys.iter().filter_map(|at| self.public_key(at)).collect();
        Policy { sources, keys: unique(keys) }
    }

    fn public_key(&mut self, at: &At<String>) -> Option<PublicKey> {
        let path = self.beside_on_disk(at, &[Kind::File])?;
        let shown = self.sources.location(at.mark).resolve(&at.value);
        let read = input::read(&path, limits::TEXT).map_err(|error| error.to_string());
        match read.and_then(|bytes| PublicKey::from_pem(&bytes)) {
            Ok(key) => Some(key),
            Err(problem) => {
                self.error(at.mark, format!("{shown} is no public key: {problem}"))
                    .help("`keller node keygen` makes a pair; the file that ends with .pub belongs here");
                None
            }
        }
    }

    pub(super) fn kernel(&mut self, raw: RawKernel) -> Kernel {
        let initramfs_modules = match raw.initramfs_modules.map(|at| (at.mark, at.value)) {
            None => InitramfsModules::Auto,
            Some((_, Short::Text(word))) if word == "auto" => InitramfsModules::Auto,
            Some((mark, Short::Text(word))) => {
                self.error(mark, format!("`kernel.initramfs_modules` cannot be `{word}`"))
                    .help(format!("`auto`, or a list: `[{word}]`"));
                InitramfsModules::Auto
            }
            Some((_, Short::Long(list))) => InitramfsModules::List(self.list(list, text::module)),
        };
        Kernel {
            cmdline: self.list(raw.cmdline, text::cmdline_word),
            initramfs_modules,
            load: self.names("kernel.load", raw.load, text::module),
        }
    }

    /// Whether etcd runs on this node. Which cluster it is in, and with whom, differs from node to node, so that only a node
    /// document can say it.
    pub(super) fn kv(&mut self, raw: RawKv) -> Option<Kv> {
        let At { value: etcd, .. } = raw.etcd;
        let cluster = etcd.cluster.as_ref().filter(|at| at.value == Cluster::Static);
        if let Some(mark) = cluster.map(|at| at.mark).or(etcd.members.first().map(|at| at.mark)) {
            self.error(mark, "an image is one for all nodes, and cannot say which member of a cluster each of them is").help(
                "write `kv: {etcd: {cluster: single}}`; `keller cluster init` makes node documents, and a node that has one \
                 is a member: docs/cluster.md",
            );
        }
        Some(Kv::Etcd)
    }

    pub(super) fn health(&mut self, raw: RawHealth, kv: bool) -> Health {
        if let Some(at) = raw.etcd.as_ref().filter(|at| at.value && !kv) {
            self.error(at.mark, "`health.etcd` waits for an etcd that is not there")
                .help("add `kv: {etcd: {}}`");
        }
        let command = match raw.command {
            Some(At { value, mark }) if value.is_empty() => {
                self.error(mark, "the command is empty")
                    .help("remove it, or name a program and its arguments");
                Vec::new()
            }
            Some(at) => {
                let program = &at.value[0];
                self.note("health.command", &program.value, program.mark);
                containers::plain(at.value)
            }
            None => Vec::new(),
        };
        let mut seconds = |at: &Option<At<String>>, default| {
            at.as_ref().and_then(|at| self.form(at, |text| text::duration(text, &HEALTH))).unwrap_or(default)
        };
        let deadline_seconds = seconds(&raw.deadline, DEADLINE_SECONDS);
        let stable_seconds = seconds(&raw.stable, STABLE_SECONDS);
        if let Some(at) = raw.stable.or(raw.deadline).filter(|_| stable_seconds >= deadline_seconds) {
            let problem = format!(
                "no unit can be stable for {stable_seconds}s within the {deadline_seconds}s of the deadline"
            );
            self.error(at.mark, problem).help("the start itself takes time, too: a longer `deadline`");
        }
        let give_up_after = match raw.give_up_after {
            Some(at) if !(1..=MOST_STARTS).contains(&at.value) => {
                self.error(at.mark, format!("a new version is not given up after {} starts", at.value))
                    .help(format!("from 1 to {MOST_STARTS}, which is how often a new version is tried"));
                GIVE_UP_AFTER
            }
            at => or(at, GIVE_UP_AFTER),
        };
        Health {
            units: self.names("health.units", raw.units, text::unit),
            etcd: or(raw.etcd, false),
            containers: or(raw.containers, true),
            network: or(raw.network, false),
            command,
            stable_seconds,
            deadline_seconds,
            give_up_after,
        }
    }

    pub(super) fn disk(&mut self, raw: RawDisk) -> Disk {
        let sector_size = match raw.sector_size {
            None => 512,
            Some(at) if matches!(at.value, 512 | 4096) => at.value,
            Some(at) => {
                self.error(at.mark, format!("disks have no sectors of {} bytes", at.value))
                    .help("512 or 4096");
                512
            }
        };
        let least_esp = if sector_size == 4096 { LEAST_ESP_4K } else { LEAST_ESP };
        let reserve =
            raw.reserve.and_then(|at| self.form(&at, |text| text::size_or_none(text, LEAST_RESERVE)));
        let reserve = reserve.unwrap_or(Some(RESERVE));
        let mut size = |at: Option<At<String>>, least, default| {
            at.and_then(|at| self.form(&at, |text| text::size(text, least))).unwrap_or(default)
        };
        Disk {
            esp: size(raw.esp, least_esp, Size::mib(512)),
            root: size(raw.root, LEAST_ROOT, Size::mib(1024)),
            reserve,
            state_min: size(raw.state.min, LEAST_STATE, Size::mib(512)),
            filesystem: or(raw.filesystem, Default::default()),
            state_grow: or(raw.state.grow, true),
            sector_size,
        }
    }

    /// The directory of the keys that sign updates: it has a root of trust, which only `keller keys` makes.
    fn keys(&mut self, at: &At<String>) -> Option<PathBuf> {
        let location = self.sources.location(at.mark).resolve(&at.value);
        if let Location::Disk(path) = &location
            && !path.join("root.json").is_file()
        {
            let problem = match path.is_dir() {
                true => format!("{location} has no root.json"),
                false => format!("there is no directory {location} of keys"),
            };
            self.error(at.mark, problem)
                .help(format!("`keller keys init {location}` makes keys that sign updates"));
            return None;
        }
        self.beside_on_disk(at, &[Kind::Folder])
    }

    pub(super) fn update(&mut self, raw: RawUpdate) -> Option<Update> {
        let url = self.checked(raw.url, |text| text::url(text, &["http", "https"]));
        let keys = self.keys(&raw.keys);
        let channel = match raw.channel {
            None => Some("stable".to_owned()),
            Some(at) => self.checked(at, text::id),
        };
        let window = raw.window.and_then(|at| self.form(&at, text::window));
        let interval = raw.interval.and_then(|at| self.form(&at, |text| text::duration(text, &INTERVAL)));
        Some(Update {
            url: url?,
            keys: keys?,
            channel: channel?,
            automatic: or(raw.automatic, false),
            window,
            interval_seconds: interval.unwrap_or(INTERVAL_SECONDS),
        })
    }
}
