//! Buckets that several instances share: decisions take into account what others are assumed to spend, hide a few
//! tokens from them and publish more, and hold the bucket to a part while this instance is cut off.

use super::super::hot::{HotBucket, ToldBucket};
use super::super::hot_table::{HotCounts, HotPlace, HotTable};
use super::super::link::PeerLinkState;
use super::super::shares::even_part;
use super::{Slot, Slots};
use crate::bucket::{Bucket, MICRO};
use crate::identity::ClientKey;
use crate::limit::Limit;
use crate::limiter::{Ask, Verdict};
use crate::terms::{BucketId, BucketSpec};
use balancer_time::{Moment, Nanos};

/// What a decision needs to share what it takes. The shard's lock is held.
pub(in super::super) struct Sharing<'a> {
    pub link: PeerLinkState,
    pub client: ClientKey,
    pub hot: &'a mut HotTable,
    pub counts: &'a HotCounts,
    /// Something has to be reported soon.
    pub loud: bool,
    /// There was no room for a hot bucket.
    pub no_room: bool,
}

impl<'a> Sharing<'a> {
    pub fn new(link: PeerLinkState, client: ClientKey, hot: &'a mut HotTable, counts: &'a HotCounts) -> Self {
        Self { link, client, hot, counts, loud: false, no_room: false }
    }
}

/// What [`Slot::settle`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    /// So many millionths flowed in; the second number is how many of these found no room.
    In(u64, u64),
    /// A new period has begun.
    Filled,
}

impl Flow {
    /// What found no room, in millionths.
    pub(super) fn over(self) -> u64 {
        match self {
            Self::In(_, over) => over,
            Self::Filled => 0,
        }
    }
}

impl Slot {
    /// Whether it is hot, so that it must stay even if it is full.
    pub(super) fn is_hot(&self) -> bool {
        self.hot.is_some()
    }

    /// Makes it quiet. The caller removes the hot bucket.
    pub fn cool(&mut self) {
        self.hot = None;
    }

    /// A silence is over: gives back what was taken off for others when it began, as far as that has not flowed in
    /// since; the others will report what they spent. Returns how many of the untold tokens have not flowed in since.
    pub(in super::super) fn settle_silence(&mut self, hot: &mut HotBucket, now: Nanos) -> u64 {
        let limit = self.bucket.limit();
        let flowed = |since: Nanos| Bucket::full(limit, since).flow(now);
        let (guessed, at) = hot.take_guess();
        if self.is_parted() {
            self.bucket.lift(guessed.saturating_sub_unsigned(flowed(at)));
        }
        hot.untold().saturating_sub(flowed(hot.told_at()) / MICRO as u64)
    }

    /// What a report says about it, except for what was spent.
    pub(in super::super) fn told(&self, has_own_row: bool) -> ToldBucket {
        let (limit, of_rule, reset) = (self.bucket.limit(), self.of_rule, self.reset());
        ToldBucket { limit, of_rule, has_own_row, reset }
    }

    /// Brings it to `when` and puts these numbers in force. Returns whether it has `cost` tokens, without what others
    /// are assumed to have spent.
    #[inline(always)]
    fn holds_shared(
        &mut self,
        spec: &BucketSpec,
        cost: u32,
        is_shared: bool,
        sharing: &mut Sharing<'_>,
        when: Moment,
    ) -> bool {
        let full = spec.in_force();
        if self.is_parted() {
            self.rejoin(sharing.link, is_shared, when.now);
        }
        let flow = self.settle_shared(sharing, when);
        self.put_in_force(spec, when);
        let ahead = if is_shared { self.share(full, flow, sharing, when.now) } else { 0 };
        self.bucket.level_micro() - ahead >= self.needs(cost)
    }

    /// Does to a copy of a slot what [`Slot::holds_shared`] does, and takes off what others are assumed to have spent:
    /// then it is as the next request would find it.
    fn foresee(
        &mut self,
        spec: &BucketSpec,
        is_shared: bool,
        hot: &HotTable,
        link: PeerLinkState,
        when: Moment,
    ) {
        self.rejoin(link, is_shared, when.now);
        let flow = self.settle(when);
        self.put_in_force(spec, when);
        if !is_shared || link.members < 2 || self.is_parted() {
            return;
        }
        let full = spec.in_force();
        let hot = self.hot.and_then(|place| hot.get(place));
        let part = part_of(hot, full, link, when.now);
        if let Some(hot) = hot.filter(|_| flow == Flow::Filled) {
            self.bucket.lower(hot.early(self.turn), debt_of(full, link.members));
        } else if let Some(hot) = hot {
            let ahead = hot.ahead(full, link, when.now);
            if link.cut_off {
                let untold = hot.untold_by_others(ahead, part, flow.over());
                self.bucket.lower(untold, debt_of(full, link.members));
            } else {
                self.bucket.lower(ahead, i64::MIN);
            }
        }
        if link.cut_off {
            self.hold_to(part, link.returns);
        }
    }

    /// Takes the tokens if `takes`, and returns the bucket's answer. `enough`: it has the tokens.
    #[inline(always)]
    fn conclude(
        &mut self,
        spec: &BucketSpec,
        cost: u32,
        (takes, enough): (bool, bool),
        sharing: &mut Sharing<'_>,
        when: Moment,
    ) -> Verdict {
        let hot = self.hot.and_then(|place| sharing.hot.get_mut(place));
        let ahead = match &hot {
            Some(hot) if !self.is_parted() && sharing.link.members > 1 => hot.ahead_micro,
            _ => 0,
        };
        if takes {
            let price = self.price(cost);
            self.take(cost);
            match hot {
                Some(hot) if self.is_parted() => hot.presume(price - i64::from(cost) * MICRO),
                Some(hot) if sharing.link.members > 1 && hot.is_hot(when.now) => {
                    sharing.loud |= hot.spend(cost, when.now);
                }
                _ => self.hide(spec.in_force(), cost, sharing, when.now),
            }
        }
        // The level that the client is told is without what others are assumed to have spent; it is not taken off for
        // good.
        self.bucket.shift(-ahead);
        let verdict = self.verdict(cost, enough, when);
        self.bucket.shift(ahead);
        verdict
    }

    /// As [`Slot::settle`]. If a new period has begun, what was spent before does not count any more, and what others
    /// have already reported of this period is charged.
    #[inline(always)]
    pub(super) fn settle_shared(&mut self, sharing: &mut Sharing<'_>, when: Moment) -> Flow {
        let flow = self.settle(when);
        if flow == Flow::Filled
            && let Some(hot) = self.hot.and_then(|place| sharing.hot.get_mut(place))
        {
            let early = hot.begin_period(sharing.counts.next_episode(), self.turn);
            self.bucket.lower(early, debt_of(self.bucket.limit(), sharing.link.members));
        }
        flow
    }

    /// How many millionths the level has to be lower for what others are assumed to have spent. While this instance is
    /// cut off, the bucket is held to its part instead, and it is 0.
    #[inline(always)]
    fn share(&mut self, full: Limit, flow: Flow, sharing: &mut Sharing<'_>, now: Nanos) -> i64 {
        let link = sharing.link;
        if link.members < 2 {
            return 0;
        }
        let hot = self.hot.and_then(|place| sharing.hot.get_mut(place));
        if link.cut_off {
            if !self.is_parted() {
                let part = part_of(hot.as_deref(), full, link, now);
                if let Some(hot) = hot {
                    let ahead = hot.foresee(full, link, flow.over(), now);
                    let before = self.bucket.level_micro();
                    let untold = hot.untold_by_others(ahead, part, flow.over());
                    self.bucket.lower(untold, debt_of(full, link.members));
                    hot.note_guess(before - self.bucket.level_micro(), now);
                }
                self.hold_to(part, link.returns);
            }
            return 0;
        }
        match flow {
            Flow::Filled => 0,
            Flow::In(micro, over) => {
                self.mark.leak(micro, link.members);
                let Some(hot) = hot else { return 0 };
                if link.unheard {
                    hot.leak(micro);
                }
                hot.foresee(full, link, over, now)
            }
        }
    }

    /// Drops what was spent here and has flowed in again: of hidden tokens as much as this instance's part of the flow,
    /// of untold ones that can't be reported as much as the whole flow.
    pub(super) fn leak(&mut self, flow: Flow, sharing: &mut Sharing<'_>) {
        let Flow::In(micro, _) = flow else { return };
        self.mark.leak(micro, sharing.link.members);
        if sharing.link.unheard
            && let Some(hot) = self.hot.and_then(|place| sharing.hot.get_mut(place))
        {
            hot.leak(micro);
        }
    }

    /// Tokens were taken at `now` from a bucket that is not hot: hides them, or makes the bucket hot.
    #[inline(always)]
    fn hide(&mut self, full: Limit, cost: u32, sharing: &mut Sharing<'_>, now: Nanos) {
        let link = sharing.link;
        if link.members < 2 || self.mark.is_parted() || !self.mark.hide(cost, full, link.members) {
            return;
        }
        match self.heat(sharing, now) {
            Some(hot) => {
                hot.loud = true;
                sharing.loud = true;
            }
            None => sharing.no_room = true,
        }
    }

    /// Makes it hot, or keeps it hot for longer; hidden tokens are published. `None`: there is no room for another hot
    /// bucket.
    pub(super) fn heat<'h>(&mut self, sharing: &'h mut Sharing<'_>, now: Nanos) -> Option<&'h mut HotBucket> {
        let place = match self.hot {
            Some(place) => place,
            None => sharing.hot.add(sharing.client, self.id, sharing.counts, now)?,
        };
        self.hot = Some(place);
        let hot = sharing.hot.get_mut(place)?;
        hot.heat(self.mark.hidden(), now);
        self.mark.publish();
        Some(hot)
    }
}

/// This instance's part of a bucket while it is cut off; an even part if the bucket is not hot.
fn part_of(hot: Option<&HotBucket>, full: Limit, link: PeerLinkState, now: Nanos) -> f64 {
    hot.map_or_else(|| even_part(link.members), |hot| hot.part(full, link.members, now))
}

/// The lowest level that the spending of others may cause, in millionths: as if each of them had taken the whole
/// capacity.
pub(super) fn debt_of(limit: Limit, members: u32) -> i64 {
    -(i64::from(members.saturating_sub(1)) * i64::from(limit.capacity)).saturating_mul(MICRO)
}

impl Slots {
    /// As [`Slots::acquire`], if instances share the budget. Not inlined, so that it does not make the other one
    /// slower.
    #[inline(never)]
    pub fn acquire_shared(
        &mut self,
        ask: Ask<'_>,
        when: Moment,
        verdicts: &mut [Verdict],
        sharing: &mut Sharing<'_>,
    ) -> bool {
        self.prepare(ask, when);
        let mut allowed = true;
        for ((spec, cost, of_rule), verdict) in ask.buckets().zip(&mut *verdicts) {
            let Some(slot) = self.find_mut(spec.id) else { continue };
            let enough = slot.holds_shared(spec, cost, ask.is_shared(of_rule), sharing, when);
            verdict.outcome.allowed = enough;
            allowed &= enough || !spec.is_enforced();
        }
        for ((spec, cost, of_rule), verdict) in ask.buckets().zip(verdicts) {
            let Some(slot) = self.find_mut(spec.id) else { continue };
            let enough = verdict.outcome.allowed;
            let takes = allowed && enough;
            *verdict = if ask.is_shared(of_rule) {
                slot.conclude(spec, cost, (takes, enough), sharing, when)
            } else {
                if takes {
                    slot.take(cost);
                }
                slot.verdict(cost, enough, when)
            };
        }
        allowed
    }

    /// The bucket with that id, if its hot bucket is at that place.
    pub fn hot_mut(&mut self, id: BucketId, place: HotPlace) -> Option<&mut Slot> {
        self.find_mut(id).filter(|slot| slot.hot == Some(place))
    }

    /// The place of a bucket's hot bucket; `None` if it is quiet.
    pub fn hot_place(&self, id: BucketId) -> Option<HotPlace> {
        self.0.iter().find(|slot| slot.id == id)?.hot
    }

    /// Tokens of a bucket that others spent since it became hot; 0 if it is quiet.
    pub fn spent_elsewhere(&self, id: BucketId, hot: &HotTable) -> u64 {
        self.hot_place(id).and_then(|place| hot.get(place)).map_or(0, |hot| hot.elsewhere)
    }

    /// The buckets as a request would find them: without what others are assumed to have spent, or held to a part.
    pub fn foreseen(
        mut self,
        ask: Ask<'_>,
        hot: &HotTable,
        link: Option<PeerLinkState>,
        when: Moment,
    ) -> Self {
        let Some(link) = link else { return self };
        self.prepare(ask, when);
        for (spec, _, of_rule) in ask.buckets() {
            if let Some(slot) = self.find_mut(spec.id) {
                slot.foresee(spec, ask.is_shared(of_rule), hot, link, when);
            }
        }
        self
    }
}

#[cfg(test)]
mod tests;
