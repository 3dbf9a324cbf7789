//! Node documents from a web server: for `keller install` by hand, and for a machine that installs itself.

use std::fs::{self, File};
use std::sync::Arc;
use std::time::Duration;

use keller::base::Digest;
use keller::node::signature::PublicKey;
use keller::node::{Policy, Remote};
use keller::project::install::{Ground, Report, State, Then};
use serde_json::Value;

use super::install::{IMAGE, SIZE, blank, document, ground, is_blank};
use super::project::Project;
use crate::heard::Heard;
use crate::http_server::{Act, Server};

const MACS: [&str; 2] = ["52:54:00:12:34:56", "52:54:00:12:34:57"];
const PAUSES: [Duration; 1] = [Duration::from_millis(20)];

/// A project with an image, keys `rack` and `other`, and a machine with serial number S1; `keys` stands under `node` of the
/// manifest.
fn project(keys: &str) -> Project {
    let project = Project::new();
    for name in ["node/rack", "node/other"] {
        project.run(&["node", "keygen", name]).good();
    }
    project.edit("runtime: podman", &format!("outputs: [raw]\nnode: {{keys: [{keys}]}}\nruntime: podman"));
    project.build(&[]).good();
    let sys = |path: &str, text: &str| {
        let path = project.path("sys").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    sys("class/dmi/id/product_serial", "S1\n");
    for (number, mac) in (0..).zip(MACS) {
        sys(&format!("class/net/eth{number}/address"), &format!("{mac}\n"));
        sys(&format!("class/net/eth{number}/device/vendor"), "x\n");
    }
    project
}

fn signed(project: &Project, text: &str, key: &str) -> String {
    project.write("signed.yaml", text);
    project.run(&["node", "sign", "--key", &format!("node/{key}.pem"), "signed.yaml"]).good();
    project.text("signed.yaml")
}

fn key(project: &Project, name: &str) -> PublicKey {
    PublicKey::from_pem(&project.read(&format!("node/{name}.pub"))).unwrap()
}

/// What the server was told.
fn reports(server: &Server) -> Vec<Value> {
    let seen = server.seen();
    let posts = seen.iter().filter(|request| request.line.starts_with("POST "));
    posts.map(|request| serde_json::from_slice(&request.body).unwrap()).collect()
}

fn install(ground: &Ground) -> (Result<(Report, Then), String>, Heard) {
    let heard = Heard::default();
    let done = ground.install(&|| Ok(Arc::default()), &heard);
    (done.map(Option::unwrap).map_err(|error| format!("{error:#}")), heard)
}

const A: &str = "node: 1\nname: rack1-07\nmatch: {serial: S1}\ncredentials: {web.key: s3cret}\n";
const B: &str = "node: 1\nname: rack1-08\nmatch: {serial: S2}\n";

#[test]
fn a_document_comes_from_an_address() {
    let project = project("");
    let server = Server::start();
    let file = format!("{A}---\n{B}");
    server.put("/rack.yaml", file.as_str(), &[Act::Status(503), Act::Serve]);
    let digest = Digest::of(&file).to_hex();
    let url = server.url("/rack.yaml");
    blank(&project, "disk", SIZE);
    let run = |document: &str, more: &[&str]| {
        project.run(&[&["install", "--document", document], more, &[IMAGE, "disk"]].concat())
    };
    let refused = |document: &str, more: &[&str], said: &str| {
        let ran = run(document, more);
        assert!(ran.error().contains(said) && !ran.err.contains("s3cret"), "{said}\n{}", ran.err);
        assert!(is_blank(&project, "disk"), "{said}");
    };
    refused(
        &url,
        &[],
        "error: nothing vouches for the node document that is fetched: name its SHA-256 (--document-sha256",
    );
    let secret = server.url("/${host}?s3cret").replace("http://", "http://me:s3cret@");
    refused(
        &secret,
        &[],
        "error: the address of the node document has the unknown placeholder `${host}`: `${serial}`",
    );
    let pin = ["--document-sha256", digest.as_str()];
    refused(
        &server.url("/${uuid}.yaml"),
        &pin,
        "error: --document: the address has a placeholder, and `sha256`",
    );
    refused(
        &server.url("/none.yaml"),
        &pin,
        &format!("error: fetching {}: not found: put the file there", server.url("/none.yaml")),
    );
    server.put("/closed.yaml", "", &[Act::Status(401)]);
    refused(
        &server.url("/closed.yaml"),
        &pin,
        "the server says 401: let it hand out the file to this machine, or write",
    );
    server.put("/dead.yaml", "", &[Act::Close]);
    refused(&server.url("/dead.yaml"), &pin, "/dead.yaml, tried 4 times: no connection: ");
    refused(&server.url("/dead.yaml"), &pin, ": look whether the web server runs and is reached from here");
    server.put("/other.yaml", A, &[]);
    let other = Digest::of(A);
    refused(
        &server.url("/other.yaml"),
        &pin,
        &format!(
            "/other.yaml has SHA-256 {other}, but its address was given with {digest}: put that file there, or"
        ),
    );
    server.put("/long.yaml", vec![b'#'; (256 << 10) + 1], &[]);
    refused(
        &server.url("/long.yaml"),
        &pin,
        "/long.yaml is longer than 262144 bytes, the most that a node document may have",
    );
    // A file is compared as well.
    project.write("rack.yaml", A);
    refused(
        "rack.yaml",
        &pin,
        "error: rack.yaml has other bytes than --document-sha256 says: expected SHA-256",
    );
    let ran = project.run(&["install", "--document-sha256", &digest, IMAGE, "disk"]);
    assert_eq!(ran.code, Some(2), "{}", ran.err);

    run(&url, &pin).good();
    assert_eq!(document(&project, "disk").as_deref(), Some(file.as_str()), "all of it, as of a file");
    let ran = run(&url, &pin).good();
    assert!(ran.out.starts_with("disk has tiny 1.2.3 already"), "{}", ran.out);
}

#[test]
fn the_keys_of_an_image_vouch_for_what_is_fetched() {
    let project = project("rack.pub");
    let server = Server::start();
    blank(&project, "disk", SIZE);
    let file = format!("{}---\n{}", signed(&project, A, "rack"), signed(&project, B, "rack"));
    let half = format!("{}---\n{B}", signed(&project, A, "rack"));
    let run = |text: &str| {
        server.put("/rack.yaml", text, &[]);
        project.run(&["install", "--document", &server.url("/rack.yaml"), IMAGE, "disk"])
    };
    for (text, why) in [
        (A.to_owned(), "it is not signed"),
        (half, "it is not signed"),
        // It is not even read.
        ("node: [\n".to_owned(), "it is not signed"),
        (
            signed(&project, A, "other"),
            "it was changed after it was signed, or signed by a key that does not count here",
        ),
        (file.replace("rack1-07", "rack1-09"), "it was changed after it was signed"),
    ] {
        let ran = run(&text);
        let said = format!("error: the node document at {}: {why}", server.url("/rack.yaml"));
        assert!(ran.error().starts_with(&said), "{}", ran.err);
        assert!(is_blank(&project, "disk"));
    }
    run(&file).good();
    assert_eq!(document(&project, "disk"), Some(file));
}

#[test]
fn a_machine_fetches_its_document_and_installs_itself() {
    let project = project("rack.pub");
    let server = Server::start();
    blank(&project, "disk", SIZE);
    server.put("/report", "", &[]);
    let own = format!(
        "node: 1\ninstall: {{disk: serial=none, report: {:?}, document: {{url: {:?}}}}}\n",
        server.url("/report"),
        server.url("/${mac}.yaml?token=s3cret")
    );
    project.write("rack1.yaml", signed(&project, &own, "rack"));
    let mine = signed(&project, A, "rack");
    let path = format!("/{}.yaml?token=s3cret", MACS[1]);
    let acts =
        [Act::Status(404), Act::Status(404), Act::Status(503), Act::Close, Act::Status(403), Act::Serve];
    server.put(&path, format!("{}---\n{mine}", signed(&project, B, "rack")), &acts);
    let policy = Policy { sources: None, keys: vec![key(&project, "rack")] };
    let ground = Ground { policy, pauses: &PAUSES, ..ground(&project, IMAGE, "disk") };
    let (done, heard) = install(&ground);
    assert_eq!(done.unwrap().0.state, State::Installed);
    // Only what is this machine's, and with its signature.
    assert_eq!(document(&project, "disk"), Some(format!("---\n{mine}")));
    let said = heard.text();
    for part in [
        &format!("fetching the node document from {}", server.url("/${mac}.yaml")),
        &format!("/{}.yaml?token=*** and http", MACS[0]),
        &format!("/{}.yaml?token=***: not found: put the file there", MACS[1]),
        "the server says 503",
        "the server says 403: let it hand out the file to this machine",
    ] {
        assert!(said.contains(part), "{part:?} is not in\n{said}");
    }
    assert!(!said.contains("s3cret"), "{said}");
    let told = reports(&server);
    let states: Vec<&str> = told.iter().map(|message| message["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["begun", "waiting", "waiting", "waiting", "installed"], "each reason once: {told:?}");
    assert!(told[1]["reason"].as_str().unwrap().contains("not found: put the file there"), "{told:?}");
    assert_eq!((&told[0]["serial"], &told[4]["name"]), (&"S1".into(), &"rack1-07".into()));

    // It has been done: the server is not asked again, and need not be there.
    let count =
        |server: &Server| server.seen().iter().filter(|request| request.line.starts_with("GET")).count();
    let before = count(&server);
    let (done, _) = install(&ground);
    assert_eq!((done.unwrap().0.state, count(&server)), (State::Already, before));
    assert_eq!(reports(&server).last().unwrap()["state"], "already");
}

/// Some servers say of a file that they do not have that nobody may read it.
#[test]
fn the_next_card_is_asked_whatever_the_server_says_of_the_first() {
    let project = project("");
    let server = Server::start();
    blank(&project, "disk", SIZE);
    server.put(&format!("/{}.yaml", MACS[0]), "", &[Act::Status(403)]);
    let text = signed(&project, &format!("{A}install: {{disk: serial=none}}\n"), "rack");
    server.put(&format!("/{}.yaml", MACS[1]), text.as_str(), &[Act::Serve]);
    let keys = vec![key(&project, "rack")];
    let remote = Remote::new(server.url("/${mac}.yaml").parse().unwrap(), None, keys).unwrap();
    let ground = Ground { remote: Some(remote), pauses: &PAUSES, ..ground(&project, IMAGE, "disk") };
    assert_eq!(install(&ground).0.unwrap().0.state, State::Installed);
    assert_eq!(document(&project, "disk"), Some(text));
}

/// Gives the machine a document that names an address, keys and where to report, and says `more`.
fn own(project: &Project, server: &Server, more: &str) {
    let key = project.text("node/rack.pub").lines().nth(1).unwrap().to_owned();
    let (url, report) = (server.url("/${serial}.yaml"), server.url("/report"));
    server.put("/report", "", &[]);
    let install = format!("{{report: {report:?}, document: {{url: {url:?}, keys: [{key}]}}}}");
    project.write("rack1.yaml", format!("node: 1\ninstall: {install}\n{more}"));
}

/// What is refused is not asked for again, and nothing is written.
#[test]
fn what_a_machine_fetches_may_be_refused() {
    let project = project("");
    let server = Server::start();
    blank(&project, "disk", SIZE);
    let own = |more: &str| own(&project, &server, more);
    own("");
    let ground = Ground { pauses: &PAUSES, ..ground(&project, IMAGE, "disk") };
    let put = |text: &str| server.put("/S1.yaml", text, &[]);
    let with = |more: &str| signed(&project, &format!("{A}{more}"), "rack");
    let disk = "install: {disk: serial=none}\n";
    let far = "install: {disk: serial=none, document: {url: \"http://far.example/\"}}\n";
    let url = server.url("/S1.yaml");
    let is = "serial S1, UUID unknown, cards 52:54:00:12:34:56 52:54:00:12:34:57";
    for (text, said) in [
        (format!("{A}{disk}"), format!("the node document at {url}: it is not signed; sign it with one")),
        (
            signed(&project, &format!("{A}{disk}"), "other"),
            format!("the node document at {url}: it was changed after"),
        ),
        (
            signed(&project, B, "rack"),
            format!("{url} has no document for this machine, which has {is}: mend `match`"),
        ),
        (
            format!(
                "{}---\n{}",
                with(disk),
                signed(&project, &format!("node: 1\nmatch: {{mac: {}}}\n", MACS[0]), "rack")
            ),
            format!("2 documents at {url} are for this machine, which has {is}: let `match` tell them apart"),
        ),
        (
            with(far),
            format!("the node document at {url} has an `install: document` itself: leave it out there"),
        ),
        (
            with(""),
            format!("nothing says onto which disk: add `install: {{disk: …}}` to the node document at {url}"),
        ),
        (format!("#{}", " ".repeat(256 << 10)), format!("{url} is longer than 262144 bytes")),
    ] {
        put(&text);
        let before = server.seen().len();
        let (done, _) = install(&ground);
        let error = done.unwrap_err();
        assert!(error.starts_with(&said), "{said}\n{error}");
        assert!(is_blank(&project, "disk"), "{said}");
        let told = reports(&server);
        let states: Vec<_> = told[told.len() - 2..].iter().map(|message| &message["state"]).collect();
        assert_eq!(states, ["begun", "refused"], "{said}");
        assert_eq!(server.seen().len() - before, 3, "{said}");
    }

    // Two documents that disagree are named both.
    own("name: other\n");
    put(&with(disk));
    let error = install(&ground).0.unwrap_err();
    assert!(error.contains("two documents disagree on `name`"), "{error}");
    assert!(
        error.contains("/S1.yaml") && error.contains("rack1.yaml:3:7") && !error.contains("s3cret"),
        "{error}"
    );
    // A node of the image would not read it.
    let closed = Ground { policy: Policy { sources: Some(Vec::new()), keys: Vec::new() }, ..ground.clone() };
    let error = install(&closed).0.unwrap_err();
    assert!(error.starts_with("a node of this image reads no document from its ESP, where"), "{error}");
    // The firmware tells nothing of the machine.
    fs::remove_file(project.path("sys/class/dmi/id/product_serial")).unwrap();
    let error = install(&ground).0.unwrap_err();
    assert!(
        error.starts_with("this machine shows no serial number, which `${serial}` in the address"),
        "{error}"
    );
    assert!(is_blank(&project, "disk"));
}

#[test]
fn two_documents_of_a_machine_become_one() {
    let project = project("");
    let server = Server::start();
    blank(&project, "disk", SIZE);
    let wanted = server.url("/rack.yaml");
    let file = format!("{A}install: {{disk: serial=none, then: poweroff}}\n---\n{B}");
    server.put("/rack.yaml", file.as_str(), &[]);
    // The machine's own names another address, and the word counts.
    project.write(
        "rack1.yaml",
        "node: 1\nlabels: {rack: one}\ninstall: {document: {url: \"http://far.example/n\"}}\n",
    );
    let remote = Remote::new(wanted.parse().unwrap(), Some(Digest::of(&file)), Vec::new()).unwrap();
    let ground = Ground { remote: Some(remote), pauses: &PAUSES, ..ground(&project, IMAGE, "disk") };
    let (done, heard) = install(&ground);
    let (report, then) = done.unwrap();
    assert_eq!((report.state, then), (State::Installed, Then::Poweroff));
    let said =
        "keller.document= on the kernel command line counts, not `install: document` of the node document";
    assert!(heard.text().contains(said), "{}", heard.text());
    let text = document(&project, "disk").unwrap();
    let both = keller::node::read("the disk", text.as_bytes()).unwrap();
    assert_eq!((both.len(), both[0].name.as_deref()), (1, Some("rack1-07")));
    assert_eq!(
        (both[0].labels["rack"].as_str(), both[0].credentials["web.key"].0.as_slice()),
        ("one", &b"s3cret"[..])
    );

    // Without a document of its own, and with keys, of which nobody has signed the whole.
    fs::remove_file(project.path("rack1.yaml")).unwrap();
    File::create(project.path("disk")).unwrap().set_len(SIZE).unwrap();
    assert_eq!(install(&ground).0.unwrap().0.state, State::Installed);
    assert_eq!(document(&project, "disk"), file.split("---").next().map(str::to_owned));
    fs::remove_file(project.path("disk")).unwrap();
    let error = install(&ground).0.unwrap_err();
    assert!(error.contains("/disk: No such file or directory"), "{error}");
}

#[test]
fn what_is_merged_is_signed_by_nobody() {
    let project = project("rack.pub");
    let server = Server::start();
    blank(&project, "disk", SIZE);
    let file = signed(&project, &format!("{A}install: {{disk: serial=none}}\n"), "rack");
    server.put("/S1.yaml", file.as_str(), &[]);
    let policy = Policy { sources: None, keys: vec![key(&project, "rack")] };
    let remote = Remote::new(server.url("/${serial}.yaml").parse().unwrap(), None, Vec::new()).unwrap();
    let ground = Ground { policy, remote: Some(remote), pauses: &PAUSES, ..ground(&project, IMAGE, "disk") };
    project.write("rack1.yaml", signed(&project, "node: 1\nlabels: {rack: one}\n", "rack"));
    let error = install(&ground).0.unwrap_err();
    assert!(
        error.starts_with("the node document of this machine is put together from several places"),
        "{error}"
    );
    assert!(is_blank(&project, "disk"));
    // A digest does not make up for the keys of the image.
    let other = signed(&project, &format!("{A}install: {{disk: serial=none}}\n"), "other");
    server.put("/other.yaml", other.as_str(), &[]);
    let pinned =
        Remote::new(server.url("/other.yaml").parse().unwrap(), Some(Digest::of(&other)), Vec::new());
    let error = install(&Ground { remote: pinned.ok(), ..ground.clone() }).0.unwrap_err();
    assert!(error.contains("/other.yaml: it was changed after it was signed, or signed by a key"), "{error}");
    // What the fetched one says already needs no second signature.
    project.write("rack1.yaml", signed(&project, "node: 1\nname: rack1-07\n", "rack"));
    assert_eq!(install(&ground).0.unwrap().0.state, State::Installed);
    assert_eq!(document(&project, "disk"), Some(file));
}
