//! Bounds of backends on requests at once: reading them, and moving those that are measured.

use super::Backends;
use super::endpoint::Backend;
use super::measured::MeasuredReport;
use super::snapshot::Snapshot;
use crate::fair::ProbeVerdict;
use balancer_time::Nanos;

impl Backend {
    /// The current bound on requests at once on all its endpoints together; `u32::MAX`: there is none. A measured
    /// bound counts requests up to their answers' heads, another one up to their ends.
    pub fn max_in_flight(&self) -> u32 {
        self.bound.most()
    }

    /// What was measured; `None`: the bound is not measured. Takes the bound's lock.
    pub fn measured(&self) -> Option<MeasuredReport> {
        self.bound.report()
    }

    /// How often a trial of its measured bound had that verdict.
    pub fn probes(&self, verdict: ProbeVerdict) -> u64 {
        self.bound.probes(verdict)
    }
}

impl Snapshot {
    /// Whether the bound of any backend is measured, so that [`Backends::measure`] has something to do.
    pub fn measures(&self) -> bool {
        self.backends.iter().any(|group| group.bound.is_measured())
    }
}

impl Backends {
    /// Moves measured bounds; to be called about every half second. Wakes the line if a bound has moved.
    pub fn measure(&self, now: Nanos) {
        let moved = self.snapshot.load().backends.iter().filter(|group| group.bound.tick(now)).count();
        if moved > 0 {
            self.queue.changed();
        }
    }
}
