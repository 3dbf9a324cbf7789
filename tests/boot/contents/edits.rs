//! Every way in which a root differs from the packages that it is made of. What is not here is a bug.
//!
//! Overlays and `files:` need no row, since what they bring is compared to the byte, nor do the manifest's
//! `prune:` patterns.

/// What was done to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edit {
    /// It is in no package.
    Added,
    /// It is in a package, but not in the root.
    Removed,
    /// It differs in these fields and no other.
    Changed(&'static [&'static str]),
}

use Edit::{Added, Changed, Removed};

/// A pattern as in `prune:`, what was done, and why.
pub type Row = (&'static str, Edit, &'static str);

/// The root of the node.
pub const NODE: &[Row] = &[
    // What maintainer scripts would have made.
    (
        "etc/{passwd,group,shadow,gshadow,subuid,subgid}",
        Added,
        "base-passwd's postinst: Debian's static accounts",
    ),
    ("usr/lib/userdb{,/*}", Added, "sysusers.d and `users:`: all other accounts"),
    ("etc/pam.d/common-*", Added, "pam-auth-update"),
    ("etc/ssl/certs/ca-certificates.crt", Added, "update-ca-certificates"),
    ("etc/ld.so.cache", Added, "ldconfig"),
    ("usr/lib/modules/*/modules.*", Added, "depmod"),
    ("usr/{bin/awk,bin/nawk,bin/pager,bin/which,sbin/rmt}", Added, "update-alternatives"),
    ("etc/{motd,profile}", Added, "base-files' postinst"),
    ("etc/dpkg/origins/default", Added, "base-files' postinst"),
    (
        "etc/{default/keyboard,default/locale,environment,fstab,hosts,locale.conf,localtime}",
        Added,
        "defaults",
    ),
    ("etc/{modules,mtab,nsswitch.conf,resolv.conf,shells,vconsole.conf}", Added, "defaults"),
    ("etc/ssh/sshd_config", Added, "openssh-server's postinst"),
    ("etc/credstore{,.encrypted}", Changed(&["mode"]), "tmpfiles.d/credstore.conf, done at build time"),
    // Which units start.
    ("usr/lib/systemd/system/*.{wants,requires}{,/*}", Added, "`services.enable`"),
    (
        "usr/lib/systemd/system/{dbus,dbus-org.freedesktop.*,etcd2,sshd}.service",
        Added,
        "Alias= of enabled units",
    ),
    ("etc/systemd/{system,system-generators}{,/*}", Added, "`services.mask`"),
    ("usr/lib/systemd/system-preset/00-keller.preset", Added, "what the manifest enables, and nothing else"),
    ("usr/lib/systemd/system/default.target", Changed(&["content", "mtime"]), "multi-user.target"),
    // An image, not a machine.
    ("usr/lib/os-release", Changed(&["content", "mtime"]), "the image's name and version"),
    ("etc/os-release", Changed(&["mtime"]), "made anew beside it"),
    ("usr/lib/keller{,/image.json}", Added, "how the image was made, for `keller inspect`"),
    (
        "{usr/bin/keller,usr/lib/keller/agent.json,usr/lib/keller/disk.json}",
        Added,
        "the agent, what the manifest tells it, and the sizes of a node's partitions",
    ),
    ("etc/machine-id", Added, "an empty file where /init puts the machine's own"),
    ("etc/.updated", Added, "what an image ships is final: nothing is generated at boot"),
    ("{etc,usr}", Changed(&["mtime"]), "not later than /etc/.updated"),
    ("{efi,media,mnt}", Added, "mount points"),
    ("boot/vmlinuz-*", Removed, "in the unified kernel image"),
    ("boot", Changed(&["mtime"]), "a mount point, made anew once the kernel is out of it"),
    // State lives on the state partition.
    ("{home,root}", Changed(&["type", "mode", "mtime", "content"]), "links to the state partition"),
    ("{opt,srv,usr/local}", Added, "links to the state partition"),
    ("var/**", Removed, "tmpfiles.d makes it, which a test of its own checks"),
    (
        "usr/lib/tmpfiles.d/{10-keller-state,50-keller-var,50-keller-ssh}.conf",
        Added,
        "make /var at first boot",
    ),
    (
        "usr/share/factory{,/var,/var/home,/var/home/core,/var/home/core/*}",
        Added,
        "the homes of `users:`, with what is in /etc/skel, which tmpfiles.d copies",
    ),
    ("usr/lib/tmpfiles.d/{home,provision}.conf", Changed(&["content"]), "/home and /root lead to /var"),
    ("usr/lib/systemd/journald.conf.d/50-keller.conf", Added, "the journal is kept"),
    ("etc/ssh/sshd_config.d/50-keller.conf", Added, "host keys on the state partition"),
    ("usr/lib/systemd/system/{ssh,sshd@,systemd-tmpfiles-setup}.service.d{,/50-keller.conf}", Added, "keys"),
    // etcd answers whoever has a certificate of the node.
    (
        "usr/lib/systemd/system/{etcd.service.d/20-keller-tls.conf,keller-etcd-{certificates.{service,timer},promotion.service}}",
        Added,
        "etcd's certificates, when they are made, and votes for members that have caught up",
    ),
    ("usr/sbin/etcdctl", Added, "etcdctl with root's certificate"),
    // Containers.
    ("usr/share/containers/systemd{,/hello.container}", Added, "the unit of `containers:`"),
    ("usr/share/keller{,/**}", Added, "the container store, but for what the container itself sees"),
];

/// The root of the container `hello`.
pub const CONTAINER: &[Row] = &[
    ("", Changed(&["mtime"]), "only base-files has a say in the root folder"),
    ("etc{,/passwd,/group,/shadow,/gshadow,/subuid,/subgid}", Added, "Debian's static accounts"),
    ("etc/{hosts,mtab,nsswitch.conf,shells}", Added, "defaults"),
    ("etc/ld.so.cache", Added, "ldconfig"),
    ("{bin,sbin,lib,lib64}", Added, "links of base-files to /usr"),
    ("usr/bin/sh", Added, "a link to busybox, in the absence of another shell"),
    (
        "{boot,dev,efi,home,media,mnt,opt,proc,root,run,sys,tmp}",
        Added,
        "folders of base-files and mount points",
    ),
    ("usr/local{,/*}", Added, "folders of base-files"),
    ("var{,/lib,/log,/tmp}", Added, "folders of base-files"),
];
