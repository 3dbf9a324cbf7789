//! Members that have no vote, that are about to start over, and that are alone.

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use keller::agent::etcd::health;
use keller::agent::etcd::restart::ready;
use keller::agent::etcd::restore;
use keller::base::Chain;
use keller::base::progress::Silent;
use keller::cluster::{Access, View, change};
use keller::pki::{LIFETIME_SECONDS, etcd};

use super::{Rack, promoted};

/// etcd's own word is the same for a learner as for a member with a vote.
#[test]
fn a_learner_is_not_healthy_before_it_has_its_vote() {
    let rack = Rack::new();
    let Some(mut running) = rack.begin(&["a"]) else { return };
    let is_healthy =
        |name: &str| health(&rack.pki(name), SocketAddr::from((rack.hosts[name], etcd::CLIENT_PORT)));
    assert_eq!(is_healthy("a"), Ok(()));
    let access = rack.access("a", &["a", "b"]);
    change::add(&access, "b", None).unwrap();
    running.insert("b".to_owned(), rack.start("b", &["a", "b"], "existing").unwrap());
    let learner = "this member is a learner, and has no vote before it has caught up";
    rack.until("b says that it has no vote", || is_healthy("b") == Err(learner.to_owned()));
    let waits =
        ready(&rack.access("b", &["a", "b"]), &rack.folder.path().join("snapshots"), rack.now, &Silent);
    let waits = Chain(&waits.unwrap_err()).to_string();
    assert!(waits.ends_with("b has not caught up with its cluster yet, and has no vote"), "{waits}");
    promoted(&rack, &access, "b");
    rack.until("b is healthy", || is_healthy("b") == Ok(()));
    // Without a majority nobody is.
    drop(running.remove("a"));
    rack.until("b is not healthy", || is_healthy("b").is_err());
}

#[test]
fn a_member_that_starts_over_leads_no_more_and_leaves_a_snapshot() {
    let rack = Rack::new();
    let abc = ["a", "b", "c"];
    let Some(mut running) = rack.begin(&abc) else { return };
    rack.etcdctl("a", &["put", "key", "value"]);
    let directory = rack.folder.path().join("snapshots");
    let leader = || View::of(&rack.access("a", &abc)).leading().map(|leader| leader.name.clone());
    let led = leader().unwrap();
    let access = rack.access(&led, &abc);
    let readied = ready(&access, &directory, rack.now, &Silent).unwrap();
    let heir = readied.heir.expect("it has led");
    assert_ne!(heir, led);
    rack.until("another one leads", || leader().as_ref() == Some(&heir));
    let snapshot = readied.snapshot.unwrap();
    assert_eq!(restore::judge(&snapshot, &access).unwrap().keys, 1);
    // The next ones come from a member that does not lead.
    for second in 1..4 {
        let again = ready(&access, &directory, rack.now + second, &Silent).unwrap();
        assert!(again.heir.is_none() && again.snapshot.is_some(), "{again:?}");
    }
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 3);
    assert!(!snapshot.exists());

    // With one that is off, no other one may go, and nothing is done.
    drop(running.remove(&led));
    let access = rack.access(&heir, &abc);
    rack.until("one is missed", || View::of(&access).votes() == (3, 2, 2));
    let refused = ready(&access, &directory, rack.now + 9, &Silent).unwrap_err();
    let says = format!("without {heir} the cluster would stop. First bring back {led}");
    assert!(Chain(&refused).to_string().ends_with(&says), "{}", Chain(&refused));
    assert!(refused.lines().join("\n").contains("systemctl reboot"), "{:?}", refused.lines());
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 3);
    // Whoever does not work costs nothing.
    let access = rack.access(&led, &abc);
    assert_eq!(ready(&access, &directory, rack.now + 9, &Silent).unwrap().snapshot, None);
}

/// Without a majority a question to the log is answered after long, and whoever restores a backup asks none.
#[test]
fn whoever_is_alone_knows_it_soon() {
    let rack = Rack::new();
    let abc = ["a", "b", "c"];
    let Some(mut running) = rack.begin(&abc) else { return };
    let access = rack.access("a", &abc);
    let error = restore::others(&access).unwrap_err();
    assert!(error.starts_with("b, c and this member still work"), "{error}");
    running.retain(|name, _| name == "a");
    rack.until("a has no leader", || rack.client("a").status().unwrap().status.leader == 0);
    let begun = Instant::now();
    assert_eq!(restore::others(&access), Ok(()));
    let taken = begun.elapsed();
    assert!(taken < Duration::from_secs(5), "{taken:?}");
    // With the data of the old cluster nobody may run on, majority or not.
    running.insert("b".to_owned(), rack.start("b", &abc, "new").unwrap());
    rack.until("b is there", || restore::others(&access).is_err());
}

/// What a member shows to others ends as well, and nobody outside sees it.
#[test]
fn a_member_sees_how_long_the_certificates_of_others_last() {
    let rack = Rack::new();
    let Some(_running) = rack.begin(&["a", "b"]) else { return };
    let access = rack.access("a", &["a", "b"]);
    let ends = |view: &View| {
        let of = |name: &str| view.member(name)?.answered()?.peer_ends.clone();
        (of("a"), of("b"))
    };
    let year = Some(Ok(rack.now + LIFETIME_SECONDS));
    assert_eq!(ends(&View::of(&access)), (year.clone(), year));
    let outside = Access { peer: None, ..access };
    assert_eq!(ends(&View::of(&outside)), (None, None));
}
