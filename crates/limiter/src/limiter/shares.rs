//! What follows from a limit for one of several instances: its part, how much it may leave unreported, how long reports
//! count.

use crate::limit::Limit;
use balancer_time::Nanos;

/// How often all changes are reported.
pub(crate) const TICK: Nanos = 500_000_000;

/// How long it counts what flowed in and found no room in a full bucket: until the others have reported what they spent
/// at that time, which would have made room.
pub(super) const SPARE_FOR: Nanos = TICK + 50_000_000;

/// Millionths in a token.
pub(super) const MICRO: f64 = 1e6;

/// Nanoseconds in a second.
pub(super) const NANOS: f64 = 1e9;

/// What follows from a limit and the number of instances. Kept, so that a decision need not divide.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shares {
    pub limit: Limit,
    pub members: u32,
    /// Tokens that may be untold before they are urgent: a quarter of an even part of the capacity.
    pub threshold: f64,
    /// The same, rounded up to whole tokens.
    pub least: u64,
    /// This instance's even part of the rate, in tokens a nanosecond.
    pub part: f64,
    /// The even parts of all others together, in tokens a second.
    pub others: f64,
    /// Most millionths that count of what found no room, see [`SPARE_FOR`].
    pub spare: u64,
}

impl Shares {
    pub fn of(limit: Limit, members: u32) -> Self {
        let (even, rate) = (even_part(members), rate_of(limit));
        let threshold = (f64::from(limit.capacity) / 4.0 * even).max(1.0);
        // A bucket with a large capacity needs none of this: it has room for what others spend until they report.
        let most = rate * seconds(SPARE_FOR);
        let spare = (most + 2.0 - f64::from(limit.capacity) / 2.0).clamp(0.0, most);
        let spare = (spare * MICRO) as u64;
        let least = threshold.ceil() as u64;
        Self {
            limit,
            members,
            threshold,
            least,
            part: rate * even / NANOS,
            others: rate * (1.0 - even),
            spare,
        }
    }
}

/// The part of each instance if all have the same.
pub(super) fn even_part(members: u32) -> f64 {
    1.0 / f64::from(members.max(1))
}

/// The rate in tokens a second.
pub(super) fn rate_of(limit: Limit) -> f64 {
    limit.rate.micro as f64 / (MICRO * f64::from(limit.rate.per_secs.max(1)))
}

/// Whole tokens that flow in within that time.
pub(super) fn tokens_of(limit: Limit, span: Nanos) -> u64 {
    let parts = u128::from(limit.rate.per_secs.max(1)) * 1_000_000_000 * 1_000_000;
    u64::try_from(u128::from(limit.rate.micro) * u128::from(span) / parts).unwrap_or(u64::MAX)
}

/// Seconds after which a report has 37 % of its weight in [`Lately`]: as long as the bucket takes to fill, but 10 to
/// 60.
pub(super) fn tau_s(limit: Limit) -> f64 {
    if limit.rate.micro == 0 {
        return 60.0;
    }
    (f64::from(limit.capacity) / rate_of(limit)).clamp(10.0, 60.0)
}

pub(super) fn seconds(span: Nanos) -> f64 {
    span as f64 / NANOS
}

/// A sum whose parts lose weight with time, so that recent ones count most.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lately {
    sum: f64,
    at: Nanos,
}

impl Lately {
    /// The sum at `now`. `tau_s`: after so many seconds 37 % are left.
    pub fn at(self, now: Nanos, tau_s: f64) -> f64 {
        self.sum * (-seconds(now.saturating_sub(self.at)) / tau_s).exp()
    }

    pub fn add(&mut self, more: u64, now: Nanos, tau_s: f64) {
        *self = Self { sum: self.at(now, tau_s) + more as f64, at: now };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::Rate;

    fn limit(capacity: u32, micro: u64, per_secs: u32) -> Limit {
        Limit { capacity, rate: Rate { micro, per_secs } }
    }

    fn is_near(one: f64, other: f64) -> bool {
        (one - other).abs() <= other.abs() * 1e-9
    }

    #[test]
    fn a_limit_is_shared_out_evenly() {
        // Capacity, rate, instances; tokens that may be untold, the rate of this one a second, that of the others.
        for (limit, members, threshold, own, others) in [
            (limit(120, 60_000_000, 1), 3, 10.0_f64, 20.0, 40.0),
            (limit(120, 60_000_000, 30), 3, 10.0, 2.0 / 3.0, 4.0 / 3.0),
            (limit(90, 60_000_000, 1), 4, 5.625, 15.0, 45.0),
            (limit(3, 1_000_000, 1), 2, 1.0, 0.5, 0.5),
            (limit(8, 1_000_000, 1), 1, 2.0, 1.0, 0.0),
            (limit(8, 1_000_000, 0), 0, 2.0, 1.0, 0.0),
        ] {
            let shares = Shares::of(limit, members);
            assert_eq!((shares.limit, shares.members), (limit, members));
            assert_eq!((shares.threshold, shares.least), (threshold, threshold.ceil() as u64), "{limit:?}");
            assert!(is_near(shares.part * NANOS, own), "{limit:?}: {}", shares.part);
            assert!(is_near(shares.others, others), "{limit:?}: {}", shares.others);
        }
    }

    /// What flows in within 0.55 s, and two tokens; less as there is more room than that in half of the bucket.
    #[test]
    fn what_found_no_room_counts_in_a_small_bucket() {
        for (limit, spare) in [
            (limit(1, 10_000_000, 1), 5_500_000),
            (limit(4, 10_000_000, 1), 5_500_000),
            (limit(5, 10_000_000, 1), 5_000_000),
            (limit(10, 10_000_000, 1), 2_500_000),
            (limit(15, 10_000_000, 1), 0),
            (limit(1_000, 10_000_000, 1), 0),
            (limit(1, 0, 1), 0),
        ] {
            assert_eq!(Shares::of(limit, 3).spare, spare, "{limit:?}");
        }
    }

    #[test]
    fn whole_tokens_flow_in_within_a_time() {
        const SEC: Nanos = 1_000_000_000;
        for (limit, span, tokens) in [
            (limit(1, 1_000_000, 1), SEC - 1, 0),
            (limit(1, 1_000_000, 1), SEC, 1),
            (limit(1, 2_500_000, 1), 2 * SEC, 5),
            (limit(1, 1_000_000, 60), 150 * SEC, 2),
            (limit(1, 1_000_000, 0), 2 * SEC, 2),
            (limit(1, 0, 1), Nanos::MAX, 0),
        ] {
            assert_eq!(tokens_of(limit, span), tokens, "{limit:?} {span}");
        }
    }

    #[test]
    fn a_report_counts_as_long_as_the_bucket_takes_to_fill() {
        for (limit, secs) in [
            (limit(1, 1_000_000, 1), 10.0),
            (limit(30, 1_000_000, 1), 30.0),
            (limit(30, 2_000_000, 1), 15.0),
            (limit(90, 1_000_000, 1), 60.0),
            (limit(5, 0, 1), 60.0),
        ] {
            assert!(is_near(tau_s(limit), secs), "{limit:?}: {}", tau_s(limit));
        }
        let mut lately = Lately::default();
        lately.add(10, 1_000_000_000, 20.0);
        assert!(is_near(lately.at(1_000_000_000, 20.0), 10.0));
        // The clock of a decision may be from before the report.
        assert!(is_near(lately.at(0, 20.0), 10.0));
        assert!(is_near(lately.at(21_000_000_000, 20.0), 10.0 / std::f64::consts::E));
        lately.add(5, 21_000_000_000, 20.0);
        assert!(is_near(lately.at(21_000_000_000, 20.0), 10.0 / std::f64::consts::E + 5.0));
    }
}
