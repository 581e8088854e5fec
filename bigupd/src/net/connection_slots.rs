//! Number of connections, in all and from each address.

use crate::metrics::Limit;
use crate::net::limits::Limits;
use crate::refusal::Refusal;
use bigup_core::protocol::native::ErrorCode;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Seconds after which a client can retry a connection that was over the limit.
const RETRY_AFTER: u64 = 2;

/// Where connections are counted.
#[derive(Clone, Debug)]
pub struct ConnectionSlots(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    most: u64,
    most_of_one: u64,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: u64,
    of: HashMap<IpAddr, u64>,
}

/// The place of one connection, given back on drop.
#[derive(Debug)]
pub struct ConnectionSlot {
    slots: ConnectionSlots,
    /// `None` if it counts for no address.
    peer: Option<IpAddr>,
}

impl ConnectionSlots {
    /// All free.
    pub fn new(limits: &Limits) -> ConnectionSlots {
        let (most, most_of_one) = (limits.connections, limits.connections_per_address);
        ConnectionSlots(Arc::new(Inner { most, most_of_one, taken: Mutex::default() }))
    }

    /// A seat for a connection from `address`. `None` if only the limit of all counts.
    ///
    /// # Errors
    /// All slots are taken; the error names the limit.
    pub fn take(&self, address: Option<IpAddr>) -> Result<ConnectionSlot, Refusal> {
        let peer = address.map(peer);
        let mut taken = self.taken();
        if taken.all >= self.0.most {
            let message = format!("{} connections are open, and no more are possible: try again later", taken.all);
            return Err(later(Limit::Connections, ErrorCode::Overloaded, message));
        }
        if let Some(peer) = peer {
            let of = taken.of.entry(peer).or_default();
            if self.0.most_of_one > 0 && *of >= self.0.most_of_one {
                let message = format!("{of} connections of your address are open, and no more are possible: use fewer");
                return Err(later(Limit::ConnectionsPerAddress, ErrorCode::TooMany, message));
            }
            *of += 1;
        }
        taken.all += 1;
        drop(taken);
        Ok(ConnectionSlot { slots: self.clone(), peer })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut taken = self.slots.taken();
        taken.all -= 1;
        let Some(peer) = self.peer else { return };
        if let Some(of) = taken.of.get_mut(&peer) {
            *of -= 1;
            if *of == 0 {
                taken.of.remove(&peer);
            }
        }
    }
}

/// The unit for which an address counts. An IPv4 address counts for itself, however it is written. An IPv6 address
/// counts for its /64, since one host has all of that (RFC 4291, section 2.5.4).
pub fn peer(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

fn later(limit: Limit, code: ErrorCode, message: String) -> Refusal {
    Refusal { retry_after: Some(RETRY_AFTER), ..Refusal::over(limit, code, message) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn slots(connections: u64, connections_per_address: u64) -> ConnectionSlots {
        let limits = Config::defaults("/d".into()).limits;
        ConnectionSlots::new(&Limits { connections, connections_per_address, ..limits })
    }

    fn take(slots: &ConnectionSlots, address: &str) -> Result<ConnectionSlot, ErrorCode> {
        slots.take(Some(address.parse().unwrap())).map_err(|refusal| {
            assert!(refusal.retry_after.is_some());
            refusal.code
        })
    }

    #[test]
    fn the_limit_of_all_comes_first_and_seats_are_given_back() {
        let slots = slots(2, 1);
        let first = take(&slots, "10.0.0.1").unwrap();
        assert_eq!(take(&slots, "10.0.0.1").unwrap_err(), ErrorCode::TooMany);
        let _second = take(&slots, "10.0.0.2").unwrap();
        assert_eq!(take(&slots, "10.0.0.1").unwrap_err(), ErrorCode::Overloaded);
        drop(first);
        assert!(take(&slots, "10.0.0.1").is_ok());
    }

    #[test]
    fn nothing_is_remembered_of_those_that_left_or_were_refused() {
        let slots = slots(1, 1);
        let slot = take(&slots, "10.0.0.1").unwrap();
        assert!(take(&slots, "10.0.0.2").is_err());
        drop(slot);
        assert!(slots.taken().of.is_empty() && slots.taken().all == 0);
    }

    #[test]
    fn without_a_limit_of_its_own_an_address_may_have_all() {
        let slots = slots(3, 0);
        let taken: Vec<_> = (0..3).map(|_| take(&slots, "10.0.0.1").unwrap()).collect();
        assert_eq!(take(&slots, "10.0.0.1").unwrap_err(), ErrorCode::Overloaded);
        drop(taken);
    }

    #[test]
    fn without_an_address_only_the_limit_of_all_counts() {
        let slots = slots(2, 1);
        let taken = (slots.take(None).unwrap(), slots.take(None).unwrap());
        assert_eq!(slots.take(None).unwrap_err().code, ErrorCode::Overloaded);
        drop(taken);
        assert!(take(&slots, "10.0.0.1").is_ok());
    }

    #[test]
    fn addresses_of_one_host_count_together() {
        let slots = slots(9, 1);
        let _v4 = take(&slots, "10.0.0.1").unwrap();
        assert_eq!(take(&slots, "::ffff:10.0.0.1").unwrap_err(), ErrorCode::TooMany);
        let _v6 = take(&slots, "2001:db8::1").unwrap();
        assert_eq!(take(&slots, "2001:db8::ffff:0:0:2").unwrap_err(), ErrorCode::TooMany);
        assert!(take(&slots, "2001:db8:0:1::1").is_ok());
    }
}
