//! Defaults in /etc that postinst scripts write. What an overlay brought stays as it is.

use super::conf_d;
use super::error::Error;
use super::modules::ModuleIndex;
use super::users::Accounts;
use crate::boot::modprobe::{Config, normal_alias};
use crate::boot::modules::matches;
use crate::tree::{Kind, Tree, show};

/// Where Debian's libraries for amd64 are.
pub const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
/// The time zone's links and files.
const ZONES: &str = "usr/share/zoneinfo";
/// A login shell must be in /etc/shells, or chsh and ftpd refuse it: shells(5).
const SHELLS: [&str; 10] = [
    "/bin/sh",
    "/usr/bin/sh",
    "/bin/bash",
    "/usr/bin/bash",
    "/bin/rbash",
    "/usr/bin/rbash",
    "/bin/dash",
    "/usr/bin/dash",
    "/bin/zsh",
    "/usr/bin/zsh",
];
/// Where packages name their shells.
const SHELL_LISTS: &str = "usr/share/debianutils/shells.d";
const NANOSECONDS: i64 = 1_000_000_000;

/// Writes the defaults of a node.
pub fn node(tree: &mut Tree, accounts: &Accounts) -> Result<(), Error> {
    let shells: Vec<String> = accounts.people().map(|(.., user)| user.shell.clone()).collect();
    shared(tree, &shells)?;
    name_service(tree, true)?;
    default(tree, "etc/locale.conf", "LANG=C.UTF-8\n")?;
    default(
        tree,
        "etc/default/keyboard",
        "# See keyboard(5); a console without a keymap has the kernel's, US.\n",
    )?;
    default(tree, "etc/environment", "")?;
    default(tree, "etc/fstab", "# The initramfs and systemd's generators mount what there is.\n")?;
    if tree.exists("etc/modules-load.d/modules.conf") {
        // What Debian's link leads to; systemd-modules-load fails without.
        default(tree, "etc/modules", "# See modules-load.d(5).\n")?;
    }
    if tree.exists("usr/lib/systemd/systemd-resolved") && !tree.exists("etc/resolv.conf") {
        tree.symlink("etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf")?;
    }
    if !tree.exists("etc/default/locale") {
        tree.symlink("etc/default/locale", "../locale.conf")?;
    }
    // Never a name for the machine: the file is where the initramfs puts the one of the state partition.
    if !tree.exists("etc/machine-id") {
        tree.file("etc/machine-id", 0o444, "")?;
    }
    let journal = "# Kept over reboots. /init adds limits where the disk has a reserve partition.\n[Journal]\nStorage=persistent\n";
    default(tree, "usr/lib/systemd/journald.conf.d/50-keller.conf", journal)?;
    super::tmpfiles::bake_etc(tree, accounts)?;

    // systemd takes /etc for up to date, so that nothing generates files anew: systemd-update-done(8).
    let stamp = format!("TIMESTAMP_NSEC={}\n", tree.epoch * NANOSECONDS);
    tree.file("etc/.updated", 0o644, stamp)?;
    let epoch = tree.epoch;
    for path in ["usr", "etc"] {
        let id = tree.directory(path, 0o755)?;
        tree.node_mut(id).meta.mtime = epoch;
    }
    Ok(())
}

/// Writes the defaults of a container.
pub fn container(tree: &mut Tree) -> Result<(), Error> {
    shared(tree, &[])?;
    name_service(tree, false)
}

/// `people` are the shells of those who log in.
fn shared(tree: &mut Tree, people: &[String]) -> Result<(), Error> {
    default(tree, "etc/hosts", "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n")?;
    let mut shells: Vec<String> = SHELLS.map(str::to_owned).to_vec();
    for shell in shipped_shells(tree)?.iter().chain(people) {
        if !shells.contains(shell) && !shell.ends_with("/nologin") && !shell.ends_with("/false") {
            shells.push(shell.clone());
        }
    }
    shells.retain(|shell| tree.resolve(shell).is_ok());
    if !shells.is_empty() {
        default(tree, "etc/shells", &format!("{}\n", shells.join("\n")))?;
    }
    if !tree.exists("etc/localtime") && tree.exists(format!("{ZONES}/Etc/UTC")) {
        tree.symlink("etc/localtime", format!("../{ZONES}/Etc/UTC"))?;
    }
    if !tree.exists("etc/mtab") {
        tree.symlink("etc/mtab", "../proc/self/mounts")?;
    }
    Ok(())
}

/// Shells that packages name for update-shells(8), by the names of their files.
fn shipped_shells(tree: &Tree) -> Result<Vec<String>, Error> {
    let Ok(id) = tree.resolve(SHELL_LISTS) else { return Ok(Vec::new()) };
    let mut texts = Vec::new();
    for (name, id) in tree.children(id) {
        if let Kind::File(content) = &tree.node(id).kind {
            let bytes = tree.content(content, &format!("{SHELL_LISTS}/{}", show(name)))?;
            texts.push(String::from_utf8_lossy(&bytes).into_owned());
        }
    }
    let lines = texts.iter().flat_map(|text| text.lines()).map(str::trim);
    Ok(lines.filter(|line| line.starts_with('/')).map(str::to_owned).collect())
}

/// nsswitch.conf(5) for the modules that the tree has.
fn name_service(tree: &mut Tree, node: bool) -> Result<(), Error> {
    let path = |module: &str| format!("{LIBRARIES}/libnss_{module}.so.2");
    let has = |module: &str| tree.exists(path(module));
    if node && !has("systemd") {
        return Err(Error::Missing {
            what: "libnss-systemd".to_owned(),
            path: path("systemd"),
            why: "system users live in /usr/lib/userdb, which only its module reads; add it to `packages`",
        });
    }
    // `merge`: members that the userdb has of groups in /etc/group are added to those there.
    let (accounts, groups) =
        if node { ("files systemd", "files [SUCCESS=merge] systemd") } else { ("files", "files") };
    let mut hosts = vec!["files"];
    if has("resolve") {
        hosts.push("resolve [!UNAVAIL=return]");
    }
    if has("myhostname") {
        hosts.push("myhostname");
    }
    hosts.push("dns");
    let text = format!(
        "passwd: {accounts}\ngroup: {groups}\nshadow: {accounts}\ngshadow: {accounts}\n\nhosts: {}\n\
         networks: files\n\nprotocols: files\nservices: files\nethers: files\nrpc: files\n",
        hosts.join(" ")
    );
    default(tree, "etc/nsswitch.conf", &text)
}

/// Modules that are loaded at boot by name: modules-load.d(5).
///
/// # Errors
/// `UnknownModule` if no kernel of the image has it.
pub fn load_modules(tree: &mut Tree, names: &[String], kernels: &[ModuleIndex]) -> Result<(), Error> {
    let mut config = Config::default();
    for file in conf_d::files(tree, "modprobe.d")? {
        // What of it modprobe ignores is told where the initramfs is made.
        config.read(&file.path, &file.text());
    }
    let aliases = config.aliases;
    for name in names {
        // modprobe.d has further names.
        let alias = normal_alias(name);
        let renamed = alias.iter().any(|name| aliases.iter().any(|(pattern, _)| matches(pattern, name)));
        let known = |index: &ModuleIndex| renamed || index.answers(name);
        match kernels.first() {
            _ if kernels.iter().any(known) => {}
            Some(index) => return Err(index.unknown(name)),
            None => {
                let kernel = "(none)".to_owned();
                return Err(Error::UnknownModule { name: name.clone(), kernel, near: Vec::new() });
            }
        }
    }
    if !names.is_empty() {
        default(tree, "usr/lib/modules-load.d/50-keller.conf", &format!("{}\n", names.join("\n")))?;
    }
    Ok(())
}

/// Writes a file unless there is one.
pub fn default(tree: &mut Tree, path: &str, text: &str) -> Result<(), Error> {
    if !tree.exists(path) {
        tree.file(path, 0o644, text)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_service_follows_the_modules() {
        let mut tree = Tree::new(7);
        assert!(matches!(node(&mut tree, &Accounts::default()), Err(Error::Missing { .. })));
        for module in ["systemd", "resolve"] {
            tree.file(format!("{LIBRARIES}/libnss_{module}.so.2"), 0o644, "").unwrap();
        }
        tree.file("etc/hosts", 0o644, "mine").unwrap();
        node(&mut tree, &Accounts::default()).unwrap();
        let text = String::from_utf8(tree.read("etc/nsswitch.conf").unwrap()).unwrap();
        assert!(text.contains("group: files [SUCCESS=merge] systemd\n"), "{text}");
        assert!(text.contains("hosts: files resolve [!UNAVAIL=return] dns\n"), "{text}");
        assert_eq!(tree.read("etc/hosts").unwrap(), b"mine");
        assert_eq!(tree.read("etc/.updated").unwrap(), b"TIMESTAMP_NSEC=7000000000\n");
        assert!(!tree.exists("etc/hostname"));
    }
}
