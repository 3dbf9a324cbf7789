use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::base::Digest;
use crate::base::progress::Silent;
use crate::repository::Layout;
use crate::update::document::Blob;

fn listing(id: &str, version: &str, channels: &[&str]) -> Listing {
    Listing {
        id: id.to_owned(),
        version: version.to_owned(),
        channels: channels.iter().map(|channel| (*channel).to_owned()).collect(),
        minimum: None,
        layout: Layout { esp: 1, root: 1, verity: 1 },
        document: Blob { sha256: Digest::of(version), size: 1 },
    }
}

fn published(wanted: Wanted, id: Option<&str>, own: Option<&str>) -> Published {
    Published {
        place: Place::of("https://me:s3cret@updates.example/node").unwrap(),
        root_json: Vec::new(),
        wanted,
        id: id.map(str::to_owned),
        own: own.map(|id| (id.to_owned(), "1.0.0".to_owned())),
        epoch: 0,
        proxy: None,
        authorities: Vec::new(),
    }
}

#[test]
fn one_version_must_be_meant() {
    let all = [
        listing("node", "1.10", &["beta"]),
        listing("node", "1.9", &["beta", "stable"]),
        listing("node", "1.8", &["stable"]),
        listing("other", "3", &["stable"]),
    ];
    let choose = |listings: &[Listing], wanted: Wanted, id, own| {
        let published = published(wanted, id, own);
        let chosen = published.choose(listings, &|_, version| version == "1.0");
        chosen.map_or_else(|refusal| refusal.to_string(), |one| format!("{} {}", one.id, one.version))
    };
    let newest = |channel: &str| Wanted::Newest(channel.to_owned());
    let version = |version: &str| Wanted::Version(version.to_owned());
    for (wanted, id, own, said) in [
        (newest("beta"), None, None, "node 1.10"),
        (newest("stable"), Some("node"), None, "node 1.9"),
        (newest("stable"), None, Some("other"), "other 3"),
        (newest("stable"), Some("node"), Some("other"), "node 1.9"),
        // What others can be meant does not depend on what runs here.
        (newest("beta"), None, Some("other"), "node 1.10"),
        (version("1.8"), None, None, "node 1.8"),
        (version("3"), None, None, "other 3"),
        (
            newest("stable"),
            None,
            None,
            "https://updates.example/node/ has several images: node, other. Name one of them by --id",
        ),
        (
            version("7"),
            None,
            Some("big"),
            "https://updates.example/node/ has several images: node, other. Name one of them by --id",
        ),
        (
            newest("x"),
            Some("node"),
            None,
            "no version of node is in channel x; there are versions in: beta, stable. Name one of them by --channel",
        ),
        (
            version("3"),
            Some("node"),
            None,
            "3 of node is not published; there is: 1.10, 1.9, 1.8. Name one of them by --version",
        ),
        (
            version("1.0"),
            Some("node"),
            None,
            "1.0 of node is no longer published; there is: 1.10, 1.9, 1.8. Name one of them by --version",
        ),
        (
            newest("stable"),
            Some("big"),
            None,
            "https://updates.example/node/ has no image big, it has: node, other. Name one of them by --id",
        ),
    ] {
        assert_eq!(choose(&all, wanted.clone(), id, own), said, "{wanted:?} {id:?} {own:?}");
    }
    let said = choose(&[], newest("stable"), None, None);
    assert!(said.ends_with("has no version of any image: `keller publish` adds one"), "{said}");
    let said = choose(&[listing("node", "1", &[])], newest("stable"), None, None);
    assert!(said.contains("there are versions in: none"), "{said}");
}

#[test]
fn a_root_lies_in_its_image() {
    let file = |bytes: &[u8]| {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        FileDevice::image(file, SectorSize::B512).unwrap()
    };
    let joined = Joined { around: file(b"0123456789"), root: Arc::new(file(b"abc")), at: 4 };
    for (offset, size) in [(0, 10), (0, 4), (3, 2), (4, 3), (5, 1), (6, 3), (7, 3), (10, 0)] {
        let mut bytes = vec![0; size];
        joined.read_at(&mut bytes, offset as u64).unwrap();
        assert_eq!(bytes, &b"0123abc789"[offset..offset + size], "{size} at {offset}");
    }
    assert!(joined.read_at(&mut [0; 2], 9).is_err());
    assert_eq!(joined.size(), 10);
}

/// Has nothing, and says so.
struct Empty;

impl Remote for Empty {
    fn open(
        &self,
        path: &str,
        _: Option<std::ops::Range<u64>>,
    ) -> Result<crate::update::remote::Part<'_>, RemoteError> {
        Err(RemoteError::Missing { path: path.to_owned() })
    }
}

#[test]
fn what_may_pass_is_tried_again() {
    let (empty, tries) = (Empty, AtomicUsize::new(0));
    let remote = Counted::new(&empty);
    let patience = Patience::Endless(&PAUSES);
    let tried = |passes: &dyn Fn(&anyhow::Error) -> bool| {
        tries.store(0, Ordering::Relaxed);
        insist(patience, &remote, &Silent, passes, || match tries.fetch_add(1, Ordering::Relaxed) {
            0 => Err(anyhow::Error::from(RepositoryError::NotFound { path: "x".into() }).context("looking")),
            _ => Ok(()),
        })
    };
    assert!(tried(&may_pass).is_ok() && tries.load(Ordering::Relaxed) == 2);
    assert!(tried(&|_| false).is_err() && tries.load(Ordering::Relaxed) == 1);
    assert!(!may_pass(&RepositoryError::Busy.into()) && !may_pass(&Refusal::NoRootKey.into()));
    let seconds: Vec<_> = pauses(patience).take(7).map(|pause| pause.as_secs()).collect();
    assert_eq!(seconds, [1, 2, 5, 10, 20, 60, 60]);
    assert_eq!(pauses(Patience::Short).count(), TRIES);
}
