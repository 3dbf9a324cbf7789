use super::*;
use crate::base::progress::Silent;
use crate::base::width::to_u64;
use crate::update::delta::testing::{noise, text};
use crate::update::delta::{How, KnownSegments, make_full, patch, publish_root};

fn frames(root: &[u8], level: i32, known: Option<&KnownFrames>) -> (Vec<u8>, Vec<u8>) {
    let (mut frames, mut index) = (Vec::new(), Vec::new());
    let size = to_u64(root.len());
    publish_root(&root, size, How { level, known, unfinished: None }, &mut frames, &mut index, &Silent)
        .unwrap();
    (frames, index)
}

fn whole(root: &[u8], level: i32, known: Option<&KnownSegments>) -> Vec<u8> {
    let mut full = Vec::new();
    make_full(&root, to_u64(root.len()), (level, known), &mut full, &Silent).unwrap();
    full
}

/// A root, and the same with some blocks more in its middle and others at its end.
fn versions() -> (Vec<u8>, Vec<u8>) {
    let parts = [text(1, 9000 * BLOCK), noise(2, 300 * BLOCK), text(3, 4000 * BLOCK)];
    let new = [&parts[0][..], &noise(4, 3 * BLOCK), &parts[1], &parts[2], &text(5, 40 * BLOCK)].concat();
    (parts.concat(), new)
}

#[test]
fn what_a_version_before_has_is_taken_over() {
    let (old, new) = versions();
    // Compressed otherwise, so that what was taken over can be told.
    let (old_frames, old_index) = frames(&old, 3, None);
    let file = old_frames.as_slice();
    let known = KnownFrames::read(&old_index, &file).unwrap();
    assert_eq!(frames(&old, 1, Some(&known)), (old_frames.clone(), old_index.clone()));
    let (taken, _) = frames(&new, 1, Some(&known));
    assert_ne!(taken, frames(&new, 1, None).0);
    // To the same level it makes no difference in what comes out.
    assert_eq!(frames(&new, 3, Some(&known)), frames(&new, 3, None));

    let old_full = whole(&old, 2, None);
    let file = old_full.as_slice();
    let known = KnownSegments::read(&file).unwrap();
    assert_eq!(whole(&old, 1, Some(&known)), old_full);
    let (fast, taken) = (whole(&new, 1, None), whole(&new, 1, Some(&known)));
    assert_ne!(taken, fast);
    assert_eq!(whole(&new, 2, Some(&known)), whole(&new, 2, None));
    // Three segments at the least, of which those end alike again that follow what came between.
    let ends =
        |full: &[u8]| patch::stored(&full).unwrap().into_iter().map(|it| it.digest).collect::<Vec<_>>();
    let (before, after) = (ends(&old_full), ends(&taken));
    assert!(before.len() > 3 && after.iter().filter(|digest| before.contains(digest)).count() >= 2);
}

#[test]
fn what_has_rotted_is_made_anew() {
    let (old, new) = versions();
    let (frames_expected, full_expected) = (frames(&new, 3, None), whole(&new, 2, None));
    let ((old_frames, old_index), old_full) = (frames(&old, 3, None), whole(&old, 2, None));
    for at in (16..old_frames.len()).step_by(old_frames.len() / 7) {
        let mut bad = old_frames.clone();
        bad[at..].iter_mut().step_by(100).for_each(|byte| *byte ^= 0x10);
        let file = bad.as_slice();
        let known = KnownFrames::read(&old_index, &file).unwrap();
        assert_eq!(frames(&new, 3, Some(&known)), frames_expected, "from byte {at}");
    }
    for at in (200..old_full.len()).step_by(old_full.len() / 4) {
        let mut bad = old_full.clone();
        bad[at] ^= 0x10;
        let file = bad.as_slice();
        let known = KnownSegments::read(&file).unwrap();
        assert_eq!(whole(&new, 2, Some(&known)), full_expected, "byte {at}");
    }
    // What is cut off or no such file is of no use, and says so.
    for length in [0, 31, 40, old_full.len() - 1] {
        let file = &old_full[..length];
        assert!(KnownSegments::read(&file).is_err(), "{length} bytes");
    }
    for length in [0, 15, old_frames.len() - 1] {
        let file = &old_frames[..length];
        assert!(KnownFrames::read(&old_index, &file).is_err(), "{length} bytes");
    }
    let file = old_frames.as_slice();
    assert!(KnownFrames::read(&old_index[..50], &file).is_err());
}
