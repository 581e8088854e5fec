//! The proxy on the way to the server, as the environment names it, and the hosts that are reached without one.
//!
//! The variables are those of curl (curl(1), "ENVIRONMENT"): `http_proxy` or `https_proxy` by the server's scheme, else
//! `all_proxy`. Each may be in capitals too.

use crate::client::address::{Endpoint, host_and_port, masked, port_number};
use crate::client::error::{ClientError, ProxyProblem};
use bigup_core::protocol::name::printable;
use std::net::IpAddr;
use ureq::Proxy;
use ureq::http::Uri;

/// The proxy by which `endpoint` is to be reached. `None`: there is no proxy, or `no_proxy` exempts the server.
///
/// This machine is never reached by way of a proxy: one named in the environment is for what is far away.
///
/// # Errors
/// The variable is set and names no proxy.
pub fn of_environment(endpoint: &Endpoint) -> Result<Option<Proxy>, ClientError> {
    if endpoint.is_loopback() || variable("no_proxy").is_some_and(|(_, list)| is_exempt(endpoint, &list)) {
        return Ok(None);
    }
    let own = if endpoint.is_tls() { "https_proxy" } else { "http_proxy" };
    let Some((variable, url)) = variable(own).or_else(|| variable("all_proxy")) else { return Ok(None) };
    let unusable = |problem| ClientError::Proxy { variable, url: printable(&masked(&url)), problem };
    parsed(&url).map(Some).map_err(unusable)
}

/// `proxy` in messages, without user and password.
pub fn shown(proxy: &Proxy) -> String {
    printable(masked(&proxy.uri().to_string()).trim_end_matches('/'))
}

/// Name and value of the environment's variable `name`, or of the same in capitals. `None`: neither is set, or only to
/// nothing.
fn variable(name: &str) -> Option<(String, String)> {
    let names = [name.to_owned(), name.to_ascii_uppercase()];
    let set = names.into_iter().filter_map(|name| std::env::var(&name).ok().map(|value| (name, value)));
    set.map(|(name, value)| (name, value.trim().to_owned())).find(|(_, value)| !value.is_empty())
}

fn parsed(url: &str) -> Result<Proxy, ProxyProblem> {
    const KINDS: [&str; 7] = ["http", "https", "socks", "socks4", "socks4a", "socks5", "socks5h"];
    let uri: Uri = url.parse().map_err(|_| ProxyProblem::NotAUrl)?;
    let scheme = uri.scheme_str().unwrap_or("http");
    if !KINDS.contains(&scheme) {
        return Err(ProxyProblem::Kind { kind: scheme.to_owned(), known: KINDS.join(", ") });
    }
    let authority = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
    let (host, port) = host_and_port(authority.rsplit('@').next().unwrap_or_default());
    if let Some(port) = port.filter(|port| port_number(port).is_none()) {
        return Err(ProxyProblem::Port(port.to_owned()));
    }
    if host.is_empty() {
        return Err(ProxyProblem::NoHost);
    }
    Proxy::new(url).map_err(|error| ProxyProblem::Unusable(error.to_string()))
}

/// True if the list `no_proxy` exempts the server at `endpoint`.
///
/// Entries are separated by commas or blanks, as curl(1) and Go's golang.org/x/net/http/httpproxy take them: `*` for
/// all, a domain for itself and all below it, whether dots or `*.` lead or not, an address, a network like 10.0.0.0/8,
/// and any of these but a network with a port.
fn is_exempt(endpoint: &Endpoint, list: &str) -> bool {
    let address = endpoint.host().parse::<IpAddr>().ok();
    let host = endpoint.host().trim_end_matches('.');
    let entries = list.split([',', ' ', '\t', '\n']).filter(|entry| !entry.is_empty());
    entries.map(str::to_ascii_lowercase).any(|entry| {
        let entry = entry.as_str();
        if entry == "*" {
            return true;
        }
        if let Some((network, bits)) = entry.split_once('/') {
            return address.is_some_and(|address| is_within(address, network, bits));
        }
        // An IPv6 address without brackets is all colons.
        let (name, port) = if entry.parse::<IpAddr>().is_ok() { (entry, None) } else { host_and_port(entry) };
        if port.is_some_and(|port| port_number(port) != Some(endpoint.port())) {
            return false;
        }
        match address {
            Some(address) => name.parse() == Ok(address),
            None => is_domain_of(host, name),
        }
    })
}

/// True if `host` is the domain `entry`, or lies below it.
fn is_domain_of(host: &str, entry: &str) -> bool {
    let entry = entry.strip_prefix('*').unwrap_or(entry).trim_matches('.');
    let above = host.strip_suffix(entry);
    !entry.is_empty() && above.is_some_and(|above| above.is_empty() || above.ends_with('.'))
}

/// True if the first `bits` bits of `address` are those of `network` (RFC 4632, section 3.1).
fn is_within(address: IpAddr, network: &str, bits: &str) -> bool {
    let network = network.trim_start_matches('[').trim_end_matches(']');
    let (Ok(network), Ok(bits)) = (network.parse::<IpAddr>(), bits.parse::<u32>()) else { return false };
    match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) if bits <= 32 => {
            (address.to_bits() ^ network.to_bits()).checked_shr(32 - bits).unwrap_or(0) == 0
        }
        (IpAddr::V6(address), IpAddr::V6(network)) if bits <= 128 => {
            (address.to_bits() ^ network.to_bits()).checked_shr(128 - bits).unwrap_or(0) == 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exempts(list: &str, url: &str) -> bool {
        is_exempt(&Endpoint::parse(url).unwrap(), list)
    }

    #[test]
    fn no_proxy_is_taken_as_by_others() {
        for (list, url) in [
            ("box.lan", "http://box.lan:8888"),
            ("localhost, box.lan", "http://box.lan"),
            (".foo , .lan", "http://box.lan"),
            ("lan", "http://box.lan"),
            ("LAN.", "http://Box.Lan"),
            ("*.lan", "http://box.lan"),
            ("foo *", "https://anything"),
            ("box.lan:8888", "http://box.lan:8888"),
            ("box.lan:443", "https://box.lan"),
            ("localhost, 10.99.0.1", "http://10.99.0.1:8888"),
            ("10.99.0.1:8888", "http://10.99.0.1:8888"),
            ("10.0.0.0/8", "http://10.99.0.1:8888"),
            ("10.99.0.1/32", "http://10.99.0.1"),
            ("0.0.0.0/0", "http://10.99.0.1"),
            ("fd00::/8", "http://[fd00:98::77]"),
            ("[fd00:98::77]", "http://[fd00:98::77]:1"),
            ("fd00:98::77", "http://[fd00:98:0::77]"),
            ("[fd00:98::77]:1", "http://[fd00:98::77]:1"),
            ("::/0", "http://[fd00:98::77]"),
        ] {
            assert!(exempts(list, url), "no_proxy={list:?} {url}");
        }
    }

    #[test]
    fn no_proxy_exempts_nothing_else() {
        for (list, url) in [
            ("", "http://box.lan"),
            ("ox.lan", "http://box.lan"),
            (".box.lan", "http://lan"),
            ("box.lan:80", "http://box.lan:8888"),
            (".", "http://box.lan"),
            ("0.0.1", "http://10.0.0.1"),
            ("11.0.0.0/8", "http://10.99.0.1"),
            ("10.0.0.0/33", "http://10.99.0.1"),
            ("10.0.0.0/x", "http://10.99.0.1"),
            ("10.0.0.0/8", "http://[fd00::1]"),
            ("10.0.0.0/8", "http://10.example"),
            ("fe00::/8", "http://[fd00::1]"),
            ("[fd00:98::77]:2", "http://[fd00:98::77]:1"),
        ] {
            assert!(!exempts(list, url), "no_proxy={list:?} {url}");
        }
    }

    #[test]
    fn a_proxy_is_checked_and_shown_without_its_password() {
        for url in ["http://p:3128", "p:3128", "https://p", "socks5://u:s3cr3t@p:1080", "socks5h://[::1]:1080"] {
            assert!(parsed(url).is_ok(), "{url}");
        }
        assert_eq!(shown(&parsed("http://u:s3cr3t@p:3128").unwrap()), "http://***@p:3128");
        for (url, part) in [("http://p:99999", "65535"), ("ftp://p", "ftp"), ("http://:1", "host"), ("a b", "no URL")] {
            let message = parsed(url).unwrap_err().to_string();
            assert!(message.contains(part), "{url}: {message}");
        }
    }
}
