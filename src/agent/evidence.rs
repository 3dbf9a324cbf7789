//! Why a version fell back: what its boots have left in the journal, what the kernel has left in the firmware's
//! memory, and what was not healthy.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use serde::Deserialize;

use super::health;
use super::record::FOLDER;
use super::systemd;
use super::trial::{Start, Trial};
use crate::base::atomic;

/// Where systemd-pstore puts what kernels that panicked have left.
const PSTORE: &str = "/var/lib/systemd/pstore";
/// Of each failed boot, the last lines that are errors.
const LINES: &str = "20";
/// Boots that are looked at: more than any entry has tries.
const BOOTS: usize = 8;
/// Stories of versions that fell back that are kept, the newest of them.
const STORIES: usize = 8;
/// Most that is kept of a story, in bytes: eight boots of twenty lines, and what kernels have left.
const STORY: usize = 256 << 10;
/// What a kernel left that is older than this is about something else.
const RECENT: Duration = Duration::from_secs(24 * 3600);

#[derive(Debug, Deserialize)]
struct Boot {
    boot_id: String,
}

/// One line on why `version` fell back, which was made ready in the boot `since`. The whole story goes into a
/// file, which the line names.
pub(super) fn why(version: &str, since: Option<&str>, this_boot: &str) -> String {
    let mut reasons = Vec::new();
    let mut story = format!("{version} fell back.\n");
    let failed = failed_boots(&list_boots(), since, this_boot);
    // What an earlier trial of the same version left tells nothing of this one.
    let is_of_this = |trial: &Trial| since.is_none() || trial.made_ready.as_deref() == since;
    let trial = Trial::load(version).filter(is_of_this).unwrap_or_default();
    let is_recent = |boot: &String| failed.is_empty() || failed.contains(boot);
    match health::last_bad().filter(|verdict| verdict.version == version && is_recent(&verdict.boot)) {
        _ if !trial.starts.is_empty() => reasons.push(reason(&trial)),
        Some(verdict) => reasons.push(format!("not healthy in time: {}", verdict.missing.join("; "))),
        None => {}
    }
    trial.starts.iter().for_each(|start| tell(start, &mut story));
    for boot in &failed {
        let mut journal = Command::new("journalctl");
        journal.args(["--no-pager", "--priority=3", "--lines", LINES, "--output=short-iso", "--boot", boot]);
        // What comes after the judgement is the noise of a restart.
        if let Some(start) = trial.starts.iter().find(|start| start.boot == *boot) {
            journal.arg(format!("--until=@{}", start.at));
        }
        let text = systemd::output(&mut journal).unwrap_or_default();
        story.push_str(&format!("\nBoot {boot}, errors in the journal:\n{text}"));
    }
    for (name, text) in kernel_logs() {
        if let Some(line) = text.lines().find(|line| line.contains("Kernel panic")) {
            reasons.push(line.split("] ").last().unwrap_or(line).trim().to_owned());
        }
        story.push_str(&format!("\n{PSTORE}/{name}, from the kernel:\n{text}\n"));
    }
    if reasons.is_empty() {
        reasons.push(match failed.len() {
            0 => "its boots left no journal, so they ended early".to_owned(),
            1 => "a boot of it ended without being good".to_owned(),
            count => format!("{count} boots of it ended without being good"),
        });
    }
    let reason = reasons.join("; ");
    match write(Path::new(FOLDER), version, &story, &reason) {
        Ok(file) => format!("{reason} (more in {})", file.display()),
        Err(_) => reason,
    }
}

/// Writes the story of `version`, cut where it is too long, and removes the oldest ones; says where it is.
fn write(directory: &Path, version: &str, story: &str, reason: &str) -> io::Result<PathBuf> {
    let file = directory.join(format!("fallback-{version}.txt"));
    let end = story.floor_char_boundary(STORY);
    let cut = if end < story.len() { "\n(the rest is left out)\n" } else { "" };
    atomic::write(&file, format!("{}{cut}\n{reason}\n", &story[..end]))?;
    let mut stories: Vec<(SystemTime, PathBuf)> = fs::read_dir(directory)?
        .flatten()
        .filter(|entry| entry.path() != file && is_story(&entry.file_name().to_string_lossy()))
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    stories.sort();
    for (_, path) in stories.iter().rev().skip(STORIES - 1) {
        fs::remove_file(path)?;
    }
    Ok(file)
}

fn is_story(name: &str) -> bool {
    name.starts_with("fallback-") && name.ends_with(".txt")
}

/// What the last start that was judged says, with the unit's own line.
fn reason(trial: &Trial) -> String {
    let Some(start) = trial.starts.last() else { return String::new() };
    let Some(fallen) = &start.fallen else {
        return format!("not healthy in time: {}", start.missing.join("; "));
    };
    let own =
        start.said.iter().find(|said| said.unit == fallen.culprit()).and_then(|said| said.own.as_deref());
    let times = match trial.alike() {
        1 => String::new(),
        count => format!(" on {count} starts"),
    };
    let own = own.map(|own| format!(": {own}")).unwrap_or_default();
    format!("{fallen}{times}{own}")
}

/// A start and what its units said, for the story.
fn tell(start: &Start, story: &mut String) {
    story.push_str(&format!("\nBoot {}, not good:\n", start.boot));
    start.missing.iter().for_each(|line| story.push_str(&format!("  {line}\n")));
    for said in &start.said {
        story.push_str(&format!("the last lines of {}:\n", said.unit));
        said.lines.iter().for_each(|line| story.push_str(&format!("  {line}\n")));
    }
}

fn list_boots() -> Vec<String> {
    let mut command = Command::new("journalctl");
    let text = systemd::output(command.args(["--list-boots", "--no-pager", "--output=json"]));
    let boots: Vec<Boot> = serde_json::from_str(&text.unwrap_or_default()).unwrap_or_default();
    boots.into_iter().map(|boot| boot.boot_id).collect()
}

/// Those after the boot that made the version ready and before this one; `boots` has the oldest first.
fn failed_boots(boots: &[String], since: Option<&str>, this_boot: &str) -> Vec<String> {
    let after =
        since.and_then(|since| boots.iter().position(|boot| boot == since)).map_or(boots.len(), |at| at + 1);
    let failed: Vec<String> =
        boots[after..].iter().filter(|boot| *boot != this_boot).take(BOOTS).cloned().collect();
    failed
}

/// What kernels have left lately: names and texts, the newest first.
fn kernel_logs() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(PSTORE).to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            let age = meta.modified().ok().and_then(|time| SystemTime::now().duration_since(time).ok());
            if meta.is_dir() {
                folders.push(entry.path());
            } else if age.is_some_and(|age| age < RECENT)
                && let Ok(text) = fs::read(entry.path())
            {
                let name = entry.path().strip_prefix(PSTORE).map(|path| path.display().to_string());
                found.push((age, name.unwrap_or_default(), String::from_utf8_lossy(&text).into_owned()));
            }
        }
    }
    found.sort();
    found.into_iter().map(|(_, name, text)| (name, text)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::said::Said;
    use crate::agent::units::Fallen;
    use crate::base::width::to_u64;

    #[test]
    fn the_units_own_line_is_the_reason() {
        let said = Said {
            unit: "web.service".to_owned(),
            own: Some("cannot open /data".to_owned()),
            lines: vec!["web: cannot open /data".to_owned(), "systemd: web.service: Failed".to_owned()],
        };
        let fallen = Fallen {
            unit: "web.service".to_owned(),
            needs: None,
            how: Some("exited with status 3".to_owned()),
        };
        let start = |boot: &str| Start {
            boot: boot.to_owned(),
            at: 7,
            missing: vec!["web.service is failed (exit-code): cannot open /data".to_owned()],
            fallen: Some(fallen.clone()),
            said: vec![said.clone()],
        };
        let mut trial = Trial { version: "2".to_owned(), made_ready: None, starts: vec![start("b")] };
        assert_eq!(reason(&trial), "web.service exited with status 3: cannot open /data");
        trial.starts.push(start("c"));
        assert_eq!(reason(&trial), "web.service exited with status 3 on 2 starts: cannot open /data");
        trial.starts[1].fallen = None;
        assert_eq!(
            reason(&trial),
            "not healthy in time: web.service is failed (exit-code): cannot open /data"
        );
        let mut story = String::new();
        tell(&trial.starts[0], &mut story);
        assert_eq!(
            story,
            "\nBoot b, not good:\n  web.service is failed (exit-code): cannot open /data\n\
             the last lines of web.service:\n  web: cannot open /data\n  systemd: web.service: Failed\n"
        );
    }

    #[test]
    fn stories_take_little_room() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("state.json"), "{}").unwrap();
        for version in 0..2 * STORIES {
            let file = write(directory.path(), &format!("1.{version}"), &"ü".repeat(STORY), "why").unwrap();
            let text = fs::read_to_string(&file).unwrap();
            assert!(text.len() < STORY + 100 && text.ends_with("(the rest is left out)\n\nwhy\n"));
            // The next one is newer by the clock of the file system too.
            let old = SystemTime::UNIX_EPOCH + Duration::from_secs(to_u64(version));
            fs::File::options().write(true).open(&file).unwrap().set_modified(old).unwrap();
        }
        let names = fs::read_dir(directory.path()).unwrap().flatten();
        let mut names: Vec<String> =
            names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        let kept = (STORIES..2 * STORIES).map(|version| format!("fallback-1.{version}.txt"));
        let mut kept: Vec<String> = kept.chain(["state.json".to_owned()]).collect();
        kept.sort();
        assert_eq!(names, kept);
    }

    #[test]
    fn boots_between_the_update_and_now_have_failed() {
        let boots: Vec<String> = ["a", "b", "c", "d"].map(str::to_owned).to_vec();
        assert_eq!(failed_boots(&boots, Some("a"), "d"), ["b", "c"]);
        assert_eq!(failed_boots(&boots, Some("c"), "d"), Vec::<String>::new());
        assert_eq!(failed_boots(&boots, Some("x"), "d"), Vec::<String>::new());
        assert_eq!(failed_boots(&boots, None, "d"), Vec::<String>::new());
    }
}
