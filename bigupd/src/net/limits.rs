//! Limits of connections.

use crate::net::forwarded::Proxies;
use std::time::Duration;

/// Limits to the number of connections, and to their slowness. Requests over a limit are refused; their connections are
/// never dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Time limit for the complete request header, from its first byte or from the begin of the connection.
    pub header_timeout: Duration,
    /// Longest time without a byte of the next request on a connection.
    pub idle_timeout: Duration,
    /// Longest silence within a body, and longest time without a read of the response.
    pub body_timeout: Duration,
    /// Bytes per second that a body must bring, and that a response must be read with, on the average of each
    /// `body_timeout`. 0: any.
    pub min_body_rate: u64,
    /// Most connections at once.
    pub connections: u64,
    /// Most connections from one address, of IPv6 from one /64, at once. 0: no limit.
    pub connections_per_address: u64,
    /// Proxies whose connections bring other clients' requests: the limit for an address applies to those clients.
    pub trusted_proxies: Proxies,
    /// Most bytes that all bodies that arrive have in memory together.
    pub body_memory: u64,
}
