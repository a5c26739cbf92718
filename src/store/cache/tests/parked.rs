//! Look-ups that wait by a waker, without a thread.

use std::collections::BTreeSet;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use super::*;
use balancer_pool::queue::Waker;

fn look(cache: &Arc<Cache>, clock: &Clock, client: &str, desk: &Desk) -> Pending {
    cache.find(address(client), Some(7), clock.now(), desk).expect_err("it is not in the cache")
}

/// A waker that sends its name when it is called.
fn waker(word: &Sender<&'static str>, name: &'static str) -> Waker {
    let word = word.clone();
    Box::new(move || word.send(name).unwrap())
}

#[test]
fn a_parked_look_up_is_woken_once_when_its_load_ends_however_that_is() {
    let put = |cache: &Arc<Cache>| cache.put(network("1.2.3.4/32"), vec![entry("1.2.3.4", 2)]);
    type End = fn(&Arc<Cache>, LoadTicket, &dyn Fn(&Arc<Cache>));
    let ends: [(&str, Option<u32>, End); 4] = [
        ("it is done", Some(1), |_, ticket, _| ticket.finish(vec![entry("1.2.3.4", 1)])),
        ("it fails", None, |_, ticket, _| drop(ticket)),
        ("a write overtakes it", Some(2), |cache, ticket, put| {
            put(cache);
            ticket.finish(vec![entry("1.2.3.4", 1)]);
        }),
        ("a write overtakes one that fails", Some(2), |cache, ticket, put| {
            put(cache);
            drop(ticket);
        }),
    ];
    for (what, brings, end) in ends {
        let (cache, clock) = cache(100);
        let desk = Desk::new();
        let (word, words) = channel();
        let (first, second) =
            (look(&cache, &clock, "1.2.3.4", &desk), look(&cache, &clock, "1.2.3.4", &desk));
        assert!(first.on_end(waker(&word, "first")) && second.on_end(waker(&word, "second")));
        assert!(!first.has_ended() && words.try_recv().is_err(), "{what}");
        end(&cache, desk.take(), &put);
        assert_eq!(words.try_iter().collect::<Vec<_>>(), ["first", "second"], "{what}");
        assert!(!first.on_end(waker(&word, "late")) && first.has_ended(), "{what}");
        drop(word);
        assert!(words.recv().is_err(), "{what}: a waker that is not needed is dropped");
        assert_eq!(capacity(first.known(&desk)), brings, "{what}");
        assert_eq!(capacity(second.known(&desk)), brings, "{what}");
        assert_eq!(cache.counters().timeouts, 0, "{what}");
    }
}

#[test]
fn a_write_wakes_at_once_and_doubt_leaves_the_load_to_its_end() {
    let (cache, clock) = cache(100);
    let desk = Desk::new();
    let pending = look(&cache, &clock, "1.2.3.4", &desk);
    let ticket = desk.take();
    cache.doubt(network("1.2.3.4/32"));
    assert!(!pending.has_ended());
    ticket.finish(vec![entry("1.2.3.4", 1)]);
    assert_eq!(capacity(pending.known(&desk)), Some(1));

    let pending = look(&cache, &clock, "1.2.3.4", &desk);
    cache.put(network("1.2.3.4/32"), Vec::new());
    assert_eq!(capacity(pending.known(&desk)), Some(0));
    desk.take().finish(vec![entry("1.2.3.4", 1)]);
    assert_eq!(ask(&cache, &clock, "1.2.3.4", 7, &desk), Some(0));
}

#[test]
fn the_load_that_was_waited_for_decides_also_when_there_was_no_room_to_keep_it() {
    let (cache, clock) = cache(1);
    let desk = Desk::new();
    let pending = look(&cache, &clock, "1.2.3.4", &desk);
    desk.take().finish(vec![entry("1.2.3.4", 1)]);
    cache.put(network("1.2.3.5/32"), Vec::new());
    assert_eq!(cache.counters().evictions, 1);
    assert_eq!(capacity(pending.known(&desk)), Some(1));
    assert_eq!(desk.waiting(), 0);
}

#[test]
fn a_load_that_finds_no_slot_parks_nobody() {
    struct NoSlot;
    impl Loader for NoSlot {
        fn ready(&self) -> bool {
            true
        }
        fn start(&self, _: LoadTicket, _: Urgency) {}
        fn gave_up(&self) {
            panic!("nobody waited");
        }
    }
    let (cache, clock) = cache(100);
    let known = cache.find(address("1.2.3.4"), Some(7), clock.now(), &NoSlot);
    assert_eq!(capacity(known.expect("it has failed at once")), None);
    assert_eq!((cache.counters().misses, cache.counters().failures), (1, 1));
}

#[test]
fn who_waited_in_vain_counts_and_what_was_known_before_decides() {
    let (cache, clock) = cache(100);
    let desk = Desk::new();
    let pending = look(&cache, &clock, "1.2.3.4", &desk);
    assert_eq!(capacity(pending.known(&desk)), None);
    cache.put(network("1.2.3.4/32"), vec![entry("1.2.3.4", 1)]);
    clock.advance(TTL);
    let pending = look(&cache, &clock, "1.2.3.4", &desk);
    assert_eq!(capacity(pending.known(&desk)), Some(1), "past its time, and in force");
    assert_eq!((desk.gave_up.load(Ordering::SeqCst), cache.counters().timeouts), (2, 2));
}

#[test]
fn the_counters_do_not_tell_who_blocks_from_who_is_parked() {
    let count = |parks: bool| {
        let (cache, clock) = cache(100);
        let desk = Desk::patient();
        // In turn: loaded, in memory, a load that fails, one that takes too long, in memory.
        for (n, client) in ["1.1.1.1", "1.1.1.1", "1.1.1.2", "1.1.1.3", "1.1.1.1"].into_iter().enumerate() {
            let looked = cache.find(address(client), Some(7), clock.now(), &desk);
            let end = |ticket: LoadTicket| {
                if n == 0 { ticket.finish(vec![entry(client, 1)]) } else { drop(ticket) }
            };
            match looked {
                Ok(_) => assert!(n == 1 || n == 4),
                Err(pending) if n == 3 => drop(pending.known(&desk)),
                Err(pending) if parks => {
                    let (word, words) = channel();
                    assert!(pending.on_end(waker(&word, "go on")));
                    end(desk.take());
                    assert_eq!(words.recv(), Ok("go on"));
                    pending.known(&desk);
                }
                Err(pending) => thread::scope(|scope| {
                    scope.spawn(|| desk.settled(Err(pending)));
                    end(desk.take());
                }),
            }
        }
        cache.counters()
    };
    let counters = Counters { hits: 2, misses: 3, timeouts: 1, failures: 1, evictions: 0 };
    assert_eq!((count(true), count(false)), (counters, counters));
}

#[test]
fn under_threads_nobody_who_parks_is_forgotten() {
    const ROUNDS: usize = 200;
    const THREADS: usize = 8;
    let (cache, clock) = cache(10_000);
    let desk = Desk::new();
    let barrier = Barrier::new(THREADS + 1);
    let (word, words) = channel();
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (cache, clock, desk, barrier, word) = (&cache, &clock, &desk, &barrier, word.clone());
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    barrier.wait();
                    let client = address(&format!("10.0.{}.{}", round / 250, round % 250));
                    let name = (round, thread);
                    match cache.find(client, None, clock.now(), desk) {
                        Ok(_) => word.send(name).unwrap(),
                        Err(pending) => {
                            let later = word.clone();
                            if !pending.on_end(Box::new(move || later.send(name).unwrap())) {
                                word.send(name).unwrap();
                            }
                        }
                    }
                }
            });
        }
        for round in 0..ROUNDS {
            barrier.wait();
            // Ends the load in one of three ways, while others still begin to wait for it.
            while desk.waiting() == 0 {
                thread::yield_now();
            }
            match round % 3 {
                0 => drop(desk.take()),
                1 => desk.take().finish(Vec::new()),
                _ => {
                    let ticket = desk.take();
                    cache.put(ticket.place().clone(), Vec::new());
                    drop(ticket);
                }
            }
            let mut heard = BTreeSet::new();
            while heard.len() < THREADS {
                // After a load that failed, the next look-up begins another.
                while let Some((ticket, _)) = desk.tickets.lock().pop() {
                    ticket.finish(Vec::new());
                }
                if let Ok(name) = words.recv_timeout(Duration::from_millis(1)) {
                    assert!(name.0 == round && heard.insert(name), "{name:?} was woken twice");
                }
            }
        }
    });
    assert!(words.try_recv().is_err());
    assert_eq!(cache.counters().timeouts, 0);
}
