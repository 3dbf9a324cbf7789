//! The one tool for structures on disk: `zerocopy`, which reads and writes them as they lie, with the byte order in
//! the type of each field. A room declares a structure once, with the names of its specification:
//!
//! ```ignore
//! on_disk! {
//!     /// `erofs_dirent`.
//!     pub Dirent: 12 bytes {
//!         nid: le::U64,
//!         nameoff: le::U16,
//!         file_type: u8,
//!         reserved: u8,
//!     }
//! }
//!
//! let (dirent, rest) = Dirent::read_from_prefix(bytes)?;  // an error where `bytes` are fewer
//! out.extend(Dirent { nameoff: 12.into(), ..Dirent::new_zeroed() }.as_bytes());
//! ```

pub use zerocopy::{
    FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned, big_endian as be,
    little_endian as le, transmute_ref,
};
pub use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Declares a structure without padding; that its fields add up to its size is checked when compiling.
macro_rules! on_disk {
    ($(#[$doc:meta])* $vis:vis $name:ident: $size:literal bytes { $($(#[$note:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq,
            $crate::base::on_disk::FromBytes, $crate::base::on_disk::IntoBytes, $crate::base::on_disk::Immutable,
            $crate::base::on_disk::KnownLayout, $crate::base::on_disk::Unaligned,
        )]
        #[repr(C)]
        #[allow(missing_docs, dead_code, reason = "the specification has its fields")]
        $vis struct $name { $($(#[$note])* pub(crate) $field: $type,)* }

        const _: () = assert!(size_of::<$name>() == $size);

        #[allow(dead_code, reason = "not every structure is written and read")]
        impl $name {
            /// Bytes on disk.
            pub(crate) const SIZE: usize = $size;
        }
    };
}
pub(crate) use on_disk;

/// As many structures as `bytes` hold; a rest that is none is left out.
pub fn whole<T: FromBytes + Immutable + KnownLayout + Unaligned>(bytes: &[u8]) -> &[T] {
    let count = bytes.len() / size_of::<T>();
    <[T]>::ref_from_prefix_with_elems(bytes, count).map_or(&[], |(whole, _)| whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    on_disk! {
        /// With every kind of field.
        Sample: 16 bytes {
            magic: [u8; 4],
            small: le::U16,
            flags: u8,
            kind: u8,
            large: be::U64,
        }
    }

    #[test]
    fn fields_lie_in_their_order_without_padding() {
        let sample =
            Sample { magic: *b"abcd", small: 0x0102.into(), flags: 3, kind: 4, large: 0x0506.into() };
        let bytes = *b"abcd\x02\x01\x03\x04\0\0\0\0\0\0\x05\x06";
        assert_eq!(sample.as_bytes(), bytes);
        assert_eq!(Sample::read_from_bytes(&bytes).unwrap(), sample);
        assert_eq!(Sample::read_from_prefix(&[&bytes[..], b"more"].concat()).unwrap().1, b"more");
    }

    #[test]
    fn short_input_is_an_error() {
        for count in 0..Sample::SIZE {
            assert!(Sample::read_from_prefix(&vec![0; count]).is_err(), "{count} bytes");
            assert_eq!(whole::<Sample>(&vec![0; Sample::SIZE + count]).len(), 1);
        }
        assert!(whole::<Sample>(&[]).is_empty());
    }
}
