//! Names in a manifest that nothing in the image has: each is an error with its line and the way out, where
//! until then every node failed.

use super::archive::Package;
use super::elf;
use super::project::Project;

/// What a build says of the project's manifest when `line` is added to it; it must refuse.
fn refused(project: &Project, line: &str) -> String {
    let text = project.text("node/node.yaml");
    project.write("node/node.yaml", format!("{text}{line}\n"));
    let ran = project.build(&[]);
    project.write("node/node.yaml", text);
    ran.error().to_owned()
}

/// What is said besides by a build that succeeds all the same.
fn noted(project: &Project, line: &str) -> String {
    let text = project.text("node/node.yaml");
    project.write("node/node.yaml", format!("{text}{line}\n"));
    let ran = project.build(&[]).good();
    project.write("node/node.yaml", text);
    ran.err
}

/// The one of `told`'s lines that has `part`.
#[track_caller]
fn assert_says(told: &str, parts: &[&str]) {
    for part in parts {
        assert!(told.contains(part), "{part:?} is not in {told}");
    }
}

#[test]
fn health_names_what_there_is() {
    let mut project = Project::new();
    let unit = "usr/lib/systemd/system";
    project.archive.add(
        &Package::new("units", "1")
            .file(&format!("{unit}/once.service"), "[Service]\nType=oneshot\nExecStart=/usr/bin/greet\n")
            .file(&format!("{unit}/idle.service"), "[Service]\nExecStart=/usr/bin/greet\n")
            .file(&format!("{unit}/turn@.service"), "[Service]\nExecStart=/usr/bin/greet\n")
            .file("usr/share/units/arm", elf::of_machine(183))
            .file("usr/bin/arm", elf::of_machine(183))
            .file("usr/bin/text", "no program")
            .file("usr/bin/script", "#!/usr/bin/gone\n")
            .file("usr/share/units/greet", elf::program()),
    );
    project.publish();
    project.edit("greeter]", "greeter, units]");
    let told = refused(&project, "health: {units: [nosuch.service], command: [/usr/bin/nosuch]}");
    println!("{told}");
    assert_says(
        &told,
        &[
            "node/node.yaml:23:18: health.units names nosuch.service, which no package and no overlay has",
            "node/node.yaml:23:45: health.command names /usr/bin/nosuch, which is not in the image",
        ],
    );
    for (line, said) in [
        ("health: {units: [great.service]}", "did you mean greet.service?"),
        (
            "health: {units: [once.service]}",
            "health.units names once.service, which is inactive again as soon as it has run",
        ),
        // Looked up as the node does, in the directories of PATH.
        ("health: {command: [nosuch, -v]}", "health.command names nosuch, which is not in the image"),
        (
            "health: {command: [usr/bin/nosuch]}",
            "health.command names usr/bin/nosuch, which is not in the image",
        ),
        ("health: {command: [/usr/share/units/greet]}", "which is not executable (mode 0644)"),
        ("health: {command: [arm]}", "which is for another machine (arm64)"),
        ("health: {command: [/usr/bin/text]}", "which is neither a program nor a script"),
        ("health: {command: [script]}", "which is a script for /usr/bin/gone, which is not in the image"),
        ("health: {command: [/usr/bin]}", "which is not a file"),
    ] {
        let told = refused(&project, line);
        assert_says(&told, &[said, "node/node.yaml:23:", "no boot could become good"]);
    }
    let noted = noted(&project, "health: {units: [idle.service], command: [/var/lib/mine/check]}");
    assert_says(
        &noted,
        &[
            "health.units names idle.service, which nothing in the image starts at boot",
            "health.command names /var/lib/mine/check, which lies where the image has nothing",
        ],
    );
    let told = refused(&project, "health: {units: [turn@a.service, hello.service, hallo.service]}");
    assert!(
        !told.contains("names turn@a.service, which no") && !told.contains("names hello.service"),
        "{told}"
    );
    assert_says(&told, &["names hallo.service, which no package", "did you mean hello.service?"]);
    project.edit("services: {enable: [greet.service]}", "services: {enable: [], mask: [greet.service]}");
    let told = refused(&project, "health: {units: [greet.service]}");
    assert_says(&told, &["health.units names greet.service, which is masked"]);
    project.edit("ports: [\"8080:80\"]", "start: false");
    let told = refused(&project, "health: {units: [hello.service]}");
    assert_says(&told, &["names hello.service, a container that does not start at boot"]);
}

#[test]
fn units_to_enable_and_to_mask() {
    let project = Project::new();
    project.edit("services: {enable: [greet.service]}", "services: {enable: [great.service]}");
    let told = refused(&project, "");
    assert_says(
        &told,
        &["node/node.yaml:17:21: services.enable names great.service", "did you mean greet.service?"],
    );
    project.edit("great.service", "hello.service");
    let told = refused(&project, "");
    assert_says(&told, &["a container starts at boot unless it has `start: false`"]);
    project.edit(
        "services: {enable: [hello.service]}",
        "services: {mask: [great.service, no-generator, home.mount, tmp.mount, greet.service]}",
    );
    let told = refused(&project, "");
    println!("{told}");
    assert_says(
        &told,
        &[
            "node/node.yaml:17:19: services.mask names great.service, which no package and no overlay has",
            "did you mean greet.service?",
            "services.mask names no-generator, which no package",
        ],
    );
    assert!(!told.contains("tmp.mount") && !told.contains("names greet.service"), "{told}");
    let told = refused(&project, "kv: {etcd: {}}");
    assert_says(&told, &["node/node.yaml:23:", "etcd.service", "add etcd-server to `packages`"]);
    project.edit("kernel: {cmdline: [quiet]}", "kernel: {load: [virtio_nat]}");
    project.edit("services: {mask", "#");
    let told = refused(&project, "");
    assert_says(&told, &["node/node.yaml:18:", "virtio_nat"]);
}

#[test]
fn units_that_no_file_is() {
    let mut project = Project::new();
    let (unit, generators) = ("usr/lib/systemd/system", "usr/lib/systemd/system-generators");
    let header = "#!/usr/bin/greet\n### BEGIN INIT INFO\n# Provides: older\n### END INIT INFO\n";
    project.archive.add(
        &Package::new("units", "1")
            .file(&format!("{generators}/systemd-sysv-generator"), elf::program())
            .file(&format!("{generators}/systemd-cryptsetup-generator"), elf::program())
            .file(
                &format!("{unit}/daemon.service"),
                "[Service]\nExecStart=/usr/bin/greet\n[Install]\nWantedBy=basic.target\nAlias=other.service\n",
            )
            .file(&format!("{generators}/podman-system-generator"), elf::program())
            .file("usr/share/containers/systemd/a.container", "[Install]\nWantedBy=multi-user.target\n")
            .file("usr/share/containers/systemd/b.volume", "[Volume]\n"),
    );
    project.publish();
    project.edit("greeter]", "greeter, units]");
    let script =
        |name: &str| format!("  - {{path: /etc/init.d/{name}, mode: \"0755\", content: {header:?}}}\n");
    let directory = "  - {path: /etc/greet.d, directory: true}\n";
    project.edit(directory, &[script("old"), script("idle"), directory.to_owned()].concat());
    let before = "services: {enable: [greet.service]}";
    let health = "health: {units: [old.service, a.service, systemd-cryptsetup@data.service, dev-vdb1.swap]}";
    project.edit(before, "services: {enable: [greet.service, old.service, a.service]}");
    let said = noted(&project, health);
    assert!(!said.contains("health.units"), "{said}");
    let said = noted(&project, "health: {units: [idle.service, b-volume.service]}");
    assert_says(
        &said,
        &[
            "health.units names idle.service, which nothing in the image starts at boot",
            "health.units names b-volume.service, which nothing in the image starts at boot",
        ],
    );
    project.edit("old.service, a.service", "oldest.service");
    assert_says(&refused(&project, ""), &["services.enable names oldest.service, which no package"]);
    project.edit("oldest.service", "b-volume.service");
    assert_says(&refused(&project, ""), &["made of /usr/share/containers/systemd/b.volume at boot"]);
    project.edit(
        "{enable: [greet.service, b-volume.service]}",
        "{mask: [old.service, older.service, other.service, a.service, systemd-cryptsetup@x.service]}",
    );
    noted(&project, "");
    let said = refused(&project, "health: {units: [daemon.service]}");
    assert_says(&said, &["health.units names daemon.service, which is masked"]);
    project.edit("{mask: [", "{enable: [daemon.service], mask: [");
    let said = refused(&project, "");
    assert_says(&said, &["daemon.service is in services.enable", "which has its other name other.service"]);
}

#[test]
fn waits_that_are_longer_than_the_deadline() {
    let mut project = Project::new();
    let unit = |text: &str| {
        format!("[Unit]\n{text}ExecStart=/usr/bin/greet\n[Install]\nWantedBy=multi-user.target\n")
    };
    let folder = "usr/lib/systemd/system";
    project.archive.add(
        &Package::new("units", "1")
            .file(&format!("{folder}/slow.service"), unit("[Service]\nTimeoutStartSec=5min\n"))
            .file(&format!("{folder}/whole.service"), unit("[Service]\nTimeoutSec=2min\n"))
            .file(&format!("{folder}/endless.service"), unit("[Service]\nTimeoutStartSec=infinity\n"))
            .file(&format!("{folder}/late.service"), unit("After=between.service\n[Service]\n"))
            .file(
                &format!("{folder}/between.service"),
                unit("After=network-online.target\n[Service]\nTimeoutStartSec=300\n"),
            )
            .file(&format!("{folder}/network-online.target"), "[Unit]\n")
            .file(
                &format!("{folder}/systemd-networkd-wait-online.service"),
                unit("Before=network-online.target\n[Service]\n").replace("greet\n", "greet --timeout=40\n"),
            ),
    );
    project.publish();
    project.edit("greeter]", "greeter, units]");
    let units = ["greet", "slow", "whole", "endless", "late", "between", "systemd-networkd-wait-online"]
        .map(|name| format!("{name}.service"));
    project.edit("enable: [greet.service]", &format!("enable: [{}]", units.join(", ")));
    let said =
        noted(&project, "health: {units: [slow.service, whole.service, endless.service, late.service]}");
    assert_says(
        &said,
        &[
            "node/node.yaml:23:18: health.units names slow.service, which has 300 s for its start (TimeoutStartSec=): \
             more than the 120 s of `health.deadline`",
            "containers waits for container hello, which waits up to 40 s for the network, and then has 90 s",
        ],
    );
    assert!(
        !["whole", "endless", "late"].iter().any(|name| said.contains(&format!("names {name}."))),
        "{said}"
    );
    let said = noted(&project, "health: {units: [late.service, between.service], deadline: 39s}");
    assert_says(
        &said,
        &[
            "names late.service, which waits up to 40 s for the network: more than the 39 s",
            "names between.service, which waits up to 40 s for the network, and then has 300 s for its start",
        ],
    );
    let said = noted(&project, "health: {units: [slow.service], deadline: 300s}");
    assert!(!said.contains("health.deadline"), "{said}");
}

#[test]
fn a_wait_for_the_network_without_an_end() {
    let mut project = Project::new();
    let folder = "usr/lib/systemd/system";
    let wait = "[Unit]\nBefore=network-online.target\n[Service]\nExecStart=/usr/bin/greet --timeout=0\n\
        [Install]\nWantedBy=multi-user.target\n";
    project.archive.add(
        &Package::new("units", "1")
            .file(
                &format!("{folder}/late.service"),
                "[Unit]\nAfter=network-online.target\n[Service]\nTimeoutStartSec=infinity\nExecStart=/usr/bin/greet\n\
                 [Install]\nWantedBy=multi-user.target\n",
            )
            .file(&format!("{folder}/network-online.target"), "[Unit]\n")
            .file(&format!("{folder}/systemd-networkd-wait-online.service"), wait),
    );
    project.publish();
    project.edit("greeter]", "greeter, units]");
    project.edit(
        "enable: [greet.service]",
        "enable: [greet.service, late.service, systemd-networkd-wait-online.service]",
    );
    let health = "health: {units: [late.service, greet.service], deadline: 24h}";
    let endless = "which waits for the network without an end (--timeout=0): more than the 86400 s of `health.deadline`";
    let said = noted(&project, health);
    assert_says(
        &said,
        &[
            &format!("health.units names late.service, {endless}"),
            &format!("health.containers waits for container hello, {endless}"),
        ],
    );
    assert!(!said.contains("names greet.service"), "{said}");
    // The unit's own limit is an end, and drop-ins count: of the wait, and of the container's unit.
    for (unit, seconds) in [("systemd-networkd-wait-online", "20"), ("hello", "10min")] {
        let folder = format!("node/overlay/{folder}/{unit}.service.d");
        std::fs::create_dir_all(project.path(&folder)).unwrap();
        project.write(&format!("{folder}/slow.conf"), format!("[Service]\nTimeoutStartSec={seconds}\n"));
    }
    let said = noted(&project, "health: {units: [late.service]}");
    assert_says(
        &said,
        &[
            "containers waits for container hello, which waits up to 20 s for the network, and then has 600 s for its start",
        ],
    );
    assert!(!said.contains("names late.service"), "{said}");
    assert!(!noted(&project, "health: {deadline: 620s}").contains("container hello"));
    assert!(!noted(&project, "health: {containers: false}").contains("container hello"));
}

#[test]
fn people_who_could_not_log_in() {
    let mut project = Project::new();
    project.archive.add(
        &Package::new("fish", "4")
            .file("usr/bin/fish", elf::program())
            .file("usr/share/debianutils/shells.d/fish", "/usr/bin/fish\n"),
    );
    project.publish();
    let person = "- {name: core, uid: 1000, shell: /usr/bin/systemctl, ssh_keys: []}";
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFKy6hBVTZO0vCEWCFBCiWXCXrkL3cdRaqFJCqYxVp2B";
    project.edit(person, &format!("- {{name: core, uid: 1000, shell: /usr/bin/fish, ssh_keys: [{key}]}}"));
    let told = refused(&project, "");
    println!("{told}");
    assert_says(
        &told,
        &[
            "node/node.yaml:12:36: user core has the shell /usr/bin/fish, which is not in the image",
            "user core has ssh_keys, but the image has no sshd that would read them: include keller:manifests/components/ssh.yaml",
        ],
    );
    project.edit(&format!(", ssh_keys: [{key}]"), "");
    project.edit("greeter]", "greeter, fish]");
    let ran = project.build(&[]).good();
    assert!(!ran.err.contains("/etc/shells"), "{}", ran.err);
    project.write("node/overlay/etc/shells", "/bin/sh\n");
    assert_says(
        &noted(&project, ""),
        &["user core has the shell /usr/bin/fish, which is not in /etc/shells"],
    );
    project.edit(", shell: /usr/bin/fish", "");
    assert_says(&refused(&project, ""), &["user core has the shell /bin/bash, which is not in the image"]);
    project
        .edit("{name: core, uid: 1000}", "{name: core, uid: 1000, shell: /usr/bin/fish, groups: [nobodys]}");
    assert_says(&refused(&project, ""), &["node/node.yaml:12:", "member of group nobodys"]);
}

#[test]
fn people_named_like_groups_of_debian() {
    let mut project = Project::new();
    let masters = "usr/share/base-passwd";
    project.archive.add(
        &Package::new("base-passwd", "3")
            .file(
                &format!("{masters}/passwd.master"),
                "root:*:0:0:root:/root:/bin/bash\ngames:*:5:60::/:/bin/sh\n",
            )
            .file(
                &format!("{masters}/group.master"),
                "root:*:0:\nadm:*:4:\nstaff:*:50:\ngames:*:60:\nusers:*:100:\n",
            ),
    );
    project.publish();
    project.edit("greeter]", "greeter, base-passwd]");
    let mut before = "core";
    for name in ["staff", "users", "adm", "systemd-journal"] {
        project.edit(&format!("name: {before},"), &format!("name: {name},"));
        before = name;
        let told = refused(&project, "");
        println!("{told}");
        let said = format!("node/node.yaml:12:12: users names {name}, which is a group that ");
        assert_says(&told, &[&said, "choose another name"]);
    }
    project.edit("name: systemd-journal,", "name: games,");
    assert_says(&refused(&project, ""), &["node/node.yaml:12:12: users names games, an account that "]);
}

#[test]
fn containers_with_the_name_of_a_unit() {
    let mut project = Project::new();
    let unit = "usr/lib/systemd/system";
    project.archive.add(
        &Package::new("units", "1")
            .file(
                &format!("{unit}/ssh.service"),
                "[Service]\nExecStart=/usr/bin/greet\n[Install]\nAlias=sshd.service\n",
            )
            .file("usr/local/lib/systemd/system/mine.service", "[Service]\nExecStart=/usr/bin/greet\n")
            .file("etc/systemd/system/own.service", "[Service]\nExecStart=/usr/bin/greet\n")
            .link(&format!("{unit}/short.service"), "ssh.service")
            .file(&format!("{unit}/getty@.service"), "[Service]\nExecStart=/usr/bin/greet\n")
            .file("usr/lib/systemd/system-generators/podman-system-generator", elf::program())
            .file("usr/share/containers/systemd/web.container", "[Container]\nImage=x\n")
            .file("etc/containers/systemd/deep/data.volume", "[Volume]\n")
            .file("etc/containers/systemd/net.network", "[Network]\n")
            .file("etc/containers/systemd/all.pod", "[Pod]\n")
            .file("etc/containers/systemd/named.container", "[Container]\nImage=x\nServiceName=other\n")
            .file("etc/init.d/old", "#!/bin/sh\n"),
    );
    project.publish();
    project.edit("greeter]", "greeter, units]");
    let mut before = "hello";
    for (name, said) in [
        ("ssh", "which is in the image already"),
        ("sshd", "another name (Alias=) of ssh.service"),
        ("mine", "which is in the image already"),
        ("own", "which is in the image already"),
        ("short", "which is in the image already"),
        ("web", "which is in the image already"),
        ("data-volume", "which is in the image already"),
        ("net-network", "which is in the image already"),
        ("all-pod", "which is in the image already"),
        ("other", "which is in the image already"),
        ("old", "which systemd makes of /etc/init.d/old"),
    ] {
        project.edit(&format!("{{name: {before}, image"), &format!("{{name: {name}, image"));
        before = name;
        let told = refused(&project, "");
        println!("{told}");
        let place = format!("node/node.yaml:22:12: container {name} would be unit {name}.service, {said}");
        assert_says(&told, &[&place, "give the container another name"]);
    }
    for name in ["getty", "data", "named"] {
        project.edit(&format!("{{name: {before}, image"), &format!("{{name: {name}, image"));
        before = name;
        project.build(&[]).good();
    }
}

#[test]
fn programs_and_users_of_recipes() {
    let project = Project::new();
    let recipe = project.text("node/hello.yaml");
    for (from, to, said) in [
        (
            "entrypoint: [/usr/bin/greet]",
            "entrypoint: [/usr/bin/nosuch]",
            "node/hello.yaml:5:14: it runs /usr/bin/nosuch, which is not in the image",
        ),
        (
            "entrypoint: [/usr/bin/greet]",
            "command: [grete]",
            "node/hello.yaml:5:11: it runs grete, which is not",
        ),
        ("[/usr/bin/greet]", "[/usr/share/greet/version]", "which is not executable (mode 0644)"),
        ("[/usr/bin/greet]", "[bin/greet]\nworkdir: /opt", "it runs bin/greet, which is not in the image"),
        (
            "[/usr/bin/greet]",
            "[greet]\nenvironment: {PATH: /opt}",
            "it runs greet, which is not in the image",
        ),
        ("user: greet", "user: greta", "node/hello.yaml:6:7: it runs as user greta, which its /etc/passwd"),
    ] {
        project.write("node/hello.yaml", recipe.replace(from, to));
        let told = refused(&project, "");
        println!("{told}");
        assert_says(&told, &["making container hello: ", said]);
    }
    for (from, to) in [
        ("[/usr/bin/greet]", "[greet]"),
        ("[/usr/bin/greet]", "[bin/greet]\nworkdir: /usr"),
        ("user: greet", "user: '1234:5'"),
    ] {
        project.write("node/hello.yaml", recipe.replace(from, to));
        project.build(&[]).good();
    }
    // What a volume brings is known only on the node.
    project.write("node/hello.yaml", recipe.replace("/usr/bin/greet", "/opt/bin/greet"));
    project.edit("ports: [\"8080:80\"]", "volumes: [\"/srv/app:/opt\"]");
    project.build(&[]).good();
    // The manifest's own command comes before the image's.
    project.write("node/hello.yaml", recipe.replace("entrypoint:", "command:"));
    project.edit("volumes: [\"/srv/app:/opt\"]", "command: [nosuch]");
    assert_says(&refused(&project, ""), &["node/node.yaml:22:", "it runs nosuch, which is not in the image"]);
}

#[test]
fn a_runtime_that_is_not_there() {
    let project = Project::new();
    let text = project.text("node/node.yaml");
    let without = text.split("runtime:").next().unwrap();
    for (runtime, program) in [("crun", "/usr/bin/crun"), ("containerd", "/usr/bin/ctr")] {
        project.write("node/node.yaml", format!("{without}runtime: {runtime}\n"));
        let told = refused(&project, "");
        let said = format!("node/node.yaml:20:10: runtime is {runtime}, but {program} is not in the image");
        assert_says(&told, &[&said, "include keller:manifests/components/"]);
    }
}

#[test]
fn accounts_that_only_a_script_would_make() {
    let mut project = Project::new();
    let unit = "usr/lib/systemd/system";
    project.archive.add(
        &Package::new("lldpd", "1")
            .file("usr/sbin/lldpd", elf::program())
            .file(&format!("{unit}/lldpd.service"), "[Service]\nExecStart=/usr/sbin/lldpd\n[Install]\nWantedBy=multi-user.target\n")
            .script("postinst", "#!/bin/sh\nU=_lldpd\nadduser --system --quiet --home /run/lldpd \\\n --group $U 2>/dev/null || true\n"),
    );
    project.publish();
    project.edit("greeter]", "greeter, lldpd]");
    let said = "lldpd: its postinst would make the account _lldpd, which nothing here makes";
    // Nothing of it starts: it is said.
    let noted = noted(&project, "");
    println!("{noted}");
    assert_says(&noted, &["lldpd postinst: accounts (adduser _lldpd --home=/run/lldpd)", said]);
    project.edit("enable: [greet.service]", "enable: [greet.service, lldpd.service]");
    let told = refused(&project, "");
    println!("{told}");
    let starts = ", and /usr/lib/systemd/system/lldpd.service starts: write `system_users: [{name: _lldpd, home: /run/lldpd}]`";
    assert_says(&told, &[said, starts]);
    project.edit(
        "  - {name: greet, home: /var/lib/greet}",
        "  - {name: greet, home: /var/lib/greet}\n  - {name: _lldpd, home: /run/lldpd}",
    );
    assert!(!project.build(&[]).good().err.contains("would make"));
}

#[test]
fn an_account_that_several_scripts_make_is_told_once() {
    let mut project = Project::new();
    let unit = "[Service]\nExecStart=/usr/bin/greet\n[Install]\nWantedBy=multi-user.target\n";
    project.archive.add(&Package::new("a-tools", "1").file("usr/share/a", "").script(
        "postinst",
        "#!/bin/sh\naddgroup --system Debian-x\nadduser --system --home /srv/x Debian-x\n",
    ));
    project.archive.add(
        &Package::new("x-daemon", "1").file("usr/lib/systemd/system/x.service", unit).script(
            "postinst",
            "#!/bin/sh\n[ \"$2\" ] && quiet=--quiet\nadduser --system $quiet --home /srv/x Debian-x\n\
                     adduser $quiet Debian-x adm\n",
        ),
    );
    project.publish();
    project.edit("greeter]", "greeter, a-tools, x-daemon]");
    let told = noted(&project, "");
    assert_eq!(told.matches("which nothing here makes").count(), 1, "{told}");
    // The user, which brings its group.
    assert_says(
        &told,
        &["would make the account Debian-x", "write `system_users: [{name: Debian-x, home: /srv/x}]`"],
    );
    project.edit("enable: [greet.service]", "enable: [greet.service, x.service]");
    let told = refused(&project, "");
    assert_eq!(told.matches("which nothing here makes").count(), 1, "{told}");
    assert_says(&told, &["x-daemon: its postinst would make the account Debian-x", "x.service starts"]);
    // What is to be written can be.
    project.edit(
        "  - {name: greet, home: /var/lib/greet}",
        "  - {name: greet, home: /var/lib/greet}\n  - {name: Debian-x, home: /srv/x}",
    );
    project.edit("group: greet}", "group: Debian-x}");
    assert!(!project.build(&[]).good().err.contains("would make"));
}

#[test]
fn perl_without_perl() {
    let mut project = Project::new();
    project.archive.add(&Package::new("perl-base", "5").file("usr/bin/perl", elf::program()));
    project.archive.add(
        &Package::new("perl", "5")
            .field("Depends: perl-base (= 5)")
            .file("usr/bin/prove", "#!/usr/bin/perl\n"),
    );
    project.publish();
    // The component's own packages are in no archive here; what it assumes, allows and prunes counts.
    let base = std::fs::read_to_string("manifests/components/base.yaml").unwrap();
    let begin = base.find("\nassume:").unwrap();
    let end = base.find("\nprune:").unwrap();
    assert!(base[begin..end].contains("perl-base"));
    project.write("node/assume.yaml", &base[begin..end]);
    project.edit("debian: {suite", "include: [assume.yaml]\ndebian: {suite");
    project.edit("greeter]", "greeter, perl]");
    // A copy on the disk is the user's own word, and a warning.
    assert_says(&noted(&project, ""), &["/usr/bin/prove (perl) is a script for /usr/bin/perl"]);
    project.edit("perl]", "perl, perl-base]");
    assert!(!project.build(&[]).good().err.contains("is a script for"));
}

#[test]
fn links_to_what_is_pruned_and_bits_that_are_not_there() {
    let mut project = Project::new();
    project.archive.add(
        &Package::new("linked", "1")
            .file("usr/share/doc/linked/readme", "x")
            .link("usr/share/linked/readme", "../doc/linked/readme")
            .link("usr/share/linked/doc", "/usr/share/doc/linked"),
    );
    project.publish();
    project.edit("greeter]", "greeter, linked]");
    let text = project.build(&[]).good().err;
    let said =
        "prune: links to what is left out are left out too: /usr/share/linked/doc, /usr/share/linked/readme";
    assert_says(&text, &[said]);
    let noted = noted(&project, "setuid: [/usr/bin/su]");
    assert_says(&noted, &["node/node.yaml:23:10: setuid allows /usr/bin/su, which is not there"]);
}

#[test]
fn patterns_that_match_nothing_are_told() {
    let project = Project::new();
    project.edit(
        "prune: [/usr/share/doc]",
        "prune: [/usr/share/greet, /usr/share/none]\nkeep: [/usr/bin, /usr/share/idle, /usr/bin/nosuch*]",
    );
    let recipe = project.text("node/hello.yaml");
    let recipe = recipe.replace("prune: [", "keep: [/usr/lib/systemd, /usr/lib/idle]\nprune: [/usr/none, ");
    project.write("node/hello.yaml", recipe);
    let told = project.build(&[]).good().err;
    let about = |line: &&str| line.contains("nothing matches") || line.contains("takes nothing away");
    let lines: Vec<&str> = told.lines().filter(about).map(str::trim).collect();
    let expected = [
        "container hello: prune: nothing matches /usr/none",
        "container hello: prune: /usr/lib/systemd takes nothing away: another pattern does, or `keep` holds it",
        "container hello: keep: nothing matches /usr/lib/idle",
        "prune: nothing matches /usr/share/none",
        "keep: nothing matches /usr/share/idle",
        "keep: nothing matches /usr/bin/nosuch*",
    ];
    assert_eq!(lines.len(), expected.len(), "{told}");
    for (line, said) in lines.iter().zip(expected) {
        assert!(line.ends_with(said), "{told}");
    }
}

#[test]
fn links_whose_target_comes_back_stay() {
    let mut project = Project::new();
    project.archive.add(
        &Package::new("linked", "1")
            .file("usr/share/doc/linked/readme", "x")
            .file("usr/share/doc/linked/licence", "x")
            .file("usr/share/doc/linked/gone", "x")
            .link("usr/share/linked/readme", "../doc/linked/readme")
            .link("usr/share/linked/licence", "../doc/linked/licence")
            .link("usr/share/linked/gone", "../doc/linked/gone")
            .link("usr/share/linked/alias", "licence"),
    );
    project.publish();
    project.edit("greeter]", "greeter, linked]");
    let recipe = project.text("node/hello.yaml");
    let recipe =
        recipe.replace("greeter]", "greeter, linked]").replace("prune: [", "prune: [/usr/share/doc, ");
    project.write("node/hello.yaml", &recipe);
    let said = "prune: links to what is left out are left out too: ";
    let all = "/usr/share/linked/alias, /usr/share/linked/gone, /usr/share/linked/licence, and 1 others";
    let told = project.build(&[]).good().err;
    assert_says(&told, &[&format!("{said}{all}"), &format!("container hello: {said}{all}")]);

    let folder = "node/overlay/usr/share/doc/linked";
    std::fs::create_dir_all(project.path(folder)).unwrap();
    project.write(&format!("{folder}/readme"), "mended");
    let entry = "  - {path: /usr/share/doc/linked/licence, content: mended}\n";
    project.edit("services:", &format!("{entry}services:"));
    project.write("node/hello.yaml", format!("{recipe}overlays: [overlay]\nfiles:\n{entry}"));
    let told = project.build(&[]).good().err;
    let one = "/usr/share/linked/gone";
    assert_says(&told, &[&format!("{said}{one}\n"), &format!("container hello: {said}{one}\n")]);

    // What takes the place of a link needs no `replace`: the link is not there.
    let entry = "  - {path: /usr/share/linked/gone, content: own}\n";
    project.edit("services:", &format!("{entry}services:"));
    let told = project.build(&[]).good().err;
    assert_says(&told, &[&format!("{said}{one}\n")]);
}
