//! The compressions that archives and packages come in: those of dpkg-deb(1) and of apt.

use std::io::{self, BufRead, Read};

/// Memory that one xz or lzma stream may ask for, in bytes; `xz -9` needs 65 MiB.
const XZ_MEMORY: u64 = 128 << 20;

/// Largest window of a zstd frame as a power of two: 128 MiB, the default of its own tools.
const ZSTD_WINDOW: u32 = 27;

/// How a file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip, `.gz`.
    Gzip,
    /// xz, `.xz`.
    Xz,
    /// Zstandard, `.zst`.
    Zstd,
    /// bzip2, `.bz2`.
    Bzip2,
    /// The older format of xz's algorithm, `.lzma`.
    Lzma,
}

impl Compression {
    /// By the ending of a file's name, with its dot; none for an ending that is not known.
    pub fn of_ending(ending: &str) -> Option<Self> {
        Some(match ending {
            "" => Self::None,
            ".gz" => Self::Gzip,
            ".xz" => Self::Xz,
            ".zst" => Self::Zstd,
            ".bz2" => Self::Bzip2,
            ".lzma" => Self::Lzma,
            _ => return None,
        })
    }

    /// What `compressed` unpacks to.
    ///
    /// # Errors
    /// When a decoder cannot be set up; what is wrong with the bytes shows while reading.
    pub fn reader<'a>(self, compressed: impl BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
        use liblzma::stream::{CONCATENATED, Stream};
        let lzma = |stream: Result<Stream, liblzma::stream::Error>| stream.map_err(io::Error::from);
        Ok(match self {
            Self::None => Box::new(compressed),
            Self::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(compressed)),
            Self::Xz => {
                let stream = lzma(Stream::new_stream_decoder(XZ_MEMORY, CONCATENATED))?;
                Box::new(liblzma::bufread::XzDecoder::new_stream(compressed, stream))
            }
            Self::Lzma => {
                let stream = lzma(Stream::new_lzma_decoder(XZ_MEMORY))?;
                Box::new(liblzma::bufread::XzDecoder::new_stream(compressed, stream))
            }
            Self::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(compressed)),
            Self::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(compressed)?;
                decoder.window_log_max(ZSTD_WINDOW)?;
                Box::new(decoder)
            }
        })
    }
}
