//! A backend's bound on requests at once: none, a number, or a measured one ([`AutoLimit`]). A number counts requests
//! up to their ends. A measured bound counts them up to their answers' heads, so that event streams, tunnels and slow
//! readers hold no places. Only a measured bound needs a lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;

use crate::backend::InFlightBound;
use crate::fair::{AutoAttempt, AutoBounds, AutoLimit, AutoMove, ProbeVerdict};
use balancer_time::Nanos;

/// The bound that is in force. Its kind is written under the pool's writer's lock.
#[derive(Debug)]
pub(super) struct BoundInForce {
    /// The bound if it is a number; `u32::MAX`: there is no such bound.
    number: AtomicU32,
    is_measured: AtomicBool,
    measured: ArcSwapOption<MeasuredBound>,
    /// Numbers of verdicts of trials, in the order of [`ProbeVerdict::ALL`].
    probes: [AtomicU64; 3],
}

/// Whether `count` is at least half of `most`.
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
    /// Puts another bound in force. A measured bound that stays measured keeps its value, within `bounds`. The new
    /// bound holds before the old one is taken away: there is no moment without any.
    pub fn set(&self, bound: Option<InFlightBound>, bounds: AutoBounds, now: Nanos) {
        if bound == Some(InFlightBound::Auto) {
            match self.measured() {
                Some(measured) => measured.change(|limit| limit.set_bounds(bounds)),
                None => self.measured.store(Some(Arc::new(MeasuredBound::new(bounds, now)))),
            }
            self.is_measured.store(true, Ordering::Release);
            self.number.store(u32::MAX, Ordering::Release);
        } else {
            let number = match bound {
                Some(InFlightBound::Number(most)) => most,
                _ => u32::MAX,
            };
            self.number.store(number, Ordering::Release);
            self.is_measured.store(false, Ordering::Release);
            self.measured.store(None);
        }
    }

    /// Takes over the numbers of verdicts of another bound.
    pub fn with_probes_of(self, other: &Self) -> Self {
        let count = |at: usize| AtomicU64::new(other.probes[at].load(Ordering::Relaxed));
        Self { probes: std::array::from_fn(count), ..self }
    }

    /// The bound if it is a number; `u32::MAX`: there is no such bound.
    pub fn number(&self) -> u32 {
        self.number.load(Ordering::Relaxed)
    }

    /// The bound if it is measured.
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

    /// The current bound of either kind; `u32::MAX`: there is none.
    pub fn most(&self) -> u32 {
        self.of_measured(|it| it.most.load(Ordering::Relaxed)).unwrap_or_else(|| self.number())
    }

    /// Whether there is no room. `in_flight`: requests of the backend, counted up to their ends.
    pub fn is_full(&self, in_flight: u32) -> bool {
        let (held, most) = self.taken(in_flight);
        held >= most
    }

    /// Whether half of the places are taken; never without a bound. `in_flight`: as in [`BoundInForce::is_full`].
    pub fn is_half_full(&self, in_flight: u32) -> bool {
        let (held, most) = self.taken(in_flight);
        is_half(held, most)
    }

    /// How many places are taken, and how many there are.
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

    /// How often a trial had that verdict.
    pub fn probes(&self, verdict: ProbeVerdict) -> u64 {
        self.probes[verdict as usize].load(Ordering::Relaxed)
    }

    /// Lets a measured bound move. Returns whether it has moved.
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
    /// Locked for a few instructions at the beginning of a request and at its answer's head, never across I/O.
    limit: Mutex<AutoLimit>,
    /// How many places there are, and how many are held. Written under the lock, so that they can be read without it.
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
        // Sequentially consistent: a request that joins the line, and is not seen when this place is given back, sees
        // the place.
        self.held.store(limit.in_flight(), Ordering::SeqCst);
        result
    }

    /// Takes a place; `None`: there is none.
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
            // The time is not known here; with 0, the limit goes by the latest time that it was given.
            self.of.change(|limit| limit.ended(attempt, false, 0));
        }
    }
}

/// A measured bound, as it is shown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MeasuredReport {
    /// How many of its places are held.
    pub held: u32,
    /// The median time of recent answers up to the head, in seconds; `None`: there was no answer.
    pub median_s: Option<f64>,
    /// What moved the bound last; `None`: it has not moved.
    pub moved: Option<AutoMove>,
}
