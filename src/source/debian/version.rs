//! Versions and relations: deb-version(7) and Debian Policy 7.1.
//!
//! All our own: crate `debversion` holds `1.` and `1.0` apart, which dpkg does not, and wants owned strings
//! and regular expressions for what borrowed bytes do.

use std::cmp::Ordering;
use std::fmt;

/// The architecture that packages are resolved for.
pub const ARCHITECTURE: &str = "amd64";

/// Compares two versions as dpkg does. Total: any text has its place in the order.
pub fn compare(a: &str, b: &str) -> Ordering {
    let (epoch_a, upstream_a, revision_a) = split(a);
    let (epoch_b, upstream_b, revision_b) = split(b);
    compare_part(epoch_a, epoch_b)
        .then_with(|| compare_part(upstream_a, upstream_b))
        .then_with(|| compare_part(revision_a, revision_b))
}

/// Epoch, upstream version and revision; an absent epoch or revision is empty, which compares as zero.
fn split(version: &str) -> (&str, &str, &str) {
    let (epoch, rest) = version.split_once(':').unwrap_or(("", version));
    let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
    (epoch, upstream, revision)
}

/// Where a character stands among non-digits: `~` before the end, letters before all others.
fn rank(byte: Option<&u8>) -> i32 {
    match byte {
        Some(b'~') => -1,
        None | Some(b'0'..=b'9') => 0,
        Some(letter) if letter.is_ascii_alphabetic() => i32::from(*letter),
        Some(other) => i32::from(*other) + 256,
    }
}

fn compare_part(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    while !a.is_empty() || !b.is_empty() {
        let is_text = |part: &[u8]| part.first().is_some_and(|byte| !byte.is_ascii_digit());
        while is_text(a) || is_text(b) {
            match rank(a.first()).cmp(&rank(b.first())) {
                Ordering::Equal => {}
                order => return order,
            }
            a = a.get(1..).unwrap_or_default();
            b = b.get(1..).unwrap_or_default();
        }
        let (number_a, rest_a) = number(a);
        let (number_b, rest_b) = number(b);
        match number_a.len().cmp(&number_b.len()).then_with(|| number_a.cmp(number_b)) {
            Ordering::Equal => {}
            order => return order,
        }
        (a, b) = (rest_a, rest_b);
    }
    Ordering::Equal
}

/// Leading digits without their zeroes, and what follows them.
fn number(part: &[u8]) -> (&[u8], &[u8]) {
    let zeroes = part.iter().take_while(|byte| **byte == b'0').count();
    let part = &part[zeroes..];
    part.split_at(part.iter().take_while(|byte| byte.is_ascii_digit()).count())
}

/// How a relation bounds a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `<<`
    Earlier,
    /// `<=`
    EarlierOrEqual,
    /// `=`
    Equal,
    /// `>=`
    LaterOrEqual,
    /// `>>`
    Later,
}

impl Operator {
    /// Whether `version` is on the right side of `bound`.
    pub fn holds(self, version: &str, bound: &str) -> bool {
        let order = compare(version, bound);
        match self {
            Self::Earlier => order.is_lt(),
            Self::EarlierOrEqual => order.is_le(),
            Self::Equal => order.is_eq(),
            Self::LaterOrEqual => order.is_ge(),
            Self::Later => order.is_gt(),
        }
    }
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Earlier => "<<",
            Self::EarlierOrEqual => "<=",
            Self::Equal => "=",
            Self::LaterOrEqual => ">=",
            Self::Later => ">>",
        })
    }
}

/// One package of a relation field: `libc6 (>= 2.38)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relation<'a> {
    /// Name without qualifier.
    pub name: &'a str,
    /// The bound on its version.
    pub bound: Option<(Operator, &'a str)>,
}

impl Relation<'_> {
    /// Whether a package of this version will do.
    pub fn admits(&self, version: &str) -> bool {
        self.bound.is_none_or(|(operator, bound)| operator.holds(version, bound))
    }

    /// What looking at one package costs, where 1 is a version of usual length: two are compared up to the end of the
    /// shorter one.
    pub fn cost(&self) -> usize {
        const USUAL: usize = 32;
        1 + self.bound.map_or(0, |(_, version)| version.len() / USUAL)
    }

    /// Whether a package that provides the name at `version` will do: only a versioned provision meets a bound.
    pub fn admits_provided(&self, version: Option<&str>) -> bool {
        self.bound.is_none() || version.is_some_and(|version| self.admits(version))
    }
}

impl fmt::Display for Relation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        self.bound.map_or(Ok(()), |(operator, bound)| write!(f, " ({operator} {bound})"))
    }
}

/// A relation that is not of the form that Policy 7.1 gives.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a relation between packages")]
pub struct ParseRelationError {
    /// The relation as it stands in the index.
    pub text: String,
}

/// The comma-separated parts of a field, each a list of alternatives. A part whose alternatives are all for
/// other architectures does not apply and is left out.
pub fn groups(field: &str) -> impl Iterator<Item = Result<Vec<Relation<'_>>, ParseRelationError>> {
    field.split(',').map(str::trim).filter(|group| !group.is_empty()).filter_map(|group| {
        let alternatives: Result<Vec<_>, _> =
            group.split('|').filter_map(|text| relation(text.trim()).transpose()).collect();
        Some(alternatives).filter(|alternatives| !matches!(alternatives, Ok(list) if list.is_empty()))
    })
}

/// All relations of a field that knows no alternatives, such as Provides and Conflicts.
pub fn relations(field: &str) -> impl Iterator<Item = Result<Relation<'_>, ParseRelationError>> {
    parts(field).map(str::trim).filter(|text| !text.is_empty()).filter_map(|text| relation(text).transpose())
}

/// What stands between commas and bars.
fn parts(field: &str) -> impl Iterator<Item = &str> {
    let mut begin = 0;
    memchr::memchr2_iter(b',', b'|', field.as_bytes()).chain([field.len()]).map(move |end| {
        let part = &field[begin..end];
        begin = end + 1;
        part
    })
}

/// One relation, `None` when it is for other architectures.
fn relation(text: &str) -> Result<Option<Relation<'_>>, ParseRelationError> {
    let malformed = || ParseRelationError { text: text.to_owned() };
    let (name, rest) = text.split_at(text.bytes().position(|byte| !is_in_name(byte)).unwrap_or(text.len()));
    if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err(malformed());
    }
    let (qualifier, rest) = match rest.strip_prefix(':') {
        None => ("any", rest),
        Some(rest) => rest.split_at(rest.find([' ', '\t', '(', '[', '<']).unwrap_or(rest.len())),
    };
    let mut rest = rest.trim_start();
    let mut bound = None;
    if let Some(inner) = rest.strip_prefix('(') {
        let (inside, after) = inner.split_once(')').ok_or_else(malformed)?;
        let inside = inside.trim();
        let sign = inside.find(|c| !matches!(c, '<' | '>' | '=')).ok_or_else(malformed)?;
        let operator = match &inside[..sign] {
            "<<" => Operator::Earlier,
            "<=" | "<" => Operator::EarlierOrEqual,
            "=" => Operator::Equal,
            ">=" | ">" => Operator::LaterOrEqual,
            ">>" => Operator::Later,
            _ => return Err(malformed()),
        };
        let version = inside[sign..].trim();
        if version.is_empty() || version.contains(char::is_whitespace) {
            return Err(malformed());
        }
        bound = Some((operator, version));
        rest = after.trim_start();
    }
    let mut applies = matches!(qualifier, "any" | "native" | ARCHITECTURE);
    if let Some(inner) = rest.strip_prefix('[') {
        let (list, after) = inner.split_once(']').ok_or_else(malformed)?;
        applies &= applies_here(list);
        rest = after.trim_start();
    }
    // Build profiles (`<!nocheck>`) have no meaning for binary packages.
    let only_profiles = rest.is_empty() || rest.starts_with('<') && rest.ends_with('>');
    if !only_profiles {
        return Err(malformed());
    }
    Ok(applies.then_some(Relation { name, bound }))
}

/// Whether an architecture list such as `amd64 linux-any` or `!i386` names [`ARCHITECTURE`].
fn applies_here(list: &str) -> bool {
    let here = |name: &str| matches!(name, ARCHITECTURE | "any" | "linux-any" | "any-amd64" | "linux-amd64");
    let mut names = list.split_whitespace().peekable();
    match names.peek() {
        Some(first) if first.starts_with('!') => names.all(|name| !here(name.trim_start_matches('!'))),
        _ => names.any(here),
    }
}

/// Whether `text` can name a package. Capitals are against Policy, but foreign archives have them.
pub fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.bytes().all(is_in_name)
}

fn is_in_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.' | b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_as_dpkg_does() {
        let ascending = [
            "0~~",
            "0~",
            "0",
            "1.0~rc1-1",
            "1.0-1~deb13u1",
            "1.0-1",
            "1.0-1+b1",
            "1.0-1.1",
            "1.0a-1",
            "1.0+dfsg-1",
            "1.2-1",
            "1.10-1",
            "20180101-1",
            "1:0.1-1",
            "2:0",
        ];
        for (at, low) in ascending.iter().enumerate() {
            assert_eq!(compare(low, low), Ordering::Equal, "{low}");
            for high in &ascending[at + 1..] {
                assert_eq!(compare(low, high), Ordering::Less, "{low} {high}");
                assert_eq!(compare(high, low), Ordering::Greater, "{high} {low}");
            }
        }
        for (a, b) in [("1.", "1.0"), ("a", "a0"), ("0:1", "1"), ("1-0", "1"), ("1.01", "1.1")] {
            assert_eq!(compare(a, b), Ordering::Equal, "{a} {b}");
        }
    }

    #[test]
    fn reads_relations() {
        let field =
            "libc6 (>= 2.38), awk|mawk (<<1.3-2) , python3:any, x [!amd64] | y [i386], z:i386 | w <!nocheck>";
        let shown: Vec<String> = groups(field)
            .map(|group| group.unwrap().iter().map(ToString::to_string).collect::<Vec<_>>().join(" | "))
            .collect();
        assert_eq!(shown, ["libc6 (>= 2.38)", "awk | mawk (<< 1.3-2)", "python3", "w"]);
        for bad in ["a (", "a (>=)", "(= 1)", "a (~ 1)", "a b", "a [amd64", "Ü", "a (= 1) x"] {
            assert!(groups(bad).any(|group| group.is_err()), "{bad}");
        }
    }

    #[test]
    fn only_versioned_provisions_meet_a_bound() {
        let relation = relation("x (>= 2)").unwrap().unwrap();
        assert!(relation.admits_provided(Some("2")) && !relation.admits_provided(Some("1")));
        assert!(!relation.admits_provided(None));
    }
}
