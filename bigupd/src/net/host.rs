//! The server that a request means, and the origin that a page is of, as a request tells them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Host and port, as in a Host header (RFC 9110, section 7.2). Equal ones stand for the same server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// In lower case, without the dot of the root at its end. Empty: the header names no host.
    name: String,
    ip: Option<IpAddr>,
    /// `None` if that of the scheme.
    port: Option<u16>,
}

impl Host {
    /// Reads `uri-host [":" port]` (RFC 9112, section 3.2; RFC 3986, section 3.2.2). `None` if it is no such thing.
    pub fn parse(text: &str) -> Option<Host> {
        let (name, port) = match text.rfind(':') {
            Some(colon) if !text.ends_with(']') => (&text[..colon], &text[colon + 1..]),
            _ => (text, ""),
        };
        let port = match port {
            "" => None,
            digits if digits.bytes().all(|b| b.is_ascii_digit()) => Some(digits.parse().ok()?),
            _ => return None,
        };
        if let Some(literal) = name.strip_prefix('[') {
            let ip: Ipv6Addr = literal.strip_suffix(']')?.parse().ok()?;
            return Some(Host { name: format!("[{ip}]"), ip: Some(ip.into()), port });
        }
        if !is_registered_name(name) {
            return None;
        }
        let ip = name.parse::<Ipv4Addr>().ok().map(IpAddr::from);
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        Some(Host { name, ip, port })
    }

    /// The name in lower case, or the address.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// True if a port is told.
    pub fn has_port(&self) -> bool {
        self.port.is_some()
    }

    /// True if it is an address and no name, so that it does not depend on DNS.
    pub fn is_address(&self) -> bool {
        self.ip.is_some()
    }

    /// The same, where the port is left out if it is the one that `scheme` has by itself.
    fn under(self, scheme: &str) -> Host {
        let usual = match scheme {
            "http" => Some(80),
            "https" => Some(443),
            _ => None,
        };
        Host { port: self.port.filter(|port| Some(*port) != usual), ..self }
    }
}

/// Unreserved characters, sub-delimiters and percent-encoded bytes.
fn is_registered_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    while let Some(byte) = bytes.next() {
        let is_right = match byte {
            b'%' => (0..2).all(|_| bytes.next().is_some_and(|digit| digit.is_ascii_hexdigit())),
            other => other.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&other),
        };
        if !is_right {
            return false;
        }
    }
    true
}

/// Where a page comes from (RFC 6454).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    scheme: String,
    host: Host,
}

impl Origin {
    /// Reads `scheme://host[:port]`. `None` if it is no such thing, like `null`.
    pub fn parse(text: &str) -> Option<Origin> {
        let (scheme, host) = text.split_once("://")?;
        let scheme = scheme.to_ascii_lowercase();
        let is_scheme = |b: u8| b.is_ascii_alphanumeric() || b"+-.".contains(&b);
        let host = Host::parse(host)?.under(&scheme);
        let is_right = !scheme.is_empty() && scheme.bytes().all(is_scheme) && !host.name.is_empty();
        is_right.then_some(Origin { scheme, host })
    }

    /// The origin of an address, as a Referer header has it (RFC 9110, section 10.1.3).
    pub fn of_address(address: &str) -> Option<Origin> {
        let rest = address.find("://")? + 3;
        let end = address[rest..].find(['/', '?', '#']).map_or(address.len(), |end| rest + end);
        Origin::parse(&address[..end])
    }

    /// True if `host`, which a request names, is the host that the page came from. `needs_https`: the server speaks
    /// https only; else both schemes match, since a proxy may have taken the TLS away.
    pub fn is_of(&self, host: &Host, needs_https: bool) -> bool {
        let is_spoken = if needs_https { self.scheme == "https" } else { matches!(&*self.scheme, "http" | "https") };
        is_spoken && host.clone().under(&self.scheme) == self.host
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = self.host.port.map_or_else(String::new, |port| format!(":{port}"));
        write!(f, "{}://{}{port}", self.scheme, self.host.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read() {
        for (text, name, port, is_address) in [
            ("Files.Example.Org", "files.example.org", None, false),
            ("files.example.org.:8888", "files.example.org", Some(8888), false),
            ("127.0.0.1:80", "127.0.0.1", Some(80), true),
            ("[0:0::1]:1", "[::1]", Some(1), true),
            ("[::1]", "[::1]", None, true),
            ("a%20b:", "a%20b", None, false),
            ("127.1", "127.1", None, false),
            ("", "", None, false),
        ] {
            let host = Host::parse(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!((host.name(), host.port, host.is_address()), (name, port, is_address), "{text}");
        }
        for wrong in ["a b", "a/b", "u@h", "[::1", "::1", "[127.0.0.1]", "a:b", "a:1:2", "a:99999", "%4", "é", "a\\b"]
        {
            assert_eq!(Host::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn origins_are_compared_by_scheme_host_and_port() {
        let origin = |text| Origin::parse(text).unwrap();
        assert_eq!(origin("HTTP://A.example:80"), origin("http://a.example"));
        assert_eq!(origin("https://a.example:443"), origin("https://a.example"));
        for other in ["https://a.example", "http://a.example:443", "http://b.a.example", "tauri://a.example"] {
            assert_ne!(origin("http://a.example"), origin(other), "{other}");
        }
        assert_eq!(origin("https://[::1]:8443").to_string(), "https://[::1]:8443");
        for wrong in ["null", "", "a.example", "http://", "://a", "http://a/", "http://u@a", "http:a"] {
            assert_eq!(Origin::parse(wrong), None, "{wrong}");
        }
        let of_address = |text| Origin::of_address(text).map(|origin| origin.to_string());
        assert_eq!(of_address("https://a.example:8443/x?y://z").as_deref(), Some("https://a.example:8443"));
        assert_eq!(of_address("http://a.example?x").as_deref(), Some("http://a.example"));
        assert_eq!(of_address("about:blank"), None);
    }

    #[test]
    fn a_page_is_of_the_host_that_it_calls() {
        let is_of = |origin, host, tls| Origin::parse(origin).unwrap().is_of(&Host::parse(host).unwrap(), tls);
        assert!(is_of("http://127.0.0.1:8888", "127.0.0.1:8888", false));
        assert!(is_of("https://files.example.org", "files.example.org:443", false));
        assert!(is_of("https://files.example.org", "Files.example.org", true));
        assert!(!is_of("http://files.example.org", "files.example.org", true));
        assert!(!is_of("http://127.0.0.1:8889", "127.0.0.1:8888", false));
        assert!(!is_of("http://localhost:8888", "127.0.0.1:8888", false));
        assert!(!is_of("file://localhost", "localhost", false));
    }
}
