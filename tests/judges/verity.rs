//! dm-verity: veritysetup as judge.

use std::fs;
use std::io::Write;

use keller::verity::{Options, Writer, tree_size, verify};
use uuid::Uuid;

use super::fixture::pattern;
use super::tool::{run, tool};

/// Blocks of data on both sides of every number at which a tree grows a block or a level, up to 64 MiB.
const SIZES: [usize; 11] = [1, 2, 3, 127, 128, 129, 130, 1000, 128 * 127, 128 * 128, 128 * 128 + 1];

#[test]
fn byte_for_byte_what_veritysetup_writes() {
    if tool("veritysetup").is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let [data_path, ours, theirs] = ["data", "ours", "theirs"].map(|name| folder.path().join(name));
    let options =
        Options { salt: pattern(32, 9), uuid: Uuid::from_u128(0x1234_5678_9abc_4def_8123_4567_89ab_cdef) };
    for blocks in SIZES {
        let data = pattern(blocks * 4096, blocks as u64);
        let mut writer = Writer::new(fs::File::create(&data_path).unwrap(), options.clone()).unwrap();
        writer.write_all(&data).unwrap();
        let tree = writer.finish().unwrap();
        assert!(fs::read(&data_path).unwrap() == data);
        assert_eq!(tree.bytes.len() as u64, tree_size(blocks as u64));
        fs::write(&ours, &tree.bytes).unwrap();

        let _ = fs::remove_file(&theirs);
        let mut format = tool("veritysetup").unwrap();
        format.arg("format").args([&data_path, &theirs]);
        format.args(["--salt", &hex::encode(&options.salt), "--uuid", &options.uuid.to_string()]);
        let said = run(&mut format);
        let root = tree.root_hash.to_string();
        assert!(said.contains(&root), "{blocks} blocks: ours is {root}, theirs:\n{said}");
        assert!(fs::read(&theirs).unwrap() == tree.bytes, "{blocks} blocks");

        run(tool("veritysetup").unwrap().arg("verify").args([&data_path, &ours]).arg(&root));
        verify(&mut data.as_slice(), &mut tree.bytes.as_slice(), &tree.root_hash.digest()).unwrap();
    }
}

#[test]
fn without_salt_too() {
    let Some(mut format) = tool("veritysetup") else { return };
    let folder = tempfile::tempdir().unwrap();
    let [data, theirs] = ["data", "theirs"].map(|name| folder.path().join(name));
    let options = Options { salt: Vec::new(), uuid: Uuid::from_u128(1) };
    let mut writer = Writer::new(fs::File::create(&data).unwrap(), options).unwrap();
    writer.write_all(&pattern(200 * 4096, 1)).unwrap();
    let tree = writer.finish().unwrap();
    format.arg("format").args([&data, &theirs]).args([
        "--salt",
        "-",
        "--uuid",
        &Uuid::from_u128(1).to_string(),
    ]);
    assert!(run(&mut format).contains(&tree.root_hash.to_string()));
    assert!(fs::read(&theirs).unwrap() == tree.bytes);
}
