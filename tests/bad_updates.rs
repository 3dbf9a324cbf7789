//! A whole update of a disk image from a web server on loopback, step by step as the agent goes: servers that fail,
//! damage what they serve or never end; disks that are too small, full or broken. After each the image boots what
//! it ran, and the next try arrives.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use keller::agent::choice::Node;
use keller::agent::record::Record;
use keller::agent::{Wanted, look};
use keller::base::device::{Device, FileDevice, ReadAt, SectorSize, Window};
use keller::base::progress::Silent;
use keller::base::{Chain, Digest};
use keller::disk::gpt::{self, types};
use keller::disk::slot::{self, Slot};
use keller::fs::fat::Editor;
use keller::http::Settings;
use keller::http::url::Url;
use keller::repository::{Client, Web};
use keller::update::apply::{ApplyError, Target, installed};
use keller::update::delta::{self, Old, Way};
use keller::update::document::{Blob, Document};
use keller::verity;
use tempfile::TempDir;

use crate::cli::project::Project;
use crate::http_server::{Act, Server};
use crate::unfold::unfold;

/// The version that runs, and the one to go to.
const RUNNING: &str = "1.0.0";
const NEW: &str = "1.0.1";

/// A publisher with images that `keller build` made, its web server, and what a node trusts.
struct World {
    project: Project,
    server: Server,
}

/// Whence the root can come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Published {
    /// By a patch from 1.0.0, besides.
    WithPatches,
    /// By blocks only.
    WithoutPatches,
    /// By blocks only, most of which are in files of 1.0.0.
    InPieces,
}

impl World {
    fn new(published: Published) -> Self {
        let content = noise(1, 3 << 20);
        let changed = match published {
            // What little differs is spread out, so that a patch is shorter than the blocks.
            Published::WithPatches => {
                content.iter().enumerate().map(|(at, byte)| byte ^ u8::from(at % (64 << 10) == 99)).collect()
            }
            Published::WithoutPatches | Published::InPieces => {
                [&content[..1 << 20], &noise(2, 1 << 20), &content[2 << 20..]].concat()
            }
        };
        Self::with(published, "64MiB", [content, changed])
    }

    /// 1.0.0 for slots of 64 MiB and 1.0.1 for slots of `room`, each with its content.
    fn with(published: Published, room: &str, content: [Vec<u8>; 2]) -> Self {
        let project = Project::new();
        project.run(&["keys", "init", "node/keys"]).good();
        project.edit(
            "runtime: podman",
            "update: {url: \"https://updates.example/tiny\", keys: keys}\nruntime: podman",
        );
        project.edit("version: 1.2.3", "version: 1.0.0");
        project.write("node/overlay/etc/data", &content[0]);
        project.build(&["--no-sums"]).good();
        project.edit("version: 1.0.0", "version: 1.0.1");
        project.edit("root: 64MiB", &format!("root: {room}"));
        project.write("node/overlay/etc/data", &content[1]);
        project.build(&["--no-sums"]).good();
        let versions: &[&str] = if room == "64MiB" { &[RUNNING, NEW] } else { &[NEW] };
        let patches = if published == Published::WithPatches { "1" } else { "0" };
        for (version, level) in versions.iter().zip(["1", "2"]) {
            let image = format!("node/out/tiny_{version}.raw");
            // What was compressed otherwise lies in files of its own.
            let level = if published == Published::InPieces { "1" } else { level };
            let arguments = ["publish", "--to", "repository", "--keys", "node/keys", "--level", level];
            project.run(&[&arguments[..], &["--patches", patches, &image]].concat()).good();
        }
        let world = Self { project, server: Server::start() };
        world.serve(&world.project.path("repository"), "");
        world
    }

    fn serve(&self, folder: &Path, path: &str) {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = format!("{path}/{}", entry.file_name().to_string_lossy());
            match entry.file_type().unwrap().is_dir() {
                true => self.serve(&entry.path(), &path),
                false => self.server.put(&path, std::fs::read(entry.path()).unwrap(), &[Act::Serve]),
            }
        }
    }

    fn bytes(&self, blob: &Blob) -> Vec<u8> {
        self.project.read(&format!("repository/{}", blob.path()))
    }

    fn web(&self) -> Web {
        let settings = Settings {
            idle: Duration::from_secs(2),
            pauses: vec![Duration::from_millis(1)],
            ..Settings::default()
        };
        Web::new(Url::root(&self.server.url("")).unwrap(), settings).unwrap()
    }

    fn document(&self, datastore: &Path) -> Result<Document, String> {
        let now = jiff::Timestamp::now().as_second();
        let root_json = self.project.read("node/keys/1.root.json");
        let web = self.web();
        let trusted = Client::update(&root_json, &web, datastore, now).map_err(told)?;
        let node = Node { id: "tiny", version: RUNNING, channel: "stable" };
        let found = look::find(&trusted, node, &Record::default(), &Wanted::default());
        Ok(found.map_err(told)?.document.expect("1.0.1 is published"))
    }

    /// A node's disk that has 1.0.0.
    fn disk(&self) -> Disk {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("disk.raw");
        let image = self.project.path(&format!("node/out/tiny_{RUNNING}.raw"));
        let status = Command::new("cp").arg("--sparse=always").args([&image, &file]).status();
        assert!(status.unwrap().success());
        unfold(&file);
        Disk { file, datastore: folder.path().join("metadata"), image, _folder: folder }
    }
}

/// `len` bytes that do not compress and depend on `seed` alone.
fn noise(seed: u8, len: usize) -> Vec<u8> {
    let digests = (0_u64..).flat_map(|n| *Digest::of([&[seed][..], &n.to_le_bytes()].concat()).as_bytes());
    digests.take(len).collect()
}

fn told<E: std::error::Error + 'static>(error: E) -> String {
    Chain(&error).to_string()
}

struct Disk {
    file: PathBuf,
    datastore: PathBuf,
    /// What it is a copy of.
    image: PathBuf,
    _folder: TempDir,
}

/// A part of a disk that takes no writes from a byte of its own on.
struct Part {
    device: Window<FileDevice>,
    bad_from: u64,
}

/// The parts of a disk, by the names that errors have for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Table,
    Esp,
    Root,
    Tree,
}

impl ReadAt for Part {
    fn size(&self) -> u64 {
        self.device.size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.device.read_at(buffer, offset)
    }
}

impl Device for Part {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if offset + bytes.len() as u64 > self.bad_from {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        self.device.write_at(bytes, offset)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.device.flush()
    }

    fn sector_size(&self) -> SectorSize {
        SectorSize::B512
    }
}

/// What an update did.
#[derive(Debug)]
struct Taken {
    way: Way,
    uki: Way,
    entry: String,
}

impl Disk {
    fn open(&self) -> FileDevice {
        open(&self.file)
    }

    fn part(&self, place: Place, bad: Option<(Place, u64)>) -> Part {
        let disk = self.open();
        let table = gpt::read_any(&disk).unwrap().table;
        let [_, (_, idle)] = slot::slots(&table).unwrap();
        let (start, size) = match place {
            Place::Table => (0, disk.size()),
            Place::Esp => {
                let esp = table.by_type(types::ESP).next().unwrap();
                (esp.start, esp.size)
            }
            Place::Root => (idle.root.start, idle.root.size),
            Place::Tree => (idle.verity.start, idle.verity.size),
        };
        let bad_from = bad.filter(|(bad, _)| *bad == place).map_or(u64::MAX, |(_, from)| from);
        Part { device: Window::new(disk, start, size), bad_from }
    }

    /// Takes what the repository offers, as the agent does.
    fn take(&self, world: &World, bad: Option<(Place, u64)>) -> Result<Taken, String> {
        let document = world.document(&self.datastore)?;
        let web = world.web();
        let whole = self.open();
        let table = gpt::read_any(&whole).unwrap().table;
        let [(_, running), _] = slot::slots(&table).unwrap();
        let root_hash = running.release().unwrap().root_hash;
        let mut esp = self.part(Place::Esp, bad);
        let file = format!("EFI/Linux/tiny_{RUNNING}.efi");
        let uki = Editor::open(&mut esp).unwrap().read(&file, 1 << 30).unwrap();
        let mut disk = self.part(Place::Table, bad);
        let (mut root, mut tree) = (self.part(Place::Root, bad), self.part(Place::Tree, bad));
        let running = file_system(&whole, running);
        let old = Old { root: &running, root_size: running.size(), root_hash, uki: Some(&uki) };
        let mut target =
            Target { disk: &mut disk, esp: &mut esp, root: &mut root, verity: &mut tree, slot: Slot::B };
        target.check(&document, &root_hash).map_err(told)?;
        let mut uki = Vec::new();
        let by = delta::uki(&document.uki, &web, old.uki, &mut uki, &Silent).map_err(told)?;
        let mut cleared = target.clear(&document, &root_hash, &Silent).map_err(told)?;
        let fetched = delta::root(&document.root, &web, Some(&old), cleared.root(), &Silent);
        let way = fetched.map_err(told)?.way;
        let activated = cleared
            .written()
            .and_then(|written| written.seal(&Silent))
            .and_then(|sealed| sealed.activate(&uki, 3, &Silent));
        let entry = activated.map_err(told::<ApplyError>)?;
        Ok(Taken { way, uki: by.way, entry })
    }

    /// The version that the boot loader takes, whose every block is as its root hash says. What runs is as it was.
    fn boots(&self) -> String {
        let (disk, image) = (self.open(), open(&self.image));
        let table = gpt::read_any(&disk).unwrap().table;
        let slots = slot::slots(&table).unwrap();
        let next = installed(&disk, &self.part(Place::Esp, None)).unwrap().remove(0);
        let (_, parts) = slots.iter().find(|(slot, _)| Some(*slot) == next.slot).expect("a slot holds it");
        let mut root = file_system(&disk, *parts);
        let mut tree = Window::new(&disk, parts.verity.start, parts.verity.size);
        verity::verify(&mut root, &mut tree, &parts.release().unwrap().root_hash).unwrap();

        let [(_, running), _] = slots;
        for entry in [running.root, running.verity] {
            let read = |disk: &FileDevice| {
                // All that the image has of it; its backup table lies behind.
                let end = entry.end().min(image.size() - (1 << 20));
                let mut bytes = vec![0; (end - entry.start) as usize];
                disk.read_at(&mut bytes, entry.start).unwrap();
                bytes
            };
            assert!(read(&disk) == read(&image), "the running slot was written to");
        }
        next.entry.version
    }

    /// An update that fails; gives why. The disk boots what it ran.
    fn fails(&self, world: &World, bad: Option<(Place, u64)>, what: &str) -> String {
        let text = match self.take(world, bad) {
            Ok(taken) => panic!("{what}: {taken:?}"),
            Err(text) => text,
        };
        println!("{what}: {text}");
        assert_eq!(self.boots(), RUNNING, "{what}: {text}");
        text
    }

    /// An update that arrives.
    fn arrives(&self, world: &World, what: &str) -> Taken {
        let taken = self.take(world, None).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!((self.boots().as_str(), taken.entry.as_str()), (NEW, "tiny_1.0.1+3.efi"), "{what}");
        taken
    }
}

/// What a slot's hash tree covers.
fn file_system<'d>(disk: &'d FileDevice, parts: slot::Parts<'_>) -> Window<&'d FileDevice> {
    let mut block = [0; verity::BLOCK];
    disk.read_at(&mut block, parts.verity.start).unwrap();
    let (_, blocks) = verity::parse_superblock(&block).unwrap();
    Window::new(disk, parts.root.start, blocks * verity::BLOCK as u64)
}

fn open(path: &Path) -> FileDevice {
    let file: File = OpenOptions::new().read(true).write(true).open(path).unwrap();
    FileDevice::image(file, SectorSize::B512).unwrap()
}

/// Bytes of a file with one bit flipped in the middle.
fn flipped(mut bytes: Vec<u8>) -> Vec<u8> {
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    bytes
}

#[test]
fn a_server_that_fails_while_a_version_is_fetched() {
    let world = World::new(Published::WithoutPatches);
    let disk = world.disk();
    let document = world.document(&disk.datastore).unwrap();
    let (root, uki) = (&document.root.ways, &document.uki.ways);
    let files = [
        ("the index", root.index),
        ("the frames", root.frames),
        ("all of the root", root.full),
        ("the index of the kernel image", uki.index),
        ("all of the kernel image", uki.full),
    ];
    for (name, blob) in files {
        let (path, bytes) = (format!("/{}", blob.path()), world.bytes(&blob));
        let half = bytes.len() / 2;
        // What is not what it should be leads another way, if it was needed at all.
        for (what, served, act) in [
            ("a flipped bit", flipped(bytes.clone()), Act::Serve),
            ("a truncated file", bytes[..half].to_vec(), Act::Serve),
            ("another file", noise(9, bytes.len()), Act::ServeWhole),
            ("no end", bytes.clone(), Act::Endless),
            ("404", bytes.clone(), Act::Status(404)),
        ] {
            world.server.put(&path, served, &[act]);
            let case = format!("{name}, {what}");
            // A range past the end is an error of the server's.
            if what == "a truncated file" && blob == root.frames {
                let text = world.disk().fails(&world, None, &case);
                assert!(text.contains("the file on the server ends before byte"), "{case}: {text}");
            } else {
                world.disk().arrives(&world, &case);
            }
        }
        world.server.put(&path, bytes, &[Act::Serve]);
    }
    // A server that fails is waited for: what a node is sure to ask for first, and what follows.
    for (name, blob) in [("the index", root.index), ("the index of the kernel image", uki.index)] {
        let (path, bytes) = (format!("/{}", blob.path()), world.bytes(&blob));
        let half = bytes.len() / 2;
        let cases = [
            ("500", Act::Status(500), "tried 2 times: the server says 500"),
            ("a reset in the middle", Act::ResetAt(half), "the connection broke after"),
            ("no answer", Act::Close, "no connection"),
            ("what is not HTTP", Act::Garbage, "the answer makes no sense"),
        ];
        // These take their time, and whatever file it is, the same code reads it.
        let slow = [
            ("silence", Act::Hang, "no byte within 2 seconds"),
            ("silence in the middle", Act::HangAt(half), "no byte within 2 seconds"),
            ("a slow drip", Act::Trickle, "slower than 256 B a second"),
        ];
        let slow = slow.into_iter().filter(|_| blob == root.index);
        for (what, act, expected) in cases.into_iter().chain(slow) {
            world.server.put(&path, bytes.clone(), &[act]);
            let what = format!("{name}, {what}");
            let text = disk.fails(&world, None, &what);
            assert!(text.contains(expected), "{what}: {text}");
        }
        world.server.put(&path, bytes, &[Act::Serve]);
    }
    // Where no way is left, the last one says what is wrong.
    for (name, ways) in [("the root", root), ("the kernel image", uki)] {
        for (what, act, expected) in [
            ("flipped bits", Act::Serve, "of the whole image, at its byte "),
            ("404", Act::Status(404), "is not there"),
        ] {
            for blob in [ways.index, ways.full] {
                let served = flipped(world.bytes(&blob));
                world.server.put(&format!("/{}", blob.path()), served, std::slice::from_ref(&act));
            }
            let what = format!("{name}, {what}");
            let text = disk.fails(&world, None, &what);
            assert!(text.contains(expected), "{what}: {text}");
        }
        for blob in [ways.index, ways.full] {
            world.server.put(&format!("/{}", blob.path()), world.bytes(&blob), &[Act::Serve]);
        }
    }
    // On the disk on which all of it went wrong.
    disk.arrives(&world, "the next try");
}

#[test]
fn a_patch_that_is_of_no_use_costs_another_way() {
    let world = World::new(Published::WithPatches);
    let document = world.document(&world.disk().datastore).unwrap();
    let whole = world.disk().arrives(&world, "as published");
    assert_eq!((whole.way, whole.uki), (Way::Patch, Way::Patch));
    let [root, uki] = [&document.root.ways, &document.uki.ways].map(|ways| ways.patches[0].blob);
    for blob in [root, uki] {
        let (path, bytes) = (format!("/{}", blob.path()), world.bytes(&blob));
        for (served, act) in [
            (flipped(bytes.clone()), Act::Serve),
            (bytes[..bytes.len() / 2].to_vec(), Act::Serve),
            (bytes.clone(), Act::Endless),
            (bytes.clone(), Act::Status(404)),
        ] {
            let what = format!("{path}: {act:?}");
            world.server.put(&path, served, &[act]);
            let taken = world.disk().arrives(&world, &what);
            let patched = (taken.way == Way::Patch, taken.uki == Way::Patch);
            assert_eq!(patched, (blob != root, blob != uki), "{what}");
        }
        world.server.put(&path, bytes, &[Act::Serve]);
    }
}

#[test]
fn servers_that_know_no_ranges_and_connections_that_break_are_put_up_with() {
    for published in [Published::WithPatches, Published::WithoutPatches, Published::InPieces] {
        let world = World::new(published);
        let document = world.document(&world.disk().datastore).unwrap();
        let files: BTreeSet<String> = document.files().collect();
        assert_eq!(document.root.ways.has_pieces(), published == Published::InPieces);
        for acts in
            [&[Act::ServeWhole][..], &[Act::ResetAt(2000), Act::Serve], &[Act::Status(503), Act::Serve]]
        {
            for file in &files {
                let bytes = world.project.read(&format!("repository/{file}"));
                world.server.put(&format!("/{file}"), bytes, acts);
            }
            world.disk().arrives(&world, &format!("{acts:?}"));
        }
    }
}

#[test]
fn damage_to_files_that_versions_share() {
    let world = World::new(Published::InPieces);
    let document = world.document(&world.disk().datastore).unwrap();
    let files: BTreeSet<String> = document.files().collect();
    for file in files {
        let bytes = world.project.read(&format!("repository/{file}"));
        let path = format!("/{file}");
        for (what, served, act) in [
            ("a flipped bit", flipped(bytes.clone()), Act::Serve),
            ("a truncated file", bytes[..bytes.len() / 2].to_vec(), Act::Serve),
            ("another file", noise(9, bytes.len()), Act::ServeWhole),
            ("404", bytes.clone(), Act::Status(404)),
        ] {
            world.server.put(&path, served, &[act]);
            let (disk, case) = (world.disk(), format!("{file}, {what}"));
            let taken = disk.take(&world, None);
            // Another way may lead around it.
            let expected = if taken.is_ok() { NEW } else { RUNNING };
            assert_eq!(disk.boots(), expected, "{case}: {taken:?}");
            world.server.put(&path, bytes.clone(), &[Act::Serve]);
            if taken.is_err() {
                disk.arrives(&world, &case);
            }
        }
    }
}

#[test]
fn a_disk_that_fails() {
    let world = World::new(Published::WithoutPatches);
    let disk = world.disk();
    // The root first: what once was written is not written again.
    for (place, from, expected) in [
        (Place::Root, 1 << 20, "writing the target at byte "),
        (Place::Table, 0, "writing the partition table: "),
        (Place::Esp, 0, "changing the EFI system partition: "),
        (Place::Esp, 1 << 20, "changing the EFI system partition: "),
        (Place::Tree, 4096, "writing the hash tree of slot b: Input/output error"),
    ] {
        let what = format!("{place:?} from byte {from} on");
        let text = disk.fails(&world, Some((place, from)), &what);
        assert!(text.contains(expected) && text.ends_with("(os error 5)"), "{what}: {text}");
    }
    disk.arrives(&world, "the next try");
}

#[test]
fn a_disk_without_room() {
    let world = World::with(Published::WithoutPatches, "128MiB", [Vec::new(), vec![0; 70 << 20]]);
    let text = world.disk().fails(&world, None, "a small slot");
    assert!(
        text.starts_with("the root file system has ")
            && text.ends_with(", but slot b has room for 64MiB: this disk's layout cannot take it"),
        "{text}"
    );

    let world = World::new(Published::WithoutPatches);
    let disk = world.disk();
    let mut esp = disk.part(Place::Esp, None);
    let mut editor = Editor::open(&mut esp).unwrap();
    let size = editor.free() - (64 << 10);
    editor.put("backup.img", &mut io::repeat(7), size).unwrap();
    let text = disk.fails(&world, None, "a full ESP");
    assert!(
        text.starts_with("the kernel image needs ") && text.ends_with("can be had; remove other files there"),
        "{text}"
    );
    Editor::open(&mut esp).unwrap().remove("backup.img").unwrap();
    disk.arrives(&world, "the next try");
}
