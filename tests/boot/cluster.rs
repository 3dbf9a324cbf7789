//! Three machines become a cluster of etcd, as docs/cluster.md has it: out of one image, and of a node document for each.

mod lives;
mod rack;
mod updated;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use keller::lab::{self, Request, State};
use keller::pki::etcd;

use super::BOOT;
use rack::{Beginning, Rack, more, write};

const NAMES: [&str; 3] = ["a", "b", "c"];

#[test]
fn three_machines_form_a_cluster_that_loses_no_write() {
    let three = Rack::start(&Beginning {
        test: "cluster",
        first: &NAMES,
        others: &[],
        on: &NAMES,
        age_days: 0,
        clock: None,
    });
    three.leader(&NAMES);
    let (done, ends) = (Mutex::default(), AtomicBool::new(false));
    thread::scope(|scope| {
        let writer = scope.spawn(|| write(&three, &NAMES, &done, &ends));
        // Whatever fails here, the writer ends.
        let judged = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            more(&done, 5, &three);
            let lost = three.leader(&NAMES);
            three.request(&Request::Kill { name: lost.to_owned() });
            assert_eq!(three.lab.machine(lost).unwrap().state, State::Off);
            more(&done, 5, &three);
            three.request(&Request::Start { name: lost.to_owned() });
            three.lab.wait(&[lost.to_owned()], BOOT).unwrap_or_else(|error| panic!("{error}"));
            three.lead_to(lost);
            let leader = three.leader(&NAMES);
            // One that lives and hears nobody takes nothing on.
            three.request(&Request::Cut { a: leader.to_owned(), b: None });
            more(&done, 5, &three);
            let status = three.lab.status().unwrap();
            assert!(status.cables.iter().filter(|cable| cable.cut).count() == 2 && status.lost_frames > 0);
            three.request(&Request::Mend { a: leader.to_owned(), b: None });
            three.leader(&NAMES);
        }));
        ends.store(true, Ordering::SeqCst);
        writer.join().unwrap();
        judged.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    let done = done.into_inner().unwrap();
    NAMES.iter().for_each(|name| three.has(name, &done));

    // Each spoke to the others and to nobody else; what Linux tells a group (ARP, IPv6) beside.
    let status = three.lab.status().unwrap();
    for from in NAMES {
        for to in NAMES.into_iter().filter(|to| *to != from) {
            let is = |machine: &Option<String>, name: &str| machine.as_deref() == Some(name);
            let hit = |one: &lab::Traffic| is(&one.from_machine, from) && is(&one.to_machine, to);
            assert!(status.traffic.iter().any(|one| hit(one) && one.frames > 20), "{from}, {to}: {status:?}");
        }
    }
    let strange = super::lab::strangers(&status);
    assert!(strange.is_empty(), "{strange:?}");

    // What the manifest has for all nodes is there, but for what the document has under the same name.
    let addresses = three.run("a", "ip -brief address");
    assert!(addresses.contains("10.55.0.1/24") && addresses.contains("10.9.0.1/24"), "{addresses}");
    assert!(!addresses.contains("10.99."), "{addresses}");

    let open = three.run("a", "sudo ss -H -tln 'sport = :2379 or sport = :2380' | awk '{print $4}' | sort");
    assert_eq!(open, "10.9.0.1:2379\n10.9.0.1:2380\n127.0.0.1:2379");
    for port in [etcd::CLIENT_PORT, etcd::PEER_PORT] {
        let plain = format!(
            "timeout 20 bash -c 'exec 3<>/dev/tcp/10.9.0.2/{port}; printf \"GET /version HTTP/1.0\\r\\n\\r\\n\" >&3; cat <&3 2>/dev/null' | grep -c etcdserver; true"
        );
        assert_eq!(three.run("a", &plain), "0", "port {port} answers without TLS");
    }
    let secret = "sudo journalctl -b --no-pager | grep -c 'PRIVATE[ ]KEY'; ps -eo args | grep -c 'PRIVATE[ ]KEY'; true";
    assert_eq!(three.run("a", secret), "0\n0");
}
