//! Counts requests in flight that found no line and went straight to a backend, for each client, so that they count
//! when there is a line. Takes no lock; a request costs one compare-and-swap at its beginning and one at its end.

use std::sync::atomic::{AtomicU64, Ordering};

use super::ticket::Who;

/// 32 KiB a pool. With 300 clients that have requests in flight, one in 14 finds its slot taken.
const SLOTS: usize = 4096;

/// The lower bits of a slot, which hold the count; the upper ones identify the client.
const COUNT_BITS: u32 = 24;
const COUNT: u64 = (1 << COUNT_BITS) - 1;

/// The counts. A slot belongs to one client while that has requests in flight. Another client with the same slot is not
/// counted in that time, so that no client is charged for requests of another.
#[derive(Debug)]
pub struct StraightCounts {
    slots: Box<[AtomicU64]>,
}

impl StraightCounts {
    /// Counts of 0.
    pub fn new() -> Self {
        Self { slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect() }
    }

    /// A request of this client begins. Returns whether it is counted; then [`StraightCounts::end`] has to be called.
    #[must_use = "what is counted has to end"]
    pub fn begin(&self, who: Who) -> bool {
        let (slot, tag) = self.slot(who);
        let next = |bits: u64| match bits & COUNT {
            0 => Some(tag | 1),
            COUNT => None,
            _ => (bits & !COUNT == tag).then(|| bits + 1),
        };
        slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }

    /// A request that was counted has ended. If there is a line, it has to be told afterwards.
    pub fn end(&self, who: Who) {
        let (slot, tag) = self.slot(who);
        let next = |bits: u64| (bits & !COUNT == tag && bits & COUNT > 0).then(|| bits - 1);
        // Sequentially consistent: a request that joins the line, and is not seen by this one's end, reads the lower
        // count.
        let ended = slot.fetch_update(Ordering::SeqCst, Ordering::Relaxed, next);
        debug_assert!(ended.is_ok(), "it was counted");
    }

    /// How many requests of this client are counted.
    pub fn of(&self, who: Who) -> u32 {
        let (slot, tag) = self.slot(who);
        let bits = slot.load(Ordering::SeqCst);
        if bits & !COUNT == tag { (bits & COUNT) as u32 } else { 0 }
    }

    fn slot(&self, who: Who) -> (&AtomicU64, u64) {
        // Different clients stay different numbers. The upper bits identify the client, the lower ones choose the slot.
        let mixed = who.client.wrapping_add((who.priority as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        (&self.slots[mixed as usize % SLOTS], mixed & !COUNT)
    }
}

impl Default for StraightCounts {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use balancer_importance::Priority;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Barrier;

    fn who(client: u64) -> Who {
        Who { client, priority: Priority::Normal }
    }

    #[test]
    fn each_client_is_counted_for_itself() {
        let counts = StraightCounts::new();
        // Two clients with the same slot.
        let (one, other) = (who(7), who(7 + (1 << 40)));
        assert!(counts.begin(one) && counts.begin(one));
        assert!(!counts.begin(other), "its slot is taken");
        assert_eq!((counts.of(one), counts.of(other)), (2, 0));
        assert_eq!(counts.of(Who { priority: Priority::Critical, ..one }), 0);
        counts.end(one);
        assert_eq!(counts.of(one), 1);
        counts.end(one);
        assert!(counts.begin(other), "the slot is free again");
        assert_eq!((counts.of(one), counts.of(other)), (0, 1));
    }

    #[test]
    fn a_count_neither_overflows_nor_falls_below_zero() {
        let counts = StraightCounts::new();
        let (one, other) = (who(7), who(7 + (1 << 40)));
        let (slot, tag) = counts.slot(one);
        slot.store(tag | COUNT, Ordering::Relaxed);
        assert!(!counts.begin(one), "it is at its greatest");
        assert_eq!(counts.of(one), COUNT as u32);
        // An end without a beginning is a fault, which tests are told and which changes nothing.
        for (who, bits) in [(other, tag | 1), (one, tag)] {
            slot.store(bits, Ordering::Relaxed);
            let ended = catch_unwind(AssertUnwindSafe(|| counts.end(who)));
            assert!((ended.is_err() || !cfg!(debug_assertions)) && slot.load(Ordering::Relaxed) == bits);
        }
    }

    #[test]
    fn nothing_is_lost_across_threads() {
        let counts = StraightCounts::new();
        let start = Barrier::new(4);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (counts, start) = (&counts, &start);
                scope.spawn(move || {
                    start.wait();
                    for round in 0..2_000u64 {
                        // Threads use clients of which two have a slot in common.
                        let who = who((round + thread) % 8 + ((thread % 2) << 40));
                        if counts.begin(who) {
                            assert!(counts.of(who) >= 1);
                            counts.end(who);
                        }
                    }
                });
            }
        });
        assert!(counts.slots.iter().all(|slot| slot.load(Ordering::Relaxed) & COUNT == 0));
    }
}
