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
