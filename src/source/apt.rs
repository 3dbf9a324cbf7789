//! The host's own apt settings: sources and configuration, read as apt reads them (sources.list(5),
//! apt.conf(5)). Nothing is executed: settings that name a program are not followed.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::base::{Chain, input, limits};
use crate::http::Client;
use crate::http::apt::parts;
use crate::http::url::Url;
use crate::source::mirror::list::{self, Mirror, Refused};

/// One suite of one archive that apt uses for binary packages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// As written.
    pub uri: String,
    /// What it leads to: one mirror, or those of a list.
    pub mirrors: Vec<Mirror>,
    /// What of it leads nowhere.
    pub refused: Vec<Refused>,
    /// e.g. `bookworm-updates`.
    pub suite: String,
    /// e.g. `main`.
    pub components: Vec<String>,
    /// The keyring, if one is named by its path.
    pub signed_by: Option<String>,
    /// The file it stands in.
    pub file: PathBuf,
}

/// The most bytes that a list of mirrors may have on the wire.
const LIST_LIMIT: u64 = 1 << 20;

/// All sources of the apt folder `folder` that are enabled and serve amd64, in apt's order. Lists of mirrors
/// (apt-transport-mirror(1)), in a file as Debian's cloud images have them or on a server, are read by `client`.
pub fn sources(folder: &Path, client: &Client) -> Vec<Source> {
    let mut files = vec![folder.join("sources.list")];
    files.extend(parts(&folder.join("sources.list.d"), &["list", "sources"]));
    let mut found = Vec::new();
    for file in files {
        let Ok(text) = input::read_text(&file, limits::TEXT) else { continue };
        if file.extension() == Some(OsStr::new("sources")) {
            parse_stanzas(&text, &file, &mut found);
        } else {
            text.lines().filter_map(|line| parse_line(line, &file)).for_each(|source| found.push(source));
        }
    }
    // Several suites name the same list.
    let mut lists = BTreeMap::new();
    for source in &mut found {
        let (mirrors, refused) =
            lists.entry(source.uri.clone()).or_insert_with(|| mirrors(&source.uri, client)).clone();
        (source.mirrors, source.refused) = (mirrors, refused);
    }
    found
}

/// What `uri` leads to.
fn mirrors(uri: &str, client: &Client) -> (Vec<Mirror>, Vec<Refused>) {
    let address = match list_address(uri) {
        None => return plain(uri),
        Some(Err(reason)) => return (Vec::new(), vec![Refused::failed(uri, reason)]),
        Some(Ok(address)) => address,
    };
    let read = || -> Result<String, String> {
        let bytes = client.get_small(&address, LIST_LIMIT).map_err(|error| Chain(&error).to_string())?;
        list::decode(address.path(), &bytes).map_err(|error| format!("decoding {address}: {error}"))
    };
    match read() {
        Ok(text) => list::parse(&text, address.scheme() != "file"),
        Err(reason) => (Vec::new(), vec![Refused::failed(uri, reason)]),
    }
}

/// Where the list of mirrors lies that `uri` names; nothing where it names none.
fn list_address(uri: &str) -> Option<Result<Url, String>> {
    let (scheme, rest) = uri.split_once(':')?;
    let parsed = |text: String| text.parse::<Url>().map_err(|error| error.to_string());
    Some(match scheme {
        "mirror+file" | "mirror+copy" => {
            let path = match rest.strip_prefix("//") {
                Some(absolute) if absolute.starts_with('/') => absolute,
                _ => rest,
            };
            Url::from_path(Path::new(path)).map_err(|error| error.to_string())
        }
        "mirror" | "mirror+http" => parsed(format!("http:{rest}")),
        "mirror+https" => parsed(format!("https:{rest}")),
        _ => return None,
    })
}

/// The one mirror at `uri`.
fn plain(uri: &str) -> (Vec<Mirror>, Vec<Refused>) {
    match Url::root(uri) {
        Ok(root) => (vec![Mirror::new(root)], Vec::new()),
        Err(_) if uri.starts_with("cdrom:") => (Vec::new(), vec![Refused::unused(uri, "a disc")]),
        Err(_) => (Vec::new(), vec![Refused::unused(uri, "neither http nor https nor a file")]),
    }
}

/// One line of the old format: `deb [option=value …] uri suite component…`.
fn parse_line(line: &str, file: &Path) -> Option<Source> {
    let line = line.split('#').next()?.trim();
    let mut rest = line.strip_prefix("deb")?.strip_prefix([' ', '\t'])?.trim_start();
    let mut signed_by = None;
    if let Some(options) = rest.strip_prefix('[') {
        let (options, after) = options.split_once(']')?;
        for option in options.split_ascii_whitespace() {
            match option.split_once('=') {
                Some(("arch", list)) if !serves_amd64(list.split(',')) => return None,
                Some(("signed-by", path)) => signed_by = Some(path.to_owned()),
                _ => {}
            }
        }
        rest = after;
    }
    let mut words = rest.split_ascii_whitespace().map(str::to_owned);
    Some(Source {
        uri: words.next()?,
        mirrors: Vec::new(),
        refused: Vec::new(),
        suite: words.next()?,
        components: words.collect(),
        signed_by,
        file: file.to_owned(),
    })
}

fn serves_amd64<'a>(mut architectures: impl Iterator<Item = &'a str>) -> bool {
    architectures.any(|architecture| architecture == "amd64")
}

/// A file of the new format: stanzas of `Field: value`, values going on in indented lines.
fn parse_stanzas(text: &str, file: &Path, found: &mut Vec<Source>) {
    let mut stanza = BTreeMap::new();
    let mut field = String::new();
    for line in text.lines().chain([""]) {
        if line.starts_with('#') {
            continue;
        }
        if line.trim().is_empty() {
            add_stanza(&std::mem::take(&mut stanza), file, found);
            field.clear();
        } else if line.starts_with([' ', '\t']) {
            let value: &mut String = stanza.entry(field.clone()).or_default();
            value.push('\n');
            value.push_str(line.trim());
        } else if let Some((name, value)) = line.split_once(':') {
            field = name.trim().to_ascii_lowercase();
            stanza.insert(field.clone(), value.trim().to_owned());
        }
    }
}

fn add_stanza(stanza: &BTreeMap<String, String>, file: &Path, found: &mut Vec<Source>) {
    let value = |name: &str| stanza.get(name).map(String::as_str).unwrap_or_default();
    let words = |name: &str| value(name).split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let disabled = ["no", "false", "without", "off", "disable", "0"];
    if disabled.contains(&value("enabled").to_ascii_lowercase().as_str())
        || !words("types").iter().any(|kind| kind == "deb")
        || (stanza.contains_key("architectures")
            && !serves_amd64(value("architectures").split_ascii_whitespace()))
    {
        return;
    }
    let signed_by = Some(value("signed-by")).filter(|path| path.starts_with('/')).map(str::to_owned);
    for uri in words("uris") {
        for suite in words("suites") {
            found.push(Source {
                uri: uri.clone(),
                mirrors: Vec::new(),
                refused: Vec::new(),
                suite,
                components: words("components"),
                signed_by: signed_by.clone(),
                file: file.to_owned(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn client() -> Client {
        Client::new(crate::http::Settings::default()).unwrap()
    }

    fn shown(sources: &[Source]) -> Vec<String> {
        let one = |s: &Source| format!("{} {} {}", s.uri, s.suite, s.components.join(","));
        sources.iter().map(one).collect()
    }

    #[test]
    fn one_line_format() {
        let text = "# deb http://no.example a main\n\
            deb http://a.example/debian trixie main contrib # why\n\
            deb-src http://no.example trixie main\n\
            \tdeb [arch=amd64 signed-by=/k.gpg trusted=yes] http://b.example/debian trixie-security main\n\
            deb [ arch=arm64 ] http://no.example trixie main\n\
            deb http://flat.example ./\n\
            debug http://no.example x y\n\
            deb http://no.example\n";
        let found: Vec<_> = text.lines().filter_map(|line| parse_line(line.trim(), Path::new("x"))).collect();
        assert_eq!(
            shown(&found),
            [
                "http://a.example/debian trixie main,contrib",
                "http://b.example/debian trixie-security main",
                "http://flat.example ./ "
            ]
        );
        assert_eq!(found[1].signed_by.as_deref(), Some("/k.gpg"));
    }

    #[test]
    fn stanza_format() {
        let text = "Types: deb deb-src\n# URIs: http://no.example\nuris: http://a.example\n  http://b.example\n\
            Suites: trixie trixie-updates\nComponents: main\nSigned-By:\n -----BEGIN PGP\n .\n\n\n\
            Types: deb\nURIs: http://no.example\nSuites: x\nEnabled: No\n\n\
            Types: deb-src\nURIs: http://no.example\nSuites: x\n\n\
            Types: deb\nURIs: http://no.example\nSuites: x\nArchitectures: i386 arm64\n\n\
            Types: deb\nURIs: http://c.example\nSuites: x\nEnabled: yes\nSigned-By: /k.gpg";
        let mut found = Vec::new();
        parse_stanzas(text, Path::new("x"), &mut found);
        assert_eq!(
            shown(&found),
            [
                "http://a.example trixie main",
                "http://a.example trixie-updates main",
                "http://b.example trixie main",
                "http://b.example trixie-updates main",
                "http://c.example x "
            ]
        );
        assert_eq!(found[0].signed_by, None);
        assert_eq!(found[4].signed_by.as_deref(), Some("/k.gpg"));
    }

    #[test]
    fn files_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, host: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let text = match name.ends_with(".sources") {
                true => format!("Types: deb\nURIs: http://{host}\nSuites: x\n"),
                false => format!("deb http://{host} x\n"),
            };
            fs::write(path, text).unwrap();
        };
        write("sources.list", "1");
        write("sources.list.d/b.sources", "3");
        write("sources.list.d/a.list", "2");
        write("sources.list.d/a.list.disabled", "no");
        write("sources.list.d/a b.list", "no");
        let found = sources(folder.path(), &client());
        assert_eq!(shown(&found), ["http://1 x ", "http://2 x ", "http://3 x "]);
        assert!(sources(Path::new("/nonexistent"), &client()).is_empty());
    }

    #[test]
    fn lists_of_mirrors() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("mirrors")).unwrap();
        fs::create_dir(path("sources.list.d")).unwrap();
        let list = "# chosen by the cloud\n\nhttp://third.example/debian\thttps://x\n\
            http://first.example/debian\tpriority:1 arch:amd64 arch:arm64\n\
            http://no.example/debian\tarch:arm64\nhttp://index.example/debian priority:1 type:index\n\
            http://second.example/debian priority:2 type:index type:deb # why\n";
        fs::write(path("mirrors/debian.list"), list).unwrap();
        let at = folder.path().display();
        let stanza = format!(
            "Types: deb deb-src\nURIs: mirror+file://{at}/mirrors/debian.list\nSuites: trixie trixie-updates\n\
             Components: main\n"
        );
        fs::write(path("sources.list.d/debian.sources"), stanza).unwrap();
        let others = format!(
            "deb mirror+file:{at}/mirrors/debian.list sid main\ndeb mirror+file:/nonexistent/list sid main\n\
             deb http://plain.example/debian sid main\ndeb cdrom:[Debian]/ sid main\n"
        );
        fs::write(path("sources.list"), others).unwrap();
        let found = sources(folder.path(), &client());
        let shown: Vec<String> = found
            .iter()
            .map(|source| {
                let hosts = source.mirrors.iter().map(|mirror| mirror.root.host().unwrap());
                let refused = source.refused.iter().map(|refused| refused.reason.as_str());
                format!("{}: {}", source.suite, hosts.chain(refused).collect::<Vec<_>>().join(", "))
            })
            .collect();
        let of_list = "first.example, index.example, second.example, third.example, for other architectures";
        assert_eq!(
            shown,
            [
                &format!("sid: {of_list}"),
                "sid: fetching file:///nonexistent/list: not found",
                "sid: plain.example",
                "sid: a disc",
                &format!("trixie: {of_list}"),
                &format!("trixie-updates: {of_list}"),
            ]
        );
    }

    #[test]
    fn lists_lie_in_files_or_on_servers() {
        let address = |uri: &str| list_address(uri).map(|found| found.unwrap().to_string());
        for (uri, expected) in [
            ("mirror+file:/etc/mirrors", "file:///etc/mirrors"),
            ("mirror+file:///etc/mirrors", "file:///etc/mirrors"),
            ("mirror+copy:/etc/mirrors", "file:///etc/mirrors"),
            ("mirror://lists.example/debian", "http://lists.example/debian"),
            ("mirror+http://lists.example:8080/debian", "http://lists.example:8080/debian"),
            ("mirror+https://lists.example/debian.xz", "https://lists.example/debian.xz"),
        ] {
            assert_eq!(address(uri).as_deref(), Some(expected), "{uri}");
        }
        for uri in
            ["http://a.example", "cdrom:[x]/", "tor+mirror+http://a.example", "mirror+ftp://a.example/x"]
        {
            assert_eq!(address(uri), None, "{uri}");
        }
        assert!(list_address("mirror+file:relative").unwrap().is_err());
    }
}
