//! A store that several use: a user who cannot write it, a sweep beside a build, and kellers of several versions.

use std::fs::{self, File};
use std::mem::MaybeUninit;
use std::os::unix::fs::{FileExt, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init};

use super::project::{Project, Ran, names};
use crate::judges::fixture::is_root;

const SUMS: &str = "node/out/SHA256SUMS";

/// No user.
const NOBODY: u32 = 65534;

/// What a build of somebody says whose blob is gone.
const GONE: &str = " and is gone: `keller store gc` or another program has removed it meanwhile";

/// All below `folder` can be read by everybody.
fn open_to_read(folder: &Path) {
    for name in fs::read_dir(folder).unwrap() {
        let path = name.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            open_to_read(&path);
        }
    }
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A command of another user, who can read the project of root and write nothing but a home in it.
fn as_nobody(project: &Project, usual: &Command) -> Option<Command> {
    if !is_root() {
        println!("SKIPPED: only root can be another user");
        return None;
    }
    let program = project.path("keller");
    if !program.exists() {
        // Where the program itself lies, nobody may not be let in.
        let tested = usual.get_args().nth(1).unwrap();
        if fs::hard_link(tested, &program).is_err() {
            fs::copy(tested, &program).unwrap();
        }
        fs::create_dir_all(project.path("nobody/tmp")).unwrap();
        open_to_read(&project.path("."));
        for folder in ["nobody", "nobody/tmp"] {
            chown(project.path(folder), Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }
    let mut command = Command::new(program);
    // After `env`, its flag and the program.
    command.args(usual.get_args().skip(2)).env_clear().current_dir(usual.get_current_dir().unwrap());
    command.envs(usual.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.env("HOME", project.path("nobody")).env("TMPDIR", project.path("nobody/tmp"));
    command.stdin(std::process::Stdio::null());
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    command.uid(NOBODY).gid(NOBODY);
    Some(command)
}

/// Runs `command`, and `then` as soon as it opens the file at `path`, if it ever does.
fn when_opened(mut command: Command, path: &Path, then: impl FnOnce()) -> Ran {
    let watch = init(CreateFlags::NONBLOCK).unwrap();
    add_watch(&watch, path, WatchFlags::OPEN).unwrap();
    let mut then = Some(then);
    let mut child = command.spawn().unwrap();
    loop {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(&watch, &mut buffer);
        let is_opened = reader.next().is_ok_and(|event| event.events().contains(ReadFlags::OPEN));
        if is_opened && let Some(then) = then.take() {
            then();
        }
        if child.try_wait().unwrap().is_some() {
            return Ran::of(&child.wait_with_output().unwrap());
        }
        std::thread::sleep(Duration::from_micros(50));
    }
}

fn files(project: &Project, part: &str) -> Vec<String> {
    names(&project.path("store").join(part)).into_keys().map(|name| format!("store/{part}/{name}")).collect()
}

/// The image is the one that it should be, or the error says what has happened and what helps.
fn right_or_told(project: &Project, ran: &Ran, sums: &[u8], output: &str) -> bool {
    if ran.code == Some(0) {
        assert_eq!(project.read(output), sums, "{}", ran.err);
        return false;
    }
    let error = ran.error();
    assert!(ran.err.contains(GONE), "{}", ran.err);
    assert!(error.contains("not in the store"), "{error}");
    assert!(error.contains("without --offline") || error.contains("run it again"), "{error}");
    true
}

#[test]
fn blobs_that_vanish_during_a_build() {
    let project = Project::new();
    project.build(&[]).good();
    let sums = project.read(SUMS);
    let mut told = 0;
    for name in files(&project, "blobs") {
        let path = project.path(&name);
        let bytes = fs::read(&path).unwrap();
        for offline in [true, false] {
            // A build that failed early has made none.
            let _ = fs::remove_dir_all(project.path("store/derived"));
            let arguments = if offline { &["--locked", "--offline"][..] } else { &["--locked"] };
            let build = project.build_command(arguments);
            let ran = when_opened(build, &path, || fs::remove_file(&path).unwrap());
            match offline {
                true => told += usize::from(right_or_told(&project, &ran, &sums, SUMS)),
                // It is fetched again.
                false => {
                    let ran = ran.good();
                    assert_eq!(project.read(SUMS), sums, "{}", ran.err);
                }
            }
            project.write(&name, &bytes);
        }
    }
    println!("{told} builds without a network found a blob gone");
}

#[test]
fn derived_files_that_vanish_during_a_build() {
    let project = Project::new();
    project.build(&[]).good();
    let sums = project.read(SUMS);
    for name in files(&project, "derived") {
        let path = project.path(&name);
        let remove: [&dyn Fn(); 2] = [&|| fs::remove_file(&path).unwrap(), &|| {
            let _ = fs::remove_dir_all(project.path("store/derived"));
        }];
        for remove in remove {
            // What went with the others is made anew, or is what no locked build reads.
            project.build(&["--locked", "--offline"]).good();
            if !path.exists() {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(&path, "").unwrap();
            }
            let ran = when_opened(project.build_command(&["--locked", "--offline"]), &path, remove).good();
            assert_eq!(project.read(SUMS), sums, "{name}: {}", ran.err);
        }
    }
}

#[test]
fn a_sweep_does_not_wait_for_other_users_and_harms_no_image() {
    let project = Project::new();
    project.build(&[]).good();
    let sums = project.read(SUMS);
    let Some(_) = as_nobody(&project, &project.build_command(&[])) else { return };
    let blobs: Vec<_> =
        files(&project, "blobs").into_iter().map(|name| (project.read(&name), name)).collect();
    let mut told = 0;
    for (_, name) in &blobs {
        let build = project.build_command(&["--locked", "--offline", "-o", "nobody/out"]);
        let build = as_nobody(&project, &build).unwrap();
        let ran = when_opened(build, &project.path(name), || {
            project.run(&["store", "gc", "--older-than", "0"]).good();
        });
        if right_or_told(&project, &ran, &sums, "nobody/out/SHA256SUMS") {
            told += 1;
            let lock = project.path("store/lock");
            let why = format!("a sweep does not wait for this user, who cannot hold {}", lock.display());
            assert!(ran.err.contains(&why), "{}", ran.err);
        }
        for (bytes, name) in &blobs {
            project.write(name, bytes);
        }
    }
    println!("{told} of {} builds found a blob gone", blobs.len());
    // With a network as well, it cannot be put there; and it is said who can.
    fs::remove_file(project.path(&blobs[0].1)).unwrap();
    fs::remove_file(project.path(&blobs[1].1)).unwrap();
    let build = as_nobody(&project, &project.build_command(&["--locked", "-o", "nobody/out"])).unwrap();
    let ran = Ran::of(&{ build }.output().unwrap());
    let error = ran.error();
    println!("{error}");
    assert!(error.contains("which this user cannot write (Permission denied"), "{error}");
    assert!(
        error.contains("its owner can fetch it by the same command, or --store or KELLER_STORE"),
        "{error}"
    );
}

/// A store that root has filled under a strict umask, but for its blobs: what is derived need not be read.
#[test]
fn derived_files_that_another_user_keeps_are_made_in_temporary_files() {
    let project = Project::new();
    project.build(&[]).good();
    let sums = project.read(SUMS);
    let Some(_) = as_nobody(&project, &project.build_command(&[])) else { return };
    let builds = |what: &str| {
        let build = project.build_command(&["--locked", "--offline", "-o", "nobody/out"]);
        let ran = Ran::of(&as_nobody(&project, &build).unwrap().output().unwrap()).good();
        assert_eq!(project.read("nobody/out/SHA256SUMS"), sums, "{what}: {}", ran.err);
        assert!(!ran.err.contains("warning"), "{what}: {}", ran.err);
    };
    let set = |name: &str, mode| {
        fs::set_permissions(project.path(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    let derived = files(&project, "derived");
    derived.iter().for_each(|name| set(name, 0o600));
    builds("files");
    for folder in ["store/derived/unpacked-6", "store/derived"] {
        set(folder, 0o700);
        builds(folder);
        set(folder, 0o755);
    }
    // Without a blob there is no image, and the store has it: only its owner can help.
    let lock = project.json("node/node.lock");
    let digest = lock["packages"]["greeter"]["sha256"].as_str().unwrap();
    let blob = format!("store/blobs/{}/{digest}", &digest[..2]);
    for (closed, mode, open) in [(blob.as_str(), 0o600, 0o644), (&blob[..14], 0o700, 0o755)] {
        set(closed, mode);
        for arguments in
            [&["--locked", "-o", "nobody/out"][..], &["--locked", "--offline", "-o", "nobody/out"]]
        {
            derived.iter().for_each(|name| set(name, 0o600));
            let build = project.build_command(arguments);
            let ran = Ran::of(&as_nobody(&project, &build).unwrap().output().unwrap());
            let help =
                format!("lets others read it by `chmod -R a+rX {}`", project.path("store/blobs").display());
            assert!(ran.error().contains(&help), "{closed}: {}", ran.err);
        }
        set(closed, open);
    }
}

#[test]
fn only_its_owner_sweeps_a_store() {
    let project = Project::new();
    project.build(&[]).good();
    let Some(mut sweep) = as_nobody(&project, &project.keller(&["store", "gc"])) else { return };
    let ran = Ran::of(&sweep.output().unwrap());
    let (store, lock) = (project.path("store"), project.path("store/lock"));
    let error = format!(
        "error: sweeping the store: the store {} cannot be swept, as this user cannot hold its lock {} (Permission \
         denied (os error 13)): run `keller store gc` as user 0, whose store it is",
        store.display(),
        lock.display()
    );
    assert_eq!(ran.error(), error);
    // What is no lock is said to be none.
    fs::remove_file(&lock).unwrap();
    fs::create_dir(&lock).unwrap();
    let error = project.run(&["store", "gc"]);
    assert!(
        error.error().ends_with(&format!("{} is not a file, so remove it", lock.display())),
        "{}",
        error.err
    );
    fs::remove_dir(&lock).unwrap();
    project.run(&["store", "gc"]).good();
}

#[test]
fn verifying_goes_on_where_nothing_can_be_moved() {
    let project = Project::new();
    project.build(&[]).good();
    let Some(_) = as_nobody(&project, &project.build_command(&[])) else { return };
    let blobs = files(&project, "blobs");
    for name in &blobs[..2] {
        let file = File::options().write(true).open(project.path(name)).unwrap();
        file.write_all_at(b"flipped", 40).unwrap();
    }
    let closed = project.path(&blobs[2]);
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o600)).unwrap();
    let cut = files(&project, "derived").remove(0);
    File::options().write(true).open(project.path(&cut)).unwrap().set_len(20).unwrap();
    fs::create_dir_all(project.path("store/tools/planted")).unwrap();
    open_to_read(&project.path("store/tools"));
    let before = names(&project.path("store"));

    let mut verify = as_nobody(&project, &project.keller(&["store", "verify"])).unwrap();
    let ran = Ran::of(&verify.output().unwrap());
    println!("{}{}", ran.out, ran.err);
    let error = ran.error();
    for words in [
        "2 blobs are rotten and cannot be moved away: builds fail until somebody who can write the store removes them",
        "; 1 derived files were changed and cannot be moved away: builds make them anew",
        "; 1 tools were changed and cannot be moved away",
        "; 1 files or directories could not be read",
    ] {
        assert!(error.contains(words), "{error}");
    }
    for name in &blobs[..2] {
        let digest = name.rsplit('/').next().unwrap();
        assert!(ran.out.contains(&format!("{digest}: rotten, and stays ")), "{}", ran.out);
    }
    assert!(ran.out.contains(&format!("opening {}: Permission denied", closed.display())), "{}", ran.out);
    assert!(ran.out.contains(&format!("\n{} blobs verified, ", blobs.len() - 3)), "{}", ran.out);
    assert_eq!(names(&project.path("store")), before);

    let mut verify = as_nobody(&project, &project.keller(&["store", "verify", "--json"])).unwrap();
    let ran = Ran::of(&verify.output().unwrap());
    let said: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(said["stuck"].as_array().unwrap().len(), 2);
    assert_eq!(said["derived"]["stuck"].as_array().unwrap().len(), 1);
    assert_eq!(said["unread"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&said["rotten"], &said["derived"]["broken"]),
        (&serde_json::json!([]), &serde_json::json!([]))
    );
    // Its owner has them moved away.
    let ran = project.run(&["store", "verify"]);
    assert!(ran.error().starts_with("error: 2 blobs were rotten and are moved away"), "{}", ran.err);
    project.run(&["store", "verify"]).good();
}

#[test]
fn what_other_versions_left_is_nothing_wrong() {
    let project = Project::new();
    project.build(&[]).good();
    project.build(&["--no-sums"]).good();
    let kinds: std::collections::BTreeSet<_> =
        files(&project, "derived").iter().map(|name| name.split('/').nth(2).unwrap().to_owned()).collect();
    assert_eq!(kinds, std::collections::BTreeSet::from(keller::project::store::KINDS.map(str::to_owned)));
    let others =
        ["unpacked-4", "unpacked-99", "index-1", "index-3", "modules-3", "initramfs-1", "unheard-of"];
    for (at, kind) in others.iter().enumerate() {
        fs::create_dir_all(project.path("store/derived").join(kind)).unwrap();
        project.write(&format!("store/derived/{kind}/{at:064}"), "as it was written then");
    }
    // As keller kept it before it sealed tools: with a lock beside it.
    fs::create_dir_all(project.path("store/tools/qemu/usr/bin")).unwrap();
    project.write("store/tools/qemu/usr/bin/qemu-system-x86_64", "");
    project.write("store/tools/qemu.lock", "{}");
    let ran = project.run(&["store", "verify"]).good();
    for (count, what) in [(others.len(), "derived files"), (1, "tools")] {
        let words = format!(
            "\n{count} {what} are of another version of keller: this one does not use them, and `keller store gc` \
             removes them 30 days after their last use\n"
        );
        assert!(ran.out.contains(&words), "{}", ran.out);
    }
    assert!(project.path("store/tools/qemu").exists());
    let said = project.run(&["store", "verify", "--json"]).good().out;
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    let count = |part: &str| said[part]["another"].as_u64().unwrap();
    assert_eq!((count("derived"), count("tools")), (7, 1));
    // In a kind of its own it is none of theirs.
    project.write("store/derived/unpacked-6/old", "as it was written then");
    assert!(project.run(&["store", "verify"]).error().starts_with("error: 1 derived files were changed"));
    project.run(&["store", "gc", "--older-than", "0", "--keep", "node/node.lock"]).good();
    for kind in others {
        assert!(names(&project.path("store/derived").join(kind)).is_empty(), "{kind}");
    }
    assert!(!project.path("store/tools/qemu").exists());
}

#[test]
fn verifying_is_not_led_astray() {
    let project = Project::new();
    project.build(&[]).good();
    let blobs = files(&project, "blobs");
    let count = format!("{} blobs verified, ", blobs.len());
    // A blob that no build reads, as it is in another's place, and lines in a name.
    fs::create_dir_all(project.path("store/blobs/zz")).unwrap();
    let digest = blobs[0].rsplit('/').next().unwrap();
    fs::copy(project.path(&blobs[0]), project.path("store/blobs/zz").join(digest)).unwrap();
    assert!(project.run(&["store", "verify"]).good().out.starts_with(&count));
    project.write("store/derived/unpacked-6/x\n9999 blobs verified, 1 GiB", "x");
    let ran = project.run(&["store", "verify"]);
    assert!(ran.error().starts_with("error: 1 derived files were changed"), "{}", ran.err);
    assert!(!ran.out.contains("\n9999") && ran.out.contains("x\\u{a}9999 blobs verified"), "{}", ran.out);
    // Builds follow links to directories, and so is what they lead to verified.
    for (folder, name) in [("store/blobs", &blobs[0]), ("store/derived", &files(&project, "derived")[0])] {
        let folder = project.path(folder).join(name.split('/').nth(2).unwrap());
        let elsewhere = project.path("elsewhere");
        fs::rename(&folder, &elsewhere).unwrap();
        symlink(&elsewhere, &folder).unwrap();
        project.run(&["store", "verify"]).good();
        let file = File::options().write(true).open(project.path(name)).unwrap();
        file.write_all_at(b"flipped", 0).unwrap();
        let ran = project.run(&["store", "verify"]);
        assert!(ran.error().contains("are moved away"), "{}", ran.err);
        fs::remove_file(&folder).unwrap();
        fs::rename(&elsewhere, &folder).unwrap();
    }
    project.build(&["--locked"]).good();
}
