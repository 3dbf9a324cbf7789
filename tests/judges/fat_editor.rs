//! FAT32 after our changes: dosfstools and mtools as judges, on file systems that they made and changed too.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::Command;

use keller::base::device::{FileDevice, SectorSize};
use keller::fs::fat::{self, Editor, Options};
use keller::tree::Tree;

use super::fixture::pattern;
use super::tool::{run, tool};

/// Does all that the editor can, many times over, and says which files are there then.
fn change(path: &Path, sector_size: SectorSize) -> Vec<(String, Vec<u8>)> {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut device = FileDevice::image(file, sector_size).unwrap();
    let mut editor = Editor::open(&mut device).unwrap();
    let put = |editor: &mut Editor<'_, FileDevice>, path: &str, content: &[u8]| {
        editor.put(path, &mut &content[..], content.len() as u64).unwrap();
    };
    let uki = |seed| pattern(1_000_000 + seed, seed as u64);
    for round in 0..12 {
        put(&mut editor, "EFI/Linux/keller.new", &uki(round));
        editor.rename("EFI/Linux/keller.new", &format!("node_1.0.{round}+3.efi")).unwrap();
        editor
            .rename(&format!("EFI/Linux/node_1.0.{round}+3.efi"), &format!("node_1.0.{round}+2-1.efi"))
            .unwrap();
        editor
            .rename(&format!("EFI/Linux/node_1.0.{round}+2-1.efi"), &format!("node_1.0.{round}.efi"))
            .unwrap();
        if round > 1 {
            assert!(editor.remove(&format!("EFI/Linux/node_1.0.{}.efi", round - 2)).unwrap());
        }
        put(&mut editor, "EFI/BOOT/BOOTX64.EFI", &pattern(100_000 + 9000 * (round % 3), round as u64));
    }
    for number in 0..40 {
        put(&mut editor, &format!("many/below/a rather long name, longer than most {number}.conf"), b"");
    }
    put(&mut editor, "EFI/keller/starts", &[0; 64]);
    editor.overwrite("EFI/keller/starts", &[7; 64]).unwrap();
    vec![
        ("EFI/Linux/node_1.0.10.efi".to_owned(), uki(10)),
        ("EFI/Linux/node_1.0.11.efi".to_owned(), uki(11)),
        ("EFI/BOOT/BOOTX64.EFI".to_owned(), pattern(118_000, 11)),
        ("EFI/keller/starts".to_owned(), vec![7; 64]),
        ("many/below/a rather long name, longer than most 39.conf".to_owned(), Vec::new()),
    ]
}

/// What dosfstools and mtools say of it. Gives nothing where they are not installed.
fn judge(path: &Path, expected: &[(String, Vec<u8>)]) -> Option<()> {
    let said = run(tool("fsck.fat")?.arg("-nv").arg(path));
    for trouble in
        ["differ", "not properly", "Dirty", "Free cluster summary", "Orphan", "reclaim", "Wrong", "orphan"]
    {
        assert!(!said.contains(trouble), "{said}");
    }
    let said = run(tool("mdir")?.arg("-i").arg(path).args(["-/", "-b", "::/"]));
    let linux = said.lines().filter(|line| line.contains("EFI/Linux/n")).count();
    assert_eq!(linux, 2, "{said}");
    for (file, content) in expected {
        assert!(said.contains(&format!("::/{file}")), "{file} in {said}");
        let output = tool("mtype")?.arg("-i").arg(path).arg(format!("::/{file}")).output().unwrap();
        assert!(output.status.success() && output.stdout == *content, "{file}");
    }
    Some(())
}

fn ours(path: &Path, mib: u64, sector_size: u32) {
    let mut tree = Tree::new(0);
    tree.file("EFI/BOOT/BOOTX64.EFI", 0o644, pattern(100_000, 1)).unwrap();
    tree.file("loader/loader.conf", 0o644, "timeout 0\n").unwrap();
    let options = Options { size: mib << 20, sector_size, volume_id: 1, label: "ESP".to_owned(), mtime: 0 };
    let mut file = File::options().read(true).write(true).create_new(true).open(path).unwrap();
    file.set_len(options.size).unwrap();
    fat::write(&tree, &options, &mut file).unwrap();
}

#[test]
fn what_our_writer_made_is_clean_after_changes() {
    let folder = tempfile::tempdir().unwrap();
    for (mib, sector_size) in [(40, 512), (512, 512), (300, 4096)] {
        let path = folder.path().join(format!("{mib}-{sector_size}"));
        ours(&path, mib, sector_size);
        let expected = change(&path, SectorSize::try_from(sector_size).unwrap());
        if judge(&path, &expected).is_none() {
            return;
        }
    }
}

#[test]
fn what_mkfs_fat_made_and_mtools_changed_is_clean_after_changes() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    fs::write(&from, pattern(3_000_000, 5)).unwrap();
    for (mib, arguments) in
        [(40, ["-s", "1", "-R", "32"]), (64, ["-s", "1", "-f", "2"]), (300, ["-s", "4", "-S", "1024"])]
    {
        let (Some(mut mkfs), Some(_)) = (tool("mkfs.fat"), tool("mcopy")) else { return };
        let path = folder.path().join(format!("{mib}"));
        File::create(&path).unwrap().set_len(mib << 20).unwrap();
        run(mkfs.args(["-F", "32", "-n", "OTHER"]).args(arguments).arg(&path));
        let with_mtools = |name: &str, arguments: &[&str]| {
            let command: &mut Command = &mut tool(name).expect("mtools come together");
            run(command.arg("-i").arg(&path).args(arguments))
        };
        with_mtools("mmd", &["::/EFI", "::/EFI/Linux", "::/EFI/BOOT"]);
        with_mtools("mcopy", &[from.to_str().unwrap(), "::/EFI/Linux/node_0.9.0+3.efi"]);
        with_mtools("mren", &["::/EFI/Linux/node_0.9.0+3.efi", "::/EFI/Linux/node_0.9.0+2-1.efi"]);
        for number in 0..20 {
            with_mtools(
                "mcopy",
                &[from.to_str().unwrap(), &format!("::/a name across sectors {number}.txt")][..],
            );
            if number > 5 {
                with_mtools("mdel", &[&format!("::/a name across sectors {}.txt", number - 5)]);
            }
        }
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let mut device = FileDevice::image(file, SectorSize::B512).unwrap();
        let mut editor = Editor::open(&mut device).unwrap();
        // Case does not matter.
        assert!(editor.remove("EFI/LINUX/Node_0.9.0+2-1.EFI").unwrap());
        editor.rename("a name across sectors 17.txt", &format!("{}.txt", "n".repeat(80))).unwrap();
        assert!(editor.put("a name across sectors 18.txt", &mut io::empty(), 0).is_ok());
        let mut expected = change(&path, SectorSize::B512);
        expected.push(("a name across sectors 18.txt".to_owned(), Vec::new()));
        expected.push((format!("{}.txt", "n".repeat(80)), pattern(3_000_000, 5)));
        if judge(&path, &expected).is_none() {
            return;
        }
        // And mtools go on where we stopped.
        with_mtools("mcopy", &["-o", from.to_str().unwrap(), "::/EFI/Linux/node_1.0.11.efi"]);
        with_mtools("mcopy", &["-n", "::/EFI/Linux/node_1.0.11.efi", to.to_str().unwrap()]);
        assert!(fs::read(&to).unwrap() == pattern(3_000_000, 5));
        fs::remove_file(&to).unwrap();
        run(tool("fsck.fat").expect("was there").arg("-n").arg(&path));
    }
}
