//! FAT32 as firmware reads it: the first of the tables, a folder's records up to the first that was never used.
//! Written apart from keller's own reader, so that the two do not share an error.

use super::disk::{Id, SECTOR, View};

const RECORD: usize = 32;
const END_OF_CHAIN: u32 = 0x0fff_fff8;
const FOLDER: u8 = 0x10;
const LABEL: u8 = 0x08;
const PIECE_OF_A_NAME: u8 = 0x0f;

pub struct Volume<'v, 'd> {
    view: &'v View<'d>,
    /// Sectors in a cluster.
    cluster: u32,
    /// First sector of the table.
    table: u32,
    /// Sector where cluster 2 begins.
    data: u32,
    root: u32,
    /// Number of clusters, with two that do not exist.
    end: u32,
}

#[derive(Clone, Debug)]
pub struct File {
    pub name: String,
    start: u32,
    /// In bytes; nothing for a folder.
    pub size: Option<u32>,
}

impl<'v, 'd> Volume<'v, 'd> {
    /// Opens the file system that begins at sector `start`.
    pub fn open(view: &'v View<'d>, start: u32) -> Result<Self, String> {
        let boot = view.sector(start);
        let half = |at: usize| u32::from(u16::from_le_bytes([boot[at], boot[at + 1]]));
        let word = |at: usize| half(at) | half(at + 2) << 16;
        if boot[510..] != [0x55, 0xaa] || half(11) as usize != SECTOR || !boot[82..].starts_with(b"FAT32") {
            return Err("the boot sector is none of FAT32".to_owned());
        }
        let (cluster, reserved, tables) = (u32::from(boot[13]), half(14), u32::from(boot[16]));
        let (table_size, total, root) = (word(36), word(32), word(44));
        let data = reserved + tables * table_size;
        let end = (total - data) / cluster + 2;
        Ok(Self { view, cluster, table: start + reserved, data: start + data, root, end })
    }

    /// The first `count` clusters of a chain.
    fn chain(&self, start: u32, count: u32) -> Result<Vec<u32>, String> {
        let mut chain = Vec::new();
        let mut next = start;
        while (chain.len() as u32) < count && next < END_OF_CHAIN {
            if !(2..self.end).contains(&next) {
                return Err(format!("a chain leads to cluster {next}"));
            }
            chain.push(next);
            let (sector, at) = (next / 128, next as usize % 128 * 4);
            let entry = self.view.sector(self.table + sector)[at..at + 4].try_into().expect("four bytes");
            next = u32::from_le_bytes(entry) & 0x0fff_ffff;
        }
        Ok(chain)
    }

    fn sectors(&self, chain: &[u32]) -> impl Iterator<Item = u32> {
        let (data, size) = (self.data, self.cluster);
        chain
            .iter()
            .flat_map(move |cluster| (0..size).map(move |sector| data + (cluster - 2) * size + sector))
    }

    fn records(&self, start: u32) -> Result<Vec<File>, String> {
        let mut files = Vec::new();
        let mut long: Vec<[u8; RECORD]> = Vec::new();
        for sector in self.sectors(&self.chain(start, self.end)?) {
            for record in self.view.sector(sector).as_chunks::<RECORD>().0 {
                match (record[0], record[11]) {
                    (0, _) => return Ok(files),
                    (0xe5, _) => long.clear(),
                    (order, PIECE_OF_A_NAME) => {
                        if order & 0x40 != 0 {
                            long.clear();
                        }
                        long.push(*record);
                    }
                    (_, attributes) if attributes & LABEL != 0 => long.clear(),
                    (_, attributes) => {
                        let half = |at: usize| u32::from(u16::from_le_bytes([record[at], record[at + 1]]));
                        let name = long_name(&long, record).unwrap_or_else(|| short_name(record));
                        let start = half(20) << 16 | half(26);
                        let size = (attributes & FOLDER == 0).then_some(half(30) << 16 | half(28));
                        long.clear();
                        files.push(File { name, start, size });
                    }
                }
            }
        }
        Ok(files)
    }

    /// What is in a folder, by its path; without itself and what is above.
    pub fn folder(&self, path: &str) -> Result<Vec<File>, String> {
        let mut start = self.root;
        for part in path.split('/') {
            let found = self.records(start)?.into_iter().find(|file| file.name.eq_ignore_ascii_case(part));
            match found {
                Some(File { size: None, start: next, .. }) => start = next,
                _ => return Err(format!("there is no folder {path}")),
            }
        }
        Ok(self
            .records(start)?
            .into_iter()
            .filter(|file| ![".", ".."].contains(&file.name.as_str()))
            .collect())
    }

    /// Whether a file has this content: whole sectors by what stands for them, and `tail` in the last.
    pub fn has(&self, file: &File, content: &Content) -> Result<bool, String> {
        if file.size != Some(content.size) {
            return Ok(false);
        }
        let chain = self.chain(file.start, content.size.div_ceil(self.cluster * SECTOR as u32))?;
        let mut sectors = self.sectors(&chain);
        let whole = content.whole.iter().all(|id| sectors.next().is_some_and(|at| self.view.id(at) == *id));
        let tail = &content.tail[..];
        let is_end = |at: u32| self.view.sector(at).starts_with(tail);
        Ok(whole && (tail.is_empty() || sectors.next().is_some_and(is_end)))
    }
}

/// What a file is to have.
#[derive(Clone, PartialEq)]
pub struct Content {
    pub size: u32,
    pub whole: Vec<Id>,
    pub tail: Vec<u8>,
}

fn long_name(pieces: &[[u8; RECORD]], short: &[u8; RECORD]) -> Option<String> {
    let sum = short[..11].iter().fold(0_u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
    let mut units = Vec::new();
    for (piece, order) in pieces.iter().rev().zip(1..) {
        if piece[0] & 0x3f != order || piece[13] != sum {
            return None;
        }
        let bytes = [&piece[1..11], &piece[14..26], &piece[28..32]].concat();
        units.extend(bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])));
    }
    let is_whole = pieces.first().is_some_and(|first| first[0] & 0x40 != 0);
    let end = units.iter().position(|unit| *unit == 0).unwrap_or(units.len());
    is_whole.then(|| String::from_utf16_lossy(&units[..end]))
}

fn short_name(record: &[u8; RECORD]) -> String {
    let part = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    match (part(&record[..8]), part(&record[8..11])) {
        (base, extension) if extension.is_empty() => base,
        (base, extension) => format!("{base}.{extension}"),
    }
}
