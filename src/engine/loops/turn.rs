//! A loop: waits for events, handles them, waits again. It owns its connections and never waits for anything else.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use slotmap::{Key, KeyData, SlotMap};

use super::back::Backs;
use super::conn::Client;
use super::exchange::Exchange;
use super::http2::WokenClients;
use super::keys::{BackSlot, ClientSlot};
use super::lane::Lane;
use super::shared::LoopsShared;
use super::state::{Letter, LoopState, Newcomer};
use super::wire::timespec;
use crate::proxy::exchange::{FrontendEvent, Rejection};
use balancer_http::message::RequestHead;
use balancer_time::Nanos;

/// See the module.
pub(super) struct Loop {
    pub number: usize,
    pub shared: Arc<LoopsShared>,
    pub lane: Lane,
    pub epoll: OwnedFd,
    /// A slot is empty while its client is being handled.
    pub clients: SlotMap<ClientSlot, Option<Box<Client>>>,
    pub backs: Backs,
    /// Clients that have more to do at once, after all others had a turn.
    pub again: Vec<ClientSlot>,
    /// Clients whose TLS handshakes wait for their turn.
    pub handshakes: VecDeque<ClientSlot>,
    /// Steps of backends' TLS handshakes in this turn.
    pub shaken_backs: usize,
    /// Clients that the `h2` crate has woken.
    pub woken: WokenClients,
    pub timers: BinaryHeap<Reverse<(Nanos, ClientSlot)>>,
    /// When this turn began. All of it goes by this time.
    pub now: Nanos,
    /// Requests that are over, whose memory is used again. Boxed, since the boxes are what is reused.
    #[allow(clippy::vec_box)]
    pub spare: Vec<Box<Exchange>>,
    /// When accepting goes on after a pause; 0: there is no pause.
    pub accepts_again_at: Nanos,
    /// Loops that have not decided yet about an arrival that this one sent them.
    pub undecided: Vec<usize>,
    pub draining_since: Option<Nanos>,
    /// Bytes that API calls have gathered of their bodies and that the lane does not have yet.
    pub gathered: usize,
    pub share: Share,
    /// Candidates for eviction, the oldest last.
    pub oldest_silent: Vec<(ClientSlot, Nanos)>,
    pub oldest_idle: Vec<(ClientSlot, Nanos)>,
    pub oldest_idle_http2: Vec<(ClientSlot, Nanos)>,
}

/// How much of a processor a loop used lately, and what it is to give away.
#[derive(Default)]
pub(super) struct Share {
    pub looked_at: Nanos,
    pub used: Nanos,
    /// How many connections are to go, and where.
    pub to_move: usize,
    pub to: usize,
}

/// Memory that a loop lends to the client that it handles.
pub(super) struct Buffers {
    /// What was received of requests.
    pub inbox: Box<[u8]>,
    /// Bodies on their way through, and answers' heads.
    pub scratch: Box<[u8]>,
    /// How much of the scratch memory the pieces of bodies use. It may be larger than that, for heads.
    pub piece: usize,
    /// What came of a TLS connection, still encrypted.
    pub cipher: Box<[u8]>,
    /// A head that is written.
    pub out: Vec<u8>,
    /// Pieces that are sent as one.
    pub together: Vec<u8>,
    pub head: RequestHead,
}

/// What is to happen to a client after it was handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Go {
    /// It waits for something.
    Wait,
    /// There is more to do at once.
    On,
    /// Close now.
    Close,
    /// Close so that the client sees that something is missing.
    Reset,
    /// End our direction, drop what still comes for a while, close.
    Linger,
}

/// Most events that are handled in one turn.
const BATCH: usize = 256;
/// Steps of one client before others have their turn.
const STEPS: usize = 32;
/// An idle loop makes a turn at least this often.
const LONGEST_WAIT: Nanos = 5_000_000_000;
/// The shortest wait for a timer, so that many timers that are close to each other wake a loop once.
const STEP_OF_TIME: Nanos = 5_000_000;
/// Room behind the longest head, for small bodies that arrive with their heads, and for pipelined requests.
const INBOX_BEYOND_HEAD: usize = 16 * 1024;
/// The largest piece of a body that `response_buffer_bytes` can ask for; more would only wait for the client.
const MOST_PIECE: usize = 256 * 1024;
/// The smallest piece of a body that is read at once, where there is more.
const LEAST_PIECE: usize = 64 * 1024;
/// Most requests that are over and whose memory is kept.
const MOST_SPARE: usize = 256;

/// Most ciphertext that is read at once: four records of the greatest size.
const CIPHER: usize = 64 * 1024;

/// The event data of the letter box. That of a listener is its number. Keys of slots are never this small.
const MAIL: u64 = 0x7FFF_FFFF;
/// A bit in the lower half of event data, which says that the event is about a backend. The index of a slot never
/// reaches it.
pub(super) const BACK: u64 = 1 << 31;

/// The event data of a client.
pub(super) fn data_of(key: ClientSlot) -> EventData {
    EventData::new_u64(key.data().as_ffi())
}

impl Buffers {
    pub fn new(shared: &LoopsShared) -> Self {
        let nobody = SocketAddr::from(([0, 0, 0, 0], 0));
        let piece = shared.response_buffer_bytes.clamp(LEAST_PIECE, MOST_PIECE);
        Self {
            inbox: vec![0; shared.bounds.max_head_bytes + INBOX_BEYOND_HEAD].into(),
            scratch: vec![0; piece].into(),
            piece,
            cipher: vec![0; CIPHER].into(),
            out: Vec::with_capacity(4096),
            together: Vec::with_capacity(4096),
            head: RequestHead::blank(nobody),
        }
    }
}

impl Loop {
    /// A loop that waits on every listener.
    pub fn new(number: usize, shared: Arc<LoopsShared>, lane: Lane) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let mail = EventData::new_u64(MAIL);
        epoll::add(&epoll, shared.loops[number].wake(), mail, EventFlags::IN | EventFlags::ET)?;
        let own = Self {
            number,
            lane,
            epoll,
            clients: SlotMap::with_key(),
            backs: Backs::default(),
            again: Vec::new(),
            handshakes: VecDeque::new(),
            shaken_backs: 0,
            woken: WokenClients::default(),
            timers: BinaryHeap::new(),
            now: shared.clock.now(),
            spare: Vec::new(),
            accepts_again_at: 0,
            undecided: Vec::new(),
            draining_since: None,
            gathered: 0,
            share: Share::default(),
            oldest_silent: Vec::new(),
            oldest_idle: Vec::new(),
            oldest_idle_http2: Vec::new(),
            shared,
        };
        own.watch_listeners()?;
        Ok(own)
    }

    pub fn state(&self) -> &LoopState {
        &self.shared.loops[self.number]
    }

    /// Runs until the engine stops.
    pub fn run(mut self) {
        let mut buffers = Buffers::new(&self.shared);
        let mut events = vec![MaybeUninit::uninit(); BATCH];
        while !self.shared.stopping.load(Ordering::SeqCst) {
            let waits = self.again.is_empty() && self.handshakes.is_empty() && self.woken.is_empty();
            let wait = timespec(if waits { self.until_next_timer() } else { 0 });
            self.state().turn_since.store(0, Ordering::Relaxed);
            let ready: &[epoll::Event] = match epoll::wait(&self.epoll, &mut events[..], Some(&wait)) {
                Ok((ready, _)) => ready,
                // A signal came: goes on as if there were no events.
                Err(_) => &mut [],
            };
            self.turn(ready, &mut buffers);
        }
        self.end_all();
    }

    /// Handles events, then everything else that is to be done.
    pub fn turn(&mut self, ready: &[epoll::Event], buffers: &mut Buffers) {
        self.now = self.shared.clock.now();
        self.shaken_backs = 0;
        self.state().turn_since.store(self.now, Ordering::Relaxed);
        self.handle(ready, buffers);
        let mut again = std::mem::take(&mut self.again);
        // A client may have asked more than once: it has one turn.
        again.sort_unstable();
        again.dedup();
        for key in again {
            self.advance(key, buffers);
        }
        self.woken(buffers);
        self.shake_hands(buffers);
        self.expire(buffers);
        self.keep_house();
        let took = self.shared.clock.now().saturating_sub(self.now);
        self.shared.service.observe(FrontendEvent::Turn(took));
    }

    fn handle(&mut self, ready: &[epoll::Event], buffers: &mut Buffers) {
        // Backends first: a kept connection that was closed, or that has bytes without a request, is found out before
        // it is taken. New connections last.
        for event in ready {
            let data = event.data.u64();
            if data >> 32 != 0 && data & BACK != 0 {
                self.on_back(KeyData::from_ffi(data & !BACK).into(), event.flags, buffers);
            }
        }
        let mut listens = false;
        for event in ready {
            let data = event.data.u64();
            match data {
                MAIL => self.read_mail(buffers),
                data if data >> 32 == 0 => listens = true,
                data if data & BACK == 0 => {
                    self.on_client(KeyData::from_ffi(data).into(), event.flags, buffers);
                }
                _ => {}
            }
        }
        if listens {
            self.accept(buffers);
        }
    }

    fn on_client(&mut self, key: ClientSlot, flags: EventFlags, buffers: &mut Buffers) {
        let now = self.now;
        let Some(Some(client)) = self.clients.get_mut(key) else { return };
        let conn = &mut client.conn;
        conn.readable |=
            flags.intersects(EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
        if flags.intersects(EventFlags::RDHUP | EventFlags::HUP) && !conn.ended {
            conn.ended = true;
            conn.moved_at = now;
        }
        // A hang-up without an error is the proper end of both directions.
        conn.broken |= flags.contains(EventFlags::ERR);
        self.advance(key, buffers);
    }

    fn on_back(&mut self, key: BackSlot, flags: EventFlags, buffers: &mut Buffers) {
        let Some(back) = self.backs.get(key) else { return };
        let ends = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
        let Some(client) = back.client else {
            // A kept connection that ends, or that sends something without a request, can't be used.
            if ends || flags.contains(EventFlags::IN) {
                self.backs.close(key);
            }
            return;
        };
        back.ended |= ends;
        back.readable |= ends || flags.contains(EventFlags::IN);
        self.advance(client, buffers);
    }

    fn read_mail(&mut self, buffers: &mut Buffers) {
        for letter in self.state().open_mail() {
            match letter {
                Letter::Welcome(newcomer) => self.welcome(newcomer, buffers),
                Letter::Woken(key) => self.wake(key, buffers),
                Letter::Answered(key, answer) => self.lane_answered(key, answer, buffers),
                Letter::Arrived(arrival, from) => self.take_over(arrival, from, buffers),
                Letter::Decided(by) => self.decided(by),
                Letter::Evict => self.evict_if_full(),
                Letter::Look => self.look(),
            }
        }
    }

    /// Takes a connection over, and looks at once: its request has usually come already.
    pub fn welcome(&mut self, newcomer: Newcomer, buffers: &mut Buffers) {
        let now = self.now;
        let key = self.clients.insert_with_key(|key| Some(Box::new(Client::new(key, newcomer, now))));
        let Some(Some(client)) = self.clients.get(key) else { return };
        let flags = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
        if epoll::add(&self.epoll, &client.conn.socket, data_of(key), flags).is_err() {
            // The kernel has no room for one more watch (fs.epoll.max_user_watches).
            self.shared.reject(Rejection::Watches);
            self.clients.remove(key);
            return;
        }
        self.advance(key, buffers);
    }

    /// Goes on with a client as far as it can. A panic costs that client alone.
    pub fn advance(&mut self, key: ClientSlot, buffers: &mut Buffers) {
        self.with_client(key, buffers, |own, client, buffers| {
            for _ in 0..STEPS {
                match own.step(client, buffers) {
                    Go::On => {}
                    go => return go,
                }
            }
            own.again.push(client.conn.key);
            Go::Wait
        });
        self.give_away(key);
    }

    /// Lends a client out of its slot, and puts it back or ends it as `handle` says.
    pub fn with_client(
        &mut self,
        key: ClientSlot,
        buffers: &mut Buffers,
        handle: impl FnOnce(&mut Self, &mut Client, &mut Buffers) -> Go,
    ) {
        let Some(mut client) = self.clients.get_mut(key).and_then(Option::take) else { return };
        let parent = client.conn.parent();
        let handled = catch_unwind(AssertUnwindSafe(|| {
            let go = handle(self, &mut client, buffers);
            self.conclude(client, go)
        }));
        match handled {
            Ok(Some(client)) => {
                if let Some(slot) = self.clients.get_mut(key) {
                    *slot = Some(client);
                }
            }
            Ok(None) => {
                self.clients.remove(key);
            }
            Err(_) => {
                // The client was dropped by the panic, which gave back its leases, seats and counts.
                self.shared.service.observe(FrontendEvent::Panicked);
                self.clients.remove(key);
                if let Some(parent) = parent {
                    self.leave_connection(parent, key, None);
                }
                let orphans = self.backs.by_key.iter().filter(|(_, back)| back.client == Some(key));
                let orphans: Vec<_> = orphans.map(|(back, _)| back).collect();
                orphans.into_iter().for_each(|back| self.backs.close(back));
                self.count_gathered();
            }
        }
    }

    /// Keeps the memory of a request that is over.
    pub fn recycle(&mut self, mut exchange: Box<Exchange>) {
        exchange.upload.body = Vec::new();
        if self.spare.len() < MOST_SPARE {
            self.spare.push(exchange);
        }
    }

    fn until_next_timer(&self) -> Nanos {
        let due = self.timers.peek().map_or(Nanos::MAX, |Reverse((due, _))| *due);
        let due = if self.accepts_again_at > 0 { due.min(self.accepts_again_at) } else { due };
        let longest =
            if self.backs.has_kept() || self.draining_since.is_some() { 1_000_000_000 } else { LONGEST_WAIT };
        due.saturating_sub(self.now).clamp(STEP_OF_TIME, longest)
    }
}
