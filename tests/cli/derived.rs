//! What a build may believe of its store: blobs by their digests, what was derived by its seal, and nothing that
//! others could have put there. Each test ends in the right image, or in an error that says what to do.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use keller::base::seal::Key;
use keller::store::{Access, Store, StoreError};

use super::project::{Project, Ran, names};
use crate::deb::{file, tar};
use crate::judges::fixture::is_root;

/// What a build has made, by which images are compared.
const SUMS: &str = "node/out/SHA256SUMS";

/// No user.
const NOBODY: u32 = 65534;

/// Places of a file of `size` bytes in which bits are flipped: both ends, and what a seal has of hashes.
fn places(size: u64) -> Vec<u64> {
    let mut places = vec![0, size / 2, size.saturating_sub(40), size - 1];
    places.retain(|place| *place < size);
    places.sort();
    places.dedup();
    places
}

fn flip(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 4], at).unwrap();
}

/// Files of the store by their paths from its root, of one part of it.
fn files(project: &Project, part: &str) -> Vec<String> {
    names(&project.path("store").join(part)).into_keys().map(|name| format!("store/{part}/{name}")).collect()
}

fn key(byte: u8) -> Access {
    Access { key: Some(Key::from_bytes([byte; 32])), shared: false }
}

#[test]
fn no_flipped_bit_of_what_was_derived_gives_another_image() {
    let project = Project::new();
    project.build(&[]).good();
    let (sums, lock) = (project.read(SUMS), project.read("node/node.lock"));
    let derived = files(&project, "derived");
    let kinds: std::collections::BTreeSet<_> =
        derived.iter().map(|name| name.split('/').nth(2).unwrap()).collect();
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), ["index-2", "initramfs-2", "modules-4", "unpacked-6"]);
    let (mut told, mut tried) = (0, 0);
    for name in &derived {
        let path = project.path(name);
        let size = fs::metadata(&path).unwrap().len();
        for at in places(size) {
            flip(&path, at);
            let ran = match name.contains("/index-2/") {
                // Only a build that resolves reads it.
                true => {
                    fs::remove_file(project.path("node/node.lock")).unwrap();
                    project.run(&["lock", "node/node.yaml"])
                }
                false => project.build(&["--locked", "--offline"]),
            };
            let ran = ran.good();
            tried += 1;
            told += usize::from(ran.err.contains(path.to_str().unwrap()) && ran.err.contains("made anew"));
            assert_eq!(project.read(SUMS), sums, "byte {at} of {name}");
            let pins =
                |lock: &[u8]| serde_json::from_slice::<serde_json::Value>(lock).unwrap()["packages"].clone();
            assert_eq!(pins(&project.read("node/node.lock")), pins(&lock), "byte {at} of {name}");
            project.write("node/node.lock", &lock);
        }
    }
    println!("{tried} flips over {} files, {told} told", derived.len());
    // What is not read, as it was pruned, is not told; a byte of the key's name makes it somebody else's.
    assert!(tried >= 30 && told * 2 > tried, "{told} of {tried}");
}

#[test]
fn no_flipped_bit_of_a_blob_gives_another_image() {
    let project = Project::new();
    project.build(&[]).good();
    let (sums, lock) = (project.read(SUMS), project.read("node/node.lock"));
    for name in files(&project, "blobs") {
        let path = project.path(&name);
        let size = fs::metadata(&path).unwrap().len();
        for at in [size / 2, size - 1] {
            flip(&path, at);
            // So that all of it has to be read.
            fs::remove_dir_all(project.path("store/derived")).unwrap();
            let ran = project.build(&["--locked"]).good();
            assert_eq!(project.read(SUMS), sums, "byte {at} of {name}");
            if path.exists() && project.run(&["store", "verify"]).code == Some(0) {
                let digest = name.rsplit('/').next().unwrap();
                let words = format!("{digest} in the store is not what its name says, and is now ");
                assert!(ran.err.contains(&words), "{}", ran.err);
            } else {
                // The index, which a locked build does not need: the next one that resolves fetches it again.
                fs::remove_file(project.path("node/node.lock")).unwrap();
                let ran = project.build(&[]).good();
                assert!(path.exists(), "{}", ran.err);
                project.run(&["store", "verify"]).good();
                let image =
                    |sums: &[u8]| String::from_utf8_lossy(sums).lines().next_back().map(str::to_owned);
                assert_eq!(image(&project.read(SUMS)), image(&sums));
                project.write("node/node.lock", &lock);
            }
        }
    }
}

#[test]
fn a_bad_blob_is_put_aside_and_fetched_again() {
    let project = Project::new();
    project.build(&[]).good();
    let sums = project.read(SUMS);
    let lock = project.json("node/node.lock");
    let blob = |digest: &serde_json::Value| {
        let digest = digest.as_str().unwrap();
        project.path(&format!("store/blobs/{}/{digest}", &digest[..2]))
    };
    // Of the root and of a container's own, and a file by its address: all in one build.
    let packages = [&lock["packages"]["greeter"]["sha256"], &lock["packages"]["systemd"]["sha256"]];
    let file = &lock["files"]["/usr/share/greet/logo"]["sha256"];
    let spoil = || {
        fs::remove_dir_all(project.path("store/derived")).unwrap();
        for digest in packages.into_iter().chain([file]) {
            flip(&blob(digest), 1);
        }
    };
    spoil();
    let ran = project.build(&["--locked", "--offline"]);
    assert!(
        ran.error().contains("are not in the store:") || ran.error().contains("is not in the store"),
        "{}",
        ran.err
    );
    assert!(ran.err.contains("in the store is not what its name says, and is now "), "{}", ran.err);
    project.build(&["--locked"]).good();
    assert_eq!(project.read(SUMS), sums);
    spoil();
    let ran = project.build(&["--locked"]).good();
    assert_eq!(project.read(SUMS), sums);
    for digest in packages.into_iter().chain([file]) {
        let words = format!("{} in the store is not what its name says", digest.as_str().unwrap());
        assert_eq!(ran.err.matches(&words).count(), 1, "{}", ran.err);
    }
    // What is in the way and would block.
    let path = blob(packages[0]);
    fs::remove_dir_all(project.path("store/derived")).unwrap();
    fs::remove_file(&path).unwrap();
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    project.build(&["--locked"]).good();
    assert_eq!(project.read(SUMS), sums);
    project.build(&["--locked", "--check"]).good();
}

/// What a failing disk no longer gives, and links that lead nowhere.
#[test]
fn what_cannot_be_read_is_fetched_or_made_again() {
    let project = Project::new();
    project.build(&[]).good();
    let sums = project.read(SUMS);
    let lock = project.json("node/node.lock");
    let replace = |name: &str, target: &str| {
        let path = project.path(name);
        let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
        std::os::unix::fs::symlink(target, path).unwrap();
    };
    // No process has anything at its address 0: to read there is an error of the disk's kind.
    let (unreadable, long) = ("/proc/self/mem", "x".repeat(300));
    for digest in [&lock["packages"]["greeter"]["sha256"], &lock["files"]["/usr/share/greet/logo"]["sha256"]]
    {
        let digest = digest.as_str().unwrap();
        let name = format!("store/blobs/{}/{digest}", &digest[..2]);
        for target in [unreadable, digest, &long] {
            let _ = fs::remove_dir_all(project.path("store/derived"));
            replace(&name, target);
            let ran = project.build(&["--locked"]).good();
            assert_eq!(project.read(SUMS), sums, "{}", ran.err);
            assert!(project.path(&name).symlink_metadata().unwrap().is_file());
        }
        replace(&name, unreadable);
        let ran = project.run(&["store", "verify"]);
        assert!(
            ran.out.contains(&format!("{digest}: rotten, is no file that can be read and now ")),
            "{}",
            ran.out
        );
        project.build(&["--locked"]).good();
    }
    let file = files(&project, "derived/unpacked-6").remove(0);
    let name = file.rsplit('/').next().unwrap();
    for (place, target) in [
        (file.as_str(), unreadable),
        (file.as_str(), name),
        (file.as_str(), long.as_str()),
        ("store/derived/unpacked-6", "unpacked-6"),
        ("store/derived", "derived"),
    ] {
        replace(place, target);
        let ran = project.build(&["--locked", "--offline"]).good();
        assert_eq!(project.read(SUMS), sums, "{}", ran.err);
        assert!(project.path(&file).symlink_metadata().unwrap().is_file(), "{place} -> {target}");
    }
}

/// What the store of somebody who changed a package has derived, in the place of what the store here has.
#[test]
fn a_planted_unit_does_not_get_into_a_locked_image() {
    let project = Project::new();
    project.build(&[]).good();
    let sums = project.read(SUMS);
    let sha256 = project.json("node/node.lock")["packages"]["greeter"]["sha256"].as_str().unwrap().to_owned();
    let place = project.path(&format!("store/derived/unpacked-6/{sha256}"));
    let unit = tar(&[file("./usr/lib/systemd/system/planted.service", b"[Service]\nExecStart=/bin/sh\n")]);
    let whole = project.read(&format!("store/derived/unpacked-6/{sha256}"));
    // Sealed with a key of the planter's, then with the seal of what was there.
    let planter = tempfile::tempdir().unwrap();
    let store = Store::open_with(planter.path(), key(9)).unwrap();
    store
        .derive::<StoreError>("unpacked-6", &sha256, |file| file.write_all(&unit).map_err(StoreError::Read))
        .unwrap();
    let sealed = fs::read(planter.path().join("derived/unpacked-6").join(&sha256)).unwrap();
    let footer = &whole[whole.len() - 64..];
    for planted in
        [&sealed[..], &[&unit[..], footer].concat(), &[&whole[..], footer].concat(), &unit, b"", footer]
    {
        fs::write(&place, planted).unwrap();
        let ran = project.build(&["--locked", "--offline"]).good();
        assert_eq!(project.read(SUMS), sums, "{}", ran.err);
        assert_eq!(fs::read(&place).unwrap(), whole);
    }
    // Another file of this very store, and a link to one.
    let other =
        files(&project, "derived/unpacked-6").into_iter().find(|name| !name.ends_with(&sha256)).unwrap();
    for plant in [&(|| assert!(fs::copy(project.path(&other), &place).unwrap() > 0)) as &dyn Fn(), &|| {
        fs::remove_file(&place).unwrap();
        std::os::unix::fs::symlink(project.path(&other), &place).unwrap();
    }] {
        plant();
        let ran = project.build(&["--locked", "--offline"]).good();
        assert_eq!(project.read(SUMS), sums);
        assert!(ran.err.contains("is not what was sealed under this name"), "{}", ran.err);
    }
}

#[test]
fn an_index_that_was_sealed_anew_pins_nothing() {
    let project = Project::new();
    project.run(&["lock", "node/node.yaml"]).good();
    let lock = project.json("node/node.lock");
    let [name] = &files(&project, "derived/index-2")[..] else { panic!("one index") };
    let whole = project.read(name);
    // The text stands first, and its records end in a digest.
    let end = whole.iter().rposition(|byte| *byte == b'\n').unwrap();
    let text =
        whole[..end].windows(2).position(|pair| pair == [0, 0]).map_or(&whole[..end], |at| &whole[..at]);
    let text = String::from_utf8_lossy(text).into_owned();
    let pinned = lock["packages"]["greeter"]["sha256"].as_str().unwrap();
    assert!(text.contains(pinned), "{text}");
    let forged = text.replace(pinned, &"5".repeat(64));
    let planter = tempfile::tempdir().unwrap();
    let store = Store::open_with(planter.path(), key(9)).unwrap();
    let digest = name.rsplit('/').next().unwrap();
    let write = |bytes: &[u8]| {
        store
            .derive::<StoreError>("index-2", digest, |file| file.write_all(bytes).map_err(StoreError::Read))
            .unwrap();
    };
    write(forged.as_bytes());
    let sealed = fs::read(planter.path().join("derived/index-2").join(digest)).unwrap();
    // As keller sealed it before it had keys: the text, and its digest.
    let unkeyed = [forged.as_bytes(), keller::base::Digest::of(&forged).as_bytes()].concat();
    for planted in [sealed, unkeyed] {
        project.write(name, planted);
        fs::remove_file(project.path("node/node.lock")).unwrap();
        project.run(&["lock", "node/node.yaml"]).good();
        assert_eq!(project.json("node/node.lock")["packages"], lock["packages"]);
        assert_eq!(project.read(name), whole);
    }
}

#[test]
fn without_its_key_all_that_was_derived_is_made_anew() {
    let project = Project::new();
    project.build(&[]).good();
    let sums = project.read(SUMS);
    let key = project.path(".local/state/keller/store.key");
    let first = fs::read(&key).unwrap();
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o7777, 0o600);
    let seals = |project: &Project| -> Vec<Vec<u8>> {
        files(project, "derived").iter().map(|name| project.read(name)).collect()
    };
    let before = seals(&project);

    // A cache that was restored without the user's state, and a key that is not what it was.
    for change in
        [&(|| fs::remove_file(&key).unwrap()) as &dyn Fn(), &|| fs::write(&key, "damaged\n").unwrap()]
    {
        change();
        let ran = project.build(&["--locked", "--offline"]).good();
        assert_eq!(project.read(SUMS), sums);
        assert_eq!(
            ran.err.contains("store.key is damaged: another one takes its place"),
            ran.err.contains("warning")
        );
        assert_ne!(fs::read(&key).unwrap(), first);
    }
    assert_ne!(seals(&project), before);

    // Whoever could read it could have sealed with it.
    let known = fs::read(&key).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let ran = project.build(&["--locked", "--offline"]).good();
    assert!(
        ran.err.contains("store.key is open to others (mode 0644, not 0600): another one takes"),
        "{}",
        ran.err
    );
    assert_eq!(project.read(SUMS), sums);
    assert!(fs::read(&key).unwrap() != known);
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o7777, 0o600);

    // With nowhere to keep one.
    let mut nowhere = project.build_command(&["--locked", "--offline"]);
    let kept = seals(&project);
    let ran = Ran::of(&nowhere.env("HOME", "/nonexistent").output().unwrap()).good();
    assert!(ran.err.contains("there is no place for the key of the store"), "{}", ran.err);
    assert_eq!((project.read(SUMS), seals(&project)), (sums, kept));
    assert!(!Path::new("/nonexistent").exists());
}

#[test]
fn builds_at_once_make_one_key() {
    let project = Project::new();
    project.run(&["lock", "node/node.yaml"]).good();
    fs::remove_dir_all(project.path("store/derived")).unwrap();
    fs::remove_dir_all(project.path(".local")).unwrap();
    let outputs = ["one", "two", "three"];
    let children = outputs.map(|output| project.build_command(&["--locked", "-o", output]).spawn().unwrap());
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let sums = outputs.map(|output| project.read(&format!("{output}/SHA256SUMS")));
    assert!(sums[0] == sums[1] && sums[1] == sums[2]);
    let ran = project.run(&["store", "verify"]).good();
    let count = files(&project, "derived").len();
    assert!(ran.out.contains(&format!("\n{count} derived files verified, ")), "{}", ran.out);
    assert!(!ran.out.contains("not yours"), "{}", ran.out);
}

/// What is neither a blob nor derived decides nothing.
#[test]
fn other_files_of_a_store_may_be_anything() {
    let project = Project::new();
    project.build(&[]).good();
    let sums = project.read(SUMS);
    for name in
        files(&project, "").into_iter().filter(|name| !name.contains("blobs") && !name.contains("derived"))
    {
        for planted in ["", "planted"] {
            fs::write(project.path(name.as_str()), planted).unwrap();
            let ran = project.build(&["--locked", "--offline"]).good();
            assert_eq!(project.read(SUMS), sums, "{name}");
            assert!(!ran.err.contains("warning"), "{}", ran.err);
        }
    }
    for name in ["store/blobs/litter", "store/derived/litter", "store/tools", "store/rotten"] {
        project.write(name, "planted");
        project.build(&["--locked", "--offline"]).good();
        assert_eq!(project.read(SUMS), sums, "{name}");
        fs::remove_file(project.path(name)).unwrap();
    }
    // A directory in the place of a file.
    let derived = files(&project, "derived/unpacked-6").remove(0);
    fs::remove_file(project.path(&derived)).unwrap();
    fs::create_dir(project.path(&derived)).unwrap();
    let ran = project.build(&["--locked", "--offline"]).good();
    assert!(ran.err.contains("is a directory, where keller has a file: it is now "), "{}", ran.err);
    assert_eq!(project.read(SUMS), sums);
}

#[test]
fn two_users_share_a_store_and_believe_only_themselves() {
    let project = Project::new();
    project.build(&[]).good();
    let sums = project.read(SUMS);
    let build = |state: &str| {
        let mut command = project.build_command(&["--locked", "--offline"]);
        Ran::of(&command.env("XDG_STATE_HOME", project.path(state)).output().unwrap()).good()
    };
    for state in ["one", "two", "two", "one"] {
        let ran = build(state);
        assert_eq!(project.read(SUMS), sums, "{}", ran.err);
        assert!(!ran.err.contains("warning"), "{}", ran.err);
    }
    let mut verify = project.keller(&["store", "verify"]);
    let ran = Ran::of(&verify.env("XDG_STATE_HOME", project.path("two")).output().unwrap()).good();
    assert!(ran.out.contains("\n0 derived files verified, 0 B\n"), "{}", ran.out);
    assert!(
        ran.out.contains("derived files are sealed with a key that is not yours: they are not used"),
        "{}",
        ran.out
    );
}

#[test]
fn verifying_tells_what_was_derived_too() {
    let project = Project::new();
    project.build(&[]).good();
    let ran = project.run(&["store", "verify"]).good();
    let count = files(&project, "derived").len();
    assert!(ran.out.contains(&format!("\n{count} derived files verified, ")), "{}", ran.out);
    let derived = files(&project, "derived");
    flip(&project.path(&derived[0]), 3);
    project.write("store/derived/unpacked-6/planted", "x");
    fs::create_dir_all(project.path("store/tools/qemu/usr/bin")).unwrap();
    project.write("store/tools/qemu/usr/bin/qemu-system-x86_64", "#!/bin/sh\n");
    let ran = project.run(&["store", "verify", "--json"]);
    assert_eq!(
        ran.error(),
        "error: 2 derived files were changed and are moved away: the next build makes them anew; 1 tools were \
         changed and are moved away: they are unpacked anew when they are needed"
    );
    let said: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(said["derived"]["good"], count - 1);
    assert_eq!(said["derived"]["broken"].as_array().unwrap().len(), 2);
    assert_eq!(said["tools"]["broken"][0]["name"], "qemu");
    project.run(&["store", "verify"]).good();
    assert!(!project.path("store/tools/qemu").exists() && project.path("store/rotten/tools-qemu").exists());
}

#[test]
fn a_planted_tool_is_not_run() {
    let project = Project::new();
    project.build(&[]).good();
    fs::create_dir_all(project.path("store/tools/qemu/usr/bin")).unwrap();
    fs::create_dir_all(project.path("store/tools/qemu/usr/share/OVMF")).unwrap();
    let program = format!("#!/bin/sh\ntouch {}\n", project.path("ran").display());
    for name in
        ["usr/bin/qemu-system-x86_64", "usr/share/OVMF/OVMF_CODE_4M.fd", "usr/share/OVMF/OVMF_VARS_4M.fd"]
    {
        project.write(&format!("store/tools/qemu/{name}"), &program);
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(project.path(&format!("store/tools/qemu/{name}")), mode).unwrap();
    }
    // A lock that would fetch whatever it names.
    project.write("store/tools/qemu.lock", project.read("node/node.lock"));
    let mut boot = project.keller(&[
        "boot",
        "node/out/tiny_1.2.3.raw",
        "--offline",
        "--expect",
        "login:",
        "--timeout",
        "5",
    ]);
    let ran = Ran::of(&boot.env("PATH", "/nowhere").output().unwrap());
    let error = ran.error();
    let words = format!(
        "unpacking QEMU with UEFI firmware out of the store {} alone, as --offline asks; running this once without \
         --offline, or installing qemu-system-x86 and ovmf, would do: the store has no dists/trixie",
        project.path("store").display()
    );
    assert!(error.contains(&words) && error.contains("dists/trixie-security/InRelease"), "{error}");
    assert!(!project.path("ran").exists());
}

#[test]
fn a_store_that_others_can_write_is_refused() {
    let project = Project::new();
    project.build(&[]).good();
    let sums = project.read(SUMS);
    let set = |path: &str, mode| {
        fs::set_permissions(project.path(path), fs::Permissions::from_mode(mode)).unwrap();
    };
    let refused = |words: &str| {
        for arguments in [
            &["build", "--keller", "fake-keller", "node/node.yaml"][..],
            &["lock", "node/node.yaml"],
            &["store", "verify"],
            &["store", "list"],
            &["store", "gc"],
        ] {
            let ran = project.run(arguments);
            let error = ran.error();
            assert!(error.contains("others can write the store") && error.contains(words), "{error}");
            assert!(error.contains("whoever does so owns the images that are built out of it"), "{error}");
            assert!(error.contains("--allow-shared-store"), "{error}");
            project.run(&[arguments, &["--allow-shared-store"]].concat()).good();
        }
        project.build(&["--locked", "--allow-shared-store"]).good();
        assert_eq!(project.read(SUMS), sums);
    };
    for (path, mode, words) in [
        ("store", 0o777, "is writable by everybody (mode 0777); close it by `chmod -R go-w "),
        ("store", 0o775, "is writable by its group (mode 0775)"),
        ("store/blobs", 0o757, "store/blobs is writable by everybody (mode 0757)"),
        ("store/derived/unpacked-6", 0o775, "store/derived/unpacked-6 is writable by its group"),
        // What is above it: whoever writes there puts another store in its place.
        ("", 0o777, "is writable by everybody (mode 0777)"),
    ] {
        set(path, mode);
        refused(words);
        set(path, 0o755);
    }
    project.build(&["--locked"]).good();
    if is_root() {
        // A group of which nobody knows who is in it.
        chown(project.path(""), None, Some(54321)).unwrap();
        set("", 0o775);
        refused("is writable by its group (mode 0775); close it by `chmod go-w ");
        set("", 0o755);
        chown(project.path("store"), Some(NOBODY), None).unwrap();
        refused(
            "store belongs to user 65534, neither to you nor to root; name a directory of your own by --store",
        );
    } else {
        println!(
            "SKIPPED: only root can give a store to somebody else; by numbers that is judged in the unit test"
        );
    }
}

#[test]
fn made_by_keller_a_store_is_its_users_whatever_the_umask() {
    let project = Project::new();
    let build = project.build_command(&[]);
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "umask 0; exec \"$@\"", "sh"]).arg(build.get_program()).args(build.get_args());
    like(&mut shell, &build);
    Ran::of(&shell.output().unwrap()).good();
    for folder in ["store", "store/blobs", "store/derived", "store/derived/unpacked-6"] {
        let mode = fs::metadata(project.path(folder)).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode, 0o755, "{folder}");
    }
    project.build(&[]).good();
}

/// Gives `command` the directory and the environment of `other`.
fn like(command: &mut Command, other: &Command) {
    command.env_clear().current_dir(other.get_current_dir().unwrap());
    command.envs(other.get_envs().filter_map(|(name, value)| Some((name, value?))));
}

/// Everything that `folder` has can be read by all, and written only by its owner.
fn open_to_read(folder: &Path) {
    for name in fs::read_dir(folder).unwrap() {
        let path = name.unwrap().path();
        if path.is_dir() {
            open_to_read(&path);
        }
    }
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_store_that_cannot_be_written_is_enough() {
    let project = Project::new();
    project.build(&[]).good();
    let sums = project.read(SUMS);
    for state in ["derived", "bare"] {
        if state == "bare" {
            fs::remove_dir_all(project.path("store/derived")).unwrap();
        }
        let before = names(&project.path("store"));
        let program = project.path("keller");
        let usual = project.build_command(&["--locked", "--offline", "-o", "nobody/out"]);
        let mut build = Command::new(&program);
        // After `env`, its flag and the program.
        build.args(usual.get_args().skip(2));
        like(&mut build, &usual);
        fs::create_dir_all(project.path("nobody/tmp")).unwrap();
        if !program.exists() {
            // Where the program itself lies, nobody may not be let in.
            let tested = usual.get_args().nth(1).unwrap();
            if fs::hard_link(tested, &program).is_err() {
                fs::copy(tested, &program).unwrap();
            }
        }
        build.env("HOME", project.path("nobody")).env("TMPDIR", project.path("nobody/tmp"));
        open_to_read(&project.path("."));
        if is_root() {
            for folder in ["nobody", "nobody/tmp"] {
                chown(project.path(folder), Some(NOBODY), Some(NOBODY)).unwrap();
            }
            build.uid(NOBODY).gid(NOBODY);
        } else {
            for folder in ["store", "store/blobs", "store/derived", "store/derived/unpacked-6"] {
                let _ = fs::set_permissions(project.path(folder), fs::Permissions::from_mode(0o555));
            }
        }
        let ran = Ran::of(&build.output().unwrap());
        for folder in ["store", "store/blobs", "store/derived", "store/derived/unpacked-6"] {
            let _ = fs::set_permissions(project.path(folder), fs::Permissions::from_mode(0o755));
        }
        let ran = ran.good();
        assert_eq!(project.read("nobody/out/SHA256SUMS"), sums, "{}", ran.err);
        assert_eq!(names(&project.path("store")), before);
        assert_eq!(names(&project.path("nobody/tmp")).len(), 0);
    }
}
