mod held;
mod ids;
mod parked;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use ipnet::IpNet;

use super::*;
use balancer_limiter::identity::ClientId;
use balancer_limiter::limit::{Limit, Rate};
use balancer_limiter::terms::ClientLimit;

const TTL: Duration = Duration::from_secs(40);

/// Keeps the tickets, so that a test decides when a load ends.
struct Desk {
    ready: AtomicBool,
    tickets: Mutex<Vec<(LoadTicket, Urgency)>>,
    patience: Duration,
    gave_up: AtomicU32,
}

impl Desk {
    fn new() -> Self {
        Self {
            ready: AtomicBool::new(true),
            tickets: Mutex::new(Vec::new()),
            patience: Duration::ZERO,
            gave_up: AtomicU32::new(0),
        }
    }

    fn patient() -> Self {
        Self { patience: Duration::from_secs(30), ..Self::new() }
    }

    fn waiting(&self) -> usize {
        self.tickets.lock().len()
    }

    fn take(&self) -> LoadTicket {
        self.tickets.lock().pop().expect("a load was begun").0
    }
}

impl Loader for Desk {
    fn ready(&self) -> bool {
        self.ready.load(Ordering::SeqCst)
    }

    fn start(&self, ticket: LoadTicket, urgency: Urgency) {
        self.tickets.lock().push((ticket, urgency));
    }

    fn gave_up(&self) {
        self.gave_up.fetch_add(1, Ordering::SeqCst);
    }
}

/// A loader for whose loads look-ups block.
trait Awaited: Loader + Sized {
    fn patience(&self) -> Duration {
        Duration::ZERO
    }

    fn settled(&self, looked: Result<Known, Pending>) -> Known {
        looked.unwrap_or_else(|pending| {
            pending.wait(self.patience());
            pending.known(self)
        })
    }
}

impl Awaited for Desk {
    fn patience(&self) -> Duration {
        self.patience
    }
}

/// How many groups and ids are held.
fn held(cache: &Cache) -> usize {
    cache.shards.iter().map(|shard| shard.lock().groups.len()).sum()
}

/// The group that a ticket is for.
fn asked(ticket: &LoadTicket) -> IpNet {
    let CacheGroup::Group(network) = ticket.place() else {
        panic!("an id was asked for: {:?}", ticket.place())
    };
    *network
}

/// Ends each load at once, with the entries that its function makes.
struct Table<F: Fn(IpNet) -> Vec<Entry>>(F);

impl<F: Fn(IpNet) -> Vec<Entry>> Loader for Table<F> {
    fn ready(&self) -> bool {
        true
    }

    fn start(&self, ticket: LoadTicket, _: Urgency) {
        let entries = (self.0)(asked(&ticket));
        ticket.finish(entries);
    }

    fn gave_up(&self) {}
}

impl<F: Fn(IpNet) -> Vec<Entry>> Awaited for Table<F> {}

fn entry(id: &str, capacity: u32) -> Entry {
    let limit = Limit { capacity, rate: Rate::per_second(1) };
    Entry::new(&ClientId::parse(id).unwrap(), Arc::new(ClientLimit::of_numbers(limit))).unwrap()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn network(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn cache(max_entries: usize) -> (Arc<Cache>, Clock) {
    let clock = Clock::manual();
    (Cache::new(max_entries, TTL, 64, clock.clone()), clock)
}

/// The capacity of the entry that names the client; 0 when none does; `None` when that is not known.
fn ask(cache: &Arc<Cache>, clock: &Clock, client: &str, port: u16, loader: &impl Awaited) -> Option<u32> {
    capacity(loader.settled(cache.find(address(client), Some(port), clock.now(), loader)))
}

fn capacity(known: Known) -> Option<u32> {
    match known {
        Known::Entry(hit) => Some(hit.limit.own.first().unwrap().capacity),
        Known::Absent => Some(0),
        Known::Unknown => None,
    }
}

#[test]
fn one_load_brings_an_address_with_all_its_ports_and_absence_too() {
    let (cache, clock) = cache(100);
    let entries = |_| vec![entry("1.2.3.4:7", 7), entry("1.2.3.4", 4), entry("1.2.3.4:8", 8)];
    let table = Table(entries);
    assert_eq!(ask(&cache, &clock, "::ffff:1.2.3.4", 7, &table), Some(7));
    let desk = Desk::new();
    for (port, capacity) in [(7, 7), (8, 8), (9, 4)] {
        assert_eq!(ask(&cache, &clock, "1.2.3.4", port, &desk), Some(capacity));
    }
    let nothing = Table(|_| Vec::new());
    assert_eq!(ask(&cache, &clock, "1.2.3.5", 7, &nothing), Some(0));
    assert_eq!(ask(&cache, &clock, "1.2.3.5", 8, &desk), Some(0));
    assert_eq!(desk.waiting(), 0);
    assert_eq!((cache.counters().hits, cache.counters().misses), (4, 2));
}

#[test]
fn an_ipv6_prefix_is_one_group_and_its_entries_name_single_addresses() {
    let (cache, clock) = cache(100);
    let table = Table(|asked| {
        assert_eq!(asked, network("2001:db8::/64"));
        vec![entry("2001:db8::1", 1), entry("[2001:db8::2]:7", 7)]
    });
    assert_eq!(ask(&cache, &clock, "2001:db8::1", 7, &table), Some(1));
    let desk = Desk::new();
    assert_eq!(ask(&cache, &clock, "2001:db8::2", 7, &desk), Some(7));
    assert_eq!(ask(&cache, &clock, "2001:db8::2", 8, &desk), Some(0));
    assert_eq!(ask(&cache, &clock, "2001:db8::3", 7, &desk), Some(0));
    assert_eq!(desk.waiting(), 0);
}

#[test]
fn a_key_is_loaded_once_however_many_wait() {
    let (cache, clock) = cache(100);
    let desk = Desk::patient();
    let barrier = Barrier::new(17);
    std::thread::scope(|scope| {
        let askers: Vec<_> = (0..16)
            .map(|port| {
                let (cache, clock, desk, barrier) = (&cache, &clock, &desk, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    ask(cache, clock, "1.2.3.4", port, desk)
                })
            })
            .collect();
        barrier.wait();
        // The load ends only after every look-up has counted as a miss.
        while cache.counters().misses < 16 {
            std::thread::yield_now();
        }
        assert_eq!(desk.waiting(), 1);
        desk.take().finish(vec![entry("1.2.3.4", 4)]);
        for asker in askers {
            assert_eq!(asker.join().unwrap(), Some(4));
        }
    });
    assert_eq!(desk.waiting(), 0);
}

#[test]
fn a_load_that_began_before_a_write_never_overwrites_it() {
    let (cache, clock) = cache(100);
    let desk = Desk::new();
    assert_eq!(ask(&cache, &clock, "1.2.3.4", 7, &desk), None);
    let old = desk.take();
    cache.put(network("1.2.3.4/32"), vec![entry("1.2.3.4", 2)]);
    old.finish(vec![entry("1.2.3.4", 1)]);
    assert_eq!(ask(&cache, &clock, "1.2.3.4", 7, &desk), Some(2));

    // The same when the write's outcome is unknown: the next look-up loads again.
    clock.advance(TTL);
    ask(&cache, &clock, "1.2.3.4", 7, &desk);
    let old = desk.take();
    cache.doubt(network("1.2.3.4/32"));
    old.finish(vec![entry("1.2.3.4", 1)]);
    assert_eq!(ask(&cache, &clock, "1.2.3.4", 7, &desk), Some(2), "in force until it is loaded again");
    desk.take().finish(vec![entry("1.2.3.4", 3)]);
    assert_eq!(ask(&cache, &clock, "1.2.3.4", 7, &desk), Some(3));
    assert_eq!(desk.waiting(), 0);
}

#[test]
fn only_a_load_or_a_write_that_brings_something_else_counts_as_a_change() {
    let (cache, clock) = cache(100);
    let place = || network("1.2.3.4/32");
    let desk = Desk::new();
    let load = |entries| {
        clock.advance(TTL);
        ask(&cache, &clock, "1.2.3.4", 7, &desk);
        desk.take().finish(entries);
        cache.changes()
    };
    let entries = |port| vec![entry("1.2.3.4", 4), entry("1.2.3.4:7", port)];
    assert_eq!(load(Vec::new()), 0);
    assert_eq!((load(entries(7)), load(entries(7))), (1, 1));
    cache.put(place(), entries(7));
    assert_eq!((cache.changes(), load(entries(8))), (1, 2));
    cache.put(place(), entries(9));
    assert_eq!((cache.changes(), load(vec![entry("1.2.3.4", 4)])), (3, 4));
    assert_eq!((load(Vec::new()), load(Vec::new())), (5, 5));
}

/// One thread writes while others load. Once a write is known to the cache, no look-up finds what was before it.
#[test]
fn under_threads_nothing_older_than_a_told_write_is_seen() {
    const WRITES: u32 = 3000;
    let (cache, clock) = cache(100);
    let stored = AtomicU32::new(0);
    let told = AtomicU32::new(0);
    let barrier = Barrier::new(5);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let table = Table(|_| {
                    let capacity = stored.load(Ordering::SeqCst);
                    // Time for a write to overtake this load.
                    std::thread::yield_now();
                    vec![entry("1.2.3.4", capacity)]
                });
                barrier.wait();
                loop {
                    let least = told.load(Ordering::SeqCst);
                    if let Some(seen) = ask(&cache, &clock, "1.2.3.4", 7, &table) {
                        assert!(seen >= least, "{seen} was seen after {least} had been told");
                    }
                    if least == WRITES {
                        break;
                    }
                    // Makes the entry stale, so that there is always something to load.
                    cache.doubt(network("1.2.3.4/32"));
                }
            });
        }
        barrier.wait();
        for capacity in 1..=WRITES {
            stored.store(capacity, Ordering::SeqCst);
            cache.put(network("1.2.3.4/32"), vec![entry("1.2.3.4", capacity)]);
            told.store(capacity, Ordering::SeqCst);
        }
    });
}

#[test]
fn past_its_time_an_entry_is_loaded_anew_and_stays_in_force_while_that_fails() {
    let (cache, clock) = cache(100);
    let desk = Desk::new();
    cache.put(network("1.2.3.4/32"), vec![entry("1.2.3.4", 4)]);
    clock.advance(TTL);
    assert_eq!(ask(&cache, &clock, "1.2.3.4", 7, &desk), Some(4));
    assert_eq!(desk.tickets.lock().pop().map(|(ticket, urgency)| (asked(&ticket), urgency)), {
        Some((network("1.2.3.4/32"), Urgency::Refresh))
    });
    assert_eq!(cache.counters().failures, 1, "the ticket was dropped");
    // Not again at once, and not at all while the store is down.
    assert_eq!(ask(&cache, &clock, "1.2.3.4", 7, &desk), Some(4));
    desk.ready.store(false, Ordering::SeqCst);
    clock.advance(TTL * 100);
    assert_eq!(ask(&cache, &clock, "1.2.3.4", 7, &desk), Some(4));
    assert_eq!(ask(&cache, &clock, "1.2.3.5", 7, &desk), None);
    assert_eq!(desk.waiting(), 0);
    // A hit is what memory decides, and a miss what had to be loaded or is not known.
    assert_eq!((cache.counters().hits, cache.counters().misses), (2, 2));
    desk.ready.store(true, Ordering::SeqCst);
    let table = Table(|_| vec![entry("1.2.3.4", 5)]);
    assert_eq!(ask(&cache, &clock, "1.2.3.4", 7, &table), Some(5));
}

#[test]
fn in_its_last_quarter_an_entry_is_refreshed_and_nobody_waits() {
    let (cache, clock) = cache(100);
    let desk = Desk::patient();
    cache.put(network("1.2.3.4/32"), vec![entry("1.2.3.4", 4)]);
    clock.advance(TTL / 4 * 3 - Duration::from_nanos(1));
    assert_eq!(ask(&cache, &clock, "1.2.3.4", 7, &desk), Some(4));
    assert_eq!(desk.waiting(), 0);
    clock.advance(Duration::from_nanos(1));
    for _ in 0..3 {
        assert_eq!(ask(&cache, &clock, "1.2.3.4", 7, &desk), Some(4));
    }
    assert_eq!(desk.waiting(), 1);
    desk.take().finish(vec![entry("1.2.3.4", 5)]);
    assert_eq!(ask(&cache, &clock, "1.2.3.4", 7, &desk), Some(5));
    assert_eq!(cache.counters().misses, 0);
}

#[test]
fn who_waits_too_long_goes_on_without_and_the_load_counts_when_it_comes() {
    let (cache, clock) = cache(100);
    let desk = Desk { patience: Duration::from_millis(5), ..Desk::new() };
    assert_eq!(ask(&cache, &clock, "1.2.3.4", 7, &desk), None);
    assert_eq!(desk.gave_up.load(Ordering::SeqCst), 1);
    assert_eq!(cache.counters().timeouts, 1);
    desk.take().finish(vec![entry("1.2.3.4", 4)]);
    assert_eq!(ask(&cache, &clock, "1.2.3.4", 7, &desk), Some(4));
}

#[test]
fn a_load_that_fails_wakes_whoever_waits_for_it() {
    let (cache, clock) = cache(100);
    let desk = Desk::patient();
    std::thread::scope(|scope| {
        let asker = scope.spawn(|| ask(&cache, &clock, "1.2.3.4", 7, &desk));
        while desk.waiting() == 0 {
            std::thread::yield_now();
        }
        drop(desk.take());
        assert_eq!(asker.join().unwrap(), None);
    });
    assert_eq!(desk.gave_up.load(Ordering::SeqCst), 0);
}

#[test]
fn the_bound_holds_and_what_was_not_asked_for_longest_goes_first() {
    let (small, clock) = cache(2);
    let table = Table(|net: IpNet| vec![entry(&net.addr().to_string(), 1)]);
    for client in ["1.1.1.1", "1.1.1.2", "1.1.1.1", "1.1.1.3"] {
        assert_eq!(ask(&small, &clock, client, 7, &table), Some(1));
    }
    assert_eq!((held(&small), small.counters().evictions), (2, 1));
    let desk = Desk::new();
    assert_eq!(ask(&small, &clock, "1.1.1.1", 7, &desk), Some(1));
    assert_eq!(ask(&small, &clock, "1.1.1.2", 7, &desk), None);

    // Of 64 shards, each of which is full long before all groups were put.
    let (large, _) = cache(4_096);
    for n in 0..10_000u32 {
        large.put(IpNet::from(IpAddr::from(std::net::Ipv4Addr::from(n))), Vec::new());
    }
    assert!((3_900..=4_096).contains(&held(&large)), "{}", held(&large));
}
