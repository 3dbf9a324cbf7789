//! The way to the repository that a node has its updates from.

use super::settings::Source;
use crate::base::failure::{Doing, Failure};
use crate::http::url::Url;
use crate::http::{Proxies, Settings, apt};
use crate::repository::Web;
use crate::update::Remote;

/// The repository of `source`, asked for with its proxy and authorities, else with those of the host.
pub fn connect(source: &Source) -> Result<Box<dyn Remote>, Failure> {
    let doing = || format!("connecting to {}", source.url);
    let base =
        Url::root(&source.url).doing("reading its address").map_err(|failure| failure.within(&doing()))?;
    let mut settings = Settings::of_host();
    if let Some(proxy) = &source.proxy {
        let own = |name: &str| match name {
            "http_proxy" | "https_proxy" => Some(proxy.clone()),
            name => std::env::var(name).ok(),
        };
        settings.proxies = Proxies::new(own, apt::Config::default());
    }
    settings.authorities.extend(source.authorities.iter().cloned());
    Ok(Box::new(Web::new(base, settings).doing(doing())?))
}
