//! sysusers.d lines as systemd-sysusers of trixie does them: the accounts that keller makes at build time are
//! those that the tool would have made, whatever a line says.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Range;
use std::path::Path;

use keller::lock::Ids;
use keller::rootfs::Wanted;
use keller::rootfs::users::{allocate, passwd};
use keller::tree::{Kind, Meta, Tree};

use super::fixture::is_root;
use super::trixie::trixie;

const PASSWD: &str = "root:*:0:0:root:/root:/bin/bash\ndaemon:*:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n\
    www-data:*:33:33:www-data:/var/www:/usr/sbin/nologin\nnobody:*:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";
const GROUP: &str = "root:*:0:\ndaemon:*:1:\nadm:*:4:\nwww-data:*:33:\nshadow:*:42:\nnogroup:*:65534:\n";
/// Numbers that are only chosen, never asked for, and the lines that say so.
const CHOSEN: Range<u32> = 40_000..60_000;
const RANGES: &str = "r - 1-999\nr - 50000-59999\n";

/// Numbers that look random and are the same in every run: xorshift64*.
struct Numbers(u64);

impl Numbers {
    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        of[(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % of.len()]
    }
}

const KINDS: [&str; 14] = ["u", "u", "u", "u", "u!", "g", "g", "g", "m", "m", "r", "g!", "x", "u!!"];
const NAMES: [&str; 22] = [
    "a",
    "b",
    "c",
    "d",
    "_e",
    "f-g",
    "root",
    "daemon",
    "adm",
    "www-data",
    "nobody",
    "\"a\"",
    "'b'",
    "gr\u{fc}n",
    "1x",
    "a.b",
    "a%%b",
    "%zc",
    "-",
    "with\\ space",
    "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn",
    "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn",
];
const IDS: [&str; 37] = [
    "-",
    "-",
    "-",
    "",
    "0",
    "5",
    "33",
    "500",
    "500",
    "501",
    "502",
    "777",
    "1500",
    "65534",
    "65535",
    "007",
    "ten",
    "+5",
    "500:4",
    "501:500",
    "502:adm",
    "-:a",
    "-:b",
    "-:nogroup",
    "-:-",
    "503:nosuch",
    "-:777",
    ":a",
    "1:2:3",
    "/usr/owned",
    "/usr//owned/",
    "\"/usr/with space\"",
    "/usr/missing",
    "/usr/roots",
    "40000-40100",
    "9-5",
    "a",
];
const TEXTS: [&str; 12] = [
    "-",
    "-",
    "",
    "Text",
    "\"with blanks\"",
    "'gr\u{fc}\u{df}e \u{1f600}'",
    "a:b",
    "100%%",
    "%T/%V",
    "\"open",
    "back\\\\slash",
    "\"\"",
];
const PATHS: [&str; 13] = [
    "-",
    "-",
    "",
    "/",
    "/var/lib/x",
    "/a//b/./c/",
    "/a/../b",
    "relative",
    "\"/with space\"",
    "/gr\u{fc}n",
    "/a:b",
    "/%%",
    "/bin/sh",
];

fn line(numbers: &mut Numbers) -> String {
    let words = [
        numbers.pick(&KINDS),
        numbers.pick(&NAMES),
        numbers.pick(&IDS),
        numbers.pick(&TEXTS),
        numbers.pick(&PATHS),
        numbers.pick(&PATHS),
        numbers.pick(&["", "", "", "", "", "", "more"]),
    ];
    let kind = words[0];
    // Most lines of a type without more words have none.
    let count = match numbers.pick(&["few", "few", "few", "all"]) {
        "few" if !kind.starts_with('u') => 3,
        _ => words.len(),
    };
    let kept = words[..count].iter().take_while(|word| !word.is_empty());
    let blank = numbers.pick(&[" ", " ", "\t", "   "]);
    let name = if kind == "r" && count == 3 { "-" } else { words[1] };
    let kept: Vec<_> = kept.enumerate().map(|(at, word)| if at == 1 { name } else { *word }).collect();
    numbers.pick(&["", "", " ", "\t"]).to_owned() + &kept.join(blank)
}

/// A root with base-passwd's accounts, paths that belong to somebody, and the given files.
fn tree(files: &[(&str, String)]) -> Tree {
    let mut tree = Tree::new(86_400 * 20_000);
    tree.file("usr/share/base-passwd/passwd.master", 0o644, PASSWD).unwrap();
    tree.file("usr/share/base-passwd/group.master", 0o644, GROUP).unwrap();
    for (path, uid, gid) in [("usr/owned", 777, 778), ("usr/with space", 601, 601), ("usr/roots", 0, 0)] {
        tree.put(
            path,
            Meta::new(0o755).owned(uid, gid),
            Kind::Directory(BTreeMap::new()),
            Default::default(),
        )
        .unwrap();
    }
    for (path, text) in files {
        tree.file(path, 0o644, text.as_str()).unwrap();
    }
    tree
}

fn write(root: &Path, files: &[(&str, String)]) {
    let made = |path: &str, text: &str| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    made("etc/passwd", PASSWD);
    made("etc/group", GROUP);
    for (path, uid, gid) in [("usr/owned", 777, 778), ("usr/with space", 601, 601), ("usr/roots", 0, 0)] {
        fs::create_dir_all(root.join(path)).unwrap();
        std::os::unix::fs::chown(root.join(path), Some(uid), Some(gid)).unwrap();
    }
    for (path, text) in files {
        made(path, text);
    }
}

type Table = BTreeMap<String, Vec<String>>;

fn table(text: &str) -> Table {
    let rows = text.lines().map(|line| line.split(':').map(str::to_owned).collect::<Vec<_>>());
    rows.map(|row| (row[0].clone(), row)).collect()
}

/// `chosen`, or the number: which one is chosen is not compared.
fn number(text: &str) -> String {
    if text.parse().is_ok_and(|id: u32| CHOSEN.contains(&id)) { "chosen".to_owned() } else { text.to_owned() }
}

/// What two tables say, without passwords, and with members in order.
fn compared(passwd: &Table, group: &Table, expired: &BTreeSet<String>) -> BTreeMap<String, String> {
    let of =
        |gid: &str| group.values().find(|row| row[2] == gid).map_or(gid, |row| row[0].as_str()).to_owned();
    let users = passwd.values().map(|row| {
        let locked = if expired.contains(&row[0]) { "!" } else { "" };
        (
            format!("user {}", row[0]),
            format!("{}{locked} of {}: {}", number(&row[2]), of(&row[3]), row[4..].join(":")),
        )
    });
    let groups = group.values().map(|row| {
        let members: BTreeSet<_> = row[3].split(',').filter(|member| passwd.contains_key(*member)).collect();
        (format!("group {}", row[0]), format!("{}: {members:?}", number(&row[2])))
    });
    users.chain(groups).collect()
}

/// Both makers' accounts of these files; `None` where there is no judge.
fn judged(files: &[(&str, String)]) -> Option<()> {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), files);
    let mut command = trixie(&["systemd"], "usr/bin/systemd-sysusers")?;
    let output = command.arg(format!("--root={}", root.path().display())).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let read = |path: &str| fs::read_to_string(root.path().join(path)).unwrap();
    let expired = |shadow: &str| {
        let rows = table(shadow);
        rows.into_values().filter(|row| row[7] == "1").map(|row| row[0].clone()).collect::<BTreeSet<_>>()
    };
    let shadow = fs::read_to_string(root.path().join("etc/shadow")).unwrap_or_default();
    let expected = compared(&table(&read("etc/passwd")), &table(&read("etc/group")), &expired(&shadow));

    let mut tree = tree(files);
    let wanted = Wanted::collect(&tree, &[], &[], &[]).unwrap();
    let problems = wanted.problems.clone();
    let mut ids = allocate(&wanted, &Ids::default()).unwrap();
    // What keller chooses is told from what a line asks for.
    let open = wanted.users.iter().filter(|(_, user)| user.uid.is_none()).map(|(name, _)| name);
    ids.users = open.cloned().zip(CHOSEN).collect();
    let open = wanted.groups.iter().filter(|(_, group)| group.gid.is_none()).map(|(name, _)| name);
    ids.groups = open.cloned().zip(CHOSEN).collect();
    passwd::write(&mut tree, &wanted.with_ids(&ids).unwrap(), |_| true).unwrap();
    let read = |path: &str| String::from_utf8(tree.read(path).unwrap()).unwrap();
    let found =
        compared(&table(&read("etc/passwd")), &table(&read("etc/group")), &expired(&read("etc/shadow")));
    let context = || format!("{files:#?}\n{said}\n{problems:#?}");
    for name in found.keys().chain(expected.keys()) {
        assert_eq!(found.get(name), expected.get(name), "{name}: {}", context());
    }

    // Lines that the tool names are those that keller names: it has no place for a group that is not there.
    let told: BTreeSet<String> = said
        .lines()
        .filter_map(|line| {
            let (path, rest) = line.strip_prefix(&root.path().display().to_string())?.split_once(':')?;
            Some(format!("{path}:{}", rest.split_once(':')?.0))
        })
        .collect();
    let ignored =
        problems.iter().filter(|problem| problem.ignored && !problem.what.starts_with("there is no group"));
    let named: BTreeSet<_> = ignored.map(|problem| format!("{}:{}", problem.path, problem.line)).collect();
    assert_eq!(named, told, "{}", context());
    Some(())
}

#[test]
fn random_lines_make_the_accounts_that_the_tool_makes() {
    if !is_root() {
        println!("SKIPPED: only root gives files to others");
        return;
    }
    let mut numbers = Numbers(0x5eed);
    for _ in 0..120 {
        let lines = |numbers: &mut Numbers| {
            let count = 1 + numbers.pick(&["1", "5", "9", "12"]).len() * 3;
            (0..count).map(|_| line(numbers) + "\n").collect::<String>()
        };
        let files = [
            ("usr/lib/sysusers.d/00-ranges.conf", RANGES.to_owned()),
            ("usr/lib/sysusers.d/a.conf", lines(&mut numbers)),
            ("usr/lib/sysusers.d/b.conf", lines(&mut numbers)),
            ("usr/local/lib/sysusers.d/c.conf", lines(&mut numbers)),
            ("etc/sysusers.d/b.conf", lines(&mut numbers)),
        ];
        let Some(()) = judged(&files) else { return };
    }
}

#[test]
fn lines_of_packages_and_of_careless_people() {
    if !is_root() {
        println!("SKIPPED: only root gives files to others");
        return;
    }
    for text in [
        // An account that is to have the number of a directory's owner, which may not be there.
        "u a /usr/owned\nu b /usr/missing\ng c /usr/owned\ng d /usr/with\\ space\nu e /usr/roots\n",
        // Groups by number and by name, before and after they are made.
        "u a 500:b\ng b 600\nu c 601:600\nu d -:e\nu e -\nu f -:e\nu g -:nosuch\nu h 5:700\n",
        "m ghost spirits\nm root spirits\nm a b\nu a -:adm\nu b -\nm c d\nu d -:adm\n",
        "g a 500\nu a 501\nu b 500\ng b 501\nu c 500\nu c 502\nu root 7\ng adm 8\nu shadow 42\n",
        "u! a - \"D'oh\" /home/a /bin/sh\nu b - 'say \"hi\"' - /usr/bin/b\nu z 0:0 - -\n",
        "# comment\n ; no comment\n\n\tu\ta\t-\t-\n u b - \"\" \"\" \"\" \r\nu c -",
        "u a 777:www-data \"A b\" /srv\nm www-data a\nm a www-data\nr - 40000-40001\nu l -\nu m -\n",
    ] {
        let ranges = ("usr/lib/sysusers.d/00-ranges.conf", RANGES.to_owned());
        let Some(()) = judged(&[ranges, ("etc/sysusers.d/x.conf", text.to_owned())]) else { return };
    }
}
