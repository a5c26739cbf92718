//! A worker: waits for one event, does what it allows, parks the connection again. It never dies: a panic costs its
//! own request.

use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use rustix::event::Timespec;
use rustix::event::epoll::{self, EventFlags};
use rustix::io::Errno;

use super::answer::after_push;
use super::conn::{Conn, Next, State};
use super::core::{Core, LINGER_BYTES, LINGER_TOTAL_NS, Source, source};
use super::deliver::Pushed;
use super::ready::{AT_ONCE, Event};
use super::table::Taken;
use super::wire::{Received, timespec};
use crate::proxy::exchange::FrontendEvent;
use crate::waits;
use balancer_http::message::RequestHead;
use balancer_time::Nanos;

/// One of the engine's threads. Buffers are its own, so that connections need none while they wait.
pub(super) struct Worker {
    pub core: Arc<Core>,
    pub number: usize,
    /// Whether it may wait in the service; the keeper, which stands in when nobody is free, may not.
    pub attended: bool,
    /// What was received: a head and what came behind it.
    pub inbox: Box<[u8]>,
    pub desk: Desk,
}

/// What a worker writes with.
pub(super) struct Desk {
    /// The last reading of the clock, at most one step of a request old: reading it for each would be felt.
    pub now: Nanos,
    pub head: RequestHead,
    /// Heads of requests that are over, for their memory.
    pub spare_heads: Vec<RequestHead>,
    /// A decoded chunked body.
    pub body: Vec<u8>,
    /// An answer's head.
    pub out: Vec<u8>,
    /// An answer's body on its way through, and an upload's framing.
    pub scratch: Box<[u8]>,
}

/// Room behind the longest head: small bodies arrive with their heads, and pipelined requests with each other.
const INBOX_BEYOND_HEAD: usize = 16 * 1024;
/// What an answer's head usually needs.
const OUT_BYTES: usize = 2048;
/// Most of a response body that passes at once; more would only wait for the client.
const MAX_SCRATCH: usize = 64 * 1024;
const MIN_SCRATCH: usize = 4 * 1024;

impl Worker {
    pub fn new(core: Arc<Core>, number: usize, attended: bool) -> Self {
        let nobody = std::net::SocketAddr::from(([0, 0, 0, 0], 0));
        let scratch = core.response_buffer_bytes.clamp(MIN_SCRATCH, MAX_SCRATCH);
        Self {
            number,
            attended,
            inbox: vec![0; core.bounds.max_head_bytes + INBOX_BEYOND_HEAD].into_boxed_slice(),
            desk: Desk {
                now: core.clock.now(),
                head: RequestHead::blank(nobody),
                spare_heads: Vec::new(),
                body: Vec::new(),
                out: Vec::with_capacity(OUT_BYTES),
                scratch: vec![0; scratch].into_boxed_slice(),
            },
            core,
        }
    }

    /// Works until the engine stops.
    pub fn run(mut self) {
        let core = Arc::clone(&self.core);
        waits::observe(Arc::clone(&core.observer));
        core.gate.enter(self.number);
        while !core.is_stopping() {
            if let Some((source, flags)) = next_event(&core, self.number) {
                self.handle(source, flags);
                core.gate.end_work(self.number);
            }
        }
    }

    /// Takes events that are ready, on behalf of workers of whom none is free. Never waits.
    pub fn stand_in(&mut self) {
        const AT_ONCE: usize = 256;
        let core = Arc::clone(&self.core);
        for _ in 0..AT_ONCE {
            let event = core.ready.pop().or_else(|| take_events(&core, 1, Some(&timespec(0))).first);
            let Some((source, flags)) = event else { return };
            self.handle(source, flags);
        }
    }

    fn handle(&mut self, source: Source, flags: EventFlags) {
        match source {
            Source::End | Source::Nudge => {}
            Source::Listener(index) => self.core.accept(index),
            Source::Upstream(descriptor) => {
                let take = |token| match self.core.table.take(token, false) {
                    Taken::Conn(conn) => Some(conn),
                    Taken::Busy | Taken::Gone => None,
                };
                if let Some(conn) = self.core.sockets.hear(descriptor, take) {
                    self.go_on_with(conn, false);
                }
            }
            Source::Connection(token) => {
                let hangup = flags.intersects(EventFlags::HUP | EventFlags::ERR | EventFlags::RDHUP);
                if let Taken::Conn(conn) = self.core.table.take(token, hangup) {
                    self.go_on_with(conn, hangup);
                }
            }
        }
    }

    fn go_on_with(&mut self, mut conn: Box<Conn>, hangup: bool) {
        if self.attended
            && matches!(conn.state, State::Head | State::Body(_))
            && self.core.must_wait(&conn, self.desk.now)
        {
            return self.core.queue_for_seat(conn, self.core.clock.now());
        }
        // The panic's message and place went to the log through the hook; what is left is to close the connection.
        let next = catch_unwind(AssertUnwindSafe(|| self.advance(&mut conn, hangup)));
        let next = next.unwrap_or_else(|_| {
            self.core.service.observe(FrontendEvent::Panicked);
            Next::Reset
        });
        conn.seat = None;
        self.core.settle_at(conn, next, self.desk.now);
        self.core.admit_waiting(self.desk.now);
    }

    pub(super) fn advance(&mut self, conn: &mut Conn, hangup: bool) -> Next {
        match &mut conn.state {
            State::Head => self.receive(conn),
            State::Body(_) => self.receive_body(conn),
            State::Queued(_) => self.go_on(conn, hangup),
            State::Answer(_) => self.resume(conn, hangup),
            State::Linger { .. } => self.linger(conn),
        }
    }

    /// Goes on with an answer, now that the client takes more or the backend has more.
    fn resume(&mut self, conn: &mut Conn, hangup: bool) -> Next {
        let State::Answer(delivery) = &mut conn.state else { return Next::Close };
        if hangup && conn.hangup_armed {
            return after_push(conn, Pushed::ClientGone);
        }
        self.desk.now = self.core.clock.now();
        let pushed = delivery.push(&conn.link.wire, &[], &mut self.desk.scratch, self.desk.now);
        after_push(conn, pushed)
    }

    fn linger(&mut self, conn: &mut Conn) -> Next {
        const AT_ONCE: usize = 16;
        let State::Linger { dropped, since } = &mut conn.state else { return Next::Close };
        for _ in 0..AT_ONCE {
            match conn.link.wire.recv(&mut self.desk.scratch) {
                Received::Bytes(bytes) => *dropped += bytes,
                Received::Nothing => break,
                Received::End | Received::Broken => return Next::Close,
            }
        }
        self.desk.now = self.core.clock.now();
        let over = self.desk.now.saturating_sub(*since) > LINGER_TOTAL_NS || *dropped > LINGER_BYTES;
        if over { Next::Close } else { Next::LingerOn }
    }
}

/// Waits for something to do; `None` when there is nothing after all.
fn next_event(core: &Core, worker: usize) -> Option<Event> {
    if let Some(event) = core.ready.pop() {
        core.gate.took(worker);
        return Some(event);
    }
    core.gate.count_or_park(worker);
    let is_alone = core.gate.before_wait();
    // Once more, now that whoever adds events sees this worker wait.
    if let Some(event) = core.ready.pop() {
        core.gate.after_wait(worker);
        return Some(event);
    }
    // With others waiting, each of them takes its own.
    let TakenEvents { first, any_left } = take_events(core, if is_alone { AT_ONCE } else { 1 }, None);
    if any_left && core.gate.is_another_waiting() {
        core.ready.nudge.wake();
    }
    core.gate.after_wait(worker);
    first
}

/// What the kernel gave out.
struct TakenEvents {
    first: Option<Event>,
    /// More are with [`Core::ready`].
    any_left: bool,
}

fn take_events(core: &Core, at_most: usize, timeout: Option<&Timespec>) -> TakenEvents {
    let mut events = [MaybeUninit::uninit(); AT_ONCE];
    match epoll::wait(&core.epoll, &mut events[..at_most], timeout) {
        Ok((events, _)) => {
            let mut events = events.iter().map(|event| (source(event.data), event.flags));
            let first = events.next();
            let any_left = events.len() > 0;
            if any_left {
                core.ready.extend(events);
            }
            TakenEvents { first, any_left }
        }
        Err(error) => {
            if error != Errno::INTR {
                // Nothing that the kernel documents for a valid instance; a pause keeps it from becoming a busy loop.
                log::error!("epoll_wait: {error}");
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
            TakenEvents { first: None, any_left: false }
        }
    }
}
