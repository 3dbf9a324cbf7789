use std::collections::BTreeMap;
use std::io::Cursor;

use super::*;
use crate::base::device::{ReadAt, SectorSize};
use crate::base::power_cut::{Epoch, Recorder, Tally, copy, next};
use crate::base::width::{to_u64, to_usize};
use crate::fs::fat::{Options, Reader, write};
use crate::tree::Tree;

/// Paths and contents of all files.
type Files = BTreeMap<String, Vec<u8>>;

fn image(mib: u64, sector_size: u32) -> Vec<u8> {
    let options = Options { size: mib << 20, sector_size, volume_id: 1, label: "ESP".to_owned(), mtime: 0 };
    let mut tree = Tree::new(0);
    tree.file("EFI/BOOT/BOOTX64.EFI", 0o644, vec![1; 5000]).unwrap();
    tree.file("EFI/Linux/node_1.0.0.efi", 0o644, vec![2; 20_000]).unwrap();
    tree.file("loader/loader.conf", 0o644, "timeout 0\n").unwrap();
    tree.file("empty", 0o644, "").unwrap();
    let mut disk = Cursor::new(vec![0; to_usize(options.size)]);
    write(&tree, &options, &mut disk).unwrap();
    disk.into_inner()
}

fn small() -> Recorder {
    Recorder::new(image(34, 512), SectorSize::B512)
}

fn files(disk: &[u8]) -> Result<Files, ReadError> {
    let mut reader = Reader::open(Cursor::new(disk))?;
    let listed = reader.list()?.into_iter().filter(|listed| listed.size.is_some());
    listed.map(|Listed { path, .. }| reader.read(&path, 1 << 20).map(|content| (path, content))).collect()
}

/// That no cluster is lost, the FATs are equal and FSInfo is right: a further change has nothing to mend.
fn assert_in_order(disk: &[u8]) {
    let mut recorder = Recorder::new(copy(disk), SectorSize::B512);
    let mut editor = Editor::open(&mut recorder).unwrap();
    assert!(!editor.remove("no such file").unwrap());
    assert_eq!(recorder.epochs.len(), 1, "something was left to be mended");
}

/// Where a sector that is neither old nor new must do harm: in FATs and folders.
fn unprotected(disk: &[u8]) -> BTreeSet<u64> {
    let mut recorder = Recorder::new(copy(disk), SectorSize::B512);
    let mut editor = Editor::open(&mut recorder).unwrap();
    let mut sectors: BTreeSet<u64> = (editor.volume.fat..editor.volume.data).step_by(512).collect();
    let mut folders = vec![editor.volume.root];
    for Listed { path, size } in editor.list().unwrap() {
        folders.extend(editor.find(&path).unwrap().filter(|_| size.is_none()).map(|(_, entry)| entry.start));
    }
    for start in folders {
        let chain = editor.folder(start, "").unwrap().chain;
        let cluster = editor.volume.cluster;
        let sectors_of = |number| (editor.volume.offset(number)..).step_by(512).take(to_usize(cluster) / 512);
        sectors.extend(chain.into_iter().flat_map(sectors_of));
    }
    sectors
}

/// What is wrong with a state, given those that are right.
fn judge(disk: &[u8], what: &str, right: &[Files], unprotected: &BTreeSet<u64>) -> Result<(), String> {
    if let Some(text) = what.strip_suffix(" torn: garbage") {
        let at: u64 = text.rsplit(' ').next().unwrap().parse().unwrap();
        if unprotected.contains(&at) {
            return Ok(());
        }
    }
    let found = files(disk).map_err(|error| format!("{what}: {error}"))?;
    match right.contains(&found) {
        true => Ok(()),
        false => Err(format!("{what}: {:?}", found.keys())),
    }
}

/// The files at some moment between what they were and what they become.
type Between = fn(&Files, &Files) -> Files;

/// Lets `change` happen, cuts it everywhere, and lets it happen again after some of the cuts. The files may be
/// as before, as after, or as in `between`. Gives the disk.
fn cut(
    before: Recorder,
    between: &[Between],
    change: impl Fn(&mut Editor<'_, Recorder>),
) -> (Recorder, Tally) {
    let old = files(before.bytes()).unwrap();
    let mut recorder = Recorder::new(copy(before.bytes()), SectorSize::B512);
    change(&mut Editor::open(&mut recorder).unwrap());
    let new = files(recorder.bytes()).unwrap();
    assert_ne!(old, new);
    assert_in_order(recorder.bytes());
    assert_eq!(recorder.unflushed(), 0);
    let unprotected = unprotected(recorder.bytes());
    let mut right = vec![old.clone(), new.clone()];
    right.extend(between.iter().map(|between| between(&old, &new)));
    let mut count = 0;
    let tally = recorder.each_distinct_cut(|disk, what| {
        judge(disk, what, &right, &unprotected).unwrap();
        count += 1;
        if count % 97 == 0 && !what.ends_with("garbage") && files(disk).unwrap() == old {
            let mut again = Recorder::new(copy(disk), SectorSize::B512);
            change(&mut Editor::open(&mut again).unwrap());
            assert_eq!(files(again.bytes()).unwrap(), new, "{what}");
            assert_in_order(again.bytes());
        }
    });
    (recorder, tally)
}

fn put(path: &'static str, byte: u8, size: usize) -> impl Fn(&mut Editor<'_, Recorder>) {
    move |editor| editor.put(path, &mut vec![byte; size].as_slice(), to_u64(size)).unwrap()
}

fn rename(path: &'static str, name: &'static str) -> impl Fn(&mut Editor<'_, Recorder>) {
    move |editor| editor.rename(path, name).unwrap()
}

/// Both names: what a rename in two steps goes through.
fn both(old: &Files, new: &Files) -> Files {
    old.iter().chain(new).map(|(path, content)| (path.clone(), content.clone())).collect()
}

/// A byte of which no other file has many.
const SECRET: u8 = 0xc3;

#[test]
fn every_change_survives_every_cut() {
    let mut states = 0;
    let mut disk = small();
    let mut step = |between: &[Between], change: &dyn Fn(&mut Editor<'_, Recorder>)| {
        let (after, tally) = cut(disk.clone(), between, change);
        disk = after;
        states += tally.distinct;
    };
    step(&[], &put("EFI/Linux/keller.new", 3, 30_000));
    step(&[], &rename("EFI/Linux/keller.new", "node_1.0.1+3.efi"));
    // As systemd-boot counts, and systemd-bless-boot blesses.
    step(&[], &rename("EFI/Linux/node_1.0.1+3.efi", "node_1.0.1+2-1.efi"));
    step(&[], &rename("EFI/Linux/node_1.0.1+2-1.efi", "node_1.0.1.efi"));
    step(&[], &put("EFI/keller/starts", 0, 64));
    // In place, a sector that is neither old nor new is the caller's to notice, by a checksum.
    let neither = |old: &Files, _: &Files| {
        let mut files = old.clone();
        files.insert("EFI/keller/starts".to_owned(), vec![0xa5; 64]);
        files
    };
    step(&[neither], &|editor| editor.overwrite("EFI/keller/starts", &[7; 64]).unwrap());
    step(&[], &put("EFI/BOOT/BOOTX64.EFI", 9, 7000));
    step(&[], &put("empty", 1, 1));
    step(&[], &put("loader/loader.conf", 1, 0));
    step(
        &[both],
        &rename("EFI/Linux/node_1.0.1.efi", "node_1.0.1-with.a.name.that.has.no.room.beside.it+0-3.efi"),
    );
    // The folder has two sectors by now; here it gets a third.
    step(
        &[],
        &put(
            "EFI/Linux/a name of eighty characters takes seven records, and there is not much room.efi",
            5,
            700,
        ),
    );
    step(
        &[],
        &put(
            "EFI/Linux/another one of this length, so that a further cluster is needed for it also.efi",
            6,
            700,
        ),
    );
    step(&[], &|editor| assert!(editor.remove("EFI/Linux/node_1.0.0.efi").unwrap()));
    step(&[], &put("EFI/keller/node.yaml", SECRET, 3000));
    let emptied = |old: &Files, _: &Files| {
        let mut files = old.clone();
        files.insert("EFI/keller/node.yaml".to_owned(), Vec::new());
        files
    };
    step(&[emptied], &|editor| assert!(editor.erase("EFI/keller/node.yaml").unwrap()));
    step(&[], &|editor| {
        assert!(
            editor.remove("efi/linux/NODE_1.0.1-with.a.name.that.has.no.room.beside.it+0-3.efi").unwrap()
        );
    });
    assert!(!disk.bytes().windows(64).any(|bytes| bytes == [SECRET; 64]), "what was erased is on the disk");
    let editor = Editor::open(&mut disk).unwrap();
    let (linux, _) = editor
        .find("EFI/Linux/another one of this length, so that a further cluster is needed for it also.efi")
        .unwrap()
        .unwrap();
    assert!(linux.chain.len() > 1, "no folder grew");
    println!("{states} states");
    assert!(states > 1000, "{states}");
}

#[test]
fn without_a_flush_the_cuts_show_it() {
    let mut recorder = small();
    let old = files(recorder.bytes()).unwrap();
    put("EFI/BOOT/BOOTX64.EFI", 9, 7000)(&mut Editor::open(&mut recorder).unwrap());
    let right = [old, files(recorder.bytes()).unwrap()];
    let unprotected = unprotected(recorder.bytes());
    // Content, FAT, record, freed clusters, the end.
    assert_eq!(recorder.epochs.len(), 5);
    for flush in 0..3 {
        let mut mutant = recorder.clone();
        let Epoch { writes, .. } = mutant.epochs.remove(flush);
        mutant.epochs[flush].writes.splice(0..0, writes);
        let mut caught = 0;
        mutant.each_distinct_cut(|disk, what| {
            caught += usize::from(judge(disk, what, &right, &unprotected).is_err());
        });
        // Content and FAT are both out of reach until the record is written; their order does not matter.
        assert_eq!(caught > 0, flush != 0, "flush {flush}: {caught}");
    }
}

#[test]
fn what_others_left_is_taken_as_it_comes() {
    let mut bytes = image(34, 512);
    let volume = Volume::new(bytes[..512].try_into().unwrap(), to_u64(bytes.len())).unwrap();
    let entry = |cluster: u32| to_usize(volume.fat + u64::from(cluster) * 4);
    // A lost chain, through one that will be used; copies that differ; a wrong FSInfo; a dirty volume.
    let lost = 200_u32;
    for cluster in lost..lost + 50 {
        bytes[entry(cluster)..][..4].copy_from_slice(&(cluster + 1).to_le_bytes());
    }
    bytes[to_usize(volume.fat + volume.fat_size) + 5000] = 0x77;
    bytes[to_usize(volume.info.unwrap()) + 488..][..4].copy_from_slice(&3_u32.to_le_bytes());
    bytes[entry(1) + 3] &= !0x08;
    // Records behind the end mark of the root.
    let root = to_usize(volume.offset(volume.root));
    let end = folder::decode(&bytes[root..root + 512]).end;
    for byte in &mut bytes[root + (end + 1) * 32..root + 512] {
        *byte = 0x41;
    }
    let recorder = Recorder::new(bytes, SectorSize::B512);
    let free = Editor::open(&mut recorder.clone()).unwrap().free();
    let (recorder, _) = cut(recorder, &[], put("a new name.txt", 4, 60_000));
    let disk = recorder.bytes();
    assert_eq!(disk[entry(1) + 3] & 0x08, 0, "still dirty");
    let mut recorder = recorder.clone();
    let mut editor = Editor::open(&mut recorder).unwrap();
    assert_eq!(editor.free(), free - 60_000_u64.next_multiple_of(512));
    // To the last cluster, and one too many.
    let rest = editor.free();
    let error = editor.put("too much", &mut io::repeat(1), rest + 1).unwrap_err();
    assert!(matches!(error, EditError::Full { .. }), "{error}");
    editor.put("all of it", &mut io::repeat(1), rest).unwrap();
    assert_eq!(editor.free(), 0);
    assert!(editor.put("empty", &mut io::repeat(1), 1).is_err());
    assert!(editor.remove("all of it").unwrap());
    assert_eq!(files(recorder.bytes()).unwrap()["a new name.txt"], vec![4; 60_000]);
}

#[test]
fn one_of_two_names_for_a_chain_goes_and_the_chain_stays() {
    let mut recorder = small();
    let mut editor = Editor::open(&mut recorder).unwrap();
    let (mut folder, entry) = editor.find("EFI/Linux/node_1.0.0.efi").unwrap().unwrap();
    let name = named("", "node_1.0.0+0.efi", &folder.shorts()).unwrap();
    let record = Record { dir_name: name.short, ..*folder.record(entry.records.end - 1) };
    editor.insert(&mut folder, &name, &record, "").unwrap();
    let mut editor = Editor::open(&mut recorder).unwrap();
    assert!(editor.remove("EFI/Linux/node_1.0.0.efi").unwrap());
    editor.put("other", &mut io::repeat(8), 100_000).unwrap();
    assert_eq!(files(recorder.bytes()).unwrap()["EFI/Linux/node_1.0.0+0.efi"], vec![2; 20_000]);
}

#[test]
fn large_clusters_and_large_sectors() {
    for (mib, sector_size) in [(300, 512), (300, 4096)] {
        let sector = SectorSize::try_from(sector_size).unwrap();
        let mut recorder = Recorder::new(image(mib, sector_size), sector);
        let mut editor = Editor::open(&mut recorder).unwrap();
        for number in 0..200_u8 {
            let path = format!("EFI/Linux/a file with a long name {number}.efi");
            editor.put(&path, &mut io::repeat(number), 5000 + u64::from(number)).unwrap();
        }
        for number in (0..200_u8).step_by(2) {
            editor.remove(&format!("EFI/Linux/a file with a long name {number}.efi")).unwrap();
        }
        editor.put("EFI/Linux/b.efi", &mut io::repeat(1), 3 << 20).unwrap();
        assert_eq!(editor.list().unwrap().len(), 5 + 4 + 100);
        let all = files_up_to(recorder.bytes(), 4 << 20);
        assert_eq!(all["EFI/Linux/b.efi"], vec![1; 3 << 20]);
        assert_eq!(all["EFI/Linux/a file with a long name 7.efi"], vec![7; 5007]);
    }
}

fn files_up_to(disk: &[u8], limit: u64) -> Files {
    let mut reader = Reader::open(Cursor::new(disk)).unwrap();
    let listed = reader.list().unwrap().into_iter().filter(|listed| listed.size.is_some());
    listed.map(|Listed { path, .. }| (path.clone(), reader.read(&path, limit).unwrap())).collect()
}

#[test]
fn refusals_leave_the_disk_alone() {
    let mut recorder = small();
    let before = recorder.bytes().to_vec();
    let mut editor = Editor::open(&mut recorder).unwrap();
    let mut put = |path: &str| editor.put(path, &mut io::empty(), 0).unwrap_err().to_string();
    assert_eq!(
        put("EFI/a:b"),
        "EFI/a:b: no name for a file here: it has one of \" * / : < > ? \\ | or a control character"
    );
    assert!(put(&"n".repeat(92)).ends_with("has more than 91 characters, which cannot be written at once"));
    assert_eq!(put("empty/x"), "empty/x in the FAT file system is not a directory");
    assert_eq!(put("efi/LINUX"), "efi/LINUX in the FAT file system is not a file");
    assert!(put("/").contains("it is empty"));
    assert!(matches!(editor.put("x", &mut io::empty(), 1 << 32), Err(EditError::TooLarge { .. })));
    assert!(matches!(editor.put("x", &mut io::repeat(1), 35 << 20), Err(EditError::Full { .. })));
    assert!(matches!(editor.remove("EFI"), Err(EditError::Kind { .. })));
    assert!(matches!(editor.rename("loader", "empty"), Err(EditError::Exists { .. })));
    assert!(matches!(editor.rename("none", "some"), Err(EditError::Read(ReadError::NotFound { .. }))));
    assert!(matches!(editor.overwrite("loader/loader.conf", b"short"), Err(EditError::NotInPlace { .. })));
    assert!(matches!(
        editor.overwrite("EFI/BOOT/BOOTX64.EFI", &[1; 5000]),
        Err(EditError::NotInPlace { .. })
    ));
    assert!(!editor.remove("EFI/BOOT/BOOTX64.EFI/x").unwrap());
    assert!(editor.read("EFI/BOOT/BOOTX64.EFI", 4999).is_err());
    editor.rename("loader", "loader").unwrap();
    // What ends too early is an error as well, and leaves what was there.
    assert!(matches!(editor.put("loader/loader.conf", &mut io::empty(), 1), Err(EditError::Content { .. })));
    assert_eq!(editor.read("loader/loader.conf", 10).unwrap(), b"timeout 0\n");
    assert!(!editor.remove("none").unwrap());
    assert!(recorder.bytes() == before);
    // Only the case of letters.
    Editor::open(&mut recorder).unwrap().rename("loader/loader.conf", "Loader.conf").unwrap();
    assert!(files(recorder.bytes()).unwrap().contains_key("loader/Loader.conf"));
}

#[test]
fn any_sequence_of_changes_survives_every_cut() {
    let mut random = 0x1234_5678_9abc_def1_u64;
    let mut disk = small();
    for step in 0..30_u8 {
        let mut below = |limit: usize| to_usize(next(&mut random) % to_u64(limit));
        // Names of one record to eight, so that rooms of every size come and go.
        let mut name = |folder: &str| format!("{folder}/{step}-{}.x", "n".repeat(below(86)));
        let new = name(["a", "a/b", "EFI/Linux"][usize::from(step) % 3]);
        let old: Vec<String> = files(disk.bytes()).unwrap().into_keys().collect();
        let one = old[below(old.len())].clone();
        let (size, what) = (below(3000), below(10));
        let (after, _) = match what {
            0..5 => cut(disk, &[], |editor| editor.put(&new, &mut io::repeat(step), to_u64(size)).unwrap()),
            5 => cut(disk, &[], |editor| editor.put(&one, &mut io::repeat(step), to_u64(size) + 1).unwrap()),
            6..9 => {
                let name = new.rsplit_once('/').unwrap().1;
                cut(disk, &[both], |editor| editor.rename(&one, name).unwrap())
            }
            _ => cut(disk, &[], |editor| assert!(editor.remove(&one).unwrap())),
        };
        disk = after;
    }
}

#[test]
fn damage_is_an_error_and_never_a_panic_or_an_endless_walk() {
    let mut recorder = small();
    put("EFI/a rather long name.efi", 3, 600)(&mut Editor::open(&mut recorder).unwrap());
    let mut image = recorder.bytes().to_vec();
    let volume = Volume::new(image[..512].try_into().unwrap(), to_u64(image.len())).unwrap();
    let (fat, root) = (to_usize(volume.fat), to_usize(volume.data));
    let places = (11..90).chain(fat + 8..fat + 60).chain(root..root + 5 * 512);
    let mut errors = 0;
    for at in places.step_by(37) {
        let was = image[at];
        for value in [0, 2, 0x10, 0xe5, 0xff] {
            image[at] = value;
            let mut disk = Overlay { below: &image, changed: BTreeMap::new() };
            errors += usize::from(change_all(&mut disk).is_err());
        }
        image[at] = was;
    }
    assert!(errors > 5, "{errors}");
}

/// All that an editor does; what comes out does not matter, only that it ends.
fn change_all(disk: &mut Overlay<'_>) -> Result<()> {
    let mut editor = Editor::open(disk)?;
    editor.put("EFI/Linux/another.efi", &mut io::repeat(1), 3000)?;
    editor.put("EFI/new/folder/x", &mut io::repeat(1), 3)?;
    editor.rename("EFI/a rather long name.efi", "b.efi")?;
    editor.overwrite("EFI/new/folder/x", b"abc")?;
    editor.remove("EFI/BOOT/BOOTX64.EFI")?;
    editor.list().map(drop)
}

/// A disk whose changes lie beside it.
struct Overlay<'a> {
    below: &'a [u8],
    changed: BTreeMap<u64, Vec<u8>>,
}

impl ReadAt for Overlay<'_> {
    fn size(&self) -> u64 {
        to_u64(self.below.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.below.read_at(buffer, offset)?;
        let end = offset + to_u64(buffer.len());
        for (at, bytes) in self.changed.range(offset / 512 * 512..end) {
            for (index, byte) in (*at..).zip(bytes) {
                if (offset..end).contains(&index) {
                    buffer[to_usize(index - offset)] = *byte;
                }
            }
        }
        Ok(())
    }
}

impl Device for Overlay<'_> {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        assert!(offset + to_u64(bytes.len()) <= to_u64(self.below.len()));
        for (at, sector) in (offset..).step_by(512).zip(bytes.chunks(512)) {
            self.changed.insert(at, sector.to_vec());
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn sector_size(&self) -> SectorSize {
        SectorSize::B512
    }
}
