//! The lab file as it is written. The reference (docs/lab.md) and the JSON Schema are made from these types and the
//! comments on their fields, so the comments speak to users.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::written::decode::At;

/// Machines on an Ethernet of their own.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[schemars(rename = "lab", deny_unknown_fields)]
pub(super) struct Raw {
    /// Form of the file: 1.
    #[expect(dead_code, reason = "looked at before all else")]
    pub lab: Option<At<u32>>,
    /// Image of the machines that name none: raw, qcow2, vhd or vmdk. Paths are relative to the lab file. `--image` comes
    /// before it.
    pub image: Option<At<String>>,
    /// Node document of the machines that name none. It may hold several documents, with `match: {serial: NAME}` each.
    pub node: Option<At<String>>,
    /// Memory of the machines that say none. Default: `640MiB`.
    pub memory: Option<At<String>>,
    /// Processors of the machines that say none. Default: 1.
    pub cpus: Option<At<u32>>,
    /// The machines, at most 64.
    #[serde(default)]
    pub machines: Vec<At<RawMachine>>,
}

/// A machine.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "machine")]
pub(super) struct RawMachine {
    /// Its name: a-z, 0-9 and `-`, beginning with a letter, at most 32. Also the serial number that it shows, by which a
    /// node document can `match` it.
    pub name: At<String>,
    /// Its image.
    pub image: Option<At<String>>,
    /// Its node document, which is taken as it is.
    pub node: Option<At<String>>,
    /// Its address on the lab's Ethernet, with prefix, where it has no document. Default: `10.77.0.N/24` for the machine
    /// number N.
    pub address: Option<At<String>>,
    /// Memory, in whole MiB, at least 512MiB.
    pub memory: Option<At<String>>,
    /// What its clock shows each time that it starts: a date such as `2025-11-28`, or a date and a time such as
    /// `2025-11-28T08:30:00`, in UTC. Default: the host's time.
    pub clock: Option<At<String>>,
    /// Virtual processors, from 1 to 255.
    pub cpus: Option<At<u32>>,
    /// What its disk hangs on: `virtio`, `nvme`, `ahci`, `usb` or `scsi`. Default: `virtio`.
    pub bus: Option<At<String>>,
    /// How large its disk is, in whole MiB. Default: as large as a node of the image needs.
    pub disk: Option<At<String>>,
    /// Ports of 127.0.0.1 that lead to the machine, as `8080:80`; `0:80` takes one that is free.
    #[serde(default)]
    pub forward: Vec<At<String>>,
}
