//! A small Debian archive with real packages, signed on the spot, as files below its root.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use keller::base::Digest;
use sequoia_openpgp::Cert;
use sequoia_openpgp::types::HashAlgorithm;

use super::elf;
use crate::deb::{Entry, ar, file, tar, xz};
use crate::judges::uki;
use crate::repository::{DATE, DAY, Release, key, sign};

/// The key of the archive, which lives long.
pub static KEY: LazyLock<Cert> = LazyLock::new(|| key(365 * 50));

/// When releases are made: long enough ago for any clock.
pub const RELEASED: i64 = DATE - 300 * DAY;

/// Release of the kernel in the archive.
pub const KERNEL: &str = "6.12.0-tiny";

/// A package that is still open to changes.
#[derive(Clone)]
pub struct Package {
    pub name: &'static str,
    pub version: &'static str,
    /// Further lines of its paragraph.
    pub fields: String,
    /// Path, kind, target of a link, body.
    files: Vec<(String, u8, String, Vec<u8>)>,
    scripts: Vec<(&'static str, &'static str)>,
}

impl Package {
    pub fn new(name: &'static str, version: &'static str) -> Self {
        Self { name, version, fields: String::new(), files: Vec::new(), scripts: Vec::new() }
    }

    pub fn field(mut self, line: &str) -> Self {
        self.fields += &format!("{line}\n");
        self
    }

    pub fn file(mut self, path: &str, body: impl Into<Vec<u8>>) -> Self {
        self.files.push((format!("./{path}"), b'0', String::new(), body.into()));
        self
    }

    pub fn link(mut self, path: &str, target: &str) -> Self {
        self.files.push((format!("./{path}"), b'2', target.to_owned(), Vec::new()));
        self
    }

    /// A member of any kind under any name.
    pub fn member(mut self, path: &str, kind: u8, target: &str) -> Self {
        self.files.push((path.to_owned(), kind, target.to_owned(), Vec::new()));
        self
    }

    pub fn script(mut self, name: &'static str, text: &'static str) -> Self {
        self.scripts.push((name, text));
        self
    }

    fn control(&self) -> String {
        let Self { name, version, fields, .. } = self;
        format!("Package: {name}\nVersion: {version}\nArchitecture: amd64\nInstalled-Size: 64\n{fields}")
    }

    /// The .deb.
    pub fn deb(&self) -> Vec<u8> {
        let entries: Vec<Entry<'_>> = self
            .files
            .iter()
            .map(|(path, kind, target, body)| {
                (path.as_str(), *kind, target.as_str(), body.len() as u64, body.as_slice())
            })
            .collect();
        let control = self.control();
        let mut members = vec![file("./control", control.as_bytes())];
        members.extend(self.scripts.iter().map(|(name, text)| file(name, text.as_bytes())));
        ar(&[
            ("debian-binary", b"2.0\n"),
            ("control.tar.xz", &xz(&tar(&members))),
            ("data.tar.xz", &xz(&tar(&entries))),
        ])
    }
}

/// One suite and its pool.
pub struct Archive {
    pub release: Release,
    /// Paragraph and .deb by path below the root.
    pub pool: BTreeMap<String, (String, Vec<u8>)>,
}

impl Archive {
    /// A suite `trixie` with these packages, signed by `key`.
    pub fn new(key: &Cert, packages: &[Package]) -> Self {
        let release =
            Release { date: RELEASED, valid_until: None, by_hash: false, ..Release::new("trixie", key, "") };
        let mut archive = Self { release, pool: BTreeMap::new() };
        for package in packages {
            archive.add(package);
        }
        archive
    }

    /// Adds a package; another version of it stays.
    pub fn add(&mut self, package: &Package) {
        self.add_deb(package, package.deb());
    }

    /// Adds `package` with these bytes as its .deb.
    pub fn add_deb(&mut self, package: &Package, deb: Vec<u8>) {
        let path = format!("pool/main/{}_{}_amd64.deb", package.name, package.version);
        self.pool.insert(path, (package.control(), deb));
    }

    /// All files by path below the root.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let paragraph = |(path, (control, deb)): (&String, &(String, Vec<u8>))| {
            format!("{control}Filename: {path}\nSize: {}\nSHA256: {}\n\n", deb.len(), Digest::of(deb))
        };
        let index: String = self.pool.iter().map(paragraph).collect();
        self.files_with(xz(index.as_bytes()))
    }

    /// All files, with the index `index`, compressed by xz.
    pub fn files_with(&self, index: Vec<u8>) -> BTreeMap<String, Vec<u8>> {
        let indexes = BTreeMap::from([("main/binary-amd64/Packages.xz".to_owned(), index)]);
        let text = self.release.text(&indexes);
        let signed = sign(&[&self.release.key], &text, self.release.date, HashAlgorithm::SHA256);
        let debs = self.pool.iter().map(|(path, (_, deb))| (path.clone(), deb.clone()));
        let mut files: BTreeMap<_, _> = debs.collect();
        files.insert("dists/trixie/InRelease".to_owned(), signed);
        files.extend(indexes.into_iter().map(|(path, bytes)| (format!("dists/trixie/{path}"), bytes)));
        files
    }

    /// Writes all files below `root`.
    pub fn write(&self, root: &Path) {
        Self::write_files(self.files(), root);
    }

    /// Writes `files` below `root`.
    pub fn write_files(files: BTreeMap<String, Vec<u8>>, root: &Path) {
        for (path, bytes) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }
}

/// A system that boots as far as keller can tell: kernel, boot loader, an init, a service with a library.
pub fn packages() -> Vec<Package> {
    let module = |path: &str, info: &[&str], exports: &[&str], needs: &[&str]| {
        (format!("usr/lib/modules/{KERNEL}/kernel/{path}.ko.xz"), xz(&elf::module(info, exports, needs)))
    };
    let modules = [
        module("drivers/md/dm-mod", &["alias=devname:mapper/control"], &["dm_get"], &[]),
        module("drivers/md/dm-verity", &["softdep=pre: sha256_ssse3"], &[], &["dm_get"]),
        module("fs/erofs/erofs", &["alias=fs-erofs"], &[], &["netfs_read"]),
        module("fs/netfs/netfs", &[], &["netfs_read"], &[]),
        module("fs/overlayfs/overlay", &["alias=fs-overlay"], &[], &[]),
        module("drivers/block/virtio_blk", &["alias=virtio:d00000002v*"], &[], &[]),
        module("drivers/net/virtio_net", &["alias=virtio:d00000001v*"], &[], &[]),
    ];
    let folder = format!("usr/lib/modules/{KERNEL}");
    let mut kernel = Package::new("linux-image-tiny", "6.12-1")
        .file(&format!("boot/vmlinuz-{KERNEL}"), uki::program())
        .file(&format!("{folder}/modules.order"), "kernel/drivers/md/dm-mod.ko\n")
        .file(&format!("{folder}/modules.builtin"), "kernel/drivers/block/loop.ko\nkernel/fs/ext4/ext4.ko\n")
        .file(&format!("{folder}/modules.builtin.modinfo"), "ext4.alias=fs-ext4\0")
        .script("postinst", "#!/bin/sh\nupdate-initramfs -u\n");
    for (path, body) in modules {
        kernel = kernel.file(&path, body);
    }
    let unit = "usr/lib/systemd/system";
    vec![
        Package::new("base-files", "13")
            .link("bin", "usr/bin")
            .link("sbin", "usr/sbin")
            .link("lib", "usr/lib")
            .link("lib64", "usr/lib64")
            .member("./usr/bin", b'5', "")
            .member("./usr/sbin", b'5', "")
            .member("./usr/lib64", b'5', "")
            .file("usr/lib/os-release", "ID=debian\nVERSION_CODENAME=trixie\nDEBIAN_VERSION_FULL=13.1\n")
            .file("usr/share/doc/base-files/changelog", "nothing\n"),
        kernel,
        Package::new("systemd", "257.8-1")
            .file("usr/bin/systemctl", elf::program())
            .field("Depends: libnss-systemd")
            .link("usr/sbin/init", "../bin/systemctl")
            .file(&format!("{unit}/multi-user.target"), "[Unit]\nDescription=everything\n")
            .file("usr/lib/sysusers.d/systemd.conf", "g systemd-journal - -\nu systemd-network 998\n")
            // A container wants its engine.
            .file("usr/bin/podman", elf::program()),
        Package::new("systemd-boot-efi", "257.8-1")
            .file("usr/lib/systemd/boot/efi/linuxx64.efi.stub", uki::program())
            .file("usr/lib/systemd/boot/efi/systemd-bootx64.efi", uki::program()),
        greeter("2.0-1"),
        Package::new("libnss-systemd", "257.8-1")
            .file("usr/lib/x86_64-linux-gnu/libnss_systemd.so.2", elf::program()),
        Package::new("libgreet1", "2.0-1").file("usr/share/greet/words", "hello\n"),
    ]
}

/// The package that there are several versions of.
pub fn greeter(version: &'static str) -> Package {
    Package::new("greeter", version)
        .field("Depends: libgreet1 (>= 2.0)")
        .file("usr/bin/greet", elf::program())
        .file("usr/share/greet/version", format!("{version}\n"))
        .file(
            "usr/lib/systemd/system/greet.service",
            "[Service]\nExecStart=/usr/bin/greet\n[Install]\nWantedBy=multi-user.target\n",
        )
        .script("postinst", "#!/bin/sh\nadduser --system greet\n")
}
