//! The default image taken apart by other people's tools, once for all tests that run at the same time.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use serde_json::Value;

use super::image;
use super::scratch::Scratch;
use crate::judges::tool::{run, tool};

/// How much is copied at once, in bytes: a hole of the image is at least so large.
const STEP: usize = 1 << 20;

/// Partitions of the default image as files, and what was unpacked from them.
pub struct Parts {
    /// Has everything below.
    pub folder: Scratch,
    /// The EFI system partition.
    pub esp: PathBuf,
    /// Its content, as mtools copy it.
    pub esp_folder: PathBuf,
    /// The root file system of slot A.
    pub root: PathBuf,
    /// Its content, as fsck.erofs extracts it.
    pub root_folder: PathBuf,
    /// The hash tree of slot A.
    pub verity: PathBuf,
    /// As `build.json` says it.
    pub root_hash: String,
}

/// The parts; nothing, said aloud, where a tool is missing. Tests that run at the same time share them. They take as
/// much of the disk as two images, so they go when no test uses them, and are made again in seconds.
pub fn parts() -> Option<Arc<Parts>> {
    static PARTS: Mutex<Weak<Parts>> = Mutex::new(Weak::new());
    let mut shared = PARTS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(parts) = shared.upgrade() {
        return Some(parts);
    }
    let parts = Arc::new(take_apart()?);
    *shared = Arc::downgrade(&parts);
    Some(parts)
}

fn take_apart() -> Option<Parts> {
    let (mut sfdisk, mut mcopy, mut fsck) = (tool("sfdisk")?, tool("mcopy")?, tool("fsck.erofs")?);
    let folder = Scratch::new("parts");
    let table: Value = serde_json::from_str(&run(sfdisk.arg("--json").arg(image()))).unwrap();
    let partition = |index: usize, name: &str| {
        let sectors = |field: &str| {
            let entry = &table["partitiontable"]["partitions"][index];
            entry[field].as_u64().unwrap_or_else(|| panic!("partition {index} has no {field}: {table}"))
        };
        let sector = table["partitiontable"]["sectorsize"].as_u64().unwrap_or(512);
        let place = folder.join(name);
        copy(image(), sectors("start") * sector, sectors("size") * sector, &place);
        place
    };
    let (esp, root, verity) = (partition(0, "esp"), partition(1, "root"), partition(2, "verity"));
    let esp_folder = folder.join("esp.d");
    fs::create_dir(&esp_folder).unwrap();
    run(mcopy.arg("-i").arg(&esp).args(["-s", "::*"]).arg(&esp_folder));
    let root_folder = folder.join("root.d");
    run(fsck.arg("--preserve-perms").arg(format!("--extract={}", root_folder.display())).arg(&root));
    let report = fs::read(image().with_file_name("build.json")).unwrap();
    let report: Value = serde_json::from_slice(&report).unwrap();
    let root_hash = find(&report, "root_hash").expect("build.json has the root hash").to_owned();
    Some(Parts { folder, esp, esp_folder, root, root_folder, verity, root_hash })
}

/// The text under `name`, however deep it lies.
fn find<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    let object = value.as_object()?;
    object.get(name).and_then(Value::as_str).or_else(|| object.values().find_map(|value| find(value, name)))
}

/// Copies `size` bytes of `from` into a new file, holes left as holes.
fn copy(from: &Path, start: u64, size: u64, to: &Path) {
    let (from, to) = (File::open(from).unwrap(), File::create(to).unwrap());
    to.set_len(size).unwrap();
    let mut buffer = vec![0; STEP];
    let mut offset = 0;
    while offset < size {
        let count = (size - offset).min(STEP as u64) as usize;
        from.read_exact_at(&mut buffer[..count], start + offset).unwrap();
        if buffer[..count].iter().any(|byte| *byte != 0) {
            to.write_all_at(&buffer[..count], offset).unwrap();
        }
        offset += count as u64;
    }
}

/// Whether the tests run as root, who alone may mount and give files away.
pub fn is_root() -> bool {
    run(Command::new("id").arg("-u")).trim() == "0"
}
