//! How many workers may run is fitted to the machine and to what there is to do.

use std::sync::atomic::{AtomicU64, Ordering};

use super::super::pressure::Look;
use super::{COUNTED, Gate, LONG_CALL_BOUNDS_NS, LONG_CALL_NS, Station, UNCOUNTED};

/// Whether more workers should wait for events.
enum Demand {
    High,
    Met,
    Low,
}

/// Fewer events than this say nothing about how many workers are too many.
const FEW_EVENTS: u64 = 64;

impl Gate {
    /// Whether the worker counts though fewer may; then it no longer does.
    pub(super) fn is_surplus(&self, station: &Station) -> bool {
        let limit = self.limit.load(Ordering::SeqCst);
        if self.active.load(Ordering::SeqCst) <= limit {
            return false;
        }
        // First this, so that the keeper, which may take it for one that is away for long, does not count it off, too.
        if station.standing.compare_exchange(COUNTED, UNCOUNTED, Ordering::SeqCst, Ordering::SeqCst).is_err()
        {
            return true;
        }
        let fewer = |active| if active > limit { Some(active - 1) } else { None };
        let surplus = self.active.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fewer).is_ok();
        if !surplus {
            station.standing.store(COUNTED, Ordering::SeqCst);
        }
        surplus
    }

    /// Fits the gate to what the machine has to spare and to what there is to do. While the processors are the bottleneck,
    /// as many workers as get one, and more patience with calls; the opposite while they are not and events find nobody
    /// waiting; and fewer workers when events hardly ever do, since each of the surplus would be woken for an event that
    /// another could have taken next. The keeper's alone.
    pub fn adapt(&self, look: &Look) {
        let demand = self.demand();
        let (limit, long) = (self.limit.load(Ordering::SeqCst), self.long_call_ns.load(Ordering::Relaxed));
        let calmer = long - long / 8 + LONG_CALL_NS / 8;
        let (limit, least, long) = match (look.saturated, demand) {
            (true, _) => (self.share.lock().fit(limit, look.used), self.bounds.least, long * 2),
            (false, Demand::High) => (limit + 1, self.bounds.usual, long / 2),
            // Back to the middle, slowly.
            (false, Demand::Met) => (limit, self.bounds.usual, calmer),
            (false, Demand::Low) => (limit - 1, self.bounds.usual, calmer),
        };
        self.limit.store(limit.clamp(least, self.bounds.most), Ordering::SeqCst);
        let long = long.clamp(*LONG_CALL_BOUNDS_NS.start(), *LONG_CALL_BOUNDS_NS.end());
        self.long_call_ns.store(long, Ordering::Relaxed);
        self.promote();
    }

    /// How often, since the last time, an event left nobody waiting for the next one.
    fn demand(&self) -> Demand {
        let sum = |count: fn(&Station) -> &AtomicU64| -> u64 {
            self.stations.iter().map(|station| count(station).load(Ordering::Relaxed)).sum()
        };
        let (events, last_out) = (sum(|station| &station.events), sum(|station| &station.last_out));
        let new_events = events - self.seen_events.swap(events, Ordering::Relaxed);
        let new_last_out = last_out - self.seen_last_out.swap(last_out, Ordering::Relaxed);
        if new_events == 0 {
            // Nobody came back to take one.
            return if self.idle.load(Ordering::SeqCst) == 0 { Demand::High } else { Demand::Met };
        }
        match new_last_out * 8 / new_events {
            0 if new_events >= FEW_EVENTS => Demand::Low,
            0..=3 => Demand::Met,
            _ => Demand::High,
        }
    }
}
