//! `services.enable`: what becomes of it is told, and so is what stands in its way.

use super::archive::Package;
use super::elf;
use super::project::Project;

const UNITS: &str = "usr/lib/systemd/system";
const GENERATORS: &str = "usr/lib/systemd/system-generators";

/// A project with a package of units of every kind, which `prune` leaves out.
fn project(prune: &str) -> Project {
    let unit = "[Service]\nExecStart=/usr/bin/greet\n[Install]\nWantedBy=multi-user.target\n";
    let mut project = Project::new();
    project.archive.add(
        &Package::new("units", "1")
            .file(&format!("{GENERATORS}/systemd-sysv-generator"), elf::program())
            .file(&format!("{GENERATORS}/systemd-cryptsetup-generator"), elf::program())
            .file(&format!("{GENERATORS}/podman-system-generator"), elf::program())
            .file(
                "etc/init.d/old",
                "#!/usr/bin/greet\n### BEGIN INIT INFO\n# Provides: older\n### END INIT INFO\n",
            )
            .file("etc/init.d/clock.sh", "#!/usr/bin/greet\n")
            .file("usr/share/containers/systemd/web.container", "[Install]\nWantedBy=multi-user.target\n")
            .file(&format!("{UNITS}/pruned.service"), unit)
            .file(&format!("{UNITS}/turn@.service"), unit),
    );
    project.publish();
    project.edit("greeter]", "greeter, units]");
    project.edit("prune: [/usr/share/doc]", &format!("prune: [/usr/share/doc, {prune}]"));
    project
}

const PATTERNS: &str =
    "/etc/init.d, /usr/share/containers, /usr/lib/systemd/system/*d.service, /usr/lib/systemd/system/turn*";
/// Units, the file of each, and which of [`PATTERNS`] leaves it out.
const LEFT_OUT: [(&str, &str, &str); 6] = [
    ("old.service", "/etc/init.d/old", "/etc/init.d"),
    ("older.service", "/etc/init.d/old", "/etc/init.d"),
    ("clock.service", "/etc/init.d/clock.sh", "/etc/init.d"),
    ("web.service", "/usr/share/containers/systemd/web.container", "/usr/share/containers"),
    ("pruned.service", "/usr/lib/systemd/system/pruned.service", "/usr/lib/systemd/system/*d.service"),
    ("turn@a.service", "/usr/lib/systemd/system/turn@.service", "/usr/lib/systemd/system/turn*"),
];

#[test]
fn what_prune_takes_from_units_of_other_lists_is_named() {
    let project = project(PATTERNS);
    let manifest = project.text("node/node.yaml");
    let enable = "enable: [greet.service]";
    assert!(manifest.contains(enable));
    for (unit, file, pattern) in LEFT_OUT {
        let way = format!("`prune: [{pattern}]` leaves out {file}, and `keep: [{file}]` brings it back");
        let health = format!("{manifest}health: {{units: [{unit}]}}\n");
        let mask = manifest.replace(enable, &format!("{enable}, mask: [{unit}]"));
        for (field, changed) in [("health.units", health), ("services.mask", mask)] {
            project.write("node/node.yaml", &changed);
            let told = project.build(&[]).error().to_owned();
            assert!(told.contains(&format!("{field} names {unit}, which is left out: ")), "{told}");
            assert!(told.contains(&way), "{told}");
            project.write("node/node.yaml", format!("{changed}keep: [{file}]\n"));
            project.build(&[]).good();
        }
    }
}

#[test]
fn what_prune_takes_from_what_is_started_is_named() {
    let mut project = project("/usr/bin/tool, /usr/lib/systemd/system-generators/systemd-sysv*");
    let unit = "[Service]\nExecStart=/usr/bin/link\n[Install]\nWantedBy=multi-user.target\n";
    project.archive.add(
        &Package::new("tools", "1")
            .file("usr/bin/tool", elf::program())
            .link("usr/bin/link", "tool")
            .file(&format!("{UNITS}/tool.service"), unit),
    );
    project.publish();
    project.edit("greeter, units]", "greeter, units, tools]");
    let manifest = project.text("node/node.yaml");
    let way = "`prune: [/usr/bin/tool]` leaves out /usr/bin/tool, and `keep: [/usr/bin/tool]` brings it back";
    for changed in [
        format!("{manifest}health: {{command: [link]}}\n"),
        manifest.replace("shell: /usr/bin/systemctl", "shell: /usr/bin/tool"),
        manifest.replace("enable: [greet.service]", "enable: [tool.service]"),
    ] {
        project.write("node/node.yaml", &changed);
        let told = project.build(&[]).error().to_owned();
        assert!(told.contains(way), "{told}");
        project.write("node/node.yaml", format!("{changed}keep: [/usr/bin/tool]\n"));
        project.build(&[]).good();
    }
    let generator = "systemd-sysv-generator";
    project.write(
        "node/node.yaml",
        manifest.replace("enable: [greet.service]", &format!("enable: [greet.service], mask: [{generator}]")),
    );
    let told = project.build(&[]).error().to_owned();
    assert!(told.contains(&format!("services.mask names {generator}, which is left out: ")), "{told}");
    assert!(
        told.contains("`prune: [/usr/lib/systemd/system-generators/systemd-sysv*]` leaves out"),
        "{told}"
    );
}

#[test]
fn what_prune_takes_from_a_unit_to_enable_is_named() {
    let project = project(PATTERNS);
    let mut before = "greet.service".to_owned();
    for (unit, file, pattern) in LEFT_OUT {
        project.edit(&format!("enable: [{before}]"), &format!("enable: [{unit}]"));
        before = unit.to_owned();
        let manifest = project.text("node/node.yaml");
        let told = project.build(&[]).error().to_owned();
        let said = format!("`prune: [{pattern}]` leaves out {file}, and `keep: [{file}]` brings it back");
        assert!(told.contains(&format!("services.enable names {unit}, which no package")), "{told}");
        assert!(told.contains(&said), "{told}");
        // The way out is one.
        project.write("node/node.yaml", format!("{manifest}keep: [{file}]\n"));
        project.build(&[]).good();
        project.write("node/node.yaml", manifest);
    }
    // Of what no package had, nothing is said.
    project.edit(&format!("enable: [{before}]"), "enable: [nosuch.service]");
    let told = project.build(&[]).error().to_owned();
    assert!(!told.contains("`prune`"), "{told}");
}

#[test]
fn notes_of_enabling_reach_the_user() {
    let project = project("/usr/none");
    let unit =
        "[Service]\nExecStart=/usr/bin/greet\n[Install]\nWantedBy=multi-user.target\nAlso=gone.socket\n";
    std::fs::create_dir_all(project.path(&format!("node/overlay/{UNITS}"))).unwrap();
    project.write(&format!("node/overlay/{UNITS}/mine.service"), unit);
    let script = "  - {path: /etc/init.d/daemon, mode: \"0755\", content: \"#!/usr/bin/greet\\nstart-stop-daemon --start\\n\"}\n";
    project.edit(
        "  - {path: /etc/greet.d, directory: true}\n",
        &format!("{script}  - {{path: /etc/greet.d, directory: true}}\n"),
    );
    project.edit(
        "enable: [greet.service]",
        "enable: [greet.service, mine.service, daemon.service, systemd-cryptsetup@data.service]",
    );
    let told = project.build(&[]).good().err;
    for said in [
        "mine.service asks to enable gone.socket too, which is masked or not there",
        "services.enable names daemon.service, whose /etc/init.d/daemon uses start-stop-daemon, which is not in the image: \
         add dpkg to `packages`",
        "services.enable names systemd-cryptsetup@data.service, which systemd-cryptsetup-generator makes at boot and starts by \
         itself",
    ] {
        assert_eq!(told.matches(said).count(), 1, "{said} in {told}");
    }
}
