//! How this instance stands to the others, as every decision reads it: a few numbers without a lock.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use balancer_time::Nanos;

/// Written by [`crate::limiter::Limiter`]'s budget alone. On a cache line of its own, since every decision reads it.
#[repr(align(128))]
pub(crate) struct PeerLink {
    /// How many instances share the budget, this one included; 0: no other was ever heard, and nothing is counted. With
    /// [`MISSED`], beside one that is missed.
    members: AtomicU32,
    /// How often the others were heard again after a silence.
    returns: AtomicU32,
    /// When anything was heard last.
    heard_at: AtomicU64,
    /// Up to when it counts as connected.
    good_until: AtomicU64,
    /// Up to when the others are taken to hear it.
    heard_until: AtomicU64,
    /// When the last silence ended.
    returned_at: AtomicU64,
    /// Something is to be sent sooner than was said; the carrier has been woken for it.
    asked: AtomicBool,
    waker: OnceLock<Box<dyn Fn() + Send + Sync>>,
    /// A bit for each shard that has something urgent to tell.
    loud: [AtomicU64; LOUD_WORDS],
}

/// Words of 64 bits, for 256 shards.
const LOUD_WORDS: usize = 4;

/// Beside the number of members: one is missed.
const MISSED: u32 = 1 << 31;

/// What one decision read of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PeerLinkState {
    /// Instances that share the budget; 1: nobody to share with. The only other one counts while it is missed: it may hear this one.
    pub members: u32,
    /// Nothing is heard of the others, who are there: each holds itself to a part.
    pub cut_off: bool,
    /// They hear nothing of this one: what it has to tell waits, and flows in meanwhile.
    pub unheard: bool,
    /// How often the others were heard again after a silence.
    pub returns: u32,
    /// When the last silence ended.
    pub returned_at: Nanos,
}

impl PeerLink {
    /// Of an instance that shares nothing.
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

    /// As it stands at `now`; `None`: nothing is shared. Takes no lock.
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

    /// Whether nothing was heard for so long that nothing can be said of the others.
    pub fn is_silent(&self, now: Nanos) -> bool {
        now > self.good_until.load(Ordering::Relaxed)
    }

    /// Whether the others have heard nothing of this one for so long that it is dead to them.
    pub fn is_unheard(&self, now: Nanos) -> bool {
        now > self.heard_until.load(Ordering::Relaxed)
    }

    /// When anything was heard last.
    pub fn heard_at(&self) -> Nanos {
        self.heard_at.load(Ordering::Relaxed)
    }

    /// So many instances share the budget from now on, this one included, or beside one that is missed. An instance that has met no other yet shares nothing,
    /// at no cost.
    pub fn set_members(&self, members: usize, misses_one: bool) {
        if members < 2 && self.members.load(Ordering::Relaxed) == 0 {
            return;
        }
        let missed = if misses_one { MISSED } else { 0 };
        // At most 64.
        self.members.store(members as u32 | missed, Ordering::Relaxed);
    }

    /// Something was heard: it counts as connected until then.
    pub fn heard(&self, now: Nanos, until: Nanos) {
        self.heard_at.store(now, Ordering::Relaxed);
        self.good_until.store(until, Ordering::Relaxed);
    }

    /// The others are taken to hear it until then.
    pub fn heard_by_others_until(&self, until: Nanos) {
        self.heard_until.store(until, Ordering::Relaxed);
    }

    /// A silence ended.
    pub fn returned(&self, now: Nanos) {
        self.returned_at.store(now, Ordering::Relaxed);
        self.returns.fetch_add(1, Ordering::Relaxed);
    }

    /// Calls this when something has to be sent soon; the first one that is given counts.
    pub fn wake_by(&self, waker: Box<dyn Fn() + Send + Sync>) {
        let _ = self.waker.set(waker);
    }

    /// Something has to be sent soon. Wakes the carrier once until [`PeerLink::take_asked`]. No lock may be held.
    pub fn ask(&self) {
        if !self.asked.swap(true, Ordering::AcqRel)
            && let Some(wake) = self.waker.get()
        {
            wake();
        }
    }

    /// The same from the carrier's own thread, which needs no waking.
    pub fn ask_again(&self) {
        self.asked.store(true, Ordering::Release);
    }

    /// Whether [`PeerLink::ask`] was called since the last time.
    pub fn take_asked(&self) -> bool {
        self.asked.swap(false, Ordering::AcqRel)
    }

    /// The same, for a look.
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    /// That shard has something urgent to tell.
    pub fn set_loud(&self, shard: usize) {
        self.loud[shard / 64 % LOUD_WORDS].fetch_or(1 << (shard % 64), Ordering::AcqRel);
    }

    /// Whether that shard has something urgent to tell.
    pub fn is_loud(&self, shard: usize) -> bool {
        self.loud[shard / 64 % LOUD_WORDS].load(Ordering::Acquire) & 1 << (shard % 64) != 0
    }

    /// It is looked at now.
    pub fn take_loud(&self, shard: usize) {
        self.loud[shard / 64 % LOUD_WORDS].fetch_and(!(1 << (shard % 64)), Ordering::AcqRel);
    }
}
