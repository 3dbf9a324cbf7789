//! The store by hand: what is in it, what may go, what has rotted.

use std::fs::{self, File};
use std::time::{Duration, SystemTime};

use super::project::Project;

#[test]
fn sweeping_keeps_what_locks_name() {
    let project = Project::new();
    project.build(&[]).good();
    let path = project.run(&["store", "path"]).good().out;
    assert_eq!(path, format!("{}\n", project.path("store").display()));
    let list = project.run(&["store", "list"]).good().out;
    // Seven packages, their index, a file by its address.
    assert_eq!(list.lines().count(), 9, "{list}");
    let young = project.run(&["store", "gc"]).good().out;
    assert_eq!(young, "0 B freed: 0 blobs, 0 derived files, 0 tools, 0 left-overs\n");

    // An unpacked tool, and one that was being unpacked when its keller was killed.
    for folder in ["store/tools/qemu/usr/bin", "store/tools/.qemu-abc/usr"] {
        fs::create_dir_all(project.path(folder)).unwrap();
        project.write(&format!("{folder}/program"), [7; 100]);
    }
    project.write("store/tools/qemu.lock", "{}");
    project.write("store/blobs/.half.1.2.tmp", "half");
    let swept = project.run(&["store", "gc", "--json"]).good().out;
    let swept: serde_json::Value = serde_json::from_str(&swept).unwrap();
    assert_eq!(swept, serde_json::json!({"bytes": 104, "blobs": 0, "derived": 0, "tools": 0, "litter": 2}));
    let long_ago = SystemTime::now() - Duration::from_secs(40 * 24 * 3600);
    File::open(project.path("store/tools/qemu")).unwrap().set_modified(long_ago).unwrap();
    let swept = project.run(&["store", "gc"]).good().out;
    assert_eq!(swept, "100 B freed: 0 blobs, 0 derived files, 1 tools, 0 left-overs\n");
    assert!(!project.path("store/tools/qemu").exists() && project.path("store/tools/qemu.lock").exists());

    // All that the lock does not name goes: the index, and what was derived.
    let arguments = ["store", "gc", "--older-than", "0", "--keep", "node/node.lock"];
    let swept = project.run(&arguments).good().out;
    assert!(swept.contains("freed: 1 blobs, ") && !swept.contains(" 0 derived files"), "{swept}");
    assert_eq!(project.run(&["store", "list"]).good().out.lines().count(), 8);
    project.build(&["--locked", "--offline"]).good();
    let swept = project.run(&["store", "gc", "--older-than", "0", "-q"]).good();
    assert_eq!(swept.out, "");
    assert_eq!(project.run(&["store", "list", "--json"]).good().out, "[]\n");
    assert!(!project.path("store/derived").exists() || project.names("store/derived").is_empty());

    let ran = project.run(&["store", "gc", "--keep", "node/node.yaml"]);
    assert!(ran.error().starts_with("error: reading node/node.yaml: "), "{}", ran.err);
    let ran = project.run(&["store", "gc", "--older-than", "soon"]);
    assert_eq!(ran.code, Some(2));
}

#[test]
fn derived_files_make_room() {
    let project = Project::new();
    project.build(&[]).good();
    let sums = project.read("node/out/SHA256SUMS");
    let derived = || project.names("store/derived").len();
    let before = derived();
    assert!(before > 4);
    let long_ago = SystemTime::now() - Duration::from_secs(40 * 24 * 3600);
    let indexes = fs::read_dir(project.path("store/derived/index-2")).unwrap();
    for index in indexes {
        File::open(index.unwrap().path()).unwrap().set_modified(long_ago).unwrap();
    }
    let all: u64 = project.names("store/derived").values().sum();
    // One byte too many costs what was not used for longest.
    let limit = (all - 1).to_string();
    let swept = project.run(&["store", "gc", "--older-than", "60", "--max-size", &limit]).good().out;
    assert!(swept.ends_with(" freed: 0 blobs, 1 derived files, 0 tools, 0 left-overs\n"), "{swept}");
    assert_eq!(derived(), before - 1);
    assert!(fs::read_dir(project.path("store/derived/index-2")).unwrap().next().is_none());
    let swept = project.run(&["store", "gc", "--max-size", "0"]).good().out;
    assert!(swept.contains(&format!(" 0 blobs, {} derived files", before - 1)), "{swept}");
    project.build(&["--locked", "--offline"]).good();
    assert_eq!(project.read("node/out/SHA256SUMS"), sums);
    assert_eq!(project.run(&["store", "gc", "--max-size", "much"]).code, Some(2));
}

#[test]
fn what_has_rotted_is_moved_away_and_fetched_again() {
    let project = Project::new();
    project.build(&[]).good();
    let sums = project.read("node/out/SHA256SUMS");
    let verified = project.run(&["store", "verify"]).good().out;
    assert!(verified.starts_with("9 blobs verified, "), "{verified}");
    let deb = project.json("node/node.lock")["packages"]["greeter"]["sha256"].as_str().unwrap().to_owned();
    let blob = format!("store/blobs/{}/{deb}", &deb[..2]);
    let mut bytes = project.read(&blob);
    bytes[300] ^= 1;
    fs::remove_file(project.path(&blob)).unwrap();
    project.write(&blob, bytes);

    let ran = project.run(&["store", "verify"]);
    assert_eq!(
        ran.error(),
        "error: 1 blobs were rotten and are moved away: the next build fetches them again"
    );
    assert!(ran.out.contains(&format!("{deb}: rotten, is ")), "{}", ran.out);
    assert!(project.path(&format!("store/rotten/{deb}")).exists());
    let ran = project.build(&["--offline"]);
    assert!(
        ran.error().contains("1 of the lock's files (800 B) are not in the store:\n  greeter 2.0-1"),
        "{}",
        ran.err
    );
    project.build(&[]).good();
    assert_eq!(project.read("node/out/SHA256SUMS"), sums);
    project.run(&["store", "verify"]).good();
}

#[test]
fn a_store_that_cannot_be() {
    let project = Project::new();
    for store in ["logo", "/proc/keller"] {
        let ran = project.build(&["--store", store]);
        let error = ran.error();
        println!("{error}");
        assert!(
            error.contains(&format!(
                "using {store} for the store; --store or KELLER_STORE may name another directory: "
            )),
            "{error}"
        );
    }
}
