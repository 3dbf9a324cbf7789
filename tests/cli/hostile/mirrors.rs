//! Mirrors that answer in ways that cost much, or not at all.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::within;
use crate::cli::project::{Project, Ran};
use crate::http_server::{Act, Server};

/// What a build says whose mirror answers each request for a release with `act`.
fn told(act: &Act) -> String {
    let server = Server::start();
    for name in ["InRelease", "Release"] {
        server.put(&format!("/debian/dists/trixie/{name}"), "", std::slice::from_ref(act));
    }
    let project = Project::new();
    let ran = within(project.build_command(&[]).env("KELLER_MIRROR", server.url("/debian")));
    let error = ran.error().to_owned();
    assert!(error.contains("/debian/dists/trixie/InRelease"), "{error}");
    assert!(error.len() < 2000, "{} bytes", error.len());
    error
}

fn raw(head: &str, body: impl AsRef<[u8]>) -> Act {
    Act::Raw([format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n").as_bytes(), body.as_ref()].concat())
}

#[test]
fn answers_without_end() {
    let told_of = told(&Act::Endless);
    assert!(told_of.contains("expected at most 16777216 bytes, but the server has more"), "{told_of}");
    for length in ["9223372036854775808", "18446744073709551615"] {
        let told_of = told(&raw(&format!("Content-Length: {length}"), "x"));
        assert!(
            told_of.contains("expected at most 16777216 bytes") || told_of.contains("makes no sense"),
            "{told_of}"
        );
    }
    let told_of = told(&raw("Transfer-Encoding: chunked", "ffffffffffffffff\r\nx"));
    assert!(told_of.contains("the connection broke after"), "{told_of}");
    // What unpacks to gigabytes is never unpacked: it was not asked for in this form.
    let zeros = super::zeros("x", 256 << 20);
    let told_of = told(&raw(&format!("Content-Encoding: zstd\r\nContent-Length: {}", zeros.len()), &zeros));
    assert!(told_of.contains("verifying "), "{told_of}");
    let told_of = told(&raw("Content-Encoding: gzip", [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3]));
    assert!(told_of.contains("verifying "), "{told_of}");
}

#[test]
fn heads_without_end() {
    for act in
        [Act::EndlessHead, raw(&"X: y\r\n".repeat(200), ""), raw(&format!("X: {}", "y".repeat(1 << 20)), "")]
    {
        let told_of = told(&act);
        assert!(told_of.contains("no connection: ") || told_of.contains("makes no sense"), "{told_of}");
    }
}

#[test]
fn redirections_in_circles() {
    let told_of = told(&Act::StatusWith(302, "Location: InRelease".to_owned()));
    assert!(told_of.contains("redirected 21 times, or without a target"), "{told_of}");
    let told_of = told(&Act::StatusWith(302, format!("Location: /{}", "a/".repeat(20_000))));
    assert!(told_of.contains("InRelease"), "{} bytes", told_of.len());
    let told_of = told(&Act::StatusWith(302, "Location: file:///dev/zero".to_owned()));
    assert!(told_of.contains("redirected from https to") || told_of.contains("refused"), "{told_of}");
}

/// Somebody who waits for a silent server is let go at once.
#[test]
fn ctrl_c_ends_the_wait_for_a_silent_server() {
    let server = Server::start();
    server.put("/debian/dists/trixie/InRelease", "", &[Act::Hang]);
    let project = Project::new();
    let child = project.build_command(&[]).env("KELLER_MIRROR", server.url("/debian")).spawn().unwrap();
    let begun = Instant::now();
    while server.seen().is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(120), "nothing is asked for");
        std::thread::sleep(Duration::from_millis(20));
    }
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let ran = Ran::of(&child.wait_with_output().unwrap());
    assert_eq!(ran.signal, Some(Signal::INT.as_raw()), "{}", ran.err);
    assert_eq!(project.names("node/out").len(), 0);
}

/// A store of certificates that is a device: nothing is read of it.
#[test]
fn certificates_without_end() {
    let project = Project::new();
    let build = |name: &str, value: &str| {
        let mut command = project.build_command(&[]);
        command.env("KELLER_MIRROR", "https://127.0.0.1:9/debian").env(name, value);
        within(&mut command).error().to_owned()
    };
    for name in ["SSL_CERT_FILE", "CURL_CA_BUNDLE"] {
        let told_of = build(name, "/dev/zero");
        let said = "/dev/zero: it is a character device, not a regular file";
        assert!(told_of.contains(said) && told_of.contains("SSL_CERT_FILE"), "{told_of}");
    }
    let pipe = project.path("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
    let told_of = build("SSL_CERT_FILE", pipe.to_str().unwrap());
    assert!(told_of.contains("it is a pipe, not a regular file"), "{told_of}");
    std::fs::File::create(project.path("many.pem")).unwrap().set_len(1 << 40).unwrap();
    let told_of = build("SSL_CERT_FILE", "many.pem");
    assert!(told_of.contains("it has more than the 4.0 MiB that are read of such a file"), "{told_of}");
    // Thousands of certificates that are none, and one block without an end.
    let block = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
    for text in [block.repeat(50_000), format!("-----BEGIN CERTIFICATE-----\n{}", "A\n".repeat(1 << 20))] {
        project.write("many.pem", text);
        for name in ["SSL_CERT_FILE", "CURL_CA_BUNDLE"] {
            let told_of = build(name, "many.pem");
            assert!(told_of.contains("certificate") || told_of.contains("no connection"), "{told_of}");
        }
    }
}
