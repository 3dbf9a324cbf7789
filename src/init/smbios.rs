//! Strings that the machine hands over in its SMBIOS table (DMTF DSP0134, "OEM Strings (Type 11)").

use super::given::Given;

/// The table, for which the kernel needs no module.
pub(super) const TABLE: &str = "/sys/firmware/dmi/tables/DMI";

const OEM_STRINGS: u8 = 11;
const END: u8 = 127;
/// Type, length and handle.
const HEADER: usize = 4;

/// What systemd takes for a credential (systemd.system-credentials(7)).
const PLAIN: &str = "io.systemd.credential:";
const BINARY: &str = "io.systemd.credential.binary:";

/// All OEM strings of `table`, in their order; what is cut short ends them.
fn strings(table: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    let mut rest = table;
    while let [kind, length, ..] = *rest {
        let Some(after) = rest.get(usize::from(length).max(HEADER)..) else { break };
        // Strings end in a NUL each, and all of them in another; where there are none, in two.
        let Some(end) = after.windows(2).position(|pair| pair == [0, 0]) else { break };
        if kind == OEM_STRINGS {
            found.extend(after[..end].split(|byte| *byte == 0).filter(|text| !text.is_empty()));
        }
        if kind == END {
            break;
        }
        rest = &after[end + 2..];
    }
    found
}

/// The credentials named `name`. One whose base64 is damaged is told by the text that says so.
pub(super) fn credentials(table: &[u8], name: &str) -> Vec<Result<Given, String>> {
    let text = |prefix: &str, string: &[u8]| -> Option<Vec<u8>> {
        let value = string.strip_prefix(prefix.as_bytes())?.strip_prefix(name.as_bytes())?;
        value.strip_prefix(b"=").map(<[u8]>::to_vec)
    };
    let source = || format!("the machine's SMBIOS credential {name}");
    let given = |bytes| Given { source: source(), bytes };
    let decoded = |value: Vec<u8>| {
        use base64::prelude::{BASE64_STANDARD, Engine};
        let damaged = |_| format!("{} is no base64", source());
        BASE64_STANDARD.decode(value.trim_ascii()).map(given).map_err(damaged)
    };
    let one = |string: &&[u8]| match (text(PLAIN, string), text(BINARY, string)) {
        (Some(value), _) => Some(Ok(given(value))),
        (None, Some(value)) => Some(decoded(value)),
        (None, None) => None,
    };
    strings(table).iter().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn structure(kind: u8, strings: &[&str]) -> Vec<u8> {
        let mut bytes = vec![kind, 5, 0, 1, u8::try_from(strings.len()).unwrap()];
        strings.iter().for_each(|text| bytes.extend([text.as_bytes(), b"\0"].concat()));
        bytes.extend(if strings.is_empty() { &b"\0\0"[..] } else { &b"\0"[..] });
        bytes
    }

    #[test]
    fn credentials_by_name() {
        let strings = [
            "other",
            "io.systemd.credential:keller.node=node: 1",
            "io.systemd.credential.binary:keller.node=bm9kZTogMg==",
            "io.systemd.credential.binary:keller.node=%",
            "io.systemd.credential:keller.node2=x",
        ];
        let table = [structure(1, &[]), structure(11, &strings), structure(127, &[])].concat();
        let found = credentials(&table, "keller.node");
        let found: Vec<_> = found
            .iter()
            .map(|one| one.as_ref().map(|it| it.bytes.as_slice()).map_err(String::as_str))
            .collect();
        let damaged = "the machine's SMBIOS credential keller.node is no base64";
        assert_eq!(found, [Ok(&b"node: 1"[..]), Ok(b"node: 2"), Err(damaged)]);
        // Whatever is cut off, nothing is read that is not there.
        for end in 0..table.len() {
            let _ = credentials(&table[..end], "keller.node");
        }
    }
}
