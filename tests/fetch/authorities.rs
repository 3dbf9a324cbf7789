//! Whom https trusts: the authorities of the host, or those that are named.

use std::fs;
use std::process::Stdio;

use keller::http::{Cause, Client, Settings};

use super::{chain, child, client, settings, url};
use crate::http_server::{Act, Server};
use crate::judges::tool::tool;

#[test]
#[ignore = "the child of without_certificates"]
fn child_has_no_certificates() {
    let server = Server::start();
    server.put("/x", "plain", &[Act::Serve]);
    let client = client();
    assert_eq!(client.get_small(&url(&server.url("/x")), 10).unwrap(), b"plain");
    let error = client.get_small(&url("https://127.0.0.1:1/x"), 10).unwrap_err();
    assert!(chain(&error).contains("no CA certificates"), "{}", chain(&error));
    assert!(chain(&error).contains("SSL_CERT_FILE"), "{}", chain(&error));
}

#[test]
fn without_certificates() {
    let output = child("authorities::child_has_no_certificates")
        .env("SSL_CERT_FILE", "/nonexistent/file")
        .env_remove("SSL_CERT_DIR")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// An https server of OpenSSL's with a certificate for localhost by a CA of its own; its folder has `x`.
struct TlsServer {
    process: std::process::Child,
    port: u16,
    folder: tempfile::TempDir,
}

impl TlsServer {
    fn start() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let certificate = |arguments: &[&str]| {
            let mut command = tool("openssl")?;
            command.args(["req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
            let output = command.args(arguments).current_dir(folder.path()).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Some(())
        };
        certificate(&["-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=CA"])?;
        let signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-keyout", "key.pem", "-out", "own.pem"];
        let name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"];
        let leaf = ["-addext", "basicConstraints=critical,CA:FALSE"];
        certificate(&[&signed[..], &name, &leaf].concat())?;
        fs::write(folder.path().join("x"), "HTTP/1.0 200 OK\r\n\r\nsecure").unwrap();
        let mut process = tool("openssl")?
            .args(["s_server", "-HTTP", "-cert", "own.pem", "-key", "key.pem", "-accept", "127.0.0.1:0"])
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let output = std::io::BufReader::new(process.stdout.take().unwrap());
        // `ACCEPT 127.0.0.1:41039`: the port that it has chosen.
        let port = std::io::BufRead::lines(output)
            .find_map(|line| line.unwrap().strip_prefix("ACCEPT ")?.rsplit_once(':')?.1.parse().ok());
        Some(Self { process, port: port.expect("openssl s_server says its port"), folder })
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn private_authority() {
    let Some(server) = TlsServer::start() else { return };
    let address = |host: &str| url(&format!("https://{host}:{}/x", server.port));
    let error = client().get_small(&address("localhost"), 10).unwrap_err();
    assert!(matches!(*error.cause, Cause::Untrusted { .. } | Cause::NoTrust { .. }), "{}", chain(&error));
    let authorities = vec![server.folder.path().join("ca.pem")];
    let trusting = Client::new(Settings { authorities, ..settings() }).unwrap();
    assert_eq!(trusting.get_small(&address("localhost"), 10).unwrap(), b"secure");
    let error = trusting.get_small(&address("127.0.0.1"), 10).unwrap_err();
    assert!(matches!(*error.cause, Cause::Untrusted { .. }), "{}", chain(&error));
    println!("{}", chain(&error));

    // Encryption is not given up on the way.
    let plain = Server::start();
    plain.put("/x", "plain", &[Act::Serve]);
    let answer = format!("HTTP/1.0 302 Found\r\nLocation: {}\r\n\r\n", plain.url("/x"));
    fs::write(server.folder.path().join("moved"), answer).unwrap();
    let moved = url(&format!("https://localhost:{}/moved", server.port));
    let error = trusting.get_small(&moved, 10).unwrap_err();
    assert!(matches!(*error.cause, Cause::Downgrade { .. }), "{}", chain(&error));
    assert_eq!(plain.seen().len(), 0);

    let broken = Settings { authorities: vec![server.folder.path().join("key.pem")], ..settings() };
    let error = Client::new(broken).unwrap().get_small(&address("localhost"), 10).unwrap_err();
    assert!(chain(&error).contains("key.pem"), "{}", chain(&error));
}
