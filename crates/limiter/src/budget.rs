//! One budget over several instances: each keeps whole buckets, and hears from the others what they spent.
//!
//! No request waits for the others. Each instance decides by its own buckets, to which reports of the others are
//! charged when they come. A bucket is *quiet* while it is spent slower than this instance's part of its rate: it is
//! not reported. A bucket that is spent faster is *hot*: it is reported regularly, and at once if much was spent.
//! Between two reports of a hot bucket, the others are assumed to go on spending as they did.
//!
//! The *carrier*, which sends and receives messages, calls [`Budget::heard`] with each message that came, its own
//! included, and [`Budget::tick`] when that is due or the waker is called. Nothing here reads a clock or waits.

mod peers;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::limiter::{Charged, Limiter, Round};
pub use crate::reports::{InstanceId, SpentReport};
use balancer_time::{Moment, Nanos};
use peers::Peers;

/// How often all changes are reported.
pub const TICK: Nanos = crate::limiter::TICK;

/// Least time between two flushes.
pub const GAP: Nanos = 50_000_000;

/// Most reports of one flush, which two messages of 8,000 bytes hold.
pub const MAX_REPORTS: usize = 250;

/// Each instance sends at least one message in this time; the carrier sends one without reports if there are none.
pub const HEARTBEAT: Nanos = 1_000_000_000;

/// An instance that was not heard for so long counts as *missed*: it is dead, or only can't send.
pub const DEAD_AFTER: Nanos = 3_000_000_000;

/// An instance that heard nothing for so long is *cut off*: a *silence* has begun.
pub const SILENT_AFTER: Nanos = 3 * TICK;

/// A missed instance is forgotten after so long. Until then it may only be unable to send, so reports are still made
/// for it.
pub const MISSED_FOR: Nanos = 600_000_000_000;

/// Most other instances.
pub const MAX_PEERS: usize = 63;

/// The budget that a process shares with others. Shared by the threads that decide and the one that carries messages.
pub struct Budget {
    limiter: Arc<Limiter>,
    peers: Mutex<Peers>,
    pace: Mutex<Pace>,
    counters: Counters,
}

/// When reports go out.
#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    /// When reports were sent last.
    flushed_at: Nanos,
    /// When all changes are reported next.
    next_round: Nanos,
}

#[derive(Debug, Default)]
struct Counters {
    too_many_peers: AtomicU64,
    went_back: AtomicU64,
    no_room: AtomicU64,
}

/// The state of the budget, to be shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BudgetStats {
    /// Instances that share the budget, this one included.
    pub members: usize,
    /// This instance hears nothing of the others, and holds itself to its part of each bucket.
    pub cut_off: bool,
    /// This instance hears the others, but they do not hear it: it charges their reports, and keeps its own.
    pub unheard: bool,
    /// Buckets that are hot here.
    pub hot_buckets: usize,
    /// Messages of instances beyond [`MAX_PEERS`]. Their reports are ignored.
    pub too_many_peers: u64,
    /// Reports that were older than the last one, since they came out of order or twice.
    pub went_back: u64,
    /// Reports for which the table of clients or of hot buckets had no room.
    pub no_room: u64,
    /// Clients with hot buckets here.
    pub hot_clients: usize,
    /// How often a bucket could not become hot, or stay hot with tokens to report, because too many buckets were hot.
    pub not_hot: u64,
}

impl Budget {
    /// Shares the buckets of `limiter` from `now` on. `own`: the id of this process, another one at each start. Nothing
    /// changes until another instance is heard.
    pub fn new(limiter: Arc<Limiter>, own: InstanceId, now: Nanos) -> Self {
        limiter.link().set_members(1, false);
        let (peers, pace) = (Mutex::new(Peers::new(own, now)), Mutex::default());
        Self { limiter, peers, pace, counters: Counters::default() }
    }

    /// Calls `waker` when [`Budget::tick`] is due sooner than it said, at most once between two flushes. It is called
    /// by threads that decide about requests, so it must not wait. Only the first waker that is given counts.
    pub fn wake_by(&self, waker: impl Fn() + Send + Sync + 'static) {
        self.limiter.link().wake_by(Box::new(waker));
    }

    /// A message of `from` came; `reports` may be empty. To be called for messages of this process that come back too:
    /// they show that the others hear it. The carrier has to check the signature first, and to leave out messages that
    /// are not newer than the last one of that instance. Takes one lock of its own, and one shard's lock after another.
    pub fn heard(&self, from: InstanceId, reports: &[SpentReport], when: Moment) {
        let now = when.now;
        let (peer, since) = {
            let mut peers = self.peers.lock();
            let Ok(peer) = peers.heard(from, now) else {
                self.counters.too_many_peers.fetch_add(1, Ordering::Relaxed);
                return;
            };
            let link = self.limiter.link();
            let last = link.heard_at();
            self.note_heard(&mut peers, when);
            (peer, peers.hearing_since(last, link.is_silent(now), now))
        };
        let Some(peer) = peer else { return };
        for report in reports {
            let counter = match self.limiter.charge_reported(peer, report, since, when) {
                Charged::Counted => continue,
                Charged::WentBack => &self.counters.went_back,
                Charged::NoRoom => &self.counters.no_room,
            };
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notes who is heard and who hears this instance, and begins anew after a silence.
    fn note_heard(&self, peers: &mut Peers, when: Moment) {
        let (now, link) = (when.now, self.limiter.link());
        let is_heard = now <= peers.heard_until();
        if !link.is_silent(now) {
            if is_heard && link.is_unheard(now) {
                self.limiter.leak_untold(when);
            }
            link.heard(now, now + SILENT_AFTER);
        } else if is_heard {
            // Only an own message that comes back ends a silence: messages of others may have been held up somewhere.
            peers.begin_again(now);
            self.limiter.begin_episodes(now);
            link.returned(now);
            link.heard(now, now + SILENT_AFTER);
        }
        link.heard_by_others_until(peers.heard_until());
        link.set_members(peers.members(), peers.misses_one());
    }

    /// Writes the reports that are to be sent now to `out`, at most [`MAX_REPORTS`], the most urgent first. Returns
    /// when to call it again at the latest; sooner if the waker is called. If it is called too early there are no
    /// reports. Takes a lock of its own, and under it one shard's lock after another.
    pub fn tick(&self, when: Moment, out: &mut Vec<SpentReport>) -> Nanos {
        out.clear();
        let now = when.now;
        let link = self.limiter.link();
        let known = self.known(now);
        let mut pace = self.pace.lock();
        let (open, is_round) = (pace.flushed_at.saturating_add(GAP), now >= pace.next_round);
        if now < open && (is_round || link.is_asked()) {
            return open;
        }
        let mut more = false;
        if is_round {
            link.take_asked();
            more = self.limiter.collect_reports(Round::All { known: &known }, MAX_REPORTS, when, out);
            pace.next_round = now + if more { GAP } else { TICK };
        } else if link.take_asked() {
            more = self.limiter.collect_reports(Round::Urgent, MAX_REPORTS, when, out);
        }
        if !out.is_empty() {
            pace.flushed_at = now;
        }
        if more {
            link.ask_again();
            return now + GAP;
        }
        pace.next_round
    }

    /// Writes reports of everything that was not reported yet to `out`, at most [`MAX_REPORTS`], for an instance that
    /// ends. Takes one shard's lock after another.
    pub fn last_words(&self, when: Moment, out: &mut Vec<SpentReport>) {
        out.clear();
        self.limiter.collect_reports(Round::Last, MAX_REPORTS, when, out);
    }

    /// Numbers of the other instances, and whether each is missed. In a silence none becomes missed.
    fn known(&self, now: Nanos) -> Vec<(u32, bool)> {
        let link = self.limiter.link();
        let mut peers = self.peers.lock();
        if !link.is_silent(now) {
            peers.miss_dead(now);
            link.set_members(peers.members(), peers.misses_one());
        }
        peers.iter().map(|peer| (peer.number, peer.is_missed)).collect()
    }

    /// Reports that [`Budget::tick`] gave could not be sent, and will be made again. Takes one shard's lock after
    /// another.
    pub fn not_sent(&self, reports: &[SpentReport]) {
        self.limiter.take_back_reports(reports);
        if !reports.is_empty() {
            self.limiter.link().ask_again();
        }
    }

    /// Another instance said that it ends. Takes one lock.
    pub fn left(&self, gone: InstanceId) {
        let mut peers = self.peers.lock();
        peers.remove(gone);
        self.limiter.link().set_members(peers.members(), peers.misses_one());
    }

    /// The state at `now`. Takes one lock.
    pub fn stats(&self, now: Nanos) -> BudgetStats {
        let (members, link) = (self.peers.lock().members(), self.limiter.link());
        let is_silent = link.is_silent(now);
        BudgetStats {
            members,
            cut_off: members > 1 && is_silent,
            unheard: members > 1 && !is_silent && link.is_unheard(now),
            hot_buckets: self.limiter.hot_buckets(),
            hot_clients: self.limiter.hot_clients(),
            too_many_peers: self.counters.too_many_peers.load(Ordering::Relaxed),
            went_back: self.counters.went_back.load(Ordering::Relaxed),
            no_room: self.counters.no_room.load(Ordering::Relaxed),
            not_hot: self.limiter.not_hot(),
        }
    }
}

impl std::fmt::Debug for Budget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Budget").field("peers", &self.peers.lock()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
