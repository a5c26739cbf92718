//! What other instances told of one hot bucket, and what they are taken to have spent since.

use smallvec::SmallVec;

use super::shares::{Lately, MICRO, NANOS, TICK, seconds, tau_s, tokens_of};
use crate::reports::SpentReport;
use balancer_time::Nanos;

/// After so long without a report nobody is taken to go on any more.
const FORESEEN: Nanos = 3 * TICK;

/// What was told so long ago says nothing of now: who spends tells each tick, and who is not heard for so long is dead.
const VOID: Nanos = 6 * TICK;

/// Since when this instance hears the others: at first, or after a silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HearingSince {
    /// Of what a counter that was last heard before that has grown by since, what flowed in meanwhile is gone.
    pub began: Nanos,
    /// It has begun only just: of a counter that was never heard not even what is fresh counts, unless an episode begins with it.
    pub is_new: bool,
    /// It has not begun: what is heard may have lain somewhere for as long as nothing was heard.
    pub is_silent: bool,
    /// When anything was heard last before this.
    pub last: Nanos,
}

/// What [`Others::hear`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// So many tokens are new.
    New(u64),
    /// So many are that were spent, some of them or all, while nothing was heard.
    CaughtUp(u64),
    /// Where the counts begin: nothing to charge.
    Baseline,
    /// An older report than the last: it counts for nothing.
    WentBack,
}

/// What one other instance told.
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

/// What others are taken to spend: a straight line, for as long as none of them has been silent for too long.
#[derive(Clone, Copy, Debug, Default)]
struct Outlook {
    from: Nanos,
    until: Nanos,
    /// Millionths of a token at `from`.
    begins: f64,
    /// Millionths of a token a nanosecond.
    slope: f64,
    /// What it was drawn for.
    most: f64,
    heard_since: Nanos,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Others {
    peers: SmallVec<[PeerSpending; 2]>,
    outlook: Outlook,
}

impl Others {
    /// What another instance told.
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
            // Several that come at once are of all of that time together.
            (Heard::CaughtUp(new), (!since.is_silent || new > 0 || !known).then_some(report.spent))
        } else if is_behind && since.is_new && !begins {
            (Heard::Baseline, Some(report.spent))
        } else {
            // The first report of an episode that comes here may not be its first: only what is fresh is new for certain.
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

    /// Forgets what instances told that are not known any more. Of those that are missed only the counts are kept.
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

    /// Nobody is taken to go on until the next report.
    pub fn stop(&mut self) {
        self.outlook = Outlook::default();
        self.peers.iter_mut().for_each(|peer| peer.rate = 0.0);
    }

    /// Tokens a second that they told last.
    pub fn rate(&self) -> f64 {
        self.peers.iter().map(|peer| peer.rate).sum()
    }

    /// Tokens that they told lately.
    pub fn lately(&self, now: Nanos, tau_s: f64) -> f64 {
        self.peers.iter().map(|peer| peer.lately.at(now, tau_s)).sum()
    }

    /// What they are taken to have spent since they told, in millionths: they go on as they did, for at most three ticks, which
    /// counts until their word is void, and together at `most` so many tokens a second. What was told before `heard_since` does not count: it was taken off when
    /// the silence began that ended then.
    pub fn ahead(&self, most: f64, heard_since: Nanos, now: Nanos) -> i64 {
        let spent = |peer: &PeerSpending| peer.rate * seconds(now.saturating_sub(peer.heard).min(FORESEEN));
        let sum: f64 = self.active(heard_since, now).map(spent).sum();
        (sum * self.damped(most, heard_since, now) * MICRO) as i64
    }

    /// The same, and quicker the next time.
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

    /// The line on which that lies from `now` on.
    #[cold]
    fn look_ahead(&self, most: f64, heard_since: Nanos, now: Nanos) -> Outlook {
        // A decision may have begun before the last report came.
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

    /// Those that spend at `now`.
    fn active(&self, heard_since: Nanos, now: Nanos) -> impl Iterator<Item = &PeerSpending> {
        let counts = move |heard: Nanos| heard >= heard_since && now.saturating_sub(heard) <= VOID;
        self.peers.iter().filter(move |peer| peer.rate > 0.0 && counts(peer.heard))
    }

    /// What their rates are multiplied by so that they are at `most` so many tokens a second together.
    fn damped(&self, most: f64, heard_since: Nanos, now: Nanos) -> f64 {
        let total: f64 = self.active(heard_since, now).map(|peer| peer.rate).sum();
        if total > most { most / total } else { 1.0 }
    }
}

/// Whether one episode began after the other: their numbers go round.
fn is_later(one: u32, other: u32) -> bool {
    one.wrapping_sub(other) as i32 > 0
}
