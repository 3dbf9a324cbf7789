//! Several mirrors of one archive, and lists of them on a server: what one does not give, the next one does.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use keller::base::Chain;
use keller::base::progress::Silent;
use keller::fetch::{FetchError, Upstream, fetch};
use keller::http::{Client, Settings};
use keller::lock::archives::Archives;
use keller::lock::file::to_text;
use keller::lock::online::Online;
use keller::lock::resolve::{Update, resolve};
use keller::lock::{Lock, LockedPackage};
use keller::manifest::Manifest;
use keller::source::apt;
use keller::source::debian::checksum::Sha512;
use keller::source::mirror::Mirrors;
use keller::store::Store;
use sequoia_openpgp::types::HashAlgorithm;
use tempfile::TempDir;

use super::{manifest, whole};
use crate::cli::archive::{Archive, KEY, greeter, packages};
use crate::deb::xz;
use crate::heard::Heard;
use crate::http_server::{Act, Server};
use crate::repository::{DATE, DAY, public, sign};

/// A host with an apt folder, a list of mirrors on a server, and a store.
struct Host {
    folder: TempDir,
    lists: Server,
    client: Client,
    store: Store,
    manifest: Manifest,
    heard: Heard,
}

impl Host {
    fn new(list: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let lists = Server::start();
        lists.put("/debian.list", list, &[Act::Serve]);
        let stanza = format!(
            "Types: deb\nURIs: mirror+{}\nSuites: trixie trixie-updates\nComponents: main\n",
            lists.url("/debian.list")
        );
        fs::create_dir_all(folder.path().join("apt/sources.list.d")).unwrap();
        fs::write(folder.path().join("apt/sources.list.d/debian.sources"), stanza).unwrap();
        fs::write(folder.path().join("keys.asc"), public(&KEY)).unwrap();
        let mut manifest = manifest(&["greeter"], &[]);
        manifest.debian.security = false;
        manifest.debian.keys = Some(folder.path().join("keys.asc"));
        let settings = Settings {
            connect: Duration::from_secs(5),
            idle: Duration::from_secs(5),
            pauses: vec![Duration::from_millis(10)],
            ..Settings::default()
        };
        Self {
            store: Store::open(folder.path().join("store")).unwrap(),
            client: Client::new(settings).unwrap(),
            heard: Heard::default(),
            folder,
            lists,
            manifest,
        }
    }

    fn mirrors(&self) -> Mirrors {
        Mirrors::of_host(&apt::sources(&self.folder.path().join("apt"), &self.client)).unwrap()
    }

    fn lock(&self) -> Result<Lock, String> {
        let archives = Archives::of(&self.manifest, &self.mirrors()).unwrap();
        let online = Online { client: &self.client, store: &self.store };
        let locked = resolve(&self.manifest, &archives, &online, None, &Update::All, DATE, &self.heard);
        locked.map(whole).map_err(|error| Chain(&error).to_string())
    }

    fn fetch(&self, lock: &Lock, parallel: usize) -> Result<usize, FetchError> {
        let archives = self.mirrors().archives(&self.manifest.debian).unwrap();
        let upstream = Upstream { client: &self.client, archives: &archives, parallel };
        let fetched = fetch(lock.clone().into(), &BTreeMap::new(), &self.store, Some(upstream), &Silent)?;
        Ok(fetched.files)
    }
}

/// The whole archive, or what `has` lets pass.
fn mirror(has: impl Fn(&str) -> bool) -> Server {
    let server = Server::start();
    for (path, bytes) in Archive::new(&KEY, &packages()).files() {
        if has(&path) {
            server.put(&format!("/debian/{path}"), bytes, &[Act::Serve]);
        }
    }
    server
}

/// Whether `server` was asked for anything whose path begins with `path`.
fn asked(server: &Server, path: &str) -> bool {
    server.seen().iter().any(|request| request.path().starts_with(path))
}

#[test]
fn a_list_on_a_server_is_read_and_the_next_mirror_stands_in() {
    let (empty, broken, good) = (mirror(|_| false), mirror(|_| false), mirror(|_| true));
    for path in ["dists/trixie/InRelease", "pool/main/greeter_2.0-1_amd64.deb"] {
        broken.put(&format!("/debian/{path}"), "", &[Act::Status(503)]);
    }
    let list = format!(
        "# ours\nfile:/srv/debian priority:1\n{}\tpriority:9\n{}\tpriority:2 arch:amd64\n{} priority:3\n",
        good.url("/debian"),
        empty.url("/debian"),
        broken.url("/debian"),
    );
    let host = Host::new(&list);
    let lock = host.lock().unwrap();
    assert_eq!(lock.packages["greeter"].version, "2.0-1");
    // One list, which two suites name, read once; of it the directory of this machine is not used.
    assert_eq!(host.lists.seen().len(), 1);
    assert!(asked(&empty, "/debian/dists") && asked(&broken, "/debian/dists"));
    let warnings = host.heard.warnings().join("\n");
    for (server, why) in [(&empty, "there is no "), (&broken, "the server says 503")] {
        let said = format!("the mirror {}/ is passed over: asking archive debian", server.url("/debian"));
        let line =
            warnings.lines().find(|line| line.starts_with(&said)).unwrap_or_else(|| panic!("{warnings}"));
        assert!(line.contains(why), "{line}");
    }
    // Whichever answered, the lock is the same.
    let direct = Host::new(&good.url("/debian"));
    assert_eq!(to_text(&direct.lock().unwrap()), to_text(&lock));

    assert_eq!(host.fetch(&lock, 1).unwrap(), lock.packages.len());
    assert!(asked(&empty, "/debian/pool") && asked(&broken, "/debian/pool") && asked(&good, "/debian/pool"));
}

#[test]
fn a_mirror_that_is_half_synchronised_or_too_old_is_passed_over() {
    let (half, old, good) = (mirror(|path| path.ends_with("InRelease")), Server::start(), mirror(|_| true));
    let mut expired = Archive::new(&KEY, &[greeter("1.0-1")]);
    expired.release.valid_until = Some(expired.release.date + DAY);
    for (path, bytes) in expired.files() {
        old.put(&format!("/debian/{path}"), bytes, &[Act::Serve]);
    }
    let list = [&half, &old, &good].map(|server| server.url("/debian")).join("\n");
    let host = Host::new(&list);
    assert_eq!(host.lock().unwrap().packages["greeter"].version, "2.0-1");
    let warnings = host.heard.warnings();
    let said = |server: &Server, why: &str| {
        let mirror = format!("the mirror {}/ is passed over: ", server.url("/debian"));
        assert!(warnings.iter().any(|line| line.starts_with(&mirror) && line.contains(why)), "{warnings:#?}");
    };
    said(&half, "there is no ");
    said(&old, "expired");
}

#[test]
fn all_that_were_tried_are_named() {
    let (empty, closed, rotten) = (mirror(|_| false), mirror(|_| false), mirror(|_| true));
    for path in ["dists/trixie/InRelease", "pool/main/greeter_2.0-1_amd64.deb"] {
        closed.put(&format!("/debian/{path}"), "", &[Act::Close]);
        rotten.put(&format!("/debian/{path}"), "<html>", &[Act::Serve]);
    }
    let servers = [&empty, &closed, &rotten];
    let list: Vec<String> = servers.iter().map(|server| server.url("/debian")).collect();
    let host = Host::new(&list.join("\n"));
    let told = host.lock().unwrap_err();
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines[0], "asking archive debian for suite trixie: none of its 3 mirrors gives it:");
    assert_eq!(lines.len(), 4, "{told}");
    for ((server, line), why) in servers.iter().zip(&lines[1..]).zip([
        "there is no ",
        "no connection: ",
        "expected one cleartext-signed message",
    ]) {
        assert!(line.contains(&server.url("/debian/dists/trixie/InRelease")) && line.contains(why), "{told}");
    }

    let archive = Archive::new(&KEY, &[greeter("2.0-1")]);
    let (_, deb) = &archive.pool["pool/main/greeter_2.0-1_amd64.deb"];
    let told = host.fetch(&locked(&[("greeter", deb)]), 1).unwrap_err().to_string();
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(
        lines[1],
        "  greeter 2.0-1: pool/main/greeter_2.0-1_amd64.deb can be had from none of 3 mirrors:"
    );
    for ((server, line), why) in servers.iter().zip(&lines[2..]).zip([
        "not found",
        "no connection: ",
        &format!("expected {} bytes", deb.len()),
    ]) {
        assert!(line.contains(&server.url("/debian/pool/")) && line.contains(why), "{told}");
    }
    // Where none has it, that is said of all, with the way out.
    let nowhere = Host::new(&format!("{}\n{}", empty.url("/debian"), empty.url("/other")));
    let told = nowhere.fetch(&locked(&[("greeter", deb)]), 1).unwrap_err().to_string();
    let both = format!("is no longer on {}/, {}/; lock a newer", empty.url("/debian"), empty.url("/other"));
    assert!(told.contains(&both), "{told}");
}

/// A lock of these packages, by name and .deb.
fn locked(packages: &[(&str, &[u8])]) -> Lock {
    let package = |(name, deb): &(&str, &[u8])| {
        let package = LockedPackage {
            version: "2.0-1".to_owned(),
            architecture: "amd64".to_owned(),
            archive: "debian".to_owned(),
            path: format!("pool/main/{name}_2.0-1_amd64.deb"),
            size: deb.len() as u64,
            sha256: keller::base::Digest::of(deb),
            wanted_by: Vec::new(),
            scripts: BTreeMap::new(),
        };
        ((*name).to_owned(), package)
    };
    Lock {
        keller_lock: 1,
        id: "node".to_owned(),
        request: keller::base::Digest::of(""),
        epoch: 0,
        provenance: Default::default(),
        packages: packages.iter().map(package).collect(),
        containers: BTreeMap::new(),
        files: BTreeMap::new(),
        local: BTreeMap::new(),
        ids: Default::default(),
    }
}

#[test]
fn indexes_and_packages_come_from_mirrors_for_them() {
    let (indexes, pool) = (mirror(|_| true), mirror(|_| true));
    let list = format!(
        "{}\ttype:index\n{}\ttype:deb codename:trixie\n",
        indexes.url("/debian"),
        pool.url("/debian")
    );
    let host = Host::new(&list);
    let lock = host.lock().unwrap();
    host.fetch(&lock, 4).unwrap();
    assert!(asked(&indexes, "/debian/dists") && !asked(&indexes, "/debian/pool"));
    assert!(asked(&pool, "/debian/pool") && !asked(&pool, "/debian/dists"));

    let elsewhere = Host::new(&format!("{} suite:sid\n", indexes.url("/debian")));
    let told = elsewhere.lock().unwrap_err();
    assert!(
        told.starts_with(
            "no mirror of archive debian is for suite trixie with components main: the host's list"
        ),
        "{told}"
    );
}

#[test]
fn mirrors_that_are_passed_over_are_told_once_and_in_order() {
    let (one, other, good) = (mirror(|_| false), mirror(|_| false), mirror(|_| true));
    for server in [&one, &other] {
        for suite in ["trixie", "trixie-updates"] {
            server.put(&format!("/debian/dists/{suite}/InRelease"), "", &[Act::Status(503)]);
        }
    }
    // The second suite is in no archive: so it is asked of each.
    let list = [&other, &one, &good].map(|server| server.url("/debian")).join("\n");
    for _ in 0..5 {
        let mut host = Host::new(&list);
        host.manifest.debian.updates = true;
        let told = host.lock().unwrap_err();
        assert!(
            told.starts_with("asking archive debian for suite trixie-updates: none of its 3 mirrors"),
            "{told}"
        );
        let warnings = host.heard.warnings();
        let mut sorted = warnings.clone();
        sorted.sort();
        sorted.dedup();
        assert_eq!(warnings, sorted);
        for (server, count) in [(&one, 2), (&other, 2), (&good, 0)] {
            let said = format!("the mirror {}/ is passed over: ", server.url("/debian"));
            assert_eq!(
                warnings.iter().filter(|line| line.starts_with(&said)).count(),
                count,
                "{warnings:#?}"
            );
        }
    }
}

#[test]
fn no_mirror_for_packages_is_said_as_such() {
    // A package without SHA256 is asked for when it is locked; all else when it is fetched.
    let archive = Archive::new(&KEY, &packages());
    let paragraph = |(path, (control, deb)): (&String, &(String, Vec<u8>))| {
        format!("{control}Filename: {path}\nSize: {}\nSHA512: {}\n\n", deb.len(), Sha512::of(deb))
    };
    let index: String = archive.pool.iter().map(paragraph).collect();
    let indexes = BTreeMap::from([("main/binary-amd64/Packages.xz".to_owned(), xz(index.as_bytes()))]);
    let text = archive.release.text(&indexes);
    let signed = sign(&[&archive.release.key], &text, archive.release.date, HashAlgorithm::SHA256);
    let other = Server::start();
    other.put("/debian/dists/trixie/InRelease", signed, &[Act::Serve]);
    for (path, bytes) in indexes {
        other.put(&format!("/debian/dists/trixie/{path}"), bytes, &[Act::Serve]);
    }
    let told = Host::new(&format!("{} type:index\n", other.url("/debian"))).lock().unwrap_err();
    let said = " of archive debian can be had from no mirror: the host's list has none for packages (`type:deb`); name another \
                by --mirror";
    assert!(told.ends_with(said), "{told}");

    let usual = mirror(|_| true);
    let host = Host::new(&format!("{} type:index\n", usual.url("/debian")));
    let told = host.fetch(&host.lock().unwrap(), 1).unwrap_err().to_string();
    let said = "no address is known for the archive \"debian\" that has pool/main/greeter_2.0-1_amd64.deb: name a mirror by \
                --mirror";
    assert!(told.contains(said), "{told}");
    assert!(!asked(&usual, "/debian/pool"));
}

#[test]
fn a_mirror_that_is_down_is_not_asked_for_each_package() {
    let (down, good) = (mirror(|_| false), mirror(|_| false));
    let names: Vec<String> = (0..60).map(|number| format!("p{number}")).collect();
    for name in &names {
        let path = format!("/debian/pool/main/{name}_2.0-1_amd64.deb");
        down.put(&path, "", &[Act::Close]);
        good.put(&path, name.as_bytes(), &[Act::Serve]);
    }
    let host = Host::new(&format!("{} priority:1\n{}\n", down.url("/debian"), good.url("/debian")));
    let packages: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), name.as_bytes())).collect();
    assert_eq!(host.fetch(&locked(&packages), 2).unwrap(), 60);
    // Two tries of each of the two that ask at once.
    assert!(down.seen().len() <= 8, "{}", down.seen().len());
}

#[test]
fn a_list_that_cannot_be_had_leaves_what_else_is_there() {
    let good = mirror(|_| true);
    let host = Host::new("");
    host.lists.put("/debian.list", "", &[Act::Status(404)]);
    let told = Mirrors::of_host(&apt::sources(&host.folder.path().join("apt"), &host.client)).unwrap_err();
    let told = told.to_string();
    let list = host.lists.url("/debian.list");
    assert!(told.ends_with(&format!("passed over: mirror+{list} (fetching {list}: not found))")), "{told}");
    let line = format!("deb {} trixie main\n", good.url("/debian"));
    fs::write(host.folder.path().join("apt/sources.list"), line).unwrap();
    assert_eq!(host.lock().unwrap().packages["greeter"].version, "2.0-1");
}
