//! Unpacked tools.

use super::*;

#[test]
fn tools_are_looked_at_before_each_use() {
    use std::os::unix::fs::symlink;
    let (folder, store) = store();
    let request = Digest::of("request");
    let unpack = |store: &Store| {
        let unpacked = store.keep_tool::<StoreError>("qemu", &request, |tree| {
            fs::create_dir_all(tree.join("usr/bin")).unwrap();
            fs::write(tree.join("usr/bin/qemu"), "program").unwrap();
            symlink("usr/bin", tree.join("bin")).unwrap();
            Ok(())
        });
        unpacked.unwrap().folder().to_owned()
    };
    assert_eq!(tool_of(&store, "qemu", &request), None);
    let tool = unpack(&store);
    assert_eq!(tool_of(&store, "qemu", &request), Some(tool.clone()));
    assert_eq!(store.tools().unwrap(), ["qemu"]);
    assert_eq!(store.verify_tool("qemu").unwrap(), CheckedDerived::Good);
    // For another request it is made anew, and so it is for another user.
    assert_eq!(tool_of(&store, "qemu", &Digest::of("newer")), None);
    let other = opened_with(folder.path(), 8);
    assert_eq!(tool_of(&other, "qemu", &request), None);
    assert_eq!(other.verify_tool("qemu").unwrap(), CheckedDerived::Foreign);
    let program = tool.join("usr/bin/qemu");
    let changes: [&dyn Fn(); 6] = [
        &|| fs::write(&program, "proGram").unwrap(),
        &|| fs::write(tool.join("usr/bin/more"), "").unwrap(),
        &|| fs::remove_file(&program).unwrap(),
        &|| fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).unwrap(),
        &|| {
            fs::remove_file(tool.join("bin")).unwrap();
            symlink("/tmp", tool.join("bin")).unwrap();
        },
        &|| {
            fs::remove_file(&program).unwrap();
            fifo(&program);
        },
    ];
    for (at, change) in changes.iter().enumerate() {
        unpack(&store);
        change();
        assert_eq!(tool_of(&store, "qemu", &request), None, "change {at}");
        let words = store.words();
        assert!(words[0].contains("is not as keller unpacked it: the tool is unpacked anew"), "{words:?}");
        match store.verify_tool("qemu").unwrap() {
            CheckedDerived::Broken { moved_to, .. } => assert!(moved_to.exists() && !tool.exists()),
            checked => panic!("{checked:?}"),
        }
    }
    // Planted, with no seal or with that of something else.
    unpack(&store);
    fs::rename(&tool, folder.path().join("tools/other")).unwrap();
    assert_eq!(tool_of(&store, "other", &request), None);
    fs::copy(folder.path().join("tools/qemu.seal"), folder.path().join("tools/other.seal")).unwrap();
    assert_eq!(tool_of(&store, "other", &request), None);
    unpack(&store);
    assert!(tool_of(&store, "qemu", &request).is_some());
    let mut store = store;
    drop(other);
    store.gc(&BTreeSet::new(), Duration::ZERO).unwrap();
    assert!(!folder.path().join("rotten").exists());
}

#[test]
fn two_that_unpack_one_tool_at_once_both_have_it() {
    let (folder, store) = store();
    let request = Digest::of("request");
    let unpacked = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let store = opened(folder.path());
                let made = store.keep_tool::<StoreError>("qemu", &request, |tree| {
                    unpacked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    fs::write(tree.join("program"), "program").unwrap();
                    Ok(())
                });
                assert!(made.unwrap().folder().join("program").exists());
            });
        }
    });
    assert_eq!(unpacked.into_inner(), 1);
    assert_eq!(store.verify_tool("qemu").unwrap(), CheckedDerived::Good);
    assert_eq!(store.tools().unwrap(), ["qemu"]);
}

#[test]
fn tool_where_nothing_can_be_put() {
    let (folder, store) = store();
    let request = Digest::of("request");
    let unpack = |tree: &Path| {
        fs::write(tree.join("program"), "program").unwrap();
        Ok::<_, StoreError>(())
    };
    // In a place that even root cannot write.
    std::os::unix::fs::symlink("/sys/kernel", folder.path().join("tools")).unwrap();
    let tool = store.keep_tool("qemu", &request, unpack).unwrap();
    let place = tool.folder().to_owned();
    assert!(place.starts_with(std::env::temp_dir()) && place.join("program").exists());
    drop(tool);
    assert!(!place.exists());
    // Without a key: on the disk of the store, for once.
    fs::remove_file(folder.path().join("tools")).unwrap();
    let keyless = Store::open(folder.path()).unwrap();
    let tool = keyless.keep_tool("qemu", &request, unpack).unwrap();
    assert!(tool.folder().starts_with(folder.path().join("tools")) && tool.folder().join("program").exists());
    assert_eq!(keyless.tools().unwrap(), [""; 0]);
    drop(tool);
    assert_eq!(fs::read_dir(folder.path().join("tools")).unwrap().count(), 0);
    // What is in the way goes.
    fs::remove_dir(folder.path().join("tools")).unwrap();
    fs::write(folder.path().join("tools"), "planted").unwrap();
    let tool = store.keep_tool("qemu", &request, unpack).unwrap();
    assert_eq!(tool.folder(), folder.path().join("tools/qemu"));
    assert!(store.words()[0].contains("tools is not a directory, where keller has one: it is now "));
}

#[test]
fn tool_that_another_user_could_still_change_is_not_run() {
    let (_folder, store) = store();
    let request = Digest::of("request");
    let unpack = || {
        let tool = store.keep_tool::<StoreError>("qemu", &request, |tree| {
            fs::create_dir(tree.join("bin")).unwrap();
            fs::write(tree.join("bin/program"), "program").unwrap();
            Ok(())
        });
        tool.unwrap().folder().to_owned()
    };
    for name in ["bin/program", "bin", ""] {
        let tool = unpack();
        if std::os::unix::fs::chown(tool.join(name), Some(12345), None).is_err() {
            println!("SKIPPED: only root can give a file to somebody else");
            return;
        }
        assert_eq!(tool_of(&store, "qemu", &request), None, "{name:?}");
    }
}
