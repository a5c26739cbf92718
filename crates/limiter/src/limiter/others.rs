//! What other instances reported of one hot bucket, and what they are assumed to have spent since.

use smallvec::SmallVec;

use super::shares::{Lately, MICRO, NANOS, TICK, seconds, tau_s, tokens_of};
use crate::reports::SpentReport;
use balancer_time::Nanos;

/// For so long after a report its sender is assumed to go on spending.
const FORESEEN: Nanos = 3 * TICK;

/// A report that is older says nothing any more: an instance that spends reports each tick, and one that is not heard
/// for so long is dead.
const VOID: Nanos = 6 * TICK;

/// Since when this instance hears the others: at first, or after a silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HearingSince {
    /// When hearing began. If a counter was last heard before, what it has grown by may have been spent in the silence,
    /// and tokens that flowed in since are not charged.
    pub began: Nanos,
    /// Hearing has begun only just: a counter that was not heard before is only a base, and not even its fresh tokens
    /// are charged, unless an episode begins with them.
    pub is_new: bool,
    /// The silence has not ended: a message may have been held up for as long as nothing was heard.
    pub is_silent: bool,
    /// When anything was heard last before this message.
    pub last: Nanos,
}

/// What [`Others::hear`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// So many tokens are new.
    New(u64),
    /// So many tokens are new, of which some or all were spent while nothing was heard.
    CaughtUp(u64),
    /// The first report of a counter, which is only a base: there is nothing to charge.
    Baseline,
    /// The report is older than the last one, and is ignored.
    WentBack,
}

/// What one other instance reported.
#[derive(Clone, Copy, Debug)]
struct PeerSpending {
    /// The instance's number, see [`crate::budget`].
    peer: u32,
    episode: u32,
    /// Its counter, as far as it is charged here.
    spent: u64,
    /// When the last report came; 0: none has come yet.
    heard: Nanos,
    /// Tokens a second that it spends.
    rate: f64,
    /// Tokens that it reported lately.
    lately: Lately,
}

/// What others are assumed to have spent, as a straight line over time. Kept so that a decision need not add up all
/// peers.
#[derive(Clone, Copy, Debug, Default)]
struct Outlook {
    /// The line holds from here to `until`.
    from: Nanos,
    until: Nanos,
    /// Millionths of a token at `from`.
    begins: f64,
    /// Millionths of a token a nanosecond.
    slope: f64,
    /// The arguments of [`Others::foresee`] for which the line holds.
    most: f64,
    heard_since: Nanos,
}

/// What other instances reported of one bucket.
#[derive(Debug, Default)]
pub(super) struct Others {
    peers: SmallVec<[PeerSpending; 2]>,
    outlook: Outlook,
}

impl Others {
    /// Takes in a report of another instance, and finds out how many of its tokens are new.
    pub fn hear(&mut self, peer: u32, report: &SpentReport, since: HearingSince, now: Nanos) -> Heard {
        self.outlook = Outlook::default();
        let at = match self.peers.iter().position(|known| known.peer == peer) {
            Some(at) => at,
            None => {
                let (episode, lately) = (report.episode, Lately::default());
                self.peers.push(PeerSpending { peer, episode, spent: 0, heard: 0, rate: 0.0, lately });
                self.peers.len() - 1
            }
        };
        let told = &mut self.peers[at];
        let is_first = told.heard == 0;
        let same = told.episode == report.episode;
        let older = if same { report.spent < told.spent } else { !is_later(report.episode, told.episode) };
        if !is_first && older {
            return Heard::WentBack;
        }
        let fresh = report.fresh;
        let begins = (is_first || !same) && fresh == report.spent;
        let is_behind = is_first || told.heard < since.began;
        let (heard, counts_from) = if since.is_silent || is_behind && !is_first && same {
            let known = !is_first && same;
            let (base, from) =
                if known { (told.spent, told.heard) } else { (report.spent - fresh, since.last) };
            let missing =
                (report.spent - base).saturating_sub(tokens_of(report.limit, now.saturating_sub(from)));
            let least = if since.is_silent || since.is_new { 0 } else { fresh.min(report.spent - base) };
            let new = missing.max(least);
            // In a silence, what flowed in since the base is not charged. While nothing is charged the base stays, so
            // that of several reports that come at once this is taken off once.
            (Heard::CaughtUp(new), (!since.is_silent || new > 0 || !known).then_some(report.spent))
        } else if is_behind && since.is_new && !begins {
            (Heard::Baseline, Some(report.spent))
        } else {
            // The first report that comes of an episode need not be its first: only its fresh tokens are new for
            // certain.
            let new = if !is_first && same { report.spent - told.spent } else { fresh };
            (Heard::New(new), Some(report.spent))
        };
        told.episode = report.episode;
        told.rate = report.rate_micro as f64 / MICRO;
        if let Some(spent) = counts_from {
            (told.spent, told.heard) = (spent, now.max(1));
        }
        if let Heard::New(new) | Heard::CaughtUp(new) = heard {
            told.lately.add(new, now, tau_s(report.limit));
        }
        heard
    }

    /// Forgets instances that are not among `known`. Of those that are missed (true), only the counters are kept.
    pub fn keep(&mut self, known: &[(u32, bool)]) {
        self.outlook = Outlook::default();
        self.peers.retain(|peer| match known.iter().find(|(number, _)| *number == peer.peer) {
            None => false,
            Some((_, false)) => true,
            Some((_, true)) => {
                (peer.rate, peer.lately) = (0.0, Lately::default());
                true
            }
        });
    }

    /// Assumes that no instance spends until its next report.
    pub fn stop(&mut self) {
        self.outlook = Outlook::default();
        self.peers.iter_mut().for_each(|peer| peer.rate = 0.0);
    }

    /// Tokens a second that all of them spend together, by their last reports.
    pub fn rate(&self) -> f64 {
        self.peers.iter().map(|peer| peer.rate).sum()
    }

    /// Tokens that they reported lately.
    pub fn lately(&self, now: Nanos, tau_s: f64) -> f64 {
        self.peers.iter().map(|peer| peer.lately.at(now, tau_s)).sum()
    }

    /// How much they are assumed to have spent since their last reports, in millionths. Each goes on at its rate for
    /// [`FORESEEN`] at most, and that counts until the report is [`VOID`]; all together spend at most `most` tokens a
    /// second. Reports from before `heard_since`, the end of the last silence, do not count: they were taken into
    /// account when that silence began.
    pub fn ahead(&self, most: f64, heard_since: Nanos, now: Nanos) -> i64 {
        let spent = |peer: &PeerSpending| peer.rate * seconds(now.saturating_sub(peer.heard).min(FORESEEN));
        let sum: f64 = self.active(heard_since, now).map(spent).sum();
        (sum * self.damped(most, heard_since, now) * MICRO) as i64
    }

    /// Like [`Others::ahead`], and keeps a line, so that the next call is quick.
    #[inline]
    pub fn foresee(&mut self, most: f64, heard_since: Nanos, now: Nanos) -> i64 {
        let line = &self.outlook;
        let fits = line.most == most && line.heard_since == heard_since;
        if fits && (line.from..=line.until).contains(&now) {
            return (line.begins + line.slope * (now - line.from) as f64) as i64;
        }
        self.outlook = self.look_ahead(most, heard_since, now);
        self.ahead(most, heard_since, now)
    }

    /// The line of [`Others::ahead`] from `now` on.
    #[cold]
    fn look_ahead(&self, most: f64, heard_since: Nanos, now: Nanos) -> Outlook {
        // A decision's `now` may be from before the last report came.
        let from = self.peers.iter().map(|peer| peer.heard).fold(now, Nanos::max);
        let goes_on = |peer: &&PeerSpending| from - peer.heard < FORESEEN;
        let slope: f64 = self.active(heard_since, from).filter(goes_on).map(|peer| peer.rate).sum();
        let end = |peer: &PeerSpending| peer.heard + if goes_on(&peer) { FORESEEN } else { VOID };
        let ends = self.active(heard_since, from).map(end).min();
        Outlook {
            from,
            until: ends.unwrap_or(Nanos::MAX),
            begins: self.ahead(most, heard_since, from) as f64,
            slope: slope * self.damped(most, heard_since, from) * MICRO / NANOS,
            most,
            heard_since,
        }
    }

    /// The instances that spend, by reports that still count at `now`.
    fn active(&self, heard_since: Nanos, now: Nanos) -> impl Iterator<Item = &PeerSpending> {
        let counts = move |heard: Nanos| heard >= heard_since && now.saturating_sub(heard) <= VOID;
        self.peers.iter().filter(move |peer| peer.rate > 0.0 && counts(peer.heard))
    }

    /// The factor by which rates are multiplied, so that they are at most `most` tokens a second together.
    fn damped(&self, most: f64, heard_since: Nanos, now: Nanos) -> f64 {
        let total: f64 = self.active(heard_since, now).map(|peer| peer.rate).sum();
        if total > most { most / total } else { 1.0 }
    }
}

/// Whether one episode began after the other. Their numbers wrap around.
fn is_later(one: u32, other: u32) -> bool {
    one.wrapping_sub(other) as i32 > 0
}

#[cfg(test)]
mod tests;
