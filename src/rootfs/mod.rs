//! Packages, overlays, users and units become one tree.
//!
//! [`finish`] takes the merged tree of a node and does everything that the packages' maintainer scripts
//! would have done, by itself: nothing of the tree is executed. What an overlay brought is kept. Every
//! fix-up is a function of the tree and its arguments alone.

pub mod alternatives;
pub mod base_files;
pub mod certificates;
pub mod checks;
pub mod conf_d;
pub mod containers;
pub mod dangling;
pub mod error;
pub mod etc_defaults;
pub mod ldcache;
pub mod links;
pub mod modules;
pub mod os_release;
pub mod packages;
pub mod pam;
pub mod pruned;
pub mod services;
pub mod ssh;
pub mod state;
pub mod text;
pub mod tmpfiles;
pub mod users;

use crate::lock::Ids;
use crate::manifest::{Manifest, Recipe, User};
use crate::store::Store;
use crate::tree::Tree;

pub use error::Error;
pub use modules::ModuleIndex;
pub use services::Enabled;
pub use users::{Accounts, Wanted};

/// What a finished root says of its build, besides the manifest.
#[derive(Clone, Debug)]
pub struct BuildInfo {
    /// Version of the keller that builds.
    pub keller: String,
}

/// What was done to a tree.
#[derive(Debug)]
pub struct Report {
    /// Each kernel's modules, by release; for the initramfs too.
    pub kernels: Vec<ModuleIndex>,
    /// What starts and what never does.
    pub services: Enabled,
}

/// Numbers for the accounts of a tree that leave theirs open, to be locked; `previous` stays as it is. The accounts of a
/// node and of its containers are locked together; only a node has `people`.
pub fn ids(tree: &Tree, people: &[User], recipe: &Recipe, previous: &Ids) -> Result<Ids, Error> {
    users::allocate(&Wanted::collect(tree, people, &recipe.system_users, &recipe.groups)?, previous)
}

/// The accounts of a tree, with the numbers of `ids`: whose files are may be said before [`finish`] moves them.
pub fn accounts(tree: &Tree, people: &[User], recipe: &Recipe, ids: &Ids) -> Result<Accounts, Error> {
    Wanted::collect(tree, people, &recipe.system_users, &recipe.groups)?.with_ids(ids)
}

/// Finishes the root of a node. The tree has all packages and overlays, pruned, with their owners, who are among
/// `accounts`; `store` remembers what is slow to read.
pub fn finish(
    tree: &mut Tree,
    manifest: &Manifest,
    accounts: &Accounts,
    build: &BuildInfo,
    store: Option<&Store>,
) -> Result<Report, Error> {
    users::passwd::write(tree, accounts, |class| class == users::Class::Static)?;
    users::userdb::write(tree, accounts)?;

    base_files::folders(tree)?;
    os_release::write(tree, &manifest.id, &manifest.version, &build.keller)?;
    alternatives::write(tree)?;
    pam::write(tree)?;
    certificates::write(tree)?;
    ssh::write(tree, accounts)?;

    let kernels: Vec<ModuleIndex> = modules::kernels(tree)
        .iter()
        .map(|kernel| ModuleIndex::read(tree, kernel, store))
        .collect::<Result<_, _>>()?;
    for index in &kernels {
        modules::write(tree, index)?;
    }
    etc_defaults::load_modules(tree, &manifest.kernel.load, &kernels)?;

    let services = services::write(tree, &manifest.services, &|unit| manifest.may_lack(unit))?;

    // While /usr/local and /opt are directories, as they are to the loader of a node that has booted.
    ldcache::write(tree)?;

    // After this, nothing below may look into a folder that is a link to the state partition.
    let homes: Vec<String> = manifest.recipe.system_users.iter().map(|user| user.name.clone()).collect();
    state::write(tree, accounts, &homes)?;
    tmpfiles::empty_var(tree)?;
    etc_defaults::node(tree, accounts)?;
    Ok(Report { kernels, services })
}

/// Finishes the root of a container: accounts in /etc, no kernel, no units, its /var as packages ship it.
pub fn finish_container(tree: &mut Tree, recipe: &Recipe, accounts: &Accounts) -> Result<(), Error> {
    users::passwd::write(tree, accounts, |_| true)?;
    base_files::container_folders(tree)?;
    base_files::homes(tree, accounts, &recipe.system_users)?;
    alternatives::write(tree)?;
    pam::write(tree)?;
    certificates::write(tree)?;
    ldcache::write(tree)?;
    etc_defaults::container(tree)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::SystemUser;

    #[test]
    fn a_container_has_its_accounts_in_etc() {
        let mut tree = Tree::new(86_400 * 20_000);
        tree.file("usr/bin/busybox", 0o755, "").unwrap();
        tree.file("usr/lib/sysusers.d/a.conf", 0o644, "u www - - /var/www\n").unwrap();
        let recipe = Recipe {
            system_users: vec![SystemUser {
                name: "app".into(),
                uid: Some(300),
                home: "/var/lib/app".into(),
                groups: vec!["www".into()],
                description: String::new(),
            }],
            ..Recipe::default()
        };
        let ids = ids(&tree, &[], &recipe, &Ids::default()).unwrap();
        let accounts = accounts(&tree, &[], &recipe, &ids).unwrap();
        finish_container(&mut tree, &recipe, &accounts).unwrap();
        let read = |path: &str| String::from_utf8(tree.read(path).unwrap()).unwrap();
        assert!(read("etc/passwd").contains("app:x:300:300::/var/lib/app:/usr/sbin/nologin\n"));
        assert!(read("etc/group").contains("www:x:949:app\n"), "{}", read("etc/group"));
        assert!(read("etc/nsswitch.conf").contains("passwd: files\n"));
        let home = &tree.node(tree.lookup("var/lib/app").unwrap()).meta;
        assert_eq!((home.uid, home.mode), (300, 0o700));
        assert!(tree.resolve("bin/sh").is_ok());
        assert!(!tree.exists("usr/lib/userdb"));
    }
}
