//! What is small in each part and large together: each sum has a limit that the error names.

use std::io::Write;

use keller::base::Digest;
use serde_json::json;

use super::archive::{Archive, Package};
use super::elf;
use super::hostile::{CONTROL, layout, part, refusal, times, with, zeros};
use super::project::Project;
use crate::deb::{deb_with, file, tar, xz};

/// What a build says with `more` behind the archive's own index.
fn with_index(edit: Option<&str>, more: &[u8]) -> String {
    let project = Project::new();
    if let Some(name) = edit {
        project.edit("greeter]", &format!("greeter, {name}]"));
    }
    let own = project.read("mirror/debian/dists/trixie/main/binary-amd64/Packages.xz");
    let index = [own, xz(b"\n"), xz(more)].concat();
    Archive::write_files(project.archive.files_with(index), &project.path("mirror/debian"));
    refusal(&project, &[])
}

fn paragraph(name: &str, fields: &str) -> String {
    let (digest, path) = ("0".repeat(64), "pool/x.deb");
    format!(
        "Package: {name}\nVersion: 1\nArchitecture: all\n{fields}Filename: {path}\nSize: 1\nSHA256: {digest}\n\n"
    )
}

#[test]
fn an_index_of_more_packages_than_there_are() {
    let minimal = |number: u32| format!("Package: a{number}\nVersion: 1\nArchitecture: all\n\n");
    let told = with_index(None, (0..301_000).map(minimal).collect::<String>().as_bytes());
    let said = "all indexes together have more than 300000 packages, the most that are read: name fewer archives or \
                components";
    assert!(told.ends_with(said), "{told}");
    let provides = |number: u32| {
        let names: Vec<_> = (0..600).map(|name| format!("n{name}")).collect();
        paragraph(&format!("a{number}"), &format!("Provides: {}\n", names.join(", ")))
    };
    let told = with_index(None, (0..1000).map(provides).collect::<String>().as_bytes());
    assert!(told.contains("all indexes together have more than 500000 provided names"), "{told}");
}

/// Each of many packages provides what all of them need; or one has thousands of versions.
#[test]
fn an_index_in_which_everything_is_everything() {
    let member = |number: u32| {
        let needs: Vec<_> = (0..50).map(|other| format!("all (>= {other}) | all")).collect();
        let fields = format!("Provides: all (= {number})\nDepends: {}\n", needs.join(", "));
        paragraph(&format!("a{number}"), &fields)
    };
    let told = with_index(Some("a7"), (0..20_000).map(member).collect::<String>().as_bytes());
    assert!(told.contains("more than 2000 packages that provide one name, the most that are read"), "{told}");
    // As many as may be.
    let told = with_index(Some("a7"), (0..2_000).map(member).collect::<String>().as_bytes());
    assert!(told.contains("pool/x.deb"), "{told}");
    let version =
        |number: u32| paragraph("many", "Depends: gone\n").replace("sion: 1", &format!("sion: {number}"));
    let told = with_index(Some("many"), (0..50_000).map(version).collect::<String>().as_bytes());
    assert!(told.contains("more than 2000 versions of one package"), "{told}");
    let told = with_index(Some("many"), (0..2_000).map(version).collect::<String>().as_bytes());
    assert!(told.contains("many") && told.contains("gone"), "{told}");
}

/// Thirty pigeons in 29 holes: no solver sees at once that this cannot be.
#[test]
fn an_index_that_no_solver_sees_through() {
    const HOLES: u32 = 29;
    let mut index = String::new();
    let pigeons: Vec<_> = (0..=HOLES).map(|pigeon| format!("p{pigeon}")).collect();
    index += &paragraph("roost", &format!("Depends: {}\n", pigeons.join(", ")));
    for pigeon in 0..=HOLES {
        let places: Vec<_> = (0..HOLES).map(|hole| format!("p{pigeon}in{hole}")).collect();
        index += &paragraph(&format!("p{pigeon}"), &format!("Depends: {}\n", places.join(" | ")));
        for hole in 0..HOLES {
            let fields = format!("Provides: hole{hole}\nConflicts: hole{hole}\n");
            index += &paragraph(&format!("p{pigeon}in{hole}"), &fields);
        }
    }
    let told = with_index(Some("roost"), index.as_bytes());
    let said = "the relations of these packages are too entangled: no choice was found in 50000000 steps; ask for fewer \
                packages, or pin versions as `NAME=VERSION`";
    assert!(told.ends_with(said), "{told}");
}

/// A relation stands in each reason and in each set of versions: 480 KB of it, 800 times.
#[test]
fn an_index_with_relations_of_megabytes() {
    let long = "y".repeat(600);
    let names = |count: u32| (0..count).map(|number| format!("x{number}{long}")).collect::<Vec<_>>();
    let all = paragraph("aa", &format!("Depends: {}\n", names(800).join(" | ")));
    let each: String = names(800).iter().map(|name| paragraph(name, "")).collect();
    let told = with_index(Some("aa"), format!("{all}{each}").as_bytes());
    assert!(told.contains("pool/x.deb"), "it is the first one that meets it: {told}");
    let each = each.replace("Filename", "Depends: gone\nFilename");
    let told = with_index(Some("aa"), format!("{all}{each}").as_bytes());
    assert!(told.contains("aa 1 needs x0yyy") && told.len() < 30_000, "{} bytes", told.len());
    // Each of 2,000 is in conflict with all others.
    let names: Vec<_> = (0..2000).map(|number| format!("x{number}")).collect();
    let all = paragraph("aa", &format!("Depends: {}\n", names.join(", ")));
    let each: String = names.iter().map(|name| paragraph(name, "Provides: all\nConflicts: all\n")).collect();
    let told = with_index(Some("aa"), format!("{all}{each}").as_bytes());
    assert!(told.contains("too entangled: no choice was found in 50000000 steps"), "{told}");
}

/// Every name that is not there is compared with all that are.
#[test]
fn a_manifest_of_names_that_nothing_has() {
    let names: Vec<_> = (0..2000).map(|number| format!("package-of-a-lung-name-{number:04}x")).collect();
    let all = (0..10_000).map(|number| paragraph(&format!("package-of-a-long-name-{number:04}y"), ""));
    let told = with_index(Some(&names.join(", ")), all.collect::<String>().as_bytes());
    assert_eq!(told.matches("no archive has a package ").count(), 10, "{} bytes", told.len());
    assert!(told.contains("did you mean package-of-a-long-name-0000"), "{told}");
}

/// One line of a manifest with a mistake in each word, values that repeat a long one, and keys without end.
#[test]
fn manifests_that_become_large() {
    let manifest = |more: &str| {
        let project = Project::new();
        let text = project.text("node/node.yaml");
        project.write("node/node.yaml", format!("{text}{more}"));
        refusal(&project, &[])
    };
    let told = manifest(&format!("setuid: [{}]\n", "a,".repeat(40_000)));
    assert!(told.contains("`a` is not an absolute path") && told.len() < 70 << 10, "{} bytes", told.len());
    let long = "x".repeat(100_000);
    let told = manifest(&format!("setuid:\n - &a \"/{long}\"\n{}", " - *a\n".repeat(9000)));
    assert!(told.contains("have more than 16.0 MiB of text in their values together"), "{told}");
    let keys: String = (0..70_000).map(|number| format!(" k{number}: x\n")).collect();
    let told = manifest(&format!("missing_libraries:\n{keys}"));
    assert!(told.contains("all files of this manifest have more than 50000 values together"), "{told}");
}

/// An ELF file whose dynamic segment is all of its `size` bytes.
fn library(size: u64) -> Vec<u8> {
    let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    bytes.extend([3_u16, 62].iter().flat_map(|field| field.to_le_bytes()));
    bytes.extend(1_u32.to_le_bytes());
    bytes.extend([0_u64, 64, 0].iter().flat_map(|field| field.to_le_bytes()));
    bytes.extend(0_u32.to_le_bytes());
    bytes.extend([64_u16, 56, 2, 64, 0, 0].iter().flat_map(|field| field.to_le_bytes()));
    for kind in [1_u32, 2] {
        bytes.extend([kind, 4].iter().flat_map(|field| field.to_le_bytes()));
        bytes.extend([0, 0, 0, size, size, 0x1000].iter().flat_map(|field| field.to_le_bytes()));
    }
    bytes
}

#[test]
fn a_library_whose_headers_are_gigabytes() {
    const SIZE: u64 = 512 << 20;
    let mut data = part(&[("./usr/lib/x86_64-linux-gnu/libx.so.1", b'0', "", SIZE, b"")])[..512].to_vec();
    data.extend(library(SIZE));
    data.resize(512 + (1 << 20), 0);
    let data = [xz(&data), times(&vec![0; 1 << 20], 511), xz(&[0; 1024])].concat();
    let greeter = Package::new("greeter", "2.0-1");
    let told = refusal(&with(&greeter, deb_with(CONTROL, "data.tar.xz", &data)), &[]);
    assert!(told.contains("/usr/bin/greet, which is not in the image"), "nothing else is wrong: {told}");
}

#[test]
fn files_that_are_read_as_configuration() {
    let package = |files: &[(&str, usize)]| {
        let large = Package::new("large", "1");
        let zeros = |(path, size): &(&str, usize)| {
            let head = part(&[(*path, b'0', "", *size as u64, b"")]);
            [xz(&head[..512]), times(&vec![b'\n'; 1 << 20], size >> 20)].concat()
        };
        let mut data: Vec<u8> = files.iter().flat_map(zeros).collect();
        data.extend(xz(&[0; 1024]));
        let control = "Package: large\nVersion: 1\nArchitecture: amd64\n";
        let mut project = Project::new();
        project.archive.add_deb(&large, deb_with(control, "data.tar.xz", &data));
        project.publish();
        project.edit("greeter]", "greeter, large]");
        refusal(&project, &[])
    };
    let told = package(&[("./usr/lib/sysusers.d/x.conf", 60 << 20)]);
    assert!(
        told.ends_with(
            "reading /usr/lib/sysusers.d/x.conf: it has more than the 4.0 MiB that are read of such a file"
        ),
        "{told}"
    );
    let names: Vec<_> = (0..20).map(|number| format!("./usr/lib/tmpfiles.d/{number}.conf")).collect();
    let files: Vec<_> = names.iter().map(|name| (name.as_str(), 4 << 20)).collect();
    let told = package(&files);
    assert!(told.ends_with("all files that are read have more than 64.0 MiB together"), "{told}");
    let names: Vec<_> = (0..5).map(|number| format!("./usr/share/ca-certificates/{number}.crt")).collect();
    let files: Vec<_> = names.iter().map(|name| (name.as_str(), 60 << 20)).collect();
    let told = package(&files);
    assert!(told.ends_with("all certificates up to this one have more than 4.0 MiB"), "{told}");
}

/// What one layer may have, twice; and an archive that is compressed around compressed layers.
#[test]
fn layers_share_what_their_archive_may_unpack_to() {
    let project = Project::new();
    layout(&project, &[zeros("a", 200 << 20), zeros("b", 200 << 20)]);
    let told = refusal(&project, &[]);
    assert!(
        told.contains("member \"b\" brings the archive to") && told.ends_with(" that are allowed"),
        "{told}"
    );

    let project = Project::new();
    layout(&project, &[zeros("a", 200 << 20)]);
    let mut outer = tar::Builder::new(zstd::Encoder::new(Vec::new(), 1).unwrap());
    outer.append_dir_all(".", project.path("node/image")).unwrap();
    // As much again, which compresses to nothing: what is allowed counts by the file's size.
    let mut head = tar::Header::new_gnu();
    head.set_size(100 << 20);
    head.set_mode(0o644);
    head.set_uid(0);
    head.set_gid(0);
    head.set_mtime(0);
    head.set_cksum();
    outer.append_data(&mut head, "ballast", std::io::Read::take(std::io::repeat(0), 100 << 20)).unwrap();
    project.write("node/image.tar.zst", outer.into_inner().unwrap().finish().unwrap());
    project.edit("{archive: image}", "{archive: image.tar.zst}");
    let told = refusal(&project, &[]);
    assert!(told.contains("member \"a\" brings the archive to"), "{told}");
}

/// Indexes that name each other's successor a thousand times: a thousand times a thousand times a thousand.
#[test]
fn indexes_of_indexes() {
    let project = Project::new();
    layout(&project, &[xz(&tar(&[file("x", b"")]))]);
    let blobs = project.path("node/image/blobs/sha256");
    let mut inner = project.json("node/image/index.json")["manifests"][0].clone();
    inner["platform"] = json!({ "architecture": "arm64", "os": "linux" });
    for _ in 0..3 {
        let index = json!({ "manifests": vec![inner; 1000] }).to_string();
        let digest = Digest::of(&index);
        std::fs::write(blobs.join(digest.to_hex()), &index).unwrap();
        let kind = "application/vnd.oci.image.index.v1+json";
        inner = json!({ "digest": format!("sha256:{digest}"), "size": index.len(), "mediaType": kind });
    }
    project.write("node/image/index.json", json!({ "manifests": vec![inner; 1000] }).to_string());
    let told = refusal(&project, &[]);
    assert!(
        told.ends_with("is one with which all documents that are read have more than 8.0 MiB together"),
        "{told}"
    );
}

/// Modules that are each as large as one may be.
#[test]
fn large_modules_come_one_after_the_other() {
    let mut project = Project::new();
    let module = [xz(&elf::module(&[], &[], &[])), times(&vec![0; 1 << 20], 63)].concat();
    let folder = format!("usr/lib/modules/{}/kernel/drivers/net", super::archive::KERNEL);
    let ballast = Package::new("linux-extra-tiny", "6.12-1").file("usr/share/ballast", vec![1; 70 << 20]);
    let package = (0..12).fold(ballast, |package, number| {
        package.file(&format!("{folder}/large{number}.ko.xz"), module.clone())
    });
    project.archive.add(&package);
    project.publish();
    project.edit("greeter]", "greeter, linux-extra-tiny]");
    // They are as they should be, so that what fails is another thing.
    let told = refusal(&project, &["--threads", "8"]);
    assert!(told.contains("disk.root"), "{told}");
}

/// A line of the manifest and a key of nearly a megabyte each: they are told, and not in full.
#[test]
fn messages_have_an_end() {
    let project = Project::new();
    let long = "x".repeat(450_000);
    let mut manifest = std::fs::File::options().append(true).open(project.path("node/node.yaml")).unwrap();
    manifest.write_all(format!("{long}: {long}\n").as_bytes()).unwrap();
    let told = refusal(&project, &[]);
    assert!(told.contains("xxx") && told.len() < 70 << 10, "{} bytes", told.len());
}
