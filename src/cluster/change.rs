//! Members come and go. Nothing is done that could cost the cluster its majority: why not is said instead.
//!
//! A new member is a learner first, which has no vote: a cluster of three that takes in a fourth, which then does not come,
//! would need three of four. The agents of members promote it once it has caught up.

use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use thiserror::Error as ThisError;

use super::access::{self, Access};
use super::view::{Role, Seen, View};
use crate::base::failure::{Doing, Failure};
use crate::etcd::{Client, Code, Error};

/// etcd changes no members before all have been connected for 5 s.
const SETTLING: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(500);
/// As etcd's documentation has it: more cost more than they bear.
const MOST_MEMBERS: usize = 7;

/// Why a change is refused.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
pub enum Refusal {
    /// Fewer than half of all votes work.
    #[error(
        "{good} of {all} members with a vote work, and {needed} must: no change of members can be written"
    )]
    NoQuorum {
        /// With a vote.
        all: usize,
        /// Of these, those that work.
        good: usize,
        /// Of these, those that must.
        needed: usize,
    },
    /// The rest would be less than a majority.
    #[error(
        "without {name}, {left} of {all} members with a vote would work, and {needed} must: the cluster would stop. \
         First bring back those that do not work: {others}"
    )]
    Quorum {
        /// Who is to go.
        name: String,
        /// Who works without it.
        left: usize,
        /// Votes without it.
        all: usize,
        /// Of these, those that must work.
        needed: usize,
        /// Members that do not work.
        others: String,
    },
    /// The last one.
    #[error("{0} is the only member with a vote: without it there is no cluster")]
    Last(String),
    /// Nobody of this name.
    #[error("the cluster has no member {name}: it has {known}")]
    NoSuchMember {
        /// The name that was given.
        name: String,
        /// All others.
        known: String,
    },
    /// A member that works is not lost.
    #[error(
        "{0} works: `keller cluster replace` is for a member that is lost. To move it, `keller cluster add` the new one, \
         wait for its vote, then `keller cluster remove {0}`"
    )]
    Works(String),
    /// Something else must be mended before the cluster grows.
    #[error("{0} does not work: `keller cluster replace {0}` first, then add one more")]
    Wounded(String),
    /// etcd has one learner at a time.
    #[error("{0} is still without a vote, and only one member joins at a time: wait for it, or remove it")]
    Learner(String),
    /// More cost more than they bear.
    #[error("the cluster has {0} members, and at most {MOST_MEMBERS} are wise")]
    Many(usize),
    /// Two machines of one name.
    #[error("{name} is a member at {at}: each member has a name of its own")]
    NameTaken {
        /// The name.
        name: String,
        /// Where the other is.
        at: String,
    },
    /// Two machines at one address.
    #[error("{at} is the address of the member {name}: each member has an address of its own")]
    AddressTaken {
        /// The address.
        at: String,
        /// Who has it.
        name: String,
    },
    /// Where a member with this name is to be.
    #[error("the address of {0} is not known: write {0}=ADDRESS")]
    NoAddress(String),
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Changed {
    /// Who has gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub removed: Option<String>,
    /// Who was taken in as a learner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub added: Option<String>,
    /// Whether it was so before.
    pub was_so: bool,
    /// What follows from it that somebody may not expect.
    pub warnings: Vec<String>,
}

/// Takes in the member `name`, which answers others at `ip`.
///
/// # Errors
/// A [`Refusal`], and what etcd says.
pub fn add(access: &Access, name: &str, ip: Option<IpAddr>) -> Result<Changed, Failure> {
    let view = View::of(access);
    let doing = || format!("adding {name} to {}", view.name);
    let ip = ip.or_else(|| access.list.members.get(name).copied());
    let ip = ip.ok_or_else(|| Refusal::NoAddress(name.to_owned())).doing(doing())?;
    match may_add(&view, name, &access.peer_url(ip)).doing(doing())? {
        true => join(access, &view, name, ip).map_err(|failure| failure.within(&doing())),
        false => Ok(Changed { was_so: true, added: Some(name.to_owned()), ..Changed::default() }),
    }
}

/// Removes the member `name`.
///
/// # Errors
/// A [`Refusal`], and what etcd says.
pub fn remove(access: &Access, name: &str) -> Result<Changed, Failure> {
    let view = View::of(access);
    let doing = || format!("removing {name} from {}", view.name);
    let member = may_remove(&view, name).doing(doing())?;
    let warnings = view.votes().0.checked_sub(1).filter(|left| member.votes() && *left == 2);
    let warnings = warnings.map(|_| "two members are left: none of them may fail".to_owned());
    part(access, &view, member).map_err(|failure| failure.within(&doing()))?;
    Ok(Changed {
        removed: Some(name.to_owned()),
        warnings: warnings.into_iter().collect(),
        ..Changed::default()
    })
}

/// Removes the lost member `old`, and takes in `new` instead, which may have its name and its address. Said again, it
/// goes on where it was cut off.
///
/// # Errors
/// A [`Refusal`], and what etcd says.
pub fn replace(access: &Access, old: &str, new: &str, ip: Option<IpAddr>) -> Result<Changed, Failure> {
    let view = View::of(access);
    let doing = || format!("replacing {old} in {}", view.name);
    let lost = view.member(old).filter(|member| member.role != Role::Outside && member.id.is_some());
    let known = match old == new {
        true => lost.and_then(|lost| lost.peer_urls.iter().find_map(|url| access::address(url))),
        false => None,
    };
    let ip = ip.or(known.map(|at| at.ip())).or_else(|| access.list.members.get(new).copied());
    let ip = ip.ok_or_else(|| Refusal::NoAddress(new.to_owned())).doing(doing())?;
    let url = access.peer_url(ip);
    let Some(lost) = lost else {
        // It has gone before, as it does where this was cut off.
        return add(access, new, Some(ip)).map_err(|failure| failure.within(&doing()));
    };
    // A learner that has not started yet is what is wanted.
    if old == new && lost.is_new && lost.peer_urls.contains(&url) {
        return Ok(Changed { was_so: true, added: Some(new.to_owned()), ..Changed::default() });
    }
    may_replace(&view, lost, new, &url).doing(doing())?;
    part(access, &view, lost).map_err(|failure| failure.within(&doing()))?;
    let joined = join(access, &view, new, ip).map_err(|failure| failure.within(&doing()))?;
    Ok(Changed { removed: Some(old.to_owned()), ..joined })
}

/// Whether `name` at `url` is to be added: not where it is there.
fn may_add(view: &View, name: &str, url: &str) -> Result<bool, Refusal> {
    has_quorum(view)?;
    let inside = || view.members.iter().filter(|member| member.role != Role::Outside);
    if let Some(there) = inside().find(|member| member.peer_urls.iter().any(|other| other == url)) {
        return match there.name == name || there.is_nameless() {
            true => Ok(false),
            false => Err(Refusal::AddressTaken { at: url.to_owned(), name: there.name.clone() }),
        };
    }
    if let Some(other) = inside().find(|member| member.name == name) {
        return Err(Refusal::NameTaken { name: name.to_owned(), at: other.peer_urls.join(", ") });
    }
    if let Some(learner) = inside().find(|member| member.role == Role::Learner) {
        return Err(Refusal::Learner(learner.name.clone()));
    }
    if let Some(bad) = inside().find(|member| member.votes() && !member.is_good(view.id)) {
        return Err(Refusal::Wounded(bad.name.clone()));
    }
    let count = inside().count();
    if count >= MOST_MEMBERS {
        return Err(Refusal::Many(count));
    }
    Ok(true)
}

fn has_quorum(view: &View) -> Result<(), Refusal> {
    let (all, good, needed) = view.votes();
    if view.has_quorum() { Ok(()) } else { Err(Refusal::NoQuorum { all, good, needed }) }
}

fn may_remove<'a>(view: &'a View, name: &str) -> Result<&'a Seen, Refusal> {
    let inside = || view.members.iter().filter(|member| member.role != Role::Outside);
    has_quorum(view)?;
    let member = inside().find(|member| member.name == name).ok_or_else(|| {
        let known: Vec<&str> = inside().map(|member| member.name.as_str()).collect();
        Refusal::NoSuchMember { name: name.to_owned(), known: known.join(", ") }
    })?;
    let (all, good, _) = view.votes();
    if !member.votes() {
        return Ok(member);
    }
    if all == 1 {
        return Err(Refusal::Last(name.to_owned()));
    }
    let (all, left) = (all - 1, good - usize::from(member.is_good(view.id)));
    let needed = all / 2 + 1;
    if left < needed {
        let bad = inside().filter(|other| other.votes() && !other.is_good(view.id) && other.name != name);
        let others = bad.map(|other| other.name.clone()).collect::<Vec<_>>().join(", ");
        return Err(Refusal::Quorum { name: name.to_owned(), left, all, needed, others });
    }
    Ok(member)
}

fn may_replace(view: &View, lost: &Seen, new: &str, url: &str) -> Result<(), Refusal> {
    has_quorum(view)?;
    if lost.is_good(view.id) {
        return Err(Refusal::Works(lost.name.clone()));
    }
    may_remove(view, &lost.name)?;
    let others = || {
        let inside = view.members.iter().filter(|member| member.role != Role::Outside);
        inside.filter(|member| member.id != lost.id)
    };
    if let Some(other) = others().find(|member| member.name == new) {
        return Err(Refusal::NameTaken { name: new.to_owned(), at: other.peer_urls.join(", ") });
    }
    if let Some(other) = others().find(|member| member.peer_urls.iter().any(|other| other == url)) {
        return Err(Refusal::AddressTaken { at: url.to_owned(), name: other.name.clone() });
    }
    match others().find(|member| member.role == Role::Learner) {
        Some(learner) => Err(Refusal::Learner(learner.name.clone())),
        None => Ok(()),
    }
}

/// Whom to ask for a change: the leader, or else somebody who works.
fn asked(view: &View, except: Option<u64>) -> Option<&Seen> {
    let good = || view.members.iter().filter(|member| member.votes() && member.is_good(view.id));
    let not = |member: &&Seen| member.id != except;
    good().filter(not).find(|member| member.role == Role::Leader).or_else(|| good().find(not))
}

fn ask<T>(
    access: &Access,
    view: &View,
    except: Option<u64>,
    call: impl Fn(&mut Client) -> Result<T, Error>,
) -> Result<T, Failure> {
    let endpoint = asked(view, except).and_then(|member| member.endpoint);
    let endpoint = endpoint.ok_or("no other member with a vote answers").doing("choosing whom to ask")?;
    let doing = || format!("asking {endpoint}");
    let mut client = access.connect(endpoint).doing(doing())?;
    let begun = Instant::now();
    loop {
        match call(&mut client) {
            // It wants members to have been connected for a while, as they are not yet after a change.
            Err(Error::Refused { code: Code::Unavailable, message, .. })
                if message.ends_with("unhealthy cluster") && begun.elapsed() < SETTLING =>
            {
                thread::sleep(PAUSE);
            }
            answer => return answer.doing(doing()),
        }
    }
}

fn join(access: &Access, view: &View, name: &str, ip: IpAddr) -> Result<Changed, Failure> {
    let url = access.peer_url(ip);
    ask(access, view, None, |client| match client.add_learner(&url) {
        // etcd numbers a member by its address and the second in which it comes, and gives no number of one that has gone:
        // whoever comes back within a second has another in the next.
        Err(Error::Refused { code: Code::NotFound, .. }) => {
            thread::sleep(Duration::from_secs(1));
            client.add_learner(&url)
        }
        answer => answer,
    })?;
    Ok(Changed { added: Some(name.to_owned()), ..Changed::default() })
}

fn part(access: &Access, view: &View, member: &Seen) -> Result<(), Failure> {
    let id = member.id.ok_or("its number is not known").doing(format!("removing {}", member.name))?;
    // A leader that is asked to remove itself may end before it answers.
    if member.role == Role::Leader
        && let Some(heir) = asked(view, Some(id)).and_then(|heir| heir.id)
    {
        let endpoint = member.endpoint.ok_or("its address is not known").doing("asking the leader")?;
        let doing = || format!("moving the leadership away from {}", member.name);
        access.connect(endpoint).and_then(|mut client| client.lead(heir)).doing(doing())?;
    }
    ask(access, view, Some(id), |client| client.remove(id))
}

#[cfg(test)]
mod tests;
