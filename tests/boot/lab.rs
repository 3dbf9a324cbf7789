//! Two machines on an Ethernet of their own: they hear each other until their cable is cut, and again once it is mended,
//! and one that lost its power comes back with its disk.

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use keller::base::progress::Silent;
use keller::lab::{Client, Request, State, Status, Traffic};
use keller::project::lab::{Up, plan};
use keller::project::{Inputs, Lab};

use super::scratch::Scratch;
use super::turn::Turn;
use super::{BOOT, pair};

/// What a machine prints.
fn run(lab: &Client, name: &str, command: &str) -> Output {
    let mut ssh = lab.ssh(name, &[command.to_owned()]).unwrap_or_else(|error| panic!("{error}"));
    ssh.stdin(std::process::Stdio::null()).output().expect("ssh is installed")
}

/// Whether the ssh of `address` greets the machine `from`, over the lab's Ethernet: no program of the image is needed.
fn hears(lab: &Client, from: &str, address: &str, seconds: u32) -> bool {
    let command = format!("timeout {seconds} bash -c 'head -c 4 < /dev/tcp/{address}/22'");
    run(lab, from, &command).stdout == b"SSH-"
}

/// Starts the machines of the lab file `file`; what they leave is in `lab` of `scratch`.
pub fn start(scratch: &Path, file: &Path) -> Up {
    let lab = Lab {
        directory: scratch.join("lab"),
        plan: plan(file, None).unwrap(),
        keep: false,
        fresh: false,
        no_kvm: false,
        ssh_key: None,
        inputs: Inputs::default(),
    };
    lab.prepare(&Silent).unwrap().start().unwrap()
}

fn ask(lab: &Client, request: &Request) {
    lab.ask(request).unwrap_or_else(|error| panic!("{request:?}: {error}"));
}

#[test]
#[ignore = "long: ci/test --long"]
fn machines_hear_each_other_until_they_are_cut_off() {
    let image = pair::newer();
    let _turn = Turn::several(2);
    let scratch = Scratch::new("lab");
    let text =
        format!("lab: 1\nimage: {}\nmemory: 512MiB\nmachines: [{{name: a}}, {{name: b}}]\n", image.display());
    let file = scratch.join("lab.yaml");
    std::fs::write(&file, text).unwrap();
    let up = start(&scratch, &file);
    let lab = up.running.client();
    lab.wait(&[], BOOT).unwrap_or_else(|error| panic!("{error}"));
    assert!(hears(&lab, "a", "10.77.0.2", 60), "{:?}", lab.status());
    assert!(hears(&lab, "b", "10.77.0.1", 60), "{:?}", lab.status());
    let name = run(&lab, "b", "hostname; sudo cat /sys/class/dmi/id/product_serial").stdout;
    assert_eq!(String::from_utf8_lossy(&name), "b\nb\n");

    let (a, b) = ("a".to_owned(), "b".to_owned());
    ask(&lab, &Request::Cut { a: a.clone(), b: Some(b.clone()) });
    assert!(!hears(&lab, "a", "10.77.0.2", 5));
    let status = lab.status().unwrap();
    assert!(status.cables[0].cut && status.lost_frames > 0, "{status:?}");
    ask(&lab, &Request::Mend { a, b: Some(b.clone()) });
    assert!(hears(&lab, "a", "10.77.0.2", 60));
    // Each to the other, and to all; what Linux tells a group (IPv6) beside.
    let status = lab.status().unwrap();
    let sent = |from: &str, to: &str| {
        let is = |machine: &Option<String>, name: &str| machine.as_deref() == Some(name);
        status
            .traffic
            .iter()
            .any(|one| is(&one.from_machine, from) && is(&one.to_machine, to) && one.frames > 5)
    };
    assert!(sent("a", "b") && sent("b", "a"), "{status:?}");
    let strange = strangers(&status);
    assert!(strange.is_empty(), "{strange:?}");

    run(&lab, "b", "echo kept > kept && sync");
    let before = lab.machine("b").unwrap();
    ask(&lab, &Request::Kill { name: b.clone() });
    assert_eq!(lab.machine("b").unwrap().state, State::Off);
    assert!(!hears(&lab, "a", "10.77.0.2", 3));
    ask(&lab, &Request::Start { name: b.clone() });
    lab.wait(&[b], BOOT).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(lab.machine("b").unwrap().ssh_port, before.ssh_port);
    assert_eq!(run(&lab, "b", "cat kept").stdout, b"kept\n");
    assert!(hears(&lab, "a", "10.77.0.2", 60));

    ask(&lab, &Request::Stop {});
    while up.running.next(Duration::from_secs(60)).is_ok() {}
    assert!(!scratch.join("lab/a/disk.qcow2").exists());
}

/// What somebody who is no machine of the lab has sent or was sent, but for what is for all or for a group.
pub fn strangers(status: &Status) -> Vec<&Traffic> {
    let is_group = |mac: &str| u8::from_str_radix(&mac[..2], 16).is_ok_and(|first| first & 1 != 0);
    let is_strange =
        |one: &&Traffic| one.from_machine.is_none() || (one.to_machine.is_none() && !is_group(&one.to));
    status.traffic.iter().filter(is_strange).collect()
}
