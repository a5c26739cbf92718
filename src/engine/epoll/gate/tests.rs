//! The gate with threads: who runs, who is parked, and who takes whose place.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Duration;

use super::super::pressure::Look;
use super::*;
use crate::waits::CallObserver as _;

/// Workers that take turns at the gate and count how many are between `enter` and the next park.
struct Crew {
    gate: Arc<Gate>,
    clock: Clock,
    inside: Arc<AtomicUsize>,
    threads: Vec<thread::JoinHandle<()>>,
    stop: Arc<AtomicBool>,
}

impl Crew {
    /// `work` is what each does for an event, with its own number.
    fn new(workers: usize, active: Active, work: impl Fn(&Gate, usize) + Send + Sync + 'static) -> Self {
        let clock = Clock::manual();
        let gate = Arc::new(Gate::new(workers, active, clock.clone(), Wake::new().expect("an eventfd")));
        let (inside, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let work = Arc::new(work);
        let threads = (0..workers)
            .map(|number| {
                let (gate, inside, stop, work) = (gate.clone(), inside.clone(), stop.clone(), work.clone());
                thread::spawn(move || {
                    gate.enter(number);
                    inside.fetch_add(1, Ordering::SeqCst);
                    while !stop.load(Ordering::SeqCst) {
                        gate.before_wait();
                        gate.after_wait(number);
                        work(&gate, number);
                        inside.fetch_sub(1, Ordering::SeqCst);
                        gate.end_work(number);
                        gate.count_or_park(number);
                        inside.fetch_add(1, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        Self { gate, clock, inside, threads, stop }
    }

    fn end(self) {
        self.stop.store(true, Ordering::SeqCst);
        self.gate.close();
        for thread in self.threads {
            thread.join().expect("a worker ends");
        }
    }
}

/// Work that takes until it is over; from then on, each event takes a moment.
#[derive(Default)]
struct Absence {
    begun: AtomicUsize,
    away: AtomicUsize,
    over: AtomicBool,
}

impl Absence {
    /// `begin` is told which it is, from 0.
    fn last(&self, gate: &Gate, begin: impl FnOnce(usize)) {
        if self.over.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_micros(50));
            return;
        }
        begin(self.begun.fetch_add(1, Ordering::SeqCst));
        self.away.fetch_add(1, Ordering::SeqCst);
        while !self.over.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_micros(50));
        }
        gate.ended();
    }

    fn away(&self) -> usize {
        self.away.load(Ordering::SeqCst)
    }

    fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
    }
}

fn exactly(workers: usize) -> Active {
    Active { least: workers, usual: workers, most: workers }
}

fn look(saturated: bool, used: Option<u64>) -> Look {
    Look { saturated, used }
}

fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..10_000 {
        if holds() {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
    panic!("never happened: {what}");
}

#[test]
fn no_more_than_the_limit_run_and_everybody_ends() {
    let crew = Crew::new(16, exactly(3), |_, _| thread::sleep(Duration::from_micros(100)));
    until("three run", || crew.inside.load(Ordering::SeqCst) == 3);
    for _ in 0..200 {
        assert!(crew.inside.load(Ordering::SeqCst) <= 3);
        thread::sleep(Duration::from_micros(200));
    }
    assert_eq!(crew.gate.active.load(Ordering::SeqCst), 3);
    crew.end();
}

#[test]
fn a_worker_in_a_long_call_is_replaced_and_comes_back_without_raising_the_count() {
    let calls = Arc::new(Absence::default());
    let calling = calls.clone();
    let crew = Crew::new(8, exactly(2), move |gate, _| calling.last(gate, |_| gate.began(5)));
    until("two call", || calls.away() == 2);
    // Short calls count: nobody takes their place yet.
    crew.gate.tick(crew.clock.now());
    assert_eq!(calls.away(), 2);
    crew.clock.advance(Duration::from_millis(5));
    crew.gate.tick(crew.clock.now());
    // Two more come, find the endpoint stuck, stop counting at once, and so on to the last.
    until("all eight call", || calls.away() == 8);
    assert!(crew.gate.is_exhausted());
    calls.end();
    until("they are two again", || crew.gate.active.load(Ordering::SeqCst) == 2);
    until("the others are parked", || crew.gate.stack.lock().len() == 6);
    assert_eq!(crew.gate.pace(5).stuck.load(Ordering::SeqCst), 0, "nobody is stuck any more");
    crew.end();
}

#[test]
fn the_limit_follows_what_there_is_to_spare() {
    let active = Active { least: 1, usual: 2, most: 8 };
    let crew = Crew::new(16, active, |_, _| thread::sleep(Duration::from_micros(100)));
    let limit = || crew.gate.limit.load(Ordering::SeqCst);
    until("eight run", || crew.inside.load(Ordering::SeqCst) == 8);
    for _ in 0..10 {
        crew.gate.adapt(&look(true, None));
    }
    assert_eq!(crew.gate.long_call_ns.load(Ordering::SeqCst), *LONG_CALL_BOUNDS_NS.end());
    assert_eq!(limit(), 8, "nobody knows yet what they get");
    crew.gate.adapt(&look(true, Some(220)));
    assert_eq!(limit(), 2);
    until("six have parked", || crew.gate.stack.lock().len() == 14);
    crew.gate.adapt(&look(true, Some(80)));
    assert_eq!(limit(), 1);
    until("all but one have parked", || crew.gate.stack.lock().len() == 15);
    crew.gate.adapt(&look(false, None));
    assert!(limit() >= 2, "there are processors to spare again");
    crew.end();
}

#[test]
fn a_single_worker_that_waits_or_works_for_long_is_replaced() {
    let absence = Arc::new(Absence::default());
    let work = absence.clone();
    let crew = Crew::new(3, exactly(1), move |gate, worker| {
        work.last(gate, |number| {
            gate.begin_work(worker, 0, gate.clock.now());
            if number == 0 {
                // One that is known to take a while.
                gate.pace(0).mean_ns.store(5_000_000, Ordering::SeqCst);
                gate.began(0);
            }
        });
    });
    crew.clock.advance(Duration::from_secs(1));
    until("the one that waits is replaced at once", || absence.away() == 2);
    crew.gate.tick(crew.clock.now());
    assert_eq!(absence.away(), 2, "nobody knows whether it will be long");
    crew.clock.advance(Duration::from_millis(25));
    crew.gate.tick(crew.clock.now());
    until("the one that works is replaced later", || absence.away() == 3);
    absence.end();
    until("one runs", || crew.gate.stack.lock().len() == 2);
    crew.end();
}
