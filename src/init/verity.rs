//! Opens the root through dm-verity: `/dev/mapper/root`.
//!
//! The superblock is cryptsetup's (`struct verity_sb`, lib/verity/verity.c), the table line that of Linux,
//! Documentation/admin-guide/device-mapper/verity.rst.
//!
//! The superblock is not signed, but nothing in it can be changed unnoticed. Block sizes, digest and version
//! must be the ones that keller writes. With them fixed, the root hash is SHA-256 over salt and top block in
//! a fixed order, so another salt or another length of it gives another hash. The number of data blocks sets
//! the depth of the tree: were it claimed shallower, hash blocks would be served as a file system; deeper,
//! then the first data block, whose first kilobyte is zero in EROFS and ext4, would have to hold the digest
//! of something.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, symlink};

use uuid::Uuid;

use super::device_mapper::{self, Target};
use crate::base::failure::{Doing, Failure};
use crate::base::width::to_u64;
use crate::base::{Digest, Hasher};
use crate::disk::{FileDevice, ReadAt};
use crate::verity::{self, BLOCK};

/// Name of the mapped device.
const NAME: &str = "root";
/// What `findmnt /` shows.
pub(super) const DEVICE: &str = "/dev/mapper/root";
/// The device mapper counts in these, in bytes.
const SECTOR: u64 = 512;

/// What the superblock says that the table line needs.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Superblock {
    uuid: Uuid,
    data_blocks: u64,
    salt: Vec<u8>,
}

/// Why a hash device is not taken.
#[derive(Debug, thiserror::Error)]
enum SuperblockError {
    #[error(transparent)]
    Format(#[from] verity::Error),
    #[error("it says that there are {blocks} data blocks, but the data partition has {room}")]
    TooManyBlocks { blocks: u64, room: u64 },
    #[error("its root hash is {actual}, expected {expected}")]
    RootHash { expected: Digest, actual: Digest },
}

impl Superblock {
    /// Reads the first block of a hash device for a data partition with room for `room` blocks.
    fn parse(block: &[u8; BLOCK], room: u64) -> Result<Self, SuperblockError> {
        let (options, blocks) = verity::parse_superblock(block)?;
        if blocks == 0 || blocks > room {
            return Err(SuperblockError::TooManyBlocks { blocks, room });
        }
        Ok(Self { uuid: options.uuid, data_blocks: blocks, salt: options.salt })
    }

    /// The root hash of a tree with the top block `top`.
    fn root_hash(&self, top: &[u8]) -> Digest {
        let mut hasher = Hasher::new();
        hasher.update(&self.salt);
        hasher.update(top);
        hasher.finish()
    }

    /// The table's one line; a block that does not verify makes the kernel panic, so that a node never goes
    /// on with half a root.
    fn target(&self, data: &str, hash: &str, root_hash: &Digest) -> Target {
        let salt = match self.salt.is_empty() {
            true => "-".to_owned(),
            false => hex::encode(&self.salt),
        };
        // The tree begins in block 1 of the hash device, behind the superblock.
        let parameters = format!(
            "1 {data} {hash} {BLOCK} {BLOCK} {} 1 sha256 {root_hash} {salt} 1 panic_on_corruption",
            self.data_blocks
        );
        Target { kind: "verity", sectors: self.data_blocks * (to_u64(BLOCK) / SECTOR), parameters }
    }
}

/// Makes [`DEVICE`] out of the partitions `data` and `hash`, e.g. `/dev/vda2`.
pub(super) fn open(data: &str, hash: &str, root_hash: &Digest) -> Result<(), Failure> {
    let refused = |cause: io::Error| Failure::new(format!("opening the hash tree on {hash}"), cause);
    let room =
        File::open(data).and_then(FileDevice::block).doing(format!("opening {data}"))?.size() / to_u64(BLOCK);
    let tree = File::open(hash).map_err(refused)?;
    let mut block = [0; BLOCK];
    tree.read_exact_at(&mut block, 0).map_err(refused)?;
    let superblock = Superblock::parse(&block, room).map_err(|error| refused(io::Error::other(error)))?;
    if superblock.data_blocks > 1 {
        tree.read_exact_at(&mut block, to_u64(BLOCK)).map_err(refused)?;
        let actual = superblock.root_hash(&block);
        if actual != *root_hash {
            let expected = *root_hash;
            return Err(refused(io::Error::other(SuperblockError::RootHash { expected, actual })));
        }
    }
    let target = superblock.target(&device_number(data)?, &device_number(hash)?, root_hash);
    // The prefix by which cryptsetup and systemd know verity devices.
    let uuid = format!("CRYPT-VERITY-{}-{NAME}", superblock.uuid.simple());
    let number = device_mapper::create(NAME, &uuid, &target).doing("setting up dm-verity for the root")?;
    // udev would make this link, but comes later.
    let _ = fs::remove_file(DEVICE);
    symlink(format!("../dm-{number}"), DEVICE).doing(format!("making {DEVICE}"))
}

/// `major:minor` of a device node.
fn device_number(path: &str) -> Result<String, Failure> {
    use std::os::unix::fs::MetadataExt;
    let number = fs::metadata(path).doing(format!("looking at {path}"))?.rdev();
    Ok(format!("{}:{}", rustix::fs::major(number), rustix::fs::minor(number)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block() -> [u8; 4096] {
        let mut block = [0; 4096];
        block[..8].copy_from_slice(b"verity\0\0");
        block[8] = 1;
        block[12] = 1;
        block[16..32].copy_from_slice(&[0xab; 16]);
        block[32..38].copy_from_slice(b"sha256");
        block[64..68].copy_from_slice(&4096_u32.to_le_bytes());
        block[68..72].copy_from_slice(&4096_u32.to_le_bytes());
        block[72..80].copy_from_slice(&1000_u64.to_le_bytes());
        block[80] = 2;
        block[88..90].copy_from_slice(&[0xca, 0xfe]);
        block
    }

    #[test]
    fn the_table_line() {
        let superblock = Superblock::parse(&block(), 1000).unwrap();
        let hash = Digest::of("root");
        let target = superblock.target("254:2", "254:3", &hash);
        assert_eq!(target.sectors, 8000);
        assert_eq!(
            target.parameters,
            format!("1 254:2 254:3 4096 4096 1000 1 sha256 {hash} cafe 1 panic_on_corruption")
        );
        assert_eq!(superblock.root_hash(b"top"), Digest::of(b"\xca\xfetop"));
    }

    #[test]
    fn only_what_keller_writes_is_taken() {
        assert!(matches!(
            Superblock::parse(&block(), 999),
            Err(SuperblockError::TooManyBlocks { blocks: 1000, room: 999 })
        ));
        for at in [0, 8, 12, 36, 65, 69, 81] {
            let mut block = block();
            block[at] ^= 2;
            assert!(matches!(Superblock::parse(&block, 1000), Err(SuperblockError::Format(_))), "byte {at}");
        }
    }
}
