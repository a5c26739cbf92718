//! What somebody has had of the places: the integral of its requests in flight over time, by weight.

use balancer_time::Nanos;

/// Nanoseconds of use by weight. 128 bits: 64 would be over after three weeks of 10,000 requests in flight.
pub(super) type UseKey = u128;

/// The use of one client, or of one priority.
#[derive(Clone, Debug)]
pub(super) struct UseShare {
    weight: u32,
    /// Up to `at`, not yet divided by the weight, so that no rounding adds up.
    used: u128,
    at: Nanos,
    in_flight: u32,
    /// How long a request in flight is taken to last, as it was known when their number last changed. Fixed in between,
    /// so that keys only grow.
    ahead: Nanos,
}

impl UseShare {
    /// Of somebody that has used as much as `start` says. `weight` is at least 1.
    pub fn new(weight: u32, start: UseKey, now: Nanos) -> Self {
        let weight = weight.max(1);
        Self { weight, used: start * UseKey::from(weight), at: now, in_flight: 0, ahead: 0 }
    }

    pub const fn weight(&self) -> u32 {
        self.weight
    }

    pub const fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Another weight leaves what it has used, by weight, as it is.
    pub fn reweigh(&mut self, weight: u32) {
        let weight = weight.max(1);
        if weight != self.weight {
            self.used = self.used / UseKey::from(self.weight) * UseKey::from(weight);
            self.weight = weight;
        }
    }

    fn settle(&mut self, now: Nanos) {
        self.used += UseKey::from(self.in_flight) * UseKey::from(now.saturating_sub(self.at));
        self.at = self.at.max(now);
    }

    /// So many are in flight from now on, each taken to last for `mean`.
    pub fn count(&mut self, in_flight: u32, mean: Nanos, now: Nanos) {
        self.settle(now);
        self.in_flight = in_flight;
        self.ahead = mean;
    }

    /// One request in flight since then was not charged after all.
    pub fn uncharge(&mut self, since: Nanos, now: Nanos) {
        self.settle(now);
        self.used = self.used.saturating_sub(now.saturating_sub(since).into());
    }

    /// What it has used, by weight.
    pub fn used(&mut self, now: Nanos) -> UseKey {
        self.settle(now);
        self.used / UseKey::from(self.weight)
    }

    /// What it has used, and will have when what is in flight ends: the smallest goes next.
    pub fn key(&mut self, now: Nanos) -> UseKey {
        self.settle(now);
        (self.used + UseKey::from(self.in_flight) * UseKey::from(self.ahead)) / UseKey::from(self.weight)
    }

    /// Takes credit away: it has used at least so much.
    pub fn at_least(&mut self, used: UseKey, now: Nanos) {
        self.settle(now);
        self.used = self.used.max(used * UseKey::from(self.weight));
    }

    /// Forgives debt: it has used at most so much.
    pub fn at_most(&mut self, used: UseKey, now: Nanos) {
        self.settle(now);
        self.used = self.used.min(used * UseKey::from(self.weight));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn use_is_time_times_requests_by_weight() {
        // Weight; (in flight, for so long) …; used; the key with a mean of 100.
        type Row = (u32, &'static [(u32, Nanos)], UseKey, UseKey);
        let table: [Row; 5] = [
            (1, &[(1, 10), (3, 10)], 40, 340),
            (2, &[(1, 10), (3, 10)], 20, 170),
            (1, &[(0, 1_000), (2, 5)], 10, 210),
            (1000, &[(1, 999), (1, 1)], 1, 1),
            (1, &[], 0, 0),
        ];
        for (weight, spans, used, key) in table {
            let (mut share, mut now) = (UseShare::new(weight, 0, 0), 0);
            for (in_flight, span) in spans {
                share.count(*in_flight, 100, now);
                now += span;
            }
            assert_eq!((share.used(now), share.key(now)), (used, key), "{weight} {spans:?}");
            // Asked twice, or with a clock that went back, nothing is charged twice.
            assert_eq!((share.used(now), share.used(now / 2)), (used, used));
        }
    }

    #[test]
    fn nothing_is_lost_by_rounding() {
        let mut share = UseShare::new(1000, 0, 0);
        share.count(1, 0, 0);
        for now in 1..=100_000 {
            share.used(now);
        }
        assert_eq!(share.used(100_000), 100);
    }

    #[test]
    fn another_weight_leaves_the_use_by_weight() {
        let mut share = UseShare::new(2, 50, 0);
        share.reweigh(7);
        assert_eq!((share.used(0), share.weight()), (50, 7));
        share.at_least(60, 0);
        assert_eq!(share.used(0), 60);
        share.at_most(55, 0);
        assert_eq!(share.used(0), 55);
    }
}
