//! The state of the connection to the other instances: a few numbers, which every decision reads without a lock.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::SHARDS;
use balancer_time::Nanos;

/// The state of the connection to the other instances. Only [`crate::budget::Budget`] writes it, except for what
/// decisions ask to be reported. In cache lines of its own, since every decision reads it.
#[repr(align(128))]
pub(crate) struct PeerLink {
    /// How many instances share the budget, this one included; 0: no other was ever heard, and nothing is shared. With
    /// the bit [`MISSED`] if another one is missed.
    members: AtomicU32,
    /// How many silences have ended.
    returns: AtomicU32,
    /// When anything was heard last.
    heard_at: AtomicU64,
    /// If nothing is heard until then, a silence begins.
    good_until: AtomicU64,
    /// Up to when the others are assumed to hear this instance.
    heard_until: AtomicU64,
    /// When the last silence ended.
    returned_at: AtomicU64,
    /// Something is urgent, and the waker was called for it.
    asked: AtomicBool,
    waker: OnceLock<Box<dyn Fn() + Send + Sync>>,
    /// A bit for each shard that has something urgent to report.
    loud: [AtomicU64; SHARDS / 64],
}

/// A bit beside the number of members: another instance is missed.
const MISSED: u32 = 1 << 31;

/// The state that one decision reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PeerLinkState {
    /// Instances that share the budget, this one included; 1: there is no other. If the only others are missed, one of
    /// them counts, since it may hear this instance.
    pub members: u32,
    /// Nothing is heard, though there are others: this instance holds itself to its part.
    pub cut_off: bool,
    /// The others do not hear this instance: its reports have to wait, and meanwhile tokens flow in.
    pub unheard: bool,
    /// How many silences have ended.
    pub returns: u32,
    /// When the last silence ended.
    pub returned_at: Nanos,
}

impl PeerLink {
    /// The state of an instance that shares nothing.
    pub fn alone() -> Self {
        Self {
            members: AtomicU32::new(0),
            returns: AtomicU32::new(0),
            heard_at: AtomicU64::new(0),
            good_until: AtomicU64::new(0),
            heard_until: AtomicU64::new(0),
            returned_at: AtomicU64::new(0),
            asked: AtomicBool::new(false),
            waker: OnceLock::new(),
            loud: Default::default(),
        }
    }

    /// The state at `now`; `None`: nothing is shared. Takes no lock.
    pub fn at(&self, now: Nanos) -> Option<PeerLinkState> {
        let members = self.members.load(Ordering::Relaxed);
        if members == 0 {
            return None;
        }
        let there = members & !MISSED;
        Some(PeerLinkState {
            members: there.max(if members == there { 1 } else { 2 }),
            cut_off: there > 1 && self.is_silent(now),
            unheard: self.is_unheard(now),
            returns: self.returns.load(Ordering::Relaxed),
            returned_at: self.returned_at.load(Ordering::Relaxed),
        })
    }

    /// Whether nothing was heard for so long that a silence has begun.
    pub fn is_silent(&self, now: Nanos) -> bool {
        now > self.good_until.load(Ordering::Relaxed)
    }

    /// Whether the others have heard nothing of this instance for so long that they take it for dead.
    pub fn is_unheard(&self, now: Nanos) -> bool {
        now > self.heard_until.load(Ordering::Relaxed)
    }

    /// When anything was heard last.
    pub fn heard_at(&self) -> Nanos {
        self.heard_at.load(Ordering::Relaxed)
    }

    /// Sets how many instances share the budget, this one included, and whether another one is missed. Does nothing
    /// until there was a second one, so that an instance alone pays nothing for sharing.
    pub fn set_members(&self, members: usize, misses_one: bool) {
        if members < 2 && self.members.load(Ordering::Relaxed) == 0 {
            return;
        }
        let missed = if misses_one { MISSED } else { 0 };
        // At most 64.
        self.members.store(members as u32 | missed, Ordering::Relaxed);
    }

    /// Something was heard at `now`: without more, a silence begins after `until`.
    pub fn heard(&self, now: Nanos, until: Nanos) {
        self.heard_at.store(now, Ordering::Relaxed);
        self.good_until.store(until, Ordering::Relaxed);
    }

    /// The others are assumed to hear this instance until then.
    pub fn heard_by_others_until(&self, until: Nanos) {
        self.heard_until.store(until, Ordering::Relaxed);
    }

    /// A silence has ended.
    pub fn returned(&self, now: Nanos) {
        self.returned_at.store(now, Ordering::Relaxed);
        self.returns.fetch_add(1, Ordering::Relaxed);
    }

    /// Sets what is called when something has to be sent soon. Only the first waker that is given counts.
    pub fn wake_by(&self, waker: Box<dyn Fn() + Send + Sync>) {
        let _ = self.waker.set(waker);
    }

    /// Something has to be sent soon. Calls the waker, but only once until [`PeerLink::take_asked`]. No lock may be
    /// held.
    pub fn ask(&self) {
        if !self.asked.swap(true, Ordering::AcqRel)
            && let Some(wake) = self.waker.get()
        {
            wake();
        }
    }

    /// Like [`PeerLink::ask`] from the carrier's own thread, which needs no waking.
    pub fn ask_again(&self) {
        self.asked.store(true, Ordering::Release);
    }

    /// Whether [`PeerLink::ask`] was called since the last call of this.
    pub fn take_asked(&self) -> bool {
        self.asked.swap(false, Ordering::AcqRel)
    }

    /// What [`PeerLink::take_asked`] would return, without a change.
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    /// Notes that the shard has something urgent to report.
    pub fn set_loud(&self, shard: usize) {
        self.loud[shard / 64].fetch_or(1 << (shard % 64), Ordering::AcqRel);
    }

    /// Whether the shard has something urgent to report.
    pub fn is_loud(&self, shard: usize) -> bool {
        self.loud[shard / 64].load(Ordering::Acquire) & 1 << (shard % 64) != 0
    }

    /// Clears the note of that shard, which is looked at now.
    pub fn take_loud(&self, shard: usize) {
        self.loud[shard / 64].fetch_and(!(1 << (shard % 64)), Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests;
