use std::ops::ControlFlow;
use std::sync::OnceLock;

use super::super::marks;
use super::*;
use crate::base::Size;
use crate::base::device::SectorSize;
use crate::base::power_cut::Recorder;
use crate::base::progress::Silent;
use crate::disk::gpt::types;
use crate::disk::layout::STATE_LABEL;
use crate::disk::slot::Release;
use crate::disk::unfold::Own;
use crate::disk::{Layout, Sizes, state_disk};

/// All that write: a root of samples has no hash tree.
const STEPS: [Step; 6] =
    [Step::Clear, Step::Content, Step::ReadBack, Step::Document, Step::Table, Step::Finish];
/// Bytes of a root.
const ROOT: u64 = 200 << 10;

fn layout() -> Layout {
    let one = Size::mib(1);
    let sizes = Sizes { esp: one, root: one, reserve: None, state: one, sector_size: SectorSize::B512 };
    Layout::plan(&sizes).unwrap()
}

fn release(version: &str) -> Release {
    Release { id: "node".into(), version: version.into(), root_hash: Digest::of(version) }
}

fn own(number: u128) -> Own {
    let guid = |number: u128| uuid::Builder::from_random_bytes((number << 100).to_be_bytes()).into_uuid();
    Own { disk: guid(number), esp: guid(number + 1) }
}

/// Bytes in memory.
#[derive(Debug)]
struct Bytes(Vec<u8>);

impl ReadAt for Bytes {
    fn size(&self) -> u64 {
        self.0.as_slice().size()
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.as_slice().read_at(buffer, offset)
    }
}

/// An image, and the table of it.
struct Sample {
    version: &'static str,
    bytes: Arc<dyn Shared>,
    raw: Arc<Bytes>,
    table: Table,
}

/// Two images whose partitions are full of their own bytes.
fn samples() -> &'static [Sample; 2] {
    static SAMPLES: OnceLock<[Sample; 2]> = OnceLock::new();
    SAMPLES.get_or_init(|| {
        [("1", 0x10), ("2", 0x20)].map(|(version, fill)| {
            let table = layout().image_table(&release(version), ROOT).unwrap();
            let mut bytes = vec![0; to_usize(layout().image_size(ROOT))];
            for entry in &table.entries {
                let place = &mut bytes[to_usize(entry.start)..to_usize(entry.end())];
                for (sector, at) in place.chunks_mut(512).zip(0_u32..) {
                    sector.fill(fill ^ entry.number as u8 ^ at as u8);
                }
            }
            let raw = Arc::new(Bytes(bytes));
            Sample { version, bytes: raw.clone(), raw, table }
        })
    })
}

/// Writes that image in `order` onto `disk`.
fn install(
    disk: &mut impl Device,
    Sample { bytes, table: image, .. }: &Sample,
    order: &[Step],
    is_stopped: &dyn Fn() -> bool,
) -> Result<(), WriteError> {
    let number = u128::from(image.disk_guid.as_bytes()[0]);
    let table = layout().unfold(image, disk.size(), true, own(number)).unwrap();
    let content = content(bytes, image).unwrap();
    let job = Job { bytes, image, content, table: &table, kept: None, only_state: false, document: None };
    steps(disk, &job, order, is_stopped, &Silent)
}

fn blank() -> Recorder {
    Recorder::new(vec![0; to_usize(layout().disk_size)], SectorSize::B512)
}

/// A disk on which an earlier version runs, and the record of what installing another does to it.
fn recorded(order: &[Step]) -> Recorder {
    let [old, new] = samples();
    let mut disk = blank();
    install(&mut disk, old, &STEPS, &|| false).unwrap();
    let mut disk = Recorder::new(disk.bytes().to_vec(), SectorSize::B512);
    install(&mut disk, new, order, &|| false).unwrap();
    disk
}

/// What somebody who starts the disk finds; the version, or nothing.
fn judge(disk: &[u8]) -> Result<Option<&'static str>, String> {
    let Ok(found) = gpt::read(disk, SectorSize::B512) else { return Ok(None) };
    if found.table.by_type(types::ROOT).next().is_none() {
        return Ok(None);
    }
    for Sample { version, raw, table, .. } in samples() {
        if found.table.by_guid(release(version).root().guid).is_none() {
            continue;
        }
        for entry in &table.entries {
            let range = to_usize(entry.start)..to_usize(entry.end());
            if disk[range.clone()] != raw.0[range] {
                return Err(format!("a table leads to a half-written {}", entry.label));
            }
        }
        return Ok(Some(version));
    }
    Err("a table of nobody".to_owned())
}

/// The first state that is wrong, and how many there are of each kind.
fn cut(disk: &Recorder) -> (Option<String>, [usize; 3], usize) {
    let (mut wrong, mut seen) = (None, [0; 3]);
    let tally = disk.each_distinct_cut(|bytes, what| match judge(bytes) {
        Ok(None) => seen[0] += 1,
        Ok(Some("1")) => seen[1] += 1,
        Ok(_) => seen[2] += 1,
        Err(error) => wrong = wrong.take().or_else(|| Some(format!("{what}: {error}"))),
    });
    (wrong, seen, tally.distinct)
}

#[test]
fn these_are_the_steps_of_an_installation() {
    assert_eq!(ORDER.iter().copied().filter(|step| *step != Step::Verify).collect::<Vec<_>>(), STEPS);
}

#[test]
fn at_each_cut_the_disk_starts_a_whole_version_or_nothing() {
    let disk = recorded(&STEPS);
    let (wrong, seen, distinct) = cut(&disk);
    assert_eq!(wrong, None);
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
    assert_eq!(disk.unflushed(), 0);
    println!(
        "{distinct} states: {} start nothing, {} the old version, {} the new one",
        seen[0], seen[1], seen[2]
    );
    assert_eq!(judge(disk.bytes()), Ok(Some("2")));
    assert_eq!(marks::look(disk.bytes()).unwrap().things.len(), 1);
}

#[test]
fn mutants_are_seen() {
    use Step::{Clear, Content, Document, Finish, ReadBack, Table};
    for (what, order) in [
        ("table first", &[Clear, Table, Content, ReadBack, Document, Finish][..]),
        ("old marks stay", &[Content, ReadBack, Document, Table, Finish]),
        ("old marks go last", &[Content, ReadBack, Document, Clear, Table, Finish]),
    ] {
        let mut seen = false;
        recorded(order).distinct_states_until(|bytes, _| {
            seen = judge(bytes).is_err();
            if seen { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert!(seen, "{what}");
    }
}

/// Whoever has written the first byte of content has taken all that could hold them up.
#[test]
fn after_a_cut_the_next_installation_finds_nothing_to_lose() {
    let mut disk = blank();
    install(&mut disk, &samples()[1], &STEPS, &|| false).unwrap();
    let mut seen = [0; 2];
    disk.each_distinct_cut(|bytes, what| {
        let found = marks::look(bytes).unwrap();
        match judge(bytes).unwrap() {
            Some(_) => seen[0] += 1,
            // A sector that is garbage is a disk that fails.
            None if what.ends_with("garbage") => {}
            None => {
                assert_eq!(found.things, Vec::<String>::new(), "{what}");
                seen[1] += 1;
            }
        }
    });
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
}

/// A disk that forgets what it was told.
struct Forgetful(Recorder);

impl ReadAt for Forgetful {
    fn size(&self) -> u64 {
        self.0.size()
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_at(buffer, offset)
    }
}

impl Device for Forgetful {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        // As a stick that is sold as larger than it is.
        if offset < 3 << 20 { self.0.write_at(bytes, offset) } else { Ok(()) }
    }
    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
    fn sector_size(&self) -> SectorSize {
        SectorSize::B512
    }
}

#[test]
fn a_disk_that_forgets_is_told_and_gets_no_table() {
    let mut disk = Forgetful(blank());
    let error = install(&mut disk, &samples()[1], &STEPS, &|| false).unwrap_err();
    assert!(error.to_string().starts_with("the disk does not have what was written to it"), "{error}");
    assert_eq!(judge(disk.0.bytes()), Ok(None));
}

#[test]
fn an_interruption_leaves_no_table() {
    let mut disk = blank();
    let asked = std::cell::Cell::new(0);
    let stop = || asked.replace(asked.get() + 1) > 2;
    let error = install(&mut disk, &samples()[1], &STEPS, &stop).unwrap_err();
    assert!(matches!(error, WriteError::Interrupted { kept: false }), "{error}");
    assert_eq!(judge(disk.bytes()), Ok(None));
    assert!(marks::look(disk.bytes()).unwrap().unfinished);
}

/// All that write where a state is kept.
const KEEPING_STEPS: [Step; 7] =
    [Step::Mark, Step::Strip, Step::Content, Step::ReadBack, Step::Document, Step::Table, Step::Finish];

/// The disk of a node of the first version that has been started, so that it has a state.
fn node() -> Vec<u8> {
    let mut disk = blank();
    install(&mut disk, &samples()[0], &STEPS, &|| false).unwrap();
    let found = gpt::read(disk.bytes(), SectorSize::B512).unwrap();
    let mut table = found.table.clone();
    let state = table.entries.iter().find(|entry| entry.label == STATE_LABEL).unwrap().clone();
    table.rename(state.number, own(7).disk, STATE_LABEL, state.attributes).unwrap();
    gpt::rewrite(&mut disk, &found, &table).unwrap();
    let mut bytes = disk.bytes().to_vec();
    let place = &mut bytes[to_usize(state.start)..to_usize(state.end())];
    for (byte, at) in place.iter_mut().zip(0_usize..) {
        *byte = (at / 512) as u8 ^ 0x5a;
    }
    place[1080..1082].copy_from_slice(&[0x53, 0xef]);
    bytes
}

/// Whether a table leads to the state that [`node`] has, and all of that is there.
fn has_state(disk: &[u8], node: &[u8]) -> Result<(), String> {
    let table = gpt::read(disk, SectorSize::B512).map_err(|error| error.to_string())?.table;
    let state = table.by_guid(own(7).disk).filter(|entry| entry.label == STATE_LABEL);
    let state = state.ok_or("no table has it")?;
    let place = to_usize(state.start)..to_usize(state.end());
    let before = gpt::read(node, SectorSize::B512).unwrap().table;
    match before.by_guid(own(7).disk).map(|entry| (entry.start, entry.size))
        == Some((state.start, state.size))
        && disk[place.clone()] == node[place]
    {
        true => Ok(()),
        false => Err("it has other bytes".to_owned()),
    }
}

fn keeping(disk: &[u8]) -> Result<Plan, String> {
    let places = (&layout(), &samples()[1].table);
    keep::plan(&disk, "disk", "node", places, own(50)).map_err(|error| error.to_string())
}

/// Installs the second version in `order` onto a disk with these bytes, and keeps its state.
fn replaced(bytes: Vec<u8>, order: &[Step]) -> (Recorder, Result<(), String>) {
    let plan = match keeping(&bytes) {
        Ok(plan) => plan,
        Err(error) => return (Recorder::new(bytes, SectorSize::B512), Err(error)),
    };
    let mut disk = Recorder::new(bytes, SectorSize::B512);
    let Sample { bytes, table: image, .. } = &samples()[1];
    let content = content(bytes, image).unwrap();
    let kept = plan.kept.as_ref();
    let job = Job { bytes, image, content, table: &plan.table, kept, only_state: false, document: None };
    let mut spared = Spared { disk: &mut disk, part: kept.unwrap().place.clone() };
    let done = steps(&mut spared, &job, order, &|| false, &Silent).map_err(|error| error.to_string());
    (disk, done)
}

/// What is wrong with a disk after a cut: it starts something half, its state is lost, or the next installation refuses.
fn wrong(disk: &[u8], node: &[u8]) -> Result<Option<&'static str>, String> {
    has_state(disk, node)?;
    keeping(disk)?;
    judge(disk)
}

#[test]
fn these_are_the_steps_that_keep_a_state() {
    assert_eq!(
        KEEPING.iter().copied().filter(|step| *step != Step::Verify).collect::<Vec<_>>(),
        KEEPING_STEPS
    );
}

#[test]
fn at_each_cut_the_state_is_there_and_the_next_installation_keeps_it() {
    let node = node();
    // What a cut in the middle of the content has left is where the second one begins.
    let (cut_short, done) = replaced(node.clone(), &[Step::Mark, Step::Strip, Step::Content]);
    done.unwrap();
    assert_eq!(wrong(cut_short.bytes(), &node), Ok(None));
    let said = marks::look(cut_short.bytes()).unwrap().line();
    assert!(said.ends_with("an installation that was cut short and keeps the state of node"), "{said}");
    for (what, before) in [("a node", node.clone()), ("one that was cut short", cut_short.bytes().to_vec())] {
        let (disk, done) = replaced(before, &KEEPING_STEPS);
        done.unwrap();
        assert_eq!(disk.unflushed(), 0);
        assert_eq!(wrong(disk.bytes(), &node), Ok(Some("2")));
        assert!(!marks::look(disk.bytes()).unwrap().line().contains("cut short"));
        let (mut seen, mut number) = ([0; 3], 0);
        let tally = disk.each_distinct_cut(|bytes, cut| {
            match wrong(bytes, &node).unwrap_or_else(|error| panic!("{what}, {cut}: {error}")) {
                None => seen[0] += 1,
                Some("1") => seen[1] += 1,
                Some(_) => seen[2] += 1,
            }
            number += 1;
            if number % 50 == 0 {
                let (after, done) = replaced(bytes.to_vec(), &KEEPING_STEPS);
                assert_eq!((done, wrong(after.bytes(), &node)), (Ok(()), Ok(Some("2"))), "{what}, {cut}");
            }
        });
        println!(
            "{what}: {} states, all with the state: {} start nothing, {} the old version, {} the new one",
            tally.distinct, seen[0], seen[1], seen[2]
        );
        assert!(seen[0] > 0 && seen[2] > 0, "{seen:?}");
    }
}

#[test]
fn mutants_that_keep_a_state_are_seen() {
    use Step::{Clear, Content, Document, Finish, Mark, ReadBack, Strip, Table};
    let node = node();
    for (what, order, said) in [
        ("the old table stays", &[Mark, Content, ReadBack, Document, Table, Finish][..], "half-written"),
        ("stripped before it is marked", &[Strip, Mark, Content, Table, Finish], "nothing says which image"),
        ("no mark", &[Strip, Content, Table], "nothing says which image"),
        ("the mark goes first", &[Mark, Strip, Content, Finish, Table], "nothing says which image"),
        ("the table first", &[Mark, Strip, Table, Content, Finish], "half-written"),
        ("as without a state", &[Mark, Clear, Content], "partition table"),
    ] {
        let mut seen = None;
        replaced(node.clone(), order).0.distinct_states_until(|bytes, _| match wrong(bytes, &node) {
            Ok(_) => ControlFlow::Continue(()),
            Err(error) => {
                seen = Some(error);
                ControlFlow::Break(())
            }
        });
        assert!(seen.as_ref().is_some_and(|error| error.contains(said)), "{what}: {seen:?}");
    }
}

#[test]
fn nothing_is_written_where_the_state_is() {
    let mut disk = Spared { disk: blank(), part: 1024..2048 };
    for (offset, good) in [(512, true), (600, false), (1024, false), (1536, false), (2048, true)] {
        assert_eq!(disk.write_at(&[1; 512], offset).is_ok(), good, "{offset}");
    }
    assert!(disk.write_at(&[1; 4096], 0).is_err());
}

/// What a disk that is for a state alone may be at any moment.
#[test]
fn at_each_cut_a_disk_for_a_state_is_one_or_has_nothing_to_lose() {
    let mut disk = blank();
    let Sample { bytes, table: image, .. } = &samples()[1];
    let (content, table) =
        (content(bytes, image).unwrap(), layout().state_disk(disk.size(), own(9).disk).unwrap());
    let job = Job { bytes, image, content, table: &table, kept: None, only_state: true, document: None };
    write(&mut disk, &job, &|| false, &Silent).unwrap();
    assert_eq!(disk.unflushed(), 0);
    let mut seen = [0; 2];
    disk.each_distinct_cut(|bytes, what| match gpt::read(bytes, SectorSize::B512) {
        Ok(found) => {
            // The node takes it, and the next installation finds it done.
            let is_ready =
                !state_disk::is_unfinished(&bytes).unwrap() && marks::kept(bytes).unwrap().is_none();
            assert!(state_disk::is_one(&found.table) && is_ready, "{what}");
            seen[0] += 1;
        }
        Err(_) if what.ends_with("garbage") => {}
        Err(_) => {
            assert_eq!(marks::look(bytes).unwrap().things, Vec::<String>::new(), "{what}");
            seen[1] += 1;
        }
    });
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
}
