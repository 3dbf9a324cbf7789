//! Lengths in memory and in files: here both have 64 bits, so that neither loses anything as the other.

const _: () = assert!(usize::BITS == u64::BITS, "keller counts the bytes of files in memory's own width");

/// A length or an index in memory, as one in a file.
#[inline]
pub const fn to_u64(length: usize) -> u64 {
    length as u64
}

/// A length or an offset in a file, as one in memory. Whether there is as much memory is for the caller to ask first.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the assertion above refuses other widths")]
pub const fn to_usize(length: u64) -> usize {
    length as usize
}

/// A number of 32 bits as a length or an index in memory.
#[inline]
pub const fn to_index(number: u32) -> usize {
    number as usize
}

/// The low and the high 32 bits of a number, for fields that hold it in two parts.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "what each half leaves out is in the other")]
pub const fn halves(number: u64) -> [u32; 2] {
    [number as u32, (number >> 32) as u32]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost() {
        assert_eq!(to_usize(u64::MAX), usize::MAX);
        assert_eq!(to_u64(usize::MAX), u64::MAX);
        assert_eq!(to_u64(to_index(u32::MAX)), u64::from(u32::MAX));
        assert_eq!(halves(0x0123_4567_89ab_cdef), [0x89ab_cdef, 0x0123_4567]);
    }
}
