//! One flipped bit in a file that is first read after login.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use super::{Node, copy_of_image};

/// Read by nothing at boot; printed as plain text by a licence-loving operator.
const FILE: &str = "/usr/share/common-licenses/GPL-3";

/// A line that this file alone has.
const MARK: &[u8] = b"GNU GENERAL PUBLIC LICENSE\n                       Version 3, 29 June 2007";

#[test]
fn flipped_bit_panics_and_reboots() {
    let image = copy_of_image("flipped");
    flip_bit_at(&image, MARK);
    let mut node = Node::boot(&image, &[]);
    let _ = node.try_run(&format!("cat {FILE}"));
    node.expect("verity", Duration::from_secs(60));
    node.expect("Kernel panic - not syncing", Duration::from_secs(60));
    // The firmware or the next kernel speaks: the node did reboot.
    node.expect("Linux version", Duration::from_secs(180));
}

fn flip_bit_at(image: &std::path::Path, mark: &[u8]) {
    let file = OpenOptions::new().read(true).write(true).open(image).unwrap();
    let length = file.metadata().unwrap().len();
    let (mut buffer, step) = (vec![0; 8 << 20], (8 << 20) - 4096);
    let mut offset = 0;
    while offset < length {
        let count = file.read_at(&mut buffer, offset).unwrap();
        if let Some(at) = buffer[..count].windows(mark.len()).position(|window| window == mark) {
            let position = offset + at as u64;
            file.write_all_at(&[mark[0] ^ 1], position).unwrap();
            return;
        }
        offset += step;
    }
    panic!("{FILE} is not in the image");
}
