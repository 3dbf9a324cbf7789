//! A version out of a repository: whose signatures count, and what else this system knows of it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::agent::settings::{Fragment, Inputs};
use crate::base::failure::Failure;
use crate::base::{input, limits};
use crate::install::{Origin, Published, Refusal, Repository, Wanted};
use crate::node::Update;
use crate::update::settings::PATH;

/// A version in a repository, as it is asked for.
#[derive(Clone, Debug)]
pub struct Asked {
    /// An address at http or https, or a directory.
    pub repository: String,
    /// A file with the root of trust; else it is that of the node.
    pub root_key: Option<PathBuf>,
    /// Which version.
    pub wanted: Wanted,
    /// Of which image.
    pub id: Option<String>,
}

impl Asked {
    /// Where the image comes from.
    ///
    /// # Errors
    /// [`Refusal::NoRootKey`]; an address that is none; files that cannot be read.
    pub fn origin(&self) -> Result<Origin> {
        self.origin_on(Path::new("/"))
    }

    /// The same on a system whose root is at `root`.
    fn origin_on(&self, root: &Path) -> Result<Origin> {
        let place = Repository::of(&self.repository)?;
        let node = node(root)?;
        let given = self.root_key.as_deref().map(read).transpose()?;
        let own = |node: &Inputs| node.root_json.clone();
        let root_json = given.or_else(|| node.as_ref().and_then(own)).ok_or(Refusal::NoRootKey)?;
        let built = node.as_ref().map(|node| &node.built);
        let settings = node.as_ref().and_then(|node| node.own.as_ref()).map(|(_, own)| own);
        Ok(Origin::Published(Box::new(Published {
            place,
            root_json,
            wanted: self.wanted.clone(),
            id: self.id.clone(),
            own: built.map(|built| (built.id.clone(), built.version.clone())),
            epoch: built.map_or(0, |built| built.epoch),
            proxy: settings.and_then(|own| own.proxy.clone()),
            authorities: settings.map(|own| own.authorities.clone()).unwrap_or_default(),
        })))
    }
}

/// Where the node of which the root is at `root`, and of whose document `update` is, takes its updates from: the newest version
/// of its image and channel.
///
/// # Errors
/// Settings that are wrong, or name no repository.
pub(super) fn of_node(root: &Path, update: Option<&Update>) -> Result<Origin> {
    let mut inputs = Inputs::read(root)?;
    if let Some(update) = update {
        // What /init has laid into /etc may be of another document.
        let (path, own) = inputs.own.unwrap_or_else(|| ("the node document".into(), Fragment::default()));
        let own = Fragment {
            url: update.url.clone().or(own.url),
            channel: update.channel.clone().or(own.channel),
            proxy: update.proxy.clone().or(own.proxy),
            ..own
        };
        inputs.own = Some((path, own));
    }
    let settings = inputs.settle()?;
    let source = settings.source.ok_or_else(|| {
        Failure::new("looking for a repository", "neither the document nor the image names one")
            .help("add `update: {url: …}` to the document")
    })?;
    Ok(Origin::Published(Box::new(Published {
        place: Repository::of(&source.url)?,
        root_json: source.root_json,
        wanted: Wanted::Newest(source.channel),
        id: Some(settings.id.clone()),
        own: Some((settings.id, settings.version)),
        epoch: settings.epoch,
        proxy: source.proxy,
        authorities: source.authorities,
    })))
}

/// What a node knows of updates; none on a system that keller did not build.
fn node(root: &Path) -> Result<Option<Inputs>> {
    Ok(root.join(PATH).exists().then(|| Inputs::read(root)).transpose()?)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    input::read(path, limits::TEXT).with_context(|| format!("reading {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn own(published: &Published) -> Option<String> {
        published.own.as_ref().map(|(id, version)| format!("{id} {version}"))
    }

    fn published(asked: &Asked, root: &Path) -> Result<Published> {
        let Origin::Published(published) = asked.origin_on(root)? else { panic!("another origin") };
        Ok(*published)
    }

    #[test]
    fn a_node_trusts_whom_it_takes_updates_from() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let asked = Asked {
            repository: "https://me:s3cret@updates.example/node".into(),
            root_key: None,
            wanted: Wanted::Newest("stable".into()),
            id: None,
        };
        let error = published(&asked, root.path()).unwrap_err();
        assert!(matches!(error.downcast_ref(), Some(Refusal::NoRootKey)), "{error}");
        assert!(error.to_string().contains("add --root-key FILE"), "{error}");
        write("key.json", "given");
        let given = Asked { root_key: Some(root.path().join("key.json")), ..asked.clone() };
        let found = published(&given, root.path()).unwrap();
        assert_eq!((&*found.root_json, found.own, found.epoch), (&b"given"[..], None, 0));

        let built = r#"{"id": "node", "version": "1.0.0", "epoch": 7, "update": null,
            "health": {"units": [], "etcd": false, "command": [], "stable_seconds": 5, "deadline_seconds": 120}}"#;
        write(PATH, built);
        assert!(published(&asked, root.path()).unwrap_err().is::<Refusal>());
        write("usr/lib/keller/root.json", "image");
        let found = published(&asked, root.path()).unwrap();
        assert_eq!(
            (&*found.root_json, own(&found), found.epoch),
            (&b"image"[..], Some("node 1.0.0".to_owned()), 7)
        );
        assert!(!format!("{found} {found:?}").contains("s3cret"), "{found} {found:?}");
        write("etc/keller/root.json", "operator");
        write("etc/keller/update.yaml", "proxy: http://proxy.example:3128\nauthorities: [/etc/ca.pem]\n");
        let found = published(&asked, root.path()).unwrap();
        assert_eq!(
            (&*found.root_json, found.proxy.as_deref()),
            (&b"operator"[..], Some("http://proxy.example:3128"))
        );
        assert_eq!(found.authorities, [PathBuf::from("/etc/ca.pem")]);
        let found = published(&given, root.path()).unwrap();
        assert_eq!((&*found.root_json, own(&found)), (&b"given"[..], Some("node 1.0.0".to_owned())));
        let directory = Asked { repository: "out/repository".into(), ..asked };
        assert_eq!(published(&directory, root.path()).unwrap().place.to_string(), "out/repository");
    }
}
