//! A cluster whose nodes take a new version one after the other, and a learner that loses its power again and again: tried on
//! machines, as docs/cluster.md has it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use keller::lab::Request;
use serde_json::Value;

use super::rack::{Beginning, MANIFEST, Rack, address, more, write};
use crate::boot::scratch::Scratch;
use crate::boot::update::{run, serve};
use crate::boot::{BOOT, keller};
use crate::http_server::Server;

const NAMES: [&str; 3] = ["a", "b", "c"];

/// Two versions of the member, published where machines of a lab find them; the image of the older one.
fn published(scratch: &Path, server: &Server) -> PathBuf {
    let health = "health: {stable: 1s, deadline: 20min, etcd: true}";
    let update = format!("update: {{url: \"http://10.0.2.2:{}\", keys: keys}}", server.port());
    let manifest = MANIFEST.replace("health: {stable: 1s, deadline: 20min}", &format!("{health}\n{update}"));
    assert!(manifest.contains(&update), "the manifest of a member has another health");
    fs::write(scratch.join("node.yaml"), manifest).unwrap();
    run(keller().current_dir(scratch).args(["keys", "init", "keys"]));
    for version in ["1.0.0", "1.0.1"] {
        let arguments = ["build", "--quiet", "--version", version, "--output", ".", "node.yaml"];
        run(keller().current_dir(scratch).args(arguments));
        let arguments = ["publish", "--level", "1", "--to", "repository", "--keys", "keys"];
        run(keller().current_dir(scratch).args(arguments).arg(format!("member_{version}.raw")));
    }
    serve(server, &scratch.join("repository"), "");
    scratch.join("member_1.0.0.raw")
}

/// Has a member take the new version; gives what was said until it started over.
fn takes(rack: &Rack, name: &'static str) -> String {
    // Its own looks would come between.
    rack.run(name, "sudo systemctl stop keller-agent");
    let said = rack.run(name, "sudo keller update apply");
    // It shuts down, starts, and is good only once its member has its vote.
    rack.within(2 * BOOT, &format!("{name} runs 1.0.1"), || {
        rack.forget_connections();
        let status: Value = serde_json::from_str(&rack.run(name, "sudo keller update status --json")).ok()?;
        (status["version"] == "1.0.1" && status["state"] == "good").then_some(())
    });
    rack.lead_to(name);
    said
}

#[test]
#[ignore = "long: ci/test --long"]
fn three_members_take_a_new_version_and_no_write_is_lost() {
    let scratch = Scratch::new("cluster-published");
    let server = Server::start();
    let image = published(&scratch, &server);
    let beginning = Beginning {
        test: "cluster-updated",
        first: &NAMES,
        others: &[],
        on: &NAMES,
        age_days: 0,
        clock: None,
    };
    let rack = Rack::of(&image, &beginning);
    rack.votes("a", &NAMES);
    let (done, ends) = (Mutex::default(), AtomicBool::new(false));
    thread::scope(|scope| {
        let writer = scope.spawn(|| write(&rack, &NAMES, &done, &ends));
        let judged = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            more(&done, 3, &rack);
            one_after_the_other(&rack, &done);
        }));
        ends.store(true, Ordering::SeqCst);
        writer.join().unwrap();
        judged.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    let done = done.into_inner().unwrap();
    NAMES.iter().for_each(|name| rack.has(name, &done));
    println!("         {} keys were acknowledged meanwhile, and each member has all of them", done.len());
}

fn one_after_the_other(rack: &Rack, done: &Mutex<Vec<usize>>) {
    let led = rack.leader(&NAMES);
    let others: Vec<&'static str> = NAMES.into_iter().filter(|name| *name != led).collect();
    let (next, off) = (others[0], others[1]);
    rack.kill(off);
    let said = rack.step("the leader is not started over while another member is off", || {
        rack.run(led, "sudo systemctl stop keller-agent; sudo keller update apply")
    });
    let reason = format!("2 of 3 members with a vote work, and 2 must: without {led} the cluster would stop");
    assert!(said.contains(&reason) && said.contains(&format!("First bring back {off}")), "{said}");
    assert!(!said.contains("leads the cluster now"), "{said}");
    rack.power_on(&[off]);
    rack.lead_to(off);
    rack.votes(led, &NAMES);

    let said = rack
        .step("it is back: the leader saves its data, hands over, and runs the new version", || {
            takes(rack, led)
        });
    assert!(said.contains("saved etcd's data to /var/lib/keller/etcd-snapshots/rack1-"), "{said}");
    assert!(said.contains("leads the cluster now"), "{said}");
    rack.votes(next, &NAMES);
    more(done, 3, rack);
    let saved = rack.run(led, "sudo ls /var/lib/keller/etcd-snapshots");
    assert!(saved.starts_with("rack1-") && saved.ends_with(".etcd") && saved.lines().count() == 1, "{saved}");
    for name in others {
        rack.step("the next one runs the new version", || takes(rack, name));
        rack.votes(led, &NAMES);
        more(done, 3, rack);
    }
}

/// When a learner loses its power.
const MOMENTS: [&str; 5] = [
    "as soon as it is in the list",
    "as soon as its etcd has data",
    "as soon as it answers as a learner",
    "a second later",
    "as soon as it has its vote",
];

#[test]
#[ignore = "long: ci/test --long"]
fn a_learner_that_loses_its_power_gets_its_vote_all_the_same() {
    let beginning = Beginning {
        test: "cluster-learner",
        first: &["a", "b"],
        others: &["c"],
        on: &NAMES,
        age_days: 0,
        clock: None,
    };
    let rack = Rack::start(&beginning);
    rack.votes("a", &["a", "b"]);
    for number in 0..20 {
        let big =
            format!("head -c 1000000 /dev/urandom | sudo etcdctl --command-timeout 60s put big{number}");
        assert_eq!(rack.run("a", &big), "OK");
    }
    let (done, ends) = (Mutex::default(), AtomicBool::new(false));
    thread::scope(|scope| {
        let writer = scope.spawn(|| write(&rack, &["a", "b"], &done, &ends));
        let judged = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            more(&done, 3, &rack);
            for (number, moment) in MOMENTS.iter().enumerate() {
                killed_at(&rack, number, moment);
                more(&done, 3, &rack);
            }
        }));
        ends.store(true, Ordering::SeqCst);
        writer.join().unwrap();
        judged.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    rack.lead_to("c");
    let done = done.into_inner().unwrap();
    NAMES.iter().for_each(|name| rack.has(name, &done));
    assert_eq!(rack.run("c", "sudo etcdctl --command-timeout 60s get big19 | wc -c"), "1000007");
    println!("         {} keys were acknowledged meanwhile, and each member has all of them", done.len());
}

/// What a's cluster says of c's role.
fn role(rack: &Rack) -> Option<String> {
    let status = rack.status("a")?;
    let member = status["members"].as_array()?.iter().find(|member| member["name"] == "c")?.clone();
    (member["good"] == true).then(|| member["role"].as_str().map(str::to_owned))?
}

fn killed_at(rack: &Rack, number: usize, moment: &str) {
    rack.waits("c", "has the data of a cluster, and this member has none");
    let said = rack.keller("a", &format!("add c={}", address("c")));
    assert!(said.starts_with("c is in the list, as a learner"), "{said}");
    match number {
        0 => {}
        1 => rack.until("c has data", || {
            let count = rack.run("c", "sudo sh -c 'ls /var/lib/etcd/rack1/member/wal 2>/dev/null | wc -l'");
            (count != "0").then_some(())
        }),
        2 | 3 => rack.until("c answers", || role(rack).map(drop)),
        _ => rack.until("c votes", || role(rack).filter(|role| role == "follower").map(drop)),
    }
    if number == 3 {
        thread::sleep(Duration::from_secs(1));
    }
    let was = role(rack).unwrap_or_else(|| "no answer".to_owned());
    rack.kill("c");
    println!("         c lost its power {moment} ({was})");
    rack.step("it is started, and gets its vote", || {
        rack.power_on(&["c"]);
        rack.votes("a", &NAMES);
    });
    if number + 1 < MOMENTS.len() {
        let said = rack.keller("a", "remove c");
        assert!(said.contains("c is no member any more"), "{said}");
        rack.kill("c");
        rack.request(&Request::Wipe { name: "c".to_owned() });
        rack.power_on(&["c"]);
    }
}
