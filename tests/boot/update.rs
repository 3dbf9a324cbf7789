//! A node takes a new version from a web server, by itself but for the word.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Node, keller};
use crate::http_server::{Act, Server};

#[test]
fn a_node_takes_a_new_version_by_a_patch_and_keeps_it() {
    let [first, _] = published("updated", &[], "");
    let mut node = Node::boot(&first, &["--persist"]);
    assert_eq!(node.settled(), "running");
    let found = node.run("sudo keller update check");
    assert!(found.contains("1.0.1 is there; 1.0.0 runs"), "{found}");
    let said = node.run("sudo keller update apply --no-reboot");
    assert!(said.contains("bytes fetched") && said.contains("by patch"), "{said}");
    node.reboot();
    assert_eq!(node.settled(), "running");
    let status = super::trial::wait_for(&node, "good");
    assert_eq!((&status["version"], &status["slot"]), (&"1.0.1".into(), &"b".into()));
    assert_eq!(status["entry"], "updated_1.0.1.efi");
    assert_eq!(node.run("cat /etc/version-of-this; which fuser"), "1.0.1\n/usr/bin/fuser");
    let verity = node.run("lsblk --noheadings --list --output NAME,PARTLABEL --inverse /dev/mapper/root");
    assert!(verity.contains("updated_1.0.1") && verity.contains("updated_1.0.1_verity"), "{verity}");
    let bytes = status["update"]["transfer"]["bytes"].as_u64().unwrap();
    assert!((1000..5_000_000).contains(&bytes), "{bytes} bytes for one small package");
}

/// Two versions of a small node, 1.0.0 and 1.0.1, which has a package more: published, and served as long as the
/// test program runs. `overlay` are files by path, executable; `more` are lines of the manifest.
pub(super) fn published(id: &str, overlay: &[(&str, &str)], more: &str) -> [PathBuf; 2] {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(id);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(folder.join("overlay/etc")).unwrap();
    for (path, text) in overlay {
        let file = folder.join("overlay").join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, Permissions::from_mode(0o755)).unwrap();
    }
    let server = Server::start();
    run(keller().current_dir(&folder).args(["keys", "init", "keys"]));
    let versions = [("1.0.0", ""), ("1.0.1", "packages: [psmisc]\n")];
    let images = versions
        .map(|(version, package)| build(&folder, id, version, &format!("{package}{more}"), server.port()));
    for image in &images {
        run(keller()
            .current_dir(&folder)
            .args(["publish", "--to", "repository", "--keys", "keys"])
            .arg(image));
    }
    serve(&server, &folder.join("repository"), "");
    images
}

fn build(folder: &Path, id: &str, version: &str, more: &str, port: u16) -> PathBuf {
    std::fs::write(folder.join("overlay/etc/version-of-this"), format!("{version}\n")).unwrap();
    let text = format!(
        "keller: 1\nid: {id}\nversion: {version}\n\
         include: [keller:manifests/components/base.yaml, keller:manifests/components/kernel-cloud.yaml, \
         keller:manifests/components/ssh.yaml]\n\
         users: [{{name: core, uid: 1000, groups: [sudo, systemd-journal], ssh_keys: []}}]\n{more}\
         overlays: [overlay]\n\
         kernel: {{cmdline: [\"console=ttyS0,115200\"]}}\n\
         update: {{url: \"http://10.0.2.2:{port}\", keys: keys}}\n\
         disk: {{esp: 128MiB, root: 512MiB, state: {{min: 256MiB}}}}\noutputs: [raw]\n"
    );
    std::fs::write(folder.join("node.yaml"), text).unwrap();
    run(keller().current_dir(folder).args(["build", "--quiet", "--output", ".", "node.yaml"]));
    folder.join(format!("{id}_{version}.raw"))
}

fn run(command: &mut Command) {
    let output = command.output().expect("it starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Every file below `folder`, on the web.
fn serve(server: &Server, folder: &Path, path: &str) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = format!("{path}/{}", entry.file_name().to_string_lossy());
        match entry.file_type().unwrap().is_dir() {
            true => serve(server, &entry.path(), &path),
            false => server.put(&path, std::fs::read(entry.path()).unwrap(), &[Act::Serve]),
        }
    }
}
