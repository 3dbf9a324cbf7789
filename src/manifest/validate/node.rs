//! What the node does: units, kernel, health, key-value store, disk, updates.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::{At, Firsts, Kind, Validator, containers, or, text};
use crate::base::Size;
use crate::base::duration::INTERVAL;
use crate::manifest::decode::Short;
use crate::manifest::raw::{Cluster, RawDisk, RawHealth, RawKernel, RawKv, RawServices, RawUpdate};
use crate::manifest::{Disk, Etcd, Health, InitramfsModules, Kernel, Kv, Services, Update};

/// Two kernel images of up to 100 MiB and the boot loader have room.
const LEAST_ESP: Size = Size::mib(64);

/// FAT32 has at least 65,525 clusters (Microsoft's FAT specification, section 3.5); with sectors of 4096 bytes
/// these alone are 256 MiB.
const LEAST_ESP_4K: Size = Size::mib(272);

/// The smallest Debian with systemd is larger.
const LEAST_ROOT: Size = Size::mib(64);

/// mke2fs gives smaller file systems a journal too small for a busy node.
const LEAST_STATE: Size = Size::mib(64);

/// Health is checked until two minutes after the start, unless said otherwise: a slow disk and an emulated
/// processor make it in one.
const DEADLINE_SECONDS: u64 = 120;
/// A unit that crashes and starts anew is active most of the time, but not for so long: systemd's own pause between
/// two starts is 0.1 to a few seconds.
const STABLE_SECONDS: u64 = 5;

/// A boot that takes longer than a day is none.
const HEALTH: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(86_400);

/// A look at the repository costs a file of about a kilobyte.
const INTERVAL_SECONDS: u64 = 3600;

impl Validator<'_> {
    pub(super) fn services(&mut self, raw: RawServices) -> Services {
        let masked: Vec<At<String>> = raw.mask.clone();
        for at in &raw.enable {
            if let Some(mask) = masked.iter().find(|mask| mask.value == at.value) {
                self.error(at.mark, format!("`{}` is enabled and masked", at.value))
                    .help("remove one of the two")
                    .related(mask.mark, "it is masked here");
            }
        }
        Services {
            enable: self.list(raw.enable, text::unit),
            mask: self.list(raw.mask, text::unit_or_generator),
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
            load: self.list(raw.load, text::module),
        }
    }

    pub(super) fn kv(&mut self, raw: RawKv) -> Option<Kv> {
        let At { value: etcd, mark } = raw.etcd;
        match (or(etcd.cluster, Cluster::Single), etcd.members.first()) {
            (Cluster::Single, Some(member)) => {
                self.error(member.mark, "a single etcd has no members")
                    .help("add `cluster: static`, or remove `members`");
            }
            (Cluster::Static, None) => {
                self.error(mark, "a static cluster has no members")
                    .help("add `members: [{name: …, peer: \"http://…:2380\"}]`");
            }
            _ => {}
        }
        let (mut names, mut peers) = (Firsts::new(), Firsts::new());
        let mut members = BTreeMap::new();
        for At { value: member, mark } in etcd.members {
            for (first, what) in [
                (names.note(member.name.value.clone(), mark), &member.name),
                (peers.note(member.peer.value.clone(), mark), &member.peer),
            ] {
                if let Some(first) = first {
                    self.error(what.mark, format!("`{}` stands here a second time", what.value))
                        .related(first, "the first is here");
                }
            }
            let name = self.checked(member.name, text::id);
            let peer = self.checked(member.peer, |text| text::url(text, &["http", "https"]));
            members.extend(name.zip(peer));
        }
        Some(Kv::Etcd(Etcd { members }))
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
            Some(at) => containers::plain(at.value),
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
        Health {
            units: self.list(raw.units, text::unit),
            etcd: or(raw.etcd, false),
            containers: or(raw.containers, true),
            command,
            stable_seconds,
            deadline_seconds,
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
        let mut size = |at: Option<At<String>>, least, default| {
            at.and_then(|at| self.form(&at, |text| text::size(text, least))).unwrap_or(default)
        };
        Disk {
            esp: size(raw.esp, least_esp, Size::mib(512)),
            root: size(raw.root, LEAST_ROOT, Size::mib(1024)),
            state_min: size(raw.state.min, LEAST_STATE, Size::mib(512)),
            filesystem: or(raw.filesystem, Default::default()),
            state_grow: or(raw.state.grow, true),
            sector_size,
        }
    }

    pub(super) fn update(&mut self, raw: RawUpdate) -> Option<Update> {
        let url = self.checked(raw.url, |text| text::url(text, &["http", "https"]));
        let keys = self.beside_on_disk(&raw.keys, &[Kind::Folder]);
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
