//! A private key: ed25519 as PKCS#8 in PEM, as openssl(1) reads and writes it.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use tough::schema::decoded::{Decoded, Hex};
use tough::schema::key::{Ed25519Key, Ed25519Scheme, Key};
use tough::schema::{Role, Signature, Signed};

use super::KeysError;
use crate::base::{AtomicFile, input, limits};

/// RFC 7468 section 10.
const TAG: &str = "PRIVATE KEY";

/// A key that signs, and the file that it is in.
pub struct PrivateKey {
    pair: Ed25519KeyPair,
    /// Its name in metadata.
    pub id: Decoded<Hex>,
    /// Where it lies.
    pub path: PathBuf,
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({})", hex::encode(&self.id))
    }
}

/// The begin of an id, by which people and file names tell keys apart.
pub(super) fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

impl PrivateKey {
    fn new(pair: Ed25519KeyPair) -> Self {
        let mut key = Self { pair, id: Vec::new().into(), path: PathBuf::new() };
        key.id = key.public().key_id().expect("a key is JSON");
        key
    }

    /// A new one; `place` tells from its id where it is to lie.
    ///
    /// # Errors
    /// `Randomness`.
    pub fn generate(place: impl FnOnce(&str) -> PathBuf) -> Result<Self, KeysError> {
        let mut key = Self::new(Ed25519KeyPair::generate().map_err(|_| KeysError::Randomness)?);
        key.path = place(&hex::encode(&key.id));
        Ok(key)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// `Read`, `Open`, `NoKey`.
    pub fn read(path: &Path) -> Result<Self, KeysError> {
        let bytes = input::read_private(path, limits::TEXT).map_err(|source| {
            let path = path.to_owned();
            match source.get_ref().and_then(|cause| cause.downcast_ref()) {
                Some(input::OpenToOthers::File(mode)) => KeysError::Open { path, mode: *mode },
                _ => KeysError::Read { path, source },
            }
        })?;
        Self::from_pem(path, &bytes)
    }

    /// Takes what the file `path` has.
    pub(super) fn from_pem(path: &Path, bytes: &[u8]) -> Result<Self, KeysError> {
        let no_key = || KeysError::NoKey { path: path.to_owned() };
        let pem = pem::parse(bytes).map_err(|_| no_key())?;
        if pem.tag() != TAG {
            return Err(no_key());
        }
        // openssl writes version 1, without the public half: it is computed.
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pem.contents()).map_err(|_| no_key())?;
        Ok(Self { path: path.to_owned(), ..Self::new(pair) })
    }

    /// The text of its file.
    fn to_pem(&self) -> String {
        let pkcs8 = self.pair.to_pkcs8v1().expect("a key pair has this form");
        let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
        pem::encode_config(&pem::Pem::new(TAG, pkcs8.as_ref()), config)
    }

    /// The public half, as metadata has it.
    pub fn public(&self) -> Key {
        Key::Ed25519 {
            keyval: Ed25519Key {
                public: self.pair.public_key().as_ref().to_vec().into(),
                _extra: HashMap::new(),
            },
            scheme: Ed25519Scheme::Ed25519,
            _extra: HashMap::new(),
        }
    }

    /// Writes its file, for its owner alone.
    ///
    /// # Errors
    /// What the file system says.
    pub fn save(&self) -> io::Result<()> {
        let mut file = AtomicFile::create(&self.path)?;
        file.set_mode(0o600)?;
        file.file_mut().write_all(self.to_pem().as_bytes())?;
        file.commit().map(drop)
    }

    /// The bytes of the public half.
    pub fn public_bytes(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    /// Signs `text`.
    pub fn sign(&self, text: &[u8]) -> Vec<u8> {
        self.pair.sign(text).as_ref().to_vec()
    }
}

/// `role` with the signatures of `keys`, in the order of their ids.
pub fn sign<'k, T: Role>(role: T, keys: impl IntoIterator<Item = &'k PrivateKey>) -> Signed<T> {
    let text = role.canonical_form().expect("metadata has a canonical form");
    let mut keys: Vec<&PrivateKey> = keys.into_iter().collect();
    keys.sort_by_key(|key| key.id.to_vec());
    keys.dedup_by_key(|key| key.id.to_vec());
    let signatures =
        keys.iter().map(|key| Signature { keyid: key.id.clone(), sig: key.sign(&text).into() }).collect();
    Signed { signed: role, signatures }
}
