//! What a limit comes to among several instances: this one's part, what it may hide, over how long what was told counts.

use crate::limit::Limit;
use balancer_time::Nanos;

/// How often what changed is told.
pub(crate) const TICK: Nanos = 500_000_000;

/// What found no room in a bucket counts for so long: until the others have told what they spent at that time, for which there would
/// have been room.
pub(super) const SPARE_FOR: Nanos = TICK + 50_000_000;

/// Millionths in a token.
pub(super) const MICRO: f64 = 1e6;

/// Nanoseconds in a second.
pub(super) const NANOS: f64 = 1e9;

/// What follows from a limit and the number of instances, kept so that no decision divides.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shares {
    pub limit: Limit,
    pub members: u32,
    /// Tokens that may be spent untold: a quarter of an even part of the capacity.
    pub threshold: f64,
    /// The same in whole tokens: with fewer nothing is urgent.
    pub least: u64,
    /// This instance's part of the rate, in tokens a nanosecond.
    pub part: f64,
    /// What the others may spend together, in tokens a second.
    pub others: f64,
    /// Most that counts of what found no room, in millionths: see [`SPARE_FOR`].
    pub spare: u64,
}

impl Shares {
    pub fn of(limit: Limit, members: u32) -> Self {
        let (even, rate) = (even_part(members), rate_of(limit));
        let threshold = (f64::from(limit.capacity) / 4.0 * even).max(1.0);
        // A larger bucket has room for what others spend until they tell.
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

/// The part of a bucket of which nobody told anything.
pub(super) fn even_part(members: u32) -> f64 {
    1.0 / f64::from(members.max(1))
}

/// Tokens a second.
pub(super) fn rate_of(limit: Limit) -> f64 {
    limit.rate.micro as f64 / (MICRO * f64::from(limit.rate.per_secs.max(1)))
}

/// Whole tokens that flow in within that time.
pub(super) fn tokens_of(limit: Limit, span: Nanos) -> u64 {
    let parts = u128::from(limit.rate.per_secs.max(1)) * 1_000_000_000 * 1_000_000;
    u64::try_from(u128::from(limit.rate.micro) * u128::from(span) / parts).unwrap_or(u64::MAX)
}

/// Over how many seconds what was told loses its weight: as long as the bucket takes to fill, within bounds.
pub(super) fn tau_s(limit: Limit) -> f64 {
    if limit.rate.micro == 0 {
        return 60.0;
    }
    (f64::from(limit.capacity) / rate_of(limit)).clamp(10.0, 60.0)
}

pub(super) fn seconds(span: Nanos) -> f64 {
    span as f64 / NANOS
}

/// A sum that loses its weight with time: what was told lately counts most.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lately {
    sum: f64,
    at: Nanos,
}

impl Lately {
    /// `tau_s`: after so many seconds 37 % are left.
    pub fn at(self, now: Nanos, tau_s: f64) -> f64 {
        self.sum * (-seconds(now.saturating_sub(self.at)) / tau_s).exp()
    }

    pub fn add(&mut self, more: u64, now: Nanos, tau_s: f64) {
        *self = Self { sum: self.at(now, tau_s) + more as f64, at: now };
    }
}
