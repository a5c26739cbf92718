//! Ejection: endpoints are taken out because of their answers to requests. It is kept apart from the operator's word
//! and from what the prober finds, and only this module writes it. Picks only read it. A lock is taken when an
//! endpoint goes out or comes back, never for an ordinary answer.
//!
//! An endpoint is out for some time, and then half open: one request at a time probes it. After that it is in again,
//! or out for longer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;

use crate::outlier::{Cause, OutlierPolicy, Tally, most_out, time_out};
use balancer_time::Nanos;

/// The pool's settings for ejections, and the writers' lock.
#[derive(Debug)]
pub(super) struct Outliers {
    policy: OutlierPolicy,
    max_ejected: f64,
    /// Held while an endpoint is taken out or let in; never across I/O. Stays the same when settings change.
    writer: Arc<Mutex<()>>,
}

/// The state of one endpoint.
#[derive(Debug, Default)]
pub(super) struct EndpointStanding {
    /// A [`Tally`].
    tally: AtomicU64,
    /// When it may be probed; 0: it is in.
    out_until: AtomicU64,
    /// Whether a probe is under way.
    probing: AtomicBool,
    /// How often in a row it was taken out soon after it had come back.
    relapses: AtomicU32,
    /// When it came back last.
    back_since: AtomicU64,
    /// Why it was taken out last. Written with the log line.
    cause: ArcSwapOption<Arc<str>>,
}

/// Whether an endpoint is out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Out {
    /// It is in.
    No,
    /// It is out, and its time is not over or a probe is under way.
    Yes,
    /// It is out, but its time has been over for so long: a request should probe it.
    HalfOpen(Nanos),
}

/// An endpoint went out or came back; each gets a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ejection {
    /// It is out for so long, for that cause.
    Out(Duration, Cause),
    /// Its probe failed: it is out for so long again.
    StaysOut(Duration),
    /// Its probe was answered: it is in again.
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

    /// Why it was taken out last.
    pub fn cause(&self) -> Option<Arc<str>> {
        self.cause.load().as_deref().cloned()
    }

    /// Notes why it was taken out.
    pub fn set_cause(&self, cause: &str) {
        self.cause.store(Some(Arc::new(cause.into())));
    }

    /// When it came back last; 0: it was never out.
    pub fn back_since(&self) -> Nanos {
        self.back_since.load(Ordering::Relaxed)
    }

    /// Makes the caller's request the probe, if the endpoint is out and has no probe. Returns whether it did.
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

    /// The probe has ended.
    pub fn end_probe(&self) {
        self.probing.store(false, Ordering::Release);
    }
}

impl Outliers {
    /// `before`: the settings that these replace, whose lock is kept.
    pub fn new(policy: OutlierPolicy, max_ejected: f64, before: Option<&Self>) -> Self {
        let writer = before.map(|before| Arc::clone(&before.writer)).unwrap_or_default();
        Self { policy, max_ejected, writer }
    }

    /// A request ended that was not a probe. `up`: all endpoints that count as up. Takes the writers' lock only if it
    /// was one failure too many.
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
        // Can't fail: the closure always returns a value.
        let _ = standing.tally.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        let cause = cause?;
        let _writer = self.writer.lock();
        if standing.out_until.load(Ordering::Relaxed) != 0 {
            // The request was sent before the endpoint went out.
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

    /// A probe ended with an answer or a failure. Takes the writers' lock.
    pub fn conclude_probe(&self, standing: &EndpointStanding, failed: bool, now: Nanos) -> Option<Ejection> {
        let _writer = self.writer.lock();
        let told = match standing.out_until.load(Ordering::Relaxed) {
            // The health checks have let it in meanwhile.
            0 => None,
            // It was probed before its time, since there was no other endpoint: a failure was to be expected.
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

    /// The health checks brought it back: forgets its failures and its relapses. Takes the writers' lock.
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

    /// How long a half-open endpoint is kept for a request that can be sent again, before any request may probe it.
    pub fn patience(&self) -> Nanos {
        self.policy.base_time
    }
}
