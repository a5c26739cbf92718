use std::sync::Barrier;
use std::sync::atomic::AtomicU32;

use super::*;
use balancer_importance::Priority;

mod changes;
mod model;

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

/// A request of the client with this number.
pub(crate) fn member(client: u64, arrived: Nanos) -> LineMember {
    let who = Who { client, priority: Priority::Normal };
    LineMember { who, weight: 1, arrived, name: format!("client {client}").into() }
}

/// A line for at most `size` requests.
pub(crate) fn queue(order: QueueOrder, size: usize) -> Arc<Queue> {
    let queue = Arc::<Queue>::default();
    queue.configure(QueuePolicy { order, size, target: None });
    queue
}

struct Bench {
    queue: Arc<Queue>,
    calls: Arc<Mutex<Vec<&'static str>>>,
    /// One nanosecond later with each request that joins.
    now: Nanos,
}

impl Bench {
    /// Runs the test with both orders: both send the requests of one client in the order of arrival.
    fn both(test: impl Fn(Self)) {
        for (_, order) in QueueOrder::ALL {
            test(Self { queue: queue(order, 3), calls: Arc::default(), now: 0 });
        }
    }

    fn join(&mut self) -> Result<QueuePlace, LineRefusal> {
        self.now += 1;
        self.queue.join(member(7, self.now), self.now)
    }

    /// A request that joins, tries without success if it may, and sleeps.
    fn sleeper(&mut self, name: &'static str) -> QueuePlace {
        let mut place = self.join().expect("room in the line");
        if place.standing() == LineStanding::Trying {
            assert!(place.sleep(false, self.now), "{name}: nothing was freed");
        }
        assert!(place.on_turn(waker(&self.calls, name)));
        place
    }

    fn sleepers<const N: usize>(&mut self, names: [&'static str; N]) -> [QueuePlace; N] {
        names.map(|name| self.sleeper(name))
    }

    fn woken(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.calls.lock())
    }
}

fn may_try(place: &QueuePlace) -> bool {
    place.standing() == LineStanding::Trying
}

#[test]
fn the_first_tries_at_once_and_the_others_in_turn() {
    Bench::both(|mut bench| {
        let first = bench.join().expect("empty");
        assert!(may_try(&first) && !bench.queue.is_empty());
        drop(first);
        let [a, b, c] = bench.sleepers(["a", "b", "c"]);
        assert_eq!(bench.join().err(), Some(LineRefusal::Full), "a line of three is full");
        bench.queue.freed();
        assert_eq!(bench.woken(), ["a"], "one lease, one wake-up");
        assert!(may_try(&a) && !may_try(&b));
        assert!(matches!(a.leave(false), Passage::Waited { .. }));
        assert!(bench.woken().is_empty(), "that lease's room is taken");
        bench.queue.freed();
        bench.queue.freed();
        assert_eq!(bench.woken(), ["b", "c"]);
        drop(c);
        assert_eq!(bench.queue.len(), 1);
        let _ = b.leave(false);
        assert!(bench.queue.is_empty());
        bench.queue.freed();
        assert!(may_try(&bench.join().expect("empty again")));
    });
}

#[test]
fn who_tries_in_vain_keeps_its_place() {
    Bench::both(|mut bench| {
        let [mut a, _b] = bench.sleepers(["a", "b"]);
        bench.queue.freed();
        assert!(a.sleep(false, 5) && a.on_turn(waker(&bench.calls, "a")));
        bench.queue.freed();
        assert_eq!(bench.woken(), ["a", "a"]);
    });
}

#[test]
fn what_is_freed_while_nobody_sleeps_is_remembered() {
    Bench::both(|mut bench| {
        for choosy in [false, true] {
            let mut a = bench.sleeper("a");
            bench.queue.freed();
            bench.queue.freed();
            assert!(!a.sleep(choosy, 2), "between its try and its sleep something was freed");
            assert!(may_try(&a) && a.sleep(choosy, 2), "once");
            bench.queue.freed();
            bench.queue.freed();
            let b = bench.join().expect("room");
            assert!(may_try(&b), "the second one is for who joins");
            let c = bench.join().expect("room");
            assert!(!may_try(&c));
        }
    });
}

#[test]
fn a_place_that_is_given_up_passes_its_turn_on() {
    Bench::both(|mut bench| {
        let [a, b, c] = bench.sleepers(["a", "b", "c"]);
        drop(b);
        bench.queue.freed();
        assert_eq!(bench.woken(), ["a"]);
        drop(a);
        assert_eq!(bench.woken(), ["c"]);
        drop(c);
        assert!(bench.queue.is_empty());
    });
}

#[test]
fn who_cannot_take_what_there_is_lets_the_next_try() {
    Bench::both(|mut bench| {
        let [mut a, mut b, c] = bench.sleepers(["a", "b", "c"]);
        bench.queue.freed();
        assert!(a.sleep(true, 5) && b.sleep(true, 5));
        assert_eq!(bench.woken(), ["a", "b", "c"]);
        drop((a, b, c));
        // There is no request behind it, so the free place is left to the next one that joins.
        let mut a = bench.sleeper("a");
        bench.queue.freed();
        assert!(a.sleep(true, bench.now));
        let mut joins = bench.join().expect("room");
        assert!(may_try(&joins));
        // It finds no free place, so the next one that joins is not told to try.
        assert!(joins.sleep(false, bench.now));
        assert!(!may_try(&bench.join().expect("room")));
    });
}

/// Many requests can't use the free place. Each gets its try in the end, though one event wakes at most eight.
#[test]
fn what_eight_cannot_use_is_tried_by_others_later() {
    for (_, order) in QueueOrder::ALL {
        let queue = queue(order, 100);
        let calls = Arc::default();
        let mut places: Vec<QueuePlace> = (0..20)
            .map(|client| {
                let mut place = queue.join(member(client, client), client).unwrap();
                if may_try(&place) {
                    assert!(place.sleep(false, client));
                }
                assert!(place.on_turn(waker(&calls, "woken")));
                place
            })
            .collect();
        queue.freed();
        let mut tried = Vec::new();
        for event in 1..=3 {
            while let Some(at) = places.iter().position(may_try) {
                assert!(places[at].sleep(true, 100));
                tried.push(at);
                assert!(tried.len() <= 20, "{order:?}");
            }
            assert_eq!(tried.len(), (8 * event).min(20), "{order:?}");
            // A request that joins and leaves makes the line offer the place again.
            drop(queue.join(member(99, 100), 100).unwrap());
        }
        tried.sort_unstable();
        tried.dedup();
        assert_eq!(tried.len(), 20, "{order:?}: everybody had a turn");
    }
}

#[test]
fn a_change_wakes_one_after_the_other_while_there_is_room() {
    Bench::both(|mut bench| {
        let [a, mut b, c] = bench.sleepers(["a", "b", "c"]);
        bench.queue.changed();
        assert_eq!(bench.woken(), ["a"], "not all at once");
        let _ = a.leave(false);
        assert_eq!(bench.woken(), ["b"]);
        assert!(may_try(&b) && b.sleep(false, 5));
        assert!(bench.woken().is_empty(), "no more room: the sweep is over");
        assert!(!may_try(&bench.join().expect("room")));
        drop(c);
    });
}

#[test]
fn waiting_ends_with_a_turn_or_in_time() {
    Bench::both(|mut bench| {
        let now = real_time();
        let [a, b] = bench.sleepers(["a", "b"]);
        let began = now();
        assert!(!b.wait(began + 20_000_000, &now));
        assert!(now() >= began + 20_000_000);
        thread::scope(|scope| {
            let waiter = scope.spawn(|| a.wait(Nanos::MAX, &now));
            bench.queue.freed();
            assert!(waiter.join().expect("no panic"));
        });
    });
}

/// A woken request that goes to another free place than the one it was woken for leaves that one to the next request.
#[test]
fn who_finds_other_room_than_what_woke_it_passes_that_on() {
    Bench::both(|mut bench| {
        let [a, mut b, c] = bench.sleepers(["a", "b", "c"]);
        bench.queue.freed();
        let _ = a.leave(true);
        assert_eq!(bench.woken(), ["a", "b"]);
        assert!(may_try(&b) && b.sleep(false, 5), "there was only one");
        assert!(bench.woken().is_empty());
        drop(c);
    });
}

/// A request that went straight past the line counts as in flight while its client waits in line. It does not count if
/// it ended while the client's first request joined: at its end there was no line yet that could be told.
#[test]
fn who_tried_in_vain_knows_what_its_client_has_in_flight() {
    for (choosy, ends) in [(false, false), (true, false), (false, true), (true, true)] {
        let queue = queue(QueueOrder::Fair, 9);
        let who = member(1, 0).who;
        let passage = queue.went_straight(who);
        assert_eq!(passage, Passage::Straight(who));
        let mut place = queue.join(member(1, 0), 0).expect("room");
        if ends {
            queue.straight.get().expect("it was counted").end(who);
        }
        assert!(place.sleep(choosy, 1));
        assert_eq!(queue.line.lock().in_flight(who), u32::from(!ends), "{choosy} {ends}");
    }
}

/// Threads take permits as requests take leases: no thread sleeps while a permit is free, no more permits are given
/// than there are, and at the end all counts are zero.
#[test]
fn no_wake_up_is_lost_across_threads() {
    const THREADS: u64 = 8;
    const ROUNDS: u64 = 1_000;
    for (_, order) in QueueOrder::ALL {
        for permits in [1, 3] {
            crowd(order, permits, THREADS, ROUNDS);
        }
    }
}

fn crowd(order: QueueOrder, permits: u32, threads: u64, rounds: u64) {
    let queue = queue(order, usize::MAX);
    let taken = AtomicU32::new(0);
    let start = Barrier::new(threads as usize);
    let now = real_time();
    let try_once = || {
        let next = |now: u32| (now < permits).then_some(now + 1);
        taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    };
    let take = |client: u64| -> Passage {
        let member = member(client, now());
        if queue.is_empty() && try_once() {
            return queue.went_straight(member.who);
        }
        let mut place = queue.join(member, now()).expect("no bound");
        loop {
            // The wait is far longer than the test, so it ends without a turn only if a wake-up was lost.
            assert!(place.wait(now() + 60_000_000_000, &now), "a wake-up was lost");
            if try_once() {
                return place.leave(false);
            }
            let _ = place.sleep(false, now());
        }
    };
    thread::scope(|scope| {
        for thread in 0..threads {
            let (start, take, taken, queue, now) = (&start, &take, &taken, &queue, &now);
            scope.spawn(move || {
                start.wait();
                for round in 0..rounds {
                    // Five clients for eight threads: several threads send requests of the same client.
                    let passage = take((thread + round) % 5);
                    let began = now();
                    assert!(taken.load(Ordering::Relaxed) <= permits);
                    if round % 3 == 0 {
                        thread::yield_now();
                    }
                    taken.fetch_sub(1, Ordering::SeqCst);
                    let at = now();
                    queue.ended(passage, Some(at - began), Some(at));
                }
            });
        }
    });
    assert!(queue.is_empty() && taken.load(Ordering::Relaxed) == 0);
    let who = |client| member(client, 0).who;
    let counted: u32 = (0..5).map(|client| queue.straight_of(who(client))).sum();
    assert_eq!(counted, 0, "whatever went straight has ended");
    let line = queue.line.lock();
    assert_eq!((0..5).map(|client| line.in_flight(who(client))).sum::<u32>(), 0, "{order:?}");
}
