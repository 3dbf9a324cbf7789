//! Whether all members are as far as one step of the replacement of their authorities: what they show and whom they believe,
//! which a handshake tells of the etcd that runs, whatever its files have by now.

use std::collections::BTreeSet;

use serde::Serialize;

use super::view::{Role, Seen, Trust, View};

/// What is asked of a member at one of its ports, by names of authorities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Who has signed what it shows; one of those that it is to believe where it is none.
    pub shown: Option<String>,
    /// Whom it must believe.
    pub believed: BTreeSet<String>,
    /// Whether it must believe nobody else.
    pub alone: bool,
}

/// A member that is not as far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lag {
    /// Its name.
    pub member: String,
    /// What it lacks.
    pub why: String,
    /// Whether it was asked, and said so.
    pub answers: bool,
}

/// The members that do not show what is asked at the port of clients, and at that of members. Whoever the cluster does not
/// have in its list is none.
pub fn lagging(view: &View, clients: &Asked, peers: &Asked) -> Vec<Lag> {
    let inside = view.members.iter().filter(|member| member.role != Role::Outside);
    inside.filter_map(|member| lag(member, clients, peers)).collect()
}

fn lag(member: &Seen, clients: &Asked, peers: &Asked) -> Option<Lag> {
    let lag = |why: String, answers| Some(Lag { member: member.name.clone(), why, answers });
    let answer = match &member.answer {
        Some(Ok(answer)) => answer,
        _ if member.is_new => return lag("it has not started yet".to_owned(), false),
        Some(Err(error)) => return lag(error.to_string(), false),
        None => return lag("its address is not known".to_owned(), false),
    };
    let peer_error = answer.peer_ends.as_ref().and_then(|ends| ends.as_ref().err());
    if let (None, Some(error)) = (&answer.peers, peer_error) {
        return lag(error.to_string(), true);
    }
    let ports = [(&answer.clients, clients, "clients"), (&answer.peers, peers, "members")];
    let why = ports.into_iter().filter_map(|(trust, asked, port)| missing(trust.as_ref(), asked, port));
    let why: Vec<String> = why.collect();
    if why.is_empty() { None } else { lag(why.join("; "), true) }
}

/// What is missing at the port of `port`.
fn missing(trust: Option<&Trust>, asked: &Asked, port: &str) -> Option<String> {
    let Some(trust) = trust else {
        return Some(format!("at the port of {port} it does not say whom it believes"));
    };
    let list = |names: Vec<&String>| names.into_iter().map(String::as_str).collect::<Vec<_>>().join(" and ");
    let not_yet: Vec<&String> = asked.believed.difference(&trust.believed).collect();
    if !not_yet.is_empty() {
        return Some(format!("at the port of {port} it does not believe {} yet", list(not_yet)));
    }
    let is_shown = match &asked.shown {
        Some(shown) => *shown == trust.shown,
        None => asked.believed.contains(&trust.shown),
    };
    if !is_shown {
        return Some(format!("at the port of {port} it still shows a certificate of {}", trust.shown));
    }
    let still: Vec<&String> = trust.believed.difference(&asked.believed).collect();
    (asked.alone && !still.is_empty())
        .then(|| format!("at the port of {port} it still believes {}", list(still)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::view::Answer;
    use crate::etcd::{Disbelief, Error, Known, Status};

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn trust(shown: &str, believed: &[&str]) -> Trust {
        Trust { shown: shown.to_owned(), believed: names(believed) }
    }

    fn seen(clients: Option<Trust>, peers: Option<Trust>) -> Seen {
        let known = Known { status: Status::default(), clock_ahead_seconds: None };
        let (agrees, alarms) = (Ok(()), Vec::new());
        let answer = Answer {
            known,
            certificate_ends: None,
            peer_ends: None,
            clients,
            peers,
            agrees,
            members: None,
            alarms,
            requests: Vec::new(),
        };
        Seen {
            name: "a".to_owned(),
            id: Some(1),
            endpoint: None,
            peer_urls: Vec::new(),
            role: Role::Follower,
            is_new: false,
            answer: Some(Ok(answer)),
        }
    }

    fn asked(shown: Option<&str>, believed: &[&str], alone: bool) -> Asked {
        Asked { shown: shown.map(str::to_owned), believed: names(believed), alone }
    }

    #[test]
    fn each_step_is_told_from_the_one_before() {
        let both = ["old", "new"];
        let steps = [
            (trust("old", &["old"]), asked(Some("old"), &["old"], true)),
            (trust("old", &both), asked(None, &both, false)),
            (trust("new", &both), asked(Some("new"), &["new"], false)),
            (trust("new", &["new"]), asked(Some("new"), &["new"], true)),
        ];
        // Whoever has gone on is as far as a step that asks for less.
        let good = [
            [true, false, false, false],
            [false, true, true, false],
            [false, false, true, true],
            [false, false, false, true],
        ];
        for (step, (_, asked)) in steps.iter().enumerate() {
            for (at, (trust, _)) in steps.iter().enumerate() {
                let seen = seen(Some(trust.clone()), Some(trust.clone()));
                assert_eq!(lag(&seen, asked, asked).is_none(), good[step][at], "{trust:?} at step {step}");
            }
        }
    }

    #[test]
    fn what_is_missing_is_named_with_its_port() {
        let both = asked(None, &["old", "new"], false);
        let good = || Some(trust("old", &["old", "new"]));
        let says = |seen: &Seen| lag(seen, &both, &both).unwrap();
        let lag = says(&seen(good(), Some(trust("old", &["old"]))));
        assert_eq!(
            (lag.why.as_str(), lag.answers),
            ("at the port of members it does not believe new yet", true)
        );
        assert!(
            says(&seen(good(), None)).why.contains("the port of members it does not say whom it believes")
        );
        let other = says(&seen(Some(trust("other", &["old", "new"])), good()));
        assert_eq!(other.why, "at the port of clients it still shows a certificate of other");
        let endpoint = ([10, 0, 0, 1], 2379).into();
        let error = Error::Disbelieved { endpoint, cause: Disbelief::OtherAuthority };
        let silent = Seen { answer: Some(Err(error)), ..seen(None, None) };
        assert!(says(&silent).why.contains("of another authority") && !says(&silent).answers);
        let new = Seen { is_new: true, answer: None, ..seen(None, None) };
        assert_eq!(says(&new).why, "it has not started yet");
    }
}
