//! A trial on a real mirror. Not part of the suite: run it by hand with KELLER_MIRROR set or apt sources.
//!
//! `cargo test --test main -- --ignored --nocapture lock::network`; the list of packages comes from the file
//! that TRIAL_PACKAGES names, those assumed from TRIAL_ASSUME, one name a line.

use std::path::Path;
use std::time::Instant;

use keller::base::progress::Silent;
use keller::http::{Client, Settings};
use keller::lock::archives::Archives;
use keller::lock::file::to_text;
use keller::lock::online::Online;
use keller::lock::resolve::{Update, resolve};
use keller::source::apt;
use keller::source::mirror::Mirrors;
use keller::store::Store;

use super::{manifest, whole};

fn lines(variable: &str) -> Vec<String> {
    let path = std::env::var(variable).unwrap_or_else(|_| panic!("{variable} names no file"));
    std::fs::read_to_string(path).unwrap().split_whitespace().map(str::to_owned).collect()
}

#[test]
#[ignore = "needs a mirror"]
fn resolves_a_node_from_a_mirror() {
    let (packages, assume) = (lines("TRIAL_PACKAGES"), lines("TRIAL_ASSUME"));
    let mut wanted = manifest(
        &packages.iter().map(String::as_str).collect::<Vec<_>>(),
        &assume.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    wanted.debian.updates = true;
    let client = Client::new(Settings::of_host()).unwrap();
    let sources = || apt::sources(Path::new(keller::http::apt::FOLDER), &client);
    let mirrors = Mirrors::find(None, &wanted.debian, sources).unwrap();
    let archives = Archives::of(&wanted, &mirrors).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let network = Online { client: &client, store: &store };
    let now = jiff::Timestamp::now().as_second();
    for pass in ["first", "again"] {
        let begin = Instant::now();
        match resolve(&wanted, &archives, &network, None, &Update::All, now, &Silent) {
            Ok(lock) => {
                let size: u64 = lock.packages.values().map(|package| package.size).sum();
                println!("{pass}: {} packages, {size} bytes, {:?}", lock.packages.len(), begin.elapsed());
                if let Ok(path) = std::env::var("TRIAL_LOCK") {
                    std::fs::write(path, to_text(&whole(lock))).unwrap();
                }
            }
            Err(error) => panic!("{pass}: {:?}\n{}", begin.elapsed(), super::chain(&error)),
        }
    }
}
