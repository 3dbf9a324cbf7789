//! What the boot loader tells the system that it starts, in variables of the firmware. Source: systemd, "The Boot
//! Loader Interface".

use std::fs;

use uuid::Uuid;

/// Where Linux shows the firmware's variables, and the vendor GUID of the boot loader's.
const FOLDER: &str = "/sys/firmware/efi/efivars";
const VENDOR: &str = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";

const PARTITION: &str = "LoaderDevicePartUUID";
/// Name of the entry that was started, without its counter; in small letters if it had none.
pub const SELECTED: &str = "LoaderEntrySelected";
/// Path of the entry that was started, after it was counted down; there only if it has a counter.
pub const COUNTED: &str = "LoaderBootCountPath";

/// The text of a variable, if there is one.
pub fn read(name: &str) -> Option<String> {
    text(&fs::read(format!("{FOLDER}/{name}-{VENDOR}")).ok()?)
}

/// PARTUUID of the ESP that the boot loader came from, where there is firmware and it told.
pub fn partition() -> Option<Uuid> {
    read(PARTITION)?.parse().ok()
}

/// Four bytes of attributes, then UTF-16 with an end mark.
fn text(bytes: &[u8]) -> Option<String> {
    let (units, rest) = bytes.get(4..)?.as_chunks::<2>();
    let units: Vec<u16> = units.iter().map(|unit| u16::from_le_bytes(*unit)).collect();
    let text = String::from_utf16(&units).ok().filter(|_| rest.is_empty())?;
    Some(text.trim_end_matches('\0').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_utf16_behind_their_attributes() {
        let mut bytes = vec![6, 0, 0, 0];
        bytes.extend("node_1.0.0.efi\0".encode_utf16().flat_map(u16::to_le_bytes));
        assert_eq!(text(&bytes).as_deref(), Some("node_1.0.0.efi"));
        assert_eq!(text(&bytes[..bytes.len() - 1]), None);
        assert_eq!(text(b"x"), None);
    }
}
