//! The way to the repository that a node has its updates from.

use super::settings::Source;
use crate::base::failure::{Doing, Failure};
use crate::http::url::Url;
use crate::repository::Web;
use crate::update::Remote;

/// The repository of `source`, asked for with its proxy and authorities, else with those of the host.
pub fn connect(source: &Source) -> Result<Box<dyn Remote>, Failure> {
    let doing = || format!("connecting to {}", source.url);
    let base =
        Url::root(&source.url).doing("reading its address").map_err(|failure| failure.within(&doing()))?;
    Ok(Box::new(Web::connect(base, source.proxy.as_deref(), &source.authorities)?))
}
