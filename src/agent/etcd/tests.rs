//! A server with our certificates says true or why not, and one with others is not believed.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use super::*;
use crate::base::progress::Silent;
use crate::pki::Owner;

fn made() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let owner = Owner { uid: rustix::process::getuid().as_raw(), gid: rustix::process::getgid().as_raw() };
    etcd::keep(&directory.path().join("etcd"), &Member::single(), owner, 1_800_000_000, &Silent).unwrap();
    directory
}

/// A server that shows the certificate of `directory` and wants one of its authority; what it heard, and what `asking`
/// got.
fn answer(directory: &Path, text: &'static str, asking: &Path) -> Result<(), String> {
    let (directory, asking) = (directory.join("etcd"), asking.join("etcd"));
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(directory.join(etcd::CA)).unwrap()).unwrap();
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
    let server = directory.join(etcd::SERVER);
    let config = ServerConfig::builder()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![CertificateDer::from_pem_file(&server).unwrap()],
            PrivateKeyDer::from_pem_file(&server).unwrap(),
        )
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut stream = StreamOwned::new(ServerConnection::new(Arc::new(config)).unwrap(), stream);
        let mut request = [0; 64];
        if stream.read(&mut request).is_ok() {
            let _ = stream.write_all(text.as_bytes());
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    });
    let result = answers_well(&asking, address);
    server.join().unwrap();
    result
}

#[test]
fn etcd_says_true_or_why_not() {
    let directory = made();
    let answer = |text| answer(directory.path(), text, directory.path());
    assert_eq!(answer("HTTP/1.0 200 OK\r\n\r\n{\"health\":\"true\",\"reason\":\"\"}"), Ok(()));
    let reason = answer("HTTP/1.0 503 X\r\n\r\n{\"health\":\"false\",\"reason\":\"RAFT NO LEADER\"}");
    assert!(reason.unwrap_err().contains("NO LEADER"));
    assert!(answer("HTTP/1.0 200 OK\r\n\r\n").is_err());
    let lead_away = answer("HTTP/1.0 302 X\r\nLocation: http://127.0.0.1:1/\r\n\r\nelsewhere");
    assert_eq!(lead_away.unwrap_err(), "elsewhere");
}

/// Whoever listens first on a port that anybody may listen on is not etcd.
#[test]
fn a_stranger_who_answers_is_not_believed() {
    let (directory, other) = (made(), made());
    let text = "HTTP/1.0 200 OK\r\n\r\n{\"health\":\"true\"}";
    let error = answer(other.path(), text, directory.path()).unwrap_err();
    assert!(error.contains("certificate"), "{error}");

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 64]);
        let _ = stream.write_all(text.as_bytes());
    });
    assert!(health(&directory.path().join("etcd"), address).is_err());
    server.join().unwrap();
}

#[test]
fn without_certificates_the_file_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let error = health(directory.path(), ([127, 0, 0, 1], 1).into()).unwrap_err();
    assert!(error.contains("ca.pem") && error.contains("No such file"), "{error}");
}
