//! Host names to addresses, without libc: a static binary must not load the modules that nsswitch.conf
//! names. `localhost` and /etc/hosts come first, then the servers of /etc/resolv.conf. There is no public
//! server to fall back to: whoever configured none shall not talk to a stranger.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, OnceLock};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, ResolveHosts};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::base::{input, limits};

/// Looks names up; see the module.
#[derive(Clone, Default)]
pub(super) struct Names {
    /// Made at the first use, as it needs the runtime of the caller.
    resolver: Arc<OnceLock<TokioResolver>>,
}

/// Why a name has no address.
#[derive(Debug, thiserror::Error)]
enum NameError {
    #[error("looking up {name}: /etc/resolv.conf names no usable server")]
    NoServer {
        name: String,
        #[source]
        source: hickory_resolver::net::NetError,
    },
    #[error("looking up {name}: {}", said(.reason))]
    Lookup { name: String, reason: hickory_resolver::net::NetError },
}

/// The usual case in words: the library shows its whole query.
fn said(reason: &hickory_resolver::net::NetError) -> String {
    match reason.is_nx_domain() || reason.is_no_records_found() {
        true => "no such host".to_owned(),
        false => reason.to_string(),
    }
}

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        let names = self.clone();
        Box::pin(async move {
            let name = name.as_str().to_owned();
            let mut addresses = local(&name, || input::read_text("/etc/hosts", limits::TEXT));
            if addresses.is_empty() {
                let resolver =
                    names.resolver().map_err(|source| NameError::NoServer { name: name.clone(), source })?;
                let found = resolver.lookup_ip(name.as_str()).await;
                addresses = found.map_err(|reason| NameError::Lookup { name, reason })?.iter().collect();
            }
            let addresses: Addrs = Box::new(addresses.into_iter().map(|ip| SocketAddr::new(ip, 0)));
            Ok(addresses)
        })
    }
}

impl Names {
    fn resolver(&self) -> Result<&TokioResolver, hickory_resolver::net::NetError> {
        if let Some(resolver) = self.resolver.get() {
            return Ok(resolver);
        }
        let mut builder = TokioResolver::builder_tokio()?;
        builder.options_mut().use_hosts_file = ResolveHosts::Never;
        builder.options_mut().ip_strategy = LookupIpStrategy::Ipv6AndIpv4;
        let resolver = builder.build()?;
        Ok(self.resolver.get_or_init(|| resolver))
    }
}

/// Addresses that this machine knows by itself; `hosts` reads the hosts file.
fn local(name: &str, hosts: impl FnOnce() -> io::Result<String>) -> Vec<IpAddr> {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    // RFC 6761, section 6.3: names below localhost are the loopback's, whatever a server says.
    if name == "localhost" || name.ends_with(".localhost") {
        return vec![Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()];
    }
    let hosts = hosts().unwrap_or_default();
    hosts
        .lines()
        .filter_map(|line| {
            let mut words = line.split('#').next()?.split_ascii_whitespace();
            let address = words.next()?.parse().ok()?;
            words.any(|word| word.eq_ignore_ascii_case(&name)).then_some(address)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_file() {
        let hosts = || {
            Ok("192.0.2.1 a.example A2 # c.example\n2001:db8::1\ta.example\nx b.example\n127.0.0.1 localhost\n"
                .to_owned())
        };
        let both: Vec<IpAddr> = vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        assert_eq!(local("A.example.", hosts), both);
        assert_eq!(local("a2", hosts), both[..1]);
        assert!(local("b.example", hosts).is_empty());
        assert!(local("c.example", hosts).is_empty());
        assert_eq!(local("x.localhost", || Err(io::ErrorKind::NotFound.into())).len(), 2);
    }
}
