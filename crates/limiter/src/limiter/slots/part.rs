//! A bucket that is held to a part, because this instance is cut off from the others. Its level and its numbers stay those of
//! the whole, and each token is as much dearer as the part is smaller: so it holds a part, refills at that part of the rate, and
//! nothing has to be put right when it is whole again, is saved, or is found to be full.

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

    /// It is held to that part in this silence.
    pub(super) fn hold_to(&mut self, part: f64, returns: u32) {
        self.mark = Mark::parted(part, returns);
    }

    /// Ends being held to a part where that is over.
    pub(super) fn rejoin(&mut self, link: PeerLinkState, is_shared: bool, now: Nanos) {
        let goes_on = is_shared && link.cut_off && self.mark.is_of(link.returns);
        if !self.mark.is_parted() || goes_on {
            return;
        }
        if self.mark.owes() {
            // More than it had was missing to the others' parts, of which nothing is charged afterwards.
            self.bucket.forgive(link.returned_at.min(now));
        }
        self.mark = Mark::QUIET;
    }

    /// What `cost` tokens take of the level, in millionths.
    pub(super) fn price(&self, cost: u32) -> i64 {
        if self.is_parted() { self.mark.price(cost) } else { i64::from(cost) * MICRO }
    }

    /// The level at which `cost` tokens are given out. A part that never has so many gives them out when it is full, and owes
    /// the rest: else a client of one token, or of one dear request, would be refused as long as the silence lasts.
    pub(super) fn needs(&self, cost: u32) -> i64 {
        let capacity = self.bucket.limit().capacity;
        let price = self.price(cost);
        if cost > capacity { price } else { price.min(i64::from(capacity) * MICRO) }
    }

    /// Takes what [`Slot::needs`] found to be there.
    pub(super) fn take(&mut self, cost: u32) {
        if !self.is_parted() {
            return self.bucket.take(cost);
        }
        let price = self.mark.price(cost);
        if price > self.bucket.level_micro() {
            self.mark.owe();
        }
        self.bucket.take_at(cost, price);
    }

    /// Whole tokens that can be had of it.
    pub(super) fn whole(&self) -> u32 {
        if !self.is_parted() {
            return self.bucket.whole();
        }
        // At most the capacity.
        let whole = (self.mark.of(self.bucket.level_micro()) / MICRO) as u32;
        whole.max(u32::from(self.bucket.level_micro() >= self.needs(1)))
    }

    /// As [`crate::bucket::Bucket::outcome`].
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
