//! A repository on a web server.

use std::ops::Range;

use crate::http::url::Url;
use crate::http::{Client, Settings, SetupError};
use crate::update::remote::{Part, Remote, RemoteError};

/// Static files below an address.
pub struct Web {
    client: Client,
    base: Url,
}

impl Web {
    /// Those below `base`, asked for as `settings` say.
    ///
    /// # Errors
    /// Settings that cannot be, such as certificates that cannot be read.
    pub fn new(base: Url, settings: Settings) -> Result<Self, SetupError> {
        Ok(Self { client: Client::new(settings)?, base })
    }
}

impl Remote for Web {
    fn open(&self, path: &str, range: Option<Range<u64>>) -> Result<Part<'_>, RemoteError> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| RemoteError::Failed {
            path: path.to_owned(),
            source,
        };
        let url = self.base.join(path).map_err(|error| failed(error.into()))?;
        match self.client.stream(&url, range) {
            Ok(stream) => Ok(Part { start: stream.start(), body: Box::new(stream) }),
            // Object stores that nobody may list say 403 of the next root, which most often does not exist.
            Err(error) if error.is_missing() => Err(RemoteError::Missing { path: path.to_owned() }),
            Err(error) => Err(failed(error.into())),
        }
    }
}
