//! Certificates, judged by openssl where it is installed, and the files they lie in.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use super::etcd::{self, Kept, Member};
use super::*;
use crate::base::progress::Silent;

const NOW: i64 = 1_800_000_000;
const DAY: i64 = 86_400;

fn me() -> Owner {
    Owner { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() }
}

fn keep(directory: &Path, now: i64) -> Kept {
    etcd::keep(directory, &Member::single(), me(), now, &Silent).unwrap()
}

fn server() -> Wanted {
    Wanted { role: Role::Server, name: "a".to_owned(), hosts: vec!["localhost".into(), "::1".into()] }
}

/// What `openssl` says and whether it succeeded; nothing where it is not installed.
fn openssl(arguments: &[&str]) -> Option<(bool, String)> {
    let Ok(output) = Command::new("openssl").args(arguments).output() else {
        assert!(std::env::var_os("CI").is_none(), "openssl is not installed, and CI is set");
        println!("SKIPPED: openssl is not installed");
        return None;
    };
    let text = [output.stdout, output.stderr].concat();
    Some((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
}

#[test]
fn openssl_takes_each_for_its_use_and_no_other() {
    let directory = tempfile::tempdir().unwrap();
    keep(directory.path(), NOW);
    let path = |name: &str| directory.path().join(name).display().to_string();
    let (ca, peer_ca) = (path(etcd::CA), path(etcd::PEER_CA));
    let at = NOW.to_string();
    let verify = |ca: &str, purpose: &str, at: &str, name: &str| {
        let path = path(name);
        openssl(&["verify", "-x509_strict", "-attime", at, "-purpose", purpose, "-CAfile", ca, &path])
    };
    if verify(&ca, "sslserver", &at, etcd::SERVER).is_none() {
        return;
    }
    let year = (NOW + 364 * DAY).to_string();
    let (after, before) = ((NOW + 366 * DAY).to_string(), "86400".to_owned());
    for (ca, purpose, at, name, is_good) in [
        (&ca, "sslserver", &at, etcd::SERVER, true),
        // The gateway's way to its own port.
        (&ca, "sslclient", &at, etcd::SERVER, true),
        (&ca, "sslclient", &at, etcd::CLIENT, true),
        (&ca, "sslserver", &at, etcd::CLIENT, false),
        (&peer_ca, "sslserver", &at, etcd::PEER, true),
        (&peer_ca, "sslclient", &at, etcd::PEER, true),
        // A client is no peer, and a peer no client.
        (&peer_ca, "sslclient", &at, etcd::CLIENT, false),
        (&ca, "sslclient", &at, etcd::PEER, false),
        (&ca, "sslserver", &year, etcd::SERVER, true),
        (&ca, "sslserver", &after, etcd::SERVER, false),
        // A clock that starts in 1970.
        (&ca, "sslserver", &before, etcd::SERVER, true),
    ] {
        let (good, said) = verify(ca, purpose, at, name).unwrap();
        assert_eq!(good, is_good, "{name} {purpose} {at} by {ca}: {said}");
    }
    let text = |name: &str| openssl(&["x509", "-noout", "-text", "-in", &path(name)]).unwrap().1;
    let server = text(etcd::SERVER);
    for line in [
        "Subject: CN = default",
        "Signature Algorithm: ecdsa-with-SHA256",
        "Not Before: Jan  1 00:00:00 1970 GMT",
        "DNS:localhost, IP Address:127.0.0.1, IP Address:0:0:0:0:0:0:0:1",
        "TLS Web Server Authentication, TLS Web Client Authentication",
    ] {
        let spaced = line.replace("CN = ", "CN=");
        assert!(server.contains(line) || server.contains(&spaced), "{line}:\n{server}");
    }
    let client = text(etcd::CLIENT);
    assert!(client.contains("CN = root") || client.contains("CN=root"), "{client}");
    assert!(!client.contains("Subject Alternative Name"), "{client}");
    let authority = text(etcd::CA);
    assert!(authority.contains("CA:TRUE, pathlen:0"), "{authority}");
    assert!(authority.contains("Not After : Dec 31 23:59:59 9999 GMT"), "{authority}");
    let key = openssl(&["pkey", "-noout", "-check", "-in", &path(etcd::CLIENT)]).unwrap();
    assert!(key.0, "{}", key.1);
}

#[test]
fn files_are_for_their_owners_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pki/etcd");
    let kept = keep(&path, NOW);
    assert_eq!(kept, Kept { made: vec![etcd::SERVER, etcd::PEER, etcd::CLIENT], wants_restart: true });
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
    assert_eq!(mode(&path), 0o750);
    let mut modes: Vec<(String, u32)> = fs::read_dir(&path)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), mode(&entry.path())))
        .collect();
    modes.sort();
    let expected = [
        ("authority.pem", 0o600),
        ("ca.pem", 0o644),
        ("client.pem", 0o600),
        ("lock", 0o600),
        ("peer-authority.pem", 0o600),
        ("peer-ca.pem", 0o644),
        ("peer.pem", 0o600),
        ("server.pem", 0o600),
    ];
    assert_eq!(modes, expected.map(|(name, mode)| (name.to_owned(), mode)));
    for name in [etcd::CA, etcd::PEER_CA] {
        assert!(!fs::read_to_string(path.join(name)).unwrap().contains("PRIVATE"), "{name}");
    }
    // What somebody opened is closed again.
    fs::set_permissions(path.join(etcd::CLIENT), fs::Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    let before = fs::read(path.join(etcd::CLIENT)).unwrap();
    assert_eq!(keep(&path, NOW), Kept::default());
    assert_eq!((mode(&path.join(etcd::CLIENT)), mode(&path)), (0o600, 0o750));
    assert_eq!(fs::read(path.join(etcd::CLIENT)).unwrap(), before);
}

#[test]
fn what_is_good_stays_and_what_ends_is_renewed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let all = || {
        [
            "authority.pem",
            "peer-authority.pem",
            etcd::CA,
            etcd::PEER_CA,
            etcd::SERVER,
            etcd::PEER,
            etcd::CLIENT,
        ]
        .map(|name| fs::read(path.join(name)).unwrap())
    };
    keep(path, NOW);
    let first = all();
    for days in [0, 1, 30, 243] {
        assert_eq!(keep(path, NOW + days * DAY), Kept::default(), "{days}");
    }
    assert_eq!(all(), first);
    // A third of the year is left. The authorities stay, so that etcd goes on.
    let kept = keep(path, NOW + 244 * DAY);
    assert_eq!((kept.made.len(), kept.wants_restart), (3, false));
    let second = all();
    assert_eq!(second[..4], first[..4]);
    assert!(second.iter().zip(&first).skip(4).all(|(new, old)| new != old));
    // The same after ten years in a drawer, and after a clock that was ahead by seventy.
    assert_eq!(keep(path, NOW + 3650 * DAY).made.len(), 3);
    assert_eq!(keep(path, NOW + 25_000 * DAY).made.len(), 3);
    assert_eq!(keep(path, NOW).made.len(), 3);
    assert_eq!(keep(path, NOW), Kept::default());
    assert_eq!(all()[..4], first[..4]);
}

#[test]
fn what_is_damaged_is_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    let (path, other) = (directory.path().join("a"), directory.path().join("b"));
    keep(&path, NOW);
    keep(&other, NOW);
    let foreign = |name: &str| fs::read(other.join(name)).unwrap();
    let own = |name: &str| fs::read_to_string(path.join(name)).unwrap();
    let client = own(etcd::CLIENT);
    let (key, certificate) = client.split_once("-----BEGIN CERTIFICATE").unwrap();
    let (other_key, _) = {
        let text = String::from_utf8(foreign(etcd::CLIENT)).unwrap();
        let (key, rest) = text.split_once("-----BEGIN CERTIFICATE").unwrap();
        (key.to_owned(), rest.to_owned())
    };
    let flipped = client.replacen('M', "N", 1);
    for (why, text) in [
        ("empty", Vec::new()),
        ("cut", client.as_bytes()[..client.len() / 2].to_vec()),
        ("key alone", key.as_bytes().to_vec()),
        ("certificate alone", format!("-----BEGIN CERTIFICATE{certificate}").into_bytes()),
        ("another's key", format!("{other_key}-----BEGIN CERTIFICATE{certificate}").into_bytes()),
        ("of another authority", foreign(etcd::CLIENT)),
        ("for another use", own(etcd::SERVER).into_bytes()),
        ("no PEM", b"\0\xff".repeat(50)),
        ("too long", b"x".repeat(1 << 20)),
        ("a flipped bit", flipped.into_bytes()),
    ] {
        fs::write(path.join(etcd::CLIENT), text).unwrap();
        assert_eq!(keep(&path, NOW), Kept { made: vec![etcd::CLIENT], wants_restart: false }, "{why}");
    }
    // With the authority goes what it signed, and etcd must read the new one.
    for text in [b"".to_vec(), b"x".repeat(9), own(etcd::CLIENT).into_bytes()] {
        fs::write(path.join("authority.pem"), text).unwrap();
        let kept = keep(&path, NOW);
        assert_eq!(kept, Kept { made: vec![etcd::SERVER, etcd::CLIENT], wants_restart: true });
        assert_eq!(keep(&path, NOW), Kept::default());
    }
    fs::write(path.join(etcd::PEER_CA), "x").unwrap();
    assert_eq!(keep(&path, NOW), Kept { made: vec![], wants_restart: true });
    // An etcd that runs knows nothing of what came after the whole directory was removed.
    fs::remove_dir_all(&path).unwrap();
    let all = vec![etcd::SERVER, etcd::PEER, etcd::CLIENT];
    assert_eq!(keep(&path, NOW), Kept { made: all, wants_restart: true });
    assert_eq!(keep(&path, NOW), Kept::default());
}

/// The steps of [`etcd::keep`], each a file of its own: whichever were done, the next start brings the rest.
#[test]
fn a_power_cut_between_any_two_files_is_mended() {
    let directory = tempfile::tempdir().unwrap();
    let (whole, old) = (directory.path().join("whole"), directory.path().join("old"));
    keep(&whole, NOW);
    keep(&old, NOW);
    let order = [
        "authority.pem",
        "peer-authority.pem",
        etcd::SERVER,
        etcd::PEER,
        etcd::CLIENT,
        etcd::PEER_CA,
        etcd::CA,
    ];
    for done in 0..=order.len() {
        for has_old in [false, true] {
            let cut = directory.path().join(format!("cut-{done}-{has_old}"));
            fs::create_dir(&cut).unwrap();
            for (number, name) in order.iter().enumerate() {
                let from = if number < done { &whole } else { &old };
                if number < done || has_old {
                    fs::copy(from.join(name), cut.join(name)).unwrap();
                }
            }
            // The stand-in of a file that was being replaced.
            fs::write(cut.join(".server.pem.17.0.tmp"), "half").unwrap();
            let kept = keep(&cut, NOW);
            // An etcd that runs knows the old authority, and the run that was cut has not said so.
            let is_owed = has_old && (1..order.len()).contains(&done);
            assert!(kept.wants_restart || !is_owed, "{done}");
            assert_eq!(keep(&cut, NOW), Kept::default(), "{done} {has_old}");
            assert!(!cut.join(".server.pem.17.0.tmp").exists());
            let read = |name: &str| fs::read(cut.join(name)).unwrap();
            for (name, authority) in [
                (etcd::SERVER, "authority.pem"),
                (etcd::CLIENT, "authority.pem"),
                (etcd::PEER, "peer-authority.pem"),
            ] {
                let authority = Authority::read(&read(authority)).unwrap();
                let wanted = Wanted { role: Role::Client, name: String::new(), hosts: Vec::new() };
                let flaw = authority.flaw_of(&Pair::read(&read(name)).unwrap(), &wanted, NOW);
                assert_eq!(flaw, Some(Flaw::OtherUse), "{name} of {done} {has_old}");
            }
        }
    }
}

/// What stands where a file should be is neither followed nor waited for.
#[test]
fn links_and_fifos_are_refused_or_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("etcd");
    keep(&path, NOW);
    let victim = directory.path().join("victim");
    fs::write(&victim, "kept").unwrap();
    fs::remove_file(path.join(etcd::SERVER)).unwrap();
    symlink(&victim, path.join(etcd::SERVER)).unwrap();
    let error = etcd::keep(&path, &Member::single(), me(), NOW, &Silent).unwrap_err();
    assert!(error.to_string().contains("server.pem"), "{error}");
    assert_eq!(fs::read_to_string(&victim).unwrap(), "kept");
    fs::remove_file(path.join(etcd::SERVER)).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, path.join(etcd::SERVER), rustix::fs::Mode::RUSR).unwrap();
    assert_eq!(keep(&path, NOW).made, [etcd::SERVER]);
    // Another name of the file would keep what is in it.
    fs::hard_link(path.join(etcd::CLIENT), directory.path().join("link")).unwrap();
    keep(&path, NOW);
    assert_eq!(fs::metadata(path.join(etcd::CLIENT)).unwrap().nlink(), 1);
}

#[test]
fn an_authority_that_ends_bounds_what_it_signs() {
    let authority = Authority::make_until("x", NOW + 100 * DAY).unwrap();
    assert_eq!(authority.flaw(NOW), Some(Flaw::EndsSoon { ends: NOW + 100 * DAY }));
    assert_eq!(Authority::make_until("x", NOW + 200 * DAY).unwrap().flaw(NOW), None);
    let again = Authority::read(authority.to_pem().as_bytes()).unwrap();
    let pair = again.issue(&server(), NOW).unwrap();
    assert_eq!(authority.flaw_of(&pair, &server(), NOW), None);
    let longer = Authority::make("x").unwrap().issue(&server(), NOW).unwrap();
    assert_eq!(authority.flaw_of(&longer, &server(), NOW), Some(Flaw::OtherAuthority));
    assert!(matches!(Authority::read(pair.to_pem().as_bytes()), Err(Error::NotAnAuthority)));
}

#[test]
fn a_pair_is_for_its_name_its_hosts_and_its_role() {
    let authority = Authority::make("x").unwrap();
    let pair = Pair::read(authority.issue(&server(), NOW).unwrap().to_pem().as_bytes()).unwrap();
    assert_eq!(authority.flaw_of(&pair, &server(), NOW), None);
    let long = Wanted { hosts: vec!["0:0::1".into(), "localhost".into()], ..server() };
    assert_eq!(authority.flaw_of(&pair, &long, NOW), None);
    for other in [
        Wanted { role: Role::Client, ..server() },
        Wanted { name: "b".into(), ..server() },
        Wanted { hosts: vec!["localhost".into()], ..server() },
        Wanted { hosts: vec!["localhost".into(), "::1".into(), "10.0.0.1".into()], ..server() },
    ] {
        assert_eq!(authority.flaw_of(&pair, &other, NOW), Some(Flaw::OtherUse), "{other:?}");
    }
    for host in ["", "a b", "*", "a\n", "ü", &"a".repeat(254)] {
        let wanted = Wanted { hosts: vec![host.to_owned()], ..server() };
        assert!(matches!(authority.issue(&wanted, NOW), Err(Error::Name(_))), "{host:?}");
    }
}

#[test]
fn no_text_of_ours_shows_a_key() {
    let authority = Authority::make("x").unwrap();
    let pair = authority.issue(&server(), NOW).unwrap();
    for (pem, shown) in [(pair.to_pem(), format!("{pair:?}")), (authority.to_pem(), format!("{authority:?}"))]
    {
        let key = pem::parse(pem).unwrap().into_contents();
        // As hexadecimal, as a list of numbers.
        assert!(!shown.contains(&hex::encode(&key[40..60])), "{shown}");
        let list = format!("{:?}", &key[40..60]);
        assert!(!shown.contains(list.trim_matches(['[', ']'])), "{shown}");
    }
}
