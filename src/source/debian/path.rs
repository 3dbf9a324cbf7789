//! Paths of files in an archive, as its release and its indexes have them.

/// `path` below a root, without what stands for nothing in it: a slash or `./` before it, as archives of some
/// tools have it, and doubled slashes. None if it leads elsewhere.
pub(crate) fn below(path: &str) -> Option<String> {
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    let fine =
        !parts.is_empty() && !parts.contains(&"..") && !path.contains(['\\', '\0']) && !path.ends_with('/');
    fine.then(|| parts.join("/"))
}
