//! `keller inspect`: what is in an image.

mod hardware;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use super::progress::Display;
use super::{Global, streams};
use crate::base::Size;
use crate::base::terminal::one_line;
use crate::project::inspect::{self, Form, Inspection, SlotReport};

/// Arguments of `keller inspect`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code: 0 when the image is as it should be, 1 when something is wrong with it. With \
    --hardware: 0 when it has every driver and all firmware, 1 when something is lacking.\n\n\
    Examples:\n  \
    keller inspect out/node_1.0.0.raw\n  \
    keller inspect --verify --json out/node_1.0.0.qcow2\n  \
    ssh rescue lspci -nmm | keller inspect out/node_1.0.0.raw --hardware -"
)]
pub struct InspectArgs {
    /// A raw or qcow2 image, or a disk.
    pub image: PathBuf,
    /// Read every block of every root and compare it with the hash tree.
    #[arg(long)]
    pub verify: bool,
    /// List the packages of every root.
    #[arg(long)]
    pub packages: bool,
    /// Say which drivers and firmware the image has, and lacks, for the devices in FILE: what `lspci -nmm` prints on the
    /// machine, or `cat /sys/bus/*/devices/*/modalias`. `-` is standard input.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["verify", "packages"])]
    pub hardware: Option<PathBuf>,
}

/// Prints what is in the image, as a table or as JSON. Fails when something is wrong with the image.
///
/// # Errors
/// An image that cannot be read.
pub fn run(args: &InspectArgs, global: &Global) -> Result<ExitCode> {
    if let Some(devices) = &args.hardware {
        return hardware::run(&args.image, devices, global);
    }
    let display = Display::new(global.verbosity());
    let inspection = inspect::inspect(&args.image, args.verify, &display)?;
    drop(display);
    if global.json {
        streams::json(serde_json::to_string_pretty(&inspection)?)?;
    } else {
        streams::print(table(&inspection, args.packages))?;
        for remark in inspection.remarks.iter().filter(|_| !global.quiet) {
            streams::message(format_args!("note: {remark}"));
        }
        for problem in &inspection.problems {
            streams::message(format_args!("warning: {problem}"));
        }
    }
    Ok(if inspection.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The inspection as text.
fn table(inspection: &Inspection, packages: bool) -> String {
    let mut text = String::new();
    let Inspection { format, size, allocated, sector_size, disk_guid, form, .. } = inspection;
    let form = match form {
        Form::Image => "an image",
        Form::Node => "a node's disk",
        Form::State => "a disk for the state of a node that runs from memory",
    };
    let _ = writeln!(
        text,
        "Disk       {form}, {format}, {} ({} on disk), sectors of {sector_size} bytes\nGUID       {disk_guid}\n",
        Size(*size).human(),
        Size(*allocated).human()
    );
    let mut rows =
        vec![["#", "Label", "Type", "Start", "Size", "PARTUUID", "Flags"].map(str::to_owned).to_vec()];
    for part in &inspection.partitions {
        rows.push(vec![
            part.number.to_string(),
            one_line(&part.label).into_owned(),
            one_line(&part.kind).into_owned(),
            Size(part.start).to_string(),
            Size(part.size).to_string(),
            part.guid.clone(),
            part.flags.join(","),
        ]);
    }
    text.push_str(&columns(&rows));
    if let Some(node) = &inspection.node {
        let parts: Vec<String> =
            node.partitions.iter().map(|(role, size)| format!("{role} {}", Size(*size))).collect();
        let _ = writeln!(text, "\nNode       at least {}: {}", Size(node.min), parts.join(", "));
    }
    for slot in &inspection.slots {
        text.push('\n');
        text.push_str(&slot_text(slot, packages));
    }
    for entry in &inspection.entries {
        let _ = writeln!(text, "\nEntry      {} ({})", one_line(&entry.path), Size(entry.size).human());
        let boots = match (entry.slot, entry.root_hash) {
            (Some(slot), _) => format!("slot {slot}"),
            (None, Some(_)) => "a root that no slot has".to_owned(),
            (None, None) => "unknown".to_owned(),
        };
        let _ = writeln!(text, "  boots    {boots}");
        if let (Some(left), Some(done)) = (entry.tries_left, entry.tries_done) {
            let _ = writeln!(text, "  tries    {left} left, {done} made");
        }
        if entry.root_hash.is_some() {
            let (kernel, initrd) = (Size(entry.kernel_size).human(), Size(entry.initrd_size).human());
            let _ = writeln!(
                text,
                "  kernel   {}, {kernel}, initramfs {initrd}",
                one_line(&entry.kernel_version)
            );
            for (file, size) in &entry.microcode {
                let _ = writeln!(text, "  ucode    {}, {}", one_line(file), Size(*size).human());
            }
            let _ = writeln!(text, "  cmdline  {}", one_line(&entry.cmdline));
        }
    }
    text
}

fn slot_text(slot: &SlotReport, packages: bool) -> String {
    let mut text = String::new();
    let (Some(release), Some(root)) = (&slot.release, &slot.root) else {
        return format!("Slot {}     empty\n", slot.slot);
    };
    let _ = writeln!(text, "Slot {}     {} {}", slot.slot, one_line(&release.id), one_line(&release.version));
    let _ = writeln!(text, "  roothash {}", release.root_hash);
    let size = root.size.map_or_else(String::new, |size| format!(", {}", Size(size).human()));
    let verdict = match root.verified {
        Some(true) => ", every block verified",
        Some(false) => ", NOT as the root hash says",
        None => "",
    };
    let _ = writeln!(text, "  root     {}{size}{verdict}", root.filesystem);
    if let Some(verity) = &root.verity {
        let salt = if verity.salt.is_empty() { "none" } else { &verity.salt };
        let _ = writeln!(text, "  verity   {} of data, salt {salt}", Size(verity.data).human());
    }
    if let Some(name) = root.os_release.get("PRETTY_NAME") {
        let _ = writeln!(text, "  system   {}", one_line(name));
    }
    if !root.packages.is_empty() {
        let _ = writeln!(text, "  packages {}", root.packages.len());
    }
    let list = |text: &mut String, list: &BTreeMap<String, String>| {
        for (name, version) in list.iter().filter(|_| packages) {
            let _ = writeln!(text, "    {} {}", one_line(name), one_line(version));
        }
    };
    list(&mut text, &root.packages);
    for (name, container) in &root.containers {
        let _ = writeln!(text, "  container {}: packages {}", one_line(name), container.len());
        list(&mut text, container);
    }
    for name in &root.new_privileges {
        let _ = writeln!(text, "  container {name}: new privileges (its setuid programs have an effect)");
    }
    text
}

/// Cells in columns, two blanks apart.
fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..count).map(|column| width(column).unwrap_or_default()).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
