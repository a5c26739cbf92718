//! One budget over several instances: each keeps whole buckets and is told what the others spent.
//!
//! No request waits for it. Every instance decides by its own buckets; what others report is charged to them when it comes.
//! A bucket that is spent slower than this instance's part of its rate is *quiet*: nothing is said of it. One that is spent
//! faster is *hot*, and its spending is reported, at once where it matters. Between two reports of a hot bucket the others
//! are taken to go on as they did.
//!
//! What carries the messages calls [`Budget::heard`] with each that came, its own included, and [`Budget::tick`] when that
//! is due or when the waker is called. Nothing here reads a clock or waits.

mod peers;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::limiter::{Charged, Limiter, Round};
pub use crate::reports::{InstanceId, SpentReport};
use balancer_time::{Moment, Nanos};
use peers::Peers;

/// How often what changed is told.
pub const TICK: Nanos = crate::limiter::TICK;

/// Least time between two flushes.
pub const GAP: Nanos = 50_000_000;

/// Most reports of one flush: what two messages of 8,000 bytes hold.
pub const MAX_REPORTS: usize = 250;

/// How often an instance shows that it is there, at least: the carrier sends a message without reports where there was none.
pub const HEARTBEAT: Nanos = 1_000_000_000;

/// An instance that was not heard for so long is taken for dead.
pub const DEAD_AFTER: Nanos = 3_000_000_000;

/// One that heard nobody for so long is cut off.
pub const SILENT_AFTER: Nanos = 3 * TICK;

/// One that is dead may only be unable to make itself heard: for so long it is still told what is spent, and is known when it
/// comes back.
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
    /// The last that had reports.
    flushed_at: Nanos,
    /// When everything that changed is told next.
    next_round: Nanos,
}

#[derive(Debug, Default)]
struct Counters {
    too_many_peers: AtomicU64,
    went_back: AtomicU64,
    no_room: AtomicU64,
}

/// What there is to show of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BudgetStats {
    /// Instances that share it, this one included.
    pub members: usize,
    /// Nothing is heard of the others: each holds itself to a part.
    pub cut_off: bool,
    /// The others are heard, and hear nothing of this one: it charges what they tell, and keeps what it has to tell.
    pub unheard: bool,
    /// Buckets that are hot here.
    pub hot_buckets: usize,
    /// Messages of instances beyond [`MAX_PEERS`]; none of their reports counts.
    pub too_many_peers: u64,
    /// Reports that were older than what was known, and so came out of order or twice.
    pub went_back: u64,
    /// Reports for which the table of clients or of hot buckets had no room.
    pub no_room: u64,
    /// Clients whose buckets those are.
    pub hot_clients: usize,
    /// How often a bucket that was spent fast could not become hot, or stay so with something to tell, because too many were.
    pub not_hot: u64,
}

impl Budget {
    /// Shares the buckets of `limiter` from now on. `own`: how the others know this process, made anew at each start.
    /// Until somebody else is heard nothing changes.
    pub fn new(limiter: Arc<Limiter>, own: InstanceId, now: Nanos) -> Self {
        limiter.link().set_members(1, false);
        let (peers, pace) = (Mutex::new(Peers::new(own, now)), Mutex::default());
        Self { limiter, peers, pace, counters: Counters::default() }
    }

    /// Calls `waker` when [`Budget::tick`] is due sooner than it said: from threads that decide, so it may not wait, and at
    /// most once between two flushes. Only the first one counts.
    pub fn wake_by(&self, waker: impl Fn() + Send + Sync + 'static) {
        self.limiter.link().wake_by(Box::new(waker));
    }

    /// A message came: `reports` of `from`, or none where it only shows that the sender is there. Messages of this process
    /// that come back belong here too: they show that the others hear it. The carrier has checked who sent it, and leaves
    /// out what came before (an older sequence number of that instance). Takes one lock, and one shard's after another.
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

    /// What a message says of how this instance stands to the others.
    fn note_heard(&self, peers: &mut Peers, when: Moment) {
        let (now, link) = (when.now, self.limiter.link());
        let is_heard = now <= peers.heard_until();
        if !link.is_silent(now) {
            if is_heard && link.is_unheard(now) {
                self.limiter.leak_untold(when);
            }
            link.heard(now, now + SILENT_AFTER);
        } else if is_heard {
            // What others say behind a silence may have lain somewhere until now. What it says itself has not.
            peers.begin_again(now);
            self.limiter.begin_episodes(now);
            link.returned(now);
            link.heard(now, now + SILENT_AFTER);
        }
        link.heard_by_others_until(peers.heard_until());
        link.set_members(peers.members(), peers.misses_one());
    }

    /// Says what to send now, at most [`MAX_REPORTS`], the most urgent first, and when to call again at the latest. Sooner
    /// when the waker is called. Where it is called too early it only says when it is due. Takes one lock after another.
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

    /// What was not told yet, at most [`MAX_REPORTS`], whenever something was told last: for one that ends. Takes one lock after
    /// another.
    pub fn last_words(&self, when: Moment, out: &mut Vec<SpentReport>) {
        out.clear();
        self.limiter.collect_reports(Round::Last, MAX_REPORTS, when, out);
    }

    /// Numbers of the other instances, and whether each is missed. Nobody is, while nobody is heard.
    fn known(&self, now: Nanos) -> Vec<(u32, bool)> {
        let link = self.limiter.link();
        let mut peers = self.peers.lock();
        if !link.is_silent(now) {
            peers.miss_dead(now);
            link.set_members(peers.members(), peers.misses_one());
        }
        peers.iter().map(|peer| (peer.number, peer.is_missed)).collect()
    }

    /// What [`Budget::tick`] gave could not be sent: it is told again.
    pub fn not_sent(&self, reports: &[SpentReport]) {
        self.limiter.take_back_reports(reports);
        if !reports.is_empty() {
            self.limiter.link().ask_again();
        }
    }

    /// An instance said that it ends. Takes one lock.
    pub fn left(&self, gone: InstanceId) {
        let mut peers = self.peers.lock();
        peers.remove(gone);
        self.limiter.link().set_members(peers.members(), peers.misses_one());
    }

    /// What there is to show of it at `now`. Takes one lock.
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
