use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::base::width::{to_u64, to_usize};

const KEY: Key = Key::from_bytes([7; 32]);
const NAME: (&str, &str) = ("kind", "name");

fn sample(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 + at / 251) as u8).collect()
}

fn sealed(bytes: &[u8]) -> File {
    let file = tempfile::tempfile().unwrap();
    let mut sealer = Sealer::new(&file, &KEY, NAME.0, NAME.1);
    // In odd pieces, as writers have them.
    for piece in bytes.chunks(40_009) {
        sealer.write_all(piece).unwrap();
    }
    assert_eq!(sealer.position(), to_u64(bytes.len()));
    sealer.finish().unwrap();
    file
}

fn open_as(file: &File, key: &Key, name: (&str, &str)) -> Result<Sealed, SealError> {
    Sealed::open(file.try_clone().unwrap(), Path::new("sample"), key, name, Box::new(|_| ()))
}

fn open(file: &File) -> Result<Sealed, SealError> {
    open_as(file, &KEY, NAME)
}

/// What is read of the file, if anything is.
fn read(file: &File) -> Option<Vec<u8>> {
    open(file).ok()?.to_vec().ok()
}

#[test]
fn gives_back_what_was_sealed() {
    for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK + 3] {
        let bytes = sample(length);
        let file = sealed(&bytes);
        let sealed = open(&file).unwrap();
        assert_eq!(sealed.len(), to_u64(length));
        assert_eq!(sealed.to_vec().unwrap(), bytes, "{length} bytes");
        sealed.verify().unwrap();
        let mut byte = [0];
        sealed.reader().take(1).read_to_end(&mut Vec::new()).unwrap();
        assert!(sealed.read_at(&mut byte, to_u64(length)).is_err());
        assert!(sealed.read_at(&mut byte, u64::MAX).is_err());
        sealed.read_at(&mut [], to_u64(length)).unwrap();
        for (at, count) in
            [(0, 7), (CHUNK - 3, 6), (CHUNK - 1, CHUNK + 2), (1, 3 * CHUNK), (4 * CHUNK, CHUNK)]
        {
            if at + count <= length {
                let mut buffer = vec![0; count];
                sealed.read_at(&mut buffer, to_u64(at)).unwrap();
                assert_eq!(buffer, bytes[at..at + count], "{count} bytes at {at} of {length}");
            }
        }
    }
}

#[test]
fn no_flipped_bit_is_believed() {
    let bytes = sample(2 * CHUNK + 5000);
    let file = sealed(&bytes);
    let size = file.metadata().unwrap().len();
    let tail = size - to_u64(bytes.len());
    let places = (0..size).step_by(499).chain(size - tail..size);
    for at in places {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        for bit in [0, 3, 7] {
            file.write_all_at(&[byte[0] ^ 1 << bit], at).unwrap();
            assert_eq!(read(&file), None, "bit {bit} of byte {at}");
        }
        file.write_all_at(&byte, at).unwrap();
    }
    assert_eq!(read(&file).unwrap(), bytes);
}

#[test]
fn what_is_whole_can_be_read_beside_what_is_not() {
    let bytes = sample(3 * CHUNK);
    let file = sealed(&bytes);
    let told = Arc::new(AtomicUsize::new(0));
    let count = told.clone();
    let listener = move |_: &SealError| {
        count.fetch_add(1, Ordering::Relaxed);
    };
    let sealed =
        Sealed::open(file.try_clone().unwrap(), Path::new("sample"), &KEY, NAME, Box::new(listener)).unwrap();
    // Changed after it was opened.
    file.write_all_at(b"!", to_u64(CHUNK) + 9).unwrap();
    let mut buffer = vec![0; 100];
    sealed.read_at(&mut buffer, 0).unwrap();
    assert_eq!(buffer, bytes[..100]);
    let mut whole = vec![0; 3 * CHUNK];
    let error = sealed.read_at(&mut whole, 0).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert!(error.to_string().contains("sample is not what was sealed under this name"), "{error}");
    assert!(whole[CHUNK..] == [0; 2 * CHUNK], "bytes that were not verified were given");
    assert!(sealed.read_at(&mut buffer, to_u64(CHUNK) + 5).is_err());
    assert!(sealed.verify().is_err());
    assert_eq!(told.load(Ordering::Relaxed), 3);
    // What a thread keeps was verified, whatever has become of it since.
    sealed.read_at(&mut buffer, 2 * to_u64(CHUNK)).unwrap();
    file.set_len(0).unwrap();
    sealed.read_at(&mut buffer, 2 * to_u64(CHUNK)).unwrap();
    assert_eq!(buffer, bytes[2 * CHUNK..2 * CHUNK + 100]);
    let cut = std::thread::scope(|scope| scope.spawn(|| sealed.read_at(&mut [0], 0)).join().unwrap());
    assert_eq!(cut.unwrap_err().kind(), io::ErrorKind::InvalidData);
}

#[test]
fn no_file_stands_for_another() {
    let file = sealed(b"body");
    for name in [("kind", "other"), ("other", "name"), ("kin", "dname"), ("", "kindname"), ("name", "kind")] {
        assert!(matches!(open_as(&file, &KEY, name), Err(SealError::Broken { .. })), "{name:?}");
    }
    let other = Key::from_bytes([8; 32]);
    assert!(matches!(open_as(&file, &other, NAME), Err(SealError::Foreign { .. })));
}

#[test]
fn parts_cannot_be_put_together() {
    let bytes = sample(3 * CHUNK);
    let (file, size) = (sealed(&bytes), 3 * to_u64(CHUNK) + 3 * to_u64(HASH) + to_u64(FOOTER));
    let whole = |file: &File| {
        let mut all = vec![0; to_usize(size)];
        file.read_exact_at(&mut all, 0).unwrap();
        all
    };
    let original = whole(&file);
    // Two chunks in each other's place, with and without their hashes.
    let mut swapped = original.clone();
    let (first, second) = swapped.split_at_mut(CHUNK);
    first.swap_with_slice(&mut second[..CHUNK]);
    file.write_all_at(&swapped, 0).unwrap();
    assert_eq!(read(&file), None);
    let table = 3 * CHUNK;
    let (first, second) = swapped[table..].split_at_mut(HASH);
    first.swap_with_slice(&mut second[..HASH]);
    file.write_all_at(&swapped, 0).unwrap();
    assert_eq!(read(&file), None);
    // A shorter body with the hashes that it had.
    let mut shorter = original[CHUNK..].to_vec();
    shorter.drain(2 * CHUNK..2 * CHUNK + HASH);
    let at = shorter.len() - FOOTER + 24;
    shorter[at..at + 8].copy_from_slice(&(2 * to_u64(CHUNK)).to_le_bytes());
    file.set_len(to_u64(shorter.len())).unwrap();
    file.write_all_at(&shorter, 0).unwrap();
    assert!(matches!(open(&file), Err(SealError::Broken { .. })));
    // The hash of a chunk is none of a table: a body that looks like length and table gains nothing.
    let forged: Vec<u8> = [&to_u64(CHUNK).to_le_bytes()[..], &[9; HASH]].concat();
    let keys = Keys::new(&KEY, NAME);
    assert_ne!(blake3::keyed_hash(&keys.chunks, &forged), keys.of_table(to_u64(CHUNK), &[9; HASH]));
}

#[test]
fn lengths_are_not_believed() {
    let file = tempfile::tempfile().unwrap();
    let name = KEY.name();
    for (length, size) in [
        (0_u64, 0_u64),
        (1, 0),
        (u64::MAX, 0),
        (u64::MAX - 63, 0),
        (1 << 40, (1 << 40) + (1 << 30)),
        (LONGEST + 1, LONGEST + 1 + (LONGEST / 1024)),
    ] {
        file.set_len(0).unwrap();
        let mut footer = MAGIC.to_vec();
        footer.extend(name);
        footer.extend(length.to_le_bytes());
        footer.extend([0; HASH]);
        // Sparse where the file system has that; else there is nothing to try.
        if file.write_all_at(&footer, size).is_err() {
            continue;
        }
        let error = open(&file).unwrap_err();
        assert!(matches!(error, SealError::Unsealed { .. } | SealError::Broken { .. }), "{length}: {error}");
    }
}

#[test]
fn a_file_is_taken_as_it_is() {
    for length in [0, 1, CHUNK, 2 * CHUNK + 5] {
        let bytes = sample(length);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        let mut shown = Vec::new();
        let taken = Sealed::as_shown(file.try_clone().unwrap(), Path::new("x"), &mut shown, Box::new(|_| ()));
        let taken = taken.unwrap();
        assert!(shown == bytes && taken.to_vec().unwrap() == bytes && taken.len() == to_u64(length));
        if length > 0 {
            file.write_all_at(&[bytes[length - 1] ^ 1], to_u64(length) - 1).unwrap();
            assert!(taken.verify().is_err());
        }
    }
}

#[test]
fn a_file_that_is_closed_is_still_the_one_that_was_shown() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    let bytes = sample(20 * CHUNK + 5);
    std::fs::write(&path, &bytes).unwrap();
    let file = File::open(&path).unwrap();
    let taken = Sealed::as_shown(file, &path, &mut std::io::sink(), Box::new(|_| ())).unwrap().closed();
    assert_eq!(taken.to_vec().unwrap(), bytes);
    let mut other = bytes.clone();
    other[17 * CHUNK] ^= 1;
    std::fs::write(&path, &other).unwrap();
    let mut part = vec![0; 17 * CHUNK];
    taken.read_at(&mut part, 0).unwrap();
    assert_eq!(part, bytes[..17 * CHUNK]);
    let error = taken.to_vec().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(taken.to_vec().unwrap_err().kind(), std::io::ErrorKind::NotFound);
}

/// A disk that fails is told as well: what the file was made from may still be there.
#[test]
fn a_file_that_cannot_be_read_is_told() {
    let told = Arc::new(AtomicUsize::new(0));
    let file = sealed(&sample(CHUNK));
    let heard = told.clone();
    let listener = Box::new(move |_: &SealError| {
        heard.fetch_add(1, Ordering::Relaxed);
    });
    let shown = Sealed::as_shown(file, Path::new("/proc/self/mem"), &mut std::io::sink(), listener);
    // No process has anything at its address 0.
    let error = shown.unwrap().closed().to_vec().unwrap_err();
    assert!(error.to_string().starts_with("reading /proc/self/mem: "), "{error}");
    assert_eq!(told.load(Ordering::Relaxed), 1);
}
