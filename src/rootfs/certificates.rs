//! The CA bundle that update-ca-certificates makes. Hashed links to single certificates are not made: all
//! programs of Debian read the bundle, OpenSSL's own default included.

use super::error::Error;
use crate::base::width::to_u64;
use crate::base::{Size, limits};
use crate::tree::{Kind, Tree, show};

/// Folder of single certificates; an overlay adds its own in a folder of its own here.
const SOURCES: &str = "usr/share/ca-certificates/";
const BUNDLE: &str = "etc/ssl/certs/ca-certificates.crt";
/// Where OpenSSL looks for a bundle by itself.
const OPENSSL_BUNDLE: &str = "usr/lib/ssl/cert.pem";
const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// Writes the bundle, in the order of the files' paths; without any there is none.
pub fn write(tree: &mut Tree) -> Result<(), Error> {
    let mut bundle: Vec<u8> = Vec::new();
    for (path, id) in tree.walk() {
        if !path.starts_with(SOURCES.as_bytes()) || !path.ends_with(b".crt") {
            continue;
        }
        let Kind::File(content) = &tree.node(id).kind else { continue };
        let malformed = |what: String| Error::Malformed { path: format!("/{}", show(&path)), line: 0, what };
        if to_u64(bundle.len()) + content.len() > limits::CERTIFICATES {
            let most = Size(limits::CERTIFICATES).human();
            return Err(malformed(format!("all certificates up to this one have more than {most}")));
        }
        let text = content.to_vec().map_err(|error| malformed(error.to_string()))?;
        if !text.windows(BEGIN.len()).any(|part| part == BEGIN) {
            return Err(malformed("expected a certificate in PEM form".to_owned()));
        }
        bundle.extend(text.trim_ascii_end());
        bundle.push(b'\n');
    }
    if !bundle.is_empty() {
        tree.file(BUNDLE, 0o644, bundle)?;
        if tree.resolve(OPENSSL_BUNDLE).is_err() {
            tree.symlink(OPENSSL_BUNDLE, format!("/{BUNDLE}"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bundle_by_path() {
        let mut tree = Tree::new(0);
        write(&mut tree).unwrap();
        assert!(tree.lookup(BUNDLE).is_none());
        let certificate =
            |name: &str| format!("-----BEGIN CERTIFICATE-----\n{name}\n-----END CERTIFICATE-----\n\n");
        tree.file(format!("{SOURCES}mozilla/B.crt"), 0o644, certificate("B")).unwrap();
        tree.file(format!("{SOURCES}local/A.crt"), 0o644, certificate("A")).unwrap();
        write(&mut tree).unwrap();
        let text = String::from_utf8(tree.read(OPENSSL_BUNDLE).unwrap()).unwrap();
        assert_eq!(text.matches("BEGIN").count(), 2);
        assert!(text.find("\nA\n") < text.find("\nB\n") && !text.contains("\n\n"), "{text}");
        tree.file(format!("{SOURCES}local/C.crt"), 0o644, "der").unwrap();
        assert!(write(&mut tree).is_err());
    }
}
