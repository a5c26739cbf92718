//! How many workers run. Idle threads cost nothing, but waking a fresh one for an event that a running one would take a
//! moment later costs microseconds: so there are many workers, of which at most `limit` wait for events, run, or are in
//! a short backend call. The others sit on a stack. A worker whose call takes long stops counting, and the next one
//! takes its place; so does, from the start, a worker that calls a backend known to be slow.

mod adapt;
mod calls;
mod share;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::ops::RangeInclusive;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, Thread};

use parking_lot::Mutex;

use self::calls::{EndpointPace, PACES};
use self::share::Share;
use super::wake::Wake;
use crate::clock::Clock;
use balancer_time::Nanos;

/// A call longer than this stops counting, to begin with; the keeper looks every millisecond or two.
const LONG_CALL_NS: Nanos = 1_500_000;
/// What that may become while there is processor time to spare and nobody waits for events, and while there is none.
const LONG_CALL_BOUNDS_NS: RangeInclusive<Nanos> = 100_000..=4_000_000;
/// Work longer than this stops counting too, whatever it is: nothing a worker does may close the door.
const LONG_WORK_NS: Nanos = 20_000_000;
/// After this many looks in a row with somebody waiting for events, the keeper looks no more: starting again costs a
/// system call and a switch.
const CALM_TICKS: u32 = 16;

thread_local! {
    static WORKER: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// How many workers run at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Active {
    /// At least, while the processors are the bottleneck.
    pub least: usize,
    /// At least, while they are not.
    pub usual: usize,
    pub most: usize,
}

/// Where a worker stands.
const COUNTED: u8 = 0;
const CALLING: u8 = 1;
const UNCOUNTED: u8 = 2;

#[repr(align(64))]
#[derive(Default)]
struct Station {
    standing: AtomicU8,
    /// Off the stack and counted: go on.
    go: AtomicBool,
    /// When its backend call began; 0: in none.
    calling_since: AtomicU64,
    /// When it took its event; 0: in none.
    working_since: AtomicU64,
    endpoint: AtomicU32,
    /// The endpoint that it is counted as stuck on, plus 1; 0: on none.
    stuck_on: AtomicU32,
    /// It streams an upload: not counted, and its calls say nothing about the backend's speed.
    streaming: AtomicBool,
    /// Events that it took, and how many of them left nobody waiting for the next.
    events: AtomicU64,
    last_out: AtomicU64,
    /// Whose request it is at.
    token: AtomicU64,
    thread: OnceLock<Thread>,
}

/// Adds one to a count that only the calling thread writes.
fn add_own(count: &AtomicU64) {
    count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

/// See the module.
pub(super) struct Gate {
    /// How many may count now, within `bounds`.
    limit: AtomicUsize,
    bounds: Active,
    /// The keeper's alone.
    share: Mutex<Share>,
    /// A call longer than this stops counting.
    long_call_ns: AtomicU64,
    active: AtomicUsize,
    /// Workers waiting for an event.
    idle: AtomicUsize,
    stack: Mutex<Vec<usize>>,
    stations: Box<[Station]>,
    /// A bit for each worker that is not parked, so that the keeper's look touches nobody else's memory.
    awake: Box<[AtomicU64]>,
    paces: Box<[EndpointPace]>,
    ticking: AtomicBool,
    calm_ticks: AtomicU32,
    seen_events: AtomicU64,
    seen_last_out: AtomicU64,
    closed: AtomicBool,
    clock: Clock,
    keeper: Wake,
}

impl Gate {
    /// For that many workers, of which a number in `active` runs at once.
    pub fn new(workers: usize, active: Active, clock: Clock, keeper: Wake) -> Self {
        let most = active.most.clamp(1, workers.max(1));
        let usual = active.usual.clamp(1, most);
        Self {
            limit: AtomicUsize::new(most),
            bounds: Active { least: active.least.clamp(1, usual), usual, most },
            share: Mutex::default(),
            long_call_ns: AtomicU64::new(LONG_CALL_NS),
            active: AtomicUsize::new(0),
            idle: AtomicUsize::new(0),
            stack: Mutex::new(Vec::with_capacity(workers)),
            stations: (0..workers).map(|_| Station::default()).collect(),
            awake: (0..workers.div_ceil(64)).map(|_| AtomicU64::new(u64::MAX)).collect(),
            paces: (0..PACES).map(|_| EndpointPace::default()).collect(),
            ticking: AtomicBool::new(false),
            calm_ticks: AtomicU32::new(0),
            seen_events: AtomicU64::new(0),
            seen_last_out: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            clock,
            keeper,
        }
    }

    /// A worker's first step, on its own thread: counted or parked until it is.
    pub fn enter(&self, worker: usize) {
        WORKER.set(worker);
        let _ = self.stations[worker].thread.set(thread::current());
        self.stations[worker].standing.store(UNCOUNTED, Ordering::SeqCst);
        self.count_or_park(worker);
    }

    /// Before a worker waits for an event. True: nobody else does.
    pub fn before_wait(&self) -> bool {
        self.idle.fetch_add(1, Ordering::SeqCst) == 0
    }

    /// Whether somebody waits for an event.
    pub fn is_anybody_waiting(&self) -> bool {
        self.idle.load(Ordering::SeqCst) > 0
    }

    /// Whether somebody waits for an event beside the worker that asks, which does so, too.
    pub fn is_another_waiting(&self) -> bool {
        self.idle.load(Ordering::SeqCst) > 1
    }

    /// A worker goes on with an event that it had not to wait for.
    pub fn took(&self, worker: usize) {
        add_own(&self.stations[worker].events);
    }

    /// After it got one. When nobody waits any more and somebody may, a parked worker takes its place.
    pub fn after_wait(&self, worker: usize) {
        let station = &self.stations[worker];
        add_own(&station.events);
        if self.idle.fetch_sub(1, Ordering::SeqCst) == 1 {
            add_own(&station.last_out);
            self.promote();
            // Nobody waits for events: from now on it matters how long the others are away.
            if !self.ticking.load(Ordering::SeqCst) && !self.ticking.swap(true, Ordering::SeqCst) {
                self.keeper.wake();
            }
        }
    }

    /// Notes whose request a worker is at, and since when.
    pub fn begin_work(&self, worker: usize, token: u64, now: Nanos) {
        let Some(station) = self.stations.get(worker) else { return };
        station.token.store(token, Ordering::Relaxed);
        station.working_since.store(now, Ordering::Relaxed);
    }

    /// A worker is through with an event.
    pub fn end_work(&self, worker: usize) {
        let station = &self.stations[worker];
        station.working_since.store(0, Ordering::Relaxed);
        station.streaming.store(false, Ordering::Relaxed);
    }

    /// Before a worker waits for an event: one that no longer counts is counted again or parks. Not while there are events
    /// that have been taken from the kernel: it could be the only one that knows. Takes the stack's lock.
    pub fn count_or_park(&self, worker: usize) {
        let station = &self.stations[worker];
        if station.standing.load(Ordering::SeqCst) != UNCOUNTED && !self.is_surplus(station) {
            return;
        }
        {
            let mut stack = self.stack.lock();
            if self.closed.load(Ordering::SeqCst) || self.try_count() {
                station.standing.store(COUNTED, Ordering::SeqCst);
                return;
            }
            station.go.store(false, Ordering::SeqCst);
            stack.push(worker);
            self.awake[worker / 64].fetch_and(!(1 << (worker % 64)), Ordering::SeqCst);
        }
        while !station.go.load(Ordering::SeqCst) {
            thread::park();
        }
        station.standing.store(COUNTED, Ordering::SeqCst);
    }

    /// The worker is about to stream an upload, at the client's speed: it no longer counts.
    pub fn begin_streaming(&self, worker: usize) {
        let station = &self.stations[worker];
        station.streaming.store(true, Ordering::Relaxed);
        self.discount(station, COUNTED);
    }

    fn try_count(&self) -> bool {
        let limit = self.limit.load(Ordering::SeqCst);
        let counted = |active| if active < limit { Some(active + 1) } else { None };
        self.active.fetch_update(Ordering::SeqCst, Ordering::SeqCst, counted).is_ok()
    }

    /// Lets the most recently parked worker run if nobody waits for events and one more may. Takes the stack's lock.
    fn promote(&self) {
        if self.idle.load(Ordering::SeqCst) > 0
            || self.active.load(Ordering::SeqCst) >= self.limit.load(Ordering::SeqCst)
        {
            return;
        }
        let mut stack = self.stack.lock();
        let Some(worker) = stack.last().copied() else { return };
        if !self.try_count() {
            return;
        }
        stack.pop();
        drop(stack);
        self.release(worker);
    }

    fn release(&self, worker: usize) {
        let station = &self.stations[worker];
        self.awake[worker / 64].fetch_or(1 << (worker % 64), Ordering::SeqCst);
        station.go.store(true, Ordering::SeqCst);
        if let Some(thread) = station.thread.get() {
            thread.unpark();
        }
    }

    /// Stops counting a worker; the next one may run.
    fn discount(&self, station: &Station, from: u8) -> bool {
        let moved = station.standing.compare_exchange(from, UNCOUNTED, Ordering::SeqCst, Ordering::SeqCst);
        if moved.is_ok() {
            self.active.fetch_sub(1, Ordering::SeqCst);
            self.promote();
        }
        moved.is_ok()
    }

    /// How soon the keeper should look again; `None` while it does not matter.
    pub fn tick_span(&self) -> Option<Nanos> {
        const TICK_NS: RangeInclusive<Nanos> = 1_000_000..=2_000_000;
        let half = self.long_call_ns.load(Ordering::Relaxed) / 2;
        self.ticking.load(Ordering::SeqCst).then(|| half.clamp(*TICK_NS.start(), *TICK_NS.end()))
    }

    /// The keeper's look at all workers: whoever is away for long counts no more.
    pub fn tick(&self, now: Nanos) {
        let long_call_ns = self.long_call_ns.load(Ordering::Relaxed);
        for station in self.awake() {
            match station.standing.load(Ordering::SeqCst) {
                CALLING => {
                    let since = station.calling_since.load(Ordering::Relaxed);
                    if now.saturating_sub(since) >= long_call_ns && self.discount(station, CALLING) {
                        self.mark_stuck(station);
                    }
                }
                COUNTED => {
                    let since = station.working_since.load(Ordering::Relaxed);
                    if since != 0 && now.saturating_sub(since) > LONG_WORK_NS {
                        self.discount(station, COUNTED);
                    }
                }
                _ => {}
            }
        }
        self.stop_ticking_when_calm();
    }

    /// Every worker that is not parked, and perhaps some that just did.
    fn awake(&self) -> impl Iterator<Item = &Station> {
        self.awake.iter().enumerate().flat_map(move |(word, bits)| {
            let mut bits = bits.load(Ordering::SeqCst);
            std::iter::from_fn(move || {
                let bit = bits.trailing_zeros();
                // Clears the lowest bit that is set; without one there is nothing to clear.
                bits &= bits.checked_sub(1)?;
                self.stations.get(word * 64 + bit as usize)
            })
        })
    }

    fn stop_ticking_when_calm(&self) {
        if self.idle.load(Ordering::SeqCst) == 0 {
            self.calm_ticks.store(0, Ordering::Relaxed);
        } else if self.calm_ticks.fetch_add(1, Ordering::Relaxed) >= CALM_TICKS {
            self.ticking.store(false, Ordering::SeqCst);
            // The last one may have left at this moment, and seen us still ticking.
            if self.idle.load(Ordering::SeqCst) == 0 {
                self.ticking.store(true, Ordering::SeqCst);
            }
        }
    }

    /// Whether no worker is free: none waits for an event, none is parked.
    pub fn is_exhausted(&self) -> bool {
        self.idle.load(Ordering::SeqCst) == 0 && self.stack.lock().is_empty()
    }

    /// Whether every worker has been at the same event since `before`.
    pub fn all_at_work_since(&self, before: Nanos) -> bool {
        self.stations.iter().all(|station| {
            let since = station.working_since.load(Ordering::Relaxed);
            since != 0 && since <= before
        })
    }

    /// Calls back with the token of each request that a worker has been at since `before`.
    pub fn at_work_since(&self, before: Nanos, mut visit: impl FnMut(u64)) {
        for station in self.awake() {
            let since = station.working_since.load(Ordering::Relaxed);
            if since != 0 && since <= before {
                visit(station.token.load(Ordering::Relaxed));
            }
        }
    }

    /// Workers at a request.
    pub fn busy(&self) -> usize {
        self.awake().filter(|station| station.working_since.load(Ordering::Relaxed) != 0).count()
    }

    /// Lets every worker go on, so that it can end. Takes the stack's lock.
    pub fn close(&self) {
        let parked = {
            let mut stack = self.stack.lock();
            self.closed.store(true, Ordering::SeqCst);
            std::mem::take(&mut *stack)
        };
        parked.into_iter().for_each(|worker| self.release(worker));
    }
}

#[cfg(test)]
impl Gate {
    /// Another limit, as the keeper would set it.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::SeqCst);
        self.promote();
    }

    pub fn counted(&self) -> usize {
        self.active.load(Ordering::SeqCst)
    }
}
