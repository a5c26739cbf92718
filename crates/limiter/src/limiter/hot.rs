//! One hot bucket: what this instance spent of it and has reported to the others, and what they reported.
//!
//! Rates and parts are estimates, and so floating-point numbers; what was spent is counted in whole tokens. A token is
//! *published* when it counts for all instances, *told* when it was in a report, and *untold* in between.

use super::link::PeerLinkState;
use super::others::{Heard, HearingSince, Others};
use super::shares::{Lately, MICRO, SPARE_FOR, Shares, TICK, even_part, rate_of, seconds, tau_s};
use crate::bucket;
use crate::identity::ClientKey;
use crate::limit::{Limit, Rate};
use crate::reports::SpentReport;
use crate::reset::Reset;
use crate::terms::BucketId;
use balancer_time::Nanos;

/// A bucket stays hot for so long after it was spent fast here, or another instance reported it.
const HOT_FOR: Nanos = 10_000_000_000;

/// Seconds over which rates are smoothed.
const RATE_TAU_S: f64 = 0.5;

/// The reports of a bucket that this instance made.
#[derive(Clone, Copy, Debug, Default)]
struct Telling {
    /// When the last one was made.
    at: Nanos,
    /// Tokens a second that are spent here.
    rate: f64,
    /// Tokens that were reported lately.
    lately: Lately,
}

/// What a report says about its bucket, except for what was spent.
#[derive(Clone, Copy, Debug)]
pub(super) struct ToldBucket {
    pub limit: Limit,
    pub of_rule: bool,
    pub has_own_row: bool,
    pub reset: Option<(Reset, u32)>,
}

/// One hot bucket.
#[derive(Debug)]
pub(super) struct HotBucket {
    pub client: ClientKey,
    pub id: BucketId,
    episode: u32,
    /// It is urgent: to be reported with the next flush.
    pub loud: bool,
    /// Tokens of this episode that count for all instances.
    published: u64,
    /// How many of these were reported.
    told: u64,
    telling: Telling,
    /// `telling` before the last report, in case that can't be sent.
    before: Telling,
    hot_until: Nanos,
    others: Others,
    shares: Shares,
    /// Tokens that others spent, as far as they were charged here.
    pub elsewhere: u64,
    /// How much others are assumed to have spent since their last reports, in millionths, by the last
    /// [`HotBucket::foresee`].
    pub ahead_micro: i64,
    /// What flowed in lately while the bucket was full, in millionths. If others spent as much at that time, it would
    /// have found room, so it pays for their reports.
    spare: u64,
    spare_at: Nanos,
    /// What is left over of [`HotBucket::leak`], in millionths: less than a token.
    leaked: u64,
    /// Tokens that others reported for a period that has not begun here: the number of that period, and how many.
    early: Option<(u32, u64)>,
    /// How much more than it gave out was taken off the level in this silence, in millionths, since others were assumed
    /// to give out their parts.
    presumed: i64,
    /// How much was taken off when this silence began for what others had spent and not reported, in millionths, and
    /// when.
    guessed: (i64, Nanos),
}

impl HotBucket {
    pub fn new(client: ClientKey, id: BucketId, episode: u32, now: Nanos) -> Self {
        Self {
            client,
            id,
            episode,
            loud: false,
            published: 0,
            told: 0,
            telling: Telling { at: now.saturating_sub(TICK), ..Telling::default() },
            before: Telling::default(),
            hot_until: 0,
            others: Others::default(),
            // Those of an empty limit, which the first call with a limit replaces.
            shares: Shares::of(Limit { capacity: 0, rate: Rate::per_second(0) }, 0),
            elsewhere: 0,
            ahead_micro: 0,
            spare: 0,
            spare_at: 0,
            leaked: 0,
            early: None,
            presumed: 0,
            guessed: (0, 0),
        }
    }

    /// Whether what is spent at `now` is published.
    pub fn is_hot(&self, now: Nanos) -> bool {
        now < self.hot_until
    }

    /// Makes it hot, or keeps it hot for longer. `hidden`: tokens that were spent while it was quiet, which are
    /// published.
    pub fn heat(&mut self, hidden: u64, now: Nanos) {
        if !self.is_hot(now) {
            self.published += hidden;
            self.telling.at = self.telling.at.max(now.saturating_sub(TICK));
        }
        self.hot_until = now.saturating_add(HOT_FOR);
    }

    /// Tokens were spent here. [`HotBucket::foresee`] must have been called before, with the limit. True: so many are
    /// untold that the bucket has become urgent.
    #[inline]
    pub fn spend(&mut self, cost: u32, now: Nanos) -> bool {
        self.published += u64::from(cost);
        if self.untold() < self.shares.least || self.loud {
            return false;
        }
        self.is_loud_now(now)
    }

    #[cold]
    fn is_loud_now(&mut self, now: Nanos) -> bool {
        let elapsed = now.saturating_sub(self.telling.at).min(TICK);
        self.loud = self.untold() as f64 - self.shares.part * elapsed as f64 >= self.shares.threshold;
        if self.loud {
            self.heat(0, now);
        }
        self.loud
    }

    /// Tokens that were published and not yet reported.
    pub fn untold(&self) -> u64 {
        self.published - self.told
    }

    /// Whether there is something to report with the next regular flush: untold tokens, or that it is not spent any
    /// more.
    pub fn is_changed(&self) -> bool {
        self.untold() > 0 || self.telling.rate > 0.0
    }

    /// When it was reported last.
    pub fn told_at(&self) -> Nanos {
        self.telling.at
    }

    /// Whether it can be forgotten. `link`: `None` if nothing is shared.
    pub fn is_over(&self, link: Option<PeerLinkState>, now: Nanos) -> bool {
        let is_shared = link.is_some_and(|link| link.members > 1);
        let is_cut_off = link.is_some_and(|link| link.cut_off);
        // It is kept for a while to report that it is not spent any more, and as long as it has untold tokens.
        let is_old = !self.is_hot(now.saturating_sub(HOT_FOR));
        let is_told = !self.is_changed() || is_old && (self.untold() == 0 || !is_shared);
        let is_awaited = self.early.is_some() || is_cut_off && self.presumed > 0;
        !self.is_hot(now) && is_told && !is_awaited
    }

    /// How many tokens instances would not know of if it were forgotten: untold ones, and those that are spent here and
    /// elsewhere until the next report.
    pub fn weight(&self) -> f64 {
        self.untold() as f64 + (self.telling.rate + self.others.rate()) * seconds(TICK)
    }

    /// Makes the report that is to be sent now. Its tokens count as told.
    pub fn report(&mut self, now: Nanos, of: ToldBucket) -> SpentReport {
        let ToldBucket { limit, of_rule, has_own_row, reset } = of;
        let goes_on = self.is_hot(now);
        let fresh = self.untold();
        let elapsed_s = seconds(now.saturating_sub(self.telling.at)).max(1e-3);
        let weight = 1.0 - (-elapsed_s / RATE_TAU_S).exp();
        self.before = self.telling;
        let Telling { at, rate, lately } = &mut self.telling;
        *rate += weight * (fresh as f64 / elapsed_s - *rate);
        if !goes_on || *rate < (0.01 * rate_of(limit)).max(1e-3) {
            *rate = 0.0;
        }
        lately.add(fresh, now, tau_s(limit));
        *at = now;
        let rate_micro = (*rate * MICRO) as u64;
        (self.told, self.loud) = (self.published, false);
        SpentReport {
            client: self.client,
            bucket: self.id,
            of_rule,
            has_own_row,
            limit,
            reset,
            episode: self.episode,
            spent: self.published,
            fresh,
            rate_micro,
        }
    }

    /// That report could not be sent: undoes [`HotBucket::report`], if it was the last one.
    pub fn take_back(&mut self, report: &SpentReport) {
        if report.episode == self.episode && report.spent == self.told {
            self.told = report.spent.saturating_sub(report.fresh);
            self.telling = self.before;
            self.loud = self.loud || report.fresh > 0;
        }
    }

    /// Takes in the report of another instance.
    pub fn hear(&mut self, peer: u32, report: &SpentReport, since: HearingSince, now: Nanos) -> Heard {
        self.others.hear(peer, report, since, now)
    }

    /// Forgets the reports of instances that are not known any more; see [`Others::keep`].
    pub fn keep_peers(&mut self, known: &[(u32, bool)]) {
        self.others.keep(known);
    }

    /// So many millionths flowed in while reports could not reach anybody: as many untold tokens need not be reported
    /// any more, since they would have flowed in at the others too.
    pub fn leak(&mut self, micro: u64) {
        let (untold, leaked) = (self.untold(), self.leaked.saturating_add(micro));
        let tokens = (leaked / bucket::MICRO as u64).min(untold);
        self.published -= tokens;
        self.leaked = if tokens == untold { 0 } else { leaked % bucket::MICRO as u64 };
    }

    /// Another instance reported tokens of a period that has not begun here. Of two such periods only the later one is
    /// kept.
    pub fn keep_early(&mut self, turn: u32, tokens: u64) {
        match &mut self.early {
            Some((known, sum)) if *known == turn => *sum = sum.saturating_add(tokens),
            Some((known, _)) if *known > turn => {}
            early => *early = Some((turn, tokens)),
        }
    }

    /// What others reported of that period before it began here, in millionths.
    pub fn early(&self, turn: u32) -> i64 {
        let tokens = self.early.filter(|(known, _)| *known == turn).map_or(0, |(_, tokens)| tokens);
        tokens.min(2 * u64::from(Limit::MAX_CAPACITY)) as i64 * bucket::MICRO
    }

    /// Notes that so many millionths more were taken off than were given out; see the field `presumed`.
    pub fn presume(&mut self, micro: i64) {
        self.presumed = self.presumed.saturating_add(micro);
    }

    /// Of tokens that others spent in a silence: how many were not already taken off then.
    pub fn less_presumed(&mut self, tokens: u64) -> u64 {
        let known = tokens.min((self.presumed / bucket::MICRO).max(0) as u64);
        self.presumed -= known as i64 * bucket::MICRO;
        tokens - known
    }

    /// How much others are assumed to have spent since their last reports, in millionths, less what found no room
    /// meanwhile (`over`: how much found no room just now). See [`Others::ahead`]: it leaves this instance its part of
    /// the rate. Also kept in [`HotBucket::ahead_micro`].
    #[inline]
    pub fn foresee(&mut self, limit: Limit, link: PeerLinkState, over: u64, now: Nanos) -> i64 {
        self.put_in_force(limit, link.members);
        self.spare(over, now);
        let ahead = self.others.foresee(self.shares.others, link.returned_at, now);
        self.ahead_micro = whole(ahead - self.spare as i64);
        self.ahead_micro
    }

    /// How much is to be charged for tokens that others reported, in millionths: less what found no room lately
    /// (`over`: just now), since it would have found room if those tokens had been taken at once.
    pub fn pay_with_spare(&mut self, tokens: u64, limit: Limit, members: u32, over: u64, now: Nanos) -> i64 {
        self.put_in_force(limit, members);
        self.spare(over, now);
        let micro = tokens.min(2 * u64::from(Limit::MAX_CAPACITY)) * MICRO as u64;
        let paid = self.spare.min(micro);
        self.spare -= paid;
        // At most 2e15.
        (micro - paid) as i64
    }

    #[inline]
    fn spare(&mut self, over: u64, now: Nanos) {
        if over > 0 {
            self.spare = self.spare.saturating_add(over).min(self.shares.spare);
            self.spare_at = now;
        } else if self.spare > 0 && now.saturating_sub(self.spare_at) > SPARE_FOR {
            self.spare = 0;
        }
    }

    /// What [`HotBucket::foresee`] would return, without a change.
    pub fn ahead(&self, limit: Limit, link: PeerLinkState, now: Nanos) -> i64 {
        let ahead = self.others.ahead(Shares::of(limit, link.members).others, link.returned_at, now);
        let counts = now.saturating_sub(self.spare_at) <= SPARE_FOR;
        whole(ahead - if counts { self.spare as i64 } else { 0 })
    }

    /// How much others are assumed to have spent and not reported when a silence begins, in millionths: as their last
    /// reports say (`ahead`), or in proportion to what this instance has not reported, if it spends `part` of all; the
    /// larger of the two. `over`: how much found no room.
    pub fn untold_by_others(&self, ahead: i64, part: f64, over: u64) -> i64 {
        let as_here = self.untold() as f64 * (1.0 - part) / part * MICRO;
        ahead.max((as_here as i64).saturating_sub_unsigned(over))
    }

    /// Notes that so many millionths were taken off at `now` for [`HotBucket::untold_by_others`].
    pub fn note_guess(&mut self, micro: i64, now: Nanos) {
        (self.guessed, self.presumed) = ((micro, now), 0);
    }

    /// Returns what [`HotBucket::note_guess`] noted, and forgets it.
    pub fn take_guess(&mut self) -> (i64, Nanos) {
        std::mem::take(&mut self.guessed)
    }

    fn put_in_force(&mut self, limit: Limit, members: u32) {
        if self.shares.members != members || self.shares.limit != limit {
            self.shares = Shares::of(limit, members);
        }
    }

    /// This instance's part of a bucket while it is cut off: the share of its reports in all reports of late, and at
    /// least half of an even part.
    pub fn part(&self, limit: Limit, members: u32, now: Nanos) -> f64 {
        let tau_s = tau_s(limit);
        let own = self.telling.lately.at(now, tau_s);
        let others = self.others.lately(now, tau_s);
        let even = even_part(members);
        if own + others > 0.0 { (own / (own + others)).max(even / 2.0) } else { even }
    }

    /// A silence is over: begins another episode. `missing`: untold tokens that have not flowed in since. The episode
    /// begins with them, so that an instance that has just begun to hear charges all of them.
    pub fn begin_again(&mut self, episode: u32, missing: u64, now: Nanos) {
        // Not urgent, even if it was: the request to report it is gone, and the next token that is spent asks again.
        (self.episode, self.published, self.told, self.loud) = (episode, missing, 0, false);
        (self.telling.at, self.telling.rate) = (now.saturating_sub(TICK), 0.0);
        if self.presumed > 0 {
            // Others will report what they spent in the silence.
            self.heat(0, now);
        }
    }

    /// The bucket was filled because that period has begun: what was spent before does not count any more, reported or
    /// not. Begins another episode, so that no instance adds the new count to the old one. Returns what others have
    /// already reported of the period, in millionths.
    pub fn begin_period(&mut self, episode: u32, turn: u32) -> i64 {
        (self.episode, self.published, self.told, self.loud) = (episode, 0, 0, false);
        (self.telling.rate, self.ahead_micro, self.guessed, self.presumed) = (0.0, 0, (0, 0), 0);
        self.others.stop();
        let early = self.early(turn);
        self.early = self.early.filter(|(known, _)| *known > turn);
        self.elsewhere = self.elsewhere.saturating_add(early as u64 / bucket::MICRO as u64);
        early
    }
}

/// Rounds down to whole tokens, in millionths: nobody spends less than one, and a fraction would empty a bucket of one
/// token.
#[inline]
fn whole(micro: i64) -> i64 {
    // Most often there is less than one, which needs no division.
    if micro < bucket::MICRO { 0 } else { micro / bucket::MICRO * bucket::MICRO }
}

#[cfg(test)]
mod tests;
