//! What programs and the loader's configuration ask of each other.

use super::{refusal, within};
use crate::cli::archive::Package;
use crate::cli::elf;
use crate::cli::project::{Project, Ran};

fn built(packages: &[Package]) -> (Project, Ran) {
    let mut project = Project::new();
    for package in packages {
        project.archive.add(package);
        project.edit("greeter]", &format!("greeter, {}]", package.name));
    }
    project.publish();
    let ran = within(&mut project.build_command(&[]));
    (project, ran)
}

#[test]
fn configuration_of_the_loader_that_includes_without_end() {
    let with = |files: &[(&str, String)]| {
        let mut project = Project::new();
        let package = files
            .iter()
            .fold(Package::new("libbad", "1"), |package, (path, text)| package.file(path, text.clone()));
        project.archive.add(&package);
        project.edit("greeter]", "greeter, libbad]");
        project.publish();
        refusal(&project, &[])
    };
    let conf = |text: String| ("etc/ld.so.conf", text);
    let told = with(&[conf("include ld.so.conf\n".to_owned())]);
    assert!(told.ends_with("/etc/ld.so.conf: included too deep"), "{told}");
    let told = with(&[
        conf("include ld.so.conf.d/*\n".to_owned()),
        ("etc/ld.so.conf.d/a", "include /etc/ld.so.conf\n".to_owned()),
    ]);
    assert!(told.contains("included too deep") || told.contains("includes more than 1000 files"), "{told}");
    let told = with(&[conf((0..1_001).map(|number| format!("/opt/{number}\n")).collect())]);
    assert!(
        told.contains("/etc/ld.so.conf") && told.ends_with("ld.so.conf names more than 1000 directories"),
        "{told}"
    );
    // A tree of includes, each level of which has the whole next one many times.
    let level = |next: usize| format!("include /etc/l{next}/*\n").repeat(100);
    let paths: Vec<String> =
        (0..10).flat_map(|depth| (0..10).map(move |file| format!("etc/l{depth}/{file}"))).collect();
    let mut files: Vec<(&str, String)> =
        paths.iter().enumerate().map(|(index, path)| (path.as_str(), level(index / 10 + 1))).collect();
    files.push(conf(level(0)));
    let told = with(&files);
    assert!(
        told.ends_with("ld.so.conf includes more than 1000 files")
            || told.ends_with("1000000 names together"),
        "{told}"
    );
    // Patterns that match nothing, each of which is compared with thousands of names.
    let paths: Vec<String> = (0..5_000).map(|number| format!("etc/many/{number}")).collect();
    let mut files: Vec<(&str, String)> = paths.iter().map(|path| (path.as_str(), String::new())).collect();
    files.push(conf("include /etc/many/x*\n".repeat(100_000)));
    let told = with(&files);
    assert!(told.ends_with("what it leads to has more than 1000000 names together"), "{told}");
    let nested = format!("include /etc/{}{}\n", "{a,".repeat(10_000), "}".repeat(10_000));
    let told = with(&[conf(nested)]);
    assert!(
        told.ends_with("/etc/ld.so.conf:1: a pattern has more than 255 bytes, as no name of a file has"),
        "{told}"
    );
}

/// Two that need each other, one that needs itself, and a chain of thousands.
#[test]
fn libraries_that_need_each_other() {
    let folder = "usr/lib/x86_64-linux-gnu";
    let mut package = Package::new("libcircle", "1");
    for (name, needs) in
        [("libone.so", "libtwo.so"), ("libtwo.so", "libone.so"), ("libself.so", "libself.so")]
    {
        package = package.file(&format!("{folder}/{name}"), elf::needing(needs));
    }
    for number in 0..1_000 {
        package = package.file(
            &format!("{folder}/lib{number}.so"),
            elf::needing(&format!("lib{}.so", (number + 1) % 1_000)),
        );
    }
    let (_, ran) = built(&[package]);
    ran.good();
}

/// Thousands of directories, in each of which thousands of libraries are looked for.
#[test]
fn paths_and_names_without_end() {
    let names: Vec<String> = (0..600).map(|number| format!("l{number}.so")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let folders = "/o:".repeat(1_300);
    let package = (0..10).fold(Package::new("libbad", "1"), |package, number| {
        package.file(&format!("usr/bin/bad{number}"), elf::linked(&names, &folders))
    });
    let (_, ran) = built(&[package]);
    let told = ran.error();
    assert!(
        told.contains("programs and libraries ask for each other in more than 24000000 ways"),
        "{} bytes",
        told.len()
    );
    assert!(
        told.contains("leave out packages, or `prune` programs") && told.len() < 100_000,
        "{} bytes",
        told.len()
    );
    // Tokens that grow, in a list that is one directory, and one that is none.
    let folder = format!("usr/{}", "d/".repeat(40));
    let growing = "$ORIGIN/".repeat(500);
    let package = Package::new("libbad", "1").file(&format!("{folder}bad"), elf::linked(&names, &growing));
    let (_, ran) = built(&[package]);
    assert!(ran.error().contains("needs l0.so, which is not in the image"), "{} bytes", ran.err.len());
    let package = (0..80).fold(Package::new("libbad", "1"), |package, number| {
        package.file(&format!("{folder}bad{number}"), elf::linked(&names[..5], &"$ORIGIN:".repeat(500)))
    });
    let (_, ran) = built(&[package]);
    assert!(ran.error().contains("ask for each other in more than 24000000 ways"), "{} bytes", ran.err.len());
    let long = "x".repeat(70_000);
    let package = Package::new("libbad", "1").file("usr/bin/bad", elf::linked(&["liba.so"], &long));
    let (_, ran) = built(&[package]);
    assert!(ran.err.contains("is no sound ELF file") || ran.err.contains("needs liba.so"), "{}", ran.err);
}
