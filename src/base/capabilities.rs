//! Capabilities of a file: as people write them (cap_from_text(3)) and as the kernel keeps them in the
//! extended attribute `security.capability`.
//!
//! Names, numbers and `struct vfs_cap_data` of revision 2: the kernel's include/uapi/linux/capability.h.

use super::on_disk::{IntoBytes, le, on_disk};
use super::width::halves;

/// The extended attribute that holds [`Capabilities::to_bytes`].
pub const ATTRIBUTE: &[u8] = b"security.capability";

/// By number, without `cap_`.
const NAMES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];
/// VFS_CAP_REVISION_2.
const REVISION: u32 = 0x0200_0000;
/// VFS_CAP_FLAGS_EFFECTIVE.
const EFFECTIVE: u32 = 1;

/// What a program is given by its file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// A bit for each capability that it has.
    permitted: u64,
    /// A bit for each that it may keep from whoever starts it.
    inheritable: u64,
    /// Whether they count from the start; for all of them or for none.
    effective: bool,
}

/// What is wrong with a text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CapabilityError {
    /// Not of the form.
    #[error("{text:?} is not of the form `cap_net_raw+ep`, with some of `e`, `i` and `p`")]
    Form {
        /// As written.
        text: String,
    },
    /// The kernel knows none of this name.
    #[error("there is no capability {name:?}")]
    Name {
        /// As written.
        name: String,
    },
    /// The kernel has one bit for all capabilities of a file.
    #[error("`e` counts for all capabilities of a file or for none, and only with `p` or `i`")]
    Effective,
}

on_disk! {
    /// What a `struct vfs_cap_data` has for 32 capabilities.
    VfsCap: 8 bytes {
        permitted: le::U32,
        inheritable: le::U32,
    }
}

on_disk! {
    /// `struct vfs_cap_data` of revision 2 (Linux, `include/uapi/linux/capability.h`).
    VfsCapData: 20 bytes {
        magic_etc: le::U32,
        /// The low capabilities, then the high ones.
        data: [VfsCap; 2],
    }
}

impl Capabilities {
    /// Reads clauses such as `cap_net_raw,cap_net_admin+ep`, which add up.
    ///
    /// # Errors
    /// See [`CapabilityError`].
    pub fn parse<'a>(clauses: impl IntoIterator<Item = &'a str>) -> Result<Self, CapabilityError> {
        let mut read = Self::default();
        let mut effective = 0;
        for clause in clauses {
            let form = || CapabilityError::Form { text: clause.to_owned() };
            let (names, flags) = clause.split_once(['+', '=']).ok_or_else(form)?;
            if flags.is_empty() || !flags.chars().all(|flag| "eip".contains(flag)) {
                return Err(form());
            }
            let bits = names.split(',').try_fold(0, |bits, name| Ok(bits | 1 << number(name)?))?;
            for (flag, set) in
                [('p', &mut read.permitted), ('i', &mut read.inheritable), ('e', &mut effective)]
            {
                *set |= if flags.contains(flag) { bits } else { 0 };
            }
        }
        read.effective = effective != 0;
        if read.effective && effective != read.permitted | read.inheritable {
            return Err(CapabilityError::Effective);
        }
        Ok(read)
    }

    /// `struct vfs_cap_data` of revision 2.
    pub fn to_bytes(self) -> Vec<u8> {
        let magic = REVISION | if self.effective { EFFECTIVE } else { 0 };
        let (permitted, inheritable) = (halves(self.permitted), halves(self.inheritable));
        let half = |index: usize| VfsCap {
            permitted: permitted[index].into(),
            inheritable: inheritable[index].into(),
        };
        VfsCapData { magic_etc: magic.into(), data: [half(0), half(1)] }.as_bytes().to_vec()
    }
}

fn number(name: &str) -> Result<u32, CapabilityError> {
    let lower = name.to_ascii_lowercase();
    let known = lower.strip_prefix("cap_").and_then(|name| NAMES.iter().position(|known| *known == name));
    let index = known.ok_or_else(|| CapabilityError::Name { name: name.to_owned() })?;
    Ok(u32::try_from(index).expect("there are 41"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_and_words() {
        let read = Capabilities::parse(["cap_net_raw,CAP_NET_ADMIN+ep", "cap_bpf=ep"]).unwrap();
        let bytes = [1, 0, 0, 2, 0, 0x30, 0, 0, 0, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(read.to_bytes(), bytes);
        assert_eq!(Capabilities::parse(["cap_chown+i"]).unwrap().to_bytes()[8], 1);
    }

    #[test]
    fn what_is_refused() {
        let refused = |text: &str| Capabilities::parse([text]).unwrap_err().to_string();
        assert_eq!(refused("cap_net_row+ep"), "there is no capability \"cap_net_row\"");
        for text in ["cap_net_raw", "cap_net_raw+", "cap_net_raw+x", "", "cap_net_raw+ep=i"] {
            assert!(refused(text).contains("is not of the form"), "{text}");
        }
        for text in ["+ep", "all+ep", "net_raw+ep", "cap_net_raw,+ep"] {
            assert!(refused(text).starts_with("there is no capability"), "{text}");
        }
        assert!(refused("cap_net_raw+e").contains("only with"));
        let mixed = Capabilities::parse(["cap_net_raw+ep", "cap_chown+p"]);
        assert_eq!(mixed, Err(CapabilityError::Effective));
    }
}
