//! Where tests keep what is large: gone once its test has passed, so that a whole run needs no more of the disk than
//! what is in use at the moment.

use std::fs::{self, File};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use keller::output::raw;

/// Failed tests of one run that leave their directories to be looked at. An image has some hundred MiB.
const KEPT: usize = 3;

/// A directory of one test. It is removed with the value, but for those of the first failed tests of a run.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    kept: &'static AtomicUsize,
}

impl Scratch {
    /// The directory `name`, empty: what an earlier run left there is removed.
    pub fn new(name: &str) -> Self {
        static OF_THIS_RUN: AtomicUsize = AtomicUsize::new(0);
        Self::within(Path::new(env!("CARGO_TARGET_TMPDIR")), name, &OF_THIS_RUN)
    }

    fn within(parent: &Path, name: &str, kept: &'static AtomicUsize) -> Self {
        let path = parent.join(name);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self { path, kept }
    }

    /// The image at `path`, which is in this directory.
    pub fn into_disk(self, path: PathBuf) -> Disk {
        assert!(path.starts_with(&self.path), "{} is elsewhere", path.display());
        Disk { path, _scratch: self }
    }
}

impl Deref for Scratch {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::thread::panicking() && self.kept.fetch_add(1, Ordering::SeqCst) < KEPT {
            eprintln!("{} is left as it was when its test failed", self.path.display());
            return;
        }
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// An image, with all that keller puts beside it, in a [`Scratch`] of its own.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
    _scratch: Scratch,
}

impl Disk {
    /// A copy of `image` that the test `name` may change. It shares its blocks with `image` where the file system can
    /// do that, and otherwise has holes where `image` has holes or zeros.
    pub fn copy(image: &Path, name: &str) -> Self {
        let scratch = Scratch::new(&format!("{name}.disk"));
        let path = scratch.join(format!("{name}.raw"));
        raw::copy(&File::open(image).unwrap(), &File::create(&path).unwrap()).unwrap();
        scratch.into_disk(path)
    }
}

impl Deref for Disk {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

impl AsRef<std::ffi::OsStr> for Disk {
    fn as_ref(&self) -> &std::ffi::OsStr {
        self.path.as_os_str()
    }
}

impl AsRef<Path> for Disk {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}

#[test]
fn what_passed_is_removed_and_some_of_what_failed_is_kept() {
    static FAILED: AtomicUsize = AtomicUsize::new(0);
    let parent = tempfile::tempdir().unwrap();
    let disk = |name: &str| {
        let scratch = Scratch::within(parent.path(), name, &FAILED);
        let path = scratch.join("x.raw");
        fs::write(&path, "image").unwrap();
        fs::write(path.with_extension("uefi-vars"), "variables").unwrap();
        scratch.into_disk(path)
    };
    let names = || {
        let names = fs::read_dir(parent.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    };
    drop(disk("passed"));
    assert!(names().is_empty(), "{:?}", names());
    std::thread::scope(|scope| {
        for number in 0..KEPT + 2 {
            let disk = &disk;
            let failed = scope.spawn(move || {
                let _disk = disk(&format!("failed-{number}"));
                std::panic::resume_unwind(Box::new("as a test that fails"));
            });
            assert!(failed.join().is_err());
        }
    });
    assert_eq!(names(), ["failed-0", "failed-1", "failed-2"]);
    // The next run begins anew.
    drop(disk("failed-0"));
    assert_eq!(names(), ["failed-1", "failed-2"]);
}

#[test]
fn a_copy_is_equal_and_has_the_holes() {
    use std::os::unix::fs::{FileExt, MetadataExt};
    let from = Scratch::new("copied-from");
    let from = from.join("x.raw");
    let file = File::create_new(&from).unwrap();
    file.set_len(64 << 20).unwrap();
    file.write_all_at(&[7; 5000], 3 << 20).unwrap();
    file.write_all_at(&vec![0; 8 << 20], 16 << 20).unwrap();
    let copy = Disk::copy(&from, "copied-to");
    let metadata = copy.metadata().unwrap();
    assert!(metadata.len() == 64 << 20 && metadata.blocks() * 512 < 8 << 20, "{metadata:?}");
    assert!(fs::read(&*copy).unwrap() == fs::read(&from).unwrap());
}
