//! The script by which iPXE starts a node that fetches its image: it lies beside the kernel image and the disk image, and
//! names both relative to where it came from itself.
//!
//! Source: <https://ipxe.org/scripting>, and its core/exec.c, which splits at blanks, knows no quotes, and takes a word
//! that begins with `#` for the begin of a comment.

use std::io;

use crate::boot::cmdline::words;

/// With which it begins.
pub(super) const MAGIC: &[u8] = b"#!ipxe";

/// `cwduri`, the directory that the script came from, is there since March 2024; before, relative names alone lead there.
const IS_NEW: &str = "isset ${cwduri} || goto old\n";
/// What an iPXE without it does.
const OLD: &str = "goto failed\n:old\necho keller: this iPXE is older than March 2024 and cannot tell where its script \
                   lies: take a newer one, or set `netboot.url` in the manifest and build again\n";

/// The script for the kernel image `program`, whose command line is `cmdline`. The disk image is `image` beside it, unless the
/// kernel image itself says where that is.
///
/// The kernel sees the command line that iPXE gives and no other, so that its words stand here, too. All but the root
/// hash: `/init` has it in the initramfs, and a script that is older than what it starts must not name another root.
///
/// # Errors
/// A word that iPXE would not hand over as it is.
pub(super) fn script(program: &str, image: Option<&str>, cmdline: &str) -> io::Result<String> {
    let words = words(cmdline.trim_end_matches('\0'));
    let words: Vec<_> = words.into_iter().filter(|word| !word.starts_with("roothash=")).collect();
    if let Some(word) = words.iter().find(|word| !is_plain(word)) {
        return Err(io::Error::other(format!(
            "the word `{word}` of the kernel command line cannot stand in a script of iPXE, which knows no quotes and \
             expands ${{…}}: leave it out of `kernel.cmdline`"
        )));
    }
    let (check, old) = if image.is_some() { (IS_NEW, OLD) } else { ("", "") };
    let image = image.map(|image| format!("keller.image=${{cwduri}}{image}"));
    let words = words.into_iter().chain(image).collect::<Vec<_>>().join(" ");
    Ok(format!(
        "#!ipxe\n{check}chain --autofree {program} {words} || goto failed\n{old}\
         :failed\necho keller: {program} did not start: starting over in 10 s\nsleep 10\nreboot\n"
    ))
}

/// Whether iPXE hands `word` over as it is.
fn is_plain(word: &str) -> bool {
    let ends = ["||", "&&", ";"].contains(&word) || word.starts_with('#') || word.contains("${");
    !ends && !word.is_empty() && !word.contains(char::is_whitespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_repeats_the_command_line_without_the_root_hash() {
        let text =
            script("n_1.efi", Some("n_1.raw.zst"), "roothash=ab ro console=ttyS0,115200 x=\"y\"\0").unwrap();
        let chain =
            "chain --autofree n_1.efi ro console=ttyS0,115200 x=y keller.image=${cwduri}n_1.raw.zst ||";
        assert!(text.starts_with("#!ipxe\nisset ${cwduri} || goto old\n"), "{text}");
        assert!(text.lines().nth(2).unwrap().starts_with(chain), "{text}");
        let text = script("n_1.efi", None, "ro\0").unwrap();
        assert!(text.starts_with("#!ipxe\nchain --autofree n_1.efi ro || goto failed\n:failed\n"), "{text}");
        for word in ["a=\"b c\"", "#x", "${x}", "&&"] {
            let error = script("n.efi", None, &format!("ro {word} quiet")).unwrap_err().to_string();
            assert!(error.contains("leave it out of `kernel.cmdline`"), "{error}");
        }
    }
}
