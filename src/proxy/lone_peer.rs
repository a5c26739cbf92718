//! Notices a proxy in front of us that is missing in `trusted_proxies`: nearly all requests come from one private
//! address, with `X-Forwarded-For`. All clients behind it are then limited as one, so the operator is told.

use std::net::IpAddr;

use parking_lot::Mutex;

/// The share of a peer is computed once for so many requests that are noted.
const STEP: u64 = 100;

/// Noted requests after which counting starts anew, so that the verdict follows what happens now.
const WINDOW: u64 = 10_000;

/// The share of all requests, in percent, above which a peer is a lone one.
const SHARE: u64 = 90;

/// Counts the requests of one peer, and of others that may be such a proxy beside it. Takes a lock, and only for
/// requests of peers that may be such a proxy; a request that finds the lock held is not counted.
#[derive(Debug, Default)]
pub struct LonePeer {
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// The peer that is watched.
    peer: Option<IpAddr>,
    /// Its requests since it is watched.
    count: u64,
    /// The requests that were noted since then: its own, and those of other peers that may be such a proxy.
    noted: u64,
    /// Requests of all peers before that.
    total_before: u64,
    lone: Option<IpAddr>,
}

impl LonePeer {
    /// A request came from an untrusted peer with a private address, and with `X-Forwarded-For`. `total`: the requests
    /// of all peers so far. Returns the watched peer when it has just turned out to be a lone one.
    pub fn note(&self, peer: IpAddr, total: impl FnOnce() -> u64) -> Option<IpAddr> {
        let mut seen = self.seen.try_lock()?;
        let Some(watched) = seen.peer else {
            *seen = Seen { peer: Some(peer), count: 1, noted: 1, total_before: total(), lone: None };
            return None;
        };
        seen.count += u64::from(watched == peer);
        seen.noted += 1;
        if !seen.noted.is_multiple_of(STEP) {
            return None;
        }
        let total = total();
        let is_lone = seen.count * 100 > total.saturating_sub(seen.total_before) * SHARE;
        let before = std::mem::replace(&mut seen.lone, is_lone.then_some(watched));
        // Another peer is watched once the watched one sends less than half of what is noted.
        if seen.noted >= WINDOW || seen.count * 2 < seen.noted {
            let next = if is_lone { watched } else { peer };
            *seen = Seen { peer: Some(next), total_before: total, lone: seen.lone, ..Seen::default() };
        }
        (is_lone && before != Some(watched)).then_some(watched)
    }

    /// The lone peer, while there is one.
    pub fn lone(&self) -> Option<IpAddr> {
        self.seen.lock().lone
    }
}

/// The warning for the operator.
pub fn text(peer: IpAddr) -> String {
    format!(
        "nearly all requests come from {peer}, which sends X-Forwarded-For and is not in rate_limit.trusted_proxies: \
         all clients behind it are limited as one"
    )
}

/// Whether an address is one that proxies inside a network have (RFC 1918, RFC 4193, RFC 6598, loopback, link-local).
pub fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [first, second, ..] = v4.octets();
            let is_shared = first == 100 && second & 0xc0 == 64;
            v4.is_private() || v4.is_loopback() || v4.is_link_local() || is_shared
        }
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Sends requests of which every `nth` comes from another peer. Returns how often the operator was told.
    fn told(peer: &LonePeer, requests: u64, nth: u64, total: &mut u64) -> usize {
        let mut told = 0;
        for request in 1..=requests {
            *total += 1;
            if request % nth != 0 {
                told += usize::from(peer.note(ip("10.0.0.1"), || *total).is_some());
            }
        }
        told
    }

    #[test]
    fn a_peer_that_sends_nearly_everything_is_said_once_and_taken_back() {
        let (peer, mut total) = (LonePeer::default(), 0);
        assert_eq!(told(&peer, 90, u64::MAX, &mut total), 0, "too few to say anything");
        assert_eq!(told(&peer, 1_000, u64::MAX, &mut total), 1);
        assert_eq!(peer.lone(), Some(ip("10.0.0.1")));
        assert_eq!(told(&peer, 100_000, 5, &mut total), 0);
        assert_eq!(peer.lone(), None, "a fifth comes from elsewhere now");
    }

    #[test]
    fn two_proxies_are_no_lone_peer() {
        let peer = LonePeer::default();
        for request in 0..1_000 {
            let from = if request % 2 == 0 { "10.0.0.1" } else { "10.0.0.2" };
            assert_eq!(peer.note(ip(from), || request), None);
        }
        assert_eq!(peer.lone(), None);
    }

    #[test]
    fn a_lone_peer_is_taken_back_when_a_second_proxy_appears_or_replaces_it() {
        let (one, other) = (ip("10.0.0.1"), ip("10.0.0.2"));
        for has_left in [false, true] {
            let (peer, mut total) = (LonePeer::default(), 0);
            assert_eq!(told(&peer, 1_000, u64::MAX, &mut total), 1);
            let mut told = Vec::new();
            for request in 0..100_000 {
                total += 1;
                let from = if has_left || request % 2 == 0 { other } else { one };
                told.extend(peer.note(from, || total));
            }
            assert_eq!(peer.lone(), has_left.then_some(other));
            assert_eq!(told, if has_left { vec![other] } else { Vec::new() });
        }
    }

    #[test]
    fn a_few_requests_of_other_private_peers_hide_no_lone_peer() {
        let (peer, mut told) = (LonePeer::default(), 0);
        for request in 1..=100_000 {
            let from = if request % 50 == 0 { "10.0.0.2" } else { "10.0.0.1" };
            told += usize::from(peer.note(ip(from), || request).is_some());
        }
        assert_eq!((peer.lone(), told), (Some(ip("10.0.0.1")), 1));
    }

    #[test]
    fn private_addresses_are_those_of_the_registries() {
        for private in [
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "127.0.0.1",
            "100.64.0.1",
            "::1",
            "fd00::1",
            "::ffff:10.0.0.1",
        ] {
            assert!(is_private(ip(private)), "{private}");
        }
        for public in ["8.8.8.8", "172.32.0.1", "100.128.0.1", "2001:db8::1", "::ffff:8.8.8.8"] {
            assert!(!is_private(ip(public)), "{public}");
        }
    }
}
