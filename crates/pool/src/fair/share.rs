//! Use: how much of the places a client or a priority has had. It is the integral of its requests in flight over time,
//! divided by its weight.

use balancer_time::Nanos;

/// Use in nanoseconds, divided by weight. 64 bits would overflow after three weeks with 10,000 requests in flight.
pub(super) type UseKey = u128;

/// The use of one client, or of one priority.
#[derive(Clone, Debug)]
pub(super) struct UseShare {
    weight: u32,
    /// The use up to `at`, not divided by the weight, so that rounding does not add up.
    used: u128,
    at: Nanos,
    in_flight: u32,
    /// How long a request is expected to be in flight, as it was known when their number changed last. Not changed in
    /// between, so that keys only grow.
    ahead: Nanos,
}

impl UseShare {
    /// A share with `start` as its use, divided by weight. A weight of 0 counts as 1.
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

    /// Sets another weight. The use, divided by weight, stays the same.
    pub fn reweigh(&mut self, weight: u32) {
        let weight = weight.max(1);
        if weight != self.weight {
            self.used = self.used / UseKey::from(self.weight) * UseKey::from(weight);
            self.weight = weight;
        }
    }

    /// Counts the use up to `now`.
    fn settle(&mut self, now: Nanos) {
        self.used += UseKey::from(self.in_flight) * UseKey::from(now.saturating_sub(self.at));
        self.at = self.at.max(now);
    }

    /// Sets how many requests are in flight from `now` on, each expected to last `mean`.
    pub fn count(&mut self, in_flight: u32, mean: Nanos, now: Nanos) {
        self.settle(now);
        self.in_flight = in_flight;
        self.ahead = mean;
    }

    /// Takes back the use of one request that was counted as in flight from `since` on.
    pub fn uncharge(&mut self, since: Nanos, now: Nanos) {
        self.settle(now);
        self.used = self.used.saturating_sub(now.saturating_sub(since).into());
    }

    /// The use at `now`, divided by weight.
    pub fn used(&mut self, now: Nanos) -> UseKey {
        self.settle(now);
        self.used / UseKey::from(self.weight)
    }

    /// The key: the use when the requests in flight end as expected, divided by weight. The smallest key goes next.
    pub fn key(&mut self, now: Nanos) -> UseKey {
        self.settle(now);
        (self.used + UseKey::from(self.in_flight) * UseKey::from(self.ahead)) / UseKey::from(self.weight)
    }

    /// Takes credit away: raises the use, divided by weight, to at least so much.
    pub fn at_least(&mut self, used: UseKey, now: Nanos) {
        self.settle(now);
        self.used = self.used.max(used * UseKey::from(self.weight));
    }

    /// Forgives debt: lowers the use, divided by weight, to at most so much.
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
        // Weight; spans, each with requests in flight and length; use; key with a mean of 100.
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
            // Nothing is charged twice, not even with a clock that went back.
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
