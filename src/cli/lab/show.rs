//! Machines, cables and traffic in words.

use std::fmt::Write;

use crate::base::Size;
use crate::lab::{CableStatus, Identity, Machine, MachineStatus, Status};

/// Most pairs of addresses that a person is shown.
const PAIRS: usize = 20;

/// A machine as a lab file has it.
pub(super) fn planned(machine: &Machine) -> String {
    let identity = match &machine.identity {
        Identity::Document(file) => file.display().to_string(),
        Identity::Address(address, prefix) => format!("{address}/{prefix}"),
    };
    let Machine { name, memory, cpus, image, .. } = machine;
    format!("{name}  card {}  {identity}  {memory}  {cpus} CPU  {}", machine.mac(), image.display())
}

/// All of a lab.
pub(super) fn status(status: &Status) -> String {
    let width = status.machines.iter().map(|machine| machine.name.len()).max().unwrap_or(0).max(4);
    let mut text = format!(
        "{:width$}  {:13}  {:>7}  {:>5}  {:15}  {:17}  {:>8}  {:>8}\n",
        "NAME", "STATE", "SINCE", "SSH", "ADDRESS", "CARD", "SENT", "RECEIVED"
    );
    for machine in &status.machines {
        row(&mut text, machine, width);
    }
    for one in &status.cables {
        let _ = writeln!(text, "cable {}", cable(one));
    }
    traffic(&mut text, status);
    text.truncate(text.trim_end().len());
    text
}

fn row(text: &mut String, machine: &MachineStatus, width: usize) {
    let since = machine.seconds.map(|seconds| format!("{seconds:.0} s")).unwrap_or_default();
    let ssh = machine.ssh_port.map(|port| port.to_string()).unwrap_or_default();
    let address = machine.address.as_deref().unwrap_or("by document");
    let _ = write!(
        text,
        "{:width$}  {:13}  {since:>7}  {ssh:>5}  {address:15}  {:17}  {:>8}  {:>8}",
        machine.name, machine.state, machine.mac, machine.sent_frames, machine.received_frames
    );
    if machine.dropped_frames > 0 {
        let _ = write!(text, "  {} not taken", machine.dropped_frames);
    }
    if let Some(why) = &machine.why {
        let _ = write!(text, "  {why}");
    }
    text.push('\n');
    for (host, guest) in &machine.forwards {
        let _ = writeln!(text, "{:width$}  127.0.0.1:{host} leads to port {guest}", "");
    }
}

/// A cable that is not whole.
pub(super) fn cable(cable: &CableStatus) -> String {
    let mut words = Vec::new();
    if cable.cut {
        words.push("cut".to_owned());
    }
    if cable.delay_milliseconds > 0 {
        words.push(format!("{} ms later", cable.delay_milliseconds));
    }
    if cable.lost_of_a_million > 0 {
        words.push(format!("{}% lost", f64::from(cable.lost_of_a_million) / 10_000.0));
    }
    format!("{} – {}: {}", cable.a, cable.b, words.join(", "))
}

fn traffic(text: &mut String, status: &Status) {
    let mut pairs: Vec<_> = status.traffic.iter().collect();
    pairs.sort_by_key(|pair| std::cmp::Reverse(pair.frames));
    for pair in pairs.iter().take(PAIRS) {
        let from = pair.from_machine.as_ref().unwrap_or(&pair.from);
        let to = match pair.to.as_str() {
            "ff:ff:ff:ff:ff:ff" => "all",
            _ => pair.to_machine.as_ref().unwrap_or(&pair.to),
        };
        let _ = writeln!(text, "{from} → {to}: {} frames, {}", pair.frames, Size(pair.bytes).human());
    }
    if let Some(more) = pairs.len().checked_sub(PAIRS).filter(|more| *more > 0) {
        let _ = writeln!(text, "and {more} further pairs of addresses: --json shows them");
    }
    if status.lost_frames > 0 {
        let _ = writeln!(text, "{} frames were lost on cut and lossy cables", status.lost_frames);
    }
}
