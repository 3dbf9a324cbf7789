//! Telling a server something: a small text by POST.

use reqwest::header;

use super::error::Cause;
use super::{Client, HttpError};
use crate::http::url::Url;

impl Client {
    /// Hands `json` to the server at `url`, which must say 2xx. Redirections are refused: a POST would become a GET.
    ///
    /// # Errors
    /// What the last try met with.
    pub fn post(&self, url: &Url, json: &str) -> Result<(), HttpError> {
        self.trying(url, |_| self.hand(url, json))
    }

    fn hand(&self, url: &Url, json: &str) -> Result<(), Cause> {
        self.can_ask(url)?;
        let mut request = self.inner.post(url.bare()).header(header::CONTENT_TYPE, "application/json");
        if let Some((user, password)) = self.settings.credentials.find(url) {
            request = request.basic_auth(user, password);
        }
        let sent = request.body(json.to_owned()).send();
        let response = sent.map_err(|error| Cause::of_sending(error, self.settings.idle))?;
        match response.status().is_success() {
            true => Ok(()),
            false => Err(self.denied(&response)),
        }
    }
}
