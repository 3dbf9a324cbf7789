//! Containers inside the verified root: their images unpacked where the runtime looks, their units.
//!
//! Nothing is pulled, loaded or unpacked on the node. podman finds each image in a read-only image store;
//! containerd and crun start from a root folder with a writable overlay in memory.

pub mod archive;
pub mod image;
pub mod layer;
pub mod mounts;
pub mod podman;
pub mod program;
pub mod seccomp;
pub mod spec;
pub mod unit;
pub mod volumes;

use crate::manifest::{Container, Runtime};
use crate::rootfs::Accounts;
use crate::tree::{Kind, Meta, Origin, Tree, TreeError};

pub use image::{Config, Image};
pub use unit::waits_for_network;

/// How long a container may take to start, in seconds: with the 30 s that the network may take, as long as `health:`
/// gives a boot by default.
pub const START_SECONDS: u64 = 90;

/// Why a container could not become part of the root.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// The tree refused.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// Reading a file's body while its layer was digested.
    #[error("reading the files of container {container}: {source}")]
    Read {
        /// The container.
        container: String,
        /// What the disk said.
        source: std::io::Error,
    },
    /// The runtime of the manifest cannot do what the container asks for.
    #[error("container {container} asks for {what}, which runtime {runtime} does not have; {mend}")]
    Unsupported {
        /// The container.
        container: String,
        /// What it asks for.
        what: &'static str,
        /// The runtime.
        runtime: &'static str,
        /// What would work.
        mend: &'static str,
    },
    /// Neither the image nor the manifest names a program.
    #[error("container {container} has nothing to run: its image names no command, so add `command`")]
    NoCommand {
        /// The container.
        container: String,
    },
    /// The container's own program cannot start.
    #[error(
        "container {container} cannot start: its program {program:?} {why}; mend the image, or name another \
         program by `command`"
    )]
    Program {
        /// The container.
        container: String,
        /// As the image or the manifest names it.
        program: String,
        /// What is wrong with it.
        why: String,
    },
    /// The image's user is not in the image.
    #[error(
        "container {container} runs as {user:?}, whom /etc/passwd and /etc/group of its image do not have: \
         name one that they have, or a number"
    )]
    User {
        /// The container.
        container: String,
        /// As the image names it.
        user: String,
    },
    /// A volume for which there is no directory.
    #[error(
        "container {container} has the volume {path}{leads}, which is not in the root, and the root is read-only: \
         name a directory below /var, /srv, /home, /opt or /root"
    )]
    NoFolder {
        /// The container.
        container: String,
        /// On the host.
        path: String,
        /// Where links lead it, in words that follow on it.
        leads: String,
    },
    /// A volume that systemd-tmpfiles refuses to make.
    #[error(
        "container {container} has the volume {path}, which no node would make: {above} belongs to user {above_uid}, and \
         {below} in it to user {below_uid}, and systemd-tmpfiles makes nothing below such a pair; leave this volume out \
         where another one holds it, or name a directory elsewhere, such as /var/lib/{container}"
    )]
    Crossed {
        /// The container.
        container: String,
        /// On the host.
        path: String,
        /// A directory above it that is not root's.
        above: String,
        /// Whose that is.
        above_uid: u32,
        /// One in that, and above the volume.
        below: String,
        /// Whose that is.
        below_uid: u32,
    },
    /// A program that starts the container.
    #[error("container {container} needs {program}, which is not in the root: add {package} to `packages`")]
    NoProgram {
        /// The container.
        container: String,
        /// Absolute path.
        program: &'static str,
        /// The package that has it.
        package: &'static str,
    },
}

/// Refuses a root without a program that `container` is started with.
fn need(
    tree: &Tree,
    container: &Container,
    program: &'static str,
    package: &'static str,
) -> Result<(), ContainerError> {
    let missing = || ContainerError::NoProgram { container: container.name.clone(), program, package };
    tree.resolve(program).map(drop).map_err(|_| missing())
}

/// What images bring lies below this directory of the verified root, whose every file the node's users could read
/// and start.
pub const FOLDER: &str = "usr/share/keller/containers";

/// Makes the directory at `path`, which is open to root alone.
fn closed(tree: &mut Tree, path: &str) -> Result<(), TreeError> {
    let meta = Meta::new(0o700).at(tree.epoch);
    tree.put(path, meta, Kind::Directory(Default::default()), Origin::default()).map(drop)
}

/// Puts `container`, whose root is `image`, into the root `tree` for `runtime`: the image's files move there. `accounts`
/// are the node's. Says where in it the image's root directory is.
pub fn install(
    tree: &mut Tree,
    runtime: Runtime,
    container: &Container,
    image: Image,
    accounts: &Accounts,
) -> Result<String, ContainerError> {
    match runtime {
        Runtime::Podman => podman::install(tree, container, image, accounts),
        Runtime::Containerd | Runtime::Crun => unit::install(tree, runtime, container, image, accounts),
        Runtime::None => Err(ContainerError::Unsupported {
            container: container.name.clone(),
            what: "a runtime",
            runtime: "none",
            mend: "set runtime to podman, containerd or crun",
        }),
    }
}
