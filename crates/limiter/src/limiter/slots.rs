//! The buckets of one client. The first is in the client's row; with a second one, all are on the heap.
//!
//! A bucket is found by its id, so that it keeps its level if another limit or plan has a bucket of that name. Buckets
//! that are not in force any more stay until they are full: a client that is put on another plan and back gains
//! nothing.

mod hear;
mod mark;
mod part;
mod share;

use smallvec::SmallVec;

use super::hot_table::HotPlace;
use super::{Ask, Verdict};
use crate::bucket::Bucket;
use crate::limit::Limit;
use crate::reset::Reset;
use crate::terms::{BucketId, BucketSpec, MAX_BUCKETS, MAX_ROUTES, MAX_RULES};
use balancer_time::{Moment, Nanos};

use mark::Mark;
use share::Flow;
pub(super) use share::Sharing;

/// Most buckets of limits that a client has at once, those included that are not in force any more. When there would be
/// more, the fullest of the others is removed, since it restricts the client least.
const MAX_OF_LIMITS: usize = 4 * MAX_BUCKETS;

/// Most buckets of rules and routes that a client has at once: as many as can be in force. So none of these is
/// forgotten before it is full; otherwise a client could get fresh buckets by using many routes.
const MAX_OF_RULES: usize = (MAX_RULES + MAX_ROUTES) * MAX_BUCKETS;

const NANOS_PER_SEC: Nanos = 1_000_000_000;

/// One bucket of one client. 64 bytes.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    id: BucketId,
    bucket: Bucket,
    /// What is hidden from other instances.
    mark: Mark,
    /// With a reset: the number of the period that it is in.
    turn: u32,
    /// While it is hot: its place in the [`super::hot_table::HotTable`].
    hot: Option<HotPlace>,
    reset: Option<Reset>,
    of_rule: bool,
}

impl Slot {
    /// A new bucket, which is full.
    pub(super) fn full(spec: &BucketSpec, of_rule: bool, when: Moment) -> Self {
        Self {
            id: spec.id,
            bucket: Bucket::full(spec.in_force(), when.now),
            mark: Mark::QUIET,
            turn: spec.reset.map_or(0, |reset| reset.turn(when.wall_s)),
            hot: None,
            reset: spec.reset,
            of_rule,
        }
    }

    /// The bucket, with its level at the last call that took `when`.
    pub fn bucket(&self) -> &Bucket {
        &self.bucket
    }

    /// With a reset: the kind of period, and the number of the one that it is in.
    pub fn reset(&self) -> Option<(Reset, u32)> {
        self.reset.map(|reset| (reset, self.turn))
    }

    /// Brings it to `when`: counts what has flowed in, or fills it if a new period has begun. If the wall clock was set
    /// back, the bucket keeps its level and is in the period that the clock shows. Otherwise, after a clock was ahead
    /// for a moment, clients would have to wait until the time that it had shown.
    fn settle(&mut self, when: Moment) -> Flow {
        match self.reset {
            None => {
                let before = self.bucket.level_micro();
                let micro = self.bucket.flow(when.now);
                // Can't overflow: the level rose by at most what flowed in.
                Flow::In(micro, micro - (self.bucket.level_micro() - before) as u64)
            }
            Some(reset) => {
                let turn = reset.turn(when.wall_s);
                let turned = turn > self.turn;
                self.turn = turn;
                if turned {
                    self.bucket.fill(when.now);
                    if !self.is_parted() {
                        self.mark = Mark::QUIET;
                    }
                    return Flow::Filled;
                }
                Flow::In(0, 0)
            }
        }
    }

    fn settled(mut self, when: Moment) -> Self {
        self.settle(when);
        self
    }

    fn is_full(&self, when: Moment) -> bool {
        match self.reset {
            None => self.bucket.is_full(when.now),
            Some(_) => self.settled(when).bucket.is_full(when.now),
        }
    }

    /// Puts the numbers of a bucket in force. False: they were in force. If its kind of period stays the same it is not
    /// settled: if a new period has begun, the next call that settles it fills it by the new numbers.
    fn put_in_force(&mut self, spec: &BucketSpec, when: Moment) -> bool {
        let limit = spec.in_force();
        if self.bucket.limit() == limit && self.reset == spec.reset {
            return false;
        }
        if self.reset != spec.reset {
            self.settle(when);
            self.reset = spec.reset;
            self.turn = spec.reset.map_or(0, |reset| reset.turn(when.wall_s));
        }
        self.bucket.retune(limit, when.now);
        true
    }

    /// Time until the next period fills it; `None` without a reset.
    fn until_reset(&self, when: Moment) -> Option<Nanos> {
        let next = self.reset?.begins(self.turn.saturating_add(1));
        Some(next.saturating_sub(when.wall_s).saturating_mul(NANOS_PER_SEC))
    }

    /// What it answers to a request for `cost` tokens that was allowed or refused.
    pub(super) fn verdict(&self, cost: u32, allowed: bool, when: Moment) -> Verdict {
        let mut outcome = self.outcome(cost, allowed);
        if let Some(until_reset) = self.until_reset(when) {
            let never = !allowed && cost > self.bucket.limit().capacity;
            outcome.wait_ns = (!never).then_some(until_reset);
        }
        Verdict { outcome, resets: self.reset.is_some() }
    }

    /// How full it is, in millionths of its capacity.
    fn fullness(&self, when: Moment) -> i128 {
        let bucket = self.settled(when).bucket;
        i128::from(bucket.level_micro()) / i128::from(bucket.limit().capacity.max(1))
    }
}

/// A client's buckets, in no order. A bucket that is not here is full.
#[derive(Clone, Debug, Default)]
pub(super) struct Slots(SmallVec<[Slot; 1]>);

impl Slots {
    /// Takes the tokens that a request needs from every bucket, or from none if an enforced one refuses. Writes the
    /// answer of each, in the order of [`Ask::buckets`]. True: allowed. Allocates nothing for buckets that exist.
    pub fn acquire(&mut self, ask: Ask<'_>, when: Moment, verdicts: &mut [Verdict]) -> bool {
        self.prepare(ask, when);
        let mut allowed = true;
        for ((spec, cost, _), verdict) in ask.buckets().zip(&mut *verdicts) {
            let Some(slot) = self.find_mut(spec.id) else { continue };
            slot.put_in_force(spec, when);
            slot.settle(when);
            verdict.outcome.allowed = slot.bucket.level_micro() >= slot.needs(cost);
            allowed &= verdict.outcome.allowed || !spec.is_enforced();
        }
        for ((spec, cost, _), verdict) in ask.buckets().zip(verdicts) {
            let Some(slot) = self.find_mut(spec.id) else { continue };
            let enough = verdict.outcome.allowed;
            if allowed && enough {
                slot.take(cost);
            }
            *verdict = slot.verdict(cost, enough, when);
        }
        allowed
    }

    /// Puts a limit's numbers in force for those of its buckets that are here. Returns whether that changed anything.
    pub fn put_in_force(&mut self, specs: &[BucketSpec], when: Moment) -> bool {
        let mut changed = false;
        for spec in specs {
            if let Some(slot) = self.find_mut(spec.id) {
                changed |= slot.put_in_force(spec, when);
            }
        }
        changed
    }

    /// Whole tokens in each of these buckets, after their numbers were put in force.
    pub fn levels<'a>(mut self, specs: impl Iterator<Item = &'a BucketSpec>, when: Moment) -> Vec<u32> {
        let level = |spec: &BucketSpec| {
            self.put_in_force(std::slice::from_ref(spec), when);
            self.get(spec.id, when).map_or(spec.limit.capacity, |slot| slot.whole())
        };
        specs.map(level).collect()
    }

    /// Whether every bucket is full and none is hot, so that all can be forgotten.
    pub fn are_full(&self, when: Moment) -> bool {
        self.0.iter().all(|slot| !slot.is_hot() && slot.is_full(when))
    }

    /// Forgets buckets that are full and not hot.
    pub fn trim(&mut self, when: Moment) {
        self.0.retain(|slot| slot.is_hot() || !slot.is_full(when));
    }

    /// Forgets the buckets of limits. Returns whether any are left.
    pub fn forget_limits(&mut self) -> bool {
        self.0.retain(|slot| slot.of_rule);
        !self.0.is_empty()
    }

    /// Forgets all buckets, so that all are full.
    pub fn forget(&mut self) {
        self.0.clear();
    }

    /// Buckets with the same levels for another client, of which no instance was told anything.
    pub fn starting_over(&self) -> Self {
        let over = |slot: &Slot| Slot { hot: None, ..*slot };
        Self(self.0.iter().map(over).collect())
    }

    /// A copy of one bucket, as it is at that instant.
    pub fn get(&self, id: BucketId, when: Moment) -> Option<Slot> {
        self.0.iter().find(|slot| slot.id == id).map(|slot| slot.settled(when))
    }

    /// Takes back a saved bucket. If it is here already, the lower level counts.
    pub fn restore(&mut self, saved: Slot, when: Moment) {
        match self.find_mut(saved.id) {
            Some(slot) if slot.settled(when).bucket.level_micro() <= saved.bucket.level_micro() => {}
            Some(slot) => *slot = Slot { hot: slot.hot, mark: slot.mark, ..saved },
            None => {
                self.make_room(saved.of_rule, |_| false, when);
                self.0.push(saved);
            }
        }
    }

    /// All buckets.
    pub fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.0.iter()
    }

    /// Heap memory in bytes.
    pub fn heap_bytes(&self) -> usize {
        if self.0.spilled() { self.0.capacity() * size_of::<Slot>() } else { 0 }
    }

    fn find_mut(&mut self, id: BucketId) -> Option<&mut Slot> {
        self.0.iter_mut().find(|slot| slot.id == id)
    }

    /// Makes the buckets that are asked for and are not here.
    fn prepare(&mut self, ask: Ask<'_>, when: Moment) {
        for (spec, _, of_rule) in ask.buckets() {
            if self.find_mut(spec.id).is_none() {
                self.make_room(of_rule, |id| ask.buckets().any(|(spec, ..)| spec.id == id), when);
                self.0.push(Slot::full(spec, of_rule, when));
            }
        }
    }

    /// Makes room for one more bucket within the bounds; those that are `wanted` stay.
    fn make_room(&mut self, of_rule: bool, wanted: impl Fn(BucketId) -> bool, when: Moment) {
        // Only when the memory is full, so that not every new bucket costs a look at all others.
        if self.0.len() == self.0.capacity() {
            self.0.retain(|slot| wanted(slot.id) || slot.is_hot() || !slot.is_full(when));
        }
        let most = if of_rule { MAX_OF_RULES } else { MAX_OF_LIMITS };
        if self.0.len() < most || self.0.iter().filter(|slot| slot.of_rule == of_rule).count() < most {
            return;
        }
        let spare = |slot: &Slot| slot.of_rule == of_rule && !wanted(slot.id);
        let fullest = (0..self.0.len()).filter(|at| spare(&self.0[*at]));
        if let Some(fullest) = fullest.max_by_key(|at| self.0[*at].fullness(when)) {
            self.0.swap_remove(fullest);
        }
    }
}

/// A bucket as it is saved, to be restored after a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saved {
    /// The bucket's id.
    pub id: BucketId,
    /// Whether it is the bucket of a rule.
    pub of_rule: bool,
    /// The numbers that were in force. With a reset their rate is 0.
    pub limit: Limit,
    /// The level in millionths of a token.
    pub level_micro: i64,
    /// With a reset: the kind of period, and the number of the one that the bucket was in.
    pub reset: Option<(Reset, u32)>,
}

impl Slot {
    /// The bucket at `now`, to be saved.
    pub fn saved(&self, now: Nanos) -> Saved {
        Saved {
            id: self.id,
            of_rule: self.of_rule,
            limit: self.bucket.limit(),
            level_micro: self.level_to_save(now),
            reset: self.reset(),
        }
    }

    /// Time until it is full; `None`: it never will be. With a reset the wall clock decides, which may jump.
    pub fn until_full(&self, when: Moment) -> Option<Nanos> {
        match self.until_full_by_reset(when) {
            Some(until) => Some(until),
            None => self.bucket.refilled(when.now).until_full(),
        }
    }

    fn until_full_by_reset(&self, when: Moment) -> Option<Nanos> {
        if self.is_full(when) { Some(0) } else { self.settled(when).until_reset(when) }
    }

    /// A bucket that was saved `age` nanoseconds ago.
    pub(super) fn restored(saved: &Saved, age: Nanos, when: Moment) -> Self {
        let bucket = Bucket::restored(saved.limit, saved.level_micro, age, when.now);
        let (reset, turn) = saved.reset.map_or((None, 0), |(reset, turn)| (Some(reset), turn));
        let (mark, hot) = (Mark::QUIET, None);
        Self { id: saved.id, bucket, mark, turn, hot, reset, of_rule: saved.of_rule }.settled(when)
    }
}

#[cfg(test)]
mod tests;
