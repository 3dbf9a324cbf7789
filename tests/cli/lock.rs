//! What is locked stays; what is not is told, with the difference and the way on.

use super::archive::greeter;
use super::project::{Project, Ran};

fn locked(project: &Project, package: &str) -> String {
    project.json("node/node.lock")["packages"][package]["version"].as_str().unwrap_or("none").to_owned()
}

fn lock(project: &Project, arguments: &[&str]) -> Ran {
    project.run(&[&["lock", "node/node.yaml"], arguments].concat())
}

#[test]
fn what_runs_keller_on_the_node_is_no_obstacle() {
    let project = Project::new();
    let units = "node/overlay/usr/lib/systemd/system";
    std::fs::create_dir_all(project.path(units)).unwrap();
    let unit = "[Service]\nExecStart=/usr/bin/keller agent\n[Install]\nWantedBy=multi-user.target\n";
    project.write(&format!("{units}/own.service"), unit);
    project.edit("enable: [greet.service]", "enable: [greet.service, own.service]");
    lock(&project, &[]).good();
    project.build(&["--locked"]).good();
}

#[test]
fn what_is_locked_stays() {
    let mut project = Project::new();
    project.build(&[]).good();
    let (first, sums) = (project.read("node/node.lock"), project.read("node/out/SHA256SUMS"));

    // Both versions are there: neither a build nor a lock takes the new one unasked.
    project.archive.add(&greeter("2.1-1"));
    project.archive.release.date += 3600;
    project.publish();
    project.build(&[]).good();
    assert_eq!(project.read("node/out/SHA256SUMS"), sums);
    let ran = lock(&project, &[]).good();
    assert_eq!(ran.out, "node/node.lock was up to date: 7 packages\n");
    assert_eq!(project.read("node/node.lock"), first);

    let ran = lock(&project, &["--update", "greeter"]).good();
    assert!(ran.err.contains("  upgraded greeter 2.0-1 → 2.1-1"), "{}", ran.err);
    assert!(ran.err.contains("container hello:"), "{}", ran.err);
    assert_eq!(ran.out, "node/node.lock is up to date now: 7 packages\n");
    assert_eq!(locked(&project, "greeter"), "2.1-1");
    project.build(&["--locked"]).good();
    assert_ne!(project.read("node/out/SHA256SUMS"), sums);

    let ran = lock(&project, &["--update", "greter"]);
    assert_eq!(
        ran.error(),
        "error: greter is not in the lock, so it cannot be updated; did you mean greeter?"
    );
    let ran = lock(&project, &["--update-all", "--json"]).good();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&ran.out).unwrap(), project.json("node/node.lock"));
}

#[test]
fn locked_refuses_what_the_lock_does_not_have() {
    let project = Project::new();
    let ran = project.build(&["--locked"]);
    assert_eq!(
        ran.error(),
        "error: building node/node.yaml: there is no lock node/node.lock: make it with `keller lock`"
    );
    lock(&project, &[]).good();
    project.build(&["--locked"]).good();

    project.edit("systemd-boot-efi, greeter", "systemd-boot-efi, libgreet1");
    let ran = project.build(&["--locked"]);
    assert_eq!(
        ran.error(),
        "error: building node/node.yaml: node/node.lock does not fit the manifest any more; \
         `keller lock` mends it\n\
         \x20 the manifest has changed since the lock was made:\n  \
         packages: libgreet1 was added\n  packages: greeter was removed"
    );
    // Without the flag the same is a note, and the build goes on with what is needed anew.
    project.edit("libgreet1]", "libgreet1, greeter]");
    let ran = project.build(&[]).good();
    assert!(ran.err.contains("node/node.lock is stale:\n  the manifest has changed"), "{}", ran.err);
    assert!(ran.err.contains("packages: libgreet1 was added"), "{}", ran.err);

    project.write("node/overlay/etc/motd", "go away\n");
    let ran = project.build(&["--locked"]);
    assert_eq!(
        ran.error(),
        "error: building node/node.yaml: node/node.lock does not fit any more; \
         `keller lock` mends it\n   changed overlay overlay"
    );
    let before = project.read("node/out/SHA256SUMS");
    let ran = project.build(&[]).good();
    assert!(ran.err.contains("node/node.lock changed:\n   changed overlay overlay"), "{}", ran.err);
    assert_ne!(project.read("node/out/SHA256SUMS"), before);
    project.build(&["--locked"]).good();
}

#[test]
fn offline_tells_what_is_missing() {
    let project = Project::new();
    let ran = project.build(&["--offline"]);
    assert!(ran.error().contains("packages must be resolved, which --offline rules out"), "{}", ran.err);
    lock(&project, &[]).good();
    let store = project.path("elsewhere");
    let ran = project.build(&["--offline", "--store", store.to_str().unwrap()]);
    let error = ran.error();
    assert!(error.contains("offline, and 8 of the lock's files ("), "{error}");
    assert!(error.contains("\n  greeter 2.0-1\n") && error.contains("\n  /usr/share/greet/logo"), "{error}");
    project.build(&["--offline"]).good();
}

#[test]
fn a_version_that_mirrors_have_dropped() {
    let mut project = Project::new();
    lock(&project, &[]).good();
    project.archive.pool.retain(|path, _| !path.contains("greeter"));
    project.archive.add(&greeter("2.1-1"));
    project.publish();
    std::fs::remove_dir_all(project.path("store")).unwrap();
    let ran = project.build(&[]);
    let error = ran.error();
    assert!(error.contains("1 of 8 files could not be fetched:\n  greeter 2.0-1: "), "{error}");
    assert!(error.contains("pool/main/greeter_2.0-1_amd64.deb is no longer on file:///"), "{error}");
    assert!(error.contains("`keller lock --update greeter`"), "{error}");
    assert!(error.contains("a snapshot mirror"), "{error}");
    lock(&project, &["--update", "greeter"]).good();
    project.build(&[]).good();
    assert_eq!(locked(&project, "greeter"), "2.1-1");
}

#[test]
fn a_lock_of_another_manifest_or_of_nothing() {
    let project = Project::new();
    lock(&project, &[]).good();
    project.edit("id: tiny", "id: large");
    let ran = project.build(&[]);
    assert!(
        ran.error().starts_with(
            "error: building node/node.yaml: node/node.lock is the lock of tiny, but the manifest is large"
        ),
        "{}",
        ran.err
    );
    project.edit("id: large", "id: tiny");
    let text = project.text("node/node.lock");
    project.write("node/node.lock", text.replacen("\"epoch\"", "\"epoc\"", 1));
    let ran = project.build(&[]);
    assert!(ran.error().contains("node/node.lock:5:"), "{}", ran.err);
    assert!(ran.error().contains("unknown field `epoc`"), "{}", ran.err);
    project.write("node/node.lock", text.replacen("\"keller_lock\": 1", "\"keller_lock\": 2", 1));
    assert!(project.build(&[]).error().contains("use a newer keller"));
    project.write("node/node.lock", &text[..text.len() / 2]);
    let ran = project.build(&[]);
    assert!(ran.error().contains("`keller lock` makes it anew"), "{}", ran.err);
}

#[test]
fn scripts_that_changed_are_seen() {
    let mut project = Project::new();
    lock(&project, &[]).good();
    let scripts = project.json("node/node.lock")["packages"]["greeter"]["scripts"].clone();
    assert_eq!(scripts.as_object().unwrap().keys().collect::<Vec<_>>(), ["postinst"]);
    project.archive.add(&greeter("2.2-1").script("prerm", "#!/bin/sh\n"));
    project.publish();
    lock(&project, &["--update", "greeter"]).good();
    let scripts = project.json("node/node.lock")["packages"]["greeter"]["scripts"].clone();
    assert_eq!(scripts.as_object().unwrap().keys().collect::<Vec<_>>(), ["postinst", "prerm"]);
}
