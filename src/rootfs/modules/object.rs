//! What one kernel module file says of itself: `.modinfo`, exported and needed symbols.

use std::borrow::Cow;
use std::io::Read;

use object::LittleEndian;
use object::read::elf::ElfFile64;
use object::{Object, ObjectSection, ObjectSymbol};
use serde::{Deserialize, Serialize};

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

/// Reads a module file; `name` decides about decompression.
pub fn read(name: &str, bytes: &[u8]) -> Result<Facts, String> {
    let image = unpack(name, bytes).map_err(|error| format!("unpacking the module: {error}"))?;
    let elf = ElfFile64::<LittleEndian>::parse(&*image).map_err(|error| error.to_string())?;
    let mut facts = Facts::default();
    for line in strings(&elf, ".modinfo")? {
        let Some((key, value)) = line.split_once('=') else { continue };
        let list = match key {
            "alias" => &mut facts.aliases,
            "softdep" => &mut facts.softdeps,
            "weakdep" => &mut facts.weakdeps,
            "firmware" => &mut facts.firmware,
            "parm" | "parmtype" => {
                let name = value.split(':').next().unwrap_or_default().to_owned();
                if !facts.parameters.contains(&name) {
                    facts.parameters.push(name);
                }
                continue;
            }
            "depends" => {
                let names = value.split(',').filter(|name| !name.is_empty());
                facts.depends.extend(names.map(|name| name.replace('-', "_")));
                continue;
            }
            _ => continue,
        };
        list.push(value.to_owned());
    }
    for symbol in elf.symbols() {
        let name = symbol.name().map_err(|error| error.to_string())?;
        if let Some(exported) = name.strip_prefix(VERSION_OF) {
            facts.exports.push(exported.to_owned());
        } else if symbol.is_undefined() && !name.is_empty() {
            facts.needs.push(name.to_owned());
        }
    }
    if facts.exports.is_empty() {
        // A kernel without symbol versions. The section also has the names of symbol namespaces.
        facts.exports = strings(&elf, "__ksymtab_strings")?;
    }
    Ok(facts)
}

fn unpack<'a>(name: &str, bytes: &'a [u8]) -> std::io::Result<Cow<'a, [u8]>> {
    let mut unpacked = Vec::new();
    if name.ends_with(".xz") {
        liblzma::read::XzDecoder::new(bytes).read_to_end(&mut unpacked)?;
    } else if name.ends_with(".zst") {
        unpacked = zstd::decode_all(bytes)?;
    } else if name.ends_with(".gz") {
        flate2::read::GzDecoder::new(bytes).read_to_end(&mut unpacked)?;
    } else {
        return Ok(bytes.into());
    }
    Ok(unpacked.into())
}

/// The NUL-separated texts of a section; nothing if there is no such section.
fn strings(elf: &ElfFile64<'_, LittleEndian>, section: &str) -> Result<Vec<String>, String> {
    let Some(section) = elf.section_by_name(section) else { return Ok(Vec::new()) };
    let data = section.data().map_err(|error| error.to_string())?;
    Ok(data
        .split(|byte| *byte == 0)
        .filter(|text| !text.is_empty())
        .map(|text| String::from_utf8_lossy(text).into_owned())
        .collect())
}
