//! Why a root could not be finished, sorted by blame: the manifest, the packages, the lock.

use crate::base::near::did_you_mean;
use crate::base::{Size, limits};
use crate::tree::TreeError;

/// See the module.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The tree under the fix-up.
    #[error(transparent)]
    Tree(#[from] TreeError),

    /// The manifest enables what no package and no overlay has.
    #[error("services.enable names {unit}, which no package and no overlay has{}", did_you_mean(.near))]
    UnknownUnit {
        /// As in the manifest.
        unit: String,
        /// Units with names like it.
        near: Vec<String>,
    },
    /// The manifest enables a unit that cannot be.
    #[error(
        "services.enable names {unit}, which has no [Install] section: it is started by other units, or not at all"
    )]
    NotInstallable {
        /// As in the manifest.
        unit: String,
    },
    /// The manifest enables a unit that a generator makes of a file which does not say what starts it.
    #[error(
        "services.enable names {unit}, which is made of /{of} at boot, where no [Install] section says what starts it: add one with WantedBy=multi-user.target to that file"
    )]
    NotInstallableAtBoot {
        /// As in the manifest.
        unit: String,
        /// The file.
        of: String,
    },
    /// A template was enabled without saying which instance.
    #[error("services.enable names the template {unit}, which has no DefaultInstance: name an instance, e.g. {}", .unit.replace('@', "@NAME"))]
    NoInstance {
        /// As in the manifest.
        unit: String,
    },
    /// A unit is both enabled and masked.
    #[error("{unit} is in services.enable, but masked by {by}")]
    Masked {
        /// The unit.
        unit: String,
        /// `services.mask` or the builder, with its reason.
        by: String,
    },
    /// A kernel module that is not there.
    #[error("kernel {kernel} has no module {name}{}", did_you_mean(.near))]
    UnknownModule {
        /// As in the manifest.
        name: String,
        /// The kernel's release.
        kernel: String,
        /// Modules with names like it.
        near: Vec<String>,
    },
    /// An account names a group that nobody defines.
    #[error("user {user} is to be a member of group {group}, which no package and no manifest entry makes")]
    UnknownGroup {
        /// The account.
        user: String,
        /// The group.
        group: String,
    },
    /// A person's account has the name of one that is there already.
    #[error("users names {name}, an account that {by} makes already: choose another name")]
    AccountExists {
        /// The name.
        name: String,
        /// Who else.
        by: String,
    },
    /// A person's account has the name of a group that is there already, under which its own group would be.
    #[error(
        "users names {name}, which is a group that {by} makes: a person's own group has the person's name; \
         choose another name, and add {name} to its `groups` where that is meant"
    )]
    NamesAGroup {
        /// The name.
        name: String,
        /// Who else.
        by: String,
    },
    /// Two accounts or groups with one number.
    #[error("{kind} id {id} is wanted by {first} and by {second}")]
    IdTaken {
        /// `user` or `group`.
        kind: &'static str,
        /// The number.
        id: u32,
        /// Who has it.
        first: String,
        /// Who wants it too.
        second: String,
    },
    /// The same name with two different numbers.
    #[error("{name} has id {first} from {first_source}, but id {second} from {second_source}")]
    IdsDiffer {
        /// Name of the user or group.
        name: String,
        /// One number.
        first: u32,
        /// Who says so.
        first_source: String,
        /// The other number.
        second: u32,
        /// Who says so.
        second_source: String,
    },
    /// No number is left of those that may be chosen.
    #[error("no system id is left for {name}: all of {ranges} are taken")]
    NoIdLeft {
        /// Name of the user or group.
        name: String,
        /// Numbers that may be chosen.
        ranges: String,
    },
    /// A file that the builder makes is in the tree already.
    #[error("{path} is made by keller from {from}, but {origin} has one")]
    Taken {
        /// The path.
        path: String,
        /// What the builder makes it from.
        from: &'static str,
        /// Who brought it.
        origin: String,
    },

    /// Two paths that are one on a node, since directories lead to the state partition.
    #[error("{first} and {second} are one place on a node: leave one of them out with `prune`")]
    OnePlace {
        /// One path.
        first: String,
        /// The other.
        second: String,
    },

    /// Something that a fix-up needs is in no package of the list.
    #[error("{what} is missing: {why}")]
    Missing {
        /// A file or package.
        what: String,
        /// The file of it that would be there, without leading slash.
        path: String,
        /// What it is needed for, and what helps.
        why: &'static str,
    },
    /// A file of a package or an overlay does not follow its format.
    #[error("{path}{}: {what}", if *.line == 0 { String::new() } else { format!(":{line}") })]
    Malformed {
        /// Path in the tree.
        path: String,
        /// From 1; 0 when it is about the whole file.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// Modules of which the indexes would fill the memory: long paths that depend on many others, names without end.
    #[error("the indexes of the modules of kernel {kernel}, such as modules.dep, have more than {} together", .limit.human())]
    LargeIndexes {
        /// The kernel's release.
        kernel: String,
        /// [`crate::base::limits::MODULE_INDEXES`].
        limit: Size,
    },
    /// More modules than a kernel has.
    #[error("kernel {kernel} has more than {limit} modules, the most that are read")]
    ManyModules {
        /// The kernel's release.
        kernel: String,
        /// [`crate::base::limits::MODULES`].
        limit: usize,
    },
    /// A module that needs more others than any.
    #[error("kernel module {module} needs more than {limit} others, directly or by way of each other")]
    ManyNeeded {
        /// Its name.
        module: String,
        /// [`crate::base::limits::NEEDED`].
        limit: usize,
    },
    /// Modules that need each other.
    #[error("kernel modules need each other in a circle: {}", .modules.join(", "))]
    ModuleCycle {
        /// Names of those in or behind the circle.
        modules: Vec<String>,
    },

    /// The lock has no number for an account.
    #[error("the lock has no id for {name}: it was made for other packages; lock anew")]
    NotLocked {
        /// Name of the user or group.
        name: String,
    },
}

impl Error {
    /// For a line that is one more than [`limits::ACCOUNTS`].
    pub(super) fn too_many_accounts(path: &str, line: usize) -> Self {
        let what =
            format!("there are more than {} lines of accounts, the most that are read", limits::ACCOUNTS);
        Self::Malformed { path: path.to_owned(), line, what }
    }
}
