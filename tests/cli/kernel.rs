//! What belongs to the kernel, as a user meets it: modules, microcode, modprobe.d.

use super::archive::{KERNEL, Package};
use super::project::Project;

/// An update as Intel's files begin.
fn update() -> Vec<u8> {
    let mut bytes = vec![0; 2048];
    (bytes[0], bytes[20]) = (1, 1);
    bytes
}

/// The project with further packages in its archive and its manifest.
fn with(packages: &[Package]) -> Project {
    let mut project = Project::new();
    for package in packages {
        project.archive.add(package);
        project.edit("greeter]", &format!("greeter, {}]", package.name));
    }
    project.publish();
    project
}

#[test]
fn a_microcode_package_means_microcode_in_the_boot_image() {
    let project = with(&[Package::new("intel-microcode", "3.1")
        .file("usr/lib/firmware/intel-ucode/06-55-04", update())
        .file("etc/modprobe.d/intel-microcode-blacklist.conf", "blacklist microcode\n")]);
    project.build(&[]).good();
    let report = project.json("node/out/build.json");
    assert_eq!(report["microcode"], 4096, "in whole blocks");
    let ran = project.run(&["inspect", "--json", "node/out/tiny_1.2.3.raw"]).good();
    let found: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(found["entries"][0]["microcode"], serde_json::json!({"GenuineIntel.bin": 2048}));
    let ran = project.run(&["inspect", "node/out/tiny_1.2.3.raw"]).good();
    assert!(ran.out.contains("  ucode    GenuineIntel.bin, 2.0 KiB\n"), "{}", ran.out);

    project.edit("/usr/share/doc]", "/usr/share/doc, /usr/lib/firmware]");
    let ran = project.build(&[]);
    assert!(
        ran.error().contains(
            "intel-microcode is among the packages, but /usr/lib/firmware/intel-ucode has no microcode for the \
             boot image: `keep` it from `prune`, or leave the package out"
        ),
        "{}",
        ran.err
    );
}

#[test]
fn a_module_needs_what_was_pruned() {
    let module = |depends: &str| super::elf::module(&[depends], &[], &[]);
    let folder = format!("usr/lib/modules/{KERNEL}/kernel");
    let project = with(&[Package::new("linux-extra-tiny", "6.12-1")
        .file(&format!("{folder}/drivers/gpu/i915.ko"), module("depends=cec,rc-core,ext4"))
        .file(&format!("{folder}/drivers/media/cec.ko"), module("depends="))
        .file(&format!("{folder}/drivers/media/rc-core.ko"), module("depends=cec"))]);
    project.build(&[]).good();

    let media = format!("/{folder}/drivers/media");
    project.edit("/usr/share/doc]", "/usr/share/doc, \"/usr/lib/modules/*/kernel/drivers/media\"]");
    // Said where nobody asks for the module, and an error where somebody does.
    let ran = project.build(&[]).good();
    let note = ran.err.clone();
    project.edit("kernel: {cmdline: [quiet]", "kernel: {load: [i915], cmdline: [quiet]");
    let ran = project.build(&[]);
    for text in [&note, ran.error()] {
        for needs in ["cec", "rc-core"] {
            let line =
                format!("/{folder}/drivers/gpu/i915.ko needs {media}/{needs}.ko, which `prune` takes away");
            assert!(text.contains(&line), "{text}");
        }
        assert!(!text.contains("ext4.ko") && text.contains("put what they need into `keep`"), "{text}");
    }
    project.edit("overlays:", &format!("keep: [{media}]\noverlays:"));
    project.build(&[]).good();

    project.edit(&format!("keep: [{media}]"), &format!("keep: [{media}/cec.ko]"));
    let error = project.build(&[]).error().to_owned();
    assert!(
        error.contains("needs") && error.contains("rc-core.ko, which") && !error.contains("cec.ko, which")
    );
    // Asked for by name.
    for (field, name) in [("load", "rc-core"), ("initramfs_modules", "rc_core")] {
        project.edit("load: [i915], cmdline: [quiet]", &format!("{field}: [{name}], cmdline: [quiet]"));
        let ran = project.build(&[]);
        let expected = format!("kernel.{field} names {name}, but `prune` takes {media}/rc-core.ko away");
        assert!(ran.error().contains(&expected), "{}", ran.err);
        project.edit(&format!("{field}: [{name}], cmdline: [quiet]"), "load: [i915], cmdline: [quiet]");
    }
    project.edit("load: [i915], ", "");
    project.edit(&format!("keep: [{media}/cec.ko]"), "keep: []");
    project.edit("media\"]", "media\", \"/usr/lib/modules/*/kernel/drivers/gpu\"]");
    project.build(&[]).good();
}

#[test]
fn an_overlay_brings_a_pruned_module_back() {
    let module = super::elf::module(&["depends="], &[], &[]);
    let extra = format!("usr/lib/modules/{KERNEL}/kernel/extra");
    let package = Package::new("linux-extra-tiny", "6.12-1");
    let project = with(&[package.file(&format!("{extra}/patched.ko"), module.clone())]);
    project.edit("/usr/share/doc]", &format!("/usr/share/doc, /{extra}]"));
    project.edit("kernel: {cmdline", "kernel: {load: [patched], cmdline");
    let told = project.build(&[]).error().to_owned();
    assert!(told.contains("kernel.load names patched, but `prune` takes /usr"), "{told}");

    let folder = format!("node/overlay/usr/lib/modules/{KERNEL}/updates");
    std::fs::create_dir_all(project.path(&folder)).unwrap();
    project.write(&format!("{folder}/patched.ko"), &module);
    project.build(&[]).good();

    // An entry of `files` does it as well.
    std::fs::remove_file(project.path(&format!("{folder}/patched.ko"))).unwrap();
    project.write("node/patched.ko", &module);
    let entry = format!("  - {{path: /{extra}/patched.ko, source: patched.ko}}\nservices:");
    project.edit("services:", &entry);
    project.build(&[]).good();
}

#[test]
fn modprobe_d_is_read_and_what_has_no_effect_is_said() {
    let conf = "options virtio-blk queue_depth=17\nbogus\ninstall virtio_blk /usr/bin/greet && true\n";
    let project = with(&[Package::new("tuning", "1").file("usr/lib/modprobe.d/tuning.conf", conf)]);
    let ran = project.build(&[]).good();
    for line in [
        "/usr/lib/modprobe.d/tuning.conf:2: modprobe ignores this line: bogus",
        "/usr/lib/modprobe.d/tuning.conf:3: `install virtio_blk /usr/bin/greet && true` holds on the running node only",
    ] {
        assert!(ran.err.contains(line), "{}", ran.err);
    }
    project.write("node/overlay/etc/motd", "install overlay /bin/true\n");
    let overlay = project.path("node/overlay/etc/modprobe.d");
    std::fs::create_dir_all(&overlay).unwrap();
    std::fs::write(overlay.join("cis.conf"), "install overlay /bin/true\n").unwrap();
    let ran = project.build(&[]);
    assert!(
        ran.error().contains(
            "`install overlay /bin/true` (/etc/modprobe.d/cis.conf:1) keeps the module from being loaded, but /init needs it \
             for /etc"
        ),
        "{}",
        ran.err
    );
}

#[test]
fn what_the_first_boot_would_not_find_in_usr_local_is_an_error() {
    let local = "usr/local/lib/tmpfiles.d/theirs.conf";
    let project = with(&[Package::new("tuning", "1").file(local, "d /etc/theirs\n")]);
    let ran = project.build(&[]).good();
    assert!(
        ran.err.contains(&format!(
            "/{local} (tuning) is not there when a node reads it at its first boot: /usr/local leads to the state \
             partition, which is blank then: the build leaves it out of account; a copy in /etc/tmpfiles.d (`overlays` \
             or `files`) counts"
        )),
        "{}",
        ran.err
    );
    // Accounts are made by the build.
    let folder = project.path("node/overlay/usr/local/lib/sysusers.d");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("a.conf"), "u local 400\n").unwrap();
    project.build(&[]).good();
    let files = [
        ("modprobe.d", "mine.conf"),
        ("tmpfiles.d", "mine.conf"),
        ("sysctl.d", "mine.conf"),
        ("modules-load.d", "mine.conf"),
        ("binfmt.d", "mine.conf"),
        ("udev/rules.d", "mine.rules"),
        ("systemd/network", "lan.network"),
        ("systemd/network", "lan.network.d/mine.conf"),
        ("systemd/system", "mine.service"),
        ("systemd/system", "greet.service.d/mine.conf"),
        ("systemd/journald.conf.d", "mine.conf"),
    ];
    for (name, file) in files {
        let path = format!("/usr/local/lib/{name}/{file}");
        let place = project.path(&format!("node/overlay{path}"));
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::fs::write(&place, "# mine\n").unwrap();
        let ran = project.build(&[]);
        let told = format!("put it into /usr/lib/{name} or /etc/{name}");
        assert!(
            ran.error().contains(&format!("{path} (overlay overlay) is not there"))
                && ran.error().contains(&told),
            "{}",
            ran.err
        );
        std::fs::remove_file(&place).unwrap();
    }
    // What sessions read is in time, and what nothing reads is nobody's.
    for path in ["environment.d/mine.conf", "systemd/user/mine.service", "sysctl.d/README"] {
        let place = project.path(&format!("node/overlay/usr/local/lib/{path}"));
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::fs::write(&place, "# mine\n").unwrap();
    }
    project.build(&[]).good();
}

#[test]
fn firmware_that_a_module_of_the_initramfs_declares_goes_along() {
    let info =
        ["alias=pci:v00008086d00001D60sv*", "firmware=isci/isci_firmware.bin", "firmware=isci/none.bin"];
    let module = super::elf::module(&info, &[], &[]);
    let project = with(&[Package::new("linux-extra-tiny", "6.12-1")
        .file(&format!("usr/lib/modules/{KERNEL}/kernel/drivers/scsi/isci.ko"), module)
        .file("usr/lib/firmware/isci/isci_firmware.bin", "of the controller")]);
    let ran = project.build(&["-v"]).good();
    assert!(
        ran.err.contains("the initramfs has firmware of its modules, 17 B: isci/isci_firmware.bin"),
        "{}",
        ran.err
    );
    let carried = ran.err;
    assert!(carried.contains("may ask for: isci/none.bin (isci)"), "{carried}");

    // Named by the manifest, what is missing is said without being asked.
    project.edit("kernel: {cmdline: [quiet]", "kernel: {initramfs_modules: [isci], cmdline: [quiet]");
    let ran = project.build(&[]).good();
    assert!(ran.err.contains("may ask for: isci/none.bin (isci)"), "{}", ran.err);
    // Other bytes make another initramfs: none is taken from the store.
    let size = |project: &Project| project.json("node/out/build.json")["root_hash"].to_string();
    let before = size(&project);
    std::fs::create_dir_all(project.path("node/overlay/usr/lib/firmware/isci")).unwrap();
    project.write("node/overlay/usr/lib/firmware/isci/none.bin", "it is there");
    let ran = project.build(&[]).good();
    assert!(!ran.err.contains("may ask for") && size(&project) != before, "{}", ran.err);
}

#[test]
fn words_of_the_command_line_reach_the_kernel_as_they_are() {
    let project = Project::new();
    let cmdline =
        |project: &Project| project.json("node/out/build.json")["cmdline"].as_str().unwrap().to_owned();
    project.edit(
        "[quiet]",
        "['dyndbg=\"file a.c +p\"', '\"x=a b\"', 'name=Käse', 'la=à', 'a=', \"b=it's\", quiet]",
    );
    project.build(&[]).good();
    // The kernel takes a byte of `à` for a blank.
    let expected = " dyndbg=\"file a.c +p\" x=\"a b\" name=Käse la=\"à\" a= b=it's quiet";
    assert!(cmdline(&project).ends_with(expected), "{}", cmdline(&project));

    project.edit("name=Käse", "name=\"Käse");
    let told = project.build(&[]).error().to_owned();
    assert!(told.contains("node/node.yaml:18:") && told.contains("leaves a quote open"), "{told}");
    project.edit("name=\"Käse", &format!("x={}", "ä".repeat(1000)));
    let told = project.build(&[]).error().to_owned();
    assert!(told.contains("but the kernel takes 2047 at most"), "{told}");
}

#[test]
fn modules_and_parameters_without_an_effect_are_told() {
    let module = super::elf::module(
        &["parm=depth:how deep", "parmtype=io-mode:int", "alias=fs-tiny", "depends="],
        &[],
        &[],
    );
    let folder = format!("usr/lib/modules/{KERNEL}");
    let project = with(&[Package::new("linux-extra-tiny", "6.12-1")
        .file(&format!("{folder}/kernel/fs/tiny-fs.ko"), module)
        .file(
            "usr/lib/modprobe.d/a.conf",
            "alias my-fs tiny_fs\noptions tiny_fs depth=1 deph=2 io_mode=3 dyndbg=+p\n",
        )]);
    let before = "kernel: {cmdline: [quiet]";
    let words = "tiny_fs.io-mode=1, tiny-fs.bad=2, other.x=1";
    project.edit(before, &format!("kernel: {{load: [tiny-fs, fs-tiny, my-fs, ext4], cmdline: [{words}]"));
    let told = project.build(&[]).good().err;
    for said in [
        format!("kernel.load names ext4, which kernel {KERNEL} has built in: there is nothing to load"),
        "module tiny_fs is given the parameter deph, which it does not have".to_owned(),
        "the kernel ignores it; did you mean depth?".to_owned(),
        "given the parameter bad,".to_owned(),
    ] {
        assert!(told.contains(&said), "{said} is not in {told}");
    }
    for good in ["depth,", "io_mode,", "dyndbg,", "module other"] {
        assert!(!told.contains(good), "{good} is in {told}");
    }
    project.edit("my-fs,", "your-fs,");
    assert!(project.build(&[]).error().contains("has no module your-fs"));
}
