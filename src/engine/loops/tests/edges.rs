//! A loop that is told of events in any order: late, merged, twice, and of events that never happened. Clients and
//! backends act at random, and time moves in jumps. Whatever happens, each request is settled once, nothing stays
//! counted, the loop makes no turn for nothing, and every connection comes to its end.

mod panics;
mod players;

use super::*;
use std::collections::HashSet;
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::sync::atomic::AtomicBool;

use fastrand::Rng;
use players::{Peer, answer, request};
use rustix::event::Timespec;
use rustix::event::epoll::{Event, EventData, EventFlags, wait};
use slotmap::Key;

use crate::engine::loops::conn::Stage;
use crate::engine::loops::exchange::Doing;
use crate::engine::loops::lane::Lane;
use crate::engine::loops::share;
use crate::engine::loops::turn::{BACK, Buffers, Loop};
use crate::proxy::tests::{Fixture, policy, settings};
use balancer_pool::backends::Settings;
use balancer_pool::policy::PoolPolicy;
use balancer_pool::queue::QueuePolicy;

/// How long new seeds are tried.
const SPAN: Nanos = 3_000_000_000;
/// What is done with one seed.
const STEPS: usize = 500;
/// In so many turns a loop must have come to rest once nothing happens any more.
const REST: usize = 3_000;

/// Answers requests by their target: by a proxy, at once, or on the lane.
struct ByTarget {
    fixture: Arc<Fixture>,
    /// Tickets that were made and are not the proxy's.
    made: AtomicUsize,
    ends: Ends,
    /// Requests that the proxy has begun or refused.
    proxied: AtomicUsize,
    /// A test makes panics.
    may_panic: AtomicBool,
}

impl ByTarget {
    fn own(&self, mut answer: Answer) -> Answer {
        self.made.fetch_add(1, Ordering::SeqCst);
        answer.ticket = Some(Box::new(Told(Arc::clone(&self.ends), answer.status)));
        answer
    }
}

impl Service for ByTarget {
    fn begin(&self, asked: NewRequest<'_>) -> Step {
        match asked.head.path() {
            "/lane" => Step::Work(8_000),
            "/now" => Step::Answer(self.own(Answer::new(200, b"now".to_vec()))),
            _ => {
                self.proxied.fetch_add(1, Ordering::SeqCst);
                self.fixture.proxy.begin(asked)
            }
        }
    }

    fn work(&self, exchange: BlockingRequest<'_>) -> Answer {
        self.own(echo(exchange))
    }

    fn refuse(&self, head: &RequestHead, reject: &Reject, received_at: Nanos) -> Answer {
        self.proxied.fetch_add(1, Ordering::SeqCst);
        self.fixture.proxy.accounts.refuse(head, reject, received_at)
    }

    fn observe(&self, event: FrontendEvent) {
        assert!(event != FrontendEvent::Panicked || self.may_panic.load(Ordering::SeqCst));
    }
}

/// A loop, its clients and backends, and the events that it was not told of yet.
struct World {
    own: Loop,
    buffers: Buffers,
    service: Arc<ByTarget>,
    clock: Clock,
    address: SocketAddr,
    backend: TcpListener,
    clients: Vec<Peer>,
    backends: Vec<Peer>,
    held: Vec<Event>,
    past: Vec<Event>,
    random: Rng,
}

impl World {
    fn new(seed: u64) -> Self {
        let config = Frontend {
            request_buffer_bytes: 4_096,
            max_connections: 10,
            tunnel_timeout: Duration::from_secs(50),
            ..config()
        };
        let clock = Clock::manual();
        let backend = TcpListener::bind("127.0.0.1:0").expect("a free port");
        backend.set_nonblocking(true).expect("set");
        let lined = PoolPolicy {
            queue: QueuePolicy { size: 3, ..QueuePolicy::default() },
            queue_timeout: Duration::from_secs(2),
            retry_statuses: vec![(503, 503)],
            ..policy()
        };
        let pool = Settings { max_in_flight: Some(5), ..settings(lined) };
        let at = backend.local_addr().expect("an address");
        let fixture = Arc::new(Fixture::new(&[at], &pool, clock.clone()));
        let service = Arc::new(ByTarget {
            fixture,
            made: AtomicUsize::new(0),
            ends: Ends::default(),
            proxied: AtomicUsize::new(0),
            may_panic: AtomicBool::new(false),
        });
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let backend_tls = Arc::default();
        let engine = EngineStart {
            inherited: false,
            config: &config,
            trusted_proxies: &[],
            ipv6_prefix: 64,
            tls: None,
            backend_tls: &backend_tls,
        };
        let listeners = Sockets { plain: vec![listener], ..Sockets::default() };
        let shared = share(listeners, &engine, Arc::clone(&service) as Arc<_>, clock.clone());
        let shared = shared.expect("what loops share");
        let lane = Lane::start(&shared).expect("threads");
        let buffers = Buffers::new(&shared);
        let own = Loop::new(0, shared, lane).expect("a loop");
        let (clients, backends, held, past) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let random = Rng::with_seed(seed);
        Self { own, buffers, service, clock, address, backend, clients, backends, held, past, random }
    }

    /// A client or a backend does something, or time passes.
    fn act(&mut self) {
        let random = &mut self.random;
        match random.u8(..24) {
            0..=2 if self.clients.len() < 12 => {
                let script = (0..random.usize(1..4)).flat_map(|_| request(random)).collect();
                let stream = TcpStream::connect(self.address).expect("a place in the queue");
                self.clients.push(Peer::new(stream, script));
            }
            3..=8 if !self.clients.is_empty() => {
                let one = random.usize(..self.clients.len());
                self.clients[one].write(random);
            }
            9..=11 if !self.clients.is_empty() => {
                let one = random.usize(..self.clients.len());
                self.clients[one].read(random);
            }
            12 | 13 if !self.clients.is_empty() && random.bool() => {
                let one = random.usize(..self.clients.len());
                match random.u8(..3) {
                    0 => drop(self.clients[one].stream.shutdown(Shutdown::Write)),
                    1 => drop(self.clients.swap_remove(one)),
                    _ => reset(self.clients.swap_remove(one).stream),
                }
            }
            14 | 15 => {
                if let Ok((stream, _)) = self.backend.accept() {
                    let script = (0..random.usize(1..4)).flat_map(|_| answer(random)).collect();
                    self.backends.push(Peer::new(stream, script));
                }
            }
            16..=19 if !self.backends.is_empty() => {
                let one = random.usize(..self.backends.len());
                self.backends[one].write(random);
            }
            20 | 21 if !self.backends.is_empty() => {
                let one = random.usize(..self.backends.len());
                self.backends[one].read(random);
            }
            22 if !self.backends.is_empty() && random.bool() => {
                let one = random.usize(..self.backends.len());
                match random.u8(..3) {
                    0 => drop(self.backends[one].stream.shutdown(Shutdown::Write)),
                    1 => drop(self.backends.swap_remove(one)),
                    _ => reset(self.backends.swap_remove(one).stream),
                }
            }
            _ => {
                let most = if random.u8(..10) == 0 { 4_000 } else { 50 };
                self.clock.advance(Duration::from_millis(random.u64(..most)));
            }
        }
    }

    /// Takes the events that there are.
    fn hear(&mut self) {
        let mut buffer = [MaybeUninit::uninit(); 64];
        let none = Timespec::default();
        if let Ok((ready, _)) = wait(&self.own.epoll, &mut buffer[..], Some(&none)) {
            self.held.extend_from_slice(ready);
        }
    }

    /// Tells the loop of some of the events, perhaps of past ones again, and perhaps of one that did not happen.
    fn turn(&mut self) {
        self.hear();
        let random = &mut self.random;
        random.shuffle(&mut self.held);
        let keep = random.usize(..=self.held.len());
        let mut batch = self.held.split_off(keep);
        if random.bool() {
            batch = merged(batch);
        }
        if !self.past.is_empty() && random.u8(..4) == 0 {
            batch.push(self.past[random.usize(..self.past.len())]);
        }
        if random.u8(..4) == 0 {
            batch.extend(self.invented());
        }
        self.past.extend_from_slice(&batch);
        let surplus = self.past.len().saturating_sub(100);
        self.past.drain(..surplus);
        self.random.shuffle(&mut batch);
        self.own.turn(&batch, &mut self.buffers);
        self.check();
    }

    /// An event that did not happen.
    fn invented(&mut self) -> Option<Event> {
        let random = &mut self.random;
        let (clients, backs) = (&self.own.clients, &self.own.backs.by_key);
        let of_client = |key: crate::engine::loops::keys::ClientSlot| key.data().as_ffi();
        let data = if random.bool() {
            clients.keys().nth(random.usize(..clients.len().max(1))).map(of_client)?
        } else {
            backs.keys().nth(random.usize(..backs.len().max(1))).map(|key| key.data().as_ffi() | BACK)?
        };
        let flags = match random.u8(..40) {
            0 => EventFlags::IN | EventFlags::RDHUP,
            1 => EventFlags::HUP,
            2 => EventFlags::ERR | EventFlags::HUP,
            3..=14 => EventFlags::OUT,
            15..=29 => EventFlags::IN,
            _ => EventFlags::IN | EventFlags::OUT,
        };
        Some(Event { flags, data: EventData::new_u64(data) })
    }

    /// What holds after each turn.
    fn check(&self) {
        for (_, slot) in &self.own.clients {
            let client = slot.as_ref().expect("every client is back in its slot");
            let conn = &client.conn;
            let in_lane =
                matches!(&client.stage, Stage::Busy(exchange) if matches!(exchange.doing, Doing::InLane));
            assert!(conn.due < Nanos::MAX || in_lane, "it waits for something that has an end");
            assert!(conn.timer <= conn.due, "a timer is there in time");
        }
        assert_eq!(self.own.shared.counts.all(), self.own.clients.len());
        let owners: HashSet<_> = self.own.backs.by_key.values().filter_map(|back| back.client).collect();
        assert!(
            owners.iter().all(|owner| self.own.clients.contains_key(*owner)),
            "whose client is gone, is closed"
        );
    }

    /// Nothing is done any more: the loop comes to rest, and then time ends every connection.
    fn end(&mut self) {
        let is_working = |own: &Loop| {
            own.clients.values().flatten().any(|client| {
                matches!(&client.stage, Stage::Busy(exchange) if matches!(exchange.doing, Doing::InLane))
            })
        };
        for turn in 0.. {
            self.hear();
            let batch = std::mem::take(&mut self.held);
            let rests = batch.is_empty() && self.own.again.is_empty();
            self.own.turn(&batch, &mut self.buffers);
            self.check();
            if rests && !is_working(&self.own) {
                break;
            }
            if is_working(&self.own) {
                thread::sleep(Duration::from_millis(1));
            }
            assert!(turn < REST, "it goes round for nothing");
        }
        for second in 0.. {
            self.hear();
            let batch = std::mem::take(&mut self.held);
            self.own.turn(&batch, &mut self.buffers);
            self.check();
            if self.own.clients.is_empty() {
                break;
            }
            if is_working(&self.own) {
                thread::sleep(Duration::from_millis(1));
            } else {
                self.clock.advance(Duration::from_secs(1));
            }
            assert!(second < 2_000, "a connection has no end");
        }
    }

    /// What holds when everything is over.
    fn settled(&self) {
        let ByTarget { fixture, made, ends, proxied, .. } = &*self.service;
        until("what the lane had is settled", || ends.lock().len() >= made.load(Ordering::SeqCst));
        assert_eq!(ends.lock().len(), made.load(Ordering::SeqCst), "each of ours is settled once");
        let records = fixture.journal.records.lock().len();
        assert_eq!(records, proxied.load(Ordering::SeqCst), "each of the proxy's is settled once");
        assert_eq!((fixture.leases(), fixture.metrics.totals().in_flight), (0, 0));
        assert_eq!(self.own.shared.counts.all(), 0);
        assert_eq!(self.own.gathered, 0, "what calls have gathered is forgotten");
        assert!(self.own.backs.by_key.values().all(|back| back.client.is_none()));
    }
}

/// One event for each connection.
fn merged(events: Vec<Event>) -> Vec<Event> {
    let mut merged: Vec<Event> = Vec::new();
    for event in events {
        let data = event.data;
        match merged.iter_mut().find(|other| { other.data }.u64() == data.u64()) {
            Some(other) => other.flags = { other.flags } | { event.flags },
            None => merged.push(event),
        }
    }
    merged
}

#[test]
fn events_in_any_order_settle_everything_once() {
    let given = std::env::var("EDGE_SEED").ok().and_then(|seed| seed.parse().ok());
    let first: u64 = given.unwrap_or_else(|| fastrand::u64(..1 << 32));
    let (real, mut seed) = (Clock::real(), first);
    let begun = real.now();
    while seed == first || (given.is_none() && real.now() - begun < SPAN) {
        eprintln!("EDGE_SEED={seed}");
        let mut world = World::new(seed);
        for _ in 0..STEPS {
            world.act();
            if world.random.bool() {
                world.turn();
            }
        }
        world.end();
        world.settled();
        seed += 1;
    }
}

/// A client has said that it sends no more, and its backend takes nothing: both wait, and so does the loop.
#[test]
fn an_upload_that_its_backend_does_not_take_costs_no_turns() {
    let mut world = World::new(7);
    let stream = TcpStream::connect(world.address).expect("a place in the queue");
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 16000000\r\n\r\n".to_vec();
    let mut client = Peer::new(stream, [head, vec![b'x'; 16_000_000]].concat());
    let mut backends = Vec::new();
    until("the backend takes no more", || {
        client.write(&mut world.random);
        backends.extend(world.backend.accept());
        world.hear();
        let batch = std::mem::take(&mut world.held);
        world.own.turn(&batch, &mut world.buffers);
        world.own.backs.by_key.values().any(|back| !back.is_connecting && !back.is_flushed())
    });
    let key = world.own.clients.keys().next().expect("a client");
    let ends =
        Event { flags: EventFlags::IN | EventFlags::RDHUP, data: EventData::new_u64(key.data().as_ffi()) };
    world.own.turn(&[ends], &mut world.buffers);
    let rests = (0..50).any(|_| {
        world.hear();
        let batch = std::mem::take(&mut world.held);
        world.own.turn(&batch, &mut world.buffers);
        world.own.again.is_empty()
    });
    assert!(rests, "it goes round for nothing");
    drop(client);
    world.end();
    world.settled();
}
