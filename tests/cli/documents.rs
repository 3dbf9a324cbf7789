//! `keller node` on a workstation: documents that are signed, and images that take no others.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use keller::base::Digest;
use keller::base::progress::Silent;
use keller::project::install::{DocumentOrigin, Install, Origin, Target};

use super::project::Project;
use crate::judges::tool::{run, tool};

const DOCUMENT: &str = "node: 1\nname: a\nmatch: {serial: S1}\n---\nnode: 1\nname: b\n";

#[test]
fn each_document_of_a_file_is_signed_and_openssl_agrees() {
    let project = Project::new();
    project.run(&["node", "keygen", "rack"]).good();
    let mode = |name: &str| fs::metadata(project.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("rack.pem"), 0o600);
    let again = project.run(&["node", "keygen", "rack"]);
    assert!(again.error().contains("rack.pem is there already"), "{}", again.err);
    project.run(&["node", "keygen", "other"]).good();

    project.write("doc.yaml", DOCUMENT);
    fs::set_permissions(project.path("doc.yaml"), fs::Permissions::from_mode(0o640)).unwrap();
    let unsigned = project.run(&["node", "check", "--key", "rack.pub", "doc.yaml"]);
    assert!(unsigned.error().ends_with("document a, for serial S1: it is not signed"), "{}", unsigned.err);
    project.run(&["node", "sign", "--key", "rack.pem", "doc.yaml"]).good();
    project.run(&["node", "check", "--key", "other.pub", "--key", "rack.pub", "doc.yaml"]).good();
    assert_eq!(mode("doc.yaml"), 0o640);
    let signed = fs::read_to_string(project.path("doc.yaml")).unwrap();
    assert_eq!(signed.lines().filter(|line| line.starts_with("# signed: ")).count(), 2, "{signed}");
    // Once is enough, and a second key is beside the first.
    project.run(&["node", "sign", "--key", "rack.pem", "doc.yaml"]).good();
    assert_eq!(fs::read_to_string(project.path("doc.yaml")).unwrap(), signed);
    project.run(&["node", "sign", "--key", "other.pem", "--out", "both.yaml", "doc.yaml"]).good();
    for key in ["rack.pub", "other.pub"] {
        project.run(&["node", "check", "--key", key, "both.yaml"]).good();
    }
    project.write("changed.yaml", signed.replace("name: b", "name: c"));
    let changed = project.run(&["node", "check", "--key", "rack.pub", "changed.yaml"]);
    assert!(changed.error().contains("document c, for any machine: it was changed after"), "{}", changed.err);
    let open = project.run(&["node", "sign", "--key", "rack.pub", "doc.yaml"]);
    assert!(open.error().contains("rack.pub has mode 0644, so that others can read"), "{}", open.err);
    fs::set_permissions(project.path("other.pub"), fs::Permissions::from_mode(0o600)).unwrap();
    let wrong = project.run(&["node", "sign", "--key", "other.pub", "doc.yaml"]);
    assert!(wrong.error().contains("other.pub is no private key"), "{}", wrong.err);

    let (Some(mut decode), Some(mut verify)) = (tool("base64"), tool("openssl")) else { return };
    let (body, line) = signed.split_once("# signed: ").unwrap();
    project.write("body", body);
    project.write("signature.base64", line.lines().next().unwrap());
    let bytes = decode.arg("-d").arg(project.path("signature.base64")).output().unwrap().stdout;
    fs::write(project.path("signature"), bytes).unwrap();
    run(verify
        .current_dir(project.path(""))
        .args(["pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", "rack.pub", "-in", "body"])
        .args(["-sigfile", "signature"]));
}

/// As far as a document alone tells, and then as far as its image does.
#[test]
fn something_has_to_vouch_for_a_document_that_is_fetched() {
    let project = Project::new();
    project.run(&["node", "keygen", "node/rack"]).good();
    let text = |more: &str| {
        format!(
            "node: 1\ninstall: {{disk: serial=S1, document: {{url: \"http://d.example/n.yaml\"{more}}}}}\n"
        )
    };
    let public = project.text("node/rack.pub");
    let (key, digest) = (public.lines().nth(1).unwrap(), Digest::of("n").to_hex());
    let alone = "(no name), for any machine: nothing wrong, provided that the image has `node: keys`, since nothing else vouches";
    for (more, said) in [
        (String::new(), alone),
        (format!(", sha256: {digest}"), "(no name), for any machine: nothing wrong\n"),
        (format!(", keys: [{key}]"), "(no name), for any machine: nothing wrong\n"),
        (format!(", keys: [{public:?}], sha256: {digest}"), "(no name), for any machine: nothing wrong\n"),
    ] {
        project.write("doc.yaml", text(&more));
        let out = project.run(&["node", "check", "doc.yaml"]).good().out;
        assert!(out.starts_with(said), "{more}: {out}");
    }
    for (from, to, said) in [
        ("n.yaml", "${host}.yaml", "this has the unknown placeholder `${host}`"),
        ("d.example", "${serial}.example", "this has a placeholder before its path"),
        ("http://d", "ftp://me:s3cret@d", "this is no address at http or https"),
        (
            "n.yaml\"",
            &format!("${{mac}}?s3cret\", sha256: {digest}"),
            "the address has a placeholder, and `sha256`",
        ),
        ("\"}", "\", sha256: 12}", "`12` is no SHA-256"),
        ("\"}", "\", keys: [AAAA]}", "`AAAA` is no public key"),
    ] {
        project.write("doc.yaml", text("").replace(from, to));
        let ran = project.run(&["node", "check", "doc.yaml"]);
        assert!(ran.code == Some(1) && ran.err.contains(said) && !ran.err.contains("s3cret"), "{}", ran.err);
    }
    project.write("doc.yaml", "node: 1\ninstall: {then: stay}\n");
    let ran = project.run(&["node", "check", "doc.yaml"]);
    assert!(ran.err.contains("doc.yaml:2:10: `install` does not say which disk"), "{}", ran.err);

    project.edit("runtime: podman", "outputs: [netboot]\nruntime: podman");
    project.write("doc.yaml", text(""));
    let ran = project.build(&["--install", "doc.yaml"]);
    let said = "error: --install doc.yaml: nothing vouches for the node document that is fetched: ";
    assert!(ran.error().starts_with(said), "{}", ran.err);
    project.write("doc.yaml", text(&format!(", keys: [{key}]")));
    project.build(&["--install", "doc.yaml"]).good();
    project.edit("runtime: podman", "node: {keys: [rack.pub]}\nruntime: podman");
    project.write("doc.yaml", text(""));
    project.run(&["node", "sign", "--key", "node/rack.pem", "doc.yaml"]).good();
    project.build(&["--install", "doc.yaml"]).good();
}

#[test]
fn an_image_says_who_may_give_a_document() {
    let project = Project::new();
    project.run(&["node", "keygen", "node/rack"]).good();
    let words = "outputs: [raw, netboot]\nnode: {sources: [SOURCES], keys: [rack.pub]}\nruntime: podman";
    project.edit("runtime: podman", words);
    project.write("doc.yaml", "node: 1\nname: a\ninstall: {disk: serial=S1}\n");
    for (sources, said) in [
        ("smbios", "no node of this image would read it: `node.sources` of the manifest has no `initramfs`"),
        ("smbios, initramfs", "what is installed would not get its document: add `esp` to `node.sources`"),
        ("initramfs, esp", "--install doc.yaml: document a: it is not signed; this image takes only"),
    ] {
        project.edit("SOURCES", sources);
        let ran = project.build(&["--install", "doc.yaml"]);
        assert!(ran.error().contains(said), "{}", ran.err);
        project.edit(&format!("[{sources}]"), "[SOURCES]");
    }
    project.edit("SOURCES", "smbios, initramfs");
    project.run(&["node", "sign", "--key", "node/rack.pem", "doc.yaml"]).good();
    project.write("diskless.yaml", "node: 1\nname: diskless\n");
    project.run(&["node", "sign", "--key", "node/rack.pem", "diskless.yaml"]).good();
    project.build(&["--install", "diskless.yaml"]).good();

    let install = |document: &str| {
        File::create(project.path("disk")).unwrap().set_len(400 << 20).unwrap();
        project.run(&["install", "--document", document, "node/out/tiny_1.2.3.raw", "disk"])
    };
    let ran = install("doc.yaml");
    assert!(ran.error().contains("a node of this image reads no document from its ESP"), "{}", ran.err);
    project.edit("smbios, initramfs", "initramfs, esp");
    project.build(&["--install", "doc.yaml"]).good();
    project.write("own.yaml", "node: 1\nname: own\n");
    let ran = install("own.yaml");
    assert!(
        ran.error().contains("the node document own: it is not signed; this image takes only"),
        "{}",
        ran.err
    );
    // A machine by itself has taken it from places that are signed each, and made one of it.
    let unattended = Install {
        image: Origin::File(project.path("node/out/tiny_1.2.3.raw")),
        sha256: None,
        target: Target::Path(project.path("disk")),
        wipe: None,
        keep_state: false,
        only_state: false,
        document: Some(DocumentOrigin::File(project.path("own.yaml"))),
        document_sha256: None,
        boot_entry: true,
        unattended: true,
    };
    let error = unattended.run(&|| Ok(Arc::default()), &Silent).unwrap_err().to_string();
    assert!(
        error.starts_with("the node document of this machine is put together from several places"),
        "{error}"
    );
    assert!(fs::read(project.path("disk")).unwrap().iter().all(|byte| *byte == 0));
    install("doc.yaml").good();
    // Another key is another image.
    project.run(&["node", "keygen", "node/next"]).good();
    fs::rename(project.path("node/next.pub"), project.path("node/rack.pub")).unwrap();
    let ran = project.build(&["--locked"]);
    assert!(ran.error().contains("node keys"), "{}", ran.err);
}
