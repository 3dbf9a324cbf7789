//! Pipes, devices and directories where files are expected: named, and never waited for.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use keller::base::Digest;
use rustix::fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init};

use super::project::{Project, Ran};

/// A pipe without a writer in place of what is at `path`.
fn pipe(path: &Path) {
    let _ = std::fs::remove_file(path);
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
}

/// A run that ends by itself, or is ended and fails.
fn ends(mut command: Command) -> Ran {
    let mut child = command.spawn().unwrap();
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begun.elapsed() > Duration::from_secs(120) {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{command:?} hangs");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ran::of(&child.wait_with_output().unwrap())
}

/// What a run says that finds `what` at `path`.
fn told(project: &Project, arguments: &[&str], path: &str, what: &str) {
    let ran = ends(project.keller(arguments));
    let error = ran.error();
    println!("{error}");
    let absolute = project.path(path).display().to_string();
    let names = error.contains(path) || error.contains(&absolute);
    assert!(names && error.ends_with(&format!("it is {what}, not a regular file")), "{path}: {error}");
}

const BUILD: [&str; 4] = ["build", "--keller", "fake-keller", "node/node.yaml"];

#[test]
fn a_pipe_in_place_of_every_file_of_a_project() {
    for path in ["node/overlay/.meta", "node/node.lock", "fake-keller", "logo"] {
        let project = Project::new();
        pipe(&project.path(path));
        told(&project, &BUILD, path, "a pipe");
    }
    // What the manifest names is told with the line that names it.
    for path in ["node/archive.asc", "node/greeting", "node/image.tar"] {
        let project = Project::new();
        let entry = "- {path: /etc/greet.d,";
        project.edit(entry, &format!("- {{path: /etc/greeting, source: greeting}}\n  {entry}"));
        project.edit("{build: hello.yaml}", "{archive: image.tar}");
        for file in ["node/greeting", "node/image.tar"] {
            project.write(file, "hello\n");
        }
        pipe(&project.path(path));
        let ran = ends(project.keller(&BUILD));
        println!("{}", ran.err);
        assert!(
            ran.error().contains("node/node.yaml:") && ran.err.contains(&format!("{path} is n")),
            "{}",
            ran.err
        );
    }
    for path in ["node/node.yaml", "node/hello.yaml"] {
        let project = Project::new();
        pipe(&project.path(path));
        let ran = ends(project.keller(&BUILD));
        println!("{}", ran.err);
        let is_named = ran.err.contains("is not a file") || ran.err.contains("not a regular file");
        assert!(ran.error().contains(path) && is_named, "{}", ran.err);
    }
}

#[test]
fn a_pipe_in_the_store() {
    let project = Project::new();
    project.build(&[]).good();
    let deb = Digest::of(project.read("mirror/debian/pool/main/greeter_2.0-1_amd64.deb"));
    let blob = format!("store/blobs/{}/{deb}", &deb.to_hex()[..2]);
    pipe(&project.path(&blob));
    for arguments in [&BUILD[..], &["store", "verify"]] {
        let ran = ends(project.keller(arguments)).good();
        println!("{:?} {}", ran.code, ran.err);
    }
    // Every derived file.
    let project = Project::new();
    project.build(&[]).good();
    for name in project.names("store/derived").into_keys() {
        pipe(&project.path("store/derived").join(name));
    }
    let sums = project.read("node/out/SHA256SUMS");
    ends(project.keller(&BUILD)).good();
    assert_eq!(project.read("node/out/SHA256SUMS"), sums);
}

#[test]
fn devices_and_directories() {
    let project = Project::new();
    project.run(&["keys", "init", "keys"]).good();
    told(&project, &["keys", "show", "--key", "/dev/zero", "keys"], "/dev/zero", "a character device");
    told(&project, &["inspect", "/dev/zero"], "/dev/zero", "a character device");
    pipe(&project.path("p"));
    told(&project, &["inspect", "p"], "p", "a pipe");
    told(&project, &["keys", "show", "--key", "p", "keys"], "p", "a pipe");
    told(&project, &["store", "gc", "--keep", "p"], "p", "a pipe");
    told(&project, &["boot", "p"], "p", "a pipe");
    let zero = ["build", "--keller", "/dev/zero", "node/node.yaml"];
    told(&project, &zero, "/dev/zero", "a character device");
    told(&project, &["build", "--keller", "node", "node/node.yaml"], "node", "a directory");
    pipe(&project.path("keys/root.json"));
    told(&project, &["keys", "show", "keys"], "keys/root.json", "a pipe");
}

#[test]
fn private_keys_are_for_their_owner_alone() {
    let project = Project::new();
    project.run(&["keys", "init", "keys"]).good();
    let names = project.names("keys/private");
    let name = names.keys().find(|name| name.starts_with("timestamp-")).unwrap();
    let path = project.path("keys/private").join(name);
    for (mode, good) in [(0o644, false), (0o640, false), (0o602, false), (0o600, true), (0o400, true)] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let ran = project.run(&["keys", "show", "keys"]);
        if good {
            ran.good();
            continue;
        }
        let error = ran.error();
        let said = format!(
            "keys/private/{name} has mode {mode:04o}, so that others can read or write it: `chmod 600 "
        );
        assert!(error.contains(&said) && error.contains("keller keys rotate"), "{error}");
    }
    // One that is named on the command line as well.
    std::fs::copy(&path, project.path("stick.pem")).unwrap();
    std::fs::set_permissions(project.path("stick.pem"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let ran = project.run(&["keys", "show", "--key", "stick.pem", "keys"]);
    assert!(ran.error().contains("stick.pem has mode 0644"), "{}", ran.err);
}

#[test]
fn what_is_built_out_of_the_store_asks_for_no_secrets() {
    let project = Project::new();
    project.build(&[]).good();
    let secrets = ["secrets/netrc", "secrets/ca.pem"];
    std::fs::create_dir(project.path("secrets")).unwrap();
    secrets.iter().for_each(|path| project.write(path, "# nothing\n"));
    let watch = init(CreateFlags::NONBLOCK).unwrap();
    add_watch(&watch, project.path("secrets"), WatchFlags::OPEN).unwrap();
    let opened = || {
        let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(&watch, &mut buffer);
        let mut count = 0;
        while let Ok(event) = reader.next() {
            count += usize::from(event.events().contains(ReadFlags::OPEN));
        }
        count
    };
    let run = |arguments: &[&str]| {
        let mut command = project.build_command(arguments);
        command.env("NETRC", project.path(secrets[0])).env("SSL_CERT_FILE", project.path(secrets[1]));
        command.env("CURL_CA_BUNDLE", project.path(secrets[1]));
        Ran::of(&command.output().unwrap())
    };
    run(&["--offline", "--locked"]).good();
    assert_eq!(opened(), 0, "--offline read certificates or passwords");
    run(&["--locked"]).good();
    assert_eq!(opened(), 0, "a full store needs neither");
    // The watch sees what is read.
    std::fs::remove_dir_all(project.path("store")).unwrap();
    run(&["--locked"]).good();
    assert!(opened() >= 2);
}

/// What a shell runs in the directory of `project`, with `$keller` for the program.
fn shell(project: &Project, script: &str) -> Ran {
    let keller = project.keller(&[]);
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]).current_dir(project.path(".")).env_clear();
    command.envs(keller.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.env("keller", keller.get_args().nth(1).unwrap());
    command.stdin(std::process::Stdio::null());
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    ends(command)
}

#[test]
fn a_private_key_through_a_pipe_that_a_shell_hands_over() {
    let project = Project::new();
    project.run(&["keys", "init", "keys"]).good();
    let name = project.names("keys/private").into_keys().find(|name| name.starts_with("root-")).unwrap();
    std::fs::rename(project.path("keys/private").join(&name), project.path("stick.pem")).unwrap();
    let id = &name["root-".len()..name.len() - ".pem".len()];
    assert!(
        project.run(&["keys", "rotate", "timestamp", "keys"]).error().contains("signing for root takes 1")
    );
    for (script, place) in [
        ("cat stick.pem | $keller keys show --key /dev/stdin keys", "/dev/stdin"),
        ("cat stick.pem | $keller keys show --key /dev/fd/3 keys 3<&0 </dev/null", "/dev/fd/3"),
        ("cat stick.pem | $keller keys show --key /proc/self/fd/3 keys 3<&0 </dev/null", "/proc/self/fd/3"),
        // Whoever takes long is told to be waited for.
        (
            "{ until grep -q 'waiting for a private key from /dev/fd/3; Ctrl-C ends it' err; do sleep 0.1; done; \
             cat stick.pem; } | $keller keys show --key /dev/fd/3 keys 3<&0 </dev/null 2>err",
            "/dev/fd/3",
        ),
        // As it was before: a file that the shell has opened.
        ("$keller keys show --key /dev/fd/3 keys 3<stick.pem", "/dev/fd/3"),
    ] {
        project.write("err", "");
        let ran = shell(&project, script).good();
        let line = ran.out.lines().find(|line| line.contains(id)).unwrap_or_else(|| panic!("{}", ran.out));
        assert!(line.ends_with(place), "{script}: {line}");
    }
    // It signs as the file would.
    shell(&project, "cat stick.pem | $keller keys rotate timestamp --key /dev/fd/3 keys 3<&0 </dev/null")
        .good();
    for (script, words) in [
        (
            "true | $keller keys show --key /dev/fd/3 keys 3<&0",
            "nothing was written to it: the command that was",
        ),
        ("yes | $keller keys show --key /dev/fd/3 keys 3<&0", "it has more than the "),
        ("cat /dev/zero | $keller keys show --key /dev/stdin keys", "it has more than the "),
        ("echo no | $keller keys show --key /dev/fd/3 keys 3<&0", "/dev/fd/3 is no private key"),
        ("$keller keys show --key /dev/fd/9 keys", "reading /dev/fd/9: No such file or directory"),
    ] {
        let ran = shell(&project, script);
        let error = ran.error();
        println!("{error}");
        assert!(error.contains(words), "{script}: {error}");
    }
    // With a shell that writes it so.
    if Path::new("/bin/bash").exists() {
        shell(&project, "exec /bin/bash -c '$keller keys show --key <(cat stick.pem) keys'").good();
    }
}

#[test]
fn what_is_no_file_is_not_replaced() {
    let project = Project::new();
    project.run(&["node", "keygen", "rack"]).good();
    project.run(&["node", "init", "doc.yaml"]).good();
    pipe(&project.path("p"));
    // As /dev/stdout is: nobody's to replace.
    std::os::unix::fs::symlink("/dev/null", project.path("device")).unwrap();
    std::os::unix::fs::symlink("doc.yaml", project.path("link")).unwrap();
    for (out, what) in [("p", "a pipe"), ("device", "a character device"), ("node", "a directory")] {
        told(&project, &["node", "sign", "--key", "rack.pem", "--out", out, "doc.yaml"], out, what);
    }
    assert!(project.path("device").is_symlink());
    // A link to a file is followed.
    project.run(&["node", "sign", "--key", "rack.pem", "link"]).good();
    assert!(project.path("link").is_symlink() && project.text("doc.yaml").contains("\n# signed: "));
    // Images, and the directory that they go to.
    let image = "node/out/tiny_1.2.3.raw";
    std::fs::create_dir_all(project.path("node/out")).unwrap();
    pipe(&project.path(image));
    let ran = ends(project.keller(&BUILD));
    assert!(
        ran.error().contains("is a pipe, and a file of this name is to be written: move it away"),
        "{}",
        ran.err
    );
    std::os::unix::fs::symlink("gone", project.path("dangling")).unwrap();
    for (place, words) in
        [("logo", "logo is not a directory"), ("dangling", "dangling is a link that leads nowhere")]
    {
        let ran = project.build(&["-o", place]);
        assert!(ran.error().contains(words) && ran.err.contains("--output"), "{}", ran.err);
    }
}

#[test]
fn a_hole_of_terabytes_is_not_read() {
    let project = Project::new();
    std::fs::File::create(project.path("hole")).unwrap().set_len(1 << 42).unwrap();
    // Of a gigabyte of it there is no room in half a gigabyte of memory.
    let ran = shell(&project, "ulimit -v 524288; exec $keller build --keller hole node/node.yaml");
    assert!(ran.error().contains("hole: it has more than the 1.0 GiB that are read"), "{}", ran.err);
}

#[test]
fn names_that_are_no_text() {
    use std::os::unix::ffi::OsStrExt;
    let name = std::ffi::OsStr::from_bytes(b"\xff\xfe\x1b");
    let project = Project::new();
    for verb in [
        &["keys", "init"][..],
        &["keys", "show"],
        &["store", "path", "--store"],
        &["node", "keygen"],
        &["node", "init"],
        &["check"],
        &["lab", "init"],
        &["inspect"],
        &["cluster", "init", "--member", "a=10.0.0.1", "rack", "--out"],
        &["init", "--id", "x"],
        &["build", "--keller", "fake-keller", "node/node.yaml", "-o"],
    ] {
        for json in [&[][..], &["--json"]] {
            let place = project.path("places").join(name);
            let _ = std::fs::remove_dir_all(project.path("places"));
            std::fs::create_dir(project.path("places")).unwrap();
            if verb[0] == "keys" && verb[1] != "init" {
                let mut made = project.keller(&["keys", "init"]);
                Ran::of(&made.arg(&place).output().unwrap()).good();
            }
            let mut command = project.keller(verb);
            let ran = ends({
                command.arg(&place).args(json);
                command
            });
            assert!([Some(0), Some(1)].contains(&ran.code), "{verb:?}: {:?}: {}", ran.code, ran.err);
            if !json.is_empty() {
                let last = ran.out.lines().next_back().unwrap_or_default();
                let said = serde_json::from_str::<serde_json::Value>(&ran.out)
                    .or_else(|_| serde_json::from_str::<serde_json::Value>(last));
                assert!(said.unwrap().to_string().contains('\u{fffd}'), "{verb:?}: {}", ran.out);
            }
        }
    }
}

#[test]
fn authorities_of_a_cluster_are_for_their_owner_alone() {
    let project = Project::new();
    project.run(&["cluster", "init", "rack", "--member", "a=10.0.0.1"]).good();
    let issue = ["cluster", "issue", "rack", "--operator"];
    let mode = |path: &str, mode| {
        std::fs::set_permissions(project.path(path), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    for (file, verb) in [
        ("rack/authority.pem", &issue[..]),
        ("rack/peer-authority.pem", &issue),
        ("rack/operator/client.pem", &["cluster", "status", "--operator", "rack/operator"]),
    ] {
        for bits in [0o644, 0o640, 0o602] {
            mode(file, bits);
            let ran = ends(project.keller(verb));
            let words = format!(
                "reading {file}: it has mode {bits:04o}, so that others can read or write it: `chmod 600`"
            );
            assert!(ran.error().contains(&words), "{}", ran.err);
        }
        mode(file, 0o600);
    }
    project.run(&issue).good();
    // Where everybody can put another one in its place.
    mode("rack", 0o777);
    let ran = project.run(&issue);
    assert!(ran.error().contains("everybody may write to its directory (mode 0777)"), "{}", ran.err);
    mode("rack", 0o1777);
    project.run(&issue).good();
    // Nothing is made in a directory that is no cluster's.
    std::fs::create_dir(project.path("other")).unwrap();
    let ran = project.run(&["cluster", "issue", "other", "--operator"]);
    assert!(ran.error().contains("one that `keller cluster init` made?"), "{}", ran.err);
    assert_eq!(std::fs::read_dir(project.path("other")).unwrap().count(), 0);
}

#[test]
fn a_limit_on_the_size_of_files_is_told() {
    let project = Project::new();
    project.build(&[]).good();
    for (verb, words) in [
        ("build --keller fake-keller node/node.yaml -o out", "raise `ulimit -f`"),
        ("cluster init rack --member a=10.0.0.1", "File too large"),
        (
            "publish node/out/tiny_1.2.3.raw --to repository",
            "repository takes no file of this size: raise `ulimit -f`",
        ),
        ("install node/out/tiny_1.2.3.raw disk.raw", "Raise `ulimit -f`, or name a file on a file system"),
    ] {
        project.run(&["keys", "init", "keys"]);
        std::fs::File::create(project.path("disk.raw")).unwrap().set_len(1 << 30).unwrap();
        // In blocks of 512 bytes.
        let ran = shell(&project, &format!("ulimit -f 1; exec $keller {verb}"));
        let error = ran.error();
        println!("{error}");
        assert!(error.contains(words), "{error}");
    }
    let left: Vec<_> =
        project.names(".").into_keys().filter(|name| name.contains("keller-cluster")).collect();
    assert!(left.is_empty(), "{left:?}");
}
