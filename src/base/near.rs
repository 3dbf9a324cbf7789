//! Names that were probably meant by one that nothing has, and how a message offers them.

/// How many names are offered.
const SHOWN: usize = 3;
/// Letters of the longest word that others are looked for. Each is compared with all names, in steps that grow with the
/// product of the lengths.
const LONGEST: usize = 100;
/// Letters that a stem has at least, for others to be found by it: `lib` is part of too many names below that.
const STEM: usize = 3;

/// Up to three of `names` that are nearest to `wanted`, the nearest first.
pub fn near<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    nearest(wanted, names, most_edits(wanted), |_| false)
}

/// As [`near`], and those whose stem (what stands before `.` or `@`) is part of the other's: `sshd.service` finds
/// `ssh.socket`.
pub fn near_or_part<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let one = stem(wanted);
    // Most have the same ending, which says nothing of how much alike they are.
    nearest(wanted, names, most_edits(one), |name| {
        let other = stem(name);
        one.len().min(other.len()) >= STEM && (one.contains(other) || other.contains(one))
    })
}

/// The end of a message that says that there is no such name: nothing without a name to offer.
pub fn did_you_mean<S: AsRef<str>>(names: &[S]) -> String {
    match names {
        [] => String::new(),
        names => format!("; {}", question(names)),
    }
}

/// The offer alone, for where a message has a line for its advice.
pub fn question<S: AsRef<str>>(names: &[S]) -> String {
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    match names.as_slice() {
        [several @ .., one, last] => {
            format!("did you mean {} or {last}?", [several, &[one]].concat().join(", "))
        }
        names => format!("did you mean {}?", names.concat()),
    }
}

/// How many edits are a slip: a third of the letters.
fn most_edits(wanted: &str) -> usize {
    (wanted.chars().count() / 3).clamp(1, 3)
}

fn nearest<'a>(
    wanted: &str,
    names: impl IntoIterator<Item = &'a str>,
    most: usize,
    part: impl Fn(&str) -> bool,
) -> Vec<String> {
    let letters = wanted.chars().count();
    if letters > LONGEST {
        return Vec::new();
    }
    let mut found: Vec<(usize, &str)> = names
        .into_iter()
        .filter(|name| name.chars().count().abs_diff(letters) <= most || part(name))
        // Edits: insert, delete, replace a letter, swap neighbours.
        .map(|name| (strsim::osa_distance(wanted, name), name))
        .filter(|(edits, name)| *edits <= most || part(name))
        .collect();
    found.sort_unstable();
    found.dedup();
    found.into_iter().take(SHOWN).map(|(_, name)| name.to_owned()).collect()
}

fn stem(name: &str) -> &str {
    name.split(['.', '@']).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_found_and_other_names_are_not() {
        let packages = ["nginx", "podman", "etcd-server", "etcd-client", "libc6"];
        assert_eq!(near("ngnix", packages), ["nginx"]);
        assert_eq!(near("podmann", packages), ["podman"]);
        assert_eq!(near("etcd-serve", packages), ["etcd-server"]);
        assert!(near("postgresql", packages).is_empty());
        assert!(near("etcd", packages).is_empty(), "a part is no slip");
        let fields = ["packages", "users", "disk"];
        assert_eq!(near("pakages", fields), ["packages"]);
        assert_eq!(near("disc", fields), ["disk"]);
        assert_eq!(near("user", fields), ["users"]);
        assert!(near("firewall", fields).is_empty());
        assert_eq!(near("größe", ["grösse", "große"]), ["große"], "letters are counted, not bytes");
        assert!(near("", fields).is_empty());
        let long = "x".repeat(LONGEST);
        assert_eq!(near(&long, [&long[1..]]), [&long[1..]]);
        assert!(near(&format!("{long}x"), [long.as_str()]).is_empty());
    }

    #[test]
    fn the_nearest_three_come_first() {
        let names = ["ssshd", "sshd2", "sshe", "sshd1", "sshd1"];
        assert_eq!(near("sshd", names), ["sshd1", "sshd2", "sshe"]);
    }

    #[test]
    fn parts_are_found_by_their_stems() {
        let units = ["ssh.service", "ssh.socket", "etcd.service", "systemd-networkd.service"];
        assert_eq!(near_or_part("sshd.service", units), ["ssh.service", "ssh.socket"]);
        assert_eq!(near_or_part("ectd.service", units), ["etcd.service"]);
        assert_eq!(near_or_part("networkd.service", units), ["systemd-networkd.service"]);
        assert!(near_or_part("postgresql.service", units).is_empty());
    }

    #[test]
    fn one_wording_for_any_number() {
        assert_eq!(did_you_mean::<&str>(&[]), "");
        assert_eq!(did_you_mean(&["a"]), "; did you mean a?");
        assert_eq!(did_you_mean(&["a", "b"]), "; did you mean a or b?");
        assert_eq!(did_you_mean(&["a", "b", "c"]), "; did you mean a, b or c?");
        assert_eq!(question(&["`a`"]), "did you mean `a`?");
    }
}
