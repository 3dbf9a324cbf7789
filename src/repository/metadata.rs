//! Metadata files of a TUF repository: their names, and how they are signed.
//!
//! Source: The Update Framework Specification 1.0, sections 3 and 4. Reading and verifying is left to `tough`.

use std::collections::HashMap;
use std::num::NonZeroU64;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tough::schema::{Role, RoleType, Root, Signed, Snapshot};

/// Version of the specification that the metadata names.
pub(super) const SPEC_VERSION: &str = "1.0.0";
/// Folder of the metadata.
pub(super) const FOLDER: &str = "metadata";
/// The one metadata file without a number.
pub(super) const TIMESTAMP: &str = "timestamp.json";

/// The roles with keys of their own.
pub(super) const ROLES: [RoleType; 4] =
    [RoleType::Root, RoleType::Targets, RoleType::Snapshot, RoleType::Timestamp];

/// `N.ROLE.json`.
pub(super) fn numbered(version: u64, role: RoleType) -> String {
    format!("{version}.{role}.json")
}

/// The number of a file `N.ROLE.json`.
pub(super) fn number_of(name: &str, role: RoleType) -> Option<u64> {
    name.strip_suffix(&format!(".{role}.json"))?.parse().ok()
}

/// Member of a snapshot that is ours.
const MEMBER: &str = "keller";

/// What a snapshot says of the one that nodes saw before it.
#[derive(Serialize, Deserialize)]
struct Follows {
    follows: u64,
    at: Timestamp,
}

/// Says in a snapshot which one it takes the place of, and when.
pub(super) fn following(snapshot: u64, at: Timestamp) -> HashMap<String, serde_json::Value> {
    let value =
        serde_json::to_value(Follows { follows: snapshot, at }).expect("a number and a time are JSON");
    HashMap::from([(MEMBER.to_owned(), value)])
}

/// Which snapshot nodes saw before `snapshot`, and until when: older publishers did not say.
pub(super) fn follows(snapshot: &Snapshot) -> Option<(u64, Timestamp)> {
    let Follows { follows, at } = serde_json::from_value(snapshot._extra.get(MEMBER)?.clone()).ok()?;
    Some((follows, at))
}

/// The version after `version`.
pub(super) fn after(version: u64) -> NonZeroU64 {
    NonZeroU64::new(version.saturating_add(1)).expect("one more than something is not zero")
}

/// The bytes of a metadata file: names in order, so that the same metadata is the same file.
pub(super) fn bytes<T: Serialize>(signed: &Signed<T>) -> Vec<u8> {
    let value = serde_json::to_value(signed).expect("metadata is JSON");
    let mut bytes = serde_json::to_vec_pretty(&value).expect("a value is JSON");
    bytes.push(b'\n');
    bytes
}

/// Whether `root` names enough of the keys that signed `metadata`.
pub(super) fn is_signed<T: Role>(root: &Signed<Root>, metadata: &Signed<T>) -> bool {
    root.signed.verify_role(metadata).is_ok()
}

/// Ids of the keys that `role` has in `root`, hexadecimal.
pub(super) fn key_ids(root: &Root, role: RoleType) -> Vec<String> {
    root.roles.get(&role).map_or_else(Vec::new, |keys| keys.keyids.iter().map(hex::encode).collect())
}

/// A point in time as operators read it.
pub(super) fn date(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M UTC").to_string()
}
