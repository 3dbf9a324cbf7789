//! Units: keller reads their command lines, and knows what is made of init scripts, as systemd of trixie does.

use std::fs;
use std::path::Path;

use keller::manifest::Services;
use keller::rootfs::services::{self, generated::Generated};
use keller::rootfs::text::command::{Command, commands};
use keller::tree::Tree;

use super::tool::run;
use super::trixie::trixie;

/// Values of `ExecStart=`.
const LINES: [&str; 22] = [
    "/usr/bin/a b c",
    r#""/usr/lib/My App/run" "x y" 'z "q"'"#,
    r"/usr/lib/My\x20App/run a\x20b \102\u00fc\U0001F40C",
    r"'/usr/lib/K\u00e4se/run' \s\s",
    r#"/a x\; y \; "\;" \\; ";""#,
    "/a 1 ; /b 2 ; /c",
    "/a 1 ;/b 2; /c",
    "/a ; ; /b ;",
    r#"/a ";" /b"#,
    r#"/a a"b c"d '' """#,
    r"/a \q \ x \x4 \08 \777 \u12",
    r"/a \\",
    "-/a ; +/b ; !/c ; !!/d ; :/e ; -+:/f",
    r#""-/a" "x""#,
    "/a ${X} $Y",
    "name with words",
    "\t/a\tb\t",
    "/usr//bin/x -y",
    "/a 'open",
    "/a ; /b 'open",
    "-/a 'open",
    "bin/a",
];

/// Words as systemd prints them: in double quotes where they need them, with backslashes before what is special.
fn printed(line: &str) -> Vec<String> {
    let (mut words, mut word, mut open) = (Vec::new(), None::<String>, false);
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => {
                open = !open;
                word.get_or_insert_default();
            }
            '\\' => word.get_or_insert_default().extend(letters.next()),
            ' ' if !open => words.extend(word.take()),
            letter => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

#[test]
fn command_lines_are_split_as_systemd_splits_them() {
    let Some(mut analyze) = trixie(&["systemd"], "usr/bin/systemd-analyze") else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut paths = Vec::new();
    for (number, line) in LINES.iter().enumerate() {
        let path = folder.path().join(format!("u{number}.service"));
        let text = format!("[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\nExecStart={line}\n");
        fs::write(&path, text).unwrap();
        paths.push(path);
    }
    let shipped = Path::new(env!("CARGO_TARGET_TMPDIR")).join("trixie/systemd/usr/lib/systemd/system");
    analyze.env("SYSTEMD_UNIT_PATH", format!("{}:{}", folder.path().display(), shipped.display()));
    analyze.env("SYSTEMD_LOG_LEVEL", "debug");
    let output = analyze.args(["verify", "--man=no", "--generators=no"]).args(&paths).output().unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    let (mut unit, mut theirs) = (None, vec![Vec::new(); LINES.len()]);
    for line in text.lines().map(str::trim) {
        // The arrow goes by the host's locale.
        if let Some((_, name)) = line.split_once(" Unit ").filter(|(arrow, _)| ["->", "→"].contains(arrow))
        {
            let name = name.trim_end_matches(':').strip_suffix(".service");
            unit = name.and_then(|name| name.strip_prefix('u')?.parse::<usize>().ok());
        } else if let (Some(command), Some(unit)) = (line.strip_prefix("Command Line: "), unit) {
            theirs[unit].push(printed(command));
        }
    }
    assert!(theirs.iter().filter(|commands| !commands.is_empty()).count() > LINES.len() / 2, "{text}");
    for (line, theirs) in LINES.iter().zip(theirs) {
        match commands(line) {
            Ok(commands) => {
                let words = |command: Command| [vec![command.program], command.arguments].concat();
                let ours = commands.into_iter().map(words);
                assert_eq!(ours.collect::<Vec<_>>(), theirs, "{line}");
            }
            // A unit that is broken is not loaded.
            Err(_) => assert!(theirs.is_empty(), "{line}: {theirs:?}"),
        }
    }
}

#[test]
fn init_scripts_are_the_units_that_systemd_makes_of_them() {
    let program = "usr/lib/systemd/system-generators/systemd-sysv-generator";
    let Some(mut generator) = trixie(&["systemd"], program) else { return };
    let mut tree = Tree::new(0);
    tree.file(program, 0o755, "").unwrap();
    let header = |fields: &str| format!("#!/bin/sh\n### BEGIN INIT INFO\n{fields}### END INIT INFO\n");
    for (name, text) in [
        ("plain", "#!/bin/sh\n".to_owned()),
        ("clock.sh", header("# Provides: clock\n# Default-Start: S\n")),
        ("web", header("# Provides: httpd www\n#   webserver\n# Default-Start: 2 3 4 5\n")),
        ("idle", header("# Provides: idle\n# Default-Start: 2 3 4 5\n")),
        ("native", header("# Provides: native\n")),
        ("masked", header("# Provides: masked\n")),
    ] {
        tree.file(format!("etc/init.d/{name}"), 0o755, text).unwrap();
    }
    tree.file("etc/init.d/README", 0o644, "no script").unwrap();
    let system = "usr/lib/systemd/system";
    tree.file(format!("{system}/native.service"), 0o644, "[Service]\nExecStart=/bin/true\n").unwrap();
    tree.file(format!("{system}/multi-user.target"), 0o644, "[Unit]\n").unwrap();
    let enable = ["plain.service", "clock.service", "web.service"].map(str::to_owned).to_vec();
    let services = Services { enable, mask: vec!["masked.service".to_owned()] };
    services::write(&mut tree, &services, &|_| false).unwrap();

    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    fs::create_dir(&root).unwrap();
    tree.write_to_folder(&root).unwrap();
    let out = ["normal", "early", "late"].map(|name| folder.path().join(name));
    out.iter().for_each(|folder| fs::create_dir(folder).unwrap());
    let units = format!("{}:{}", root.join("etc/systemd/system").display(), root.join(system).display());
    generator.env("SYSTEMD_UNIT_PATH", units);
    generator.env("SYSTEMD_SYSVINIT_PATH", root.join("etc/init.d"));
    generator.env("SYSTEMD_SYSVRCND_PATH", root.join("etc"));
    run(generator.args(&out));

    let names = |folder: &Path| -> Vec<String> {
        let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name.ends_with(".service"));
        names.sort();
        names
    };
    let generated = Generated::of(&tree).unwrap();
    let ours: Vec<&String> = generated.names().filter(|name| *name != "masked.service").collect();
    assert_eq!(names(&out[2]), ours.into_iter().cloned().collect::<Vec<_>>());
    let started = names(&out[2].join("multi-user.target.wants"));
    assert_eq!(started, ["clock.service", "plain.service", "web.service"]);
    for name in names(&out[2]) {
        let made = generated.get(&name).unwrap();
        let own = made.alias_of.clone().unwrap_or_else(|| name.clone());
        assert_eq!(made.starts, started.contains(&own), "{name}");
    }
}
