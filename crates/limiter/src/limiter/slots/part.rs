//! Buckets that are held to a part, because this instance is cut off from the others. Level and numbers stay those of
//! the whole bucket, but each token costs `1 / part` tokens of the level. So the bucket gives out its part of the
//! capacity and of the rate, and nothing has to be converted when the silence ends, or when it is saved or checked to
//! be full.

use super::super::link::PeerLinkState;
use super::Slot;
use super::mark::Mark;
use crate::bucket::{MICRO, TakeOutcome};
use balancer_time::Nanos;

impl Slot {
    /// Whether it is held to a part.
    pub fn is_parted(&self) -> bool {
        self.mark.is_parted()
    }

    /// Holds it to that part in this silence.
    pub(super) fn hold_to(&mut self, part: f64, returns: u32) {
        self.mark = Mark::parted(part, returns);
    }

    /// Makes it whole again, if it was held to a part and that silence is over, or it is not shared any more.
    pub(super) fn rejoin(&mut self, link: PeerLinkState, is_shared: bool, now: Nanos) {
        let goes_on = is_shared && link.cut_off && self.mark.is_of(link.returns);
        if !self.mark.is_parted() || goes_on {
            return;
        }
        if self.mark.owes() {
            // What it gave out beyond its part was taken off as if the others had spent theirs, which they report
            // themselves.
            self.bucket.forgive(link.returned_at.min(now));
        }
        self.mark = Mark::QUIET;
    }

    /// By how many millionths `cost` tokens lower the level.
    pub(super) fn price(&self, cost: u32) -> i64 {
        if self.is_parted() { self.mark.price(cost) } else { i64::from(cost) * MICRO }
    }

    /// The level at which `cost` tokens are given out, in millionths. If the part can never hold as many, the bucket
    /// gives them out when it is full, and owes the rest. Otherwise a client with a capacity of one token, or with one
    /// costly request, would be refused as long as the silence lasts.
    pub(super) fn needs(&self, cost: u32) -> i64 {
        let capacity = self.bucket.limit().capacity;
        let price = self.price(cost);
        if cost > capacity { price } else { price.min(i64::from(capacity) * MICRO) }
    }

    /// Takes `cost` tokens. The level must be at least what [`Slot::needs`] says.
    pub(super) fn take(&mut self, cost: u32) {
        if !self.is_parted() {
            return self.bucket.take(cost);
        }
        let price = self.mark.price(cost);
        if price > self.bucket.level_micro() {
            self.mark.owe();
        }
        self.bucket.pay(price);
    }

    /// Whole tokens that it would give out.
    pub(super) fn whole(&self) -> u32 {
        if !self.is_parted() {
            return self.bucket.whole();
        }
        // At most the capacity.
        let whole = (self.mark.of(self.bucket.level_micro()) / MICRO) as u32;
        whole.max(u32::from(self.bucket.level_micro() >= self.needs(1)))
    }

    /// As [`crate::bucket::Bucket::outcome`], for the part.
    pub(super) fn outcome(&self, cost: u32, allowed: bool) -> TakeOutcome {
        if !self.is_parted() {
            return self.bucket.outcome(cost, allowed);
        }
        let goal = self.needs(if allowed { 1 } else { cost });
        TakeOutcome { allowed, left: self.whole(), wait_ns: self.bucket.until(goal) }
    }

    /// The level to be saved, in millionths.
    pub(super) fn level_to_save(&self, now: Nanos) -> i64 {
        let level = self.bucket.refilled(now).level_micro();
        if self.mark.owes() { level.max(0) } else { level }
    }
}

#[cfg(test)]
mod tests;
