//! Draws two endpoints and picks the one with the lower cost: expected latency times requests in flight. The expected
//! latency jumps up with each answer that took longer, and goes down slowly, so that an endpoint that becomes slow
//! gets fewer requests at once (as Finagle's `PeakEwma` does).

use super::{Candidate, Draw, weighted};
use balancer_time::Nanos;

/// After this time an old latency has 1/e of its weight.
const DECAY_NS: f64 = 10e9;

/// The expected latency of an endpoint that has requests in flight and has never answered.
const UNKNOWN_NS: u64 = 1_000_000_000;

/// A failed attempt counts as one that took at least so long. A refused connection is quick, but no reason to send more
/// requests there.
pub const FAILURE_COUNTS_AS: Nanos = 1_000_000_000;

/// See [`super::Strategy::pick`].
pub(super) fn pick(candidates: &mut [Candidate], draw: Draw) -> Option<usize> {
    match candidates {
        [] => None,
        [_] => Some(0),
        many => {
            let (one, two) = weighted::draw_two(many, draw.random)?;
            Some(if is_cheaper(many[two], many[one]) { two } else { one })
        }
    }
}

/// Whether `latency × (in flight + 1) / weight` is lower for `a`; compared exactly.
fn is_cheaper(a: Candidate, b: Candidate) -> bool {
    let cost = |one: Candidate| {
        let latency = match (one.latency_ns, one.in_flight) {
            // It was not tried yet, so it comes first, but with one request at a time until it has answered.
            (0, 0) => 0,
            (0, _) => UNKNOWN_NS,
            (known, _) => known,
        };
        u128::from(latency) * (u128::from(one.in_flight) + 1)
    };
    cost(a) * u128::from(b.weight) < cost(b) * u128::from(a.weight)
}

/// The latency of one endpoint, which fits into an atomic: the upper half is the mean in microseconds, the lower half
/// when it changed last, in milliseconds. (That wraps around after 49 days, when an old latency may once count as a
/// recent one.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency(u64);

impl Latency {
    /// Reads what [`Latency::bits`] gave; 0: nothing is known.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// As one number, for an atomic.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The latency after one more answer (or failure) that took so long.
    pub fn observe(self, latency: Nanos, now: Nanos) -> Self {
        let sample = micros(latency).max(1);
        let (mean, decay) = (self.mean(), self.decay(now));
        let next = if sample >= mean {
            sample
        } else {
            // Between two numbers that fit, so it fits.
            (f64::from(mean) * decay + f64::from(sample) * (1.0 - decay)) as u32
        };
        Self(u64::from(next.max(1)) << 32 | u64::from(stamp(now)))
    }

    /// The expected latency in nanoseconds; 0: nothing is known. While no request is in flight it goes down with
    /// time, so that an endpoint that was slow is tried again; while there are some it does not, since no answer is
    /// no good sign.
    pub fn expected_ns(self, in_flight: u32, now: Nanos) -> u64 {
        let decay = if in_flight == 0 { self.decay(now) } else { 1.0 };
        (f64::from(self.mean()) * decay * 1e3) as u64
    }

    const fn mean(self) -> u32 {
        (self.0 >> 32) as u32
    }

    fn decay(self, now: Nanos) -> f64 {
        let millis = stamp(now).wrapping_sub(self.0 as u32);
        // `now` may be a little older than the last change: another thread read its clock later and came here earlier.
        if millis > u32::MAX / 2 { 1.0 } else { (-f64::from(millis) * 1e6 / DECAY_NS).exp() }
    }
}

fn micros(ns: Nanos) -> u32 {
    u32::try_from(ns / 1_000).unwrap_or(u32::MAX)
}

const fn stamp(now: Nanos) -> u32 {
    (now / 1_000_000) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: u64 = 1_000_000;
    const S: u64 = 1_000 * MS;

    #[test]
    fn it_jumps_up_and_decays_down() {
        // Latency and time of an answer; the expected latency afterwards, in milliseconds.
        let steps = [
            (10 * MS, S, 10.0),
            (100 * MS, S, 100.0),
            (10 * MS, S, 100.0),
            (10 * MS, 11 * S, 10.0 + 90.0 / std::f64::consts::E),
            (500 * MS, 12 * S, 500.0),
            (10 * MS, 112 * S, 10.0),
        ];
        let mut pace = Latency::default();
        assert_eq!(pace.expected_ns(0, S), 0);
        for (latency, now, expected_ms) in steps {
            pace = pace.observe(latency, now);
            let found = pace.expected_ns(1, now) as f64 / MS as f64;
            assert!((found - expected_ms).abs() < 0.2, "{found} for {expected_ms}");
        }
        assert_eq!(Latency::from_bits(pace.bits()), pace);
    }

    #[test]
    fn an_idle_one_is_forgiven_and_a_silent_one_is_not() {
        let pace = Latency::default().observe(S, S);
        assert_eq!(pace.expected_ns(1, 61 * S), S);
        assert!(pace.expected_ns(0, 61 * S) < 3 * MS);
        // A clock that another thread read earlier.
        assert_eq!(pace.expected_ns(0, S - MS), S);
        // Half of the time that fits counts as later, more as earlier.
        let half = u64::from(u32::MAX / 2) * MS;
        assert_eq!([half, half + MS].map(|later| pace.expected_ns(0, S + later)), [0, S]);
    }

    #[test]
    fn who_is_cheaper() {
        // Latency, in flight, weight of two; whether the first is cheaper.
        let table = [
            ((1, 0, 1), (2, 0, 1), true),
            ((2, 0, 1), (1, 0, 1), false),
            ((2, 0, 1), (1, 2, 1), true),
            ((2, 0, 3), (1, 0, 1), true),
            ((1, 1, 1), (1, 1, 1), false),
            // One that was never tried is cheaper; once it has a request, it is not until it has answered.
            ((0, 0, 1), (1, 0, 1000), true),
            ((0, 1, 1), (S, 0, 1), false),
            ((u64::MAX, u32::MAX, 1), (u64::MAX, u32::MAX, u32::MAX), false),
        ];
        let candidate = |(latency_ns, in_flight, weight)| Candidate {
            latency_ns,
            in_flight,
            weight,
            ..Candidate::default()
        };
        for (a, b, cheaper) in table {
            assert_eq!(is_cheaper(candidate(a), candidate(b)), cheaper, "{a:?} {b:?}");
        }
    }

    proptest! {
        /// An endpoint that costs more than all others is not picked.
        #[test]
        fn the_costliest_is_never_picked(
            pool in prop::collection::vec((1u32..1000, 0u32..1000, 0..10 * S), 2..20),
            random in any::<u64>(),
        ) {
            let mut pool: Vec<_> = pool
                .into_iter()
                .map(|(weight, in_flight, latency_ns)| Candidate {
                    weight, in_flight, latency_ns, ..Candidate::default()
                })
                .collect();
            let winner = pick(&mut pool, Draw { random, key: 0 }).unwrap();
            let mut others = pool.iter().enumerate().filter(|(index, _)| *index != winner);
            prop_assert!(!others.all(|(_, one)| is_cheaper(*one, pool[winner])));
        }

        /// After an answer the expected latency is between what it was and the answer's, and not below the answer's.
        #[test]
        fn the_mean_is_between(old in 1..100 * S, new in 1..100 * S, wait in 0..100 * S) {
            let before = Latency::default().observe(old, S);
            let after = before.observe(new, S + wait);
            let (low, high) = (old.min(new), old.max(new));
            let expected = after.expected_ns(1, S + wait);
            prop_assert!(expected + 2_000 >= low && expected <= high + 2_000);
            prop_assert!(expected + 2_000 >= new);
        }
    }
}
