//! One hot bucket: what this instance spent of it and has told the others, and what they told.
//!
//! Rates and weights are guesses about others and so floating-point numbers; what is spent is counted in whole tokens.

use smallvec::SmallVec;

use crate::identity::ClientKey;
use crate::limit::Limit;
use crate::reports::SpentReport;
use crate::reset::Reset;
use crate::terms::BucketId;
use balancer_time::Nanos;

use super::link::PeerLinkState;

/// How often what changed is told.
pub(crate) const TICK: Nanos = 500_000_000;

/// A bucket stays hot for so long after it was spent fast, or anybody reported it.
const HOT_FOR: Nanos = 10_000_000_000;

/// After so long without a report nobody is taken to go on any more.
const FORESEEN: Nanos = 3 * TICK;

/// Rates are smoothed over so many seconds.
const RATE_TAU_S: f64 = 0.5;

const MICRO: f64 = 1e6;

const NANOS: f64 = 1e9;

/// A sum that loses its weight with time: what was told lately counts most.
#[derive(Clone, Copy, Debug, Default)]
struct Lately {
    sum: f64,
    at: Nanos,
}

impl Lately {
    /// `tau_s`: after so many seconds 37 % are left.
    fn at(self, now: Nanos, tau_s: f64) -> f64 {
        self.sum * (-seconds(now.saturating_sub(self.at)) / tau_s).exp()
    }

    fn add(&mut self, more: u64, now: Nanos, tau_s: f64) {
        *self = Self { sum: self.at(now, tau_s) + more as f64, at: now };
    }
}

/// What one other instance told of a bucket.
#[derive(Clone, Copy, Debug)]
struct PeerSpending {
    peer: u32,
    episode: u32,
    /// Its counter, as far as it is charged here.
    spent: u64,
    heard: Nanos,
    /// Tokens a second.
    rate: f64,
    lately: Lately,
}

/// What follows from the reports of a bucket that were made here.
#[derive(Clone, Copy, Debug, Default)]
struct Telling {
    at: Nanos,
    /// Tokens a second that were spent here.
    rate: f64,
    lately: Lately,
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
    peers: SmallVec<[PeerSpending; 2]>,
    /// Tokens that others spent, as far as they were charged here.
    pub elsewhere: u64,
    /// What others are taken to have spent since they told, in millionths, as of the last [`HotBucket::foresee`].
    pub ahead_micro: i64,
}

/// Since when this instance hears the others: at first, or after a silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HearingSince {
    /// Counters that were last heard before that go on from wherever they are now.
    pub began: Nanos,
    /// It has begun only just: so do counters that were never heard.
    pub is_new: bool,
}

/// What [`HotBucket::hear`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// So many tokens are new.
    New(u64),
    /// Where the counts begin: nothing to charge.
    Baseline,
    /// An older report than the last: it counts for nothing.
    WentBack,
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
            peers: SmallVec::new(),
            elsewhere: 0,
            ahead_micro: 0,
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

    /// Tokens were spent here. True: so many are untold that it has become urgent.
    pub fn spend(&mut self, cost: u32, limit: Limit, members: u32, now: Nanos) -> bool {
        self.published += u64::from(cost);
        if self.loud {
            return false;
        }
        let part =
            rate_of(limit) / f64::from(members) * seconds(now.saturating_sub(self.telling.at).min(TICK));
        self.loud = self.untold() as f64 - part >= threshold(limit, members);
        if self.loud {
            self.heat(0, now);
        }
        self.loud
    }

    /// Tokens that count for everybody and that nobody was told of.
    pub fn untold(&self) -> u64 {
        self.published - self.told
    }

    /// Whether there is something to tell with the regular flush at `now`.
    pub fn is_changed(&self, now: Nanos) -> bool {
        self.untold() > 0 || self.telling.rate > 0.0 && self.is_hot(now)
    }

    /// When it was told last.
    pub fn told_at(&self) -> Nanos {
        self.telling.at
    }

    /// Whether it can be forgotten.
    pub fn is_over(&self, now: Nanos) -> bool {
        // What could not be told for so long is told to nobody.
        !self.is_hot(now) && (self.untold() == 0 || !self.is_hot(now.saturating_sub(HOT_FOR)))
    }

    /// The report that is to be sent now. It counts as told.
    pub fn report(&mut self, now: Nanos, of: (Limit, bool, Option<(Reset, u32)>)) -> SpentReport {
        let (limit, of_rule, reset) = of;
        let fresh = self.untold();
        let elapsed_s = seconds(now.saturating_sub(self.telling.at)).max(1e-3);
        let weight = 1.0 - (-elapsed_s / RATE_TAU_S).exp();
        self.before = self.telling;
        let Telling { at, rate, lately } = &mut self.telling;
        *rate += weight * (fresh as f64 / elapsed_s - *rate);
        if *rate < (0.01 * rate_of(limit)).max(1e-3) {
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
        let tau_s = tau_s(report.limit);
        let told = match self.peers.iter_mut().find(|known| known.peer == peer) {
            Some(known) => known,
            None => {
                let none = PeerSpending {
                    peer,
                    episode: report.episode,
                    spent: 0,
                    heard: 0,
                    rate: 0.0,
                    lately: Lately::default(),
                };
                self.peers.push(none);
                // It was just pushed.
                let Some(known) = self.peers.last_mut() else { return Heard::WentBack };
                known
            }
        };
        let is_first = told.heard == 0;
        let same = told.episode == report.episode;
        let older = if same { report.spent < told.spent } else { !is_later(report.episode, told.episode) };
        if !is_first && older {
            return Heard::WentBack;
        }
        let skipped = if is_first { since.is_new } else { told.heard < since.began };
        // The first report of an episode that comes here may not be its first: only what is fresh is new for certain.
        let new = if !is_first && same { report.spent - told.spent } else { report.fresh };
        told.episode = report.episode;
        told.spent = report.spent;
        told.heard = now.max(1);
        told.rate = report.rate_micro as f64 / MICRO;
        if skipped {
            return Heard::Baseline;
        }
        told.lately.add(new, now, tau_s);
        self.elsewhere = self.elsewhere.saturating_add(new);
        Heard::New(new)
    }

    /// Forgets what instances told that are gone.
    pub fn keep_peers(&mut self, alive: &[u32]) {
        self.peers.retain(|peer| alive.contains(&peer.peer));
    }

    /// What others are taken to have spent since they told: they go on as they did, for at most three ticks, and together
    /// leave this instance its part. Kept in [`HotBucket::ahead_micro`].
    pub fn foresee(&mut self, limit: Limit, link: PeerLinkState, now: Nanos) -> i64 {
        self.ahead_micro = self.ahead(limit, link, now);
        self.ahead_micro
    }

    /// The same, for a look.
    pub fn ahead(&self, limit: Limit, link: PeerLinkState, now: Nanos) -> i64 {
        let (mut sum, mut total) = (0.0, 0.0);
        for peer in &self.peers {
            // What was told before a silence was taken off when it began.
            if peer.rate > 0.0 && peer.heard >= link.returned_at {
                sum += peer.rate * seconds(now.saturating_sub(peer.heard).min(FORESEEN));
                total += peer.rate;
            }
        }
        if total > 0.0 {
            let most = rate_of(limit) * (1.0 - 1.0 / f64::from(link.members.max(1)));
            sum *= (most / total).min(1.0);
        }
        (sum * MICRO) as i64
    }

    /// This instance's part of a bucket while it is cut off: what it told lately of all that was told, and never less than
    /// half of an even part.
    pub fn part(&self, limit: Limit, members: u32, now: Nanos) -> f64 {
        let tau_s = tau_s(limit);
        let own = self.telling.lately.at(now, tau_s);
        let others: f64 = self.peers.iter().map(|peer| peer.lately.at(now, tau_s)).sum();
        let even = even_part(members);
        if own + others > 0.0 { (own / (own + others)).max(even / 2.0) } else { even }
    }

    /// The bucket was filled by the calendar: what was spent before counts for nobody any more.
    pub fn begin_period(&mut self) {
        (self.told, self.telling.rate, self.loud) = (self.published, 0.0, false);
        for peer in &mut self.peers {
            peer.rate = 0.0;
        }
    }
}

/// The part of a bucket of which nobody told anything.
pub(super) fn even_part(members: u32) -> f64 {
    1.0 / f64::from(members.max(1))
}

/// What may be spent untold, in tokens: a quarter of an even part of the capacity.
fn threshold(limit: Limit, members: u32) -> f64 {
    (f64::from(limit.capacity) / (4.0 * f64::from(members.max(1)))).max(1.0)
}

/// Tokens a second.
fn rate_of(limit: Limit) -> f64 {
    limit.rate.micro as f64 / (MICRO * f64::from(limit.rate.per_secs.max(1)))
}

/// Over how many seconds what was told loses its weight: as long as the bucket takes to fill, within bounds.
fn tau_s(limit: Limit) -> f64 {
    if limit.rate.micro == 0 {
        return 60.0;
    }
    (f64::from(limit.capacity) / rate_of(limit)).clamp(10.0, 60.0)
}

fn seconds(span: Nanos) -> f64 {
    span as f64 / NANOS
}

/// Whether one episode began after the other: their numbers go round.
fn is_later(one: u32, other: u32) -> bool {
    one.wrapping_sub(other) as i32 > 0
}

#[cfg(test)]
mod tests;
