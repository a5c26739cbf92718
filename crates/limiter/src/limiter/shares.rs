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
