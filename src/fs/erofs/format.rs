//! The on-disk structures of EROFS, as far as uncompressed images use them.
//!
//! Source: Linux, `fs/erofs/erofs_fs.h`, and `Documentation/filesystems/erofs.rst`; names are the kernel's.
//! All numbers are little-endian.

use crate::base::on_disk::{le, on_disk};

/// Bytes of a block: the largest that every x86 and arm64 kernel reads, and the verity block.
pub const BLOCK: u64 = 4096;
/// `blkszbits`: [`BLOCK`] as a power of two.
pub const BLKSZBITS: u8 = 12;
/// Where the superblock lies, in bytes: leaves room for boot sectors.
pub const SUPER_OFFSET: u64 = 1024;
/// `magic` of the superblock.
pub const SUPER_MAGIC_V1: u32 = 0xE0F5_E1E2;
/// Bytes of an inode slot: an inode number (nid) is an offset in these.
pub const SLOT: u64 = 32;
/// Bytes of the longest file name.
pub const NAME_LEN: usize = 255;

/// `feature_compat`: the superblock carries a checksum.
pub const FEATURE_COMPAT_SB_CHKSUM: u32 = 0x1;
/// `feature_compat`: times of inodes are modification times.
pub const FEATURE_COMPAT_MTIME: u32 = 0x2;

/// Bit of `i_format`: the inode is an [`InodeExtended`].
pub const I_VERSION_EXTENDED: u16 = 1;
/// Where the data layout stands in `i_format`, in bits.
pub const I_DATALAYOUT_BIT: u16 = 1;
/// Bits of `i_format` that this format knows; others must be zero.
pub const I_ALL: u16 = 0xf;

/// Data layout: whole blocks from `i_u` on.
pub const INODE_FLAT_PLAIN: u16 = 0;
/// Data layout: whole blocks from `i_u` on, and the rest directly after the inode, in the same block.
pub const INODE_FLAT_INLINE: u16 = 2;

/// Name index of `user.*`.
pub const XATTR_INDEX_USER: u8 = 1;
/// Name index of `system.posix_acl_access`, whose stored name is empty.
pub const XATTR_INDEX_POSIX_ACL_ACCESS: u8 = 2;
/// Name index of `system.posix_acl_default`, whose stored name is empty.
pub const XATTR_INDEX_POSIX_ACL_DEFAULT: u8 = 3;
/// Name index of `trusted.*`.
pub const XATTR_INDEX_TRUSTED: u8 = 4;
/// Name index of `security.*`.
pub const XATTR_INDEX_SECURITY: u8 = 6;

/// Name indexes with what they stand for. The two whole names come first: they have no rest.
pub const XATTR_PREFIXES: [(u8, &[u8]); 5] = [
    (XATTR_INDEX_POSIX_ACL_ACCESS, b"system.posix_acl_access"),
    (XATTR_INDEX_POSIX_ACL_DEFAULT, b"system.posix_acl_default"),
    (XATTR_INDEX_USER, b"user."),
    (XATTR_INDEX_TRUSTED, b"trusted."),
    (XATTR_INDEX_SECURITY, b"security."),
];

/// Unit of extended attributes, in bytes: entries are padded to it, `i_xattr_icount` counts in it.
pub const XATTR_UNIT: usize = 4;

/// `S_IFMT` and the types in it (`inode(7)`).
pub mod mode {
    /// Mask of the type.
    pub const IFMT: u16 = 0o170_000;
    /// Named pipe.
    pub const IFIFO: u16 = 0o010_000;
    /// Character device.
    pub const IFCHR: u16 = 0o020_000;
    /// Directory.
    pub const IFDIR: u16 = 0o040_000;
    /// Block device.
    pub const IFBLK: u16 = 0o060_000;
    /// Regular file.
    pub const IFREG: u16 = 0o100_000;
    /// Symbolic link.
    pub const IFLNK: u16 = 0o120_000;
    /// Socket.
    pub const IFSOCK: u16 = 0o140_000;
}

on_disk! {
    /// `erofs_super_block`.
    pub SuperBlock: 128 bytes {
        magic: le::U32,
        /// See [`checksum`].
        checksum: le::U32,
        feature_compat: le::U32,
        blkszbits: u8,
        sb_extslots: u8,
        /// 16 bits: the root's inode must be near the start of the metadata.
        root_nid: le::U16,
        /// Number of inodes.
        inos: le::U64,
        /// Seconds since 1970.
        build_time: le::U64,
        build_time_nsec: le::U32,
        /// Blocks of the whole image.
        blocks: le::U32,
        /// The block that nid 0 stands for.
        meta_blkaddr: le::U32,
        xattr_blkaddr: le::U32,
        uuid: [u8; 16],
        volume_name: [u8; 16],
        feature_incompat: le::U32,
        available_compr_algs: le::U16,
        extra_devices: le::U16,
        devt_slotoff: le::U16,
        dirblkbits: u8,
        xattr_prefix_count: u8,
        xattr_prefix_start: le::U32,
        packed_nid: le::U64,
        xattr_filter_reserved: u8,
        reserved2: [u8; 23],
    }
}

on_disk! {
    /// `erofs_inode_compact`: only read; it has neither a time nor large ids.
    pub InodeCompact: 32 bytes {
        i_format: le::U16,
        i_xattr_icount: le::U16,
        i_mode: le::U16,
        i_nlink: le::U16,
        i_size: le::U32,
        i_reserved: le::U32,
        i_u: le::U32,
        i_ino: le::U32,
        i_uid: le::U16,
        i_gid: le::U16,
        i_reserved2: le::U32,
    }
}

on_disk! {
    /// `erofs_inode_extended`.
    pub InodeExtended: 64 bytes {
        /// Version bit and data layout.
        i_format: le::U16,
        /// Size of the attributes behind the inode, see [`xattr_ibody_size`].
        i_xattr_icount: le::U16,
        i_mode: le::U16,
        i_reserved: le::U16,
        i_size: le::U64,
        /// First block, or the device number.
        i_u: le::U32,
        i_ino: le::U32,
        i_uid: le::U32,
        i_gid: le::U32,
        /// Seconds since 1970, two's complement.
        i_mtime: le::U64,
        i_mtime_nsec: le::U32,
        i_nlink: le::U32,
        i_reserved2: [u8; 16],
    }
}

on_disk! {
    /// `erofs_xattr_ibody_header`, followed by the ids of shared attributes, then by entries.
    pub XattrIbodyHeader: 12 bytes {
        /// Unused without the feature `XATTR_FILTER`.
        h_name_filter: le::U32,
        h_shared_count: u8,
        h_reserved2: [u8; 7],
    }
}

on_disk! {
    /// `erofs_xattr_entry`, followed by name and value, padded to [`XATTR_UNIT`].
    pub XattrEntry: 4 bytes {
        e_name_len: u8,
        e_name_index: u8,
        e_value_size: le::U16,
    }
}

on_disk! {
    /// `erofs_dirent`. A directory block has all its entries first, then all their names.
    pub Dirent: 12 bytes {
        nid: le::U64,
        /// Where the name begins in the block; that of the first entry also tells their number.
        nameoff: le::U16,
        file_type: u8,
        reserved: u8,
    }
}

/// Bytes of the attributes behind an inode whose `i_xattr_icount` is `count`.
pub fn xattr_ibody_size(count: u16) -> usize {
    match count {
        0 => 0,
        count => XattrIbodyHeader::SIZE + XATTR_UNIT * (usize::from(count) - 1),
    }
}

/// The `file_type` of a directory entry for the type in `i_mode`; 0 if there is no such type.
pub fn file_type(i_mode: u16) -> u8 {
    match i_mode & mode::IFMT {
        mode::IFREG => 1,
        mode::IFDIR => 2,
        mode::IFCHR => 3,
        mode::IFBLK => 4,
        mode::IFIFO => 5,
        mode::IFSOCK => 6,
        mode::IFLNK => 7,
        _ => 0,
    }
}

/// A device number as inodes hold it: the kernel's `new_encode_dev`, 12 bits major, 20 bits minor.
pub fn encode_dev(major: u32, minor: u32) -> Option<u32> {
    (major < 1 << 12 && minor < 1 << 20).then_some((minor & 0xff) | major << 8 | (minor & !0xff) << 12)
}

/// Major and minor number: the kernel's `new_decode_dev`.
pub fn decode_dev(dev: u32) -> (u32, u32) {
    ((dev & 0xf_ff00) >> 8, (dev & 0xff) | (dev >> 12 & 0xf_ff00))
}

/// The checksum of a superblock: CRC-32C of the block from [`SUPER_OFFSET`] to its end with the field
/// `checksum` zero, without the usual final inversion.
pub fn checksum(block: &[u8]) -> u32 {
    /// Castagnoli's polynomial, reflected.
    const POLYNOMIAL: u32 = 0x82F6_3B78;
    block.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (POLYNOMIAL & (crc & 1).wrapping_neg()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::on_disk::{FromBytes, IntoBytes};

    #[test]
    fn checksum_is_crc32c() {
        // The check value of CRC-32C in the catalogues is that of this text, inverted.
        assert_eq!(!checksum(b"123456789"), 0xE306_9283);
    }

    #[test]
    fn device_numbers_survive() {
        for (major, minor) in [(0, 0), (1, 3), (8, 255), (8, 256), (4095, (1 << 20) - 1)] {
            assert_eq!(decode_dev(encode_dev(major, minor).unwrap()), (major, minor));
        }
        assert_eq!(encode_dev(1, 3), Some(0x103));
        assert!(encode_dev(4096, 0).is_none() && encode_dev(0, 1 << 20).is_none());
    }

    #[test]
    fn structures_survive() {
        let dirent =
            Dirent { nid: 0x0102_0304_0506_0708.into(), nameoff: 0x1122.into(), file_type: 7, reserved: 0 };
        assert_eq!(dirent.as_bytes()[..3], [8, 7, 6]);
        assert_eq!(Dirent::read_from_bytes(dirent.as_bytes()).unwrap(), dirent);
    }
}
