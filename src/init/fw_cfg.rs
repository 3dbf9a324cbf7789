//! What QEMU hands over as a file: `-fw_cfg name=opt/io.systemd.credentials/NAME,file=…`
//! (docs/specs/fw_cfg of QEMU, systemd.system-credentials(7)).

use std::fs;
use std::path::Path;

use super::cards;
use super::console::Console;
use super::given::Given;
use crate::node::LARGEST;

/// The device, as ACPI names it.
const DEVICE: &str = "/sys/bus/acpi/devices/QEMU0002:00";
const MODULE: &str = "qemu_fw_cfg";
const FILES: &str = "/sys/firmware/qemu_fw_cfg/by_name/opt/io.systemd.credentials";

/// The credential named `name`, if the machine has one.
pub(super) fn credential(console: &Console, name: &str) -> Option<Result<Given, String>> {
    if !Path::new(DEVICE).exists() {
        return None;
    }
    cards::load_module(console, MODULE);
    read(Path::new(FILES), name)
}

fn read(files: &Path, name: &str) -> Option<Result<Given, String>> {
    let source = format!("QEMU's fw_cfg credential {name}");
    let file = files.join(name);
    let size = fs::read_to_string(file.join("size")).ok()?;
    if size.trim().parse::<u64>().is_ok_and(|size| size > LARGEST) {
        return Some(Err(format!("{source} is larger than the {LARGEST} bytes that a document can have")));
    }
    let bytes = fs::read(file.join("raw"));
    Some(bytes.map(|bytes| Given { source: source.clone(), bytes }).map_err(|why| format!("{source}: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_as_the_kernel_shows_it() {
        let files = tempfile::tempdir().unwrap();
        assert_eq!(read(files.path(), "keller.node"), None);
        let entry = files.path().join("keller.node");
        fs::create_dir(&entry).unwrap();
        fs::write(entry.join("size"), "7\n").unwrap();
        fs::write(entry.join("raw"), "node: 1").unwrap();
        assert_eq!(read(files.path(), "keller.node").unwrap().unwrap().bytes, b"node: 1");
        fs::write(entry.join("size"), "300000\n").unwrap();
        assert!(read(files.path(), "keller.node").unwrap().unwrap_err().contains("is larger than"));
    }
}
