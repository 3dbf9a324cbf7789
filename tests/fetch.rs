//! Downloads from a mirror on loopback that is not always well.

mod authorities;

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use keller::base::progress::{Silent, TaskId};
use keller::base::{Digest, Progress, Task, Unit};
use keller::fetch::{FetchError, PARALLEL, Reason, Upstream, fetch};
use keller::http::url::Url;
use keller::http::{Cause, Client, Credentials, HttpError, Proxies, Settings, apt};
use keller::lock::{LockedFile, LockedPackage, Resolved};
use keller::store::{Store, StoreError};

use crate::http_server::{Act, Server};

/// The defaults, but for people who do not have all day.
fn settings() -> Settings {
    Settings {
        connect: Duration::from_secs(2),
        idle: Duration::from_secs(3),
        minimum_rate: 100,
        pauses: [10, 20, 40].map(Duration::from_millis).to_vec(),
        ..Settings::default()
    }
}

fn client() -> Client {
    Client::new(settings()).unwrap()
}

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    (folder, store)
}

fn url(text: &str) -> Url {
    text.parse().unwrap()
}

/// Bytes without a period that a lost piece could hide in.
fn bytes(count: usize) -> Vec<u8> {
    (0..count as u32 / 4).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

/// All messages of an error, as a user sees them.
fn chain(error: &HttpError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

/// Counts bytes.
#[derive(Default)]
struct Count(AtomicU64);

impl Progress for Count {
    fn begin(&self, _: &str, _: u64, _: Unit) -> TaskId {
        TaskId(0)
    }
    fn advance(&self, _: TaskId, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }
    fn end(&self, _: TaskId) {}
    fn note(&self, _: &str) {}
    fn warn(&self, _: &str) {}
}

/// Downloads one file that is answered as `acts` say; checks that a failure leaves nothing and that a success
/// reports each byte once.
fn download(acts: &[Act]) -> (Result<(), HttpError>, Server) {
    let server = Server::start();
    let content = bytes(300_000);
    server.put("/file", content.clone(), acts);
    let (_folder, store) = store();
    let count = Count::default();
    let task = Task::new(&count, "test", 0, Unit::Bytes);
    let digest = Digest::of(&content);
    let size = Some(content.len() as u64);
    let result = client().download(&url(&server.url("/file")), &digest, size, &store, &task);
    match &result {
        Ok(()) => {
            let mut found = Vec::new();
            store.open_blob(&digest).unwrap().unwrap().read_to_end(&mut found).unwrap();
            assert!(found == content);
            assert_eq!(count.0.load(Ordering::Relaxed), content.len() as u64);
        }
        Err(_) => assert_eq!(store.blobs().unwrap(), []),
    }
    (result, server)
}

#[test]
fn resumes_where_the_connection_broke() {
    let (result, server) = download(&[Act::ResetAt(100_000), Act::HangAt(200_000), Act::Serve]);
    result.unwrap();
    let seen = server.seen();
    let ranges: Vec<_> = seen.iter().map(|request| request.headers.get("range").cloned()).collect();
    assert_eq!(ranges, [None, Some("bytes=100000-".to_owned()), Some("bytes=200000-".to_owned())]);
    assert!(seen[1].headers["if-range"].starts_with('"'));
}

#[test]
fn starts_anew_where_ranges_are_ignored() {
    let (result, server) = download(&[Act::ResetAt(100_000), Act::ServeWhole]);
    result.unwrap();
    assert_eq!(server.seen().len(), 2);
}

#[test]
fn file_that_changed_in_between_is_not_mixed() {
    // The second answer carries the right range of other bytes: only the digest tells.
    let server = Server::start();
    let content = bytes(300_000);
    let mut other = content.clone();
    other[250_000] ^= 1;
    server.put("/file", other, &[Act::ResetAt(260_000), Act::Serve]);
    let (_folder, store) = store();
    let task = Task::new(&Silent, "test", 0, Unit::Bytes);
    let error = client()
        .download(&url(&server.url("/file")), &Digest::of(&content), None, &store, &task)
        .unwrap_err();
    assert!(matches!(*error.cause, Cause::Store(StoreError::WrongDigest { .. })), "{}", chain(&error));
    assert_eq!(server.seen().len(), 3);
    assert_eq!(server.seen()[2].headers["cache-control"], "no-cache");
    assert_eq!(store.blobs().unwrap(), []);
}

#[test]
fn broken_cache_in_between_is_passed_by() {
    let (result, server) = download(&[Act::Other(b"<html>login</html>".to_vec()), Act::Serve]);
    result.unwrap();
    assert_eq!(server.seen()[1].headers["cache-control"], "no-cache");
}

#[test]
fn passing_trouble_is_sat_out() {
    for act in [Act::Status(500), Act::Status(503), Act::Status(429), Act::Close, Act::Hang, Act::Garbage] {
        let (result, server) = download(&[act.clone(), act.clone(), Act::Serve]);
        result.unwrap_or_else(|error| panic!("{act:?}: {}", chain(&error)));
        assert_eq!(server.seen().len(), 3, "{act:?}");
    }
}

#[test]
fn lasting_trouble_is_told_in_bounded_time() {
    let start = Instant::now();
    let cases: [(Act, usize, &str); 12] = [
        (Act::Status(404), 1, "not found"),
        (Act::Status(403), 1, "the server says 403: credentials"),
        (Act::Status(451), 1, "the server says 451"),
        (Act::Status(500), 4, "tried 4 times: the server says 500"),
        (Act::Close, 4, "no connection"),
        (Act::Hang, 4, "no byte within 3 seconds"),
        (Act::HangAt(1000), 4, "no byte within 3 seconds"),
        (Act::Trickle, 4, "slower than 100 B a second"),
        (Act::Garbage, 4, "makes no sense"),
        (Act::ResetAt(1000), 4, "broke after"),
        (Act::Other(b"short".to_vec()), 2, "expected 300000 bytes, but have 5"),
        (Act::Endless, 2, "expected 300000 bytes, but have"),
    ];
    std::thread::scope(|scope| {
        for (act, tries, message) in &cases {
            scope.spawn(move || {
                let (result, server) = download(std::slice::from_ref(act));
                let text = chain(&result.unwrap_err());
                assert!(text.contains(message) && text.contains("/file"), "{act:?}: {text}");
                assert_eq!(server.seen().len(), *tries, "{act:?}: {text}");
            });
        }
    });
    assert!(start.elapsed() < Duration::from_secs(120));
}

#[test]
fn wrong_bytes_of_the_right_size() {
    let mut other = bytes(300_000);
    other[7] ^= 1;
    let (result, server) = download(&[Act::Other(other)]);
    assert!(chain(&result.unwrap_err()).contains("expected SHA-256"));
    assert_eq!(server.seen().len(), 2);
}

/// A port of loopback that refuses every connection, and that nobody else gets before it is dropped: bound
/// without being listened to.
struct Deaf(std::os::fd::OwnedFd);

impl Deaf {
    fn new() -> Self {
        use rustix::net::{AddressFamily, SocketType, bind, socket};
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        bind(&socket, &"127.0.0.1:0".parse::<std::net::SocketAddrV4>().unwrap()).unwrap();
        Self(socket)
    }

    fn url(&self, path: &str) -> String {
        let address: std::net::SocketAddr = rustix::net::getsockname(&self.0).unwrap().try_into().unwrap();
        format!("http://{address}{path}")
    }
}

#[test]
fn nobody_there() {
    let deaf = Deaf::new();
    let error = client().get_small(&url(&deaf.url("/x")), 10).unwrap_err();
    assert!(error.is_unreachable());
    assert!(chain(&error).contains("refused"), "{}", chain(&error));
    // The resolver may be slow.
    let patient =
        Settings { connect: Duration::from_secs(30), idle: Duration::from_secs(30), ..Settings::default() };
    let error =
        Client::new(patient).unwrap().get_small(&url("http://no-such-host.invalid/x"), 10).unwrap_err();
    assert!(error.is_unreachable());
    assert!(chain(&error).contains("looking up no-such-host.invalid"), "{}", chain(&error));
}

#[test]
fn small_files_have_a_limit() {
    let server = Server::start();
    server.put("/small", "12345", &[Act::Serve]);
    server.put("/flaky", "12345", &[Act::ResetAt(2), Act::Serve]);
    server.put("/endless", "", &[Act::Endless]);
    let get = |path: &str, max| client().get_small(&url(&server.url(path)), max);
    assert_eq!(get("/small", 5).unwrap(), b"12345");
    assert_eq!(get("/flaky", 5).unwrap(), b"12345");
    for (path, max) in [("/small", 4), ("/endless", 100_000)] {
        let error = get(path, max).unwrap_err();
        assert!(matches!(*error.cause, Cause::TooLarge { .. }), "{}", chain(&error));
    }
    // By a name that this machine knows by itself.
    let by_name = url(&format!("http://localhost:{}/small", server.port()));
    assert_eq!(client().get_small(&by_name, 5).unwrap(), b"12345");
}

#[test]
fn unknown_files_are_received_up_to_a_limit() {
    let server = Server::start();
    let content = bytes(50_000);
    server.put("/file", content.clone(), &[Act::ResetAt(20_000), Act::Serve]);
    let (_folder, store) = store();
    let task = Task::new(&Silent, "test", 0, Unit::Bytes);
    let receive = |limit| client().receive(&url(&server.url("/file")), limit, &store, &task);
    assert_eq!(receive(50_000).unwrap(), (Digest::of(&content), 50_000));
    assert!(matches!(*receive(49_999).unwrap_err().cause, Cause::TooLarge { limit: 49_999, .. }));
}

#[test]
fn local_files() {
    let (folder, store) = store();
    let path = folder.path().join("a file");
    fs::write(&path, "hello").unwrap();
    let task = Task::new(&Silent, "test", 0, Unit::Bytes);
    let address = Url::from_path(&path).unwrap();
    assert_eq!(client().get_small(&address, 5).unwrap(), b"hello");
    assert!(matches!(*client().get_small(&address, 4).unwrap_err().cause, Cause::TooLarge { .. }));
    let download =
        |address: &Url, text: &str| client().download(address, &Digest::of(text), None, &store, &task);
    assert!(download(&address, "jello").unwrap_err().to_string().contains("a%20file"));
    download(&address, "hello").unwrap();
    assert!(download(&Url::from_path(&folder.path().join("b")).unwrap(), "b").unwrap_err().is_not_found());
    let error = download(&Url::from_path(folder.path()).unwrap(), "b").unwrap_err();
    assert!(chain(&error).contains("not a regular file"));
}

#[test]
fn redirections() {
    let (server, other) = (Server::start(), Server::start());
    other.put("/there", "here", &[Act::Serve]);
    let to = |status, target: &str| Act::StatusWith(status, format!("Location: {target}"));
    server.put("/moved", "", &[to(302, &other.url("/there?token=s3cret"))]);
    other.put("/there?token=s3cret", "here", &[Act::Serve]);
    server.put("/relative", "", &[to(301, "moved")]);
    server.put("/round", "", &[to(307, "/round")]);
    server.put("/file", "", &[to(302, "file:///etc/hostname")]);
    server.put("/lost", "", &[to(302, "/gone?token=s3cret")]);
    server.put("/nowhere", "", &[Act::Status(302)]);
    let get = |path: &str| {
        let address = server.url(path).replace("http://", "http://me:pass@");
        client().get_small(&url(&address), 100)
    };
    assert_eq!(get("/relative").unwrap(), b"here");
    let told = |requests: Vec<crate::http_server::Request>| {
        requests.iter().all(|request| request.headers.contains_key("authorization"))
    };
    assert!(told(server.seen()), "relative redirections stay with the same server");
    assert!(!told(other.seen()), "another server must not see the password");
    assert!(chain(&get("/round").unwrap_err()).contains("redirected 21 times"));
    let error = get("/file").unwrap_err();
    assert!(matches!(*error.cause, Cause::Downgrade { .. }));
    assert!(chain(&error).contains("redirected to file:///"), "{}", chain(&error));
    assert!(chain(&error).ends_with(": refused, as a server must not lead to files of this machine"));
    assert!(matches!(*get("/nowhere").unwrap_err().cause, Cause::Redirects(_)));
    let lost = get("/lost").unwrap_err();
    assert!(lost.is_not_found() && !format!("{lost:?} {}", chain(&lost)).contains("s3cret"));
}

/// Each answer comes in time, and leads to the next.
#[test]
fn redirections_that_take_long() {
    let server = Server::start();
    let round = Act::StatusWith(307, "Location: /round".to_owned());
    server.put("/round", "", &[Act::Late(Duration::from_millis(1200), Box::new(round))]);
    let error = client().get_small(&url(&server.url("/round")), 100).unwrap_err();
    assert!(
        chain(&error).ends_with("redirected again and again for more than 3 seconds"),
        "{}",
        chain(&error)
    );
    assert_eq!(server.seen().len(), 3);
}

#[test]
fn heads_that_cost_much_or_never_end() {
    let length =
        |length: &str| Act::Raw(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\nx").into_bytes());
    let cases = [
        (Act::EndlessHead, "no connection"),
        (Act::DripHead, "no byte within 3 seconds"),
        (Act::Late(Duration::from_secs(60), Box::new(Act::Serve)), "no byte within 3 seconds"),
        (length("18446744073709551615"), "expected at most 100 bytes"),
        (length("9223372036854775808"), "expected at most 100 bytes"),
        (length("99999999999999999999999"), "makes no sense"),
        (length("-1"), "makes no sense"),
    ];
    std::thread::scope(|scope| {
        for (act, said) in cases {
            scope.spawn(move || {
                let server = Server::start();
                server.put("/x", "", std::slice::from_ref(&act));
                let told = chain(&client().get_small(&url(&server.url("/x")), 100).unwrap_err());
                assert!(told.contains(said) || told.contains("makes no sense"), "{act:?}: {told}");
            });
        }
    });
}

#[test]
fn credentials_that_are_not_read_are_told_of() {
    let server = Server::start();
    server.put("/x", "", &[Act::Status(401)]);
    let folder = tempfile::tempdir().unwrap();
    let netrc = folder.path().join("netrc");
    fs::write(&netrc, "machine a ".repeat(200_000)).unwrap();
    let credentials = Credentials::read(|name| (name == "NETRC").then(|| netrc.clone()), folder.path());
    let client = Client::new(Settings { credentials, ..settings() }).unwrap();
    let told = chain(&client.get_small(&url(&server.url("/x")), 10).unwrap_err());
    let said = format!(
        "; {} was not read: it has more than the 1.0 MiB that are read of such a file",
        netrc.display()
    );
    assert!(told.ends_with(&said), "{told}");
}

#[test]
fn credentials_and_their_secrecy() {
    let server = Server::start();
    server.put("/x", "", &[Act::Status(401)]);
    let folder = tempfile::tempdir().unwrap();
    let machine = format!("machine http://127.0.0.1:{} login me password s3cret", server.port());
    fs::write(folder.path().join("auth.conf"), machine).unwrap();
    let credentials = Credentials::read(|_| None, folder.path());
    let client = Client::new(Settings { credentials, ..settings() }).unwrap();
    for address in [server.url("/x"), server.url("/x").replace("http://", "http://me:s3cret@")] {
        let error = client.get_small(&url(&address), 10).unwrap_err();
        let shown = format!("{error:?} {}", chain(&error));
        assert!(!shown.contains("s3cret") && shown.contains("auth.conf"), "{shown}");
    }
    // me:s3cret
    assert!(server.seen().iter().all(|request| request.headers["authorization"] == "Basic bWU6czNjcmV0"));
    assert_eq!(server.seen().len(), 2);
}

#[test]
fn proxies() {
    let proxy = Server::start();
    proxy.put("/debian/x", "through", &[Act::Serve]);
    let value = format!("http://me:s3cret@127.0.0.1:{}", proxy.port());
    let var = |name: &str| match name {
        "http_proxy" => Some(value.clone()),
        "no_proxy" => Some("direct.invalid".to_owned()),
        _ => None,
    };
    let with = |proxies| Client::new(Settings { proxies, ..settings() }).unwrap();
    let client = with(Proxies::new(var, apt::Config::default()));
    assert_eq!(client.get_small(&url("http://mirror.invalid/debian/x"), 10).unwrap(), b"through");
    let seen = &proxy.seen()[0];
    assert_eq!(seen.line, "GET http://mirror.invalid/debian/x");
    assert_eq!(seen.headers["proxy-authorization"], "Basic bWU6czNjcmV0");
    let error = client.get_small(&url("http://mirror.invalid/gone"), 10).unwrap_err();
    assert!(chain(&error).contains("through the proxy http://***@127.0.0.1"), "{}", chain(&error));
    let error = client.get_small(&url("http://direct.invalid/x"), 10).unwrap_err();
    assert!(chain(&error).contains("looking up direct.invalid"), "{}", chain(&error));

    let folder = tempfile::tempdir().unwrap();
    let setting = format!("Acquire::http {{ Proxy \"http://127.0.0.1:{}/\"; }};", proxy.port());
    fs::write(folder.path().join("apt.conf"), setting).unwrap();
    let client = with(Proxies::new(|_| None, apt::Config::read(folder.path())));
    assert_eq!(client.get_small(&url("http://mirror.invalid/debian/x"), 10).unwrap(), b"through");
}

/// What was resolved, with packages of these names, contents and archives.
fn lock(packages: &[(&str, &[u8], &str)]) -> Resolved {
    let package = |(name, content, archive): &(&str, &[u8], &str)| {
        let locked = LockedPackage {
            version: "1:2-3".to_owned(),
            architecture: "amd64".to_owned(),
            archive: (*archive).to_owned(),
            path: format!("pool/main/{name}_2-3_amd64.deb"),
            size: content.len() as u64,
            sha256: Digest::of(content),
            wanted_by: Vec::new(),
            scripts: BTreeMap::new(),
        };
        ((*name).to_owned(), locked)
    };
    Resolved {
        id: "test".to_owned(),
        request: Digest::of(""),
        epoch: 0,
        provenance: Default::default(),
        packages: packages.iter().map(package).collect(),
        containers: BTreeMap::new(),
        known: Default::default(),
    }
}

fn archives(server: &Server) -> BTreeMap<String, Vec<Url>> {
    let root = |path: &str| vec![Url::root(&server.url(path)).unwrap()];
    BTreeMap::from([("debian".to_owned(), root("/debian")), ("security".to_owned(), root("/security"))])
}

#[test]
fn lock_to_store() {
    let server = Server::start();
    let (a, b, c) = (bytes(40_000), bytes(8), bytes(100));
    server.put("/debian/pool/main/a_2-3_amd64.deb", a.clone(), &[Act::Status(503), Act::Serve]);
    server.put("/security/pool/main/b_2-3_amd64.deb", b.clone(), &[Act::Serve]);
    server.put("/c", c.clone(), &[Act::Serve]);
    let mut lock = lock(&[("a", &a, "debian"), ("b", &b, "security")]);
    lock.containers.insert("web".to_owned(), lock.packages.clone());
    let file = LockedFile { size: c.len() as u64, sha256: Digest::of(&c) };
    lock.known.files = BTreeMap::from([("/etc/c".to_owned(), file.clone()), ("local".to_owned(), file)]);
    let urls = BTreeMap::from([("/etc/c".to_owned(), url(&server.url("/c")))]);
    let (_folder, store) = store();
    let (client, archives) = (client(), archives(&server));
    let upstream = Upstream { client: &client, archives: &archives, parallel: PARALLEL };

    let offline = fetch(lock.clone(), &urls, &store, None, &Silent).unwrap_err();
    assert!(offline.to_string().contains("offline, and 3 of the lock's files"), "{offline}");
    for name in ["a 1:2-3", "b 1:2-3", "/etc/c"] {
        assert!(offline.to_string().contains(name), "{offline}");
    }
    let offline = offline.to_string();
    let list: Vec<&str> = offline.lines().skip(1).collect();
    assert_eq!(list, ["  /etc/c", "  a 1:2-3", "  b 1:2-3", "the same once without --offline fetches them"]);
    let count = Count::default();
    let fetched = fetch(lock.clone(), &urls, &store, Some(upstream), &count).unwrap();
    assert_eq!((fetched.files, fetched.present, fetched.bytes), (3, 0, 40_108));
    assert_eq!(count.0.load(Ordering::Relaxed), 40_108);
    let requests = server.seen().len();
    let again = fetch(lock.clone(), &urls, &store, None, &Silent).unwrap();
    assert_eq!((again.files, again.present, server.seen().len()), (0, 3, requests));
}

#[test]
fn what_is_missing_offline_is_sorted_and_counted() {
    let names: Vec<String> = (0..141).map(|n| format!("p{n:03}")).collect();
    let packages: Vec<_> = names.iter().map(|name| (name.as_str(), name.as_bytes(), "debian")).collect();
    let (_folder, store) = store();
    let error = fetch(lock(&packages), &BTreeMap::new(), &store, None, &Silent).unwrap_err().to_string();
    let expected: String = (0..10).map(|n| format!("\n  p{n:03} 1:2-3")).collect();
    assert_eq!(
        error,
        format!(
            "offline, and 141 of the lock's files (564 B) are not in the store:{expected}\n  and 131 more\n\
             the same once without --offline fetches them"
        )
    );
}

#[test]
fn all_failures_at_once() {
    let server = Server::start();
    let content: Vec<Vec<u8>> = (0..14).map(|n| bytes(1000 + 4 * n)).collect();
    let names: Vec<String> = (0..14).map(|n| format!("p{n:02}")).collect();
    let mut packages: Vec<(&str, &[u8], &str)> =
        names.iter().zip(&content).map(|(name, bytes)| (name.as_str(), bytes.as_slice(), "debian")).collect();
    packages[1].2 = "vendor";
    let path = |n: usize| format!("/debian/pool/main/p{n:02}_2-3_amd64.deb");
    server.put(&path(2), bytes(500), &[Act::Serve]);
    server.put(&path(13), content[13].clone(), &[Act::Serve]);
    let mut lock = lock(&packages);
    lock.packages.get_mut("p03").unwrap().path = "../../etc/passwd".to_owned();
    let (_folder, store) = store();
    let (client, archives) = (client(), archives(&server));
    let upstream = Upstream { client: &client, archives: &archives, parallel: 3 };
    let error = fetch(lock.clone(), &BTreeMap::new(), &store, Some(upstream), &Silent).unwrap_err();
    let text = error.to_string();
    let FetchError::Failed { failures, untried, wanted } = error else { panic!("{text}") };
    assert_eq!((failures.len(), untried, wanted), (13, 0, 14));
    assert!(matches!(&failures[0].reason, Reason::Superseded { package, .. } if package == "p00"));
    for part in [
        "13 of 14 files could not be fetched",
        "p00 1:2-3: pool/main/p00_2-3_amd64.deb is no longer on http://127.0.0.1",
        "`keller lock --update p00`",
        "--mirror",
        "p01 1:2-3: no address is known for the archive \"vendor\"",
        "p02 1:2-3: fetching http://127.0.0.1",
        "expected 1008 bytes, but have 500",
        "p03 1:2-3: \"../../etc/passwd\" is no path below",
        "and 3 more",
    ] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    assert!(store.has(&Digest::of(&content[13])));
}

#[test]
fn dead_mirror_is_not_asked_for_each_package() {
    let deaf = Deaf::new();
    let names: Vec<String> = (0..100).map(|n| format!("p{n}")).collect();
    let packages: Vec<(&str, &[u8], &str)> =
        names.iter().map(|name| (name.as_str(), name.as_bytes(), "debian")).collect();
    let roots = vec![Url::root(&deaf.url("/debian")).unwrap()];
    let archives = BTreeMap::from([("debian".to_owned(), roots)]);
    let (_folder, store) = store();
    let client = client();
    let upstream = Upstream { client: &client, archives: &archives, parallel: 4 };
    let error = fetch(lock(&packages), &BTreeMap::new(), &store, Some(upstream), &Silent).unwrap_err();
    let FetchError::Failed { failures, untried, .. } = &error else { panic!("{error}") };
    assert!(failures.len() <= 8 && failures.len() + untried == 100, "{error}");
    assert!(error.to_string().contains("others were not tried"), "{error}");
}

#[test]
fn a_lock_larger_than_the_disk_is_refused_before_a_byte_is_fetched() {
    let server = Server::start();
    let (folder, store) = store();
    let mut lock =
        lock(&[("small", b"content", "debian"), ("large", b"more", "debian"), ("huge", b"x", "debian")]);
    lock.packages.get_mut("large").unwrap().size = 1 << 60;
    lock.packages.get_mut("huge").unwrap().size = u64::MAX;
    let archives = BTreeMap::from([("debian".to_owned(), vec![Url::root(&server.url("/debian")).unwrap()])]);
    let client = client();
    let upstream = Upstream { client: &client, archives: &archives, parallel: 1 };
    let error = fetch(lock.clone(), &BTreeMap::new(), &store, Some(upstream), &Silent).unwrap_err();
    let text = keller::base::Chain(&error).to_string();
    assert!(text.starts_with("fetching 3 files: no space left in "), "{text}");
    assert!(text.contains(folder.path().to_str().unwrap()) && text.contains("for 16777216.0 TiB"), "{text}");
    assert!(server.seen().is_empty());
}

#[test]
fn second_root_is_asked() {
    let server = Server::start();
    server.put("/second/pool/main/a_2-3_amd64.deb", "content", &[Act::Serve]);
    let root = |path: &str| Url::root(&server.url(path)).unwrap();
    let archives = BTreeMap::from([("debian".to_owned(), vec![root("/first"), root("/second")])]);
    let (_folder, store) = store();
    let client = client();
    let upstream = Upstream { client: &client, archives: &archives, parallel: 1 };
    let lock = lock(&[("a", b"content", "debian")]);
    assert_eq!(fetch(lock.clone(), &BTreeMap::new(), &store, Some(upstream), &Silent).unwrap().files, 1);
}

/// Runs one ignored test of this program in a process of its own.
fn child(name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("fetch::{name}"), "--ignored", "--nocapture"]);
    command
}

#[test]
#[ignore = "the child of killed_writer_leaves_nothing"]
fn child_writes_for_ever() {
    let Ok(folder) = std::env::var("KELLER_STORE") else { return };
    let store = Store::open(folder).unwrap();
    let mut incoming = store.incoming(None, None).unwrap();
    incoming.write(&[1; 100_000]).unwrap();
    println!("\nwriting");
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn killed_writer_leaves_nothing() {
    let (folder, store) = store();
    let mut child = child("child_writes_for_ever")
        .env("KELLER_STORE", folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = std::io::BufReader::new(child.stdout.take().unwrap());
    assert!(std::io::BufRead::lines(output).any(|line| line.unwrap() == "writing"));
    let mut store = store;
    let keep = Default::default();
    assert!(matches!(store.gc(&keep, Duration::ZERO), Err(StoreError::InUse { .. })));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(fs::read_dir(folder.path().join("blobs")).unwrap().count(), 0);
    store.gc(&keep, Duration::ZERO).unwrap();
}
