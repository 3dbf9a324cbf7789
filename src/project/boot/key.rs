//! The ssh keys that a machine gets: one made for this run, and those that the user names.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, bail};
use ssh_key::authorized_keys::AuthorizedKeys;
use ssh_key::{Algorithm, LineEnding, PrivateKey};

use crate::base::{AtomicFile, atomic, input, limits};

/// By this comment a key is known to be of no further use.
const KEY_COMMENT: &str = "keller, for one run";

/// Makes a key pair for this run, writes the private half to `identity`, gives the public line.
pub(in crate::project) fn make(identity: &Path) -> Result<String> {
    let is_ours = |text: &str| PrivateKey::from_openssh(text).is_ok_and(|key| key.comment() == KEY_COMMENT);
    if is_of_somebody_else(identity, &is_ours) {
        bail!("{} is there already and no key of an earlier run: name another file", identity.display());
    }
    let mut key = PrivateKey::random(&mut ssh_key::rand_core::OsRng, Algorithm::Ed25519)
        .context("making an ssh key")?;
    key.set_comment(KEY_COMMENT);
    let text = key.to_openssh(LineEnding::LF)?;
    // In place of an empty file, too, which others may be able to read.
    let write = || {
        let mut file = AtomicFile::create(&atomic::place(identity)?)?;
        file.set_mode(0o600)?;
        file.file_mut().write_all(text.as_bytes())?;
        file.commit_unsynced()
    };
    write().with_context(|| format!("writing {}", identity.display()))?;
    Ok(format!("{}\n", key.public_key().to_openssh()?))
}

/// Whether `identity` is there and anything but an empty file or a key of an earlier run.
fn is_of_somebody_else(identity: &Path, is_ours: &dyn Fn(&str) -> bool) -> bool {
    match input::read(identity, limits::TEXT) {
        Ok(old) => !old.is_empty() && !is_ours(&String::from_utf8_lossy(&old)),
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    }
}

/// The lines of a file of public keys, which go into the guest: a private key never does.
pub(in crate::project) fn public(file: &Path) -> Result<String> {
    let text = input::read_text(file, limits::TEXT).with_context(|| format!("reading {}", file.display()))?;
    if text.contains("PRIVATE KEY-----") {
        bail!("{} is a private key: name the public one, mostly {0}.pub", file.display());
    }
    let mut keys = 0;
    for entry in AuthorizedKeys::new(&text) {
        entry.with_context(|| format!("reading {}, line by line, as public ssh keys", file.display()))?;
        keys += 1;
    }
    if keys == 0 {
        bail!("{} has no public ssh key", file.display());
    }
    Ok(format!("{}\n", text.trim_end()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_of_somebody_else_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let identity = folder.path().join("id");
        let first = make(&identity).unwrap();
        assert_ne!(make(&identity).unwrap(), first);
        // An empty file that others can read, as mktemp with another umask leaves it, does not lend its mode to a key.
        fs::write(&identity, "").unwrap();
        fs::set_permissions(&identity, fs::Permissions::from_mode(0o644)).unwrap();
        make(&identity).unwrap();
        assert_eq!(fs::metadata(&identity).unwrap().permissions().mode() & 0o7777, 0o600);
        fs::write(&identity, "a key of somebody else").unwrap();
        assert!(make(&identity).unwrap_err().to_string().contains("name another file"));
        assert_eq!(fs::read_to_string(&identity).unwrap(), "a key of somebody else");
    }

    #[test]
    fn only_public_keys_go_into_the_guest() {
        let folder = tempfile::tempdir().unwrap();
        let (identity, file) = (folder.path().join("id"), folder.path().join("id.pub"));
        let line = make(&identity).unwrap();
        fs::write(&file, format!("# of two people\n{line}\nrestrict {line}")).unwrap();
        assert_eq!(public(&file).unwrap(), format!("# of two people\n{line}\nrestrict {line}"));
        assert!(public(&identity).unwrap_err().to_string().contains("is a private key"));
        for (text, said) in
            [("", "has no public ssh key"), ("# none\n", "has no public"), ("nonsense\n", "line by line")]
        {
            fs::write(&file, text).unwrap();
            assert!(public(&file).unwrap_err().to_string().contains(said), "{text:?}");
        }
    }
}
