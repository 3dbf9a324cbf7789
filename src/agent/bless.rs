//! Takes the try counter off the entry that was started, once the boot is good.
//!
//! In place of systemd-bless-boot, which has the kernel rename the file: Linux's FAT driver gives the new name to an
//! empty file first, and says where its content is by a second write. A loss of power between the two leaves an entry
//! without content, and with it a version that was just found good is gone. Here one sector is written.

use super::disk::NodeDisk;
use super::esp::Claim;
use super::node;
use super::record::Turn;
use crate::base::failure::{Doing, Failure};
use crate::base::progress::Progress;
use crate::update::apply;

/// Blesses the version that runs; nothing to do where its entry has no counter.
pub fn bless(progress: &dyn Progress) -> Result<(), Failure> {
    let Some(file) = node::counted_entry() else {
        progress.note("this entry is not on trial");
        return Ok(());
    };
    let _turn = Turn::take(progress)?;
    let disk = NodeDisk::find()?;
    let mut claim = Claim::take(&disk.esp()?)?;
    let name = apply::bless(claim.device(), &file).doing(format!("blessing {file}"))?;
    progress.note(&format!("{file} is {name} from now on"));
    Ok(())
}
