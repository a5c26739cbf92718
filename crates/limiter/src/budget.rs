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

use crate::limiter::Limiter;
pub use crate::reports::{InstanceId, SpentReport};
use balancer_time::{Moment, Nanos};
use peers::Peers;

/// How often what changed is told.
pub const TICK: Nanos = 500_000_000;

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

/// Most other instances.
pub const MAX_PEERS: usize = 63;

/// The budget that a process shares with others. Shared by the threads that decide and the one that carries messages.
pub struct Budget {
    limiter: Arc<Limiter>,
    peers: Mutex<Peers>,
    too_many_peers: AtomicU64,
}

/// What there is to show of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BudgetStats {
    /// Instances that share it, this one included.
    pub members: usize,
    /// Nothing is heard of the others: each holds itself to a part.
    pub cut_off: bool,
    /// Messages of instances beyond [`MAX_PEERS`]; none of their reports counts.
    pub too_many_peers: u64,
}

impl Budget {
    /// Shares the buckets of `limiter` from now on. `own`: how the others know this process, made anew at each start.
    /// Until somebody else is heard nothing changes.
    pub fn new(limiter: Arc<Limiter>, own: InstanceId, now: Nanos) -> Self {
        Self { limiter, peers: Mutex::new(Peers::new(own, now)), too_many_peers: AtomicU64::new(0) }
    }

    /// Calls `waker` when [`Budget::tick`] is due sooner than it said: from threads that decide, so it may not wait, and at
    /// most once between two flushes. Only the first one counts.
    pub fn wake_by(&self, waker: impl Fn() + Send + Sync + 'static) {
        self.limiter.link().wake_by(Box::new(waker));
    }

    /// A message came: `reports` of `from`, or none where it only shows that the sender is there. Messages of this process
    /// that come back belong here too: they show that the others hear it. The carrier has checked who sent it, and leaves
    /// out what came before (an older sequence number of that instance). Takes one lock, then one shard's after another.
    pub fn heard(&self, from: InstanceId, reports: &[SpentReport], when: Moment) {
        let now = when.now;
        let mut peers = self.peers.lock();
        let Ok(peer) = peers.heard(from, now) else {
            self.too_many_peers.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let link = self.limiter.link();
        let (was_silent, until) = (link.is_silent(now), peers.good_until(now));
        link.hold_until(until);
        if was_silent && now <= until {
            peers.begin_again(now);
            link.returned(now);
        }
        link.set_members(peers.members());
        drop(peers);
        let _ = (peer, reports);
    }

    /// Says what to send now, at most [`MAX_REPORTS`], the most urgent first, and when to call again at the latest. Sooner
    /// when the waker is called. Does nothing where it is called too early.
    pub fn tick(&self, when: Moment, out: &mut Vec<SpentReport>) -> Nanos {
        let now = when.now;
        let link = self.limiter.link();
        if !link.is_silent(now) {
            let mut peers = self.peers.lock();
            peers.forget_dead(now);
            link.set_members(peers.members());
        }
        out.clear();
        now + TICK
    }

    /// What [`Budget::tick`] gave could not be sent: it is told again.
    pub fn not_sent(&self, reports: &[SpentReport]) {
        if !reports.is_empty() {
            self.limiter.link().ask();
        }
    }

    /// An instance said that it ends. Takes one lock.
    pub fn left(&self, gone: InstanceId) {
        let mut peers = self.peers.lock();
        peers.remove(gone);
        self.limiter.link().set_members(peers.members());
    }

    /// What there is to show of it at `now`. Takes one lock.
    pub fn stats(&self, now: Nanos) -> BudgetStats {
        let members = self.peers.lock().members();
        BudgetStats {
            members,
            cut_off: members > 1 && self.limiter.link().is_silent(now),
            too_many_peers: self.too_many_peers.load(Ordering::Relaxed),
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
