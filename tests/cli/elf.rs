//! The smallest programs and kernel modules that are real ELF files.

/// Sizes in bytes: file header, program header, section header, symbol.
const HEADER: usize = 64;
const SEGMENT: usize = 56;
const SECTION: usize = 64;

fn header(kind: u16, entry: u64, segments: u16, sections: u16, section_table: u64) -> Vec<u8> {
    let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    bytes.extend(kind.to_le_bytes());
    bytes.extend(62_u16.to_le_bytes()); // x86-64
    bytes.extend(1_u32.to_le_bytes());
    bytes.extend(entry.to_le_bytes());
    bytes.extend(if segments > 0 { HEADER as u64 } else { 0 }.to_le_bytes());
    bytes.extend(section_table.to_le_bytes());
    bytes.extend(0_u32.to_le_bytes());
    let sizes =
        [HEADER as u16, SEGMENT as u16, segments, SECTION as u16, sections, sections.saturating_sub(1)];
    bytes.extend(sizes.iter().flat_map(|size| size.to_le_bytes()));
    bytes
}

/// A static program that ends with success.
pub fn program() -> Vec<u8> {
    // mov eax, 60; xor edi, edi; syscall
    of_code(b"\xb8\x3c\0\0\0\x31\xff\x0f\x05")
}

/// A static program that writes the file at `path` to its standard output, with all the rights that it is started with: other
/// programs give those of their file away. Fails where it cannot.
pub fn reader(path: &str) -> Vec<u8> {
    const CODE: &[u8] = &[
        0xb8, 0x02, 0, 0, 0, // mov eax, 2 (open)
        0x48, 0x8d, 0x3d, 0x30, 0, 0, 0, // lea rdi, [path]
        0x31, 0xf6, // xor esi, esi
        0x0f, 0x05, // syscall
        0x85, 0xc0, 0x78, 0x1c, // test eax, eax; js fail
        0x89, 0xc6, // mov esi, eax
        0xbf, 0x01, 0, 0, 0, // mov edi, 1
        0x31, 0xd2, // xor edx, edx
        0x41, 0xba, 0, 0, 0x10, 0, // mov r10d, 1 MiB
        0xb8, 0x28, 0, 0, 0, // mov eax, 40 (sendfile)
        0x0f, 0x05, // syscall
        0x31, 0xff, // xor edi, edi
        0x85, 0xc0, 0x7f, 0x05, // test eax, eax; jg end
        0xbf, 0x01, 0, 0, 0, // fail: mov edi, 1
        0xb8, 0x3c, 0, 0, 0, // end: mov eax, 60 (exit)
        0x0f, 0x05, // syscall
    ];
    of_code(&[CODE, path.as_bytes(), b"\0"].concat())
}

fn of_code(code: &[u8]) -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    let size = (HEADER + SEGMENT + code.len()) as u64;
    let mut bytes = header(2, BASE + (HEADER + SEGMENT) as u64, 1, 0, 0);
    bytes.extend([1_u32, 5].iter().flat_map(|field| field.to_le_bytes())); // loaded, readable, executable
    bytes.extend([0, BASE, BASE, size, size, 0x1000].iter().flat_map(|field| field.to_le_bytes()));
    bytes.extend(code);
    bytes
}

/// A kernel module with these lines of `.modinfo`, which exports and needs these symbols.
pub fn module(info: &[&str], exports: &[&str], needs: &[&str]) -> Vec<u8> {
    let texts = |list: &[&str]| list.iter().flat_map(|text| [text.as_bytes(), b"\0"].concat()).collect();
    let modinfo: Vec<u8> = texts(info);
    let exported: Vec<u8> = texts(exports);
    let (mut names, mut symbols) = (vec![0], vec![0; 24]);
    for need in needs {
        symbols.extend((names.len() as u32).to_le_bytes());
        symbols.extend([0x10; 1]); // global, without a type
        symbols.extend([0; 19]);
        names.extend(need.bytes().chain([0]));
    }
    let titles = b"\0.modinfo\0__ksymtab_strings\0.symtab\0.strtab\0.shstrtab\0";
    let title = |name: &str| titles.windows(name.len()).position(|part| part == name.as_bytes()).unwrap();
    // Title, type, link, info, size of an entry, body.
    type Section<'b> = (usize, u32, u32, u32, u64, &'b [u8]);
    let sections: [Section<'_>; 5] = [
        (title(".modinfo"), 1, 0, 0, 0, &modinfo),
        (title("__ksymtab_strings"), 1, 0, 0, 0, &exported),
        (title(".symtab"), 2, 4, 1, 24, &symbols),
        (title(".strtab"), 3, 0, 0, 0, &names),
        (title(".shstrtab"), 3, 0, 0, 0, titles),
    ];
    let bodies: usize = sections.iter().map(|section| section.5.len().next_multiple_of(8)).sum();
    let mut bytes = header(1, 0, 0, 1 + sections.len() as u16, (HEADER + bodies) as u64);
    let mut table = vec![0; SECTION];
    for (title, kind, link, info, entry, body) in sections {
        table.extend((title as u32).to_le_bytes());
        table.extend(kind.to_le_bytes());
        table
            .extend([0, 0, bytes.len() as u64, body.len() as u64].iter().flat_map(|f: &u64| f.to_le_bytes()));
        table.extend([link, info].iter().flat_map(|field| field.to_le_bytes()));
        table.extend([8, entry].iter().flat_map(|field: &u64| field.to_le_bytes()));
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
    bytes.extend(table);
    bytes
}

/// A program that needs `library`, one page mapped as it is.
pub fn needing(library: &str) -> Vec<u8> {
    linked(&[library], "")
}

/// A program that needs `libraries`, and looks for them in the directories of `runpath`, unless that is empty.
pub fn linked(libraries: &[&str], runpath: &str) -> Vec<u8> {
    let mut strings = vec![0];
    let mut dynamic: Vec<u64> = Vec::new();
    let strings_at = HEADER + 2 * SEGMENT;
    // DT_NEEDED, DT_RUNPATH.
    for (tag, text) in
        libraries.iter().map(|name| (1, *name)).chain((!runpath.is_empty()).then_some((29, runpath)))
    {
        dynamic.extend([tag, strings.len() as u64]);
        strings.extend(text.bytes().chain([0]));
    }
    // DT_STRTAB, DT_NULL.
    dynamic.extend([5, strings_at as u64, 0, 0]);
    let dynamic_at = (strings_at + strings.len()).next_multiple_of(8);
    let size = (dynamic_at + dynamic.len() * 8) as u64;
    let mut bytes = header(3, 0, 2, 0, 0);
    for (kind, at, length) in [(1_u32, 0, size), (2, dynamic_at as u64, dynamic.len() as u64 * 8)] {
        bytes.extend([kind, 4].iter().flat_map(|field| field.to_le_bytes()));
        bytes.extend([at, at, at, length, length, 8].iter().flat_map(|field: &u64| field.to_le_bytes()));
    }
    bytes.extend(strings);
    bytes.resize(dynamic_at, 0);
    bytes.extend(dynamic.iter().flat_map(|field| field.to_le_bytes()));
    bytes
}

/// A program for the machine of this number.
pub fn of_machine(number: u16) -> Vec<u8> {
    let mut bytes = program();
    bytes[18..20].copy_from_slice(&number.to_le_bytes());
    bytes
}

/// So that a test which sees nobody gain by it could fail.
#[test]
fn a_reader_has_the_rights_of_its_file() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    if !crate::judges::tool::as_root("start a program as somebody else") {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name);
    let set = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    set(scratch.path(), 0o755);
    std::fs::write(at("secret"), "of root\n").unwrap();
    set(&at("secret"), 0o600);
    crate::judges::tool::program(&at("reader"), &reader(at("secret").to_str().unwrap()));
    let run = || {
        let mut command = std::process::Command::new(at("reader"));
        command.uid(65534).gid(65534);
        command.output().unwrap()
    };
    set(&at("reader"), 0o755);
    let output = run();
    assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
    set(&at("reader"), 0o4755);
    let output = run();
    assert!(output.status.success() && output.stdout == b"of root\n", "{output:?}");
}
