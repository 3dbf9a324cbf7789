use std::io::Cursor;
use std::sync::Arc;

use super::*;

const LIMITS: Limits = Limits { members: 100, bytes: 1 << 20 };

/// A header block with its checksum; fields that tests do not care for are plain.
fn block(path: &[u8], kind: u8, size: u64, link: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..path.len()].copy_from_slice(path);
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link);
    header.set_mode(0o644);
    header.set_uid(1);
    header.set_gid(2);
    header.set_mtime(1_700_000_000);
    header.set_size(size);
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_cksum();
    header.as_bytes().to_vec()
}

fn entry(path: &[u8], kind: u8, body: &[u8], link: &[u8]) -> Vec<u8> {
    let mut bytes = block(path, kind, body.len() as u64, link);
    bytes.extend_from_slice(body);
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

fn file(path: &str) -> Vec<u8> {
    entry(path.as_bytes(), b'0', path.as_bytes(), b"")
}

fn pax(key: &str, value: &[u8]) -> Vec<u8> {
    let mut len = key.len() + value.len() + 4;
    while len.to_string().len() + key.len() + value.len() + 3 != len {
        len += 1;
    }
    let record = [format!("{len} {key}=").as_bytes(), value, b"\n"].concat();
    entry(b"PaxHeader", b'x', &record, b"")
}

fn read_all(parts: &[Vec<u8>]) -> Result<Vec<Member>, TarError> {
    let mut bytes = parts.concat();
    bytes.resize(bytes.len() + 2 * BLOCK, 0);
    read(&mut Cursor::new(bytes), &mut io::sink(), LIMITS)
}

fn tree_of(parts: &[Vec<u8>]) -> Result<Tree, TarError> {
    let mut bytes = parts.concat();
    bytes.resize(bytes.len() + 2 * BLOCK, 0);
    let mut copy = tempfile::tempfile().unwrap();
    let members = read(&mut Cursor::new(bytes), &mut copy, LIMITS)?;
    tree(&members, &Arc::new(copy), 0, "sample", 7)
}

#[test]
fn types_owners_and_bodies() {
    let tree = tree_of(&[
        entry(b"./", b'5', b"", b""),
        entry(b"./usr/", b'5', b"", b""),
        file("./usr/a"),
        entry(b"./usr/b", b'1', b"", b"./usr/a"),
        entry(b"usr/c", b'2', b"", b"../a"),
        entry(b"usr/p", b'6', b"", b""),
        file("implied/x"),
    ])
    .unwrap();
    assert_eq!(tree.read("usr/b").unwrap(), b"./usr/a");
    assert_eq!(tree.lookup("usr/a"), tree.lookup("usr/b"));
    let node = |path: &str| tree.node(tree.lookup(path).unwrap());
    let meta = &node("usr/a").meta;
    assert_eq!((meta.mode, meta.uid, meta.gid, meta.mtime), (0o644, 1, 2, 1_700_000_000));
    assert_eq!((node("implied").meta.mtime, tree.origin_name(node("implied").origin)), (7, "sample"));
    let letters = ["", "usr/c", "usr/p"].map(|path| node(path).kind.letter());
    assert_eq!(letters, ['d', 'l', 'p']);
}

#[test]
fn extension_headers() {
    let long = "n".repeat(200);
    let path = format!("d/{long}");
    let members = read_all(&[
        entry(b"././@LongLink", b'L', format!("{path}\0").as_bytes(), b""),
        file("short"),
        entry(b"././@LongLink", b'K', format!("{path}\0").as_bytes(), b""),
        entry(b"l", b'2', b"", b"cut"),
        pax("SCHILY.xattr.security.capability", b"\x01\0\n=\n\xff"),
        pax("path", b"x/capable"),
        pax("mtime", b"12.9"),
        file("y"),
        file("after"),
    ])
    .unwrap();
    assert_eq!(members[0].path, path.as_bytes());
    assert_eq!(members[1].body, Body::Symlink(path.into_bytes()));
    let capable = &members[2];
    assert_eq!((&*capable.path, capable.meta.mtime), (&b"x/capable"[..], 12));
    assert_eq!(capable.meta.xattrs[&b"security.capability"[..]], b"\x01\0\n=\n\xff");
    assert!(members[3].meta.xattrs.is_empty());
}

#[test]
fn paths_that_lead_out_are_refused() {
    for path in ["../x", "a/../../x", "/etc/passwd", "a/..", "a\nb"] {
        let error = read_all(&[file(path)]).unwrap_err();
        assert!(matches!(&error, TarError::UnsafePath { member, .. } if member == path), "{error}");
    }
    let long = [b"d/".as_slice(), &[b'n'; 256]].concat();
    for path in [&b"a\0b"[..], b"", b"/x", b"x/../y", &long, &b"d/".repeat(2049), b"."] {
        let error = read_all(&[pax("path", path), file("x")]).unwrap_err();
        assert!(matches!(error, TarError::UnsafePath { .. }), "{error}");
    }
    let error = read_all(&[file("a"), entry(b"b", b'1', b"", b"../../etc/shadow")]).unwrap_err();
    assert!(matches!(error, TarError::LinkTarget { .. }), "{error}");
    let error = read_all(&[pax("linkpath", b"a\0b"), entry(b"l", b'2', b"", b"x")]).unwrap_err();
    assert!(matches!(error, TarError::UnsafePath { .. }), "{error}");
}

#[test]
fn no_member_is_written_through_a_link_of_the_archive() {
    for target in ["/etc", "../../..", "usr", "nowhere"] {
        let link = entry(b"usr/out", b'2', b"", target.as_bytes());
        let error = tree_of(&[link, file("usr/out/passwd")]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "member \"usr/out/passwd\" lies below \"usr/out\", which the same archive makes a symbolic link"
        );
    }
    // The same by way of a hard link to the symbolic link.
    let parts = [entry(b"a", b'2', b"", b"/etc"), entry(b"b", b'1', b"", b"a"), file("b/x")];
    assert!(matches!(tree_of(&parts), Err(TarError::BelowLink { .. })));
    assert!(matches!(tree_of(&[file("a"), file("a/b")]), Err(TarError::BelowFile { .. })));
    // A hard link must not reach through a link either.
    let parts = [file("d/x"), entry(b"l", b'2', b"", b"d"), entry(b"h", b'1', b"", b"l/x")];
    assert!(matches!(tree_of(&parts), Err(TarError::LinkTarget { .. })));
}

#[test]
fn hard_links_need_a_file_before_them() {
    for parts in [
        vec![entry(b"b", b'1', b"", b"a"), file("a")],
        vec![entry(b"b", b'1', b"", b"b")],
        vec![entry(b"a/", b'5', b"", b""), entry(b"b", b'1', b"", b"a")],
        vec![entry(b"b", b'1', b"", b"/etc/passwd")],
    ] {
        assert!(matches!(tree_of(&parts), Err(TarError::LinkTarget { .. })));
    }
}

#[test]
fn duplicates_must_agree() {
    let folder = || entry(b"d/", b'5', b"", b"");
    assert!(tree_of(&[file("d/x"), folder(), folder()]).is_ok());
    let mut other = tar::Header::from_byte_slice(&folder()).clone();
    other.set_mode(0o700);
    other.set_cksum();
    let other = other.as_bytes().to_vec();
    for parts in [
        vec![file("a"), file("./a")],
        vec![folder(), other],
        vec![file("a"), entry(b"a", b'2', b"", b"b")],
        vec![folder(), entry(b"d", b'2', b"", b"b")],
        vec![file("d/x"), file("d")],
    ] {
        assert!(matches!(tree_of(&parts), Err(TarError::Duplicate { .. })));
    }
    assert!(matches!(tree_of(&[entry(b".", b'2', b"", b"x")]), Err(TarError::UnsafePath { .. })));
}

#[test]
fn bombs_are_refused_before_they_are_read() {
    let error = read_all(&[block(b"huge", b'0', 7 << 30, b"")]).unwrap_err();
    assert!(matches!(&error, TarError::TooLarge { member, .. } if member == "huge"), "{error}");
    let error = read_all(&[pax("size", b"18446744073709551615"), file("x")]).unwrap_err();
    assert!(matches!(error, TarError::TooLarge { .. }), "{error}");
    for kind in *b"xgLK" {
        let error = read_all(&[block(b"extension", kind, MAX_EXTENSION + 1, b"")]).unwrap_err();
        assert!(matches!(error, TarError::TooLarge { limit: MAX_EXTENSION, .. }), "{error}");
    }
    let many: Vec<_> = (0..101).map(|index| file(&format!("f{index}"))).collect();
    assert!(matches!(read_all(&many), Err(TarError::TooMany { limit: 100 })));
    // Zeros without end behind the end marker.
    let mut endless = io::repeat(0);
    assert!(matches!(read(&mut endless, &mut io::sink(), LIMITS), Err(TarError::TooLarge { .. })));
}

#[test]
fn what_readers_disagree_on_is_refused() {
    for (parts, part) in [
        (vec![entry(b"s", b'S', b"", b"")], "sparse"),
        (vec![pax("GNU.sparse.major", b"1"), file("s")], "sparse"),
        (vec![file("a"), entry(b"b", b'1', b"body", b"a")], "size"),
        (vec![entry(b"d/", b'5', b"body", b"")], "size"),
        (vec![entry(b"v", b'V', b"", b"")], "type 'V'"),
        (vec![entry(b"g", b'g', b"10 path=x\n", b"")], "global"),
    ] {
        let error = read_all(&parts).unwrap_err();
        assert!(matches!(error, TarError::Unsupported { .. }) && error.to_string().contains(part), "{error}");
    }
    assert_eq!(read_all(&[entry(b"g", b'g', b"13 comment=x\n", b""), file("x")]).unwrap().len(), 1);
}

#[test]
fn damage_and_early_ends() {
    let whole = [file("a"), file("b"), vec![0; 1024]].concat();
    for cut in [0, 1, 511, 512, 700, 1023, 1024, 1536, 2047, 2048, 2559] {
        let error = read(&mut &whole[..cut], &mut io::sink(), LIMITS).unwrap_err();
        assert!(matches!(error, TarError::Truncated { .. }), "{cut}: {error}");
    }
    let mut damaged = whole.clone();
    damaged[3] ^= 1;
    let error = read(&mut &damaged[..], &mut io::sink(), LIMITS).unwrap_err();
    assert_eq!(error.to_string(), "damaged archive at byte 0: wrong header checksum");
    assert!(matches!(read_all(&[pax("uid", b"-1"), file("x")]), Err(TarError::Corrupt { .. })));
    for number in [&b"4294967296"[..], b"4294967295", b"18446744073709551615"] {
        for key in ["uid", "gid"] {
            let refused = read_all(&[pax(key, number), file("x")]);
            assert!(matches!(refused, Err(TarError::Corrupt { .. })), "{key} {number:?}");
        }
    }
    assert!(matches!(read_all(&[pax("path", b"x")]), Err(TarError::Corrupt { .. })));
}

#[test]
fn a_full_disk_is_told_from_a_bad_archive() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let whole = file("a");
    assert!(matches!(read(&mut &whole[..], &mut Full, LIMITS), Err(TarError::Write { .. })));
}

#[test]
fn no_byte_makes_the_reader_panic() {
    let whole = [
        pax("SCHILY.xattr.user.a", b"b"),
        entry(b"././@LongLink", b'L', b"d/long\0", b""),
        file("short"),
        entry(b"l", b'2', b"", b"d"),
        entry(b"c", b'3', b"", b""),
        vec![0; 1024],
    ]
    .concat();
    let copy = Arc::new(tempfile::tempfile().unwrap());
    for at in 0..whole.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff, b'9', b'/'] {
            let mut bytes = whole.clone();
            bytes[at] = value;
            let block = at / BLOCK * BLOCK;
            // With the checksum to match, so that the fields behind it are reached.
            let mut header = tar::Header::from_byte_slice(&bytes[block..block + BLOCK]).clone();
            if !(148..156).contains(&(at - block)) {
                header.set_cksum();
            }
            bytes[block..block + BLOCK].copy_from_slice(header.as_bytes());
            if let Ok(members) = read(&mut &bytes[..], &mut io::sink(), LIMITS) {
                let _ = tree(&members, &copy, 0, "x", 0);
            }
        }
    }
}

/// A member with a path of any length.
fn long(path: &str) -> Vec<u8> {
    [entry(b"././@LongLink", b'L', path.as_bytes(), b""), block(b"x", b'0', 0, b"")].concat()
}

fn refusal<T: std::fmt::Debug>(result: Result<T, TarError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn depth() {
    assert!(tree_of(&[long(&("d/".repeat(limits::DEPTH) + "x"))]).is_ok());
    let told = refusal(tree_of(&[long(&("d/".repeat(2000) + "x"))]));
    assert!(told.ends_with("has an unsafe path: it lies below more than 256 directories"), "{told}");
}

/// Reads `count` times what `part` gives for each number, as much of it as an archive may have.
fn many(count: usize, part: impl Fn(usize) -> Vec<u8>) -> Result<Vec<Member>, TarError> {
    let mut next = (0..count).map(part);
    let mut rest = Vec::new();
    let mut archive = std::iter::from_fn(move || next.next()).fuse();
    let mut end = Some(vec![0; 2 * BLOCK]);
    let mut reader = Feed(Box::new(move |buffer: &mut [u8]| {
        if rest.is_empty() {
            rest = archive.next().or_else(|| end.take()).unwrap_or_default();
        }
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        rest.drain(..count);
        count
    }));
    read(&mut reader, &mut io::sink(), Limits { members: limits::NODES, bytes: 16 << 30 })
}

/// A reader that is a function.
struct Feed<'a>(Box<dyn FnMut(&mut [u8]) -> usize + 'a>);

impl Read for Feed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok((self.0)(buffer))
    }
}

#[test]
fn names_have_a_sum() {
    // 4,000 bytes each, in 20 parts.
    let path = |number: usize| format!("{number:08}/{}", format!("{}/", "n".repeat(199)).repeat(20));
    let told = refusal(many(20_000, |number| long(&path(number))));
    assert!(
        told.starts_with("the paths, targets and attributes up to member \"0000")
            && told.ends_with("have more than 32.0 MiB together"),
        "{told}"
    );
    let target = "t".repeat(4000);
    let link = |number: usize| {
        let name = entry(b"././@LongLink", b'K', target.as_bytes(), b"");
        [name, block(format!("{number}").as_bytes(), b'2', 0, b"")].concat()
    };
    assert!(refusal(many(20_000, link)).ends_with("have more than 32.0 MiB together"));
    let value = vec![b'v'; 60_000];
    let with_xattr = |number: usize| {
        [pax("SCHILY.xattr.user.a", &value), block(format!("{number}").as_bytes(), b'0', 0, b"")].concat()
    };
    assert!(refusal(many(2000, with_xattr)).ends_with("have more than 32.0 MiB together"));
}

#[test]
fn attributes_of_one_file_have_a_sum() {
    let value = vec![b'v'; 30_000];
    let headers = |count: usize| {
        let mut parts: Vec<_> =
            (0..count).map(|number| pax(&format!("SCHILY.xattr.user.{number}"), &value)).collect();
        parts.push(file("x"));
        read_all(&parts)
    };
    assert_eq!(headers(2).unwrap()[0].meta.xattrs.len(), 2);
    let told = refusal(headers(3));
    assert!(told.starts_with("the attributes of one file up to member "), "{told}");
    assert!(told.ends_with("have more than 64.0 KiB together"), "{told}");
}

#[test]
fn headers_before_a_member_have_a_number() {
    let headers = |count: usize| {
        let mut parts = vec![entry(b"././@LongLink", b'L', b"name", b""); count];
        parts.push(file("x"));
        read_all(&parts)
    };
    assert_eq!(headers(16).unwrap()[0].path, b"name");
    let told = refusal(headers(17));
    assert!(told.ends_with("more than 16 extension headers before a member"), "{told}");
}

/// Five thousand members of a hundred directories each are half a million directories.
#[test]
fn directories_that_are_left_out_count() {
    let path = |number: usize| format!("{number}/{}", "d/".repeat(100));
    let members = many(5000, |number| long(&path(number))).unwrap();
    let file = Arc::new(tempfile::tempfile().unwrap());
    let told = refusal(tree(&members, &file, 0, "sample", 0));
    assert!(told.starts_with("more than 200000 files and directories, with member \"19"), "{told}");
}

/// Attributes without a value take memory all the same: these had 700 MB.
#[test]
fn attributes_cost_more_than_their_bytes() {
    let with = |count: usize| {
        let xattrs = (0..count).map(|number| (format!("user.{number}").into_bytes(), Vec::new())).collect();
        let meta = Meta { xattrs, ..Meta::new(0o644) };
        Member { path: b"x".to_vec(), meta, body: Body::Directory }.names()
    };
    assert_eq!((with(0), with(1), with(3)), (1, 1 + 6 + 1024, 1 + 3 * 6 + 1024 + 2 * 128));
    assert!(50_000 * with(40) > 9 * limits::NAMES && 600 * with(4000) > 9 * limits::NAMES);
}
