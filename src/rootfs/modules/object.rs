//! What one kernel module file says of itself: `.modinfo`, exported and needed symbols.

use std::collections::BTreeSet;
use std::io::BufReader;

use object::LittleEndian;
use object::read::elf::ElfFile64;
use object::read::elf::Sym;
use object::{Object, ObjectSection, ObjectSymbol};
use serde::{Deserialize, Serialize};

use crate::base::compression::Alone;
use crate::base::width::{to_index, to_u64};
use crate::base::{Compression, limits};
use crate::tree::Content;

/// File name endings of modules, as kmod knows them.
pub const SUFFIXES: [&str; 4] = [".ko", ".ko.xz", ".ko.zst", ".ko.gz"];

/// Before the name of an exported symbol: its version.
const VERSION_OF: &str = "__crc_";

/// The facts in a module file that the indexes are made of, in the file's own order.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// Patterns of devices and names that the module answers to.
    pub aliases: Vec<String>,
    /// Lines such as `pre: crc32c post: zlib`.
    pub softdeps: Vec<String>,
    /// Names of modules that are useful, but not needed.
    pub weakdeps: Vec<String>,
    /// Files that the driver may ask for, below /usr/lib/firmware.
    pub firmware: Vec<String>,
    /// Names of its parameters; one that has neither a type nor a description is not among them.
    pub parameters: Vec<String>,
    /// Names of the modules that it cannot be loaded without, as the kernel's build wrote them down.
    pub depends: Vec<String>,
    /// Symbols that others may use.
    pub exports: Vec<String>,
    /// Symbols that others must have.
    pub needs: Vec<String>,
}

/// Bytes of memory that a text takes besides its own, at the least.
const OVERHEAD: usize = 64;

impl Facts {
    /// Bytes that all texts take.
    pub fn bytes(&self) -> usize {
        let Self { aliases, softdeps, weakdeps, firmware, parameters, depends, exports, needs } = self;
        let lists = [aliases, softdeps, weakdeps, firmware, parameters, depends, exports, needs];
        lists.into_iter().flatten().map(|text| text.len() + OVERHEAD).sum()
    }
}

/// Reads a module file; `name` decides about decompression. Says how many bytes it has unpacked, too.
pub fn read(name: &str, content: &Content) -> Result<(Facts, u64), String> {
    let (image, _alone) = unpack(name, content).map_err(|error| format!("unpacking the module: {error}"))?;
    let elf = ElfFile64::<LittleEndian>::parse(&*image).map_err(|error| error.to_string())?;
    let mut facts = Facts::default();
    let mut left = Left(limits::FACTS);
    let mut parameters = BTreeSet::new();
    for line in strings(&elf, ".modinfo")? {
        let line = String::from_utf8_lossy(line);
        let Some((key, value)) = line.split_once('=') else { continue };
        let list = match key {
            "alias" => &mut facts.aliases,
            "softdep" => &mut facts.softdeps,
            "weakdep" => &mut facts.weakdeps,
            "firmware" => &mut facts.firmware,
            "parm" | "parmtype" => {
                let name = value.split(':').next().unwrap_or_default().to_owned();
                if parameters.insert(name.clone()) {
                    left.take(&name)?;
                    facts.parameters.push(name);
                }
                continue;
            }
            "depends" => {
                for name in value.split(',').filter(|name| !name.is_empty()) {
                    left.take(name)?;
                    facts.depends.push(name.replace('-', "_"));
                }
                continue;
            }
            _ => continue,
        };
        left.take(value)?;
        list.push(value.to_owned());
    }
    let names = elf.elf_symbol_table().string_section();
    let names = match names.0 {
        0 => &[],
        _ => elf
            .section_by_index(names)
            .and_then(|section| section.data())
            .map_err(|error| error.to_string())?,
    };
    let text = |name: &[u8]| str::from_utf8(name).map(str::to_owned).map_err(|error| error.to_string());
    for symbol in elf.symbols() {
        let name = beginning(names, to_index(symbol.elf_symbol().st_name(LittleEndian)))?;
        if let Some(exported) = name.strip_prefix(VERSION_OF.as_bytes()) {
            let exported = text(exported)?;
            left.take(&exported)?;
            facts.exports.push(exported);
        } else if symbol.is_undefined() && !name.is_empty() {
            let name = text(name)?;
            left.take(&name)?;
            facts.needs.push(name);
        }
    }
    if facts.exports.is_empty() {
        // A kernel without symbol versions. The section also has the names of symbol namespaces.
        for name in strings(&elf, "__ksymtab_strings")? {
            let name = String::from_utf8_lossy(name);
            left.take(&name)?;
            facts.exports.push(name.into_owned());
        }
    }
    Ok((facts, to_u64(image.len())))
}

fn unpack(name: &str, content: &Content) -> std::io::Result<(Vec<u8>, Option<Alone>)> {
    let ending = name.rfind('.').map_or("", |at| &name[at..]);
    let compression = Compression::of_ending(ending).unwrap_or(Compression::None);
    compression.unpack_alone(BufReader::with_capacity(64 << 10, content.reader()), limits::MODULE)
}

/// The name that begins at `offset`, or the beginning of one that is longer than any may be: a million symbols can have one
/// of megabytes, which would be gone through for each of them.
fn beginning(names: &[u8], offset: usize) -> Result<&[u8], String> {
    let name = names.get(offset..).filter(|name| offset == 0 || !name.is_empty());
    let name = name.ok_or_else(|| "a symbol has its name beyond all names".to_owned())?;
    let name = &name[..name.len().min(VERSION_OF.len() + limits::FACT + 1)];
    Ok(name.split(|byte| *byte == 0).next().unwrap_or_default())
}

/// How many facts may still come.
struct Left(usize);

impl Left {
    /// Takes one in.
    fn take(&mut self, text: &str) -> Result<(), String> {
        if text.len() > limits::FACT {
            return Err(format!("it has an alias or a symbol of more than {} bytes", limits::FACT));
        }
        let too_many = || format!("it names more than {} aliases and symbols", limits::FACTS);
        self.0 = self.0.checked_sub(1).ok_or_else(too_many)?;
        Ok(())
    }
}

/// The NUL-separated texts of a section; nothing if there is no such section.
fn strings<'a>(
    elf: &ElfFile64<'a, LittleEndian>,
    section: &str,
) -> Result<impl Iterator<Item = &'a [u8]> + use<'a>, String> {
    let data = match elf.section_by_name(section) {
        Some(section) => section.data().map_err(|error| error.to_string())?,
        None => &[],
    };
    Ok(data.split(|byte| *byte == 0).filter(|text| !text.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_have_a_number_and_a_length() {
        let mut left = Left(2);
        assert!(left.take("a").is_ok() && left.take(&"b".repeat(limits::FACT)).is_ok());
        assert_eq!(left.take("c").unwrap_err(), "it names more than 100000 aliases and symbols");
        let told = Left(2).take(&"d".repeat(limits::FACT + 1)).unwrap_err();
        assert_eq!(told, "it has an alias or a symbol of more than 2048 bytes");
    }

    #[test]
    fn a_name_of_megabytes_is_not_gone_through() {
        assert_eq!(beginning(b"\0abc\0d", 1).unwrap(), b"abc");
        assert_eq!(beginning(b"", 0).unwrap(), b"");
        assert!(beginning(b"\0abc\0", 9).is_err());
        assert_eq!(beginning(&vec![b'x'; 1 << 20], 5).unwrap().len(), VERSION_OF.len() + limits::FACT + 1);
    }
}
