//! `keller cluster authority`: other authorities for a cluster that runs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use super::live::days;
use crate::cli::{Global, streams};
use crate::cluster::View;
use crate::project::cluster::{Did, Replace, Replaced, Stage};

/// Arguments of `keller cluster authority`.
#[derive(Debug, Args)]
pub struct AuthorityArgs {
    /// The directory that `init` made.
    directory: PathBuf,
    /// Begin although the authorities are good for more than a year, as where a key has become known.
    #[arg(long)]
    begin: bool,
    /// Go on without this member, which is gone for good or off; repeatable. One that answers is waited for all the same.
    #[arg(long, value_name = "NAME")]
    without: Vec<String>,
    /// Say what would be done, and write nothing.
    #[arg(long)]
    dry_run: bool,
}

/// Runs it.
pub(super) fn run(args: &AuthorityArgs, global: &Global) -> Result<ExitCode> {
    let replace = Replace {
        directory: args.directory.clone(),
        begin: args.begin,
        without: args.without.clone(),
        now: Timestamp::now().as_second(),
    };
    let replaced = match args.dry_run {
        true => replace.try_run(&View::of)?,
        false => replace.run(&View::of)?,
    };
    match global.json {
        true => streams::json(json!({
            "cluster": replaced.cluster, "step": step(&replaced), "did": replaced.did, "dry_run": args.dry_run,
            "wrote": replaced.wrote, "members": replaced.members, "clients": replaced.clients,
            "missing": replaced.missing, "unsigned": replaced.unsigned, "behind": replaced.behind,
            "days": days(replaced.ends, replace.now),
        }))?,
        false if global.quiet => {}
        false => streams::print(shown(&replaced, &replace, args.dry_run))?,
    }
    Ok(if replaced.behind.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Of three; nothing where none is under way.
fn step(replaced: &Replaced) -> u8 {
    match (replaced.stage, replaced.did) {
        (Stage::Next, _) => 1,
        (Stage::Last, _) => 2,
        (Stage::Alone, Did::Advanced | Did::Finished) => 3,
        (Stage::Alone, Did::Nothing | Did::Waits) => 0,
    }
}

fn shown(replaced: &Replaced, replace: &Replace, dry_run: bool) -> String {
    let Replaced { cluster, .. } = replaced;
    let days = days(replaced.ends, replace.now);
    let mut lines = vec![match step(replaced) {
        1 => format!("{cluster}, step 1 of 3: the new authorities are believed beside the old ones"),
        2 => format!("{cluster}, step 2 of 3: the new authorities sign, and the old ones are still believed"),
        3 => format!("{cluster}, step 3 of 3: the new authorities are believed alone"),
        _ => format!("{cluster}: the authorities that sign end in {days} days"),
    }];
    if replaced.did == Did::Finished {
        lines.push("an earlier run was cut off in this step: what was missing is done".to_owned());
    }
    let wrote = if dry_run { "would write" } else { "wrote" };
    lines.extend(replaced.wrote.iter().map(|path| format!("{wrote} {}", path.display())));
    lines.extend(replaced.missing.iter().map(|name| {
        format!(
            "! no document of {name} is here: `keller cluster issue {} --member {name}` makes one, with the cluster's part \
             alone (--client {name} for a client)",
            replace.directory.display()
        )
    }));
    let unsigned = replaced.unsigned.iter();
    lines.extend(unsigned.map(|path| format!("! sign {} again: `keller node sign`", path.display())));
    match replaced.did {
        Did::Advanced | Did::Finished => lines.extend(next(replaced, replace)),
        Did::Nothing | Did::Waits => lines.extend(waits(replaced, replace)),
    }
    lines.join("\n") + "\n"
}

/// What is to be done before the next step.
fn next(replaced: &Replaced, replace: &Replace) -> Vec<String> {
    let order = match replaced.stage {
        Stage::Last => "etcd goes on: in any order",
        Stage::Next | Stage::Alone => {
            "etcd starts over: one after the other, each when the one before works again"
        }
    };
    let mut lines = vec![String::new(), format!("next, on each member ({order}):")];
    lines.extend(applied(&replaced.members));
    if !replaced.clients.is_empty() {
        lines.push("and on each client, which cannot be asked later whether it has it:".to_owned());
        lines.extend(applied(&replaced.clients));
    }
    let operator = replace.directory.join("operator");
    lines.push(format!("copies of {} that lie elsewhere: replace them", operator.display()));
    let again = format!("keller cluster authority {}", replace.directory.display());
    lines.push(match replaced.stage {
        Stage::Next | Stage::Last => format!("then: {again}"),
        Stage::Alone => {
            format!("then nothing is left to do; `{again}` names members that still believe the old ones")
        }
    });
    lines
}

fn applied(documents: &BTreeMap<String, PathBuf>) -> Vec<String> {
    let width = documents.keys().map(|name| name.chars().count()).max().unwrap_or_default();
    let line = |(name, path): (&String, &PathBuf)| {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        format!("  {name:width$}  sudo keller node apply {file}      from {}", path.display())
    };
    documents.iter().map(line).collect()
}

fn waits(replaced: &Replaced, replace: &Replace) -> Vec<String> {
    if replaced.behind.is_empty() {
        return vec!["nothing is to be done before a year is left; --begin replaces them sooner".to_owned()];
    }
    let mut lines = vec![match replaced.did {
        Did::Waits => "not all members are as far, and nothing was done:".to_owned(),
        _ => "not all members show that they believe them alone:".to_owned(),
    }];
    lines.extend(replaced.behind.iter().map(|lag| format!("  {}: {}", lag.member, lag.why)));
    let answering: BTreeMap<String, PathBuf> = replaced
        .members
        .iter()
        .filter(|(name, _)| replaced.behind.iter().any(|lag| lag.answers && lag.member == **name))
        .map(|(name, path)| (name.clone(), path.clone()))
        .collect();
    if !answering.is_empty() {
        lines.push("next:".to_owned());
        lines.extend(applied(&answering));
        lines.push(
            "where this was done, `journalctl -u keller-etcd-certificates` there says what it waits for"
                .to_owned(),
        );
    }
    if replaced.behind.iter().any(|lag| !lag.answers) {
        lines.push(format!(
            "one that is gone for good: `keller cluster remove NAME --operator {}`, or go on with --without NAME, after \
             which it is not believed before it has its new document",
            replace.directory.join("operator").display()
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::view::{Role, Seen};
    use crate::etcd::Error;
    use crate::project::cluster::Init;

    /// A cluster of which nobody answers.
    fn silent() -> View {
        let endpoint = ([10, 0, 0, 1], 2379).into();
        let error = Error::Unreachable { endpoint, cause: "Connection refused".to_owned() };
        let a = Seen {
            name: "a".to_owned(),
            id: None,
            endpoint: Some(endpoint),
            peer_urls: Vec::new(),
            role: Role::Unknown,
            is_new: false,
            answer: Some(Err(error)),
        };
        View {
            name: "rack1".to_owned(),
            id: None,
            members: vec![a],
            alarms: Vec::new(),
            requests: Vec::new(),
            certificates: Vec::new(),
            leader: None,
        }
    }

    #[test]
    fn each_step_says_what_comes_next() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("rack1");
        let init = Init {
            name: "rack1".to_owned(),
            members: vec![("a".to_owned(), [10, 0, 0, 1].into())],
            clients: vec!["w1".to_owned()],
            with: None,
            directory: directory.clone(),
            now: 1_800_000_000,
        };
        init.run().unwrap();
        let run = |begin: bool, is_without: bool, dry_run: bool| {
            let without = if is_without { vec!["a".to_owned()] } else { Vec::new() };
            let replace = Replace { directory: directory.clone(), begin, without, now: init.now };
            let replaced = match dry_run {
                true => replace.try_run(&|_| silent()).unwrap(),
                false => replace.run(&|_| silent()).unwrap(),
            };
            shown(&replaced, &replace, dry_run).replace(&format!("{}/", home.path().display()), "")
        };
        let off = "  a: 10.0.0.1:2379 cannot be reached: Connection refused\n\
                   one that is gone for good: `keller cluster remove NAME --operator rack1/operator`, or go on with \
                   --without NAME, after which it is not believed before it has its new document\n";
        assert_eq!(
            run(false, false, false),
            format!(
                "rack1: the authorities that sign end in 3653 days\nnot all members show that they believe them alone:\n{off}"
            )
        );
        let first = "rack1, step 1 of 3: the new authorities are believed beside the old ones\n\
                     wrote rack1/authority.next.pem\n\
                     wrote rack1/peer-authority.next.pem\n\
                     wrote rack1/a.yaml\n\
                     wrote rack1/w1.yaml\n\
                     wrote rack1/operator/ca.pem\n\
                     wrote rack1/operator/peer-ca.pem\n\n\
                     next, on each member (etcd starts over: one after the other, each when the one before works again):\n  \
                     a  sudo keller node apply a.yaml      from rack1/a.yaml\n\
                     and on each client, which cannot be asked later whether it has it:\n  \
                     w1  sudo keller node apply w1.yaml      from rack1/w1.yaml\n\
                     copies of rack1/operator that lie elsewhere: replace them\n\
                     then: keller cluster authority rack1\n";
        assert_eq!(run(true, true, true), first.replace("wrote", "would write"));
        assert!(!directory.join("authority.next.pem").exists());
        assert_eq!(run(true, true, false), first);
        assert_eq!(
            run(false, false, false),
            format!(
                "rack1, step 1 of 3: the new authorities are believed beside the old ones\n\
                 not all members are as far, and nothing was done:\n{off}"
            )
        );
        let second = run(false, true, false);
        assert!(second.starts_with("rack1, step 2 of 3: the new authorities sign"), "{second}");
        assert!(second.contains("(etcd goes on: in any order)"), "{second}");
        let third = run(false, true, false);
        assert!(third.starts_with("rack1, step 3 of 3: the new authorities are believed alone\n"), "{third}");
        assert!(third.ends_with("names members that still believe the old ones\n"), "{third}");
        let last = run(false, true, false);
        assert!(
            last.ends_with("nothing is to be done before a year is left; --begin replaces them sooner\n"),
            "{last}"
        );
    }
}
