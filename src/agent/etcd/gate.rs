//! Whether the etcd of this member may start. Pure: what the disk has and what the peers say go in, a step comes out.
//!
//! A member with data goes on. One without data begins a new cluster with the others only where none of them has data:
//! otherwise a member that was reinstalled would vote a second time under its old number, and the cluster could lose what
//! it has acknowledged. Members say to each other what they have, in two steps, since the first that starts can no longer
//! be asked:
//!
//! 1. *Empty* becomes *agreed* once all listed peers are empty or agreed. That is written down before it is said.
//! 2. *Agreed* starts once all listed peers are agreed, or run.
//!
//! A peer that answers nothing stops both steps, and an operator's word ([`Told`]) takes its place. As long as somebody is
//! not agreed nobody has started, so that no answer can be out of date: who agreed saw all others empty, and none of them
//! can have data before it has seen this one agreed.
//!
//! All that holds for one list. Members whose node documents differ in their lists would begin separate clusters. So nobody
//! agrees or starts beside such a peer ([`Peer::Lists`]), and an agreement on one list does not count for another. A running
//! cluster that has a seat for this member is joined all the same: its own list counts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What this member has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Own {
    /// No data.
    Empty,
    /// No data, and all peers had none when it asked them.
    Agreed,
    /// Data of etcd.
    Data,
}

/// What is known of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// It waits as well, with what it has.
    Waits(Own),
    /// Its etcd runs.
    Runs(Seat),
    /// It does not answer.
    Silent(String),
    /// It waits as well, and lists other members.
    Lists(String),
    /// It answers as somebody else: of another cluster, under another name.
    Other(String),
}

/// Whether the list of a cluster that runs has this member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seat {
    /// This member is not in the list.
    None,
    /// In the list, never started.
    Free,
    /// In the list, and started before.
    Taken,
}

/// Whether an operator has said that a new cluster begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// Nobody has.
    Nothing,
    /// `keller cluster bootstrap`.
    Bootstrap,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// etcd starts, with what it has or as one of the first.
    Start,
    /// etcd starts, as one more of a cluster that runs.
    Join,
    /// Write down that all are empty, and look again.
    Agree,
    /// Look again later; why, a line each.
    Wait(Vec<String>),
}

/// The step that follows from what this member has and what its peers say, by name.
pub(super) fn step(own: Own, peers: &BTreeMap<String, Peer>, told: Told) -> Step {
    if own == Own::Data {
        return Step::Start;
    }
    // Strangers are never passed over: their list may be the right one.
    let others: Vec<String> = why(peers, |peer| matches!(peer, Peer::Other(_)));
    if !others.is_empty() {
        return Step::Wait(others);
    }
    if peers.values().any(|peer| *peer == Peer::Runs(Seat::Free)) {
        return Step::Join;
    }
    match own {
        Own::Data => Step::Start,
        Own::Agreed => waiting(peers, |peer| match peer {
            Peer::Waits(own) => *own != Own::Empty,
            Peer::Runs(seat) => *seat == Seat::Taken,
            Peer::Silent(_) => told == Told::Bootstrap,
            Peer::Lists(_) | Peer::Other(_) => false,
        })
        .map_or(Step::Start, Step::Wait),
        Own::Empty => waiting(peers, |peer| match peer {
            // One that has data and waits does so for a moment: it is about to start.
            Peer::Waits(own) => *own != Own::Data,
            Peer::Silent(_) => told == Told::Bootstrap,
            Peer::Runs(_) | Peer::Lists(_) | Peer::Other(_) => false,
        })
        .map_or(Step::Agree, Step::Wait),
    }
}

/// Why not all peers are as they should be, if so.
fn waiting(peers: &BTreeMap<String, Peer>, is_good: impl Fn(&Peer) -> bool) -> Option<Vec<String>> {
    Some(why(peers, |peer| !is_good(peer))).filter(|lines| !lines.is_empty())
}

fn why(peers: &BTreeMap<String, Peer>, is_bad: impl Fn(&Peer) -> bool) -> Vec<String> {
    let bad = peers.iter().filter(|(_, peer)| is_bad(peer));
    bad.map(|(name, peer)| match peer {
        Peer::Waits(Own::Empty) => format!("{name} has not yet seen all members"),
        Peer::Waits(Own::Agreed) => format!("{name} waits for the others"),
        Peer::Runs(Seat::None) => format!(
            "{name} has the data of a cluster, and this member has none and is not in its list: `keller cluster add`, with the \
             name of this member, on {name} (docs/cluster.md, \"More members, and fewer\")"
        ),
        Peer::Waits(Own::Data) | Peer::Runs(_) => format!(
            "{name} has the data of a cluster, and this member has none. If it was reinstalled or its disk replaced: \
             `keller cluster replace`, with the name of this member, on {name} (docs/cluster.md, \"A member that was lost\")"
        ),
        Peer::Silent(cause) => format!("{name} does not answer ({cause})"),
        Peer::Lists(cause) | Peer::Other(cause) => format!("{name}: {cause}"),
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A member in the model: what its disk has, and whether its etcd runs.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Machine {
        own: Own,
        is_up: bool,
        runs: bool,
        /// How often it has started without data since anybody has lost all.
        begins: u32,
        /// Whether it saw the data of others, which a new beginning of its own would put at risk.
        wiped_with_data: bool,
    }

    /// xorshift64*: the same schedule for the same seed.
    struct Chance(u64);

    impl Chance {
        fn below(&mut self, end: u64) -> u64 {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % end
        }
    }

    type Rule = fn(Own, &BTreeMap<String, Peer>, Told) -> Step;

    /// What went wrong in a run, if anything did, and whether all came up where nobody disturbed them in the end.
    fn run(seed: u64, members: usize, rule: Rule) -> Result<bool, String> {
        run_listed(seed, &vec![members; members], rule)
    }

    /// The same of members of which each lists the first so many: those who come later are to join.
    fn run_listed(seed: u64, lists: &[usize], rule: Rule) -> Result<bool, String> {
        let members = lists.len();
        let mut chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let new = Machine { own: Own::Empty, is_up: false, runs: false, begins: 0, wiped_with_data: false };
        let mut machines = vec![new; members];
        // What a member has heard in its present round: answers come one by one, and others act between them.
        let mut heard: Vec<BTreeMap<String, Peer>> = vec![BTreeMap::new(); members];
        let disturbed = 120;
        for moment in 0..disturbed + 200 {
            let who = usize::try_from(chance.below(members as u64)).unwrap();
            let calm = moment >= disturbed;
            match chance.below(100) {
                // Power goes, comes back, or a disk is replaced.
                0..6 if !calm => {
                    machines[who].is_up = false;
                    machines[who].runs = false;
                    heard[who].clear();
                }
                6..8 if !calm => {
                    let had = machines[who].own == Own::Data;
                    let begins = machines[who].begins;
                    machines[who] =
                        Machine { wiped_with_data: had || machines[who].wiped_with_data, begins, ..new };
                    heard[who].clear();
                    // Once nobody has data there is nothing to lose: a new beginning is one.
                    if machines.iter().all(|machine| machine.own != Own::Data) {
                        for machine in &mut machines {
                            (machine.begins, machine.wiped_with_data) = (0, false);
                        }
                    }
                }
                _ if !machines[who].is_up => machines[who].is_up = true,
                _ if machines[who].runs => {}
                _ => look(&mut machines, &mut heard, (who, lists), &mut chance, calm, rule)?,
            }
        }
        Ok(machines.iter().zip(lists).all(|(machine, list)| machine.runs || list != &lists[0]))
    }

    /// One member asks one more peer, and acts when it has heard all.
    fn look(
        machines: &mut [Machine],
        heard: &mut [BTreeMap<String, Peer>],
        (who, lists): (usize, &[usize]),
        chance: &mut Chance,
        calm: bool,
        rule: Rule,
    ) -> Result<(), String> {
        let unheard =
            (0..lists[who]).find(|other| *other != who && !heard[who].contains_key(&other.to_string()));
        if let Some(other) = unheard {
            let Machine { own, is_up, runs, .. } = machines[other];
            let lost = !calm && chance.below(10) == 0;
            let answer = match (is_up && !lost, runs) {
                (false, _) => Peer::Silent("lost".to_owned()),
                (true, true) if who < lists[other] => Peer::Runs(Seat::Taken),
                (true, true) => Peer::Runs(Seat::None),
                (true, false) if lists[other] != lists[who] => Peer::Lists("others".to_owned()),
                (true, false) => Peer::Waits(own),
            };
            heard[who].insert(other.to_string(), answer);
            return Ok(());
        }
        let step = rule(machines[who].own, &heard[who], Told::Nothing);
        heard[who].clear();
        match step {
            Step::Wait(_) | Step::Join => {}
            Step::Agree => machines[who].own = Own::Agreed,
            Step::Start => {
                if machines[who].own != Own::Data {
                    machines[who].begins += 1;
                    // Data of a cluster is somewhere, and this member was part of it before.
                    if machines[who].wiped_with_data {
                        return Err(format!("{who} begins anew beside data: {machines:?}"));
                    }
                }
                machines[who].own = Own::Data;
                machines[who].runs = true;
                if lists[who] != lists[0] {
                    return Err(format!("{who} begins a cluster that the first do not list: {machines:?}"));
                }
            }
        }
        Ok(())
    }

    #[test]
    fn no_schedule_makes_a_wiped_member_begin_anew() {
        let mut formed = 0;
        for seed in 0..20_000 {
            for members in [1, 2, 3, 5] {
                formed += u32::from(
                    run(seed, members, step).unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}")),
                );
            }
        }
        assert!(formed > 10_000, "only {formed} clusters formed");
    }

    /// One or two machines that are to join later are there from the beginning.
    #[test]
    fn no_schedule_makes_one_that_is_to_join_begin() {
        let careless: Rule = |own, peers, told| {
            let peers = peers.iter().map(|(name, peer)| match peer {
                Peer::Lists(_) => (name.clone(), Peer::Waits(Own::Agreed)),
                other => (name.clone(), other.clone()),
            });
            step(own, &peers.collect(), told)
        };
        for lists in [&[1, 2][..], &[2, 2, 3], &[2, 2, 3, 4], &[2, 2, 5, 5, 5]] {
            let mut formed = 0;
            for seed in 0..2_000 {
                let calm = run_listed(seed, lists, step);
                formed += u32::from(calm.unwrap_or_else(|wrong| panic!("{lists:?}, seed {seed}: {wrong}")));
            }
            assert!(formed > 500, "{lists:?}: only {formed} clusters formed");
            assert!((0..2_000).any(|seed| run_listed(seed, lists, careless).is_err()), "{lists:?}");
        }
    }

    /// The model sees what careless rules do.
    #[test]
    fn careless_rules_are_seen() {
        let at_once: Rule = |own, peers, told| match step(own, peers, told) {
            Step::Agree => Step::Start,
            other => other,
        };
        let silent_is_empty: Rule = |own, peers, _| step(own, peers, Told::Bootstrap);
        let running_is_fine: Rule = |own, peers, told| {
            let peers = peers.iter().map(|(name, peer)| match peer {
                Peer::Runs(_) => (name.clone(), Peer::Waits(Own::Agreed)),
                other => (name.clone(), other.clone()),
            });
            step(own, &peers.collect(), told)
        };
        for (name, rule) in [("silent is empty", silent_is_empty), ("running is fine", running_is_fine)] {
            let seen = (0..20_000).any(|seed| run(seed, 3, rule).is_err());
            assert!(seen, "{name} was not seen");
        }
        // Without the second step nobody loses anything, and the others wait for ever.
        let calm = |rule: Rule| (0..2_000).filter(|seed| run(*seed, 3, rule) == Ok(true)).count();
        assert!(calm(at_once) < calm(step), "{} and {}", calm(at_once), calm(step));
    }

    #[test]
    fn each_wait_has_its_word() {
        let peers =
            |peer: Peer| BTreeMap::from([("b".to_owned(), Peer::Waits(Own::Agreed)), ("c".to_owned(), peer)]);
        let silent = peers(Peer::Silent("no route to host".to_owned()));
        let waits = |own, peers: &_| match step(own, peers, Told::Nothing) {
            Step::Wait(lines) => lines.join("\n"),
            other => panic!("{other:?}"),
        };
        assert_eq!(waits(Own::Empty, &silent), "c does not answer (no route to host)");
        assert_eq!(step(Own::Empty, &silent, Told::Bootstrap), Step::Agree);
        assert_eq!(step(Own::Agreed, &silent, Told::Bootstrap), Step::Start);
        assert_eq!(step(Own::Data, &silent, Told::Nothing), Step::Start);
        let runs = peers(Peer::Runs(Seat::Taken));
        assert!(waits(Own::Empty, &runs).contains("replace`, with the name of this member, on c"));
        assert!(matches!(step(Own::Empty, &runs, Told::Bootstrap), Step::Wait(_)));
        assert_eq!(step(Own::Agreed, &runs, Told::Nothing), Step::Start);
        // What has agreed on a cluster begins none beside another.
        let elsewhere = peers(Peer::Runs(Seat::None));
        for own in [Own::Empty, Own::Agreed] {
            assert!(waits(own, &elsewhere).contains("add`, with the name of this member, on c"));
        }
        assert_eq!(step(Own::Empty, &peers(Peer::Runs(Seat::Free)), Told::Nothing), Step::Join);
        let list = Peer::Lists("its node document lists others".to_owned());
        for own in [Own::Empty, Own::Agreed] {
            assert_eq!(waits(own, &peers(list.clone())), "c: its node document lists others");
            assert!(matches!(step(own, &peers(list.clone()), Told::Bootstrap), Step::Wait(_)));
        }
        // A cluster that has a seat for this member counts, whatever somebody lists who waits as well.
        let mut invited = peers(list);
        invited.insert("b".to_owned(), Peer::Runs(Seat::None));
        assert!(waits(Own::Empty, &invited).contains("add`, with the name of this member, on b"));
        invited.insert("b".to_owned(), Peer::Runs(Seat::Free));
        assert_eq!(step(Own::Empty, &invited, Told::Nothing), Step::Join);
        let other = peers(Peer::Other("it is of the cluster rack2".to_owned()));
        assert_eq!(waits(Own::Agreed, &other), "c: it is of the cluster rack2");
        assert_eq!(waits(Own::Agreed, &peers(Peer::Waits(Own::Empty))), "c has not yet seen all members");
        assert_eq!(step(Own::Empty, &BTreeMap::new(), Told::Nothing), Step::Agree);
    }
}
