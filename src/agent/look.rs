//! A look at the repository: which version this node goes to.

use std::fs;

use super::choice::{self, Node, Offer, Wanted};
use super::clock;
use super::record::Step;
use super::updater::{Updater, metadata};
use super::wire::Counted;
use crate::base::failure::{Doing, Failure};
use crate::base::version;
use crate::repository::Client;
use crate::update::Document;

impl Updater<'_> {
    /// Looks at the repository; gives the version to go to, if there is one.
    pub fn check(&mut self, remote: &Counted<'_>, wanted: &Wanted) -> Result<Option<Document>, Failure> {
        let found = self.look(remote, wanted);
        self.noted(Step::Looking, found)
    }

    fn look(&mut self, remote: &Counted<'_>, wanted: &Wanted) -> Result<Option<Document>, Failure> {
        let source = self.source()?;
        let now = clock::believed(clock::shown(), self.settings.epoch)?;
        let folder = metadata();
        fs::create_dir_all(&folder).doing(format!("making {}", folder.display()))?;
        let doing = || format!("looking for updates at {}", source.url);
        let trusted = Client::update(&source.root_json, remote, &folder, now).doing(doing())?;
        let listings = trusted.releases();
        let offers: Vec<Offer> = listings
            .iter()
            .map(|listing| Offer {
                id: listing.id.clone(),
                version: listing.version.clone(),
                channels: listing.channels.clone(),
            })
            .collect();
        let node = Node { id: &self.settings.id, version: &self.settings.version, channel: &source.channel };
        let chosen = choice::choose(node, &self.record, wanted, &offers).doing("choosing a version")?;
        let newest = chosen.first().map(|offer| offer.version.clone());
        let mut too_far = None;
        let mut found = None;
        for offer in chosen {
            let listing = listings
                .iter()
                .find(|listing| listing.id == offer.id && listing.version == offer.version)
                .expect("offers are made of listings");
            let document =
                trusted.document(listing).doing(format!("reading the release of {}", offer.version))?;
            match &document.minimum {
                Some(minimum) if version::compare(&self.settings.version, minimum).is_lt() => {
                    too_far = Some((document.version.clone(), minimum.clone()));
                }
                _ => {
                    found = Some(document);
                    break;
                }
            }
        }
        if let (None, Some((version, minimum))) = (&found, too_far) {
            let cause = format!(
                "it takes {minimum} or newer to go to it, this is {}, and there is no step in between",
                self.settings.version
            );
            return Err(Failure::new(format!("going to {version}"), cause));
        }
        self.record.newest = newest;
        self.record.note_look(now, found.is_some());
        self.record.save()?;
        Ok(found)
    }
}
