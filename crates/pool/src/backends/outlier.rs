//! Which endpoints are out because of how they answered requests. The third word on an endpoint, beside the operator's
//! and the prober's, with a writer of its own: this module. Picks only read; a lock is taken when somebody goes or comes
//! back, never for an ordinary answer.
//!
//! out (until a time) → half open: one request at a time probes it → in again, or out for longer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;

use crate::outlier::{Cause, OutlierPolicy, Tally, most_out, time_out};
use balancer_time::Nanos;

/// The pool's settings for it, and its writer.
#[derive(Debug)]
pub(super) struct Outliers {
    policy: OutlierPolicy,
    max_ejected: f64,
    /// Held while somebody is taken out or let in; over no I/O. The same one whatever becomes of the settings.
    writer: Arc<Mutex<()>>,
}

/// One endpoint's part.
#[derive(Debug, Default)]
pub(super) struct EndpointStanding {
    /// A [`Tally`].
    tally: AtomicU64,
    /// When it may be probed; 0: it is in.
    out_until: AtomicU64,
    /// A probe is under way.
    probing: AtomicBool,
    /// How often it was taken out without a while of peace in between.
    relapses: AtomicU32,
    /// When it was last let in.
    back_since: AtomicU64,
    /// Why it was last taken out. Written where the log is told.
    cause: ArcSwapOption<Arc<str>>,
}

/// Whether an endpoint is out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Out {
    /// It is in.
    No,
    /// It is out, and its time is not over, or a probe is under way.
    Yes,
    /// Its time is over since so long: somebody should try it.
    HalfOpen(Nanos),
}

/// Somebody went or came back: one line of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ejection {
    /// Out for so long.
    Out(Duration, Cause),
    /// Its probe failed: out for so long again.
    StaysOut(Duration),
    /// Its probe was answered.
    Back,
}

impl EndpointStanding {
    pub fn out(&self, now: Nanos) -> Out {
        match self.out_until.load(Ordering::Relaxed) {
            0 => Out::No,
            until if now < until || self.probing.load(Ordering::Relaxed) => Out::Yes,
            until => Out::HalfOpen(now - until),
        }
    }

    /// Whether it is out, half open or not.
    pub fn is_out(&self) -> bool {
        self.out_until.load(Ordering::Relaxed) != 0
    }

    /// Why it was last taken out.
    pub fn cause(&self) -> Option<Arc<str>> {
        self.cause.load().as_deref().cloned()
    }

    /// Says why it was taken out.
    pub fn set_cause(&self, cause: &str) {
        self.cause.store(Some(Arc::new(cause.into())));
    }

    /// When it was last let in; 0: it was never out.
    pub fn back_since(&self) -> Nanos {
        self.back_since.load(Ordering::Relaxed)
    }

    /// Makes the caller's request the probe, if the endpoint is out and no other request is.
    pub fn begin_probe(&self) -> bool {
        if self.out_until.load(Ordering::Relaxed) == 0 || self.probing.swap(true, Ordering::AcqRel) {
            return false;
        }
        // It may have come back between the two looks.
        let still_out = self.out_until.load(Ordering::Acquire) != 0;
        if !still_out {
            self.end_probe();
        }
        still_out
    }

    /// The probe ended without a verdict.
    pub fn end_probe(&self) {
        self.probing.store(false, Ordering::Release);
    }
}

impl Outliers {
    /// `before`: what these settings replace.
    pub fn new(policy: OutlierPolicy, max_ejected: f64, before: Option<&Self>) -> Self {
        let writer = before.map(|before| Arc::clone(&before.writer)).unwrap_or_default();
        Self { policy, max_ejected, writer }
    }

    /// An ordinary request ended. `up`: all endpoints that count as up. Takes the writer's lock only when that is one
    /// failure too many.
    pub fn observe<'p>(
        &self,
        standing: &EndpointStanding,
        up: impl Iterator<Item = &'p EndpointStanding>,
        failed: bool,
        now: Nanos,
    ) -> Option<Ejection> {
        let mut cause = None;
        let next = |bits| {
            let (next, found) = Tally::from_bits(bits).observe(failed, now, &self.policy);
            cause = found;
            Some(next.bits())
        };
        // The closure always gives a value, so this always succeeds.
        let _ = standing.tally.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        let cause = cause?;
        let _writer = self.writer.lock();
        if standing.out_until.load(Ordering::Relaxed) != 0 {
            // Sent before it went.
            return None;
        }
        let (all, out) = up.fold((0, 0), |(all, out), one| (all + 1, out + usize::from(one.is_out())));
        if out >= most_out(self.max_ejected, all) {
            return None;
        }
        let relapses = standing.relapses.load(Ordering::Relaxed);
        let peace = now.saturating_sub(standing.back_since());
        let relapse = if peace > time_out(&self.policy, relapses) { 1 } else { relapses.saturating_add(1) };
        Some(Ejection::Out(self.take_out(standing, relapse, now), cause))
    }

    /// A probe ended.
    pub fn conclude_probe(&self, standing: &EndpointStanding, failed: bool, now: Nanos) -> Option<Ejection> {
        let _writer = self.writer.lock();
        let told = match standing.out_until.load(Ordering::Relaxed) {
            // Let in meanwhile by the health checks.
            0 => None,
            // It was asked before its time, for want of anybody else: that it fails is no news.
            until if failed && now < until => None,
            _ if failed => {
                let relapse = standing.relapses.load(Ordering::Relaxed).saturating_add(1);
                Some(Ejection::StaysOut(self.take_out(standing, relapse, now)))
            }
            _ => {
                standing.tally.store(0, Ordering::Relaxed);
                standing.back_since.store(now, Ordering::Relaxed);
                standing.out_until.store(0, Ordering::Release);
                Some(Ejection::Back)
            }
        };
        standing.end_probe();
        told
    }

    /// The health checks brought it back: what was seen before is of no interest any more.
    pub fn begin_anew(&self, standing: &EndpointStanding) {
        let _writer = self.writer.lock();
        standing.tally.store(0, Ordering::Relaxed);
        standing.relapses.store(0, Ordering::Relaxed);
        standing.out_until.store(0, Ordering::Release);
    }

    fn take_out(&self, standing: &EndpointStanding, relapse: u32, now: Nanos) -> Duration {
        let time = time_out(&self.policy, relapse);
        standing.relapses.store(relapse, Ordering::Relaxed);
        standing.out_until.store(now.saturating_add(time).max(1), Ordering::Release);
        Duration::from_nanos(time)
    }

    /// How long a half-open endpoint waits for a request that can be sent again before it takes any.
    pub fn patience(&self) -> Nanos {
        self.policy.base_time
    }
}
