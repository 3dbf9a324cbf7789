//! Whether a version fits the disks in the field: an image's partitions never change on a node, so the smallest
//! layout that was ever published bounds every later version.

use super::former::Disk;
use super::release::Layout;
use crate::base::width::to_u64;
use crate::base::{Size, align};
use crate::verity;

/// What stays free in the EFI system partition beside two kernel images, in bytes: a boot loader is replaced
/// by writing its successor beside it, and files take whole clusters.
pub(super) const ESP_SLACK: u64 = 1 << 20;

/// A version that is too large for a disk in the field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {}, and the disks of {id} {version} have room for {}: {way_out}", shown(*has), shown(*room))]
pub struct Misfit {
    /// What is too large, with its verb.
    pub what: &'static str,
    /// In bytes.
    pub has: u64,
    /// In bytes.
    pub room: u64,
    /// IMAGE_ID.
    pub id: String,
    /// The version whose images have the smallest disks.
    pub version: String,
    /// What can be done.
    pub way_out: &'static str,
}

fn shown(bytes: u64) -> String {
    format!("{} ({bytes} bytes)", Size(bytes).human())
}

/// What a version needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Needs {
    /// Bytes of the root file system.
    pub root: u64,
    /// Bytes of the unified kernel image.
    pub uki: u64,
}

/// Refuses what does not fit the smallest of the `published` disks, or the image's `own`: the largest kernel image of
/// theirs may lie beside the new one.
pub(super) fn check(needs: Needs, own: (&str, &str, Layout), published: &[Disk]) -> Result<(), Misfit> {
    let layouts: Vec<(&str, Layout)> =
        published.iter().map(|disk| (disk.version.as_str(), disk.layout)).chain([(own.1, own.2)]).collect();
    let largest_uki = published.iter().map(|disk| disk.uki).max().unwrap_or_default();
    let tree = verity::tree_size(align::units(needs.root, to_u64(verity::BLOCK)));
    let kernels = needs.uki + largest_uki.max(needs.uki) + ESP_SLACK;
    type Room = fn(&Layout) -> u64;
    let parts: [(&'static str, u64, Room, &'static str); 3] = [
        (
            "the root file system has",
            needs.root,
            |layout| layout.root,
            "leave something out; nodes installed anew can have a larger disk.root",
        ),
        (
            "the hash tree has",
            tree,
            |layout| layout.verity,
            "leave something out of the root; nodes installed anew can have a larger disk.root",
        ),
        (
            "two unified kernel images, the old and the new one, and 1 MiB besides take",
            kernels,
            |layout| layout.esp,
            "make the initramfs smaller; nodes installed anew can have a larger disk.esp",
        ),
    ];
    for (what, has, room_of, way_out) in parts {
        let smallest = layouts.iter().min_by_key(|(_, layout)| room_of(layout));
        let (version, layout) = smallest.expect("the image has a layout of its own");
        let room = room_of(layout);
        if has > room {
            let (id, version) = (own.0.to_owned(), (*version).to_owned());
            return Err(Misfit { what, has, room, id, version, way_out });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Layout = Layout { esp: 40 << 20, root: 100 << 20, verity: 2 << 20 };

    fn published(version: &str, layout: Layout, uki: u64) -> Disk {
        Disk { version: version.to_owned(), layout, sector_size: 512, uki }
    }

    fn refused(needs: Needs, published: &[Disk]) -> String {
        check(needs, ("node", "2.0", OWN), published).unwrap_err().to_string()
    }

    #[test]
    fn the_smallest_disk_counts() {
        let small = published("1.0", Layout { root: 90 << 20, ..OWN }, 0);
        let needs = Needs { root: 95 << 20, uki: 17 << 20 };
        check(needs, ("node", "2.0", OWN), &[published("1.0", OWN, 17 << 20)]).unwrap();
        assert_eq!(
            refused(needs, &[small]),
            "the root file system has 95.0 MiB (99614720 bytes), and the disks of node 1.0 have room for \
             90.0 MiB (94371840 bytes): leave something out; nodes installed anew can have a larger disk.root"
        );
    }

    #[test]
    fn old_and_new_kernel_lie_side_by_side() {
        let needs = Needs { root: 4096, uki: 18 << 20 };
        check(needs, ("node", "2.0", OWN), &[published("1.0", OWN, 21 << 20)]).unwrap();
        let text = refused(needs, &[published("1.0", OWN, (21 << 20) + 1)]);
        assert!(text.starts_with("two unified kernel images, the old and the new one"), "{text}");
        let tight = published("1.0", Layout { verity: 4096, ..OWN }, 0);
        let needs = Needs { root: 8 << 20, uki: 4096 };
        assert!(refused(needs, &[tight]).starts_with("the hash tree has"));
    }
}
