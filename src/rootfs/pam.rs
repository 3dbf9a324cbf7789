//! /etc/pam.d/common-*: the templates of libpam-runtime filled in with the profiles that packages ship, as
//! pam-auth-update does it with every default accepted: pam-auth-update(8).

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::error::Error;
use super::etc_defaults::LIBRARIES;
use crate::base::width::to_u64;
use crate::base::{Size, limits};
use crate::tree::{Tree, show};

const PROFILES: &str = "usr/share/pam-configs";
const TEMPLATES: &str = "usr/share/pam";

/// A file to make, the profiles' section that goes into it, and the names in its template.
struct Stack {
    file: &'static str,
    section: &'static str,
    variable: &'static str,
    interactive: bool,
}

const STACKS: [Stack; 5] = [
    Stack { file: "common-auth", section: "Auth", variable: "auth", interactive: true },
    Stack { file: "common-account", section: "Account", variable: "account", interactive: true },
    Stack { file: "common-password", section: "Password", variable: "password", interactive: true },
    Stack { file: "common-session", section: "Session", variable: "session", interactive: true },
    Stack {
        file: "common-session-noninteractive",
        section: "Session",
        variable: "session_nonint",
        interactive: false,
    },
];

/// One file of [`PROFILES`]: fields, those of several lines with their lines joined by newlines.
#[derive(Debug)]
struct Profile {
    priority: i32,
    name: String,
    fields: BTreeMap<String, String>,
}

/// Fills in the templates. Lines for modules that the tree does not have are left out.
pub fn write(tree: &mut Tree) -> Result<(), Error> {
    let profiles = profiles(tree)?;
    for stack in &STACKS {
        let template = format!("{TEMPLATES}/{}", stack.file);
        let target = format!("etc/pam.d/{}", stack.file);
        if tree.exists(&target) || !tree.exists(&template) {
            continue;
        }
        let text = String::from_utf8_lossy(&tree.read(&template)?).into_owned();
        let present = |line: &str| {
            let module = line.split_whitespace().find(|word| word.ends_with(".so")).unwrap_or_default();
            module.starts_with('/') || tree.exists(format!("{LIBRARIES}/security/{module}"))
        };
        let primary = block(&profiles, stack, "Primary", present);
        let additional = block(&profiles, stack, "Additional", present);
        let text = filled(text, &format!("${}_primary\n", stack.variable), &primary, &template)?;
        let text = filled(text, &format!("${}_additional\n", stack.variable), &additional, &template)?;
        tree.file(&target, 0o644, text)?;
    }
    Ok(())
}

/// `text` of the file `template` with `lines` in each place of `name`, of which it may have any number.
fn filled(text: String, name: &str, lines: &str, template: &str) -> Result<String, Error> {
    let size = text.len() + text.matches(name).count() * lines.len();
    if to_u64(size) > limits::CONFIGURATION {
        let most = Size(limits::CONFIGURATION).human();
        return Err(Error::Malformed {
            path: format!("/{template}"),
            line: 0,
            what: format!("it has more than {most} once it is filled in"),
        });
    }
    Ok(text.replace(name, lines))
}

fn too_much(path: &str, what: &str) -> Error {
    Error::Malformed {
        path: format!("/{path}"),
        line: 0,
        what: format!("it has more {what} that one may have"),
    }
}

/// Profiles that are on by default: highest priority first, then by name.
fn profiles(tree: &Tree) -> Result<Vec<Profile>, Error> {
    let Ok(folder) = tree.resolve(PROFILES) else { return Ok(Vec::new()) };
    let (mut profiles, mut rules) = (Vec::new(), 0);
    for (name, _) in tree.children(folder) {
        let name = show(name);
        let text = tree.read(format!("{PROFILES}/{name}"))?;
        let fields = fields(&String::from_utf8_lossy(&text));
        rules += fields.values().map(|value| value.lines().count()).sum::<usize>();
        if rules > limits::LINES {
            let path = format!("{PROFILES}/{name}");
            return Err(too_much(
                &path,
                &format!("lines, with all profiles before it, than the {}", limits::LINES),
            ));
        }
        if fields.get("Default").is_some_and(|value| value == "yes") {
            let priority = fields.get("Priority").and_then(|value| value.parse().ok()).unwrap_or(0);
            profiles.push(Profile { priority, name, fields });
        }
    }
    profiles.sort_by_key(|profile| (Reverse(profile.priority), profile.name.clone()));
    Ok(profiles)
}

fn fields(text: &str) -> BTreeMap<String, String> {
    let mut fields: BTreeMap<String, String> = BTreeMap::new();
    let mut last = String::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if line.starts_with([' ', '\t']) {
            let field = fields.entry(last.clone()).or_default();
            if !field.is_empty() {
                field.push('\n');
            }
            field.push_str(line.trim());
        } else if let Some((key, value)) = line.split_once(':') {
            last = key.trim().to_owned();
            fields.insert(last.clone(), value.trim().to_owned());
        }
    }
    fields
}

/// The lines of one block of a stack.
fn block(profiles: &[Profile], stack: &Stack, kind: &str, present: impl Fn(&str) -> bool) -> String {
    let Stack { section, .. } = stack;
    let mut rules: Vec<&str> = Vec::new();
    for Profile { fields, .. } in profiles {
        let field = |name: &str| fields.get(name).map(String::as_str);
        let interactive_only = field("Session-Interactive-Only") == Some("yes");
        if field(&format!("{section}-Type")) != Some(kind) || (interactive_only && !stack.interactive) {
            continue;
        }
        // The first of a stack has nobody's password to try before it asks.
        let initial = field(&format!("{section}-Initial")).filter(|_| rules.is_empty());
        let lines = initial.or_else(|| field(section)).unwrap_or_default().lines();
        rules.extend(lines.filter(|line| present(line)));
    }
    let word = section.to_lowercase();
    if rules.is_empty() && kind == "Primary" {
        return format!("{word}\t[default=1]\t\t\tpam_permit.so\n");
    }
    let count = rules.len();
    // `end` jumps behind the block's last line and the pam_deny that follows it.
    let lines = rules.iter().zip(1..).map(|(rule, at)| {
        let rule = rule.replace("=end", &format!("={}", count + 1 - at));
        format!("{word}\t{rule}\n")
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIX: &str = "Name: Unix authentication\nDefault: yes\nPriority: 256\nAuth-Type: Primary\nAuth:\n\
        \t[success=end default=ignore]\tpam_unix.so nullok try_first_pass\nAuth-Initial:\n\
        \t[success=end default=ignore]\tpam_unix.so nullok\nSession-Type: Additional\nSession:\n\
        \trequired\tpam_unix.so\n";
    const SYSTEMD: &str = "Name: sessions\nDefault: yes\nPriority: 0\nSession-Interactive-Only: yes\n\
        Session-Type: Additional\nSession:\n\toptional\tpam_systemd.so\n";

    fn tree(modules: &[&str]) -> Tree {
        let mut tree = Tree::new(0);
        tree.file(format!("{PROFILES}/unix"), 0o644, UNIX).unwrap();
        tree.file(format!("{PROFILES}/systemd"), 0o644, SYSTEMD).unwrap();
        tree.file(format!("{PROFILES}/home"), 0o644, UNIX.replace("yes", "no")).unwrap();
        for stack in &STACKS {
            let text = format!("# top\n${0}_primary\nx\n${0}_additional\n# end\n", stack.variable);
            tree.file(format!("{TEMPLATES}/{}", stack.file), 0o644, text).unwrap();
        }
        for module in modules {
            tree.file(format!("{LIBRARIES}/security/{module}"), 0o644, "").unwrap();
        }
        write(&mut tree).unwrap();
        tree
    }

    #[test]
    fn profiles_fill_templates() {
        let tree = tree(&["pam_unix.so", "pam_systemd.so"]);
        let read = |name: &str| String::from_utf8(tree.read(format!("etc/pam.d/{name}")).unwrap()).unwrap();
        let auth = "# top\nauth\t[success=1 default=ignore]\tpam_unix.so nullok\nx\n# end\n";
        assert_eq!(read("common-auth"), auth);
        let permit = "session\t[default=1]\t\t\tpam_permit.so\n";
        let unix = "session\trequired\tpam_unix.so\n";
        let systemd = "session\toptional\tpam_systemd.so\n";
        assert_eq!(read("common-session"), format!("# top\n{permit}x\n{unix}{systemd}# end\n"));
        assert_eq!(read("common-session-noninteractive"), format!("# top\n{permit}x\n{unix}# end\n"));
    }

    #[test]
    fn absent_modules_are_left_out() {
        let tree = tree(&["pam_unix.so"]);
        let text = String::from_utf8(tree.read("etc/pam.d/common-session").unwrap()).unwrap();
        assert!(!text.contains("pam_systemd"), "{text}");
    }

    #[test]
    fn what_is_filled_in_has_a_limit() {
        let filled = |places: usize, lines: usize| {
            let mut tree = Tree::new(0);
            let profile = format!("{}\n", UNIX.trim_end()) + &"\toptional\t/x.so\n".repeat(lines);
            tree.file(format!("{PROFILES}/unix"), 0o644, profile).unwrap();
            let template = "$session_additional\n".repeat(places);
            tree.file(format!("{TEMPLATES}/common-session"), 0o644, template).unwrap();
            write(&mut tree).map(|()| tree.read("etc/pam.d/common-session").unwrap().len())
        };
        assert!(filled(10, 10).unwrap() > 2000);
        let error = filled(10_000, 1000).unwrap_err().to_string();
        let told = "/usr/share/pam/common-session: it has more than 4.0 MiB once it is filled in";
        assert_eq!(error, told);
        let error = filled(1, 60_000).unwrap_err().to_string();
        let told = "/usr/share/pam-configs/unix: it has more lines, with all profiles before it, than the 50000 that one may \
                    have";
        assert_eq!(error, told);
    }
}
