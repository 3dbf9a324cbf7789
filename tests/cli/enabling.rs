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

#[test]
fn what_prune_takes_from_a_unit_to_enable_is_named() {
    let project = project(
        "/etc/init.d, /usr/share/containers, /usr/lib/systemd/system/*d.service, /usr/lib/systemd/system/turn*",
    );
    let mut before = "greet.service".to_owned();
    for (unit, file) in [
        ("old.service", "/etc/init.d/old"),
        ("older.service", "/etc/init.d/old"),
        ("clock.service", "/etc/init.d/clock.sh"),
        ("web.service", "/usr/share/containers/systemd/web.container"),
        ("pruned.service", "/usr/lib/systemd/system/pruned.service"),
        ("turn@a.service", "/usr/lib/systemd/system/turn@.service"),
    ] {
        project.edit(&format!("enable: [{before}]"), &format!("enable: [{unit}]"));
        before = unit.to_owned();
        let manifest = project.text("node/node.yaml");
        let told = project.build(&[]).error().to_owned();
        let said = format!("`prune` leaves out {file}, and `keep: [{file}]` brings it back");
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
