//! The hash tree of an image that was written before, as far as the next one has its blocks.

use std::io::{self, Write};

use super::{BLOCK, DIGEST, Error, Options, Writer, level_blocks, parse_superblock};
use crate::base::device::ReadAt;
use crate::base::width::{to_u64, to_usize};

/// Gives the digests of blocks. Nothing of the tree is checked: something else vouches for it.
#[derive(Debug)]
pub struct Earlier<R> {
    device: R,
    salt: Vec<u8>,
    blocks: u64,
}

impl<R: ReadAt> Earlier<R> {
    /// Takes a hash device, superblock included.
    ///
    /// # Errors
    /// What is no superblock, or one of another kind than ours; `Io`.
    pub fn open(device: R) -> Result<Self, Error> {
        let mut block = [0; BLOCK];
        device.read_at(&mut block, 0)?;
        let (Options { salt, .. }, blocks) = parse_superblock(&block)?;
        Ok(Self { device, salt, blocks })
    }

    /// Whether blocks have the same digests under `options`.
    pub fn suits(&self, options: &Options) -> bool {
        self.salt == options.salt
    }

    /// The digests of `count` blocks from block `first` on.
    fn leaves(&self, first: u64, count: u64) -> io::Result<Vec<u8>> {
        if first.checked_add(count).is_none_or(|end| end > self.blocks) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // The leaves are the last level.
        let above: u64 = level_blocks(self.blocks).iter().skip(1).sum();
        let mut leaves = vec![0; to_usize(count) * DIGEST];
        self.device.read_at(&mut leaves, (1 + above) * to_u64(BLOCK) + first * to_u64(DIGEST))?;
        Ok(leaves)
    }
}

impl<W: Write + Send> Writer<W> {
    /// Takes `count` blocks of an earlier image, from its block `first` on, as the next ones: their digests from
    /// `earlier`, and their bytes by `copy`, which writes them to what is underneath.
    ///
    /// # Errors
    /// `InvalidInput` where no whole number of blocks came before, or the salt is another; what the disks say.
    pub fn take<R: ReadAt>(
        &mut self,
        earlier: &Earlier<R>,
        (first, count): (u64, u64),
        copy: impl FnOnce(&mut W) -> io::Result<()>,
    ) -> io::Result<()> {
        self.flush()?;
        if !self.pending.is_empty() || !earlier.suits(&self.options) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.leaves.extend(earlier.leaves(first, count)?);
        self.len += count * to_u64(BLOCK);
        copy(&mut self.inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn options(salt: u8) -> Options {
        Options { salt: vec![salt; 32], uuid: Uuid::nil() }
    }

    fn blocks(numbers: std::ops::Range<u32>) -> Vec<u8> {
        numbers.flat_map(|number| number.to_le_bytes().repeat(BLOCK / 4)).collect()
    }

    #[test]
    fn taken_blocks_have_the_digests_of_hashed_ones() {
        let mut writer = Writer::new(io::sink(), options(1)).unwrap();
        writer.write_all(&blocks(0..300)).unwrap();
        let tree = writer.finish().unwrap();
        let earlier = Earlier::open(&tree.bytes[..]).unwrap();

        let mut whole = Writer::new(io::sink(), options(1)).unwrap();
        whole.write_all(&[blocks(7..8), blocks(2..290), blocks(9..12)].concat()).unwrap();
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes, options(1)).unwrap();
        writer.write_all(&blocks(7..8)).unwrap();
        writer.take(&earlier, (2, 288), |inner| inner.write_all(&blocks(2..290))).unwrap();
        writer.write_all(&blocks(9..12)).unwrap();
        assert_eq!(writer.finish().unwrap().bytes, whole.finish().unwrap().bytes);
        assert_eq!(bytes, [blocks(7..8), blocks(2..290), blocks(9..12)].concat());
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut writer = Writer::new(io::sink(), options(1)).unwrap();
        writer.write_all(&blocks(0..3)).unwrap();
        let tree = writer.finish().unwrap();
        let earlier = Earlier::open(&tree.bytes[..]).unwrap();
        let refused = |salt, before: &[u8], stretch| {
            let mut writer = Writer::new(io::sink(), options(salt)).unwrap();
            writer.write_all(before).unwrap();
            writer.take(&earlier, stretch, |_| Ok(())).map_err(|error| error.kind())
        };
        assert_eq!(refused(1, &[], (0, 3)), Ok(()));
        assert_eq!(refused(2, &[], (0, 3)), Err(io::ErrorKind::InvalidInput));
        assert_eq!(refused(1, &[0; 9], (0, 3)), Err(io::ErrorKind::InvalidInput));
        assert_eq!(refused(1, &[], (1, 3)), Err(io::ErrorKind::UnexpectedEof));
    }
}
