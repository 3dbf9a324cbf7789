//! A node that meets one trouble after another, and then, by itself and without room in /var, the update.

use std::fs;

use super::scratch::Disk;
use super::update::{Published, cost, published, serve};
use super::{Node, trial};
use crate::http_server::{Act, Server};

/// Where the idle slot's root begins to be a bad disk, in sectors.
const BAD_FROM: u32 = 8192;

#[test]
fn each_trouble_has_its_word_and_the_next_try_works() {
    let Published { images: [first, _], repository, .. } = published();
    let server = Server::start();
    serve(&server, repository, "");
    let image = Disk::copy(first, "trouble");
    let mut node = Node::boot(&image, &["--persist"]);
    assert_eq!(node.settled(), "running");
    node.run("sudo systemctl stop keller-agent");
    // A server of its own, in place of the one that is named in the image, and at the end without a hand on it.
    let own = format!("url: http://10.0.2.2:{}\\n", server.port());
    let own = format!("{own}automatic: true\\nwindow: 00:00-23:59\\ninterval: 1min\\n");
    node.run(&format!("sudo mkdir /etc/keller && printf '{own}' | sudo tee /etc/keller/update.yaml"));
    // Where a time server can be reached: as if none had answered.
    node.run("sudo systemctl mask --runtime --now systemd-timesyncd 2>&1");
    node.run("sudo rm -f /run/systemd/timesync/synchronized");
    set_clock(&node, 0);
    let patient = node.try_run("sudo keller update check -v");
    assert!(String::from_utf8_lossy(&patient.stderr).contains("waiting for the clock to be synchronized"));
    // As if a time server had answered.
    node.run("sudo mkdir -p /run/systemd/timesync && sudo touch /run/systemd/timesync/synchronized");

    server.put("/metadata/timestamp.json", "", &[Act::Status(500)]);
    fails(&node, 1, &["metadata/timestamp.json", "tried 4 times: the server says 500"]);
    server.put(
        "/metadata/timestamp.json",
        fs::read(repository.join("metadata/timestamp.json")).unwrap(),
        &[Act::Serve],
    );

    // Linux has no time that is shorter ago than the boot.
    set_clock(&node, 86_400 - now());
    fails(&node, 2, &["looking at the clock", "it shows 1970-01-02T00:0", "and this image is of 20"]);
    set_clock(&node, 400 * 86_400);
    fails(&node, 3, &["metadata has expired on ", "`keller publish --refresh` renews it at the publisher's"]);
    // What was refused is not remembered.
    set_clock(&node, 0);
    // Whatever nobody can open, nobody locks.
    node.run(
        "sudo -u nobody sh -c 'for path in /run/keller /run/keller/* $(find /var/lib/keller 2>/dev/null); do \
         flock --nonblock $path sleep 300 >/dev/null 2>&1 & done; true'",
    );
    node.run("sudo keller update check");
    // A clock that is some days ahead is believed, and cannot go back by itself.
    set_clock(&node, 3 * 86_400);
    node.run("sudo keller update check");
    set_clock(&node, 0);
    fails(&node, 1, &["was good on this node before: wait for time synchronisation", "update reset-clock"]);
    let said = node.run("sudo keller update reset-clock");
    assert_eq!(said, "the latest time that was seen is forgotten");

    // From here on to the end, updates are all that has room: they and the journal have a reserve.
    node.run("sudo sh -c 'dd if=/dev/zero of=/var/fill bs=1M; sync' 2>&1 | grep 'No space'");
    node.run("sudo sh -c 'dd if=/dev/zero of=/boot/backup.img bs=1M; sync' 2>&1 | grep 'No space'");
    fails(&node, 1, &["the kernel image needs ", "can be had; remove other files there"]);
    node.run("sudo rm /boot/backup.img");

    let list = "lsblk --noheadings --list --paths --output NAME,PARTLABEL";
    let slot = node.run(&format!("{list} | grep _empty | head -n 1 | cut --delimiter=' ' --fields=1"));
    let sectors: u32 = node.run(&format!("sudo blockdev --getsz {slot}")).parse().unwrap();
    let table = format!("0 {BAD_FROM} linear {slot} 0\\n{BAD_FROM} {} error\\n", sectors - BAD_FROM);
    node.run(&format!(
        "printf '{table}' | sudo dmsetup create bad && sudo mount --bind /dev/mapper/bad {slot}"
    ));
    fails(&node, 2, &["the target at byte ", "Input/output error"]);
    node.run(&format!("sudo umount {slot} && sudo dmsetup remove --retry bad"));

    assert_eq!(node.run("sudo keller update pin 1.0.0"), "only 1.0.0 is taken from now on");
    assert_eq!(node.run("sudo keller update check"), "1.0.0 is the newest for this node");
    node.run("sudo keller update pin --none");

    // From here on without a hand on it.
    let before = server.seen().len();
    node.starts_over_by("sudo systemctl start keller-agent");
    let sent = server.sent(before);
    assert_eq!(node.settled(), "running");
    let status = trial::wait_for(&node, "good");
    assert_eq!((&status["version"], &status["entry"]), (&"1.0.1".into(), &"served_1.0.1.efi".into()));
    assert_eq!(status["update"]["trouble"], serde_json::Value::Null);
    assert_eq!(status["source"]["automatic"], true);
    cost(&status, &sent);
    assert_eq!(node.run("df --output=avail /var | tail -n 1").trim(), "0");
}

/// Seconds since 1970, by a clock that is right.
fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// Sets the node's clock to so many seconds after what is right.
fn set_clock(node: &Node, ahead: i64) {
    node.run(&format!("sudo date --set @{}", now() + ahead));
}

/// An update that fails for what it should, and leaves the running version as it was. It is the so many-th failure in
/// a row, of which the agent waits the longer.
fn fails(node: &Node, times: u64, expected: &[&str]) {
    let output = node.try_run("sudo keller update apply --no-reboot");
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    assert!(!output.status.success(), "{said}");
    let error = said.find("error: ").map_or(said.as_str(), |at| &said[at..]);
    println!("{error}");
    for text in expected {
        assert!(error.contains(text), "no {text:?} in: {said}");
    }
    let status: serde_json::Value =
        serde_json::from_str(&node.run("sudo keller update status --json")).unwrap();
    assert_eq!(
        (&status["version"], &status["entry"], &status["next"]),
        (&"1.0.0".into(), &"served_1.0.0.efi".into(), &"served_1.0.0.efi".into()),
        "{status}"
    );
    assert_eq!(status["update"]["trouble"]["times"], times, "{status}");
    let text = status["update"]["trouble"]["text"].as_str().unwrap();
    assert!(expected.iter().all(|part| text.contains(part)), "{text}");
}
