//! Certificates of authorities that files name: judged before the library reads them, which knows no limit.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::error;
use crate::base::{Size, input, limits};

/// The certificates of all `files`, or what is wrong with one of them.
pub(super) fn read(files: &[PathBuf]) -> Result<Vec<reqwest::Certificate>, String> {
    let mut certificates = Vec::new();
    for file in files {
        let pem = input::read(file, limits::CERTIFICATES)
            .map_err(|error| format!("{}: {error}", file.display()))?;
        let bundle = reqwest::Certificate::from_pem_bundle(&pem)
            .map_err(|error| format!("{}: {}", file.display(), error::reason(&error)))?;
        if bundle.is_empty() {
            return Err(format!("{}: no certificate in it", file.display()));
        }
        certificates.extend(bundle);
    }
    Ok(certificates)
}

/// Judges what SSL_CERT_FILE and SSL_CERT_DIR, as `var` has them, name in place of the system's store: the library would
/// read a device for ever, and files of gigabytes into memory.
pub(super) fn judge(var: impl Fn(&str) -> Option<std::ffi::OsString>) -> Result<(), String> {
    if let Some(file) = var("SSL_CERT_FILE") {
        let told = |reason: String| format!("SSL_CERT_FILE: {}: {reason}", Path::new(&file).display());
        let opened = input::open(&file).and_then(|opened| opened.metadata());
        // One that is not there is told by the library.
        match opened {
            Ok(metadata) if metadata.len() > limits::CERTIFICATES => {
                return Err(told(input::TooLarge { limit: limits::CERTIFICATES }.to_string()));
            }
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(told(error.to_string()));
            }
            _ => {}
        }
    }
    let Some(folders) = var("SSL_CERT_DIR") else { return Ok(()) };
    let (mut seen, mut sum) = (BTreeSet::new(), 0);
    for folder in std::env::split_paths(&folders) {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let Ok(metadata) = fs::metadata(entry.path()) else { continue };
            if metadata.is_file() && seen.insert((metadata.dev(), metadata.ino())) {
                sum += metadata.len();
            }
            if sum > limits::CERTIFICATES {
                let (folder, most) = (folder.display(), Size(limits::CERTIFICATES).human());
                return Err(format!("SSL_CERT_DIR: {folder}: its files have more than {most} together"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::fs::symlink;

    use super::*;

    fn told(name: &str, value: &Path) -> Result<(), String> {
        judge(|asked| (asked == name).then(|| OsString::from(value)))
    }

    #[test]
    fn what_has_no_end_is_not_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("few"), "x").unwrap();
        assert_eq!(told("SSL_CERT_FILE", &path("few")), Ok(()));
        assert_eq!(told("SSL_CERT_FILE", &path("none")), Ok(()));
        let zero = told("SSL_CERT_FILE", Path::new("/dev/zero")).unwrap_err();
        assert_eq!(zero, "SSL_CERT_FILE: /dev/zero: it is a character device, not a regular file");
        assert!(told("SSL_CERT_FILE", directory.path()).unwrap_err().contains("it is a directory"));
        let holes = fs::File::create(path("holes")).unwrap();
        holes.set_len(1 << 40).unwrap();
        let large = told("SSL_CERT_FILE", &path("holes")).unwrap_err();
        assert!(large.ends_with("it has more than the 4.0 MiB that are read of such a file"), "{large}");
        let many = told("SSL_CERT_DIR", directory.path()).unwrap_err();
        assert!(many.ends_with("its files have more than 4.0 MiB together"), "{many}");
        // A store has each certificate under two names.
        holes.set_len(3 << 20).unwrap();
        symlink("holes", path("link")).unwrap();
        assert_eq!(told("SSL_CERT_DIR", directory.path()), Ok(()));
    }

    #[test]
    fn bundles_have_a_limit() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bundle.pem");
        fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
        let large = read(std::slice::from_ref(&path)).unwrap_err();
        assert!(large.ends_with("it has more than the 4.0 MiB that are read of such a file"), "{large}");
        let zero = read(&[PathBuf::from("/dev/zero")]).unwrap_err();
        assert_eq!(zero, "/dev/zero: it is a character device, not a regular file");
        // Not PEM at all, a key in place of a certificate, a block without an end, DER that is none.
        for text in ["", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
            fs::write(&path, text).unwrap();
            assert!(read(std::slice::from_ref(&path)).unwrap_err().ends_with("no certificate in it"));
        }
        fs::write(&path, "-----BEGIN CERTIFICATE-----\n".to_owned() + &"A".repeat(1 << 20)).unwrap();
        assert!(read(std::slice::from_ref(&path)).is_err());
    }
}
