//! A repository on a web server.

use std::ops::Range;
use std::path::PathBuf;

use crate::base::failure::{Doing, Failure};
use crate::http::url::Url;
use crate::http::{Client, Proxies, Settings, SetupError, apt};
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

    /// Those below `base`, asked for with this proxy and these authorities, else with those of the host.
    ///
    /// # Errors
    /// As those of [`Self::new`].
    pub fn connect(base: Url, proxy: Option<&str>, authorities: &[PathBuf]) -> Result<Self, Failure> {
        let mut settings = Settings::of_host();
        if let Some(proxy) = proxy {
            let own = |name: &str| match name {
                "http_proxy" | "https_proxy" => Some(proxy.to_owned()),
                name => std::env::var(name).ok(),
            };
            settings.proxies = Proxies::new(own, apt::Config::default());
        }
        settings.authorities.extend(authorities.iter().cloned());
        let doing = format!("connecting to {base}");
        Self::new(base, settings).doing(doing)
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
