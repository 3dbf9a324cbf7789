//! What becomes of a cluster in its life, tried on machines as docs/cluster.md has it. Each step says how many seconds it
//! took: docs/cluster.md has what they said.

use std::thread;
use std::time::Duration;

use keller::lab::Request;
use serde_json::Value;

use super::rack::{Beginning, Rack, SETTLES, address, issue, now};
use crate::boot::keller;
use crate::judges::tool::run;

/// A key that is written after the backup.
const LATER: &str = "later";

/// The days that a member's certificate has left, as another one sees it.
fn days(rack: &Rack, on: &str, of: &str) -> Option<i64> {
    let status = rack.status(on)?;
    let members = status["members"].as_array()?.clone();
    members.iter().find(|member| member["name"] == of)?["certificate_days"].as_i64()
}

/// Gives a running member its document anew.
fn apply(rack: &Rack, name: &str) {
    rack.send(name, &rack.directory().join(format!("{name}.yaml")));
    // A lab gives its machines the documents that it began with: it says that the next boot goes by those.
    let said = rack.run(name, &format!("sudo keller node apply {name}.yaml"));
    assert!(
        said.ends_with("again, which the machine gives\napplied") && !said.contains("credential etcd"),
        "{said}"
    );
}

fn renew(rack: &Rack, name: &str) {
    run(keller().args(["cluster", "issue"]).arg(rack.directory()).args(["--member", name]));
    apply(rack, name);
}

/// Gives a running member certificates that have ended. What it has goes first: of one authority, the later ones count.
fn end(rack: &Rack, name: &str) {
    issue(&rack.directory(), &[(name, None)], None, now() - 400 * 86_400);
    let said =
        rack.run(name, "sudo sh -c 'cd /var/lib/keller/pki/etcd && rm server.pem peer.pem client.pem'");
    assert!(!said.contains("rm:"), "{said}");
    apply(rack, name);
}

/// Signs, on a machine that reaches the members, what one of them asks for.
fn sign(rack: &Rack, on: &str, name: &str) {
    rack.run(on, "mkdir -p rack1/operator");
    for (file, place) in [
        ("authority.pem", "rack1"),
        ("peer-authority.pem", "rack1"),
        ("operator/ca.pem", "rack1/operator"),
        ("operator/client.pem", "rack1/operator"),
        ("operator/cluster.json", "rack1/operator"),
    ] {
        rack.send(on, &rack.directory().join(file));
        rack.run(on, &format!("mv {} {place}/", file.trim_start_matches("operator/")));
    }
    let begun = std::time::Instant::now();
    loop {
        let said = rack.run(on, &format!("keller cluster sign rack1 --member {name}"));
        if said.contains("; signed until ") {
            return;
        }
        assert!(begun.elapsed() < SETTLES && said.contains("it asks for no certificates"), "{said}");
        thread::sleep(Duration::from_secs(5));
    }
}

fn process_of_etcd(rack: &Rack, name: &str) -> String {
    rack.run(name, "systemctl show --property MainPID --value etcd")
}

/// Takes a machine into the cluster, asked on a member.
fn add(rack: &Rack, on: &str, name: &str) {
    let said = rack.keller(on, &format!("add {name}={}", address(name)));
    assert!(said.starts_with(&format!("{name} is in the list, as a learner")), "{said}");
}

fn wipe(rack: &Rack, name: &str) {
    rack.kill(name);
    rack.request(&Request::Wipe { name: name.to_owned() });
}

/// No etcd of this machine has begun anything.
fn has_begun_nothing(rack: &Rack, name: &str) {
    assert_eq!(
        rack.run(name, "sudo ls /var/lib/etcd/rack1/member | wc -l; systemctl is-active etcd").lines().last(),
        Some("activating")
    );
    let data = rack.run(name, "sudo sh -c 'ls /var/lib/etcd/rack1/member/wal 2>/dev/null | wc -l'");
    assert_eq!(data, "0", "{name} has data");
}

#[test]
#[ignore = "long: ci/test --long"]
fn one_becomes_three_and_comes_back_from_a_backup() {
    let beginning = Beginning {
        test: "cluster-grows",
        first: &["a"],
        others: &["b", "c"],
        on: &["a", "b", "c"],
        age_days: 300,
        clock: None,
    };
    let rack = Rack::start(&beginning);
    rack.step("a is alone, and a cluster", || rack.votes("a", &["a"]));
    one_becomes_three(&rack);
    certificates_are_renewed(&rack);
    what_is_lost_comes_back(&rack);
}

/// From one member to three, one after the other.
fn one_becomes_three(rack: &Rack) {
    assert_eq!(
        rack.run("a", "head -c 1000000 /dev/urandom | sudo etcdctl --command-timeout 60s put big"),
        "OK"
    );
    rack.waits("c", "a has the data of a cluster, and this member has none");
    rack.step("b is added, joins and gets its vote", || {
        add(rack, "a", "b");
        let said = rack.keller("a", &format!("add c={}", address("c")));
        assert!(said.contains("is still without a vote, and only one member joins at a time"), "{said}");
        rack.votes("a", &["a", "b"]);
    });
    rack.step("c is added, joins and gets its vote: 1 → 3", || {
        add(rack, "a", "c");
        rack.votes("a", &["a", "b", "c"]);
    });
}

/// New certificates count at once, and an etcd that runs goes on; one whose certificates have ended waits for new ones.
fn certificates_are_renewed(rack: &Rack) {
    let before = process_of_etcd(rack, "b");
    assert!((63..=65).contains(&days(rack, "a", "b").unwrap()));
    rack.step("b's certificates are renewed, without a restart of its etcd", || {
        renew(rack, "b");
        assert_eq!(days(rack, "a", "b"), Some(364));
    });
    assert_eq!(process_of_etcd(rack, "b"), before);

    let before = process_of_etcd(rack, "c");
    rack.step("c asks for certificates, and takes what is signed, without a restart of its etcd", || {
        sign(rack, "a", "c");
        let begun = std::time::Instant::now();
        while days(rack, "a", "c") != Some(364) {
            assert!(begun.elapsed() < SETTLES, "{}", rack.run("c", "journalctl -u keller-etcd-promotion"));
            thread::sleep(Duration::from_secs(5));
        }
    });
    rack.step("c's certificates have ended: status says so", || {
        end(rack, "c");
        let said = rack.keller("a", "status");
        assert!(said.contains("! the certificate of c has expired"), "{said}");
        assert!(said.contains("docs/operations.md, \"A certificate of etcd has expired\""), "{said}");
    });
    rack.step("they are renewed, without a restart of its etcd", || {
        renew(rack, "c");
        rack.votes("a", &["a", "b", "c"]);
    });
    assert_eq!(process_of_etcd(rack, "c"), before);

    end(rack, "c");
    rack.run("c", "sudo systemctl --no-block restart etcd");
    rack.step("c's etcd starts with certificates that have ended: it waits and says so", || {
        rack.waits("c", "of this member ended at");
    });
    rack.step("they are renewed, and it goes on", || {
        renew(rack, "c");
        rack.votes("a", &["a", "b", "c"]);
    });
}

/// Two of three lose their disks, and the third begins anew with a backup.
fn what_is_lost_comes_back(rack: &Rack) {
    let said = rack.step("a backup is written", || {
        let said = rack.keller("a", "backup /var/backups/rack1.etcd");
        said.lines().last().unwrap_or_default().to_owned()
    });
    let content = said.strip_prefix("wrote /var/backups/rack1.etcd: ").unwrap_or_else(|| panic!("{said}"));
    let content = content.split(", ").next().unwrap();
    println!("         {said}");
    assert_eq!(rack.run("a", &format!("sudo etcdctl --command-timeout 60s put {LATER} x")), "OK");
    ["b", "c"].iter().for_each(|name| wipe(rack, name));
    let said = rack.step("b and c are gone with their disks, and a begins anew with it", || {
        rack.keller("a", "restore /var/backups/rack1.etcd")
    });
    assert!(said.contains(&format!("a runs with {content}")), "{said}");
    said.lines().for_each(|line| println!("         {line}"));
    assert_eq!(rack.run("a", &format!("sudo etcdctl --command-timeout 60s get {LATER}")), "");
    rack.step("b and c are started with empty disks", || rack.power_on(&["b", "c"]));
    rack.step("b is added, joins and gets its vote", || {
        add(rack, "a", "b");
        rack.votes("a", &["a", "b"]);
    });
    rack.step("c is added, joins and gets its vote", || {
        add(rack, "a", "c");
        rack.votes("a", &["a", "b", "c"]);
    });
}

#[test]
#[ignore = "long: ci/test --long"]
fn members_that_were_reinstalled_wait_and_three_become_five() {
    let year_ago = jiff::Timestamp::from_second(now() - 365 * 86_400).unwrap();
    let beginning = Beginning {
        test: "cluster-reinstalled",
        first: &["a", "b", "c"],
        others: &["d", "e"],
        on: &["a", "b", "c"],
        age_days: 0,
        clock: Some(("e", year_ago.strftime("%Y-%m-%dT%H:%M:%S").to_string())),
    };
    let rack = Rack::start(&beginning);
    let all = ["a", "b", "c"];
    rack.step("three begin a cluster", || rack.votes("a", &all));
    let write = "for i in $(seq 5); do sudo etcdctl --command-timeout 60s put k/$i $i; done";
    assert_eq!(rack.run("a", write).matches("OK").count(), 5);
    reinstalled(&rack);
    outside(&rack);
    three_become_five(&rack);
}

/// The keys that a member itself has.
fn has_keys(rack: &Rack, name: &str) {
    let own = "sudo etcdctl --command-timeout 60s get --prefix k/ --keys-only --consistency=s | grep -c k/";
    rack.until(&format!("{name} has all keys"), || (rack.run(name, own) == "5").then_some(()));
}

fn replace(rack: &Rack, lost: &str) {
    let said = rack.keller("a", &format!("replace {lost}"));
    assert!(said.contains(&format!("{lost} is in the list, as a learner")), "{said}");
}

/// A machine without data, by the document that it had.
fn reinstalled(rack: &Rack) {
    let all = ["a", "b", "c"];
    wipe(rack, "b");
    rack.step("b is installed anew by its old document", || rack.power_on(&["b"]));
    let said = rack.waits("b", "`keller cluster replace`");
    println!("         {said}");
    has_begun_nothing(rack, "b");
    rack.step("it is replaced, joins and gets its vote", || {
        replace(rack, "b");
        rack.votes("a", &all);
        has_keys(rack, "b");
    });

    all.iter().for_each(|name| rack.kill(name));
    rack.request(&Request::Wipe { name: "b".to_owned() });
    rack.step("b is installed anew once more, and the others are off", || rack.power_on(&["b"]));
    let said = rack.waits("b", "does not answer");
    println!("         {said}");
    thread::sleep(Duration::from_secs(30));
    has_begun_nothing(rack, "b");
    rack.step("a and c are started", || rack.power_on(&["a", "c"]));
    rack.waits("b", "`keller cluster replace`");
    has_begun_nothing(rack, "b");
    rack.step("b is replaced, joins and gets its vote", || {
        rack.until("a and c work", || rack.status("a").filter(|status| status["quorum"] == true));
        replace(rack, "b");
        rack.votes("a", &all);
        has_keys(rack, "b");
    });
}

/// From outside, with an operator's certificate and with a client's.
fn outside(rack: &Rack) {
    let operator = rack.directory().join("operator");
    assert_eq!(rack.run("a", "mkdir -p operator w1"), "");
    let text = std::fs::read(rack.directory().join("w1.yaml")).unwrap();
    let document = keller::node::read("w1.yaml", &text).unwrap().remove(0);
    for file in ["cluster.json", "ca.pem", "client.pem"] {
        rack.send("a", &operator.join(file));
        assert_eq!(rack.run("a", &format!("mv {file} operator/")), "");
    }
    for file in ["ca.pem", "client.pem"] {
        let path = rack.directory().join(file);
        std::fs::write(&path, &document.credentials[&format!("etcd.{file}")].0).unwrap();
        rack.send("a", &path);
        assert_eq!(rack.run("a", &format!("mv {file} w1/")), "");
    }
    let said = rack.step("status, asked by an operator who is not root", || {
        rack.run("a", "keller cluster status --operator operator")
    });
    assert!(said.starts_with("rack1: 3 of 3 members with a vote work, 1 may fail\n"), "{said}");
    said.lines().for_each(|line| println!("         {line}"));
    let said =
        rack.step("rights are asked for", || rack.run("a", "keller cluster rights --operator operator"));
    assert_eq!(said, "etcd asks for rights now\nw1 has the keys that begin with w1/");
    let w1 = |words: &str| {
        let flags =
            "--endpoints https://10.9.0.2:2379 --cacert w1/ca.pem --cert w1/client.pem --key w1/client.pem";
        rack.run("a", &format!("/usr/bin/etcdctl {flags} {words}"))
    };
    rack.step("a client writes and reads below its own name, and is refused all else", || {
        assert_eq!(w1("put w1/x 1"), "OK");
        assert_eq!(w1("get w1/x"), "w1/x\n1");
        for words in [
            "put w2/x 1",
            "get k/1",
            "member add x --learner --peer-urls=https://10.9.0.9:2380",
            "get --prefix ''",
        ] {
            let said = w1(words);
            assert!(said.contains("permission denied"), "{words}: {said}");
        }
    });
    let said = rack.keller("a", "status");
    assert!(said.starts_with("rack1: 3 of 3 members with a vote work"), "{said}");
}

/// Two more; the clock of one is a year behind.
fn three_become_five(rack: &Rack) {
    rack.step("d and e are started", || rack.power_on(&["d", "e"]));
    println!("         the clock of e shows {}", rack.run("e", "date -u +%FT%TZ"));
    for (name, all) in [("d", &["a", "b", "c", "d"][..]), ("e", &["a", "b", "c", "d", "e"])] {
        rack.waits(name, "a has the data of a cluster, and this member has none");
        rack.step(&format!("{name} is added, joins and gets its vote"), || {
            add(rack, "a", name);
            rack.votes("a", all);
        });
        has_keys(rack, name);
    }
    let clock = |status: &Value| {
        let wounds = status["wounds"].as_array().unwrap().clone();
        wounds.into_iter().find(|wound| wound["kind"] == "clock")
    };
    let wound = clock(&rack.status("a").unwrap()).expect("a clock that is behind is told of");
    assert_eq!(wound["member"], "e");
    println!("         {}", wound["text"].as_str().unwrap());
    rack.step("e's clock is set", || {
        rack.run("e", &format!("sudo date -u -s @{}", now()));
        rack.until("the clock is right", || clock(&rack.status("a")?).is_none().then_some(()));
    });
    let memory = "free -m | awk 'NR == 2 {print $3 \" MiB of \" $2 \" MiB are used\"}'; ps -C etcd,keller -o rss=,args= --sort=-rss | \
                  awk '{print int($1 / 1024) \" MiB: \" $2 \" \" $3 \" \" $4}'";
    rack.run("b", memory).lines().for_each(|line| println!("         {line}"));
}
