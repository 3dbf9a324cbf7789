use super::*;
use crate::cluster::access::Dated;
use crate::cluster::view::Trust;
use crate::etcd::{Alarm, Known, ResponseHeader, Status};

const NOW: i64 = 1_800_000_000;

fn trust(believed: &[&str]) -> Trust {
    Trust {
        shown: believed[0].to_owned(),
        believed: believed.iter().map(|name| (*name).to_owned()).collect(),
    }
}

fn answer(id: u64, cluster_id: u64) -> Answer {
    let header = ResponseHeader { cluster_id, member_id: id, revision: 7 };
    let status =
        Status { header: Some(header), leader: 1, raft_index: 9_000, raft_term: 2, ..Status::default() };
    Answer {
        known: Known { status, clock_ahead_seconds: Some(0.0) },
        certificate_ends: Some(NOW + 365 * DAY_SECONDS),
        peer_ends: Some(Ok(NOW + 365 * DAY_SECONDS)),
        clients: Some(trust(&["one"])),
        peers: Some(trust(&["peers"])),
        agrees: Ok(()),
        members: None,
        alarms: Vec::new(),
        requests: Vec::new(),
    }
}

/// Three members that are well.
fn view() -> View {
    let members = [("a", 1, Role::Leader), ("b", 2, Role::Follower), ("c", 3, Role::Follower)];
    let members = members.map(|(name, id, role)| Seen {
        name: name.to_owned(),
        id: Some(id),
        endpoint: Some(([10, 0, 0, 1], 2379).into()),
        peer_urls: Vec::new(),
        role,
        is_new: false,
        answer: Some(Ok(answer(id, 77))),
    });
    View {
        name: "rack1".to_owned(),
        id: Some(77),
        members: members.into(),
        alarms: Vec::new(),
        requests: Vec::new(),
        certificates: vec![Dated {
            file: "client.pem".to_owned(),
            ends: NOW + 365 * DAY_SECONDS,
            is_authority: false,
        }],
        leader: Some(1),
    }
}

fn kinds(view: &View) -> Vec<(Kind, Option<String>)> {
    wounds(view, NOW).into_iter().map(|wound| (wound.kind, wound.member)).collect()
}

fn own(answer: &mut Option<Result<Answer, Error>>) -> &mut Answer {
    answer.as_mut().unwrap().as_mut().unwrap()
}

#[test]
fn a_cluster_that_is_well_has_none() {
    assert_eq!(wounds(&view(), NOW), []);
    assert_eq!(view().votes(), (3, 3, 2));
}

#[test]
fn each_wound_is_told_by_its_kind() {
    let b = || Some("b".to_owned());
    let endpoint = ([10, 0, 0, 2], 2379).into();
    let cases: [(&dyn Fn(&mut View), Kind, Option<String>); 19] = [
        (&|view| view.alarms = vec![Alarm { member_id: 2, kind: NO_SPACE }], Kind::NoSpace, b()),
        (&|view| view.alarms = vec![Alarm { member_id: 2, kind: CORRUPT }], Kind::Corrupt, b()),
        (&|view| view.members[1].answer = Some(Ok(answer(2, 78))), Kind::OtherCluster, b()),
        (&|view| view.members[1].role = Role::Outside, Kind::Removed, b()),
        (
            &|view| view.members[1].answer = Some(Err(Error::Unreachable { endpoint, cause: "no".into() })),
            Kind::Unreachable,
            b(),
        ),
        (
            &|view| {
                let cause = Disbelief::Expired;
                view.members[1].answer = Some(Err(Error::Disbelieved { endpoint, cause }));
            },
            Kind::Expired,
            b(),
        ),
        (
            &|view| {
                let cause = Disbelief::OtherAuthority;
                view.members[1].answer = Some(Err(Error::Disbelieved { endpoint, cause }));
            },
            Kind::NotBelieved,
            b(),
        ),
        (
            &|view| {
                view.members[1].is_new = true;
                view.members[1].answer = None;
            },
            Kind::NeverStarted,
            b(),
        ),
        (
            &|view| {
                let after = std::time::Duration::from_secs(5);
                own(&mut view.members[1].answer).agrees = Err(Error::Late { endpoint, after });
            },
            Kind::Alone,
            b(),
        ),
        (&|view| own(&mut view.members[1].answer).known.clock_ahead_seconds = Some(-31.0), Kind::Clock, b()),
        (&|view| own(&mut view.members[1].answer).known.status.raft_index = 1, Kind::Behind, b()),
        (
            &|view| own(&mut view.members[1].answer).peer_ends = Some(Ok(NOW + 29 * DAY_SECONDS)),
            Kind::Expired,
            b(),
        ),
        (
            &|view| {
                let cause = Disbelief::Expired;
                own(&mut view.members[1].answer).peer_ends =
                    Some(Err(Error::Disbelieved { endpoint, cause }));
            },
            Kind::Expired,
            b(),
        ),
        (&|view| view.certificates[0].ends = NOW + 29 * DAY_SECONDS, Kind::Expired, None),
        // Another's name under which somebody wrote costs nobody anything: `keller cluster sign` tells of it.
        (&|view| view.requests = vec!["b".to_owned(), "x".to_owned()], Kind::Asks, b()),
        (
            &|view| {
                view.certificates[0] = Dated {
                    is_authority: true,
                    ends: NOW + 364 * DAY_SECONDS,
                    ..view.certificates[0].clone()
                };
            },
            Kind::AuthorityEnds,
            None,
        ),
        (&|view| own(&mut view.members[1].answer).clients = Some(trust(&["one", "two"])), Kind::Differ, None),
        (&|view| own(&mut view.members[1].answer).clients = Some(trust(&["two"])), Kind::Differ, None),
        (&|view| own(&mut view.members[1].answer).peers = Some(trust(&["peers", "two"])), Kind::Differ, None),
    ];
    for (at, (hurt, kind, member)) in cases.into_iter().enumerate() {
        let mut view = view();
        hurt(&mut view);
        assert_eq!(kinds(&view), [(kind, member)], "case {at}");
    }
}

#[test]
fn without_a_majority_that_comes_first() {
    let mut view = view();
    let endpoint = ([10, 0, 0, 2], 2379).into();
    for member in &mut view.members[1..] {
        member.answer = Some(Err(Error::Unreachable { endpoint, cause: "no route".into() }));
    }
    let wounds = wounds(&view, NOW);
    assert_eq!(wounds[0].kind, Kind::NoQuorum);
    assert_eq!(wounds[0].text, "1 of 3 members with a vote work, and 2 must: nothing can be written");
}

/// A client whose own certificate is over hears from everybody that it is not accepted: one cause, told once.
#[test]
fn an_own_certificate_that_is_over_is_told_once() {
    let mut view = view();
    view.certificates[0].ends = NOW - 1;
    for member in &mut view.members {
        let endpoint = member.endpoint.unwrap();
        member.answer = Some(Err(Error::NotAccepted { endpoint, cause: "CertificateExpired".into() }));
        member.role = Role::Unknown;
    }
    assert_eq!(kinds(&view), [(Kind::NoQuorum, None), (Kind::Expired, None)]);
}

/// Two clocks that agree against one are right, whatever the asker's shows.
#[test]
fn the_middle_clock_is_the_right_one() {
    let mut view = view();
    for (member, ahead) in view.members.iter_mut().zip([40.0, 40.0, 0.0]) {
        own(&mut member.answer).known.clock_ahead_seconds = Some(ahead);
    }
    assert_eq!(kinds(&view), [(Kind::Clock, Some("c".to_owned()))]);
}

/// An authority is told of a year before it ends, since by then certificates do not last a year any more.
#[test]
fn an_authority_ends_before_what_it_signs_and_is_replaced_before() {
    let mut view = view();
    let says = |view: &View| {
        let told = wounds(view, NOW).remove(0);
        assert_eq!((told.kind, told.page), (Kind::AuthorityEnds, "The authorities of a cluster end"));
        assert!(told.cure.contains("keller cluster authority DIR"), "{}", told.cure);
        (told.text, told.is_grave)
    };
    view.certificates[0] =
        Dated { file: "ca.pem".to_owned(), ends: NOW + 365 * DAY_SECONDS, is_authority: true };
    assert_eq!(wounds(&view, NOW), []);
    for (days, text, is_grave) in [
        (364, "the authority in ca.pem ends in 364 days", false),
        (30, "the authority in ca.pem ends in 30 days", false),
        (0, "the authority in ca.pem has ended", true),
    ] {
        view.certificates[0].ends = NOW + days * DAY_SECONDS;
        assert_eq!(says(&view), (text.to_owned(), is_grave));
    }
}

#[test]
fn members_that_differ_are_told_in_groups() {
    let mut view = view();
    own(&mut view.members[1].answer).clients = Some(trust(&["two", "one"]));
    let told = wounds(&view, NOW).remove(0);
    assert!(!told.is_grave);
    assert_eq!(
        told.text,
        "members differ in their authorities at the port of clients: a, c show one and believe one; b shows two and believes \
         one, two"
    );
    // Nobody differs from one that does not say, or is not there.
    own(&mut view.members[1].answer).clients = None;
    assert_eq!(wounds(&view, NOW), []);
}

#[test]
fn each_has_a_page() {
    let pages = include_str!("../../../docs/operations.md");
    for kind in Kind::ALL {
        let heading = format!("### {}", kind.page());
        assert!(pages.lines().any(|line| line == heading), "docs/operations.md has no {heading:?}");
    }
}
