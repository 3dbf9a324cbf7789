//! A file, or a stretch of one, read as it comes: for what is too large for memory and is not for the store.

use std::io::{self, Read};
use std::ops::Range;
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use reqwest::blocking::Response;

use super::error::Cause;
use super::{CHUNK, Client, HttpError, Resume, Try, content_range};
use crate::base::width::{to_u64, to_usize};
use crate::http::url::Url;

/// The bytes of an answer. Where a connection breaks, it goes on with another, as long as the server can do
/// that and the tries last.
pub struct Stream<'a> {
    client: &'a Client,
    url: Url,
    response: Response,
    start: u64,
    total: Option<u64>,
    /// Offset in the file of the next byte.
    position: u64,
    /// Offset of the first byte that is not wanted; none when the whole is on its way.
    end: Option<u64>,
    /// Pauses of which each is for one more try; what comes in between gives none back.
    pauses: std::vec::IntoIter<Duration>,
    tries: u32,
    /// For the server, since bytes were last counted from 0. What the reader does in between is no fault of it.
    waited: Duration,
    counted: u64,
}

impl Client {
    /// Opens a file at http or https from its beginning, or the part of it that is asked for. A server that knows
    /// no ranges gives the whole: see [`Stream::start`].
    pub fn stream(&self, url: &Url, range: Option<Range<u64>>) -> Result<Stream<'_>, HttpError> {
        let wanted =
            |range: &Range<u64>| Resume { from: range.start, until: Some(range.end), validator: None };
        let (response, start) =
            self.trying(url, |this_try| self.begin(url, this_try, range.as_ref().map(wanted)))?;
        let is_part = is_part(&response);
        let total = match is_part {
            true => content_range(response.headers()).and_then(|(_, total)| total),
            false => response.content_length(),
        };
        Ok(Stream {
            total,
            client: self,
            url: url.clone(),
            response,
            start,
            position: start,
            end: range.map(|range| range.end).filter(|_| is_part),
            pauses: self.settings.pauses.clone().into_iter(),
            tries: 1,
            waited: Duration::ZERO,
            counted: 0,
        })
    }

    /// The answer, and the offset of its first byte.
    fn begin(&self, url: &Url, this_try: Try, wanted: Option<Resume>) -> Result<(Response, u64), Cause> {
        let response = self.open(url, this_try, wanted.as_ref())?;
        if !is_part(&response) {
            return Ok((response, 0));
        }
        match (content_range(response.headers()), wanted) {
            (Some((start, _)), Some(wanted)) if start == wanted.from => Ok((response, start)),
            _ => Err(Cause::Garbage { reason: "the server has sent another range".to_owned() }),
        }
    }
}

fn is_part(response: &Response) -> bool {
    response.status() == StatusCode::PARTIAL_CONTENT
}

impl Stream<'_> {
    /// Bytes of the whole file, where the server says so.
    pub fn total(&self) -> Option<u64> {
        self.total
    }

    /// Offset in the file of the first byte: 0 where the server gives the whole.
    pub fn start(&self) -> u64 {
        self.start
    }

    fn step(&mut self, buffer: &mut [u8]) -> Result<usize, Cause> {
        // A server may send more than it was asked for.
        let left = self.end.map_or(u64::MAX, |end| end.saturating_sub(self.position));
        let wanted = to_usize(to_u64(buffer.len()).min(left));
        let buffer = &mut buffer[..wanted];
        if buffer.is_empty() {
            return Ok(0);
        }
        let (window, begun) = (self.client.settings.idle, Instant::now());
        let count = loop {
            match self.response.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Client::broken(error, self.position - self.start, window)),
                Ok(count) => break count,
            }
        };
        if count == 0 && self.end.is_some_and(|end| self.position < end) {
            return Err(Cause::Cut { received: self.position - self.start, reason: None });
        }
        self.position += to_u64(count);
        self.counted += to_u64(count);
        self.waited += begun.elapsed();
        if self.waited >= window {
            let bytes_per_second = self.client.settings.minimum_rate;
            if (self.counted as f64) < bytes_per_second as f64 * self.waited.as_secs_f64() {
                return Err(Cause::Slow { bytes_per_second });
            }
            (self.waited, self.counted) = (Duration::ZERO, 0);
        }
        Ok(count)
    }

    /// Another connection that goes on where this one broke.
    fn again(&mut self, cause: Cause) -> Result<(), Cause> {
        let Some(pause) = self.pauses.next().filter(|_| cause.is_passing()) else { return Err(cause) };
        std::thread::sleep(pause);
        self.tries += 1;
        let rest = Resume { from: self.position, until: self.end, validator: None };
        let (response, start) = self.client.begin(&self.url, Try { fresh: false }, Some(rest))?;
        (self.response, self.waited, self.counted) = (response, Duration::ZERO, 0);
        // The whole, from a server that knows no ranges: what has come already is passed over.
        let mut before = self.position - start;
        let mut buffer = vec![0; CHUNK];
        self.position = start;
        while before > 0 {
            let piece = to_usize(to_u64(buffer.len()).min(before));
            match self.step(&mut buffer[..piece])? {
                0 => return Err(Cause::Cut { received: self.position, reason: None }),
                count => before -= to_u64(count),
            }
        }
        Ok(())
    }
}

impl Read for Stream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let cause = match self.step(buffer) {
                Ok(count) => return Ok(count),
                Err(cause) => cause,
            };
            if let Err(cause) = self.again(cause) {
                let proxy = self.client.settings.proxies.shown(&self.url).map(String::into_boxed_str);
                let error =
                    HttpError { url: self.url.clone(), proxy, tries: self.tries, cause: Box::new(cause) };
                return Err(io::Error::other(error));
            }
        }
    }
}
