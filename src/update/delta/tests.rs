//! Whole ways, from publishing to the target, with what may happen on them.

use std::sync::OnceLock;

use uuid::Uuid;

use super::index::Index;
use super::testing::{Memory, Random, Server, noise, text};
use super::*;
use crate::base::progress::Silent;
use crate::base::width::{to_u64, to_usize};
use crate::update::document::{Blob, Patch, RootImage, Ways};

/// Publishes a root, but not in full.
fn publish(server: &mut Server, root: &[u8]) -> RootImage {
    let (mut frames, mut index) = (Vec::new(), Vec::new());
    publish_root(&root, to_u64(root.len()), How::at(LEVEL), &mut frames, &mut index, &Silent).unwrap();
    let (frames, index) = (server.put(frames), server.put(index));
    let full = Blob { size: u64::MAX, ..Blob::of(b"nowhere") };
    RootImage {
        root_hash: Digest::of(root),
        size: to_u64(root.len()),
        salt: String::new(),
        verity_uuid: Uuid::nil(),
        ways: Ways {
            full,
            frames,
            index,
            patches: Vec::new(),
            level: None,
            full_pieces: Vec::new(),
            frames_pieces: Vec::new(),
        },
    }
}

fn publish_all(server: &mut Server, root: &[u8]) -> RootImage {
    let mut image = publish(server, root);
    let mut full = Vec::new();
    let size = make_full(&root, to_u64(root.len()), (LEVEL, None), &mut full, &Silent).unwrap();
    assert_eq!(size, to_u64(full.len()));
    image.ways.full = server.put(full);
    image
}

/// Writes a root by one of `ways`.
fn by(
    ways: &[Way],
    image: &RootImage,
    server: &Server,
    before: Option<&[u8]>,
    target: &mut Memory,
) -> Result<Fetched, DeltaError> {
    root_by(ways, image, server, before.as_ref().map(old).as_ref(), target, &Silent)
}

fn old<'a>(root: &'a &'a [u8]) -> Old<'a> {
    Old { root, root_size: to_u64(root.len()), root_hash: Digest::of(root), uki: None }
}

const BLOCK: usize = super::runs::BLOCK;

/// What each target holds before: made once, the test with the largest wants so many blocks.
fn held(length: usize) -> &'static [u8] {
    static HELD: OnceLock<Vec<u8>> = OnceLock::new();
    &HELD.get_or_init(|| text(99, (5200 + 16) * BLOCK))[..length]
}

/// A target that holds what a slot may: something else.
fn target(root: &[u8]) -> Memory {
    Memory::new(held(root.len() + 16 * BLOCK).to_vec())
}

fn assert_arrived(target: &Memory, root: &[u8]) {
    assert!(target.bytes[..root.len()] == *root, "the target holds something else");
    let rest = held(target.bytes.len());
    assert!(target.bytes[root.len()..] == rest[root.len()..], "written past the root");
}

/// Pairs of images as updates have them, with the blocks of the new one that the old one has not.
fn pairs() -> Vec<(&'static str, Vec<u8>, Vec<u8>, usize)> {
    let base = [text(1, 750 * BLOCK), noise(2, 100 * BLOCK), vec![0; 150 * BLOCK]].concat();
    let insert = |at: usize, blocks: usize| {
        [&base[..at * BLOCK], &noise(7, blocks * BLOCK), &base[at * BLOCK..]].concat()
    };
    let mut changed = base.clone();
    for block in [0, 350, 351, 999] {
        changed[block * BLOCK + 17] ^= 1;
    }
    let moved = [&base[450 * BLOCK..], &base[..450 * BLOCK]].concat();
    vec![
        ("nothing", base.clone(), base.clone(), 0),
        ("some blocks changed", base.clone(), changed, 4),
        ("one block put in", base.clone(), insert(166, 1), 1),
        ("many blocks put in", base.clone(), insert(0, 38), 38),
        ("halves swapped", base.clone(), moved, 0),
        ("shorter", base.clone(), base[..617 * BLOCK].to_vec(), 0),
        ("all zeros", base.clone(), vec![0; 1000 * BLOCK], 0),
        ("out of zeros", vec![0; 1000 * BLOCK], base.clone(), 850),
        ("all different", base, text(50, 900 * BLOCK), 900),
    ]
}

#[test]
fn blocks_lead_from_any_version_to_any_other() {
    for (name, before, after, lacking) in pairs() {
        let mut server = Server::default();
        let image = publish(&mut server, &after);
        let mut target = target(&after);
        let blocks = [Way::Blocks];
        let fetched = by(&blocks, &image, &server, Some(&before), &mut target).expect(name);
        assert_arrived(&target, &after);
        assert_eq!(server.take_log(), testing::Log { bytes: fetched.bytes, requests: fetched.requests });
        // A changed block costs its frame, and the table for its run.
        let limit = image.ways.index.size + to_u64(lacking) * 8 * to_u64(BLOCK) + 12 * 1500;
        assert!(
            fetched.bytes <= limit.min(image.ways.index.size + image.ways.frames.size),
            "{name}: {fetched:?}"
        );
        assert_eq!(fetched.kept + fetched.written, to_u64(after.len()), "{name}");

        let again = root(&image, &server, Some(&old(&before.as_slice())), &mut target, &Silent).expect(name);
        assert_eq!((again.bytes, again.written), (image.ways.index.size, 0), "{name}");
    }
}

#[test]
fn without_anything_to_start_from_all_is_fetched() {
    let after = text(1, 1000 * BLOCK);
    let mut server = Server::default();
    let image = publish_all(&mut server, &after);
    assert!(image.ways.full.size < image.ways.frames.size * 9 / 10, "{:?}", image.ways);
    for knows_no_ranges in [false, true] {
        server.knows_no_ranges = knows_no_ranges;
        let mut target = target(&after);
        let fetched = root(&image, &server, None, &mut target, &Silent).unwrap();
        assert_arrived(&target, &after);
        // What is asked for first comes twice without ranges.
        let twice = if knows_no_ranges { 16 << 10 } else { 0 };
        assert_eq!((fetched.way, fetched.reused, fetched.requests), (Way::Full, 0, 2));
        assert_eq!(fetched.bytes, image.ways.full.size + twice);
        assert_eq!(server.take_log().bytes, fetched.bytes);
        // Only its table is read again.
        let again = root(&image, &server, None, &mut target, &Silent).unwrap();
        assert_eq!((again.written, again.bytes), (0, 16 << 10));
        server.take_log();
        assert_eq!(root_afresh(&image, &server, &mut target, &Silent).unwrap().bytes, fetched.bytes);
        server.take_log();
    }
}

/// The frames alone lead there as well.
#[test]
fn frames_serve_those_who_have_nothing() {
    let after = text(1, 1000 * BLOCK);
    let mut server = Server::default();
    let image = publish(&mut server, &after);
    let index = &server.files[&image.ways.index.path()];
    let table =
        image.ways.frames.size - Index::parse(index, image.size, image.ways.frames.size).unwrap().table();
    for knows_no_ranges in [false, true] {
        server.knows_no_ranges = knows_no_ranges;
        let mut target = target(&after);
        let fetched = by(&[Way::Blocks], &image, &server, None, &mut target).unwrap();
        assert_arrived(&target, &after);
        assert_eq!((fetched.way, fetched.requests, fetched.reused), (Way::Blocks, 2, 0));
        let header = if knows_no_ranges { 0 } else { 16 };
        assert_eq!(fetched.bytes, image.ways.index.size + image.ways.frames.size - table - header);
        assert_eq!(server.take_log().bytes, fetched.bytes);
    }
}

#[test]
fn a_server_without_ranges_serves_too() {
    for (name, before, after, _) in pairs() {
        let mut server = Server { knows_no_ranges: true, ..Server::default() };
        let image = publish(&mut server, &after);
        let mut target = target(&after);
        let fetched = by(&Way::ALL, &image, &server, Some(&before), &mut target).expect(name);
        assert_arrived(&target, &after);
        let most = image.ways.index.size + image.ways.frames.size;
        assert!(fetched.requests <= 2 && fetched.bytes <= most, "{name}: {fetched:?}");
    }
    // All of it is less than its frames up to that which is lacking.
    let before = text(1, 600 * BLOCK);
    let mut after = before.clone();
    after[590 * BLOCK] ^= 1;
    let mut server = Server { knows_no_ranges: true, ..Server::default() };
    let image = publish_all(&mut server, &after);
    let mut target = target(&after);
    let fetched = by(&Way::ALL, &image, &server, Some(&before), &mut target).unwrap();
    assert_arrived(&target, &after);
    assert_eq!(fetched.way, Way::Full);
    assert!(fetched.bytes <= image.ways.index.size + image.ways.full.size + (16 << 10), "{fetched:?}");
}

/// What is nowhere here comes in the fewest bytes, and what was fetched so counts when it goes on.
#[test]
fn what_has_nothing_in_common_comes_in_full() {
    let (before, after) = (noise(1, 100 * BLOCK), noise(2, 5200 * BLOCK));
    let mut server = Server::default();
    let image = publish_all(&mut server, &after);
    let ways = &image.ways;
    let mut target = target(&after);
    server.breaks_after = Some(ways.index.size + ways.full.size * 85 / 100);
    let error = root(&image, &server, Some(&old(&before.as_slice())), &mut target, &Silent).unwrap_err();
    assert!(matches!(error, DeltaError::Broken { .. }), "{error}");
    server.breaks_after = None;
    let fetched = root(&image, &server, Some(&old(&before.as_slice())), &mut target, &Silent).unwrap();
    assert_arrived(&target, &after);
    assert_eq!(fetched.way, Way::Full);
    assert!(
        fetched.bytes < ways.index.size + ways.full.size * 15 / 100 + (12 << 20)
            && fetched.kept > image.size / 3,
        "{fetched:?}"
    );
}

#[test]
fn goes_on_where_the_connection_broke() {
    let (before, after) = (text(1, 1500 * BLOCK), text(2, 1500 * BLOCK));
    for knows_no_ranges in [false, true] {
        let mut server = Server { knows_no_ranges, ..Server::default() };
        let image = publish(&mut server, &after);
        let mut target = target(&after);
        let mut rounds = 0;
        let mut total = 0;
        let blocks = [Way::Blocks];
        let one = by(&blocks, &image, &server, None, &mut self::target(&after)).unwrap().bytes;
        server.take_log();
        server.breaks_after = Some(one / 3);
        loop {
            let result = by(&blocks, &image, &server, Some(&before), &mut target);
            total += server.take_log().bytes;
            rounds += 1;
            match result {
                Ok(_) => break,
                Err(error) => assert!(matches!(error, DeltaError::Broken { .. }), "{error}"),
            }
            if knows_no_ranges {
                // Without ranges each round begins at the beginning, and needs a longer breath.
                server.breaks_after = server.breaks_after.map(|limit| limit * 2);
            }
        }
        assert_arrived(&target, &after);
        if !knows_no_ranges {
            // Each round reads the index again, and the run that was cut once more.
            let again = rounds * (image.ways.index.size + 300 * 4096);
            assert!(rounds >= 3 && total <= one + again, "{rounds} rounds, {total} bytes of {one}");
        }
    }
}

#[test]
fn a_second_call_fetches_only_what_the_first_has_not_written() {
    let after = noise(1, 3000 * BLOCK);
    let mut server = Server::default();
    let image = publish(&mut server, &after);
    let mut target = target(&after);
    server.breaks_after = Some(image.ways.frames.size / 2);
    let blocks = [Way::Blocks];
    by(&blocks, &image, &server, None, &mut target).unwrap_err();
    let first = server.take_log().bytes;
    server.breaks_after = None;
    let second = by(&blocks, &image, &server, None, &mut target).unwrap();
    assert_arrived(&target, &after);
    let all = image.ways.index.size + image.ways.frames.size;
    // At most one run, of 256 blocks, is fetched twice; and the index is.
    assert!(first + second.bytes <= all + image.ways.index.size + 256 * 4200, "{first} + {}", second.bytes);
    assert!(second.kept >= to_u64(after.len()) * 2 / 5, "{second:?}");
}

#[test]
fn damage_is_named_and_writes_nothing_false() {
    let (before, after) = (text(1, 600 * BLOCK), text(2, 600 * BLOCK));
    let mut server = Server::default();
    let image = publish(&mut server, &after);
    let whole = server.files.clone();
    let index = Index::parse(&whole[&image.ways.index.path()], image.size, image.ways.frames.size).unwrap();
    let attempt = |server: &Server| {
        let mut target = target(&after);
        let result = by(&[Way::Blocks], &image, server, Some(&before), &mut target);
        if result.is_ok() {
            assert_arrived(&target, &after);
        }
        result.map_err(|error| error.to_string())
    };

    let mut random = Random::new(5);
    let mut named = 0;
    for _ in 0..40 {
        server.files = whole.clone();
        let at = 16 + to_usize(random.below(index.table() - 16));
        server.file(&image.ways.frames)[at] ^= 1 << random.below(8);
        let error = attempt(&server).unwrap_err();
        let run = index.runs.iter().rposition(|run| run.at <= to_u64(at)).unwrap();
        assert!(error.contains(&format!("run {run},")), "{error}");
        named += usize::from(error.starts_with("frame"));
    }
    assert!(named > 0);

    for at in 0..whole[&image.ways.index.path()].len() {
        server.files = whole.clone();
        server.file(&image.ways.index)[at] ^= 4;
        assert!(attempt(&server).unwrap_err().starts_with("expected the index with digest"));
    }

    for path in [image.ways.frames.path(), image.ways.index.path()] {
        server.files = whole.clone();
        let file = server.files.get_mut(&path).unwrap();
        file.truncate(file.len() / 2);
        assert!(attempt(&server).unwrap_err().contains("ends at byte"));
        server.files.remove(&path);
        assert_eq!(attempt(&server).unwrap_err(), format!("{path} is not there"));
    }

    server.files = whole;
    server.endless = true;
    attempt(&server).unwrap();
}

/// A table that lies about where blocks are leads to the frames, not to a wrong root.
#[test]
fn a_false_block_table_costs_bytes_only() {
    let before = text(1, 900 * BLOCK);
    let mut after = before.clone();
    for block in (0..900).step_by(100) {
        after[block * BLOCK] ^= 1;
    }
    let mut server = Server::default();
    let image = publish(&mut server, &after);
    let index =
        Index::parse(&server.files[&image.ways.index.path()], image.size, image.ways.frames.size).unwrap();
    let wrong = super::runs::short(&super::runs::digests(&before[..BLOCK])[0]);
    let whole = server.files.clone();
    for junk in [&wrong[..], &[0xff; 5], &[0; 5]] {
        server.files = whole.clone();
        let table = &mut server.file(&image.ways.frames)[to_usize(index.table())..];
        for run in &index.runs {
            let entry =
                &mut table[to_usize(run.entry)..][..index::entry_size(run.run.blocks, index.frame_blocks)];
            let heads = 2 * run.run.blocks.div_ceil(index.frame_blocks);
            if junk[0] == 0 {
                entry[..heads].fill(0xee);
            } else {
                entry[heads..].as_chunks_mut::<5>().0.fill(junk.try_into().unwrap());
            }
        }
        let mut target = target(&after);
        root(&image, &server, Some(&old(&before.as_slice())), &mut target, &Silent).unwrap();
        assert_arrived(&target, &after);
    }
}

#[test]
fn faults_of_the_disk_are_told_apart() {
    let after = text(1, 300 * BLOCK);
    let mut server = Server::default();
    let image = publish_all(&mut server, &after);
    let mut small = Memory::new(vec![0; after.len() - BLOCK]);
    let error = root(&image, &server, None, &mut small, &Silent).unwrap_err();
    assert!(matches!(error, DeltaError::TooSmall { .. }));
    assert_eq!(server.log().requests, 0);
    let mut bad = target(&after);
    bad.bad_from = 100 * to_u64(BLOCK);
    let error = root(&image, &server, None, &mut bad, &Silent).unwrap_err();
    assert!(matches!(error, DeltaError::WriteTarget { .. }), "{error}");
    bad.bad_from = u64::MAX;
    root(&image, &server, None, &mut bad, &Silent).unwrap();
    assert_arrived(&bad, &after);
}

#[test]
fn random_changes_arrive() {
    for seed in 0..30 {
        let mut random = Random::new(seed);
        let before = match seed % 3 {
            0 => text(seed, 400 * BLOCK),
            1 => noise(seed, 300 * BLOCK),
            _ => [text(seed, 200 * BLOCK), vec![0; 200 * BLOCK]].concat(),
        };
        let after = edited(&before, &mut random);
        let mut server = Server { knows_no_ranges: seed % 7 == 0, ..Server::default() };
        let image = publish(&mut server, &after);
        let mut target = target(&after);
        if seed % 2 == 0 {
            server.breaks_after = Some(image.ways.index.size + random.below(image.ways.frames.size));
            let _ = root(&image, &server, Some(&old(&before.as_slice())), &mut target, &Silent);
            server.breaks_after = None;
        }
        root(&image, &server, Some(&old(&before.as_slice())), &mut target, &Silent).unwrap();
        assert_arrived(&target, &after);
    }
}

/// Some insertions, removals, moves and changes, at bytes and at blocks; whole blocks in the end.
fn edited(before: &[u8], random: &mut Random) -> Vec<u8> {
    let mut after = before.to_vec();
    for _ in 0..1 + random.below(8) {
        let unit = if random.below(2) == 0 { BLOCK } else { 1 };
        let at = to_usize(random.below(to_u64(after.len() / unit))) * unit;
        let length = (1 + to_usize(random.below(20))) * unit;
        match random.below(4) {
            0 => drop(after.splice(at..at, noise(random.next(), length))),
            1 => drop(after.drain(at..(at + length).min(after.len()))),
            2 => {
                let taken: Vec<u8> = after.drain(at..(at + length).min(after.len())).collect();
                let to = to_usize(random.below(to_u64(after.len()) + 1));
                drop(after.splice(to..to, taken));
            }
            _ => after[at] ^= 1 + random.below(255) as u8,
        }
    }
    after.resize(after.len().next_multiple_of(BLOCK), 0);
    after
}

fn publish_patch(server: &mut Server, image: &mut RootImage, before: &[u8], after: &[u8]) {
    let patch = patch_of(before, after);
    let blob = server.put(patch);
    image.ways.patches.push(Patch { from: Digest::of(before), version: "0".to_owned(), blob });
}

fn patch_of(before: &[u8], after: &[u8]) -> Vec<u8> {
    let mut patch = Vec::new();
    let (sizes, out) = ((to_u64(before.len()), to_u64(after.len())), &mut patch);
    let written = make_patch(&before, sizes.0, &after, sizes.1, out, &Silent).unwrap();
    assert_eq!(written, to_u64(patch.len()));
    patch
}

#[test]
fn patches_lead_from_one_version_to_another() {
    for (name, before, after, lacking) in pairs() {
        let mut server = Server::default();
        let mut image = publish(&mut server, &after);
        publish_patch(&mut server, &mut image, &before, &after);
        for knows_no_ranges in [false, true] {
            server.knows_no_ranges = knows_no_ranges;
            let mut target = target(&after);
            server.take_log();
            let fetched =
                root(&image, &server, Some(&old(&before.as_slice())), &mut target, &Silent).expect(name);
            assert_arrived(&target, &after);
            assert_eq!(fetched.way, Way::Patch, "{name}");
            assert_eq!(server.take_log(), testing::Log { bytes: fetched.bytes, requests: fetched.requests });
            assert!(
                fetched.bytes <= image.ways.index.size + image.ways.patches[0].blob.size + (16 << 10),
                "{name}"
            );
            assert!(image.ways.patches[0].blob.size <= 300 + to_u64(lacking) * 4200, "{name}: {fetched:?}");

            let again =
                root(&image, &server, Some(&old(&before.as_slice())), &mut target, &Silent).expect(name);
            assert!(again.written == 0 && again.bytes <= fetched.bytes.min(17 << 10), "{name}: {again:?}");
        }
        assert_eq!(
            server.files[&image.ways.patches[0].blob.path()],
            patch_of(&before, &after),
            "deterministic"
        );
        // From another version it is of no use.
        let mut target = target(&after);
        let other = [&before[..], &[0; BLOCK]].concat();
        let fetched = root(&image, &server, Some(&old(&other.as_slice())), &mut target, &Silent).unwrap();
        assert_arrived(&target, &after);
        assert_ne!(fetched.way, Way::Patch);
    }
}

#[test]
fn what_changed_a_little_is_patched_with_little() {
    let before = [noise(1, 300 * BLOCK), text(2, 300 * BLOCK)].concat();
    // As in a program that was built again: something put in, and every address behind it another.
    let mut after = [&before[..10_000], b"a new instruction", &before[10_000..]].concat();
    after.truncate(before.len());
    for address in (10_100..after.len()).step_by(128) {
        after[address] = after[address].wrapping_add(17);
    }
    let patch = patch_of(&before, &after);
    assert!(patch.len() < 2000, "{}", patch.len());
}

#[test]
fn a_long_patch_goes_on_with_the_segment_that_is_missing() {
    // Three segments of new blocks.
    let before = noise(1, 20 * BLOCK);
    let after = noise(2, 5200 * BLOCK);
    let mut server = Server::default();
    let mut image = publish(&mut server, &after);
    publish_patch(&mut server, &mut image, &before, &after);
    let size = image.ways.patches[0].blob.size;
    let mut target = target(&after);
    server.breaks_after = Some(size * 85 / 100);
    let error = by(&[Way::Patch], &image, &server, Some(&before), &mut target).unwrap_err();
    assert!(matches!(error, DeltaError::Broken { .. }), "{error}");
    server.breaks_after = None;
    let fetched = by(&[Way::Patch], &image, &server, Some(&before), &mut target).unwrap();
    assert_arrived(&target, &after);
    assert!(fetched.bytes < size * 25 / 100, "{} of {size}", fetched.bytes);
    assert!(fetched.kept > to_u64(after.len()) / 2);
    let error = by(&[Way::Patch], &image, &server, Some(&after), &mut target).unwrap_err();
    assert_eq!(error.to_string(), "there is no patch from what is here");
}

/// A way whose files are damaged or gone gives way to the next; the last one says what is wrong.
#[test]
fn every_way_gives_way_to_the_others() {
    let (before, after) = (text(1, 600 * BLOCK), text(2, 600 * BLOCK));
    let mut server = Server::default();
    let mut image = publish_all(&mut server, &after);
    publish_patch(&mut server, &mut image, &before, &after);
    let ways = image.ways.clone();
    let files = [(Way::Patch, ways.patches[0].blob), (Way::Blocks, ways.index), (Way::Blocks, ways.frames)];
    let whole = server.files.clone();
    for good in [Way::Full, Way::Blocks, Way::Patch] {
        server.files = whole.clone();
        for (way, blob) in files.into_iter().chain([(Way::Full, ways.full)]).filter(|(way, _)| *way != good) {
            let file = server.file(&blob);
            match way {
                Way::Patch => file.truncate(40),
                _ => drop(server.files.remove(&blob.path())),
            }
        }
        let mut target = target(&after);
        let fetched = root(&image, &server, Some(&old(&before.as_slice())), &mut target, &Silent).unwrap();
        assert_arrived(&target, &after);
        assert_eq!(fetched.way, good);
    }
    server.files = whole;
    server.files.retain(|path, _| *path != ways.index.path());
    let half = to_usize(ways.full.size) / 2;
    server.file(&ways.full)[half] ^= 1;
    let error = by(&[Way::Full, Way::Blocks], &image, &server, None, &mut target(&after)).unwrap_err();
    assert_eq!(error.to_string(), format!("{} is not there", ways.index.path()));
    let error = by(&[Way::Full], &image, &server, None, &mut target(&after)).unwrap_err().to_string();
    assert!(error.starts_with("segment 0 of the whole image, at its byte 48, is damaged: "), "{error}");
}

#[test]
fn a_patch_of_no_use_gives_way_to_blocks() {
    let before = text(1, 150 * BLOCK);
    let mut after = before.clone();
    after.splice(99_000..99_000, noise(5, BLOCK));
    let mut server = Server::default();
    let mut image = publish(&mut server, &after);
    publish_patch(&mut server, &mut image, &before, &after);
    let blob = image.ways.patches[0].blob;
    let whole = server.files.clone();
    let size = to_usize(blob.size);
    let before = before.as_slice();
    let mut ways = std::collections::BTreeMap::new();
    let mut attempt = |server: &Server| {
        let mut target = target(&after);
        let fetched = root(&image, server, Some(&old(&before)), &mut target, &Silent).unwrap();
        if fetched.way == Way::Patch {
            // Nothing that a patch does not notice may come of it; the root hash would.
            assert_arrived(&target, &after);
        }
        *ways.entry(fetched.way).or_insert(0) += 1;
    };
    for at in (0..size).step_by(1 + size / 300) {
        for bit in [0, 7] {
            server.files = whole.clone();
            server.file(&blob)[at] ^= 1 << bit;
            attempt(&server);
        }
    }
    for length in (0..size).step_by(1 + size / 40) {
        server.files = whole.clone();
        server.file(&blob).truncate(length);
        attempt(&server);
    }
    server.files.remove(&blob.path());
    attempt(&server);
    server.files = whole;
    server.endless = true;
    attempt(&server);
    let patched = ways.get(&Way::Patch).copied().unwrap_or(0);
    assert!(patched <= 7, "{ways:?}: flipped bits that change nothing");
}

#[test]
fn random_changes_are_patched() {
    for seed in 100..150 {
        let mut random = Random::new(seed);
        let before = match seed % 3 {
            0 => text(seed, 200 * BLOCK),
            1 => noise(seed, 100 * BLOCK),
            _ => [text(seed, 30 * BLOCK), vec![0; 90 * BLOCK]].concat(),
        };
        let after = edited(&before, &mut random);
        let mut server = Server::default();
        let mut image = publish(&mut server, &after);
        publish_patch(&mut server, &mut image, &before, &after);
        let mut target = target(&after);
        let fetched = root(&image, &server, Some(&old(&before.as_slice())), &mut target, &Silent).unwrap();
        assert_arrived(&target, &after);
        assert_eq!(fetched.way, Way::Patch, "{seed}: {fetched:?}");
    }
}
