//! A build without sums that finds its files as it left them leaves them; whatever else it finds, it makes the image that an
//! empty store would give.

use std::fs::{self, File, FileTimes};
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};

use super::project::Project;

const IMAGE: &str = "node/out/tiny_1.2.3.raw";
const STAYS: &str = "it stays as it is";

/// What the file system knows of a file that was written anew, and does not forget.
fn identity(project: &Project, name: &str) -> (u64, i64, i64) {
    let metadata = fs::metadata(project.path(name)).unwrap();
    (metadata.ino(), metadata.ctime(), metadata.ctime_nsec())
}

/// Builds; says whether the image was left as it was.
fn builds(project: &Project, more: &[&str]) -> bool {
    let ran = project.build(&[&["-v", "--no-sums"], more].concat()).good();
    assert!(project.path("node/out/build.json").exists());
    ran.err.contains(STAYS)
}

fn same(one: File, other: File) -> bool {
    let (mut one, mut other) = (one.take(u64::MAX), other.take(u64::MAX));
    let (mut left, mut right) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let count = one.read(&mut left).unwrap();
        if count == 0 {
            return other.read(&mut right).unwrap() == 0;
        }
        if other.read_exact(&mut right[..count]).is_err() || left[..count] != right[..count] {
            return false;
        }
    }
}

/// The image must be the one that a build in an empty store makes of the project as it is.
fn is_right(project: &Project, what: &str) {
    let _ = fs::remove_dir_all(project.path("empty"));
    project.build(&["--no-sums", "--store", "empty", "--output", "fresh"]).good();
    for file in [IMAGE, "node/out/build.json"] {
        let fresh = file.replace("node/out", "fresh");
        let open = |name: &str| File::open(project.path(name)).unwrap();
        assert!(same(open(file), open(&fresh)), "{what}: {file}");
    }
}

#[test]
fn files_that_nothing_changed_stay() {
    let project = Project::new();
    project.edit("runtime: podman", "outputs: [raw, qcow2]\nruntime: podman");
    let files = [IMAGE, "node/out/tiny_1.2.3.qcow2"];
    let identities = || files.map(|file| identity(&project, file));
    assert!(!builds(&project, &[]));
    let made = identities();
    for more in [&[][..], &["--offline", "--locked"]] {
        assert!(builds(&project, more));
        assert_eq!(identities(), made);
    }
    // Sums of an earlier build are of no use to one without.
    project.write("node/out/SHA256SUMS", "");
    assert!(builds(&project, &[]) && !project.path("node/out/SHA256SUMS").exists());
    is_right(&project, "unchanged");
    // The builds that read everything read everything.
    for full in [&[][..], &["--no-sums", "--check"]] {
        project.build(full).good();
        assert_ne!(identities(), made);
    }
    // Each output counts.
    assert!(!builds(&project, &[]) && builds(&project, &[]));
    fs::remove_file(project.path(files[1])).unwrap();
    assert!(!builds(&project, &[]) && project.path(files[1]).exists());
}

#[test]
fn whatever_is_asked_for_otherwise_is_made() {
    let project = Project::new();
    assert!(!builds(&project, &[]));
    let overlay = |name: &str, text: &str| {
        project.write(&format!("node/overlay/etc/{name}"), text);
    };
    let changes: [(&str, &dyn Fn()); 7] = [
        ("a file of the overlay", &|| overlay("motd", "welcame\n")),
        ("one more", &|| overlay("issue", "here\n")),
        ("one less", &|| fs::remove_file(project.path("node/overlay/etc/issue")).unwrap()),
        ("prune", &|| project.edit("/usr/share/doc]", "/usr/share/doc, /usr/share/man]")),
        ("a port of the container", &|| project.edit("ports: [\"8080:80\"]", "ports: [\"8081:80\"]")),
        ("the command line", &|| project.edit("quiet", "splash")),
        ("the keller of the node", &|| {
            let mut bytes = project.read("fake-keller");
            bytes.push(0);
            project.write("fake-keller", bytes);
        }),
    ];
    for (what, change) in changes {
        change();
        assert!(!builds(&project, &[]), "{what}");
        is_right(&project, what);
        assert!(builds(&project, &[]), "{what}, again");
    }
    // Another manifest of the same name, and back.
    let before = project.text("node/node.yaml");
    project.edit("group: greet}", "group: root}");
    assert!(!builds(&project, &[]));
    project.write("node/node.yaml", before);
    assert!(!builds(&project, &[]));
    is_right(&project, "as it was before");
}

#[test]
fn whatever_somebody_did_to_the_image_is_undone() {
    let project = Project::new();
    assert!(!builds(&project, &[]));
    let path = project.path(IMAGE);
    let open = || File::options().read(true).write(true).open(&path).unwrap();
    let flip = || {
        let (file, mut byte) = (open(), [0]);
        let at = file.metadata().unwrap().len() / 2;
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 4], at).unwrap();
    };
    let replace = || {
        fs::copy(&path, path.with_extension("copy")).unwrap();
        fs::rename(path.with_extension("copy"), &path).unwrap();
    };
    let harm: [(&str, &dyn Fn()); 8] = [
        ("a flipped bit", &flip),
        ("a flipped bit under its old time", &|| {
            let metadata = fs::metadata(&path).unwrap();
            flip();
            let times = FileTimes::new().set_modified(metadata.modified().unwrap());
            open().set_times(times).unwrap();
        }),
        ("cut short", &|| open().set_len(1 << 20).unwrap()),
        ("longer", &|| open().set_len(1 << 30).unwrap()),
        ("a copy in its place", &replace),
        ("gone", &|| fs::remove_file(&path).unwrap()),
        ("a link in its place", &|| {
            fs::rename(&path, path.with_extension("moved")).unwrap();
            std::os::unix::fs::symlink(path.with_extension("moved"), &path).unwrap();
        }),
        ("another store's key", &|| {
            fs::remove_file(project.path(".local/state/keller/store.key")).unwrap();
        }),
    ];
    for (what, harm) in harm {
        harm();
        assert!(!builds(&project, &[]), "{what}");
        is_right(&project, what);
        assert!(builds(&project, &[]), "{what}, again");
    }
}

/// What an image before has is taken of it, and of no other one.
#[test]
fn what_has_not_changed_is_taken_of_the_image_before() {
    let project = Project::new();
    fs::create_dir_all(project.path("node/overlay/usr")).unwrap();
    // Larger than what is read into memory, and two of one length.
    for (name, byte) in [("big", 1), ("alike", 1), ("other", 2)] {
        project.write(&format!("node/overlay/usr/{name}"), vec![byte; 3 << 20]);
    }
    let taken = || {
        let ran = project.build(&["-v", "--no-sums"]).good();
        assert!(!ran.err.contains(STAYS));
        ran.err.contains("are as in the image before")
    };
    let motd = |text: &str| project.write("node/overlay/etc/motd", text);
    assert!(!taken());
    for text in ["short", "long\n".repeat(3000).as_str(), "", "short"] {
        motd(text);
        assert!(taken(), "{text:.10}");
        is_right(&project, "another motd");
    }
    project.write("node/overlay/usr/other", vec![1; 3 << 20]);
    assert!(taken());
    is_right(&project, "one more of the same bytes");
    project.write("node/overlay/usr/big", vec![3; (3 << 20) + 1]);
    assert!(taken());
    is_right(&project, "another one is as it was");
    // A build with sums reads everything, and what it leaves is not taken for what the last one without left.
    motd("sums");
    let ran = project.build(&["-v"]).good();
    assert!(!ran.err.contains("are as in the image before"));
    is_right(&project, "with sums");
    motd("no sums");
    assert!(!taken());
    is_right(&project, "without");
    // Whatever somebody wrote to the image before is in none that follows.
    let path = project.path(IMAGE);
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(&[4; 4096], file.metadata().unwrap().len() - (3 << 20)).unwrap();
    motd("changed");
    assert!(!taken());
    is_right(&project, "after a write");
    // So is what was kept of its bodies only worth what its seal is.
    let mut kept = fs::read_dir(project.path("store/derived/bodies-1")).unwrap();
    let kept = kept.next().unwrap().unwrap().path();
    let mut bytes = fs::read(&kept).unwrap();
    bytes[0] ^= 4;
    fs::write(&kept, bytes).unwrap();
    motd("once more");
    assert!(!taken());
    is_right(&project, "without what was kept");
}

/// The record is worth what its seal is: bits of it, its absence, that of another output.
#[test]
fn a_record_that_is_not_ours_is_not_believed() {
    let project = Project::new();
    assert!(!builds(&project, &[]));
    let record = || {
        let mut records = fs::read_dir(project.path("store/derived/standing-3")).unwrap();
        records.next().unwrap().unwrap().path()
    };
    // Each record has a length of its own: nanoseconds have up to nine digits.
    let places: [fn(usize) -> usize; 5] = [|_| 0, |_| 20, |size| size / 2, |size| size - 40, |size| size - 1];
    for place in places {
        let mut bytes = fs::read(record()).unwrap();
        let at = place(bytes.len());
        bytes[at] ^= 4;
        fs::write(record(), bytes).unwrap();
        assert!(!builds(&project, &[]), "byte {at}");
        assert!(builds(&project, &[]), "byte {at}, again");
    }
    fs::remove_file(record()).unwrap();
    assert!(!builds(&project, &[]) && builds(&project, &[]));
    // The directory of another build has a record of its own.
    assert!(!builds(&project, &["--output", "elsewhere"]));
    fs::copy(project.path("elsewhere/tiny_1.2.3.raw"), project.path(IMAGE)).unwrap();
    assert!(!builds(&project, &[]));
    is_right(&project, "after all");
}

/// A power cut may leave an image with its times and without its bytes: what was written before the machine started is
/// written again.
#[test]
fn a_record_of_another_boot_is_not_believed() {
    let project = Project::new();
    assert!(!builds(&project, &[]) && builds(&project, &[]));
    let another_boot = || {
        let store = project.sealing_store();
        let mut records = fs::read_dir(project.path("store/derived/standing-3")).unwrap();
        let name = records.next().unwrap().unwrap().file_name().into_string().unwrap();
        let text = store.derived("standing-3", &name).unwrap().to_vec().unwrap();
        let mut record: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(record["boot"].as_str().map(str::len), Some(36));
        record["boot"] = "00000000-0000-0000-0000-000000000000".into();
        store.replace_derived("standing-3", &name, record.to_string().as_bytes()).unwrap();
    };
    another_boot();
    assert!(!builds(&project, &[]));
    is_right(&project, "after another boot");
    assert!(builds(&project, &[]));
    // Nor is anything taken of that image.
    another_boot();
    project.write("node/overlay/etc/motd", "changed\n");
    let ran = project.build(&["-v", "--no-sums"]).good();
    assert!(!ran.err.contains("are as in the image before"), "{}", ran.err);
    is_right(&project, "changed after another boot");
}
