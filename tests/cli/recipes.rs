//! What holds for a node's root holds for a container's image: each rule is tried in both.

use super::archive::Package;
use super::elf;
use super::project::Project;

/// A project whose root and whose container have `parcel`; `recipe` stands in both files.
fn project(parcel: &Package, recipe: &str) -> Project {
    let mut project = Project::new();
    project.archive.add(parcel);
    project.publish();
    for file in ["node/node.yaml", "node/hello.yaml"] {
        let text = project.text(file).replace("greeter]", "greeter, parcel]");
        assert!(text.contains("parcel]"), "{file}");
        project.write(file, format!("{text}{recipe}"));
    }
    project
}

/// Asserts that `line` is among the lines of `told` by itself and for the container, each once. `NODE` and `HELLO` stand for
/// the place.
#[track_caller]
fn assert_in_both(told: &str, place: [&str; 2], line: &str) {
    let count =
        |line: &str| told.lines().filter(|told| told.trim().trim_start_matches("note: ") == line).count();
    let both = [format!("{}{line}", place[0]), format!("container hello: {}{line}", place[1])];
    for line in &both {
        assert_eq!(count(line), 1, "{line:?} is not once in {told}");
    }
}

#[test]
fn entries_that_allow_nothing_are_told_with_their_place() {
    let parcel = Package::new("parcel", "1").file("usr/share/parcel", "");
    let project =
        project(&parcel, "setuid: [/usr/bin/su]\ndevice_nodes: [/dev/gone]\nworld_writable: [/srv/x]\n");
    let told = project.build(&[]).good().err;
    for (index, column, line) in [
        (0, 10, "setuid allows /usr/bin/su, which is not there or has no such bits: remove the entry"),
        (1, 16, "device_nodes allows /dev/gone, which is not there or is no device: remove the entry"),
        (
            2,
            18,
            "world_writable allows /srv/x, which is not there or is not open to everybody: remove the entry",
        ),
    ] {
        let place = [("node", 23), ("hello", 7)]
            .map(|(file, first)| format!("node/{file}.yaml:{}:{column}: ", first + index));
        assert_in_both(&told, [&place[0], &place[1]], line);
    }
}

#[test]
fn accounts_of_scripts_and_directories_of_others() {
    let parcel = Package::new("parcel", "1")
        .file("usr/bin/parcel", elf::program())
        .file("var/lib/greet/queue/readme", "")
        .script("postinst", "#!/bin/sh\nadduser --system --home /srv/x Debian-x\n");
    let project = project(&parcel, "");
    let recipe = project.text("node/hello.yaml");
    project.write("node/hello.yaml", recipe.replace("{name: greet}", "{name: greet, home: /var/lib/greet}"));
    let told = project.build(&[]).good().err;
    for line in [
        "parcel: its postinst would make the account Debian-x, which nothing here makes: write `system_users: [{name: \
         Debian-x, home: /srv/x}]`",
        "/var/lib/greet/queue (parcel) is root's, in the home of greet, who cannot write to it: where parcel's script gives \
         it to greet, write `files: [{path: /var/lib/greet/queue, owner: greet, group: greet}]`",
    ] {
        assert_in_both(&told, ["", ""], line);
    }
    // In a container no unit starts, so that none fails.
    let unit = "[Service]\nExecStart=/usr/bin/parcel\n";
    let wants = "usr/lib/systemd/system/multi-user.target.wants/parcel.service";
    let parcel = parcel.file("usr/lib/systemd/system/parcel.service", unit).link(wants, "../parcel.service");
    let project = self::project(&parcel, "");
    project.edit("greeter, parcel]", "greeter]");
    let recipe = project.text("node/hello.yaml").replace("prune: [/usr/lib/systemd]\n", "");
    project.write("node/hello.yaml", recipe);
    let told = project.build(&[]).good().err;
    let said = "container hello: parcel: its postinst would make the account Debian-x, which nothing here makes: write";
    assert!(told.contains(said), "{told}");
}

#[test]
fn groups_that_nobody_makes_are_told_with_their_place() {
    let said = "user greet is to be a member of group nosuch, which no package and no manifest entry makes";
    for (file, line, column) in [("node/node.yaml", 10, 50), ("node/hello.yaml", 4, 28)] {
        let project = Project::new();
        let text = project.text(file);
        let text = text
            .replace("{name: greet}", "{name: greet, groups: [nosuch]}")
            .replace("home: /var/lib/greet}", "home: /var/lib/greet, groups: [nosuch]}");
        project.write(file, text);
        let ran = project.build(&[]);
        let told = ran.error();
        assert!(told.contains(&format!("{file}:{line}:{column}: {said}")), "{told}");
    }
}

#[test]
fn what_is_assumed_in_vain_is_told_of_whose() {
    let parcel = Package::new("parcel", "1").file("usr/share/parcel", "");
    let project = project(&parcel, "assume: {nosuch: \"none has it\"}\n");
    let told = project.build(&[]).good().err;
    let said = "assume: no archive has a package nosuch, so nothing is left out by it";
    let lines: Vec<&str> = told.lines().filter(|line| line.contains(said)).collect();
    assert_eq!(lines.len(), 2, "{told}");
    assert!(
        !lines[0].contains("container") && lines[1].contains(&format!("container hello: {said}")),
        "{told}"
    );
}
