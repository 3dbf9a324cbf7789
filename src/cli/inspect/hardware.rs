//! `keller inspect --hardware`: what an image has for a machine.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;

use super::{Global, columns, streams};
use crate::base::terminal::one_line;
use crate::project::inspect::{self, Seen, State, System};

/// Prints what each version in the image has for the devices. Fails when something is lacking.
///
/// # Errors
/// A list or an image that cannot be read.
pub(super) fn run(image: &Path, devices: &Path, global: &Global) -> Result<ExitCode> {
    let systems = inspect::hardware(image, devices)?;
    if global.json {
        streams::json(serde_json::to_string_pretty(&serde_json::json!({ "systems": systems }))?)?;
    } else {
        let texts: Vec<String> = systems.iter().map(text).collect();
        streams::print(texts.join("\n"))?;
        for remark in systems.iter().flat_map(|system| &system.report.remarks).filter(|_| !global.quiet) {
            streams::tell(format_args!("note: {}", one_line(remark)));
        }
        for problem in systems.iter().flat_map(|system| &system.report.problems) {
            streams::tell(format_args!("warning: {}", one_line(problem)));
        }
    }
    let whole = systems.iter().all(|system| system.report.problems.is_empty());
    Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn text(system: &System) -> String {
    let System { slot, id, version, kernel, report } = system;
    let mut text =
        format!("Slot {slot}     {} {}, kernel {}\n\n", one_line(id), one_line(version), one_line(kernel));
    let mut rows = vec![["Device", "What", "Id", "Driver", "In", "Firmware"].map(str::to_owned).to_vec()];
    let mut others: BTreeMap<(State, &str), usize> = BTreeMap::new();
    for seen in &report.devices {
        match seen.state {
            State::Driven | State::Lacking | State::KeptOut => add(&mut rows, seen),
            state => *others.entry((state, &seen.what)).or_default() += seen.count,
        }
    }
    if rows.len() > 1 {
        text.push_str(&columns(&rows));
    }
    for (state, title) in [(State::NeedsNone, "No driver needed:"), (State::NoDriver, "No driver known:")] {
        let of_state = others.iter().filter(|((other, _), _)| *other == state);
        let names: Vec<String> =
            of_state.map(|((_, what), count)| format!("{} {count}", one_line(what))).collect();
        if !names.is_empty() {
            let _ = write!(text, "\n{title} {}\n", names.join(", "));
        }
    }
    text
}

/// A row for each driver of a device, the first with what it is.
fn add(rows: &mut Vec<Vec<String>>, seen: &Seen) {
    let place = match (&seen.place, seen.count) {
        (Some(place), _) => one_line(place).into_owned(),
        (None, 1) => format!("line {}", seen.line),
        (None, count) => format!("line {} ({count})", seen.line),
    };
    let mut first = vec![place, one_line(&seen.what).into_owned(), short(&seen.id)];
    let mut row = |driver: String, place: String, firmware: String| {
        let blank = vec![String::new(); first.len()];
        let mut cells = std::mem::replace(&mut first, blank);
        cells.extend([driver, place, firmware]);
        rows.push(cells);
    };
    for driver in &seen.drivers {
        let all = driver.firmware.len();
        let there = driver.firmware.iter().filter(|file| file.there).count();
        let nowhere = driver.firmware.iter().filter(|file| !file.there && file.package.is_none()).count();
        let firmware = match (all, nowhere) {
            (0, _) => String::new(),
            (_, 0) => format!("{there} of {all}"),
            _ => format!("{there} of {all}, {nowhere} not in Debian"),
        };
        let lacks = if driver.needs.is_empty() { "" } else { ", LACKS OTHERS" };
        row(one_line(&driver.module).into_owned(), format!("{}{lacks}", driver.place.name()), firmware);
    }
    for module in &seen.missing {
        row((*module).to_owned(), "LACKING".to_owned(), String::new());
    }
    for module in &seen.kept_out {
        row(one_line(module).into_owned(), "KEPT OUT".to_owned(), String::new());
    }
    if seen.drivers.is_empty() && seen.missing.is_empty() && seen.kept_out.is_empty() {
        row("none".to_owned(), "LACKING".to_owned(), String::new());
    }
}

/// Identifiers of the kernel can be hundreds of letters long.
fn short(id: &str) -> String {
    const MOST: usize = 48;
    let id = one_line(id);
    match id.char_indices().nth(MOST) {
        Some((at, _)) => format!("{}…", &id[..at]),
        None => id.into_owned(),
    }
}
