//! What can be wrong with a repository, and what a person can do about it.

use std::io;

use jiff::Timestamp;
use tough::schema::RoleType;

use crate::base::Size;
use crate::repository::metadata::date;
use crate::update::remote::RemoteError;

/// Why a repository, or a file of it, is not trusted.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// Nobody renewed it, or somebody holds back what was renewed.
    #[error("the {role} metadata has expired on {}, and it is {}: {}", date(*since), date(*now), renew(*role))]
    Expired {
        /// Of which role.
        role: RoleType,
        /// When.
        since: Timestamp,
        /// By the caller's clock.
        now: Timestamp,
    },
    /// Older than what this node has seen.
    #[error(
        "the {role} metadata is version {found}, and this node has seen version {known}: the server has an old copy of the repository, or somebody replays one"
    )]
    Rollback {
        /// Of which role.
        role: RoleType,
        /// The version that was seen before.
        known: u64,
        /// The version that is there now.
        found: u64,
    },
    /// Not signed by those who may.
    #[error(
        "{path} is not signed by the keys that {role} has in root {version}, {valid} of {needed} signatures are good: this is another repository, or somebody else has written to it"
    )]
    WrongKeys {
        /// Whose signature.
        role: RoleType,
        /// The file.
        path: String,
        /// Of the newest root that is trusted.
        version: u64,
        /// Signatures that are needed.
        needed: u64,
        /// Signatures that are good.
        valid: u64,
    },
    /// A step in the chain of roots is not there.
    #[error(
        "metadata/{missing}.root.json is not in the repository, but {there}.root.json is: publish again with a directory of keys that has every root, or restore the file"
    )]
    MissingRoot {
        /// The version that is missing.
        missing: u64,
        /// A later one.
        there: u64,
    },
    /// More roots than anybody has keys for.
    #[error("the repository has more than {limit} roots after the one that this node trusts")]
    TooManyRoots {
        /// Roots that are followed.
        limit: u64,
    },
    /// Two files that do not go together.
    #[error(
        "{path} is not what {by} says: the repository is damaged, or was just being published; the next try tells"
    )]
    Inconsistent {
        /// The file.
        path: String,
        /// What names it.
        by: String,
    },
    /// No metadata of this kind.
    #[error("{path} cannot be understood: {problem}")]
    Malformed {
        /// The file.
        path: String,
        /// What is wrong.
        problem: String,
    },
    /// Nothing that the publisher has made is so large.
    #[error("{path} has more than the {} that are read of it: the server does not serve this repository", Size(*limit).human())]
    TooLarge {
        /// The file.
        path: String,
        /// In bytes.
        limit: u64,
    },
    /// A file is not there.
    #[error(
        "{path} is not on the server: the address must be that of the repository's root, and all of it must be there \
         (a 403 counts as missing)"
    )]
    NotFound {
        /// The file.
        path: String,
    },
    /// The server, or the way to it, has failed.
    #[error(transparent)]
    Remote(RemoteError),
    /// The clock cannot be right.
    #[error("the clock shows {}, and metadata of {} was good on this node before: wait for time synchronisation; if the clock was in the future once, `keller update reset-clock` forgets it", date(*now), date(*latest))]
    ClockWentBack {
        /// By the caller's clock.
        now: Timestamp,
        /// The latest time at which metadata was good.
        latest: Timestamp,
    },
    /// No time at all.
    #[error("the clock shows {seconds} seconds since 1970, which is no time")]
    Clock {
        /// As given.
        seconds: i64,
    },
    /// The anchor of it all.
    #[error("the root of trust cannot be used: {problem}")]
    TrustedRoot {
        /// What is wrong.
        problem: String,
    },
    /// A document that is newer than this keller.
    #[error(
        "the release document of {version} has format {format}, and this keller knows up to {known}: go to a version in between first"
    )]
    FormatTooNew {
        /// Of the release.
        version: String,
        /// Of the document.
        format: u32,
        /// The newest that is known.
        known: u32,
    },
    /// A document that is none.
    #[error("{path} is no release document")]
    Document {
        /// The file.
        path: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A document of something else.
    #[error("{path} is the release document of {id} {version}, not of {wanted_id} {wanted_version}")]
    OtherDocument {
        /// The file.
        path: String,
        /// Of the document.
        id: String,
        /// Of the document.
        version: String,
        /// As listed.
        wanted_id: String,
        /// As listed.
        wanted_version: String,
    },
    /// Another process looks at the repository.
    #[error("another keller is looking at the repository just now")]
    Busy,
    /// The node's own disk.
    #[error("{doing}")]
    Datastore {
        /// In the gerund.
        doing: String,
        /// What the disk said.
        source: io::Error,
    },
}

impl From<RemoteError> for RepositoryError {
    fn from(error: RemoteError) -> Self {
        match error {
            RemoteError::Missing { path } => Self::NotFound { path },
            error => Self::Remote(error),
        }
    }
}

fn renew(role: RoleType) -> &'static str {
    match role {
        RoleType::Root => "`keller keys renew` and `keller publish --refresh` renew it at the publisher's",
        _ => "`keller publish --refresh` renews it at the publisher's",
    }
}
