//! What the agent goes by, in three stages: [`Fragment`], a file as an operator writes it; [`Inputs`], all
//! files that were found, with what is built into the image; [`Settings`], whole and checked.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::base::duration::{ParseDurationError, Problem};
use crate::base::failure::{Doing, Failure};
use crate::base::progress::Progress;
use crate::base::window::Window;
use crate::base::{Chain, duration};
use crate::update::settings::{Built, Health, PATH, ROOT_JSON};

/// Where an operator's file lies: the first that is there. JSON is YAML too.
const OWN: [&str; 2] = ["etc/keller/update.yaml", "etc/keller/update.json"];
/// An operator's root of trust, in place of the one that the image has.
const OWN_ROOT_JSON: &str = "etc/keller/root.json";
/// More often than this, a fleet is an attack on its server.
const LEAST_INTERVAL: Duration = Duration::from_secs(60);

/// An operator's file: each field takes the place of what the image says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Fragment {
    /// Root of the repository: http or https.
    pub url: Option<String>,
    /// The channel to follow.
    pub channel: Option<String>,
    /// Whether a new version is taken without anybody's word.
    pub automatic: Option<bool>,
    /// When that may be; `always` takes away the window of the image.
    pub window: Option<String>,
    /// Time between two looks at the repository, such as `5m` or `6h`, as in a manifest; below a minute or above 30
    /// days, the nearest of both is taken.
    pub interval: Option<String>,
    /// Proxy for http and https.
    pub proxy: Option<String>,
    /// PEM files with CA certificates, besides the image's.
    pub authorities: Vec<PathBuf>,
    /// A program that runs before a new version is started, e.g. to take a snapshot; if it fails, nothing is
    /// started.
    pub before: Vec<String>,
}

/// All that was found.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// What the image says.
    pub built: Built,
    /// What an operator says, and where.
    pub own: Option<(PathBuf, Fragment)>,
    /// root.json, wherever it is from.
    pub root_json: Option<Vec<u8>>,
}

/// Whole and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// IMAGE_ID.
    pub id: String,
    /// IMAGE_VERSION of what runs.
    pub version: String,
    /// Seconds since 1970: no clock that shows less is right.
    pub epoch: i64,
    /// When a boot counts as good.
    pub health: Health,
    /// Where updates come from; none where neither the image nor an operator names a repository.
    pub source: Option<Source>,
    /// What is taken otherwise than an operator wrote it, for whoever reads to tell.
    pub warnings: Vec<String>,
}

/// Where updates come from, and when they are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Root of the repository.
    pub url: String,
    /// The channel to follow.
    pub channel: String,
    /// Whether a new version is taken without anybody's word.
    pub automatic: bool,
    /// When that may be; any time when none.
    pub window: Option<Window>,
    /// Seconds between two looks at the repository.
    pub interval_seconds: u64,
    /// Proxy for http and https.
    pub proxy: Option<String>,
    /// PEM files with further CA certificates.
    pub authorities: Vec<PathBuf>,
    /// What runs before a new version is started; nothing when empty.
    pub before: Vec<String>,
    /// The root of trust.
    pub root_json: Vec<u8>,
}

impl Inputs {
    fn image(root: &Path) -> Result<Built, Failure> {
        let path = root.join(PATH);
        let text = fs::read(&path).doing(format!("reading {}", path.display()));
        let text = text.map_err(|failure| failure.help("this is for nodes that keller built"))?;
        serde_json::from_slice(&text).doing(format!("reading {}", path.display()))
    }

    /// Reads what lies under `root`, which is `/` on a node.
    pub fn read(root: &Path) -> Result<Self, Failure> {
        let built = Self::image(root)?;
        let mut own = None;
        for name in OWN {
            let path = root.join(name);
            if let Some(text) = optional(&path)? {
                let text = String::from_utf8(text).doing(format!("reading {}", path.display()))?;
                own = Some((path.clone(), fragment(&text).doing(format!("reading {}", path.display()))?));
                break;
            }
        }
        let root_json = match optional(&root.join(OWN_ROOT_JSON))? {
            Some(bytes) => Some(bytes),
            None => optional(&root.join(ROOT_JSON))?,
        };
        Ok(Self { built, own, root_json })
    }

    fn settle_without_source(self) -> Result<Settings, Failure> {
        Inputs { built: Built { update: None, ..self.built }, own: None, root_json: None }.settle()
    }

    /// Lays the operator's word over the image's.
    pub fn settle(self) -> Result<Settings, Failure> {
        let Self { built, own, root_json } = self;
        let (path, own) = own.unwrap_or_default();
        let wrong = |cause: String| Failure::new(format!("reading {}", path.display()), cause);
        let (url, channel, automatic, window, interval_seconds) = match built.update {
            Some(source) => {
                (Some(source.url), source.channel, source.automatic, source.window, source.interval_seconds)
            }
            None => (None, "stable".to_owned(), false, None, 3600),
        };
        let window = match own.window.as_deref() {
            None => window,
            Some("always") => None,
            Some(text) => Some(text.parse().map_err(|error| wrong(format!("window: {error}")))?),
        };
        let mut warnings = Vec::new();
        let interval = match own.interval.as_deref() {
            None => Duration::from_secs(interval_seconds).max(LEAST_INTERVAL),
            Some(text) => {
                let (interval, is_bound) =
                    interval(text).map_err(|error| wrong(format!("interval: {error}")))?;
                if is_bound {
                    let shown = duration::Shown(interval);
                    let path = path.display();
                    warnings.push(format!("{path}: interval: `{text}` is out of range; {shown} is taken"));
                }
                interval
            }
        };
        let source = match (own.url.or(url), root_json) {
            (Some(url), Some(root_json)) => {
                if !url.starts_with("https://") && !url.starts_with("http://") {
                    return Err(wrong(format!("url: expected http:// or https://, but have `{url}`")));
                }
                Some(Source {
                    url: url.trim_end_matches('/').to_owned(),
                    channel: own.channel.unwrap_or(channel),
                    automatic: own.automatic.unwrap_or(automatic),
                    window,
                    interval_seconds: interval.as_secs(),
                    proxy: own.proxy,
                    authorities: own.authorities,
                    before: own.before,
                    root_json,
                })
            }
            (Some(_), None) => {
                return Err(wrong(format!(
                    "it names a repository, but neither /{OWN_ROOT_JSON} nor /{ROOT_JSON} says whom to trust"
                )));
            }
            (None, _) => None,
        };
        Ok(Settings {
            id: built.id,
            version: built.version,
            epoch: built.epoch,
            health: built.health,
            source,
            warnings,
        })
    }
}

/// The interval of an operator's file, and whether it is a bound in place of what stands there: the file is on the
/// node since a version that took any number, and an agent that refuses it never gets another version.
fn interval(text: &str) -> Result<(Duration, bool), ParseDurationError> {
    let longest = *duration::INTERVAL.end();
    let written = match duration::parse(text, &(Duration::ZERO..=Duration::MAX)) {
        Err(error) if error.problem == Problem::Form && is_beyond(text) => Duration::MAX,
        other => other?,
    };
    let interval = written.clamp(LEAST_INTERVAL, longest);
    Ok((interval, interval != written))
}

/// Whether `text` is a number with a unit, which is not a time only because it is too long.
fn is_beyond(text: &str) -> bool {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = &text[digits.len()..];
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number && duration::parse(&format!("1{unit}"), &(Duration::ZERO..=Duration::MAX)).is_ok()
}

impl Settings {
    /// What the image says, whatever an operator wrote: a wrong letter in /etc must not fail a boot.
    pub fn image() -> Result<Built, Failure> {
        Inputs::image(Path::new("/"))
    }

    /// Those of this node, or what the image alone says where an operator's file is wrong: for what must work then
    /// too.
    pub fn read_lenient(progress: &dyn Progress) -> Result<Self, Failure> {
        Self::read().or_else(|failure| {
            progress.warn(&Chain(&failure).to_string());
            Inputs { built: Inputs::image(Path::new("/"))?, own: None, root_json: None }
                .settle_without_source()
        })
    }

    /// Those of this node.
    pub fn read() -> Result<Self, Failure> {
        Inputs::read(Path::new("/"))?.settle()
    }

    /// Tells the warnings.
    pub fn tell(&self, progress: &dyn Progress) {
        for warning in &self.warnings {
            progress.warn(warning);
        }
    }
}

fn fragment(text: &str) -> Result<Fragment, Box<dyn std::error::Error + Send + Sync>> {
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(Fragment::default());
    }
    Ok(serde_saphyr::from_str(text).map_err(|error| error.to_string())?)
}

fn optional(path: &Path) -> Result<Option<Vec<u8>>, Failure> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::new(format!("reading {}", path.display()), error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Chain;

    fn node(own: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let built = r#"{"id": "node", "version": "1.0.0", "epoch": 7,
            "health": {"units": ["ssh.service"], "etcd": true, "command": [], "stable_seconds": 5,
                "deadline_seconds": 120},
            "update": {"url": "https://a.example/x/", "channel": "stable", "automatic": false,
                "window": "02:00-05:00", "interval_seconds": 3600}}"#;
        fs::create_dir_all(root.path().join("usr/lib/keller")).unwrap();
        fs::create_dir_all(root.path().join("etc/keller")).unwrap();
        fs::write(root.path().join(PATH), built).unwrap();
        fs::write(root.path().join(ROOT_JSON), "{}").unwrap();
        fs::write(root.path().join(OWN[0]), own).unwrap();
        root
    }

    fn settled(own: &str) -> Result<Settings, String> {
        let read = Inputs::read(node(own).path()).and_then(Inputs::settle);
        read.map_err(|failure| Chain(&failure).to_string())
    }

    #[test]
    fn an_operator_has_the_last_word() {
        let plain = settled("# nothing\n").unwrap().source.unwrap();
        assert_eq!((plain.url.as_str(), plain.automatic), ("https://a.example/x", false));
        assert_eq!(plain.window.unwrap().to_string(), "02:00-05:00");
        let own = settled("automatic: true\nwindow: always\ninterval: 5s\n").unwrap().source.unwrap();
        assert_eq!((own.automatic, own.window, own.interval_seconds), (true, None, LEAST_INTERVAL.as_secs()));
        for (text, seconds) in [("5m", 300), ("5min", 300), ("1h30m", 5400), ("2d", 2 * 86_400)] {
            let own = settled(&format!("interval: {text}\n")).unwrap().source.unwrap();
            assert_eq!(own.interval_seconds, seconds, "{text}");
        }
        assert_eq!(settled("{\"url\": \"http://b\"}").unwrap().source.unwrap().url, "http://b");
    }

    #[test]
    fn what_a_document_says_of_updates_is_read() {
        struct Image;
        impl crate::node::Image for Image {
            fn read(&self, _: &str) -> Option<String> {
                None
            }
        }
        let text = "node: 1\nupdate: {url: \"https://b.example\", channel: beta, automatic: true, window: \"Sat 02:00-05:00\", \
                    interval: 2h, proxy: \"http://proxy.example:3128\"}\n";
        let document = crate::node::read("x", text.as_bytes()).unwrap().remove(0);
        let items = crate::node::render(&document, &Image).items;
        let item = items.iter().find(|item| item.path == format!("/{}", OWN[0])).unwrap();
        let crate::node::Kind::File(bytes, 0o644) = &item.kind else { panic!("{item:?}") };
        let source = settled(std::str::from_utf8(&bytes.0).unwrap()).unwrap().source.unwrap();
        assert_eq!(
            (source.url.as_str(), source.channel.as_str(), source.automatic),
            ("https://b.example", "beta", true)
        );
        assert_eq!(source.window.unwrap().to_string(), "Sat 02:00-05:00");
        assert_eq!(
            (source.interval_seconds, source.proxy.as_deref()),
            (7200, Some("http://proxy.example:3128"))
        );
    }

    /// A file that the agent of an older version took must not keep that of a newer one from looking for updates.
    #[test]
    fn an_interval_out_of_range_is_the_nearest_that_may_be() {
        let month = 30 * 86_400;
        for (text, seconds, shown) in [
            ("1000h", month, "30d"),
            ("0s", 60, "60s"),
            ("0min", 60, "60s"),
            ("5s", 60, "60s"),
            ("31d", month, "30d"),
            ("52w", month, "30d"),
            ("99999999999999h", month, "30d"),
            ("18446744073709551615s", month, "30d"),
        ] {
            let settings = settled(&format!("interval: {text}\n")).unwrap();
            assert_eq!(settings.source.unwrap().interval_seconds, seconds, "{text}");
            let [warning] = &settings.warnings[..] else { panic!("{text}: {:?}", settings.warnings) };
            let end =
                format!("/etc/keller/update.yaml: interval: `{text}` is out of range; {shown} is taken");
            assert!(warning.ends_with(&end), "{warning}");
        }
        for text in ["60s", "720h", "30d"] {
            assert!(settled(&format!("interval: {text}\n")).unwrap().warnings.is_empty(), "{text}");
        }
        for text in ["-1h", "99999999999999", "99999999999999 parsecs", "500ms"] {
            assert!(settled(&format!("interval: \"{text}\"\n")).unwrap_err().contains(text), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let error = settled("url: https://b\nchanel: beta\n").unwrap_err();
        assert!(error.contains("update.yaml") && error.contains("chanel") && error.contains("2"), "{error}");
        assert!(settled("window: at night").unwrap_err().contains("window: expected a time of day"));
        assert!(settled("url: ftp://b").unwrap_err().contains("expected http"));
        assert!(settled("interval: 3").unwrap_err().contains("interval"));
        let error = settled("interval: fortnightly").unwrap_err();
        assert!(
            error.contains("update.yaml: interval: `fortnightly` is not a time; expected a number"),
            "{error}"
        );
    }
}
