//! A network for `/init` while it fetches something: turns cards on, and gets addresses by DHCP or from the command line.
//! Afterwards the cards are as they were, for udev to name and networkd to set up. IPv4 only.
//!
//! It never gives up: a switch may start later than its machines, and so may a server. What fails is said on every
//! console, and tried again with growing pauses.

mod card;
mod dhcp;
mod packet;

use std::fs;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use self::card::{Card, Up};
use super::cards::unbound;
use super::console::Console;
use super::modules::Loader;
use super::uevents::Uevents;
use crate::base::failure::{Doing, Failure};
use crate::boot::lease::Lease;
use crate::boot::network::{self, Wanted};

/// A link is there after 2 to 5 s on copper, later on some optics: so long, a round waits for the first ...
const LINK: Duration = Duration::from_secs(12);
/// ... and so long after it for those of the others.
const OTHERS: Duration = Duration::from_secs(3);
/// Seconds between two rounds, growing up to the last.
const PAUSES: [u64; 6] = [2, 5, 10, 20, 40, 60];

const RESOLV: &str = "/etc/resolv.conf";

/// The pause after the round `number`, counted from 0.
pub(super) fn pause(number: usize) -> Duration {
    Duration::from_secs(PAUSES[number.min(PAUSES.len() - 1)])
}

/// Does `work` with a network. It is told through which card and with what address, for its messages; where it gives
/// nothing, it is called again with the next card, or in the next round.
pub(super) fn with<T>(
    console: &Console,
    loader: &mut Loader,
    words: &[String],
    work: &mut dyn FnMut(&str) -> Result<Option<T>, Failure>,
) -> Result<T, Failure> {
    let wanted = network::read(words)?;
    fs::create_dir_all("/etc").doing("making /etc")?;
    let mut up: Vec<Up> = Vec::new();
    for round in 0.. {
        find(console, loader, &wanted, &mut up);
        let linked: Vec<&Up> = up.iter().filter(|up| up.card.has_carrier()).collect();
        let done = match &wanted.fixed {
            _ if linked.is_empty() => {
                let up: Vec<Card> = up.iter().map(|up| up.card.clone()).collect();
                console.alarm(&[no_link(&wanted, &up, &card::list(), &unbound("/sys".as_ref()))]);
                None
            }
            Some(lease) => fixed(console, &linked, lease, work)?,
            None => asked(console, &linked, work)?,
        };
        if let Some(done) = done {
            return Ok(done);
        }
        console.say(&format!("the network is tried again in {} s", pause(round).as_secs()));
        thread::sleep(pause(round));
    }
    unreachable!("there is no last number")
}

/// Turns on the cards that are there, and waits for their links.
fn find(console: &Console, loader: &mut Loader, wanted: &Wanted, up: &mut Vec<Up>) {
    // A driver may have made a card anew since the last round.
    up.iter().for_each(Up::again);
    let events = Uevents::listen();
    let end = Instant::now() + LINK;
    let (mut told, mut first) = (false, None);
    loop {
        while loader.load_for_devices(console) {}
        for card in card::list() {
            let is_wanted = wanted.device.as_ref().is_none_or(|device| *device == card.name);
            if !is_wanted || up.iter().any(|up| up.card == card) {
                continue;
            }
            let shown = card.shown();
            match Up::new(card) {
                Ok(card) => up.push(card),
                Err(error) if !told => console.alarm(&[format!("turning on {shown}: {error}")]),
                Err(_) => {}
            }
        }
        told = true;
        let linked = up.iter().filter(|up| up.card.has_carrier()).count();
        if linked > 0 && first.is_none() {
            first = Some(Instant::now());
        }
        let is_late = first.is_some_and(|first| first.elapsed() > OTHERS);
        if is_late || (linked > 0 && linked == up.len()) || Instant::now() > end {
            return;
        }
        events.wait();
    }
}

/// Why no card can be used: of those that are there some are up, and devices without a driver have these aliases.
fn no_link(wanted: &Wanted, up: &[Card], there: &[Card], unbound: &[String]) -> String {
    let names = |cards: &[Card]| cards.iter().map(Card::shown).collect::<Vec<_>>().join(", ");
    if !up.is_empty() {
        return format!("no link on {}: look at the cable and at the switch's port", names(up));
    }
    if let Some(device) = wanted.device.as_ref().filter(|_| !there.is_empty()) {
        return format!("there is no network card {device}, which ip= names: there are {}", names(there));
    }
    let unknown: Vec<&str> =
        unbound.iter().map(String::as_str).filter(|alias| !alias.starts_with("usb:")).collect();
    match unknown.is_empty() {
        true => "no network card was found".to_owned(),
        false => format!(
            "no network card was found; the kernel image has no driver for {}: use the netboot or iso output",
            unknown.join(", ")
        ),
    }
}

/// With the addresses of the command line, over one card after the other.
fn fixed<T>(
    console: &Console,
    linked: &[&Up],
    lease: &Lease,
    work: &mut dyn FnMut(&str) -> Result<Option<T>, Failure>,
) -> Result<Option<T>, Failure> {
    for up in linked {
        if let Some(done) = over(console, up, lease, work)? {
            return Ok(Some(done));
        }
    }
    Ok(None)
}

/// With the addresses of DHCP servers, which are asked over all cards at once.
fn asked<T>(
    console: &Console,
    linked: &[&Up],
    work: &mut dyn FnMut(&str) -> Result<Option<T>, Failure>,
) -> Result<Option<T>, Failure> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        for up in linked {
            let (sender, stop, card) = (sender.clone(), &stop, &up.card);
            scope.spawn(move || sender.send((*up, dhcp::acquire(card, stop))));
        }
        drop(sender);
        for (up, answer) in receiver {
            let lease = match answer {
                Ok(lease) => lease,
                Err(silence) => {
                    let help = "look at the DHCP server and the switch's port, or give ip= on the kernel command line";
                    console.alarm(&[format!("{}: {silence}: {help}", up.card.shown())]);
                    continue;
                }
            };
            let done = over(console, up, &lease, work);
            if !matches!(done, Ok(None)) {
                stop.store(true, Ordering::Relaxed);
                return done;
            }
        }
        Ok(None)
    })
}

/// With this address of this card.
fn over<T>(
    console: &Console,
    up: &Up,
    lease: &Lease,
    work: &mut dyn FnMut(&str) -> Result<Option<T>, Failure>,
) -> Result<Option<T>, Failure> {
    let name = up.card.shown();
    let configured = match up.configure(lease).and_then(|configured| resolv(lease).map(|()| configured)) {
        Ok(configured) => configured,
        Err(error) => {
            console.alarm(&[format!("{name}: giving it {lease}: {error}")]);
            return Ok(None);
        }
    };
    console.say(&format!("{name}: {lease}"));
    for (route, error) in &configured.left_out {
        console.warn(&format!("{name}: the route to {}/{} is left out: {error}", route.to, route.prefix));
    }
    let done = work(&format!("{name}, {}", lease.address));
    dhcp::release(&up.card, lease);
    drop(configured);
    done
}

fn resolv(lease: &Lease) -> io::Result<()> {
    fs::write(RESOLV, resolv_conf(lease))
}

fn resolv_conf(lease: &Lease) -> String {
    let domain = lease.domain.iter().map(|domain| format!("search {domain}\n"));
    domain.chain(lease.dns.iter().map(|server| format!("nameserver {server}\n"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_asked_of_the_lease() {
        let words = ["ip=192.0.2.7:::24".to_owned(), "nameserver=192.0.2.3".to_owned()];
        let mut lease = network::read(&words).unwrap().fixed.unwrap();
        lease.domain = Some("rack.example".to_owned());
        assert_eq!(resolv_conf(&lease), "search rack.example\nnameserver 192.0.2.3\n");
        assert_eq!((pause(0), pause(99)), (Duration::from_secs(2), Duration::from_secs(60)));
    }

    #[test]
    fn no_link_names_the_cards() {
        let wanted = |device: Option<&str>| Wanted { device: device.map(str::to_owned), fixed: None };
        let card = Card { name: "eth0".to_owned(), address: [0x52, 0x54, 0, 0, 0, 1] };
        let cards = std::slice::from_ref(&card);
        let said = |device, up, there, unbound: &[&str]| {
            let unbound: Vec<String> = unbound.iter().map(|alias| (*alias).to_owned()).collect();
            no_link(&wanted(device), up, there, &unbound)
        };
        let shown = "eth0 (52:54:00:00:00:01)";
        assert_eq!(
            said(None, cards, cards, &[]),
            format!("no link on {shown}: look at the cable and at the switch's port")
        );
        assert_eq!(
            said(Some("eth7"), &[], cards, &[]),
            format!("there is no network card eth7, which ip= names: there are {shown}")
        );
        assert_eq!(said(Some("eth7"), &[], &[], &["usb:v1"]), "no network card was found");
        let text = said(None, &[], &[], &["usb:v1", "pci:v8086"]);
        assert!(text.contains("no driver for pci:v8086: use the netboot or iso output"), "{text}");
    }
}
