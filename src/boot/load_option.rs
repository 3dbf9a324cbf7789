//! A boot entry of the firmware, as bytes. Source: UEFI Specification 2.10, sections 3.1.3 "Load Options" and 10.3 "Device
//! Path Nodes". All numbers little-endian.

use uuid::Uuid;

use crate::base::on_disk::{FromBytes, IntoBytes, le, on_disk};

/// `LOAD_OPTION_ACTIVE`: the firmware tries it by itself.
pub const ACTIVE: u32 = 1;

/// An `EFI_LOAD_OPTION`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadOption {
    /// See [`ACTIVE`].
    pub attributes: u32,
    /// What the firmware's menu shows.
    pub description: String,
    /// How the firmware gets to the program.
    pub path: Vec<Node>,
    /// What the program is given besides.
    pub data: Vec<u8>,
}

/// A step of a device path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A partition of a GPT, which the firmware finds by its GUID on whatever disk.
    Partition {
        /// From 1.
        number: u32,
        /// In sectors.
        start: u64,
        /// In sectors.
        size: u64,
        /// PARTUUID.
        guid: Uuid,
    },
    /// A file there, with backslashes.
    File(String),
    /// Another one.
    Other {
        /// Type.
        kind: u8,
        /// Sub-type.
        sub: u8,
        /// What follows the header.
        bytes: Vec<u8>,
    },
}

on_disk! {
    /// The beginning of `EFI_LOAD_OPTION`.
    Head: 6 bytes {
        attributes: le::U32,
        file_path_list_length: le::U16,
    }
}

on_disk! {
    /// `EFI_DEVICE_PATH_PROTOCOL`.
    NodeHead: 4 bytes {
        kind: u8,
        sub: u8,
        length: le::U16,
    }
}

on_disk! {
    /// A hard drive (table 10.49), behind its header.
    HardDrive: 38 bytes {
        partition_number: le::U32,
        partition_start: le::U64,
        partition_size: le::U64,
        partition_signature: [u8; 16],
        partition_format: u8,
        signature_type: u8,
    }
}

/// Type "media device path", its sub-types "hard drive" and "file path", and the end of all of a path.
const MEDIA: u8 = 4;
const HARD_DRIVE: u8 = 1;
const FILE: u8 = 4;
const END: (u8, u8) = (0x7f, 0xff);
/// The format of a partition and the kind of its signature: GPT, GUID.
const GPT: (u8, u8) = (2, 2);

impl LoadOption {
    /// As the firmware keeps it.
    pub fn encode(&self) -> Vec<u8> {
        let mut path = Vec::new();
        for node in &self.path {
            let (kind, sub, bytes) = match node {
                Node::Partition { number, start, size, guid } => {
                    let drive = HardDrive {
                        partition_number: (*number).into(),
                        partition_start: (*start).into(),
                        partition_size: (*size).into(),
                        partition_signature: guid.to_bytes_le(),
                        partition_format: GPT.0,
                        signature_type: GPT.1,
                    };
                    (MEDIA, HARD_DRIVE, drive.as_bytes().to_vec())
                }
                Node::File(name) => (MEDIA, FILE, utf16(name)),
                Node::Other { kind, sub, bytes } => (*kind, *sub, bytes.clone()),
            };
            put(&mut path, kind, sub, &bytes);
        }
        put(&mut path, END.0, END.1, &[]);
        let length = u16::try_from(path.len()).unwrap_or(u16::MAX);
        let head = Head { attributes: self.attributes.into(), file_path_list_length: length.into() };
        [head.as_bytes(), &utf16(&self.description), &path, &self.data].concat()
    }

    /// Reads one; none for what is no load option.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (head, rest) = Head::ref_from_prefix(bytes).ok()?;
        let end = rest.chunks_exact(2).position(|unit| unit == [0, 0])?;
        let description = text(&rest[..end * 2])?;
        let rest = &rest[end * 2 + 2..];
        let (path, data) = rest.split_at_checked(head.file_path_list_length.get().into())?;
        let attributes = head.attributes.get();
        Some(Self { attributes, description, path: nodes(path)?, data: data.to_vec() })
    }

    /// The GUID of the partition that it starts from.
    pub fn partition(&self) -> Option<Uuid> {
        self.path.iter().find_map(|node| match node {
            Node::Partition { guid, .. } => Some(*guid),
            _ => None,
        })
    }
}

fn put(path: &mut Vec<u8>, kind: u8, sub: u8, bytes: &[u8]) {
    let length = u16::try_from(NodeHead::SIZE + bytes.len()).unwrap_or(u16::MAX);
    path.extend(NodeHead { kind, sub, length: length.into() }.as_bytes());
    path.extend(bytes);
}

/// The steps of one device path; what follows its end, such as a second one, is left out.
fn nodes(mut path: &[u8]) -> Option<Vec<Node>> {
    let mut nodes = Vec::new();
    loop {
        let (head, _) = NodeHead::ref_from_prefix(path).ok()?;
        let bytes = path.get(NodeHead::SIZE..usize::from(head.length.get()))?;
        if (head.kind, head.sub) == END {
            return Some(nodes);
        }
        nodes.push(node(head, bytes));
        path = &path[usize::from(head.length.get())..];
    }
}

fn node(head: &NodeHead, bytes: &[u8]) -> Node {
    let known = match (head.kind, head.sub) {
        (MEDIA, HARD_DRIVE) => HardDrive::ref_from_bytes(bytes).ok().and_then(|drive| {
            ((drive.partition_format, drive.signature_type) == GPT).then(|| Node::Partition {
                number: drive.partition_number.get(),
                start: drive.partition_start.get(),
                size: drive.partition_size.get(),
                guid: Uuid::from_bytes_le(drive.partition_signature),
            })
        }),
        (MEDIA, FILE) => bytes.strip_suffix(&[0, 0]).and_then(text).map(Node::File),
        _ => None,
    };
    known.unwrap_or_else(|| Node::Other { kind: head.kind, sub: head.sub, bytes: bytes.to_vec() })
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}

fn text(bytes: &[u8]) -> Option<String> {
    let (units, rest) = bytes.as_chunks::<2>();
    let units: Vec<u16> = units.iter().map(|unit| u16::from_le_bytes(*unit)).collect();
    String::from_utf16(&units).ok().filter(|_| rest.is_empty())
}

/// Numbers as they stand in BootOrder.
pub fn order(bytes: &[u8]) -> Vec<u16> {
    bytes.as_chunks::<2>().0.iter().map(|number| u16::from_le_bytes(*number)).collect()
}

/// BootOrder with `first` before all others.
pub fn with_first(order: &[u16], first: u16) -> Vec<u8> {
    let others = order.iter().copied().filter(|number| *number != first);
    std::iter::once(first).chain(others).flat_map(u16::to_le_bytes).collect()
}

/// Most bytes of a variable that are read: firmware keeps all of them in some ten KiB.
pub const LARGEST: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    /// As efibootmgr 18 writes it: an ESP of 512 MiB at 1 MiB, `\EFI\systemd\systemd-bootx64.efi`.
    const SAMPLE: &str = "01000000 7400 4c0069006e00750078000000 \
        04012a00 01000000 0008000000000000 0000100000000000 33221100554477668899aabbccddeeff 0202 \
        04044600 5c004500460049005c00730079007300740065006d0064005c00730079007300740065006d0064002d00\
        62006f006f0074007800360034002e006500660069000000 7fff0400";

    fn sample() -> Vec<u8> {
        hex::decode(SAMPLE.split_whitespace().collect::<String>()).unwrap()
    }

    fn option() -> LoadOption {
        let guid = "00112233-4455-6677-8899-aabbccddeeff".parse().unwrap();
        LoadOption {
            attributes: ACTIVE,
            description: "Linux".into(),
            path: vec![
                Node::Partition { number: 1, start: 2048, size: 1 << 20, guid },
                Node::File("\\EFI\\systemd\\systemd-bootx64.efi".into()),
            ],
            data: Vec::new(),
        }
    }

    #[test]
    fn bytes_are_those_of_other_tools() {
        assert_eq!(hex::encode(option().encode()), hex::encode(sample()));
        assert_eq!(LoadOption::decode(&sample()), Some(option()));
        assert_eq!(option().partition().unwrap().to_string(), "00112233-4455-6677-8899-aabbccddeeff");
    }

    #[test]
    fn what_is_not_known_stays_as_it_is() {
        let other = LoadOption {
            path: vec![Node::Other { kind: 2, sub: 1, bytes: vec![1, 2, 3] }],
            data: b"more".to_vec(),
            ..option()
        };
        assert_eq!(LoadOption::decode(&other.encode()), Some(other));
        for len in 0..sample().len() {
            assert_eq!(LoadOption::decode(&sample()[..len]), None, "{len}");
        }
    }

    #[test]
    fn the_first_comes_first_once() {
        assert_eq!(order(&with_first(&[1, 5, 2], 5)), [5, 1, 2]);
        assert_eq!(order(&with_first(&[], 7)), [7]);
        assert_eq!(order(&with_first(&[1], 7)), [7, 1]);
    }
}
