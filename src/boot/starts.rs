//! Starts that did not get through, counted in the ESP: how a node gets off a version that was good once and
//! whose disk went bad.
//!
//! Versions on trial are counted by the boot loader; those that are blessed have no counter any more. For them
//! `/init` adds one to a number in this file before it opens the root, and the agent sets it to zero when the
//! boot is good. Only entries that the agent has put into the file are counted, so that nothing is held
//! against a version whose agent does not run. A start that an operator or a power cut ended counts as well.
//! What fails before `/init`, the kernel or its reading by the firmware, is not counted.
//!
//! The file is text, for `mtype`, of one size, and within the half of a sector that is written at once:
//! ```text
//! keller starts 1
//! 2 node_1.0.1.efi
//! 0 node_1.0.0.efi
//! sum 0123456789abcdef
//! ```

use super::entries::BootEntry;
use crate::base::Digest;
use crate::base::device::Device;
use crate::base::width::to_u64;
use crate::fs::fat::reader::ReadError;
use crate::fs::fat::{EditError, Editor};

/// In the ESP.
pub const PATH: &str = "EFI/keller/starts";
/// Starts in a row that did not get through, after which an entry is given up if there is another.
pub const LIMIT: u32 = 3;

const HEAD: &str = "keller starts 1\n";
/// Bytes of the file: filled up with line ends.
const SIZE: usize = 256;
/// Hexadecimal digits of the SHA-256 of all lines before.
const SUM: usize = 16;
/// Counts beyond this stay there.
const MOST: u32 = 999;

/// The content of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Starts {
    /// Names of entries without their counters, and how often each did not get through; the latest first.
    counts: Vec<(String, u32)>,
}

impl Starts {
    /// Nothing for a file that is damaged: then the counts begin anew.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let text = str::from_utf8(bytes).ok().filter(|text| text.len() == SIZE)?;
        let end = text.rfind("sum ")?;
        let (lines, sum) = text.split_at(end);
        if sum["sum ".len()..].trim_end_matches('\n') != checksum(lines) {
            return None;
        }
        let line = |line: &str| {
            let (count, name) = line.split_once(' ')?;
            Some((name.to_owned(), count.parse().ok()?))
        };
        Some(Self { counts: lines.strip_prefix(HEAD)?.lines().map(line).collect::<Option<_>>()? })
    }

    /// As many as there is room for: more than two slots can be the origin of.
    fn to_bytes(&self) -> Vec<u8> {
        let room = SIZE - "sum \n".len() - SUM;
        let mut text = HEAD.to_owned();
        for (name, count) in &self.counts {
            let line = format!("{count} {name}\n");
            if text.len() + line.len() <= room {
                text.push_str(&line);
            }
        }
        let sum = checksum(&text);
        let mut bytes = format!("{text}sum {sum}").into_bytes();
        bytes.resize(SIZE, b'\n');
        bytes
    }

    fn count(&mut self, name: &str) -> Option<&mut u32> {
        let same = |(other, _): &&mut (String, u32)| other.eq_ignore_ascii_case(name);
        self.counts.iter_mut().find(same).map(|(_, count)| count)
    }
}

fn checksum(text: &str) -> String {
    Digest::of(text.as_bytes()).to_hex()[..SUM].to_owned()
}

/// The counts, and whether the file can be overwritten in place.
fn read<D: Device + ?Sized>(editor: &Editor<'_, D>) -> Result<(Starts, bool), EditError> {
    match editor.read(PATH, to_u64(SIZE)) {
        Ok(bytes) => Ok((Starts::parse(&bytes).unwrap_or_default(), bytes.len() == SIZE)),
        Err(EditError::Read(ReadError::NotFound { .. } | ReadError::TooLarge { .. })) => {
            Ok((Starts::default(), false))
        }
        Err(error) => Err(error),
    }
}

/// `/init`: adds one to the starts of the entry `name` (see [`BootEntry::name`]) by one write of one sector, and
/// says how many before this one did not get through. Nothing where no agent has begun to count.
///
/// # Errors
/// What the disk says; the boot goes on.
pub fn begin<D: Device + ?Sized>(editor: &mut Editor<'_, D>, name: &str) -> Result<Option<u32>, EditError> {
    let (mut starts, _) = read(editor)?;
    let Some(count) = starts.count(name) else { return Ok(None) };
    let missed = *count;
    *count = (missed + 1).min(MOST);
    editor.overwrite(PATH, &starts.to_bytes())?;
    Ok(Some(missed))
}

/// The agent, when a boot is good, and whoever demotes an entry: the starts of `name` count from zero again.
/// Makes the file where there is none; writes nothing when all is as it is to be.
///
/// # Errors
/// Those of [`Editor::put`] and [`Editor::overwrite`].
pub fn reset<D: Device + ?Sized>(editor: &mut Editor<'_, D>, name: &str) -> Result<(), EditError> {
    let (mut starts, in_place) = read(editor)?;
    if starts.count(name) == Some(&mut 0) {
        return Ok(());
    }
    starts.counts.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
    starts.counts.insert(0, (name.to_owned(), 0));
    let bytes = starts.to_bytes();
    match in_place {
        true => editor.overwrite(PATH, &bytes),
        false => editor.put(PATH, &mut bytes.as_slice(), to_u64(SIZE)),
    }
}

/// Whether `own`, of which `missed` starts in a row did not get through, is to be given up for one of `all`. Never
/// while it is on trial, which is the boot loader's to end, and never for nothing else to start.
pub fn is_given_up(own: &BootEntry, missed: u32, all: &[BootEntry]) -> bool {
    let other = |entry: &BootEntry| !entry.is_used_up() && entry.name() != own.name();
    own.counter.is_none() && missed >= LIMIT && all.iter().any(other)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::base::device::SectorSize;
    use crate::base::power_cut::{Recorder, copy};
    use crate::base::width::to_usize;
    use crate::boot::entries::parse;
    use crate::fs::fat::{self, Options};
    use crate::tree::Tree;

    const NAME: &str = "node_1.0.1.efi";

    fn esp() -> Recorder {
        let options =
            Options { size: 34 << 20, sector_size: 512, volume_id: 1, label: String::new(), mtime: 0 };
        let mut tree = Tree::new(0);
        tree.file("EFI/Linux/node_1.0.1.efi", 0o644, vec![2; 3000]).unwrap();
        let mut disk = Cursor::new(vec![0; to_usize(options.size)]);
        fat::write(&tree, &options, &mut disk).unwrap();
        Recorder::new(disk.into_inner(), SectorSize::B512)
    }

    fn begin(disk: &mut Recorder, name: &str) -> Option<u32> {
        super::begin(&mut Editor::open(disk).unwrap(), name).unwrap()
    }

    fn reset(disk: &mut Recorder, name: &str) {
        super::reset(&mut Editor::open(disk).unwrap(), name).unwrap();
    }

    #[test]
    fn starts_are_counted_until_one_gets_through() {
        let mut disk = esp();
        assert_eq!(begin(&mut disk, NAME), None);
        assert_eq!(disk.epochs.len(), 1, "nothing is written before an agent has");
        reset(&mut disk, NAME);
        reset(&mut disk, "node_1.0.0.efi");
        // systemd-boot folds the case of names.
        assert_eq!([NAME, "NODE_1.0.1.efi", NAME].map(|name| begin(&mut disk, name)), [0, 1, 2].map(Some));
        assert_eq!(begin(&mut disk, "node_1.0.0.efi"), Some(0));
        reset(&mut disk, NAME);
        let done = disk.epochs.len();
        reset(&mut disk, NAME);
        assert_eq!(disk.epochs.len(), done, "nothing to write");
        assert_eq!(begin(&mut disk, NAME), Some(0));
        assert_eq!(begin(&mut disk, "node_1.0.0.efi"), Some(1));
    }

    #[test]
    fn a_cut_leaves_the_count_as_it_was_or_one_more() {
        let mut disk = esp();
        reset(&mut disk, NAME);
        begin(&mut disk, NAME);
        let mut disk = Recorder::new(copy(disk.bytes()), SectorSize::B512);
        assert_eq!(begin(&mut disk, NAME), Some(1));
        assert_eq!(disk.epochs.len(), 2, "one write");
        disk.each_distinct_cut(|state, what| {
            let mut state = Recorder::new(copy(state), SectorSize::B512);
            let editor = Editor::open(&mut state).unwrap();
            let (mut starts, _) = read(&editor).unwrap();
            match (starts.count(NAME), what.ends_with("garbage")) {
                (Some(1 | 2), false) | (None, true) => {}
                (count, _) => panic!("{what}: {count:?}"),
            }
        });
    }

    #[test]
    fn what_is_damaged_counts_for_nothing_and_is_mended() {
        let mut starts = Starts::default();
        assert_eq!(Starts::parse(&starts.to_bytes()), Some(starts.clone()));
        starts.counts = (0..40).map(|at| (format!("node_1.0.{at}.efi"), at)).collect();
        let bytes = starts.to_bytes();
        let kept = Starts::parse(&bytes).unwrap().counts;
        assert!(kept.len() > 8 && starts.counts.starts_with(&kept));
        for at in 0..SIZE {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(Starts::parse(&damaged), None, "{at}");
        }
        let mut disk = esp();
        Editor::open(&mut disk).unwrap().put(PATH, &mut [b'x'; 300].as_slice(), 300).unwrap();
        assert_eq!(begin(&mut disk, NAME), None);
        reset(&mut disk, NAME);
        assert_eq!(begin(&mut disk, NAME), Some(0));
    }

    #[test]
    fn a_version_is_given_up_only_for_another() {
        let entries = |files: &[&str]| files.iter().map(|file| parse(file).unwrap()).collect::<Vec<_>>();
        let up = |missed, files: &[&str]| is_given_up(&entries(files)[0], missed, &entries(files));
        assert!(up(3, &["node_2.efi", "node_1.efi"]));
        assert!(up(7, &["node_2.efi", "node_3+1-2.efi"]));
        assert!(!up(2, &["node_2.efi", "node_1.efi"]));
        assert!(!up(3, &["node_2.efi"]));
        assert!(!up(3, &["node_2.efi", "node_1+0.efi", "node_2+3.efi"]));
        assert!(!up(3, &["node_2+1-2.efi", "node_1.efi"]));
        assert!(!up(3, &["node_2+0-3.efi", "node_1.efi"]));
    }
}
