//! One hot bucket: what this instance spent of it and has told the others, and what they told.
//!
//! Rates and weights are guesses about others and so floating-point numbers; what is spent is counted in whole tokens.

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

/// A bucket stays hot for so long after it was spent fast, or anybody reported it.
const HOT_FOR: Nanos = 10_000_000_000;

/// Rates are smoothed over so many seconds.
const RATE_TAU_S: f64 = 0.5;

/// What follows from the reports of a bucket that were made here.
#[derive(Clone, Copy, Debug, Default)]
struct Telling {
    at: Nanos,
    /// Tokens a second that were spent here.
    rate: f64,
    lately: Lately,
}

/// What a report says of its bucket beside what was spent.
#[derive(Clone, Copy, Debug)]
pub(super) struct ToldBucket {
    pub limit: Limit,
    pub of_rule: bool,
    pub has_own_row: bool,
    pub reset: Option<(Reset, u32)>,
}

/// One bucket whose spending is shared.
#[derive(Debug)]
pub(super) struct HotBucket {
    pub client: ClientKey,
    pub id: BucketId,
    episode: u32,
    /// Urgent: to be told with the next flush.
    pub loud: bool,
    /// Tokens of this episode that count for everybody.
    published: u64,
    /// How many of them were told.
    told: u64,
    telling: Telling,
    /// As it was before the last report.
    before: Telling,
    hot_until: Nanos,
    others: Others,
    shares: Shares,
    /// Tokens that others spent, as far as they were charged here.
    pub elsewhere: u64,
    /// What others are taken to have spent since they told, in millionths, as of the last [`HotBucket::foresee`].
    pub ahead_micro: i64,
    /// What found no room lately, in millionths: others may have spent as much before.
    spare: u64,
    spare_at: Nanos,
    /// What has flowed in, of a token, since a whole one of what can't be told was forgotten, in millionths.
    leaked: u64,
    /// Tokens that others told of a period that has not begun here, and which.
    early: Option<(u32, u64)>,
    /// What was taken off in this silence beyond what was given out, because others are taken to give out as much, in millionths.
    presumed: i64,
    /// What was taken off in this silence for what others had spent and not told, in millionths, and when.
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
            // Those of no limit: what is asked first puts the right ones in their place.
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

    /// It is hot from now on, or for longer. `hidden` tokens count for everybody that were spent while it was not.
    pub fn heat(&mut self, hidden: u64, now: Nanos) {
        if !self.is_hot(now) {
            self.published += hidden;
            self.telling.at = self.telling.at.max(now.saturating_sub(TICK));
        }
        self.hot_until = now.saturating_add(HOT_FOR);
    }

    /// Tokens were spent here, of a bucket whose numbers a look ahead has put in force. True: so many are untold that it has become
    /// urgent.
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

    /// Tokens that count for everybody and that nobody was told of.
    pub fn untold(&self) -> u64 {
        self.published - self.told
    }

    /// Whether there is something to tell with the regular flush. One that has cooled says once that it does not go on.
    pub fn is_changed(&self) -> bool {
        self.untold() > 0 || self.telling.rate > 0.0
    }

    /// When it was told last.
    pub fn told_at(&self) -> Nanos {
        self.telling.at
    }

    /// Whether it can be forgotten. `link`: `None` where nothing is shared any more.
    pub fn is_over(&self, link: Option<PeerLinkState>, now: Nanos) -> bool {
        let is_shared = link.is_some_and(|link| link.members > 1);
        let is_cut_off = link.is_some_and(|link| link.cut_off);
        // That it does not go on is said for a while. What was spent is kept until it is told, or has flowed in.
        let is_old = !self.is_hot(now.saturating_sub(HOT_FOR));
        let is_told = !self.is_changed() || is_old && (self.untold() == 0 || !is_shared);
        let is_awaited = self.early.is_some() || is_cut_off && self.presumed > 0;
        !self.is_hot(now) && is_told && !is_awaited
    }

    /// What the instances would lose sight of without it, in tokens: what is untold, and what is spent until the next report here
    /// and elsewhere.
    pub fn weight(&self) -> f64 {
        self.untold() as f64 + (self.telling.rate + self.others.rate()) * seconds(TICK)
    }

    /// The report that is to be sent now. It counts as told.
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

    /// That report could not be sent.
    pub fn take_back(&mut self, report: &SpentReport) {
        if report.episode == self.episode && report.spent == self.told {
            self.told = report.spent.saturating_sub(report.fresh);
            self.telling = self.before;
            self.loud = self.loud || report.fresh > 0;
        }
    }

    /// What another instance told.
    pub fn hear(&mut self, peer: u32, report: &SpentReport, since: HearingSince, now: Nanos) -> Heard {
        self.others.hear(peer, report, since, now)
    }

    /// Forgets what instances told that are gone.
    pub fn keep_peers(&mut self, known: &[(u32, bool)]) {
        self.others.keep(known);
    }

    /// So much flowed in while nobody could be told: as much of what is untold is missing to nobody any more.
    pub fn leak(&mut self, micro: u64) {
        let (untold, leaked) = (self.untold(), self.leaked.saturating_add(micro));
        let tokens = (leaked / bucket::MICRO as u64).min(untold);
        self.published -= tokens;
        self.leaked = if tokens == untold { 0 } else { leaked % bucket::MICRO as u64 };
    }

    /// Others told so many tokens of that period, which has not begun here. Of two of them the later one counts.
    pub fn keep_early(&mut self, turn: u32, tokens: u64) {
        match &mut self.early {
            Some((known, sum)) if *known == turn => *sum = sum.saturating_add(tokens),
            Some((known, _)) if *known > turn => {}
            early => *early = Some((turn, tokens)),
        }
    }

    /// What others told of that period before it began here, in millionths.
    pub fn early(&self, turn: u32) -> i64 {
        let tokens = self.early.filter(|(known, _)| *known == turn).map_or(0, |(_, tokens)| tokens);
        tokens.min(2 * u64::from(Limit::MAX_CAPACITY)) as i64 * bucket::MICRO
    }

    /// So much was taken off beyond what was given out, in millionths.
    pub fn presume(&mut self, micro: i64) {
        self.presumed = self.presumed.saturating_add(micro);
    }

    /// What of so many tokens that others spent in a silence was not taken off then.
    pub fn less_presumed(&mut self, tokens: u64) -> u64 {
        let known = tokens.min((self.presumed / bucket::MICRO).max(0) as u64);
        self.presumed -= known as i64 * bucket::MICRO;
        tokens - known
    }

    /// What others are taken to have spent since they told, in millionths, beyond what found no room meanwhile (`over` of it just
    /// now); see [`Others::ahead`]. They leave this instance its part of the rate. Kept in [`HotBucket::ahead_micro`].
    #[inline]
    pub fn foresee(&mut self, limit: Limit, link: PeerLinkState, over: u64, now: Nanos) -> i64 {
        self.put_in_force(limit, link.members);
        self.spare(over, now);
        let ahead = self.others.foresee(self.shares.others, link.returned_at, now);
        self.ahead_micro = whole(ahead - self.spare as i64);
        self.ahead_micro
    }

    /// What is to be charged of tokens that others told, in millionths: what found no room lately (`over` of it just now) would have
    /// found it if they had been missing at once.
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

    /// The same, for a look.
    pub fn ahead(&self, limit: Limit, link: PeerLinkState, now: Nanos) -> i64 {
        let ahead = self.others.ahead(Shares::of(limit, link.members).others, link.returned_at, now);
        let counts = now.saturating_sub(self.spare_at) <= SPARE_FOR;
        whole(ahead - if counts { self.spare as i64 } else { 0 })
    }

    /// What others are taken to have spent and not told when a silence begins, in millionths: as they did, `ahead`, or as this
    /// instance, which holds `part` of what all spend. `over` of it found no room.
    pub fn untold_by_others(&self, ahead: i64, part: f64, over: u64) -> i64 {
        let as_here = self.untold() as f64 * (1.0 - part) / part * MICRO;
        ahead.max((as_here as i64).saturating_sub_unsigned(over))
    }

    /// So much was taken off for that.
    pub fn note_guess(&mut self, micro: i64, now: Nanos) {
        (self.guessed, self.presumed) = ((micro, now), 0);
    }

    /// The silence is over: what was taken off and when, once.
    pub fn take_guess(&mut self) -> (i64, Nanos) {
        std::mem::take(&mut self.guessed)
    }

    fn put_in_force(&mut self, limit: Limit, members: u32) {
        if self.shares.members != members || self.shares.limit != limit {
            self.shares = Shares::of(limit, members);
        }
    }

    /// This instance's part of a bucket while it is cut off: what it told lately of all that was told, and never less than
    /// half of an even part.
    pub fn part(&self, limit: Limit, members: u32, now: Nanos) -> f64 {
        let tau_s = tau_s(limit);
        let own = self.telling.lately.at(now, tau_s);
        let others = self.others.lately(now, tau_s);
        let even = even_part(members);
        if own + others > 0.0 { (own / (own + others)).max(even / 2.0) } else { even }
    }

    /// A silence is over. So many tokens of what nobody was told are still missing, and begin another episode: whoever takes its
    /// first report for where counting begins loses nothing of it.
    pub fn begin_again(&mut self, episode: u32, missing: u64, now: Nanos) {
        // Not urgent, whatever it was: nobody was asked to tell it, and the next token that is spent asks.
        (self.episode, self.published, self.told, self.loud) = (episode, missing, 0, false);
        (self.telling.at, self.telling.rate) = (now.saturating_sub(TICK), 0.0);
        if self.presumed > 0 {
            // What others spent meanwhile is still to come.
            self.heat(0, now);
        }
    }

    /// The bucket was filled by the calendar, for that period: what was spent before counts for nobody any more, told or not. Another
    /// episode begins, so that nobody takes what is counted from now on for more of the same. What others told of the period already,
    /// in millionths.
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

/// Whole tokens of so many millionths, in millionths: nobody spends less than one, which a bucket of one would be refused for.
#[inline]
fn whole(micro: i64) -> i64 {
    // Most often nothing, and then no division.
    if micro < bucket::MICRO { 0 } else { micro / bucket::MICRO * bucket::MICRO }
}

#[cfg(test)]
mod tests;
