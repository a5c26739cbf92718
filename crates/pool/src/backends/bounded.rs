//! Bounds of backends on requests at once, as others see them and as they move.

use super::Backends;
use super::endpoint::Backend;
use super::measured::MeasuredReport;
use super::snapshot::Snapshot;
use crate::fair::ProbeVerdict;
use balancer_time::Nanos;

impl Backend {
    /// Most requests at once on all its endpoints together, now; `u32::MAX`: no bound. Whole ones, unless it is measured.
    pub fn max_in_flight(&self) -> u32 {
        self.bound.most()
    }

    /// What was measured; `None`: its bound is a number, or there is none. Takes the bound's lock.
    pub fn measured(&self) -> Option<MeasuredReport> {
        self.bound.report()
    }

    /// How often a trial of its measured bound found that.
    pub fn probes(&self, verdict: ProbeVerdict) -> u64 {
        self.bound.probes(verdict)
    }
}

impl Snapshot {
    /// Whether the bound of some backend is measured, so that [`Backends::measure`] has something to do.
    pub fn measures(&self) -> bool {
        self.backends.iter().any(|group| group.bound.is_measured())
    }
}

impl Backends {
    /// Lets measured bounds move; to be called every half second or so. Tells the line where one did.
    pub fn measure(&self, now: Nanos) {
        let moved = self.snapshot.load().backends.iter().filter(|group| group.bound.tick(now)).count();
        if moved > 0 {
            self.queue.changed();
        }
    }
}
