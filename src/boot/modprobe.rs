//! How modules are to be loaded: modprobe.d(5) of the root and the words of the kernel command line, with the
//! meaning that kmod gives them.
//!
//! The builder reads the root's files, and what concerns the modules of the initramfs goes along as a file in
//! the same format ([`FILE`]). `/init` reads that file and `/proc/cmdline`. Source: modprobe.d(5) and
//! libkmod-config.c of kmod; tests/judges/modprobe.rs asks modprobe itself.

use std::collections::BTreeSet;
use std::fmt;

use crate::boot::modules::{matches, normal};

/// Where the file lies in the initramfs.
pub const FILE: &str = "modules/modprobe.conf";

/// Under this name kmod sorts the soft dependencies that modules have of themselves among the files.
const OWN_SOFTDEPS: &str = "modules.softdep";

/// What is said about loading modules. Names of modules are normalised by [`normal`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Module and parameters, in the order in which the kernel gets them: of two values the last one counts.
    pub options: Vec<(String, String)>,
    /// Modules that no device loads.
    pub blacklist: BTreeSet<String>,
    /// Pattern of a device and module, before what modules say of themselves.
    pub aliases: Vec<(String, String)>,
    /// The first whose pattern matches counts, for a module.
    pub softdeps: Vec<Softdep>,
    /// Commands in place of loading.
    pub installs: Vec<Install>,
    /// Modules that the kernel itself refuses (`module_blacklist=`), as written.
    pub refused: BTreeSet<String>,
}

/// What is loaded before and after a module if it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Softdep {
    /// Pattern of the module's name.
    pub module: String,
    /// Names of modules, in order.
    pub before: Vec<String>,
    /// Names of modules, in order.
    pub after: Vec<String>,
    /// Whether it counts before what the module says of itself.
    pub outranks_module: bool,
}

/// A command that modprobe runs instead of loading a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Install {
    /// Pattern of the module's name.
    pub module: String,
    /// The command.
    pub command: String,
    /// `/etc/modprobe.d/x.conf:3`.
    pub place: String,
}

impl Install {
    /// Whether the command does nothing: the way to keep a module out for good.
    pub fn does_nothing(&self) -> bool {
        let mut words = self.command.split_whitespace();
        let program = words.next().unwrap_or_default().rsplit('/').next();
        matches!(program, Some("true" | "false" | ":"))
    }
}

/// A line that modprobe would not understand either.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ignored {
    /// `/etc/modprobe.d/x.conf:3`.
    pub place: String,
    /// The line.
    pub text: String,
}

impl fmt::Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: modprobe ignores this line: {}", self.place, self.text)
    }
}

impl Config {
    /// Adds the lines of one file; files must come ordered by their names. Gives the lines that say nothing.
    pub fn read(&mut self, path: &str, text: &str) -> Vec<Ignored> {
        let name = path.rsplit('/').next().unwrap_or(path);
        let mut ignored = Vec::new();
        for (number, line) in whole_lines(text) {
            let place = format!("{path}:{number}");
            if !line.is_empty() && !line.starts_with('#') && self.line(&line, name, &place).is_none() {
                ignored.push(Ignored { place, text: line });
            }
        }
        ignored
    }

    /// One line; `None` where modprobe would complain. What has no meaning here (`remove`, `weakdep`) is good.
    fn line(&mut self, line: &str, file: &str, place: &str) -> Option<()> {
        let (command, rest) = word(line)?;
        let (first, rest) = word(rest)?;
        let rest = rest.trim();
        let module = normal(first);
        match command {
            "blacklist" => drop(self.blacklist.insert(module)),
            "options" if !rest.is_empty() => self.options.push((module, rest.to_owned())),
            "alias" => {
                let (target, _) = word(rest)?;
                self.aliases.push((normal_alias(first)?, normal(target)));
            }
            "install" if !rest.is_empty() => {
                self.installs.push(Install { module, command: rest.to_owned(), place: place.to_owned() });
            }
            "softdep" => self.softdeps.push(softdep(module, rest, file < OWN_SOFTDEPS)),
            "remove" | "weakdep" => {}
            _ => return None,
        }
        Some(())
    }

    /// Adds what the kernel command line says: `MODULE.PARAMETER=VALUE`, `modprobe.blacklist=`,
    /// `module_blacklist=`. It comes after the files, so that what it says has its way.
    pub fn read_cmdline(&mut self, text: &str) {
        for word in raw_words(text) {
            let bare = unquoted(&word);
            if let Some(names) = bare.strip_prefix("module_blacklist=") {
                // Of two the kernel takes the last one.
                self.refused = list(names).map(str::to_owned).collect();
            } else if let Some(names) = bare.strip_prefix("modprobe.blacklist=") {
                self.blacklist.extend(list(names).map(normal));
            } else if let Some((module, parameter)) = parameter(&word) {
                self.options.push((module, parameter));
            }
        }
    }

    /// The parameters with which the module `name` is loaded, for the kernel.
    pub fn parameters(&self, name: &str) -> String {
        let name = normal(name);
        let own = self.options.iter().filter(|(module, _)| *module == name);
        own.map(|(_, text)| text.as_str()).collect::<Vec<_>>().join(" ")
    }

    /// Modules and names of the parameters that they are given, with `_`, never `-`.
    pub fn named_parameters(&self) -> Vec<(String, String)> {
        let names = |text: &str| {
            let words = raw_words(text).into_iter();
            let name =
                |word: String| word.trim_start_matches('"').split('=').next().unwrap_or_default().to_owned();
            words.map(name).map(|name| name.replace('-', "_")).collect::<Vec<_>>()
        };
        let of = |(module, text): &(String, String)| {
            names(text).into_iter().map(|name| (module.clone(), name)).collect::<Vec<_>>()
        };
        self.options.iter().flat_map(of).collect()
    }

    /// Why no device loads the module `name`, if so: the word that says it.
    pub fn keeps_out(&self, name: &str) -> Option<&'static str> {
        if self.refused.contains(name) {
            return Some("module_blacklist=");
        }
        self.blacklist.contains(&normal(name)).then_some("a blacklist (modprobe.blacklist= or modprobe.d)")
    }

    /// The modules that a device's identifier stands for, if the configuration says so.
    pub fn modules_of(&self, identifier: &str) -> Vec<&str> {
        let Some(identifier) = normal_alias(identifier) else { return Vec::new() };
        let named = self.aliases.iter().filter(|(pattern, _)| matches(pattern, &identifier));
        named.map(|(_, module)| module.as_str()).collect()
    }

    /// The soft dependencies of the module `name` that take the place of its own; `own` says whether it has
    /// some.
    pub fn softdep(&self, name: &str, own: bool) -> Option<&Softdep> {
        let name = normal(name);
        let mut found = self.softdeps.iter().filter(|softdep| matches(&softdep.module, &name));
        found.find(|softdep| softdep.outranks_module || !own)
    }

    /// The command that modprobe runs instead of loading `name`.
    pub fn install(&self, name: &str) -> Option<&Install> {
        let name = normal(name);
        self.installs.iter().find(|install| matches(&install.module, &name))
    }

    /// What of this `/init` needs to load the modules that `is_carried` names: options, blacklist, aliases of
    /// devices. Soft dependencies and commands count when modules are chosen.
    pub fn carried(&self, is_carried: impl Fn(&str) -> bool) -> Self {
        let options = self.options.iter().filter(|(module, _)| is_carried(module));
        let blacklist = self.blacklist.iter().filter(|module| is_carried(module));
        Self {
            options: options.cloned().collect(),
            blacklist: blacklist.cloned().collect(),
            aliases: self.aliases.iter().filter(|(pattern, _)| pattern.contains(':')).cloned().collect(),
            ..Self::default()
        }
    }
}

impl fmt::Display for Config {
    /// The lines of [`FILE`].
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let blacklist = self.blacklist.iter().map(|module| format!("blacklist {module}"));
        let aliases = self.aliases.iter().map(|(pattern, module)| format!("alias {pattern} {module}"));
        let options = self.options.iter().map(|(module, text)| format!("options {module} {text}"));
        for line in blacklist.chain(aliases).chain(options) {
            // At the end of a line a backslash joins the next one to it, and a carriage return is lost. The blank is
            // taken off again.
            let end = if line.ends_with(['\\', '\r']) { " " } else { "" };
            writeln!(f, "{line}{end}")?;
        }
        Ok(())
    }
}

/// The first word of `text`, and the rest behind the blank. kmod knows no quotes here.
fn word(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start_matches(BLANKS);
    let end = text.find(BLANKS).unwrap_or(text.len());
    (end > 0).then(|| (&text[..end], text[end..].trim_start_matches(BLANKS)))
}

const BLANKS: [char; 2] = [' ', '\t'];

/// Lines with their numbers from 1; a backslash at the end of a line joins the next one to it.
fn whole_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    let mut open = false;
    for (line, number) in text.lines().zip(1..) {
        let (part, goes_on) = match line.strip_suffix('\\') {
            Some(part) => (part, true),
            None => (line, false),
        };
        match lines.last_mut().filter(|_| open) {
            Some((_, whole)) => whole.push_str(part),
            None => lines.push((number, part.to_owned())),
        }
        open = goes_on;
    }
    lines
}

/// `pre: a b post: c`.
fn softdep(module: String, text: &str, outranks_module: bool) -> Softdep {
    let (mut before, mut after) = (Vec::new(), Vec::new());
    let mut place: Option<&mut Vec<String>> = None;
    for word in text.split_whitespace() {
        match word {
            "pre:" => place = Some(&mut before),
            "post:" => place = Some(&mut after),
            name => {
                if let Some(place) = &mut place {
                    place.push(normal(name));
                }
            }
        }
    }
    Softdep { module, before, after, outranks_module }
}

/// Names between commas.
fn list(names: &str) -> impl Iterator<Item = &str> {
    names.split(',').filter(|name| !name.is_empty())
}

/// `-` as `_`, except within brackets, as kmod has aliases; nothing when brackets do not match.
pub fn normal_alias(alias: &str) -> Option<String> {
    let mut inside = false;
    let mut out = String::with_capacity(alias.len());
    for letter in alias.chars() {
        match letter {
            '[' => inside = true,
            ']' if inside => inside = false,
            ']' => return None,
            _ => {}
        }
        out.push(if letter == '-' && !inside { '_' } else { letter });
    }
    (!inside).then_some(out)
}

/// Words of a command line with their quotes, which the kernel wants again where parameters have blanks.
fn raw_words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quoted = false;
    for letter in text.chars() {
        quoted ^= letter == '"';
        if letter.is_ascii_whitespace() && !quoted {
            words.push(std::mem::take(&mut word));
        } else {
            word.push(letter);
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

fn unquoted(word: &str) -> String {
    word.replace('"', "")
}

/// Module and parameter of `MODULE.PARAMETER=VALUE` or `MODULE.PARAMETER`. A quote before the whole word
/// stands before the value afterwards: `"a.b=c d"` becomes `b="c d"`.
pub fn parameter(word: &str) -> Option<(String, String)> {
    let (word, whole) = match word.strip_prefix('"') {
        Some(word) => (word, true),
        None => (word, false),
    };
    let end = word.find('=').unwrap_or(word.len());
    let (module, name) = word[..end].split_once('.')?;
    if module.is_empty() || name.is_empty() || module.contains('"') || name.contains(['"', '.']) {
        return None;
    }
    let text = match (whole, word[end..].strip_prefix('=')) {
        (true, Some(value)) => format!("{name}=\"{value}"),
        (true, None) => name.trim_end_matches('"').to_owned(),
        (false, _) => format!("{name}{}", &word[end..]),
    };
    Some((normal(module), text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        let mut config = Config::default();
        assert_eq!(config.read("/etc/modprobe.d/a.conf", text), []);
        config
    }

    #[test]
    fn parameters_of_the_command_line() {
        let mut config = config("options virtio-blk queue_depth=3 \\\n  num_request_queues=4\n");
        config.read_cmdline(
            "quiet virtio-blk.queue_depth=17 nvme_core.io_timeout=4294967295 virtio_blk.flag \
             virtio_blk.s=\"q r\" \"virtio_blk.t=u v\" x=virtio_blk.z=1 console=ttyS0,115200 a.b.c=d\n",
        );
        assert_eq!(
            config.parameters("virtio_blk"),
            "queue_depth=3   num_request_queues=4 queue_depth=17 flag s=\"q r\" t=\"u v\""
        );
        assert_eq!(config.parameters("nvme-core"), "io_timeout=4294967295");
        assert_eq!(config.parameters("console"), "");
        assert_eq!(config.parameters("a"), "");
    }

    #[test]
    fn blacklists() {
        let mut config = config("blacklist snd-pcsp\n");
        config.read_cmdline(
            "modprobe.blacklist=floppy,virtio-blk module_blacklist=a module_blacklist=e1000,b-c",
        );
        for name in ["snd_pcsp", "floppy", "virtio_blk", "virtio-blk"] {
            assert!(config.keeps_out(name).unwrap().starts_with("a blacklist"), "{name}");
        }
        assert_eq!(config.keeps_out("e1000"), Some("module_blacklist="));
        // The kernel compares to the letter, and so does systemd.
        assert_eq!(
            (config.keeps_out("b_c"), config.keeps_out("a"), config.keeps_out("nvme")),
            (None, None, None)
        );
    }

    #[test]
    fn lines_that_modprobe_ignores_are_told() {
        let mut config = Config::default();
        let text = "# good\n\n  # kmod takes this for a word\noptions\nbogus x\nblacklist ok\noptions x\ninstall y\n";
        let ignored = config.read("/etc/modprobe.d/a.conf", text);
        let places: Vec<_> = ignored.iter().map(|line| line.place.as_str()).collect();
        assert_eq!(places, [3, 4, 5, 7, 8].map(|line| format!("/etc/modprobe.d/a.conf:{line}")));
        assert_eq!(ignored[2].to_string(), "/etc/modprobe.d/a.conf:5: modprobe ignores this line: bogus x");
        assert!(config.keeps_out("ok").is_some());
    }

    #[test]
    fn the_first_soft_dependency_counts() {
        let mut config = config("softdep dm-ver* pre: a b-c post: d\nsoftdep dm-verity pre: e\n");
        let _ = config.read("/etc/modprobe.d/z.conf", "softdep late pre: f\n");
        let found = config.softdep("dm-verity", true).unwrap();
        assert_eq!(
            (&found.before[..], &found.after[..]),
            (&["a".into(), "b_c".into()][..], &["d".into()][..])
        );
        // z.conf comes after modules.softdep, where the module's own stand.
        assert!(config.softdep("late", true).is_none() && config.softdep("late", false).is_some());
    }

    #[test]
    fn aliases_and_commands() {
        let config = config(
            "alias virtio:d0000000[2-3]v* other-blk\nalias net-pf-10 off\ninstall usb-storage /bin/true\n\
             install nvme /sbin/modprobe --ignore-install nvme && echo\n",
        );
        assert_eq!(config.modules_of("virtio:d00000002v00001AF4"), ["other_blk"]);
        assert!(config.modules_of("virtio:d00000004v00001AF4").is_empty());
        assert!(config.install("usb_storage").unwrap().does_nothing());
        assert_eq!(config.install("nvme").unwrap().place, "/etc/modprobe.d/a.conf:4");
        assert!(!config.install("nvme").unwrap().does_nothing() && config.install("ahci").is_none());
    }

    #[test]
    fn what_init_needs_survives_a_round_trip() {
        let all = config(
            "options virtio_blk queue_depth=3 x=\"a b\"\noptions e1000 a=1\nblacklist virtio-blk\nblacklist e1000\n\
             alias pci:v*d0001* virtio-blk\nalias net-pf-10 off\nsoftdep virtio_blk pre: e1000\n",
        );
        let carried = all.carried(|name| name == "virtio_blk");
        let text = "blacklist virtio_blk\nalias pci:v*d0001* virtio_blk\n\
                    options virtio_blk queue_depth=3 x=\"a b\"\n";
        assert_eq!(carried.to_string(), text);
        assert_eq!(config(text), carried);
    }
    /// What [`FILE`] holds means what the root's files mean, whatever they hold.
    #[test]
    fn odd_values_survive_a_round_trip() {
        let mut lost = config("options a x=\\ \noptions virtio_blk queue_depth=17\n");
        lost = config(&lost.to_string());
        assert_eq!(lost.parameters("virtio_blk"), "queue_depth=17");

        let values = [
            "x",
            "x=\\",
            "\\",
            "\\\\",
            "x=\\ \\",
            "x=\"a b",
            "#x",
            "x=#",
            "x= y",
            "x\ty",
            "x\ry",
            "x=\u{a0}y",
            "x=\u{85}",
            "x=\u{b}",
            "options",
            "\\\r",
            "[",
            "x=-",
            "pre:",
        ];
        // Ends of lines as an editor leaves them, the last for joined lines.
        let ends = ["\n", " \n", "\t\n", "\r\n", "\r\r\n", "\\\n \n"];
        let kinds = ["options a", "options virtio-blk", "alias pci:v*", "alias pci:[-]\\", "blacklist"];
        let mut text = String::new();
        for (kind, value, end) in kinds
            .iter()
            .flat_map(|kind| values.iter().map(move |value| (kind, value)))
            .flat_map(|(kind, value)| ends.iter().map(move |end| (kind, value, end)))
        {
            let line = format!("{kind} {value}{end}");
            text += &line;
            // Each alone, between others that must not be lost.
            let mut one = Config::default();
            let _ =
                one.read("a.conf", &format!("{line}\nalias usb:v* b\noptions virtio_blk queue_depth=17\n"));
            assert_eq!(
                one.parameters("virtio_blk").split(' ').next_back(),
                Some("queue_depth=17"),
                "{line:?}"
            );
            assert_eq!(config(&one.to_string()), one, "{line:?}");
        }
        // All at once, where each line has another behind it.
        let mut all = Config::default();
        let _ = all.read("a.conf", &text);
        assert_eq!(config(&all.to_string()), all);
    }
}
