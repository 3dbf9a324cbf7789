//! Lines of sysusers.d and tmpfiles.d that systemd passes over: an error where they are the user's own.

use super::archive::Package;
use super::project::Project;

#[track_caller]
fn assert_says(told: &str, parts: &[&str]) {
    for part in parts {
        assert!(told.contains(part), "{part:?} is not in {told}");
    }
}

#[test]
fn what_a_node_would_only_log() {
    let mut project = Project::new();
    project.archive.add(&Package::new("lines", "1").file("usr/lib/tmpfiles.d/lines.conf", "nonsense\n"));
    project.publish();
    project.edit("greeter]", "greeter, lines]");
    let noted = project.build(&[]).good().err;
    assert!(!noted.contains("lines.conf"), "a package's line is the node's: {noted}");
    std::fs::create_dir_all(project.path("node/overlay/usr/lib/tmpfiles.d")).unwrap();
    project.write(
        "node/overlay/usr/lib/tmpfiles.d/mine.conf",
        "d /var/lib/mine 0755 nosuch root -\nd /var/x - - - - x\nd /var/y 0755\nd /var/y 0700\n\
         w /opt/tool/conf - - - - x\nd /opt/tool/%m\nL+ /opt/tool/bin - - - - /usr/bin\nd /opt/tool/bin 0755\n",
    );
    std::fs::create_dir_all(project.path("node/overlay/opt/tool/bin")).unwrap();
    project.write("node/overlay/opt/tool/conf", "");
    project.write("node/overlay/opt/tool/bin/x", "");
    let noted = project.build(&[]).good().err;
    assert_says(
        &noted,
        &[
            "/usr/lib/tmpfiles.d/mine.conf:1 (overlay overlay) has a line without effect: the image does not have user nosuch",
            "/usr/lib/tmpfiles.d/mine.conf:2 (overlay overlay) has a line without effect: a line of type d takes no argument, \
             and \"x\" does nothing",
            "/usr/lib/tmpfiles.d/mine.conf:4 (overlay overlay) has a line without effect: /usr/lib/tmpfiles.d/mine.conf:3 makes the \
             path otherwise, and the first line counts: take one of the two out",
            "/usr/lib/tmpfiles.d/mine.conf:5 (overlay overlay) has a line without effect: the image ships /opt/tool/conf, which is \
             read-only on a node: say it with `files` or in an overlay and its .meta, or name a path below /var",
            "/usr/lib/tmpfiles.d/mine.conf:6 (overlay overlay) has a line without effect: the image ships /opt/tool,",
            "/usr/lib/tmpfiles.d/mine.conf:7 (overlay overlay) has a line without effect: the image ships /opt/tool/bin,",
        ],
    );
    project.edit(
        "  - {path: /etc/greet.d, directory: true}",
        "  - {path: /etc/tmpfiles.d/f.conf, content: \"d /var/f 0999\\ny /var/g\\n\"}",
    );
    let told = project.build(&[]).error().to_owned();
    println!("{told}");
    assert_says(
        &told,
        &[
            "/etc/tmpfiles.d/f.conf:1 (files) has a line without effect: \"0999\" is not an octal mode such as 0755: \
             systemd-tmpfiles passes over the line on every node; mend it: tmpfiles.d(5)",
            "/etc/tmpfiles.d/f.conf:2 (files) has a line without effect: there is no line of type 'y'",
        ],
    );
}

#[test]
fn accounts_that_a_line_does_not_make() {
    let mut project = Project::new();
    let lines = "u pack ten\nu owner /usr/lib/nowhere\nu once 733\nu twice 733\n";
    project.archive.add(&Package::new("accounts", "1").file("usr/lib/sysusers.d/accounts.conf", lines));
    project.publish();
    project.edit("greeter]", "greeter, accounts]");
    // A package's line costs no build, nor the accounts of its other lines.
    let noted = project.build(&[]).good().err;
    assert_says(
        &noted,
        &[
            "/usr/lib/sysusers.d/accounts.conf:1 (accounts) has a line without effect: \"ten\" is no id",
            "/etc/sysusers.d (`overlays` or `files`) takes the place of this one",
            "/usr/lib/sysusers.d/accounts.conf:2 (accounts) has a line without effect: there is no /usr/lib/nowhere",
            "systemd-sysusers does the same; let `.meta` give the path an owner of 1 to 999",
            "/usr/lib/sysusers.d/accounts.conf:4 (accounts) has a line without effect: user twice gets another id than 733, which once has",
            "systemd-sysusers does the same; ask for a free id, or for none",
        ],
    );
    let lines = "u good -\nu b\u{e4}d -\ng also% -\nu a - - home\nu h-%H -\n";
    std::fs::create_dir_all(project.path("node/overlay/etc/sysusers.d")).unwrap();
    project.write("node/overlay/etc/sysusers.d/mine.conf", lines);
    let told = project.build(&[]).error().to_owned();
    println!("{told}");
    assert_says(
        &told,
        &[
            "/etc/sysusers.d/mine.conf:2 (overlay overlay) has a line without effect: \"b\u{e4}d\" is not a name of a user or group",
            "/etc/sysusers.d/mine.conf:3 (overlay overlay) has a line without effect",
            "/etc/sysusers.d/mine.conf:4 (overlay overlay) has a line without effect: \"home\" cannot be the home directory: it is not \
             absolute",
            "/etc/sysusers.d/mine.conf:5 (overlay overlay) has a line without effect: %H is not known when the image is built",
            "mend it: sysusers.d(5)",
        ],
    );
}
