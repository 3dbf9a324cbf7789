//! Numbers for accounts that leave theirs open: chosen once, recorded in the lock, never changed, since
//! files on a node's state partition carry them for years.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use super::super::error::Error;
use super::Wanted;
use crate::lock::Ids;

/// Accounts that are in many images, so that they have one number in all of them. A number here is given
/// to nobody else. Never change a line; add below.
const WELL_KNOWN: [(&str, u32); 25] = [
    ("systemd-journal", 999),
    ("systemd-network", 998),
    ("systemd-resolve", 997),
    ("systemd-timesync", 996),
    ("messagebus", 995),
    ("sshd", 994),
    ("etcd", 993),
    ("input", 992),
    ("sgx", 991),
    ("clock", 990),
    ("kvm", 989),
    ("render", 988),
    ("systemd-coredump", 987),
    ("polkitd", 986),
    ("tss", 985),
    ("_chrony", 984),
    ("postgres", 983),
    ("mysql", 982),
    ("redis", 981),
    ("prometheus", 980),
    ("haproxy", 979),
    ("unbound", 978),
    ("systemd-journal-remote", 977),
    ("systemd-oom", 976),
    ("rdma", 975),
];
/// Numbers that are free for others: below those that are well known, with room to add, and down to the lowest
/// that Debian leaves to the system's administrator: Debian Policy 9.2.2.
const USUAL: RangeInclusive<u32> = 100..=949;

/// Numbers for all of `wanted` that have none of their own. What `previous` has stays, also for accounts
/// that are gone: they may come back. New ones are taken by name, a user and its group get the same.
///
/// # Errors
/// `IdsDiffer` if an account now has a number of its own that is not the locked one; `NoIdLeft`.
pub fn allocate(wanted: &Wanted, previous: &Ids) -> Result<Ids, Error> {
    let fixed_users = wanted.users.iter().filter_map(|(name, user)| Some((name, user.uid?, &user.source)));
    let fixed_groups =
        wanted.groups.iter().filter_map(|(name, group)| Some((name, group.gid?, &group.source)));
    let mut taken: BTreeSet<u32> = WELL_KNOWN.iter().map(|(_, id)| *id).collect();
    taken.extend(previous.users.values());
    taken.extend(previous.groups.values());
    for (locked, fixed) in
        [(&previous.users, fixed_users.collect::<Vec<_>>()), (&previous.groups, fixed_groups.collect())]
    {
        for (name, id, source) in fixed {
            taken.insert(id);
            match locked.get(name) {
                Some(first) if *first != id => {
                    return Err(Error::IdsDiffer {
                        name: name.clone(),
                        first: *first,
                        first_source: "the lock".to_owned(),
                        second: id,
                        second_source: source.clone(),
                    });
                }
                _ => {}
            }
        }
    }

    let open_users = wanted.users.iter().filter(|(_, user)| user.uid.is_none()).map(|(name, _)| name);
    let open_groups = wanted.groups.iter().filter(|(_, group)| group.gid.is_none()).map(|(name, _)| name);
    let (open_users, open_groups): (BTreeSet<&String>, BTreeSet<&String>) =
        (open_users.collect(), open_groups.collect());
    let well_known: BTreeMap<&str, u32> = WELL_KNOWN.into_iter().collect();
    let in_range =
        |id: &u32| wanted.ranges.is_empty() || wanted.ranges.iter().any(|range| range.contains(id));
    let mut ids = previous.clone();
    let usual = std::slice::from_ref(&USUAL);
    let ranges = if wanted.ranges.is_empty() { usual } else { &wanted.ranges };
    let mut free = free(ranges.to_vec());
    for name in open_users.union(&open_groups).copied() {
        let known = ids.users.get(name).or_else(|| ids.groups.get(name)).copied();
        let id = match known
            .or_else(|| own_number(wanted, name))
            .or_else(|| well_known.get(name.as_str()).copied().filter(in_range))
        {
            Some(id) => id,
            None => {
                let id = free.find(|id| taken.insert(*id));
                id.ok_or_else(|| Error::NoIdLeft { name: name.clone(), ranges: text(ranges) })?
            }
        };
        if open_users.contains(name) {
            ids.users.entry(name.clone()).or_insert(id);
        }
        if open_groups.contains(name) {
            ids.groups.entry(name.clone()).or_insert(id);
        }
    }
    Ok(ids)
}

/// Numbers that may be chosen, the highest first. Those that no 16 or 32 bits can tell from -1 are nobody's.
fn free(mut ranges: Vec<RangeInclusive<u32>>) -> impl Iterator<Item = u32> {
    ranges.sort_by_key(|range| std::cmp::Reverse(*range.end()));
    ranges.into_iter().flat_map(Iterator::rev).filter(|id| ![0, 0xffff, 0xffff_ffff].contains(id))
}

fn text(ranges: &[RangeInclusive<u32>]) -> String {
    let texts: Vec<_> = ranges.iter().map(|range| format!("{} to {}", range.start(), range.end())).collect();
    texts.join(" and ")
}

/// The number that the user or the group of this name brings along, for the other one of the two.
fn own_number(wanted: &Wanted, name: &str) -> Option<u32> {
    let user = wanted.users.get(name).and_then(|user| user.uid);
    let group = wanted.groups.get(name).and_then(|group| group.gid);
    let id = user.or(group)?;
    // Not if it is somebody else's number of the other kind: `_apt` has user id 42, group shadow too.
    let free = !wanted.users.iter().any(|(other, user)| other != name && user.uid == Some(id))
        && !wanted.groups.iter().any(|(other, group)| other != name && group.gid == Some(id));
    free.then_some(id)
}

#[cfg(test)]
mod tests {
    use super::super::{Class, WantedGroup};
    use super::*;

    fn groups(names: &[(&str, Option<u32>)]) -> Wanted {
        let group = |gid| WantedGroup { source: "test".into(), gid, class: Class::System };
        let groups = names.iter().map(|(name, gid)| ((*name).to_owned(), group(*gid))).collect();
        Wanted { groups, ..Wanted::default() }
    }

    #[test]
    fn well_known_then_descending_by_name() {
        let wanted = groups(&[("zeta", None), ("alpha", None), ("kvm", None), ("fixed", Some(949))]);
        let ids = allocate(&wanted, &Ids::default()).unwrap();
        let expected = [("alpha", 948), ("kvm", 989), ("zeta", 947)].map(|(name, id)| (name.to_owned(), id));
        assert_eq!(ids.groups, expected.into());
    }

    #[test]
    fn locked_numbers_stay_and_are_kept_for_those_who_left() {
        let first = allocate(&groups(&[("b", None), ("c", None)]), &Ids::default()).unwrap();
        assert_eq!((first.groups["b"], first.groups["c"]), (949, 948));
        let second = allocate(&groups(&[("a", None), ("c", None)]), &first).unwrap();
        assert_eq!((second.groups["a"], second.groups["b"], second.groups["c"]), (947, 949, 948));
        let error = allocate(&groups(&[("b", Some(500))]), &second).unwrap_err().to_string();
        assert_eq!(error, "b has id 949 from the lock, but id 500 from test");
    }

    #[test]
    fn ranges_say_which_numbers_are_free() {
        let mut wanted = groups(&[("a", None), ("b", None), ("c", Some(601))]);
        wanted.ranges = vec![300..=300, 600..=601];
        let ids = allocate(&wanted, &Ids::default()).unwrap();
        assert_eq!((ids.groups["a"], ids.groups["b"]), (600, 300));
        wanted.groups.extend(groups(&[("kvm", None)]).groups);
        let error = allocate(&wanted, &ids).unwrap_err().to_string();
        assert_eq!(error, "no system id is left for kvm: all of 300 to 300 and 600 to 601 are taken");
    }

    #[test]
    fn well_known_numbers_are_distinct() {
        let numbers: BTreeSet<u32> = WELL_KNOWN.iter().map(|(_, id)| *id).collect();
        assert_eq!(numbers.len(), WELL_KNOWN.len());
        assert!(numbers.iter().all(|id| id > USUAL.end()));
    }
}
