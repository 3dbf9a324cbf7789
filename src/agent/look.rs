//! A look at the repository: which version this node goes to.

use std::fs;

use super::choice::{self, Node, Offer, Wanted};
use super::clock;
use super::record::{Record, Step};
use super::updater::{Updater, metadata};
use crate::base::failure::{Doing, Failure};
use crate::repository::{Client, Listing, Trusted};
use crate::update::{Counted, Document};

/// What a look has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The version to go to, if there is one.
    pub document: Option<Document>,
    /// The newest of the channel that did not fall back, whether this node can go there in one step or not.
    pub newest: Option<String>,
    /// Newer versions that fell back on this node, newest first, each with the reason.
    pub passed_over: Vec<(String, String)>,
}

/// The rule of choosing: of what is published, the version that `node` goes to.
pub fn find(
    trusted: &Trusted<'_>,
    node: Node<'_>,
    record: &Record,
    wanted: &Wanted,
) -> Result<Found, Failure> {
    let listings = trusted.releases();
    let offer = |listing: &Listing| Offer {
        id: listing.id.clone(),
        version: listing.version.clone(),
        channels: listing.channels.clone(),
    };
    let offers: Vec<Offer> = listings.iter().map(offer).collect();
    let by_itself = choice::choose(node, record, &Wanted::default(), &offers).unwrap_or_default();
    let newest = by_itself.first().map(|offer| offer.version.clone());
    let passed_over = choice::passed_over(node, record, &offers);
    let mut too_far = None;
    let chosen = choice::choose(node, record, wanted, &offers)
        .map_err(|error| error.knowing(|id, version| trusted.was_published(id, version)));
    for offer in chosen.doing("choosing a version")? {
        let listing = listings
            .iter()
            .find(|listing| listing.id == offer.id && listing.version == offer.version)
            .expect("offers are made of listings");
        if let Some(minimum) = listing.minimum.as_ref().filter(|_| !listing.is_reachable_from(node.version)) {
            too_far = Some((listing.version.clone(), minimum.clone()));
            continue;
        }
        let document =
            trusted.document(listing).doing(format!("reading the release of {}", offer.version))?;
        return Ok(Found { document: Some(document), newest, passed_over });
    }
    let Some((version, minimum)) = too_far else { return Ok(Found { document: None, newest, passed_over }) };
    let cause = format!(
        "it takes {minimum} or newer to go to it, this is {}, and there is no step in between",
        node.version
    );
    let help = "ask the publisher for a newer version with a --minimum that this node meets, or write a newer image to the disk";
    Err(Failure::new(format!("going to {version}"), cause).help(help))
}

impl Updater<'_> {
    /// Looks at the repository; gives the version to go to, if there is one.
    pub fn check(&mut self, remote: &Counted<'_>, wanted: &Wanted) -> Result<Found, Failure> {
        let found = self.look(remote, wanted);
        self.noted(Step::Looking, found)
    }

    fn look(&mut self, remote: &Counted<'_>, wanted: &Wanted) -> Result<Found, Failure> {
        let source = self.source()?;
        let now = clock::believed(clock::shown(), self.settings.epoch)?;
        let folder = metadata();
        fs::create_dir_all(&folder).doing(format!("making {}", folder.display()))?;
        let doing = || format!("looking for updates at {}", source.url);
        let trusted = Client::update(&source.root_json, remote, &folder, now).doing(doing())?;
        let node = Node { id: &self.settings.id, version: &self.settings.version, channel: &source.channel };
        let found = find(&trusted, node, &self.record, wanted)?;
        self.record.newest.clone_from(&found.newest);
        self.record.note_look(now, found.document.is_some());
        self.record.save()?;
        Ok(found)
    }
}
