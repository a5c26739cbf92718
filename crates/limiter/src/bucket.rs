//! The token bucket: exact, in whole numbers, with `now` as an argument.
//!
//! Any span of T seconds admits at most `capacity + rate × T` tokens. The level is counted in millionths of a token,
//! and each refill carries its remainder over to the next, so that nothing is lost however often a bucket is asked. A
//! clock that goes back refills nothing and takes nothing.

use super::limit::{Limit, Rate};
use balancer_time::Nanos;

/// Millionths in one token. Levels are counted in millionths.
pub const MICRO: i64 = 1_000_000;

/// Deepest debt of any bucket, in millionths: as deep as the largest bucket is high. It keeps every sum below far from
/// the bounds of 64 bits.
const MAX_DEBT: i64 = Limit::MAX_CAPACITY as i64 * MICRO;

/// One token bucket and the numbers that are in force for it. 40 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// The numbers of the [`Limit`], as single fields so that there is no padding between them.
    capacity: u32,
    per_secs: u32,
    micro: u64,
    /// Millionths of a token, from −[`MAX_DEBT`] to the capacity.
    level: i64,
    /// The remainder of the last refill, in parts of a millionth; less than [`parts`].
    carry: u64,
    /// The instant up to which refills are counted.
    at: Nanos,
}

/// The answer to a request for tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TakeOutcome {
    /// Whether the tokens were taken. A refusal takes none.
    pub allowed: bool,
    /// Whole tokens that are left.
    pub left: u32,
    /// After a refusal: the time until the same request would be allowed. Otherwise: the time until there is a whole
    /// token, 0 if there is one. `None`: that will never be. At most [`Nanos::MAX`], 584 years.
    pub wait_ns: Option<Nanos>,
}

impl Bucket {
    /// A new bucket, which is full.
    pub const fn full(limit: Limit, now: Nanos) -> Self {
        let Limit { capacity, rate } = limit;
        let Rate { micro, per_secs } = rate;
        Self { capacity, per_secs, micro, level: top(limit), carry: 0, at: now }
    }

    /// A bucket that had that level, in millionths, `age` nanoseconds ago.
    pub fn restored(limit: Limit, level_micro: i64, age: Nanos, now: Nanos) -> Self {
        let mut bucket = Self { level: level_micro.clamp(-MAX_DEBT, top(limit)), ..Self::full(limit, 0) };
        bucket.refill(age);
        bucket.at = now;
        bucket
    }

    /// Takes `cost` tokens, if there are as many.
    pub fn acquire(&mut self, cost: u32, now: Nanos) -> TakeOutcome {
        let allowed = self.holds(cost, now);
        if allowed {
            self.take(cost);
        }
        self.outcome(cost, allowed)
    }

    /// Refills it up to `now`, and says whether it holds `cost` tokens.
    pub fn holds(&mut self, cost: u32, now: Nanos) -> bool {
        self.refill(now);
        self.level >= i64::from(cost) * MICRO
    }

    /// Takes `cost` tokens. [`Bucket::holds`] must have returned true just before.
    pub fn take(&mut self, cost: u32) {
        debug_assert!(self.level >= i64::from(cost) * MICRO);
        self.pay(i64::from(cost) * MICRO);
    }

    /// Lowers the level by so many millionths, even below 0, but not below −10^9 tokens.
    pub fn pay(&mut self, price_micro: i64) {
        self.lower(price_micro, -MAX_DEBT);
    }

    /// The outcome of a request for `cost` tokens that was just allowed or refused.
    pub fn outcome(&self, cost: u32, allowed: bool) -> TakeOutcome {
        let goal = if allowed { MICRO } else { i64::from(cost) * MICRO };
        TakeOutcome { allowed, left: self.whole(), wait_ns: self.until(goal) }
    }

    /// Fills it to its capacity.
    pub fn fill(&mut self, now: Nanos) {
        self.at = self.at.max(now);
        self.level = top(self.limit());
        self.carry = 0;
    }

    /// Lowers the level by so many millionths, but not below the floor. A level that is below the floor stays.
    pub fn lower(&mut self, micro: i64, floor_micro: i64) {
        let floor = floor_micro.max(-MAX_DEBT).min(self.level);
        self.level = self.level.saturating_sub(micro).max(floor);
    }

    /// Raises the level by so many millionths, at most to the capacity. A negative number does nothing.
    pub fn lift(&mut self, micro: i64) {
        self.level = self.level.saturating_add(micro.max(0)).min(top(self.limit()));
    }

    /// Moves the level for a moment, without any bounds, to see what [`Bucket::outcome`] would say. The caller moves it
    /// back.
    pub fn shift(&mut self, micro: i64) {
        self.level += micro;
    }

    /// Refills it up to `until`, and raises a negative level to 0.
    pub fn forgive(&mut self, until: Nanos) {
        self.refill(until);
        self.level = self.level.max(0);
    }

    /// Puts other numbers in force. The level changes by as much as the capacity, and stays between 0 and the new
    /// capacity. A full bucket stays full, so that it makes no difference whether a full bucket was forgotten before.
    pub fn retune(&mut self, limit: Limit, now: Nanos) {
        self.refill(now);
        let (old, new) = (parts(self.limit()), parts(limit));
        if old != new {
            // Rounds down by less than a millionth of a token; at most 3.2e16², which needs more than 64 bits.
            self.carry = (u128::from(self.carry) * u128::from(new) / u128::from(old)) as u64;
        }
        let moved = self.level + top(limit) - top(self.limit());
        self.level = moved.clamp(0, top(limit));
        if self.level != moved || self.level == top(limit) {
            self.carry = 0;
        }
        self.capacity = limit.capacity;
        self.per_secs = limit.rate.per_secs;
        self.micro = limit.rate.micro;
    }

    /// Whether it is full at `now`, and so equal to a new one.
    pub fn is_full(&self, now: Nanos) -> bool {
        let later = self.refilled(now);
        later.level == top(later.limit())
    }

    /// The same bucket, refilled up to `now`.
    pub fn refilled(mut self, now: Nanos) -> Self {
        self.refill(now);
        self
    }

    /// Refills it up to `now`. Returns the millionths that flowed in, those for which there was no room among them.
    pub fn flow(&mut self, now: Nanos) -> u64 {
        self.refill(now)
    }

    /// The numbers in force.
    pub const fn limit(&self) -> Limit {
        Limit { capacity: self.capacity, rate: Rate { micro: self.micro, per_secs: self.per_secs } }
    }

    /// The level at the last call that took `now`, in millionths of a token; negative for a debt.
    pub fn level_micro(&self) -> i64 {
        self.level
    }

    /// Whole tokens at the last call that took `now`; 0 for a debt.
    pub fn whole(&self) -> u32 {
        // At most `Limit::MAX_CAPACITY`.
        (self.level.max(0) / MICRO) as u32
    }

    /// Time from the last call that took `now` until it is full; `None` if it never will be.
    pub fn until_full(&self) -> Option<Nanos> {
        self.until(top(self.limit()))
    }

    /// Time from the last call that took `now` until the level is `goal` millionths; 0 if it is, `None` if it never
    /// will be.
    pub fn until(&self, goal: i64) -> Option<Nanos> {
        if self.level >= goal {
            return Some(0);
        }
        let micro = self.micro;
        if micro == 0 || goal > top(self.limit()) {
            return None;
        }
        // Positive: at most 4.3e15 + 1e15 millionths.
        let missing = (goal - self.level) as u64;
        match missing.checked_mul(parts(self.limit())) {
            Some(parts) => Some((parts - self.carry).div_ceil(micro)),
            None => {
                let parts = u128::from(missing) * u128::from(parts(self.limit())) - u128::from(self.carry);
                Some(Nanos::try_from(parts.div_ceil(u128::from(micro))).unwrap_or(Nanos::MAX))
            }
        }
    }

    fn refill(&mut self, now: Nanos) -> u64 {
        let elapsed = now.saturating_sub(self.at);
        if elapsed == 0 {
            return 0;
        }
        self.at = now;
        // Not negative: the level never passes the top.
        let room = (top(self.limit()) - self.level) as u64;
        let parts = parts(self.limit());
        let micro = self.micro;
        let (gained, carry) = match elapsed.checked_mul(micro).and_then(|sum| sum.checked_add(self.carry)) {
            Some(sum) => (sum / parts, sum % parts),
            None => {
                let sum = u128::from(elapsed) * u128::from(micro) + u128::from(self.carry);
                let gained = sum / u128::from(parts);
                (u64::try_from(gained).unwrap_or(u64::MAX), (sum % u128::from(parts)) as u64)
            }
        };
        if gained >= room {
            self.level = top(self.limit());
            self.carry = 0;
        } else {
            self.level += gained as i64;
            self.carry = carry;
        }
        gained
    }
}

/// Into how many parts a millionth of a token is divided, so that each nanosecond brings a whole number of parts:
/// `rate.micro`. At most 3.2e16.
fn parts(limit: Limit) -> u64 {
    u64::from(limit.rate.per_secs.max(1)) * 1_000_000_000
}

/// The capacity in millionths.
const fn top(limit: Limit) -> i64 {
    limit.capacity as i64 * MICRO
}

#[cfg(test)]
mod tests;
