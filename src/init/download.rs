//! The disk image from a web server: hashed and unpacked as it comes, and not attached before its digest is the one that the
//! kernel image names.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use zstd::stream::write::Decoder;

use super::console::Console;
use super::modules::Loader;
use super::network;
use super::unpacked::Unpacked;
use crate::base::failure::{Doing, Failure};
use crate::base::width::{to_u64, to_usize};
use crate::base::{Chain, Hasher, Size};
use crate::boot::cmdline::Options;
use crate::boot::live::{DISK, Facts, Source};
use crate::http::url::Url;
use crate::http::{Cause, Client, HttpError, Settings};

/// A server that says nothing for so long is asked anew.
const IDLE: Duration = Duration::from_secs(30);
/// After so many tries in a row that bring no byte, the network is set up anew, over another card if there is one ...
const TRIES: usize = 4;
/// ... and after so many through a card that has not brought any at all.
const FIRST_TRIES: usize = 2;
/// After so many images with other bytes than the kernel image names, the machine starts over: whoever puts a new version
/// onto a server needs a moment between its files.
const WRONG: usize = 5;
/// Between two of those.
const WRONG_PAUSE: Duration = Duration::from_secs(20);
/// Between two lines about how far it is.
const REPORT: Duration = Duration::from_secs(5);
/// Bytes read at once.
const CHUNK: usize = 64 << 10;

/// Fetches the disk image that `source` names into [`DISK`].
pub(super) fn fetch(
    console: &Console,
    loader: &mut Loader,
    options: &Options,
    facts: &Facts,
    source: &Source,
) -> Result<(), Failure> {
    let url = address(options.image.as_deref(), source)?;
    console.say(&format!("running from memory: fetching {url}, {}", Size(source.size).human()));
    let mut download = Download::new(console, facts, source, DISK.into())?;
    network::with(console, loader, &options.extra, &mut |through| download.go_on(&url, through))
}

/// Where the image is: the command line counts before the manifest.
fn address(given: Option<&str>, source: &Source) -> Result<Url, Failure> {
    let name = &source.name;
    let Some(text) = given.or(source.url.as_deref()) else {
        return Err(Failure::new("looking for the disk image", "nothing says where it is").help(format!(
            "give keller.image=http://SERVER/DIRECTORY/ on the kernel command line, where {name} lies, or build with \
             `netboot: {{url: …}}`"
        )));
    };
    let is_directory = given.is_none_or(|given| given.ends_with('/'));
    let url = if is_directory { Url::root(text).and_then(|root| root.join(name)) } else { text.parse() };
    let word = if given.is_some() { "keller.image=" } else { "netboot.url" };
    let help = format!("{word} is an address such as http://boot.example/keller/{name}");
    let url = url.doing(format!("reading {word}")).map_err(|failure| failure.help(help.clone()))?;
    match url.scheme() {
        "http" => Ok(url),
        scheme => Err(Failure::new(format!("reading {word}"), format!("{url}: {scheme} is not spoken here"))
            .help(format!("{help}: the kernel image pins the bytes, whoever sends them"))),
    }
}

/// What went wrong in one try.
#[derive(Debug)]
enum Trouble {
    /// Another try may help.
    Passing(String),
    /// The server has something else.
    Wrong(String),
    /// No other try helps.
    Fatal(Failure),
}

/// An image on its way.
struct Download<'a> {
    console: &'a Console,
    facts: &'a Facts,
    source: &'a Source,
    path: PathBuf,
    settings: Settings,
    /// The pause after so many tries in vain, counted from 0, and after wrong bytes.
    pauses: (fn(usize) -> Duration, Duration),
    unpacked: Decoder<'static, Unpacked>,
    hasher: Hasher,
    position: u64,
    /// How often the server sent something else.
    wrong: usize,
    progress: Progress,
}

impl<'a> Download<'a> {
    fn new(
        console: &'a Console,
        facts: &'a Facts,
        source: &'a Source,
        path: PathBuf,
    ) -> Result<Self, Failure> {
        let settings = Settings { idle: IDLE, pauses: Vec::new(), ..Settings::default() };
        let unpacked = begin(&path, facts)?;
        Ok(Self {
            console,
            facts,
            source,
            path,
            settings,
            pauses: (network::pause, WRONG_PAUSE),
            unpacked,
            hasher: Hasher::new(),
            position: 0,
            wrong: 0,
            progress: Progress { last: Instant::now(), position: 0 },
        })
    }

    /// Goes on from where it stands, over a network that is there; gives nothing where that leads nowhere.
    fn go_on(&mut self, url: &Url, through: &str) -> Result<Option<()>, Failure> {
        let client = Client::new(self.settings.clone()).doing("setting up HTTP")?;
        let (mut tries, mut most) = (0, FIRST_TRIES);
        loop {
            let before = self.position;
            match self.attempt(&client, url) {
                Ok(()) => {
                    self.console.say(&format!("fetched {}, SHA-256 is right", self.source.name));
                    return Ok(Some(()));
                }
                Err(Trouble::Passing(text)) => {
                    if self.position > before {
                        (tries, most) = (0, TRIES);
                    }
                    tries += 1;
                    self.console.alarm(&[format!("{through}: {text}")]);
                    if tries == most {
                        return Ok(None);
                    }
                    thread::sleep((self.pauses.0)(tries - 1));
                }
                Err(Trouble::Wrong(text)) => {
                    self.wrong += 1;
                    self.restart()?;
                    if self.wrong == WRONG {
                        return Err(self.gives_up(url, &text));
                    }
                    self.console.alarm(&[format!("{through}: fetching {url}: {text}; asking again")]);
                    thread::sleep(self.pauses.1);
                }
                Err(Trouble::Fatal(failure)) => return Err(failure),
            }
        }
    }

    fn gives_up(&self, url: &Url, text: &str) -> Failure {
        Failure::new(format!("fetching {url}"), text.to_owned()).help(format!(
            "this kernel image starts {} with SHA-256 {} and no other: put both files of one build onto the server",
            self.source.name, self.source.digest
        ))
    }

    fn restart(&mut self) -> Result<(), Failure> {
        self.unpacked = begin(&self.path, self.facts)?;
        (self.hasher, self.position, self.progress.position) = (Hasher::new(), 0, 0);
        Ok(())
    }

    /// One connection, to the end of the file or of the connection.
    fn attempt(&mut self, client: &Client, url: &Url) -> Result<(), Trouble> {
        let size = self.source.size;
        let rest = (self.position > 0).then_some(self.position..size);
        let mut stream = client.stream(url, rest).map_err(|error| sorted(&error))?;
        if let Some(total) = stream.total().filter(|total| *total != size) {
            return Err(Trouble::Wrong(format!("the server has {total} bytes, and the image has {size}")));
        }
        // A server that knows no ranges begins anew.
        let mut known = self.position - stream.start();
        let mut buffer = vec![0; CHUNK];
        loop {
            let count = match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) => return Err(broken(&error)),
            };
            let skipped = to_usize(known.min(to_u64(count)));
            known -= to_u64(skipped);
            self.take(&buffer[skipped..count])?;
        }
        if self.position < size {
            return Err(Trouble::Passing(format!(
                "fetching {url}: the connection ended after {} of {size} bytes",
                self.position
            )));
        }
        self.verify()
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        self.position += to_u64(bytes.len());
        if self.position > self.source.size {
            return Err(Trouble::Wrong(format!("the server has more than {} bytes", self.source.size)));
        }
        self.hasher.update(bytes);
        self.unpacked.write_all(bytes).map_err(unpacking)?;
        if let Some(text) = self.progress.said(self.position, self.source.size, Instant::now()) {
            self.console.say(&text);
        }
        Ok(())
    }

    /// Whether all that came is the image.
    fn verify(&mut self) -> Result<(), Trouble> {
        let (expected, actual) = (self.source.digest, self.hasher.clone().finish());
        if actual != expected {
            return Err(Trouble::Wrong(format!(
                "other bytes: expected SHA-256 {expected}, but have {actual}"
            )));
        }
        self.unpacked.flush().and_then(|()| self.unpacked.get_mut().finish()).map_err(unpacking)
    }
}

fn begin(path: &Path, facts: &Facts) -> Result<Decoder<'static, Unpacked>, Failure> {
    let unpacked = Unpacked::create(path, facts).doing(format!("making {}", path.display()))?;
    Decoder::new(unpacked).doing("setting up Zstandard")
}

/// Memory that is full is no fault of the server's.
fn unpacking(error: io::Error) -> Trouble {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::OutOfMemory => Trouble::Fatal(
            Failure::new("unpacking the disk image", error).help("give the machine more memory"),
        ),
        _ => Trouble::Wrong(format!("it cannot be unpacked: {error}")),
    }
}

/// What the server or the network says, with what to do.
fn sorted(error: &HttpError) -> Trouble {
    let url = &error.url;
    Trouble::Passing(match &*error.cause {
        Cause::NotFound => format!(
            "fetching {url}: not found: put the file there, or name its address by keller.image= or `netboot.url`"
        ),
        Cause::Unauthorized { status, .. } => format!(
            "fetching {url}: the server says {status}: let it hand out the file without asking for a password"
        ),
        Cause::NoTrust { .. } => {
            format!(
                "fetching {url}: it leads to https, which is not spoken here: let the server answer at http"
            )
        }
        Cause::Connection { .. } => {
            format!("{}: look whether the web server runs and is reached from here", Chain(error))
        }
        _ => Chain(error).to_string(),
    })
}

/// An error within an answer.
fn broken(error: &io::Error) -> Trouble {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<HttpError>()) {
        Some(error) => sorted(error),
        None => Trouble::Passing(Chain(error).to_string()),
    }
}

/// How far it is, said now and then.
struct Progress {
    last: Instant,
    position: u64,
}

impl Progress {
    /// What is to be said at `position` of `size`.
    fn said(&mut self, position: u64, size: u64, now: Instant) -> Option<String> {
        let since = now.duration_since(self.last);
        if since < REPORT || position == size {
            return None;
        }
        let rate = position.saturating_sub(self.position).saturating_mul(1000) / to_millis(since);
        (self.last, self.position) = (now, position);
        let (percent, rate) = (position * 100 / size.max(1), Size(rate).human());
        Some(format!("fetched {percent} %, {} of {}, {rate}/s", Size(position).human(), Size(size).human()))
    }
}

fn to_millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
#[path = "../../tests/http_server.rs"]
#[expect(dead_code, unreachable_pub, reason = "it is for tests of the program")]
mod http_server;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::http_server::{Act, Server};
    use super::*;
    use crate::base::Digest;

    const PATH: &str = "/n_1.raw.zst";

    /// A server, an image that is not compressible, and what there is to know of it.
    struct Scene {
        server: Server,
        image: Vec<u8>,
        packed: Vec<u8>,
        facts: Facts,
        folder: tempfile::TempDir,
    }

    /// In frames, as an image is.
    fn packed(image: &[u8]) -> Vec<u8> {
        image.chunks(1 << 20).flat_map(|frame| zstd::encode_all(frame, 1).unwrap()).collect()
    }

    impl Scene {
        fn new() -> Self {
            let mut state: u32 = 7;
            let mut next = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                state.to_be_bytes()[0]
            };
            let mut image: Vec<u8> = (0..900_000).map(|_| next()).collect();
            image.resize(3 << 20, 0);
            let packed = packed(&image);
            let source = Source {
                name: "n_1.raw.zst".to_owned(),
                size: to_u64(packed.len()),
                digest: Digest::of(&packed),
                url: None,
            };
            let facts = Facts { size: 3 << 20, content: 1 << 20, source: Some(source) };
            Self { server: Server::start(), image, packed, facts, folder: tempfile::tempdir().unwrap() }
        }

        fn serve(&self, acts: &[Act]) {
            self.server.put(PATH, self.packed.clone(), acts);
        }

        fn download(&self) -> Download<'_> {
            static CONSOLE: Console = Console::silent();
            let path = self.folder.path().join("disk.raw");
            let source = self.facts.source.as_ref().unwrap();
            let mut download = Download::new(&CONSOLE, &self.facts, source, path).unwrap();
            download.settings.idle = Duration::from_millis(1200);
            download.settings.minimum_rate = 1;
            download.pauses = (|_| Duration::ZERO, Duration::ZERO);
            download
        }

        fn url(&self) -> Url {
            self.server.url(PATH).parse().unwrap()
        }

        /// The trouble of one try.
        fn trouble(&self, acts: &[Act]) -> String {
            self.serve(acts);
            let mut download = self.download();
            let client = Client::new(download.settings.clone()).unwrap();
            match download.attempt(&client, &self.url()).unwrap_err() {
                Trouble::Passing(text) => format!("passing: {text}"),
                Trouble::Wrong(text) => format!("wrong: {text}"),
                Trouble::Fatal(failure) => format!("fatal: {}", Chain(&failure)),
            }
        }

        fn arrives(&self, acts: &[Act]) {
            self.serve(acts);
            let mut download = self.download();
            assert_eq!(download.go_on(&self.url(), "eth0").unwrap(), Some(()), "{acts:?}");
            assert!(fs::read(&download.path).unwrap() == self.image, "{acts:?}");
        }
    }

    #[test]
    fn what_passes_is_tried_again_and_broken_downloads_resume() {
        let scene = Scene::new();
        for act in [Act::Status(404), Act::Status(503), Act::Close, Act::Garbage, Act::Hang, Act::Status(403)]
        {
            scene.arrives(&[act, Act::Serve]);
        }
        let before = scene.server.seen().len();
        scene.arrives(&[Act::ResetAt(100_000), Act::HangAt(300_000), Act::Serve]);
        let asked: Vec<_> = scene.server.seen()[before..]
            .iter()
            .map(|request| request.headers.get("range").cloned())
            .collect();
        assert!(asked[0].is_none() && asked.len() == 3, "{asked:?}");
        assert!(asked[1..].iter().all(Option::is_some), "{asked:?}");
        scene.arrives(&[Act::ResetAt(100_000), Act::ServeWhole]);
        scene.arrives(&[Act::Other(b"something else".to_vec()), Act::Serve]);
    }

    #[test]
    fn each_trouble_says_what_to_do() {
        let scene = Scene::new();
        let url = scene.url();
        let mut other = scene.packed.clone();
        other[5000] ^= 1;
        for (act, expected) in [
            (
                Act::Status(404),
                "passing: fetching URL: not found: put the file there, or name its address by",
            ),
            (
                Act::Status(403),
                "passing: fetching URL: the server says 403: let it hand out the file without",
            ),
            (Act::Status(503), "passing: fetching URL: the server says 503"),
            (Act::Close, "passing: fetching URL: no connection: "),
            (Act::Hang, "passing: fetching URL: no byte within 1.2 seconds"),
            (Act::HangAt(1000), "passing: fetching URL: no byte within 1.2 seconds"),
            (Act::ResetAt(1000), "passing: fetching URL: the connection broke after 1000 bytes"),
            (Act::StatusWith(302, "Location: https://127.0.0.1:1/x".to_owned()), "passing: fetching URL: "),
            (Act::Other(b"short".to_vec()), "wrong: it cannot be unpacked: "),
            (Act::Other(other), "wrong: other bytes: expected SHA-256 "),
            (
                Act::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nshort".to_vec()),
                "wrong: the server has 5 bytes",
            ),
        ] {
            let expected = expected.replace("URL", &url.to_string());
            let said = scene.trouble(&[act]);
            assert!(said.starts_with(&expected), "{said}\n{expected}");
        }
        let mut facts = scene.facts.clone();
        facts.size -= 1;
        let said = Scene { facts, ..scene }.trouble(&[Act::Serve]);
        assert_eq!(said, "wrong: it cannot be unpacked: it has more than 3145727 bytes");
    }

    #[test]
    fn nothing_else_than_the_pinned_bytes_is_attached() {
        let scene = Scene::new();
        // A good image, and not the one.
        let mut other = scene.image.clone();
        other[5] ^= 1;
        let other = packed(&other);
        assert_eq!(other.len(), scene.packed.len());
        scene.serve(&[Act::Other(other)]);
        let mut download = scene.download();
        let failure = download.go_on(&scene.url(), "eth0").unwrap_err();
        let said = failure.lines().join("\n");
        assert!(said.ends_with("put both files of one build onto the server"), "{said}");
        assert_eq!(scene.server.seen().len(), WRONG);
        // A server that never answers gives the word back, for another card.
        scene.serve(&[Act::Status(500)]);
        assert_eq!(scene.download().go_on(&scene.url(), "eth0").unwrap(), None);
        assert_eq!(scene.server.seen().len(), WRONG + FIRST_TRIES);
    }

    #[test]
    fn the_address_comes_from_the_command_line_before_the_manifest() {
        let source = |url: Option<&str>| Source {
            name: "n_1.raw.zst".to_owned(),
            size: 1,
            digest: Digest::of(""),
            url: url.map(str::to_owned),
        };
        let of = |given, url| {
            let address = address(given, &source(url));
            address.map(|url| url.to_string()).map_err(|failure| failure.lines().join("; "))
        };
        let base = Some("http://a.example/k");
        assert_eq!(of(None, base).unwrap(), "http://a.example/k/n_1.raw.zst");
        assert_eq!(of(Some("http://b.example/"), base).unwrap(), "http://b.example/n_1.raw.zst");
        assert_eq!(of(Some("http://b.example/x.zst"), base).unwrap(), "http://b.example/x.zst");
        for (given, expected) in [
            (
                None,
                "looking for the disk image;   nothing says where it is; way out: give keller.image=http://SERVER/",
            ),
            (
                Some("https://b.example/"),
                "reading keller.image=;   https://b.example/n_1.raw.zst: https is not spoken",
            ),
            (
                Some("tftp://b.example/"),
                "reading keller.image=;   tftp://b.example/: expected http, https or file",
            ),
            (Some("/srv/"), "reading keller.image=;   file:///srv/n_1.raw.zst: file is not spoken here"),
        ] {
            let said = of(given, None).unwrap_err();
            assert!(said.starts_with(expected), "{said}");
        }
    }

    #[test]
    fn progress_is_said_now_and_then() {
        let begun = Instant::now();
        let mut progress = Progress { last: begun, position: 0 };
        assert_eq!(progress.said(10 << 20, 100 << 20, begun + Duration::from_secs(1)), None);
        let said = progress.said(50 << 20, 100 << 20, begun + Duration::from_secs(5)).unwrap();
        assert_eq!(said, "fetched 50 %, 50.0 MiB of 100.0 MiB, 10.0 MiB/s");
        assert_eq!(progress.said(60 << 20, 100 << 20, begun + Duration::from_secs(6)), None);
        assert_eq!(progress.said(100 << 20, 100 << 20, begun + Duration::from_secs(60)), None);
    }
}
