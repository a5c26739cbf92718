//! Calls that a worker waits for: backends, and what else is told through [`CallObserver`]. How long they take decides
//! whether the worker counts meanwhile.

use std::sync::atomic::{AtomicU32, Ordering};

use super::{CALLING, COUNTED, Gate, Station, WORKER};
use crate::waits::CallObserver;
use balancer_time::Nanos;

/// Longest call that the mean takes in, so that one stall is forgotten within twenty quick calls.
const MAX_SAMPLE_NS: Nanos = 16_000_000;
/// Slots for what is known of backends; two with the same number share one.
pub(super) const PACES: usize = 256;

/// What is known of an endpoint's calls.
#[derive(Default)]
pub(super) struct EndpointPace {
    pub(super) mean_ns: AtomicU32,
    pub(super) stuck: AtomicU32,
}

impl Gate {
    /// Counts a worker as stuck on its endpoint until its call ends, even when that happens at the same moment.
    pub(super) fn mark_stuck(&self, station: &Station) {
        let endpoint = station.endpoint.load(Ordering::Relaxed);
        self.pace(endpoint).stuck.fetch_add(1, Ordering::SeqCst);
        let marked = station.stuck_on.compare_exchange(0, endpoint + 1, Ordering::SeqCst, Ordering::SeqCst);
        if marked.is_err() {
            self.pace(endpoint).stuck.fetch_sub(1, Ordering::SeqCst);
        }
        if station.calling_since.load(Ordering::SeqCst) == 0 {
            self.unmark_stuck(station);
        }
    }

    pub(super) fn unmark_stuck(&self, station: &Station) {
        if let Some(endpoint) = station.stuck_on.swap(0, Ordering::SeqCst).checked_sub(1) {
            self.pace(endpoint).stuck.fetch_sub(1, Ordering::SeqCst);
        }
    }

    pub(super) fn pace(&self, endpoint: u32) -> &EndpointPace {
        &self.paces[endpoint as usize % PACES]
    }
}

impl CallObserver for Gate {
    fn began(&self, endpoint: u64) {
        let Some(station) = self.stations.get(WORKER.get()) else { return };
        if station.streaming.load(Ordering::Relaxed) {
            return;
        }
        let endpoint = (endpoint % PACES as u64) as u32;
        station.endpoint.store(endpoint, Ordering::Relaxed);
        station.calling_since.store(self.clock.now(), Ordering::SeqCst);
        let pace = self.pace(endpoint);
        let slow = pace.stuck.load(Ordering::Relaxed) > 0
            || Nanos::from(pace.mean_ns.load(Ordering::Relaxed)) > self.long_call_ns.load(Ordering::Relaxed);
        if slow {
            self.discount(station, COUNTED);
            return;
        }
        let _ = station.standing.compare_exchange(COUNTED, CALLING, Ordering::SeqCst, Ordering::SeqCst);
    }

    fn ended(&self) {
        let Some(station) = self.stations.get(WORKER.get()) else { return };
        let since = station.calling_since.swap(0, Ordering::SeqCst);
        if since == 0 {
            return;
        }
        let _ = station.standing.compare_exchange(CALLING, COUNTED, Ordering::SeqCst, Ordering::SeqCst);
        let pace = self.pace(station.endpoint.load(Ordering::Relaxed));
        self.unmark_stuck(station);
        let took = self.clock.now().saturating_sub(since).min(MAX_SAMPLE_NS) as u32;
        // Two workers may both write: the mean is a hint, and one lost sample does not change it.
        let mean = pace.mean_ns.load(Ordering::Relaxed);
        pace.mean_ns.store(mean - mean / 8 + took / 8, Ordering::Relaxed);
    }
}
