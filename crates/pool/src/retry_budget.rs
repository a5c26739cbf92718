//! The retry budget: how many requests may be sent again. It is a share of the requests of the last ten seconds, and
//! a few a second in any case, so that retries can't double an overload. It needs no lock; a request costs one
//! compare-and-swap.

use std::sync::atomic::{AtomicU64, Ordering};

use balancer_time::Nanos;

/// For how many seconds requests and retries count.
const WINDOW_S: u64 = 10;

/// Retries a second that are always allowed.
const FLOOR_PER_S: u64 = 10;

/// Number of slots, one a second. More than the window, so that none of its seconds is overwritten.
const SLOTS: usize = 16;

const NANOS_PER_S: Nanos = 1_000_000_000;

/// Bits of each of the two counts of a second. A count stays at its greatest value.
const COUNT_BITS: u32 = 20;
const MOST: u64 = (1 << COUNT_BITS) - 1;

/// The requests and retries of the last seconds.
#[derive(Debug)]
pub struct RetryBudget {
    /// One second each: the lower 24 bits of its number, then requests, then retries.
    slots: [AtomicU64; SLOTS],
}

impl RetryBudget {
    /// A budget without any requests.
    pub const fn new() -> Self {
        Self { slots: [const { AtomicU64::new(0) }; SLOTS] }
    }

    /// Counts a request.
    pub fn request(&self, now: Nanos) {
        self.add(now, 1 << COUNT_BITS);
    }

    /// Whether a request may be sent again; if so, counts it. `share`: that of requests that may, 0 to 1
    /// (`upstream.retry_budget`). If several threads ask at once, all may be refused though there was room for one;
    /// there are never too many.
    pub fn retry(&self, share: f64, now: Nanos) -> bool {
        self.add(now, 1);
        let (requests, retries) = self.sum(now);
        let allowed = share * requests as f64 + (FLOOR_PER_S * WINDOW_S) as f64;
        let fits = retries as f64 <= allowed;
        if !fits {
            let slot = &self.slots[index(now)];
            // If the slot is another second's by now, there is nothing to take back.
            let _ = slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |bits| taken_back(bits, now));
        }
        fits
    }

    fn add(&self, now: Nanos, one: u64) {
        let mask = MOST * one;
        let next = |bits: u64| {
            let bits = if same_second(bits, now) { bits } else { stamp(now) };
            Some(if bits & mask == mask { bits } else { bits + one })
        };
        // Can't fail: the closure always returns a value.
        let _ = self.slots[index(now)].fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }

    fn sum(&self, now: Nanos) -> (u64, u64) {
        let second = now / NANOS_PER_S;
        (second.saturating_sub(WINDOW_S - 1)..=second).fold((0, 0), |(requests, retries), second| {
            let at = second * NANOS_PER_S;
            let bits = self.slots[index(at)].load(Ordering::Relaxed);
            if same_second(bits, at) {
                (requests + (bits >> COUNT_BITS & MOST), retries + (bits & MOST))
            } else {
                (requests, retries)
            }
        })
    }
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self::new()
    }
}

/// A slot with one retry less; `None`: it is another second's, or counts none.
fn taken_back(bits: u64, now: Nanos) -> Option<u64> {
    (same_second(bits, now) && bits & MOST > 0).then(|| bits - 1)
}

const fn index(now: Nanos) -> usize {
    (now / NANOS_PER_S) as usize % SLOTS
}

const fn stamp(now: Nanos) -> u64 {
    (now / NANOS_PER_S) << (2 * COUNT_BITS)
}

const fn same_second(bits: u64, now: Nanos) -> bool {
    bits >> (2 * COUNT_BITS) == stamp(now) >> (2 * COUNT_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::sync::atomic::AtomicU32;

    const S: Nanos = NANOS_PER_S;

    fn retries(budget: &RetryBudget, share: f64, now: Nanos) -> u32 {
        (0..100_000).map_while(|_| budget.retry(share, now).then_some(1)).sum()
    }

    #[test]
    fn a_share_of_the_window_and_a_floor() {
        // The second of each request; now; share; how many retries are allowed.
        let table: &[(&[u64], u64, f64, u32)] = &[
            (&[], 100, 0.2, 100),
            (&[100; 50], 100, 0.2, 110),
            (&[100; 5_000], 100, 0.2, 1_100),
            (&[91; 5_000], 100, 0.2, 1_100),
            (&[90; 5_000], 100, 0.2, 100),
            (&[84; 5_000], 100, 0.2, 100),
            (&[0; 5_000], 5, 0.2, 1_100),
            (&[100; 5_000], 100, 0.0, 100),
        ];
        for (requests, now, share, allowed) in table {
            let budget = RetryBudget::new();
            requests.iter().for_each(|second| budget.request(second * S));
            assert_eq!(retries(&budget, *share, now * S), *allowed, "{now} {share}");
            assert!(!budget.retry(*share, now * S + S / 2));
        }
    }

    #[test]
    fn what_was_spent_comes_back_with_time() {
        let budget = RetryBudget::new();
        assert_eq!(retries(&budget, 0.2, 50 * S), 100);
        assert!(!budget.retry(0.2, 59 * S));
        assert_eq!(retries(&budget, 0.2, 60 * S), 100);
    }

    #[test]
    fn counts_stay_at_their_greatest() {
        let budget = RetryBudget::new();
        budget.slots[index(7 * S)].store(stamp(7 * S) | (MOST - 1) << COUNT_BITS, Ordering::Relaxed);
        for _ in 0..5 {
            budget.request(7 * S);
        }
        assert_eq!(budget.sum(7 * S), (MOST, 0));
    }

    #[test]
    fn a_retry_is_taken_back_from_its_own_second_alone() {
        let slot = stamp(7 * S) | 5 << COUNT_BITS;
        assert_eq!(taken_back(slot | 2, 7 * S + 1), Some(slot | 1));
        assert_eq!(taken_back(slot, 7 * S), None, "none is counted");
        assert_eq!(taken_back(slot | 2, 8 * S), None);
    }

    /// However many threads ask at the same time, there are never too many retries.
    #[test]
    fn the_bound_holds_across_threads() {
        for _ in 0..20 {
            let budget = RetryBudget::new();
            let (start, granted) = (Barrier::new(8), AtomicU32::new(0));
            std::thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        start.wait();
                        for _ in 0..100 {
                            budget.request(S);
                            if budget.retry(0.2, S) {
                                granted.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    });
                }
            });
            let granted = granted.into_inner();
            assert!((100..=260).contains(&granted), "{granted}");
            assert!(budget.sum(S).1 <= 260, "{:?}", budget.sum(S));
        }
    }
}
