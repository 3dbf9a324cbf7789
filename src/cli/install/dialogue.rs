//! `keller install` by hand: which disk, what may be lost, and whether to go on, asked on a terminal.

use std::io::{self, BufRead, IsTerminal, Read};

use anyhow::{Context, Result, bail};

use crate::base::Size;
use crate::base::terminal::one_line;
use crate::cli::streams;
use crate::project::install::{self, Choice, Install, Target};

/// Most bytes of an answer.
const ANSWER: u64 = 256;

/// How often an answer that does not do is asked for again.
const TRIES: usize = 5;

/// A person at a terminal.
pub(super) trait Talk {
    /// Shows `text`.
    fn say(&mut self, text: &str) -> Result<()>;
    /// Asks, and gives the line that is typed, without blanks around it; nothing at the end of input.
    fn ask(&mut self, question: &str) -> Result<Option<String>>;
}

/// Whether there is one: both ways lead to a terminal.
pub(super) fn is_there() -> bool {
    io::stdin().is_terminal() && streams::output_is_terminal()
}

/// The one that this process has.
pub(super) struct Terminal;

impl Talk for Terminal {
    fn say(&mut self, text: &str) -> Result<()> {
        Ok(streams::print(format_args!("{text}\n"))?)
    }

    fn ask(&mut self, question: &str) -> Result<Option<String>> {
        streams::print(question)?;
        read(&mut io::stdin().lock())
    }
}

/// A line of `input`. What is longer than an answer can be is read to its end, and is no answer.
fn read(input: &mut impl BufRead) -> Result<Option<String>> {
    let mut next = || -> Result<Vec<u8>> {
        let mut line = Vec::new();
        input.by_ref().take(ANSWER).read_until(b'\n', &mut line).context("reading the answer")?;
        Ok(line)
    };
    let line = next()?;
    let mut end = line.clone();
    while end.last() != Some(&b'\n') {
        // The end of input within a line is no answer, either.
        if end.is_empty() {
            return Ok(None);
        }
        end = next()?;
    }
    let is_whole = line.last() == Some(&b'\n');
    Ok(Some(if is_whole { String::from_utf8_lossy(&line).trim().to_owned() } else { String::new() }))
}

/// Asks for what `install` does not say: the disk, and what may be lost of it. `look` gives all disks, before the questions
/// and once more after them. Nothing where nobody wants to go on.
///
/// # Errors
/// A disk that has changed in between, one that is not named as it has to be, and what the terminal or /sys say.
pub(super) fn hold(
    talk: &mut dyn Talk,
    install: &Install,
    look: &dyn Fn() -> Result<Vec<Choice>>,
) -> Result<Option<Install>> {
    let disks = look()?;
    if disks.is_empty() {
        bail!("{}", install::numbered(&disks));
    }
    talk.say(&shown(&install::numbered(&disks)))?;
    let Some(chosen) = chosen(talk, &disks)? else { return Ok(None) };
    let path = chosen.path();
    let wipe = match (&install.wipe, chosen.to_type()) {
        _ if install.keep_state => None,
        (Some(wipe), _) => Some(wipe.clone()),
        // What comes onto it until it is written is refused then.
        (None, None) => None,
        (None, Some(name)) => match named(talk, chosen, &name)? {
            Some(typed) => Some(typed),
            None => return Ok(None),
        },
    };
    talk.say(&planned(install, chosen))?;
    let answer = talk.ask("Write this disk? Type yes to go on: ")?;
    if answer.is_none_or(|answer| !answer.eq_ignore_ascii_case("yes")) {
        return Ok(None);
    }
    if !look()?.contains(chosen) {
        bail!("{path} is not as it was when it was shown: nothing was written; start again");
    }
    Ok(Some(Install { target: Target::Path(path.into()), wipe, ..install.clone() }))
}

/// `text` line by line as a terminal may have it.
fn shown(text: &str) -> String {
    text.lines().map(|line| one_line(line).into_owned()).collect::<Vec<_>>().join("\n")
}

fn chosen<'a>(talk: &mut dyn Talk, disks: &'a [Choice]) -> Result<Option<&'a Choice>> {
    for _ in 0..TRIES {
        let question = format!("Which disk? Type its number in the first column, 1 to {}: ", disks.len());
        let Some(answer) = talk.ask(&question)? else { return Ok(None) };
        let number = answer.parse::<usize>().ok().and_then(|number| number.checked_sub(1));
        let Some(disk) = number.and_then(|index| disks.get(index)) else {
            talk.say(&format!(
                "{:?} is no number of a disk above",
                answer.chars().take(40).collect::<String>()
            ))?;
            continue;
        };
        match disk.refused() {
            None => return Ok(Some(disk)),
            Some(refusal) => talk.say(&one_line(&refusal))?,
        }
    }
    bail!("no disk was chosen after {TRIES} answers: nothing was written")
}

/// Has what names `disk` typed; nothing at the end of input.
fn named(talk: &mut dyn Talk, disk: &Choice, name: &str) -> Result<Option<String>> {
    let (path, name) = (disk.path(), one_line(name));
    talk.say(&format!(
        "{path} is not empty, it has {}: what is there will be lost.",
        one_line(&disk.content())
    ))?;
    for _ in 0..TRIES {
        let Some(typed) = talk.ask(&format!("If that is meant, type {name}: "))? else { return Ok(None) };
        if disk.is_named_by(&typed) {
            return Ok(Some(typed));
        }
        talk.say(&format!("That does not name {path}, which is {name}"))?;
    }
    bail!("{path} was not named after {TRIES} answers: nothing was written")
}

/// What will be done.
fn planned(install: &Install, disk: &Choice) -> String {
    let serial = disk.serial().map_or(String::new(), |serial| format!(", serial {}", one_line(serial)));
    let mut text = format!(
        "\n  image    {}\n  disk     {} ({}{serial})\n  now      {}\n",
        one_line(&install.image.to_string()),
        disk.path(),
        Size(disk.size()).human(),
        one_line(&disk.content())
    );
    text.push_str(match (install.keep_state, install.only_state) {
        (true, _) => "  then     a new system; the state stays as it is\n",
        (_, true) => "  then     a place for the state of a node that runs from memory, and nothing else\n",
        _ => "  then     the image as a node, and nothing else\n",
    });
    if let Some(document) = &install.document {
        text.push_str(&format!("  document {}\n", one_line(&document.to_string())));
    }
    text.push_str(match install.boot_entry && !install.only_state {
        true => "  firmware starts it first, where it can be told\n",
        false => "  firmware is left as it is\n",
    });
    text
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::VecDeque;

    use super::*;
    use crate::project::install::{DocumentOrigin, Origin, choice};

    /// Says what it was told to, and keeps what it hears.
    struct Script(VecDeque<&'static str>, String);

    impl Talk for Script {
        fn say(&mut self, text: &str) -> Result<()> {
            self.1 += &format!("{text}\n");
            Ok(())
        }

        fn ask(&mut self, question: &str) -> Result<Option<String>> {
            self.1 += &format!("{question}\n");
            Ok(self.0.pop_front().map(str::to_owned))
        }
    }

    fn install() -> Install {
        Install {
            image: Origin::of("node.raw"),
            sha256: None,
            target: Target::Unnamed,
            wipe: None,
            keep_state: false,
            only_state: false,
            document: Some(DocumentOrigin::File("rack\u{1b}.yaml".into())),
            document_sha256: None,
            boot_entry: true,
            unattended: false,
        }
    }

    fn disks() -> Vec<Choice> {
        vec![
            choice("sda", Some("S1"), &[], &[]),
            choice("sdb", Some("S2"), &["xfs \u{1b}]0;"], &[]),
            choice("sdc", Some("S3"), &["ext4"], &["/srv"]),
            choice("sdd", None, &[], &[]),
        ]
    }

    /// What comes of these answers, and all that was said.
    fn told(install: &Install, answers: &[&'static str]) -> (Result<Option<Install>, String>, String) {
        let mut script = Script(answers.iter().copied().collect(), String::new());
        let result = hold(&mut script, install, &|| Ok(disks())).map_err(|error| error.to_string());
        (result, script.1)
    }

    #[test]
    fn a_disk_is_chosen_by_its_place_and_named_where_something_is_lost() {
        for (answers, path, wipe) in [
            (&["1", "yes"][..], "/dev/sda", None),
            (&["4", "YES"], "/dev/sdd", None),
            (&["2", "s2", "yes"], "/dev/sdb", Some("s2")),
            (&["0", "5", "-1", "3", "2", "S2", "yes"], "/dev/sdb", Some("S2")),
            (&["2", "S1", "", "S2", "yes"], "/dev/sdb", Some("S2")),
        ] {
            let (result, text) = told(&install(), answers);
            let wanted = result.unwrap().unwrap_or_else(|| panic!("{answers:?}: {text}"));
            assert_eq!(wanted.target, Target::Path(path.into()), "{answers:?}");
            assert_eq!(wanted.wipe.as_deref(), wipe, "{answers:?}");
            assert!(!text.contains('\u{1b}'), "{text:?}");
        }
        let (_, text) = told(&install(), &["3", "2", "S2", "yes"]);
        for part in [
            "/dev/sdc is in use: /dev/sdc1 is mounted at /srv",
            "/dev/sdb is not empty, it has xfs",
            "If that is meant, type S2: ",
            "  image    node.raw\n  disk     /dev/sdb (8.0 GiB, serial S2)\n",
            "  document rack\\u{1b}.yaml\n",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        // What was given by flags is not asked for again.
        let given = Install { wipe: Some("S2".into()), ..install() };
        assert_eq!(told(&given, &["2", "yes"]).0.unwrap().unwrap().wipe.as_deref(), Some("S2"));
        let kept = Install { keep_state: true, ..install() };
        let (result, text) = told(&kept, &["2", "yes"]);
        assert!(
            result.unwrap().unwrap().wipe.is_none() && text.contains("the state stays as it is"),
            "{text}"
        );
    }

    #[test]
    fn whoever_does_not_go_on_writes_nothing() {
        for answers in [
            &[][..],
            &["1"],
            &["2"],
            &["2", "S2"],
            &["1", "no"],
            &["1", ""],
            &["1", "y"],
            &["2", "S2", "yes please"],
        ] {
            assert!(told(&install(), answers).0.unwrap().is_none(), "{answers:?}");
        }
        let error = told(&install(), &["9"; 9]).0.unwrap_err();
        assert_eq!(error, "no disk was chosen after 5 answers: nothing was written");
        let error = told(&install(), &["2", "a", "b", "c", "d", "e", "S2", "yes"]).0.unwrap_err();
        assert_eq!(error, "/dev/sdb was not named after 5 answers: nothing was written");
    }

    #[test]
    fn a_disk_that_changes_meanwhile_is_not_written() {
        let other = [
            choice("sda", Some("S9"), &[], &[]),
            choice("sda", Some("S1"), &["xfs"], &[]),
            choice("sda", Some("S1"), &[], &["/srv"]),
        ];
        for changed in other {
            let looks = RefCell::new(vec![vec![changed], disks()]);
            let mut script = Script(["1", "yes"].into(), String::new());
            let result = hold(&mut script, &install(), &|| Ok(looks.borrow_mut().pop().unwrap()));
            let error = result.unwrap_err().to_string();
            assert_eq!(
                error,
                "/dev/sda is not as it was when it was shown: nothing was written; start again"
            );
        }
    }

    #[test]
    fn answers_have_an_end() {
        let long = [b"x".repeat(10_000), b"\nyes\n".to_vec()].concat();
        let mut input = &long[..];
        let mut next = || read(&mut input).unwrap();
        assert_eq!([next(), next(), next()], [Some(String::new()), Some("yes".to_owned()), None]);
        assert_eq!(read(&mut &b" 1 \r\n"[..]).unwrap().as_deref(), Some("1"));
        assert_eq!(read(&mut &b"yes"[..]).unwrap(), None, "the end of input within a line");
    }
}
