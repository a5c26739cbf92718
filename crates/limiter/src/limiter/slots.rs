//! The buckets of one client. The first lies in its row; a client with several has the others beside it.
//!
//! A bucket is found by its id, so that its level carries over whatever limit or plan names it next. Buckets whose
//! names are in force no longer stay until they are full: who was put on another plan and back has not gained anything.

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

/// Most buckets of limits that a client has at once, those whose names are no longer in force included. With more,
/// the fullest of those goes: it is the one that holds its client back the least.
const MAX_OF_LIMITS: usize = 4 * MAX_BUCKETS;

/// The same for buckets of rules: as many as rules and routes can have in force, so that none of those is ever forgotten
/// before it is full. Who uses many routes would have fresh ones otherwise.
const MAX_OF_RULES: usize = (MAX_RULES + MAX_ROUTES) * MAX_BUCKETS;

const NANOS_PER_SEC: Nanos = 1_000_000_000;

/// One bucket of one client. 72 bytes.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    id: BucketId,
    bucket: Bucket,
    /// What is hidden from other instances.
    mark: Mark,
    /// With a reset: the period in which it was filled last.
    turn: u32,
    /// Where its counts are while it is hot.
    hot: Option<HotPlace>,
    reset: Option<Reset>,
    of_rule: bool,
}

impl Slot {
    /// A bucket that was never asked.
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

    /// Its level, as of the last call that settled it, and the numbers in force.
    pub fn bucket(&self) -> &Bucket {
        &self.bucket
    }

    /// The period that fills it, and the one in which it was filled last.
    pub fn reset(&self) -> Option<(Reset, u32)> {
        self.reset.map(|reset| (reset, self.turn))
    }

    /// Counts what has flowed in, or fills it if its period has turned. A wall clock that was set back fills nothing, and the
    /// period that it shows now is the one that the bucket is in, with the level that it has. Otherwise a clock that ran
    /// ahead for a moment would hold its clients back until the time that it had shown.
    fn settle(&mut self, when: Moment) -> Flow {
        match self.reset {
            None => {
                let before = self.bucket.level_micro();
                let micro = self.bucket.flow(when.now);
                // Not below 0: the level rose by no more than flowed in.
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

    /// Puts the numbers of a bucket of that name in force; false: they were already. Where it keeps its period it is not settled:
    /// if that has turned, whoever settles it next fills it, by these numbers.
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

    /// Until it is filled; `None` without a reset.
    fn until_reset(&self, when: Moment) -> Option<Nanos> {
        let next = self.reset?.begins(self.turn.saturating_add(1));
        Some(next.saturating_sub(when.wall_s).saturating_mul(NANOS_PER_SEC))
    }

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

/// A client's buckets, in no order. What is not here is full.
#[derive(Clone, Debug, Default)]
pub(super) struct Slots(SmallVec<[Slot; 1]>);

impl Slots {
    /// Takes the tokens that a request needs of every bucket, or of none if an enforced one refuses. Writes what each
    /// says, in the order of [`Ask::buckets`]; true: allowed. Allocates nothing for buckets that were there before.
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

    /// Puts a limit's numbers in force for those buckets of it that are here; whether that changed anything.
    pub fn put_in_force(&mut self, specs: &[BucketSpec], when: Moment) -> bool {
        let mut changed = false;
        for spec in specs {
            if let Some(slot) = self.find_mut(spec.id) {
                changed |= slot.put_in_force(spec, when);
            }
        }
        changed
    }

    /// Whole tokens of each of these buckets, with their numbers in force.
    pub fn levels<'a>(mut self, specs: impl Iterator<Item = &'a BucketSpec>, when: Moment) -> Vec<u32> {
        let level = |spec: &BucketSpec| {
            self.put_in_force(std::slice::from_ref(spec), when);
            self.get(spec.id, when).map_or(spec.limit.capacity, |slot| slot.whole())
        };
        specs.map(level).collect()
    }

    /// Whether every bucket is full, and so nothing worth remembering.
    pub fn are_full(&self, when: Moment) -> bool {
        self.0.iter().all(|slot| !slot.is_hot() && slot.is_full(when))
    }

    /// Forgets the buckets that are full.
    pub fn trim(&mut self, when: Moment) {
        self.0.retain(|slot| slot.is_hot() || !slot.is_full(when));
    }

    /// Forgets what limits have made; whether anything is left.
    pub fn forget_limits(&mut self) -> bool {
        self.0.retain(|slot| slot.of_rule);
        !self.0.is_empty()
    }

    /// Forgets everything: all buckets are full.
    pub fn forget(&mut self) {
        self.0.clear();
    }

    /// The same levels for another client, which has spent nothing yet.
    pub fn starting_over(&self) -> Self {
        let over = |slot: &Slot| Slot { bucket: slot.bucket.starting_over(), hot: None, ..*slot };
        Self(self.0.iter().map(over).collect())
    }

    /// One bucket as it is at that moment.
    pub fn get(&self, id: BucketId, when: Moment) -> Option<Slot> {
        self.0.iter().find(|slot| slot.id == id).map(|slot| slot.settled(when))
    }

    /// A saved bucket comes back: of two levels the lower one counts.
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

    /// All of them.
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

    /// Makes the buckets that are asked for and are not here: a new name starts full.
    fn prepare(&mut self, ask: Ask<'_>, when: Moment) {
        for (spec, _, of_rule) in ask.buckets() {
            if self.find_mut(spec.id).is_none() {
                self.make_room(of_rule, |id| ask.buckets().any(|(spec, ..)| spec.id == id), when);
                self.0.push(Slot::full(spec, of_rule, when));
            }
        }
    }

    /// Keeps the number of buckets within its bounds; those that are `wanted` stay.
    fn make_room(&mut self, of_rule: bool, wanted: impl Fn(BucketId) -> bool, when: Moment) {
        // Before more memory is asked for, so that many buckets cost no look at all of them each.
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

/// A bucket's level as it is saved, to be put back after a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saved {
    /// Which bucket.
    pub id: BucketId,
    /// Whether a rule has it.
    pub of_rule: bool,
    /// The numbers that were in force. With a reset nothing flows in: their rate is 0.
    pub limit: Limit,
    /// Millionths of a token.
    pub level_micro: i64,
    /// The period that fills it, and the one in which it was filled last.
    pub reset: Option<(Reset, u32)>,
}

impl Slot {
    /// What has to be saved of it at `now`.
    pub fn saved(&self, now: Nanos) -> Saved {
        Saved {
            id: self.id,
            of_rule: self.of_rule,
            limit: self.bucket.limit(),
            level_micro: self.level_to_save(now),
            reset: self.reset(),
        }
    }

    /// From its last settling to full; `None`: never. At least that: a wall clock may jump.
    pub fn until_full(&self, when: Moment) -> Option<Nanos> {
        match self.until_full_by_reset(when) {
            Some(until) => Some(until),
            None => self.bucket.refilled(when.now).until_full(),
        }
    }

    fn until_full_by_reset(&self, when: Moment) -> Option<Nanos> {
        if self.is_full(when) { Some(0) } else { self.settled(when).until_reset(when) }
    }

    /// A bucket that was saved `age` ago.
    pub(super) fn restored(saved: &Saved, age: Nanos, when: Moment) -> Self {
        let bucket = Bucket::restored(saved.limit, saved.level_micro, age, when.now);
        let (reset, turn) = saved.reset.map_or((None, 0), |(reset, turn)| (Some(reset), turn));
        let (mark, hot) = (Mark::QUIET, None);
        Self { id: saved.id, bucket, mark, turn, hot, reset, of_rule: saved.of_rule }.settled(when)
    }
}

#[cfg(test)]
mod tests;
