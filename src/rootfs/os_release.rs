//! os-release(5): what the image is, and which Debian it is made of.

use super::error::Error;
use crate::tree::Tree;

const PATH: &str = "usr/lib/os-release";

/// Replaces Debian's file by the image's. Debian's version stays visible in PRETTY_NAME and in the
/// DEBIAN_ fields. The host name is only a default, so that DHCP or a credential can set another.
pub fn write(tree: &mut Tree, id: &str, version: &str, keller: &str) -> Result<(), Error> {
    let debian = match tree.exists(PATH) {
        true => String::from_utf8_lossy(&tree.read(PATH)?).into_owned(),
        false => String::new(),
    };
    let field = |name: &str| {
        let line = debian.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.map(|value| value.trim_matches(['"', '\'']).to_owned()).filter(|value| !value.is_empty())
    };
    let codename = field("VERSION_CODENAME");
    let number = field("DEBIAN_VERSION_FULL").or_else(|| field("VERSION_ID"));
    let made_of = match (&number, &codename) {
        (Some(number), _) => format!("Debian {number}"),
        (None, Some(codename)) => format!("Debian {codename}"),
        (None, None) => "Debian".to_owned(),
    };
    let mut text = format!(
        "NAME=\"keller\"\nID=keller\nID_LIKE=debian\nPRETTY_NAME=\"{id} {version} (keller, {made_of})\"\n\
         VERSION=\"{version}\"\nVERSION_ID=\"{version}\"\nIMAGE_ID=\"{id}\"\nIMAGE_VERSION=\"{version}\"\n\
         DEFAULT_HOSTNAME=\"{id}\"\nKELLER_VERSION=\"{keller}\"\n"
    );
    if let Some(codename) = codename {
        text += &format!("VERSION_CODENAME={codename}\nDEBIAN_CODENAME={codename}\n");
    }
    if let Some(number) = number {
        text += &format!("DEBIAN_VERSION_FULL={number}\n");
    }
    tree.file(PATH, 0o644, text)?;
    tree.symlink("etc/os-release", "../usr/lib/os-release")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_image_and_debian() {
        let mut tree = Tree::new(0);
        let debian = "NAME=\"Debian GNU/Linux\"\nVERSION_ID=\"13\"\nVERSION_CODENAME=trixie\nDEBIAN_VERSION_FULL=13.7\n";
        tree.file(PATH, 0o644, debian).unwrap();
        write(&mut tree, "node", "1.2.0", "0.1.0").unwrap();
        let text = String::from_utf8(tree.read("etc/os-release").unwrap()).unwrap();
        assert!(text.contains("PRETTY_NAME=\"node 1.2.0 (keller, Debian 13.7)\"\n"), "{text}");
        assert!(text.contains("IMAGE_VERSION=\"1.2.0\"\n") && text.contains("VERSION_CODENAME=trixie\n"));
    }
}
