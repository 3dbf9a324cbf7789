//! What is wrong with a cluster: each wound with its cure, and a page in docs/operations.md that has more.

use std::collections::BTreeMap;

use serde::Serialize;

use super::view::{Answer, Role, Seen, Trust, View};
use crate::etcd::{CORRUPT, Disbelief, Error, NO_SPACE};

/// Clocks of members that differ by more are told of.
const CLOCK_SECONDS: f64 = 2.0;
/// Certificates are told of that end before this many days are over.
const DAYS: i64 = 30;
/// Entries of the log by which a member may be behind while others write.
const BEHIND: u64 = 5_000;
/// Authorities are told of that end before this many days are over: from then on, what they sign does not last a year.
const AUTHORITY_DAYS: i64 = 365;
const DAY_SECONDS: i64 = 86_400;

/// A kind of wound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Fewer than half of all votes work.
    NoQuorum,
    /// The database has reached its quota.
    NoSpace,
    /// Data differ from the other members'.
    Corrupt,
    /// It runs in another cluster.
    OtherCluster,
    /// Certificates of two clusters, or of two machines.
    NotBelieved,
    /// A certificate is over, or nearly.
    Expired,
    /// What signs certificates is over, or will be within a year.
    AuthorityEnds,
    /// Members believe different authorities, as while these are replaced.
    Differ,
    /// A node has the name of a member, and the cluster does not have it.
    Removed,
    /// It does not answer.
    Unreachable,
    /// It is in the list, and was never started.
    NeverStarted,
    /// It answers, and finds no leader.
    Alone,
    /// Its clock is not the others'.
    Clock,
    /// It has much to catch up.
    Behind,
    /// It asks for new certificates.
    Asks,
}

impl Kind {
    /// Each of them.
    pub const ALL: [Self; 15] = [
        Self::NoQuorum,
        Self::NoSpace,
        Self::Corrupt,
        Self::OtherCluster,
        Self::NotBelieved,
        Self::Expired,
        Self::AuthorityEnds,
        Self::Differ,
        Self::Removed,
        Self::Unreachable,
        Self::NeverStarted,
        Self::Alone,
        Self::Clock,
        Self::Behind,
        Self::Asks,
    ];

    /// The heading of its page in docs/operations.md.
    pub fn page(self) -> &'static str {
        match self {
            Self::NoQuorum => "A cluster without a quorum",
            Self::NoSpace => "etcd has no space (NOSPACE)",
            Self::Corrupt => "etcd's data are corrupt (CORRUPT)",
            Self::OtherCluster => "A member of another cluster",
            Self::NotBelieved => "A member that is not believed",
            Self::Expired => "A certificate of etcd has expired",
            Self::AuthorityEnds => "The authorities of a cluster end",
            Self::Differ => "Members that believe different authorities",
            Self::Removed => "A member that was removed",
            Self::Unreachable | Self::Alone => "A member that cannot be reached",
            Self::NeverStarted => "A member that has not joined",
            Self::Clock => "A member whose clock differs",
            Self::Behind => "A member that is behind",
            Self::Asks => "A member that asks for certificates",
        }
    }
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Wound {
    /// Its kind.
    pub kind: Kind,
    /// Whose it is, if it is one member's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
    /// What is so.
    pub text: String,
    /// What helps.
    pub cure: String,
    /// Heading in docs/operations.md.
    pub page: &'static str,
    /// Whether it costs the cluster something now.
    pub is_grave: bool,
}

impl Wound {
    fn new(kind: Kind, member: Option<&str>, text: String, cure: impl Into<String>) -> Self {
        let is_grave =
            !matches!(kind, Kind::Clock | Kind::Behind | Kind::NeverStarted | Kind::Asks | Kind::Differ);
        let member = member.map(str::to_owned);
        Self { kind, member, text, cure: cure.into(), page: kind.page(), is_grave }
    }

    fn mild(self) -> Self {
        Self { is_grave: false, ..self }
    }
}

/// All that is wrong at `now`, in seconds since 1970: what matters most first.
pub fn wounds(view: &View, now: i64) -> Vec<Wound> {
    let mut wounds = Vec::new();
    quorum(view, &mut wounds);
    alarms(view, &mut wounds);
    certificates(view, now, &mut wounds);
    for member in &view.members {
        match &member.answer {
            Some(Ok(answer)) => answering(view, member, answer, now, &mut wounds),
            _ => silent(view, member, now, &mut wounds),
        }
    }
    authorities(view, &mut wounds);
    clocks(view, &mut wounds);
    requests(view, &mut wounds);
    wounds
}

/// Members that wait for somebody who has the authorities.
fn requests(view: &View, wounds: &mut Vec<Wound>) {
    for name in view.requests.iter().filter(|name| view.member(name).is_some()) {
        wounds.push(Wound::new(
            Kind::Asks,
            Some(name),
            format!("{name} asks for new certificates"),
            "where the cluster's directory lies: `keller cluster sign DIR`",
        ));
    }
}

fn quorum(view: &View, wounds: &mut Vec<Wound>) {
    let (all, good, needed) = view.votes();
    if view.has_quorum() {
        return;
    }
    let (text, cure) = match all {
        0 => (
            "no member tells who the members are".to_owned(),
            "start etcd on the members; if they wait, `journalctl -u etcd` says for what",
        ),
        _ => (
            format!("{good} of {all} members with a vote work, and {needed} must: nothing can be written"),
            "bring members back: start their machines, and see that they reach each other",
        ),
    };
    wounds.push(Wound::new(Kind::NoQuorum, None, text, cure));
}

fn alarms(view: &View, wounds: &mut Vec<Wound>) {
    for alarm in &view.alarms {
        let member = view.members.iter().find(|member| member.id == Some(alarm.member_id));
        let name = member.map(|member| member.name.as_str());
        let who = name.map_or_else(|| format!("{:x}", alarm.member_id), str::to_owned);
        wounds.push(match alarm.kind {
            NO_SPACE => Wound::new(
                Kind::NoSpace,
                name,
                format!("the database of {who} has reached its quota: the cluster takes no write"),
                "delete what is not needed, compact, then `etcdctl defrag` and `etcdctl alarm disarm`",
            ),
            CORRUPT => Wound::new(
                Kind::Corrupt,
                name,
                format!("the data of {who} differ from the other members'"),
                format!("stop etcd there, and `keller cluster replace {who}` on another member"),
            ),
            other => Wound::new(
                Kind::Corrupt,
                name,
                format!("{who} raises alarm {other}"),
                "`etcdctl alarm list` names it",
            ),
        });
    }
}

fn certificates(view: &View, now: i64, wounds: &mut Vec<Wound>) {
    for dated in &view.certificates {
        wounds.extend(match dated.is_authority {
            true => authority_ending(&dated.file, dated.ends, now),
            false => ending(&dated.file, None, dated.ends, now),
        });
    }
}

/// An authority that is over, or will be before what it signs.
fn authority_ending(file: &str, ends: i64, now: i64) -> Option<Wound> {
    let cure = "`keller cluster authority DIR` replaces it step by step, while the cluster goes on";
    let wound = |text| Wound::new(Kind::AuthorityEnds, None, format!("the authority in {file} {text}"), cure);
    let days = (ends - now).div_euclid(DAY_SECONDS);
    match () {
        () if ends <= now => Some(wound("has ended".to_owned())),
        () if days < AUTHORITY_DAYS => Some(wound(format!("ends in {days} days")).mild()),
        () => None,
    }
}

/// Members whose etcds believe or show different authorities. Between two steps of a replacement that is as it should be.
fn authorities(view: &View, wounds: &mut Vec<Wound>) {
    let ports: [(&str, fn(&Answer) -> Option<&Trust>); 2] =
        [("clients", |answer| answer.clients.as_ref()), ("members", |answer| answer.peers.as_ref())];
    for (port, of) in ports {
        let mut groups: BTreeMap<&Trust, Vec<&str>> = BTreeMap::new();
        for member in view.members.iter().filter(|member| member.role != Role::Outside) {
            if let Some(trust) = member.answered().and_then(of) {
                groups.entry(trust).or_default().push(&member.name);
            }
        }
        if groups.len() < 2 {
            continue;
        }
        let group = |(trust, names): (&Trust, &Vec<&str>)| {
            let believed = trust.believed.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            let [show, believe] = if names.len() == 1 { ["shows", "believes"] } else { ["show", "believe"] };
            format!("{} {show} {} and {believe} {believed}", names.join(", "), trust.shown)
        };
        let groups = groups.iter().map(|(trust, names)| group((trust, names))).collect::<Vec<_>>().join("; ");
        wounds.push(Wound::new(
            Kind::Differ,
            None,
            format!("members differ in their authorities at the port of {port}: {groups}"),
            "go on with `keller cluster authority DIR`, which names the members that are behind",
        ));
    }
}

/// A certificate that is over, or will be soon.
fn ending(what: &str, member: Option<&str>, ends: i64, now: i64) -> Option<Wound> {
    let cure = "`keller cluster sign DIR`, if the member asks for new ones; else `keller cluster issue DIR --member NAME`, and \
                `keller node apply` on its node";
    let days = (ends - now).div_euclid(DAY_SECONDS);
    match () {
        () if ends <= now => Some(Wound::new(Kind::Expired, member, format!("{what} has expired"), cure)),
        () if days < DAYS => {
            Some(Wound::new(Kind::Expired, member, format!("{what} ends in {days} days"), cure).mild())
        }
        () => None,
    }
}

fn answering(view: &View, member: &Seen, answer: &Answer, now: i64, wounds: &mut Vec<Wound>) {
    let name = Some(member.name.as_str());
    let who = &member.name;
    let status = &answer.known.status;
    let cluster = status.header.as_ref().map(|header| header.cluster_id);
    if cluster != view.id {
        wounds.push(Wound::new(
            Kind::OtherCluster,
            name,
            format!(
                "{who} runs in another cluster, {:x}, and this one is {:x}",
                cluster.unwrap_or_default(),
                view.id.unwrap_or_default()
            ),
            format!(
                "stop etcd on {who}, remove its data there, then `keller cluster add {who}=ADDRESS` here"
            ),
        ));
    } else if member.role == Role::Outside {
        wounds.push(removed(who));
    } else if let Err(error) = &answer.agrees {
        wounds.push(Wound::new(
            Kind::Alone,
            name,
            format!("{who} answers, and reaches no majority: {error}"),
            "see whether the members reach each other on port 2380",
        ));
    } else if let Some(ahead) = behind(view, status.raft_index) {
        wounds.push(Wound::new(
            Kind::Behind,
            name,
            format!("{who} is {ahead} entries behind"),
            "it catches up by itself; if it does not, look at its disk and its network",
        ));
    }
    if let Some(ends) = answer.certificate_ends {
        wounds.extend(ending(&format!("the certificate of {who}"), name, ends, now));
    }
    let what = format!("the certificate of {who} for other members");
    match &answer.peer_ends {
        Some(Ok(ends)) => wounds.extend(ending(&what, name, *ends, now)),
        // A certificate that is refused as expired is not read, so its end is not known.
        Some(Err(Error::Disbelieved { cause: Disbelief::Expired, .. })) => {
            wounds.extend(ending(&what, name, now, now));
        }
        // If the port is closed, the missing majority is reported instead.
        Some(Err(_)) | None => {}
    }
}

/// By how many entries a member is behind the furthest, if that is much.
fn behind(view: &View, index: u64) -> Option<u64> {
    let indexes = view.members.iter().filter_map(Seen::answered);
    let furthest = indexes.map(|answer| answer.known.status.raft_index).max()?;
    Some(furthest.saturating_sub(index)).filter(|behind| *behind > BEHIND)
}

fn removed(who: &str) -> Wound {
    Wound::new(
        Kind::Removed,
        Some(who),
        format!("{who} is not in the cluster's list of members"),
        format!("`keller cluster add {who}=ADDRESS` takes it in; its old data must go first"),
    )
}

fn silent(view: &View, member: &Seen, now: i64, wounds: &mut Vec<Wound>) {
    let name = Some(member.name.as_str());
    let who = &member.name;
    if member.role == Role::Outside {
        wounds.push(removed(who));
        return;
    }
    let own_is_over = view.certificates.iter().any(|dated| !dated.is_authority && dated.ends <= now);
    let error = match &member.answer {
        Some(Err(error)) => error.to_string(),
        _ => "its address is unknown".to_owned(),
    };
    if member.is_new {
        wounds.push(Wound::new(
            Kind::NeverStarted,
            name,
            format!("{who} was taken in, and has not started yet"),
            format!("start the machine with the document of {who}; `journalctl -u etcd` there says what it waits for"),
        ));
        return;
    }
    wounds.push(match &member.answer {
        // Told already, as the certificate's own wound.
        Some(Err(Error::NotAccepted { .. })) if own_is_over => return,
        Some(Err(Error::Disbelieved { cause: Disbelief::Expired, .. })) => Wound::new(
            Kind::Expired,
            name,
            format!("the certificate of {who} has expired"),
            format!("`keller cluster issue DIR --member {who}`, and `keller node apply` on {who}"),
        ),
        Some(Err(Error::Disbelieved { .. } | Error::NotAccepted { .. })) => Wound::new(
            Kind::NotBelieved,
            name,
            error,
            format!(
                "give {who} the document that was made with the others; another machine may have its address"
            ),
        ),
        _ => Wound::new(
            Kind::Unreachable,
            name,
            error,
            format!("start it; if its disk is lost, `keller cluster replace {who}` on another member"),
        ),
    });
}

/// Clocks are held against the middle one of all.
fn clocks(view: &View, wounds: &mut Vec<Wound>) {
    let ahead = |member: &Seen| Some((member.name.clone(), member.answered()?.known.clock_ahead_seconds?));
    let mut all: Vec<(String, f64)> = view.members.iter().filter_map(ahead).collect();
    all.sort_by(|one, other| one.1.total_cmp(&other.1));
    // With one or two members, whoever asks has the last word.
    let middle = if all.len() < 3 { 0.0 } else { all[all.len() / 2].1 };
    for (name, ahead) in all {
        let off = ahead - middle;
        if off.abs() > CLOCK_SECONDS {
            let way = if off > 0.0 { "ahead" } else { "behind" };
            wounds.push(Wound::new(
                Kind::Clock,
                Some(&name),
                format!("the clock of {name} is {:.0} s {way}", off.abs()),
                "see `timedatectl` there: certificates and leases go by the clock",
            ));
        }
    }
}

#[cfg(test)]
mod tests;
