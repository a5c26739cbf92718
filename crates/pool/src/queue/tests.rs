use std::sync::Barrier;
use std::sync::atomic::AtomicU32;

use super::*;

/// Real time, from 0 on. The library has no clock that its tests could borrow.
#[allow(clippy::disallowed_methods)]
pub(crate) fn real_time() -> impl Fn() -> Nanos {
    let origin = std::time::Instant::now();
    move || balancer_time::nanos(origin.elapsed())
}

/// Notes its name when it is called.
fn waker(calls: &Arc<Mutex<Vec<&'static str>>>, name: &'static str) -> Waker {
    let calls = Arc::clone(calls);
    Box::new(move || calls.lock().push(name))
}

struct Bench {
    queue: Arc<Queue>,
    calls: Arc<Mutex<Vec<&'static str>>>,
}

impl Bench {
    fn new() -> Self {
        Self { queue: Arc::default(), calls: Arc::default() }
    }

    /// Joins, tries in vain if it is to try, and sleeps.
    fn sleeper(&self, name: &'static str) -> QueuePlace {
        let mut place = self.queue.join(usize::MAX).expect("room in the line");
        if place.may_try() {
            assert!(place.sleep(false), "{name}: nothing was freed");
        }
        assert!(place.on_turn(waker(&self.calls, name)));
        place
    }

    fn woken(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.calls.lock())
    }
}

#[test]
fn the_first_tries_at_once_and_the_others_in_turn() {
    let bench = Bench::new();
    let first = bench.queue.join(3).expect("empty");
    assert!(first.may_try() && !bench.queue.is_empty());
    drop(first);
    let [a, b, c] = ["a", "b", "c"].map(|name| bench.sleeper(name));
    assert!(bench.queue.join(3).is_none(), "a line of three is full");
    bench.queue.freed();
    assert_eq!(bench.woken(), ["a"], "one lease, one wake-up");
    assert!(a.may_try() && !b.may_try());
    a.leave();
    assert!(bench.woken().is_empty(), "that lease's room is taken");
    bench.queue.freed();
    bench.queue.freed();
    assert_eq!(bench.woken(), ["b", "c"]);
    drop(c);
    assert_eq!(bench.queue.len(), 1);
    b.leave();
    assert!(bench.queue.is_empty());
    bench.queue.freed();
    assert!(bench.queue.join(1).expect("empty again").may_try());
}

#[test]
fn who_tries_in_vain_keeps_its_place() {
    let bench = Bench::new();
    let (mut a, _b) = (bench.sleeper("a"), bench.sleeper("b"));
    bench.queue.freed();
    assert!(a.sleep(false) && a.on_turn(waker(&bench.calls, "a")));
    bench.queue.freed();
    assert_eq!(bench.woken(), ["a", "a"]);
}

#[test]
fn what_is_freed_while_nobody_sleeps_is_remembered() {
    let bench = Bench::new();
    let mut a = bench.sleeper("a");
    bench.queue.freed();
    bench.queue.freed();
    assert!(!a.sleep(false), "between its try and its sleep something was freed");
    assert!(a.sleep(false), "once");
    bench.queue.freed();
    bench.queue.freed();
    let b = bench.queue.join(9).expect("room");
    assert!(b.may_try(), "the second one is for who joins");
    let c = bench.queue.join(9).expect("room");
    assert!(!c.may_try());
}

#[test]
fn a_place_that_is_given_up_passes_its_turn_on() {
    let bench = Bench::new();
    let [a, b, c] = ["a", "b", "c"].map(|name| bench.sleeper(name));
    drop(b);
    bench.queue.freed();
    assert_eq!(bench.woken(), ["a"]);
    drop(a);
    assert_eq!(bench.woken(), ["c"]);
    drop(c);
    assert!(bench.queue.is_empty());
}

#[test]
fn who_cannot_take_what_there_is_lets_the_next_try() {
    let bench = Bench::new();
    let [mut a, mut b, _c] = ["a", "b", "c"].map(|name| bench.sleeper(name));
    bench.queue.freed();
    assert!(a.sleep(true) && b.sleep(true));
    assert_eq!(bench.woken(), ["a", "b", "c"]);
    // Nobody behind it: the room is for whoever joins.
    let bench = Bench::new();
    let mut a = bench.sleeper("a");
    bench.queue.freed();
    assert!(a.sleep(true));
    assert!(bench.queue.join(9).expect("room").may_try());
}

#[test]
fn a_change_wakes_one_after_the_other_while_there_is_room() {
    let bench = Bench::new();
    let [a, mut b, _c] = ["a", "b", "c"].map(|name| bench.sleeper(name));
    bench.queue.changed();
    assert_eq!(bench.woken(), ["a"], "not all at once");
    a.leave();
    assert_eq!(bench.woken(), ["b"]);
    assert!(b.sleep(false));
    assert!(bench.woken().is_empty(), "no more room: the sweep is over");
    assert!(!bench.queue.join(9).expect("room").may_try());
}

#[test]
fn waiting_ends_with_a_turn_or_in_time() {
    let bench = Bench::new();
    let now = real_time();
    let (a, b) = (bench.sleeper("a"), bench.sleeper("b"));
    let began = now();
    assert!(!b.wait(began + 20_000_000, &now));
    assert!(now() >= began + 20_000_000);
    thread::scope(|scope| {
        let waiter = scope.spawn(|| a.wait(Nanos::MAX, &now));
        bench.queue.freed();
        assert!(waiter.join().expect("no panic"));
    });
}

/// Permits that are counted as leases are: nobody is left asleep beside a free one, nobody overtakes for long, the bound holds.
#[test]
fn no_wake_up_is_lost_across_threads() {
    const THREADS: u32 = 8;
    const ROUNDS: u32 = 2_000;
    for permits in [1, 3] {
        let queue = Arc::new(Queue::default());
        let (taken, done) = (AtomicU32::new(0), AtomicU32::new(0));
        let start = Barrier::new(THREADS as usize);
        let now = real_time();
        let try_once = || {
            let next = |now: u32| (now < permits).then_some(now + 1);
            taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
        };
        let take = || {
            if queue.is_empty() && try_once() {
                return;
            }
            let mut place = queue.join(usize::MAX).expect("no bound");
            loop {
                // Hours would pass here if a wake-up were lost.
                assert!(place.wait(now() + 60_000_000_000, &now), "a wake-up was lost");
                if try_once() {
                    return place.leave();
                }
                let _ = place.sleep(false);
            }
        };
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    start.wait();
                    for round in 0..ROUNDS {
                        take();
                        assert!(taken.load(Ordering::Relaxed) <= permits);
                        if round % 3 == 0 {
                            thread::yield_now();
                        }
                        taken.fetch_sub(1, Ordering::SeqCst);
                        queue.freed();
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(done.load(Ordering::Relaxed), THREADS * ROUNDS);
        assert!(queue.is_empty() && taken.load(Ordering::Relaxed) == 0);
    }
}
