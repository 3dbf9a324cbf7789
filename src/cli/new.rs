//! `keller init`: a project to begin with.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use clap::Args;

use super::{Global, streams};
use crate::base::json;
use crate::manifest::embedded;

/// Writes a starter project: a manifest, an overlay, a README with the next commands
///
/// The manifest uses the components that keller carries. With --copy they are written out too, to be edited;
/// they then no longer change with keller.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  keller init my-node             then: cd my-node && keller run
  keller init --copy my-node      with all components and overlays as files
  keller init --id edge .         into this directory, as the image `edge`")]
pub struct Init {
    /// Directory to write into; made when missing
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
    /// Name of the image; without one, the directory's name
    #[arg(long)]
    pub id: Option<String>,
    /// Writes out the components and overlays that keller carries
    #[arg(long)]
    pub copy: bool,
    /// Writes into a directory that is not empty; files in the way are replaced
    #[arg(long)]
    pub force: bool,
}

/// What is written, with `{{ID}}` and `{{CARRIED}}` to be filled in.
const FILES: [(&str, &str); 4] = [
    ("node.yaml", include_str!("starter/node.yaml")),
    ("README.md", include_str!("starter/README.md")),
    ("overlay/etc/motd", include_str!("starter/overlay/etc/motd")),
    // A leading dot would hide it in keller's own tree.
    (".gitignore", include_str!("starter/gitignore")),
];

/// Runs `keller init`.
pub fn run(args: Init, global: &Global) -> anyhow::Result<ExitCode> {
    let folder = &args.folder;
    let id = match &args.id {
        Some(id) => id.clone(),
        None => name_of(folder)?,
    };
    ensure!(
        crate::manifest::is_id(&id),
        "{id:?} cannot be the name of an image: use a-z, 0-9 and `-`, beginning with a letter, with --id"
    );
    if !args.force && fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()) {
        bail!("{} is not empty; --force writes into it all the same", folder.display());
    }
    let carried = if args.copy { "" } else { "keller:manifests/" };
    for (path, text) in FILES {
        write(folder, path, text.replace("{{ID}}", &id).replace("{{CARRIED}}", carried).as_bytes(), false)?;
    }
    if args.copy {
        copy_carried(folder)?;
    }
    let shown = folder.display();
    match global.json {
        true => streams::json(
            serde_json::json!({ "id": id, "manifest": json::text_of(&folder.join("node.yaml")) }),
        )?,
        false if global.quiet => {}
        false => streams::print(format_args!(
            "wrote {shown}/node.yaml, an overlay and a README\n\nnext:\n  \
            keller check {shown}/node.yaml\n  keller run {shown}/node.yaml\n"
        ))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn name_of(folder: &Path) -> anyhow::Result<String> {
    let whole = std::path::absolute(folder).with_context(|| format!("finding {}", folder.display()))?;
    let name = whole.components().next_back().map(|part| part.as_os_str().to_string_lossy().into_owned());
    let name = name.filter(|name| name != "/").unwrap_or_else(|| "node".to_owned());
    Ok(name.to_ascii_lowercase().replace(['_', ' ', '.'], "-"))
}

/// Writes the components as they are and the overlays one level nearer, beside the manifest.
fn copy_carried(folder: &Path) -> anyhow::Result<()> {
    for file in embedded::files() {
        let path = match file.path.strip_prefix("manifests/") {
            Some("node.yaml") => continue,
            Some(path) => path,
            None => file.path,
        };
        if file.path.starts_with("manifests/") {
            let text = String::from_utf8_lossy(file.bytes).replace("../../overlays/", "../overlays/");
            write(folder, path, text.as_bytes(), false)?;
        } else {
            write(folder, path, file.bytes, file.executable)?;
        }
    }
    Ok(())
}

fn write(folder: &Path, path: &str, bytes: &[u8], executable: bool) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.join(path);
    let parent = path.parent().unwrap_or(folder);
    fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
    fs::write(&path, bytes).with_context(|| format!("writing {}", path.display()))?;
    if executable {
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(&path, mode).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_writes_passes_the_check() {
        for copy in [false, true] {
            let parent = tempfile::tempdir().unwrap();
            let folder = parent.path().join("My_Node");
            let args = || Init { folder: folder.clone(), id: None, copy, force: false };
            let quiet = Global { quiet: true, verbose: false, json: false };
            run(args(), &quiet).unwrap();
            let manifest = crate::manifest::load(&folder.join("node.yaml")).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(manifest.id, "my-node");
            assert!(run(args(), &quiet).unwrap_err().to_string().contains("--force"));
            run(Init { force: true, ..args() }, &quiet).unwrap();
        }
    }
}
