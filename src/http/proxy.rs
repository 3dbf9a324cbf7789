//! Which proxy stands between here and an address: the environment's, else apt's.

use std::net::IpAddr;

use crate::http::apt::Config;
use crate::http::url::{Url, redacted};

/// Proxies by scheme, and the hosts that go without.
#[derive(Clone, Default)]
pub struct Proxies {
    http: Option<String>,
    https: Option<String>,
    exceptions: Vec<Exception>,
    apt: Config,
}

/// One entry of `no_proxy`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Exception {
    All,
    /// The domain and all below it.
    Domain(String, Option<u16>),
    /// A network; a lone address is one of full length.
    Network(IpAddr, u8, Option<u16>),
}

impl Proxies {
    /// From `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy` as `var` reads them, in lower or upper
    /// case; then from apt's `Acquire::http::Proxy`, `Acquire::https::Proxy` and their variants by host.
    pub fn new(var: impl Fn(&str) -> Option<String>, apt: Config) -> Self {
        // Under CGI, HTTP_PROXY is what a request's `Proxy:` header says: CVE-2016-5385.
        let is_cgi = var("REQUEST_METHOD").is_some();
        let either = |name: &str| {
            let upper = name.to_ascii_uppercase();
            var(name)
                .or_else(|| if is_cgi && upper == "HTTP_PROXY" { None } else { var(&upper) })
                .filter(|value| !value.is_empty())
        };
        let all = either("all_proxy");
        Self {
            http: either("http_proxy").or_else(|| all.clone()),
            https: either("https_proxy").or(all),
            exceptions: either("no_proxy").unwrap_or_default().split(',').filter_map(parse).collect(),
            apt,
        }
    }

    /// The proxy for `scheme`, `host` and `port`, with its secrets; none to connect directly.
    pub(super) fn choose(&self, scheme: &str, host: &str, port: Option<u16>) -> Option<String> {
        let host = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
        if self.exceptions.iter().any(|exception| exception.covers(host, port)) {
            return None;
        }
        let environment = match scheme {
            "http" => &self.http,
            "https" => &self.https,
            _ => return None,
        };
        let chosen = environment.as_deref().or_else(|| {
            // In apt, https takes its settings from http where it has none of its own.
            let schemes = if scheme == "https" { &["https", "http"][..] } else { &["http"] };
            let setting = |suffix: &str| {
                schemes.iter().find_map(|scheme| self.apt.get(&format!("Acquire::{scheme}::Proxy{suffix}")))
            };
            setting(&format!("::{host}")).or_else(|| setting(""))
        })?;
        if chosen.eq_ignore_ascii_case("DIRECT") || chosen.eq_ignore_ascii_case("false") {
            return None;
        }
        match chosen.contains("://") {
            true => Some(chosen.to_owned()),
            false => Some(format!("http://{chosen}")),
        }
    }

    /// The proxy for `url`, as it can be shown, if it is set to something that is no proxy: the HTTP library
    /// would go without.
    pub(super) fn unusable(&self, url: &Url) -> Option<String> {
        let proxy = self.choose(url.scheme(), url.host()?, url.port())?;
        let is_proxy = |url: url::Url| {
            url.has_host()
                && matches!(url.scheme(), "http" | "https" | "socks4" | "socks4a" | "socks5" | "socks5h")
        };
        (!url::Url::parse(&proxy).is_ok_and(is_proxy)).then(|| redacted(&proxy))
    }

    /// The proxy for `url` as it can be shown.
    pub fn shown(&self, url: &Url) -> Option<String> {
        self.choose(url.scheme(), url.host()?, url.port()).map(|proxy| redacted(&proxy))
    }
}

fn parse(entry: &str) -> Option<Exception> {
    let entry = entry.trim();
    match entry {
        "" => return None,
        "*" => return Some(Exception::All),
        _ => {}
    }
    if let Some((address, length)) = entry.split_once('/') {
        return Some(Exception::Network(address.parse().ok()?, length.parse().ok()?, None));
    }
    let (host, port) = match entry.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, port.parse().ok()),
        _ => (entry, None),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = host.parse::<IpAddr>() {
        return Some(Exception::Network(address, if address.is_ipv4() { 32 } else { 128 }, port));
    }
    let domain = host.trim_start_matches("*.").trim_matches('.').to_ascii_lowercase();
    Some(Exception::Domain(domain, port))
}

impl Exception {
    fn covers(&self, host: &str, port: Option<u16>) -> bool {
        let same_port = |wanted: &Option<u16>| wanted.is_none() || *wanted == port;
        match self {
            Self::All => true,
            Self::Domain(domain, wanted) => {
                let host = host.to_ascii_lowercase();
                same_port(wanted)
                    && host
                        .strip_suffix(domain.as_str())
                        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }
            Self::Network(network, length, wanted) => {
                same_port(wanted) && host.parse().is_ok_and(|address| within(address, *network, *length))
            }
        }
    }
}

/// Whether the first `length` bits of two addresses are the same.
fn within(address: IpAddr, network: IpAddr, length: u8) -> bool {
    let (difference, bits) = match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from((a.to_bits() ^ b.to_bits()).reverse_bits()), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => ((a.to_bits() ^ b.to_bits()).reverse_bits(), 128),
        _ => return false,
    };
    length <= bits && (difference == 0 || difference.trailing_zeros() >= u32::from(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(vars: &[(&str, &str)]) -> Proxies {
        Proxies::new(
            |name| vars.iter().find(|var| var.0 == name).map(|var| var.1.to_owned()),
            Config::default(),
        )
    }

    #[test]
    fn environment() {
        let some = proxies(&[("http_proxy", "a:1"), ("HTTP_PROXY", "b:1"), ("ALL_PROXY", "socks5://c:2")]);
        assert_eq!(some.choose("http", "x", Some(80)).as_deref(), Some("http://a:1"));
        assert_eq!(some.choose("https", "x", Some(443)).as_deref(), Some("socks5://c:2"));
        assert_eq!(some.choose("file", "", None), None);
        let cgi = proxies(&[("REQUEST_METHOD", "GET"), ("HTTP_PROXY", "b:1")]);
        assert_eq!(cgi.choose("http", "x", Some(80)), None);
    }

    #[test]
    fn settings_of_apt() {
        let folder = tempfile::tempdir().unwrap();
        let text = "Acquire::http::Proxy \"http://p:1\"; Acquire::http::Proxy::a.example DIRECT;";
        std::fs::write(folder.path().join("apt.conf"), text).unwrap();
        let apt = Config::read(folder.path());
        let some = Proxies::new(|_| None, apt.clone());
        for scheme in ["http", "https"] {
            assert_eq!(some.choose(scheme, "b.example", None).as_deref(), Some("http://p:1"));
            assert_eq!(some.choose(scheme, "a.example", None), None);
        }
        let both = Proxies::new(|name| (name == "https_proxy").then(|| "http://e:2".to_owned()), apt);
        assert_eq!(both.choose("https", "b.example", None).as_deref(), Some("http://e:2"));
    }

    #[test]
    fn nonsense_is_not_ignored() {
        let url: Url = "http://mirror.example/".parse().unwrap();
        for bad in ["ftp://p:1", "http://", "http://me:s3cret@p:port", "://"] {
            let shown = proxies(&[("http_proxy", bad)]).unusable(&url).unwrap();
            assert!(!shown.contains("s3cret"), "{shown}");
        }
        for good in ["p:1", "http://p", "socks5h://me:x@p:1080"] {
            assert_eq!(proxies(&[("http_proxy", good)]).unusable(&url), None, "{good}");
        }
    }

    #[test]
    fn exceptions() {
        let some = proxies(&[
            ("https_proxy", "http://p"),
            (
                "no_proxy",
                "corp.example, .dot.example,*.star.example,port.example:8443,10.0.0.0/8,192.0.2.7,[2001:db8::1]:443,fd00::/8",
            ),
        ]);
        let direct = |host: &str, port| some.choose("https", host, Some(port)).is_none();
        for host in ["corp.example", "A.CORP.example.", "dot.example", "x.dot.example", "x.star.example"] {
            assert!(direct(host, 443), "{host}");
        }
        for host in ["10.255.0.1", "192.0.2.7", "[2001:db8::1]", "fd12::1"] {
            assert!(direct(host, 443), "{host}");
        }
        for host in ["notcorp.example", "11.0.0.1", "192.0.2.8", "[2001:db8::2]", "fe00::1", "port.example"] {
            assert!(!direct(host, 443), "{host}");
        }
        assert!(direct("port.example", 8443) && !direct("[2001:db8::1]", 80));
        assert!(proxies(&[("http_proxy", "p"), ("NO_PROXY", "*")]).choose("http", "x", None).is_none());
    }

    #[test]
    fn secrets_stay_hidden() {
        let some = proxies(&[("http_proxy", "http://me:s3cret@proxy.example:3128")]);
        let shown = some.shown(&"http://mirror.example/".parse().unwrap()).unwrap();
        assert_eq!(shown, "http://***@proxy.example:3128");
    }
}
