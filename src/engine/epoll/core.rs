//! What all threads of the engine share.

use std::collections::HashMap;
use std::net::{IpAddr, TcpListener};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use ipnet::IpNet;
use parking_lot::Mutex;
use rustix::event::epoll::{self, EventData, EventFlags};

use super::accept::Idlest;
use super::answer::end;
use super::conn::{Conn, Next, State};
use super::gate::Gate;
use super::keeper::Mail;
use super::queued;
use super::ready::Ready;
use super::seats::Seats;
use super::sockets::{Sockets, Waits};
use super::table::{Table, Taken, Token};
use super::timers::{Due, Phase, Spans};
use super::uploads::Uploads;
use super::wire::descriptor;
use crate::clock::Clock;
use crate::proxy::exchange::FrontendEvent;
use crate::proxy::exchange::{Awaitable, Delivery};
use crate::proxy::service::Service;
use crate::waits::CallObserver;
use balancer_http::framing::request::Bounds;
use balancer_time::Nanos;

/// See the module.
pub(super) struct Core {
    /// Itself, for who calls back later.
    pub me: Weak<Core>,
    pub epoll: OwnedFd,
    pub listeners: Vec<TcpListener>,
    pub table: Table,
    pub gate: Arc<Gate>,
    pub ready: Ready,
    pub sockets: Arc<Sockets>,
    /// This engine's among all of the process.
    pub number: u64,
    pub observer: Arc<dyn CallObserver>,
    pub uploads: Uploads,
    pub seats: Seats,
    pub mail: Mail,
    pub service: Arc<dyn Service>,
    pub clock: Clock,
    pub spans: Spans,
    pub bounds: Bounds,
    pub max_body_bytes: u64,
    pub request_buffer_bytes: usize,
    pub response_buffer_bytes: usize,
    pub max_connections: usize,
    pub abort_on_close: bool,
    pub can_upgrade: bool,
    /// Peers whose first bytes must be a PROXY header; `None` when the option is off.
    pub proxy_peers: Option<ArcSwap<Vec<IpNet>>>,
    pub connections: AtomicUsize,
    pub addresses: Addresses,
    pub idlest: Idlest,
    /// No new connections.
    pub closed_door: AtomicBool,
    /// Answers end their connections.
    pub draining: AtomicBool,
    /// Threads end.
    pub stopping: AtomicBool,
}

/// Event data that names no connection: listeners by their number, the call to end, and a nudge. No descriptor is that large.
const SPECIAL: u64 = 0xFFFF_0000;
/// In the upper half, behind a backend's descriptor: no token's, whose highest bit is not set here.
const UPSTREAM: u64 = 0xFFFF_FFFF << 32;
const END: u64 = 0xFFFF_FFFF;
const NUDGE: u64 = 0xFFFF_FFFE;

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Listener(usize),
    Connection(Token),
    /// A backend's socket.
    Upstream(u32),
    End,
    /// There is something in [`Core::ready`].
    Nudge,
}

/// The event data of a listener.
pub(super) fn listener_data(index: usize) -> EventData {
    EventData::new_u64(SPECIAL + index as u64)
}

/// The event data of the call to end.
pub(super) fn end_data() -> EventData {
    EventData::new_u64(END)
}

/// The event data of a nudge.
pub(super) fn nudge_data() -> EventData {
    EventData::new_u64(NUDGE)
}

/// The event data of a backend's socket.
fn upstream_data(descriptor: u32) -> EventData {
    EventData::new_u64(UPSTREAM | u64::from(descriptor))
}

/// Tells gate and sockets what the service says of its calls.
pub(super) struct Observer {
    pub gate: Arc<Gate>,
    pub sockets: Arc<Sockets>,
}

impl CallObserver for Observer {
    fn began(&self, endpoint: u64) {
        self.gate.began(endpoint);
    }

    fn ended(&self) {
        self.gate.ended();
    }

    fn looking(&self, socket: BorrowedFd<'_>) {
        self.sockets.quiet(descriptor(socket));
    }
}

/// Who an event is about.
pub(super) fn source(data: EventData) -> Source {
    match data.u64() {
        word if word >> 32 == UPSTREAM >> 32 => Source::Upstream(word as u32),
        END => Source::End,
        NUDGE => Source::Nudge,
        word if word & 0xFFFF_FFFF >= SPECIAL => Source::Listener((word & 0xFFFF) as usize),
        word => Source::Connection(Token(word)),
    }
}

impl Core {
    /// Tells the kernel what a connection's own socket waits for, once.
    pub(super) fn arm_client(&self, conn: &Conn, flags: EventFlags) {
        let data = EventData::new_u64(conn.token.0);
        // Fails only when the keeper closed the connection meanwhile.
        let _ = epoll::modify(&self.epoll, &conn.link.wire, data, flags | EventFlags::ONESHOT);
    }

    /// Watches for the end of a connection's client, if nobody does yet, while its request waits for its backend.
    pub(super) fn watch_client(&self, conn: &mut Conn) {
        if !conn.hangup_armed {
            conn.hangup_armed = true;
            let rdhup = if self.abort_on_close { EventFlags::RDHUP } else { EventFlags::empty() };
            self.arm_client(conn, rdhup);
        }
    }

    /// Waits for a connection's backend, of whose socket the kernel is told when it is new. Never blocks.
    pub(super) fn await_socket(&self, conn: &Conn) {
        let Some(Awaitable { socket, registration }) = conn.backend() else { return };
        let (token, descriptor) = (conn.token, descriptor(socket));
        if registration.claim(self.number) {
            self.sockets.begin(descriptor, token);
            let (data, flags) =
                (upstream_data(descriptor), EventFlags::IN | EventFlags::RDHUP | EventFlags::ET);
            // Known already, to a number that another engine has overwritten: looked at anew.
            let told = epoll::add(&self.epoll, socket, data, flags)
                .or_else(|_| epoll::modify(&self.epoll, socket, data, flags));
            if told.is_err() {
                // No memory for it: the next wait tries again, and this one ends by its time.
                registration.release();
            }
        } else if self.sockets.wait(descriptor, token) == Waits::Over {
            self.ready.extend(std::iter::once((Source::Connection(token), EventFlags::IN)));
            if self.gate.is_anybody_waiting() {
                self.ready.nudge.wake();
            }
        }
    }

    /// Parks a connection or ends it, as its last step asks.
    pub fn settle(&self, conn: Box<Conn>, next: Next) {
        self.settle_at(conn, next, self.clock.now());
    }

    /// The same at a time that was read a moment ago.
    pub fn settle_at(&self, mut conn: Box<Conn>, next: Next, now: Nanos) {
        let (due, flags) = match next {
            Next::Readable => (self.readable_due(&mut conn, now), EventFlags::IN),
            Next::LingerOn => {
                (Due::new(Phase::Linger, now.saturating_add(LINGER_SILENCE_NS)), EventFlags::IN)
            }
            // A socket with room in its buffer is writable at once: the event comes as soon as a worker waits.
            Next::Again => (self.again_due(&conn, now), EventFlags::IN | EventFlags::OUT),
            Next::Body => {
                let State::Body(pending) = &conn.state else { return self.close(conn) };
                (Due::new(Phase::Body, pending.pace.due(self.spans.body, &self.spans)), EventFlags::IN)
            }
            Next::ClientWritable => {
                let State::Answer(delivery) = &conn.state else { return self.close(conn) };
                (Due::new(Phase::ClientWritable, delivery.client_due(&self.spans, now)), EventFlags::OUT)
            }
            Next::UploadPlace => return self.queue_upload(conn),
            Next::Backend => return self.await_backend(conn, now),
            Next::UpstreamReadable => return self.await_upstream(conn, now),
            Next::Linger => {
                conn.link.wire.shutdown_write();
                conn.state = State::Linger { dropped: 0, since: now };
                (Due::new(Phase::Linger, now.saturating_add(LINGER_SILENCE_NS)), EventFlags::IN)
            }
            Next::Close => return self.close(conn),
            Next::Reset => {
                conn.link.wire.reset_on_close();
                return self.close(conn);
            }
            Next::Relay(relayed) => return self.mail.relay(conn, relayed),
        };
        conn.hangup_armed = false;
        let back = self.table.put(conn, due, false, |conn| self.arm_client(conn, flags));
        // Only a connection without a slot comes back, and every connection has one.
        drop(back);
    }

    fn readable_due(&self, conn: &mut Conn, now: Nanos) -> Due {
        if conn.inbox.is_empty() && !conn.fresh {
            conn.head_since = 0;
            return Due::new(Phase::Idle, now.saturating_add(self.spans.idle));
        }
        if conn.head_since == 0 {
            conn.head_since = now;
        }
        Due::new(Phase::Head, conn.head_since.saturating_add(self.spans.head))
    }

    fn again_due(&self, conn: &Conn, now: Nanos) -> Due {
        match &conn.state {
            State::Head => Due::new(Phase::Head, now.saturating_add(self.spans.head)),
            State::Body(_) => Due::new(Phase::UploadPlace, now.saturating_add(self.spans.body)),
            State::Queued(queued) if queued.is_late => {
                Due::new(Phase::Answer, now.saturating_add(self.spans.worker_wait))
            }
            State::Queued(queued) => Due::new(Phase::Backend, queued.parked.until()),
            State::Answer(delivery) => Due::new(Phase::ClientWritable, delivery.client_due(&self.spans, now)),
            State::Linger { .. } => Due::new(Phase::Linger, now.saturating_add(LINGER_SILENCE_NS)),
        }
    }

    fn await_upstream(&self, conn: Box<Conn>, now: Nanos) {
        let State::Answer(delivery) = &conn.state else { return self.close(conn) };
        let Some(stream) = &delivery.stream else { return self.close(conn) };
        let silence = balancer_time::nanos(stream.silence_limit());
        let due = Due::new(Phase::UpstreamReadable, now.saturating_add(silence));
        let back = self.table.put(conn, due, true, |conn| {
            self.watch_client(conn);
            self.await_socket(conn);
        });
        if let Some(conn) = back {
            self.abandon(conn, Delivery::ClientGone);
        }
    }

    fn queue_upload(&self, conn: Box<Conn>) {
        let token = conn.token;
        let due = Due::new(Phase::UploadPlace, self.clock.now().saturating_add(self.spans.body));
        // Disarmed until a place is free: what the client sends stays in the kernel.
        drop(self.table.put(conn, due, false, |_| {}));
        self.uploads.wait(token);
        self.admit_uploads();
    }

    /// Lets waiting uploads go on while there are places. Takes the queue's lock and slots' locks, one after the other.
    pub fn admit_uploads(&self) {
        while let Some((token, place)) = self.uploads.take_for_waiting() {
            let Taken::Conn(mut conn) = self.table.take(token, false) else { continue };
            if let State::Body(pending) = &mut conn.state {
                pending.place = Some(place);
            }
            self.settle(conn, Next::Again);
        }
    }

    /// Ends a connection, in the middle of its answer if there is one, and tells the ticket why.
    pub fn abandon(&self, mut conn: Box<Conn>, why: Delivery) {
        let next = match &mut conn.state {
            State::Answer(delivery) => end(delivery, why),
            State::Queued(_) => {
                queued::abandon(&mut conn);
                Next::Reset
            }
            _ => Next::Close,
        };
        self.settle(conn, next);
    }

    /// Closes a connection: out of epoll, out of its slot, and only then closed, when its last holder lets go.
    pub fn close(&self, conn: Box<Conn>) {
        let _ = epoll::delete(&self.epoll, &conn.link.wire);
        self.table.vacate(conn.token);
        self.addresses.leave(conn.link.address);
        self.connections.fetch_sub(1, Ordering::SeqCst);
        drop(conn);
    }

    pub fn reject(&self, reason: &'static str) {
        self.service.observe(FrontendEvent::Rejected(reason));
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }
}

/// How long a closing connection may be silent.
pub(super) const LINGER_SILENCE_NS: u64 = 2_000_000_000;
/// How long it may take in all.
pub(super) const LINGER_TOTAL_NS: u64 = 10_000_000_000;
/// How much of what the client still sends is dropped before it is reset: bodies of a usual size, so that a client that
/// sends all before it reads finds the answer.
pub(super) const LINGER_BYTES: usize = 32 * 1024 * 1024;

/// How many connections each address has.
pub(super) struct Addresses {
    max: usize,
    shards: Box<[Mutex<HashMap<IpAddr, usize>>]>,
}

const SHARDS: usize = 16;

impl Addresses {
    pub fn new(max: usize) -> Self {
        Self { max, shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }

    fn shard(&self, address: IpAddr) -> &Mutex<HashMap<IpAddr, usize>> {
        let last = match address {
            IpAddr::V4(address) => address.octets()[3],
            IpAddr::V6(address) => address.octets()[7] ^ address.octets()[15],
        };
        &self.shards[last as usize % SHARDS]
    }

    /// Counts one more, if that is allowed. Takes the shard's lock.
    pub fn enter(&self, address: IpAddr) -> bool {
        let mut shard = self.shard(address).lock();
        let count = shard.entry(address).or_insert(0);
        if *count >= self.max {
            return false;
        }
        *count += 1;
        true
    }

    /// Counts one less. Takes the shard's lock.
    pub fn leave(&self, address: IpAddr) {
        let mut shard = self.shard(address).lock();
        if let Some(count) = shard.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                shard.remove(&address);
            }
        }
    }
}
