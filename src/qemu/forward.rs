//! Ports of the host that lead into the guest. QEMU itself takes each one while it runs already, so that two
//! machines, or another program, can never believe that they have the same: who comes second is told so.
//!
//! Source: QEMU's monitor, `hostfwd_add` (hmp-commands.hx).

use std::net::TcpListener;

use super::QemuError;

/// The name of the guest's network card on QEMU's command line.
pub(super) const NETWORK: &str = "net";

/// The first port that takes no privileges.
const UNPRIVILEGED: u16 = 1024;

/// How often another port is tried: each was free a moment before.
const TRIES: u32 = 64;

/// A TCP port of the host that leads to one of the guest; loopback only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Forward {
    /// On 127.0.0.1.
    pub(crate) host: u16,
    /// In the guest.
    pub(crate) guest: u16,
}

impl Forward {
    /// The monitor's command that makes it.
    fn command(self) -> String {
        format!("hostfwd_add {NETWORK} tcp:127.0.0.1:{}-:{}", self.host, self.guest)
    }
}

/// Makes a forward to `guest`: from `host`, or, where that is nothing, from the same number where it is free, else
/// from one that the system chooses. `monitor` runs a command of QEMU's monitor and gives its answer, which is
/// empty when it was done.
///
/// # Errors
/// `Port` when `host` is taken, or no port at all can be had.
pub(super) fn open(
    guest: u16,
    host: Option<u16>,
    mut monitor: impl FnMut(&str) -> Result<String, QemuError>,
) -> Result<Forward, QemuError> {
    let mut attempt = |host: u16| {
        let forward = Forward { host, guest };
        let answer = monitor(&forward.command())?.trim().to_owned();
        Ok(if answer.is_empty() { Ok(forward) } else { Err(QemuError::Port { host, guest, answer }) })
    };
    if let Some(host) = host {
        return attempt(host)?;
    }
    if guest >= UNPRIVILEGED
        && let Ok(forward) = attempt(guest)?
    {
        return Ok(forward);
    }
    let mut refused = attempt(free()?)?;
    for _ in 1..TRIES {
        if refused.is_ok() {
            break;
        }
        refused = attempt(free()?)?;
    }
    refused
}

/// A port that is free at this moment.
fn free() -> Result<u16, QemuError> {
    let listener = TcpListener::bind(("127.0.0.1", 0));
    listener
        .and_then(|listener| listener.local_addr())
        .map(|it| it.port())
        .map_err(QemuError::io("looking for a free port"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::{Arc, Barrier};

    use super::*;

    /// Takes ports as QEMU does, and keeps them.
    fn qemu(taken: &mut Vec<TcpListener>, command: &str) -> String {
        let rule = command.strip_prefix("hostfwd_add net tcp:127.0.0.1:").unwrap();
        let port: u16 = rule.split('-').next().unwrap().parse().unwrap();
        match TcpListener::bind(("127.0.0.1", port)) {
            Ok(listener) => {
                taken.push(listener);
                String::new()
            }
            Err(_) => format!("Could not set up host forwarding rule 'tcp:127.0.0.1:{rule}'\r\n"),
        }
    }

    #[test]
    fn machines_that_start_at_once_never_share_a_port() {
        // A number that nobody else prefers.
        let guest = free().unwrap();
        let barrier = Arc::new(Barrier::new(16));
        let threads: Vec<_> = (0..16)
            .map(|_| {
                let barrier = Arc::clone(&barrier);
                std::thread::spawn(move || {
                    let mut taken = Vec::new();
                    barrier.wait();
                    let forward = open(guest, None, |command| Ok(qemu(&mut taken, command))).unwrap();
                    barrier.wait();
                    assert_eq!(taken.len(), 1);
                    forward.host
                })
            })
            .collect();
        let hosts: BTreeSet<u16> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert_eq!(hosts.len(), 16, "{hosts:?}");
    }

    /// Opens a way to `guest` where the first `refusals` attempts are refused; gives all attempts too.
    fn attempts(guest: u16, host: Option<u16>, refusals: usize) -> (Result<Forward, QemuError>, Vec<String>) {
        let mut asked = Vec::new();
        let opened = open(guest, host, |command| {
            asked.push(command.to_owned());
            Ok(if asked.len() > refusals { String::new() } else { "Could not set up it\r\n".to_owned() })
        });
        (opened, asked)
    }

    #[test]
    fn a_port_asked_for_is_that_port_or_an_error() {
        let (opened, asked) = attempts(80, Some(8080), 0);
        assert_eq!(opened.unwrap(), Forward { host: 8080, guest: 80 });
        assert_eq!(asked, ["hostfwd_add net tcp:127.0.0.1:8080-:80"]);
        let (opened, asked) = attempts(80, Some(8080), 1);
        let error = opened.unwrap_err().to_string();
        let said =
            "port 8080 of 127.0.0.1 cannot lead to port 80 of the guest: QEMU says \"Could not set up it\"";
        assert!(error.starts_with(said), "{error}");
        assert!(error.ends_with("0 instead of it takes any that is free"), "{error}");
        assert_eq!(asked.len(), 1);
    }

    #[test]
    fn the_same_number_is_tried_first_unless_it_takes_privileges() {
        let (opened, asked) = attempts(8080, None, 0);
        assert_eq!((opened.unwrap().host, asked.len()), (8080, 1));
        let (opened, asked) = attempts(8080, None, 3);
        assert!(asked[0].ends_with(":8080-:8080") && asked.len() == 4, "{asked:?}");
        assert_ne!(opened.unwrap().host, 8080);
        let (opened, asked) = attempts(80, None, 2);
        assert!(opened.unwrap().host >= UNPRIVILEGED);
        assert!(asked.iter().all(|command| !command.contains(":80-:")), "{asked:?}");
    }

    #[test]
    fn a_machine_without_such_a_network_is_an_error() {
        let error = open(80, None, |_| Ok("unrecognized netdev id 'net'\r\n".to_owned())).unwrap_err();
        assert!(error.to_string().contains("unrecognized netdev id"), "{error}");
    }
}
