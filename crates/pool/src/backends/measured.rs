//! A backend's bound on requests at once, as it is in force: none, a number, or one that is measured ([`AutoLimit`]). A
//! number bounds requests to their ends. A measured bound counts them up to their answers' heads, so that event streams,
//! tunnels and slow readers hold none of its places. Only a measured bound costs a lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;

use crate::backend::InFlightBound;
use crate::fair::{AutoAttempt, AutoBounds, AutoLimit, AutoMove, ProbeVerdict};
use balancer_time::Nanos;

/// See the module. Its kind is written under the pool's writer's lock.
#[derive(Debug)]
pub(super) struct BoundInForce {
    /// Where none is measured; `u32::MAX`: there is no bound.
    number: AtomicU32,
    is_measured: AtomicBool,
    measured: ArcSwapOption<MeasuredBound>,
    /// What trials found, in the order of [`ProbeVerdict::ALL`].
    probes: [AtomicU64; 3],
}

/// Whether so many are half of them.
pub(super) fn is_half(count: u32, most: u32) -> bool {
    count >= most.div_ceil(2)
}

impl Default for BoundInForce {
    fn default() -> Self {
        Self {
            number: AtomicU32::new(u32::MAX),
            is_measured: AtomicBool::default(),
            measured: ArcSwapOption::empty(),
            probes: Default::default(),
        }
    }
}

impl BoundInForce {
    /// Puts another bound in force. One that is measured goes on where it is, within these bounds.
    pub fn set(&self, bound: Option<InFlightBound>, bounds: AutoBounds, now: Nanos) {
        let number = match bound {
            Some(InFlightBound::Auto) => {
                match self.measured() {
                    Some(measured) => measured.change(|limit| limit.set_bounds(bounds)),
                    None => self.measured.store(Some(Arc::new(MeasuredBound::new(bounds, now)))),
                }
                u32::MAX
            }
            Some(InFlightBound::Number(most)) => most,
            None => u32::MAX,
        };
        let is_measured = bound == Some(InFlightBound::Auto);
        if !is_measured {
            self.measured.store(None);
        }
        self.number.store(number, Ordering::Relaxed);
        self.is_measured.store(is_measured, Ordering::Release);
    }

    /// What was counted of another goes on here.
    pub fn with_probes_of(self, other: &Self) -> Self {
        let count = |at: usize| AtomicU64::new(other.probes[at].load(Ordering::Relaxed));
        Self { probes: std::array::from_fn(count), ..self }
    }

    /// The bound of a number, which holds for whole requests; `u32::MAX`: there is none.
    pub fn number(&self) -> u32 {
        self.number.load(Ordering::Relaxed)
    }

    /// The one that is measured.
    pub fn measured(&self) -> Option<Arc<MeasuredBound>> {
        self.is_measured().then(|| self.measured.load_full()).flatten()
    }

    fn of_measured<R>(&self, read: impl FnOnce(&MeasuredBound) -> R) -> Option<R> {
        self.is_measured().then(|| self.measured.load().as_deref().map(read)).flatten()
    }

    /// Whether it is measured.
    pub fn is_measured(&self) -> bool {
        self.is_measured.load(Ordering::Acquire)
    }

    /// Most requests at once, now; `u32::MAX`: there is no bound.
    pub fn most(&self) -> u32 {
        self.of_measured(|it| it.most.load(Ordering::Relaxed)).unwrap_or_else(|| self.number())
    }

    /// Whether there is no room, with so many requests in flight to their ends.
    pub fn is_full(&self, in_flight: u32) -> bool {
        let (held, most) = self.taken(in_flight);
        held >= most
    }

    /// Whether half of the places are taken, with so many requests in flight to their ends. Never without a bound.
    pub fn is_half_full(&self, in_flight: u32) -> bool {
        let (held, most) = self.taken(in_flight);
        is_half(held, most)
    }

    /// Places that are taken, and how many there are.
    fn taken(&self, in_flight: u32) -> (u32, u32) {
        let of_measured =
            |it: &MeasuredBound| (it.held.load(Ordering::Relaxed), it.most.load(Ordering::Relaxed));
        self.of_measured(of_measured).unwrap_or_else(|| (in_flight, self.number()))
    }

    /// What was measured. Takes the lock.
    pub fn report(&self) -> Option<MeasuredReport> {
        self.of_measured(|it| {
            let limit = it.limit.lock();
            MeasuredReport { held: limit.in_flight(), median_s: limit.median_s(), moved: limit.moved() }
        })
    }

    /// How often a trial found that.
    pub fn probes(&self, verdict: ProbeVerdict) -> u64 {
        self.probes[verdict as usize].load(Ordering::Relaxed)
    }

    /// Whether there is another bound afterwards.
    pub fn tick(&self, now: Nanos) -> bool {
        let ticked = self.of_measured(|it| {
            it.change(|limit| {
                let before = limit.limit();
                let verdict = limit.tick(now);
                (verdict, limit.limit() != before)
            })
        });
        let Some((verdict, moved)) = ticked else { return false };
        if let Some(verdict) = verdict {
            self.probes[verdict as usize].fetch_add(1, Ordering::Relaxed);
        }
        moved
    }
}

/// A measured bound, shared by the requests that hold its places.
#[derive(Debug)]
pub(super) struct MeasuredBound {
    /// Held for a few instructions at the beginning of a request and at its answer's head, over no I/O.
    limit: Mutex<AutoLimit>,
    /// How many places there are, and how many are held: written under the lock, for those who only look.
    most: AtomicU32,
    held: AtomicU32,
}

impl MeasuredBound {
    fn new(bounds: AutoBounds, now: Nanos) -> Self {
        let limit = AutoLimit::new(bounds, now);
        let (most, held) = (AtomicU32::new(limit.limit()), AtomicU32::new(0));
        Self { limit: Mutex::new(limit), most, held }
    }

    fn change<R>(&self, change: impl FnOnce(&mut AutoLimit) -> R) -> R {
        let mut limit = self.limit.lock();
        let result = change(&mut limit);
        self.most.store(limit.limit(), Ordering::SeqCst);
        // A request that waits and is not seen by whoever gave this place back sees that there is one.
        self.held.store(limit.in_flight(), Ordering::SeqCst);
        result
    }

    /// A place of it; `None`: there is none.
    pub fn enter(self: &Arc<Self>, now: Nanos) -> Option<BoundPlace> {
        let began = |limit: &mut AutoLimit| (limit.in_flight() < limit.limit()).then(|| limit.began(now));
        self.change(began).map(|attempt| BoundPlace { of: Arc::clone(self), attempt: Some(attempt) })
    }
}

/// A place of a measured bound, given back when this is dropped.
#[derive(Debug)]
#[must_use = "a dropped place is given back"]
pub(super) struct BoundPlace {
    of: Arc<MeasuredBound>,
    attempt: Option<AutoAttempt>,
}

impl BoundPlace {
    /// The answer's head came.
    pub fn answered(mut self, now: Nanos) {
        if let Some(attempt) = self.attempt.take() {
            self.of.change(|limit| limit.ended(attempt, true, now));
        }
    }
}

impl Drop for BoundPlace {
    fn drop(&mut self) {
        if let Some(attempt) = self.attempt.take() {
            // The time is not known here: as far as anybody told it.
            self.of.change(|limit| limit.ended(attempt, false, 0));
        }
    }
}

/// What is known of a measured bound.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MeasuredReport {
    /// How many of its places are held.
    pub held: u32,
    /// The answers' time in the middle lately, in seconds, up to the head; `None`: there was no answer.
    pub median_s: Option<f64>,
    /// What moved it last; `None`: it is where it began.
    pub moved: Option<AutoMove>,
}
