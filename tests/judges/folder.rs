//! Trees from and to folders, for judges that read folders.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;

use keller::tree::{Content, Kind, Meta, Tree};

/// The files, links and folders below `folder`, bodies left on disk.
pub fn load(folder: &Path) -> Tree {
    let mut tree = Tree::new(1_700_000_000);
    load_into(&mut tree, folder, "");
    tree
}

fn load_into(tree: &mut Tree, folder: &Path, prefix: &str) {
    let origin = tree.origin("folder");
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let stat = entry.metadata().unwrap();
        let path = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        let meta = Meta::new((stat.mode() & 0o7777) as u16).owned(stat.uid(), stat.gid()).at(stat.mtime());
        let kind = if stat.is_dir() {
            Kind::Directory(Default::default())
        } else if stat.is_symlink() {
            Kind::Symlink(fs::read_link(entry.path()).unwrap().into_os_string().into_encoded_bytes())
        } else if stat.is_file() {
            let file = Arc::new(File::open(entry.path()).unwrap());
            Kind::File(Content::Slice { file, offset: 0, len: stat.len() })
        } else {
            continue;
        };
        tree.put(&path, meta, kind, origin).unwrap();
        if stat.is_dir() {
            load_into(tree, &entry.path(), &format!("{path}/"));
        }
    }
}

/// Writes the files, links and folders of `tree` below `folder`, owners and times aside.
pub fn store(tree: &Tree, folder: &Path) {
    for (path, id) in tree.walk() {
        let node = tree.node(id);
        let place = folder.join(std::str::from_utf8(&path).unwrap());
        match &node.kind {
            Kind::Directory(_) => fs::create_dir_all(&place).unwrap(),
            Kind::Symlink(target) => symlink(std::str::from_utf8(target).unwrap(), &place).unwrap(),
            Kind::File(content) => {
                fs::write(&place, content.to_vec().unwrap()).unwrap();
                fs::set_permissions(&place, fs::Permissions::from_mode(u32::from(node.meta.mode))).unwrap();
            }
            _ => {}
        }
    }
}
