//! Capabilities of files as libcap's getcap and setcap know them.

use std::fs;
use std::path::Path;

use keller::base::capabilities::{ATTRIBUTE, Capabilities};
use rustix::fs::XattrFlags;

use super::fixture::is_root;
use super::tool::{run, tool};

fn attribute(path: &Path) -> Vec<u8> {
    let mut value = [0; 64];
    let len = rustix::fs::getxattr(path, ATTRIBUTE, &mut value[..]).unwrap();
    value[..len].to_vec()
}

#[test]
fn written_as_setcap_does_and_read_by_getcap() {
    let (Some(_), Some(_)) = (tool("getcap"), tool("setcap")) else { return };
    if !is_root() {
        println!("SKIPPED: only root gives capabilities to files");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (folder.path().join("ours"), folder.path().join("theirs"));
    for text in [
        "cap_net_raw+ep",
        "cap_net_bind_service,cap_sys_time=ep",
        "cap_chown+i",
        "cap_dac_override+eip",
        "cap_syslog,cap_bpf,cap_checkpoint_restore+p",
    ] {
        fs::write(&ours, "").unwrap();
        fs::write(&theirs, "").unwrap();
        let bytes = Capabilities::parse([text]).unwrap().to_bytes();
        if let Err(error) = rustix::fs::setxattr(&ours, ATTRIBUTE, &bytes, XattrFlags::empty()) {
            println!("SKIPPED: this file system keeps no capabilities: {error}");
            return;
        }
        run(tool("setcap").unwrap().arg(text).arg(&theirs));
        assert_eq!(attribute(&ours), attribute(&theirs), "{text}");
        let said = |path: &Path| {
            let said = run(tool("getcap").unwrap().arg(path));
            said.split_once(' ').unwrap().1.trim().to_owned()
        };
        assert_eq!(said(&ours), said(&theirs), "{text}");
        assert_eq!(said(&ours), text.replace('+', "="), "{text}");
    }
}
