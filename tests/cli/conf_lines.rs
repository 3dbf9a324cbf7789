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
fn accounts_that_a_line_does_not_make() {
    let mut project = Project::new();
    let lines = "u pack ten\nu owner /usr/lib/nowhere\nu twice 33\n";
    project.archive.add(&Package::new("accounts", "1").file("usr/lib/sysusers.d/accounts.conf", lines));
    project.publish();
    project.edit("greeter]", "greeter, accounts]");
    // A package's line costs no build, nor the accounts of its other lines.
    let noted = project.build(&[]).good().err;
    assert_says(
        &noted,
        &[
            "/usr/lib/sysusers.d/accounts.conf:1 (accounts) says what it does not do: \"ten\" is no id",
            "/etc/sysusers.d (`overlays` or `files`) takes the place of this one",
            "/usr/lib/sysusers.d/accounts.conf:2 (accounts) says what it does not do: there is no /usr/lib/nowhere",
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
            "/etc/sysusers.d/mine.conf:2 (overlay overlay) says what it does not do: \"b\u{e4}d\" is not a name of a user or group",
            "/etc/sysusers.d/mine.conf:3 (overlay overlay) says",
            "/etc/sysusers.d/mine.conf:4 (overlay overlay) says what it does not do: \"home\" cannot be the home directory: it is not \
             absolute",
            "/etc/sysusers.d/mine.conf:5 (overlay overlay) says what it does not do: %H is not known when the image is built",
            "mend it: sysusers.d(5)",
        ],
    );
}
