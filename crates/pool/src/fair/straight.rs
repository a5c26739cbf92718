//! Requests in flight that found the line empty, and went straight to a backend: how many of each client, so that they
//! count once a line stands. They take no lock; a request costs one compare-and-swap at its beginning and one at its end.

use std::sync::atomic::{AtomicU64, Ordering};

use super::ticket::Who;

/// 32 KiB a pool. Of 300 clients with requests in flight one in 14 finds its slot taken.
const SLOTS: usize = 4096;

/// A slot: whose it is, and how many.
const COUNT_BITS: u32 = 24;
const COUNT: u64 = (1 << COUNT_BITS) - 1;

/// See the module. A slot belongs to one client for as long as that has requests in flight. Another one with the same
/// slot is not counted meanwhile: nobody is charged for what somebody else has in flight.
#[derive(Debug)]
pub struct StraightCounts {
    slots: Box<[AtomicU64]>,
}

impl StraightCounts {
    /// Of nobody.
    pub fn new() -> Self {
        Self { slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect() }
    }

    /// A request of this client begins. Whether it is counted: then its end has to be told.
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

    /// A request that was counted has ended. Tell the line afterwards, if one stands.
    pub fn end(&self, who: Who) {
        let (slot, tag) = self.slot(who);
        let next = |bits: u64| (bits & !COUNT == tag && bits & COUNT > 0).then(|| bits - 1);
        // Whoever joins a line that this one's end does not see reads less from then on.
        let ended = slot.fetch_update(Ordering::SeqCst, Ordering::Relaxed, next);
        debug_assert!(ended.is_ok(), "it was counted");
    }

    /// How many of this client are in flight and counted.
    pub fn of(&self, who: Who) -> u32 {
        let (slot, tag) = self.slot(who);
        let bits = slot.load(Ordering::SeqCst);
        if bits & !COUNT == tag { (bits & COUNT) as u32 } else { 0 }
    }

    fn slot(&self, who: Who) -> (&AtomicU64, u64) {
        // An odd number leaves different clients different; the upper half says whose it is, the lower where.
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
    use std::sync::Barrier;

    fn who(client: u64) -> Who {
        Who { client, priority: Priority::Normal }
    }

    #[test]
    fn each_client_is_counted_for_itself() {
        let counts = StraightCounts::new();
        // The same slot, another client.
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
    fn nothing_is_lost_across_threads() {
        let counts = StraightCounts::new();
        let start = Barrier::new(4);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (counts, start) = (&counts, &start);
                scope.spawn(move || {
                    start.wait();
                    for round in 0..2_000u64 {
                        // Two of each pair have a slot in common.
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
