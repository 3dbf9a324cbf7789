//! PID 1 of the initramfs: finds the root that the command line names, verifies it, gives it its state and
//! becomes its init.
//!
//! Whatever fails is said on every console, and the machine starts over after a few seconds, so that the
//! boot loader's try counter gets on to a version that works. Ways out for an operator, each a word at the
//! boot menu: `keller.debug`, `keller.etc=factory`, `keller.state=memory`, `keller.reset=state`.

mod cards;
mod chroot;
mod console;
mod device_mapper;
mod disks;
mod download;
mod esp;
mod esp_document;
mod etc;
#[cfg(test)]
mod first_boot;
mod fw_cfg;
mod given;
mod live;
mod machine_id;
mod media;
mod modules;
mod network;
mod node;
mod partitions;
mod reserve;
mod root;
mod smbios;
mod starts;
mod state;
mod switch_root;
mod table;
mod tools;
mod trial;
mod uevents;
mod unpacked;
mod verity;
mod volume;
mod watchdog;

use std::fs;

use crate::base::failure::{Doing, Failure};
use crate::base::kernel::uptime;
use console::Console;
use disks::{BootDisk, Disk};
use modules::Loader;
use reserve::Reserve;

use crate::boot::cmdline::{Cmdline, CmdlineError, Options, State};
use crate::boot::handover::{self, Handover};
use crate::boot::variables;
use crate::disk::gpt::Entry;
use crate::disk::layout::STATE_LABEL;

/// Whether the kernel started this program as its `/init`. The process number alone would not do: the
/// builder has it too, in a container.
pub fn is_init() -> bool {
    std::process::id() == 1
        && std::env::args_os().next().is_some_and(|name| name == "/init")
        && switch_root::is_in_memory().unwrap_or(false)
}

/// Boots the node. Ends in the root's init, or in a reboot.
pub fn run() -> ! {
    let mounted = root::mount_kernel();
    let console = Console::open();
    std::panic::set_hook(Box::new(|panic| {
        Console::open().fail(&Failure::new("running /init, which has a bug", panic.to_string()), false)
    }));
    let cmdline = mounted.and_then(|()| read_cmdline());
    // A command line that cannot be read cannot ask for a shell; one that can be read in part may.
    let debug = match &cmdline {
        Ok(cmdline) => cmdline.options.debug,
        Err(_) => fs::read_to_string("/proc/cmdline").is_ok_and(|text| text.contains("keller.debug")),
    };
    let failure = match cmdline.and_then(|cmdline| boot(&console, &cmdline)) {
        Ok(init) => {
            console.say(&format!("starting {init}"));
            console.close();
            switch_root::hand_over(&init)
        }
        Err(failure) => failure,
    };
    Console::open().fail(&failure, debug)
}

fn read_cmdline() -> Result<Cmdline, Failure> {
    let text = fs::read("/proc/cmdline").doing("reading the kernel command line")?;
    // Somebody else's word may be in any encoding.
    let given = String::from_utf8_lossy(&text);
    match Cmdline::parse(&given) {
        Err(CmdlineError::NoRootHash) => live::command_line(&given)?.ok_or(CmdlineError::NoRootHash),
        other => other,
    }
    .doing("reading the kernel command line")
}

/// All steps up to the hand-over; gives the init to start.
fn boot(console: &Console, cmdline: &Cmdline) -> Result<String, Failure> {
    let options = &cmdline.options;
    console.say(&format!("keller {} starts", env!("CARGO_PKG_VERSION")));

    let mut loader = Loader::open()?;
    loader.load_needed(console)?;
    root::mount_firmware_variables();
    let live = live::disk(console, &mut loader, options)?;
    let mut disk = match &live {
        Some(name) => BootDisk::named(console, &mut loader, name, &cmdline.root_hash)?,
        None => BootDisk::wait(console, &mut loader, &cmdline.root_hash)?,
    };
    watchdog::arm(console);
    trial::begin(console);
    console.say(&format!("boot disk {}, root in partition {}", disk.name, disk.root));
    // Somebody who looks for the cause must not lose the version over it.
    if !options.debug && live.is_none() {
        starts::begin(console, &disk)?;
    }

    let (root_device, verity_device) = (disk.partition(disk.root)?, disk.partition(disk.verity)?);
    verity::open(&root_device, &verity_device, &cmdline.root_hash)?;
    root::mount_verified(options.root_fs)?;
    console.say("root verified and mounted");

    // Nothing was written so far: a disk whose root is broken stays as it is.
    let (state_device, reserve, first_boot) = match &live {
        Some(_) => beside_memory(console, &mut loader, options)?,
        None => on_disk(console, &mut disk, options)?,
    };
    let state = if state_device.is_some() { State::Disk } else { State::Memory };
    state::make_home()?;
    let (reserve_device, forgetful) = reserve.settle(console);
    let lasts = state == State::Disk;
    let laid = node::settle(&mut node::Ground { console, loader: &mut loader, disk: &disk, lasts });
    let upper = etc::mount(console, options.etc, state)?;
    laid.tell_covered(console, &upper);
    machine_id::settle(options.machine_id.as_deref())?;

    let init = switch_root::find_init(options.init.as_deref())?;
    leave_facts(&Handover {
        root_hash: cmdline.root_hash.to_hex(),
        disk: disk.device(),
        disk_guid: disk.found.table.disk_guid.to_string(),
        root: root_device,
        verity: verity_device,
        state: state_device,
        reserve: reserve_device,
        forgetful,
        first_boot,
        etc: if etc::is_kept(options.etc, state) { "persistent" } else { "ephemeral" }.to_owned(),
        live: live.is_some(),
        uptime: uptime(),
    })?;
    Ok(init)
}

/// The device of the state, the reserve, and whether the state was made in this boot.
type Kept = (Option<String>, Reserve, bool);

/// Settles the table of the boot disk, and gives the node its state and its reserve there, or in memory where that was asked for.
fn on_disk(console: &Console, disk: &mut BootDisk, options: &Options) -> Result<Kept, Failure> {
    let shipped_esp = disk.found.table.esp(variables::partition()).cloned();
    match (table::settle(console, disk, options.grow), options.state) {
        // Who asks for this may have a disk that cannot be written.
        (Err(failure), Some(State::Memory)) => console.warn(&failure.lines().join(": ")),
        (settled, _) => settled?,
    }
    let kept = match options.state {
        Some(State::Memory) => in_memory(console)?,
        Some(State::Disk) | None => partitions_of(console, disk, options)?,
    };
    if let Some(shipped) = shipped_esp {
        esp::mount_if_renamed(console, disk, &shipped);
    }
    Ok(kept)
}

/// Mounts what the disk has of a node's state and its reserve.
fn partitions_of(console: &Console, disk: &mut Disk, options: &Options) -> Result<Kept, Failure> {
    let entry = state_entry(disk)?;
    let device = disk.partition(entry.number)?;
    let standing = table::standing(&disk.found.table, &entry);
    let made = state::VOLUME.mount(console, &device, standing, options.reset)?;
    let reserve = reserve::mount(console, disk, options.reset);
    let numbers = reserve.number().into_iter().chain([entry.number]);
    table::own(disk, &numbers.collect::<Vec<_>>())?;
    Ok((Some(device), reserve, made))
}

/// The same for a node that runs from memory: on a disk that is for the state alone, or in memory as well.
fn beside_memory(console: &Console, loader: &mut Loader, options: &Options) -> Result<Kept, Failure> {
    let must = match options.state {
        Some(State::Memory) => return in_memory(console),
        Some(State::Disk) => true,
        None => false,
    };
    let Some(mut disk) = disks::with_state(console, loader, must)? else { return in_memory(console) };
    console.say(&format!("state on {}", disk.name));
    partitions_of(console, &mut disk, options)
}

fn in_memory(console: &Console) -> Result<Kept, Failure> {
    state::mount_memory(console)?;
    Ok((None, reserve::mount_memory()?, true))
}

fn state_entry(disk: &Disk) -> Result<Entry, Failure> {
    disk.found.table.entries.iter().find(|entry| entry.label == STATE_LABEL).cloned().ok_or_else(|| {
        Failure::new(
            format!("looking for the state partition on {}", disk.name),
            format!("no partition is labelled {STATE_LABEL}"),
        )
        .help("keller.state=memory boots without it")
    })
}

/// Tells the node what was found.
fn leave_facts(facts: &Handover) -> Result<(), Failure> {
    let doing = || format!("writing {}", handover::PATH);
    let text = serde_json::to_string_pretty(facts).doing(doing())?;
    let folder = std::path::Path::new(handover::PATH).parent().unwrap_or(std::path::Path::new("/run"));
    fs::create_dir_all(folder).doing(doing())?;
    fs::write(handover::PATH, text + "\n").doing(doing())
}
