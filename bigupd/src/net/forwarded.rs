//! The client for which a proxy asks: X-Forwarded-For, and Forwarded (RFC 7239).
//!
//! Every client can send these headers. So they count only on the connection of a trusted proxy, and are read from
//! their end, where the nearest proxy wrote: the first address that is not a trusted proxy's is the client's. The text
//! left of it is the client's own, and can be anything.

use crate::net::peer::Peer;
use crate::refusal::Refusal;
use bigup_core::protocol::name::quoted;
use bigup_core::protocol::native::ErrorCode;
use std::net::{IpAddr, SocketAddr};
use warp::http::header::{FORWARDED, HeaderMap, HeaderName};

/// The older header of the two; it has no standard.
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The proxies that are trusted to name their client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies(Vec<Proxy>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Proxy {
    /// All connections to a socket in the file system.
    Unix,
    /// Addresses that share their first bits.
    Network(IpAddr, u32),
}

impl Proxy {
    fn parse(text: &str) -> Result<Proxy, String> {
        if text == "unix" {
            return Ok(Proxy::Unix);
        }
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let network = || {
            let address: IpAddr = address.parse().ok()?;
            let most = if address.is_ipv4() { 32 } else { 128 };
            let bits = bits.map_or(Some(most), |bits| bits.parse().ok()).filter(|bits| *bits <= most)?;
            Some(Proxy::Network(address, bits))
        };
        network().ok_or_else(|| {
            format!("{} is no address, no network like 10.0.0.0/8 or fd00::/8, and not unix", quoted(text))
        })
    }

    fn covers(&self, ip: IpAddr) -> bool {
        let thread_shares = |one: u128, other: u128, len: u32, bits: u32| {
            // A shift by all bits is not defined.
            bits == 0 || (one ^ other) >> (len - bits) == 0
        };
        match (self, ip.to_canonical()) {
            (Proxy::Network(IpAddr::V4(net), bits), IpAddr::V4(ip)) => {
                thread_shares(net.to_bits().into(), ip.to_bits().into(), 32, *bits)
            }
            (Proxy::Network(IpAddr::V6(net), bits), IpAddr::V6(ip)) => {
                thread_shares(net.to_bits(), ip.to_bits(), 128, *bits)
            }
            _ => false,
        }
    }
}

impl Proxies {
    /// Reads addresses, networks and the word `unix`, between commas or spaces.
    ///
    /// # Errors
    /// An entry is none of these.
    pub fn parse(text: &str) -> Result<Proxies, String> {
        let each = text.split([',', ' ']).filter(|part| !part.is_empty());
        each.map(Proxy::parse).collect::<Result<_, _>>().map(Proxies)
    }

    /// True if `peer` is a trusted proxy.
    pub fn trust(&self, peer: Peer) -> bool {
        match peer {
            Peer::Unix => self.0.contains(&Proxy::Unix),
            Peer::Tcp(_) | Peer::Forwarded(_) => peer.ip().is_some_and(|ip| self.cover(ip)),
        }
    }

    fn cover(&self, ip: IpAddr) -> bool {
        self.0.iter().any(|proxy| proxy.covers(ip))
    }

    /// The sender of a request with these headers, on a connection of `peer`: `peer` itself, or the client that it
    /// names if it is trusted.
    ///
    /// # Errors
    /// The headers contradict each other, or cannot be read: the client wrote one that the proxy passes on as it is.
    pub fn sender(&self, peer: Peer, headers: &HeaderMap) -> Result<Peer, Refusal> {
        if !self.trust(peer) {
            return Ok(peer);
        }
        let by_list = self.first_other(&listed(headers));
        let by_standard = self.first_other(&standard(headers).ok_or_else(malformed)?);
        match (by_list, by_standard) {
            (None, None) => Ok(peer),
            (Some(told), None) | (None, Some(told)) => Ok(Peer::Forwarded(told)),
            (Some(told), Some(same)) if told == same => Ok(Peer::Forwarded(told)),
            (Some(_), Some(_)) => Err(contradiction()),
        }
    }

    /// The last address that is no trusted proxy's; the first one of all where all are. Some(None): it is not told,
    /// since the proxies hide it. `None` if nothing is told at all.
    fn first_other(&self, nodes: &[Option<IpAddr>]) -> Option<Option<IpAddr>> {
        let other = nodes.iter().rev().find(|node| node.is_none_or(|ip| !self.cover(ip)));
        other.or(nodes.first()).copied()
    }
}

/// True if a proxy forwarded a request with these headers.
pub fn is_forwarded(headers: &HeaderMap) -> bool {
    headers.contains_key(X_FORWARDED_FOR) || headers.contains_key(FORWARDED)
}

/// All lines of a header as one (RFC 9110, section 5.3).
fn whole(headers: &HeaderMap, name: HeaderName) -> String {
    let lines: Vec<_> = headers.get_all(name).iter().map(|line| String::from_utf8_lossy(line.as_bytes())).collect();
    lines.join(",")
}

/// The addresses in X-Forwarded-For; `None` for an entry that is no address.
fn listed(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    let whole = whole(headers, X_FORWARDED_FOR);
    whole.split(',').map(str::trim).filter(|node| !node.is_empty()).map(node).collect()
}

/// The addresses in Forwarded. `None` if it breaks the rules of RFC 7239, section 4. That matters: with an unclosed
/// quote a client could hide the text that the proxy adds behind it.
fn standard(headers: &HeaderMap) -> Option<Vec<Option<IpAddr>>> {
    let whole = whole(headers, FORWARDED);
    let elements = split_unquoted(&whole, ',')?;
    let elements = elements.into_iter().map(str::trim).filter(|element| !element.is_empty());
    elements.map(node_of_element).collect()
}

/// The node that an element of Forwarded is for. `None` if the element is malformed.
fn node_of_element(element: &str) -> Option<Option<IpAddr>> {
    let mut of_element = None;
    for pair in split_unquoted(element, ';')? {
        let (name, value) = pair.trim().split_once('=')?;
        let value = match value.strip_prefix('"') {
            Some(rest) => rest.strip_suffix('"')?,
            None => value,
        };
        if value.contains('"') {
            return None;
        }
        if name.eq_ignore_ascii_case("for") && of_element.replace(node(value)).is_some() {
            return None;
        }
    }
    Some(of_element.flatten())
}

/// Cuts at each `separator` outside quotes. `None` if a quote is not closed.
fn split_unquoted(text: &str, separator: char) -> Option<Vec<&str>> {
    let (mut parts, mut begin, mut is_quoted, mut is_escaped) = (vec![], 0, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            c if c == separator && !is_quoted => {
                parts.push(&text[begin..at]);
                begin = at + c.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(&text[begin..]);
    (!is_quoted).then_some(parts)
}

/// The address of a node, with or without brackets and a port (RFC 7239, section 6). `None` if it is hidden, or no
/// address.
fn node(text: &str) -> Option<IpAddr> {
    if let Some(rest) = text.strip_prefix('[') {
        return rest.split_once(']')?.0.parse().ok().map(|ip: IpAddr| ip.to_canonical());
    }
    let ip = text.parse().or_else(|_| text.parse().map(|address: SocketAddr| address.ip())).ok();
    // With a port that is hidden.
    let ip = ip.or_else(|| text.split_once(":_")?.0.parse().ok());
    ip.map(|ip| ip.to_canonical())
}

fn malformed() -> Refusal {
    let message = "the header Forwarded is not as RFC 7239 describes it: the proxy must remove those of clients";
    Refusal::new(ErrorCode::BadRequest, message)
}

fn contradiction() -> Refusal {
    let message = "X-Forwarded-For and Forwarded tell different addresses: the proxy must remove the one that it does not \
                   write";
    Refusal::new(ErrorCode::BadRequest, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use warp::http::header::HeaderValue;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let each = lines.iter();
        each.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())).collect()
    }

    fn sender(trusted: &str, peer: &str, lines: &[(&'static str, &str)]) -> String {
        let peer = match peer {
            "unix" => Peer::Unix,
            ip => Peer::Tcp(SocketAddr::new(ip.parse().unwrap(), 7)),
        };
        match Proxies::parse(trusted).unwrap().sender(peer, &headers(lines)) {
            Ok(peer @ Peer::Forwarded(_)) => peer.to_string(),
            Ok(peer) => format!("{peer} itself"),
            Err(refusal) => refusal.status().as_u16().to_string(),
        }
    }

    #[test]
    fn proxies_are_addresses_networks_and_unix() {
        let trust = |list: &str, ip: &str| Proxies::parse(list).unwrap().cover(ip.parse().unwrap());
        assert!(trust("10.1.2.3", "10.1.2.3") && !trust("10.1.2.3", "10.1.2.2"));
        assert!(trust("10.0.0.0/8, fd00::/8", "10.255.0.1") && trust("10.0.0.0/8, fd00::/8", "fdff::1"));
        assert!(!trust("10.0.0.0/8 fd00::/8", "11.0.0.1") && !trust("10.0.0.0/8", "fe00::1"));
        assert!(trust("10.1.2.3/9", "::ffff:10.127.0.1") && !trust("10.1.2.3/9", "10.128.0.1"));
        assert!(trust("0.0.0.0/0", "1.2.3.4") && !trust("0.0.0.0/0", "::1") && trust("::/0", "::1"));
        assert!(
            Proxies::parse("unix").unwrap().trust(Peer::Unix) && !Proxies::parse("::/0").unwrap().trust(Peer::Unix)
        );
        for wrong in ["host", "10.0.0.0/33", "::/129", "10.0.0.0/-1", "10.0.0.0/", "/8", "UNIX"] {
            assert!(Proxies::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_last_address_that_is_no_proxys_counts() {
        let list = |text| [("x-forwarded-for", text)];
        for (trusted, peer, text, is) in [
            ("10.0.0.1", "10.0.0.1", "203.0.113.7", "203.0.113.7"),
            ("10.0.0.1", "10.0.0.1", "1.1.1.1, 203.0.113.7", "203.0.113.7"),
            ("10.0.0.0/8", "10.0.0.1", "1.1.1.1,203.0.113.7 , 10.0.0.2", "203.0.113.7"),
            ("10.0.0.0/8", "10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
            ("unix", "unix", "203.0.113.7:4711", "203.0.113.7"),
            ("::1", "::1", "[2001:db8::1]:4711", "2001:db8::1"),
            ("::1", "::1", "::ffff:203.0.113.7", "203.0.113.7"),
            // A peer that is not trusted tells nothing.
            ("10.0.0.1", "10.0.0.2", "203.0.113.7", "10.0.0.2:7 itself"),
            ("10.0.0.1", "unix", "203.0.113.7", "unix itself"),
            // The hidden address is unknown, and no proxy wrote the text left of it.
            ("10.0.0.1", "10.0.0.1", "1.1.1.1, unknown", "hidden"),
            ("10.0.0.1", "10.0.0.1", "", "10.0.0.1:7 itself"),
        ] {
            assert_eq!(sender(trusted, peer, &list(text)), is, "{trusted} {peer} {text:?}");
        }
        assert_eq!(sender("::1", "::1", &[("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "2.2.2.2")]), "2.2.2.2");
    }

    #[test]
    fn the_standard_header_is_read_and_cannot_be_hidden_by_a_quote() {
        for (text, is) in [
            ("for=203.0.113.7", "203.0.113.7"),
            ("For=\"[2001:db8::1]:4711\";proto=https;by=10.0.0.1", "2001:db8::1"),
            ("for=1.1.1.1, proto=http; FOR=203.0.113.7:99", "203.0.113.7"),
            ("for=\"203.0.113.7:_x\"", "203.0.113.7"),
            ("for=1.1.1.1;x=\"a,b\\\"c\",for=203.0.113.7", "400"),
            ("for=1.1.1.1;x=\"a,b;c\",for=203.0.113.7", "203.0.113.7"),
            ("for=1.1.1.1, for=_hidden", "hidden"),
            ("for=1.1.1.1, proto=https", "hidden"),
            // The proxy's element is the one behind the comma.
            ("for=1.1.1.1;x=\",for=203.0.113.7", "400"),
            ("for=1.1.1.1;x=\", for=\"[2001:db8::1]:4711\"", "400"),
            ("for=1.1.1.1;for=2.2.2.2", "400"),
            ("nonsense", "400"),
        ] {
            assert_eq!(sender("10.0.0.1", "10.0.0.1", &[("forwarded", text)]), is, "{text}");
        }
    }

    #[test]
    fn headers_that_contradict_each_other_are_refused() {
        let both = |list, standard| sender("::1", "::1", &[("x-forwarded-for", list), ("forwarded", standard)]);
        assert_eq!(both("203.0.113.7", "for=203.0.113.7"), "203.0.113.7");
        assert_eq!(both("1.1.1.1", "for=203.0.113.7"), "400");
        assert_eq!(both("203.0.113.7", "for=unknown"), "400");
    }
}
