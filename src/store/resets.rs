//! Resets: buckets that were filled by hand. Levels that any instance saved before a reset no longer count.

use std::collections::HashMap;
use std::sync::Arc;

use balancer_limiter::identity::{ClientId, ClientKey, IdForm};
use balancer_limiter::ranges::Ranges;
use ipnet::IpNet;

/// When clients were last filled by hand, in microseconds since 1970 on the database's clock.
#[derive(Debug, Default)]
pub struct Resets {
    clients: HashMap<ClientKey, i64>,
    /// Ranges of which every client was filled.
    members: HashMap<IpNet, i64>,
    ranges: Arc<Ranges>,
}

impl Resets {
    /// Resets by client id and time. Ids that can't be read are left out.
    pub fn new(named: Vec<(String, i64)>, ranges: &Arc<Ranges>) -> Self {
        let mut resets = Self { ranges: Arc::clone(ranges), ..Self::default() };
        for (id, at_us) in named {
            let Ok(id) = ClientId::parse(&id) else { continue };
            let last = match id.form() {
                IdForm::Range(net) if !ranges.get(net).is_some_and(|range| range.limit.shared) => {
                    resets.members.entry(net).or_default()
                }
                _ => resets.clients.entry(ClientKey::of_id(&id)).or_default(),
            };
            *last = at_us.max(*last);
        }
        resets
    }

    /// Whether a client was filled after its level was saved, so that the level does not count.
    pub fn undo(&self, client: ClientKey, saved_at_us: i64) -> bool {
        let own = self.clients.get(&client);
        let of_range = || {
            let range = self.ranges.holding(client.network().filter(|_| !self.members.is_empty())?)?;
            self.members.get(&range.net)
        };
        own.max(of_range()).is_some_and(|at_us| saved_at_us <= *at_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use balancer_limiter::limit::{Limit, Rate};
    use balancer_limiter::ranges::Range;
    use balancer_limiter::terms::ClientLimit;

    fn id(text: &str) -> ClientId {
        ClientId::parse(text).unwrap()
    }

    #[test]
    fn a_level_counts_unless_its_client_or_its_range_was_filled_since() {
        let stored = |net: &str, shared| {
            let numbers = ClientLimit::of_numbers(Limit { capacity: 1, rate: Rate::per_second(1) });
            Range::new(net.parse().unwrap(), Arc::new(ClientLimit { shared, ..numbers }), net.into(), 1)
        };
        let ranges = [("10.0.0.0/8", false), ("10.1.0.0/16", false), ("172.16.0.0/12", true)];
        let ranges = Arc::new(Ranges::new(ranges.map(|(net, shared)| stored(net, shared))).unwrap());
        let named = [
            ("1.2.3.4", 100),
            ("1.2.3.4", 50),
            ("10.0.0.0/8", 200),
            ("10.2.0.1", 250),
            ("172.16.0.0/12", 400),
            ("tenant=a", 500),
            ("", 900),
        ];
        let resets = Resets::new(named.map(|(id, at_us)| (id.to_owned(), at_us)).into(), &ranges);
        // The last time at which a client was filled; 0 for never.
        for (client, at_us) in [
            ("1.2.3.4", 100),
            ("1.2.3.5", 0),
            ("10.9.9.9", 200),
            // Of a narrower range, whose clients were not filled.
            ("10.1.0.1", 0),
            ("10.2.0.1", 250),
            // All of a shared range have one bucket, which is the range's.
            ("172.16.0.0/12", 400),
            ("172.16.0.1", 0),
            ("tenant=a", 500),
            ("tenant=b", 0),
        ] {
            let key = ClientKey::of_id(&id(client));
            let last = (0..1_000).rev().find(|saved_at_us| resets.undo(key, *saved_at_us)).unwrap_or(0);
            assert_eq!(last, at_us, "{client}");
            assert!((1..=at_us).all(|saved_at_us| resets.undo(key, saved_at_us)), "{client}");
        }
        assert!(!Resets::default().undo(ClientKey::of_id(&id("1.2.3.4")), 0));
    }
}
