//! Which package dpkg would have unpacked before which, as far as their control files say.
//!
//! A package comes after what it depends on (Depends, Pre-Depends), and after the essential packages and what
//! these need, since nobody names those (Debian Policy 3.8). Packages that need each other have no order, nor
//! have packages that know nothing of one another: what is decided between such must not hang on their names.

use std::collections::{BTreeSet, HashMap};

use super::{PackagesError, Unpacked};
use crate::base::limits;
use crate::base::width::to_index;
use crate::source::debian::version::{Relation, groups, relations};

const WORD: usize = to_index(u64::BITS);

/// Packages by their position in the list that it was made of.
#[derive(Debug)]
pub struct Order {
    /// For each package, a bit for every one that it needs, directly or not.
    needs: Vec<Vec<u64>>,
}

impl Order {
    /// Reads the relations between `packages`. One that cannot be read, or that no package of the list meets,
    /// says nothing.
    ///
    /// # Errors
    /// `Entangled`.
    pub fn of(packages: &[Unpacked]) -> Result<Self, PackagesError> {
        let providers = providers(packages);
        let mut left = limits::RELATIONS;
        let direct = packages.iter().map(|package| needed(package, &providers, &mut left));
        let direct: Vec<Vec<usize>> = direct.collect::<Result<_, _>>()?;
        let mut needs: Vec<Vec<u64>> = (0..packages.len()).map(|index| closure(&direct, [index])).collect();
        let essential = packages.iter().enumerate().filter(|(_, package)| {
            package.control.get("Essential").is_some_and(|value| value.eq_ignore_ascii_case("yes"))
        });
        let essential: Vec<usize> = essential.map(|(index, _)| index).collect();
        let mut base = closure(&direct, essential.iter().copied());
        essential.iter().for_each(|index| set(&mut base, *index));
        for (index, needs) in needs.iter_mut().enumerate() {
            if !has(&base, index) {
                needs.iter_mut().zip(&base).for_each(|(needs, base)| *needs |= base);
            }
        }
        Ok(Self { needs })
    }

    /// Whether `first` is unpacked before `second` by any order that dpkg is given.
    pub fn before(&self, first: usize, second: usize) -> bool {
        has(&self.needs[second], first) && !has(&self.needs[first], second)
    }

    /// Those of `packages` before which none of them comes.
    pub fn first_of(&self, packages: &[usize]) -> Vec<usize> {
        let later = |one: &usize| packages.iter().any(|other| self.before(*other, *one));
        packages.iter().filter(|one| !later(one)).copied().collect()
    }
}

/// A package under one of its names, with the version that it has under it.
type Provider<'a> = (usize, Option<&'a str>, bool);

/// Packages by the names that they have or provide.
fn providers(packages: &[Unpacked]) -> HashMap<&str, Vec<Provider<'_>>> {
    let mut providers: HashMap<&str, Vec<Provider<'_>>> = HashMap::new();
    for (index, package) in packages.iter().enumerate() {
        providers.entry(&package.name).or_default().push((index, Some(&package.version), true));
        for provided in relations(package.control.get("Provides").unwrap_or_default()).flatten() {
            let version = provided.bound.map(|(_, version)| version);
            providers.entry(provided.name).or_default().push((index, version, false));
        }
    }
    providers
}

/// Every package that meets a dependency of this one: any of them may have been there first.
fn needed(
    package: &Unpacked,
    providers: &HashMap<&str, Vec<Provider<'_>>>,
    left: &mut usize,
) -> Result<Vec<usize>, PackagesError> {
    let fields = ["Pre-Depends", "Depends"].map(|field| package.control.get(field).unwrap_or_default());
    let mut needed = BTreeSet::new();
    for relation in fields.into_iter().flat_map(groups).flatten().flatten() {
        let known = providers.get(relation.name).map_or(0, Vec::len);
        let rest = left.checked_sub(1 + known * relation.cost());
        *left = rest.ok_or_else(|| PackagesError::Entangled { name: package.name.clone() })?;
        needed.extend(met(&relation, providers));
    }
    Ok(needed.into_iter().collect())
}

fn met(relation: &Relation<'_>, providers: &HashMap<&str, Vec<Provider<'_>>>) -> Vec<usize> {
    let known = providers.get(relation.name).map(Vec::as_slice).unwrap_or_default();
    let admitted = known.iter().filter(|(_, version, real)| match real {
        true => version.is_some_and(|version| relation.admits(version)),
        false => relation.admits_provided(*version),
    });
    admitted.map(|(index, ..)| *index).collect()
}

/// All that is reached from `from` in one step or more.
fn closure(direct: &[Vec<usize>], from: impl IntoIterator<Item = usize>) -> Vec<u64> {
    let mut reached = vec![0; direct.len().div_ceil(WORD)];
    let mut pending: Vec<usize> = from.into_iter().flat_map(|index| direct[index].iter().copied()).collect();
    while let Some(index) = pending.pop() {
        if !has(&reached, index) {
            set(&mut reached, index);
            pending.extend(&direct[index]);
        }
    }
    reached
}

fn has(bits: &[u64], index: usize) -> bool {
    bits[index / WORD] >> (index % WORD) & 1 == 1
}

fn set(bits: &mut [u64], index: usize) {
    bits[index / WORD] |= 1 << (index % WORD);
}

#[cfg(test)]
mod tests {
    use super::super::tests::package;
    use super::*;

    #[test]
    fn what_is_needed_comes_first() {
        let packages = [
            package("a", "Depends: virtual (>= 2) | gone, c\n", &[]),
            package("b", "Provides: virtual (= 2)\n", &[]),
            package("c", "Pre-Depends: d\n", &[]),
            package("d", "Depends: c (>= 1)\n", &[]),
            package("e", "Essential: yes\nDepends: f (<< 2)\n", &[]),
            package("f", "Depends: nobody\n", &[]),
        ];
        let order = Order::of(&packages).unwrap();
        assert!(order.before(1, 0) && order.before(2, 0) && order.before(3, 0));
        assert!(!order.before(2, 3) && !order.before(3, 2), "a circle has no order");
        assert!(order.before(5, 4) && order.before(4, 0) && order.before(5, 1) && !order.before(0, 5));
        assert!(!order.before(1, 2) && !order.before(2, 1));
        assert_eq!(order.first_of(&[0, 1, 2]), [1, 2]);
    }
}
