//! The manifests and overlays that the binary carries, so that it works without a checkout.

/// One file; folders are implied. In an overlay every file belongs to root, with mode 0755 or 0644.
#[derive(Clone, Copy, Debug)]
pub struct File {
    /// Relative to the set's root: `manifests/…`, `overlays/…` or `qemu/…`.
    pub path: &'static str,
    /// Whether it may be executed.
    pub executable: bool,
    /// Its content.
    pub bytes: &'static [u8],
}

/// All of them, sorted by path; made by build.rs.
static FILES: &[File] = &include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

/// All files, sorted by path.
pub fn files() -> &'static [File] {
    FILES
}

/// The file at `path`.
pub fn file(path: &str) -> Option<&'static File> {
    FILES.iter().find(|file| file.path == path)
}

/// All files below `folder`.
pub fn under(folder: &str) -> impl Iterator<Item = &'static File> {
    let folder = format!("{}/", folder.trim_end_matches('/'));
    FILES.iter().filter(move |file| file.path.starts_with(&folder))
}

/// The files of an overlay by its name; each path is relative to the node's root, without a leading `/`.
pub fn overlay(name: &str) -> impl Iterator<Item = (&'static str, &'static File)> {
    let folder = format!("overlays/{name}/");
    FILES.iter().filter_map(move |file| file.path.strip_prefix(&folder).map(|path| (path, file)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carries_what_the_default_needs() {
        assert!(file("manifests/node.yaml").is_some());
        assert!(under("manifests/components").count() >= 5);
        assert!(overlay("base").any(|(path, _)| path.starts_with("usr/lib/")));
    }
}
