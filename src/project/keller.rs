//! The keller for the node: the one that runs, or another.

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::base::{Digest, input, limits};
use crate::tree::Content;

/// Reads the program at `named`, or the one that runs, which may be unoptimised where `allow_debug` says so. It must run
/// where no library is, as nothing else is in the initramfs.
///
/// # Errors
/// Programs that cannot be /init, each with the way out.
pub(super) fn read(named: Option<&Path>, allow_debug: bool) -> Result<(Content, Digest)> {
    let path = match named {
        Some(path) => path.to_owned(),
        None => {
            if cfg!(debug_assertions) && !allow_debug {
                bail!(
                    "this keller is a debug build, which is large and slow on a node: build with --release, \
                     name another with --keller, or pass --allow-debug"
                );
            }
            std::env::current_exe().context("looking for this program")?
        }
    };
    let bytes = input::read(&path, limits::PROGRAM).with_context(|| format!("reading {}", path.display()))?;
    if !is_static(&bytes) {
        bail!(
            "{} is not a static x86_64 program, so it cannot be /init: build it with the project's own \
             .cargo/config.toml, or name another with --keller",
            path.display()
        );
    }
    let digest = Digest::of(&bytes);
    Ok((bytes.into(), digest))
}

fn is_static(bytes: &[u8]) -> bool {
    use object::elf::{FileHeader64, PT_INTERP};
    use object::read::elf::{FileHeader, ProgramHeader};
    let Ok(header) = FileHeader64::<object::LittleEndian>::parse(bytes) else { return false };
    let Ok(endian) = header.endian() else { return false };
    let Ok(segments) = header.program_headers(endian, bytes) else { return false };
    header.e_machine(endian) == object::elf::EM_X86_64
        && !segments.iter().any(|segment| segment.p_type(endian) == PT_INTERP)
}
