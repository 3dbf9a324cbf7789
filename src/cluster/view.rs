//! A look at all members at once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::thread;

use super::access::{self, Access, Dated};
use super::requests;
use crate::base::limits;
use crate::etcd::{Alarm, Client, Code, Error, Known, Member, Shown};
use crate::pki;

/// What a member is in its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Has a vote, and leads.
    Leader,
    /// Has a vote.
    Follower,
    /// Gets a vote once it has caught up.
    Learner,
    /// The cluster does not have it in its list.
    Outside,
    /// Nobody told.
    Unknown,
}

/// Authorities at one port of a member, by their names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Trust {
    /// Which one has signed the certificate that the member shows.
    pub shown: String,
    /// Those whose certificates it believes: as of its start, since etcd reads them only then.
    pub believed: BTreeSet<String>,
}

impl Trust {
    /// What a handshake tells; nothing where it is not all of it.
    fn of(shown: &Shown) -> Option<Self> {
        if shown.believes.len() > limits::ETCD_MEMBERS {
            return None;
        }
        let believed = shown.believes.iter().map(|name| pki::name_of(name).ok());
        let believed = believed.collect::<Option<BTreeSet<_>>>().filter(|names| !names.is_empty())?;
        Some(Self { shown: pki::names_of(&shown.certificate).ok()?.issuer, believed })
    }
}

/// What a member answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// How it is.
    pub known: Known,
    /// When the certificate ends that it has shown: seconds since 1970.
    pub certificate_ends: Option<i64>,
    /// The same of the one for other members; nothing where nobody could look.
    pub peer_ends: Option<Result<i64, Error>>,
    /// Authorities at the port of clients.
    pub clients: Option<Trust>,
    /// Authorities at the port of members; nothing where nobody could look.
    pub peers: Option<Trust>,
    /// Whether it found more than half of all votes; a learner is not asked.
    pub agrees: Result<(), Error>,
    /// All members as it has them, where it tells.
    pub members: Option<Vec<Member>>,
    /// Alarms as it has them.
    pub alarms: Vec<Alarm>,
    /// Names under which requests for certificates stand, where it tells.
    pub requests: Vec<String>,
}

impl Answer {
    fn cluster(&self) -> Option<u64> {
        self.known.status.header.as_ref().map(|header| header.cluster_id)
    }

    fn member(&self) -> Option<u64> {
        self.known.status.header.as_ref().map(|header| header.member_id)
    }
}

/// One member.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// Of its node.
    pub name: String,
    /// The cluster's number for it.
    pub id: Option<u64>,
    /// Where it answers clients.
    pub endpoint: Option<SocketAddr>,
    /// Where it answers members.
    pub peer_urls: Vec<String>,
    /// What it is in the cluster.
    pub role: Role,
    /// Whether it is in the list, and was never started.
    pub is_new: bool,
    /// What it answered; nothing where nobody could be asked.
    pub answer: Option<Result<Answer, Error>>,
}

impl Seen {
    /// What it answered, if it did.
    pub fn answered(&self) -> Option<&Answer> {
        self.answer.as_ref()?.as_ref().ok()
    }

    /// Whether nobody knows its name yet: it has not started, and is not in the list of whoever asks.
    pub fn is_nameless(&self) -> bool {
        self.is_new && self.name == unnamed(&self.peer_urls)
    }

    /// Whether it has a vote.
    pub fn votes(&self) -> bool {
        matches!(self.role, Role::Leader | Role::Follower)
    }

    /// Whether it works in the cluster `id`.
    pub fn is_good(&self, id: Option<u64>) -> bool {
        self.answered().is_some_and(|answer| answer.agrees.is_ok() && answer.cluster() == id)
    }
}

/// A cluster at a moment.
#[derive(Clone, Debug)]
pub struct View {
    /// Its name.
    pub name: String,
    /// etcd's number for it.
    pub id: Option<u64>,
    /// All that are listed by the cluster, or by whoever asks.
    pub members: Vec<Seen>,
    /// What is raised.
    pub alarms: Vec<Alarm>,
    /// Names of members, and of others, under which requests for certificates stand.
    pub requests: Vec<String>,
    /// Certificates that lie here.
    pub certificates: Vec<Dated>,
    /// Number of the leader.
    pub leader: Option<u64>,
}

impl View {
    /// Looks.
    pub fn of(access: &Access) -> Self {
        Self::look(access, Depth::Log)
    }

    /// Looks which members answer, without asking for a majority: each that answers counts as agreeing, and alarms are not read.
    /// Without a majority, this is much faster than [`Self::of`].
    pub fn glance(access: &Access) -> Self {
        Self::look(access, Depth::Word)
    }

    fn look(access: &Access, depth: Depth) -> Self {
        let listed = access.list.members.iter().map(|(name, ip)| (access.endpoint(*ip), name.clone()));
        let listed: BTreeMap<SocketAddr, String> = listed.collect();
        let mut answers = ask(access, listed.keys().copied().collect(), depth);
        let reference = reference(&answers).cloned();
        let all = reference.as_ref().and_then(|answer| answer.members.clone()).unwrap_or_default();
        // Members that whoever asks was never told of.
        let further = all.iter().filter_map(|member| endpoint(member, access));
        let further = further.filter(|endpoint| !answers.contains_key(endpoint)).collect();
        answers.extend(ask(access, further, depth));
        compose(access, &listed, &all, answers, reference.as_ref())
    }

    /// Members with a vote: how many there are, how many of them work, and how many must.
    pub fn votes(&self) -> (usize, usize, usize) {
        let voters = self.members.iter().filter(|member| member.votes());
        let good = voters.clone().filter(|member| member.is_good(self.id)).count();
        let all = voters.count();
        (all, good, all / 2 + 1)
    }

    /// Whether more than half of all votes work.
    pub fn has_quorum(&self) -> bool {
        let (all, good, needed) = self.votes();
        all > 0 && good >= needed
    }

    /// The member `name`.
    pub fn member(&self, name: &str) -> Option<&Seen> {
        self.members.iter().find(|member| member.name == name)
    }

    /// Whom to ask for what a majority has: a member that works and has a vote, the leader first.
    pub fn working(&self) -> Option<SocketAddr> {
        let good = self.members.iter().filter(|member| member.votes() && member.is_good(self.id));
        good.max_by_key(|member| member.role == Role::Leader)?.endpoint
    }

    /// The leader, if it answers.
    pub fn leading(&self) -> Option<&Seen> {
        self.members.iter().find(|member| member.role == Role::Leader && member.answered().is_some())
    }
}

/// How much a member is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Depth {
    /// What it answers by itself.
    Word,
    /// What has to go through the log as well.
    Log,
}

fn ask(
    access: &Access,
    endpoints: Vec<SocketAddr>,
    depth: Depth,
) -> BTreeMap<SocketAddr, Result<Answer, Error>> {
    // At once: a member that is off costs its whole time.
    thread::scope(|scope| {
        let asked: Vec<_> = endpoints
            .into_iter()
            .map(|endpoint| (endpoint, scope.spawn(move || ask_one(access, endpoint, depth))))
            .collect();
        asked.into_iter().filter_map(|(endpoint, one)| Some((endpoint, one.join().ok()?))).collect()
    })
}

fn ask_one(access: &Access, endpoint: SocketAddr, depth: Depth) -> Result<Answer, Error> {
    let mut client = access.connect(endpoint)?;
    thread::scope(|scope| {
        // The other port may be closed, and be waited for.
        let peer = scope.spawn(|| (depth == Depth::Log).then(|| access.peer_shown(endpoint.ip())).flatten());
        let answer = answer(&mut client, depth);
        let peer = peer.join().unwrap_or_default();
        let peers = peer.as_ref().and_then(|shown| Trust::of(shown.as_ref().ok()?));
        let peer_ends = peer.map(|shown| shown.map(|shown| pki::end_of_der(&shown.certificate).ok()));
        let peer_ends = peer_ends.and_then(Result::transpose);
        Ok(Answer { peer_ends, peers, ..answer? })
    })
}

fn answer(client: &mut Client, depth: Depth) -> Result<Answer, Error> {
    let known = client.status()?;
    let mut answer = Answer {
        known,
        certificate_ends: pki::end_of_der(&client.shown().certificate).ok(),
        peer_ends: None,
        clients: Trust::of(client.shown()),
        peers: None,
        agrees: Ok(()),
        members: None,
        alarms: Vec::new(),
        requests: Vec::new(),
    };
    if answer.known.status.is_learner {
        return Ok(answer);
    }
    // One that refuses, or is lost by now, tells nothing; what cannot be read is an error of this member.
    answer.members = match client.members() {
        Err(error @ Error::Broken { .. }) => return Err(error),
        members => members.ok(),
    };
    if depth == Depth::Word {
        return Ok(answer);
    }
    answer.agrees = match client.agree() {
        // It went through the log, and only then asked for rights.
        Err(Error::Refused { code: Code::PermissionDenied, .. }) => Ok(()),
        agreed => agreed.map(|_| ()),
    };
    if answer.agrees.is_ok() {
        // They come through the log too: whoever has no majority would take as long to say nothing once more.
        answer.alarms = match client.alarms() {
            Err(error @ Error::Broken { .. }) => return Err(error),
            alarms => alarms.unwrap_or_default(),
        };
        // A client node may not read them.
        answer.requests = requests::names(client).map(|(names, _)| names).unwrap_or_default();
    }
    Ok(answer)
}

/// Whose list of members counts: that of one that has a leader, and of these of the one that is furthest.
fn reference(answers: &BTreeMap<SocketAddr, Result<Answer, Error>>) -> Option<&Answer> {
    let telling = answers.values().filter_map(|answer| answer.as_ref().ok());
    let telling = telling.filter(|answer| answer.members.is_some());
    telling.max_by_key(|answer| {
        let status = &answer.known.status;
        (answer.agrees.is_ok(), status.leader != 0, status.raft_term, status.raft_index)
    })
}

/// How one is called that has not started yet and is in nobody's list: by its address.
fn unnamed(peer_urls: &[String]) -> String {
    peer_urls.join(",").replace("https://", "")
}

fn endpoint(member: &Member, access: &Access) -> Option<SocketAddr> {
    let said = member.client_urls.iter().find_map(|url| access::address(url));
    let peer = member.peer_urls.iter().find_map(|url| access::address(url));
    said.or_else(|| peer.map(|peer| access.endpoint(peer.ip())))
}

fn compose(
    access: &Access,
    listed: &BTreeMap<SocketAddr, String>,
    all: &[Member],
    mut answers: BTreeMap<SocketAddr, Result<Answer, Error>>,
    reference: Option<&Answer>,
) -> View {
    let id = reference.and_then(Answer::cluster);
    let leader = reference.map(|answer| answer.known.status.leader).filter(|leader| *leader != 0);
    let mut members = Vec::new();
    for member in all {
        // Who answers at a known address may have another's number, as after it was taken in anew.
        let own = answers.iter().find(|(_, answer)| {
            answer.as_ref().is_ok_and(|answer| answer.member() == Some(member.id) && answer.cluster() == id)
        });
        let at = own.map(|(at, _)| *at).or_else(|| endpoint(member, access));
        let named = at.and_then(|at| listed.get(&at));
        let name = match member.name.is_empty() {
            true => named.cloned().unwrap_or_else(|| unnamed(&member.peer_urls)),
            false => member.name.clone(),
        };
        members.push(Seen {
            name,
            id: Some(member.id),
            endpoint: at,
            peer_urls: member.peer_urls.clone(),
            role: match () {
                () if member.is_learner => Role::Learner,
                () if leader == Some(member.id) => Role::Leader,
                () => Role::Follower,
            },
            is_new: member.name.is_empty(),
            answer: at.and_then(|at| answers.remove(&at)),
        });
    }
    for (at, answer) in answers {
        let role = if reference.is_some() { Role::Outside } else { Role::Unknown };
        members.push(Seen {
            name: listed.get(&at).cloned().unwrap_or_else(|| at.to_string()),
            id: answer.as_ref().ok().and_then(Answer::member),
            endpoint: Some(at),
            peer_urls: vec![access.peer_url(at.ip())],
            role,
            is_new: false,
            answer: Some(answer),
        });
    }
    members.sort_by(|one, other| one.name.cmp(&other.name));
    View {
        name: access.list.name.clone(),
        id,
        members,
        alarms: reference.map(|answer| answer.alarms.clone()).unwrap_or_default(),
        requests: reference.map(|answer| answer.requests.clone()).unwrap_or_default(),
        certificates: access.certificates.clone(),
        leader,
    }
}
