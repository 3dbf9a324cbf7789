//! Members' requests for new certificates, which stand in keys of the cluster itself, and what answers them.
//!
//! A member writes its request, whoever has the authorities puts an answer and takes the request away (`sign`), and the
//! member takes the answer, and deletes both.

use crate::etcd::{Change, Client, Error};

/// Below it stand requests, each under its member's name. No client node has rights there: what it may write begins with its
/// own name, in which there is no `/`.
pub(super) const REQUESTS: &str = "/keller/requests/";
/// Below it stand answers, each under its member's name.
const SIGNED: &str = "/keller/signed/";
/// Requests that are looked at; a cluster has at most seven members.
pub(super) const MOST: usize = 16;

/// The key of the request of `name`.
pub(super) fn request_of(name: &str) -> String {
    format!("{REQUESTS}{name}")
}

/// The key of what answers it.
pub(super) fn answer_of(name: &str) -> String {
    format!("{SIGNED}{name}")
}

/// Under which names requests stand, and whether there are more than are looked at.
pub(super) fn names(client: &mut Client) -> Result<(Vec<String>, bool), Error> {
    let most = i64::try_from(MOST + 1).expect("a small number");
    let keys = client.keys_below(REQUESTS, most)?;
    let name = |key: &[u8]| String::from_utf8_lossy(&key[REQUESTS.len().min(key.len())..]).into_owned();
    let names = keys.iter().take(MOST).map(|key| name(&key.key)).collect();
    Ok((names, keys.len() > MOST))
}

/// Has `request` stand under `name`.
///
/// # Errors
/// What etcd says.
pub fn ask(client: &mut Client, name: &str, request: &str) -> Result<(), Error> {
    let key = request_of(name);
    if client.get(&key)?.is_some_and(|there| there.value == request.as_bytes()) {
        return Ok(());
    }
    client.change(None, vec![Change::Put { key, value: request.into() }]).map(drop)
}

/// What answers the request of `name`, if anything does.
///
/// # Errors
/// What etcd says.
pub fn answer(client: &mut Client, name: &str) -> Result<Option<Vec<u8>>, Error> {
    Ok(client.get(&answer_of(name))?.map(|there| there.value))
}

/// Deletes request and answer of `name`.
///
/// # Errors
/// What etcd says.
pub fn clear(client: &mut Client, name: &str) -> Result<(), Error> {
    let keys = [request_of(name), answer_of(name)];
    client.change(None, keys.map(|key| Change::Delete { key }).into()).map(drop)
}
