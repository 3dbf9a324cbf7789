//! Getting files over http, https or from a folder: with time limits, tries, resumption, proxies, private
//! CAs and credentials as users of apt and curl know them.

pub mod apt;
mod authorities;
mod credentials;
mod error;
mod mutual;
mod names;
mod post;
mod proxy;
mod stream;
pub mod url;

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use reqwest::blocking::Response;
use reqwest::header::{self, HeaderMap};

use crate::base::width::to_u64;
use crate::base::{Digest, Task, input, limits};

use crate::http::url::Url;
use crate::store::{Incoming, Store, StoreError};

pub use credentials::Credentials;
pub use error::{Cause, HttpError};
pub use mutual::get as get_as;
pub use proxy::Proxies;
/// Why a client cannot be set up.
pub use reqwest::Error as SetupError;
pub use stream::Stream;

/// Bytes read at once.
const CHUNK: usize = 64 << 10;

/// As many as browsers follow.
const MAX_REDIRECTS: usize = 20;

/// The longest that a server's Retry-After is obeyed.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(30);

/// How a [`Client`] behaves.
#[derive(Clone)]
pub struct Settings {
    /// Limit for looking up a name, connecting and the TLS handshake.
    pub connect: Duration,
    /// Limit for silence: until an answer begins, and between two pieces of it.
    pub idle: Duration,
    /// The least bytes a second that an answer must make, over each `idle` period.
    pub minimum_rate: u64,
    /// Pauses between tries: there is one try more than there are pauses.
    pub pauses: Vec<Duration>,
    /// Proxies.
    pub proxies: Proxies,
    /// Users and passwords.
    pub credentials: Credentials,
    /// PEM files with CA certificates, besides the system's store or what SSL_CERT_FILE and SSL_CERT_DIR
    /// put in its place.
    pub authorities: Vec<PathBuf>,
}

impl Default for Settings {
    /// Neither proxy nor credentials nor private CA.
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            idle: Duration::from_secs(20),
            minimum_rate: 256,
            pauses: [500, 1000, 2000].map(Duration::from_millis).to_vec(),
            proxies: Proxies::default(),
            credentials: Credentials::default(),
            authorities: Vec::new(),
        }
    }
}

impl Settings {
    /// What the environment and apt's settings on this machine ask for.
    pub fn of_host() -> Self {
        let folder = Path::new(apt::FOLDER);
        let config = apt::Config::read(folder);
        let path = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let ca_info = config.get("Acquire::https::CAInfo").map(PathBuf::from);
        Self {
            credentials: Credentials::read(path, folder),
            authorities: path("CURL_CA_BUNDLE").into_iter().chain(ca_info).collect(),
            proxies: Proxies::new(|name| std::env::var(name).ok(), config),
            ..Self::default()
        }
    }
}

/// Fetches files; threads share one by reference.
pub struct Client {
    inner: reqwest::blocking::Client,
    settings: Settings,
    /// Why https cannot be spoken, if so.
    no_trust: Option<String>,
}

/// What a try starts from.
#[derive(Clone, Copy)]
struct Try {
    /// Caches in between shall be passed by.
    fresh: bool,
}

/// A part of a file that is here already.
struct Resume {
    from: u64,
    /// Where what is wanted ends, if not with the file.
    until: Option<u64>,
    /// ETag or Last-Modified of the file that it is a part of.
    validator: Option<header::HeaderValue>,
}

impl Client {
    /// Sets up a client. That no CA certificate is found is an error only when https is spoken.
    ///
    /// # Errors
    /// What the HTTP library finds wrong, which no setting here is known to cause.
    pub fn new(settings: Settings) -> Result<Self, SetupError> {
        let proxies = settings.proxies.clone();
        let builder = || {
            let proxies = proxies.clone();
            reqwest::blocking::Client::builder()
                .user_agent(concat!("keller/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(settings.connect)
                .timeout(settings.idle)
                .redirect(reqwest::redirect::Policy::none())
                .referer(false)
                .no_proxy()
                .proxy(reqwest::Proxy::custom(move |url| {
                    proxies.choose(url.scheme(), url.host_str()?, url.port_or_known_default())
                }))
                .dns_resolver(Arc::new(names::Names::default()))
        };
        let judged = authorities::judge(|name| std::env::var_os(name));
        let trusting =
            judged.and_then(|()| authorities::read(&settings.authorities)).and_then(|certificates| {
                // The chain tells what is wrong; its head only says that building failed.
                builder().tls_certs_merge(certificates).build().map_err(|error| error::reason(&error))
            });
        let (inner, no_trust) = match trusting {
            Ok(client) => (client, None),
            Err(reason) => (builder().tls_certs_only([]).build()?, Some(reason)),
        };
        Ok(Self { inner, settings, no_trust })
    }

    /// The content of a small file, at most `max` bytes of it.
    pub fn get_small(&self, url: &Url, max: u64) -> Result<Vec<u8>, HttpError> {
        self.trying(url, |this_try| {
            let mut bytes = Vec::new();
            let mut take = |piece: &[u8]| {
                bytes.extend_from_slice(piece);
                match to_u64(bytes.len()) > max {
                    true => Err(Cause::TooLarge { limit: max, announced: None }),
                    false => Ok(()),
                }
            };
            if let Some(file) = local(url)? {
                read(file, &mut take)?;
            } else {
                let response = self.open(url, this_try, None)?;
                match response.content_length() {
                    Some(length) if length > max => {
                        return Err(Cause::TooLarge { limit: max, announced: Some(length) });
                    }
                    _ => self.body(response, &mut take)?,
                }
            }
            Ok(bytes)
        })
    }

    /// Brings a file into the store, unless it is there, if it is what it should be.
    pub fn download(
        &self,
        url: &Url,
        expected: &Digest,
        size: Option<u64>,
        store: &Store,
        task: &Task<'_>,
    ) -> Result<(), HttpError> {
        if store.has(expected) {
            return Ok(());
        }
        self.transfer(url, Some(*expected), size, limits::DOWNLOAD, store, task).map(drop)
    }

    /// Brings a file of at most `limit` bytes into the store, whatever it is; gives digest and size.
    pub fn receive(
        &self,
        url: &Url,
        limit: u64,
        store: &Store,
        task: &Task<'_>,
    ) -> Result<(Digest, u64), HttpError> {
        self.transfer(url, None, None, limit, store, task)
    }

    fn transfer(
        &self,
        url: &Url,
        expected: Option<Digest>,
        size: Option<u64>,
        limit: u64,
        store: &Store,
        task: &Task<'_>,
    ) -> Result<(Digest, u64), HttpError> {
        let mut unfinished: Option<Incoming<'_>> = None;
        let mut validator = None;
        // Bytes that come a second time are no progress.
        let reported = Cell::new(0);
        let report = |len: u64| {
            if len > reported.get() {
                task.advance(len - reported.get());
                reported.set(len);
            }
        };
        self.trying(url, |this_try| {
            let mut incoming = match unfinished.take() {
                Some(incoming) => incoming,
                None => store.incoming(expected, size)?.at_most(limit),
            };
            if let Some(file) = local(url)? {
                read(file, &mut |piece| {
                    incoming.write(piece)?;
                    report(incoming.len());
                    Ok(())
                })?;
            } else if let Err(cause) =
                self.fill(url, this_try, &mut incoming, (expected, size), &mut validator, &report)
            {
                unfinished = Some(incoming);
                return Err(cause);
            }
            let length = incoming.len();
            Ok((incoming.finish()?, length))
        })
    }

    /// Goes on with `incoming` where it stands, or from its start if the server cannot do that.
    fn fill(
        &self,
        url: &Url,
        this_try: Try,
        incoming: &mut Incoming<'_>,
        (expected, size): (Option<Digest>, Option<u64>),
        validator: &mut Option<header::HeaderValue>,
        report: &dyn Fn(u64),
    ) -> Result<(), Cause> {
        let have = incoming.len();
        if have > 0 && Some(have) == size && !this_try.fresh {
            return Ok(());
        }
        // Without a digest, only a validator tells that both halves are of one file.
        let can_resume = have > 0 && !this_try.fresh && (expected.is_some() || validator.is_some());
        let resume = can_resume.then(|| Resume { from: have, until: None, validator: validator.clone() });
        let response = self.open(url, this_try, resume.as_ref())?;
        let headers = response.headers();
        let announced = if response.status() == StatusCode::PARTIAL_CONTENT {
            let (from, total) = content_range(headers).unwrap_or((u64::MAX, None));
            if from != have {
                incoming.restart()?;
                return Err(Cause::Cut { received: have, reason: None });
            }
            total
        } else {
            incoming.restart()?;
            *validator = [header::ETAG, header::LAST_MODIFIED]
                .iter()
                .filter_map(|name| headers.get(name))
                .find(|value| !value.as_bytes().starts_with(b"W/"))
                .cloned();
            response.content_length()
        };
        match (size, announced) {
            (Some(expected), Some(actual)) if expected != actual => {
                incoming.restart()?;
                return Err(StoreError::WrongSize { expected, actual }.into());
            }
            (None, Some(actual)) if actual > incoming.room() + incoming.len() => {
                let limit = incoming.room() + incoming.len();
                return Err(Cause::TooLarge { limit, announced });
            }
            _ => {}
        }
        self.body(response, &mut |piece| {
            if let Err(error) = incoming.write(piece) {
                incoming.restart()?;
                return Err(error.into());
            }
            report(incoming.len());
            Ok(())
        })
    }

    /// Repeats what fails in passing, with growing pauses. Bytes that are complete but wrong get one more
    /// try, past all caches.
    fn trying<T>(&self, url: &Url, mut attempt: impl FnMut(Try) -> Result<T, Cause>) -> Result<T, HttpError> {
        let mut this_try = Try { fresh: false };
        let mut pauses = self.settings.pauses.iter();
        let mut tries = 0;
        loop {
            tries += 1;
            let cause = match attempt(this_try) {
                Ok(value) => return Ok(value),
                Err(cause) => cause,
            };
            let is_wrong = matches!(cause, Cause::Store(_));
            let pause = pauses.next();
            match pause {
                Some(pause)
                    if cause.is_passing() && !(is_wrong && this_try.fresh) && url.host().is_some() =>
                {
                    this_try.fresh |= is_wrong;
                    let wanted = match &cause {
                        Cause::Server { retry_after: Some(after), .. } => (*after).min(MAX_RETRY_AFTER),
                        _ => Duration::ZERO,
                    };
                    thread::sleep(wanted.max(*pause));
                }
                _ => {
                    let proxy = self.settings.proxies.shown(url).map(String::into_boxed_str);
                    return Err(HttpError { url: url.clone(), proxy, tries, cause: Box::new(cause) });
                }
            }
        }
    }

    /// Sends the request, follows redirections, and gives the answer if it is one with the content.
    fn open(&self, url: &Url, this_try: Try, resume: Option<&Resume>) -> Result<Response, Cause> {
        let (mut url, begun) = (url.clone(), Instant::now());
        for _ in 0..=MAX_REDIRECTS {
            self.can_ask(&url)?;
            let mut request = self.inner.get(url.bare()).header(header::ACCEPT_ENCODING, "identity");
            if let Some((user, password)) = self.settings.credentials.find(&url) {
                request = request.basic_auth(user, password);
            }
            if this_try.fresh {
                request = request.header(header::CACHE_CONTROL, "no-cache");
            }
            if let Some(resume) = resume {
                // The last byte is within the range: RFC 9110, section 14.1.2.
                let last = resume.until.map(|until| (until - 1).to_string()).unwrap_or_default();
                request = request.header(header::RANGE, format!("bytes={}-{last}", resume.from));
                if let Some(validator) = &resume.validator {
                    request = request.header(header::IF_RANGE, validator);
                }
            }
            let response = request.send().map_err(|error| Cause::of_sending(error, self.settings.idle))?;
            let status = response.status();
            match status.as_u16() {
                200 => return Ok(response),
                206 if resume.is_some() => return Ok(response),
                301 | 302 | 303 | 307 | 308 => {
                    let location = response.headers().get(header::LOCATION);
                    let location = location.and_then(|value| value.to_str().ok());
                    let target = url
                        .redirected(location.ok_or(Cause::Redirects(1))?)
                        .map_err(Cause::RedirectTarget)?;
                    if target.scheme() == "file" || (url.scheme() == "https" && target.scheme() != "https") {
                        return Err(Cause::Downgrade { to: target });
                    }
                    url = target;
                    if begun.elapsed() >= self.settings.idle {
                        return Err(Cause::NoEnd { within: self.settings.idle });
                    }
                }
                // What is here, or was announced, is no part of what the server has.
                416 => return Err(Cause::Shorter { than: resume.map_or(0, |resume| resume.from) }),
                _ => return Err(self.denied(&response)),
            }
        }
        Err(Cause::Redirects(MAX_REDIRECTS + 1))
    }

    /// Refuses https without trusted authorities, and a proxy that cannot be used.
    fn can_ask(&self, url: &Url) -> Result<(), Cause> {
        if url.scheme() == "https"
            && let Some(reason) = &self.no_trust
        {
            return Err(Cause::NoTrust { reason: reason.clone() });
        }
        match self.settings.proxies.unusable(url) {
            Some(proxy) => Err(Cause::BadProxy { proxy }),
            None => Ok(()),
        }
    }

    /// Why a server does not do what it was asked for.
    fn denied(&self, response: &Response) -> Cause {
        match response.status().as_u16() {
            404 | 410 => Cause::NotFound,
            status @ (401 | 403 | 407) => {
                Cause::Unauthorized { status, unread: self.settings.credentials.unread().to_owned() }
            }
            status if status >= 500 || matches!(status, 408 | 429) => {
                let after = response.headers().get(header::RETRY_AFTER);
                let seconds = after.and_then(|value| value.to_str().ok()?.parse().ok());
                Cause::Server { status, retry_after: seconds.map(Duration::from_secs) }
            }
            status => Cause::Refused { status },
        }
    }

    /// Reads the content of an answer, as long as it does not stop or trickle.
    fn body(
        &self,
        mut response: Response,
        take: &mut dyn FnMut(&[u8]) -> Result<(), Cause>,
    ) -> Result<(), Cause> {
        let mut buffer = vec![0; CHUNK];
        let (mut received, mut since, mut counted) = (0, Instant::now(), 0);
        let window = self.settings.idle;
        loop {
            let count = match response.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Self::broken(error, received, window)),
            };
            received += to_u64(count);
            counted += to_u64(count);
            take(&buffer[..count])?;
            if since.elapsed() >= window {
                let bytes_per_second = self.settings.minimum_rate;
                if (counted as f64) < bytes_per_second as f64 * since.elapsed().as_secs_f64() {
                    return Err(Cause::Slow { bytes_per_second });
                }
                (since, counted) = (Instant::now(), 0);
            }
        }
    }

    fn broken(error: io::Error, received: u64, idle: Duration) -> Cause {
        let timed_out = |inner: &reqwest::Error| inner.is_timeout();
        match error.get_ref().and_then(|inner| inner.downcast_ref()).is_some_and(timed_out) {
            true => Cause::Silent(idle),
            false => Cause::Cut { received, reason: Some(error::reason(&error)) },
        }
    }
}

/// Opens the file that a file address names; none for other addresses.
fn local(url: &Url) -> Result<Option<File>, Cause> {
    let Some(path) = url.file_path() else { return Ok(None) };
    match input::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Cause::NotFound),
        Err(error) => Err(Cause::File(error)),
    }
}

fn read(mut file: File, take: &mut dyn FnMut(&[u8]) -> Result<(), Cause>) -> Result<(), Cause> {
    let mut buffer = vec![0; CHUNK];
    loop {
        match file.read(&mut buffer).map_err(Cause::File)? {
            0 => return Ok(()),
            count => take(&buffer[..count])?,
        }
    }
}

/// Start and, if known, total of `Content-Range: bytes START-END/TOTAL`.
fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let value = headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
    let (range, total) = value.strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split_once('-')?.0.trim().parse().ok()?, total.trim().parse().ok()))
}
