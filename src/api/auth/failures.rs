//! Wrong tokens by address: an address that guesses is slowed down; a right token never is. A bounded table.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use parking_lot::Mutex;

use balancer_limiter::bucket::Bucket;
use balancer_limiter::identity;
use balancer_limiter::limit::{Limit, Rate};
use balancer_time::Nanos;

/// So many wrong tokens in a row may come from one address, and one a second from then on.
const FAILURES: Limit = Limit { capacity: 20, rate: Rate::per_second(1_000_000) };

/// Most addresses that are told apart; those beyond share one place.
const MAX_ADDRESSES: usize = 1_024;

/// Bits of an IPv6 address that count: a host may have all addresses of its network.
const IPV6_PREFIX: u8 = 64;

/// The place that further addresses share when the table is full.
const CROWD: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// How many wrong tokens each address may still send. Takes a lock; used only for calls with a wrong token.
#[derive(Debug, Default)]
pub(in crate::api) struct WrongTokens(Mutex<HashMap<IpAddr, Bucket>>);

impl WrongTokens {
    /// Seconds until a wrong token from this address is answered 401 and not 429; `None`: it is now.
    pub fn wait_s(&self, peer: IpAddr, now: Nanos) -> Option<u64> {
        let table = self.0.lock();
        let bucket = table.get(&place(&table, peer))?;
        // A copy is asked: being asked is no failure.
        let outcome = { *bucket }.acquire(1, now);
        outcome.wait_ns.filter(|_| !outcome.allowed).map(|wait_ns| wait_ns.div_ceil(1_000_000_000))
    }

    /// A wrong token came from this address.
    pub fn note(&self, peer: IpAddr, now: Nanos) {
        let mut table = self.0.lock();
        if table.len() >= MAX_ADDRESSES {
            table.retain(|_, bucket| !bucket.is_full(now));
        }
        let place = place(&table, peer);
        table.entry(place).or_insert_with(|| Bucket::full(FAILURES, now)).acquire(1, now);
    }
}

fn place(table: &HashMap<IpAddr, Bucket>, peer: IpAddr) -> IpAddr {
    let group = identity::group(peer, IPV6_PREFIX).addr();
    if table.contains_key(&group) || table.len() < MAX_ADDRESSES { group } else { CROWD }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Nanos = 1_000_000_000;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn twenty_in_a_row_and_one_a_second() {
        let failures = WrongTokens::default();
        let (one, other) = (ip("10.0.0.1"), ip("10.0.0.2"));
        for _ in 0..20 {
            assert_eq!(failures.wait_s(one, SECOND), None);
            failures.note(one, SECOND);
        }
        assert_eq!(failures.wait_s(one, SECOND), Some(1));
        assert_eq!(failures.wait_s(other, SECOND), None);
        assert_eq!(failures.wait_s(one, 2 * SECOND), None);
        failures.note(one, 2 * SECOND);
        assert_eq!(failures.wait_s(one, 2 * SECOND), Some(1));
        // Asking does not make the wait longer.
        assert_eq!(failures.wait_s(one, 3 * SECOND), None);
        assert_eq!(failures.wait_s(one, 100 * SECOND), None);
    }

    #[test]
    fn an_ipv6_network_is_one_address() {
        let failures = WrongTokens::default();
        for host in 0..20 {
            failures.note(ip(&format!("2001:db8::{host:x}")), 0);
        }
        assert!(failures.wait_s(ip("2001:db8::ffff"), 0).is_some());
        assert!(failures.wait_s(ip("2001:db8:0:1::"), 0).is_none());
    }

    #[test]
    fn the_table_is_bounded_and_those_beyond_it_are_slowed_down_together() {
        let failures = WrongTokens::default();
        for number in 0..10_000_u32 {
            failures.note(IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + number)), SECOND);
        }
        assert!(failures.0.lock().len() <= MAX_ADDRESSES + 1);
        assert!(failures.wait_s(ip("192.0.2.1"), SECOND).is_some());
        assert!(failures.wait_s(ip("10.0.0.1"), SECOND).is_none(), "it has a place of its own");
        // A minute later the earlier ones are forgotten, so that a new address has room.
        failures.note(ip("192.0.2.1"), 60 * SECOND);
        assert!(failures.0.lock().len() <= 1 + 1);
    }
}
