use super::*;
use crate::cluster::view::Answer;
use crate::etcd::{Error, Known, ResponseHeader, Status};

fn seen(name: &str, id: u64, role: Role, is_good: bool) -> Seen {
    let endpoint = ([10, 0, 0, u8::try_from(id).unwrap()], 2379).into();
    let header = ResponseHeader { cluster_id: 77, member_id: id, revision: 1 };
    let status = Status { header: Some(header), ..Status::default() };
    let known = Known { status, clock_ahead_seconds: None };
    let answer = Answer {
        known,
        certificate_ends: None,
        peer_ends: None,
        clients: None,
        peers: None,
        agrees: Ok(()),
        members: None,
        alarms: Vec::new(),
        requests: Vec::new(),
    };
    Seen {
        name: name.to_owned(),
        id: Some(id),
        endpoint: Some(endpoint),
        peer_urls: vec![url(id)],
        role,
        is_new: false,
        answer: Some(if is_good {
            Ok(answer)
        } else {
            Err(Error::Unreachable { endpoint, cause: "off".into() })
        }),
    }
}

fn url(id: u64) -> String {
    format!("https://10.0.0.{id}:2380")
}

/// Members with a vote, of which those in `good` work, then a learner if there is one.
fn view(all: &[&str], good: &[&str], learner: Option<&str>) -> View {
    let voters = all.iter().zip(1..).map(|(name, id)| {
        let role = if id == 1 { Role::Leader } else { Role::Follower };
        seen(name, id, role, good.contains(name))
    });
    let learner = learner.map(|name| seen(name, 99, Role::Learner, true));
    View {
        name: "rack1".to_owned(),
        id: Some(77),
        members: voters.chain(learner).collect(),
        alarms: Vec::new(),
        requests: Vec::new(),
        certificates: Vec::new(),
        leader: Some(1),
    }
}

#[test]
fn the_majority_is_kept() {
    let abc = ["a", "b", "c"];
    let removes = |all: &[&str], good: &[&str], name: &str| {
        may_remove(&view(all, good, Some("l")), name).map(|member| member.name.clone())
    };
    assert_eq!(removes(&abc, &abc, "b"), Ok("b".to_owned()));
    assert_eq!(removes(&abc, &["a", "b"], "c"), Ok("c".to_owned()), "the one that is lost");
    let refused =
        Refusal::Quorum { name: "b".to_owned(), left: 1, all: 2, needed: 2, others: "c".to_owned() };
    assert_eq!(removes(&abc, &["a", "b"], "b"), Err(refused), "one that works, while another is lost");
    assert_eq!(removes(&abc, &["a"], "c"), Err(Refusal::NoQuorum { all: 3, good: 1, needed: 2 }));
    assert_eq!(removes(&["a"], &["a"], "a"), Err(Refusal::Last("a".to_owned())));
    assert_eq!(removes(&["a"], &["a"], "l"), Ok("l".to_owned()), "a learner costs nobody a vote");
    assert!(
        matches!(removes(&abc, &abc, "d"), Err(Refusal::NoSuchMember { known, .. }) if known == "a, b, c, l")
    );
}

#[test]
fn one_more_is_added_to_what_is_whole() {
    let abc = ["a", "b", "c"];
    let whole = view(&abc, &abc, None);
    assert_eq!(may_add(&whole, "d", &url(4)), Ok(true));
    assert_eq!(may_add(&whole, "c", &url(3)), Ok(false), "it is there");
    assert!(matches!(may_add(&whole, "c", &url(4)), Err(Refusal::NameTaken { .. })));
    assert!(matches!(may_add(&whole, "d", &url(3)), Err(Refusal::AddressTaken { name, .. }) if name == "c"));
    let wounded = view(&abc, &["a", "b"], None);
    assert_eq!(may_add(&wounded, "d", &url(4)), Err(Refusal::Wounded("c".to_owned())));
    let learning = view(&abc, &abc, Some("l"));
    assert_eq!(may_add(&learning, "d", &url(4)), Err(Refusal::Learner("l".to_owned())));
    // Said again before it has started, by whoever has it in no list: nobody knows its name.
    let mut waiting = view(&abc, &abc, Some("10.0.0.99:2380"));
    waiting.members[3].is_new = true;
    assert_eq!(may_add(&waiting, "d", &url(99)), Ok(false));
    waiting.members[3].is_new = false;
    assert!(matches!(may_add(&waiting, "d", &url(99)), Err(Refusal::AddressTaken { .. })));
    let seven = ["a", "b", "c", "d", "e", "f", "g"];
    assert_eq!(may_add(&view(&seven, &seven, None), "h", &url(8)), Err(Refusal::Many(7)));
    assert!(matches!(may_add(&view(&abc, &["a"], None), "d", &url(4)), Err(Refusal::NoQuorum { .. })));
}

#[test]
fn only_what_is_lost_is_replaced() {
    let abc = ["a", "b", "c"];
    let replaces = |view: &View, old: &str, new: &str, at: u64| {
        may_replace(view, view.member(old).unwrap(), new, &url(at))
    };
    let lost = view(&abc, &["a", "b"], None);
    assert_eq!(replaces(&lost, "c", "c", 3), Ok(()));
    assert_eq!(replaces(&lost, "c", "d", 4), Ok(()));
    assert_eq!(replaces(&lost, "b", "d", 4), Err(Refusal::Works("b".to_owned())));
    assert!(matches!(replaces(&lost, "c", "b", 4), Err(Refusal::NameTaken { .. })));
    assert!(matches!(replaces(&lost, "c", "d", 2), Err(Refusal::AddressTaken { .. })));
    assert!(matches!(replaces(&view(&abc, &["a"], None), "c", "c", 3), Err(Refusal::NoQuorum { .. })));
    let learning = view(&abc, &["a", "b"], Some("l"));
    assert_eq!(replaces(&learning, "c", "c", 3), Err(Refusal::Learner("l".to_owned())));
}
