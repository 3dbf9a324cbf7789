//! A machine as QEMU's arguments: pure, so that every flag can be tested.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use base64::prelude::{BASE64_STANDARD, Engine};

use super::{Accelerator, Bus, Cable, Nic, Program, settings};

/// The options that every machine has.
const MACHINE: &str = include_str!("../../qemu/machine.args");

/// A disk image's format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DiskFormat {
    /// Byte for byte.
    Raw,
    /// Copy on write.
    Qcow2,
    /// Microsoft's VHD, which QEMU knows by its first maker's name.
    Vpc,
    /// VMware's, to be read only.
    Vmdk,
}

impl DiskFormat {
    /// As QEMU calls it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vpc => "vpc",
            Self::Vmdk => "vmdk",
        }
    }
}

/// Everything about a virtual machine but where it runs.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    /// The image.
    pub(crate) disk: PathBuf,
    /// Its format.
    pub(crate) format: DiskFormat,
    /// Whether writes go to the image; else they are forgotten at the end.
    pub(crate) persist: bool,
    /// What the disk hangs on.
    pub(crate) bus: Bus,
    /// Its cards.
    pub(crate) nics: Vec<Nic>,
    /// A further card, on an Ethernet that this program makes.
    pub(crate) cable: Option<Cable>,
    /// The serial number that it shows, without a comma.
    pub(crate) serial: Option<String>,
    /// Logical sector size in bytes.
    pub(crate) sector_size: u32,
    /// Memory in MiB.
    pub(crate) memory_mib: u32,
    /// Virtual processors.
    pub(crate) cpus: u32,
    /// How instructions are run.
    pub(crate) accelerator: Accelerator,
    /// systemd credentials by name, handed over in SMBIOS strings (systemd.system-credentials(7)).
    pub(crate) credentials: Vec<(String, Vec<u8>)>,
    /// Files whose text is an SMBIOS string each: what nobody is to see in the list of processes.
    pub(crate) secrets: Vec<PathBuf>,
    /// The firmware's variables, a file of this machine's own.
    pub(crate) variables: PathBuf,
    /// Socket on which the monitor listens.
    pub(crate) monitor: PathBuf,
    /// What its clock shows at the start, as `-rtc base=` has it; nothing is the host's time.
    pub(crate) clock: Option<String>,
    /// Whether QEMU ends instead of restarting the guest.
    pub(crate) no_reboot: bool,
    /// Further arguments as they are.
    pub(crate) extra: Vec<OsString>,
}

impl Machine {
    /// QEMU's arguments when run as `program`. The first serial port is standard input and output.
    pub(crate) fn arguments(&self, program: &Program) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = Vec::new();
        let mut add = |words: &[&str]| arguments.extend(words.iter().map(OsString::from));
        settings(MACHINE).for_each(|words| add(&words));
        add(&self.accelerator.arguments(program.is_unpacked()));
        add(&["-m", &self.memory_mib.to_string(), "-smp", &self.cpus.to_string()]);
        for directory in program.data_folders() {
            add(&["-L", &directory.to_string_lossy()]);
        }
        add(&[
            "-drive",
            &format!("if=pflash,format=raw,unit=0,readonly=on,file={}", quoted(program.firmware())),
        ]);
        add(&["-drive", &format!("if=pflash,format=raw,unit=1,file={}", quoted(&self.variables))]);
        let format = self.format.name();
        let snapshot = if self.persist { "off" } else { "on" };
        let file = quoted(&self.disk);
        add(&[
            "-drive",
            &format!("if=none,id=disk,format={format},snapshot={snapshot},discard=unmap,file={file}"),
        ]);
        let block = self.sector_size;
        let block = format!("drive=disk,bootindex=0,logical_block_size={block},physical_block_size=4096");
        let cards = self.nics.iter().enumerate().flat_map(|(number, nic)| nic.arguments(number));
        let cable = self.cable.iter().flat_map(Cable::arguments);
        for argument in self.bus.arguments(&block).into_iter().chain(cards).chain(cable) {
            add(&[&argument]);
        }
        if let Some(serial) = &self.serial {
            add(&["-smbios", &format!("type=1,serial={}", comma(serial))]);
        }
        for (name, value) in &self.credentials {
            let value = BASE64_STANDARD.encode(value);
            add(&[
                "-smbios",
                &format!("type=11,value=io.systemd.credential.binary:{name}={}", comma(&value)),
            ]);
        }
        for file in &self.secrets {
            add(&["-smbios", &format!("type=11,path={}", quoted(file))]);
        }
        add(&["-qmp", &format!("unix:{},server=on,wait=off", quoted(&self.monitor))]);
        if let Some(clock) = &self.clock {
            add(&["-rtc", &format!("base={clock}")]);
        }
        if self.no_reboot {
            add(&["-no-reboot"]);
        }
        arguments.extend(self.extra.iter().cloned());
        arguments
    }
}

/// A path inside a comma-separated option: a comma is written twice.
fn quoted(path: &Path) -> String {
    comma(&path.to_string_lossy())
}

fn comma(text: &str) -> String {
    text.replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_are_thrown_away_unless_told() {
        let mut machine = Machine {
            disk: "a,b.raw".into(),
            format: DiskFormat::Raw,
            persist: false,
            bus: Bus::Virtio,
            nics: vec![Nic::DEFAULT],
            cable: None,
            serial: None,
            sector_size: 512,
            memory_mib: 2048,
            cpus: 2,
            accelerator: Accelerator::Tcg,
            credentials: vec![("x".into(), b"1".to_vec())],
            secrets: vec!["s".into()],
            variables: "v".into(),
            monitor: "m".into(),
            clock: None,
            no_reboot: false,
            extra: Vec::new(),
        };
        let program = Program::on_path("/usr/bin/qemu-system-x86_64".into(), "/f".into(), "/v".into());
        let text = |machine: &Machine| {
            let arguments = machine.arguments(&program);
            arguments.iter().map(|a| a.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
        };
        assert!(text(&machine).contains("snapshot=on,discard=unmap,file=a,,b.raw"));
        assert!(text(&machine).contains("-netdev user,id=net -device virtio-net-pci,netdev=net"));
        assert!(text(&machine).contains("credential.binary:x=MQ=="));
        assert!(text(&machine).contains("-smbios type=11,path=s"));
        // An older QEMU on PATH would end over what it does not know.
        assert!(text(&machine).contains("-cpu max,-erms,-fsrm -m 2048"), "{}", text(&machine));
        machine.persist = true;
        assert!(text(&machine).contains("snapshot=off"));
        assert!(!text(&machine).contains("serial="));
        machine.serial = Some("a".to_owned());
        assert!(text(&machine).contains("-smbios type=1,serial=a -smbios"), "{}", text(&machine));
        assert!(!text(&machine).contains("-rtc"));
        machine.clock = Some("2025-11-28T08:30:00".to_owned());
        assert!(text(&machine).contains("-rtc base=2025-11-28T08:30:00"), "{}", text(&machine));
    }
}
