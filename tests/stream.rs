//! Files read as they come, from servers that do what servers do.

use std::io::Read;
use std::time::Duration;

use keller::base::Chain;
use keller::http::url::Url;
use keller::http::{Client, Settings};

use crate::http_server::{Act, Server};

fn client() -> Client {
    let settings = Settings {
        idle: Duration::from_secs(2),
        pauses: [1, 1].map(Duration::from_millis).to_vec(),
        ..Settings::default()
    };
    Client::new(settings).unwrap()
}

fn body() -> Vec<u8> {
    (0..200_000u32).flat_map(|number| (number as u16).to_le_bytes()).collect()
}

/// Where the stream began and what it gave, or the error with its causes.
fn read(server: &Server, range: Option<std::ops::Range<u64>>) -> Result<(u64, Vec<u8>), String> {
    let url = Url::root(&server.url("")).unwrap().join("file").unwrap();
    let client = client();
    let mut stream = client.stream(&url, range).map_err(|error| Chain(&error).to_string())?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).map_err(|error| Chain(&error).to_string())?;
    Ok((stream.start(), bytes))
}

/// Without showing all the bytes where they differ.
fn assert_same(read: Result<(u64, Vec<u8>), String>, start: u64, bytes: &[u8]) {
    let (at, read) = read.unwrap();
    assert_eq!((at, read.len()), (start, bytes.len()));
    assert!(read == bytes, "other bytes");
}

#[test]
fn ranges_and_servers_that_know_none() {
    let (server, body) = (Server::start(), body());
    server.put("/file", body.clone(), &[Act::Serve]);
    assert_same(read(&server, None), 0, &body);
    assert_same(read(&server, Some(1000..5000)), 1000, &body[1000..5000]);
    server.put("/file", body.clone(), &[Act::ServeWhole]);
    assert_same(read(&server, Some(1000..5000)), 0, &body);
}

#[test]
fn a_connection_that_breaks_goes_on_with_another() {
    let (server, body) = (Server::start(), body());
    server.put("/file", body.clone(), &[Act::ResetAt(50_000), Act::ResetAt(300_000), Act::Serve]);
    assert_same(read(&server, None), 0, &body);
    server.put("/file", body.clone(), &[Act::ResetAt(50_000), Act::ServeWhole]);
    assert_same(read(&server, Some(10_000..390_000)), 10_000, &body[10_000..390_000]);
}

#[test]
fn what_never_ends_well_is_told() {
    let (server, body) = (Server::start(), body());
    server.put("/file", body.clone(), &[Act::ResetAt(50_000)]);
    assert!(read(&server, None).unwrap_err().contains("the connection broke after"));
    server.put("/file", body.clone(), &[Act::HangAt(50_000)]);
    assert!(read(&server, None).unwrap_err().contains("no byte within"));
    server.put("/file", body.clone(), &[Act::Trickle]);
    let error = read(&server, None).unwrap_err();
    assert!(error.contains("slower than"), "{error}");
    server.put("/file", body, &[Act::Status(404)]);
    assert!(read(&server, None).unwrap_err().contains("not found"));
}
