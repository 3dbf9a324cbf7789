//! The documents of a container's image: JSON of many small values. This is where the limit on their bytes was measured.

use super::repositories::costly;
use super::{layout_of, refusal, within};
use crate::cli::elf;
use crate::cli::project::Project;
use crate::deb::{file, tar};

/// An image in an OCI layout with this configuration.
fn configured(project: &Project, config: &str) {
    let layer = zstd::encode_all(tar(&[file("x", &elf::program())]).as_slice(), 1).unwrap();
    layout_of(project, &[layer], config);
}

#[test]
fn documents_that_cost_more_than_their_bytes() {
    let project = Project::new();
    for (config, said) in [
        (
            format!(r#"{{"config":{{"Cmd":["/x"]}},"x":{}}}"#, costly(3 << 20)),
            "more than 200000 values, the most that are read",
        ),
        (format!(r#"{{"config":{{"Cmd":[{}"/x"]}}}}"#, r#""","#.repeat(900_000)), "more than 200000 values"),
        ("[".repeat(1 << 20), "recursion limit exceeded"),
        (
            r#"{"config":{"Cmd":["/x"],"User":"1","User":"0"}}"#.to_owned(),
            "\"User\" stands twice in one object",
        ),
    ] {
        configured(&project, &config);
        let told = refusal(&project, &[]);
        assert!(told.contains("blobs/sha256/") && told.contains(said), "{told}");
    }
    // As many as there may be, in each of the forms that are read.
    let many = |text: &str| text.repeat(190_000);
    for config in [
        format!(r#"{{"config":{{"Cmd":["/x"],"Env":[{}"A=B"]}}}}"#, many(r#""A=B","#)),
        format!(r#"{{"config":{{"Cmd":["/x"]}},"history":[{}0]}}"#, many("0,")),
        format!(r#"{{"config":{{"Cmd":["/x"]}},"x":{}}}"#, costly(7 * 95_000)),
    ] {
        configured(&project, &config);
        within(&mut project.build_command(&[]));
    }
}
