//! Bad input, tried. Each ends with exit code 1 and a message that names the place and the way out, and
//! leaves nothing under a final name: neither an image nor a lock, and in the store only what is whole.

use std::io::Write;
use std::time::{Duration, Instant};

use super::archive::{Archive, KEY, Package, RELEASED, packages};
use super::elf;
use super::project::{Project, Ran, names};
use crate::deb::{Entry, deb_with, tar, xz};
use crate::http_server::{Act, Server};
use crate::judges::fixture::Small;
use crate::repository::{DAY, key, public, revoked};

const BUILDING: &str = "error: building node/node.yaml: ";

/// What a build says that must fail, after its name.
fn refusal(project: &Project, arguments: &[&str]) -> String {
    let before = project.names("node");
    let ran = project.build(arguments);
    let error = ran.error();
    println!("{error}\n");
    assert_eq!(project.names("node"), before, "something was left: {error}");
    sound(project, "store");
    let told = error.strip_prefix(BUILDING).unwrap_or_else(|| panic!("{error}"));
    for secret_place in [env!("CARGO_MANIFEST_DIR"), ".rs:"] {
        assert!(!told.contains(secret_place), "{told}");
    }
    told.to_owned()
}

/// Every name in the store stands for whole bytes, and no temporary file lies around.
pub fn sound(project: &Project, store: &str) {
    let root = project.path(store);
    for name in names(&root).into_keys() {
        assert!(!name.starts_with('.') && !name.contains("/."), "left in the store: {name}");
        assert!(!name.starts_with("rotten"), "{name}");
    }
    let mut verify = project.keller(&["store", "verify"]);
    Ran::of(&verify.env("KELLER_STORE", root).output().unwrap()).good();
}

/// Serves the archive of `project` by HTTP, with `acts` for these paths below its root.
fn serve(project: &Project, acts: &[(&str, &[Act])]) -> Server {
    let server = Server::start();
    for (path, bytes) in project.archive.files() {
        let acts = acts.iter().find(|(of, _)| path.contains(of)).map_or(&[Act::Serve][..], |(_, acts)| acts);
        server.put(&format!("/debian/{path}"), bytes, acts);
    }
    server
}

#[test]
fn signatures() {
    let project = Project::new();
    let stranger = key(365 * 50);
    let (known, strange) = (KEY.fingerprint().to_hex(), stranger.fingerprint().to_hex());
    let release = format!("file://{}", project.path("mirror/debian/dists/trixie/InRelease").display());
    let resigned = |key: &_| Archive::new(key, &packages()).write(&project.path("mirror/debian"));

    resigned(&stranger);
    let told = refusal(&project, &[]);
    assert_eq!(
        told,
        format!("verifying {release}: signed by unknown key {strange}, but the archive's keys are {known}")
    );

    // Made a year before the releases of the tests, and dead before today.
    let old = key(100);
    resigned(&old);
    project.write("node/archive.asc", public(&old));
    let told = refusal(&project, &[]);
    let expired =
        format!("signed by key {}, which expired on 2025-09-09T00:00:00Z", old.fingerprint().to_hex());
    assert_eq!(told, format!("verifying {release}: {expired}"));

    resigned(&KEY);
    project.write("node/archive.asc", public(&revoked(&KEY)));
    let told = refusal(&project, &[]);
    assert_eq!(told, format!("verifying {release}: signed by key {known}, which was revoked"));

    project.write("node/archive.asc", public(&KEY));
    let text = project.text("mirror/debian/dists/trixie/InRelease");
    project.write("mirror/debian/dists/trixie/InRelease", text.replace("Origin: Test", "Origin: Tent"));
    let told = refusal(&project, &[]);
    assert!(
        told.ends_with("does not match the text") && told.contains("changed after it was signed"),
        "{told}"
    );

    project.write("node/archive.asc", "keys, they said\n");
    let told = refusal(&project, &[]);
    let keys = project.path("node/archive.asc");
    let asked = format!("reading {}, the keys of the archive debian: ", keys.display());
    assert!(told.starts_with(&asked), "{told}");
}

#[test]
fn a_stale_mirror() {
    let mut project = Project::new();
    project.archive.release.valid_until = Some(RELEASED + 7 * DAY);
    project.publish();
    let told = refusal(&project, &[]);
    assert!(told.contains("it was valid until 2025-08-12T00:00:00Z, and now is 20"), "{told}");
    assert!(told.contains("`debian: {allow_expired: true}` in the manifest allows it"), "{told}");
    project.edit("updates: false", "updates: false, allow_expired: true");
    project.build(&[]).good();
}

#[test]
fn other_bytes_than_promised() {
    let project = Project::new();
    // Out of an empty store, which may have good bytes from before.
    let flip = |path: &str| {
        let _ = std::fs::remove_dir_all(project.path("store"));
        let mut bytes = project.read(path);
        *bytes.last_mut().unwrap() ^= 1;
        project.write(path, bytes);
    };
    let logo = project.read("logo");
    project.write("logo", "  o>\n");
    let told = refusal(&project, &[]);
    assert!(told.contains("/usr/share/greet/logo") && told.contains("expected SHA-256 "), "{told}");
    project.write("logo", logo);

    let index = "mirror/debian/dists/trixie/main/binary-amd64/Packages.xz";
    flip(index);
    let told = refusal(&project, &[]);
    let place = "reading the packages of archive debian, suite trixie: ";
    assert!(told.starts_with(place) && told.contains("Packages.xz: expected SHA-256 "), "{told}");
    flip(index);

    let deb = "mirror/debian/pool/main/greeter_2.0-1_amd64.deb";
    flip(deb);
    let told = refusal(&project, &[]);
    assert!(
        told.starts_with("1 of 7 files could not be fetched:\n  greeter 2.0-1: fetching file:///"),
        "{told}"
    );
    assert!(told.contains("greeter_2.0-1_amd64.deb: expected SHA-256 "), "{told}");
    flip(deb);

    let whole = project.read(deb);
    project.write(deb, &whole[..whole.len() - 1]);
    let told = refusal(&project, &[]);
    let sizes = format!(": expected {} bytes, but have {}", whole.len(), whole.len() - 1);
    assert!(told.contains("  greeter 2.0-1: ") && told.ends_with(&sizes), "{told}");
    project.write(deb, whole);
}

#[test]
fn a_mirror_that_misbehaves() {
    let project = Project::new();
    // Passing failures are tried four times, with pauses: at the same time, not one after the other.
    std::thread::scope(|scope| {
        let told_of = |path: &'static str, act: Act| {
            let project = &project;
            scope.spawn(move || {
                let server = serve(project, &[(path, std::slice::from_ref(&act))]);
                let store = project.path(&format!("store-of-{}", server.port()));
                let (mirror, store) = (server.url("/debian"), store.to_str().unwrap().to_owned());
                let began = Instant::now();
                let ran = project.build(&["--mirror", &mirror, "--store", &store, "-o", &store]);
                assert!(began.elapsed() < Duration::from_secs(120), "{act:?} took {:?}", began.elapsed());
                sound(project, &store);
                let told = ran.error().strip_prefix(BUILDING).unwrap_or_else(|| panic!("{}", ran.err));
                told.replace(&mirror, "MIRROR")
            })
        };
        let files = project.archive.files();
        let index_size = files["dists/trixie/main/binary-amd64/Packages.xz"].len();
        let deb_size = files["pool/main/systemd_257.8-1_amd64.deb"].len();
        let release = "asking archive debian for suite trixie: fetching MIRROR/dists/trixie/InRelease";
        let index = "reading the packages of archive debian, suite trixie: \
                     fetching MIRROR/dists/trixie/main/binary-amd64/Packages.xz";
        let deb = "1 of 7 files could not be fetched:\n  systemd 257.8-1: \
                   fetching MIRROR/pool/main/systemd_257.8-1_amd64.deb";
        let cases = [
            ("InRelease", Act::Status(404), "asking archive debian for suite trixie: there is no MIRROR/dists/trixie/InRelease, nor a Release beside it: the mirror does not carry this suite, or its URL does not stop before `dists`".to_owned()),
            ("InRelease", Act::Status(403), "asking archive debian for suite trixie: there is no MIRROR/dists/trixie/InRelease, nor a Release beside it: the mirror does not carry this suite, or its URL does not stop before `dists` (the server says 403: object stores do so for what is missing".to_owned()),
            ("InRelease", Act::Status(500), format!("{release}, tried 4 times: the server says 500")),
            ("InRelease", Act::Status(401), format!("{release}: the server says 401: credentials go into")),
            ("InRelease", Act::Garbage, format!("{release}, tried 4 times: the answer makes no sense")),
            ("InRelease", Act::Close, format!("{release}, tried 4 times: no connection")),
            ("InRelease", Act::Endless, format!("{release}: expected at most 16777216 bytes")),
            ("InRelease", Act::Other(b"<html>Welcome!</html>".to_vec()), "verifying MIRROR/dists/trixie/InRelease: expected one cleartext-signed message and nothing around it: it does not begin with a signed message".to_owned()),
            ("Packages", Act::Status(404), "reading the packages of archive debian, suite trixie: there is no MIRROR/dists/trixie/main/binary-amd64/Packages.xz".to_owned()),
            ("Packages", Act::Status(403), "reading the packages of archive debian, suite trixie: fetching MIRROR/dists/trixie/main/binary-amd64/Packages.xz: the server says 403: credentials go into a line `machine HOST login USER password PASSWORD` of apt's auth.conf or of ~/.netrc; object stores say so of what is missing, too".to_owned()),
            ("Packages", Act::Other(vec![b'x'; index_size]), format!("{index}, tried 2 times: expected SHA-256 ")),
            ("main/systemd_257", Act::ResetAt(200), format!("{deb}, tried 4 times: the connection broke after ")),
            ("main/systemd_257", Act::Status(503), format!("{deb}, tried 4 times: the server says 503")),
            ("main/systemd_257", Act::Endless, format!("{deb}, tried 2 times: expected {deb_size} bytes, but have ")),
            ("main/systemd_257", Act::Status(404), "1 of 7 files could not be fetched:\n  systemd 257.8-1: pool/main/systemd_257.8-1_amd64.deb is no longer on MIRROR".to_owned()),
            ("main/systemd_257", Act::Status(403), "1 of 7 files could not be fetched:\n  systemd 257.8-1: pool/main/systemd_257.8-1_amd64.deb is no longer on MIRROR/, or wants credentials of apt's auth.conf or ~/.netrc (the server says 403); lock a newer version".to_owned()),
        ];
        let running: Vec<_> = cases.into_iter().map(|(path, act, said)| (told_of(path, act), said)).collect();
        for (told, said) in running {
            let told = told.join().unwrap();
            println!("{told}\n");
            assert!(told.starts_with(&said), "{told}\nis not\n{said}");
        }
    });
    let told = refusal(&project, &["--mirror", "http://127.0.0.1:1/debian"]);
    assert!(
        told.ends_with("InRelease, tried 4 times: no connection: Connection refused (os error 111)"),
        "{told}"
    );
    let told = refusal(&project, &["--mirror", "ftp://mirror.example/debian"]);
    assert_eq!(
        told,
        "the mirror of --mirror: ftp://mirror.example/debian: expected http, https or file, but have ftp"
    );
    assert_eq!(project.names("node/out").len(), 0);
}

/// A signed archive with a package that does harm.
fn with_harm(project: &mut Project, deb: Vec<u8>) -> String {
    let package = Package::new("greeter", "2.0-1");
    project.archive.pool.retain(|path, _| !path.contains("greeter"));
    project.archive.add_deb(&package, deb);
    project.publish();
    refusal(project, &[])
}

#[test]
fn packages_that_mean_harm() {
    let mut project = Project::new();
    let control = "Package: greeter\nVersion: 2.0-1\nArchitecture: amd64\nInstalled-Size: 1\n";
    let harmful = |entries: &[Entry<'_>]| deb_with(control, "data.tar.xz", &xz(&tar(entries)));
    let body = (0, &b""[..]);
    let file = |path| (path, b'0', "", body.0, body.1);
    for (entries, said) in [
        (vec![file("../../etc/cron.d/x")], "has an unsafe path: it climbs"),
        (vec![file("/etc/cron.d/x")], "has an unsafe path: it is absolute"),
        (vec![("./out", b'2', "/", 0, &b""[..]), file("./out/x")], "lies below \"out\""),
        (vec![("./up", b'2', "../..", 0, &b""[..]), file("./up/x")], "lies below \"up\""),
        (vec![("./x", b'1', "../../../etc/shadow", 0, &b""[..])], "leads to \"../../../etc/shadow\""),
        (vec![("./dev/sda", b'4', "", 0, &b""[..])], ""),
    ] {
        let told = with_harm(&mut project, harmful(&entries));
        if !said.is_empty() {
            assert!(told.contains(": unpacking greeter 2.0-1: data.tar") && told.contains(said), "{told}");
        }
    }

    // Some zeros, and a header that says that there are 1100 MiB of them.
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 0);
    encoder.write_all(&tar(&[("./zeros", b'0', "", 1100 << 20, b"")])[..512]).unwrap();
    std::io::copy(&mut std::io::Read::take(std::io::repeat(0), 1 << 20), &mut encoder).unwrap();
    let told = with_harm(&mut project, deb_with(control, "data.tar.xz", &encoder.finish().unwrap()));
    assert!(told.contains("greeter 2.0-1: data.tar.xz: member \"./zeros\" brings the archive to"), "{told}");

    let told = with_harm(&mut project, b"not a package".to_vec());
    assert!(
        told.ends_with("unpacking greeter 2.0-1: no Debian package: not an ar archive at byte 0"),
        "{told}"
    );
    let told = with_harm(&mut project, harmful(&[]).replace_name(b"greeter", b"grooter"));
    assert!(told.ends_with("the package locked as greeter 2.0-1 says that it is grooter 2.0-1"), "{told}");
}

/// Changes text of the same length in bytes.
trait ReplaceName {
    fn replace_name(self, from: &[u8], to: &[u8]) -> Self;
}

impl ReplaceName for Vec<u8> {
    fn replace_name(mut self, from: &[u8], to: &[u8]) -> Self {
        let at = self.windows(from.len()).position(|part| part == from).unwrap();
        self[at..at + to.len()].copy_from_slice(to);
        self
    }
}

#[test]
fn manifests_that_cannot_be_meant() {
    let project = Project::new();
    let bomb: String = ('b'..='i')
        .zip('a'..)
        .map(|(name, of)| format!("{name}: &{name} [{}*{of}]\n", format!("*{of}, ").repeat(8)))
        .collect();
    project.write(
        "bomb.yaml",
        format!("keller: 1\nid: bomb\nversion: 1\na: &a [x, x, x]\n{bomb}packages: *i\n"),
    );
    for verb in [
        &["check", "bomb.yaml"][..],
        &["build", "--keller", "fake-keller", "bomb.yaml"],
        &["lock", "bomb.yaml"],
    ] {
        let ran = project.run(verb);
        assert_eq!(ran.code, Some(1), "{}", ran.err);
        assert!(ran.err.contains("bomb.yaml:") && ran.err.contains("alias"), "{}", ran.err);
    }
    println!("{}", project.run(&["check", "bomb.yaml"]).err);

    let ran = project.run(&["check", "node/node.yaml"]).good();
    assert_eq!(
        ran.out,
        "tiny 1.2.3: 5 packages by name, 1 overlay, 1 unit enabled, 1 container: nothing wrong\n"
    );
    project.edit("overlays: [overlay]", "overlays: [overlai]");
    project.edit("version: 1.2.3", "version: 1_2");
    let ran = project.build(&[]);
    let error = ran.error();
    println!("{error}");
    for part in ["node/node.yaml:3:10", "node/node.yaml:8:12", "overlays: [overlai]", "2 errors"] {
        assert!(error.contains(part), "{part} is not in {error}");
    }
    let ran = project.run(&["check", "--json", "node/node.yaml"]);
    assert_eq!(ran.code, Some(1));
    let said: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(said["errors"].as_array().unwrap().len(), 2);
    assert_eq!(project.names("node/out").len(), 0);
}

#[test]
fn packages_that_cannot_be_together() {
    let mut project = Project::new();
    project.archive.add(&Package::new("quiet", "1").field("Conflicts: libgreet1"));
    project.archive.add(&Package::new("hollow", "1").field("Depends: nowhere (>= 3) | neverwhere"));
    project.publish();
    project.edit("greeter]", "greeter, quiet]");
    let told = refusal(&project, &[]);
    for part in ["node/node.yaml:6:", "greeter", "libgreet1", "quiet", "conflict"] {
        assert!(told.contains(part), "{part} is not in {told}");
    }
    project.edit("greeter, quiet]", "greeter, hollow]");
    let told = refusal(&project, &[]);
    for part in ["node/node.yaml:6:", "hollow", "nowhere (>= 3) | neverwhere"] {
        assert!(told.contains(part), "{part} is not in {told}");
    }
}

#[test]
fn roots_that_would_not_work() {
    let mut project = Project::new();
    project.edit("enable: [greet.service]", "enable: [great.service]");
    let told = refusal(&project, &[]);
    assert!(told.contains("great.service") && told.contains("did you mean greet.service?"), "{told}");
    project.edit("enable: [great.service]", "enable: [greet.service]");

    std::fs::create_dir_all(project.path("node/overlay/usr/bin")).unwrap();
    project.write("node/overlay/usr/bin/greet", "#!/bin/bash\n");
    let told = refusal(&project, &[]);
    for part in ["laying overlay overlay over the root", "/usr/bin/greet", "greeter", "`replace: true`"] {
        assert!(told.contains(part), "{part} is not in {told}");
    }
    std::fs::remove_dir_all(project.path("node/overlay/usr")).unwrap();

    project.edit("group: greet}", "group: great}");
    let told = refusal(&project, &[]);
    assert_eq!(told, "files: /etc/greet.conf belongs to group great, whom the image does not know");
    project.edit("group: great}", "group: greet}");

    // A second package with the same file, a link to nowhere, a program that is missing.
    project.archive.add(
        &Package::new("rival", "1").file("usr/bin/greet", elf::program()).link("usr/bin/hello", "gone/hello"),
    );
    project.publish();
    project.edit("greeter]", "greeter, rival]");
    let told = refusal(&project, &[]);
    assert_eq!(
        told,
        "packages have the same path, so that one of them must be left out:\n  \
         /usr/bin/greet is in greeter and in rival"
    );
    project.archive.pool.retain(|path, _| !path.contains("rival"));
    project.archive.add(&Package::new("rival", "2").link("usr/bin/hello", "gone/hello"));
    project.publish();
    let told = refusal(&project, &[]);
    assert!(told.contains("the root would not work on a node:\n  /usr/bin/hello (rival) "), "{told}");
    project.edit("greeter, rival]", "greeter]");

    project.edit("systemd-boot-efi, ", "");
    let told = refusal(&project, &[]);
    assert!(told.ends_with("add systemd-boot-efi to packages"), "{told}");
    project.edit("[base-files, linux-image-tiny,", "[base-files,");
    let told = refusal(&project, &[]);
    assert!(told.contains("the root has no kernel modules: add a kernel"), "{told}");
}

#[test]
fn a_root_that_is_too_small() {
    let mut project = Project::new();
    project.archive.add(&Package::new("ballast", "1").file("usr/share/ballast", vec![1; 70 << 20]));
    project.publish();
    project.edit("greeter]", "greeter, ballast]");
    project.run(&["lock", "node/node.yaml"]).good();
    let told = refusal(&project, &[]);
    let place = "writing node/out/tiny_1.2.3.raw: writing the root file system: the root file system has ";
    assert!(told.starts_with(place) && told.contains("set disk.root to at least 71MiB"), "{told}");
}

#[test]
fn a_full_disk() {
    let project = Project::new();
    let (store, out) = (project.path("full-store"), project.path("full-out"));
    let Some(_small) = Small::mount(&store, "40k") else { return };
    let before = project.names("node");
    let ran = project.build(&["--store", "full-store"]);
    let error = ran.error();
    println!("{error}");
    assert!(error.contains("no space left in full-store for "), "{error}");
    assert!(error.contains("`keller store gc`"), "{error}");
    assert_eq!(project.names("node"), before);
    sound(&project, "full-store");

    let Some(_small) = Small::mount(&out, "100k") else { return };
    let ran = project.build(&["-o", "full-out"]);
    let error = ran.error();
    println!("{error}");
    assert!(error.contains("No space left on device") || error.contains("no space left"), "{error}");
    assert!(error.contains("full-out"), "{error}");
    assert_eq!(names(&out).len(), 0);
    sound(&project, "store");
    // The lock was complete before.
    project.build(&["--locked", "--offline"]).good();
}
