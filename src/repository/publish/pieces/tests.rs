//! A repository grows by what is new, and each version is all there whichever way it is read.

use std::fs;

use super::*;
use crate::base::progress::Silent;
use crate::repository::publish::{Keep, Options, Prune, Repository};
use crate::repository::testing::{Made, Publisher, allow, copy, made, options, times};
use crate::update::Document;
use crate::update::delta::{self, Way};
use crate::update::document::{FORMAT, FORMAT_WHOLE};

/// Bytes that do not compress.
fn noise(seed: usize, blocks: usize) -> Vec<u8> {
    let mut state = to_u64(seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    std::iter::repeat_with(next).take(blocks * 512).flat_map(u64::to_le_bytes).collect()
}

/// Versions that differ in one block of the root each, of several segments, and in the command line of the kernel image.
fn version(version: &str, root: &[u8], changed: &[usize]) -> Made {
    let mut new = Made { root: root.to_vec(), uki: noise(2, 300), ..made(version) };
    for block in changed {
        let at = block * 4096;
        new.root[at..at + 4096].copy_from_slice(&noise(1000 + block, 1));
    }
    new.uki[..5].copy_from_slice(version.as_bytes());
    new.layout.root = to_u64(root.len());
    new
}

fn blobs(publisher: &Publisher) -> u64 {
    let entries = fs::read_dir(publisher.repository().join("blobs")).unwrap();
    entries.map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

fn document(publisher: &Publisher, version: &str) -> Document {
    let keys = publisher.keys();
    let repository = Repository::open(publisher.repository(), &keys).unwrap();
    let releases = repository.releases();
    repository.document(releases.iter().find(|it| it.version == version).unwrap()).unwrap()
}

/// As a node without anything takes it, each way.
fn arrives(publisher: &Publisher, made: &Made) {
    let document = document(publisher, &made.version);
    let folder = Folder::new(publisher.repository());
    for path in document.files() {
        assert!(publisher.repository().join(&path).exists(), "{path}");
    }
    for way in [Way::Full, Way::Blocks] {
        let file = tempfile::tempfile().unwrap();
        file.set_len(document.root.size).unwrap();
        let mut target = FileDevice::image(file, SectorSize::B512).unwrap();
        delta::root_by(&[way], &document.root, &folder, None, &mut target, &Silent).unwrap();
        let mut bytes = vec![0; made.root.len()];
        target.read_at(&mut bytes, 0).unwrap();
        assert!(bytes == made.root, "{} {way:?}", made.version);
        let mut bytes = Vec::new();
        delta::uki_by(&[way], &document.uki, &folder, None, &mut bytes, &Silent).unwrap();
        assert!(bytes == made.uki, "{} {way:?}", made.version);
    }
}

#[test]
fn a_repository_grows_by_what_is_new() {
    let publisher = Publisher::new();
    let root = noise(1, 9000);
    let none = Options { patches: 0, ..options(&["stable"]) };
    let changes: [&[usize]; 4] = [&[], &[5000], &[5000, 100], &[100, 8999]];
    let mut sizes = vec![0];
    for (number, changed) in changes.into_iter().enumerate() {
        let made = version(&format!("1.0.{number}"), &root, changed);
        publisher.add_with(&made, &none, 0).unwrap();
        sizes.push(blobs(&publisher));
        arrives(&publisher, &made);
        let expected = if number == 0 { FORMAT_WHOLE } else { FORMAT };
        assert_eq!(document(&publisher, &made.version).format, expected);
    }
    let grown: Vec<u64> = sizes.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(grown[0] > 2 * to_u64(root.len()), "{grown:?}");
    // One frame, the tables of which frame has what, and what was cut off around them.
    assert!(grown[1..].iter().all(|grown| *grown < 500_000), "{grown:?}");
    // What a version names is all that it needs.
    let last = document(&publisher, "1.0.3");
    let needed: Vec<_> = last.files().map(|path| publisher.repository().join(path)).collect();
    for entry in fs::read_dir(publisher.repository().join("blobs")).unwrap().flatten() {
        if !needed.contains(&entry.path()) {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    arrives(&publisher, &version("1.0.3", &root, &[100, 8999]));
}

#[test]
fn nodes_of_older_kellers_take_versions_in_files_of_their_own() {
    let publisher = Publisher::new();
    let root = noise(1, 3000);
    let none = Options { patches: 0, ..options(&["stable"]) };
    let published = |number: usize, reads, minimum: Option<&str>| {
        let made = Made { reads, ..version(&format!("1.0.{number}"), &root, &[100 * number]) };
        let options = Options { minimum: minimum.map(str::to_owned), ..none.clone() };
        publisher.add_with(&made, &options, 0).unwrap();
        arrives(&publisher, &made);
        document(&publisher, &made.version).format
    };
    assert_eq!(published(0, FORMAT_WHOLE, None), FORMAT_WHOLE);
    assert_eq!(published(1, FORMAT, None), FORMAT_WHOLE);
    assert_eq!(published(2, FORMAT, Some("1.0.1")), FORMAT);
    assert_eq!(published(3, FORMAT, Some("1.0.0")), FORMAT_WHOLE);
    // Its nodes are still in the field.
    let keys = publisher.keys();
    let mut repository = Repository::open(publisher.repository(), &keys).unwrap();
    let keep = Keep { versions: 1, patches: 0, id: None };
    let prune = Prune { keep: Some(keep), grace: None };
    repository.prune(&prune, times(0), &Silent).unwrap();
    let (next, bytes) = (version("1.0.4", &root, &[400]), root.as_slice());
    let hindrance = |minimum: Option<&str>| {
        let options = Options { minimum: minimum.map(str::to_owned), ..none.clone() };
        repository.hindrance(&next.image(&bytes), &options, &[]).unwrap()
    };
    assert_eq!((hindrance(None).as_deref(), hindrance(Some("1.0.1"))), (Some("1.0.0"), None));
    drop(repository);
    assert_eq!(published(4, FORMAT, None), FORMAT_WHOLE);
    assert_eq!(published(5, FORMAT, Some("1.0.1")), FORMAT);
}

#[test]
fn whatever_has_rotted_is_not_named() {
    let publisher = Publisher::new();
    let root = noise(1, 9000);
    let none = Options { patches: 0, ..options(&["stable"]) };
    publisher.add_with(&version("1.0.0", &root, &[]), &none, 0).unwrap();
    let kept = publisher.folder.path().join("kept");
    copy(&publisher.repository(), &kept);
    let before = document(&publisher, "1.0.0");
    for blob in [before.root.ways.frames, before.root.ways.full, before.uki.ways.frames, before.uki.ways.full]
    {
        fs::remove_dir_all(publisher.repository()).unwrap();
        copy(&kept, &publisher.repository());
        let path = publisher.repository().join(blob.path());
        let mut bytes = fs::read(&path).unwrap();
        bytes[20_000..].iter_mut().step_by(700_000).for_each(|byte| *byte ^= 4);
        fs::write(&path, bytes).unwrap();
        let new = version("1.0.1", &root, &[5000]);
        publisher.add_with(&new, &none, 0).unwrap();
        arrives(&publisher, &new);
    }
}

#[test]
fn interrupted_after_every_file_of_pieces() {
    let publisher = Publisher::new();
    let root = noise(1, 1000);
    let none = Options { patches: 1, ..options(&["stable"]) };
    let old = version("1.0.0", &root, &[]);
    publisher.add_with(&old, &none, 0).unwrap();
    let kept = publisher.folder.path().join("kept");
    copy(&publisher.repository(), &kept);
    let new = version("1.0.1", &root, &[700]);
    for writes in 0.. {
        fs::remove_dir_all(publisher.repository()).unwrap();
        copy(&kept, &publisher.repository());
        allow(Some(writes));
        let done = publisher.add_with(&new, &none, 0).is_ok();
        allow(None);
        arrives(&publisher, &old);
        publisher.add_with(&new, &none, 0).unwrap();
        arrives(&publisher, &new);
        if done {
            assert!(writes > 8, "{writes}");
            return;
        }
    }
}

#[test]
fn the_larger_pieces_stay() {
    let file = Digest::of(b"file");
    let apart = |at: u64, length| (at..at + length, vec![Piece { file, at: 2 * at, length }]);
    // Every second one is larger.
    let taken: Vec<_> = (0..300).map(|number| apart(number << 20, LEAST + number % 2)).collect();
    let stay = staying(&taken, 128);
    let expected = taken.iter().filter(|(range, _)| range.end - range.start > LEAST).take(128);
    let expected: Vec<_> = expected.map(|(range, held)| (range.start, held[0])).collect();
    assert_eq!((stay.len(), stay), (128, expected));
    assert_eq!(staying(&[apart(0, LEAST - 1)], 128), []);
    // Crumbs that lie side by side there and here are one.
    let half = LEAST / 2;
    let [first, second] = [0, half].map(|at| Piece { file, at: 7 + at, length: half });
    let whole = Piece { length: LEAST, ..first };
    assert_eq!(staying(&[(0..half, vec![first]), (half..LEAST, vec![second])], 128), [(0, whole)]);
    assert_eq!(staying(&[(0..half, vec![first]), (half + 1..LEAST + 1, vec![second])], 128), []);
}

#[test]
fn a_stretch_is_found_in_the_pieces_that_hold_it() {
    let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
    let blob = Blob { sha256: Digest::of(b""), size: 300 };
    let pieces = [
        Piece { file: a, at: 50, length: 100 },
        Piece { file: b, at: 0, length: 150 },
        Piece { file: a, at: 0, length: 50 },
    ];
    let laid = Laid::new(blob, &pieces);
    assert_eq!(laid.locate(&(0..300)), pieces);
    assert_eq!(laid.locate(&(10..20)), [Piece { file: a, at: 60, length: 10 }]);
    assert_eq!(
        laid.locate(&(90..101)),
        [Piece { file: a, at: 140, length: 10 }, Piece { file: b, at: 0, length: 1 }]
    );
    assert_eq!(laid.locate(&(300..301)), []);
    let whole = Laid::new(blob, &[]);
    assert_eq!(whole.locate(&(7..9)), [Piece { file: blob.sha256, at: 7, length: 2 }]);
}
