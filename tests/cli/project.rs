//! A project as a user has it: a manifest, an overlay, keys, a mirror; and keller at work on it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use keller::base::Digest;
use keller::base::seal::Key;
use keller::store::{Access, Store};
use tempfile::TempDir;

use super::archive::{Archive, KEY, packages};
use super::elf;
use crate::repository::public;

const MANIFEST: &str = r#"keller: 1
id: tiny
version: 1.2.3

debian: {suite: trixie, updates: false, security: false, keys: archive.asc}
packages: [base-files, linux-image-tiny, systemd, systemd-boot-efi, greeter]
prune: [/usr/share/doc]
overlays: [overlay]
system_users:
  - {name: greet, home: /var/lib/greet}
users:
  - {name: core, uid: 1000, shell: /usr/bin/systemctl, ssh_keys: []}
files:
  - {path: /etc/greet.conf, content: "to: everybody\n", mode: "0640", group: greet}
  - {path: /etc/greet.d, directory: true}
  - {path: /usr/share/greet/logo, url: "URL", sha256: SHA256}
services: {enable: [greet.service]}
kernel: {cmdline: [quiet]}
disk: {esp: 64MiB, root: 64MiB, reserve: 64MiB, state: {min: 64MiB}}
runtime: podman
containers:
  - {name: hello, image: {build: hello.yaml}, ports: ["8080:80"]}
"#;

const CONTAINER: &str = "packages: [base-files, greeter]\nprune: [/usr/lib/systemd]\n\
    system_users:\n  - {name: greet}\nentrypoint: [/usr/bin/greet]\nuser: greet\n";

/// What the manifest fetches by its address.
const LOGO: &[u8] = b"  o/\n";

/// A folder with all that a build needs, and the mirror's files in it.
pub struct Project {
    folder: TempDir,
    pub archive: Archive,
}

/// What a run of keller left.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ran {
    pub fn of(output: &Output) -> Self {
        Self {
            code: output.status.code(),
            signal: output.status.signal(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The run, which must have succeeded.
    pub fn good(self) -> Self {
        assert_eq!(self.code, Some(0), "{}\n{}", self.out, self.err);
        self
    }

    /// What it said, from `error: ` on. It must have failed as a program does that knows why.
    pub fn error(&self) -> &str {
        assert_eq!(self.code, Some(1), "{}\n{}", self.out, self.err);
        let at = self.err.find("error: ").unwrap_or_else(|| panic!("no error in {}", self.err));
        let text = self.err[at..].trim_end();
        for debug in ["Some(", "Error {", "Os {", "kind:", "\\n", "panicked", "RUST_BACKTRACE"] {
            assert!(!text.contains(debug), "{debug:?} is not for people: {text}");
        }
        let parts: Vec<&str> = text.split(": ").collect();
        let double = parts.windows(2).find(|pair| pair[0] == pair[1]);
        assert!(double.is_none(), "{double:?} stands twice: {text}");
        text
    }
}

impl Project {
    pub fn new() -> Self {
        let project = Self { folder: tempfile::tempdir().unwrap(), archive: Archive::new(&KEY, &packages()) };
        fs::create_dir_all(project.path("node/overlay/etc")).unwrap();
        project.write("logo", LOGO);
        let url = format!("file://{}", project.path("logo").display());
        let manifest = MANIFEST.replace("SHA256", &Digest::of(LOGO).to_hex()).replace("URL", &url);
        project.write("node/node.yaml", manifest);
        project.write("node/hello.yaml", CONTAINER);
        project.write("node/overlay/etc/motd", "welcome\n");
        project.write("node/archive.asc", public(&KEY));
        project.write("fake-keller", elf::program());
        project.archive.write(&project.path("mirror/debian"));
        project
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    pub fn write(&self, path: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(path), bytes).unwrap();
    }

    pub fn read(&self, path: &str) -> Vec<u8> {
        fs::read(self.path(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    pub fn text(&self, path: &str) -> String {
        String::from_utf8(self.read(path)).unwrap()
    }

    pub fn json(&self, path: &str) -> serde_json::Value {
        serde_json::from_slice(&self.read(path)).unwrap()
    }

    /// Changes the manifest.
    pub fn edit(&self, from: &str, to: &str) {
        let text = self.text("node/node.yaml");
        assert!(text.contains(from), "{from:?} is not in the manifest");
        self.write("node/node.yaml", text.replace(from, to));
    }

    /// Brings the mirror to what the archive is now.
    pub fn publish(&self) {
        let root = self.path("mirror/debian");
        let _ = fs::remove_dir_all(&root);
        self.archive.write(&root);
    }

    /// keller in this project's folder, with nothing of the developer's own settings. Jobs that a shell runs in
    /// the background inherit an ignored SIGINT, which keller would keep.
    pub fn keller(&self, arguments: &[&str]) -> Command {
        let program = std::env::var_os("KELLER").unwrap_or_else(|| env!("CARGO_BIN_EXE_keller").into());
        let mut command = Command::new("/usr/bin/env");
        command.arg("--default-signal=INT").arg(program);
        command.args(arguments).current_dir(self.folder.path()).env_clear();
        command.env("PATH", "/usr/bin:/bin").env("HOME", self.folder.path());
        command.env("KELLER_STORE", self.path("store")).env("KELLER_MIRROR", self.path("mirror/debian"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// The store, with the key by which keller seals what it derives here.
    pub fn sealing_store(&self) -> Store {
        let key = ".local/state/keller/store.key";
        if !self.path(key).exists() {
            self.run(&["store", "list"]).good();
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(self.text(key).trim(), &mut bytes).unwrap();
        let access = Access { key: Some(Key::from_bytes(bytes)), shared: false };
        Store::open_with(self.path("store"), access).unwrap()
    }

    pub fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(&self.keller(arguments).output().unwrap())
    }

    /// `keller build` of this project with `arguments` besides.
    pub fn build_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.keller(&["build", "--keller", "fake-keller", "node/node.yaml"]);
        command.args(arguments);
        command
    }

    pub fn build(&self, arguments: &[&str]) -> Ran {
        Ran::of(&self.build_command(arguments).output().unwrap())
    }

    /// Every name below `path`, with sizes; of the store's derived and temporary files only the kinds.
    pub fn names(&self, path: &str) -> BTreeMap<String, u64> {
        names(&self.path(path))
    }
}

/// Every file below `root` by its relative path, with its size.
pub fn names(root: &Path) -> BTreeMap<String, u64> {
    let mut pending = vec![root.to_owned()];
    let mut found = BTreeMap::new();
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            if metadata.is_dir() {
                pending.push(path);
            } else {
                found.insert(path.strip_prefix(root).unwrap().display().to_string(), metadata.len());
            }
        }
    }
    found
}
