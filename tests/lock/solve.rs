//! Which packages are taken, and how a person learns why none can be.

use std::collections::BTreeMap;

use keller::lock::diff::diff;
use keller::lock::resolve::{ResolveError, Update};
use keller::manifest::{Container, ContainerBuild, ContainerImage, Manifest};
use sequoia_openpgp::types::HashAlgorithm;

use super::{ROOT, SECURITY_ROOT, World, chain, manifest, names, places, recipe, versions};
use crate::repository::{DATE, DAY, Release, archive, archives, key, sign};

const SMALL: &str = "\
Package: app
Version: 1.0-1
Depends: lib (>= 1.0), awk | mawk, cfg:any

Package: lib
Version: 1.0-1
Pre-Depends: libc

Package: libc
Version: 2.41-1

Package: mawk
Version: 1.3-1
Provides: awk
Priority: required

Package: gawk
Version: 5.2-1
Provides: awk

Package: cfg
Version: 3
Breaks: lib (<< 1.0)

Package: base
Version: 13
Essential: yes
";

fn resolved(world: &World, packages: &[&str], assume: &[&str]) -> Vec<String> {
    versions(&world.resolve(&manifest(packages, assume)).unwrap())
}

fn refusal(world: &World, manifest: &Manifest) -> String {
    chain(&world.resolve(manifest).unwrap_err())
}

#[test]
fn takes_what_is_needed_and_says_for_whom() {
    let world = World::new(SMALL, "");
    let lock = world.resolve(&manifest(&["app", "libc"], &[])).unwrap();
    assert_eq!(versions(&lock), ["app 1.0-1", "cfg 3", "lib 1.0-1", "libc 2.41-1", "mawk 1.3-1"]);
    assert_eq!(lock.packages["app"].wanted_by, ["manifest"]);
    assert_eq!(lock.packages["libc"].wanted_by, ["manifest", "lib"]);
    assert_eq!(lock.packages["mawk"].wanted_by, ["app"]);
    assert_eq!(lock.packages["app"].archive, "debian");
    assert_eq!(lock.packages["app"].path, "pool/app_1.0-1_amd64.deb");
    assert_eq!(lock.epoch, DATE + DAY);
    assert_eq!(lock.provenance.judged_at, DATE + 2 * DAY);
    assert_eq!(
        lock.provenance.releases.keys().collect::<Vec<_>>(),
        ["debian trixie", "security trixie-security"]
    );
    assert_eq!(lock.provenance.releases["debian trixie"].signed_by, [world.key.fingerprint().to_hex()]);
}

#[test]
fn an_alternative_that_is_there_anyhow_will_do() {
    let world = World::new(SMALL, "");
    assert!(resolved(&world, &["app", "gawk"], &[]).contains(&"gawk 5.2-1".to_owned()));
    assert!(!resolved(&world, &["app", "gawk"], &[]).contains(&"mawk 1.3-1".to_owned()));
    // Also when it is needed only further down, by a package that comes later.
    let world = World::new(
        &format!(
            "{SMALL}\nPackage: zoo\nVersion: 1\nDepends: deep\n\nPackage: deep\nVersion: 1\nDepends: gawk\n"
        ),
        "",
    );
    assert_eq!(
        resolved(&world, &["app", "zoo"], &[]),
        ["app 1.0-1", "cfg 3", "deep 1", "gawk 5.2-1", "lib 1.0-1", "libc 2.41-1", "zoo 1"]
    );
}

#[test]
fn a_real_package_comes_before_a_provider() {
    let world = World::new(&format!("{SMALL}\nPackage: awk\nVersion: 9\nPriority: optional\n"), "");
    assert!(resolved(&world, &["app"], &[]).contains(&"awk 9".to_owned()));
}

#[test]
fn what_is_assumed_is_left_out_with_what_it_provides() {
    let world = World::new(SMALL, "");
    assert_eq!(resolved(&world, &["app"], &["mawk", "lib"]), ["app 1.0-1", "cfg 3"]);
    let message = refusal(&world, &manifest(&["app", "lib"], &["lib"]));
    assert!(message.contains("node.yaml:2:5: lib is asked for, but stands under `assume`"), "{message}");
}

#[test]
fn the_highest_version_wins_wherever_it_is() {
    let world = World::new(SMALL, "Package: lib\nVersion: 1.0-1+deb13u1\nDepends: libc (>= 2.41-1)\n");
    let lock = world.resolve(&manifest(&["app"], &[])).unwrap();
    assert_eq!(lock.packages["lib"].version, "1.0-1+deb13u1");
    assert_eq!(lock.packages["lib"].archive, "security");
    let pinned = world.resolve(&manifest(&["app", "lib=1.0-1"], &[])).unwrap();
    assert_eq!(
        (pinned.packages["lib"].version.as_str(), pinned.packages["lib"].archive.as_str()),
        ("1.0-1", "debian")
    );
}

#[test]
fn conflicts_and_breaks_are_avoided_where_possible() {
    let packages = "\
Package: web
Version: 1
Depends: server

Package: fast
Version: 1
Provides: server
Priority: important
Conflicts: old

Package: slow
Version: 1
Provides: server

Package: old
Version: 1

Package: exim
Version: 1
Provides: mta (= 4)
Conflicts: mta

Package: postfix
Version: 1
Provides: mta
Conflicts: mta

Package: picky
Version: 1
Depends: mta (>= 4)
";
    let world = World::new(packages, "");
    assert_eq!(resolved(&world, &["web"], &[]), ["fast 1", "web 1"]);
    assert_eq!(resolved(&world, &["web", "old"], &[]), ["old 1", "slow 1", "web 1"]);
    assert_eq!(resolved(&world, &["picky"], &[]), ["exim 1", "picky 1"]);
    // Both by name: a conflict with a virtual name hits its providers all the same.
    let message = refusal(&world, &manifest(&["exim", "postfix"], &[]));
    assert!(message.contains("exim 1 conflicts with mta"), "{message}");
    let message = refusal(&world, &manifest(&["mta"], &[]));
    assert!(
        message.contains("mta is a virtual package; name one that provides it: exim, postfix"),
        "{message}"
    );
}

#[test]
fn the_chain_to_a_missing_version_is_told() {
    let world = World::new(
        "Package: app\nVersion: 1\nDepends: mid\n\nPackage: mid\nVersion: 2\nDepends: lib (>= 3) | gone\n\n\
         Package: lib\nVersion: 2\n\nPackage: nginx\nVersion: 1\n",
        "",
    );
    let message = refusal(&world, &manifest(&["app"], &[]));
    assert_eq!(
        message,
        "no set of packages meets what is asked for:\n  \
         node.yaml:1:5: app is asked for\n    \
         → app 1 needs mid\n    \
         → mid 2 needs lib (>= 3) | gone\n    \
         → of lib there is only 2\n    \
         → no archive has a package gone, nor one that provides it"
    );
    let message = refusal(&world, &manifest(&["ngnix", "lib=9"], &[]));
    assert_eq!(
        message,
        "node.yaml:2:5: there is no lib of version 9, but 2\n\
         node.yaml:1:5: no archive has a package ngnix; did you mean nginx?"
    );
}

#[test]
fn the_chains_to_a_conflict_are_told() {
    let world = World::new(
        "Package: a\nVersion: 1\nDepends: b\n\nPackage: b\nVersion: 1\nBreaks: d (<< 2)\n\n\
         Package: c\nVersion: 1\nDepends: d\n\nPackage: d\nVersion: 1\n",
        "",
    );
    assert_eq!(
        refusal(&world, &manifest(&["a", "c"], &[])),
        "no set of packages meets what is asked for:\n  \
         node.yaml:1:5: a is asked for\n    \
         → a 1 needs b\n    \
         → b 1 conflicts with d (<< 2)\n  \
         node.yaml:2:5: c is asked for\n    \
         → c 1 needs d\n    \
         → d 1 is what it conflicts with"
    );
}

#[test]
fn two_versions_of_one_package_are_never_taken() {
    let world = World::new(
        "Package: a\nVersion: 1\nDepends: x (= 1)\n\nPackage: b\nVersion: 1\nDepends: x (= 2)\n\n\
         Package: x\nVersion: 1\n\nPackage: x\nVersion: 2\n",
        "",
    );
    let message = refusal(&world, &manifest(&["a", "b"], &[]));
    assert!(message.contains("two versions of a package cannot be together"), "{message}");
    assert!(message.contains("a 1 needs x (= 1)") && message.contains("b 1 needs x (= 2)"), "{message}");
}

#[test]
fn a_nonsensical_relation_rules_the_package_out() {
    let world = World::new("Package: a\nVersion: 2\nDepends: b (~ 1)\n\nPackage: a\nVersion: 1\n", "");
    assert_eq!(resolved(&world, &["a"], &[]), ["a 1"]);
    let message = refusal(&world, &manifest(&["a=2"], &[]));
    assert!(message.contains("a 2 cannot be used") && message.contains("b (~ 1)"), "{message}");
}

#[test]
fn versions_stay_unless_they_are_to_change() {
    let before = "Package: app\nVersion: 1\nDepends: lib, tool\n\nPackage: lib\nVersion: 1\n\nPackage: tool\nVersion: 1\n";
    let newer = "Package: app\nVersion: 2\nDepends: lib (>= 2)\n\nPackage: lib\nVersion: 2\n\nPackage: tool\nVersion: 2\n";
    let mut world = World::new(before, "");
    let wanted = manifest(&["app", "tool"], &[]);
    let first = world.resolve(&wanted).unwrap();
    world.publish(before, newer);
    let update = |update: Update| world.update(&wanted, Some(&first), &update).unwrap();
    assert_eq!(versions(&update(Update::Nothing)), ["app 1", "lib 1", "tool 1"]);
    assert_eq!(versions(&update(Update::All)), ["app 2", "lib 2", "tool 2"]);
    assert_eq!(versions(&update(Update::Names(names(&["tool"])))), ["app 1", "lib 1", "tool 2"]);
    // What an update needs comes along.
    assert_eq!(versions(&update(Update::Names(names(&["app"])))), ["app 2", "lib 2", "tool 1"]);
    let error = world.update(&wanted, Some(&first), &Update::Names(names(&["tol"]))).unwrap_err();
    assert!(matches!(error, ResolveError::NotLocked { .. }));
    assert!(chain(&error).contains("did you mean tool?"), "{error}");

    let text = diff(&first, &update(Update::All)).to_string();
    assert_eq!(
        text,
        "  upgraded app 1 → 2 (+1 B) [security]\n  upgraded lib 1 → 2 [security]\n  upgraded tool 1 → 2 [security]\n\
         0 added, 0 removed, 3 upgraded (3 by security updates); download +1 B"
    );
    // Superseded versions are gone from the index: the newest stands in.
    world.publish(newer, "");
    assert_eq!(
        versions(&world.update(&wanted, Some(&first), &Update::Nothing).unwrap()),
        ["app 2", "lib 2", "tool 2"]
    );
}

#[test]
fn an_alternative_once_chosen_stays() {
    let world = World::new(SMALL, "");
    let first = world.resolve(&manifest(&["app", "gawk"], &[])).unwrap();
    let second = world.update(&manifest(&["app"], &[]), Some(&first), &Update::Nothing).unwrap();
    assert!(second.packages.contains_key("gawk") && !second.packages.contains_key("mawk"));
    assert_eq!(second.packages["gawk"].wanted_by, ["app"]);
}

#[test]
fn containers_are_resolved_by_themselves() {
    let world = World::new(SMALL, "");
    let mut wanted = manifest(&["libc"], &[]);
    let build = ContainerBuild { recipe: recipe(&["app"], &["lib"]), ..ContainerBuild::default() };
    wanted.containers.push(Container {
        name: "hello".into(),
        image: ContainerImage::Build(Box::new(build)),
        command: Vec::new(),
        environment: BTreeMap::new(),
        ports: Vec::new(),
        volumes: Vec::new(),
        host_network: false,
        start: true,
        new_privileges: false,
        scratch: Container::SCRATCH,
        said: Default::default(),
    });
    let lock = world.resolve(&wanted).unwrap();
    assert_eq!(versions(&lock), ["libc 2.41-1"]);
    assert_eq!(lock.containers["hello"].keys().collect::<Vec<_>>(), ["app", "cfg", "mawk"]);
    let Some(Container { image: ContainerImage::Build(build), .. }) = wanted.containers.first_mut() else {
        panic!()
    };
    build.recipe.packages = places(&["apq"]);
    assert_eq!(
        refusal(&world, &wanted),
        "packages of container hello: node.yaml:1:5: no archive has a package apq; did you mean app?"
    );
}

#[test]
fn the_same_question_has_the_same_answer() {
    let mut packages = String::from(SMALL);
    for index in 0..60 {
        packages += &format!(
            "\nPackage: p{index}\nVersion: 1\nDepends: v{}, q{} | q{}\n\nPackage: q{index}\nVersion: 1\nProvides: v{}\nConflicts: q{}\n",
            index % 7,
            index % 11,
            index % 13,
            index % 5,
            (index + 1) % 60
        );
    }
    packages += "\nPackage: v5\nVersion: 1\n\nPackage: v6\nVersion: 1\n";
    let world = World::new(&packages, "");
    let wanted = manifest(&["app", "p1", "p9", "p17", "p33", "p48"], &[]);
    let first = world.resolve(&wanted).unwrap();
    for _ in 0..20 {
        assert_eq!(world.resolve(&wanted).unwrap(), first);
    }
    let hopeless = manifest(&["q1", "q2", "app", "q3"], &[]);
    let message = refusal(&world, &hopeless);
    for _ in 0..20 {
        assert_eq!(refusal(&world, &hopeless), message);
    }
}

#[test]
fn indexes_are_got_by_digest_and_remembered() {
    let mut world = World::new(SMALL, "");
    let wanted = manifest(&["app"], &[]);
    let first = world.resolve(&wanted).unwrap();
    assert!(world.server.asked.lock().unwrap().iter().any(|url| url.contains("/by-hash/SHA256/")));
    world.server.asked.lock().unwrap().clear();
    assert_eq!(world.resolve(&wanted).unwrap(), first);
    assert!(world.server.asked.lock().unwrap().iter().all(|url| url.ends_with("/InRelease")));
    world.server.kept.lock().unwrap().values_mut().for_each(|bytes| bytes[0] ^= 1);
    assert_eq!(world.resolve(&wanted).unwrap(), first);

    let plain = Release { by_hash: false, ..Release::new("trixie", &world.key, SMALL) };
    world.server.publish(ROOT, &plain);
    assert_eq!(versions(&world.resolve(&wanted).unwrap()), versions(&first));
}

#[test]
fn an_index_that_was_not_signed_is_refused() {
    let mut world = World::new(SMALL, "");
    for (address, bytes) in &mut world.server.files {
        if address.starts_with(ROOT) && address.contains("by-hash") {
            *bytes = b"something else".to_vec();
        }
    }
    let message = refusal(&world, &manifest(&["app"], &[]));
    assert!(
        message.contains("archive debian, suite trixie")
            && message.contains("not what the signed release lists"),
        "{message}"
    );
    world.server.files.retain(|address, _| !address.contains("by-hash"));
    let message = refusal(&world, &manifest(&["app"], &[]));
    assert!(message.contains("there is no https://mirror.example/debian/dists/trixie/main"), "{message}");
}

#[test]
fn a_release_of_a_stranger_is_refused() {
    let mut world = World::new(SMALL, "");
    world.server.publish(SECURITY_ROOT, &Release::new("trixie-security", &key(3650), ""));
    let message = refusal(&world, &manifest(&["app"], &[]));
    assert!(message.starts_with("verifying https://mirror.example/debian-security/dists/trixie-security/InRelease: signed by unknown key"), "{message}");
    world.server.files.retain(|address, _| !address.starts_with(SECURITY_ROOT));
    let message = refusal(&world, &manifest(&["app"], &[]));
    assert!(
        message.starts_with("asking archive security for suite trixie-security: there is no"),
        "{message}"
    );
}

#[test]
fn flat_archives_are_understood() {
    let key = key(3650);
    let release = Release::new("trixie", &key, "Package: kubelet\nVersion: 1.34\n");
    let index = release.index().replace("pool/", "amd64/").into_bytes();
    let files = BTreeMap::from([("Packages".to_owned(), index.clone())]);
    let text = release
        .text(&files)
        .replace("Suite: stable\nCodename: trixie\n", "")
        .replace("Acquire-By-Hash: yes\n", "");
    let root = "https://packages.example/deb";
    let mut world = World::new("", "");
    world.server.files.insert(format!("{root}/InRelease"), sign(&[&key], &text, DATE, HashAlgorithm::SHA256));
    world.server.files.insert(format!("{root}/Packages"), index);
    world.archives = archives(vec![archive("kubernetes", root, &key, &["/"])]);
    let lock = world.resolve(&manifest(&["kubelet"], &[])).unwrap();
    assert_eq!(lock.packages["kubelet"].archive, "kubernetes");
    let url = world.archives.urls("kubernetes", &lock.packages["kubelet"].path).unwrap().remove(0);
    assert_eq!(url.to_string(), "https://packages.example/deb/amd64/kubelet_1.34_amd64.deb");
}

/// What no relation admits is looked at as well: two thousand versions for each of some hundred relations.
#[test]
fn packages_that_are_looked_at_are_steps() {
    let versions: String = (0..1999).map(|number| format!("Package: x\nVersion: 1.{number}\n\n")).collect();
    let long = "a".repeat(3200);
    let needs: String = (0..300).map(|number| format!("\n x (>> {long}{number}) | base,")).collect();
    let world = World::new(
        &format!("{SMALL}\nPackage: needy\nVersion: 1\nDepends: {needs}\n base\n\n{versions}"),
        "",
    );
    assert!(refusal(&world, &manifest(&["needy"], &[])).contains("no choice was found in 50000000 steps"));
    let short = "\n x (>> 2) | base,".repeat(300);
    let world = World::new(
        &format!("{SMALL}\nPackage: needy\nVersion: 1\nDepends: {short}\n base\n\n{versions}"),
        "",
    );
    assert_eq!(resolved(&world, &["needy"], &[]), ["base 13", "needy 1"]);
}
