//! A node document in the EFI system partition, where a person or an installer has put it: it is taken once. The copy on
//! the state partition is made first; then what it held is overwritten, since everybody can read the ESP of a disk.

use super::console::Console;
use super::disks::BootDisk;
use super::given::Given;
use super::starts;
use crate::base::device::{Device, ReadAt, Window};
use crate::base::failure::Doing;
use crate::fs::fat::reader::ReadError;
use crate::fs::fat::{EditError, Editor, Reader};
use crate::node::LARGEST;
use crate::node::laying::IN_ESP as PATH;

/// The document in the ESP of the boot disk, if there is one. An ESP that cannot be read is told, and no more than that.
pub(super) fn document(console: &Console, disk: &BootDisk) -> Option<Result<Given, String>> {
    let esp = match starts::open_esp(disk) {
        Ok(esp) => esp,
        Err(failure) => {
            console.warn(&failure.lines().join(": "));
            return None;
        }
    };
    let found = read(&esp)?;
    // It is empty from the moment on when its erasing begins: another boot was cut off in the middle of that.
    if found.as_ref().is_ok_and(|given| given.bytes.is_empty()) {
        drop(esp);
        erase_told(console, disk);
        return None;
    }
    Some(found)
}

fn read<D: ReadAt>(esp: &D) -> Option<Result<Given, String>> {
    let source = format!("{PATH} in the EFI system partition");
    let window = Window::new(esp, 0, esp.size());
    match Reader::open(window).and_then(|mut reader| reader.read(PATH, LARGEST)) {
        Ok(bytes) => Some(Ok(Given { source, bytes })),
        Err(ReadError::NotFound { .. }) => None,
        Err(error) => Some(Err(format!("{source}: {error}"))),
    }
}

/// Overwrites and removes it, once the copy on the state partition is on the disk.
pub(super) fn erase_told(console: &Console, disk: &BootDisk) {
    let erase = || {
        let mut esp = starts::open_esp(disk)?;
        erase(&mut esp).doing(format!("erasing {PATH} in the EFI system partition"))
    };
    match erase() {
        Ok(true) => console.say(&format!("{PATH} was erased")),
        Ok(false) => {}
        Err(failure) => console.alarm(&failure.lines()),
    }
}

fn erase<D: Device>(esp: &mut D) -> Result<bool, EditError> {
    Editor::open(esp)?.erase(PATH)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::base::device::SectorSize;
    use crate::base::power_cut::{Recorder, copy};
    use crate::fs::fat::{Options, write};
    use crate::tree::Tree;

    #[test]
    fn at_each_cut_the_document_is_whole_or_its_erasing_goes_on() {
        let text = format!("node: 1\ncredentials: {{key: {}}}\n", "S3cret".repeat(400));
        let options =
            Options { size: 34 << 20, sector_size: 512, volume_id: 1, label: "ESP".to_owned(), mtime: 0 };
        let mut tree = Tree::new(0);
        tree.file("EFI/Linux/node_1.0.0.efi", 0o644, vec![2; 20_000]).unwrap();
        tree.file(PATH, 0o644, text.clone()).unwrap();
        let mut disk = Cursor::new(vec![0; 34 << 20]);
        write(&tree, &options, &mut disk).unwrap();
        let mut esp = Recorder::new(disk.into_inner(), SectorSize::B512);
        assert_eq!(read(&esp.bytes()).unwrap().unwrap().bytes, text.as_bytes());
        // The copy is on the disk before this begins.
        assert!(erase(&mut esp).unwrap());
        let mut seen = [0; 3];
        esp.each_distinct_cut(|disk, what| {
            // What a damaged sector of FAT or folder does is the editor's own test.
            if what.ends_with("garbage") {
                return;
            }
            let state = match read(&disk) {
                Some(Ok(given)) if given.bytes == text.as_bytes() => 0,
                Some(Ok(given)) if given.bytes.is_empty() => 1,
                None => 2,
                other => panic!("{what}: {other:?}"),
            };
            seen[state] += 1;
            if seen[state] % 40 == 1 {
                let mut again = Recorder::new(copy(disk), SectorSize::B512);
                assert_eq!(erase(&mut again).unwrap(), state != 2, "{what}");
                assert_eq!(read(&again.bytes()), None);
                let gone = |bytes: &[u8]| !bytes.windows(6).any(|bytes| bytes == b"S3cret");
                assert!(gone(again.bytes()), "{what}");
            }
        });
        assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
    }
}
