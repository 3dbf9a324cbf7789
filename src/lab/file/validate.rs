//! Written → meant. All findings are collected; a plan is worth something only when there are none.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use super::document::{self, Known};
use super::raw::{Raw, RawMachine};
use super::{Outside, form};
use crate::base::{Size, input};
use crate::lab::plan::{self, Identity, MEMORY, MOST_MACHINES, Machine, Plan};
use crate::qemu::Bus;
use crate::written::decode::At;
use crate::written::diagnostic::Report;
use crate::written::firsts::Firsts;
use crate::written::form::{Wrong, wrong};
use crate::written::place::Mark;

/// What a machine's entry is read by.
struct Context<'a> {
    defaults: Defaults,
    /// The addresses of all machines' cards, by name.
    cards: BTreeMap<String, String>,
    outside: &'a Outside<'a>,
}

/// What machines have that say nothing themselves.
struct Defaults {
    image: Option<PathBuf>,
    node: Option<At<String>>,
    memory: Size,
    cpus: u32,
}

/// The whole file, which begins at `mark`.
pub(super) fn plan(raw: Raw, mark: Mark, outside: &Outside<'_>, report: &mut Report) -> Plan {
    let defaults = Defaults {
        image: image(raw.image.as_ref(), outside, report),
        node: raw.node,
        memory: raw.memory.and_then(|at| report.form(&at, form::memory)).unwrap_or(MEMORY),
        cpus: cpus(raw.cpus.as_ref(), report).unwrap_or(1),
    };
    if raw.machines.is_empty() {
        report.error(mark, "the lab has no machines").help("`machines: [{name: a}, {name: b}]`");
    }
    if let Some(at) = raw.machines.get(MOST_MACHINES) {
        report.error(at.mark, format!("more than {MOST_MACHINES} machines")).help("start several labs");
    }
    let context = Context { defaults, cards: cards(&raw.machines, report), outside };
    addresses(&raw.machines, context.defaults.node.is_some(), report);
    forwards(&raw.machines, report);
    let mut warnings = Vec::new();
    let mut machines = Vec::new();
    for (at, number) in raw.machines.into_iter().take(MOST_MACHINES).zip(1..) {
        machines.extend(machine(at, number, &context, report, &mut warnings));
    }
    Plan { machines, warnings }
}

/// The addresses of all machines' cards by name, refused where two names come to the same.
fn cards(machines: &[At<RawMachine>], report: &mut Report) -> BTreeMap<String, String> {
    let (mut names, mut macs) = (Firsts::new(), Firsts::new());
    let mut cards = BTreeMap::new();
    for At { value: raw, .. } in machines {
        let At { value: name, mark } = &raw.name;
        if let Some(first) = names.note(name.clone(), *mark) {
            report
                .error(*mark, format!("the machine `{name}` stands here a second time"))
                .help("each machine has a name of its own")
                .related(first, "the first is here");
            continue;
        }
        let mac = plan::mac(name);
        if let Some(first) = macs.note(mac.clone(), *mark) {
            report
                .error(*mark, format!("this name comes to the same card {mac} as another one"))
                .help("choose another name")
                .related(first, "the other is here");
        }
        cards.insert(name.clone(), mac);
    }
    cards
}

/// No two machines may have one address. A machine that says none and `has_node`, a document for all, has what that says.
fn addresses(machines: &[At<RawMachine>], has_node: bool, report: &mut Report) {
    let mut firsts = Firsts::new();
    for (At { value: raw, .. }, number) in machines.iter().take(MOST_MACHINES).zip(1..) {
        let said = raw.address.as_ref().and_then(|at| Some((form::address(&at.value).ok()?.0, at.mark)));
        let given: Option<(Ipv4Addr, Mark)> = match &raw.address {
            Some(_) => said,
            None if has_node || raw.node.is_some() => None,
            None => Some((plan::address(number).0, raw.name.mark)),
        };
        if let Some((address, mark)) = given
            && let Some(first) = firsts.note(address, mark)
        {
            report
                .error(mark, format!("the address {address} is taken"))
                .help("each machine has an address of its own; the machine number N has 10.77.0.N by default")
                .related(first, "by this machine");
        }
    }
}

/// No port of the host may lead to two places.
fn forwards(machines: &[At<RawMachine>], report: &mut Report) {
    let mut firsts = Firsts::new();
    for at in machines.iter().flat_map(|machine| &machine.value.forward) {
        if let Ok((_, Some(host))) = form::forward(&at.value)
            && let Some(first) = firsts.note(host, at.mark)
        {
            report
                .error(at.mark, format!("port {host} of 127.0.0.1 leads elsewhere already"))
                .help("another number, or 0 for one that is free")
                .related(first, "the first is here");
        }
    }
}

fn machine(
    at: At<RawMachine>,
    number: usize,
    context: &Context<'_>,
    report: &mut Report,
    warnings: &mut Vec<String>,
) -> Option<Machine> {
    let Context { defaults, outside, .. } = context;
    let At { value: raw, mark } = at;
    let name = report.checked(raw.name.clone(), form::name);
    if raw.image.is_none() && defaults.image.is_none() {
        report
            .error(mark, format!("the machine `{}` has no image", raw.name.value))
            .help("`image:` here, above `machines` for all of them, or --image; `keller build` makes one");
    }
    let own = raw.image.as_ref().and_then(|at| report.form(at, |text| exists(outside.path(text))));
    let image = if raw.image.is_some() { own } else { defaults.image.clone() };
    let identity = identity(&raw, number, context, report, warnings);
    let memory = raw.memory.map_or(Some(defaults.memory), |at| report.form(&at, form::memory));
    let processors = raw.cpus.as_ref().map_or(Some(defaults.cpus), |at| cpus(Some(at), report));
    let bus = raw.bus.map_or(Some(Bus::Virtio), |at| report.form(&at, form::bus));
    let clock = raw.clock.map(|at| report.form(&at, form::clock));
    let disk = raw.disk.and_then(|at| report.form(&at, form::disk));
    let forwards = raw.forward.iter().filter_map(|at| report.form(at, form::forward)).collect();
    Some(Machine {
        name: name?,
        image: image?,
        identity: identity?,
        memory: memory?,
        cpus: processors?,
        bus: bus?,
        clock: clock.flatten(),
        disk,
        forwards,
    })
}

fn identity(
    raw: &RawMachine,
    number: usize,
    context: &Context<'_>,
    report: &mut Report,
    warnings: &mut Vec<String>,
) -> Option<Identity> {
    if let (Some(address), Some(node)) = (&raw.address, &raw.node) {
        report
            .error(address.mark, "a machine with a node document has the addresses that the document says")
            .help("leave out `address` and write it into the document, or leave out `node`")
            .related(node.mark, "the document is here");
        return None;
    }
    let node = raw.node.as_ref().or(context.defaults.node.as_ref().filter(|_| raw.address.is_none()));
    let Some(at) = node else {
        let Some(address) = &raw.address else {
            let (address, prefix) = plan::address(number);
            return Some(Identity::Address(address, prefix));
        };
        let (address, prefix) = report.form(address, form::address)?;
        return Some(Identity::Address(address, prefix));
    };
    let known = Known { name: &raw.name.value, cards: &context.cards };
    let file = context.outside.path(&at.value);
    let warning = report.form(at, |_| document::check(&file, &known))?;
    warnings.extend(warning);
    Some(Identity::Document(file))
}

/// The image of machines that name none: the flag's, else the file's.
fn image(at: Option<&At<String>>, outside: &Outside<'_>, report: &mut Report) -> Option<PathBuf> {
    if let Some(flag) = outside.image {
        return Some(flag.to_owned());
    }
    report.form(at?, |text| exists(outside.path(text)))
}

/// A file that can be an image.
pub(super) fn exists(path: PathBuf) -> Result<PathBuf, Wrong> {
    match input::open_disk(&path) {
        Ok(_) => Ok(path),
        Err(error) => wrong(
            format!("cannot be opened: {error}"),
            format!("`keller build` makes an image; this one would be {}", shown(&path)),
        ),
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn cpus(at: Option<&At<u32>>, report: &mut Report) -> Option<u32> {
    let at = at?;
    if (1..=255).contains(&at.value) {
        return Some(at.value);
    }
    report.error(at.mark, format!("{} is not a number of processors", at.value)).help("from 1 to 255");
    None
}
