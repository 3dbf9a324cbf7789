//! Who may give a node its document: what the manifest says of it, which lies in the verified root.

use std::fs;
use std::io;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Document;
use super::signature::{self, PublicKey};
use crate::base::failure::{Doing, Failure};
use crate::base::{json, limits};

/// Where it lies in the root, without a leading slash; nothing is there where anybody may give one.
pub const PATH: &str = "usr/lib/keller/node.json";

/// Who may give a document. By default whoever can.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Where documents are looked for; everywhere, where none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sources: Option<Vec<Place>>,
    /// One of these has signed a document that counts; where empty, none needs to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<PublicKey>,
}

/// Where a machine gives a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// A credential of the firmware.
    Smbios,
    /// A credential of QEMU.
    FwCfg,
    /// A file of the EFI system partition.
    Esp,
    /// What an ISO or netboot file was built with.
    Initramfs,
    /// A file system labelled KELLER-NODE.
    Medium,
}

impl Place {
    /// Its word in a manifest.
    pub fn name(self) -> &'static str {
        match self {
            Self::Smbios => "smbios",
            Self::FwCfg => "fw_cfg",
            Self::Esp => "esp",
            Self::Initramfs => "initramfs",
            Self::Medium => "medium",
        }
    }
}

impl Policy {
    /// Of the bytes of its file.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn parse(bytes: &[u8]) -> serde_json::Result<Self> {
        json::parse(bytes, limits::JSON_VALUES)
    }

    /// That of the verified root at `root`; the default where it says nothing.
    ///
    /// # Errors
    /// A file that cannot be read or understood.
    pub fn of_root(root: &Path) -> Result<Self, Failure> {
        let doing = || format!("reading /{PATH}");
        match fs::read(root.join(PATH)) {
            Ok(bytes) => Self::parse(&bytes).doing(doing()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).doing(doing()),
        }
    }

    /// One by which no document counts, for a file that cannot be read.
    pub fn closed() -> Self {
        Self { sources: Some(Vec::new()), keys: Vec::new() }
    }

    /// Whether a document may come from `place`.
    pub fn takes_from(&self, place: Place) -> bool {
        self.sources.as_ref().is_none_or(|sources| sources.contains(&place))
    }

    /// Whether `document` counts, wherever it came from.
    ///
    /// # Errors
    /// Why it does not, as a clause.
    pub fn check(&self, document: &Document) -> Result<(), &'static str> {
        match self.keys.is_empty() {
            true => Ok(()),
            false => signature::check(&document.text, &self.keys),
        }
    }
}

impl Policy {
    /// The first of `documents` that does not count, and why.
    ///
    /// # Errors
    /// That.
    pub fn check_all<'d>(&self, documents: &'d [Document]) -> Result<(), (&'d Document, &'static str)> {
        let wrong = |document| self.check(document).err().map(|why| (document, why));
        documents.iter().find_map(wrong).map_or(Ok(()), Err)
    }
}

/// What helps where [`Policy::check`] fails.
pub const SIGN: &str = "this image takes only documents that are signed with one of its keys: `keller node sign --key FILE DOCUMENT`";
