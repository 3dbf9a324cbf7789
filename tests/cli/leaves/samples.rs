//! Two ways to set each leaf of the schema, of which something must come that differs.

/// One leaf, set in two ways.
pub struct Sample {
    /// As `leaves` names it.
    pub leaf: &'static str,
    /// Part of a manifest, or of a container's recipe.
    pub one: &'static str,
    /// The same but for the leaf.
    pub other: &'static str,
    /// What is said where one of the two is refused; empty when both are built.
    pub told: &'static str,
}

/// Lines of every manifest, unless it says the field itself.
pub const MANIFEST_BASE: &str = "\
keller: 1
id: tiny
version: 1.2.3
include: [base.yaml]
debian: {suite: trixie, updates: false, security: false, mirror: MIRROR/debian, keys: archive.asc}
";

/// `base.yaml`.
pub const BASE: &str = "\
packages: [base-files, linux-image-tiny, systemd, systemd-boot-efi]
disk: {esp: 64MiB, root: 64MiB, reserve: 64MiB, state: {min: 64MiB}}
";

/// `image-base.yaml`.
pub const IMAGE_BASE: &str = "\
packages: [base-files, greeter]
entrypoint: [/usr/bin/greet]
";

pub(super) const fn differ(leaf: &'static str, one: &'static str, other: &'static str) -> Sample {
    Sample { leaf, one, other, told: "" }
}

const fn told(leaf: &'static str, one: &'static str, other: &'static str, told: &'static str) -> Sample {
    Sample { leaf, one, other, told }
}

/// Of manifests.
pub const MANIFESTS: &[Sample] = &[
    told("keller", "", "keller: 2", "this keller reads manifests of form 1, not 2"),
    differ("id", "", "id: other"),
    differ("version", "", "version: 1.2.4"),
    differ("include", "", "include: [base.yaml, more.yaml]"),
    differ("packages", "", "packages: [greeter]"),
    differ("assume.*", "packages: [needy]", "packages: [needy]\nassume: {debhelp: none}"),
    differ("prune", "", "prune: [/usr/share/doc]"),
    differ("keep", "prune: [/usr/share/doc]", "prune: [/usr/share/doc]\nkeep: [/usr/share/doc/base-files]"),
    differ("overlays", "", "overlays: [overlay]"),
    differ(
        "overlays.path",
        "overlays: [{path: overlay2, replace: true}]",
        "overlays: [{path: overlay, replace: true}]",
    ),
    told(
        "overlays.replace",
        "overlays: [{path: overlay2}]",
        "overlays: [{path: overlay2, replace: true}]",
        "multi-user.target",
    ),
    // Single files.
    differ("files.path", "files: [{path: /etc/a, content: a}]", "files: [{path: /etc/b, content: a}]"),
    differ("files.content", "files: [{path: /etc/a, content: a}]", "files: [{path: /etc/a, content: b}]"),
    differ(
        "files.source",
        "files: [{path: /etc/a, content: a}]",
        "files: [{path: /etc/a, source: note.txt}]",
    ),
    told(
        "files.url",
        "files: [{path: /etc/a, content: a}]",
        "files: [{path: /etc/a, url: 'MIRROR/gone', sha256: '0000000000000000000000000000000000000000000000000000000000000000'}]",
        "MIRROR/gone",
    ),
    told(
        "files.sha256",
        "files: [{path: /etc/a, url: 'MIRROR/../logo'}]",
        "files: [{path: /etc/a, url: 'MIRROR/../logo', sha256: '0000000000000000000000000000000000000000000000000000000000000000'}]",
        "0000000000000000000000000000000000000000000000000000000000000000",
    ),
    differ(
        "files.link",
        "files: [{path: /etc/a, link: greet}, {path: /etc/greet, directory: true}]",
        "files: [{path: /etc/a, link: ../etc/greet}, {path: /etc/greet, directory: true}]",
    ),
    differ(
        "files.directory",
        "files: [{path: /etc/a, content: ''}]",
        "files: [{path: /etc/a, directory: true}]",
    ),
    differ(
        "files.mode",
        "files: [{path: /etc/a, content: a}]",
        "files: [{path: /etc/a, content: a, mode: '0600'}]",
    ),
    differ(
        "files.owner",
        "files: [{path: /etc/a, content: a}]",
        "files: [{path: /etc/a, content: a, owner: systemd-network}]",
    ),
    differ(
        "files.group",
        "files: [{path: /etc/a, content: a}]",
        "files: [{path: /etc/a, content: a, group: systemd-journal}]",
    ),
    told(
        "files.replace",
        "files: [{path: /usr/bin/init, content: a}, {path: /usr/sbin/init, content: b}]",
        "files: [{path: /usr/bin/init, content: a}, {path: /usr/sbin/init, content: b, replace: true}]",
        "`replace: true` replaces it",
    ),
    told(
        "files.capabilities",
        "files: [{path: /etc/a, content: a, mode: '0755'}]",
        "files: [{path: /etc/a, content: a, mode: '0755', capabilities: [cap_net_raw+ep]}]",
        "is given capabilities",
    ),
    differ("groups.name", "groups: [{name: a}]", "groups: [{name: b}]"),
    differ("groups.gid", "groups: [{name: a}]", "groups: [{name: a, gid: 200}]"),
    // Accounts.
    differ(
        "users.name",
        "users: [{name: a, uid: 1000, shell: /usr/bin/systemctl}]",
        "users: [{name: b, uid: 1000, shell: /usr/bin/systemctl}]",
    ),
    differ(
        "users.uid",
        "users: [{name: a, uid: 1000, shell: /usr/bin/systemctl}]",
        "users: [{name: a, uid: 1001, shell: /usr/bin/systemctl}]",
    ),
    differ(
        "users.groups",
        "users: [{name: a, uid: 1000, shell: /usr/bin/systemctl}]",
        "users: [{name: a, uid: 1000, shell: /usr/bin/systemctl, groups: [systemd-journal]}]",
    ),
    differ(
        "users.ssh_keys",
        "packages: [sshd]\nusers: [{name: a, uid: 1000, shell: /usr/bin/systemctl}]",
        "packages: [sshd]\nusers: [{name: a, uid: 1000, shell: /usr/bin/systemctl, ssh_keys: [ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFKy6hBVTZO0vCEWCFBCiWXCXrkL3cdRaqFJCqYxVp2B]}]",
    ),
    differ(
        "users.shell",
        "users: [{name: a, uid: 1000, shell: /usr/bin/systemctl}]",
        "users: [{name: a, uid: 1000, shell: /usr/bin/podman}]",
    ),
    differ(
        "users.password_hash",
        "users: [{name: a, uid: 1000, shell: /usr/bin/systemctl}]",
        "users: [{name: a, uid: 1000, shell: /usr/bin/systemctl, password_hash: '$y$j9T$abcdefghijkl$abcdefghijkl'}]",
    ),
    differ("system_users.name", "system_users: [{name: a}]", "system_users: [{name: b}]"),
    differ("system_users.uid", "system_users: [{name: a}]", "system_users: [{name: a, uid: 200}]"),
    differ("system_users.home", "system_users: [{name: a}]", "system_users: [{name: a, home: /var/lib/a}]"),
    differ(
        "system_users.groups",
        "system_users: [{name: a}]",
        "system_users: [{name: a, groups: [systemd-journal]}]",
    ),
    differ(
        "system_users.description",
        "system_users: [{name: a}]",
        "system_users: [{name: a, description: A}]",
    ),
    // Units, kernel.
    differ(
        "services.enable",
        "packages: [greeter]\nsystem_users: [{name: greet}]",
        "packages: [greeter]\nsystem_users: [{name: greet}]\nservices: {enable: [greet.service]}",
    ),
    differ("services.mask", "packages: [greeter]", "packages: [greeter]\nservices: {mask: [greet.service]}"),
    differ("kernel.cmdline", "", "kernel: {cmdline: [quiet]}"),
    differ(
        "kernel.initramfs_modules",
        "kernel: {initramfs_modules: auto}",
        "kernel: {initramfs_modules: []}",
    ),
    differ(
        "kernel.initramfs_modules[]",
        "kernel: {initramfs_modules: []}",
        "kernel: {initramfs_modules: [virtio_net]}",
    ),
    differ("kernel.load", "", "kernel: {load: [virtio_net]}"),
    differ("etc=persistent", "etc: ephemeral", "etc: persistent"),
    differ("etc=ephemeral", "", "etc: ephemeral"),
    // Containers.
    differ(
        "runtime=podman",
        "packages: [engines]\nruntime: crun\ncontainers: [{name: hello, image: {build: image-base.yaml}}]",
        "packages: [engines]\nruntime: podman\ncontainers: [{name: hello, image: {build: image-base.yaml}}]",
    ),
    differ(
        "runtime=containerd",
        "packages: [engines]\nruntime: crun\ncontainers: [{name: hello, image: {build: image-base.yaml}}]",
        "packages: [engines]\nruntime: containerd\ncontainers: [{name: hello, image: {build: image-base.yaml}}]",
    ),
    differ(
        "runtime=crun",
        "packages: [engines]\nruntime: crun\ncontainers: [{name: hello, image: {build: image-base.yaml}}]",
        "packages: [engines]\nruntime: podman\ncontainers: [{name: hello, image: {build: image-base.yaml}}]",
    ),
    told(
        "runtime=none",
        "runtime: podman\ncontainers: [{name: hello, image: {build: image-base.yaml}}]",
        "runtime: none\ncontainers: [{name: hello, image: {build: image-base.yaml}}]",
        "nothing that runs them",
    ),
    differ(
        "containers.name",
        "runtime: podman\ncontainers: [{name: hello, image: {build: image-base.yaml}}]",
        "runtime: podman\ncontainers: [{name: goodbye, image: {build: image-base.yaml}}]",
    ),
    differ(
        "containers.image.build",
        "runtime: podman\ncontainers: [{name: hello, image: {build: image-base.yaml}}]",
        "runtime: podman\ncontainers: [{name: hello, image: {build: image-more.yaml}}]",
    ),
    differ(
        "containers.image.archive",
        "runtime: podman\ncontainers: [{name: hello, image: {build: image-base.yaml}}]",
        "runtime: podman\ncontainers: [{name: hello, image: {archive: hello.oci}}]",
    ),
    told(
        "containers.image.reference",
        "runtime: podman\ncontainers: [{name: hello, image: {archive: hello.oci}}]",
        "runtime: podman\ncontainers: [{name: hello, image: {archive: hello.oci, reference: \"app:2\"}}]",
        "no image is called",
    ),
    differ(
        "containers.command",
        "runtime: podman\ncontainers: [{name: hello, image: {build: image-base.yaml}}]",
        "runtime: podman\ncontainers: [{name: hello, image: {build: image-base.yaml}, command: [again]}]",
    ),
    differ(
        "containers.environment.*",
        "runtime: podman\ncontainers: [{name: hello, image: {build: image-base.yaml}}]",
        "runtime: podman\ncontainers: [{name: hello, image: {build: image-base.yaml}, environment: {A: b}}]",
    ),
    differ(
        "containers.ports",
        "runtime: podman\ncontainers: [{name: hello, image: {build: image-base.yaml}}]",
        "runtime: podman\ncontainers: [{name: hello, image: {build: image-base.yaml}, ports: ['80:80']}]",
    ),
    differ(
        "containers.volumes",
        "runtime: podman\ncontainers: [{name: hello, image: {build: image-base.yaml}}]",
        "runtime: podman\ncontainers: [{name: hello, image: {build: image-base.yaml}, volumes: ['/var/a:/a']}]",
    ),
    differ(
        "containers.host_network",
        "runtime: podman\ncontainers: [{name: hello, image: {build: image-base.yaml}}]",
        "runtime: podman\ncontainers: [{name: hello, image: {build: image-base.yaml}, host_network: true}]",
    ),
    differ(
        "containers.start",
        "runtime: podman\ncontainers: [{name: hello, image: {build: image-base.yaml}}]",
        "runtime: podman\ncontainers: [{name: hello, image: {build: image-base.yaml}, start: false}]",
    ),
    told(
        "containers.image.setuid",
        "runtime: podman\ncontainers: [{name: hello, image: {archive: open.oci, world_writable: [/data], device_nodes: [/dev/disk]}}]",
        "runtime: podman\ncontainers: [{name: hello, image: {archive: open.oci, world_writable: [/data], device_nodes: [/dev/disk], setuid: [/usr/bin/su]}}]",
        "/usr/bin/su (image) is setuid",
    ),
    told(
        "containers.image.device_nodes",
        "runtime: podman\ncontainers: [{name: hello, image: {archive: open.oci, world_writable: [/data], setuid: [/usr/bin/su]}}]",
        "runtime: podman\ncontainers: [{name: hello, image: {archive: open.oci, world_writable: [/data], device_nodes: [/dev/disk], setuid: [/usr/bin/su]}}]",
        "/dev/disk (image) is the block device 8:0",
    ),
    told(
        "containers.image.world_writable",
        "runtime: podman\ncontainers: [{name: hello, image: {archive: open.oci, setuid: [/usr/bin/su], device_nodes: [/dev/disk]}}]",
        "runtime: podman\ncontainers: [{name: hello, image: {archive: open.oci, world_writable: [/data], device_nodes: [/dev/disk], setuid: [/usr/bin/su]}}]",
        "/data/x (image) may be written to by everybody",
    ),
    differ(
        "containers.new_privileges",
        "runtime: podman\ncontainers: [{name: hello, image: {build: image-base.yaml}}]",
        "runtime: podman\ncontainers: [{name: hello, image: {build: image-base.yaml}, new_privileges: true}]",
    ),
    differ(
        "containers.scratch",
        "packages: [engines]\nruntime: crun\ncontainers: [{name: hello, image: {build: image-base.yaml}}]",
        "packages: [engines]\nruntime: crun\ncontainers: [{name: hello, image: {build: image-base.yaml}, scratch: 64MiB}]",
    ),
    // The key-value store, health.
    differ(
        "kv.etcd.cluster=single",
        "packages: [etcd-server]",
        "packages: [etcd-server]\nkv: {etcd: {cluster: single}}",
    ),
    told(
        "kv.etcd.cluster=static",
        "packages: [etcd-server]\nkv: {etcd: {cluster: single}}",
        "packages: [etcd-server]\nkv: {etcd: {cluster: static}}",
        "keller cluster init",
    ),
    told(
        "kv.etcd.members.name",
        "packages: [etcd-server]\nkv: {etcd: {}}",
        "packages: [etcd-server]\nkv: {etcd: {members: [{name: a, peer: 'https://a:2380'}]}}",
        "keller cluster init",
    ),
    told(
        "kv.etcd.members.peer",
        "packages: [etcd-server]\nkv: {etcd: {}}",
        "packages: [etcd-server]\nkv: {etcd: {members: [{name: a, peer: 'https://b:2380'}]}}",
        "keller cluster init",
    ),
    differ(
        "health.units",
        "packages: [greeter]\nsystem_users: [{name: greet}]\nservices: {enable: [greet.service]}",
        "packages: [greeter]\nsystem_users: [{name: greet}]\nservices: {enable: [greet.service]}\nhealth: {units: [greet.service]}",
    ),
    differ(
        "health.etcd",
        "packages: [etcd-server]\nkv: {etcd: {}}",
        "packages: [etcd-server]\nkv: {etcd: {}}\nhealth: {etcd: true}",
    ),
    differ(
        "health.containers",
        "runtime: podman\ncontainers: [{name: hello, image: {build: image-base.yaml}}]",
        "runtime: podman\ncontainers: [{name: hello, image: {build: image-base.yaml}}]\nhealth: {containers: false}",
    ),
    differ("health.command", "", "health: {command: [/usr/bin/systemctl]}"),
    differ("health.stable", "", "health: {stable: 6s}"),
    differ("health.deadline", "", "health: {deadline: 90s}"),
    differ("health.give_up_after", "", "health: {give_up_after: 1}"),
    differ("health.network", "", "health: {network: true}"),
    // The disk.
    differ("disk.esp", "", "disk: {esp: 65MiB}"),
    differ("disk.root", "", "disk: {root: 65MiB}"),
    differ("disk.reserve", "", "disk: {reserve: none}"),
    differ("disk.state.min", "", "disk: {state: {min: 65MiB}}"),
    differ("disk.state.grow", "", "disk: {state: {grow: false}}"),
    differ("disk.filesystem=erofs", "disk: {filesystem: ext4}", "disk: {filesystem: erofs}"),
    differ("disk.filesystem=ext4", "", "disk: {filesystem: ext4}"),
    differ("disk.sector_size", "disk: {esp: 272MiB}", "disk: {esp: 272MiB, sector_size: 4096}"),
    differ("outputs=raw", "outputs: [qcow2]", "outputs: [raw]"),
    differ("outputs=qcow2", "", "outputs: [qcow2]"),
    differ("outputs=raw.zst", "", "outputs: [raw.zst]"),
    differ("outputs=vmdk", "", "outputs: [vmdk]"),
    differ("outputs=vhd", "", "outputs: [vhd]"),
    differ("outputs=vhd-fixed", "outputs: [vhd]", "outputs: [vhd-fixed]"),
    differ("outputs=netboot", "", "outputs: [netboot]"),
    differ("outputs=iso", "outputs: [netboot]", "outputs: [iso]"),
    differ("outputs=netboot-http", "outputs: [raw.zst]", "outputs: [netboot-http]"),
    differ(
        "netboot.url",
        "outputs: [netboot-http]\nnetboot: {url: 'http://a.example/'}",
        "outputs: [netboot-http]\nnetboot: {url: 'http://b.example/'}",
    ),
    // Updates.
    differ(
        "update.url",
        "update: {url: 'https://a.example', keys: keys}",
        "update: {url: 'https://b.example', keys: keys}",
    ),
    differ(
        "update.keys",
        "update: {url: 'https://a.example', keys: keys}",
        "update: {url: 'https://a.example', keys: keys2}",
    ),
    differ(
        "update.channel",
        "update: {url: 'https://a.example', keys: keys}",
        "update: {url: 'https://a.example', keys: keys, channel: beta}",
    ),
    differ(
        "update.automatic",
        "update: {url: 'https://a.example', keys: keys}",
        "update: {url: 'https://a.example', keys: keys, automatic: true}",
    ),
    differ(
        "update.window",
        "update: {url: 'https://a.example', keys: keys, automatic: true}",
        "update: {url: 'https://a.example', keys: keys, automatic: true, window: '02:00-03:00'}",
    ),
    differ(
        "update.interval",
        "update: {url: 'https://a.example', keys: keys}",
        "update: {url: 'https://a.example', keys: keys, interval: 2h}",
    ),
    // Node documents.
    differ("node.keys", "node: {keys: [rack.pub]}", "node: {keys: [rack2.pub]}"),
    differ("node.sources=smbios", "node: {sources: []}", "node: {sources: [smbios]}"),
    differ("node.sources=fw_cfg", "node: {sources: []}", "node: {sources: [fw_cfg]}"),
    differ("node.sources=esp", "node: {sources: []}", "node: {sources: [esp]}"),
    differ("node.sources=medium", "node: {sources: []}", "node: {sources: [medium]}"),
    differ("node.sources=initramfs", "node: {sources: []}", "node: {sources: [initramfs]}"),
    // What checks accept.
    told(
        "setuid",
        "files: [{path: /usr/bin/a, content: '', mode: '4755'}]",
        "files: [{path: /usr/bin/a, content: '', mode: '4755'}]\nsetuid: [/usr/bin/a]",
        "allow it with `setuid: [/usr/bin/a]`",
    ),
    told(
        "device_nodes",
        "packages: [noded]",
        "packages: [noded]\ndevice_nodes: [/usr/lib/noded/disk]",
        "is the block device 0:0",
    ),
    told(
        "world_writable",
        "files: [{path: /usr/share/a, content: '', mode: '0666'}]",
        "files: [{path: /usr/share/a, content: '', mode: '0666'}]\nworld_writable: [/usr/share/a]",
        "allow it with `world_writable: [/usr/share/a]`",
    ),
    told(
        "missing_libraries.*",
        "packages: [needy-tool]",
        "packages: [needy-tool]\nmissing_libraries: {libgone.so.1: none}",
        "needs libgone.so.1",
    ),
    // Archives.
    told(
        "debian.suite",
        "",
        "debian: {suite: bookworm, updates: false, security: false, mirror: MIRROR/debian, keys: archive.asc}",
        "suite bookworm",
    ),
    told(
        "debian.components",
        "",
        "debian: {components: [contrib], updates: false, security: false, mirror: MIRROR/debian, keys: archive.asc}",
        "no component contrib",
    ),
    told(
        "debian.updates",
        "",
        "debian: {updates: true, security: false, mirror: MIRROR/debian, keys: archive.asc}",
        "suite trixie-updates",
    ),
    told(
        "debian.security",
        "",
        "debian: {updates: false, security: true, security_mirror: MIRROR/security, mirror: MIRROR/debian, keys: archive.asc}",
        "suite trixie-security",
    ),
    differ(
        "debian.mirror",
        "packages: [greeter]",
        "packages: [greeter]\ndebian: {updates: false, security: false, mirror: MIRROR/other, keys: archive.asc}",
    ),
    told(
        "debian.security_mirror",
        "debian: {updates: false, mirror: MIRROR/debian, keys: archive.asc}",
        "debian: {updates: false, security_mirror: MIRROR/elsewhere, mirror: MIRROR/debian, keys: archive.asc}",
        "MIRROR/elsewhere",
    ),
    told(
        "debian.allow_expired",
        "debian: {updates: false, security: false, mirror: MIRROR/old, keys: archive.asc}",
        "debian: {allow_expired: true, updates: false, security: false, mirror: MIRROR/old, keys: archive.asc}",
        "allow_expired: true",
    ),
    told(
        "debian.keys",
        "",
        "debian: {updates: false, security: false, mirror: MIRROR/debian, keys: stranger.asc}",
        "signed by unknown key",
    ),
    differ(
        "debian.repositories.name",
        "packages: [extra]\ndebian: {updates: false, security: false, mirror: MIRROR/debian, keys: archive.asc, repositories: [{name: a, url: MIRROR/extra, suite: trixie, components: [main], keys: archive.asc}]}",
        "packages: [extra]\ndebian: {updates: false, security: false, mirror: MIRROR/debian, keys: archive.asc, repositories: [{name: b, url: MIRROR/extra, suite: trixie, components: [main], keys: archive.asc}]}",
    ),
    differ(
        "debian.repositories.url",
        "packages: [extra]\ndebian: {updates: false, security: false, mirror: MIRROR/debian, keys: archive.asc, repositories: [{name: a, url: MIRROR/extra, suite: trixie, components: [main], keys: archive.asc}]}",
        "packages: [extra]\ndebian: {updates: false, security: false, mirror: MIRROR/debian, keys: archive.asc, repositories: [{name: a, url: MIRROR/extra2, suite: trixie, components: [main], keys: archive.asc}]}",
    ),
    told(
        "debian.repositories.suite",
        "packages: [extra]\ndebian: {updates: false, security: false, mirror: MIRROR/debian, keys: archive.asc, repositories: [{name: a, url: MIRROR/extra, suite: trixie, components: [main], keys: archive.asc}]}",
        "packages: [extra]\ndebian: {updates: false, security: false, mirror: MIRROR/debian, keys: archive.asc, repositories: [{name: a, url: MIRROR/extra, suite: edge, components: [main], keys: archive.asc}]}",
        "suite edge",
    ),
    told(
        "debian.repositories.components",
        "packages: [extra]\ndebian: {updates: false, security: false, mirror: MIRROR/debian, keys: archive.asc, repositories: [{name: a, url: MIRROR/extra, suite: trixie, components: [main], keys: archive.asc}]}",
        "packages: [extra]\ndebian: {updates: false, security: false, mirror: MIRROR/debian, keys: archive.asc, repositories: [{name: a, url: MIRROR/extra, suite: trixie, components: [edge], keys: archive.asc}]}",
        "no component edge",
    ),
    told(
        "debian.repositories.keys",
        "packages: [extra]\ndebian: {updates: false, security: false, mirror: MIRROR/debian, keys: archive.asc, repositories: [{name: a, url: MIRROR/extra, suite: trixie, components: [main], keys: archive.asc}]}",
        "packages: [extra]\ndebian: {updates: false, security: false, mirror: MIRROR/debian, keys: archive.asc, repositories: [{name: a, url: MIRROR/extra, suite: trixie, components: [main], keys: stranger.asc}]}",
        "signed by unknown key",
    ),
];

/// Of recipes.
pub const IMAGES: &[Sample] = &[
    differ("include", "", "include: [image-more.yaml]"),
    differ("packages", "", "packages: [debhelp]"),
    differ("assume.*", "packages: [needy]", "packages: [needy]\nassume: {debhelp: none}"),
    differ("prune", "", "prune: [/usr/share/doc]"),
    differ("keep", "prune: [/usr/share/doc]", "prune: [/usr/share/doc]\nkeep: [/usr/share/doc/base-files]"),
    differ("overlays", "", "overlays: [overlay]"),
    differ("overlays.path", "overlays: [{path: overlay2}]", "overlays: [{path: overlay}]"),
    told(
        "overlays.replace",
        "packages: [systemd]\noverlays: [{path: overlay2}]",
        "packages: [systemd]\noverlays: [{path: overlay2, replace: true}]",
        "multi-user.target",
    ),
    differ("files.path", "files: [{path: /etc/a, content: a}]", "files: [{path: /etc/b, content: a}]"),
    differ("files.content", "files: [{path: /etc/a, content: a}]", "files: [{path: /etc/a, content: b}]"),
    differ(
        "files.source",
        "files: [{path: /etc/a, content: a}]",
        "files: [{path: /etc/a, source: note.txt}]",
    ),
    told(
        "files.url",
        "",
        "files: [{path: /etc/a, url: 'http://127.0.0.1:1/gone', sha256: '0000000000000000000000000000000000000000000000000000000000000000'}]",
        "http://127.0.0.1:1/gone",
    ),
    told(
        "files.sha256",
        "files: [{path: /etc/a, url: 'http://127.0.0.1:1/gone'}]",
        "files: [{path: /etc/a, url: 'http://127.0.0.1:1/gone', sha256: '0000000000000000000000000000000000000000000000000000000000000000'}]",
        "has no `sha256`",
    ),
    differ(
        "files.link",
        "files: [{path: /etc/a, link: greet}, {path: /etc/greet, directory: true}]",
        "files: [{path: /etc/a, link: ../etc/greet}, {path: /etc/greet, directory: true}]",
    ),
    differ(
        "files.directory",
        "files: [{path: /etc/a, content: ''}]",
        "files: [{path: /etc/a, directory: true}]",
    ),
    differ(
        "files.mode",
        "files: [{path: /etc/a, content: a}]",
        "files: [{path: /etc/a, content: a, mode: '0600'}]",
    ),
    differ(
        "files.owner",
        "files: [{path: /etc/a, content: a}]\nsystem_users: [{name: w}]",
        "files: [{path: /etc/a, content: a, owner: w}]\nsystem_users: [{name: w}]",
    ),
    differ(
        "files.group",
        "files: [{path: /etc/a, content: a}]\nsystem_users: [{name: w}]",
        "files: [{path: /etc/a, content: a, group: w}]\nsystem_users: [{name: w}]",
    ),
    told(
        "files.replace",
        "files: [{path: /usr/bin/greet, content: a}]",
        "files: [{path: /usr/bin/greet, link: ../share/greet/version, replace: true}]",
        "`replace: true` replaces it",
    ),
    told(
        "files.capabilities",
        "files: [{path: /etc/a, content: a, mode: '0755'}]",
        "files: [{path: /etc/a, content: a, mode: '0755', capabilities: [cap_net_raw+ep]}]",
        "is given capabilities",
    ),
    differ("groups.name", "groups: [{name: a}]", "groups: [{name: b}]"),
    differ("groups.gid", "groups: [{name: a}]", "groups: [{name: a, gid: 200}]"),
    differ("system_users.name", "system_users: [{name: a}]", "system_users: [{name: b}]"),
    differ("system_users.uid", "system_users: [{name: a}]", "system_users: [{name: a, uid: 200}]"),
    differ("system_users.home", "system_users: [{name: a}]", "system_users: [{name: a, home: /var/lib/a}]"),
    differ(
        "system_users.groups",
        "system_users: [{name: a}, {name: b}]",
        "system_users: [{name: a, groups: [b]}, {name: b}]",
    ),
    differ(
        "system_users.description",
        "system_users: [{name: a}]",
        "system_users: [{name: a, description: A}]",
    ),
    differ("entrypoint", "packages: [debhelp]", "packages: [debhelp]\nentrypoint: [/usr/bin/debhelp]"),
    differ("command", "", "command: [again]"),
    differ("environment.*", "", "environment: {A: b}"),
    differ("user", "system_users: [{name: w}]", "system_users: [{name: w}]\nuser: w"),
    differ("workdir", "", "workdir: /usr"),
    differ("stop_signal", "", "stop_signal: SIGQUIT"),
    told(
        "setuid",
        "files: [{path: /usr/bin/a, content: '', capabilities: [cap_net_raw+ep]}]",
        "files: [{path: /usr/bin/a, content: '', capabilities: [cap_net_raw+ep]}]\nsetuid: [/usr/bin/a]",
        "allow it with `setuid: [/usr/bin/a]`",
    ),
    told(
        "device_nodes",
        "packages: [noded]",
        "packages: [noded]\ndevice_nodes: [/usr/lib/noded/disk]",
        "is the block device 0:0",
    ),
    told(
        "world_writable",
        "files: [{path: /usr/share/a, content: '', mode: '0666'}]",
        "files: [{path: /usr/share/a, content: '', mode: '0666'}]\nworld_writable: [/usr/share/a]",
        "allow it with `world_writable: [/usr/share/a]`",
    ),
    told(
        "missing_libraries.*",
        "packages: [needy-tool]",
        "packages: [needy-tool]\nmissing_libraries: {libgone.so.1: none}",
        "needs libgone.so.1",
    ),
];
