//! Where a request came from.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// Where a request came from, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// From this address: a client, or a proxy that is not trusted to name its client.
    Tcp(SocketAddr),
    /// By a socket in the file system of this machine.
    Unix,
    /// From this address, as a trusted proxy tells. `None` if it tells that it hides it.
    Forwarded(Option<IpAddr>),
}

impl Peer {
    /// The address. `None` if it has no address.
    pub fn ip(self) -> Option<IpAddr> {
        match self {
            Peer::Tcp(address) => Some(address.ip().to_canonical()),
            Peer::Forwarded(ip) => ip,
            Peer::Unix => None,
        }
    }

    /// True if a certificate shown on the connection is the client's own, and not that of the proxy that forwards.
    pub fn shows_its_own(peer: Option<Peer>) -> bool {
        !matches!(peer, Some(Peer::Forwarded(_)))
    }

    /// `peer` for the log; empty where it is not known.
    pub fn shown(peer: Option<Peer>) -> String {
        peer.map_or_else(String::new, |peer| peer.to_string())
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Tcp(address) => address.fmt(f),
            Peer::Unix => f.write_str("unix"),
            Peer::Forwarded(Some(ip)) => ip.fmt(f),
            Peer::Forwarded(None) => f.write_str("hidden"),
        }
    }
}
