//! A bucket that several instances share: what is hidden from the others, and how it is held to a part while this instance is
//! cut off from them.

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

/// What a decision has at hand to share what it takes: the shard's hot buckets, under its lock.
pub(in super::super) struct Sharing<'a> {
    pub link: PeerLinkState,
    pub client: ClientKey,
    pub hot: &'a mut HotTable,
    pub counts: &'a HotCounts,
    /// Something has to be told soon.
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
    /// So many millionths flowed in, of which so many found no room.
    In(u64, u64),
    /// Its period turned.
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
    /// Whether it must stay though it is full: counts are kept for it.
    pub(super) fn is_hot(&self) -> bool {
        self.hot.is_some()
    }

    /// It is quiet from now on.
    pub fn cool(&mut self) {
        self.hot = None;
    }

    /// A silence is over: gives back what was taken off for others when it was held to a part, as far as that has not flowed in
    /// since. They tell what they spent. How many of so many tokens that this instance did not tell then have not flowed in either.
    pub(in super::super) fn settle_silence(&mut self, hot: &mut HotBucket, now: Nanos) -> u64 {
        let limit = self.bucket.limit();
        let flowed = |since: Nanos| Bucket::full(limit, since).flow(now);
        let (guessed, at) = hot.take_guess();
        if self.is_parted() {
            self.bucket.lift(guessed.saturating_sub_unsigned(flowed(at)));
        }
        hot.untold().saturating_sub(flowed(hot.told_at()) / MICRO as u64)
    }

    /// What a report says of it beside what was spent.
    pub(in super::super) fn told(&self, has_own_row: bool) -> ToldBucket {
        let (limit, of_rule, reset) = (self.bucket.limit(), self.of_rule, self.reset());
        ToldBucket { limit, of_rule, has_own_row, reset }
    }

    /// Brings it to `when` with these numbers in force; whether it has `cost` tokens beside what others are taken to have
    /// spent.
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

    /// Does what [`Slot::holds_shared`] does, for a look: what others are taken to have spent is taken off.
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

    /// Takes the tokens where `takes` says so, and says what became of the request.
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
        // What others are taken to have spent is missing for whoever is told of the level, and comes back.
        self.bucket.shift(-ahead);
        let verdict = self.verdict(cost, enough, when);
        self.bucket.shift(ahead);
        verdict
    }

    /// As [`Slot::settle`]. Where its period turned, what was hidden and told before counts for nobody any more, and what others told
    /// of this one does.
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

    /// What is to be taken off its level for others. While this instance is cut off, it is held to its part instead.
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

    /// Of what flowed in, this instance's part is forgotten of what is hidden; all of it of what can't be told.
    pub(super) fn leak(&mut self, flow: Flow, sharing: &mut Sharing<'_>) {
        let Flow::In(micro, _) = flow else { return };
        self.mark.leak(micro, sharing.link.members);
        if sharing.link.unheard
            && let Some(hot) = self.hot.and_then(|place| sharing.hot.get_mut(place))
        {
            hot.leak(micro);
        }
    }

    /// Tokens were taken of it at `now`, and it is not hot.
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

    /// It is hot from now on: what is hidden is published. `None`: there is no room for more of them.
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

/// This instance's part of a bucket while it is cut off; an even one where nothing is known of it.
fn part_of(hot: Option<&HotBucket>, full: Limit, link: PeerLinkState, now: Nanos) -> f64 {
    hot.map_or_else(|| even_part(link.members), |hot| hot.part(full, link.members, now))
}

/// The deepest that others' spending may bring a bucket, in millionths: as if each of them had taken it whole.
pub(super) fn debt_of(limit: Limit, members: u32) -> i64 {
    -(i64::from(members.saturating_sub(1)) * i64::from(limit.capacity)).saturating_mul(MICRO)
}

impl Slots {
    /// As [`Slots::acquire`], where instances share the budget. Not inlined, so that the other one is as quick as if this were not here.
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

    /// The bucket with that id, if that is where its counts are.
    pub fn hot_mut(&mut self, id: BucketId, place: HotPlace) -> Option<&mut Slot> {
        self.find_mut(id).filter(|slot| slot.hot == Some(place))
    }

    /// Where a bucket's counts are.
    pub fn hot_place(&self, id: BucketId) -> Option<HotPlace> {
        self.0.iter().find(|slot| slot.id == id)?.hot
    }

    /// Tokens that others spent of a bucket since it was last idle.
    pub fn spent_elsewhere(&self, id: BucketId, hot: &HotTable) -> u64 {
        self.hot_place(id).and_then(|place| hot.get(place)).map_or(0, |hot| hot.elsewhere)
    }

    /// The buckets as a request finds them: less what others are taken to have spent, or held to a part.
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
