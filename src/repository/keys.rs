//! The keys that sign a repository, in a folder of the publisher's:
//!
//! ```text
//! root.json               the newest root of trust: what images carry
//! N.root.json             every one so far, each signed by the keys of the one before too
//! private/ROLE-ID.pem     private keys, PKCS#8, for their owner alone; those of root can be kept elsewhere
//! ```

mod error;
mod private;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use tough::schema::{RoleKeys, RoleType, Root, Signed};

pub use error::KeysError;
pub use private::{PrivateKey, sign};

use super::metadata::{self, ROLES, SPEC_VERSION, after, key_ids, numbered};
use crate::base::width::to_u64;
use crate::base::{atomic, input, json, limits};

/// The newest root, under a name without a number.
const ROOT: &str = "root.json";
/// Folder of the private keys.
const PRIVATE: &str = "private";

/// A folder of keys, read.
#[derive(Debug)]
pub struct Keys {
    folder: PathBuf,
    /// By version, without a gap.
    roots: BTreeMap<u64, Signed<Root>>,
    private: Vec<PrivateKey>,
}

/// What new keys are to be like.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Number of root keys.
    pub root_keys: u64,
    /// Number of root keys that must sign a new root.
    pub root_threshold: u64,
    /// When the root of trust ends.
    pub expires: Timestamp,
}

/// What a rotation changed.
#[derive(Clone, Debug)]
pub struct Rotated {
    /// Of the new root.
    pub version: u64,
    /// Ids of the keys that are trusted no more.
    pub retired: Vec<String>,
    /// Ids of the new keys.
    pub made: Vec<String>,
}

/// One key, for people.
#[derive(Clone, Debug)]
pub struct Shown {
    /// What it may sign.
    pub role: RoleType,
    /// Hexadecimal.
    pub id: String,
    /// Where its private half lies; nothing when it is not at hand.
    pub private: Option<PathBuf>,
}

impl Keys {
    /// Makes keys and the first root in `folder`, which has none yet.
    ///
    /// # Errors
    /// `Exists`, `Threshold`, `TooMany`, `Write`.
    pub fn init(folder: &Path, wanted: Wanted) -> Result<Self, KeysError> {
        let Wanted { root_keys, root_threshold, expires } = wanted;
        if root_threshold == 0 || root_threshold > root_keys {
            return Err(KeysError::Threshold { threshold: root_threshold, keys: root_keys });
        }
        if root_keys > limits::ROOT_KEYS {
            return Err(KeysError::TooMany { keys: root_keys, limit: limits::ROOT_KEYS });
        }
        let mut keys = Self { folder: folder.to_owned(), roots: BTreeMap::new(), private: Vec::new() };
        for path in [ROOT.to_owned(), numbered(1, RoleType::Root)] {
            let path = folder.join(path);
            if path.exists() {
                return Err(KeysError::Exists { path });
            }
        }
        let mut root = Root {
            spec_version: SPEC_VERSION.to_owned(),
            consistent_snapshot: true,
            version: NonZeroU64::MIN,
            expires,
            keys: HashMap::new(),
            roles: HashMap::new(),
            _extra: HashMap::new(),
        };
        let mut made = Vec::new();
        for role in ROLES {
            let (count, threshold) =
                if role == RoleType::Root { (root_keys, root_threshold) } else { (1, 1) };
            let own = (0..count).map(|_| keys.generate(role)).collect::<Result<Vec<_>, _>>()?;
            let threshold = NonZeroU64::new(threshold).expect("at least one");
            let keyids = own.iter().map(|key| key.id.clone()).collect();
            root.roles.insert(role, RoleKeys { keyids, threshold, _extra: HashMap::new() });
            root.keys.extend(own.iter().map(|key| (key.id.clone(), key.public())));
            made.extend(own);
        }
        keys.take_over(root, made)?;
        Ok(keys)
    }

    /// Reads the keys in `folder`, and those private ones in the files `besides`.
    ///
    /// # Errors
    /// `Missing`, `Read`, `NoRoot`, `Unsigned`, `Gap`, `NoKey`, `Open`.
    pub fn open(folder: &Path, besides: &[PathBuf]) -> Result<Self, KeysError> {
        let mut keys = Self { folder: folder.to_owned(), roots: BTreeMap::new(), private: Vec::new() };
        for path in files(folder)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let number = metadata::number_of(&name, RoleType::Root);
            if number.is_none() && name != ROOT {
                continue;
            }
            let root = read_root(&path)?;
            let version = root.signed.version.get();
            if number.is_some_and(|number| number != version) {
                let problem = format!("it says that it is version {version}");
                return Err(KeysError::NoRoot { path, problem });
            }
            // Of two that should be the same, the numbered one is what was published.
            if number.is_some() || !keys.roots.contains_key(&version) {
                keys.roots.insert(version, root);
            }
        }
        if keys.roots.is_empty() {
            return Err(KeysError::Missing { folder: folder.to_owned() });
        }
        for (version, root) in &keys.roots {
            let Some(before) = keys.roots.get(&(version - 1)) else {
                if let Some((first, _)) = keys.roots.first_key_value().filter(|(first, _)| *first < version) {
                    let missing = (*first..*version).rev().find(|it| !keys.roots.contains_key(it));
                    let missing = missing.unwrap_or(version - 1);
                    return Err(KeysError::Gap { folder: folder.to_owned(), missing, there: *version });
                }
                continue;
            };
            if !metadata::is_signed(before, root) {
                return Err(KeysError::Unsigned { version: *version, by: version - 1 });
            }
        }
        let pems = match files(&folder.join(PRIVATE)) {
            Ok(files) => files,
            Err(KeysError::Missing { .. }) => Vec::new(),
            Err(error) => return Err(error),
        };
        let pems = pems.into_iter().filter(|path| path.extension().is_some_and(|it| it == "pem"));
        for path in pems.chain(besides.iter().cloned()) {
            keys.know(PrivateKey::read(&path)?);
        }
        Ok(keys)
    }

    /// Takes a private key that was read elsewhere, of which `path` is to be told.
    ///
    /// # Errors
    /// `NoKey`.
    pub fn add(&mut self, path: &Path, pem: &[u8]) -> Result<(), KeysError> {
        self.know(PrivateKey::from_pem(path, pem)?);
        Ok(())
    }

    fn know(&mut self, key: PrivateKey) {
        if !self.private.iter().any(|known| known.id == key.id) {
            self.private.push(key);
        }
    }

    /// Where they are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The newest root.
    pub fn root(&self) -> &Signed<Root> {
        self.roots.last_key_value().expect("there is always one").1
    }

    /// All roots that are at hand, the oldest first.
    pub fn roots(&self) -> impl Iterator<Item = &Signed<Root>> {
        self.roots.values()
    }

    /// Refuses a root that has expired `now`.
    ///
    /// # Errors
    /// `Expired`.
    pub fn check_expiry(&self, now: Timestamp) -> Result<(), KeysError> {
        let root = &self.root().signed;
        if root.expires <= now {
            return Err(KeysError::Expired { version: root.version.get(), since: root.expires });
        }
        Ok(())
    }

    /// The private keys at hand that `role` has in `root`: enough of them.
    ///
    /// # Errors
    /// `TooFew`.
    pub fn signers(&self, root: &Root, role: RoleType) -> Result<Vec<&PrivateKey>, KeysError> {
        let found = self.some_signers(root, role);
        let needed = root.roles.get(&role).map_or(1, |keys| keys.threshold.get());
        if to_u64(found.len()) < needed {
            let missing = key_ids(root, role)
                .into_iter()
                .filter(|id| !found.iter().any(|key| hex::encode(&key.id) == *id))
                .map(|id| private::short(&id).to_owned())
                .collect();
            let (found, folder) = (found.len(), self.folder.join(PRIVATE));
            return Err(KeysError::TooFew { role, needed, found, missing, folder });
        }
        Ok(found)
    }

    /// The private keys at hand that `role` has in `root`, if any.
    pub fn some_signers(&self, root: &Root, role: RoleType) -> Vec<&PrivateKey> {
        let Some(own) = root.roles.get(&role) else { return Vec::new() };
        self.private.iter().filter(|key| own.keyids.contains(&key.id)).collect()
    }

    /// Makes a new root in which the keys of `role` are new ones: all of them, or `only` the one whose id begins
    /// so. Enough of the root keys before and after it must be at hand.
    ///
    /// # Errors
    /// `NoSuchKey`, `TooFew`, `Write`.
    pub fn rotate(
        &mut self,
        role: RoleType,
        only: Option<&str>,
        expires: Timestamp,
    ) -> Result<Rotated, KeysError> {
        let mut root = self.root().signed.clone();
        let own = root.roles.get_mut(&role).ok_or(KeysError::NoSuchKey { role, id: String::new() })?;
        let is_meant = |id: &[u8]| only.is_none_or(|only| hex::encode(id).starts_with(only));
        let mut retired = Vec::new();
        let mut made = Vec::new();
        for place in own.keyids.iter_mut().filter(|id| is_meant(id)) {
            let key = self.generate(role)?;
            retired.push(hex::encode(&*place));
            *place = key.id.clone();
            made.push(key);
        }
        if let Some(only) = only.filter(|_| retired.len() != 1) {
            return Err(KeysError::NoSuchKey { role, id: only.to_owned() });
        }
        root.keys.extend(made.iter().map(|key| (key.id.clone(), key.public())));
        let used: Vec<_> = root.roles.values().flat_map(|keys| keys.keyids.clone()).collect();
        root.keys.retain(|id, _| used.contains(id));
        let made_ids = made.iter().map(|key| hex::encode(&key.id)).collect();
        let version = self.succeed(root, made, expires)?;
        Ok(Rotated { version, retired, made: made_ids })
    }

    /// Makes a new root with the same keys, for one that expires; gives its version.
    ///
    /// # Errors
    /// `TooFew`, `Write`.
    pub fn renew(&mut self, expires: Timestamp) -> Result<u64, KeysError> {
        self.succeed(self.root().signed.clone(), Vec::new(), expires)
    }

    /// Every key of the newest root.
    pub fn shown(&self) -> Vec<Shown> {
        let root = &self.root().signed;
        let of_role = |role| {
            key_ids(root, role).into_iter().map(move |id| {
                let private = self.private.iter().find(|key| hex::encode(&key.id) == id);
                Shown { role, id, private: private.map(|key| key.path.clone()) }
            })
        };
        ROLES.into_iter().flat_map(of_role).collect()
    }

    fn generate(&self, role: RoleType) -> Result<PrivateKey, KeysError> {
        PrivateKey::generate(|id| {
            self.folder.join(PRIVATE).join(format!("{role}-{}.pem", private::short(id)))
        })
    }

    /// Makes `root` the one after the newest.
    fn succeed(
        &mut self,
        mut root: Root,
        made: Vec<PrivateKey>,
        expires: Timestamp,
    ) -> Result<u64, KeysError> {
        root.version = after(root.version.get());
        root.expires = expires;
        let version = root.version.get();
        self.take_over(root, made)?;
        Ok(version)
    }

    /// Signs `root` and writes it, after the keys that were `made` for it. It is the newest once it has its
    /// number.
    fn take_over(&mut self, root: Root, made: Vec<PrivateKey>) -> Result<(), KeysError> {
        let before = self.roots.last_key_value().map(|(_, root)| root.signed.clone());
        let known = self.private.len();
        self.private.extend(made);
        let signed = (|| {
            let mut signers = self.signers(&root, RoleType::Root)?;
            if let Some(before) = &before {
                signers.extend(self.signers(before, RoleType::Root)?);
            }
            Ok(sign(root.clone(), signers))
        })();
        let signed = signed.inspect_err(|_| self.private.truncate(known))?;

        let private = self.folder.join(PRIVATE);
        let writing = |path: &Path| {
            let path = path.to_owned();
            move |source: io::Error| KeysError::Write { path, source }
        };
        fs::create_dir_all(&self.folder).map_err(writing(&self.folder))?;
        if !private.is_dir() {
            fs::DirBuilder::new().mode(0o700).create(&private).map_err(writing(&private))?;
            // The folder beside it is meant to be kept with the manifest.
            let ignore = private.join(".gitignore");
            atomic::write(&ignore, "*\n").map_err(writing(&ignore))?;
        }
        for key in &self.private[known..] {
            key.save().map_err(writing(&key.path))?;
        }
        let bytes = metadata::bytes(&signed);
        let version = signed.signed.version.get();
        for name in [numbered(version, RoleType::Root), ROOT.to_owned()] {
            let path = self.folder.join(name);
            atomic::write(&path, &bytes).map_err(writing(&path))?;
        }
        self.roots.insert(version, signed);
        Ok(())
    }
}

/// The files of a folder, by name.
fn files(folder: &Path) -> Result<Vec<PathBuf>, KeysError> {
    let read = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => KeysError::Missing { folder: folder.to_owned() },
        _ => KeysError::Read { path: folder.to_owned(), source },
    };
    let entries = fs::read_dir(folder).map_err(read)?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>().map_err(read)?;
    files.sort();
    Ok(files)
}

/// A root that is signed by enough of its own keys.
fn read_root(path: &Path) -> Result<Signed<Root>, KeysError> {
    let bytes = input::read(path, limits::TEXT)
        .map_err(|source| KeysError::Read { path: path.to_owned(), source })?;
    let no_root = |problem: String| KeysError::NoRoot { path: path.to_owned(), problem };
    let root: Signed<Root> =
        json::parse(&bytes, limits::JSON_VALUES).map_err(|error| no_root(error.to_string()))?;
    root.signed.verify_role(&root).map_err(|error| no_root(error.to_string()))?;
    Ok(root)
}

#[cfg(test)]
mod tests;
