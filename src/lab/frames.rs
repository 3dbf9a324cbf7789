//! Frames on a stream: each has its length before it, in four bytes, the highest first.
//!
//! Source: `net_fill_rstate` of QEMU's net/net.c.

use std::io::{self, Read, Write};

use crate::base::width::to_index;

/// The largest frame that QEMU itself takes (NET_BUFSIZE of include/net/net.h).
pub(super) const LARGEST: u32 = 4096 + 65536;

/// Why a stream of frames ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Between two frames.
    Whole,
    /// In the middle of one.
    CutOff,
    /// The next one has so many bytes: the stream holds no frames.
    Oversized(u32),
}

/// Reads the next frame into `frame`.
///
/// # Errors
/// Why there is none. A stream that fails is one that has been cut off.
pub(super) fn read(from: &mut impl Read, frame: &mut Vec<u8>) -> Result<(), End> {
    let mut length = [0; 4];
    match from.read(&mut length) {
        Ok(0) => return Err(End::Whole),
        Ok(count) => from.read_exact(&mut length[count..]).map_err(|_| End::CutOff)?,
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {
            from.read_exact(&mut length).map_err(|_| End::CutOff)?;
        }
        Err(_) => return Err(End::CutOff),
    }
    let length = u32::from_be_bytes(length);
    if length > LARGEST {
        return Err(End::Oversized(length));
    }
    frame.resize(to_index(length), 0);
    from.read_exact(frame).map_err(|_| End::CutOff)
}

/// Writes a frame, in one piece where the stream takes it.
///
/// # Errors
/// Those of the stream.
pub(super) fn write(to: &mut impl Write, frame: &[u8]) -> io::Result<()> {
    let length = u32::try_from(frame.len()).map_err(io::Error::other)?;
    to.write_all(&[&length.to_be_bytes(), frame].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_whole_or_not_at_all() {
        let mut stream = Vec::new();
        write(&mut stream, b"one").unwrap();
        write(&mut stream, b"").unwrap();
        write(&mut stream, b"three").unwrap();
        let frames = |bytes: &[u8]| {
            let (mut from, mut frame, mut found) = (bytes, Vec::new(), Vec::new());
            loop {
                match read(&mut from, &mut frame) {
                    Ok(()) => found.push(String::from_utf8(frame.clone()).unwrap()),
                    Err(end) => return (found.join(","), end),
                }
            }
        };
        assert_eq!(frames(&stream), ("one,,three".to_owned(), End::Whole));
        for cut in 12..stream.len() {
            assert_eq!(frames(&stream[..cut]), ("one,".to_owned(), End::CutOff), "{cut}");
        }
        let long = (LARGEST + 1).to_be_bytes();
        assert_eq!(frames(&long), (String::new(), End::Oversized(LARGEST + 1)));
        // The length alone takes no memory.
        assert_eq!(frames(&u32::MAX.to_be_bytes()), (String::new(), End::Oversized(u32::MAX)));
    }
}
